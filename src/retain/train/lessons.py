"""Class-incremental methods: what one is given, what it says, and the only runner of all.

A method is a generator of phases. Each phase is a run of the one loop: some pictures, a sum of loss
terms, a plan; ``yield`` gives back the network that came out. The phases of a method that distils
read like its paper::

    def phases(self, lesson):
        yield Phase("train", lesson.rehearsed, [CrossEntropy(), Distillation(lesson.before)])

Whatever is drawn or computed between phases must follow from the lesson alone: then a lesson that
was killed is begun again, its finished phases are read from disk, and the result is the same.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, final

from retain.errors import BadOption
from retain.train.augment import Views
from retain.train.data import Data, Pictures, joined, nothing
from retain.train.growing import Growing, Kind
from retain.train.history import Epoch
from retain.train.inference import outputs
from retain.train.loop import SAVE_EVERY, fit
from retain.train.plan import Plan, Rule, narrowed
from retain.train.processes import at_work
from retain.train.recipe import Recipe
from retain.train.rehearsal import Memory, kept
from retain.train.terms import Term
from retain.values import Progress

__all__ = ["Keeps", "Lesson", "Method", "Phase", "Taught", "teach", "unheld"]

Keeps = Literal["nothing", "exemplars", "everything"]


@final
@dataclass(frozen=True, eq=False, slots=True)
class Lesson:
    """What a method gets when pictures arrive.

    Attributes:
        before: the network as it was, frozen, in evaluation mode: to distil from. It has no classes
            in the first lesson.
        model: the same weights, its head grown by the classes that are new: where the first phase
            begins.
        fresh: the pictures that arrived; of new classes, of old ones, or of both.
        exemplars: the pictures that were kept, the most important of each class first.
        carried: what the method's `after` gave at the end of the lesson before; tensors by name.
        number: of the lesson, from 0 on.
        recipe: the user's.
        memory: what may be kept.
        plan: the user's; None where all may learn.
        left: what the phases leave for `Method.after`; follows from the lesson like all else.
    """

    before: Growing
    model: Growing
    fresh: Data
    exemplars: Data
    carried: Mapping[str, Any]
    number: int
    recipe: Recipe
    memory: Memory = field(default_factory=Memory)
    plan: Plan | None = None
    left: dict[str, Any] = field(default_factory=dict)

    @property
    def new(self) -> tuple[str, ...]:
        """The classes that no lesson had before."""
        known = set(self.before.classes)
        return tuple(each for each in self.model.classes if each not in known)

    @property
    def learned(self) -> bool:
        """Whether the network before was trained: a single class trains nothing."""
        return len(self.before.classes) > 1

    @property
    def rates(self) -> Mapping[str, float]:
        """What the user's plan multiplies the learning rate by, for each parameter."""
        rows = (self.plan or Plan()).describe(self.model)
        return {name: row.rate for row in rows for name in row.names}

    @property
    def rehearsed(self) -> Data:
        """The fresh pictures and the exemplars together."""
        return joined([self.fresh, self.exemplars])

    @property
    def past(self) -> float:
        """The share of old classes, n/(n + m) of BiC and WA.

        Where no class is new, which the papers do not have, the share of those of which nothing
        arrived.
        """
        arrived = self.new or self.fresh.classes
        return 1 - len(arrived) / len(self.model.classes)

    def seed(self, what: str) -> int:
        """A seed for something that is drawn in this lesson; another for each name."""
        return _derived(self.recipe.seed, self.number, what)

    def within_budget(self, model: Growing, what: str) -> Data:
        """Of what was kept and what arrives as much as the budget allows, chosen with a network.

        Args:
            model: whose features say which pictures are typical.
            what: names the draw, as for `seed`.
        """
        return kept(
            model,
            self.exemplars,
            self.fresh,
            self.memory.budget,
            self.memory.choice,
            views=self.recipe.views,
            seed=self.seed(what),
        )

    def competing(self, data: Data) -> tuple[str, ...]:
        """The classes that cross-entropy on some pictures is over, where the others are not there.

        It is those that occur. Over a single class cross-entropy has no gradient: then it is all
        that are known.
        """
        return data.classes if len(data.classes) > 1 else self.model.classes

    def sealed(self, plan: Plan, *, but: Sequence[str] | None = None) -> Plan:
        """A plan that leaves the parts of the head alone that have none of these classes.

        Of cross-entropy among these classes they have no gradient, but weight decay and momentum
        would still move them. Distillation and attention do have one there, which goes unused.

        Args:
            plan: to be changed.
            but: the classes; None for those that arrive.
        """
        apart = set(self.fresh.classes if but is None else but)
        rules = tuple(
            Rule(f"{self.model.head}.{place}", "frozen")
            for place, group in enumerate(self.model.groups)
            if not apart & set(group)
        )
        return replace(plan, rules=(*plan.rules, *rules))


