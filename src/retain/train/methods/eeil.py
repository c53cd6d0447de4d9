"""End-to-end incremental learning: distil each old head, then fine-tune on a balanced set.

Castro 2018 (1807.09536).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases
from retain.train.processes import at_work
from retain.train.terms import CrossEntropy, Distillation
from retain.typed import ABOVE_0, FROM_0, checked

__all__ = ["EEIL"]


@final
@dataclass(frozen=True, slots=True)
class EEIL(Method):
    """Cross-entropy over all classes, and distillation of every old head (equation 1).

    Then all classes have as many pictures as the memory keeps of each, each class is seen equally
    often, and every head is distilled from the network that the first phase made, the newest
    included (§4.3). Deviations: no noise on the gradient (§5.1, η = 0.3, γ = 0.55), and its
    augmentation and schedule only where the recipe has them.

    Attributes:
        temperature: T of equation 3; §4.2 takes 2.
        strength: of the distillation; equation 1 has 1.
        balanced_epochs: of the balanced phase, as a share of the recipe's; §5.1 has 30 after 40.
        balanced_rate: its learning rate, as a share of the recipe's; §5.1 has 0.01 after 0.1.
    """

    keeps: ClassVar[Keeps] = "exemplars"
    temperature: float = 2.0
    strength: float = 1.0
    balanced_epochs: float = 0.75
    balanced_rate: float = 0.1

    def __post_init__(self) -> None:
        checked(
            self,
            temperature=ABOVE_0,
            strength=FROM_0,
            balanced_epochs=ABOVE_0,
            balanced_rate=ABOVE_0,
        )

    def phases(self, lesson: Lesson) -> Phases:
        """The unbalanced phase and, after the first lesson, the balanced one."""
        if not lesson.learned:
            yield Phase("train", lesson.rehearsed, [CrossEntropy()])
            return None
        old = Distillation(lesson.before, self.temperature, self.strength, groups=True)
        model = yield Phase("train", lesson.rehearsed, [CrossEntropy(), old])
        with at_work(model, lesson.recipe):
            balanced = lesson.within_budget(model, "balanced")
        if not len(balanced):
            return None
        every = Distillation(model.frozen(), self.temperature, self.strength, groups=True)
        recipe = replace(
            lesson.recipe,
            epochs=max(1, round(self.balanced_epochs * lesson.recipe.epochs)),
            rate=self.balanced_rate * lesson.recipe.rate,
            sampling="balanced",
            patience=None,
        )
        yield Phase("balanced", balanced, [CrossEntropy(), every], recipe=recipe)
        return None
