"""`learn`, `correct` and `reference`: how pictures come in."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace as replaced
from typing import Any

import numpy as np

from retain.algebra import REFERENCE
from retain.answers import answer
from retain.caches import State
from retain.errors import BadOption, InputError, NotCorrected, PinConflict
from retain.gate import Lesson, concluded, refuse
from retain.intake import Taken, checked_label, chunks, resolve, take
from retain.ladder import Climbed, climb
from retain.projection import Item
from retain.session import Session, differences
from retain.values import Correction, Progress, Sample, Skipped, Source, Update
from retain.vision import labelled, unlabelled

__all__ = ["correct", "learn", "reference"]

# Pictures staged in one transaction while a long lesson is read.
_CHUNK = 128

_LEARN_CHOICES = (
    "Look at what would happen with --dry-run (dry_run=True); leave out or relabel the pictures in "
    "doubt; learn them all the same with --force (force=True); or set other budgets: retain gate"
)
_CORRECT_CHOICES = (
    "Look at what would happen with --dry-run (dry_run=True); correct it all the same with --force "
    "(force=True); or set other budgets: retain gate"
)


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
    with session.writing("learn"):
        collected = labelled(source, labels, session.extractor)
        skipped = list(collected.skipped)
        state = session.state
        present = {sample.image: sample for sample in state.samples}
        items: dict[str, Item] = {}
        known = 0
        for taken in _staged(session, collected.sources, skipped, progress):
            label, sample = checked_label(taken.label), present.get(taken.image)
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
                summary=f"nothing new: {_pictures(known)} known already",
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
        taught = {sample.image: sample.label for sample in candidate.samples}
        verdict = session.verdict(candidate, changed=items, lesson=lesson, taught=taught)
        relabelled = sum(image in present for image in items)
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
        event = None
        if dry_run:
            session.store.sweep_staged()
        else:
            if not force:
                refuse(update, _LEARN_CHOICES)
            event = session.commit("learn", candidate, items.values())
    return concluded(update, event, started)


def reference(session: Session, source: Any, *, progress: Progress | None) -> Update:
    """See `Classifier.reference`."""
    started = time.perf_counter()
    with session.writing("reference"):
        if session.store.manifest.start is None:
            raise BadOption(
                "this classifier was made here and knows its classes by their own pictures; only "
                "one that was adopted needs a reference: see retain adopt"
            )
        collected = unlabelled(source, session.extractor)
        skipped = list(collected.skipped)
        present = {sample.image for sample in session.state.samples}
        items: dict[str, Item] = {}
        known = 0
        for one in _staged(session, collected.sources, skipped, progress):
            if one.image in present or one.image in items:
                known += 1
            else:
                sample = Sample(one.image, REFERENCE, False, 0, one.name)
                items[one.image] = Item(sample, one.feature, one.norm)
        if not items and not known:
            raise InputError(_nothing_usable(source, skipped))
        event = None
        if items:
            candidate = session.candidate(list(items.values()), lesson=True)
            event = session.commit("reference", candidate, items.values())
    return Update(
        event=event,
        kind="reference",
        summary=f"took {_pictures(len(items))} as reference"
        + (f", {known} known already" if known else "")
        + (f", {len(skipped)} skipped" if skipped else ""),
        learned=len(items),
        known=known,
        skipped=tuple(skipped),
        seconds=time.perf_counter() - started,
    )


def correct(
    session: Session,
    corrections: Iterable[tuple[Any, str]],
    *,
    replace: bool,
    exception: bool,
    force: bool,
    dry_run: bool,
    progress: Progress | None,
) -> Update:
    """See `Classifier.correct_many`."""
    started = time.perf_counter()
    pairs = [(image, checked_label(label)) for image, label in corrections]
    if not pairs:
        raise InputError("nothing to correct: give at least one picture and its label")
    with session.writing("correct"):
        state = session.state
        present = {sample.image: sample for sample in state.samples}
        taken: dict[str, Taken] = {}
        items: dict[str, Item] = {}
        for done, (image, label) in enumerate(pairs, 1):
            one = resolve(session.store, session.extractor, image)
            _refuse_contradiction(one, label, present, items, replace)
            name = present[one.image].source if one.image in present else one.name
            taken[one.image] = one
            kept = one.image in present and present[one.image].protected
            items[one.image] = Item(
                Sample(one.image, label, True, 0, name, exception, kept), one.feature, one.norm
            )
            if progress is not None:
                progress(done, len(pairs))
        before = {
            image: answer(state.mind, one.name, image, one.feature, one.norm, top=1).label
            if state.mind.head
            else None
            for image, one in taken.items()
        }
        settled = all(_settled(item, present, before) for item in items.values())
        climbed = None if settled else _climbed(session, items, before, exception)
        candidate = state if climbed is None else climbed.state
        corrected = tuple(_checked(candidate, item, before) for item in items.values())
        update = Update(
            event=None,
            kind="correct",
            summary=_corrected(corrected, settled),
            learned=sum(image not in present for image in items),
            relabelled=sum(
                image in present and present[image].label != item.sample.label
                for image, item in items.items()
            ),
            corrected=corrected,
            fixed=all(each.after == each.label for each in corrected),
            pinned=any(each.pinned for each in corrected),
            **differences(state, candidate, frozenset(items)),
            verdict=climbed.verdict if climbed else None,
        )
        event = None
        if climbed is not None and not dry_run:
            if not force:
                refuse(update, _CORRECT_CHOICES)
            fresh = [one for image, one in taken.items() if image not in present]
            items = {image: _marked(item, climbed.rung) for image, item in items.items()}
            event = session.commit("correct", candidate, items.values(), fresh)
    return concluded(update, event, started)


def _climbed(
    session: Session,
    items: Mapping[str, Item],
    before: Mapping[str, str | None],
    exception: bool,
) -> Climbed:
    """The state that corrections lead to: by an edit, or, where that is refused, as exceptions."""

    def to(rung: str) -> State:
        marked = [_marked(item, rung) for item in items.values()]
        state = session.candidate(marked, lesson=False)
        for item in marked:
            _checked(state, item, before)
        return state

    rungs = ["exception"] if exception else ["pin", "exception"]
    return climb(
        [(rung, lambda rung=rung: to(rung)) for rung in rungs],  # type: ignore[misc]
        lambda state: session.verdict(state, changed=items, taught=_taught(session, state)),
    )


def _taught(session: Session, state: State) -> Mapping[str, str] | None:
    """Image → label at a candidate's last lesson, if it is a new one."""
    if state.lesson is session.state.lesson:
        return None
    return {sample.image: sample.label for sample in state.samples}


