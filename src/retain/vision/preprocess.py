"""From canonical pixels to what a network wants: resize, crop, colour order, normalise.

The rule is data, kept in `preprocess.json` and part of the extractor's fingerprint: a resize
without antialiasing alone would move features to a cosine of 0.965.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption

__all__ = ["Preprocess", "prepare"]

Resize = Literal["shorter", "squash"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "box"]
Colour = Literal["RGB", "BGR", "L"]
Layout = Literal["NCHW", "NHWC"]
InputType = Literal["float32", "float16", "uint8"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How canonical pixels become the input of a network.

    Attributes:
        height: of the input, in pixels.
        width: of the input, in pixels.
        resize: ``"shorter"`` scales the shorter side to `shorter` and crops the centre;
            ``"squash"`` scales the whole picture to the input, whatever its shape.
        shorter: in pixels, at least `height` and `width`; 0 with ``"squash"``.
        interpolation: the filter, always antialiased (Pillow's of the same name).
        colour: order of the channels, or ``"L"`` for one channel of luma (ITU-R 601-2).
        scale: what a pixel value, 0 to 255, is multiplied by first.
        mean: subtracted next, one for each channel.
        std: what is divided by last, one for each channel.
        layout: order of the axes: batch, channels, height, width, or channels last.
        dtype: of the input; ``"uint8"`` takes pixel values as they are, so nothing may be scaled.

    Raises:
        BadOption: if these do not fit together.

    >>> Preprocess(32, 32, resize="squash").shape
    (1, 3, 32, 32)
    """

    height: int
    width: int
    resize: Resize = "shorter"
    shorter: int = 0
    interpolation: Interpolation = "bilinear"
    colour: Colour = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: Layout = "NCHW"
    dtype: InputType = "float32"

    def __post_init__(self) -> None:
        for field, allowed in (
            ("resize", Resize),
            ("interpolation", Interpolation),
            ("colour", Colour),
            ("layout", Layout),
            ("dtype", InputType),
        ):
            if getattr(self, field) not in get_args(allowed):
                raise BadOption(
                    f"preprocess {field} is {getattr(self, field)!r}; "
                    f"use one of {', '.join(get_args(allowed))}"
                )
        if not all(isinstance(side, int) for side in (self.height, self.width, self.shorter)):
            raise BadOption("preprocess height, width and shorter must be whole numbers of pixels")
        if not 1 <= min(self.height, self.width) <= max(self.height, self.width) <= 4096:
            raise BadOption(f"preprocess {self.height}×{self.width} is not between 1 and 4096")
        if self.resize == "shorter" and not max(self.height, self.width) <= self.shorter <= 4096:
            raise BadOption(
                f"preprocess shorter is {self.shorter}; give at least the longer side of "
                f"{self.height}×{self.width}, at most 4096"
            )
        if self.resize == "squash" and self.shorter:
            raise BadOption(f"preprocess shorter is {self.shorter}; squash takes none, give 0")
        if not len(self.mean) == len(self.std) == self.channels:
            raise BadOption(
                f"preprocess has {len(self.mean)} means and {len(self.std)} deviations for "
                f"{self.channels} channels"
            )
        if not np.isfinite([self.scale, *self.mean, *self.std]).all() or 0.0 in self.std:
            raise BadOption("preprocess scale, mean and std must be finite, and std not zero")
        if self.dtype == "uint8" and (self.scale, {*self.mean}, {*self.std}) != (1, {0}, {1}):
            raise BadOption(
                f"preprocess scales pixels (scale {self.scale:g}, mean {list(self.mean)}, std "
                f"{list(self.std)}) for a uint8 input; give scale 1, mean 0 and std 1"
            )

    @property
    def channels(self) -> int:
        """How many channels the network sees."""
        return 1 if self.colour == "L" else 3

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of one prepared picture, batch axis first."""
        if self.layout == "NCHW":
            return (1, self.channels, self.height, self.width)
        return (1, self.height, self.width, self.channels)

    @property
    def needs(self) -> int:
        """How many pixels the shorter side of a picture must keep for nothing to be lost."""
        return self.shorter if self.resize == "shorter" else max(self.height, self.width)

    def to_json(self) -> dict[str, Any]:
        """The rule as JSON-ready values."""
        rule = dataclasses.asdict(self)
        # Left out where it is what it always was: the rule is part of fingerprints already written.
        if self.dtype == "float32":
            del rule["dtype"]
        return {**rule, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, rule: Mapping[str, Any]) -> Preprocess:
        """The inverse of `to_json`.

        Raises:
            BadOption: if a field is unknown, missing or impossible.

        >>> rule = Preprocess(32, 32, shorter=36)
        >>> Preprocess.from_json(rule.to_json()) == rule
        True
        """
        try:
            values = dict(rule)
            for field in ("mean", "std"):
                if field in values:
                    values[field] = tuple(float(value) for value in values[field])
            return cls(**values)
        except (TypeError, ValueError) as error:
            if isinstance(error, BadOption):
                raise
            raise BadOption(f"the preprocessing {rule!r} cannot be used: {error}") from error


def prepare(pixels: NDArray[np.uint8], rule: Preprocess) -> NDArray[Any]:
    """The input of a network for one picture.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        rule: what to do with them.

    Returns:
        `rule.dtype`, of the shape `rule.shape`: x = (scale·p − mean) / std, computed in float32.

    >>> black = np.zeros((5, 9, 3), np.uint8)
    >>> float(prepare(black, Preprocess(2, 2, shorter=2, mean=(1, 1, 1))).max())
    -1.0
    """
    from PIL import Image

    if rule.colour == "L":
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    small = _scale(pixels, rule).reshape(rule.height, rule.width, rule.channels)
    if rule.colour == "BGR":
        small = small[:, :, ::-1]
    axes = (-1, 1, 1) if rule.layout == "NCHW" else (1, 1, -1)
    if rule.layout == "NCHW":
        small = small.transpose(2, 0, 1)
    if rule.dtype == "uint8":
        return np.ascontiguousarray(small)[None]
    std = np.array(rule.std, np.float32).reshape(axes)
    result = np.empty(small.shape, np.float32)
    np.multiply(small, np.float32(rule.scale) / std, out=result)
    np.subtract(result, np.array(rule.mean, np.float32).reshape(axes) / std, out=result)
    return result[None].astype(rule.dtype, copy=False)


def _scale(pixels: NDArray[np.uint8], rule: Preprocess) -> NDArray[np.uint8]:
    """Resize and crop, in one step: only what the crop keeps is computed."""
    from PIL import Image

    height, width = pixels.shape[:2]
    tall, wide = rule.height, rule.width
    if rule.resize == "shorter":
        short = min(width, height)
        wide = (width * rule.shorter + short // 2) // short
        tall = (height * rule.shorter + short // 2) // short
    left, top = (wide - rule.width) // 2, (tall - rule.height) // 2
    if (tall, wide) == (height, width):
        return pixels[top : top + rule.height, left : left + rule.width]
    x, y = width / wide, height / tall
    box = (left * x, top * y, (left + rule.width) * x, (top + rule.height) * y)
    # The products may lie a rounding error beyond the edge, which Pillow would refuse.
    box = (*box[:2], min(box[2], float(width)), min(box[3], float(height)))
    method = Image.Resampling[rule.interpolation.upper()]
    picture = Image.fromarray(pixels).resize((rule.width, rule.height), method, box=box)
    return np.asarray(picture)
