"""First-session adaptation: the backbone learns once; then the head is an exact sum.

Panos 2023 (2303.13199). The head here is this library's own: see `retain.algebra`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

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
from retain.train.data import Pictures
from retain.train.growing import Growing
from retain.train.inference import outputs
from retain.train.lessons import Lesson, Method, Phase, Phases, Taught
from retain.train.needs import Later
from retain.train.plan import Plan
from retain.train.terms import CrossEntropy

__all__ = ["FirstSession"]

torch: Final = Later("torch", "training a network")


@final
@dataclass(frozen=True, slots=True)
class FirstSession(Method):
    """Fine-tuning in the first lesson; later lessons add features to statistics, nothing else.

    Deviations: where the paper adapts by FiLM layers and classifies by a linear discriminant, the
    plan is free and the head is the whitened centred cosine, its shrinkage chosen by leave-one-out,
    for which features are kept beside the sums, in 16 bits. Where the first lesson has one class
    alone, nothing is adapted. Classes that a network brings along have no features, and are never
    answered.

    Attributes:
        plan: what learns in the first lesson, a name among `PRESETS`.
    """

    single: ClassVar[frozenset[str]] = frozenset({"features", "places"})
    plan: str = "full"

    def reach(self, *, lessons: int, known: bool) -> Plan:
        """As its option says."""
        return Plan.preset(self.plan)

    def phases(self, lesson: Lesson) -> Phases:
        """One phase in the first lesson, none later."""
        if not lesson.before.classes:
            plan = self.reach(lessons=lesson.number, known=False)
            yield Phase("train", lesson.fresh, [CrossEntropy()], plan)
        return None

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """Features in fixed point, and the positions of their classes."""
        said = outputs(model, lesson.fresh.pictures, lesson.recipe.views)
        features = torch.from_numpy(quantize(said.features.numpy())[0])
        places = model.positions(lesson.fresh.labels)
        if lesson.carried:
            features = torch.cat([lesson.carried["features"], features])
            places = torch.cat([lesson.carried["places"], places])
        return {"features": features, "places": places}

    def scores(self, taught: Taught, pictures: Pictures, views: Views) -> Any:
        """Calibrated logits of the exact head."""
        said = outputs(taught.model, pictures, views)
        classes = taught.model.classes
        if "head" not in taught.found:
            taught.found["head"] = self._head(taught)
        head: Head = taught.found["head"]
        logits = head.logits(quantize(said.features.numpy())[0])
        result = np.full((len(logits), len(classes)), -np.inf, np.float32)
        result[:, [classes.index(name) for name in head.classes]] = logits
        return torch.from_numpy(result)

    def _head(self, taught: Taught) -> Head:
        classes, options = taught.model.classes, HeadOptions()
        features = taught.carried["features"].numpy()
        labels = [classes[place] for place in taught.carried["places"].tolist()]
        statistics = Statistics.of(features, labels)
        members = {str(row): label for row, label in enumerate(labels)}
        sample = [int(row) for row in tuning_sample(members)]
        chosen = tune(statistics, features[sample], [labels[row] for row in sample], options)
        return base_head(statistics, chosen, options)[0]
