"""Deep model consolidation: a specialist for what is new, and a student of it and the old network.

Zhang 2020 (1903.07864).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, final

from retain.train.data import Data
from retain.train.growing import Growing
from retain.train.lessons import Lesson, Method, Phase, Phases
from retain.train.needs import Later
from retain.train.plan import Plan
from retain.train.terms import CrossEntropy, Step, Term
from retain.typed import checked

__all__ = ["DMC", "DoubleDistillation"]

torch: Final = Later("torch", "training a network")


@final
@dataclass(frozen=True, eq=False, slots=True)
class DoubleDistillation(Term):
    """The mean squared distance from two teachers' logits, side by side (equations 3 and 4).

    The logits of each teacher are centred, picture by picture: their mean over its own classes is
    taken off.

    Attributes:
        old: the network before, frozen.
        new: the specialist, frozen.
        classes: that are asked of the specialist; all others are asked of the old network.
        among: the classes that the specialist's logits are centred over.
    """

    old: Growing
    new: Growing
    classes: tuple[str, ...]
    among: tuple[str, ...]

    def loss(self, step: Step) -> Any:
        """See `Term`."""
        logits = step.output.logits.float()
        wanted = torch.zeros_like(logits)
        before = step.of(self.old).logits.float()
        before = before - before.mean(1, keepdim=True)
        wanted[:, step.model.positions(self.old.classes).to(logits.device)] = before
        now = step.of(self.new).logits.float()
        centre = now[:, self.new.positions(self.among).to(now.device)].mean(1, keepdim=True)
        own = self.new.positions(self.classes).to(now.device)
        places = step.model.positions(self.classes).to(logits.device)
        wanted[:, places] = now[:, own] - centre
        return (logits - wanted).square().mean()


@final
@dataclass(frozen=True, slots=True)
class DMC(Method):
    """A network trained on the new pictures alone, then both taught to a third; nothing is kept.

    Deviations: the pictures without labels that §3.2 teaches on must be given; without them the new
    pictures serve, which say less of old classes. A class that both teachers know is asked of the
    specialist, whose pictures are newer. With one new class the specialist has nothing to tell it
    from, and all known ones compete.

    Attributes:
        auxiliary: pictures of anything, for the consolidation; their labels are not looked at.
        begin: specialist and student begin with ``"fresh"`` weights, as in Masana 2020, or with
            those of the ``"old"`` network, which suits pretrained ones.
    """

    auxiliary: Data | None = None
    begin: Literal["fresh", "old"] = "fresh"

    def __post_init__(self) -> None:
        checked(self)

    def reach(self, *, lessons: int, known: bool) -> Plan:
        """Everything, from fresh weights where there are two teachers and nothing else is said."""
        return Plan.preset("from-scratch" if known and self.begin == "fresh" else "full")

    def phases(self, lesson: Lesson) -> Phases:
        """The specialist, and the consolidation."""
        among = lesson.competing(lesson.fresh)
        if not lesson.learned:
            yield Phase("train", lesson.fresh, [CrossEntropy(among)])
            return None
        plan = self.reach(lessons=lesson.number, known=True)
        specialist = yield Phase(
            "specialist", lesson.fresh, [CrossEntropy(among)], plan, start=lesson.model
        )
        both = DoubleDistillation(lesson.before, specialist.frozen(), lesson.fresh.classes, among)
        data = lesson.fresh
        if self.auxiliary is not None:
            # Labels are only names of pictures here; the network must know them all the same.
            first = lesson.model.classes[0]
            data = Data(self.auxiliary.pictures, (first,) * len(self.auxiliary))
        yield Phase("consolidate", data, [both], plan, start=lesson.model)
        return None
