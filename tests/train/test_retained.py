"""A taught classifier given back as a PyTorch module."""

import json
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

import retain  # noqa: E402
from retain import train  # noqa: E402
from retain.vision import Preprocess, decode, prepare, shipped_pictures  # noqa: E402
from tests.verbs.adopted import model, pictures  # noqa: E402

from .conftest import stir  # noqa: E402

LABELS = ["wasp", "ant", "cat", "bee"]


class Own(nn.Module):
    """Somebody's own; what follows its last layer is in it."""

    def __init__(self, last=None):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, 2), nn.BatchNorm2d(12), nn.ReLU())
        self.classify = nn.Sequential(nn.Dropout(0.5), nn.Linear(12, 4))
        self.last = last or nn.Identity()

    def forward(self, x):
        return self.last(self.classify(self.body(x).mean((2, 3))))


def photos():
    return shipped_pictures(24)


def probabilities(shop, files):
    """[n, C] in the order of the classes, by `predict`."""
    found = [{s.label: s.probability for s in p.top} for p in shop.predict(files, top=99)]
    return np.array([[each[label] for label in shop.labels] for each in found])


def tensors(network, files):
    rule = Preprocess.from_json(network.preprocess)
    return torch.from_numpy(
        np.concatenate([prepare(decode(f, shorter=rule.needs), rule) for f in files])
    )


def teach(shop):
    """A new class, a pin, an exception."""
    files = photos()
    shop.learn(files[:6], "elk", force=True)
    shop.correct(files[7], "fox", force=True)
    shop.correct(files[9], "ant", exception=True, force=True)
    return files


def holds(shop, path, module=None):
    """The file gives what `predict` says, one picture at a time and all at once."""
    network, files = train.load_exported(path, module), photos()
    assert network.labels == shop.labels
    assert not network.training
    with torch.no_grad():
        x = tensors(network, files)
        together, alone = network(x), torch.cat([network(one[None]) for one in x])
    wanted = probabilities(shop, files)
    np.testing.assert_allclose(alone, wanted, atol=1e-4)
    np.testing.assert_allclose(together, wanted, atol=1e-3)  # another order of sums
    assert alone.numpy().argmax(1).tolist() == wanted.argmax(1).tolist()
    return network


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:resnet18", {}),
        ("timm:vit_tiny_patch16_224", {}),
        ("timm:mobilenetv3_small_050", {}),
        ("torchvision:squeezenet1_1", {}),
        ("torchvision:mobilenet_v2", {}),
    ],
)
@pytest.mark.slow
def test_a_network_by_name(tmp_path, name, options):
    built = train.build(name, 4, options=options)
    stir(built.module)
    with torch.no_grad():
        # Random features are long: one that is rounded otherwise than by ONNX Runtime, as one in
        # some thousands is, would be seen in the fourth digit.
        dict(built.module.named_modules())[built.head].weight *= 0.1
    file = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in built.module.state_dict().items()}, file)
    try:
        shop = retain.adopt(tmp_path / "a", name, weights=file, labels=LABELS)
    except retain.CannotAdopt:
        assert "squeezenet" in name  # its last map is before the pooling
        return
    with shop:
        shop.export(tmp_path / "untouched.safetensors", format="torch")
        holds(shop, tmp_path / "untouched.safetensors")
        teach(shop)
        made = shop.export(tmp_path / "out.safetensors", format="torch")
        assert (made.format, made.classes) == ("torch", 6)
        assert made.worst_difference <= 1e-4
        network = holds(shop, tmp_path / "out.safetensors")
    # All layers but the last are those that were given, under their names.
    given, found = load_file(file), network.network.state_dict()
    same = [k for k in given if k in found and torch.equal(given[k], found[k])]
    assert {k for k in given if k not in same} == {f"{built.head}.weight", f"{built.head}.bias"}
    assert found[f"{built.head}.weight"].shape[0] == 6


@pytest.mark.parametrize(
    "last", [None, nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid(), nn.Flatten()]
)
def test_a_module_of_ones_own(tmp_path, last):
    module = stir(Own(last))
    with retain.adopt(
        tmp_path / "a", module, size=32, labels=LABELS, preprocess="imagenet"
    ) as shop:
        teach(shop)
        with pytest.raises(retain.BadOption, match=r"test_retained\.Own.*give it as module="):
            shop.export(tmp_path / "out.safetensors", format="torch")
        assert not (tmp_path / "out.safetensors").exists()
        shop.export(tmp_path / "out.safetensors", format="torch", module=Own(last))
        holds(shop, tmp_path / "out.safetensors", Own(last))


