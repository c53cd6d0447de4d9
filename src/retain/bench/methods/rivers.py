"""River's softmax regression."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retain.bench.methods.base import Labels, Method, Roster, Scores, probabilities, unit
from retain.errors import MissingExtra

__all__ = ["RiverSoftmax"]


class RiverSoftmax(Method):
    """River's SoftmaxRegression, one picture at a time, as a stream is learned with River.

    Its optimiser is SGD, and `rate` its learning rate, by default River's own. Learning is River's
    code, with unit features as dictionaries.

    Deviations: answers are computed from its weights in one matrix product, which gives what its
    `predict_proba_one` gives one by one, in a thousandth of the time.
    """

    name, title = "river", "River, softmax regression"
    source = "River, linear_model.SoftmaxRegression"
    keeps = "the layer"

    def __init__(self, dimension: int, seed: int, workdir: Path, *, rate: float = 0.01) -> None:
        super().__init__(dimension, seed, workdir)
        try:
            linear_model = import_module("river.linear_model")
            optim = import_module("river.optim")
        except ImportError as error:
            raise MissingExtra.of("the method 'river'", "bench") from error
        self._model: Any = linear_model.SoftmaxRegression(optim.SGD(rate))
        self._roster = Roster()

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """One picture after another."""
        self._roster.enter(labels)
        for row, label in zip(unit(features).tolist(), labels.tolist(), strict=True):
            self._model.learn_one(dict(enumerate(row)), label)

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """Its softmax."""
        classes = self._roster.asked(self.title)
        weights = np.zeros((self.dimension, len(classes)))
        for position, label in enumerate(classes):
            for index, value in self._model.weights[label].items():
                weights[index, position] = value
        return classes, probabilities(unit(features) @ weights)

    def stored_bytes(self) -> int:
        """Its weights as numbers of eight bytes; the dictionaries take about ten times that."""
        return 8 * sum(len(row) for row in self._model.weights.values())
