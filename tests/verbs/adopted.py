"""A tiny classifier of somebody else's, as one ONNX file, and pictures for it."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import retain

SIDE, FEATURES = 10, 12
NAMES = ["wasp", "ant", "cat", "bee"]
ACTIVATIONS = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "sigmoid": "Sigmoid"}


def model(path, names=NAMES, *, activation="softmax", seed=0):
    """Write it: a convolution, pooling, a linear layer; labels in no alphabetical order."""
    rng = np.random.default_rng(seed)
    kernel = (rng.normal(size=(FEATURES, 3, 3, 3)) / 400).astype(np.float32)
    weights = rng.normal(size=(len(names), FEATURES)).astype(np.float32)
    constants = {"k": kernel, "w": weights, "b": rng.normal(size=len(names)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["z" if activation else "y"], transB=1),
    ]
    if activation:
        nodes.append(helper.make_node(ACTIVATIONS[activation], ["z"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, SIDE, SIDE))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", len(names)))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def pictures(n, seed=0, tint=None):
    """n pictures uint8 [10, 10, 3]; of the same tint they look alike."""
    rng = np.random.default_rng([seed, 1])
    base = np.random.default_rng([tint or 0, 2]).integers(0, 256, (1, SIDE, SIDE, 3))
    noise = rng.integers(0, 256, (n, SIDE, SIDE, 3))
    share = 0.0 if tint is None else 0.75
    return list((share * base + (1 - share) * noise).astype(np.uint8))


def theirs(path, rows):
    """What the original says, by ONNX Runtime alone: [n, C]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    x = np.stack(rows).astype(np.float32).transpose(0, 3, 1, 2)
    return session.run(None, {"x": x})[0]


def adopt(folder, name="mine", **options):
    """Adopt the tiny classifier into a directory beside its file."""
    source = folder / "theirs.onnx"
    if not source.exists():
        model(source)
    return retain.adopt(folder / name, source, labels=NAMES, preprocess="raw", **options)