def _marked(item: Item, rung: str) -> Item:
    sample = replaced(item.sample, exception=rung == "exception")
    return replaced(item, sample=sample)


def _staged(
    session: Session,
    sources: Sequence[Source],
    skipped: list[Skipped],
    progress: Progress | None,
) -> Iterator[Taken]:
    """Read the sources; what is new is put aside in the store as it comes.

    So a lesson that is interrupted does not compute the same features again, and the pictures of a
    large one are never in memory all at once.
    """
    keep = session.store.manifest.memory == "images"
    done = 0

    def readable() -> Iterator[Taken]:
        for each in take(session.store, session.extractor, sources, progress):
            if isinstance(each, Skipped):
                skipped.append(each)
            else:
                yield each

    try:
        for chunk in chunks(readable(), _CHUNK):
            fresh = {one.image: one for one in chunk if one.data is not None}
            if fresh:
                session.store.stage([one.to_store(keep_bytes=keep) for one in fresh.values()])
            for one in chunk:
                yield Taken(one.image, one.name, one.label, one.feature, one.norm, None)
            done += len(chunk)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped: nothing was learned and the classifier is as it was; {done} of "
            f"{len(sources)} pictures are prepared, so the same command goes on from there"
        ) from None


def _refuse_contradiction(
    one: Taken,
    label: str,
    present: Mapping[str, Sample],
    items: Mapping[str, Item],
    replace: bool,
) -> None:
    twin = items.get(one.image)
    if twin is not None and twin.sample.label != label:
        raise PinConflict(
            f"{one.name} is to be both {twin.sample.label!r} and {label!r}; it can be one of them"
        )
    earlier = present.get(one.image)
    if earlier is not None and earlier.pinned and earlier.label != label and not replace:
        raise PinConflict(
            f"{one.name} was corrected to {earlier.label!r} by event {earlier.event} and is now to "
            f"be {label!r}; say so with --replace (replace=True), or undo event {earlier.event}"
        )


def _settled(item: Item, present: Mapping[str, Sample], before: Mapping[str, str | None]) -> bool:
    """Whether the picture is corrected to this label already, and answered so."""
    sample, wanted = present.get(item.sample.image), item.sample
    return (
        sample is not None
        and sample.pinned
        and (sample.exception or not wanted.exception)
        and sample.label == wanted.label == before[wanted.image]
    )


def _checked(candidate: State, item: Item, before: Mapping[str, str | None]) -> Correction:
    """The promise of `correct`, checked through the path that `predict` takes."""
    sample = item.sample
    now = answer(candidate.mind, sample.source, sample.image, item.feature, item.norm, top=1).label
    if now != sample.label:
        raise NotCorrected(
            f"{sample.source} would still be answered {now!r} instead of {sample.label!r}, so "
            f"nothing was changed; please report this with the output of `retain verify`"
        )
    return Correction(
        image=sample.image,
        before=before[sample.image],
        after=now,
        label=sample.label,
        pinned=sample.image in candidate.mind.edited,
        source=sample.source,
        exception=sample.image in candidate.mind.exceptions.images,
    )


def _pictures(count: int) -> str:
    return f"{count} picture" if count == 1 else f"{count} pictures"


def _learned(learned: int, relabelled: int, known: int, skipped: int) -> str:
    parts = [f"learned {_pictures(learned)}"] if learned or not relabelled else []
    parts += [f"relabelled {relabelled}"] if relabelled else []
    parts += [f"{known} known already"] if known else []
    parts += [f"{skipped} skipped"] if skipped else []
    return ", ".join(parts)


def _corrected(corrected: Sequence[Correction], settled: bool) -> str:
    if len(corrected) == 1:
        one = corrected[0]
        if settled:
            return f"{one.source} is {one.label!r} already"
        how = "with an edit of the head" if one.pinned else "by learning it"
        if one.exception:
            how = "as an exception: it answers for its own neighbourhood"
        return f"{one.source} is {one.label!r} now ({how}; it was {one.before!r})"
    if settled:
        return f"all {len(corrected)} pictures are corrected already"
    edits, apart = (sum(values) for values in zip(*_ways(corrected), strict=True))
    exceptions = f", {apart} as exceptions" if apart else ""
    return f"corrected {_pictures(len(corrected))}, {edits} with an edit of the head{exceptions}"


def _ways(corrected: Sequence[Correction]) -> list[tuple[bool, bool]]:
    return [(each.pinned, each.exception) for each in corrected]


def _nothing_usable(source: Any, skipped: Sequence[Skipped]) -> str:
    if skipped:
        return (
            f"none of the {len(skipped)} files could be used, so nothing was learned. The first: "
            f"{skipped[0].path}: {skipped[0].reason}"
        )
    return f"no pictures were found in {source!s:.200}, so nothing was learned"
