"""How others prepare their pictures: the usual ways by name, and the files that say so.

A network fed in another way than it was trained still answers, only worse, and nothing tells. So
what two sources say in different words is read exactly, and what cannot be read is an error.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from retain.errors import BadOption
from retain.vision.preprocess import InputType, Layout, Preprocess

__all__ = ["PRESETS", "chosen_rule", "preset", "read_rule"]


class _Values(NamedTuple):
    """x = (scale·p − mean) / std, and what usually goes with it."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    colour: str = "RGB"
    crop: float = 1.0
    interpolation: str = "bilinear"


_GREY, _ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

PRESETS: Final[Mapping[str, _Values]] = MappingProxyType(
    {
        # torchvision/transforms/_presets.py, ImageClassification
        "imagenet": _Values(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop=0.875),
        # keras/src/applications/imagenet_utils.py, preprocess_input, mode "tf"
        "minus-one-to-one": _Values(1.0, (127.5,) * 3, (127.5,) * 3),
        "zero-to-one": _Values(1 / 255, _GREY, _ONE),
        "raw": _Values(1.0, _GREY, _ONE),
        # the same, mode "caffe"; the means are of blue, green and red
        "caffe": _Values(1.0, (103.939, 116.779, 123.68), _ONE, "BGR", crop=0.875),
        # clip/clip.py, _transform
        "clip": _Values(
            1 / 255,
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
            interpolation="bicubic",
        ),
        # tpu/models/official/efficientnet/lite, MEAN_RGB and STDDEV_RGB
        "efficientnet-lite": _Values(
            1.0, (127.0,) * 3, (128.0,) * 3, crop=0.875, interpolation="bicubic"
        ),
    }
)
"""The usual ways by name."""

SMALL: Final = 128
"""Inputs with fewer pixels on a side are rarely cropped from larger pictures."""

_FIELDS = frozenset(each.name for each in dataclasses.fields(Preprocess))


def preset(
    name: str,
    height: int,
    width: int,
    *,
    channels: int = 3,
    layout: Layout = "NCHW",
    dtype: InputType = "float32",
    **overrides: Any,
) -> Preprocess:
    """A usual way of preparing pictures.

    Args:
        name: one of `PRESETS`.
        height: of the input, in pixels.
        width: of the input, in pixels.
        channels: 3, or 1 for grey pictures.
        layout: of the input.
        dtype: of the input.
        overrides: other fields of `Preprocess`, or `crop`: the part of the shorter side that is
            kept. `crop` is otherwise 0.875 for ``"imagenet"``, ``"caffe"`` and
            ``"efficientnet-lite"`` from 128 pixels on, else 1.

    Raises:
        BadOption: if there is no such way, or it does not fit the rest.

    >>> preset("imagenet", 224, 224).shorter
    256
    >>> preset("raw", 28, 28, channels=1, resize="squash").colour
    'L'
    """
    if name not in PRESETS:
        raise BadOption(
            f"there is no preprocessing {name!r}; use one of {', '.join(PRESETS)}, a file that "
            f"tells it (preprocessor_config.json, config.json), or a whole Preprocess"
        )
    values = PRESETS[name]
    fields: dict[str, Any] = {
        "height": height, "width": width, "scale": values.scale, "mean": values.mean,
        "std": values.std, "colour": values.colour, "interpolation": values.interpolation,
        "layout": layout, "dtype": dtype,
    }  # fmt: skip
    if channels == 1:
        if len({*values.mean}) > 1 or len({*values.std}) > 1:
            raise BadOption(
                f"the preprocessing {name!r} is for three colours, but the network takes one "
                f"channel; use raw, zero-to-one or minus-one-to-one, or give mean and std"
            )
        fields |= {"mean": values.mean[:1], "std": values.std[:1], "colour": "L"}
    if overrides.get("colour") in ("RGB", "BGR") and overrides["colour"] != fields["colour"]:
        fields |= {"mean": values.mean[::-1], "std": values.std[::-1]}
    # A crop of what was never larger would be a magnification.
    crop = values.crop if min(height, width) >= SMALL else 1.0
    return _overridden(fields, {"crop": crop, **overrides})


