"""Graphs whose tensors, nodes and constants are called as ours are: cut, exported, taken again."""

import random

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import retain
from retain.errors import CannotAdopt
from retain.vision import adopt, read_exported, split
from retain.vision.lookup import Lookup
from tests.verbs.adopted import NAMES, SIDE, pictures

OURS = (
    *("features", "logits", "probabilities", "scores", "flat", "zero", "one", "float"),
    *("retain_features", "retain_flat", "retain_zero", "retain_one", "retain_float"),
    *("retain1_features", "retain1_flat", "retain2_one", "retain_0", "retain_1", "retain_2"),
    *("retain/", "retain/01_Cast", "retain/02_Abs", "retain/03_constant", "retain1/01_Cast"),
    *("retain/05_Max", "retain/20_Cast", "batch", "height", "width", "channels", "features_"),
    *("probabilities_", "same", "label", "retain.features", "retain.labels", "cut", "weights"),
)
FORMS = {
    "any batch": (TensorProto.FLOAT, ("n", 3, SIDE, SIDE)),
    "bytes": (TensorProto.UINT8, ("n", SIDE, SIDE, 3)),
    "doubles": (TensorProto.DOUBLE, ("n", 3, SIDE, SIDE)),
    "three at a time": (TensorProto.FLOAT, (3, 3, SIDE, SIDE)),
    "no batch": (TensorProto.FLOAT, (3, SIDE, SIDE)),
    "vectors": (TensorProto.FLOAT, ("n", 3 * SIDE * SIDE)),
}
FEATURES = 12
ROLES = (
    *("input", "cast", "turned", "shape", "shaped", "kernel", "conv", "relu", "pool", "flat"),
    *("weights", "bias", "scores", "output", "twice", "yes", "inside", "half", "more"),
)


def build(path, call, form="any batch", *, branch=False, sparse=False, said=lambda role: ""):
    """A small classifier whose values are called `call(role)` and its nodes `said(role)`.

    With `branch`, what enters the pooling comes out of an If, whose insides have names too; with
    `sparse`, a constant is kept as a sparse one.
    """
    dtype, shape = FORMS[form]
    rng = np.random.default_rng(7)
    nodes, constants = [], []

    def add(kind, inputs, role, **told):
        names = [call(each) for each in inputs]
        nodes.append(helper.make_node(kind, names, [call(role)], said(role), **told))
        return role

    def const(role, value):
        constants.append(numpy_helper.from_array(np.asarray(value), call(role)))
        return role

    value = "input"
    if dtype != TensorProto.FLOAT:
        value = add("Cast", [value], "cast", to=TensorProto.FLOAT)
    if form == "bytes":
        value = add("Transpose", [value], "turned", perm=[0, 3, 1, 2])
    if form == "vectors":
        value = add("Reshape", [value, const("shape", [-1, SIDE, SIDE, 3])], "shaped")
        value = add("Transpose", [value], "turned", perm=[0, 3, 1, 2])
    if form == "no batch":
        value = add("Reshape", [value, const("shape", [1, 3, SIDE, SIDE])], "shaped")
    if form == "three at a time":
        # Only three at a time will do.
        value = add("Reshape", [value, const("shape", [3, 3, SIDE, SIDE])], "shaped")
    kernel = (rng.normal(size=(FEATURES, 3, 3, 3)) / 400).astype(np.float32)
    value = add("Relu", [add("Conv", [value, const("kernel", kernel)], "conv")], "relu")
    if branch:
        const("yes", True)
        arms = []
        for role in ("half", "more"):
            scale = numpy_helper.from_array(np.float32(2), call("inside"))
            node = helper.make_node("Mul", [call("relu"), call("inside")], [call(role)], said(role))
            leaving = helper.make_tensor_value_info(call(role), TensorProto.FLOAT, None)
            arms.append(helper.make_graph([node], "arm", [], [leaving], [scale]))
        value = add("If", ["yes"], "twice", then_branch=arms[0], else_branch=arms[1])
    value = add("Flatten", [add("GlobalAveragePool", [value], "pool")], "flat")
    weights = rng.normal(size=(len(NAMES), FEATURES)).astype(np.float32)
    bias = rng.normal(size=len(NAMES)).astype(np.float32)
    inputs = [value, const("weights", weights), const("bias", bias)]
    add("Softmax", [add("Gemm", inputs, "scores", transB=1)], "output", axis=1)
    kept = []
    if sparse:
        nodes.insert(-2, helper.make_node("Add", [call("flat"), call("more")], [call("inside")]))
        nodes[-2].input[0] = call("inside")
        some = numpy_helper.from_array(np.array([0.5], np.float32), call("more"))
        where = numpy_helper.from_array(np.array([1], np.int64), call("more") + " at")
        kept = [helper.make_sparse_tensor(some, where, [FEATURES])]
    batch = shape[0] if len(shape) == 4 or form == "vectors" else 1
    graph = helper.make_graph(
        nodes,
        "features",
        [helper.make_tensor_value_info(call("input"), dtype, shape)],
        [helper.make_tensor_value_info(call("output"), TensorProto.FLOAT, (batch, len(NAMES)))],
        constants,
        sparse_initializer=kept,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=not sparse)
    path.write_bytes(made.SerializeToString())
    return path


def fed(rows, form):
    """Pictures as the original takes them, in as many calls as that needs."""
    dtype, _ = FORMS[form]
    x = np.stack(rows)
    if form not in ("bytes", "vectors"):
        x = x.transpose(0, 3, 1, 2)
    x = x.astype(helper.tensor_dtype_to_np_dtype(dtype))
    if form == "vectors":
        return [x.reshape(len(x), -1)]
    if form == "no batch":
        return list(x)
    return [x[i : i + 3] for i in range(0, len(x), 3)] if form == "three at a time" else [x]


