"""Learning without forgetting: the new pictures must say of the old classes what they said before.

Li and Hoiem 2016 (1606.09282).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from retain.train.lessons import Lesson, Method, Phase, Phases
from retain.train.plan import Plan
from retain.train.terms import CrossEntropy, Distillation, Term

__all__ = ["LwF"]


@final
@dataclass(frozen=True, slots=True)
class LwF(Method):
    """Cross-entropy over what arrives, and distillation of every older lesson's classes.

    Attributes:
        temperature: T of equation 3; §3 takes 2.
        strength: λ_o of figure 3; §3 takes 1. Our term is the Kullback-Leibler divergence, whose
            gradient is that of their cross-entropy.
        warm_up: epochs in which the new head learns alone first, as §3 does "until convergence";
            0 here, as in Masana 2020, whose gain from it is small.
    """

    temperature: float = 2.0
    strength: float = 1.0
    warm_up: int = 0

    def phases(self, lesson: Lesson) -> Phases:
        """The warm-up, if there is one, and the training of everything."""
        among = lesson.competing(lesson.fresh)
        terms: list[Term] = [CrossEntropy(among)]
        if lesson.before.classes and self.warm_up:
            recipe = replace(lesson.recipe, epochs=self.warm_up, patience=None)
            plan = lesson.sealed(Plan.preset("head"), among)
            yield Phase("warm-up", lesson.fresh, terms, plan, recipe)
        yield Phase("train", lesson.fresh, [*terms, *self._distilled(lesson)])
        return None

    def _distilled(self, lesson: Lesson) -> Sequence[Term]:
        if not lesson.before.classes:
            return []
        return [Distillation(lesson.before, self.temperature, self.strength, groups=True)]