@final
@dataclass(frozen=True, eq=False, slots=True)
class Phase:
    """One run of the loop.

    Attributes:
        name: of the folder that keeps its state, and in the history; unique in a lesson.
        data: to learn from.
        terms: of the loss.
        plan: which layers learn.
        recipe: None for the lesson's; its seed is replaced, another for each phase and lesson.
        start: the network to begin with; None for what the phase before came to.
        validation: pictures held out.
    """

    name: str
    data: Data
    terms: Sequence[Term]
    plan: Plan = field(default_factory=Plan)
    recipe: Recipe | None = None
    start: Growing | None = None
    validation: Data | None = None


Phases = Generator[Phase, Growing, Growing | None]
"""Yields phases, is sent the network that each came to, and may return another as the result."""


class Method(ABC):
    """A class-incremental method.

    Attributes:
        keeps: which pictures it wants back in later lessons: ``"nothing"``, ``"exemplars"`` within
            the budget, or ``"everything"``.
        head: the kind of head that its network has, see `growing`.
        single: names of what it carries that speaks of single pictures. Where a picture may have to
            be forgotten these are not kept, and the method does without.
        measures: whether it carries how much each weight matters, and holds weights by that.
        free: options that have no part in what it carries.
    """

    keeps: ClassVar[Keeps] = "nothing"
    head: ClassVar[Kind] = "linear"
    single: ClassVar[frozenset[str]] = frozenset()
    measures: ClassVar[bool] = False
    free: ClassVar[frozenset[str]] = frozenset()

    @property
    def wants(self) -> Keeps:
        """What it keeps with its options; `keeps`, unless one of them says otherwise."""
        return self.keeps

    def reach(self, *, lessons: int, known: bool) -> Plan:
        """What it trains of the network at most.

        Args:
            lessons: how many it has had.
            known: whether the network was trained before this one, see `Lesson.learned`.
        """
        return Plan()

    @abstractmethod
    def phases(self, lesson: Lesson) -> Phases:
        """The phases of a lesson, in order."""

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """Tensors by name that the next lesson wants back, from the network at the end of this."""
        return lesson.carried

    def keep(self, lesson: Lesson, model: Growing) -> Data:
        """The pictures that are kept, within the budget, from the network at the end of the lesson.

        By default as `wants` says.
        """
        if self.wants == "nothing":
            return nothing()
        if self.wants == "everything":
            return joined([lesson.exemplars, lesson.fresh])
        return lesson.within_budget(model, "exemplars")

    def scores(self, taught: Taught, pictures: Pictures, views: Views) -> Any:
        """Float32 [n, classes], from which a prediction is made; the network's own, if no better.

        A method overrides it that classifies otherwise, as iCaRL and IL2M do.
        """
        return outputs(taught.model, pictures, views).logits


