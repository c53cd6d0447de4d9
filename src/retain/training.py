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
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from retain import carried, histories, incremental
from retain.adapting import refuse_kind
from retain.adapting import replace as put_in_place
from retain.algebra import REFERENCE
from retain.errors import BadOption
from retain.handing import kept
from retain.remembered import parted, prepared
from retain.session import Session
from retain.store import Era, eras
from retain.store.start import Layer
from retain.values import Progress, Sample, Update
from retain.vision import OnnxExtractor
from retain.vision.adopt import adopt as adopted_from
from retain.vision.extractor import DESCRIPTION
from retain.vision.preprocess import Preprocess

if TYPE_CHECKING:
    from retain.train.growing import Growing
    from retain.train.lessons import Method
    from retain.train.plan import Plan
    from retain.train.recipe import Recipe
    from retain.train.rehearsal import Memory

__all__ = ["Course", "adapt", "course"]

_ADAPTED: Final = ", adapted"


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
    if not isinstance(plan, train.Plan):
        plan = train.Plan.preset(plan or "full", batchnorm="frozen")
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
    plan.describe(model)  # what does not fit the network is said before anything is prepared
    learned, aside = parted(samples, held_out, own.seed)
    views = train.Views(
        tuple(each / (255 * rule.scale) for each in rule.mean),
        tuple(each / (255 * rule.scale) for each in rule.std),
    )
    return Course(
        model,
        plan,
        replace(own, views=views),
        rule,
        extractor.power,
        learned,
        aside,
        era,
        state.mind.event,
        lesson,
        (*(lesson.notes + lesson.unused(plan) if lesson is not None else ()), *notes),
    )


def adapt(
    session: Session,
    course: Course,
    *,
    board: str | os.PathLike[str] | None = None,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Update:
    """Train, and put the result in the extractor's place if the gate agrees.

    Killed at any moment, the same call goes on where it was, with the same result. After a refusal
    the same call with `force` trains nothing again. Each training has a folder of its own in
    `board`, where TensorBoard files are written.

    Raises:
        GateRefused: if it would cost more than the budgets allow.
        BadOption: if the extractor would stay as it is, or nothing can be written to `board`.
        MissingExtra: if TensorBoard is needed and not installed.
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
    shown = _shown(session, course, board)
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
                board=shown,
                progress=progress,
            )
            model, phases = fitted.model, {"train": fitted.history}
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
                board=shown,
                progress=progress,
            )
            taught, exemplars = result.taught, result.kept
            model, phases = taught.model, dict(taught.histories)
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
    history, epochs = sum(phases.values(), ()), histories.packed(phases)
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
        carried.KEY: carried.file_of(beside),
        histories.KEY: histories.file_of(epochs),
    }
    with incremental.unforgotten(store, trained):
        update = put_in_place(
            session,
            {**files, carried.file_of(beside): beside, histories.file_of(epochs): epochs},
            detail=detail,
            trained=trained,
            exemplars=exemplars,
            start=layer,
            training=histories.training(detail, epochs),
            force=force,
            dry_run=dry_run,
            progress=progress,
        )
    if update.event is not None:
        store.end_training()
    said, seconds = _summary(course, told), time.perf_counter() - started
    return replace(update, summary=said + update.summary, seconds=seconds)


def _shown(session: Session, course: Course, board: str | os.PathLike[str] | None) -> Path | None:
    """The folder of TensorBoard files of a training, so that several can be compared.

    Raises:
        BadOption: if it cannot be made, or lies where only the classifier writes.
        MissingExtra: if TensorBoard is not installed.
    """
    from retain.train.history import tensorboard

    if board is None:
        return None
    tensorboard()
    name = course.lesson.name if course.lesson is not None else "adapt"
    folder = Path(board).absolute() / f"{name}-{course.key[:8]}"
    if session.store.path.resolve() in folder.resolve().parents:
        raise BadOption(
            f"{board} lies inside the classifier, where nothing else is written; give a folder "
            f"outside of it for TensorBoard files"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOption(
            f"TensorBoard files cannot be written to {board} ({error.strerror}); give another "
            f"folder"
        ) from error
    return folder


def _summary(course: Course, told: Mapping[str, Any]) -> str:
    notes = "".join(f" ({note})" for note in course.notes)
    if course.lesson is None:
        return f"{notes.strip()} " if notes else ""
    classes, before = len(course.model.classes), len(course.lesson.taught.model.classes)
    return (
        f"lesson {told['lesson']} by {told['method']}{notes}: {len(course.learned):,} pictures are "
        f"new, {classes - before:,} of {classes:,} classes too, {told['exemplars']:,} exemplars; "
    )


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
    changed = None if rule == before.rule else (rule.height, rule.width)
    files: dict[str, bytes | Path] = {
        **found.files,
        train.FILE: train.kept_again(theirs, plain, len(model.classes), changed),
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
