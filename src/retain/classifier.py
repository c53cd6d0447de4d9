"""The facade: one method per verb, on one directory.

Every verb that changes something reads the same way (see `teaching` and `unlearning`): gather what
was given, work out the state as it would be, check the promise, write one event, let the new state
take the old one's place. Nothing is written before the new state is known to be good.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace as replaced
from pathlib import Path
from types import TracebackType
from typing import Any

from retain import audit, teaching, unlearning
from retain.algebra import HeadOptions
from retain.answers import answer, report
from retain.errors import Damaged, NothingLearned
from retain.intake import checked_label, named
from retain.session import Session
from retain.store import Manifest, Store
from retain.values import (
    ClassInfo,
    Event,
    EventDetail,
    ImageDetail,
    Predictions,
    Progress,
    Receipt,
    Report,
    Sample,
    Status,
    Update,
    Verification,
)
from retain.vision import labelled, load_builtin, unlabelled

__all__ = ["Classifier", "create", "open"]


def create(
    path: str | Path,
    *,
    extractor: str | Path = "efficientnet_lite0",
    memory: str = "images",
    head: str = "cosine",
    priors: str = "balanced",
    favour: float = 0.0,
) -> Classifier:
    """Make a new classifier, which knows nothing yet, as a directory.

    Args:
        path: a directory that does not exist or is empty.
        extractor: ``"efficientnet_lite0"`` (shipped), ``"vectors:<d>"`` for people who bring
            feature vectors of d numbers, or a directory with features.onnx and preprocess.json.
        memory: ``"images"`` keeps the pictures' bytes, ``"features"`` only their features.
        head: ``"cosine"``, ``"discriminant"``, ``"ridge"`` or ``"nearest-mean"``.
        priors: ``"balanced"`` or ``"empirical"``.
        favour: from −1 (old classes) to 1 (new classes).

    Raises:
        AlreadyExists: if something is there.
        BadOption: if an option has an impossible value.

    >>> import tempfile, retain
    >>> with retain.create(tempfile.mkdtemp() + "/shop", extractor="vectors:2") as shop:
    ...     _ = shop.learn([[1.0, 0.1], [0.1, 1.0]], ["mug", "cup"])
    ...     shop.predict([[0.9, 0.2]])[0].label
    'mug'
    """
    options = HeadOptions(head, priors, favour)  # type: ignore[arg-type]
    eyes = load_builtin(str(extractor))
    manifest = Manifest.new(
        name=Path(path).name,
        extractor=eyes.fingerprint,
        dimension=eyes.dimension,
        memory=memory,
        options=options.to_dict(),
    )
    return Classifier(Session(Store.create(Path(path), manifest, eyes.files())))


def open(path: str | Path) -> Classifier:
    """Open a classifier on disk.

    Raises:
        NotAClassifier: if the path holds none.
        NewerFormat: if a newer retain wrote it.
        Damaged: if it cannot be read.
    """
    return Classifier(Session(Store.open(Path(path))))


class Classifier:
    """A living image classifier: a directory that learns, answers, corrects, forgets and undoes.

    Made by `create` and `open`; a context manager. Several processes may read while one writes.
    Pictures are named by file, or, when remembered, by their hash, its first six or more digits,
    or the name of the file they came from.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory."""
        self._session.close()

    @property
    def path(self) -> Path:
        """The directory."""
        return self._session.store.path

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes known, sorted."""
        head = self._session.mind.head
        return head.classes if head else ()

    @property
    def digest(self) -> str:
        """The digest of the statistics: equal for equal sets of members, on every machine."""
        return self._session.state.statistics.digest

    # -- what changes the classifier ----------------------------------------------------------

    def learn(
        self,
        source: Any,
        labels: Sequence[str] | str | None = None,
        *,
        strict: bool = False,
        progress: Progress | None = None,
    ) -> Update:
        """Learn labelled pictures, of old classes or new ones.

        The result is the same, bit for bit, in whatever order and batches they come. A known
        picture with the same label changes nothing; with another label it is relabelled.

        Args:
            source: a folder of class folders, a CSV/JSONL/Parquet manifest (`path,label`), or
                pictures (paths, uint8 arrays [h, w, 3], or float vectors [n, d]) with `labels`.
            labels: one per picture, or one for all.
            strict: refuse everything if one file cannot be used.
            progress: called as ``progress(done, total)``.

        Raises:
            InputError: if nothing can be used, or with `strict` if something cannot.
        """
        return teaching.learn(self._session, source, labels, strict=strict, progress=progress)

    def correct(self, image: Any, label: str, *, replace: bool = False) -> Update:
        """Say what a picture is; from now on it is answered so.

        The picture is learned, or relabelled if it is known. If that alone does not do it, the
        head is edited as little as possible (see `algebra.pins`). Checked, through the path that
        `predict` takes, before anything is written.

        Args:
            image: a file, bytes or an array; or the name of a remembered picture.
            label: what it is; may be a new class.
            replace: take the place of an earlier correction of the same picture.

        Returns:
            What was corrected, and every remembered picture whose answer changed.

        Raises:
            PinConflict: if an earlier correction says otherwise.
            NotCorrected: if the promise cannot be kept; nothing has changed then.
        """
        return self.correct_many([(image, label)], replace=replace)

    def correct_many(
        self,
        corrections: Iterable[tuple[Any, str]],
        *,
        replace: bool = False,
        progress: Progress | None = None,
    ) -> Update:
        """Correct several pictures as one event: all of them or none. See `correct`."""
        return teaching.correct(self._session, corrections, replace=replace, progress=progress)

    def forget(
        self,
        images: Sequence[str] | str = (),
        labels: Sequence[str] | str = (),
        events: Sequence[int] | int = (),
    ) -> Receipt:
        """Forget pictures for good: named, of whole classes, or of whole events.

        Afterwards the statistics and the head are bit for bit those of a classifier that never
        saw them, and neither bytes nor features are on disk. Cannot be undone.

        Raises:
            UnknownImage, UnknownClass, UnknownEvent: if a name stands for nothing.
        """
        return unlearning.forget(self._session, *_lists(images, labels, events))

    def forget_preview(
        self,
        images: Sequence[str] | str = (),
        labels: Sequence[str] | str = (),
        events: Sequence[int] | int = (),
    ) -> list[Sample]:
        """The pictures that `forget` would forget, sorted by hash; changes nothing."""
        with self._session.store.reading():
            return unlearning.selected(self._session, *_lists(images, labels, events))

    def undo(self, event: int | None = None) -> Update:
        """Take back an event: the last one, or the one named; any but `forget`.

        The classifier is as if the event had not been; later events stay. What is needed to redo
        it is kept: undoing the undo brings it back.

        Raises:
            UnknownEvent: if there is no such event.
            CannotUndo: if it is a `forget`, is undone already, or nothing is left of it.
        """
        return unlearning.undo(self._session, event)

    def rename(self, old: str, new: str) -> Update:
        """Give a class another name.

        Raises:
            UnknownClass: if there is no class `old`.
            BadLabel: if there is a class `new` already.
        """
        return unlearning.rename(self._session, old, new)

    def merge(self, old: str, into: str) -> Update:
        """Make two classes one.

        Raises:
            UnknownClass: if either does not exist.
        """
        return unlearning.merge(self._session, old, into)

    # -- what only reads ----------------------------------------------------------------------

    def predict(
        self, source: Any, *, top: int = 5, progress: Progress | None = None
    ) -> Predictions:
        """Answer pictures; writes nothing.

        Args:
            source: a file, a folder, a glob, a list of these, arrays, bytes, or ``"-"``.
            top: how many classes to give for each.
            progress: called as ``progress(done, total)``.

        Raises:
            NothingLearned: if no class is known.
        """
        if self._session.mind.head is None:
            raise NothingLearned(
                f"{self.path} has learned nothing yet, so there is nothing to predict; "
                f"teach it first: retain learn {self.path} FOLDER"
            )
        collected = unlabelled(source, self._session.extractor)
        skipped = list(collected.skipped)
        taken = self._session.taken(collected.sources, skipped, progress)
        mind, members = self._session.answering(taken)
        answers = [
            answer(mind, e.name, e.image, e.feature, top=top, remembered=e.image in members)
            for e in taken
        ]
        return Predictions(tuple(answers), tuple(skipped))

    def evaluate(
        self,
        source: Any,
        labels: Sequence[str] | str | None = None,
        *,
        progress: Progress | None = None,
    ) -> Report:
        """Judge the classifier on labelled pictures; `source` and `labels` as for `learn`."""
        started = time.perf_counter()
        collected = labelled(source, labels, self._session.extractor)
        skipped = list(collected.skipped)
        taken = self._session.taken(collected.sources, skipped, progress)
        mind, members = self._session.answering(taken)
        pictures = [
            (e.name, e.image, checked_label(e.label), e.feature, e.image in members) for e in taken
        ]
        judged = report(mind, pictures, skipped)
        return replaced(judged, seconds=time.perf_counter() - started)

    def log(self) -> list[Event]:
        """The journal, oldest first."""
        return self._session.store.events()

    def show(self, what: int | str) -> EventDetail | ImageDetail:
        """One journal entry (a number), or one remembered picture (a name).

        Raises:
            UnknownEvent, UnknownImage: if there is no such thing.
        """
        store = self._session.store
        if isinstance(what, int) or (what.isdecimal() and len(what) < 6):
            with store.reading():
                return EventDetail(store.event(int(what)), tuple(store.assertions(int(what))))
        with self._session.reading() as mind:
            sample = named(store, what)
            found = store.feature(sample.image)
            numbers = {event for event, _ in store.history(sample.image)}
            history = tuple(event for event in store.events() if event.event in numbers)
        if found is None:
            raise Damaged(f"the feature of {sample.image} is missing; run `retain verify`")
        prediction = answer(mind, sample.source, sample.image, found[0], remembered=True)
        return ImageDetail(sample, prediction, history)

    def classes(self) -> list[ClassInfo]:
        """The classes, sorted by name."""
        samples = self._session.store.members()
        images = Counter(sample.label for sample in samples)
        pinned = Counter(sample.label for sample in samples if sample.pinned)
        return [ClassInfo(label, images[label], pinned[label]) for label in sorted(images)]

    def samples(self) -> list[Sample]:
        """Every remembered picture, sorted by hash."""
        return list(self._session.store.members())

    def image(self, image: str) -> bytes:
        """The bytes of a remembered picture, as they were given.

        Raises:
            UnknownImage: if it is not remembered, or only its features are.
            Damaged: if the bytes on disk are not what they were.
        """
        return self._session.store.blob(named(self._session.store, image).image)

    def status(self) -> Status:
        """The classifier in a few numbers."""
        session, manifest = self._session, self._session.store.manifest
        state = session.state
        samples, mind, tuned = state.samples, state.mind, state.mind.tuning
        return Status(
            path=str(self.path),
            extractor=session.extractor.name,
            dimension=manifest.dimension,
            memory=manifest.memory,
            options=dict(manifest.options),
            images=len(samples),
            classes=len({sample.label for sample in samples}),
            pinned=sum(sample.pinned for sample in samples),
            edited=len(mind.edited),
            events=sum(event.event <= mind.event for event in session.store.events()),
            digest=state.statistics.digest,
            shrinkage=tuned.shrinkage if tuned else None,
            temperature=tuned.temperature if tuned else None,
            leave_one_out_accuracy=tuned.accuracy if tuned else None,
        )

    def verify(self, *, deep: bool = False, progress: Progress | None = None) -> Verification:
        """Re-derive everything from the journal, and say what is broken.

        Args:
            deep: also compute every feature again from its picture.
            progress: called as ``progress(done, total)``.
        """
        return audit.verify(self._session, deep=deep, progress=progress)


def _lists(
    images: Sequence[str] | str, labels: Sequence[str] | str, events: Sequence[int] | int
) -> tuple[list[str], list[str], list[int]]:
    return (
        [images] if isinstance(images, str) else list(images),
        [labels] if isinstance(labels, str) else list(labels),
        [events] if isinstance(events, int) else list(events),
    )
