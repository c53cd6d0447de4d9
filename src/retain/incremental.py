"""`adapt` by a class-incremental method: the network goes on from where it is, by what is new.

A lesson is what the journal tells of since the last one: the pictures that were learned or given
another label since the training that made the extractor in force. Older ones, which it was trained
with, are exemplars as far as the method wants any and its budget allows; a method that keeps
nothing sees none of them. The first lesson is everything that is remembered, in whatever order it
came: learning it piece by piece would forget for nothing.

What the network's head was, and what the method carries from lesson to lesson, lies beside the
extractor (`carried`); which pictures were trained with, and which are exemplars, is in the journal,
where a forgotten picture leaves no trace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retain.carried import alike, restored
from retain.errors import BadOption, Refused
from retain.session import Session
from retain.store import Era, Store
from retain.values import Progress, Sample

if TYPE_CHECKING:
    from retain.train.data import Data
    from retain.train.growing import Growing
    from retain.train.lessons import Method, Taught
    from retain.train.plan import Plan, Table
    from retain.train.recipe import Recipe
    from retain.train.rehearsal import Memory

__all__ = ["Next", "Result", "apart", "begin", "layers", "refuse_idle", "run", "unforgotten"]

# Pictures that are compared at once.
_AT_ONCE: Final = 64

# The share of what is new that tells a recipe with patience when it is enough.
_WATCHED: Final = 0.1


@dataclass(frozen=True, eq=False, slots=True)
class Next:
    """A lesson that is ready to begin.

    Attributes:
        name: of the method.
        method: itself.
        memory: what may be kept for it.
        taught: the network, and what the method carries; no exemplars yet.
        fresh: what is new.
        old: what the network was trained with and is still remembered, sorted.
        kept: the exemplars, in their order; None to choose them from `old`.
        seen: all that the network was trained with and is still kept, members or not.
        notes: what a person should know.
    """

    name: str
    method: Method
    memory: Memory
    taught: Taught
    fresh: tuple[Sample, ...]
    old: tuple[Sample, ...] = ()
    kept: tuple[Sample, ...] | None = ()
    seen: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What decides the result, besides network, fresh pictures, plan and recipe."""
        rows = [[(s.image, s.label) for s in each or ()] for each in (self.old, self.kept)]
        return self.method, self.memory, self.taught.lessons, rows, self.kept is None

    @property
    def reach(self) -> Plan:
        """What the method trains at most in this lesson."""
        known = len(self.taught.model.classes) > 1
        return self.method.reach(lessons=self.taught.lessons, known=known)

    def reached(self, plan: Plan) -> Plan:
        """A user's plan, as far as the method leaves it open in this lesson."""
        from retain.train.plan import narrowed

        return narrowed(plan, self.reach)

    def unused(self, plan: Plan) -> tuple[str, ...]:
        """What of a user's plan counts for nothing in this lesson, as a sentence if anything."""
        from retain.train.plan import Plan

        reached, usual = self.reached(plan), Plan()
        names = [
            name
            for name in (each.name for each in fields(plan) if each.name != "batchnorm")
            if getattr(plan, name) not in (getattr(usual, name), getattr(reached, name))
        ]
        if not names:
            return ()
        why = {
            "re-initialised": "begins with fresh weights here",
            "frozen": "trains the last layer alone here",
        }.get(reached.body, "decides that itself")
        are = "is" if len(names) == 1 else "are"
        return (f"{self.name} {why}: of the plan, {' and '.join(names)} {are} not used",)


@dataclass(frozen=True, eq=False, slots=True)
class Result:
    """What a lesson came to.

    Attributes:
        taught: the network, and what the method carries.
        rehearsed: how many exemplars were there to learn from.
        kept: the exemplars for the next lesson, in their order.
    """

    taught: Taught
    rehearsed: int
    kept: tuple[str, ...]


