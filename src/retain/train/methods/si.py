"""Synaptic intelligence, or path integral: weights that did much for the loss are held.

Zenke, Poole and Ganguli 2017 (1703.04200).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from retain.train.growing import Growing
from retain.train.lessons import Lesson, Phase, Phases
from retain.train.methods.rehearsing import Holding
from retain.train.paths import PathIntegral, penalty
from retain.train.terms import CrossEntropy
from retain.typed import ABOVE_0, FROM_0, checked

__all__ = ["SI"]


@final
@dataclass(frozen=True, slots=True)
class SI(Holding):
    """Cross-entropy over what arrives, and c·Σ Ω (θ − θ*)² (equation 4).

    Ω adds up ω/(Δ² + ξ) of each lesson (equation 5): ω is the path integral of the task's gradient,
    Δ how far the weight came. Deviations: an Ω below zero counts as zero, as it would reward going
    away; Ω is cut where a step would overshoot (see `penalty`); one head grows instead of one for
    each task, so that only the classes that arrive compete while it learns.

    Attributes:
        strength: c of equation 4; 0.1, found for permuted MNIST in §5.2, as in Masana 2020.
        damping: ξ of equation 5; 0.1, likewise; 0.001 for split MNIST (§5.1).
        exemplars: see `Rehearsing`.
    """

    strength: float = 0.1
    damping: float = 0.1
    exemplars: bool = False

    def __post_init__(self) -> None:
        checked(self, strength=FROM_0, damping=ABOVE_0)

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        data, among, plan = self.material(lesson)
        pull = None
        if lesson.learned and lesson.carried:
            held = self.held(lesson, lesson.carried)
            strength = 2 * self.strength
            pull = penalty(lesson.before, held, strength, lesson.recipe, lesson.rates)
        path = PathIntegral(pull, whole=True)
        yield Phase("train", data, [CrossEntropy(among), path], plan)
        lesson.left["path"] = {
            name: (each.cpu(), path.begun[name].cpu()) for name, each in path.totals.items()
        }
        return None

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """Ω of all weights so far."""
        result = dict(lesson.carried)
        new = dict(model.module.named_parameters())
        for name, (gain, begun) in lesson.left.get("path", {}).items():
            moved = new[name].detach().cpu() - begun
            found = (gain / (moved.square() + self.damping)).clamp(min=0)
            result[name] = result[name] + found if name in result else found
        return result
