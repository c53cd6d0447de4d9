"""GDumb: keep a balanced sample, and learn from it alone, from the start, whenever asked.

Prabhu 2020 (ECCV), "GDumb: a simple approach that questions our progress in continual learning".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, final

from retain.train.data import Data
from retain.train.growing import Growing
from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases
from retain.train.needs import Later
from retain.train.plan import Plan
from retain.train.rehearsal import kept
from retain.train.terms import CrossEntropy
from retain.typed import FROM_0, checked

__all__ = ["GDumb"]

torch: Final = Later("torch", "training a network")


@final
@dataclass(frozen=True, slots=True)
class GDumb(Method):
    """A greedy balanced sampler, and cross-entropy on what it holds, from fresh weights (§3).

    Deviations: it learns after each lesson, not only after the last; schedule and passes are the
    recipe's (§4: 0.05 to 0.0005 by cosine with restarts, 16 pictures a batch, 256 passes).

    Attributes:
        begin: ``"fresh"`` weights at each lesson, as in §3, or the ``"given"`` ones that the first
            lesson began with, which suits pretrained ones; these are then kept as well.
        cutmix: α of CutMix; §4 has 1 for half of the batches. Deviation: 0, which leaves the
            recipe's augmentation as it is; otherwise all batches are mixed.
    """

    keeps: ClassVar[Keeps] = "exemplars"
    begin: Literal["fresh", "given"] = "fresh"
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        checked(self, cutmix=FROM_0)

    def reach(self, *, lessons: int, known: bool) -> Plan:
        """Everything, from fresh weights or from given ones with a fresh head."""
        fresh = self.begin == "fresh"
        return Plan.preset("from-scratch") if fresh else Plan(head="re-initialised")

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        start = lesson.model
        plan = self.reach(lessons=lesson.number, known=lesson.learned)
        if self.begin == "given" and lesson.carried:
            start = lesson.model.copy()
            start.module.load_state_dict(lesson.carried, strict=False)
        recipe = lesson.recipe
        if self.cutmix:
            recipe = replace(recipe, augment=replace(recipe.augment, cutmix=self.cutmix))
        yield Phase("train", self._sample(lesson), [CrossEntropy()], plan, recipe, start)
        return None

    def keep(self, lesson: Lesson, model: Growing) -> Data:
        """What it learned from."""
        return self._sample(lesson)

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """The weights of the beginning, where they are wanted again."""
        if lesson.carried or self.begin == "fresh":
            return lesson.carried
        state = lesson.before.module.state_dict()
        return {name: each.clone() for name, each in state.items()}

    def _sample(self, lesson: Lesson) -> Data:
        memory, seed = lesson.memory, lesson.seed("sample")
        views = lesson.recipe.views
        old, fresh = lesson.exemplars, lesson.fresh
        return kept(lesson.model, old, fresh, memory.budget, "random", views=views, seed=seed)
