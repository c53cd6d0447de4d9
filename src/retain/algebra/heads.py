"""Heads: the state of a classifier as a linear map from features to scores.

Every head here is a pure function of the same three sums (G, S_c, n_c), so each can be had from one
state, and none depends on the order in which pictures came. With μ_c the class means, m their
unweighted mean, μ̄ the mean of all members, S_W = G − Σ S_c S_cᵀ / n_c the scatter within classes,
S_T the scatter about μ̄, and λ = ε·tr(S)/d:

- *cosine* (the default): the whitened centred cosine. P = (S_W + λI)⁻¹, d_c = μ_c − m, and
  score_c = (x − m)ᵀ P d_c / √(d_cᵀ P d_c): the cosine, in whitened space, between the picture and
  the class, up to the picture's own length, which is the same for every class. Dividing by the
  length of d_c takes away what punishes classes of few pictures, whose means are too long by their
  own noise. What the noise does leave too short is the cosine of their own pictures, by the square
  root of the mean's reliability ρ_c = 1 − ν/(n_c·d_cᵀPd_c) (Spearman 1904, "attenuation"), with
  ν = tr(P S_W)/(N − C) the noise of one picture; part of that is given back, as a bias.
- *discriminant*: Fisher's linear discriminant with a shrunk common covariance (Friedman 1989;
  Hayes & Kanan 2020 as "streaming LDA"): score_c = −½ (x − μ_c)ᵀ P (x − μ_c), of which the part
  quadratic in x is common to all classes and drops out.
- *ridge*: regularised least squares on one-hot targets with a free intercept (Hoerl & Kennard
  1970), P = (S_T + λI)⁻¹; but with empirical priors each class's output is divided by
  its share.
- *nearest-mean*: score_c = −½ ‖x − μ_c‖² (Mensink 2013; the classifier of iCaRL).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from retain.algebra.fixed import to_float
from retain.algebra.statistics import Statistics
from retain.algebra.whitening import Factor, Family, Moments, Solver
from retain.errors import BadOption

__all__ = [
    "UNTUNED",
    "Head",
    "HeadOptions",
    "Tuning",
    "attenuation",
    "base_head",
    "favoured",
    "log_priors",
]

Floats = NDArray[np.float64]
Priors = Literal["mixed", "balanced", "empirical"]

# How much of the attenuation of classes with few pictures is given back. From `benchmarks/
# few_shot.py`: 0 leaves new classes behind, 1 costs the old ones more than a point.
_GIVEN_BACK = 0.4
# A class of so many pictures is believed by half to be as rare as it was taught; see `log_priors`.
_BELIEVED = 8.0
_LEAST_RELIABLE = 0.02


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """What the owner of a classifier may choose about its head.

    Attributes:
        family: which head; see the module.
        priors: ``"balanced"`` treats all classes alike; ``"empirical"`` expects classes as often
            as they were taught; ``"mixed"`` expects one half of the pictures so and one half so,
            and takes no class for rare before it has been shown (see `log_priors`).
        favour: from −2 (old classes, those with many pictures) over 0 to 2 (new classes, those
            with few): prior odds that go with so many square roots of the number of pictures.

    Raises:
        BadOption: if a value is not one of these.
    """

    family: Family = "cosine"
    priors: Priors = "mixed"
    favour: float = 0.0

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise BadOption(f"head {self.family!r} is not one of {', '.join(get_args(Family))}")
        if self.priors not in get_args(Priors):
            raise BadOption(f"priors {self.priors!r} are not one of {', '.join(get_args(Priors))}")
        if not -2.0 <= self.favour <= 2.0:
            raise BadOption(f"favour is {self.favour}; it must lie between -2 and 2")

    def to_dict(self) -> dict[str, Any]:
        """The options as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HeadOptions:
        """The options that `to_dict` gave."""
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Tuning:
    """The numbers that leave-one-out chose; see `tune`.

    Attributes:
        shrinkage: ε, the ridge in units of the mean variance.
        temperature: T, raw scores times T are logits.
        freedom: tr(P S), the effective degrees of freedom of the whitening, 0 to d.
        margin: the logit margin that a pin must reach: what 95 % of the left-out pictures that
            are right exceed.
        energies: sorted quantiles of the left-out energies, for `typicality`.
        accuracy: left-out accuracy, balanced over classes, 0 to 1; None without evidence.
        extension: for a classifier that was adopted, the numbers of `extend`, as plain JSON.
    """

    shrinkage: float
    temperature: float
    freedom: float
    margin: float
    energies: tuple[float, ...]
    accuracy: float | None
    extension: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tuning:
        """The numbers that `to_dict` gave."""
        return cls(**{**values, "energies": tuple(values["energies"])})


UNTUNED = Tuning(1.0, 10.0, 0.0, 0.5, (), None)
"""What is used while no class has two pictures, or there is only one class."""


