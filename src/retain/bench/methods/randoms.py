"""Ridge on random features: RanPAC and ACIL.

Both project features at random, cut them at zero, and solve least squares on one-hot targets from
what sums up; they differ in the projection, the ridge, and in what they carry along.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, cholesky, solve_triangular

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
from retain.bench.methods.ridge import chosen_ridge, one_hot, solve_ridge

__all__ = ["ACIL", "RanPAC"]

_AT_ONCE = 1024


class RanPAC(Method):
    """RanPAC (McDonnell 2023), its second phase: ridge on `size` random features max(xW, 0).

    W is standard normal, 10,000 wide (section 4, "M = 10000"; `args/*.csv` of the code); G = Σhhᵀ
    and Q = Σhyᵀ in float32, as there; λ from 10⁻⁸ to 10⁸ anew in each lesson, by the mean squared
    error on the last fifth of its shuffled pictures (appendix; `optimise_ridge_parameter`);
    answers are argmax of h(G + λI)⁻¹Q. Features are not normalised in the paper; `normalise` does.

    Deviations: no first phase, since the backbone is frozen; λ from one eigendecomposition in
    place of 17 solves; Cholesky in place of LU, with a larger λ where float32 cannot tell it from
    zero (there the code's LU gives noise); a lesson of one picture keeps the λ before it,
    at first 1. Outputs are no probabilities: see `Method.calibrated`.
    """

    name, title = "ranpac", "RanPAC"
    source = "McDonnell 2023, arXiv:2307.02251; github.com/RanPAC/RanPAC"
    calibrated = False

    def __init__(
        self,
        dimension: int,
        seed: int,
        workdir: Path,
        *,
        size: int = 10_000,
        normalise: bool = False,
    ) -> None:
        super().__init__(dimension, seed, workdir)
        self._normalise = normalise
        self._roster = Roster()
        self._random = np.random.default_rng(seed)
        self._projection = self._random.standard_normal((dimension, size), np.float32)
        self._gram = np.zeros((size, size), np.float32, order="F")  # lower half
        self._cross = np.zeros((size, 0), np.float32)
        self._ridge = 1.0
        self._weights: NDArray[np.floating] | None = None

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Add to the sums, and choose λ."""
        order = self._random.permutation(len(features))
        self._take(self._lifted(features[order]), self._roster.enter(labels)[order])

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """Softmax of the outputs."""
        classes = self._roster.asked(self.title)
        return classes, probabilities(self._outputs(features))

    def stored_bytes(self) -> int:
        """G, Q and the projection."""
        return held(self._gram, self._cross, self._projection, classes=self._roster.classes)

    def _lifted(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        x = unit(features).astype(np.float32) if self._normalise else features
        return np.asarray(np.maximum(x @ self._projection, 0), np.float32)

    def _take(self, lifted: NDArray[np.float32], where: NDArray[np.intp]) -> None:
        targets = one_hot(where, len(self._roster))
        fresh = np.zeros((len(self._cross), len(self._roster) - self._cross.shape[1]), np.float32)
        self._cross = np.hstack([self._cross, fresh]) + lifted.T @ targets.astype(np.float32)
        self._gram = blas.ssyrk(1.0, lifted.T, beta=1.0, c=self._gram, lower=1, overwrite_c=1)
        if len(lifted) > 1:
            self._ridge = chosen_ridge(lifted, targets)
        self._weights = None

    def _outputs(self, features: NDArray[np.float32]) -> NDArray[np.floating]:
        if self._weights is None:
            self._weights = solve_ridge(self._gram, self._cross, self._ridge)
        return self._lifted(features) @ self._weights


class ACIL(Method):
    """ACIL (Zhuang 2022): recursive least squares on `size` random features max(xW, 0).

    W uniform in ±1/√d (PyTorch's `Linear`), 8,192 wide, γ = 0.1, float64 (the code's defaults and
    its command for CIFAR-100). It carries R = (Σhhᵀ + γI)⁻¹ and the layer, and updates both by
    eq. 9 and 10 of the paper; the layer never needs a solve. Features are not normalised in the
    paper; `normalise` does.

    Deviations: the backbone is frozen, so there is no base training; R and the layer are updated
    from one Cholesky factor of I + HRHᵀ, by R'Hᵀ = RHᵀ(I + HRHᵀ)⁻¹, which is eq. 9 and 10 with
    a third of the products. Outputs are no probabilities: see `Method.calibrated`.
    """

    name, title = "acil", "ACIL"
    source = "Zhuang 2022, arXiv:2205.14922; github.com/ZHUANGHP/Analytic-continual-learning"
    calibrated = False

    def __init__(
        self,
        dimension: int,
        seed: int,
        workdir: Path,
        *,
        size: int = 8192,
        gamma: float = 0.1,
        normalise: bool = False,
    ) -> None:
        super().__init__(dimension, seed, workdir)
        self._normalise = normalise
        self._roster = Roster()
        bound = dimension**-0.5
        self._projection = np.random.default_rng(seed).uniform(-bound, bound, (dimension, size))
        self._inverse = np.zeros((size, size), order="F")  # R, lower half
        self._inverse[np.diag_indices(size)] = 1 / gamma
        self._weights = np.zeros((size, 0))

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Update R and the layer."""
        where = self._roster.enter(labels)
        fresh = np.zeros((len(self._weights), len(self._roster) - self._weights.shape[1]))
        self._weights = np.hstack([self._weights, fresh])
        for start in range(0, len(features), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            self._take(self._lifted(features[part]), one_hot(where[part], len(self._roster)))

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """Softmax of the outputs."""
        classes = self._roster.asked(self.title)
        return classes, probabilities(self._outputs(features))

    def stored_bytes(self) -> int:
        """R, the layer and the projection."""
        return held(self._inverse, self._weights, self._projection, classes=self._roster.classes)

    def _lifted(self, features: NDArray[np.float32]) -> Floats:
        x = unit(features) if self._normalise else np.asarray(features, np.float64)
        found: Floats = np.maximum(x @ self._projection, 0)
        return found

    def _take(self, lifted: Floats, targets: Floats) -> None:
        carried = blas.dsymm(1.0, self._inverse, lifted.T, lower=1)  # RHᵀ
        inner = lifted @ carried
        inner[np.diag_indices_from(inner)] += 1.0
        lower = cholesky(inner, lower=True, overwrite_a=True, check_finite=False)
        half = solve_triangular(lower, carried.T, lower=True, check_finite=False).T
        self._inverse = blas.dsyrk(-1.0, half, beta=1.0, c=self._inverse, lower=1, overwrite_c=1)
        missed = targets - lifted @ self._weights
        self._weights += half @ solve_triangular(lower, missed, lower=True, check_finite=False)

    def _outputs(self, features: NDArray[np.float32]) -> Floats:
        found: Floats = self._lifted(features) @ self._weights
        return found
