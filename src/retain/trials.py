"""What a head would say to pictures that it never saw: in folds, in pairs, with fewer pictures.

Two ways to make features are compared on the same pictures in the same folds, so that what is hard
for both does not count; how sure the difference is follows from the pictures that changed.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from retain.algebra import HeadOptions, Statistics, base_head, predict_indices, tune, tuning_sample
from retain.caches import Features
from retain.solving import single_threaded
from retain.values import Sample

__all__ = ["Gain", "Step", "accuracy_with", "crossed", "curve", "folds", "gained", "ranks", "right"]

Hits = NDArray[np.bool_]
Places = NDArray[np.intp]

# Shares of the pictures that a learning curve is drawn through.
_SHARES = (1 / 8, 1 / 4, 1 / 2)

# So many pictures judge a point of it.
_JUDGES = 500


@dataclass(frozen=True, slots=True)
class Gain:
    """How much more is right, as a share of pictures, and its standard error.

    Attributes:
        mean: of the differences, −1 to 1.
        error: standard error of the mean.
        judged: how many pictures tell.
    """

    mean: float
    error: float
    judged: int

    def beside(self, expected: float, spread: float) -> Gain:
        """What to believe where such gains are normally distributed about `expected`.

        >>> Gain(0.10, 0.05, 100).beside(0.0, 0.05)
        Gain(mean=0.05, error=0.035..., judged=100)
        """
        weight = spread**2 / (spread**2 + self.error**2)
        mean = weight * self.mean + (1 - weight) * expected
        return Gain(mean, weight**0.5 * self.error, self.judged)

    def likelihood(self, expected: float, spread: float) -> float:
        """How likely such a gain is to be seen where gains vary so about `expected`."""
        return NormalDist(expected, math.hypot(spread, self.error)).pdf(self.mean)

    def mixed(self, other: Gain, weight: float) -> Gain:
        """This, or with probability `weight` the other; the mean, and the deviation about it.

        >>> Gain(0.0, 0.03, 9).mixed(Gain(0.1, 0.03, 9), 0.5)
        Gain(mean=0.05, error=0.058..., judged=9)
        """
        mean = (1 - weight) * self.mean + weight * other.mean
        square = (1 - weight) * (self.error**2 + (self.mean - mean) ** 2)
        square += weight * (other.error**2 + (other.mean - mean) ** 2)
        return Gain(mean, square**0.5, self.judged)

    def scaled(self, factor: float) -> Gain:
        """The same of errors that are `factor` times as frequent."""
        return Gain(factor * self.mean, factor * self.error, self.judged)


@dataclass(frozen=True, slots=True)
class Step:
    """A point of a learning curve: the accuracy with so many pictures, 0 to 1."""

    pictures: int
    accuracy: float


def ranks(samples: Sequence[Sample]) -> Places:
    """The place of each picture [n] within its class, in the order of the hashes of their names."""
    rows: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
    for row, sample in enumerate(samples):
        # Hashed once more: the name is a hash that other choices go by, too.
        rows[sample.label].append((hashlib.sha256(f"trial {sample.image}".encode()).digest(), row))
    found = np.zeros(len(samples), np.intp)
    for mine in rows.values():
        for place, (_, row) in enumerate(sorted(mine)):
            found[row] = place
    return found


def folds(samples: Sequence[Sample], number: int) -> Places:
    """In which of `number` folds each picture [n] is judged; −1 for the only one of its class."""
    counts = Counter(sample.label for sample in samples)
    alone = np.array([counts[sample.label] < 2 for sample in samples], bool)
    return np.where(alone, -1, ranks(samples) % number)


def crossed(
    fold: int, parts: Places, features: Features, labels: Sequence[str], options: HeadOptions
) -> tuple[Places, list[str]]:
    """Who is judged in a fold, and what the head of all others answers to each.

    Args:
        fold: which.
        parts: of every picture, as `folds` gives them [n].
        features: int16 [n, d].
        labels: of the pictures [n].
        options: of the head.
    """
    judged = np.flatnonzero(parts == fold)
    learned = np.flatnonzero(parts != fold)
    return judged, _answers(features, labels, learned, judged, options)


def gained(before: Hits, after: Hits) -> Gain:
    """The gain of the second over the first, on the same pictures [n].

    The error is that of paired differences, with one picture more lost and one more won than were
    seen: of few pictures none may have changed, and that is no certainty.

    >>> gained(np.array([True, False, False]), np.array([True, True, True])).mean
    0.66...
    """
    n = max(len(before), 1)
    differences = after.astype(np.float64) - before
    mean = float(differences.mean()) if len(before) else 0.0
    squares = float(((differences - mean) ** 2).sum()) + 2.0
    return Gain(mean, squares**0.5 / n, len(before))


def curve(
    samples: Sequence[Sample], features: Features, labels: Sequence[str], options: HeadOptions
) -> tuple[Step, ...]:
    """The accuracy with an eighth, a quarter and half of the pictures, each twice.

    Only as far down as classes have two pictures on the average.
    """
    order, counts = ranks(samples), Counter(labels)
    sizes = np.array([counts[label] for label in labels])
    steps = []
    for share in _SHARES:
        if share * len(labels) < 2 * len(counts):
            continue
        many = np.maximum(1, np.round(share * sizes))
        found: list[Hits] = []
        for turn in (0, 1):
            shifted = (order + turn * many) % sizes
            learned = np.flatnonzero(shifted < many)
            judged = np.flatnonzero(shifted >= many)
            # Drawn from all alike: each class has its share, as among those that judge the whole.
            judged = np.random.default_rng(turn).permutation(judged)[:_JUDGES]
            if len(judged):
                answers = _answers(features, labels, learned, judged, options)
                found.append(right(answers, judged, labels))
        if found:
            steps.append(Step(len(learned), float(np.concatenate(found).mean())))
    return tuple(steps)


def accuracy_with(steps: Sequence[Step], pictures: int) -> float | None:
    """What a learning curve leads to: errors as a power of the number of pictures.

    None where fewer than three points tell. With more pictures nothing is expected to get worse.

    >>> round(accuracy_with([Step(10, 0.2), Step(20, 0.6), Step(40, 0.8)], 80), 3)
    0.9
    """
    if len(steps) < 3:
        return None
    sizes = np.log([each.pictures for each in steps])
    errors = np.log([max(1 - each.accuracy, 1e-3) for each in steps])
    slope = min(0.0, float(np.polyfit(sizes, errors, 1)[0]))
    return float(1 - np.exp(errors[-1] + slope * (np.log(pictures) - sizes[-1])))


def right(answers: Sequence[str], judged: Places, labels: Sequence[str]) -> Hits:
    """Which of the answers to the pictures `judged` are their labels [len(judged)].

    >>> right(["a", "b"], np.array([2, 0]), ["a", "b", "a"])
    array([ True, False])
    """
    pairs = zip(answers, judged, strict=True)
    return np.array([answer == labels[row] for answer, row in pairs], bool)


def _answers(
    features: Features,
    labels: Sequence[str],
    learned: Places,
    judged: Places,
    options: HeadOptions,
) -> list[str]:
    names = [labels[row] for row in learned]
    taught = Statistics.of(features[learned], names)
    by_name = {str(row): name for row, name in zip(learned, names, strict=True)}
    jurors = [int(name) for name in tuning_sample(by_name)]
    with single_threaded():
        tuning = tune(taught, features[jurors], [labels[row] for row in jurors], options)
        head, _ = base_head(taught, tuning, options)
        found = predict_indices(head, features[judged])
    return [head.classes[i] for i in found]
