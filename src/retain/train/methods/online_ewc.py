"""Online elastic weight consolidation: older importance fades with each lesson.

Schwarz 2018 (1805.06370), §2.2, equation 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from retain.train.growing import Growing
from retain.train.importance import Labels
from retain.train.lessons import Lesson, Phases
from retain.train.methods.ewc import EWC
from retain.train.methods.rehearsing import Holding

__all__ = ["OnlineEWC"]


@final
@dataclass(frozen=True, slots=True)
class OnlineEWC(Holding):
    """`EWC` with one Fisher information, of which γ is left after each lesson.

    Deviation: the information of a lesson is not brought to a common scale before it is added.

    Attributes:
        strength: λ, as in `EWC`.
        decay: γ < 1. The paper chooses it for each experiment; 0.95 is ours.
        labels: see `EWC`.
        pictures: see `EWC`.
        exemplars: see `Rehearsing`.
    """

    strength: float = 50.0
    decay: float = 0.95
    labels: Labels = "sampled"
    pictures: int | None = 1000
    exemplars: bool = False

    def __post_init__(self) -> None:
        self._whole()

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        return self._whole().phases(lesson)

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """The importance of all weights, older lessons' less."""
        return self._whole().after(lesson, model)

    def _whole(self) -> EWC:
        return EWC(self.strength, self.decay, self.labels, self.pictures, self.exemplars)
