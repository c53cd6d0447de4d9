"""Memory aware synapses: weights on which the answers depend are held; no labels are needed.

Aljundi 2018 (1711.09601).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from retain.train.growing import Growing
from retain.train.importance import gathered
from retain.train.lessons import Lesson, Phase, Phases
from retain.train.methods.rehearsing import Holding
from retain.train.needs import Later
from retain.train.paths import penalty, refuse_adapters
from retain.train.terms import CrossEntropy, Term
from retain.typed import FROM_0, FROM_1, SHARE, checked

__all__ = ["MAS"]

torch = Later("torch", "training a network")


@final
@dataclass(frozen=True, slots=True)
class MAS(Holding):
    """Cross-entropy over what arrives, and λ·Σ Ω (θ − θ*)² (equation 3).

    Ω is the mean over pictures of |∂‖F(x)‖²/∂θ| (equation 2 and §4.1, global version), picture by
    picture, in evaluation mode. Deviations: Ω is cut where a step would overshoot (see `penalty`);
    one head grows instead of one for each task, so that only the classes that arrive compete.

    Attributes:
        strength: λ; 0.1 was best of 0.01 to 1 on pictures kept out of the training
            (docs/log.md). The authors' published code has 1.
        decay: what the older Ω is multiplied by before the new is added; 1 adds them up (§4.1).
        pictures: how many of a lesson it is measured on; None for all, as in the paper.
        exemplars: see `Rehearsing`.
    """

    strength: float = 0.1
    decay: float = 1.0
    pictures: int | None = None
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
            terms.append(
                penalty(lesson.before, held, 2 * self.strength, lesson.recipe, lesson.rates)
            )
        yield Phase("train", data, terms, plan)
        return None

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """Ω of all weights so far."""
        if len(model.classes) < 2:  # nothing was trained
            return lesson.carried

        def length(logits: Any, target: Any) -> Any:
            return logits.square().sum()

        found = gathered(
            model,
            lesson.fresh,
            lesson.recipe.views,
            length,
            torch.abs,
            most=self.pictures,
            seed=lesson.seed("importance"),
        )
        for name, older in lesson.carried.items():
            found[name] = found[name] + self.decay * older.to(found[name].device)
        return found
