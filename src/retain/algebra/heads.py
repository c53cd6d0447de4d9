"""Heads: the state of a classifier as a linear map from features to scores.

Every head here is a pure function of the same three sums (G, S_c, n_c), so each can be had from one
state, and none depends on the order in which pictures came. With μ_c the class means, m their
unweighted mean, μ̄ the mean of all members, S_W = G − Σ S_c S_cᵀ / n_c the scatter within classes,
S_T the scatter about μ̄, and λ = ε·tr(S)/d:

- *cosine* (the default): the whitened centred cosine. P = (S_W + λI)⁻¹, d_c = μ_c − m, and
  score_c = (x − m)ᵀ P d_c / √(d_cᵀ P d_c): the cosine, in whitened space, between the picture and
  the class, up to the picture's own length, which is the same for every class. Dividing by the
  length of d_c takes away what punishes classes of few pictures, whose means are too long by their
  own noise.
- *discriminant*: Fisher's linear discriminant with a shrunk common covariance (Friedman 1989;
  Hayes & Kanan 2020 as "streaming LDA"): score_c = −½ (x − μ_c)ᵀ P (x − μ_c), of which the part
  quadratic in x is common to all classes and drops out.
- *ridge*: regularised least squares on one-hot targets with a free intercept (Hoerl & Kennard
  1970), P = (S_T + λI)⁻¹; with balanced priors each class's output is divided by its share.
- *nearest-mean*: score_c = −½ ‖x − μ_c‖² (Mensink 2013; the classifier of iCaRL).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from retain.algebra.fixed import SCALE, to_float
from retain.algebra.statistics import Statistics
from retain.errors import BadOption

__all__ = ["Family", "Head", "HeadOptions", "Moments", "Solver", "base_head", "log_priors"]

Floats = NDArray[np.float64]
Family = Literal["cosine", "discriminant", "ridge", "nearest-mean"]
Priors = Literal["balanced", "empirical"]


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """What the owner of a classifier may choose about its head.

    Attributes:
        family: which head; see the module.
        priors: ``"balanced"`` treats all classes alike; ``"empirical"`` expects classes as often
            as they were taught.
        favour: from −1 (old classes, those with many pictures) over 0 to 1 (new classes, those
            with few).

    Raises:
        BadOption: if a value is not one of these.
    """

    family: Family = "cosine"
    priors: Priors = "balanced"
    favour: float = 0.0

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise BadOption(f"head {self.family!r} is not one of {', '.join(get_args(Family))}")
        if self.priors not in get_args(Priors):
            raise BadOption(f"priors {self.priors!r} are not one of {', '.join(get_args(Priors))}")
        if not -1.0 <= self.favour <= 1.0:
            raise BadOption(f"favour is {self.favour}; it must lie between -1 and 1")

    def to_dict(self) -> dict[str, Any]:
        """The options as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HeadOptions:
        """The options that `to_dict` gave."""
        return cls(**values)


@dataclass(frozen=True, eq=False, slots=True)
class Head:
    """A linear map from features to calibrated logits.

    Attributes:
        classes: the labels, sorted; C of them.
        weights: float64 [C, d].
        bias: float64 [C].
    """

    classes: tuple[str, ...]
    weights: Floats
    bias: Floats

    def logits(self, features: NDArray[np.int16]) -> Floats:
        """Logits of fixed-point features [n, d] (or [d]): float64 [n, C] (or [C]).

        Each row is computed by itself, so that a picture's answer does not depend on which others
        were asked about beside it.
        """
        x = to_float(features)
        if x.ndim == 1:
            return self.weights @ x + self.bias
        return (
            np.stack([self.weights @ row + self.bias for row in x])
            if len(x)
            else (np.zeros((0, len(self.classes))))
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Head):
            return NotImplemented
        return (
            self.classes == other.classes
            and self.weights.tobytes() == other.weights.tobytes()
            and self.bias.tobytes() == other.bias.tobytes()
        )

    def __hash__(self) -> int:
        return hash((self.classes, self.bias.tobytes()))


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """The means and scatters that heads are made of, in units of features (float64).

    Attributes:
        counts: n_c [C].
        means: μ_c [C, d].
        centre: m [d], the unweighted mean of the class means.
        mean: μ̄ [d], the mean of all members.
        scatter: [d, d], S_W for the families that whiten within classes, S_T for ridge.
        level: tr(scatter)/d, the unit of shrinkage; positive.
    """

    counts: Floats
    means: Floats
    centre: Floats
    mean: Floats
    scatter: Floats
    level: float

    @classmethod
    def of(cls, statistics: Statistics, family: Family) -> Moments:
        """The moments of a state with at least one class."""
        counts = statistics.counts.astype(np.float64)
        means = statistics.sums / counts[:, None] / SCALE
        mean = statistics.sums.sum(axis=0) / counts.sum() / SCALE
        second = statistics.second / float(SCALE * SCALE)
        if family == "ridge":
            rows = (np.sqrt(counts.sum()) * mean)[None, :]
        else:
            rows = np.sqrt(counts)[:, None] * means
        scatter = second - rows.T @ rows
        spread, size = float(np.trace(scatter)), float(np.trace(second))
        dimension = statistics.dimension
        # Without any scatter (one picture per class, constant features) every direction is alike;
        # what is left of the difference above is then only rounding.
        if spread <= 1e-11 * size or size == 0.0:
            scatter, spread = np.zeros_like(scatter), max(size, 1.0)
        return cls(counts, means, means.mean(axis=0), mean, scatter, spread / dimension)

    @property
    def directions(self) -> Floats:
        """d_c = μ_c − m, [C, d]."""
        return self.means - self.centre


