"""What is kept of a network whose pictures became larger or smaller, and whether it opens again."""

import json
from dataclasses import asdict

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

from safetensors.torch import save_file  # noqa: E402

import retain  # noqa: E402
from retain import train  # noqa: E402
from retain.train import Plan, transfer  # noqa: E402
from retain.train.backbones import Network  # noqa: E402
from retain.train.keeping import Kept, keep, keep_module  # noqa: E402
from retain.vision import Preprocess, prepare  # noqa: E402

from .conftest import stir  # noqa: E402
from .test_adapt import ASKED, photo, said  # noqa: E402

CLASSES = ["rows", "columns"]
SHORT = transfer(epochs=1, batch=8, rate=0.002)
LATE = Plan(last=1, batchnorm="frozen")


def own(classes=2):
    """torchvision's vision transformer, small, for pictures of 64 pixels."""
    return stir(torchvision.models.VisionTransformer(64, 16, 2, 2, 32, 32, num_classes=classes))


def adopted(folder, kind):
    """A small vision transformer for 64 pixels, and how its module is given where it must be."""
    if kind == "module":
        shop = retain.adopt(folder / "a", own(), size=64, labels=CLASSES, preprocess="imagenet")
        return shop, own
    built = train.build("timm:vit_tiny_patch16_224", 2, size=64)
    file = folder / "w.safetensors"
    save_file({k: v.contiguous() for k, v in stir(built.module).state_dict().items()}, file)
    options = {"weights": file, "labels": CLASSES, "size": 64}
    return retain.adopt(
        folder / "a", "timm:vit_tiny_patch16_224", **options
    ), lambda classes=2: None


def alike(shop, path, module):
    """The exported file says of prepared pictures what `predict` says of them."""
    network = train.load_exported(path, module)
    rule = Preprocess.from_json(network.preprocess)
    rows = torch.from_numpy(np.concatenate([prepare(each, rule) for each in ASKED]))
    with torch.no_grad():
        found = network(rows).numpy()
    told = [{s.label: s.probability for s in p.top} for p in shop.predict(ASKED, top=9)]
    wanted = np.array([[each[label] for label in network.labels] for each in told])
    assert np.ptp(wanted, 0).max() > 0, "one answer to everything proves nothing"
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(("kind", "method"), [("name", "lwf"), ("module", None), ("module", "lwf")])
def test_a_transformer_that_was_resized_learns_on_and_is_exported(tmp_path, kind, method):
    shop, module = adopted(tmp_path, kind)
    with shop:
        for place, label in enumerate(CLASSES):
            shop.learn([photo(place, seed) for seed in range(6)], label, force=True)
        options = {"recipe": SHORT, "force": True, "module": module()}
        shop.adapt(LATE, size=96, **options)
        shop.export(tmp_path / "first.safetensors", format="torch", module=module())
        alike(shop, tmp_path / "first.safetensors", module())
        shop.learn([photo(2, seed) for seed in range(6)], "checks", force=True)
        options["module"] = module()
        shop.adapt(LATE, method="lwf", **options)
        rule = shop._session.extractor.rule
        assert (rule.height, rule.width) == (96, 96), "what no one asked to change stays"
        shop.learn(photo(2, 9), "checks", force=True)
        options["module"] = module()
        shop.adapt(LATE, method=method, size=48, **options)
        shop.export(tmp_path / "third.safetensors", format="torch", module=module())
        answers = said(shop)
    with retain.open(tmp_path / "a") as again:
        assert said(again) == answers
        alike(again, tmp_path / "third.safetensors", module())
        assert again.verify(deep=True).ok


class Unbiased(torch.nn.Module):
    """Somebody's own network, whose last layer adds nothing."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.Flatten()
        )
        self.last = torch.nn.Linear(8 * 15 * 15, 2, bias=False)

    def forward(self, x):
        return self.last(self.body(x))


def test_a_module_of_ones_own_grows_by_itself(tmp_path):
    """As it is built by its owner: neither its classes nor a bias have to be added by hand."""
    network = stir(Unbiased())
    with retain.adopt(
        tmp_path / "a", network, size=32, labels=CLASSES, preprocess="imagenet"
    ) as shop:
        for place, label in enumerate((*CLASSES, "checks")):
            shop.learn([photo(place, seed) for seed in range(6)], label, force=True)
            if place:
                options = {"recipe": SHORT, "force": True, "module": Unbiased()}
                shop.adapt(Plan(batchnorm="frozen"), method="lwf", **options)
        shop.export(tmp_path / "out.safetensors", format="torch", module=Unbiased())
        alike(shop, tmp_path / "out.safetensors", Unbiased())
        with pytest.raises(retain.CannotAdopt, match=r"do not fit module:.*give one of that class"):
            shop.adapt(LATE, method="lwf", recipe=SHORT, module=torch.nn.Linear(2, 2))


def test_windows_are_made_for_the_size_too():
    """Swin's windows follow its size when it is set, and not when it is built for it."""
    options = {"depths": (1, 1), "embed_dim": 24, "num_heads": (2, 2)}
    name = "swin_tiny_patch4_window7_224"
    module = stir(timm.create_model(name, num_classes=3, **options))
    network = Network(module, f"timm:{name}", (3, 224, 224), 3, "head.fc", None, {}, (), options)
    for side in (160, 232):  # of other windows, and of the same on other maps
        larger, _ = train.resized(module, (side, side), (224, 224))
        again, _ = train.rebuilt_network(train.kept_again(keep(network), larger, 3, (side, side)))
        x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(again(x), larger(x), rtol=0, atol=0)


def told(kept):
    return json.loads(
        json.loads(kept[8 : 8 + int.from_bytes(kept[:8], "little")])["__metadata__"][
            "retain.network"
        ]
    )


def test_only_what_needs_a_size_keeps_one():
    whole = timm.create_model("mobilenetv3_small_050", num_classes=3)
    network = Network(whole, "timm:mobilenetv3_small_050", (3, 224, 224), 3, "classifier", None,
                      {}, ())  # fmt: skip
    kept = keep(network)
    assert told(train.kept_again(kept, whole, 3, (96, 96))) == told(kept)
    kept = keep_module(own(), 2)
    assert told(kept).get("size") is None
    once = train.kept_again(kept, train.resized(own(), (96, 96), (64, 64))[0], 2, (96, 96))
    assert told(once)["size"] == [96, 96]
    assert told(train.kept_again(once, own(), 2))["size"] == [96, 96], "as it was, if none is said"


def test_files_of_before_sizes_were_kept_still_open():
    told = asdict(Kept("module", "a.B", "heads.head", 2, {}))
    told.pop("size")
    assert Kept.from_json(json.dumps(told)) == Kept("module", "a.B", "heads.head", 2, {})
    for wrong in ([96], [96, 0], "96", [96, 9.5], [True, 96]):
        with pytest.raises(ValueError, match="a value is impossible"):
            Kept.from_json(json.dumps({**told, "size": wrong}))


def test_a_size_that_the_network_cannot_have_is_told():
    kept = Kept("module", "a.B", "heads.head", 2, {}, (90, 90))
    with pytest.raises(retain.CannotAdopt, match="multiple of its patches"):
        kept.build(own())
