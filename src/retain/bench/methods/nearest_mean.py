"""The nearest class mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retain.bench.methods.base import Labels, Method, Roster, Scores, held, probabilities, unit

__all__ = ["NearestMean"]


class NearestMean(Method):
    """Nearest class mean (Mensink 2013), as iCaRL uses it: unit features, means of length one.

    Source: Rebuffi 2017, arXiv:1611.07725, algorithm 1 and section 4 ("all feature vectors are
    L2-normalized, and the results of any operation on feature vectors, e.g. averages, are also
    re-normalized"). Mensink's probabilities are the softmax of −½ ‖x − μ_c‖² (eq. 5, 6) in a metric
    that is learned with them; without it they rank alike but say nothing of confidence.

    Deviations: the means are those of all pictures, not of exemplars.
    """

    name, title = "nearest-mean", "nearest class mean"
    source = "Mensink 2013, TPAMI 35(11); Rebuffi 2017, arXiv:1611.07725"
    calibrated = False

    def __init__(self, dimension: int, seed: int, workdir: Path) -> None:
        super().__init__(dimension, seed, workdir)
        self._roster = Roster()
        self._sums = np.zeros((0, dimension))
        self._counts = np.zeros(0)

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Add to the sums of the classes."""
        where = self._roster.enter(labels)
        fresh = len(self._roster) - len(self._sums)
        self._sums = np.vstack([self._sums, np.zeros((fresh, self.dimension))])
        self._counts = np.concatenate([self._counts, np.zeros(fresh)])
        np.add.at(self._sums, where, unit(features))
        np.add.at(self._counts, where, 1)

    def forget(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Subtract from the sums, exactly up to rounding."""
        where = self._roster.known(labels)
        np.subtract.at(self._sums, where, unit(features))
        np.subtract.at(self._counts, where, 1)

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """Softmax of −½ the squared distance; a class that was forgotten is left out."""
        classes = self._roster.asked(self.title)
        left = self._counts > 0
        means = unit(self._sums[left])
        found = probabilities(unit(features) @ means.T)
        return tuple(c for c, kept in zip(classes, left, strict=True) if kept), found

    def stored_bytes(self) -> int:
        """Sums and counts."""
        return held(self._sums, self._counts, classes=self._roster.classes)