class Solver:
    """Products with P = (S + λI)⁻¹ and with P_T = (S_T + λI)⁻¹, from one factorisation.

    Re-factored from the sums each time: down-dating an inverse breaks when a picture's leverage
    reaches one.
    """

    def __init__(self, moments: Moments, shrinkage: float, family: Family) -> None:
        self._moments = moments
        self._within = family != "ridge"
        matrix = moments.scatter.copy(order="F")
        ridge = shrinkage * moments.level
        factor, info = lapack.dpotrf(_loaded(matrix, ridge), lower=1, overwrite_a=1, clean=0)
        if info != 0:
            # Rounding made the smallest eigenvalue negative: load the diagonal above it.
            floor = 1e-9 * moments.level * len(matrix)
            matrix = moments.scatter.copy(order="F")
            factor, info = lapack.dpotrf(_loaded(matrix, ridge + floor), lower=1, overwrite_a=1)
            if info != 0:
                raise ArithmeticError("the scatter of the features cannot be factored")
        self._factor = factor
        self._woodbury: tuple[Floats, Floats] | None = None

    def apply(self, columns: Floats) -> Floats:
        """P times columns [d, k]."""
        if not columns.size:
            return columns.copy()
        solved, _ = lapack.dpotrs(self._factor, columns, lower=1)
        return np.asarray(solved, dtype=np.float64)

    def apply_total(self, columns: Floats) -> Floats:
        """P_T times columns [d, k], by Woodbury's identity from the within-class factor."""
        applied = self.apply(columns)
        if not self._within or not columns.size:
            return applied
        if self._woodbury is None:
            offsets = self._moments.means - self._moments.mean
            carried = self.apply(offsets.T)
            inner = np.diag(1.0 / self._moments.counts) + offsets @ carried
            self._woodbury = carried, inner
        carried, inner = self._woodbury
        update: Floats = carried @ np.linalg.solve(inner, carried.T @ columns)
        return applied - update


def log_priors(counts: Floats, options: HeadOptions) -> Floats:
    """What is added to calibrated logits [C] for the priors that the owner chose."""
    if options.priors == "empirical":
        return np.asarray(np.log(counts / counts.sum()), dtype=np.float64)
    return np.zeros_like(counts)


def base_head(
    statistics: Statistics, shrinkage: float, temperature: float, options: HeadOptions
) -> tuple[Head, Solver]:
    """The head of a state, before pins, and the factorisation it came from.

    Args:
        statistics: at least one class.
        shrinkage: ε, positive.
        temperature: T, what raw scores are multiplied by to become logits.
        options: the owner's choices.

    Returns:
        The head, and the `Solver` that `pin_head` measures edits with.
    """
    moments = Moments.of(statistics, options.family)
    solver = Solver(moments, shrinkage, options.family)
    weights, bias = _linear(moments, solver, options)
    weights = temperature * weights
    bias = temperature * bias + log_priors(moments.counts, options)
    return Head(statistics.classes, np.ascontiguousarray(weights), bias), solver


def _linear(moments: Moments, solver: Solver, options: HeadOptions) -> tuple[Floats, Floats]:
    if options.family == "cosine":
        directions = moments.directions
        columns = solver.apply(directions.T)
        lengths = np.sqrt(np.maximum(np.einsum("cd,dc->c", directions, columns), 0.0))
        weights = (columns / np.where(lengths > 0, lengths, 1.0)).T
        return weights, -(weights @ moments.centre)
    if options.family == "discriminant":
        directions = moments.directions
        weights = solver.apply(directions.T).T
        return weights, -(weights @ moments.centre) - 0.5 * np.einsum(
            "cd,cd->c", weights, directions
        )
    if options.family == "nearest-mean":
        directions = moments.directions
        return directions, -(directions @ moments.centre) - 0.5 * np.einsum(
            "cd,cd->c", directions, directions
        )
    share = moments.counts / moments.counts.sum()
    offsets = moments.counts[:, None] * (moments.means - moments.mean)
    weights = solver.apply(offsets.T).T
    bias = share - weights @ moments.mean
    if options.priors == "balanced":
        return weights / share[:, None], bias / share
    return weights, bias


def _loaded(matrix: Floats, ridge: float) -> Floats:
    matrix[np.diag_indices_from(matrix)] += ridge
    return matrix
