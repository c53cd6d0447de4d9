"""The few numbers a head needs besides the sums, chosen by leave-one-out in closed form.

Nothing is held out from the user: leaving one picture out of the sums has a closed form, so every
left-out score for every shrinkage on the grid comes from one eigendecomposition. With r = x − μ_y,
v = Pr, q = rᵀv, b = n_y/(n_y − 1), leaving x out turns S_W into S_W − b·rrᵀ and therefore P into
P + β·vvᵀ, β = b/(1 − b·q) (Sherman & Morrison 1950), and its own class mean into μ_y − r/(n_y − 1).
The centre m, λ and the two numbers of the attenuation are held. A twin in the tests leaves each
picture out for real.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from retain.algebra.calibrate import fit_temperature
from retain.algebra.fixed import to_float
from retain.algebra.heads import (
    UNTUNED,
    HeadOptions,
    Moments,
    Tuning,
    attenuation,
    favoured,
    log_priors,
    typical_length,
)
from retain.algebra.novelty import energy
from retain.algebra.statistics import Statistics

__all__ = ["GRID", "SAMPLE", "leave_one_out", "tune", "tuning_sample"]

Floats = NDArray[np.float64]

GRID: tuple[float, ...] = tuple(float(10 ** (k / 4)) for k in range(-16, 9))
SAMPLE = 2048
_QUANTILES = 400
_MARGIN_QUANTILE = 0.05


def tuning_sample(members: Mapping[str, str], size: int = SAMPLE) -> list[str]:
    """At most `size` members, chosen by nothing but their names and classes.

    Classes take turns, each giving its members in the order of a hash of their names, so that rare
    classes are heard and the choice does not depend on who came first.

    >>> tuning_sample({"x": "a", "y": "a", "z": "b"}, size=2) == tuning_sample(
    ...     {"z": "b", "y": "a", "x": "a"}, size=2)
    True
    """
    if len(members) <= size:
        return sorted(members)
    by_class: dict[str, list[tuple[bytes, str]]] = defaultdict(list)
    for name, label in members.items():
        by_class[label].append((hashlib.sha256(name.encode()).digest(), name))
    ranked = [
        (rank, key, name)
        for named in by_class.values()
        for rank, (key, name) in enumerate(sorted(named))
    ]
    return sorted(name for _, _, name in sorted(ranked)[:size])


def tune(
    statistics: Statistics,
    features: NDArray[np.int16],
    labels: Sequence[str],
    options: HeadOptions,
) -> Tuning:
    """Choose shrinkage, temperature and margin for a state.

    Of the shrinkages whose class-balanced left-out accuracy is within one paired standard error of
    the best, the one with the lowest left-out negative log-likelihood after temperature: accuracy
    alone errs on long tails, likelihood alone with many classes.

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
    balanced = _sample_weights(statistics, truth, HeadOptions())
    offsets = log_priors(statistics.counts.astype(np.float64), options)

    grid = GRID if options.family != "nearest-mean" else (1.0,)
    # What is given back for attenuation helps classes that leave-one-out hardly sees, those of one
    # picture or two; it would bend the choice for all others, so it comes in after the choice.
    scored = [(shrinkage, problem.scores(shrinkage, given_back=False)) for shrinkage in grid]
    right = np.array([scores.argmax(axis=1) == truth for _, scores in scored])
    accuracies = right @ balanced
    best = right[int(accuracies.argmax())].astype(np.float64)
    candidates = []
    for (shrinkage, scores), hits, accuracy in zip(scored, right, accuracies, strict=True):
        gap = best - hits
        error = np.sqrt(float((balanced**2) @ (gap - balanced @ gap) ** 2))
        if accuracies.max() - accuracy <= error + 1e-12:
            _, loss = fit_temperature(scores, truth, weights, offsets)
            candidates.append((loss, shrinkage, float(accuracy)))
    _, shrinkage, accuracy = min(candidates)
    scores = problem.scores(shrinkage)
    temperature, _ = fit_temperature(scores, truth, weights, offsets)
    # The owner's favour is a deliberate tilt: probabilities are calibrated without it.
    logits = temperature * scores + offsets
    logits += favoured(statistics.counts.astype(np.float64), options)
    return Tuning(
        shrinkage=shrinkage,
        temperature=temperature,
        freedom=problem.freedom(shrinkage),
        margin=_margin(logits, truth),
        energies=_quantiles(energy(logits)),
        accuracy=accuracy,
    )


def leave_one_out(
    statistics: Statistics,
    features: NDArray[np.int16],
    labels: Sequence[str],
    shrinkage: float,
    options: HeadOptions,
) -> Floats:
    """Raw scores [n, C] of members by the head that never saw them (m, λ, ν held).

    Each member's class must have at least two.
    """
    truth = np.array([statistics.classes.index(label) for label in labels], dtype=np.intp)
    return _Problem(statistics, features, truth, options).scores(shrinkage)


