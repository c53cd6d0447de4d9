"""The few numbers of an extension, chosen by leave-one-out in closed form.

Every member is scored by the sums without it. With y its class, r = φ − μ_y, x̃ = φ − m, v = Pr,
b = n_y/(n_y − 1), β = b/(1 − b·rᵀv): P becomes P + β·vvᵀ (Sherman & Morrison 1950); its class mean
moves by −r/(n_y − 1); and where it is a typical picture the centre moves by −γx̃,
γ = 1/(number of typical pictures − 1), and with it every direction. λ is held. A twin in the tests
leaves each picture out for real.

*New classes.* Let M be a picture's best old logit and s its best new score. A typical picture is
lost when a·s + o > M. The s are honest, since they are left out; the M may flatter: the reference
may be pictures that the old classifier was trained on, which it answers more surely than any other.
Pictures of the new classes it certainly never saw, so the spread τ of M over *them* shows how much
an unseen picture moves it. Each typical picture therefore stands for a cloud M ~ N(M_i − τ/2, τ²),
and for each a the offset is the largest at which the expected share of lost typical pictures is
within a budget; a and ε are those with which most left-out pictures of new classes then win. In the
trials of `benchmarks/extension.py` the raw share of lost pictures, without the cloud, promised
99.5 % and kept 82.

*A class of one picture* cannot be left out. What it would score on its next picture is its own
length √(d_cᵀPd_c) times the share of that length which is the class and not the picture; that share
is taken from pairs of reference pictures that the old classifier gives the same answer, each scored
by the other with both left out (and its whole distribution is used, not only its mean).

*Without typical pictures* the pictures of other new classes stand in, each with its own class
away, and no more than seven in ten left-out pictures of new classes may win. It is much weaker: of
few new classes nothing says where all other pictures lie.

*Old classes.* t and u give left-out cosines the mean and spread of the old logits they are mixed
with; n₀ is the one of the best left-out accuracy, and infinite unless that beats the old classifier
by more than a paired standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from retain.algebra.extension import REFERENCE, ExtensionTuning, Frame, Start, trust
from retain.algebra.fixed import to_float
from retain.algebra.heads import UNTUNED, Tuning
from retain.algebra.novelty import energy
from retain.algebra.statistics import Statistics
from retain.algebra.tune import pin_margin, quantiles

__all__ = ["STARTED", "left_out", "started", "tune_extension"]

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

SHRINKAGES: tuple[float, ...] = (1.0, 3.0, 10.0)
PRIORS: tuple[float, ...] = tuple(float(5 * 2**k) for k in range(9))

# The share of typical pictures that new classes may be expected to take; with stand-ins for them.
BUDGET = 0.0075
STAND_IN_BUDGET = 0.005
# Without typical pictures, the share of left-out pictures of new classes that may win.
_WINS = 0.7
# How far the old classifier flatters a typical picture, in units of τ.
_FLATTERY = 0.5
# Scales tried, in units of one over the spread of typical scores; draws for a class of one.
_SCALES: tuple[float, ...] = tuple(float(10 ** (k / 8)) for k in range(-8, 7))
_DRAWS = 15
# What a class's next picture shares with its only one, where no pair can tell.
_SHARED = 0.25


def tune_extension(
    start: Start,
    statistics: Statistics,
    features: NDArray[np.int16],
    norms: NDArray[np.floating],
    labels: Sequence[str],
) -> ExtensionTuning:
    """Choose shrinkage, scales, offsets and prior.

    Args:
        start: the adopted last layer.
        statistics: the state; see `extend`.
        features: int16 [n, d], some of its members (see `tuning_sample`).
        norms: their n original lengths.
        labels: their n labels, ``REFERENCE`` for the reference.

    Returns:
        The numbers; those that nothing could be learnt about stay at their defaults.

    Raises:
        ValueError: if the lengths of the arguments disagree.
    """
    if not len(features) == len(norms) == len(labels):
        raise ValueError(f"{len(features)} features, {len(norms)} norms, {len(labels)} labels")
    if not len(features):
        return ExtensionTuning()
    return _chosen(_Problem.of(start, statistics, features, norms, labels))[0]


def _chosen(problem: _Problem) -> tuple[ExtensionTuning, _Scores]:
    """The numbers, and the scores with their shrinkage."""
    new = np.flatnonzero(~problem.frame.typical)
    found = [(eps, problem.scores(eps)) for eps in SHRINKAGES]
    best = ExtensionTuning()
    if len(new):
        tried = [_commensurate(problem, scores, new, eps) for eps, scores in found]
        best = max(tried, key=lambda each: each.accuracy or 0.0)
    scores = dict(found)[best.shrinkage]
    return _mixed(problem, scores, best), scores


STARTED = replace(UNTUNED, temperature=1.0, extension=ExtensionTuning().to_dict())
"""What is used while an adopted classifier has learned nothing and has no reference."""


def started(
    start: Start,
    statistics: Statistics,
    features: NDArray[np.int16],
    norms: NDArray[np.floating],
    labels: Sequence[str],
) -> Tuning:
    """All the numbers of an adopted classifier's head; arguments as for `tune_extension`.

    The margin of pins is that of the old logits on typical pictures. The energies of the familiar
    are those of typical pictures and of new classes, each left out, by the whole head: what is
    taught would seem unknown beside typical pictures alone.
    """
    problem = _Problem.of(start, statistics, features, norms, labels)
    found, scores = _chosen(problem)
    typical = problem.frame.typical[problem.truth]
    margin, energies = UNTUNED.margin, UNTUNED.energies
    if typical.any():
        apart = typical | (problem.frame.moments.counts[problem.truth] > 1)
        energies = quantiles(energy(_left_out_logits(problem, scores, found)[apart]))
    if typical.any() and len(start.classes) > 1:
        margin = pin_margin(problem.old[typical], problem.old[typical].argmax(axis=1))
    return replace(
        STARTED,
        shrinkage=found.shrinkage,
        margin=margin,
        energies=energies,
        accuracy=found.accuracy,
        extension=found.to_dict(),
    )


def left_out(
    start: Start,
    statistics: Statistics,
    features: NDArray[np.int16],
    labels: Sequence[str],
    shrinkage: float,
) -> Floats:
    """Whitened cosines [n, C'] of members by the sums without them (λ held).

    Columns go by ``statistics.classes``; a member's own is NaN where it is its class's only one.
    """
    norms = np.ones(len(features))
    return _Problem.of(start, statistics, features, norms, labels).scores(shrinkage).cosines


@dataclass(frozen=True, eq=False, slots=True)
class _Scores:
    """Left-out cosines [n, C'], lengths √(dᵀPd) [C'] and quantiles of shared shares [_DRAWS]."""

    cosines: Floats
    lengths: Floats
    shared: Floats


@dataclass(frozen=True, eq=False, slots=True)
class _Problem:
    frame: Frame
    offsets: Floats  # x̃ [n, d]
    truth: Rows  # index into the statistics' classes [n]
    old: Floats  # original logits [n, C₀]
    places: Rows  # for each class of the statistics its place in the start, or -1
    reference: int  # which class is the reference, or -1

    @classmethod
    def of(
        cls,
        start: Start,
        statistics: Statistics,
        features: NDArray[np.int16],
        norms: NDArray[np.floating],
        labels: Sequence[str],
    ) -> _Problem:
        frame = Frame.of(start, statistics)
        position = {label: i for i, label in enumerate(statistics.classes)}
        place = {label: i for i, label in enumerate(start.classes)}
        return cls(
            frame,
            to_float(features) - frame.centre,
            np.array([position[label] for label in labels], dtype=np.intp),
            start.logits(features, norms),
            np.array([place.get(label, -1) for label in statistics.classes], dtype=np.intp),
            position.get(REFERENCE, -1),
        )

    def scores(self, shrinkage: float) -> _Scores:
        solver = self.frame.solver(shrinkage)
        x, d, y = self.offsets, self.frame.directions, self.truth
        carried = solver.apply(np.ascontiguousarray(x.T)).T
        inner = d @ solver.apply(np.ascontiguousarray(d.T))
        cross = carried @ d.T
        xx = np.einsum("nd,nd->n", carried, x)
        own = np.arange(len(x)), y
        counts = self.frame.moments.counts[y]
        alone = counts == 1
        fewer = np.where(alone, 1.0, counts - 1)
        typical = self.frame.typical[y] & (self.frame.total > 1)
        shift = np.where(typical, 1.0 / max(self.frame.total - 1, 1), 0.0)
        rx = xx - cross[own]
        rr = np.maximum(xx - 2 * cross[own] + inner[y, y], 0.0)
        b = counts / fewer
        beta = np.where(alone, 0.0, b / np.maximum(1 - b * rr, 1e-9))
        rd = cross - inner[y]
        ux = cross + (shift * xx)[:, None]
        ur = rd + (shift * rx)[:, None]
        uu = np.diagonal(inner) + 2 * shift[:, None] * cross + (shift**2 * xx)[:, None]
        uu[own] += (rr / fewer - 2 * rd[own] - 2 * shift * rx) / fewer
        ux[own] -= rx / fewer
        ur[own] -= rr / fewer
        products = (1 + shift)[:, None] * (ux + (beta * rx)[:, None] * ur)
        squares = np.maximum(uu + beta[:, None] * ur**2, 0.0)
        cosines = products / np.sqrt(np.where(squares > 0, squares, 1.0))
        cosines[own] = np.where(alone, np.nan, cosines[own])
        lengths = np.sqrt(np.maximum(np.diagonal(inner), 0.0))
        return _Scores(cosines, lengths, self._shared(carried))

    def _shared(self, carried: Floats) -> Floats:
        """Of a picture's whitened square length, the share that its like has too: quantiles."""
        rows = np.flatnonzero(self.truth == self.reference)
        answers = self.old[rows].argmax(axis=1)
        first, second = np.nonzero(answers[:, None] == answers)
        first, second = first[first != second], second[first != second]
        if not len(first):
            return np.full(_DRAWS, _SHARED)
        gram = carried[rows] @ self.offsets[rows].T
        # With both left out P becomes P + PA(I − AᵀPA)⁻¹AᵀP, so AᵀPA becomes (I − AᵀPA)⁻¹ − I.
        one, two, both = gram[first, first], gram[second, second], gram[first, second]
        left = np.maximum((1 - one) * (1 - two) - both**2, 1e-9)
        shares = (both / left) / np.maximum((1 - one) / left - 1, 1e-9)
        quantiles = (np.arange(_DRAWS) + 0.5) / _DRAWS
        return np.asarray(np.quantile(shares, quantiles), dtype=np.float64)


def _commensurate(
    problem: _Problem, scores: _Scores, new: Rows, shrinkage: float
) -> ExtensionTuning:
    """The scale and offset of new classes for one shrinkage."""
    cosines, truth, counts = scores.cosines, problem.truth, problem.frame.moments.counts
    mine = np.flatnonzero(~problem.frame.typical[truth])
    theirs = np.flatnonzero(problem.frame.typical[truth])
    highest = problem.old.max(axis=1)
    own = cosines[mine, truth[mine]]
    draws = np.repeat(own[:, None], _DRAWS, axis=1)
    alone = counts[truth[mine]] == 1
    draws[alone] = scores.lengths[truth[mine]][alone][:, None] * scores.shared
    rivals = cosines[mine].copy()
    rivals[np.arange(len(mine)), truth[mine]] = -np.inf
    others = rivals[:, new].max(axis=1)
    balance = 1.0 / np.bincount(truth[mine], minlength=len(counts))[truth[mine]]
    if len(theirs):
        typical, logits = cosines[theirs][:, new].max(axis=1), highest[theirs]
        spread = _spread(highest[mine], logits)
        logits, budget = logits - _FLATTERY * spread, BUDGET
    elif len(new) > 1:
        typical, logits, budget = others, highest[mine], STAND_IN_BUDGET
        spread = _spread(logits, logits)
    else:
        # One class and nothing to compare it with: half of its own pictures shall win.
        typical, logits, budget = draws.mean(axis=1), highest[mine], 0.5
        spread = _spread(logits, logits)
    unit = float(typical.std()) or 1.0
    best: ExtensionTuning | None = None
    for scale in (each / unit for each in _SCALES):
        offset = _offset(scale * typical - logits, spread, budget)
        if not len(theirs):
            needed = np.quantile(highest[mine][:, None] - scale * draws, _WINS)
            offset = min(offset, float(needed))
        wins = (scale * draws + offset > highest[mine][:, None]) & (draws > others[:, None])
        share = float(balance @ wins.mean(axis=1) / balance.sum())
        if best is None or share > (best.accuracy or 0.0):
            flips = budget if len(theirs) else None
            best = ExtensionTuning(shrinkage, scale, offset, flips=flips, accuracy=share)
    assert best is not None
    return best


def _spread(unseen: Floats, typical: Floats) -> float:
    """τ, never zero."""
    values = unseen if len(unseen) >= 5 else typical
    return max(float(values.std()), 1e-3 * float(np.abs(values).max()), 1e-9)


def _offset(excess: Floats, spread: float, budget: float) -> float:
    """The largest o with mean Φ((excess + o)/spread) within the budget, by halving."""
    low = -float(excess.max()) - 10 * spread
    high = -float(excess.min()) + 10 * spread
    for _ in range(60):
        middle = (low + high) / 2
        if float(ndtr((excess + middle) / spread).mean()) <= budget:
            low = middle
        else:
            high = middle
    return low


def _mixed(problem: _Problem, scores: _Scores, found: ExtensionTuning) -> ExtensionTuning:
    """With the numbers of old classes, where labelled pictures of them help."""
    counts, places = problem.frame.moments.counts, problem.places
    taught = np.flatnonzero(places >= 0)
    answers = problem.old.argmax(axis=1)
    # An unlabelled picture that the old classifier gives to a class nobody taught speaks for it:
    # judged on taught classes alone, they would be helped at the cost of all others.
    untaught = (problem.truth == problem.reference) & ~np.isin(answers, places[taught])
    heard = np.isin(np.arange(problem.old.shape[1]), [*places[taught], *answers[untaught]])
    labelled = (places[problem.truth] >= 0) & (counts[problem.truth] > 1)
    rows = np.flatnonzero(labelled | untaught)
    if len(taught) < 2 or not labelled.any() or not (untaught.any() or heard.all()):
        return found
    right = np.where(untaught, answers, places[problem.truth])[rows]
    old = problem.old[rows]
    learnt = np.nan_to_num(scores.cosines[rows][:, taught])
    beside = old[:, places[taught]]
    scale = float(beside.std() / max(float(learnt.std()), 1e-12))
    offset = float(beside.mean() - scale * learnt.mean())
    balance = 1.0 / np.bincount(right, minlength=old.shape[1])[right]
    balance = balance / balance.sum()

    def hits(prior: float) -> Floats:
        tried = replace(found, prior=prior, old_scale=scale, old_offset=offset)
        mixed = _left_out_logits(problem, scores, tried)[rows, : old.shape[1]]
        return np.asarray(mixed.argmax(axis=1) == right, dtype=np.float64)

    before = (answers[rows] == right).astype(np.float64)
    gained = [(float(balance @ (hits(prior) - before)), prior) for prior in PRIORS]
    gain, prior = max(gained)
    error = float(np.sqrt((balance**2) @ (hits(prior) - before - gain) ** 2))
    if gain <= error:
        return found
    return replace(found, prior=prior, old_scale=scale, old_offset=offset)


def _left_out_logits(problem: _Problem, scores: _Scores, found: ExtensionTuning) -> Floats:
    """Logits [n, C] of members by the head of `extend` without them; of classes as it has them."""
    cosines = np.nan_to_num(scores.cosines)
    new = cosines[:, ~problem.frame.typical]
    logits = np.hstack([problem.old, found.scale * new + found.offset])
    if found.prior is not None:
        taught = np.flatnonzero(problem.places >= 0)
        fewer = problem.frame.moments.counts[taught] - (problem.truth[:, None] == taught)
        learnt = found.old_scale * cosines[:, taught] + found.old_offset
        at = problem.places[taught]
        logits[:, at] += trust(np.maximum(fewer, 0.0), found.prior) * (learnt - logits[:, at])
    return logits
