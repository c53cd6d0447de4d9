"""Learning without forgetting: the new pictures must say of the old classes what they said before.

Li and Hoiem 2016 (1606.09282).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from retain.train.lessons import Lesson, Phase, Phases
from retain.train.methods.rehearsing import Rehearsing
from retain.train.plan import Plan
from retain.train.terms import CrossEntropy, Distillation, Term
from retain.typed import ABOVE_0, FROM_0, checked

__all__ = ["LwF"]


@final
@dataclass(frozen=True, slots=True)
class LwF(Rehearsing):
    """Cross-entropy over what arrives, and distillation of every older lesson's classes.

    Attributes:
        temperature: T of equation 3; §3 takes 2.
        strength: λ_o of figure 3; §3 takes 1. Our term is the Kullback-Leibler divergence, whose
            gradient is that of their cross-entropy.
        warm_up: epochs in which the new head learns alone first, as §3 does "until convergence";
            0 here, as in Masana 2020, whose gain from it is small.
        exemplars: see `Rehearsing`.
        groups: each older lesson's classes have a softmax of their own, as in equation 3; False
            for one over all of them, as in Masana 2020's toolbox. On one order of tuning pictures
            (docs/log.md) the latter was no better.
    """

    temperature: float = 2.0
    strength: float = 1.0
    warm_up: int = 0
    exemplars: bool = False
    groups: bool = True

    def __post_init__(self) -> None:
        checked(self, temperature=ABOVE_0, strength=FROM_0, warm_up=FROM_0)

    def phases(self, lesson: Lesson) -> Phases:
        """The warm-up, if there is one, and the training of everything."""
        data, among, _ = self.material(lesson)
        terms: list[Term] = [CrossEntropy(among)]
        if lesson.learned and self.warm_up:
            recipe = replace(lesson.recipe, epochs=self.warm_up, patience=None)
            plan = lesson.sealed(Plan.preset("head"))
            yield Phase("warm-up", data, terms, plan, recipe)
        yield Phase("train", data, [*terms, *self._distilled(lesson)])
        return None

    def _distilled(self, lesson: Lesson) -> Sequence[Term]:
        if not lesson.learned:
            return []
        return [Distillation(lesson.before, self.temperature, self.strength, self.groups)]
