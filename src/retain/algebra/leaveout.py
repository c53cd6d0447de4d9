"""Scores of members by the head that never saw them, in closed form.

With r = x − μ_y, v = Pr, q = rᵀv, b = n_y/(n_y − 1), leaving x out turns S_W into S_W − b·rrᵀ and
therefore P into P + β·vvᵀ, β = b/(1 − b·q) (Sherman & Morrison 1950), and its own class mean into
μ_y − r/(n_y − 1). The centre m, λ and the two numbers of the attenuation are held. All of it
follows from three kinds of products, whatever basis or factor they were computed with.

Between two lessons S_W stands while means move. What leaves it is the r, and the b, of the lesson:
with those of today b·q may reach one, which it cannot in S_W itself, and β would be anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retain.algebra.heads import (
    HeadOptions,
    Tuning,
    attenuation,
    favoured,
    log_priors,
    typical_length,
)
from retain.algebra.whitening import Solver

__all__ = ["LeftOut", "left_out_logits"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Moved:
    """How far class means were elsewhere when the scatter was taken, s_c = μ_c(then) − μ_c.

    Attributes:
        cross: x̃ᵀPs_y of each member with its own class [n].
        inner: d_kᵀPs_c [C, C], a column for each class that moved.
        square: s_cᵀPs_c [C].
        counts: n_c then [C].
    """

    cross: Floats
    inner: Floats
    square: Floats
    counts: Floats


@dataclass(frozen=True, eq=False, slots=True)
class LeftOut:
    """The products that left-out scores follow from, of n members of C classes.

    With x̃ = x − m (for ridge x − μ̄) and d_k the class means about the same point:

    Attributes:
        cross: x̃ᵀPd_k [n, C].
        inner: d_jᵀPd_k [C, C].
        square: x̃ᵀPx̃ [n].
        truth: the members' classes [n].
        counts: n_c [C].
        noise: ν, the whitened squared length of one picture's noise; 0 gives nothing back for
            attenuation.
        inside: whether a member is in the scatter that whitens [n]; None if all are.
        moved: where class means were when the scatter was taken; None for where they are.
    """

    cross: Floats
    inner: Floats
    square: Floats
    truth: NDArray[np.intp]
    counts: Floats
    noise: float
    inside: NDArray[np.bool_] | None = None
    moved: Moved | None = None

    def scores(self, options: HeadOptions) -> Floats:
        """Raw scores [n, C]; each member's class must have at least two."""
        if options.family == "ridge":
            return self._ridge(options)
        if options.family == "cosine":
            return self._cosine()
        return self._distances(held=options.family == "nearest-mean")

    def dropped(self, options: HeadOptions) -> Floats:
        """What `scores` lack to be those of the head [n]: it drops what all classes have in common.

        Answers and probabilities do not depend on it, but energies do.
        """
        if options.family in ("cosine", "ridge"):
            return np.zeros(len(self.truth))
        _, beta, _, _ = self._leverage()
        if options.family == "nearest-mean":
            beta = np.zeros_like(beta)
        along, _ = self._removed()
        return np.asarray(0.5 * (self.square + beta * along**2), dtype=np.float64)

    @property
    def _rows(self) -> NDArray[np.intp]:
        return np.arange(len(self.truth))

    def _leverage(self) -> tuple[Floats, ...]:
        """n_y, β, rᵀPr and vᵀr, with r as it is and v = P·r as it was in the scatter [n]."""
        own = self.cross[self._rows, self.truth]
        lengths = np.diagonal(self.inner)[self.truth]
        q = np.maximum(self.square - 2 * own + lengths, 0.0)
        n = then = self.counts[self.truth]
        within = met = q
        if self.moved is not None:
            towards = self.moved.cross - self.moved.inner[self.truth, self.truth]  # rᵀPs
            met = q - towards
            within = np.maximum(q - 2 * towards + self.moved.square[self.truth], 0.0)
            then = self.moved.counts[self.truth]
        # The only picture of its class was its own mean: it is no part of the scatter.
        b = then / np.maximum(then - 1, 1.0) * (then > 1)
        beta = b / np.maximum(1 - b * within, 1e-9)
        if self.inside is not None:
            beta = np.where(self.inside, beta, 0.0)
        return n, beta, q, met

    def _removed(self) -> tuple[Floats, Floats]:
        """x̃ᵀv [n] and vᵀd_k [n, C]."""
        along = self.square - self.cross[self._rows, self.truth]
        towards = self.cross - self.inner[self.truth]
        if self.moved is not None:
            along = along - self.moved.cross
            towards = towards - self.moved.inner.T[self.truth]
        return along, towards

    def _cosine(self) -> Floats:
        rows, truth, inner = self._rows, self.truth, self.inner
        n, beta, q, met = self._leverage()
        along, towards = self._removed()
        products = self.cross.copy()
        lengths = np.broadcast_to(np.diagonal(inner), self.cross.shape).copy()
        own = self.cross[rows, truth] - np.diagonal(inner)[truth]  # rᵀPd_y
        lengths[rows, truth] += (q / (n - 1) - 2 * own) / (n - 1)
        products[rows, truth] -= (self.square - self.cross[rows, truth]) / (n - 1)
        towards[rows, truth] -= met / (n - 1)
        numerator = products + (beta * along)[:, None] * towards
        lengths = np.maximum(lengths + beta[:, None] * towards**2, 0.0)
        counts = np.broadcast_to(self.counts, self.cross.shape).copy()
        counts[rows, truth] -= 1
        typical = typical_length(np.diagonal(inner), self.counts, self.noise)
        returned = attenuation(lengths, counts, self.noise, typical)
        return numerator / np.sqrt(np.where(lengths > 0, lengths, 1.0)) + returned

    def _distances(self, *, held: bool) -> Floats:
        rows, truth = self._rows, self.truth
        n, beta, q, met = self._leverage()
        b = n / (n - 1)
        if held:
            beta = np.zeros_like(beta)
        along, towards = self._removed()
        distances = self.square[:, None] - 2 * self.cross + np.diagonal(self.inner)
        distances += beta[:, None] * (along[:, None] - towards) ** 2
        distances[rows, truth] = b * b * (q + beta * met * met)
        return -0.5 * distances

    def _ridge(self, options: HeadOptions) -> Floats:
        total = self.counts.sum()
        share = self.counts / total
        leverage = np.minimum(1.0 / total + self.square, 1 - 1e-9)[:, None]
        fitted = share + self.cross * self.counts
        target = np.zeros_like(fitted)
        target[self._rows, self.truth] = 1.0
        left_out: Floats = (fitted - leverage * target) / (1 - leverage)
        return left_out if options.priors == "empirical" else left_out / share


