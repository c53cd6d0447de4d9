"""Extractors: what they compute, that it never varies, and that damage is noticed."""

import json
import random
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from retain.errors import BadImage, BadOption, Damaged
from retain.values import Source
from retain.vision import (
    OnnxExtractor,
    Preprocess,
    VectorExtractor,
    decode,
    encode_vector,
    extract_many,
    load_builtin,
    load_extractor,
    prepare,
)

from .conftest import encoded, scene

SHIPPED = Path(sys.modules["retain"].__file__).parent / "data" / "efficientnet_lite0"


def graph(directory: Path, *, output: str = "sums", shape=(2, 2, 3), more_inputs: int = 0) -> Path:
    """A directory with a tiny extractor: the mean of each channel, divided by one input value."""
    height, width, channels = shape
    pixels = helper.make_tensor_value_info(
        "pixels", TensorProto.FLOAT, ["batch", channels, height, width]
    )
    others = [
        helper.make_tensor_value_info(f"other{i}", TensorProto.FLOAT, [1])
        for i in range(more_inputs)
    ]
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node(
            {"log": "Log", "acos": "Acos"}.get(output, "Identity"), ["flat"], ["features"]
        ),
    ]
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", channels])
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", [pixels, *others], [features]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(model, directory / "features.onnx")
    rule = Preprocess(height, width, resize="squash", scale=1)
    description = {"name": "tiny", "dimension": channels, "preprocess": rule.to_json()}
    (directory / "preprocess.json").write_text(json.dumps(description))
    return directory


def copied(extractor, directory: Path) -> Path:
    """What a store does with `files`."""
    directory.mkdir()
    for name, content in extractor.files().items():
        if isinstance(content, bytes):
            (directory / name).write_bytes(content)
        else:
            shutil.copyfile(content, directory / name)
    return directory


def test_the_shipped_extractor(lite):
    assert (lite.name, lite.dimension) == ("efficientnet_lite0", 1280)
    feature = lite.feature(encoded(scene(), "JPEG"))
    assert feature.shape == (1280,)
    assert feature.dtype == np.float32
    assert np.linalg.norm(feature) > 1


def test_the_shipped_graph_has_the_recorded_checksum_and_one_file():
    import hashlib

    description = json.loads((SHIPPED / "preprocess.json").read_text())
    data = (SHIPPED / "features.onnx").read_bytes()
    assert hashlib.sha256(data).hexdigest() == description["sha256"]
    model = onnx.load_from_string(data)
    assert not any(each.external_data for each in model.graph.initializer)
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
    assert model.opset_import[0].version <= 21
    assert model.ir_version <= 10


def test_the_features_are_the_recorded_ones(lite):
    """A change of decoder, resize or graph must not pass unnoticed."""
    feature = lite.feature(encoded(scene(300, 260), "PNG"))
    assert np.linalg.norm(feature) == pytest.approx(14.8565, rel=2e-3)
    assert np.argsort(-feature)[:6].tolist() == [71, 17, 897, 1167, 661, 1259]
    largest = [4.4572, 3.3025, 2.9164, 2.7482, 2.6533, 2.4102]
    np.testing.assert_allclose(np.sort(feature)[:-7:-1], largest, rtol=0.01)


def test_the_same_bytes_give_the_same_feature_whatever_the_threads_and_the_order(lite, photos):
    files = photos(12)
    sources = [Source(str(i), lambda data=data: data) for i, data in enumerate(files)]
    alone = {source.name: lite.feature(source.read()).tobytes() for source in sources}
    again = load_builtin("efficientnet_lite0")
    for threads in (1, 2, 5):
        random.Random(threads).shuffle(sources)
        for each in extract_many(sources, again, threads=threads):
            assert each.feature.tobytes() == alone[each.source.name]