def test_what_follows_the_last_layer_is_found_out(tmp_path):
    """Its scores are doubled: in retain's weights already, and once more in the module."""

    class Doubling(nn.Module):
        def forward(self, x):
            return 2 * x

    module = stir(Own(Doubling()))
    with retain.adopt(
        tmp_path / "a", module, size=32, labels=LABELS, preprocess="imagenet"
    ) as shop:
        shop.export(tmp_path / "out.onnx")
        with pytest.raises(retain.NotExported, match="answer otherwise"):
            shop.export(tmp_path / "out.safetensors", format="torch", module=Own(Doubling()))
        assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "out.onnx"]


def test_it_goes_on_learning_in_pytorch(tmp_path):
    """Gradients reach the head and what is before it."""
    with retain.adopt(
        tmp_path / "a", stir(Own()), size=32, labels=LABELS, preprocess="imagenet"
    ) as shop:
        files = teach(shop)
        shop.export(tmp_path / "out.safetensors", format="torch", module=Own())
    network = train.load_exported(tmp_path / "out.safetensors", Own())
    x = tensors(network, files[:8])
    before = network(x)[:, 1].sum().item()
    step = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(5):
        step.zero_grad()
        (-network(x)[:, 1].log().sum()).backward()
        assert all(p.grad is not None for p in network.parameters())
        step.step()
    assert network(x)[:, 1].sum().item() > before


@pytest.mark.slow
def test_the_shipped_network(tmp_path):
    """timm has it too; normalisations are folded into the tensors that are shipped."""
    files = photos()
    with retain.create(tmp_path / "a") as shop:
        shop.learn(files[:8], "mug")
        shop.learn(files[8:16], "cup", force=True)
        shop.correct(files[20], "jug", force=True)
        shop.correct(files[21], "cup", exception=True, force=True)
        shop.export(tmp_path / "out.safetensors", format="torch")
        network = holds(shop, tmp_path / "out.safetensors")
    assert type(network.network).__name__ == "EfficientNet"
    assert network.network.classifier.power == 0.85


def test_adopted_by_name_at_another_size(tmp_path):
    built = train.build("timm:mobilenetv3_small_050", 4, size=64)
    stir(built.module)
    file = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in built.module.state_dict().items()}, file)
    name = "timm:mobilenetv3_small_050"
    with retain.adopt(tmp_path / "a", name, weights=file, labels=LABELS, size=64) as shop:
        rule = shop._session.extractor.rule
        assert (rule.height, rule.width) == (64, 64)
        x = np.concatenate([prepare(decode(f, shorter=rule.needs), rule) for f in photos()])
        with torch.no_grad():
            wanted = built.module(torch.from_numpy(x)).argmax(1).tolist()
        assert [LABELS.index(p.label) for p in shop.predict(photos())] == wanted
    with pytest.raises(retain.BadOption, match="leave size out"):
        retain.adopt(tmp_path / "b", tmp_path / "a", labels=LABELS, size=64)
    with pytest.raises(retain.CannotAdopt, match="weights alone; name the network"):
        retain.adopt(tmp_path / "b", file, labels=LABELS)


def test_a_packed_one_can_still_be_exported(tmp_path):
    with retain.adopt(
        tmp_path / "a", stir(Own()), size=32, labels=LABELS, preprocess="imagenet"
    ) as shop:
        shop.pack(tmp_path / "a.retain")
        digest = shop.digest
    with retain.unpack(tmp_path / "a.retain", tmp_path / "b") as again:
        again.export(tmp_path / "out.safetensors", format="torch", module=Own())
        holds(again, tmp_path / "out.safetensors", Own())
        assert again.digest == digest


def test_a_version_is_exported_as_it_was(tmp_path):
    with retain.adopt(
        tmp_path / "a", stir(Own()), size=32, labels=LABELS, preprocess="imagenet"
    ) as shop:
        shop.learn(photos()[:6], "elk", force=True)
        shop.correct(photos()[7], "fox", force=True)
        made = shop.export(tmp_path / "out.safetensors", format="torch", module=Own(), version=1)
        assert (made.version, made.classes) == (1, 5)
        with pytest.raises(retain.AlreadyExists):
            shop.export(tmp_path / "out.safetensors", format="torch", module=Own())
        shop.export(tmp_path / "out.safetensors", format="torch", module=Own(), overwrite=True)
        holds(shop, tmp_path / "out.safetensors", Own())