def _overridden(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> Preprocess:
    """A rule of fields, some of them replaced; `crop` becomes `shorter`."""
    unknown = sorted(set(overrides) - _FIELDS - {"crop"})
    if unknown:
        raise BadOption(
            f"preprocessing has no {', '.join(map(repr, unknown))}; it has crop and "
            f"{', '.join(sorted(_FIELDS))}"
        )
    result = {**fields, **{k: v for k, v in overrides.items() if k != "crop"}}
    if result.get("resize", "shorter") == "squash":
        result["shorter"] = overrides.get("shorter", 0)
    elif "shorter" not in overrides and ("crop" in overrides or "shorter" not in fields):
        crop = overrides.get("crop", 1.0)
        if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0.1 <= crop <= 1:
            raise BadOption(f"crop is {crop!r}; give the part that is kept, between 0.1 and 1")
        result["shorter"] = math.floor(max(result["height"], result["width"]) / crop + 1e-9)
    return Preprocess.from_json(result)


def chosen_rule(
    rule: Preprocess | Mapping[str, Any] | str | os.PathLike[str],
    *,
    height: int | None,
    width: int | None,
    channels: int | None,
    layout: Layout | None,
    dtype: InputType,
    overrides: Mapping[str, Any] = MappingProxyType({}),
) -> Preprocess:
    """The rule for a network, from whatever was given.

    Args:
        rule: a whole rule, the name of a preset, or a file or mapping as `read_rule` takes them.
        height: of the network's input, if fixed; so the others.
        width: see `height`.
        channels: see `height`.
        layout: see `height`.
        dtype: of the network's input.
        overrides: fields of `Preprocess`, or `crop`, that replace those of the rule.

    Raises:
        BadOption: if something is missing or contradicts the network; both are named.
    """
    found: Preprocess
    known = {"dtype": dtype}
    if isinstance(rule, str) and (rule in PRESETS or not Path(rule).is_file()):
        tall, wide = overrides.get("height", height), overrides.get("width", width)
        if tall is None or wide is None:
            raise BadOption(
                "the network takes pictures of any size; give one (size, or height and width)"
            )
        more = {k: v for k, v in overrides.items() if k not in ("height", "width", "layout")}
        grey = overrides.get("colour") == "L" or channels == 1
        axes = overrides.get("layout", layout or "NCHW")
        found = preset(
            rule, tall, wide, channels=1 if grey else 3, layout=axes, **{**known, **more}
        )
    elif isinstance(rule, Preprocess):
        found = _overridden({**rule.to_json(), **known}, overrides)
    else:
        read = read_rule(rule).to_json()
        found = _overridden({**read, "layout": layout or read["layout"], **known}, overrides)
    for name, own, given in (
        ("height", height, found.height),
        ("width", width, found.width),
        ("channels", channels, found.channels),
        ("layout", layout, found.layout),
    ):
        if own is not None and own != given:
            raise BadOption(
                f"the network takes {name} {own}, but the preprocessing gives {name} {given}; "
                f"one of them is of another network: give {name} {own}"
            )
    return found


# -- files that say how -----------------------------------------------------------------------


def read_rule(source: Mapping[str, Any] | str | os.PathLike[str]) -> Preprocess:
    """What a file of metadata says about preprocessing.

    Args:
        source: a JSON file, or what is in it: Hugging Face's `preprocessor_config.json`, timm's
            `config.json` or `pretrained_cfg`, the fields of a torchvision preset
            (`resize_size`, `crop_size`, `mean`, `std`), or `Preprocess.to_json`.

    Raises:
        BadOption: if it cannot be read, says nothing, contradicts itself, or names something that
            `Preprocess` has no word for.

    >>> read_rule({"resize_size": 256, "crop_size": 224, "mean": [0, 0, 0], "std": [1, 1, 1]}).shape
    (1, 3, 224, 224)
    """
    if isinstance(source, Mapping):
        return _read(source, "the preprocessing")
    name = os.fspath(source)
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadOption(f"{name} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadOption(f"{name} holds a {type(content).__name__}, not a JSON object")
    return _read(content, name)


def _read(told: Mapping[str, Any], name: str) -> Preprocess:
    from retain.vision.metadata import hugging_face, timm, torchvision

    inner = told.get("preprocess", told)
    if isinstance(inner, Mapping) and {"height", "width"} <= set(inner) <= _FIELDS:
        return Preprocess.from_json(inner)
    try:
        if "pretrained_cfg" in told or "input_size" in told:
            return timm(told)
        if "resize_size" in told or {"crop_size", "mean"} <= set(told):
            return torchvision(told)
        if {"size", "crop_size", "do_resize", "do_normalize", "image_mean"} & set(told):
            return hugging_face(told)
    except BadOption as error:
        raise BadOption(f"{name}: {error}") from error
    except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise BadOption(f"{name} cannot be used: {error!r}") from error
    raise BadOption(
        f"{name} says nothing about preprocessing that is known here (its keys: "
        f"{', '.join(map(str, [*told][:12]))}); name a preset: {', '.join(PRESETS)}"
    )
