"""Preprocessing by name and from metadata; names of classes."""

import json

import numpy as np
import pytest

from retain.errors import BadOption
from retain.vision import PRESETS, Preprocess, prepare, preset, read_labels, read_rule
from retain.vision.class_names import distinct, metadata_labels
from retain.vision.presets import chosen_rule

from .conftest import scene

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

FORMULAS = {
    "imagenet": lambda x: (x / 255 - np.array(MEAN)) / np.array(STD),
    "minus-one-to-one": lambda x: x / 127.5 - 1,
    "zero-to-one": lambda x: x / 255,
    "raw": lambda x: x,
    "caffe": lambda x: x[..., ::-1] - np.array([103.939, 116.779, 123.68]),
    "clip": lambda x: (
        (x / 255 - np.array([0.48145466, 0.4578275, 0.40821073]))
        / np.array([0.26862954, 0.26130258, 0.27577711])
    ),
    "efficientnet-lite": lambda x: (x - 127) / 128,
}


def test_every_preset_has_a_formula_here():
    assert set(FORMULAS) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_preset_is_its_formula(name, layout):
    pixels = scene(40, 40)
    rule = preset(name, 40, 40, layout=layout)
    wanted = FORMULAS[name](pixels.astype(np.float64))
    given = prepare(pixels, rule)[0]
    given = given if layout == "NHWC" else given.transpose(1, 2, 0)
    np.testing.assert_allclose(given, wanted, atol=1e-4)


def test_crops():
    assert preset("imagenet", 224, 224).shorter == 256
    assert preset("imagenet", 32, 32).shorter == 32
    assert preset("clip", 224, 224).shorter == 224
    assert preset("raw", 224, 224, crop=0.9).shorter == 248
    assert preset("imagenet", 224, 224, resize="squash").shorter == 0
    assert preset("imagenet", 224, 224, colour="BGR").mean == tuple(MEAN[::-1])
    assert preset("raw", 28, 28, channels=1).shape == (1, 1, 28, 28)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet"}, "there is no preprocessing 'resnet'"),
        ({"name": "imagenet", "channels": 1}, "three colours"),
        ({"name": "raw", "crop": 0}, "crop is 0"),
        ({"name": "raw", "crop": "big"}, "crop is 'big'"),
        ({"name": "raw", "cropp": 1}, "has no 'cropp'"),
        ({"name": "raw", "resize": "stretch"}, "resize is 'stretch'"),
        ({"name": "raw", "shorter": 10}, "shorter is 10"),
        ({"name": "imagenet", "dtype": "uint8"}, "for a uint8 input"),
        ({"name": "raw", "dtype": "int4"}, "dtype is 'int4'"),
    ],
)
def test_presets_that_cannot_be(arguments, message):
    with pytest.raises(BadOption, match=message):
        preset(**{"height": 64, "width": 64, **arguments})


def test_types_of_the_input():
    pixels = scene(20, 20)
    half = prepare(pixels, preset("imagenet", 20, 20, dtype="float16"))
    assert half.dtype == np.float16
    whole = prepare(pixels, preset("raw", 20, 20, dtype="uint8", layout="NHWC"))
    assert whole.dtype == np.uint8
    assert np.array_equal(whole[0], pixels)
    swapped = prepare(pixels, preset("raw", 20, 20, dtype="uint8", colour="BGR"))
    assert np.array_equal(swapped[0], pixels.transpose(2, 0, 1)[::-1])


def test_a_rule_of_before_is_written_as_before():
    """The rule is hashed into fingerprints that are on people's disks."""
    assert "dtype" not in Preprocess(32, 32, shorter=32).to_json()
    half = Preprocess(32, 32, shorter=32, dtype="float16")
    assert Preprocess.from_json(json.loads(json.dumps(half.to_json()))) == half


# -- metadata ----------------------------------------------------------------------------------

TIMM = {"input_size": [3, 224, 224], "mean": MEAN, "std": STD, "crop_pct": 0.95,
        "interpolation": "bicubic", "crop_mode": "center"}  # fmt: skip
VIT = {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
       "resample": 2, "size": 224, "feature_extractor_type": "ViTFeatureExtractor"}  # fmt: skip
CLIP = {"crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "image_mean": MEAN, "image_std": STD, "resample": 3, "size": {"shortest_edge": 256},
        "rescale_factor": 1 / 255, "image_processor_type": "CLIPImageProcessor"}  # fmt: skip
TORCHVISION = {"crop_size": [224], "resize_size": [232], "mean": MEAN, "std": STD,
               "interpolation": "InterpolationMode.BILINEAR"}  # fmt: skip
