"""What is measured, each as a pure function; `docs/benchmarks.md` has the formulas and sources.

Accuracies and errors are shares of 1. A number that cannot be had is None, never 0: a stream of one
task has no forgetting, a class that is not known yet no accuracy.

In the *matrix* R, R[i][j] is the accuracy on the test pictures of task j after step i, None where
the method did not know all its classes yet; rows may be shorter than the number of tasks. `learned`
holds the step in which each task was learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Track",
    "accuracy",
    "auroc",
    "average_incremental_accuracy",
    "backward_transfer",
    "balanced_accuracy",
    "calibration_error",
    "flips",
    "forgetting",
    "forward_transfer",
    "harmonic_mean",
    "intransigence",
    "mean",
    "negative_log_likelihood",
    "recency_bias",
]

Texts = NDArray[np.str_]
Floats = NDArray[np.float64]
Matrix = Sequence[Sequence[float | None]]

BINS = 15
SMALLEST = 1e-12
"""The least probability that counts in the negative log-likelihood, so that it stays finite."""


@dataclass(frozen=True, slots=True)
class Track:
    """What one run showed step by step, as far as the metrics over steps need it.

    Attributes:
        accuracies: on the classes seen so far, after each step.
        matrix: accuracy per step and task; see the module.
        learned: the step in which each task was learned.
        chance: accuracy of guessing on each task, 1 over the classes known before it.
    """

    accuracies: Sequence[float | None]
    matrix: Matrix
    learned: Sequence[int]
    chance: Sequence[float]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are there; None of none.

    >>> mean([1.0, None, 2.0]), mean([None])
    (1.5, None)
    """
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def accuracy(truth: Texts, answers: Texts) -> float | None:
    """The share of right answers."""
    return float(np.mean(truth == answers)) if len(truth) else None


def balanced_accuracy(truth: Texts, answers: Texts) -> float | None:
    """The mean over classes of the share of right answers.

    >>> balanced_accuracy(np.array(["a", "a", "a", "b"]), np.array(["a", "a", "b", "b"]))
    0.8333333333333333
    """
    right = truth == answers
    return mean([float(right[truth == label].mean()) for label in np.unique(truth)])


def calibration_error(right: NDArray[np.bool_], confidence: Floats) -> float | None:
    """Expected calibration error (Naeini 2015; Guo 2017, eq. 3): 15 bins of equal width.

    Args:
        right: whether each answer was right, [n].
        confidence: the probability of each answer, [n].

    >>> round(calibration_error(np.array([True, False]), np.array([0.9, 0.9])), 3)
    0.4
    """
    if not len(right):
        return None
    # Bin m holds ((m − 1)/15, m/15]; a confidence of zero goes into the first.
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(places, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def negative_log_likelihood(own: Floats) -> float | None:
    """The mean of −log p of the right class, in nats; p counts as at least 1e-12."""
    return float(-np.log(np.maximum(own, SMALLEST)).mean()) if len(own) else None


def auroc(known: Floats, unknown: Floats) -> float | None:
    """How well a score tells pictures of known classes (higher) from those of unknown ones.

    The area under the ROC curve: the chance that a known one scores higher, ties by half
    (Mann & Whitney; used so by Hendrycks & Gimpel 2017, arXiv:1610.02136).

    >>> auroc(np.array([0.9, 0.8]), np.array([0.8, 0.1]))
    0.875
    """
    if not len(known) or not len(unknown):
        return None
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([known, unknown]))[: len(known)]
    wins = ranks.sum() - len(known) * (len(known) + 1) / 2
    return float(wins / (len(known) * len(unknown)))


def flips(truth: Texts, before: Texts, after: Texts) -> tuple[int, int]:
    """How many answers got worse and how many better (negative and positive flips, Yan 2021).

    >>> flips(np.array(["a", "b"]), np.array(["a", "a"]), np.array(["b", "b"]))
    (1, 1)
    """
    was, now = truth == before, truth == after
    return int((was & ~now).sum()), int((~was & now).sum())


