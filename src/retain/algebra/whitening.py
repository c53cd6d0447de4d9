"""What whitens features: the scatter of a state, and a factor of its loaded inverse.

With S the scatter within classes, or for ridge the scatter about the mean of all, and
λ = ε·tr(S)/d, heads are made of products with P = (S + λI)⁻¹, and corrections are measured with
P_T = (S_T + λI)⁻¹.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from retain.algebra.fixed import SCALE
from retain.algebra.statistics import Statistics

__all__ = ["Factor", "Family", "Moments", "Solver", "scatter"]

Floats = NDArray[np.float64]
Family = Literal["cosine", "discriminant", "ridge", "nearest-mean"]

# The largest shrinkage that corrections are measured with; from `benchmarks/corrections.py`.
_FIRM = 0.03


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """The means that heads are made of, in units of features (float64).

    Attributes:
        counts: n_c [C].
        means: μ_c [C, d].
        centre: m [d], the unweighted mean of the class means.
        mean: μ̄ [d], the mean of all members.
    """

    counts: Floats
    means: Floats
    centre: Floats
    mean: Floats

    @classmethod
    def of(cls, statistics: Statistics) -> Moments:
        """The moments of a state with at least one class."""
        counts = statistics.counts.astype(np.float64)
        means = statistics.sums / counts[:, None] / SCALE
        mean = statistics.sums.sum(axis=0) / counts.sum() / SCALE
        return cls(counts, means, means.mean(axis=0), mean)

    @property
    def directions(self) -> Floats:
        """d_c = μ_c − m, [C, d]."""
        return self.means - self.centre


def scatter(statistics: Statistics, family: Family) -> tuple[Floats, float]:
    """What whitens, and the unit of its shrinkage.

    Returns:
        S_W for the families that whiten within classes, S_T for ridge: [d, d]; and its trace by d,
        positive.
    """
    moments = Moments.of(statistics)
    second = statistics.second / float(SCALE * SCALE)
    if family == "ridge":
        rows = (np.sqrt(moments.counts.sum()) * moments.mean)[None, :]
    else:
        rows = np.sqrt(moments.counts)[:, None] * moments.means
    found = second - rows.T @ rows
    spread, size = float(np.trace(found)), float(np.trace(second))
    # Without any scatter (one picture per class, constant features) every direction is alike; what
    # is left of the difference above is then only rounding.
    if spread <= 1e-11 * size or size == 0.0:
        found, spread = np.zeros_like(found), max(size, 1.0)
    return found, spread / statistics.dimension


@final
class Factor:
    """A Cholesky factor of S + λI [d, d], lower; P is the inverse of what it factors.

    Factored anew from the sums whenever S or λ change: down-dating an inverse breaks when a
    picture's leverage reaches one. Between two lessons neither changes.

    Attributes:
        lower: the factor.
        source: of which state, shrinkage and family.
    """

    def __init__(self, lower: Floats, source: tuple[Statistics, float, Family]) -> None:
        self.lower = lower
        self.source = source

    @cached_property
    def firm(self) -> Factor:
        """The factor that corrections are measured with: of λ at most 0.03 mean variances.

        The λ that suits classes is large, which lets a correction move what lies in no remembered
        direction only little, and the rest more (see `docs/decisions`, 16).
        """
        statistics, shrinkage, family = self.source
        return self if shrinkage <= _FIRM else Factor.of(statistics, _FIRM, family)

    @classmethod
    def of(cls, statistics: Statistics, shrinkage: float, family: Family) -> Factor:
        """The factor for a state and a shrinkage."""
        whitening, level = scatter(statistics, family)
        for ridge in (shrinkage * level, (shrinkage + 1e-9 * len(whitening)) * level):
            # The second time because rounding made the smallest eigenvalue negative.
            matrix = _loaded(whitening.copy(order="F"), ridge)
            lower, info = lapack.dpotrf(matrix, lower=1, overwrite_a=1, clean=0)
            if info == 0:
                return cls(lower, (statistics, shrinkage, family))
        raise ArithmeticError("the scatter of the features cannot be factored")

    def apply(self, columns: Floats) -> Floats:
        """P times columns [d, k]."""
        if not columns.size:
            return columns.copy()
        solved, _ = lapack.dpotrs(self.lower, columns, lower=1)
        return np.asarray(solved, dtype=np.float64)


@final
class Solver:
    """Products with P = (S + λI)⁻¹ and with P_T = (S_T + λI)⁻¹, from one factorisation."""

    def __init__(self, moments: Moments, factor: Factor, family: Family) -> None:
        self.moments = moments
        self.factor = factor
        self._family: Family = family

    @cached_property
    def firm(self) -> Solver:
        """Products that corrections are measured with; see `Factor.firm`."""
        return Solver(self.moments, self.factor.firm, self._family)

    def apply(self, columns: Floats) -> Floats:
        """P times columns [d, k]."""
        return self.factor.apply(columns)

    @cached_property
    def _woodbury(self) -> tuple[Floats, Floats]:
        offsets = self.moments.means - self.moments.mean
        carried = self.apply(offsets.T)
        return carried, np.diag(1.0 / self.moments.counts) + offsets @ carried

    @cached_property
    def _total(self) -> Factor:
        """The factor of S_T + λI itself."""
        lower, offsets = np.tril(self.factor.lower), self.moments.means - self.moments.mean
        matrix = lower @ lower.T + (offsets.T * self.moments.counts) @ offsets
        return Factor(lapack.dpotrf(matrix, lower=1, clean=0)[0], self.factor.source)

    def apply_total(self, columns: Floats) -> Floats:
        """P_T times columns [d, k], by Woodbury's identity from the within-class factor.

        With more classes than numbers in a feature S_T is the smaller, and is factored itself.
        """
        if self._family != "ridge" and len(self.moments.means) > len(columns):
            return self._total.apply(columns)
        applied = self.apply(columns)
        if self._family == "ridge" or not columns.size:
            return applied
        carried, inner = self._woodbury
        update: Floats = carried @ np.linalg.solve(inner, carried.T @ columns)
        return applied - update


def _loaded(matrix: Floats, ridge: float) -> Floats:
    matrix[np.diag_indices_from(matrix)] += ridge
    return matrix
