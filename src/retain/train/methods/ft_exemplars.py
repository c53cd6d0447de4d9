"""Fine-tuning with exemplars: learn what arrives and what was kept, all classes competing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases
from retain.train.terms import CrossEntropy

__all__ = ["FineTuningExemplars"]


@final
@dataclass(frozen=True, slots=True)
class FineTuningExemplars(Method):
    """Cross-entropy over all classes, on new pictures and exemplars (FT-E in Masana 2020, §6.2)."""

    keeps: ClassVar[Keeps] = "exemplars"

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        yield Phase("train", lesson.rehearsed, [CrossEntropy()])
        return None
