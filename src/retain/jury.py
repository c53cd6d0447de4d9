"""What the remembered pictures say of a state: by leave-one-out where they are inside the sum.

A picture that was learned is answered right a little too easily. So up to 2,048 members, those that
the last lesson was tuned by, are judged by the head that never saw them; all others, and every
corrected picture, by what `predict` answers. Of many classes hardly any picture of a new one is
among them: then some of its own are asked besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from retain.algebra import Factor, HeadOptions, Moments, Statistics, left_out_logits, to_float
from retain.algebra.calibrate import log_softmax
from retain.caches import State
from retain.solving import single_threaded

__all__ = ["FEWEST", "Judged", "Jury", "Products", "judged", "with_newcomers"]

Floats = NDArray[np.float64]

FEWEST: Final = 5
"""Of so many pictures a new class is judged."""

# Of a new class so many are judged, where the jury has too few of it.
_NEWCOMERS: Final = 20

# Class means whose products are computed together.
_TOGETHER: Final = 8

# Pictures that are turned into floating point at once.
_ROWS: Final = 256


@final
class Products:
    """xᵀPμ_c of fixed pictures, with the class means of one state after another while P stands.

    All are taken about a point in their midst: where all features are the same, so that nothing
    tells classes apart, they are exactly zero and not the noise of rounding.

    A correction moves the mean of one class or two. Only the products with these are worked out
    anew, in the same groups whatever is known, so that a state's bits do not depend on the last.

    Attributes:
        features: the pictures, int16 [n, d].
        point: that point [d].
    """

    def __init__(self, factor: Factor, features: NDArray[np.int16], options: HeadOptions) -> None:
        self.features = features
        self._factor = None if options.family == "nearest-mean" else factor
        self.point: Floats = to_float(np.rint(features.mean(axis=0)).astype(np.int16))
        x = to_float(features) - self.point
        self._square: Floats = np.einsum("nd,dn->n", x, self._carried(x.T))
        self._known: list[tuple[Floats, Floats, Floats]] = []

    def _carried(self, columns: Floats) -> Floats:
        return columns if self._factor is None else self._factor.apply(columns)

    def of(self, means: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """About `point`, of means [C, d]: Pμ_c [d, C]; of `rows`, xᵀPμ_c [m, C] and xᵀPx [m]."""
        known, found = self._known, []
        for place, start in enumerate(range(0, len(means), _TOGETHER)):
            some = means[start : start + _TOGETHER]
            if place < len(known) and np.array_equal(known[place][0], some):
                found.append(known[place])
                continue
            carried = self._carried((some - self.point).T)
            found.append((some, carried, self.times(carried) - self.point @ carried))
        self._known = found
        products = np.hstack([each[2][rows] for each in found])
        return np.hstack([each[1] for each in found]), products, self._square[rows]

    def times(self, columns: Floats) -> Floats:
        """x·columns [n, k] of columns [d, k]; a few rows at a time, for all of x is large."""
        found = np.empty((len(self.features), columns.shape[1]))
        for start in range(0, len(found), _ROWS):
            some = slice(start, start + _ROWS)
            np.matmul(to_float(self.features[some]), columns, out=found[some])
        return found


@dataclass(frozen=True, eq=False, slots=True)
class Jury:
    """Members whose left-out scores are cheap, since what they cost is spent once a lesson.

    Attributes:
        rows: image → its place in `products`.
        lesson: image → label as they were in the scatter that whitens.
        products: theirs with P as it is since the lesson; None if there are no members.
        taught: the class means that the scatter was taken about: their sums, and of `products`
            Pμ_c [d, C] and xᵀPμ_c [n, C].
    """

    rows: Mapping[str, int]
    lesson: Mapping[str, str]
    products: Products | None = None
    taught: tuple[Statistics, Floats, Floats] | None = None

    @classmethod
    def of(cls, state: State, options: HeadOptions) -> Jury:
        """The jury of a state: those of its jurors that are members still."""
        chosen = [image for image in state.jurors if image in state.rows]
        if state.solver is None or not chosen:
            return cls({}, state.jurors)
        rows = [state.rows[image] for image in chosen]
        with single_threaded():
            products = Products(state.solver.factor, state.features[rows], options)
            means = Moments.of(state.lesson).means
            carried, raw, _ = products.of(means, np.arange(len(rows)))
        places = {image: i for i, image in enumerate(chosen)}
        return cls(places, state.jurors, products, (state.lesson, carried, raw))

    def before(
        self,
        classes: Sequence[str],
        moments: Moments,
        products: tuple[Floats, Floats, Floats],
        rows: NDArray[np.intp],
        truth: NDArray[np.intp],
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """What `left_out_logits` takes as `before`; of a class that is new since, as it is now.

        Args:
            classes: of the state, in its order.
            moments: its own.
            products: with its means, as `Products.of` gives them.
            rows: of members in `products`, [m].
            truth: their classes [m].
        """
        counts, means = moments.counts.copy(), moments.means.copy()
        carried, own = products[0].copy(), products[1][np.arange(len(truth)), truth]
        if self.taught is None:
            return counts, means, carried, own
        lesson, columns, raw = self.taught
        then = Moments.of(lesson)
        there = np.array([lesson.classes.index(c) if c in lesson.classes else -1 for c in classes])
        here = np.flatnonzero(there >= 0)
        counts[here], means[here] = then.counts[there[here]], then.means[there[here]]
        carried[:, here] = columns[:, there[here]]
        known = there[truth] >= 0
        own[known] = raw[rows[known], there[truth[known]]]
        return counts, means, carried, own


@dataclass(frozen=True, slots=True)
class Judged:
    """Answers for remembered pictures that are left out; for all others, `predict` stands.

    Attributes:
        answers: image → label answered.
        losses: image → −ln p of its own label, in nats, of those left out.
        scores: image → Σ (p − y)² over the classes (Brier 1950), 0 to 2, of the same.
    """

    answers: Mapping[str, str]
    losses: Mapping[str, float]
    scores: Mapping[str, float]


def judged(state: State, jury: Jury, options: HeadOptions) -> Judged:
    """What a state answers for those of its members that can be left out."""
    head, base, solver, tuning = state.mind.head, state.base, state.solver, state.mind.tuning
    if head is None or base is None or solver is None or tuning is None or len(head.classes) < 2:
        return Judged({}, {}, {})
    position = {label: i for i, label in enumerate(head.classes)}
    counts = solver.moments.counts
    samples = [
        sample
        for i in sorted(state.rows[image] for image in jury.rows if image in state.rows)
        if not (sample := state.samples[i]).pinned and counts[position[sample.label]] > 1
    ]
    if not samples or jury.products is None:
        return Judged({}, {}, {})
    truth = np.array([position[sample.label] for sample in samples], dtype=np.intp)
    rows = np.array([jury.rows[sample.image] for sample in samples], dtype=np.intp)
    inside = np.array([jury.lesson.get(sample.image) == sample.label for sample in samples])
    with single_threaded():
        products = jury.products.of(solver.moments.means, rows)
        before = jury.before(head.classes, solver.moments, products, rows, truth)
        logits = left_out_logits(
            solver, tuning, options, products, jury.products.point, truth, inside, before
        )
        if state.mind.edited:
            change = head.weights - base.weights
            moved = np.flatnonzero(change.any(axis=1))
            logits[:, moved] += jury.products.times(change[moved].T)[rows]
            logits += head.bias - base.bias
    logs = log_softmax(logits)
    best = (head.classes[i] for i in logits.argmax(axis=1))
    answers = {sample.image: label for sample, label in zip(samples, best, strict=True)}
    images, own = [sample.image for sample in samples], np.arange(len(samples))
    losses = -logs[own, truth]
    chances = np.exp(logs)
    chances[own, truth] -= 1
    scores = np.einsum("ij,ij->i", chances, chances)
    return Judged(
        answers,
        dict(zip(images, losses.tolist(), strict=True)),
        dict(zip(images, scores.tolist(), strict=True)),
    )


def with_newcomers(found: Judged, before: State, state: State, options: HeadOptions) -> Judged:
    """What was found of a state, and of some pictures of new classes that too few jurors are of.

    Args:
        found: what `judged` gave.
        before: a state that does not know the new classes.
        state: right after a lesson; after anything else, and where nobody could be left out at
            all, nothing is added.
        options: the owner's choices.
    """
    if not found.losses or before.mind.head is None or state.lesson is not state.statistics:
        return found
    new = set(state.statistics.classes) - set(before.mind.head.classes)
    own: dict[str, list[str]] = {label: [] for label in sorted(new)}
    for sample in state.samples:
        if sample.label in new and not sample.pinned:
            own[sample.label].append(sample.image)
    lesson = {
        image: label
        for label, images in own.items()
        if sum(image in found.losses for image in images) < FEWEST <= len(images)
        for image in sorted(images)[:_NEWCOMERS]
    }
    if not lesson:
        return found
    more = judged(state, Jury.of(replace(state, jurors=lesson), options), options)
    return Judged(
        {**more.answers, **found.answers},
        {**more.losses, **found.losses},
        {**more.scores, **found.scores},
    )
