"""New classes beside somebody's last layer, which stays as it is.

An adopted classifier brings rows W₀ and a bias b₀ over C₀ classes, and none of its pictures; beside
it stands a *reference* of unlabelled typical pictures, kept in the statistics as a class of its own
whose name is empty. With φ the unit feature, ρ its original length, m the mean of all typical
pictures (the reference, and labelled pictures of old classes if any came), P = (S_W + λI)⁻¹,
d_c = μ_c − m and s_c = (φ − m)ᵀPd_c / √(d_cᵀPd_c):

- an old class keeps its logit z_c = ρ·w₀ᵀφ + b₀ (plus u₀ᵀφ, where the layer was a head of ours
  once, exported and adopted). Where n_c labelled pictures of it came, the logit is
  (1 − α)·z_c + α·(t·s_c + u), α = n_c/(n_c + n₀): a prior worth n₀ pictures;
- a new class has the logit a·s_c + o, with one scale and one offset for all.

Dividing by the length of d_c matters here above all: the scores of typical pictures then spread
alike for a class of one picture and of a hundred, so that one offset serves both.

What the numbers are chosen by is in `extension_tuning`. Everything here is a pure function of start
and statistics; the head is linear in (ρφ, φ, 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retain.algebra.fixed import SCALE, to_float
from retain.algebra.heads import Head
from retain.algebra.statistics import Statistics
from retain.algebra.whitening import Factor, Moments, Solver

__all__ = ["REFERENCE", "ExtensionTuning", "Start", "extend"]

Floats = NDArray[np.float64]

REFERENCE = ""
"""The name under which unlabelled typical pictures are kept in the statistics; never a class."""


@dataclass(frozen=True, eq=False, slots=True)
class Start:
    """The last layer of a classifier that was trained elsewhere.

    Attributes:
        classes: its labels, in its own order; C₀ of them.
        weights: W₀, float64 [C₀, d], acting on features of their original length.
        bias: b₀, float64 [C₀].
        unit: U₀, float64 [C₀, d], acting besides on unit features, where the layer had been a head
            of retain's own; None for none.

    Raises:
        ValueError: if the shapes disagree, a label is empty or occurs twice, or a number is not
            finite.
    """

    classes: tuple[str, ...]
    weights: Floats
    bias: Floats
    unit: Floats | None = None

    def __post_init__(self) -> None:
        rows = len(self.classes)
        unit = np.zeros_like(self.weights) if self.unit is None else self.unit
        if self.weights.ndim != 2 or len(self.weights) != rows or self.bias.shape != (rows,):
            raise ValueError(
                f"{rows} classes do not match weights {self.weights.shape}, bias {self.bias.shape}"
            )
        if unit.shape != self.weights.shape:
            raise ValueError(f"weights {self.weights.shape} do not match those on unit features")
        if len(set(self.classes)) < rows or REFERENCE in self.classes:
            raise ValueError("the labels of a start must differ, and none may be empty")
        if not all(np.isfinite(each).all() for each in (self.weights, self.bias, unit)):
            raise ValueError("the weights of a start contain NaN or infinity")

    def logits(self, features: NDArray[np.int16], norms: NDArray[np.floating]) -> Floats:
        """The original logits [n, C₀] of fixed-point features [n, d] of lengths [n].

        >>> start = Start(("a", "b"), np.eye(2), np.array([0.0, 1.0]))
        >>> start.logits(np.array([[8192, 0]], dtype=np.int16), np.array([4.0]))
        array([[2., 1.]])
        """
        lengths = np.asarray(norms, dtype=np.float64)
        x = to_float(features)
        found: Floats = lengths[:, None] * (x @ self.weights.T) + self.bias
        return found if self.unit is None else found + x @ self.unit.T


@dataclass(frozen=True, slots=True)
class ExtensionTuning:
    """The numbers that leave-one-out chose; see `tune_extension`.

    Attributes:
        shrinkage: ε, the ridge in units of the mean variance.
        scale: a, logits per unit of whitened cosine, for new classes.
        offset: o, the bias of new classes, in logits.
        prior: n₀, what an old class's own row is worth in pictures; None for ever (infinitely).
        old_scale: t, logits per unit of whitened cosine, for old classes.
        old_offset: u, the bias of what old classes learn, in logits.
        flips: the share of typical pictures that new classes are expected to take, 0 to 1; None
            without new classes or typical pictures.
        accuracy: the share of left-out pictures of new classes that win, 0 to 1; None likewise.
    """

    shrinkage: float = 1.0
    scale: float = 0.0
    offset: float = 0.0
    prior: float | None = None
    old_scale: float = 0.0
    old_offset: float = 0.0
    flips: float | None = None
    accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExtensionTuning:
        """The numbers that `to_dict` gave."""
        return cls(**values)


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """The geometry in which classes are scored against typical pictures.

    Attributes:
        statistics: the state.
        moments: of all its classes, the reference among them.
        typical: bool [C'], which of those are typical pictures: the reference and old classes.
        centre: m [d], the mean of all typical pictures; of the class means where there are none.
        total: how many typical pictures there are.
    """

    statistics: Statistics
    moments: Moments
    typical: NDArray[np.bool_]
    centre: Floats
    total: int

    @classmethod
    def of(cls, start: Start, statistics: Statistics) -> Frame:
        """The frame of a state with at least one picture."""
        moments = Moments.of(statistics)
        known = {REFERENCE, *start.classes}
        typical = np.array([label in known for label in statistics.classes], dtype=bool)
        total = int(statistics.counts[typical].sum())
        if total:
            centre = statistics.sums[typical].sum(axis=0) / total / SCALE
        elif len(typical) > 1:
            centre = moments.centre
        else:
            # A single class: with its own mean as centre there would be no direction left.
            centre = np.zeros(statistics.dimension)
        return cls(statistics, moments, typical, np.asarray(centre, dtype=np.float64), total)

    def solver(self, shrinkage: float) -> Solver:
        """Products with P."""
        return Solver(self.moments, Factor.of(self.statistics, shrinkage, "cosine"), "cosine")

    @property
    def directions(self) -> Floats:
        """d_c = μ_c − m, [C', d]."""
        return self.moments.means - self.centre


def extend(
    start: Start,
    statistics: Statistics,
    tuning: ExtensionTuning,
    solver: Solver | None = None,
) -> Head:
    """The head of a start and of what has been learnt since.

    Args:
        start: the adopted last layer.
        statistics: the reference under the name ``REFERENCE``, new classes, and whatever labelled
            pictures of old classes came; any of these may be absent.
        tuning: from `tune_extension`.
        solver: products with P, if they are at hand.

    Returns:
        A head whose classes are the start's in its order, then the new ones, sorted.

    Raises:
        ValueError: if start and statistics are of different dimensions.

    >>> start = Start(("a", "b"), 9 * np.eye(3)[:2], np.zeros(2))
    >>> x = np.array([[16384, 0, 0], [0, 16384, 0], [0, 0, 16384]], dtype=np.int16)
    >>> head = extend(start, Statistics.of(x, ["", "", "c"]), ExtensionTuning(scale=9.0))
    >>> head.classes, head.logits(x, np.ones(3)).argmax(axis=1)
    (('a', 'b', 'c'), array([0, 1, 2]))
    """
    if statistics.dimension != start.weights.shape[1]:
        raise ValueError(
            f"features of {statistics.dimension} numbers do not fit a start of "
            f"{start.weights.shape[1]}"
        )
    position = {label: i for i, label in enumerate(statistics.classes)}
    place = {label: i for i, label in enumerate(start.classes)}
    new = [c for c in statistics.classes if c != REFERENCE and c not in place]
    taught = [c for c in start.classes if c in position] if tuning.prior is not None else []
    rows = len(start.classes) + len(new)
    raw, weights = np.zeros((rows, statistics.dimension)), np.zeros((rows, statistics.dimension))
    bias = np.zeros(rows)
    raw[: len(start.classes)], bias[: len(start.classes)] = start.weights, start.bias
    if start.unit is not None:
        weights[: len(start.classes)] = start.unit
    if new or taught:
        frame = Frame.of(start, statistics)
        solver = solver or frame.solver(tuning.shrinkage)
        if new:
            chosen = [position[label] for label in new]
            row, bent = _scores(frame, solver, chosen)
            weights[len(start.classes) :] = tuning.scale * row
            bias[len(start.classes) :] = tuning.scale * bent + tuning.offset
        if taught and tuning.prior is not None:
            chosen = [position[label] for label in taught]
            row, bent = _scores(frame, solver, chosen)
            at = [place[label] for label in taught]
            share = trust(statistics.counts[chosen].astype(np.float64), tuning.prior)
            raw[at] *= (1 - share)[:, None]
            mixed = (share * tuning.old_scale)[:, None] * row
            if start.unit is not None:
                mixed += (1 - share)[:, None] * weights[at]
            weights[at] = mixed
            learnt = tuning.old_scale * bent + tuning.old_offset
            bias[at] = (1 - share) * bias[at] + share * learnt
    return Head((*start.classes, *new), weights, bias, raw)


def trust(counts: Floats, prior: float) -> Floats:
    """α = n/(n + n₀): how far pictures of an old class outweigh its own row, 0 to 1."""
    return np.asarray(counts / (counts + prior), dtype=np.float64)


def _scores(frame: Frame, solver: Solver, chosen: list[int]) -> tuple[Floats, Floats]:
    """Rows [k, d] and biases [k] that give the whitened cosines of the chosen classes."""
    directions = frame.directions[chosen]
    columns = solver.apply(np.ascontiguousarray(directions.T))
    lengths = np.maximum(np.einsum("cd,dc->c", directions, columns), 0.0)
    rows: Floats = (columns / np.sqrt(np.where(lengths > 0, lengths, 1.0))).T
    return rows, -(rows @ frame.centre)
