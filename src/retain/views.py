"""What a classifier tells of itself: its classes, one entry or picture, a few numbers."""

from __future__ import annotations

from collections import Counter

from retain import histories
from retain.algebra import REFERENCE
from retain.answers import answer
from retain.errors import Damaged
from retain.intake import named
from retain.session import Session
from retain.values import ClassInfo, EventDetail, ImageDetail, Status

__all__ = ["classes", "show", "status"]


def classes(session: Session) -> list[ClassInfo]:
    """See `Classifier.classes`."""
    with session.reading() as mind:
        samples = session.samples
    images = Counter(sample.label for sample in samples)
    pinned = Counter(sample.label for sample in samples if sample.pinned)
    head = mind.head
    names = {*images, *(head.classes if head else ())} - {REFERENCE}
    return [ClassInfo(label, images[label], pinned[label]) for label in sorted(names)]


def show(session: Session, what: int | str) -> EventDetail | ImageDetail:
    """See `Classifier.show`."""
    store = session.store
    if isinstance(what, int) or (what.isdecimal() and len(what) < 6):
        with store.reading():
            event, number = store.event(int(what)), int(what)
            trained = histories.told(store, number) if event.kind == "adapt" else None
            return EventDetail(event, tuple(store.assertions(number)), trained)
    with session.reading() as mind:
        sample = named(store, what)
        found = store.feature(sample.image, mind.era)
        numbers = {event for event, _ in store.history(sample.image)}
        history = tuple(event for event in store.events() if event.event in numbers)
    if found is None:
        raise Damaged(f"the feature of {sample.image} is missing; run `retain verify`")
    prediction = answer(mind, sample.source, sample.image, *found, remembered=True)
    return ImageDetail(sample, prediction, history)


def status(session: Session) -> Status:
    """See `Classifier.status`."""
    state, manifest = session.state, session.store.manifest
    samples, mind = state.samples, state.mind
    labelled = [sample for sample in samples if sample.label != REFERENCE]
    tuned = mind.tuning
    return Status(
        path=str(session.store.path),
        extractor=session.eyes_of(mind.era).extractor.name,
        dimension=mind.era.dimension,
        memory=manifest.memory,
        options=dict(manifest.options),
        images=len(labelled),
        classes=len(mind.head.classes) if mind.head else 0,
        pinned=sum(sample.pinned for sample in samples),
        edited=len(mind.edited),
        events=sum(event.event <= mind.event for event in session.store.events()),
        digest=state.statistics.digest,
        shrinkage=tuned.shrinkage if tuned else None,
        temperature=tuned.temperature if tuned else None,
        leave_one_out_accuracy=tuned.accuracy if tuned else None,
        exceptions=len(mind.exceptions),
        protected=sum(sample.protected for sample in samples),
        reference=len(samples) - len(labelled),
        adopted=dict(manifest.start) if manifest.start else None,
    )
