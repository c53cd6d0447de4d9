"""The dialects in which timm, Hugging Face and torchvision write down their preprocessing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from retain.errors import BadOption
from retain.vision.preprocess import Preprocess

__all__ = ["hugging_face", "timm", "torchvision"]

# PIL.Image.Resampling; "hamming" and "nearest" have no counterpart here.
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_FILTERS = frozenset({"bilinear", "bicubic", "lanczos", "box"})

_SQUASHES = ("ViT", "DeiT", "Beit", "Swin", "Segformer", "DPT")
"""Image processors of Hugging Face for which one number means both sides."""


def timm(told: Mapping[str, Any]) -> Preprocess:
    """Timm's `pretrained_cfg`, alone or inside a `config.json`.

    Raises:
        BadOption: if it contradicts itself, or has no counterpart here.
    """
    inner = told.get("pretrained_cfg", told)
    if not isinstance(inner, Mapping):
        raise BadOption(f"pretrained_cfg is {inner!r}, not an object")
    for key in ("input_size", "mean", "std", "crop_pct", "interpolation", "crop_mode"):
        if key in told and key in inner and told[key] != inner[key]:
            raise BadOption(
                f"{key} is {told[key]} outside and {inner[key]} inside pretrained_cfg; "
                f"delete the wrong one"
            )
    channels, height, width = _whole(inner["input_size"], 3, "input_size")
    crop = inner.get("crop_pct") or 0.875  # timm.data.constants.DEFAULT_CROP_PCT
    mode = inner.get("crop_mode") or "center"
    larger = math.floor(height / crop), math.floor(width / crop)
    common = {
        **_normalisation(inner["mean"], inner["std"], 1 / 255, channels),
        "interpolation": _filter(inner.get("interpolation") or "bicubic"),
    }
    if mode == "squash" and larger == (height, width):
        return Preprocess(height, width, resize="squash", **common)
    if mode != "center" or height != width:
        raise BadOption(
            f"crop_mode {mode!r} with crop_pct {crop} on {height}×{width} has no counterpart "
            f"here; give a rule by hand, with resize 'shorter' or 'squash'"
        )
    return Preprocess(height, width, shorter=larger[0], **common)


def torchvision(told: Mapping[str, Any]) -> Preprocess:
    """The fields of `torchvision.transforms._presets.ImageClassification`.

    Raises:
        BadOption: if it contradicts itself, or has no counterpart here.
    """
    crop = _sides(told["crop_size"], "crop_size")
    resize = told.get("resize_size", crop)
    common: dict[str, Any] = {
        **_normalisation(told["mean"], told["std"], 1 / 255, len(told["mean"])),
        "interpolation": _filter(told.get("interpolation") or "bilinear"),
    }
    if isinstance(resize, list | tuple) and len(resize) == 2:
        return _squashed(_sides(resize, "resize_size"), crop, "resize_size", common)
    shorter = _sides(resize, "resize_size")[0]
    return _cropped(shorter, crop, "resize_size", common)


def hugging_face(told: Mapping[str, Any]) -> Preprocess:
    """Hugging Face's `preprocessor_config.json`.

    Raises:
        BadOption: if it contradicts itself, or has no counterpart here.
    """
    kind = str(told.get("image_processor_type") or told.get("feature_extractor_type") or "")
    common: dict[str, Any] = {
        **_values(told),
        "interpolation": _filter(told.get("resample", 2)),
    }
    if told.get("do_flip_channel_order"):
        common["colour"] = "BGR"
    cropping = bool(told.get("do_center_crop", "crop_size" in told))
    size = told.get("size", told.get("crop_size"))
    if not told.get("do_resize", True):
        raise BadOption("do_resize is false, so pictures of any size would reach the network; "
                        "give a rule by hand")  # fmt: skip
    if isinstance(size, Mapping) and {"height", "width"} <= set(size):
        sides = _whole([size["height"], size["width"]], 2, "size")
        crop = _sides(told["crop_size"], "crop_size") if cropping else sides
        return _squashed(sides, crop, "size", common)
    if isinstance(size, Mapping) and "shortest_edge" not in size:
        raise BadOption(f"size is {dict(size)}, which has no counterpart here; give a rule by hand")
    shorter = _sides(size["shortest_edge"] if isinstance(size, Mapping) else size, "size")[0]
    if "crop_pct" in told and kind.startswith("ConvNext") and not cropping:
        # ConvNextImageProcessor: from 384 pixels on it squashes, below it crops.
        if shorter >= 384:
            return Preprocess(shorter, shorter, resize="squash", **common)
        return _cropped(int(shorter / told["crop_pct"]), (shorter, shorter), "size", common)
    if not isinstance(size, Mapping) and (kind.startswith(_SQUASHES) or not cropping):
        crop = _sides(told["crop_size"], "crop_size") if cropping else (shorter, shorter)
        return _squashed((shorter, shorter), crop, "size", common)
    if not cropping:
        raise BadOption(
            f"the shorter side is scaled to {shorter} and nothing is cropped, so the network "
            f"takes pictures of any shape; give a rule by hand"
        )
    return _cropped(shorter, _sides(told.get("crop_size", shorter), "crop_size"), "size", common)


def _values(told: Mapping[str, Any]) -> dict[str, Any]:
    """Scale, mean and deviation, from Hugging Face's switches."""
    rescaled = bool(told.get("do_rescale", True))
    scale = float(told.get("rescale_factor", 1 / 255)) if rescaled else 1.0
    shift = 1.0 if rescaled and told.get("rescale_offset") else 0.0
    mean, std = [0.0] * 3, [1.0] * 3
    if told.get("do_normalize", "image_mean" in told):
        if "image_mean" not in told or "image_std" not in told:
            raise BadOption("do_normalize is true, but image_mean or image_std is not given")
        mean, std = told["image_mean"], told["image_std"]
        if isinstance(mean, int | float) and isinstance(std, int | float):
            mean, std = [mean] * 3, [std] * 3
        if not rescaled and max(map(abs, [*mean, *std])) <= 1:
            raise BadOption(
                f"do_rescale is false, so pixels go to 255, but image_mean is {mean}, for pixels "
                f"that go to 1; one of the two is wrong"
            )
        if told.get("include_top"):  # EfficientNetImageProcessor divides a second time
            std = [s * s for s in std]
            mean = [m + shift for m in mean]
            return {"scale": scale, "mean": tuple(mean), "std": tuple(std)}
    checked = _normalisation(mean, std, scale, len(mean))
    return {**checked, "mean": tuple(m + shift for m in checked["mean"])}