CONVNEXT = {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3, "image_mean": MEAN,
            "image_std": STD, "image_processor_type": "ConvNextImageProcessor"}  # fmt: skip

READ = [
    (TIMM, Preprocess(224, 224, shorter=235, interpolation="bicubic", mean=tuple(MEAN),
                      std=tuple(STD))),
    ({"architecture": "x", "pretrained_cfg": TIMM}, Preprocess(
        224, 224, shorter=235, interpolation="bicubic", mean=tuple(MEAN), std=tuple(STD))),
    ({**TIMM, "crop_mode": "squash", "crop_pct": 1.0}, Preprocess(
        224, 224, resize="squash", interpolation="bicubic", mean=tuple(MEAN), std=tuple(STD))),
    (VIT, Preprocess(224, 224, resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3)),
    ({**VIT, "size": {"height": 32, "width": 48}}, Preprocess(
        32, 48, resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3)),
    ({**VIT, "do_normalize": False}, Preprocess(224, 224, resize="squash")),
    ({**VIT, "do_normalize": False, "do_rescale": False}, Preprocess(
        224, 224, resize="squash", scale=1.0)),
    (CLIP, Preprocess(224, 224, shorter=256, interpolation="bicubic", mean=tuple(MEAN),
                      std=tuple(STD))),
    ({**CLIP, "crop_size": {"height": 200, "width": 224}, "size": 224}, Preprocess(
        200, 224, shorter=224, interpolation="bicubic", mean=tuple(MEAN), std=tuple(STD))),
    ({**CLIP, "do_flip_channel_order": True, "do_normalize": False}, Preprocess(
        224, 224, shorter=256, interpolation="bicubic", colour="BGR")),
    (CONVNEXT, Preprocess(224, 224, shorter=256, interpolation="bicubic", mean=tuple(MEAN),
                          std=tuple(STD))),
    ({**CONVNEXT, "size": {"shortest_edge": 384}}, Preprocess(
        384, 384, resize="squash", interpolation="bicubic", mean=tuple(MEAN), std=tuple(STD))),
    (TORCHVISION, Preprocess(224, 224, shorter=232, mean=tuple(MEAN), std=tuple(STD))),
    ({**TORCHVISION, "resize_size": [224, 224]}, Preprocess(
        224, 224, resize="squash", mean=tuple(MEAN), std=tuple(STD))),
]  # fmt: skip


@pytest.mark.parametrize(("told", "rule"), READ)
def test_what_metadata_say(told, rule, tmp_path):
    assert read_rule(told) == rule
    file = tmp_path / "config.json"
    file.write_text(json.dumps(told))
    assert read_rule(file) == rule


def test_efficientnet_of_hugging_face_divides_twice():
    """EfficientNetImageProcessor, with rescale_offset and include_top."""
    told = {**VIT, "image_processor_type": "EfficientNetImageProcessor", "include_top": True,
            "rescale_factor": 1 / 127.5, "rescale_offset": True, "size": {"height": 8, "width": 8},
            "image_mean": MEAN, "image_std": STD}  # fmt: skip
    pixels = scene(8, 8)
    wanted = ((pixels / 127.5 - 1 - np.array(MEAN)) / np.array(STD)) / np.array(STD)
    given = prepare(pixels, read_rule(told))[0].transpose(1, 2, 0)
    np.testing.assert_allclose(given, wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"pretrained_cfg": TIMM, "mean": [0, 0, 0]}, r"mean is \[0, 0, 0\] outside and \[0.485"),
        ({**TIMM, "crop_mode": "border"}, "crop_mode 'border'"),
        ({**TIMM, "input_size": [3, 0, 224]}, "input_size is"),
        ({**TIMM, "input_size": [1, 224, 224]}, "3 means and 3 deviations for 1 channels"),
        ({**TIMM, "interpolation": "random"}, "interpolation 'random'"),
        ({**TIMM, "mean": [123.7, 116.8, 103.9]}, "for pixels that go to 255"),
        ({**TIMM, "mean": None}, "cannot be used"),
        ({**VIT, "resample": 0}, "interpolation 0"),
        ({**VIT, "do_rescale": False}, "do_rescale is false.*image_mean"),
        ({**VIT, "image_std": None}, "cannot be used"),
        ({"size": 224, "do_normalize": True}, "image_mean or image_std is not given"),
        ({**VIT, "do_resize": False}, "do_resize is false"),
        ({**VIT, "size": {"longest_edge": 224}}, "longest_edge"),
        ({**VIT, "size": 256, "crop_size": 224, "do_center_crop": True}, "256×256.*224×224"),
        ({**CLIP, "do_center_crop": False}, "nothing is cropped"),
        ({**CLIP, "crop_size": 300}, "256.*300×300"),
        ({**TORCHVISION, "crop_size": [288]}, "232.*288×288"),
        ({"learning_rate": 0.1}, "says nothing about preprocessing"),
        ({}, "says nothing"),
    ],
)
def test_metadata_that_contradict_themselves(told, message):
    with pytest.raises(BadOption, match=message):
        read_rule(told)


