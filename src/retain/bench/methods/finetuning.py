"""The floor: the last layer trained on what is new, and on nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retain.bench.methods.base import Labels, Method, Roster, Scores, held, probabilities, unit
from retain.bench.methods.ridge import one_hot

__all__ = ["FineTuning"]


class FineTuning(Method):
    """Softmax training of the last layer with SGD, on each lesson alone.

    "Fine-tuning" of Masana 2020 (arXiv:2010.15277, section 5) with a frozen backbone: all classes
    seen so far are in the softmax, nothing keeps the old ones. Momentum 0.9 and 50 passes in
    batches of 32; the learning rate, 1, suits features of length one, of which a layer needs
    large weights.
    """

    name, title = "finetuning", "fine-tuning of the last layer"
    source = "floor: softmax regression by SGD on the new pictures only"
    keeps = "the layer"

    def __init__(
        self,
        dimension: int,
        seed: int,
        workdir: Path,
        *,
        rate: float = 1.0,
        passes: int = 50,
        batch: int = 32,
    ) -> None:
        super().__init__(dimension, seed, workdir)
        self._rate, self._passes, self._batch = rate, passes, batch
        self._random = np.random.default_rng(seed)
        self._roster = Roster()
        self._weights = np.zeros((dimension + 1, 0))

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Train on the lesson; new classes begin at zero."""
        where = self._roster.enter(labels)
        x, targets = _with_one(features), one_hot(where, len(self._roster))
        fresh = np.zeros((len(self._weights), len(self._roster) - self._weights.shape[1]))
        self._weights = np.hstack([self._weights, fresh])
        speed = np.zeros_like(self._weights)
        for _ in range(self._passes):
            order = self._random.permutation(len(x))
            for start in range(0, len(x), self._batch):
                rows = order[start : start + self._batch]
                missed = probabilities(x[rows] @ self._weights) - targets[rows]
                speed = 0.9 * speed - self._rate / len(rows) * (x[rows].T @ missed)
                self._weights += speed

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """The softmax."""
        classes = self._roster.asked(self.title)
        return classes, probabilities(_with_one(features) @ self._weights)

    def stored_bytes(self) -> int:
        """The layer."""
        return held(self._weights, classes=self._roster.classes)


def _with_one(features: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.column_stack([unit(features), np.ones(len(features))])