def _normalisation(mean: Any, std: Any, scale: float, channels: int) -> dict[str, Any]:
    means, deviations = tuple(map(float, mean)), tuple(map(float, std))
    if not len(means) == len(deviations) == channels:
        raise BadOption(
            f"there are {len(means)} means and {len(deviations)} deviations for {channels} channels"
        )
    if scale < 0.1 and max(means) > 2:
        raise BadOption(
            f"the mean {list(means)} is for pixels that go to 255, but they are scaled by "
            f"{scale:.6g} first; one of the two is wrong"
        )
    colour = {"colour": "L"} if channels == 1 else {}
    return {"scale": scale, "mean": means, "std": deviations, **colour}


def _filter(given: Any) -> Any:
    """The name of an interpolation, from a name, a number of Pillow's, or torchvision's enum."""
    name = str(_RESAMPLE.get(given, given) if isinstance(given, int) else given)
    name = name.rpartition(".")[2].lower()
    if name not in _FILTERS:
        raise BadOption(
            f"interpolation {given!r} has no counterpart here; use one of "
            f"{', '.join(sorted(_FILTERS))}"
        )
    return name


def _whole(given: Any, count: int, name: str) -> list[int]:
    values = [given] if isinstance(given, int | float) else list(given)
    if len(values) != count or any(int(v) != v or v < 1 for v in values):
        raise BadOption(f"{name} is {given!r}; expected {count} whole numbers")
    return [int(v) for v in values]


def _sides(given: Any, name: str) -> tuple[int, int]:
    """Height and width from one number, a list of one or two, or an object."""
    if isinstance(given, Mapping):
        given = [given["height"], given["width"]]
    if not isinstance(given, int | float) and len(given) == 2:
        height, width = _whole(given, 2, name)
        return height, width
    side = _whole(given, 1, name)[0]
    return side, side


def _cropped(
    shorter: int, crop: tuple[int, int], name: str, common: Mapping[str, Any]
) -> Preprocess:
    if shorter < max(crop):
        raise BadOption(
            f"{name} scales the shorter side to {shorter}, but crop_size is {crop[0]}×{crop[1]}, "
            f"which is more; one of the two is wrong"
        )
    return Preprocess(*crop, shorter=shorter, **common)


def _squashed(
    sides: tuple[int, int] | list[int], crop: tuple[int, int] | list[int], name: str,
    common: Mapping[str, Any],
) -> Preprocess:  # fmt: skip
    if tuple(sides) != tuple(crop):
        raise BadOption(
            f"{name} squashes pictures to {sides[0]}×{sides[1]}, and crop_size is then "
            f"{crop[0]}×{crop[1]}; there is no such rule here: give one by hand, with resize "
            f"'squash' or 'shorter'"
        )
    return Preprocess(sides[0], sides[1], resize="squash", **common)