def answered(path, batches):
    """What a file says in plain ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (entrance,) = session.get_inputs()
    return np.concatenate([session.run(None, {entrance.name: each})[0] for each in batches])


def prepared(path, rows):
    """Pictures as the exported file takes them."""
    rule = read_exported(path).preprocess
    x = np.stack(rows)
    x = x if rule.layout == "NHWC" else x.transpose(0, 3, 1, 2)
    # One at a time: what was made for three at a time stays at one.
    return [each[None].astype(rule.dtype) for each in x]


def lives(folder, source, form):
    """Adopt, compare, export, compare; the same again with what came out."""
    rows = pictures(9, seed=3)
    wanted = answered(source, fed(rows, form))
    output = onnx.load(source).graph.output[0].name
    shape = {"size": SIDE} if form == "vectors" else {}
    with retain.adopt(
        folder / "first", source, labels=NAMES, preprocess="raw", **shape, reference=pictures(20)
    ) as first:
        told = first.predict(rows, top=4)
        assert [each.label for each in told] == [NAMES[i] for i in wanted.argmax(axis=1)]
        untouched = first.export(folder / "untouched.onnx", version=0)
        assert untouched.output == output
        same = answered(untouched.path, prepared(untouched.path, rows))
        np.testing.assert_allclose(same, wanted, atol=5e-3)
        first.learn(pictures(8, tint=1), "elk", force=True)
        first.correct(rows[0], "fox", force=True)
        made = first.export(folder / "first.onnx")
        probabilities = [
            {s.label: s.probability for s in p.top} for p in first.predict(rows, top=9)
        ]
        labels = first.labels
    given = answered(made.path, prepared(made.path, rows))
    for row, each in zip(given, probabilities, strict=True):
        np.testing.assert_allclose(row, [each[label] for label in labels], atol=1e-4)
    if form in ("any batch", "bytes"):  # others are fed through operators put in front
        entrance = onnx.load(made.path).graph.input[0].name
        assert entrance == onnx.load(source).graph.input[0].name
    with retain.adopt(folder / "second", made.path) as second:
        assert second.labels == labels
        again = second.export(folder / "second.onnx")
        assert again.output == output
        assert second.explain(rows[1]).prediction.label == max(
            probabilities[1], key=probabilities[1].get
        )
    third = adopt(again.path)
    assert third.worst_difference < 1e-4
    np.testing.assert_allclose(answered(again.path, prepared(again.path, rows)), given, atol=5e-3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_every_name_is_one_of_ours(tmp_path, form, seed):
    """All names at once, dealt at random; nodes are called so too."""
    draw = random.Random(f"{seed} {form}")
    values = dict(zip(ROLES, draw.sample(OURS, len(ROLES)), strict=True))
    nodes = dict(zip(ROLES, draw.sample(OURS, len(ROLES)), strict=True))
    lives(tmp_path, build(tmp_path / "m.onnx", values.get, form, said=nodes.get), form)


@pytest.mark.parametrize("seed", range(4))
def test_names_inside_a_branch_and_of_sparse_constants(tmp_path, seed):
    draw = random.Random(seed)
    values = dict(zip(ROLES, draw.sample(OURS, len(ROLES)), strict=True))
    source = build(tmp_path / "m.onnx", values.get, branch=seed < 2, sparse=seed >= 2)
    lives(tmp_path, source, "any batch")


@pytest.mark.parametrize("name", [*OURS[:14], "retain/01_Cast", "retain_0"])
@pytest.mark.parametrize("role", ["input", "flat", "weights", "scores", "output", "inside"])
def test_one_name_in_every_place(tmp_path, name, role):
    """Where it stands decides what it could meet: each place on its own, cut and put together."""
    source = build(
        tmp_path / "m.onnx", lambda r: name if r == role else f"their {r}", branch=role == "inside"
    )
    rows = pictures(6, seed=3)
    with retain.adopt(tmp_path / "mine", source, labels=NAMES, preprocess="raw") as mine:
        made = mine.export(tmp_path / "out.onnx")
    given = answered(made.path, prepared(made.path, rows))
    np.testing.assert_allclose(given, answered(source, fed(rows, "any batch")), atol=5e-3)
    for entrance, original in zip(
        onnx.load(made.path).graph.input, onnx.load(source).graph.input, strict=True
    ):
        assert entrance.name == original.name
    assert adopt(made.path).worst_difference < 1e-4


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_constants_are_written_out(flat):
    """Positions may be counted through, or given axis by axis; the last map's weights may be so."""
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(4, 3 * 4 * 4)).astype(np.float32) * (rng.random((4, 48)) < 0.2)
    at = np.flatnonzero(weights) if flat else np.argwhere(weights)
    some = numpy_helper.from_array(weights[weights != 0], "features")
    sparse = helper.make_sparse_tensor(some, numpy_helper.from_array(at, "at"), weights.shape)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("Gemm", ["flat", "features"], ["y"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 4, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4))],
        sparse_initializer=[sparse],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    np.testing.assert_array_equal(split(model.SerializeToString()).weights, weights)


@pytest.mark.parametrize(
    ("dims", "at"), [([2**40, 2**20], [1]), ([3], [7]), ([3], [-4]), ([-3], [0]), ([3], [0, 1])]
)
def test_sparse_constants_that_are_none(dims, at):
    some = numpy_helper.from_array(np.array([0.5], np.float32), "s")
    where = numpy_helper.from_array(np.array(at, np.int64), "at")
    model = onnx.ModelProto()
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(some, where, dims))
    with pytest.raises(CannotAdopt, match="sparse constant 's'"):
        Lookup.of(model)
