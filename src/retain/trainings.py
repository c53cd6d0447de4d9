"""What a training measured, epoch by epoch, for people to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Training", "TrainingEpoch", "TrainingPhase"]


@dataclass(frozen=True, slots=True)
class TrainingEpoch:
    """One time through the pictures.

    Attributes:
        epoch: from 1 on, in its phase.
        loss: the mean over its pictures, while the network changed.
        terms: the parts of the loss, by the names of the terms.
        accuracy: on its pictures as they were seen, augmented and mixed, 0 to 1.
        rate: the learning rate at its end, before a plan's factors.
        validation_loss: on pictures held out to tell when it is enough; None where there were none.
        validation_accuracy: the same, 0 to 1.
    """

    epoch: int
    loss: float
    terms: Mapping[str, float]
    accuracy: float
    rate: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingPhase:
    """One run of training: the only one, or a phase of a class-incremental method."""

    name: str
    epochs: tuple[TrainingEpoch, ...]


@dataclass(frozen=True, slots=True)
class Training:
    """How an extractor was trained.

    Attributes:
        pictures: how many were learned from.
        held_out: how many were put aside to judge.
        seconds: of the epochs together, of all sittings.
        method: the class-incremental one, if it was by one.
        lesson: the number of its lesson, from 1 on.
        exemplars: how many old pictures were there to learn again.
        phases: in their order; empty where the epochs were not kept, as before retain kept them, or
            nothing was trained.
    """

    pictures: int
    held_out: int
    seconds: float
    method: str | None = None
    lesson: int | None = None
    exemplars: int = 0
    phases: tuple[TrainingPhase, ...] = field(default=())

    @property
    def epochs(self) -> tuple[TrainingEpoch, ...]:
        """The epochs of all phases, in their order."""
        return tuple(each for phase in self.phases for each in phase.epochs)
