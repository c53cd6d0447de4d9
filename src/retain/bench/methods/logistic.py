"""Logistic regression, refitted on everything."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from retain.bench.methods.base import (
    Floats,
    Labels,
    Memory,
    Method,
    Scores,
    held,
    probabilities,
    unit,
)
from retain.errors import NothingLearned

__all__ = ["Joint", "Logistic"]

STRENGTHS = (10.0, 31.6, 100.0, 316.0, 1000.0)
"""Values of C to choose from, for features of length one; as in `benchmarks/accuracy.py`."""


@dataclass(frozen=True, eq=False, slots=True)
class _Softmax:
    """A fitted last layer: sorted `classes`, `weights` [C, d + 1] with the intercept at the end."""

    classes: Labels
    weights: Floats

    def __call__(self, x: Floats) -> Floats:
        """Probabilities [n, C] of unit features."""
        return probabilities(x @ self.weights[:, :-1].T + self.weights[:, -1])

    @classmethod
    def fitted(
        cls, x: Floats, labels: Labels, strength: float, start: Floats | None = None
    ) -> _Softmax:
        """Fitted with C = `strength`, beginning at `start` if that is of the same classes."""
        classes = np.unique(labels)
        if len(classes) == 1:
            return cls(classes, np.zeros((1, x.shape[1] + 1)))
        model = LogisticRegression(C=strength, tol=1e-4, max_iter=1000, warm_start=True)
        if start is not None and len(classes) > 2:
            model.coef_, model.intercept_ = start[:, :-1], start[:, -1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, labels)
        found = np.column_stack([model.coef_, model.intercept_])
        # Of two classes scikit-learn keeps one row, their difference.
        return cls(classes, np.vstack([-found, found]) / 2 if len(found) == 1 else found)


def _chosen(x: Floats, labels: Labels, seed: int) -> float:
    """The C of the best accuracy over three stratified folds; of equals, the smallest."""
    right = dict.fromkeys(STRENGTHS, 0)
    if np.unique(labels, return_counts=True)[1].max() < 3:
        return STRENGTHS[2]
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Classes of one or two pictures are missing in some folds.
        warnings.simplefilter("ignore", UserWarning)
        parts = list(folds.split(x, labels))
    for fitted, judged in parts:
        start = None
        for strength in STRENGTHS:
            layer = _Softmax.fitted(x[fitted], labels[fitted], strength, start)
            start = layer.weights
            said = layer.classes[layer(x[judged]).argmax(axis=1)]
            right[strength] += int((said == labels[judged]).sum())
    return max(STRENGTHS, key=lambda strength: (right[strength], -strength))


class _Refitted(Method):
    """What both share: all pictures, and a softmax fitted to them when it is asked."""

    hindsight = True
    keeps = "all features"

    def __init__(self, dimension: int, seed: int, workdir: Path, *, growth: float) -> None:
        super().__init__(dimension, seed, workdir)
        self._memory = Memory(dimension)
        self._growth = growth
        self._strength, self._chosen_at = STRENGTHS[2], 0
        self._layer: _Softmax | None = None

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Keep the pictures, and fit anew."""
        self._memory.add(features, labels)
        self._refit()

    def forget(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Drop the pictures, and fit anew."""
        self._memory.remove(features)
        self._refit()

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """The softmax."""
        if self._layer is None:
            raise NothingLearned(f"{self.title} has learned nothing yet: there is no answer")
        return tuple(self._layer.classes.tolist()), self._layer(unit(features))

    def stored_bytes(self) -> int:
        """All pictures, and the layer."""
        return self._memory.nbytes + held(self._layer.weights if self._layer else None)

    def _refit(self) -> None:
        self._layer = None
        if not len(self._memory):
            return
        x, labels = unit(self._memory.features), self._memory.labels
        if len(x) >= self._growth * self._chosen_at:
            self._strength, self._chosen_at = _chosen(x, labels, self.seed), len(x)
        self._layer = _Softmax.fitted(x, labels, self._strength)


class Logistic(_Refitted):
    """scikit-learn's LogisticRegression on unit features, refitted to everything in each lesson.

    C is chosen from 10 to 1,000 by threefold cross-validation on what has been seen: at the first
    lesson, and again whenever that has doubled, as somebody would who has to wait for it.
    """

    name, title = "logistic", "logistic regression, refitted"
    source = "scikit-learn, LogisticRegression (lbfgs)"

    def __init__(self, dimension: int, seed: int, workdir: Path) -> None:
        super().__init__(dimension, seed, workdir, growth=2.0)


class Joint(_Refitted):
    """The ceiling: softmax training of the last layer on everything seen so far, at each step.

    The convex optimum of the last layer, which training with SGD to convergence tends to; C is
    chosen anew at every step by threefold cross-validation on what has been seen.
    """

    name, title = "joint", "joint training"
    source = "ceiling: multinomial logistic regression on everything, C by cross-validation"

    def __init__(self, dimension: int, seed: int, workdir: Path) -> None:
        super().__init__(dimension, seed, workdir, growth=0.0)
