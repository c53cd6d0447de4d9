"""iCaRL: binary cross-entropy with the old network's answers, and the nearest mean of exemplars.

Rebuffi 2017 (1611.07725).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

from retain.train.augment import Views
from retain.train.data import Pictures
from retain.train.growing import Growing
from retain.train.inference import outputs
from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases, Taught
from retain.train.needs import Later
from retain.train.terms import Step, Term

__all__ = ["BinaryCrossEntropy", "ICaRL"]

torch: Final = Later("torch", "training a network")


@final
@dataclass(frozen=True, eq=False, slots=True)
class BinaryCrossEntropy(Term):
    """Each class a question of its own (algorithm 3): a sum over classes, a mean over the batch.

    Attributes:
        old: the network before, frozen: its sigmoids are the targets of the classes that it knows;
            None where there is none.
    """

    old: Growing | None = None

    def loss(self, step: Step) -> Any:
        """See `Term`."""
        logits = step.output.logits.float()
        if step.soft is None:
            aim = torch.nn.functional.one_hot(step.targets, logits.shape[1]).to(logits.dtype)
        else:
            aim = step.soft.to(logits.dtype).clone()
        if self.old is not None and self.old.classes:
            places = step.model.positions(self.old.classes).to(logits.device)
            aim[:, places] = step.of(self.old).logits.float().sigmoid()
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, aim, reduction="none")
        return each.sum(1).mean()


@final
@dataclass(frozen=True, slots=True)
class ICaRL(Method):
    """Classifies by the nearest mean of exemplars (algorithm 1), herded if the memory says so.

    For a class that the old network knows its answer is the target even for the pictures that
    arrive, as in algorithm 3: what is new in an old class moves the means alone. The first lesson
    of a network that learned its classes by softmax takes the sigmoids of its logits for answers,
    which softmax fixes up to a number alone: such a network is better served by another method.
    Deviation: the sum
    over the classes of equation 2 is not divided by their number, as the authors' code does, which
    learns at rate 2 instead.
    """

    keeps: ClassVar[Keeps] = "exemplars"

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        old = lesson.before if lesson.learned else None
        yield Phase("train", lesson.rehearsed, [BinaryCrossEntropy(old)])
        return None

    def scores(self, taught: Taught, pictures: Pictures, views: Views) -> Any:
        """−‖φ − μ‖² with unit φ and unit means; a class without exemplars has −∞."""
        said = outputs(taught.model, pictures, views)
        kept = taught.exemplars
        if not len(kept):
            return said.logits
        normal = torch.nn.functional.normalize
        features = normal(outputs(taught.model, kept.pictures, views).features.double())
        unit = normal(said.features.double())
        result = torch.full((len(unit), len(taught.model.classes)), -torch.inf)
        for place, name in enumerate(taught.model.classes):
            own = kept.of_class(name)
            if own:
                mean = normal(features[own].mean(0), dim=0)
                result[:, place] = -(unit - mean).square().sum(1).float()
        return result