def begin(
    session: Session,
    samples: Sequence[Sample],
    network: tuple[Any, str],
    method: Method | str,
    memory: Memory | None,
) -> Next:
    """The lesson that follows from the journal.

    Args:
        session: the classifier.
        samples: what is remembered with a label.
        network: of the extractor in force, and the name of its last layer.
        method: or its name in `retain.train.methods`.
        memory: for methods that keep exemplars.

    Raises:
        BadOption: if nothing is new, or the network knows pictures that are forgotten.
        Damaged: if what lies beside the extractor cannot be read.
    """
    from retain.train import Memory, Taught, growing, methods
    from retain.train.lessons import unheld

    chosen = methods.make(method) if isinstance(method, str) else method
    name = next(key for key, kind in methods.REGISTRY.items() if isinstance(chosen, kind))
    store, era, start = session.store, session.store.era, session.start
    if start is not None and chosen.head == "cosine":
        raise BadOption(
            f"{name} makes a head of cosines, which cannot take the place of the layer that this "
            f"classifier was adopted with; choose another method"
        )
    given = memory or Memory()
    module, head = network
    if not era.number:
        begun = tuple(start.classes) if start is not None else ()
        first = Taught(growing(module, begun, head=head, kind=chosen.head))
        note = f"the first lesson of {name} is everything that is remembered"
        notes = (note, *unheld(chosen, first))
        return _sensible(Next(name, chosen, given, first, tuple(samples), notes=notes), era)
    debt = store.owed().get(era.number, 0)
    if debt:
        raise BadOption(
            f"the extractor in force, of event {era.number}, was trained with {debt} "
            f"{'picture that is' if debt == 1 else 'pictures that are'} forgotten since, and a "
            f"network that goes on from it would carry that along; adapt without a method first, "
            f"which begins with the network that the classifier was made with"
        )
    then = store.preview(at=int(store.detail(era.number).get("through", era.number - 1)))
    names = _names(then.rules.renames, store.rules().renames)
    seen, placed = store.seen(era.number)
    was = {s.image: names.get(s.label, s.label) for s in then.members}
    known = {s.image for s in samples if was.get(s.image, s.label) == s.label}
    known &= seen | was.keys()
    fresh = tuple(sample for sample in samples if sample.image not in known)
    old = {sample.image: sample for sample in samples if sample.image in known & seen}
    taught, told = restored(store, era, module, head, chosen, names)
    same = told == [repr(chosen), repr(given)]
    kept = tuple(old[image] for image in placed if image in old) if same else None
    notes = ()
    if taught.carried and not alike(chosen, told[0]):
        taught = replace(taught, carried={})
        notes = (f"what was measured for {told[0]} in event {era.number} counts no more",)
    notes += unheld(chosen, taught)
    made = Next(name, chosen, given, taught, fresh, tuple(old.values()), kept, seen, notes)
    return _sensible(made, era)


def _sensible(lesson: Next, era: Era) -> Next:
    from retain.train import methods

    if not lesson.fresh:
        raise BadOption(
            f"nothing was learned since event {era.number} trained the extractor in force, so "
            f"there is no lesson for {lesson.name}; learn something first, or adapt without a "
            f"method, which trains on all that is remembered"
        )
    if isinstance(lesson.method, methods.FirstSession) and lesson.taught.model.classes:
        raise BadOption(
            "first-session trains in the first lesson only, and this network has had its own; what "
            "was learned since is in the sums already"
        )
    if isinstance(lesson.method, methods.JointExact) and lesson.method.begin == "given":
        raise BadOption(
            "joint-exact trains the network that the classifier was made with on all that is "
            "remembered and solves the head exactly, and that is what adapt without a method does; "
            "leave the method out, or go on from the network in force with its option begin=last"
        )
    return lesson


def layers(
    lesson: Next | None, plan: Plan, model: Growing, epochs: int, notes: Sequence[str]
) -> Table:
    """What would become of each layer, and what a person should know of that."""
    from retain.train.plan import Table

    reached = plan if lesson is None else lesson.reached(plan)
    return Table(reached.describe(model, epochs), notes)


def refuse_idle(lesson: Next | None, plan: Plan, model: Growing) -> None:
    """Raise if nothing before the head would learn, where the head is not what is wanted.

    Raises:
        BadOption: which says why.
    """
    if lesson is None:
        return plan.refuse_idle(model)
    if lesson.reach.body == "frozen":
        raise BadOption(
            f"all that {lesson.name} would train in this lesson is the last layer, and a "
            f"classifier that was made here has none to train: it is solved exactly with every "
            f"change, so what was learned since is known already. Choose another method, or adapt "
            f"without one"
        )
    return lesson.reached(plan).refuse_idle(model)


