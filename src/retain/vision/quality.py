"""Whether a picture is fit to teach from: sharp enough, large enough."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

__all__ = ["blur"]

_WIDTH = 9
_SIDE = 256


def blur(pixels: NDArray[np.uint8]) -> float:
    """How blurred a picture is, 0 (sharp) to 1: how little it loses when blurred once more.

    The no-reference measure of Crété-Roffet (2007, eqs. 1 to 10): differences of neighbouring
    pixels before and after a strong low-pass filter, along both axes; the larger of the two.

    Args:
        pixels: uint8 [h, w, 3].

    >>> noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    >>> blur(noise) < 0.3 < 0.9 < blur(np.full((64, 64, 3), 7, np.uint8))
    True
    """
    step = max(1, min(pixels.shape[:2]) // _SIDE)
    grey = pixels[::step, ::step].astype(np.float64).mean(axis=2)
    return max(_along(grey, axis) for axis in (0, 1))


def _along(grey: NDArray[np.float64], axis: int) -> float:
    if grey.shape[axis] < 2:
        return 1.0
    smooth = uniform_filter1d(grey, _WIDTH, axis=axis, mode="nearest")
    sharp, left = np.abs(np.diff(grey, axis=axis)), np.abs(np.diff(smooth, axis=axis))
    total = float(sharp.sum())
    lost = float(np.maximum(sharp - left, 0.0).sum())
    return (total - lost) / total if total > 0 else 1.0
