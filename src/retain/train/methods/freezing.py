"""Freezing: the first lesson decides the features; later ones learn the head alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from retain.train.lessons import Lesson, Method, Phase, Phases
from retain.train.plan import Plan
from retain.train.terms import CrossEntropy

__all__ = ["Freezing"]


@final
@dataclass(frozen=True, slots=True)
class Freezing(Method):
    """Fine-tuning whose body is frozen, batch normalisation included, after the first lesson.

    The parts of the head that older lessons made are frozen too: no picture of theirs is there. A
    first lesson of a single class trains nothing, so that the next one is the first to decide.
    """

    def reach(self, *, lessons: int, known: bool) -> Plan:
        """Everything first, and then the head."""
        return Plan.preset("head" if known else "full")

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        among = lesson.competing(lesson.fresh)
        plan = self.reach(lessons=lesson.number, known=lesson.learned)
        yield Phase("train", lesson.fresh, [CrossEntropy(among)], lesson.sealed(plan))
        return None