def left_out_logits(
    solver: Solver,
    tuning: Tuning,
    options: HeadOptions,
    products: tuple[Floats, Floats, Floats],
    point: Floats,
    truth: NDArray[np.intp],
    inside: NDArray[np.bool_],
    before: tuple[Floats, Floats, Floats, Floats],
) -> Floats:
    """Logits [n, C] of members by the head that never saw them, before any pins.

    Args:
        solver: that of the head.
        tuning: the numbers of the last lesson.
        options: the owner's choices.
        products: Pμ_c [d, C], their xᵀPμ_c [n, C] and xᵀPx [n], with the P of `solver`,
            x and μ_c about `point`.
        point: any [d]; the nearer the pictures, the less is lost to rounding.
        truth: their classes [n]; each must have at least two members.
        inside: whether each is in the scatter that whitens [n].
        before: of the classes as they were in that scatter: n_c [C], μ_c [C, d], Pμ_c [d, C], and
            of each member xᵀPμ_y with its own class [n]; of a class that was not in it anything.
    """
    moments = solver.moments
    classes, members = len(moments.means), moments.counts.sum()
    carried, raw, square = products
    # The centre is a mean of class means, so what it gives follows from what they do.
    ridge = options.family == "ridge"
    centre = (moments.mean if ridge else moments.centre) - point
    share = moments.counts / members if ridge else np.full(classes, 1.0 / classes)
    columns = carried - (carried @ share)[:, None]
    along = raw @ share
    counts, means, then, own = before
    here = np.flatnonzero((means != moments.means).any(axis=1))
    shifts, pulled = means[here] - moments.means[here], then[:, here] - carried[:, here]
    inner, lengths, midst = np.zeros((classes, classes)), np.zeros(classes), np.zeros(classes)
    inner[:, here] = (moments.means - point - centre) @ pulled
    lengths[here] = np.einsum("cd,dc->c", shifts, pulled)
    midst[here] = centre @ pulled
    elsewhere = own - raw[np.arange(len(truth)), truth] - midst[truth]
    moved = Moved(np.where(np.isin(truth, here), elsewhere, 0.0), inner, lengths, counts)
    left_out = LeftOut(
        cross=raw - along[:, None] - centre @ columns,
        inner=(moments.means - point - centre) @ columns,
        square=square - 2.0 * along + centre @ carried @ share,
        truth=truth,
        counts=moments.counts,
        noise=tuning.freedom / max(members - classes, 1.0),
        inside=inside,
        moved=moved,
    )
    logits = tuning.temperature * left_out.scores(options)
    logits += log_priors(moments.counts, options) + favoured(moments.counts, options)
    return logits
