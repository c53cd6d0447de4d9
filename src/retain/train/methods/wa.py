"""Weight aligning: the newest rows of the head get the mean length of the older ones.

Zhao 2020 (1911.07053).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

from retain.train.growing import Growing
from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases
from retain.train.needs import Later
from retain.train.terms import CrossEntropy, Distillation, Step, Term
from retain.typed import ABOVE_0, checked

__all__ = ["WA", "NotNegative", "aligned"]

torch: Final = Later("torch", "training a network")


@final
@dataclass(frozen=True, eq=False, slots=True)
class NotNegative(Term):
    """No loss: after each step the weights of the head below zero are set to it (§4.3)."""

    def loss(self, step: Step) -> Any:
        """0."""
        return torch.zeros((), device=step.pictures.device)

    def after_step(self, model: Growing) -> None:
        """Cuts them off."""
        with torch.no_grad():
            for part in model.layer:
                part.weight.clamp_(min=0)


@final
@dataclass(frozen=True, slots=True)
class WA(Method):
    """(1 − λ)·cross-entropy + λ·distillation, λ = n/(n + m) (equation 4), then weights aligned.

    Where no class is new, which the paper does not have, λ is the share of the classes of which
    nothing arrived.

    Attributes:
        temperature: T of equation 3; §5.1 takes 2.
        positive: keep the weights of the head from going below zero in training, as §4.3 does.
            Deviation: off, as in the toolboxes that came after it; features of networks that do not
            end in a ReLU need both signs.
    """

    keeps: ClassVar[Keeps] = "exemplars"
    temperature: float = 2.0
    positive: bool = False

    def __post_init__(self) -> None:
        checked(self, temperature=ABOVE_0)

    def phases(self, lesson: Lesson) -> Phases:
        """The training; the alignment is computed."""
        terms: list[Term] = [CrossEntropy()]
        if lesson.learned:
            past = lesson.past
            terms = [
                CrossEntropy(strength=1 - past),
                Distillation(lesson.before, self.temperature, past),
            ]
        if self.positive:
            terms.append(NotNegative())
        model = yield Phase("train", lesson.rehearsed, terms)
        return aligned(model) if lesson.learned and lesson.new else None


def aligned(model: Growing) -> Growing:
    """A copy whose newest rows are multiplied by the ratio of mean lengths, old to new (eq. 7, 8).

    The biases are as they were.
    """
    twin = model.copy()
    parts = list(twin.layer)
    with torch.no_grad():
        old = torch.cat([part.weight for part in parts[:-1]]).norm(dim=1).mean()
        new = parts[-1].weight.norm(dim=1).mean()
        if float(new) > 0:
            parts[-1].weight.mul_(old / new)
    return twin
