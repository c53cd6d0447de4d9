"""Dark experience replay: kept pictures with the logits that they had.

Buzzega 2020 (2004.07211).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import numpy as np

from retain.errors import BadOption
from retain.train.data import Data, joined
from retain.train.growing import Growing
from retain.train.inference import outputs
from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases
from retain.train.needs import Later
from retain.train.processes import at_work
from retain.train.rehearsal import owned
from retain.train.replay import MIXED, LogitMatch, RowCrossEntropy, beside
from retain.train.terms import Term
from retain.typed import FROM_0, checked

__all__ = ["DERpp"]

torch: Final = Later("torch", "training a network")


@final
@dataclass(frozen=True, slots=True)
class DERpp(Method):
    """New pictures, α·distance of kept pictures from their logits, β·their labels (equation 6).

    A mean over the new pictures and one over the kept ones, about as many of either in a step.
    Deviations: the distance is a mean over classes, where equation 5 has a squared norm (as in the
    authors' toolbox); logits are those at the end of the lesson that chose the picture, not of the
    step that met it, and say nothing of classes that came later; one draw from the memory serves
    both terms; pictures are chosen at random, class by class alike, where the paper has a
    reservoir.

    Attributes:
        alpha: α; 0.2, as the authors' toolbox has it for CIFAR-10 and Tiny ImageNet with 500
            pictures kept.
        beta: β; 0.5, likewise.
    """

    keeps: ClassVar[Keeps] = "exemplars"
    single: ClassVar[frozenset[str]] = frozenset({"logits"})
    alpha: float = 0.2
    beta: float = 0.5

    def __post_init__(self) -> None:
        checked(self, alpha=FROM_0, beta=FROM_0)

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        old, number = lesson.exemplars, len(lesson.model.classes)
        if lesson.recipe.augment.mixes and lesson.memory.budget.most and not len(old):
            raise BadOption(MIXED)  # which the logits of the next lesson would say
        data, places, recipe = beside(lesson.fresh, old, lesson.recipe, lesson.seed("beside"))
        among = torch.from_numpy(places)
        kept = (among >= 0).float()
        many = 2 if len(old) else 1
        terms: list[Term] = [RowCrossEntropy(many * ((1 - kept) + self.beta * kept))]
        if len(old):
            wanted = torch.cat([self._logits(lesson, number), torch.full((1, number), torch.nan)])
            terms.append(LogitMatch(wanted, among, many * self.alpha * kept))
        yield Phase("train", data, terms, recipe=recipe)
        return None

    def keep(self, lesson: Lesson, model: Growing) -> Data:
        """Random pictures of each class."""
        every = joined([lesson.exemplars, lesson.fresh])
        return owned(every.take(self._chosen(lesson)))

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """Their logits: the old ones of those kept before."""
        chosen = torch.tensor(self._chosen(lesson), dtype=torch.int64)
        before = len(lesson.exemplars)
        result = torch.full((len(chosen), len(model.classes)), torch.nan)
        old = chosen < before
        result[old] = self._logits(lesson, len(model.classes))[chosen[old]]
        fresh = lesson.fresh.take((chosen[~old] - before).tolist())
        if len(fresh) and len(model.classes) > 1:
            result[~old] = outputs(model, fresh.pictures, lesson.recipe.views).logits
        return {"logits": result}

    def _logits(self, lesson: Lesson, number: int) -> Any:
        """Of the exemplars, over so many classes; NaN for what is not known.

        Where they were not kept, or not of these pictures, they are those of the network before
        the lesson.
        """
        result = torch.full((len(lesson.exemplars), number), torch.nan)
        found = lesson.carried.get("logits")
        if (found is None or len(found) != len(result)) and len(result) and lesson.learned:
            old, views = lesson.before, lesson.recipe.views
            with at_work(old, lesson.recipe):
                found = outputs(old, lesson.exemplars.pictures, views).logits
        if found is not None and len(found) == len(result):
            result[:, : found.shape[1]] = found
        return result

    def _chosen(self, lesson: Lesson) -> list[int]:
        """Which of the exemplars and the fresh pictures are kept; the same whenever it is asked."""
        every = joined([lesson.exemplars, lesson.fresh])
        quotas = lesson.memory.budget.quotas(every.counts)
        random = np.random.default_rng(lesson.seed("exemplars"))
        chosen: list[int] = []
        for name in every.classes:
            own = every.of_class(name)
            chosen += sorted(random.permutation(own)[: quotas[name]].tolist())
        return sorted(chosen)
