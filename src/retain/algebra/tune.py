"""The few numbers a head needs besides the sums, chosen by leave-one-out in closed form.

Nothing is held out from the user: leaving one picture out of the sums has a closed form (see
`leaveout`), so every left-out score for every shrinkage on the grid comes from one
eigendecomposition. A twin in the tests leaves each picture out for real.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from retain.algebra.calibrate import fit_temperature
from retain.algebra.fixed import to_float
from retain.algebra.heads import UNTUNED, HeadOptions, Tuning, favoured, log_priors
from retain.algebra.leaveout import LeftOut
from retain.algebra.novelty import energy
from retain.algebra.statistics import Statistics
from retain.algebra.whitening import Moments, scatter

__all__ = [
    "GRID",
    "SAMPLE",
    "pin_margin",
    "quantiles",
    "tune",
    "tuning_sample",
]

Floats = NDArray[np.float64]

GRID: tuple[float, ...] = tuple(float(10 ** (k / 4)) for k in range(-16, 9))
SAMPLE = 2048
# So many scores are kept while a shrinkage is chosen (256 MB); of more classes they are worked out
# again for the few shrinkages that come into question.
_KEPT = 2**25
_QUANTILES = 400
_MARGIN_QUANTILE = 0.05


def tuning_sample(members: Mapping[str, str], size: int = SAMPLE) -> list[str]:
    """At most `size` members, chosen by nothing but their names and classes.

    Classes take turns, each giving its members in the order of a hash of their names, so that rare
    classes are heard and the choice does not depend on who came first. Of members that are their
    class's only one, which cannot be left out, more than an eighth come only where others are few.

    >>> tuning_sample({"x": "a", "y": "a", "z": "b"}, size=2) == tuning_sample(
    ...     {"z": "b", "y": "a", "x": "a"}, size=2)
    True
    """
    if len(members) <= size:
        return sorted(members)
    by_class: dict[str, list[tuple[bytes, str]]] = defaultdict(list)
    for name, label in members.items():
        by_class[label].append((hashlib.sha256(name.encode()).digest(), name))
    ranked = sorted(
        (rank, key, name)
        for named in by_class.values()
        for rank, (key, name) in enumerate(sorted(named))
    )
    alone = [each for each in ranked if len(by_class[members[each[2]]]) == 1]
    late = set(alone[size // 8 :])
    ranked.sort(key=lambda each: each in late)
    return sorted(name for _, _, name in ranked[:size])


def tune(
    statistics: Statistics,
    features: NDArray[np.int16],
    labels: Sequence[str],
    options: HeadOptions,
) -> Tuning:
    """Choose shrinkage, temperature and margin for a state.

    Of the shrinkages whose left-out accuracy is within one paired standard error of the best, the
    one with the lowest left-out negative log-likelihood after temperature: accuracy alone errs on
    long tails, likelihood alone with many classes. Both are weighted as often as the owner expects
    each class.

    Args:
        statistics: the state.
        features: int16 [n, d], some of its members (see `tuning_sample`).
        labels: their n labels.
        options: the owner's choices.

    Returns:
        The numbers; defaults where no class has two pictures or there is only one class.
    """
    position = {label: i for i, label in enumerate(statistics.classes)}
    truth = np.array([position[label] for label in labels], dtype=np.intp)
    judged = statistics.counts[truth] > 1 if len(truth) else np.zeros(0, dtype=bool)
    if len(statistics.classes) < 2 or not judged.any():
        return UNTUNED
    problem = _Problem(statistics, features[judged], truth[judged], options)
    truth = truth[judged]
    weights = _sample_weights(statistics, truth, options)
    # A class of n_c pictures is judged by means of n_c − 1: the fewer, the less its pictures say of
    # the shrinkage that suits the whole state.
    evidence = ((statistics.counts - 1) / statistics.counts)[truth]
    choosing = _normalised(weights * evidence)
    balanced = _sample_weights(statistics, truth, HeadOptions(priors="balanced"))
    offsets = log_priors(statistics.counts.astype(np.float64), options)

    grid = GRID if options.family != "nearest-mean" else (1.0,)
    # What is given back for attenuation helps classes that leave-one-out hardly sees, those of one
    # picture or two; it would bend the choice for all others, so it comes in after the choice.
    plain: Callable[[float], Floats] = partial(problem.scores, given_back=False)
    if len(grid) * len(truth) * len(statistics.classes) <= _KEPT:
        plain = cache(plain)
    right = np.array([plain(shrinkage).argmax(axis=1) == truth for shrinkage in grid])
    accuracies = right @ choosing
    best = right[int(accuracies.argmax())].astype(np.float64)
    candidates = []
    for shrinkage, hits, accuracy in zip(grid, right, accuracies, strict=True):
        gap = best - hits
        error = np.sqrt(float((choosing**2) @ (gap - choosing @ gap) ** 2))
        if accuracies.max() - accuracy <= error + 1e-12:
            _, loss = fit_temperature(plain(shrinkage), truth, choosing, offsets)
            candidates.append((loss, shrinkage, float(hits @ balanced)))
    _, shrinkage, accuracy = min(candidates)
    left_out = problem.left_out(shrinkage)
    scores = left_out.scores(options)
    temperature, _ = fit_temperature(scores, truth, weights, offsets)
    # The owner's favour is a deliberate tilt: probabilities are calibrated without it.
    logits = temperature * scores + offsets
    logits += favoured(statistics.counts.astype(np.float64), options)
    return Tuning(
        shrinkage=shrinkage,
        temperature=temperature,
        freedom=problem.freedom(shrinkage),
        margin=pin_margin(logits, truth),
        energies=quantiles(energy(logits) + temperature * left_out.dropped(options)),
        accuracy=accuracy,
    )


class _Problem:
    """Left-out scores for any shrinkage, from one eigendecomposition of the scatter."""

    def __init__(
        self,
        statistics: Statistics,
        features: NDArray[np.int16],
        truth: NDArray[np.intp],
        options: HeadOptions,
    ) -> None:
        moments = Moments.of(statistics)
        self._options = options
        self._counts = moments.counts
        self._truth = truth
        centre = moments.mean if options.family == "ridge" else moments.centre
        offsets = to_float(features) - centre
        directions = moments.means - centre
        whitening, self._level = scatter(statistics, options.family)
        spanned = len(features) + len(directions) < statistics.dimension // 2
        if spanned and statistics.total == len(features):
            # Fewer pictures than numbers in a feature: everything lies in their span.
            basis = np.linalg.qr(np.concatenate([offsets, directions]).T)[0]
            whitening = basis.T @ whitening @ basis
            offsets, directions = offsets @ basis, directions @ basis
        if options.family == "nearest-mean":
            self._values = np.zeros(len(whitening))
        else:
            values, vectors = np.linalg.eigh(whitening)
            self._values = np.maximum(values, 0.0)
            offsets, directions = offsets @ vectors, directions @ vectors
        self._offsets, self._directions = offsets, directions
        self._squares = offsets * offsets

    def freedom(self, shrinkage: float) -> float:
        """tr(P S), the effective degrees of freedom."""
        return float((self._values / (self._values + shrinkage * self._level)).sum())

    def scores(self, shrinkage: float, *, given_back: bool = True) -> Floats:
        """Left-out raw scores [n, C]; optionally without what is given back for attenuation."""
        return self.left_out(shrinkage, given_back=given_back).scores(self._options)

    def left_out(self, shrinkage: float, *, given_back: bool = True) -> LeftOut:
        """What they follow from."""
        # The nearest mean whitens nothing: P = I, whatever the shrinkage.
        ridge = shrinkage * self._level if self._options.family != "nearest-mean" else 1.0
        inverse = 1.0 / (self._values + ridge)
        weighted = (self._directions * inverse).T
        cross = self._offsets @ weighted
        inner = self._directions @ weighted
        square = self._squares @ inverse
        noise = 0.0
        if given_back:
            noise = self.freedom(shrinkage) / max(self._counts.sum() - len(inner), 1.0)
        return LeftOut(cross, inner, square, self._truth, self._counts, noise)


def _sample_weights(
    statistics: Statistics, truth: NDArray[np.intp], options: HeadOptions
) -> Floats:
    sampled = np.bincount(truth, minlength=len(statistics.classes))
    expected = np.exp(log_priors(statistics.counts.astype(np.float64), options))
    per_class = expected / np.maximum(sampled, 1)
    return _normalised(per_class[truth])


def _normalised(weights: Floats) -> Floats:
    result: Floats = weights / weights.sum()
    return result


def pin_margin(logits: Floats, truth: NDArray[np.intp]) -> float:
    """γ: what 95 % of the pictures that are right, of logits [n, C], exceed."""
    rows = np.arange(len(truth))
    rivals = logits.copy()
    rivals[rows, truth] = -np.inf
    margins = logits[rows, truth] - rivals.max(axis=1)
    margins = margins[margins > 0]
    return float(np.quantile(margins, _MARGIN_QUANTILE)) if len(margins) else UNTUNED.margin


def quantiles(values: Floats) -> tuple[float, ...]:
    """Values [n] sorted, or 400 quantiles of them."""
    ordered = np.sort(values)
    if len(ordered) > _QUANTILES:
        ordered = np.quantile(ordered, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    return tuple(float(value) for value in ordered)
