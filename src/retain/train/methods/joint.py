"""Joint training: everything is kept and learned at once; the upper end of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases
from retain.train.plan import Plan
from retain.train.terms import CrossEntropy
from retain.typed import SHARE, checked

__all__ = ["Joint"]


@final
@dataclass(frozen=True, slots=True)
class Joint(Method):
    """Cross-entropy on all pictures of all lessons, from the weights of the lesson before.

    A network that goes on comes to know the older pictures by heart, and may generalise worse than
    one that begins anew (Ash and Adams 2020, 1910.08475, §2). With a `shrink` of 0.5 lessons begin
    with half of what was learned and half new random weights, which was better after five lessons
    and worse after two (docs/log.md). Pretrained weights would be lost by it.

    Attributes:
        shrink: the share of what was learned that lessons after the first begin with, see `Plan`.
    """

    keeps: ClassVar[Keeps] = "everything"
    shrink: float = 1.0

    def __post_init__(self) -> None:
        checked(self, shrink=SHARE)

    def reach(self, *, lessons: int, known: bool) -> Plan:
        """Everything."""
        return Plan(shrink=self.shrink if lessons else 1.0)

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        plan = self.reach(lessons=lesson.number, known=lesson.learned)
        yield Phase("train", lesson.rehearsed, [CrossEntropy()], plan)
        return None
