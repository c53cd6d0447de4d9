"""What everybody has installed: scikit-learn's classifiers."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import SGDClassifier
from sklearn.neighbors import NearestNeighbors

from retain.bench.methods.base import (
    Floats,
    Labels,
    Memory,
    Method,
    Roster,
    Scores,
    Unsupported,
    held,
    unit,
)
from retain.errors import NothingLearned

__all__ = ["Neighbours", "PartialFit", "RefittedLDA"]

_NEIGHBOURS = (1, 3, 5, 10, 20)


class PartialFit(Method):
    """scikit-learn's SGDClassifier with logistic loss and `partial_fit`, on unit features.

    `passes` shuffled passes over each lesson; α = 1e-4 and the learning rate "optimal", its
    defaults. Probabilities are scikit-learn's: one-against-rest, normalised.

    Deviations: `partial_fit` wants all classes in its first call. Telling it would be telling the
    future, so the layer grows instead: a new class begins with a row of zeros, and the others
    keep theirs. Two classes that do not exist hold the place of the rest while there are fewer
    than three; one-against-rest rows do not see each other.
    """

    name, title = "sgd", "SGDClassifier.partial_fit"
    source = "scikit-learn, SGDClassifier(loss='log_loss')"
    keeps = "the layer"

    def __init__(self, dimension: int, seed: int, workdir: Path, *, passes: int = 10) -> None:
        super().__init__(dimension, seed, workdir)
        self._passes = passes
        self._random = np.random.default_rng(seed)
        self._roster = Roster()
        self._model: SGDClassifier | None = None

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Pass over the lesson."""
        x, where = unit(features), self._roster.enter(labels)
        model = self._grown(max(len(self._roster), 1) + 2)
        for _ in range(self._passes):
            order = self._random.permutation(len(x))
            model.partial_fit(x[order], where[order])

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """One-against-rest probabilities, normalised."""
        classes = self._roster.asked(self.title)
        assert self._model is not None
        found = self._model.predict_proba(unit(features))[:, : len(classes)]
        sums = found.sum(axis=1, keepdims=True)
        even = np.full_like(found, 1 / len(classes))
        return classes, np.divide(found, sums, out=even, where=sums > 0)

    def stored_bytes(self) -> int:
        """The layer."""
        assert self._model is not None
        return held(self._model.coef_, self._model.intercept_, classes=self._roster.classes)

    def _grown(self, count: int) -> SGDClassifier:
        before = self._model
        if before is not None and len(before.classes_) == count:
            return before
        model = SGDClassifier(loss="log_loss", random_state=self.seed, shuffle=False)
        model.classes_ = np.arange(count)
        model.n_features_in_ = self.dimension
        model.coef_ = np.zeros((count, self.dimension))
        model.intercept_ = np.zeros(count)
        model.t_ = 1.0
        if before is not None:
            known = len(before.classes_) - 2
            model.coef_[:known] = before.coef_[:known]
            model.intercept_[:known] = before.intercept_[:known]
            model.t_ = before.t_
        self._model = model
        return model


class RefittedLDA(Method):
    """scikit-learn's LinearDiscriminantAnalysis, refitted to everything in each lesson.

    Solver "lsqr", shrinkage "auto" (Ledoit & Wolf 2004, of each class on its own), priors as the
    classes were taught, unit features.
    """

    name, title = "lda", "LinearDiscriminantAnalysis, refitted"
    source = "scikit-learn, LinearDiscriminantAnalysis(solver='lsqr', shrinkage='auto')"
    hindsight = True
    keeps = "all features"

    def __init__(self, dimension: int, seed: int, workdir: Path) -> None:
        super().__init__(dimension, seed, workdir)
        self._memory = Memory(dimension)
        self._model: LinearDiscriminantAnalysis | None = None

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Keep the pictures, and fit anew."""
        self._memory.add(features, labels)
        self._refit()

    def forget(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Drop the pictures, and fit anew."""
        self._memory.remove(features)
        self._refit()

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """Its probabilities."""
        if not len(self._memory):
            raise NothingLearned(f"{self.title} has learned nothing yet: there is no answer")
        if self._model is None:
            return (str(self._memory.labels[0]),), np.ones((len(features), 1))
        return tuple(self._model.classes_.tolist()), self._model.predict_proba(unit(features))

    def stored_bytes(self) -> int:
        """All pictures, and the layer."""
        return self._memory.nbytes + held(self._model.coef_ if self._model else None)

    def _refit(self) -> None:
        labels = self._memory.labels
        count = len(set(labels.tolist()))
        self._model = None
        if count < 2:
            return
        if len(labels) <= count:
            raise Unsupported(f"{self.title} needs more pictures than classes, not {len(labels)}")
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        with warnings.catch_warnings():
            # A class of one picture has no covariance; Ledoit and Wolf's is then zero.
            warnings.simplefilter("ignore")
            self._model = model.fit(unit(self._memory.features), labels)


class Neighbours(Method):
    """The k nearest neighbours by cosine, weighted by inverse distance.

    k is the best of 1, 3, 5, 10 and 20 by leave-one-out on what has been seen, anew in each lesson;
    of equals the smallest. Probabilities are shares of the votes, as scikit-learn's.
    """

    name, title = "knn", "k nearest neighbours"
    source = "scikit-learn, NearestNeighbors(metric='cosine')"
    hindsight = True
    keeps = "all features"

    def __init__(self, dimension: int, seed: int, workdir: Path) -> None:
        super().__init__(dimension, seed, workdir)
        self._memory = Memory(dimension)
        self._index: NearestNeighbors | None = None
        self._classes: Labels = np.array([], np.str_)
        self._where = np.zeros(0, np.intp)
        self._k = 1

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Keep the pictures, and choose k."""
        self._memory.add(features, labels)
        self._refit()

    def forget(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Drop the pictures, and choose k."""
        self._memory.remove(features)
        self._refit()

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """Shares of the votes."""
        if self._index is None:
            raise NothingLearned(f"{self.title} has learned nothing yet: there is no answer")
        distances, near = self._index.kneighbors(unit(features), n_neighbors=self._k)
        return tuple(self._classes.tolist()), self._votes(distances, near)

    def stored_bytes(self) -> int:
        """All pictures."""
        return self._memory.nbytes

    def _refit(self) -> None:
        self._index, self._k = None, 1
        if not len(self._memory):
            return
        self._classes, self._where = np.unique(self._memory.labels, return_inverse=True)
        self._index = NearestNeighbors(metric="cosine", algorithm="brute")
        self._index.fit(unit(self._memory.features))
        most = min(max(_NEIGHBOURS), len(self._memory) - 1)
        if most < 1:
            return
        distances, near = self._index.kneighbors(n_neighbors=most)
        right = {
            k: (self._votes(distances[:, :k], near[:, :k]).argmax(axis=1) == self._where).sum()
            for k in _NEIGHBOURS
            if k <= most
        }
        self._k = max(right, key=lambda k: (right[k], -k))

    def _votes(self, distances: Floats, near: NDArray[np.intp]) -> Floats:
        weights = 1 / np.maximum(distances, 1e-12)
        found = np.zeros((len(near), len(self._classes)))
        np.add.at(found, (np.arange(len(near))[:, None], self._where[near]), weights)
        shares: Floats = found / found.sum(axis=1, keepdims=True)
        return shares
