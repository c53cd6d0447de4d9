"""Scores of members by the head that never saw them, in closed form.

With r = x − μ_y, v = Pr, q = rᵀv, b = n_y/(n_y − 1), leaving x out turns S_W into S_W − b·rrᵀ and
therefore P into P + β·vvᵀ, β = b/(1 − b·q) (Sherman & Morrison 1950), and its own class mean into
μ_y − r/(n_y − 1). The centre m, λ and the two numbers of the attenuation are held. All of it
follows from three kinds of products, whatever basis or factor they were computed with.
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
    """

    cross: Floats
    inner: Floats
    square: Floats
    truth: NDArray[np.intp]
    counts: Floats
    noise: float
    inside: NDArray[np.bool_] | None = None

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
        beta = 0.0 if options.family == "nearest-mean" else self._leverage()[2]
        along = self.square - self.cross[self._rows, self.truth]
        return np.asarray(0.5 * (self.square + beta * along**2), dtype=np.float64)

    @property
    def _rows(self) -> NDArray[np.intp]:
        return np.arange(len(self.truth))

    def _leverage(self) -> tuple[Floats, ...]:
        own = self.cross[self._rows, self.truth]
        lengths = np.diagonal(self.inner)[self.truth]
        q = np.maximum(self.square - 2 * own + lengths, 0.0)
        n = self.counts[self.truth]
        b = n / (n - 1)
        beta = b / np.maximum(1 - b * q, 1e-9)
        if self.inside is not None:
            beta = np.where(self.inside, beta, 0.0)
        return n, b, beta, q

    def _cosine(self) -> Floats:
        rows, truth, inner = self._rows, self.truth, self.inner
        n, _, beta, q = self._leverage()
        along = self.square - self.cross[rows, truth]  # x̃ᵀv
        towards = self.cross - inner[truth]  # vᵀd_k
        products = self.cross.copy()
        lengths = np.broadcast_to(np.diagonal(inner), self.cross.shape).copy()
        lengths[rows, truth] += (q / (n - 1) - 2 * towards[rows, truth]) / (n - 1)
        products[rows, truth] -= along / (n - 1)
        towards[rows, truth] -= q / (n - 1)
        numerator = products + (beta * along)[:, None] * towards
        lengths = np.maximum(lengths + beta[:, None] * towards**2, 0.0)
        counts = np.broadcast_to(self.counts, self.cross.shape).copy()
        counts[rows, truth] -= 1
        typical = typical_length(np.diagonal(inner), self.counts, self.noise)
        returned = attenuation(lengths, counts, self.noise, typical)
        return numerator / np.sqrt(np.where(lengths > 0, lengths, 1.0)) + returned

    def _distances(self, *, held: bool) -> Floats:
        rows, truth = self._rows, self.truth
        _, b, beta, q = self._leverage()
        if held:
            beta = np.zeros_like(beta)
        along = self.square - self.cross[rows, truth]
        towards = self.cross - self.inner[truth]
        distances = self.square[:, None] - 2 * self.cross + np.diagonal(self.inner)
        distances += beta[:, None] * (along[:, None] - towards) ** 2
        distances[rows, truth] = b * b * (q + beta * q * q)
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
    left_out = LeftOut(
        cross=raw - along[:, None] - centre @ columns,
        inner=(moments.means - point - centre) @ columns,
        square=square - 2.0 * along + centre @ carried @ share,
        truth=truth,
        counts=moments.counts,
        noise=tuning.freedom / max(members - classes, 1.0),
        inside=inside,
    )
    logits = tuning.temperature * left_out.scores(options)
    logits += log_priors(moments.counts, options) + favoured(moments.counts, options)
    return logits