@dataclass(frozen=True, eq=False, slots=True)
class Head:
    """A linear map from features to calibrated logits.

    Attributes:
        classes: the labels; C of them. Sorted, or, where the head began as somebody's trained
            classifier, that one's in their own order and then the others, sorted.
        weights: float64 [C, d], acting on unit features φ.
        bias: float64 [C].
        raw: float64 [C, d], acting on features ρφ of their original length; None for none.
    """

    classes: tuple[str, ...]
    weights: Floats
    bias: Floats
    raw: Floats | None = None

    def logits(
        self, features: NDArray[np.int16], norms: NDArray[np.floating] | float | None = None
    ) -> Floats:
        """Logits of fixed-point features [n, d] (or [d]): float64 [n, C] (or [C]).

        Each row is computed by itself, so that a picture's answer does not depend on which others
        were asked about beside it.

        Args:
            features: the features.
            norms: their original lengths ρ [n] (or one); needed only by a head with `raw`.
        """
        x = to_float(features)
        lengths = np.ones(x.shape[:-1]) if norms is None else np.asarray(norms, np.float64)
        if x.ndim == 1:
            return self._one(x, float(lengths))
        if not len(x):
            return np.zeros((0, len(self.classes)))
        return np.stack([self._one(row, float(rho)) for row, rho in zip(x, lengths, strict=True)])

    def _one(self, x: Floats, rho: float) -> Floats:
        found: Floats = self.weights @ x + self.bias
        return found if self.raw is None else rho * (self.raw @ x) + found

    def _bits(self) -> tuple[object, ...]:
        arrays = (self.weights, self.bias, self.raw)
        return self.classes, *(None if each is None else each.tobytes() for each in arrays)

    def __eq__(self, other: object) -> bool:
        return self._bits() == other._bits() if isinstance(other, Head) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.classes, self.bias.tobytes()))


def log_priors(counts: Floats, options: HeadOptions) -> Floats:
    """What is added to calibrated logits [C] for the priors that the owner chose.

    Mixed priors expect a class with π_c = ½·n_c/N + ½·1/C, so that the rarest loses log 2 at most,
    and log(C·π_c) is weighted by n_c/(n_c + 8): few pictures of a class may mean that it is rare or
    that it is new.
    """
    if options.priors == "balanced":
        return np.zeros_like(counts)
    share = counts / counts.sum()
    if options.priors == "empirical":
        return np.asarray(np.log(share), dtype=np.float64)
    tilt = np.log(0.5 * len(counts) * share + 0.5)
    return np.asarray(counts / (counts + _BELIEVED) * tilt, dtype=np.float64)


def favoured(counts: Floats, options: HeadOptions) -> Floats:
    """What is added to logits [C] on top, to favour new or old classes."""
    return np.asarray(-0.5 * options.favour * np.log(counts / counts.mean()), dtype=np.float64)


def attenuation(lengths: Floats, counts: Floats, noise: float, typical: float) -> Floats:
    """What is given back to classes for the noise in their means, in units of raw cosine scores.

    Args:
        lengths: d_cᵀPd_c, any shape.
        counts: n_c, of a shape that goes with it.
        noise: ν, the whitened squared length of one picture's noise.
        typical: the median over classes of √(d_cᵀPd_c − ν/n_c): how far apart classes are.
    """
    reliability = 1.0 - noise / (counts * np.where(lengths > 0, lengths, 1.0))
    lost = 1.0 - np.sqrt(np.clip(reliability, _LEAST_RELIABLE, 1.0))
    return np.asarray(_GIVEN_BACK * typical * lost, dtype=np.float64)


def typical_length(lengths: Floats, counts: Floats, noise: float) -> float:
    """How far apart classes are in whitened space, noise aside: see `attenuation`."""
    return float(np.median(np.sqrt(np.maximum(lengths - noise / counts, 0.0))))


def base_head(
    statistics: Statistics,
    tuning: Tuning,
    options: HeadOptions,
    whitening: Statistics | None = None,
    factor: Factor | None = None,
) -> tuple[Head, Solver]:
    """The head of a state, before pins, and the factorisation it came from.

    Args:
        statistics: at least one class.
        tuning: the numbers of its last lesson.
        options: the owner's choices.
        whitening: the state at that lesson, whose scatter whitens; by default `statistics`. A
            corrected picture is an outlier: in the scatter it would move every margin a little.
        factor: that of the same whitening and tuning, if it is at hand.

    Returns:
        The head, and the `Solver` that `nearest_head` measures edits with.
    """
    moments = Moments.of(statistics)
    if factor is None:
        taught = whitening if whitening is not None and whitening.total else statistics
        factor = Factor.of(taught, tuning.shrinkage, options.family)
    solver = Solver(moments, factor, options.family)
    weights, bias = _linear(moments, solver, tuning, options)
    weights = tuning.temperature * weights
    bias = tuning.temperature * bias + log_priors(moments.counts, options)
    bias = bias + favoured(moments.counts, options)
    return Head(statistics.classes, np.ascontiguousarray(weights), bias), solver


def _linear(
    moments: Moments, solver: Solver, tuning: Tuning, options: HeadOptions
) -> tuple[Floats, Floats]:
    directions = moments.directions
    if options.family == "cosine":
        columns = solver.apply(directions.T)
        lengths = np.maximum(np.einsum("cd,dc->c", directions, columns), 0.0)
        weights = (columns / np.sqrt(np.where(lengths > 0, lengths, 1.0))).T
        noise = tuning.freedom / max(moments.counts.sum() - len(lengths), 1.0)
        typical = typical_length(lengths, moments.counts, noise)
        returned = attenuation(lengths, moments.counts, noise, typical)
        return weights, returned - weights @ moments.centre
    if options.family == "ridge":
        share = moments.counts / moments.counts.sum()
        offsets = moments.counts[:, None] * (moments.means - moments.mean)
        weights = solver.apply(offsets.T).T
        bias = share - weights @ moments.mean
        scale = 1.0 if options.priors == "empirical" else share
        return (weights.T / scale).T, bias / scale
    weights = solver.apply(directions.T).T if options.family == "discriminant" else directions
    squares = np.einsum("cd,cd->c", weights, directions)
    return weights, -(weights @ moments.centre) - 0.5 * squares
