"""`learn` and `reference`: how pictures come in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from retain.algebra import REFERENCE
from retain.caches import State
from retain.errors import BadOption, InputError
from retain.gate import Lesson
from retain.intake import Eyes, Taken, checked_label, chunks, take
from retain.pairing import differences
from retain.projection import Item
from retain.refusal import concluded, refuse
from retain.session import Session
from retain.values import Progress, Sample, Skipped, Source, Update
from retain.vision import labelled, unlabelled

__all__ = ["learn", "pictures", "reference"]

# Pictures staged in one transaction while a long lesson is read.
_CHUNK = 128


def learn(
    session: Session,
    source: Any,
    labels: Sequence[str] | str | None,
    *,
    strict: bool,
    force: bool,
    dry_run: bool,
    progress: Progress | None,
) -> Update:
    """See `Classifier.learn`."""
    started = time.perf_counter()
    with session.writing("learn", dry_run=dry_run), ExitStack() as stack:
        eyes = session.eyes
        collected = labelled(source, labels, eyes.extractor)
        stack.enter_context(_leaving_nothing(session, dry_run))
        skipped = list(collected.skipped)
        state = session.state
        items: dict[str, Item] = {}
        known = 0
        for taken in _read(session, eyes, collected.sources, skipped, progress, dry_run):
            label, sample = checked_label(taken.label), state.sample(taken.image)
            twin = items.get(taken.image)
            if twin is not None and twin.sample.label != label:
                skipped.append(
                    Skipped(
                        taken.name,
                        f"the same picture is also given as {twin.sample.label!r} "
                        f"({twin.sample.source}); it was learned as that",
                    )
                )
            elif sample is not None and sample.pinned and sample.label != label:
                skipped.append(
                    Skipped(
                        taken.name,
                        f"it was corrected to {sample.label!r} by event {sample.event}; to call "
                        f"it {label!r}, correct it again with --replace",
                    )
                )
            elif sample is not None and sample.protected and sample.label != label:
                skipped.append(
                    Skipped(
                        taken.name,
                        f"it is protected as {sample.label!r}; to call it {label!r}, correct it "
                        f"with --replace, or unprotect it first",
                    )
                )
            elif twin is not None or (sample is not None and sample.label == label):
                known += 1
            else:
                name = sample.source if sample else taken.name
                items[taken.image] = Item(
                    Sample(taken.image, label, False, 0, name), taken.feature, taken.norm
                )
        if strict and skipped:
            raise InputError(
                f"{len(skipped)} of the files cannot be used, and nothing was learned, since "
                f"strictness was asked for. The first: {skipped[0].path}: {skipped[0].reason}"
            )
        if not items:
            if not known:
                raise InputError(_nothing_usable(source, skipped))
            return Update(
                event=None,
                kind="learn",
                summary=f"nothing new: {pictures(known)} known already",
                known=known,
                skipped=tuple(skipped),
                seconds=time.perf_counter() - started,
            )
        candidate = session.candidate(list(items.values()), lesson=True)
        lesson = Lesson(
            [item.sample for item in items.values()],
            np.stack([item.feature for item in items.values()]),
            np.array([item.norm for item in items.values()], np.float32),
        )
        verdict = session.verdict(candidate, changed=items, lesson=lesson)
        relabelled = sum(image in state.rows for image in items)
        update = Update(
            event=None,
            kind="learn",
            summary=_learned(len(items) - relabelled, relabelled, known, len(skipped)),
            learned=len(items) - relabelled,
            relabelled=relabelled,
            known=known,
            skipped=tuple(skipped),
            **differences(state, candidate),
            verdict=verdict,
        )
        event = _committed(session, update, candidate, items, force, dry_run)
    return concluded(update, event, started)


def reference(
    session: Session, source: Any, *, force: bool, dry_run: bool, progress: Progress | None
) -> Update:
    """See `Classifier.reference`."""
    started = time.perf_counter()
    with session.writing("reference", dry_run=dry_run), ExitStack() as stack:
        if session.store.manifest.start is None:
            raise BadOption(
                "this classifier was made here and knows its classes by their own pictures; only "
                "one that was adopted needs a reference: see retain adopt"
            )
        eyes = session.eyes
        collected = unlabelled(source, eyes.extractor)
        stack.enter_context(_leaving_nothing(session, dry_run))
        skipped = list(collected.skipped)
        present = session.state.rows
        items: dict[str, Item] = {}
        known = 0
        for one in _read(session, eyes, collected.sources, skipped, progress, dry_run):
            if one.image in present or one.image in items:
                known += 1
            else:
                sample = Sample(one.image, REFERENCE, False, 0, one.name)
                items[one.image] = Item(sample, one.feature, one.norm)
        if not items and not known:
            raise InputError(_nothing_usable(source, skipped))
        update = Update(
            event=None,
            kind="reference",
            summary=f"took {pictures(len(items))} as reference"
            + (f", {known} known already" if known else "")
            + (f", {len(skipped)} skipped" if skipped else ""),
            learned=len(items),
            known=known,
            skipped=tuple(skipped),
        )
        event = None
        if items:
            candidate = session.candidate(list(items.values()), lesson=True)
            found = differences(session.state, candidate)
            update = replace(update, **found, verdict=session.watch(candidate))
            event = _committed(session, update, candidate, items, force, dry_run)
    return concluded(update, event, started)


def _committed(
    session: Session,
    update: Update,
    candidate: State,
    items: Mapping[str, Item],
    force: bool,
    dry_run: bool,
) -> int | None:
    """Write the event if the gate agrees."""
    if dry_run:
        return None
    if not force:
        refuse(update)
    return session.commit(update.kind, candidate, items.values())


@contextmanager
def _leaving_nothing(session: Session, dry_run: bool) -> Iterator[None]:
    """Drop what was put aside if the lesson is refused or fails: nobody could name it any more.

    One that is interrupted keeps it, to go on from there; so does one that was never read.
    """
    try:
        yield
    except Exception:
        if not dry_run:
            session.store.sweep_staged()
        raise


def _read(
    session: Session,
    eyes: Eyes,
    sources: Sequence[Source],
    skipped: list[Skipped],
    progress: Progress | None,
    dry_run: bool,
) -> Iterator[Taken]:
    """Read the sources; what is new is put aside in the store as it comes, unless in a dry run.

    So a lesson that is interrupted does not compute the same features again, and the pictures of a
    large one are never in memory all at once.
    """
    keep = session.store.manifest.memory == "images"
    done = 0

    def readable() -> Iterator[Taken]:
        for each in take(session.store, eyes, sources, progress):
            if isinstance(each, Skipped):
                skipped.append(each)
            else:
                yield each

    try:
        for chunk in chunks(readable(), _CHUNK):
            fresh = {one.image: one for one in chunk if one.data is not None}
            if fresh and not dry_run:
                new = [one.to_store(keep_bytes=keep) for one in fresh.values()]
                session.store.stage(new, eyes.era)
            for one in chunk:
                yield Taken(one.image, one.name, one.label, one.feature, one.norm, None)
            done += len(chunk)
    except KeyboardInterrupt:
        if dry_run:
            raise KeyboardInterrupt("stopped: it was a dry run, nothing is written") from None
        raise KeyboardInterrupt(
            f"stopped: nothing was learned and the classifier is as it was; {done} of "
            f"{len(sources)} pictures are prepared, so the same command goes on from there"
        ) from None


def pictures(count: int) -> str:
    """How many, in words."""
    return f"{count} picture" if count == 1 else f"{count} pictures"


def _learned(learned: int, relabelled: int, known: int, skipped: int) -> str:
    parts = [f"learned {pictures(learned)}"] if learned or not relabelled else []
    parts += [f"relabelled {relabelled}"] if relabelled else []
    parts += [f"{known} known already"] if known else []
    parts += [f"{skipped} skipped"] if skipped else []
    return ", ".join(parts)


def _nothing_usable(source: Any, skipped: Sequence[Skipped]) -> str:
    if skipped:
        return (
            f"none of the {len(skipped)} files could be used, so nothing was learned. The first: "
            f"{skipped[0].path}: {skipped[0].reason}"
        )
    return f"no pictures were found in {source!s:.200}, so nothing was learned"