def recency_bias(truth: Texts, answers: Texts, recent: Sequence[str]) -> float | None:
    """How much more often the newest classes are answered than they are right, a share of 1.

    Old pictures answered as new less new ones answered as old, over all (the imbalance that the
    confusion matrices of Masana 2020 show, as one number); 0 is even, positive favours the new.
    None while all classes are new.

    >>> recency_bias(np.array(["a", "a", "b"]), np.array(["a", "b", "b"]), ["b"])
    0.3333333333333333
    """
    new = np.isin(truth, list(recent))
    if not len(truth) or new.all():
        return None
    return float(np.isin(answers, list(recent)).mean() - new.mean())


def harmonic_mean(first: float | None, second: float | None) -> float | None:
    """The harmonic mean of two accuracies; 0 where either is.

    >>> harmonic_mean(0.5, 1.0), harmonic_mean(0.0, 1.0)
    (0.6666666666666666, 0.0)
    """
    if first is None or second is None:
        return None
    return 2 * first * second / (first + second) if first + second > 0 else 0.0


def average_incremental_accuracy(accuracies: Sequence[float | None]) -> float | None:
    """The mean over steps, the first one too, of the accuracy on all classes seen (Rebuffi 2017).

    Not the mean over tasks after the last one, which is Masana's A_T and is usually lower.

    >>> average_incremental_accuracy([1.0, 0.8, 0.6])
    0.7999999999999999
    """
    return mean(accuracies)


def forgetting(track: Track) -> float | None:
    """The mean over all tasks but the last of the best accuracy it ever had less the last one.

    Chaudhry 2018: max over l < T of a_{l,j} − a_{T,j}; negative when a task only
    gained. The best is taken from the task's own step on.

    >>> forgetting(Track([], [[1.0], [0.5, 0.5], [0.75, 0.25, 1.0]], [0, 1, 2], []))
    0.25
    """
    lost = []
    for j, since in enumerate(track.learned):
        last = _at(track.matrix, len(track.matrix) - 1, j)
        had = [_at(track.matrix, i, j) for i in range(since, len(track.matrix) - 1)]
        best = max((each for each in had if each is not None), default=None)
        if last is not None and best is not None:
            lost.append(best - last)
    return mean(lost)


def backward_transfer(track: Track) -> float | None:
    """The mean over all tasks but the last of R[T][j] − R[j][j] (Lopez-Paz & Ranzato 2017, eq. 3).

    >>> backward_transfer(Track([], [[1.0], [0.5, 0.5], [0.75, 0.5, 1.0]], [0, 1, 2], []))
    -0.125
    """
    gained = []
    last = len(track.matrix) - 1
    for j, since in enumerate(track.learned):
        now, then = _at(track.matrix, last, j), _at(track.matrix, since, j)
        if since < last and now is not None and then is not None:
            gained.append(now - then)
    return mean(gained)


def forward_transfer(track: Track) -> float | None:
    """The mean over tasks but the first of R[j−1][j] − chance (Lopez-Paz & Ranzato 2017, eq. 4).

    Only where the classes of a task were known before it, as when domains shift: a class that no
    picture of was seen cannot be answered, and a zero would say nothing about the method. Chance is
    1 over the number of classes known, in the place of a network at random.

    >>> forward_transfer(Track([], [[0.9, 0.6], [0.9, 0.8]], [0, 1], [0.1, 0.1]))
    0.5
    """
    gained = []
    for j, since in enumerate(track.learned):
        before = _at(track.matrix, since - 1, j) if since > 0 else None
        if before is not None:
            gained.append(before - track.chance[j])
    return mean(gained)


def intransigence(track: Track, reference: Matrix) -> float | None:
    """The mean over tasks of a*_j − R[j][j]: what is not learned for all that is kept.

    Chaudhry 2018: a*_j is the accuracy on task j of the reference trained jointly on all
    that was seen up to it, `reference[step][j]`. Negative when the method learns it better.

    >>> intransigence(Track([], [[0.9], [0.9, 0.5]], [0, 1], []), [[0.9], [0.9, 0.75]])
    0.125
    """
    lost = []
    for j, since in enumerate(track.learned):
        ours, joint = _at(track.matrix, since, j), _at(reference, since, j)
        if ours is not None and joint is not None:
            lost.append(joint - ours)
    return mean(lost)


def _at(matrix: Matrix, i: int, j: int) -> float | None:
    return matrix[i][j] if 0 <= i < len(matrix) and j < len(matrix[i]) else None
