"""`Preprocess` and `prepare`, against resizing and cropping done step by step."""

import numpy as np
import pytest
from PIL import Image

from retain.errors import BadOption
from retain.vision import Preprocess, prepare

from .conftest import scene


def step_by_step(pixels: np.ndarray, rule: Preprocess) -> np.ndarray:
    """The slow twin: scale the whole picture, then crop, then normalise in float64."""
    picture = Image.fromarray(pixels)
    method = Image.Resampling[rule.interpolation.upper()]
    if rule.colour == "L":
        picture = picture.convert("L")
    if rule.resize == "squash":
        picture = picture.resize((rule.width, rule.height), method)
    else:
        scale = rule.shorter / min(picture.size)
        width, height = (int(side * scale + 0.5) for side in picture.size)
        picture = picture.resize((width, height), method)
        left, top = (width - rule.width) // 2, (height - rule.height) // 2
        picture = picture.crop((left, top, left + rule.width, top + rule.height))
    values = np.asarray(picture, np.float64).reshape(rule.height, rule.width, -1)
    if rule.colour == "BGR":
        values = values[:, :, ::-1]
    values = (values * rule.scale - rule.mean) / rule.std
    return values.transpose(2, 0, 1)[None] if rule.layout == "NCHW" else values[None]


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (40, 40), (33, 200), (300, 17), (32, 50)])
@pytest.mark.parametrize(
    "rule",
    [
        Preprocess(32, 32, shorter=32),
        Preprocess(32, 32, shorter=36, interpolation="bicubic", layout="NHWC"),
        Preprocess(24, 32, shorter=40, colour="BGR", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)),
        Preprocess(24, 20, resize="squash", scale=1, mean=(127,) * 3, std=(128,) * 3),
        Preprocess(16, 16, shorter=16, colour="L", mean=(0.5,), std=(0.25,), interpolation="box"),
    ],
)
def test_prepare_is_scaling_then_cropping_then_normalising(size, rule):
    pixels = scene(*size)
    given, wanted = prepare(pixels, rule), step_by_step(pixels, rule)
    assert given.dtype == np.float32
    assert given.shape == rule.shape == wanted.shape
    assert given.flags.c_contiguous
    # A few grey levels where ties in Pillow's two passes are rounded the other way.
    np.testing.assert_allclose(given, wanted, atol=3.01 * rule.scale / min(rule.std))
    assert np.abs(given - wanted).mean() < 0.25 * rule.scale / min(rule.std)


def test_the_resize_is_antialiased():
    checkerboard = np.indices((128, 128)).sum(0) % 2 * 255
    pixels = np.stack([checkerboard] * 3, -1).astype(np.uint8)
    grey = prepare(pixels, Preprocess(16, 16, shorter=16, scale=1))
    assert np.abs(grey - 127.5).max() < 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 4)])
def test_tiny_and_thin_pictures(shape):
    pixels = np.full((*shape, 3), 7, np.uint8)
    given = prepare(pixels, Preprocess(224, 224, shorter=256, scale=1))
    assert (given == 7).all()


def test_json_is_whole_and_exact():
    rule = Preprocess(8, 9, shorter=11, mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1), colour="BGR")
    assert Preprocess.from_json(rule.to_json()) == rule
    assert set(rule.to_json()) == set(Preprocess.__dataclass_fields__) - {"dtype"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"resize": "stretch"}, "stretch"),
        ({"colour": "CMYK"}, "CMYK"),
        ({"interpolation": "nearest"}, "nearest"),
        ({"layout": "CHW"}, "CHW"),
        ({"height": 0}, "0×32"),
        ({"height": 32.5}, "whole numbers"),
        ({"width": 99999}, "99999"),
        ({"shorter": 31}, "31"),
        ({"resize": "squash"}, "squash"),
        ({"mean": [0.0]}, "1 means"),
        ({"std": [1.0, 1.0, 0.0]}, "not zero"),
        ({"scale": float("nan")}, "finite"),
        ({"mean": None}, "cannot be used"),
        ({"crop": 3}, "crop"),
    ],
)
def test_impossible_rules_are_refused(change, why):
    rule = {**Preprocess(32, 32, shorter=36).to_json(), **change}
    with pytest.raises(BadOption, match=why):
        Preprocess.from_json(rule)