def _names(then: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    """What classes of then are called now, where that is another name."""
    names: dict[str, str] = {}
    for old, new in now[len(then) :] if tuple(now[: len(then)]) == tuple(then) else ():
        names = {key: new if value == old else value for key, value in names.items()}
        names.setdefault(old, new)
    return names


@contextmanager
def unforgotten(store: Store, images: Collection[str]) -> Iterator[Callable[[], None]]:
    """Nothing that was learned from a forgotten picture stays among what trainings leave on disk.

    Gives what looks whether all pictures are still kept, and raises where one is not: to be called
    before anything is saved. At the end, whatever it is, what is left of such a training goes.

    Args:
        store: of the classifier; its journal may move on meanwhile.
        images: that are learned from.

    Raises:
        Refused: by what it gives, if a picture was forgotten.
    """

    def look() -> None:
        gone = store.unknown(images)
        if gone:
            raise Refused(
                f"{gone} of the {len(set(images)):,} pictures that the network was being trained "
                f"with {'was' if gone == 1 else 'were'} forgotten meanwhile: the training has "
                f"ended, what it had learned is removed, and the classifier is as it was; adapt "
                f"again to train without"
            )

    try:
        yield look
    finally:
        if store.unknown(images):
            store.end_training()
            store.drop_candidates()


def apart(data: Data, recipe: Recipe) -> tuple[Data, Data | None]:
    """What is learned from, and what tells a recipe with patience when it is enough.

    That is a tenth of every class that has two pictures; the pictures that judge in the end are
    others, for those that a training was ended by speak for it.
    """
    from retain.train.data import split

    if recipe.patience is None:
        return data, None
    rest, aside = split(data, _WATCHED, recipe.seed)
    return rest, aside if len(aside) else None


def run(
    course: Next,
    learned: Sequence[Sample],
    recipe: Recipe,
    plan: Plan,
    data: Callable[[Sequence[Sample]], Data],
    *,
    folder: Path,
    before_saving: Callable[[], None] | None = None,
    board: Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train; killed and called again, it goes on where it was, to the same weights.

    Args:
        course: the lesson.
        learned: of its fresh pictures, those to learn from.
        recipe: how.
        plan: which layers may learn.
        data: gives the pictures of samples.
        folder: keeps the state of its phases.
        before_saving: see `retain.train.teach`.
        board: a folder for TensorBoard files, one in it for each phase.
        progress: of each phase.
    """
    from retain.train import at_work, rehearsal, teach

    method, fresh, pool = course.method, data(learned), list(course.kept or ())
    exemplars = data(pool)
    fresh, watched = apart(fresh, recipe)
    if course.kept is None and method.wants != "nothing":
        pool = list(course.old)
        exemplars = data(pool)
        if method.wants == "exemplars":
            budget, how = course.memory.budget, course.memory.choice
            model, views, seed = course.taught.model, recipe.views, recipe.seed
            with at_work(model, recipe):
                exemplars = rehearsal.kept(
                    model, data(()), exemplars, budget, how, views=views, seed=seed
                )
    if method.wants == "nothing":
        pool, exemplars = [], data(())
    elif method.wants == "everything":
        pool = list(course.old)
        exemplars = data(pool)
    taught = teach(
        method,
        replace(course.taught, exemplars=exemplars),
        fresh,
        recipe,
        memory=course.memory,
        plan=plan,
        validation=watched,
        folder=folder,
        before_saving=before_saving,
        board=board,
        progress=progress,
    )
    if method.wants == "everything":
        kept = [sample.image for sample in (*pool, *learned)]
    else:
        kept = _recognised(taught.exemplars, data, [*pool, *learned])
    return Result(taught, len(exemplars), tuple(kept))


def _recognised(
    exemplars: Data, data: Callable[[Sequence[Sample]], Data], pool: Sequence[Sample]
) -> list[str]:
    """Which samples the exemplars are: a method is given pixels, and gives some of them back."""
    wanted = _digests(exemplars)
    if not wanted:
        return []
    found: dict[str, list[str]] = {}
    for sample, digest in zip(pool, _digests(data(pool)), strict=True):
        found.setdefault(digest, []).append(sample.image)
    # Of two pictures that are alike in every pixel, either will do.
    return [found[digest].pop(0) for digest in wanted if found.get(digest)]


def _digests(data: Data) -> list[str]:
    import torch

    made = []
    for start in range(0, len(data), _AT_ONCE):
        end = min(start + _AT_ONCE, len(data))
        rows = data.pictures[torch.arange(start, end)]
        for row, label in zip(rows, data.labels[start:end], strict=True):
            digest = hashlib.sha256(row.contiguous().numpy().tobytes())
            made.append(f"{digest.hexdigest()} {label}")
    return made
