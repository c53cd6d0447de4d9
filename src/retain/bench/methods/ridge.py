"""Ridge regression on sums, and the choice of its parameter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from retain.bench.methods.base import (
    Floats,
    Labels,
    Method,
    Roster,
    Scores,
    held,
    probabilities,
    unit,
)

__all__ = ["RIDGES", "Ridge", "chosen_ridge", "one_hot", "solve_ridge"]

RIDGES = 10.0 ** np.arange(-8.0, 9.0)
"""The grid of RanPAC (McDonnell 2023, section 3.2 of its supplement and its code)."""


def chosen_ridge(features: NDArray[np.floating], targets: Floats) -> float:
    """The λ of `RIDGES` that does best on the last fifth of a lesson, fitted to the rest of it.

    As published with RanPAC: mean squared error on the last fifth; pictures must come shuffled.
    All λ share one eigendecomposition, of the smaller of FFᵀ and FᵀF, in place of one solve each.

    Args:
        features: F, [n, m]; n at least 2.
        targets: one-hot, float64 [n, C].
    """
    cut = int(len(features) * 0.8)
    fitted, judged = (np.asarray(part, np.float64) for part in np.split(features, [cut]))
    wide = cut < fitted.shape[1]
    gram = fitted @ fitted.T if wide else fitted.T @ fitted
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    if wide:
        left, right = judged @ fitted.T @ vectors, vectors.T @ targets[:cut]
    else:
        left, right = judged @ vectors, vectors.T @ (fitted.T @ targets[:cut])
    losses = [np.mean((left / (values + ridge) @ right - targets[cut:]) ** 2) for ridge in RIDGES]
    return float(RIDGES[int(np.argmin(losses))])


def one_hot(where: NDArray[np.intp], count: int) -> Floats:
    """Targets float64 [n, count] of positions [n].

    >>> one_hot(np.array([1]), 2)
    array([[0., 1.]])
    """
    found = np.zeros((len(where), count))
    found[np.arange(len(where)), where] = 1.0
    return found


def solve_ridge(
    gram: NDArray[np.floating], cross: NDArray[np.floating], ridge: float
) -> NDArray[np.floating]:
    """(G + λI)⁻¹ Q, by Cholesky.

    A λ that rounding cannot tell from zero is raised to where it can, and by tens from there until
    G + λI can be factored.

    Args:
        gram: G, [m, m], of which the lower half is read.
        cross: Q, [m, C].
        ridge: λ.

    >>> solve_ridge(np.eye(2), np.ones((2, 1)), 1.0).ravel()
    array([0.5, 0.5])
    """
    ridge = max(ridge, float(np.finfo(gram.dtype).eps * np.diag(gram).mean()))
    while True:
        loaded = gram.copy(order="F")
        loaded[np.diag_indices_from(loaded)] += ridge
        try:
            factor = cho_factor(loaded, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            ridge *= 10
        else:
            return np.asarray(cho_solve(factor, cross, check_finite=False))


class Ridge(Method):
    """Least squares on one-hot targets with a ridge (Hoerl & Kennard 1970), from G = Σxxᵀ and Σxyᵀ.

    What RanPAC is without its projection ("M = 0" in its code), on unit features. λ is chosen in
    each lesson from that lesson's pictures, in shuffled order, by `chosen_ridge`; a lesson of one
    picture, which cannot be split, keeps the λ before it, at first 1.

    Deviations: unit features; a cross-validated λ needs pictures of all classes, which a
    class-incremental method does not have. Outputs are no probabilities: see `Method.calibrated`.
    """

    name, title = "ridge", "ridge"
    source = "Hoerl & Kennard 1970; McDonnell 2023, arXiv:2307.02251, without projection"
    calibrated = False

    def __init__(self, dimension: int, seed: int, workdir: Path) -> None:
        super().__init__(dimension, seed, workdir)
        self._roster = Roster()
        self._random = np.random.default_rng(seed)
        self._gram = np.zeros((dimension, dimension))
        self._cross = np.zeros((dimension, 0))
        self._ridge = 1.0
        self._weights: NDArray[np.floating] | None = None

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Add to the sums, and choose λ."""
        x = unit(features)[order := self._random.permutation(len(features))]
        where = self._roster.enter(labels)[order]
        targets = one_hot(where, len(self._roster))
        fresh = len(self._roster) - self._cross.shape[1]
        self._cross = np.hstack([self._cross, np.zeros((self.dimension, fresh))])
        self._add(x, targets, 1.0)
        if len(x) > 1:
            self._ridge = chosen_ridge(x, targets)

    def forget(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Subtract from the sums, exactly up to rounding; λ stays."""
        targets = one_hot(self._roster.known(labels), len(self._roster))
        self._add(unit(features), targets, -1.0)

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """Softmax of the outputs."""
        classes = self._roster.asked(self.title)
        if self._weights is None:
            self._weights = solve_ridge(self._gram, self._cross, self._ridge)
        return classes, probabilities(unit(features) @ self._weights)

    def stored_bytes(self) -> int:
        """G and Σxyᵀ."""
        return held(self._gram, self._cross, classes=self._roster.classes)

    def _add(self, x: Floats, targets: Floats, sign: float) -> None:
        self._gram += sign * (x.T @ x)
        self._cross += sign * (x.T @ targets)
        self._weights = None
