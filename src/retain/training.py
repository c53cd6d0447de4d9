"""`adapt`: the extractor itself learns, from the pictures that are remembered, as a candidate.

A network is trained on a snapshot while the classifier goes on answering and learning; then it
takes the extractor's place by `adapting.replace`, if the gate agrees. A part of every class is held
out of the training, and these pictures alone judge: those that a network was trained with speak for
it anyhow. No feature is carried over, for all pictures are seen anew.

A training begins with the network that the classifier was made with, not with what an earlier one
left: so only the pictures that are remembered now have a part in it, the result does not depend on
what was trained before, and training again is what erases a forgotten picture from an extractor.
By a class-incremental method, if one is asked for, the network in force goes on instead, by what
was learned since: see `incremental`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retain import carried, incremental
from retain.adapting import refuse_kind
from retain.adapting import replace as put_in_place
from retain.algebra import REFERENCE
from retain.errors import BadOption
from retain.handing import kept
from retain.session import Session
from retain.store import Era, eras
from retain.store.start import Layer
from retain.values import Progress, Sample, Update
from retain.vision import OnnxExtractor
from retain.vision.adopt import adopt as adopted_from
from retain.vision.extractor import DESCRIPTION
from retain.vision.images import decode
from retain.vision.preprocess import Preprocess, prepare

if TYPE_CHECKING:
    from retain.train.data import Data
    from retain.train.growing import Growing
    from retain.train.lessons import Memory, Method
    from retain.train.plan import Plan
    from retain.train.recipe import Recipe

__all__ = ["Course", "adapt", "course", "prepared"]

# Prepared pictures are kept in memory up to so many bytes; beyond, they are read in every epoch.
_IN_MEMORY: Final = 3 << 30

_ADAPTED: Final = ", adapted"

# Classes of fewer pictures hold none out.
_ENOUGH: Final = 5


@dataclass(frozen=True, eq=False, slots=True)
class Course:
    """A training that is ready to begin.

    Attributes:
        model: the network, its head grown by the classes.
        plan: which of its layers learn.
        recipe: how.
        rule: how pictures are prepared.
        power: of the features, as in `OnnxExtractor`.
        learned: the pictures to learn from.
        held_out: those that will judge.
        era: the extractor whose network it begins with.
        event: the last one that was taken into account.
        lesson: of a class-incremental method, if it is one.
        notes: what a person should know.
    """

    model: Growing
    plan: Plan
    recipe: Recipe
    rule: Preprocess
    power: float
    learned: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    era: Era
    event: int
    lesson: incremental.Next | None = None
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What decides the result; names the folder of the training."""
        rows = [(sample.image, sample.label) for sample in self.learned]
        text = repr((rows, self.plan, self.recipe, self.rule))
        if self.lesson is not None:
            text += repr((self.era.extractor, self.lesson.key))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def course(
    session: Session,
    *,
    plan: Plan | str | None = None,
    recipe: Recipe | None = None,
    size: int | None = None,
    held_out: float = 0.1,
    module: Any = None,
    method: Method | str | None = None,
    memory: Memory | None = None,
) -> Course:
    """What would be trained on what, and how.

    Raises:
        BadOption: if the extractor has no network in PyTorch, there is too little to learn from, or
            something does not fit.
        MissingExtra: if PyTorch is not installed.
    """
    from retain import train

    refuse_kind(session)
    if not 0 <= held_out < 1:
        raise BadOption(f"held_out is {held_out}; give a share from 0 up to 1")
    # Statistics of a batch of few pictures are worse than those that the network came with.
    chosen = (
        plan
        if isinstance(plan, train.Plan)
        else train.Plan.preset(plan or "full", batchnorm="frozen")
    )
    own = recipe or train.transfer()
    store = session.store
    era = eras.founding(store.manifest) if method is None else store.era
    extractor = session.eyes_of(era).extractor
    assert isinstance(extractor, OnnxExtractor)
    state = session.state
    samples = [sample for sample in state.samples if sample.label != REFERENCE]
    classes = tuple(sorted({sample.label for sample in samples}))
    start = session.start
    if start is not None:
        missing = sorted(set(start.classes) - set(classes))
        if missing and method is None:
            raise BadOption(
                f"nothing labelled is remembered of {len(missing)} of the {len(start.classes)} "
                f"adopted classes ({', '.join(map(repr, missing[:3]))}…), and a network trained "
                f"without them would lose them; learn some pictures of each first, or adapt by a "
                f"method that distils (retain adapt NAME --method lwf)"
            )
    if len(classes) < 2:
        raise BadOption(
            f"only {len(classes)} class is remembered, and training needs two to tell apart; learn "
            f"another"
        )
    rule, notes = extractor.rule, tuple[str, ...]()
    network, head = train.rebuilt_network(kept(store.folder(era), extractor), module)
    if size is not None:
        network, notes = train.resized(network, (size, size), (rule.height, rule.width))
        share = rule.shorter / max(rule.height, rule.width)
        rule = replace(
            rule, height=size, width=size, shorter=round(share * size) if rule.shorter else 0
        )
    lesson = None
    if method is not None:
        lesson = incremental.begin(session, samples, (network, head), method, memory)
        samples = list(lesson.fresh)
        model = lesson.taught.model.grown([sample.label for sample in samples], own.seed)
    else:
        begun = tuple(start.classes) if start is not None else ()
        model = train.growing(network, begun, head=head).grown(classes, own.seed)
    chosen.describe(model)  # what does not fit the network is said before anything is prepared
    learned, aside = _parted(samples, held_out, own.seed)
    views = train.Views(
        tuple(each / (255 * rule.scale) for each in rule.mean),
        tuple(each / (255 * rule.scale) for each in rule.std),
    )
    return Course(
        model,
        chosen,
        replace(own, views=views),
        rule,
        extractor.power,
        learned,
        aside,
        era,
        state.mind.event,
        lesson,
        (*(lesson.notes + lesson.unused(chosen) if lesson is not None else ()), *notes),
    )


