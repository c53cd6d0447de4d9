"""`correct`: what a picture is said to be, it is from then on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as replaced
from typing import Any

from retain.answers import answer
from retain.caches import State
from retain.errors import InputError, NotCorrected, PinConflict
from retain.intake import Taken, checked_label, resolve
from retain.ladder import Climbed, climb
from retain.pairing import differences
from retain.projection import Item
from retain.refusal import concluded, refuse
from retain.session import Session
from retain.teaching import pictures
from retain.values import Correction, Progress, Sample, Update

__all__ = ["correct", "what_if"]


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
    with session.writing("correct", dry_run=dry_run):
        state = session.state
        eyes = session.eyes_of(state.mind.era)
        taken: dict[str, Taken] = {}
        items: dict[str, Item] = {}
        for done, (image, label) in enumerate(pairs, 1):
            one = resolve(session.store, eyes, image)
            earlier = state.sample(one.image)
            _refuse_contradiction(one, label, earlier, items, replace)
            name = one.name if earlier is None else earlier.source
            taken[one.image] = one
            kept = earlier is not None and earlier.protected
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
        settled = all(_settled(item, state, before) for item in items.values())
        climbed = None if settled else _climbed(session, state, items, before, exception, force)
        candidate = state if climbed is None else climbed.state
        corrected = tuple(_checked(candidate, item, before) for item in items.values())
        update = Update(
            event=None,
            kind="correct",
            summary=_corrected(corrected, settled),
            learned=sum(image not in state.rows for image in items),
            relabelled=sum(
                (earlier := state.sample(image)) is not None and earlier.label != item.sample.label
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
                refuse(update)
            fresh = [one for image, one in taken.items() if image not in state.rows]
            items = {image: _marked(item, climbed.rung) for image, item in items.items()}
            event = session.commit("correct", candidate, items.values(), fresh)
    return concluded(update, event, started)


def what_if(session: Session, state: State, one: Taken, label: str) -> Update:
    """What correcting a picture to `label` would do; nothing is written, and no lock is taken.

    The picture was looked at with the extractor of `state`.

    Raises:
        PinConflict, NotCorrected: if it cannot be done.
    """
    _refuse_contradiction(one, label, state.sample(one.image), {}, True)
    sample = Sample(one.image, label, True, 0, one.name)
    items = {one.image: Item(sample, one.feature, one.norm)}
    vector = one.feature, one.norm
    before = {one.image: answer(state.mind, one.name, one.image, *vector, top=1).label}
    climbed = _climbed(session, state, items, before, exception=False, force=False)
    corrected = (_checked(climbed.state, items[one.image], before),)
    found = differences(state, climbed.state, frozenset(items))
    return Update(None, "correct", "", corrected=corrected, **found, verdict=climbed.verdict)


def _climbed(
    session: Session,
    now: State,
    items: Mapping[str, Item],
    before: Mapping[str, str | None],
    exception: bool,
    force: bool,
) -> Climbed:
    """The state that corrections lead to: by an edit, or, where that is refused, as exceptions."""

    def to(rung: str) -> State:
        marked = [_marked(item, rung) for item in items.values()]
        state = session.candidate(marked, lesson=False, before=now)
        new = state.yielding - (now.yielding - items.keys())
        if rung == "pin" and state.conflict and (new or not now.conflict):
            raise PinConflict(state.conflict)
        for item in marked:
            _checked(state, item, before)
        return state

    rungs = ["exception"] if exception else ["pin", "exception"]
    return climb(
        [(rung, lambda rung=rung: to(rung)) for rung in rungs],  # type: ignore[misc]
        lambda rung, state: session.verdict(
            state,
            changed=items,
            edits=len(items) if rung == "pin" else 0,
            before=now,
        ),
        force=force,
    )


def _marked(item: Item, rung: str) -> Item:
    sample = replaced(item.sample, exception=rung == "exception")
    return replaced(item, sample=sample)


def _refuse_contradiction(
    one: Taken,
    label: str,
    earlier: Sample | None,
    items: Mapping[str, Item],
    replace: bool,
) -> None:
    twin = items.get(one.image)
    if twin is not None and twin.sample.label != label:
        raise PinConflict(
            f"{one.name} is to be both {twin.sample.label!r} and {label!r}; it can be one of them"
        )
    if earlier is not None and earlier.pinned and earlier.label != label and not replace:
        raise PinConflict(
            f"{one.name} was corrected to {earlier.label!r} by event {earlier.event} and is now to "
            f"be {label!r}; say so with --replace (replace=True), or undo event {earlier.event}"
        )


def _settled(item: Item, state: State, before: Mapping[str, str | None]) -> bool:
    """Whether the picture is corrected to this label already, and answered so."""
    sample, wanted = state.sample(item.sample.image), item.sample
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
    return f"corrected {pictures(len(corrected))}, {edits} with an edit of the head{exceptions}"


def _ways(corrected: Sequence[Correction]) -> list[tuple[bool, bool]]:
    return [(each.pinned, each.exception) for each in corrected]