def test_where_the_module_is_not_known(tmp_path):
    source = model(tmp_path / "theirs.onnx")
    with retain.adopt(tmp_path / "a", source, labels=LABELS, preprocess="raw") as shop:
        shop.learn(pictures(5, tint=1), "elk", force=True)
        with pytest.raises(retain.BadOption, match=r"ONNX graph only.*export it as ONNX"):
            shop.export(tmp_path / "out.safetensors", format="torch")
        with pytest.raises(retain.BadOption, match="'keras' is not one of onnx, torch"):
            shop.export(tmp_path / "out.safetensors", format="keras")
    assert not (tmp_path / "out.safetensors").exists()


def test_bad_files(tmp_path):
    module = Own()
    with retain.adopt(
        tmp_path / "a", stir(Own()), size=32, labels=LABELS, preprocess="imagenet"
    ) as shop:
        shop.export(tmp_path / "good.safetensors", format="torch", module=module)
    data = (tmp_path / "good.safetensors").read_bytes()
    bad = tmp_path / "bad.safetensors"
    with pytest.raises(retain.BadOption, match="cannot be read"):
        train.load_exported(tmp_path / "nowhere", Own())
    for junk in (b"", b"junk", data[:-3], data[:200], b"\xff" * 64):
        bad.write_bytes(junk)
        with pytest.raises(retain.Damaged, match="not a whole safetensors"):
            train.load_exported(bad, Own())
    save_file(Own().state_dict(), bad)
    with pytest.raises(retain.BadOption, match="not exported by retain"):
        train.load_exported(bad, Own())

    class Other(Own):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 12, 5, 2), nn.BatchNorm2d(12), nn.ReLU())

    for other in (Other(), nn.Linear(3, 4)):
        with pytest.raises(retain.CannotAdopt, match=r"do not fit module:.*Own"):
            train.load_exported(tmp_path / "good.safetensors", other)
    told = header(data)
    for key, value in (
        ("retain.labels", '["a"]'),
        ("retain.labels", "["),
        ("retain.head", '{"power": "x", "margin": 0}'),
        ("retain.head", "[]"),
        ("retain.activation", "tanh"),
        ("retain.preprocess", "["),
    ):
        save_file(load_file(tmp_path / "good.safetensors"), bad, {**told, key: value})
        with pytest.raises(retain.BadOption, match="not what retain export wrote"):
            train.load_exported(bad, Own())
    for network in ("[]", "{}", '{"library": 1}', "{"):
        save_file(
            load_file(tmp_path / "good.safetensors"), bad, {**told, "retain.network": network}
        )
        with pytest.raises(retain.Damaged, match="does not say what network"):
            train.load_exported(bad, Own())


def header(data):
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


def test_damaged_weights_beside_the_graph_are_told(tmp_path):
    with retain.adopt(
        tmp_path / "a", stir(Own()), size=32, labels=LABELS, preprocess="imagenet"
    ) as shop:
        (kept,) = shop.path.rglob(train.FILE)
        whole = kept.read_bytes()
        kept.write_bytes(whole[:-9])
        with pytest.raises(retain.Damaged, match=r"weights\.safetensors"):
            shop.export(tmp_path / "out.safetensors", format="torch", module=Own())
        # A flipped weight shows in the answers.
        kept.write_bytes(whole)
        tensors = load_file(kept)
        tensors["body.0.weight"][3, 1, 1, 1] += 1
        save_file(tensors, kept, header(whole))
        with pytest.raises(retain.NotExported):
            shop.export(tmp_path / "out.safetensors", format="torch", module=Own())
        assert not (tmp_path / "out.safetensors").exists()


def test_nothing_of_ours_is_needed_to_read_the_tensors(tmp_path):
    with retain.adopt(
        tmp_path / "a", stir(Own()), size=32, labels=LABELS, preprocess="imagenet"
    ) as shop:
        shop.export(tmp_path / "out.safetensors", format="torch", module=Own())
    code = (
        "import sys; from safetensors.torch import load_file\n"
        "print(sorted(load_file(sys.argv[1])), 'retain' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out.safetensors"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'body.0.weight'" in done.stdout
    assert "'classify.1.weight'" in done.stdout
    assert done.stdout.strip().endswith("False")