def test_a_turned_photo_has_the_feature_of_the_physically_turned_one(lite):
    pixels = scene(256, 240)
    for orientation, turned in ((3, pixels[::-1, ::-1]), (6, np.rot90(pixels, -1))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        tagged = lite.feature(encoded(pixels, "PNG", exif=exif))
        physical = lite.feature(encoded(np.ascontiguousarray(turned), "PNG"))
        assert tagged.tobytes() == physical.tobytes()


def test_reduced_decoding_hardly_moves_the_feature(lite, photos):
    for data in photos(6):
        large = encoded(
            Image.open(BytesIO(data)).convert("RGB").resize((1800, 1400)), "JPEG", quality=92
        )
        whole = lite._run(prepare(decode(large), lite.rule))
        reduced = lite.feature(large)
        cosine = whole @ reduced / np.linalg.norm(whole) / np.linalg.norm(reduced)
        assert cosine > 0.99


def test_the_fingerprint_depends_on_graph_and_rule_and_nothing_else(lite, tmp_path):
    first = load_builtin("efficientnet_lite0")
    assert first.fingerprint == lite.fingerprint
    assert first.fingerprint.startswith("sha256-")
    assert not set(first.fingerprint) & set("/\\:* ")
    one = OnnxExtractor.load(graph(tmp_path / "a"))
    same = OnnxExtractor.load(graph(tmp_path / "b"))
    assert one.fingerprint == same.fingerprint
    text = (tmp_path / "b" / "preprocess.json").read_text()
    (tmp_path / "b" / "preprocess.json").write_text(text.replace('"bilinear"', '"bicubic"'))
    assert OnnxExtractor.load(tmp_path / "b").fingerprint != one.fingerprint


@pytest.mark.parametrize("name", ["efficientnet_lite0", "vectors:7"])
def test_the_files_are_enough_to_load_it_again(name, tmp_path):
    extractor = load_builtin(name)
    place = copied(extractor, tmp_path / extractor.fingerprint)
    again = load_extractor(place, extractor.fingerprint)
    assert type(again) is type(extractor)
    assert again.fingerprint == extractor.fingerprint
    assert again.dimension == extractor.dimension
    with pytest.raises(Damaged, match="not the one"):
        load_extractor(place, "sha256-0")


def test_a_directory_of_ones_own(tmp_path):
    extractor = load_builtin(str(graph(tmp_path / "mine")))
    assert extractor.name == "tiny"
    red = encoded(np.full((9, 9, 3), (255, 0, 7), np.uint8), "PNG")
    np.testing.assert_allclose(extractor.feature(red), [255, 0, 7])
    again = load_extractor(copied(extractor, tmp_path / "copy"), extractor.fingerprint)
    np.testing.assert_array_equal(again.feature(red), extractor.feature(red))


def test_damage_is_noticed(lite, tmp_path):
    place = copied(lite, tmp_path / "x")
    data = bytearray((place / "features.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (place / "features.onnx").write_bytes(data)
    with pytest.raises(Damaged, match="has changed"):
        load_extractor(place, lite.fingerprint)
    (place / "features.onnx").unlink()
    with pytest.raises(Damaged, match="No such file"):
        load_extractor(place, lite.fingerprint)
    (place / "preprocess.json").write_text("{")
    with pytest.raises(Damaged, match="not JSON"):
        load_extractor(place)
    (place / "preprocess.json").unlink()
    with pytest.raises(Damaged, match="cannot be read"):
        load_extractor(place)


def test_graphs_that_do_not_fit_are_refused(tmp_path):
    place = graph(tmp_path / "x")
    description = json.loads((place / "preprocess.json").read_text())

    def described(**change) -> Path:
        (place / "preprocess.json").write_text(json.dumps({**description, **change}))
        return place

    with pytest.raises(Damaged, match=r"\[1, 3\], expected float32 \[1, 5\]"):
        OnnxExtractor.load(described(dimension=5))
    rule = Preprocess(5, 5, resize="squash").to_json()
    with pytest.raises(Damaged, match="cannot be run"):
        OnnxExtractor.load(described(preprocess=rule))
    for change in (
        {"dimension": "many"},
        {"preprocess": 3},
        {"preprocess": {}},
        {"format": 9},
        {"preprocess": {**description["preprocess"], "colour": "CMYK"}},
    ):
        with pytest.raises(BadOption):
            OnnxExtractor.load(described(**change))
    described()
    (place / "features.onnx").write_bytes(b"not a graph")
    with pytest.raises(Damaged, match="not a graph"):
        OnnxExtractor.load(place)
    with pytest.raises(BadOption, match="several inputs"):
        OnnxExtractor.load(graph(tmp_path / "y", more_inputs=1))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(Damaged, match="not finite"):
        OnnxExtractor.load(graph(tmp_path / "x", output="log"))


@pytest.mark.parametrize("change", [{"output": "acos"}, {"power": 4.0}])
def test_a_picture_that_is_answered_so_stops_no_other(tmp_path, change):
    power = change.pop("power", 1.0)
    place = graph(tmp_path / "x", **change)
    description = json.loads((place / "preprocess.json").read_text())
    if power != 1.0:
        description["preprocess"]["std"] = [1e-9] * 3
    (place / "preprocess.json").write_text(json.dumps({**description, "power": power}))
    pictures = [encoded(np.full((2, 2, 3), value, np.uint8), "PNG") for value in (0, 255, 0)]
    eyes = OnnxExtractor.load(place)
    sources = [Source(str(i), lambda i=i: pictures[i]) for i in range(3)]
    found = list(extract_many(sources, eyes))
    assert [each.feature is not None for each in found] == [True, False, True]
    assert "not finite" in str(found[1].error)
    with pytest.raises(BadImage, match="not finite"):
        eyes.feature(pictures[1])


def test_bad_pictures_are_refused(lite):
    with pytest.raises(BadImage):
        lite.feature(b"nonsense")


def test_vectors():
    extractor = VectorExtractor(3)
    assert (extractor.name, extractor.fingerprint) == ("vectors:3", "vectors-3")
    vector = np.array([1.0, -2.0, 3.5], np.float32)
    np.testing.assert_array_equal(extractor.feature(encode_vector(vector)), vector)
    for wrong in (
        encode_vector(np.ones(4)),
        b"",
        b"\x93NUMPY",
        encoded(scene(), "PNG"),
        encode_vector(np.ones(3))[:-1],
        encode_vector(np.ones(3)) + bytes(9999),
    ):
        with pytest.raises(BadImage, match="3 "):
            extractor.feature(wrong)


@pytest.mark.parametrize("name", ["resnet", "vectors:", "vectors:x", "vectors:0", "", "/nowhere"])
def test_unknown_extractors_are_refused(name):
    with pytest.raises(BadOption, match=r"efficientnet_lite0|vectors of 0"):
        load_builtin(name)


def test_importing_retain_loads_no_heavy_library():
    program = (
        "import sys, retain.vision; "
        "print([m for m in ('onnxruntime', 'onnx', 'torch', 'pyarrow', 'PIL.Image', 'simplejpeg') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_power_draws_in_strong_activations_and_is_part_of_the_fingerprint(tmp_path):
    folders = graph(tmp_path / "plain"), graph(tmp_path / "raised")
    for folder, extra in zip(folders, ({}, {"power": 0.5}), strict=True):
        description = json.loads((folder / "preprocess.json").read_text()) | extra
        description["preprocess"]["mean"] = [100, 100, 100]
        (folder / "preprocess.json").write_text(json.dumps(description))
    plain, raised = (OnnxExtractor.load(folder) for folder in folders)
    picture = encoded(np.full((2, 2, 3), (200, 100, 36), np.uint8), "PNG")
    assert plain.feature(picture).tolist() == [100, 0, -64]
    assert raised.feature(picture).tolist() == [10, 0, -8]
    assert raised.fingerprint != plain.fingerprint
    assert json.loads(raised.files()["preprocess.json"])["power"] == 0.5
    assert "power" not in json.loads(plain.files()["preprocess.json"])
    assert load_extractor(copied(raised, tmp_path / "copy")).fingerprint == raised.fingerprint


@pytest.mark.parametrize("power", [0, -1, 5, "much", float("nan"), None])
def test_an_impossible_power_is_refused(tmp_path, power):
    directory = graph(tmp_path)
    description = json.loads((directory / "preprocess.json").read_text())
    (directory / "preprocess.json").write_text(json.dumps({**description, "power": power}))
    with pytest.raises(BadOption, match=r"power|float"):
        OnnxExtractor.load(directory)


def test_the_shipped_graph_is_left_as_the_network_is_and_the_power_comes_after():
    raw = onnx.load(SHIPPED / "features.onnx")
    assert "Pow" not in {node.op_type for node in raw.graph.node}
    assert load_builtin("efficientnet_lite0").power == 0.85
