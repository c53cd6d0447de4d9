"""Methods whose network makes features, and whose classes are answered by the exact head.

The head is the library's own: see `retain.algebra`. It is the same whatever order pictures came in,
and knows nothing of the last layer that the network was trained with.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np

from retain.algebra import (
    Head,
    HeadOptions,
    Statistics,
    base_head,
    quantize,
    tune,
    tuning_sample,
)
from retain.train.augment import Views
from retain.train.data import Data, Pictures
from retain.train.growing import Growing
from retain.train.inference import outputs
from retain.train.lessons import Method, Taught
from retain.train.needs import Later

__all__ = ["Exact", "seen"]

torch: Final = Later("torch", "training a network")


class Exact(Method, ABC):
    """A method that carries ``features`` and ``places``, and scores by the head solved from them.

    Its `after` gives what `seen` gives, of every picture that the head is to count.
    """

    single: ClassVar[frozenset[str]] = frozenset({"features", "places"})

    def scores(self, taught: Taught, pictures: Pictures, views: Views) -> Any:
        """Calibrated logits of the exact head; −∞ for a class of which it saw no picture."""
        said = outputs(taught.model, pictures, views)
        if "head" not in taught.found:
            taught.found["head"] = _head(taught)
        head: Head = taught.found["head"]
        logits = head.logits(quantize(said.features.numpy())[0])
        found = np.full((len(logits), len(taught.model.classes)), -np.inf, np.float32)
        found[:, taught.model.positions(head.classes).numpy()] = logits
        return torch.from_numpy(found)


def seen(model: Growing, data: Data, views: Views) -> Mapping[str, Any]:
    """What a network sees in pictures.

    Returns:
        ``features`` int16 [n, width], at length one in fixed point, and ``places`` int64 [n], the
        positions of their classes.
    """
    said = outputs(model, data.pictures, views)
    features = torch.from_numpy(quantize(said.features.numpy())[0])
    return {"features": features, "places": model.positions(data.labels)}


def _head(taught: Taught) -> Head:
    classes, options = taught.model.classes, HeadOptions()
    features = taught.carried["features"].numpy()
    labels = [classes[place] for place in taught.carried["places"].tolist()]
    statistics = Statistics.of(features, labels)
    members = {str(row): label for row, label in enumerate(labels)}
    sample = [int(row) for row in tuning_sample(members)]
    chosen = tune(statistics, features[sample], [labels[row] for row in sample], options)
    return base_head(statistics, chosen, options)[0]
