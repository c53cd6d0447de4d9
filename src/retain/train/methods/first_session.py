"""First-session adaptation: the backbone learns once; then the head is an exact sum.

Panos 2023 (2303.13199). The head here is this library's own: see `retain.algebra`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from retain.train.growing import Growing
from retain.train.lessons import Lesson, Phase, Phases
from retain.train.methods.exact import Exact, seen
from retain.train.needs import Later
from retain.train.plan import Plan
from retain.train.terms import CrossEntropy
from retain.typed import checked

__all__ = ["FirstSession"]

torch: Final = Later("torch", "training a network")


@final
@dataclass(frozen=True, slots=True)
class FirstSession(Exact):
    """Fine-tuning in the first lesson; later lessons add features to statistics, nothing else.

    Deviations: where the paper adapts by FiLM layers and classifies by a linear discriminant, the
    plan is free and the head is the whitened centred cosine, its shrinkage chosen by leave-one-out,
    for which features are kept beside the sums, in 16 bits. Where the first lesson has one class
    alone, nothing is adapted. Classes that a network brings along have no features, and are never
    answered.

    Attributes:
        plan: what learns in the first lesson, a name among `PRESETS`.
    """

    plan: str = "full"

    def __post_init__(self) -> None:
        checked(self)
        Plan.preset(self.plan)

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
        fresh = seen(model, lesson.fresh, lesson.recipe.views)
        if not lesson.carried:
            return fresh
        return {name: torch.cat([lesson.carried[name], each]) for name, each in fresh.items()}
