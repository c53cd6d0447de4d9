"""Features as integers, and why sums of them are exact.

A feature vector is divided by its length, multiplied by 2¹⁴ and rounded, once. What is stored,
summed and predicted from is that integer vector; the unrounded one is never used again.

Every entry then has magnitude at most 2¹⁴, every product of two at most 2²⁸. A float64 holds all
integers up to 2⁵³ exactly, so sums of products stay exact for up to 2²⁵ = 33,554,432 pictures, in
any order, grouping or number of threads: addition of exact integers is associative, which addition
of floating-point numbers is not. Past that the sums go on in int64 (see `statistics`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["BITS", "EXACT_COUNT", "SCALE", "quantize", "to_float"]

BITS = 14
SCALE = 1 << BITS
EXACT_COUNT = 1 << (53 - 2 * BITS)

Fixed = NDArray[np.int16]
Floats = NDArray[np.float64]


def quantize(features: ArrayLike) -> tuple[Fixed, NDArray[np.float32]]:
    """Features as 14-bit fixed point, with their original lengths.

    Args:
        features: real numbers, shape [n, d] (or [d] for one picture).

    Returns:
        int16 of the same shape, the unit vectors times 2¹⁴; and float32 lengths, [n] (or []).
        A vector of zeros stays zeros, with length 0.

    Raises:
        ValueError: if a value is not finite.

    >>> quantize([[3.0, 4.0], [0.0, 0.0]])
    (array([[ 9830, 13107],
           [    0,     0]], dtype=int16), array([5., 0.], dtype=float32))
    """
    x = np.asarray(features, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError("features contain NaN or infinity")
    # Dividing by the largest entry first keeps the squares of huge or tiny values representable.
    largest = np.abs(x).max(axis=-1, keepdims=True, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)
    x = x / safe
    lengths = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    unit = x / np.where(lengths > 0, lengths, 1.0)
    norms = np.minimum(lengths * largest, np.finfo(np.float32).max)
    return np.rint(unit * SCALE).astype(np.int16), norms[..., 0].astype(np.float32)


def to_float(fixed: NDArray[np.integer]) -> Floats:
    """Fixed-point features as float64; exact, since the scale is a power of two.

    >>> to_float(np.array([8192, -16384], dtype=np.int16))
    array([ 0.5, -1. ])
    """
    found: Floats = np.multiply(fixed, 1.0 / SCALE, dtype=np.float64)
    return found
