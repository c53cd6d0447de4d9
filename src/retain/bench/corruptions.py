"""Pictures made worse, for streams whose domain shifts.

The kinds and their five severities are those of Hendrycks & Dietterich 2019, "Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations" (arXiv:1903.12261), which states them
for pictures of 224 pixels; noise comes from a generator seeded by the picture, so that the same
picture is always corrupted the same way.
"""

from __future__ import annotations

import hashlib
import io
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from retain.errors import BadOption

__all__ = ["CORRUPTIONS", "corrupt", "parse_corruption"]

CORRUPTIONS: Final[dict[str, tuple[float, ...]]] = {
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added, of 1
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # factor about the mean
    "gaussian-blur": (1, 2, 3, 4, 6),  # pixels
    "gaussian-noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation, of 1
    "jpeg": (25, 18, 15, 10, 7),  # quality
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # factor of the size
}


def parse_corruption(text: str) -> tuple[str, int]:
    """The kind and severity (1 to 5) of a corruption.

    Raises:
        BadOption: if there is none of that name.

    >>> parse_corruption("contrast:3")
    ('contrast', 3)
    """
    kind, _, severity = text.partition(":")
    if kind not in CORRUPTIONS or severity not in {"1", "2", "3", "4", "5"}:
        raise BadOption(
            f"there is no corruption {text!r}; use {', '.join(sorted(CORRUPTIONS))}, and a "
            f"severity of 1 to 5, such as contrast:3"
        )
    return kind, int(severity)


def corrupt(data: bytes, corruption: str) -> bytes:
    """A picture file made worse, as PNG bytes of the same size in pixels.

    Args:
        data: an image file.
        corruption: kind and severity, such as ``"gaussian-noise:3"``.

    Raises:
        BadOption: if there is no such corruption.
        OSError: if Pillow cannot read the picture.
    """
    kind, severity = parse_corruption(corruption)
    amount = CORRUPTIONS[kind][severity - 1]
    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGB")
    if kind == "gaussian-blur":
        picture = picture.filter(ImageFilter.GaussianBlur(amount))
    elif kind == "jpeg":
        worse = io.BytesIO()
        picture.save(worse, "JPEG", quality=int(amount))
        picture = Image.open(worse).convert("RGB")
    elif kind == "pixelate":
        small = tuple(max(1, round(amount * side)) for side in picture.size)
        picture = picture.resize((small[0], small[1]), Image.Resampling.BOX).resize(
            picture.size, Image.Resampling.BOX
        )
    else:
        x = np.asarray(picture, dtype=np.float64) / 255
        if kind == "gaussian-noise":
            seed = hashlib.sha256(corruption.encode() + b"\x00" + data).digest()
            x = x + np.random.default_rng(list(seed)).normal(scale=amount, size=x.shape)
        elif kind == "brightness":
            x = x + amount
        else:
            mean = x.mean(axis=(0, 1), keepdims=True)
            x = (x - mean) * amount + mean
        picture = Image.fromarray(np.round(np.clip(x, 0, 1) * 255).astype(np.uint8))
    made = io.BytesIO()
    picture.save(made, "PNG", compress_level=1)
    return made.getvalue()