@final
@dataclass(frozen=True, eq=False, slots=True)
class Taught:
    """A network between lessons, and what its method keeps.

    Attributes:
        model: the network.
        exemplars: the pictures that are kept.
        carried: tensors by name that the method keeps.
        lessons: how many there were.
        histories: of the last lesson's phases, by name.
        notes: what a person should know of the last lesson, in sentences.
        found: what a method works out from it alone, and only once.
    """

    model: Growing
    exemplars: Data = field(default_factory=nothing)
    carried: Mapping[str, Any] = field(default_factory=dict)
    lessons: int = 0
    histories: Mapping[str, tuple[Epoch, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    found: dict[str, Any] = field(default_factory=dict, init=False, repr=False)


def teach(
    method: Method,
    taught: Taught,
    fresh: Data,
    recipe: Recipe,
    *,
    memory: Memory | None = None,
    plan: Plan | None = None,
    validation: Data | None = None,
    folder: str | os.PathLike[str] | None = None,
    save_every: float = SAVE_EVERY,
    before_saving: Callable[[], None] | None = None,
    board: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Taught:
    """One lesson: what a method makes of a network and of the pictures that arrive.

    Nothing that is given is changed. A network that knows one class in all has nothing to tell
    apart: its head grows, its pictures may be kept, and nothing is trained.

    Args:
        method: how.
        taught: what the lesson before gave, or ``Taught(growing(network))``.
        fresh: any number of pictures of any number of classes, new or known.
        recipe: of the training; its seed counts for all that is drawn.
        memory: for methods that keep exemplars.
        plan: which layers may learn, where the method leaves it open; None for all.
        validation: pictures held out, judged after each epoch of each phase whose network knows
            their classes, by cross-entropy over all classes whatever the terms of the phase are,
            so for distillation by how well the new is known; a recipe with patience needs some.
        folder: keeps the state of the lesson, so that it goes on after a kill; one for each lesson,
            to be removed when its result is safe.
        save_every: seconds between two states that are kept.
        before_saving: called before each; what it raises ends the lesson, and nothing is kept.
        board: a folder for TensorBoard files; each phase has its own in it, of its name.
        progress: of each phase.

    Raises:
        BadLabel: if a label is empty or not text.
        BadOption: if there are no pictures, two phases of the method have one name, the recipe has
            patience and no validation picture is of a known class, or `folder` belongs to another
            lesson.
        Refused: if the loss is not a finite number.
        MissingExtra: if TensorBoard is needed and not installed.
    """
    if not len(fresh):
        raise BadOption("the lesson has no pictures; give some")
    seed = _derived(recipe.seed, taught.lessons, "head")
    model = taught.model.grown(fresh.classes, seed)
    known = (taught.exemplars, taught.carried, taught.lessons)
    before = taught.model.frozen()
    lesson = Lesson(before, model, fresh, *known, recipe, memory or Memory(), plan)
    notes = list(unheld(method, taught))
    histories: dict[str, tuple[Epoch, ...]] = {}
    if len(model.classes) < 2:
        notes.append(
            f"{model.classes[0]!r} is the only class so far: there is nothing to tell apart, and "
            f"nothing was trained"
        )
    else:
        phases = method.phases(lesson)
        phase = next(phases, None)
        while phase is not None:
            if phase.name in histories:
                raise BadOption(f"two phases of {type(method).__name__} are called {phase.name!r}")
            own, asked = phase.recipe or recipe, plan if phase.start is None else lesson.plan
            fitted = fit(
                phase.start or model,
                phase.data,
                replace(own, seed=_derived(recipe.seed, taught.lessons, phase.name)),
                plan=phase.plan if asked is None else narrowed(asked, phase.plan),
                terms=phase.terms,
                validation=phase.validation or _known(validation, phase.start or model, own),
                folder=None if folder is None else Path(folder) / phase.name,
                save_every=save_every,
                before_saving=before_saving,
                board=None if board is None else Path(board) / phase.name,
                progress=progress,
            )
            model, histories[phase.name] = fitted.model, fitted.history
            # What began anew, or was shrunk, does not do so again in what goes on from it.
            if asked is not None:
                plan = asked.begun(model, head_alone=phase.plan.body == "frozen")
            try:
                phase = phases.send(model)
            except StopIteration as end:
                model, phase = end.value or model, None
    with at_work(model, recipe):
        exemplars = method.keep(lesson, model)
        carried = {name: each.cpu() for name, each in method.after(lesson, model).items()}
    return Taught(
        model,
        exemplars,
        carried,
        taught.lessons + 1,
        histories,
        tuple(notes),
    )


def unheld(method: Method, taught: Taught) -> tuple[str, ...]:
    """What a person should know where a method has no measure yet of the weights that it holds."""
    known = len(taught.model.classes)
    if not method.measures or taught.carried or known < 2:
        return ()
    return (
        f"nothing tells how much the weights matter for the {known} classes that the network knows "
        f"already: in this lesson they are not held, and it may forget these classes; from the "
        f"next lesson on they are",
    )


def _known(data: Data | None, model: Growing, recipe: Recipe) -> Data | None:
    """The pictures of classes that a network has; None if there are none, and none are needed."""
    if data is None:
        return None
    classes = set(model.classes)
    rows = [row for row, label in enumerate(data.labels) if label in classes]
    if not rows and recipe.patience is not None:
        raise BadOption(
            f"patience needs validation= pictures of classes that the network knows, such as "
            f"{model.classes[0]!r}, and none of the {len(data)} given shows one; give some of each"
        )
    return data.drawn(rows) if rows else None


def _derived(seed: int, lesson: int, what: str) -> int:
    """A seed for a part of a lesson; another for each."""
    digest = hashlib.sha256(f"{seed} {lesson} {what}".encode()).digest()
    return int.from_bytes(digest[:6], "little")
