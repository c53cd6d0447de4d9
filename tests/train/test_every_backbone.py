"""Every backbone that the documentation names, through training and back.

Weights are random, since none are at hand for most; pictures have 32 pixels, where a network that
halves them five times has one left, or the least that it takes. ConvNeXt and the vision transformer
are the smallest of their names, VGG-16 has narrower linear layers; all others are what they are
called. Each is adopted and taught, its last block is trained, or adapters of low rank where it has
linear layers before its last, and what comes out must hold what every extractor does.
"""

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

from safetensors.torch import save_file  # noqa: E402

import retain  # noqa: E402
from retain import train  # noqa: E402
from retain.train import Plan, transfer  # noqa: E402
from retain.train.zoos import last_layer  # noqa: E402
from retain.vision import prepare  # noqa: E402

from .conftest import stir  # noqa: E402
from .test_adapt import photo  # noqa: E402

CLASSES = ["rows", "columns"]
LESSON = [[photo(kind, seed) for seed in range(4)] for kind in (0, 1)]
ASKED = [photo(kind, seed) for kind in (0, 1) for seed in range(50, 54)]
PLANS = {
    "last block": Plan(last=1, batchnorm="frozen"),
    "adapters": Plan.preset("lora", batchnorm="frozen"),
}
VGG = "torchvision's VGG-16 with linear layers of 512"
# The side of the pictures, and whether there are linear layers before the last.
BACKBONES = {
    "torchvision:mobilenet_v2": (32, False),
    "timm:resnet18": (32, False),
    "torchvision:resnet50": (32, False),
    VGG: (32, True),
    "torchvision:inception_v3": (75, False),
    "torchvision:efficientnet_b0": (32, False),
    "timm:tf_efficientnet_lite0": (32, False),
    "torchvision:convnext_tiny": (32, True),
    "timm:vit_tiny_patch16_224": (32, True),
}
CASES = [(n, p) for n, (_, linear) in BACKBONES.items() for p in PLANS if linear or p != "adapters"]


def vgg16():
    """All convolutions; but with linear layers of 4,096 it is 0.5 GB, and no VGG is of less."""
    nn, vgg = torch.nn, torchvision.models.vgg
    with torch.device("meta"):
        module = vgg.VGG(vgg.make_layers(vgg.cfgs["D"]), 2, init_weights=False)
        linear = [nn.Linear(512 * 49, 512), nn.ReLU(), nn.Dropout()]
        linear += [nn.Linear(512, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 2)]
        module.classifier = nn.Sequential(*linear)
    return stir(module.to_empty(device="cpu"))


def adopted(folder, name, side):
    """Such a network with random weights that answers differently to different pictures."""
    built = None if name == VGG else train.build(name, 2, size=side)
    module = vgg16() if built is None else stir(built.module)
    told = {} if built is None else built.preprocess
    norms = [each for each in module.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    module.eval()
    for each in norms:
        each.train().momentum = None  # statistics of what comes, not of what came
    with torch.no_grad():
        views = train.Views(tuple(told["mean"]), tuple(told["std"])) if told else train.Views()
        rows = views(torch.from_numpy(np.stack(ASKED)).permute(0, 3, 1, 2))
        rows = torch.nn.functional.interpolate(rows, (side, side))
        noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
        module(torch.cat([rows, noise]))  # what the export tries it with is noise
        logits = module.eval()(rows)
        middle = logits.mean(0)
        wide = (logits - middle).abs().max()
        head = module.get_submodule(last_layer(module, 2))
        head.bias.sub_(middle).div_(wide)
        head.weight.div_(wide)
    if built is None:
        options = {"labels": CLASSES, "size": side, "preprocess": "imagenet"}
        return retain.adopt(folder / "a", module, **options)
    file = folder / "w.safetensors"
    save_file({k: v.contiguous() for k, v in module.state_dict().items()}, file)
    return retain.adopt(folder / "a", name, weights=file, labels=CLASSES, size=side)


def said(shop):
    """Probabilities [n, C] in the order of the classes."""
    found = [{s.label: s.probability for s in p.top} for p in shop.predict(ASKED, top=9)]
    return np.array([[each[label] for label in shop.labels] for each in found])


def exported(shop, path):
    """The probabilities of what the file says of prepared pictures, by ONNX Runtime alone."""
    shop.export(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rule = shop._session.extractor.rule
    (entrance,) = session.get_inputs()
    given = [{entrance.name: prepare(each, rule)} for each in ASKED]
    found = np.concatenate([session.run(None, each)[0] for each in given])
    path.unlink()
    above = np.exp(found - found.max(1, keepdims=True))  # an adopted PyTorch network gives logits
    return above / above.sum(1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "plan"), CASES)
def test_it_is_adapted_and_taken_back(tmp_path, name, plan):
    if plan == "adapters":
        pytest.importorskip("peft")
    side, _ = BACKBONES[name]
    with adopted(tmp_path, name, side) as shop:
        for label, lesson in zip(CLASSES, LESSON, strict=True):
            shop.learn(lesson, label, force=True)
        before = said(shop)
        assert np.ptp(before, 0).max() > 1e-3, "one answer to everything proves nothing"
        given = {"module": vgg16()} if name == VGG else {}
        states = {row.state for row in shop.layers(PLANS[plan], **given)}
        assert ("adapted" in states) == (plan == "adapters")
        recipe = transfer(epochs=1, batch=4, rate=0.002, device="cpu")
        shop.adapt(PLANS[plan], recipe=recipe, force=True, **given)
        after = said(shop)
        assert np.abs(after - before).max() > 1e-3
        np.testing.assert_allclose(exported(shop, tmp_path / "out.onnx"), after, atol=1e-3)
        assert shop.verify(deep=True).ok
        back = shop.undo()
        np.testing.assert_array_equal(said(shop), before)
        shop.undo(back.event)
        np.testing.assert_array_equal(said(shop), after)
