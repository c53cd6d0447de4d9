"""Joint training, then the exact head: what `retain adapt` does, as a method among the others.

The network is fine-tuned on every stored picture; then all of them go through it once more, and the
head is solved from the features that come out. Two stages, representation and then classifier, as
in Kang 2020 (1910.09217), whose nearest class mean this head goes on from; the head of sums on an
adapted backbone is that of Panos 2023 (2303.13199), who adapts in the first session only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, final

from retain.train.growing import Growing, growing
from retain.train.lessons import Keeps, Lesson, Phase, Phases
from retain.train.methods.exact import Exact, seen
from retain.train.plan import Plan
from retain.train.terms import CrossEntropy
from retain.typed import checked

__all__ = ["JointExact"]

_GIVEN: Final = "given."


@final
@dataclass(frozen=True, slots=True)
class JointExact(Exact):
    """Fine-tuning on all pictures of all lessons; then class statistics of all, and their head.

    Nothing is distilled: every feature is computed anew, so none is of an older network. By default
    each lesson begins with the weights that the first began with, and nothing that a network came
    to in between has a part in it.

    Deviations: Kang 2020 samples classes evenly for, or takes the plain mean in, the second stage;
    Panos 2023 adapts FiLM layers, once, and classifies by a linear discriminant. Here the plan is
    free, every lesson adapts, and the head is the whitened centred cosine with its shrinkage chosen
    by leave-one-out. Of `retain adapt` two things are left out: no picture is held out to judge,
    and BatchNorm learns unless `batchnorm` says otherwise.

    Attributes:
        begin: ``"given"`` for the weights that the first lesson began with, which are kept, and a
            last layer that is new but for classes known even then; ``"last"`` to go on from those
            of the lesson before.
        batchnorm: ``"trained"``, or ``"frozen"`` as `retain adapt` has it, which suits pretrained
            weights and no random ones; see `Plan`.
        smoothing: of the labels (Szegedy 2016, §7); 0.1 as `retain adapt` has it.
    """

    keeps: ClassVar[Keeps] = "everything"
    begin: Literal["given", "last"] = "given"
    batchnorm: Literal["trained", "frozen"] = "trained"
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        checked(self)
        CrossEntropy(smoothing=self.smoothing)

    def reach(self, *, lessons: int, known: bool) -> Plan:
        """Everything."""
        return Plan(batchnorm=self.batchnorm)

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        plan = self.reach(lessons=lesson.number, known=lesson.learned)
        start = _given(lesson) if self.begin == "given" else None
        terms = [CrossEntropy(smoothing=self.smoothing)]
        yield Phase("train", lesson.rehearsed, terms, plan, start=start)
        return None

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """Features of all pictures, and the weights of the beginning where they are wanted."""
        found = dict(seen(model, lesson.rehearsed, lesson.recipe.views))
        return found if self.begin == "last" else {**found, **_weights(lesson)}


def _weights(lesson: Lesson) -> dict[str, Any]:
    """The weights that the first lesson began with, under names of their own."""
    known = {name: each for name, each in lesson.carried.items() if name.startswith(_GIVEN)}
    if known:
        return known
    state = lesson.before.module.state_dict()
    return {f"{_GIVEN}{name}": each.clone() for name, each in state.items()}


def _given(lesson: Lesson) -> Growing:
    """The network with these weights, its head grown by all classes that came since, at once."""
    model = lesson.model
    state = {name.removeprefix(_GIVEN): each for name, each in _weights(lesson).items()}
    begun = growing(model.plain(), head=model.head)
    for group in model.groups:
        if f"{model.head}.{len(begun.groups)}.weight" in state:
            begun = begun.grown(group)
    # In the order that they had: a part that grows has its labels sorted.
    begun.groups = model.groups[: len(begun.groups)]
    begun.module.load_state_dict(state)
    return begun.grown(model.classes, lesson.seed("head"))
