"""What changed between two heads, on the pictures that are remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retain.algebra.fixed import SCALE
from retain.algebra.heads import Head

__all__ = ["Difference", "compare", "predict_indices"]

# Pictures that are turned into floating point at once: few enough to stay in the cache.
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Difference:
    """Indices of pictures whose answer changed, by what that means.

    `worse`: right before, wrong now (negative flips, Yan 2021); `better`: wrong before, right now;
    `changed`: from one wrong answer to another.
    """

    worse: tuple[int, ...]
    better: tuple[int, ...]
    changed: tuple[int, ...]


def compare(before: Sequence[str | None], after: Sequence[str], truth: Sequence[str]) -> Difference:
    """Sort the answers that changed.

    Args:
        before: n labels answered before; None where there was no answer yet.
        after: n labels answered now.
        truth: n right labels.

    >>> compare(["a", "b", "b", None], ["b", "b", "a", "a"], ["a", "b", "a", "a"])
    Difference(worse=(0,), better=(2,), changed=())
    """
    worse: list[int] = []
    better: list[int] = []
    changed: list[int] = []
    for index, (old, new, right) in enumerate(zip(before, after, truth, strict=True)):
        if old is None or old == new:
            continue
        (worse if old == right else better if new == right else changed).append(index)
    return Difference(tuple(worse), tuple(better), tuple(changed))


def predict_indices(
    head: Head, features: NDArray[np.int16], norms: NDArray[np.floating] | None = None
) -> NDArray[np.intp]:
    """The answered class of each picture, as an index into ``head.classes``: [n].

    Many pictures at once, in float32; where the two best are too close for that to be certain the
    picture is asked again exactly as `Head.logits` does, so the answers are always the same as
    predicting one by one.

    Args:
        head: what answers.
        features: int16 [n, d].
        norms: their original lengths [n], for a head that needs them.
    """
    answers = np.zeros(len(features), dtype=np.intp)
    if len(head.classes) < 2:
        return answers
    weights = (head.weights / SCALE).astype(np.float32).T
    bias = head.bias.astype(np.float32)
    # |float32 error| of a dot product of d terms is below about d·2⁻²⁴·‖w‖‖x‖, and ‖x‖ ≤ 1.
    length = float(np.sqrt((head.weights**2).sum(axis=1)).max())
    lengths = np.ones(len(features), np.float32) if norms is None else norms.astype(np.float32)
    raw = None
    if head.raw is not None:
        raw = (head.raw / SCALE).astype(np.float32).T
        longest = float(np.sqrt((head.raw**2).sum(axis=1)).max())
        length += longest * float(lengths.max(initial=0.0))
    unsure = 4e-7 * (np.sqrt(features.shape[1]) + 8) * (length + float(np.abs(head.bias).max()))
    for start in range(0, len(features), _BLOCK):
        block = features[start : start + _BLOCK]
        x = block.astype(np.float32)
        rho = lengths[start : start + _BLOCK]
        scores = x @ weights + bias
        if raw is not None:
            scores += rho[:, None] * (x @ raw)
        best = scores.argmax(axis=1)
        rows = np.arange(len(block))
        top = scores[rows, best].copy()
        scores[rows, best] = -np.inf
        close = np.flatnonzero(top - scores.max(axis=1) <= unsure)
        if len(close):
            best[close] = head.logits(block[close], rho[close]).argmax(axis=1)
        answers[start : start + _BLOCK] = best
    return answers
