"""Exceptions: stored pictures that answer for their own neighbourhood, and for nothing else.

A picture e of class t overrides the head where cos(x, e) > τ, with

    τ = (1 + max over remembered pictures x_i of another class of cos(x_i, e)) / 2,

half-way between the picture itself and the nearest remembered one that it must not answer for: no
remembered picture of another class can get worse. Cosines come out of integers and are exact up to
one rounding, so that a threshold never moves by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Exceptions", "overridden"]

Floats = NDArray[np.float64]

_BLOCK = 8192


@dataclass(frozen=True, eq=False, slots=True)
class Exceptions:
    """The exceptions of a state; K of them, in the order of their pictures' names.

    Attributes:
        images: the pictures' names.
        labels: what each answers.
        features: int16 [K, d].
        thresholds: τ [K]; 1 where a picture of another class has the very same feature, so that
            the exception never speaks.
    """

    images: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    features: NDArray[np.int16] = field(default_factory=lambda: np.zeros((0, 0), np.int16))
    thresholds: Floats = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(
        cls,
        images: Sequence[str],
        labels: Sequence[str],
        features: NDArray[np.int16],
        chosen: Sequence[int],
    ) -> Exceptions:
        """The exceptions `chosen` among members (their names, labels, and int16 [n, d]).

        >>> members = np.array([[16384, 0], [0, 16384], [14189, 8192]], np.int16)
        >>> Exceptions.of(["x", "y", "z"], ["a", "a", "b"], members, [2]).thresholds.round(3)
        array([0.933])
        """
        if not chosen:
            return cls()
        rows = sorted(chosen, key=lambda i: images[i])
        stored = features[rows]
        own = [labels[i] for i in rows]
        names, codes = np.unique(np.array(labels, dtype=object), return_inverse=True)
        position = {str(name): i for i, name in enumerate(names)}
        nearest = np.full(len(rows), -1.0)
        for start in range(0, len(features), _BLOCK):
            cosines = _cosines(features[start : start + _BLOCK], stored)
            for k, label in enumerate(own):
                others = codes[start : start + _BLOCK] != position[label]
                if others.any():
                    nearest[k] = max(nearest[k], float(cosines[others, k].max()))
        return cls(tuple(images[i] for i in rows), tuple(own), stored, (1.0 + nearest) / 2.0)

    def __len__(self) -> int:
        return len(self.images)

    def speaking(self, feature: NDArray[np.int16]) -> int | None:
        """Which one answers for a picture int16 [d]: the nearest of those in reach, if any."""
        found = int(self.nearest(feature[None])[0])
        return found if found >= 0 else None

    def nearest(self, features: NDArray[np.int16]) -> NDArray[np.intp]:
        """Which one answers for each picture int16 [n, d]; −1 where none does: [n]."""
        result = np.full(len(features), -1, dtype=np.intp)
        if not len(self):
            return result
        for start in range(0, len(features), _BLOCK):
            cosines = _cosines(features[start : start + _BLOCK], self.features)
            reached = np.where(cosines > self.thresholds, cosines, -2.0)
            best = reached.argmax(axis=1)
            spoken = reached[np.arange(len(best)), best] > -2.0
            result[start : start + _BLOCK][spoken] = best[spoken]
        return result


def overridden(logits: Floats, target: int, margin: float) -> Floats:
    """Logits [C] in which the class `target` is lifted until it wins by a margin.

    >>> overridden(np.array([3.0, 2.0, 0.0]), target=1, margin=0.5)
    array([3. , 3.5, 0. ])
    """
    rivals = np.delete(logits, target)
    result = logits.copy()
    if len(rivals):
        result[target] = max(float(logits[target]), float(rivals.max()) + margin)
    return result


def _cosines(features: NDArray[np.int16], stored: NDArray[np.int16]) -> Floats:
    x, e = features.astype(np.float64), stored.astype(np.float64)
    lengths = np.sqrt((x * x).sum(axis=1))[:, None] * np.sqrt((e * e).sum(axis=1))
    products: Floats = x @ e.T
    # Sums of products of integers are exact, so a picture's cosine with itself is one rounding
    # away from 1; it counts as 1.
    cosines = np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1.0), 0.0)
    return np.minimum(cosines, 1.0)