def adapt(
    session: Session,
    course: Course,
    *,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Update:
    """Train, and put the result in the extractor's place if the gate agrees.

    Killed at any moment, the same call goes on where it was, with the same result. After a refusal
    the same call with `force` trains nothing again.

    Raises:
        GateRefused: if it would cost more than the budgets allow.
        BadOption: if the extractor would stay as it is.
        Refused: if the loss is not a finite number, or a picture is forgotten meanwhile.
        BadImage: if a remembered picture cannot be prepared.
        Locked: if another process adapts.
    """
    from retain import train

    started, store = time.perf_counter(), session.store
    before = session.eyes_of(course.era).extractor
    same = isinstance(before, OnnxExtractor) and course.rule == before.rule
    lesson, exemplars, told = course.lesson, tuple[str, ...](), dict[str, Any]()
    if session.start is None and same:
        incremental.refuse_idle(lesson, course.plan, course.model)
    trained = {sample.image for sample in course.learned} | (lesson.seen if lesson else set())
    with store.adapting(), incremental.unforgotten(store, trained) as look:
        folder = store.training(course.key)
        if lesson is None:
            data = prepared(session, course.learned, course.rule)
            data, watched = incremental.apart(data, course.recipe)
            fitted = train.fit(
                course.model,
                data,
                course.recipe,
                plan=course.plan,
                validation=watched,
                folder=folder,
                before_saving=look,
                progress=progress,
            )
            model, history = fitted.model, fitted.history
            beside = carried.packed(model)
        else:
            result = incremental.run(
                lesson,
                course.learned,
                course.recipe,
                course.plan,
                lambda samples: prepared(session, samples, course.rule),
                folder=folder,
                before_saving=look,
                progress=progress,
            )
            taught, exemplars = result.taught, result.kept
            model, history = taught.model, sum(taught.histories.values(), ())
            beside = carried.packed(
                model, lesson.method, lesson.memory, taught.carried, taught.lessons
            )
            told = {
                "method": lesson.name,
                "lesson": taught.lessons,
                "exemplars": result.rehearsed,
                "kept": len(exemplars),
            }
        look()
    files, layer = _files(session, course, model)
    detail = {
        **told,
        "plan": repr(course.plan),
        "epochs": len(history),
        "rate": course.recipe.rate,
        "pictures": len(course.learned),
        "held_out": len(course.held_out),
        "seconds": round(sum(each.seconds for each in history), 1),
        "loss": round(history[-1].loss, 4) if history else 0.0,
        "seed": course.recipe.seed,
        "through": course.event,
        "lessons": carried.file_of(beside),
    }
    with incremental.unforgotten(store, trained):
        update = put_in_place(
            session,
            {**files, carried.file_of(beside): beside},
            detail=detail,
            trained=trained,
            exemplars=exemplars,
            start=layer,
            force=force,
            dry_run=dry_run,
            progress=progress,
        )
    if update.event is not None:
        store.end_training()
    said, seconds = _summary(course, told), time.perf_counter() - started
    return replace(update, summary=said + update.summary, seconds=seconds)


def _summary(course: Course, told: Mapping[str, Any]) -> str:
    notes = "".join(f" ({note})" for note in course.notes)
    if course.lesson is None:
        return f"{notes.strip()} " if notes else ""
    classes, before = len(course.model.classes), len(course.lesson.taught.model.classes)
    return (
        f"lesson {told['lesson']} by {told['method']}{notes}: {len(course.learned):,} pictures are "
        f"new, {classes - before:,} of {classes:,} classes too, {told['exemplars']:,} exemplars; "
    )


# -- pictures ----------------------------------------------------------------------------------


def _parted(
    samples: Sequence[Sample], share: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """The pictures to learn from and those held out, sorted; which is which follows from a hash."""
    ranked: dict[str, list[Sample]] = {}
    for sample in samples:
        ranked.setdefault(sample.label, []).append(sample)
    learned: list[Sample] = []
    aside: list[Sample] = []
    for mine in ranked.values():
        mine.sort(key=lambda each: hashlib.sha256(f"{seed} {each.image}".encode()).digest())
        # A corrected picture is there because the classifier was wrong about it: it is learned.
        free = [each for each in mine if not each.pinned]
        many = max(1, round(share * len(mine))) if share and len(mine) >= _ENOUGH else 0
        out = {each.image for each in free[:many]}
        aside += [each for each in mine if each.image in out]
        learned += [each for each in mine if each.image not in out]
    by_name = attrgetter("image")
    return tuple(sorted(learned, key=by_name)), tuple(sorted(aside, key=by_name))


class _Remembered:
    """Remembered pictures as training sees them; prepared when they are asked for."""

    def __init__(self, session: Session, images: Sequence[str], rule: Preprocess) -> None:
        self._session, self._images = session, images
        zeros, ones = (0.0,) * rule.channels, (1.0,) * rule.channels
        self._rule = replace(rule, scale=1.0, mean=zeros, std=ones, dtype="uint8", layout="NCHW")

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, numbers: Any) -> Any:
        import torch

        found = [self._prepared(self._images[int(each)]) for each in numbers]
        return torch.from_numpy(np.concatenate(found))

    def _prepared(self, image: str) -> Any:
        data = self._session.store.blob(image)
        return prepare(decode(data, shorter=self._rule.needs), self._rule)


def prepared(session: Session, samples: Sequence[Sample], rule: Preprocess) -> Data:
    """Pictures as training sees them, with their labels."""
    import torch

    from retain.train.data import Data, nothing

    if not samples:
        return nothing()
    source: Any = _Remembered(session, [sample.image for sample in samples], rule)
    if len(samples) * rule.height * rule.width * rule.channels <= _IN_MEMORY:
        source = source[torch.arange(len(samples))]
    return Data(source, tuple(sample.label for sample in samples))


# -- the extractor that came out ---------------------------------------------------------------


def _files(
    session: Session, course: Course, model: Growing
) -> tuple[Mapping[str, bytes | Path], Layer | None]:
    """What the new extractor consists of, and the adopted layer that goes with it."""
    from retain import train

    plain, rule = carried.linear(model), course.rule
    exported = train.export_module(plain, (rule.height, rule.width), channels=rule.channels)
    before = session.eyes_of(course.era).extractor
    assert isinstance(before, OnnxExtractor)
    with TemporaryDirectory() as folder:
        graph = Path(folder) / "adapted.onnx"
        graph.write_bytes(exported.onnx)
        found = adopted_from(graph, labels=list(model.classes), rule=rule)
    theirs = kept(session.store.folder(course.era), before)
    files: dict[str, bytes | Path] = {
        **found.files,
        train.FILE: train.kept_again(theirs, plain, len(model.classes)),
    }
    description = json.loads(bytes(found.files[DESCRIPTION]))
    description["name"] = f"{before.name.removesuffix(_ADAPTED)}{_ADAPTED}"
    if course.power != 1.0:
        description["power"] = course.power
    files[DESCRIPTION] = (json.dumps(description, indent=2) + "\n").encode()
    start = session.start
    if start is None:
        return files, None
    rows = [model.classes.index(label) for label in start.classes]
    layer: Layer = (tuple(start.classes), found.weights[rows], found.bias[rows], None)
    return files, layer
