"""Joint training: everything is kept and learned at once; the upper end of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases
from retain.train.terms import CrossEntropy

__all__ = ["Joint"]


@final
@dataclass(frozen=True, slots=True)
class Joint(Method):
    """Cross-entropy on all pictures of all lessons, from the weights of the lesson before."""

    keeps: ClassVar[Keeps] = "everything"

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        yield Phase("train", lesson.rehearsed, [CrossEntropy()])
        return None