class _Problem:
    """Left-out scores for any shrinkage, from one eigendecomposition of the scatter."""

    def __init__(
        self,
        statistics: Statistics,
        features: NDArray[np.int16],
        truth: NDArray[np.intp],
        options: HeadOptions,
    ) -> None:
        moments = Moments.of(statistics, options.family)
        self._options = options
        self._counts = moments.counts
        self._level = moments.level
        self._truth = truth
        self._rows = np.arange(len(truth))
        centre = moments.mean if options.family == "ridge" else moments.centre
        offsets = to_float(features) - centre
        directions = moments.means - centre
        scatter = moments.scatter
        spanned = len(features) + len(directions) < statistics.dimension // 2
        if spanned and statistics.total == len(features):
            # Fewer pictures than numbers in a feature: everything lies in their span.
            basis = np.linalg.qr(np.concatenate([offsets, directions]).T)[0]
            scatter = basis.T @ scatter @ basis
            offsets, directions = offsets @ basis, directions @ basis
        if options.family == "nearest-mean":
            self._values = np.zeros(scatter.shape[0])
        else:
            values, vectors = np.linalg.eigh(scatter)
            self._values = np.maximum(values, 0.0)
            offsets, directions = offsets @ vectors, directions @ vectors
        self._offsets, self._directions = offsets, directions
        self._squares = offsets * offsets

    def freedom(self, shrinkage: float) -> float:
        """tr(P S), the effective degrees of freedom."""
        return float((self._values / (self._values + shrinkage * self._level)).sum())

    def scores(self, shrinkage: float, *, given_back: bool = True) -> Floats:
        """Left-out raw scores [n, C]; optionally without what is given back for attenuation."""
        # The nearest mean whitens nothing: P = I, whatever the shrinkage.
        ridge = shrinkage * self._level if self._options.family != "nearest-mean" else 1.0
        inverse = 1.0 / (self._values + ridge)
        weighted = (self._directions * inverse).T
        cross = self._offsets @ weighted
        inner = self._directions @ weighted
        square = self._squares @ inverse
        if self._options.family == "ridge":
            return self._ridge(cross, square)
        if self._options.family == "cosine":
            freedom = self.freedom(shrinkage) if given_back else 0.0
            noise = freedom / max(self._counts.sum() - len(inner), 1.0)
            return self._cosine(cross, inner, square, noise)
        held = self._options.family == "nearest-mean"
        return self._distances(cross, inner, square, held)

    def _leverage(self, cross: Floats, inner: Floats, square: Floats) -> tuple[Floats, ...]:
        own = cross[self._rows, self._truth]
        lengths = np.diagonal(inner)[self._truth]
        q = np.maximum(square - 2 * own + lengths, 0.0)
        n = self._counts[self._truth]
        b = n / (n - 1)
        beta = b / np.maximum(1 - b * q, 1e-9)
        return n, b, beta, q

    def _cosine(self, cross: Floats, inner: Floats, square: Floats, noise: float) -> Floats:
        rows, truth = self._rows, self._truth
        n, _, beta, q = self._leverage(cross, inner, square)
        along = square - cross[rows, truth]  # x̃ᵀv
        towards = cross - inner[truth]  # vᵀd_k
        products = cross.copy()
        lengths = np.broadcast_to(np.diagonal(inner), cross.shape).copy()
        lengths[rows, truth] += (q / (n - 1) - 2 * towards[rows, truth]) / (n - 1)
        products[rows, truth] -= along / (n - 1)
        towards[rows, truth] -= q / (n - 1)
        numerator = products + (beta * along)[:, None] * towards
        lengths = np.maximum(lengths + beta[:, None] * towards**2, 0.0)
        counts = np.broadcast_to(self._counts, cross.shape).copy()
        counts[rows, truth] -= 1
        typical = typical_length(np.diagonal(inner), self._counts, noise)
        returned = attenuation(lengths, counts, noise, typical)
        return numerator / np.sqrt(np.where(lengths > 0, lengths, 1.0)) + returned

    def _distances(self, cross: Floats, inner: Floats, square: Floats, held: bool) -> Floats:
        rows, truth = self._rows, self._truth
        _, b, beta, q = self._leverage(cross, inner, square)
        if held:
            beta = np.zeros_like(beta)
        along = square - cross[rows, truth]
        towards = cross - inner[truth]
        distances = square[:, None] - 2 * cross + np.diagonal(inner)
        distances += beta[:, None] * (along[:, None] - towards) ** 2
        distances[rows, truth] = b * b * (q + beta * q * q)
        return -0.5 * distances

    def _ridge(self, cross: Floats, square: Floats) -> Floats:
        total = self._counts.sum()
        share = self._counts / total
        leverage = np.minimum(1.0 / total + square, 1 - 1e-9)[:, None]
        fitted = share + cross * self._counts
        target = np.zeros_like(fitted)
        target[self._rows, self._truth] = 1.0
        left_out: Floats = (fitted - leverage * target) / (1 - leverage)
        return left_out / share if self._options.priors == "balanced" else left_out


def _sample_weights(
    statistics: Statistics, truth: NDArray[np.intp], options: HeadOptions
) -> Floats:
    sampled = np.bincount(truth, minlength=len(statistics.classes))
    per_class = 1.0 / np.maximum(sampled, 1)
    if options.priors == "empirical":
        per_class = per_class * statistics.counts
    weights = per_class[truth]
    result: Floats = weights / weights.sum()
    return result


def _margin(logits: Floats, truth: NDArray[np.intp]) -> float:
    rows = np.arange(len(truth))
    rivals = logits.copy()
    rivals[rows, truth] = -np.inf
    margins = logits[rows, truth] - rivals.max(axis=1)
    margins = margins[margins > 0]
    return float(np.quantile(margins, _MARGIN_QUANTILE)) if len(margins) else UNTUNED.margin


def _quantiles(values: Floats) -> tuple[float, ...]:
    ordered = np.sort(values)
    if len(ordered) > _QUANTILES:
        ordered = np.quantile(ordered, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    return tuple(float(value) for value in ordered)
