"""Other input sizes, and the residual network for 32 pixels."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

from retain.errors import BadOption  # noqa: E402
from retain.train import loaded  # noqa: E402
from retain.train.cifar import cifar_resnet  # noqa: E402
from retain.train.sizes import least_side, resized  # noqa: E402

from .conftest import answers, stir  # noqa: E402

FULL = (224, 224)


def run(module, side):
    with torch.no_grad():
        return module.eval()(
            torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        )


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_050", "convnext_atto"])
def test_convolutional_networks_stay_as_they_are(name):
    module = stir(timm.create_model(name, num_classes=3))
    changed, notes = resized(module, (96, 96), FULL)
    assert "trained at 224×224 pixels, not 96×96" in notes[0]
    torch.testing.assert_close(run(changed, 96), run(module, 96), rtol=0, atol=0)
    assert resized(module, FULL, FULL)[1] == ()
    tiny = resized(module, (32, 32), FULL)[1]
    assert "the last maps are 1×1" in tiny[-1]


def test_positions_of_a_transformer_are_interpolated():
    module = stir(timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=2))
    with pytest.raises(AssertionError):
        run(module, 160)
    changed, notes = resized(module, (160, 160), FULL)
    assert run(changed, 160).shape == (2, 3)
    assert changed.pos_embed.shape == (1, 1 + 100, 192)
    assert "interpolated" in notes[1]
    assert module.pos_embed.shape == (1, 197, 192)
    torch.testing.assert_close(changed.pos_embed[:, :1], module.pos_embed[:, :1])


def test_positions_of_torchvisions_transformer():
    make = torchvision.models.VisionTransformer
    module = stir(make(64, 16, 2, 2, 32, 32, num_classes=3))
    changed, _ = resized(module, (96, 96), (64, 64))
    assert run(changed, 96).shape == (2, 3)
    assert changed.encoder.pos_embedding.shape == (1, 37, 32)
    # In the middle a slope stays a slope: 8 steps of one, seen from 12 places.
    module = make(128, 16, 1, 2, 32, 32, num_classes=3)
    with torch.no_grad():
        module.encoder.pos_embedding[:, 1:] = torch.arange(8.0).repeat(8).view(1, 64, 1)
    found = resized(module, (192, 192), (128, 128))[0].encoder.pos_embedding[0, 1:, 0]
    slopes = torch.diff(found.detach().view(12, 12), dim=1)[:, 4:7]
    np.testing.assert_allclose(slopes.numpy(), 8 / 12, atol=1e-4)
    with pytest.raises(BadOption, match="give a multiple of its patches"):
        resized(module, (90, 90), (128, 128))


@pytest.mark.parametrize(
    ("library", "name", "least"),
    [("torchvision", "vgg11", 32), ("timm", "vgg11", 32), ("torchvision", "inception_v3", 75),
     ("timm", "inception_v3", 75)],
)  # fmt: skip
def test_minimum_sizes(library, name, least):
    """The table is true: the least side works, one pixel less does not."""
    if library == "timm":
        module = timm.create_model(name, num_classes=3)
    else:
        extra = {"init_weights": False}
        module = torchvision.models.get_model(name, weights=None, num_classes=3, **extra)
    assert least_side(module) == least
    changed, notes = resized(module, (least, least), FULL)
    assert any("the last maps are 1×1" in each for each in notes)
    run(changed, least)
    with pytest.raises(BadOption, match=f"needs at least {least}×{least}"):
        resized(module, (least - 1, least - 1), FULL)
    with pytest.raises((RuntimeError, AssertionError, ValueError)):
        run(module, least - 1)


def test_what_fails_says_so():
    fixed = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 2))
    with pytest.raises(BadOption, match="fails on pictures of 9×9"):
        resized(fixed, (9, 9), (8, 8))
    with pytest.raises(BadOption, match="0×4 pixels cannot be"):
        resized(fixed, (0, 4), (8, 8))


# -- He 2016 for 32 pixels --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_sizes_of_the_paper(depth, millions):
    """Table 6 of He 2016."""
    module = cifar_resnet(10, depth).module
    weighty = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighty) == depth
    total = sum(each.numel() for each in module.parameters()) / 1e6
    assert total == pytest.approx(millions, abs=0.05 if depth == 110 else 0.0051)


def test_it_is_the_published_network(resnet32):
    from safetensors.torch import load_file

    published = load_file(resnet32)
    network = cifar_resnet(10)
    own = network.module.state_dict()
    counted = {name: t for name, t in own.items() if not name.endswith("num_batches_tracked")}
    assert {n: t.shape for n, t in counted.items()} == {
        n: t.shape for n, t in published.items() if not n.endswith("num_batches_tracked")
    }
    module = loaded(network.module, resnet32).eval()
    x = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    onnx = resnet32.with_suffix(".onnx")
    if not onnx.exists():
        pytest.skip(f"{onnx} is missing")
    found, _, _ = answers(onnx.read_bytes(), x)
    with torch.no_grad():
        mine = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(mine, found, rtol=0, atol=1e-4 * np.abs(found).max())
    assert found.std() > 0.1


def test_the_plain_network_is_the_residual_one_without_what_goes_past():
    """A slow twin of He 2016, §3.3 and §4.2: two convolutions a block, one after the other."""
    network = cifar_resnet(10, 8, seed=3, shortcuts=False)
    residual = cifar_resnet(10, 8, seed=3)
    assert network.name == "retain:plain8"
    own, other = network.module.state_dict(), residual.module.state_dict()
    assert own.keys() == other.keys()
    scales = {name for name in own if name.endswith(".bn2.weight")}
    assert all(torch.equal(own[name], other[name]) for name in own if name not in scales)
    assert all((own[name] == 1).all() and not other[name].any() for name in scales)
    residual.module.load_state_dict(own)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    functional = torch.nn.functional

    def layer(y, place, number, stride):
        norm = {part: own[f"{place}bn{number}.{part}"] for part in ("weight", "bias")}
        moments = [own[f"{place}bn{number}.running_{part}"] for part in ("mean", "var")]
        y = functional.conv2d(y, own[f"{place}conv{number}.weight"], stride=stride, padding=1)
        return functional.batch_norm(y, *moments, **norm).relu()

    y = layer(x, "", 1, 1)
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        y = layer(y, f"layer{stage}.0.", 1, stride)
        y = layer(y, f"layer{stage}.0.", 2, 1)
    expected = functional.linear(y.mean((2, 3)), own["linear.weight"], own["linear.bias"])
    with torch.no_grad():
        found, past = network.module(x), residual.module(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(found, past, atol=1e-2)


def test_an_untrained_block_is_its_shortcut():
    """Goyal 2017, §5.1."""
    module = cifar_resnet(10, 14, seed=3).module
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = module.bn1(module.conv1(x)).relu()
        for more in (8, 16):
            y = torch.nn.functional.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, more, more))
        expected = module.linear(y.mean((2, 3)))
        torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-6)


def test_projections_are_option_b():
    """A slow twin of He 2016, §3.3: a 1×1 convolution and a normalisation where maps change."""
    network = cifar_resnet(10, 8, seed=3, shortcuts="projections", zero_init=False)
    assert network.name == "retain:resnet8b"
    own = network.module.state_dict()
    without = cifar_resnet(10, 8, seed=3, zero_init=False).module.state_dict()
    more = {name for name in own if ".projection." in name}
    assert own.keys() - more == without.keys()
    assert {name.split(".projection")[0] for name in more} == {"layer2.0", "layer3.0"}
    assert all((own[name] == 1).all() for name in own if name.endswith(".bn2.weight"))
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    functional = torch.nn.functional

    def normed(y, place):
        both = [own[f"{place}.{part}"] for part in ("weight", "bias")]
        return functional.batch_norm(y, None, None, *both, training=True)

    y = normed(functional.conv2d(x, own["conv1.weight"], padding=1), "bn1").relu()
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        at = f"layer{stage}.0"
        z = functional.conv2d(y, own[f"{at}.conv1.weight"], stride=stride, padding=1)
        z = normed(z, f"{at}.bn1").relu()
        z = normed(functional.conv2d(z, own[f"{at}.conv2.weight"], padding=1), f"{at}.bn2")
        if stage > 1:
            past = functional.conv2d(y, own[f"{at}.projection.0.weight"], stride=stride)
            y = normed(past, f"{at}.projection.1")
        y = (y + z).relu()
    expected = functional.linear(y.mean((2, 3)), own["linear.weight"], own["linear.bias"])
    with torch.no_grad():
        found = network.module.train()(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_signed_features_lack_the_last_relu_and_nothing_else():
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    maps = {}
    for signed in (False, True):
        module = cifar_resnet(10, 14, seed=3, signed=signed).module
        torch.nn.init.ones_(module.layer3[-1].bn2.weight)
        module.layer3.register_forward_hook(
            lambda part, given, found, signed=signed: maps.update({signed: found.detach()})
        )
        with torch.no_grad():
            module(x)
    assert float(maps[True].min()) < 0 == float(maps[False].min())
    torch.testing.assert_close(maps[True].relu(), maps[False], rtol=0, atol=0)


def test_impossible_networks():
    for depth, classes, match in ((30, 10, "not 6n"), (2, 10, "not 6n"), (32, 0, "classes is 0")):
        with pytest.raises(BadOption, match=match):
            cifar_resnet(classes, depth)
    with pytest.raises(BadOption, match="shortcuts is 'b'"):
        cifar_resnet(10, 8, shortcuts="b")
    one, same, other = (cifar_resnet(3, 8, seed).module.conv1.weight for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
