"""Streaming linear discriminant analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, cho_factor, cho_solve
from sklearn.covariance import oas

from retain.bench.methods.base import Labels, Method, Roster, Scores, held, probabilities, unit

__all__ = ["StreamingLDA"]


class StreamingLDA(Method):
    """Deep SLDA (Hayes & Kanan 2020), with plastic covariance.

    Running class means and one running covariance, Λ = ((1 − ε)Σ + εI)⁻¹, scores Λμ_c·x − ½μ_cᵀΛμ_c
    and, as in the published code, their softmax as probabilities. ε = 1e-4 (section 5.1 of the
    paper; `--shrinkage` of the code). The first lesson is the base initialisation: Σ by
    oracle-approximating shrinkage of the pictures about their class means (section 4; OAS, Chen
    2010); later pictures come one at a time (eq. 1, 2). Features are not normalised in the paper;
    `normalise` does so.

    Deviations: the pictures of a lesson enter Σ by one matrix product, which is the same sum as
    one at a time, in the order given; float64 for float32; Λμ by one Cholesky factorisation a
    lesson in place of a pseudo-inverse, the same while (1 − ε)Σ + εI is positive definite, as it
    is for ε > 0; only classes that have been seen are answered, where the code scores the
    unseen as 0.
    """

    name, title = "slda", "streaming LDA"
    source = "Hayes & Kanan 2020, arXiv:1909.01520; github.com/tyler-hayes/Deep_SLDA"

    def __init__(
        self,
        dimension: int,
        seed: int,
        workdir: Path,
        *,
        shrinkage: float = 1e-4,
        base: bool = True,
        normalise: bool = False,
    ) -> None:
        super().__init__(dimension, seed, workdir)
        self._shrinkage, self._base, self._normalise = shrinkage, base, normalise
        self._roster = Roster()
        self._means = np.zeros((0, dimension))
        self._counts = np.zeros(0)
        self._total = 0
        self._scatter = np.zeros((dimension, dimension), order="F")  # total · Σ, lower half
        self._linear: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """The base initialisation if it is the first lesson, else one picture after another."""
        x = self._ready(features)
        where = self._roster.enter(labels)
        fresh = len(self._roster) - len(self._means)
        self._means = np.vstack([self._means, np.zeros((fresh, self.dimension))])
        self._counts = np.concatenate([self._counts, np.zeros(fresh)])
        self._linear = None
        if self._total == 0 and self._base and len(x) > 1:
            self._begin(x, where)
        else:
            self._stream(x, where)

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """Softmax of the discriminants, as published."""
        classes = self._roster.asked(self.title)
        weights, bias = self._linear if self._linear is not None else self._solved()
        self._linear = weights, bias
        return classes, probabilities(self._ready(features) @ weights - bias)

    def stored_bytes(self) -> int:
        """Covariance, means and counts, as float64."""
        return held(self._scatter, self._means, self._counts, classes=self._roster.classes)

    def _ready(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return unit(features) if self._normalise else np.asarray(features, np.float64)

    def _begin(self, x: NDArray[np.float64], where: NDArray[np.intp]) -> None:
        np.add.at(self._counts, where, 1)
        np.add.at(self._means, where, x)
        self._means /= self._counts[:, None]
        covariance, _ = oas(x - self._means[where], assume_centered=True)
        self._total = len(x)
        self._scatter = np.asfortranarray(covariance * len(x))

    def _stream(self, x: NDArray[np.float64], where: NDArray[np.intp]) -> None:
        deviations = np.empty_like(x)
        for i, c in enumerate(where):
            deviations[i] = x[i] - self._means[c]
            self._counts[c] += 1
            self._means[c] += deviations[i] / self._counts[c]
        seen = self._total + np.arange(len(x), dtype=np.float64)
        deviations *= np.sqrt(seen / (seen + 1))[:, None]
        self._scatter = blas.dsyrk(
            1.0, deviations.T, beta=1.0, c=self._scatter, lower=1, overwrite_c=1
        )
        self._total += len(x)

    def _solved(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        precision = self._scatter * ((1 - self._shrinkage) / self._total)
        precision[np.diag_indices_from(precision)] += self._shrinkage
        factor = cho_factor(precision, lower=True, overwrite_a=True, check_finite=False)
        weights = cho_solve(factor, self._means.T, check_finite=False)
        return weights, 0.5 * np.einsum("cd,dc->c", self._means, weights)
