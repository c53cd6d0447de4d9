"""Elastic weight consolidation: weights that mattered are held where they were.

Kirkpatrick 2017 (1612.00796); online: Schwarz 2018 (1805.06370), §2.2; one penalty about the last
weights instead of one for each lesson: Huszár 2018 (1712.03847).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from retain.train.growing import Growing
from retain.train.importance import Labels, fisher
from retain.train.lessons import Lesson, Phase, Phases
from retain.train.methods.rehearsing import Holding
from retain.train.paths import penalty, refuse_adapters
from retain.train.terms import CrossEntropy, Term
from retain.typed import FROM_0, FROM_1, SHARE, checked

__all__ = ["EWC"]


@final
@dataclass(frozen=True, slots=True)
class EWC(Holding):
    """Cross-entropy over what arrives, and a quadratic penalty weighted by Fisher information.

    Deviations: one penalty about the last weights (Huszár), not one for each lesson; importance is
    cut where a step would overshoot (see `penalty`); one head grows, and only the classes that
    arrive compete while it learns, where the paper's tasks share all their classes; the likelihood
    that is measured is that of all known classes all the same, as in Masana 2020's toolbox.

    Attributes:
        strength: λ of equation 3. It has no value that fits every network; 50 and 500 were best of
            5 to 5,000 on pictures kept out of the training (docs/log.md). Masana 2020's toolbox has
            5,000, for squares of a batch's mean gradient, which are much smaller.
        decay: γ, what the older importance is multiplied by with each lesson: 1 adds them up
            (Huszár), less forgets slowly (online EWC, where it is below 1).
        labels: the likelihood whose Fisher information is meant; see `Labels`.
        pictures: how many of a lesson it is measured on; None for all. 1,000 is ours.
        exemplars: see `Rehearsing`.
    """

    strength: float = 50.0
    decay: float = 1.0
    labels: Labels = "sampled"
    pictures: int | None = 1000
    exemplars: bool = False

    def __post_init__(self) -> None:
        checked(self, strength=FROM_0, decay=SHARE, pictures=FROM_1)

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        refuse_adapters(lesson.plan)
        data, among, plan = self.material(lesson)
        terms: list[Term] = [CrossEntropy(among)]
        if lesson.learned and lesson.carried:
            held = self.held(lesson, lesson.carried)
            terms.append(penalty(lesson.before, held, self.strength, lesson.recipe, lesson.rates))
        yield Phase("train", data, terms, plan)
        return None

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """The importance of all weights so far."""
        if len(model.classes) < 2:  # nothing was trained
            return lesson.carried
        found = fisher(
            model,
            lesson.fresh,
            lesson.recipe.views,
            labels=self.labels,
            most=self.pictures,
            seed=lesson.seed("importance"),
        )
        for name, older in lesson.carried.items():
            found[name] = found[name] + self.decay * older.to(found[name].device)
        return found
