"""Experience replay: in every step as many kept pictures as new ones.

Chaudhry 2019 (1902.10486), algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases
from retain.train.replay import beside
from retain.train.terms import CrossEntropy

__all__ = ["ER"]


@final
@dataclass(frozen=True, slots=True)
class ER(Method):
    """Cross-entropy over all classes, on a batch of new pictures and another of exemplars.

    Deviations: the two batches are shuffled into one of twice the size, which has about as many of
    either; the memory is gone through, from one epoch to the next where it is larger than the
    lesson, instead of drawn from at every step; the memory chooses at the end of a lesson, not
    picture by picture, and by its own rule (the paper's reservoir is ``Memory(choice="random")``).
    """

    keeps: ClassVar[Keeps] = "exemplars"

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        seed = lesson.seed("beside")
        data, _, recipe = beside(lesson.fresh, lesson.exemplars, lesson.recipe, seed)
        yield Phase("train", data, [CrossEntropy()], recipe=recipe)
        return None
