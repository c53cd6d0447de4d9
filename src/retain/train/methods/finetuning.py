"""Fine-tuning: learn what arrives, and nothing against forgetting; the lower end of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from retain.train.lessons import Lesson, Method, Phase, Phases
from retain.train.plan import Plan
from retain.train.terms import CrossEntropy
from retain.typed import checked

__all__ = ["FineTuning"]


@final
@dataclass(frozen=True, slots=True)
class FineTuning(Method):
    """Cross-entropy on the pictures that arrive (FT in Masana 2020).

    Attributes:
        over: the classes that compete: ``"present"`` in the pictures, as Masana's toolbox has it
            where nothing is kept, or ``"all"`` that are known, which pushes old ones down.
    """

    over: Literal["present", "all"] = "present"

    def __post_init__(self) -> None:
        checked(self)

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        among = lesson.competing(lesson.fresh) if self.over == "present" else lesson.model.classes
        plan = lesson.sealed(Plan()) if self.over == "present" else Plan()
        yield Phase("train", lesson.fresh, [CrossEntropy(among)], plan)
        return None
