"""LUCIR: a head of cosines, features that keep their direction, old classes kept apart from new.

Hou 2019 (CVPR), "Learning a unified classifier incrementally via rebalancing".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

from retain.errors import BadOption
from retain.train.growing import Growing, Kind
from retain.train.inference import outputs
from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases
from retain.train.needs import Later
from retain.train.plan import Plan
from retain.train.processes import at_work
from retain.train.terms import CrossEntropy, FeatureDistillation, Step, Term
from retain.typed import FROM_0, FROM_1, checked

__all__ = ["LUCIR", "Margin", "imprinted"]

torch: Final = Later("torch", "training a network")

_MIXED: Final = "a margin is kept between whole pictures; turn mixup and cutmix off"


@final
@dataclass(frozen=True, eq=False, slots=True)
class Margin(Term):
    """Pictures of old classes keep a margin to the K new classes nearest to them (equation 8).

    The mean over k of max(m − cos(own) + cos(k), 0), as in the authors' code where equation 8 has a
    sum, and over the pictures of old classes: their share of all pictures, which is known, stands
    for their number in the batch.

    Attributes:
        new: the new classes.
        share: of the pictures that are drawn, of old classes.
        margin: m.
        nearest: K.

    Raises:
        BadOption: in `loss`, if pictures are mixed.
    """

    new: tuple[str, ...]
    share: float
    margin: float = 0.5
    nearest: int = 2

    def loss(self, step: Step) -> Any:
        """See `Term`."""
        if step.soft is not None:
            raise BadOption(_MIXED)
        normal = torch.nn.functional.normalize
        rows = torch.cat([part.weight for part in step.model.layer]).float()
        cosines = normal(step.output.features.float()) @ normal(rows).T
        new = step.model.positions(self.new).to(cosines.device)
        old = ~torch.isin(step.targets, new)
        own = cosines.gather(1, step.targets[:, None])
        rivals = cosines[:, new].topk(min(self.nearest, len(new)), dim=1).values
        each = (self.margin - own + rivals).clamp(min=0).mean(1)
        return (each * old).mean() / max(self.share, 1e-12)


@final
@dataclass(frozen=True, slots=True)
class LUCIR(Method):
    """Cross-entropy of scaled cosines, less-forget and margin terms (equations 4, 6, 8, 9).

    The rows of older classes stay as they are, the less-forget term grows with the root of old
    classes over new ones, as in the authors' code, and new rows are `imprinted`, an option there:
    new rows that
    begin at random may be pushed away from all features by the margin term, and the scale with them
    to where cross-entropy has no say any more. Deviations: no class-balanced fine-tuning at the
    end, which the paper also tries; the network's last ReLU, which §4.1 removes, is the network's
    own affair (`cifar_resnet(…, signed=True)`).

    Attributes:
        strength: λ_base of equation 7; §4.1 has 5 for CIFAR-100 and 10 for ImageNet.
        margin: m; 0.5 (§4.1).
        nearest: K; 2 (§4.1).
    """

    keeps: ClassVar[Keeps] = "exemplars"
    head: ClassVar[Kind] = "cosine"
    strength: float = 5.0
    margin: float = 0.5
    nearest: int = 2

    def __post_init__(self) -> None:
        checked(self, strength=FROM_0, margin=FROM_0, nearest=FROM_1)

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        if lesson.model.kind != "cosine":
            raise BadOption("LUCIR needs a head of cosines; begin with growing(kind='cosine')")
        if not lesson.learned:
            if lesson.recipe.augment.mixes and lesson.memory.budget.most:
                raise BadOption(_MIXED)  # which the margins of the next lessons would say
            yield Phase("train", lesson.rehearsed, [CrossEntropy()])
            return None
        data, new = lesson.rehearsed, lesson.new
        ratio = len(lesson.before.classes) / (len(new) or len(lesson.fresh.classes))
        strength = self.strength * math.sqrt(ratio)
        terms: list[Term] = [CrossEntropy(), FeatureDistillation(lesson.before, strength)]
        old = {name: many for name, many in data.counts.items() if name not in set(new)}
        if new and old:
            share = sum(old.values()) / len(data)
            if lesson.recipe.sampling == "balanced":
                share = len(old) / len(data.classes)
            terms.append(Margin(new, share, self.margin, self.nearest))
        plan = lesson.sealed(Plan(), but=new) if new else Plan()
        yield Phase("train", data, terms, plan, start=imprinted(lesson) if new else None)
        return None


def imprinted(lesson: Lesson) -> Growing:
    """The lesson's network, the row of each new class the mean direction of its pictures' features.

    They are the features of the network before, and the rows as long as the older ones are on
    average (Qi, Brown and Lowe 2018, 1712.07136, as the authors of LUCIR do it).
    """
    model = lesson.model.copy()
    normal = torch.nn.functional.normalize
    with at_work(lesson.before, lesson.recipe):
        said = outputs(lesson.before, lesson.fresh.pictures, lesson.recipe.views)
    *older, newest = list(model.layer)
    length = torch.cat([part.weight for part in older]).detach().double().norm(dim=1).mean().cpu()
    unit = normal(said.features.double())
    with torch.no_grad():
        for place, name in enumerate(lesson.new):
            mean = normal(unit[lesson.fresh.of_class(name)].mean(0), dim=0)
            newest.weight[place] = (length * mean).to(newest.weight)
    return model