def test_files_that_are_no_metadata(tmp_path):
    with pytest.raises(BadOption, match="cannot be read"):
        read_rule(tmp_path / "none.json")
    for content, message in (
        ("[1]", "holds a list"),
        ("{", "cannot be read"),
        ("[" * 10**5, "cannot be read"),
    ):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(BadOption, match=message):
            read_rule(tmp_path / "a.json")


def test_a_rule_that_does_not_fit_the_network():
    fixed = {"height": 32, "width": 32, "channels": 3, "layout": "NCHW", "dtype": "float32"}
    assert chosen_rule("raw", **fixed).shape == (1, 3, 32, 32)
    with pytest.raises(BadOption, match="height 32, but the preprocessing gives height 224"):
        chosen_rule(TIMM, **fixed)
    with pytest.raises(BadOption, match="layout NCHW, but the preprocessing gives layout NHWC"):
        chosen_rule(Preprocess(32, 32, shorter=32, layout="NHWC"), **fixed)
    with pytest.raises(BadOption, match="pictures of any size; give one"):
        chosen_rule("raw", **{**fixed, "height": None})
    with pytest.raises(BadOption, match="channels 3, but the preprocessing gives channels 1"):
        chosen_rule("raw", **fixed, overrides={"colour": "L"})
    # Metadata never tell the layout, so the network's own holds.
    assert chosen_rule(VIT, **{**fixed, "height": 224, "width": 224, "layout": "NHWC"}).shape == (
        1, 224, 224, 3,
    )  # fmt: skip


# -- names of classes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "cat\ndog\nred panda\n"),
        ("a.txt", "\ufeffcat\r\ndog\r\nred panda\r\n\r\n"),
        ("a.json", '["cat", "dog", "red panda"]'),
        ("a.json", '{"1": "dog", "0": "cat", "2": "red panda"}'),
        ("a.json", '{"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "red panda"]}'),
        ("config.json", '{"id2label": {"0": "cat", "1": "dog", "2": "red panda"}, "x": 1}'),
        ("a.csv", "index,label\n2,red panda\n0,cat\n1,dog\n"),
        ("a.csv", '0,"cat"\n1,dog\n\n2,red panda'),
    ],
)
def test_files_of_names(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_labels(tmp_path / name) == ["cat", "dog", "red panda"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "cat\n\ndog", "the name of class 1 is ''"),
        ("a.txt", "", "holds no class name"),
        ("a.json", "[1, 2]", "the name of class 0 is 1"),
        ("a.json", "{", "is not JSON"),
        ("a.json", '"cat"', "holds a str"),
        ("a.json", '{"0": "cat", "2": "dog"}', "none for the index 1"),
        ("a.json", '{"cat": "0"}', "the index 'cat'"),
        ("a.csv", "0,cat\n0,dog", "the index 0 twice, to 'cat' and 'dog'"),
        ("a.csv", "0\n1", "expected index,label"),
    ],
)
def test_files_that_hold_no_names(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadOption, match=message):
        read_labels(tmp_path / name)


def test_names_that_are_not_utf8(tmp_path):
    (tmp_path / "a.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(BadOption, match="not UTF-8"):
        read_labels(tmp_path / "a.txt")
    with pytest.raises(BadOption, match="cannot be read"):
        read_labels(tmp_path / "b.txt")


def test_the_same_name_twice():
    labels, notes = distinct(["crane", "crane (2)", "cafe\u0301", "crane ", "caf\u00e9"])
    assert labels == ("crane", "crane (2)", "cafe\u0301", "crane (3)", "caf\u00e9 (2)")
    assert len(notes) == 2
    assert "class 3" in notes[0]


@pytest.mark.parametrize(
    "text",
    ['["a", "b"]', '{"0": "a", "1": "b"}', "{0: 'a', 1: 'b'}", "['a', 'b']", "a,b", "a\nb"],
)
def test_names_in_metadata(text):
    assert metadata_labels({"names": text, "other": "x"}) == ("names", ["a", "b"])


@pytest.mark.parametrize("text", ["", "{" * 1000, "__import__('os')", "{1: 'a'}", "[f(x)]"])
def test_metadata_that_are_no_names(text):
    found = metadata_labels({"names": text})
    assert found is None or found[1] == [text]
