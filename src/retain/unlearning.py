"""`forget`, `purge`, `undo`, `rename`, `merge`: how pictures go, and events are taken back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from retain.caches import State
from retain.errors import BadLabel, BadOption, InputError, UnknownClass
from retain.intake import checked_label, named, quoted
from retain.pairing import differences
from retain.projection import born, restated
from retain.refusal import concluded, forced, refuse
from retain.session import Session
from retain.store import Plan
from retain.store.beside import erase_asked
from retain.values import Receipt, Sample, Update

__all__ = ["forget", "lists", "merge", "purge", "rename", "selected", "undo"]

# Said where others were reading for so long that not everything could be erased.
_LEFT = (
    "; others are reading, so traces are still in journal.db or in the log beside it: the next "
    "command that changes this classifier erases them first"
)


def lists(
    images: Sequence[str] | str, labels: Sequence[str] | str, events: Sequence[int] | int
) -> tuple[list[str], list[str], list[int]]:
    """Pictures, classes and events, each named by one or by many."""
    return (
        [images] if isinstance(images, str) else list(images),
        [labels] if isinstance(labels, str) else list(labels),
        [events] if isinstance(events, int) else list(events),
    )


def selected(
    session: Session,
    images: Sequence[str],
    labels: Sequence[str],
    events: Sequence[int],
) -> list[Sample]:
    """The members that a request to forget means.

    Raises:
        InputError: if it means none; UnknownImage, UnknownClass or UnknownEvent for a name that
            stands for nothing.
    """
    if not (images or labels or events):
        raise InputError("say what to forget: pictures, --label or --event")
    samples = {sample.image: sample for sample in session.store.members()}
    chosen: dict[str, Sample] = {}
    for text in images:
        sample = named(session.store, text, kept=True)
        chosen[sample.image] = sample
    for label in labels:
        wanted = checked_label(label)
        found = [sample for sample in samples.values() if sample.label == wanted]
        if not found and wanted in _classes(session):
            raise UnknownClass(
                f"no picture of {wanted!r} is remembered: the class was adopted, with a row of "
                f"weights and no pictures"
            )
        if not found:
            raise UnknownClass(_unknown(wanted, _classes(session)))
        chosen.update((sample.image, sample) for sample in found)
    for event in events:
        session.store.event(event)
        # What an undone event speaks of is kept for redoing; it can be forgotten all the same.
        spoken = session.store.assertions(event)
        chosen.update((each.image, samples.get(each.image, each)) for each in spoken)
    if not chosen:
        raise InputError("the events named speak of no picture that is still kept")
    return sorted(chosen.values(), key=lambda sample: sample.image)


def forget(
    session: Session,
    images: Sequence[str],
    labels: Sequence[str],
    events: Sequence[int],
    *,
    force: bool,
    dry_run: bool,
) -> Receipt:
    """See `Classifier.forget`."""
    started = time.perf_counter()
    with session.writing("forget", dry_run=dry_run):
        chosen = selected(session, images, labels, events)
        gone = [sample.image for sample in chosen]
        state = session.state
        plan = session.store.preview(without=gone)
        number = session.store.head_event() + 1
        candidate = restated(
            session.store, state, number, plan.members, plan.lesson, plan.rules.renames
        )
        verdict = session.verdict(candidate)
        trained = session.store.trained(gone)
        event, erased, traces = None, 0, False
        if not dry_run:
            if not force:
                refuse(Update(None, "forget", "", verdict=verdict))
            # The caches hold sums that contain the pictures, and a server's desk may hold the
            # pictures: they go first, so that no crash can leave them behind.
            session.store.clear_caches()
            erase_asked(session.store.path, gone)
            event, erased = session.store.forget(gone)
            # What a training saved in between, before it could know.
            session.store.clear_caches()
            traces = session.store.unerased
            session.adopt(candidate, statistics=True)
    before, now = (set(s.mind.head.classes) if s.mind.head else set() for s in (state, candidate))
    said = "would forget" if event is None else "forgot"
    return Receipt(
        event=event,
        images=len(gone),
        labels=tuple(sorted({sample.label for sample in chosen})),
        gone_classes=tuple(sorted(before - now)),
        level="none" if event is None else "pending" if trained or traces else "exact",
        bytes_erased=erased,
        digest=candidate.statistics.digest,
        summary=f"{said} {len(gone)} {'picture' if len(gone) == 1 else 'pictures'} for good"
        + _pending(trained)
        + _LEFT * traces,
        verdict=verdict if event is None else forced(verdict),
        seconds=time.perf_counter() - started,
        pending=tuple(trained),
        traces=traces,
    )


def _pending(trained: Mapping[int, int]) -> str:
    """What is to be said where extractors were trained with what is forgotten."""
    if not trained:
        return ""
    told = " and ".join(f"that of event {event} with {n} of them" for event, n in trained.items())
    return (
        f"; extractors that are still kept were trained with them, {told}: to train one without, "
        f"retain adapt, and to erase these, retain purge"
    )


def purge(session: Session, *, force: bool, dry_run: bool) -> Receipt:
    """See `Classifier.purge`."""
    started, store = time.perf_counter(), session.store
    with store.adapting(), session.writing("purge", dry_run=dry_run):
        debts = store.owed()
        now, others = store.era, store.every_era()
        tainted = {era.extractor for era in others if era.number in debts}
        gone = [era for era in others if era.number and era.extractor in tainted]
        if now.number in {era.number for era in gone}:
            raise BadOption(
                f"the extractor in force, of event {now.number}, was itself trained with "
                f"{_pictures(debts[now.number])} forgotten since: train one without first (retain "
                f"adapt), or go back to the one before (retain undo), and purge then"
            )
        versions = _versions_of(session, [era.number for era in gone])
        aliases = sorted(name for name, at in store.rules().aliases.items() if at in versions)
        if aliases and not (force or dry_run):
            raise BadOption(
                f"{' and '.join(aliases)} {'is' if len(aliases) == 1 else 'are'} answered by an "
                f"extractor that would go; let it stand for another version first (retain "
                f"promote), or purge with --force (force=True) and let it be answered by the "
                f"extractor before"
            )
        event, erased, traces = None, 0, False
        if gone and not dry_run:
            known = {image for era in gone for image in store.known(era)}
            for era in others:
                # Those before them answer their versions, so they must have seen the pictures.
                if era not in gone and era.number < gone[-1].number:
                    session.fill(era, known)
            store.clear_caches()
            event, erased = store.purge([era.number for era in gone])
            traces = store.unerased
    count = sum(debts.values())
    return Receipt(
        event=event,
        images=count,
        labels=(),
        gone_classes=(),
        level="none" if event is None else "pending" if traces else "rebuilt",
        bytes_erased=erased,
        digest=session.state.statistics.digest,
        summary=_purged([era.number for era in gone], versions, aliases, count, done=bool(event))
        + _LEFT * traces,
        seconds=time.perf_counter() - started,
        pending=tuple(era.number for era in gone) if event is None else (),
        traces=traces,
    )


def _versions_of(session: Session, eras: Sequence[int]) -> list[int]:
    """The versions that the extractors of these `adapt` events answer."""
    events = [each.event for each in session.store.events()]
    since = [number for number in events if eras and number >= min(eras)]
    return [number for number in since if session.store.preview(at=number).era.number in eras]


def _purged(
    eras: Sequence[int],
    versions: Sequence[int],
    aliases: Sequence[str],
    count: int,
    *,
    done: bool,
) -> str:
    if not eras:
        return "no extractor was trained with a picture that is forgotten: nothing to purge"
    which = f"of event {', '.join(map(str, eras))}, trained with {_pictures(count)} forgotten since"
    many = "extractors" if len(eras) > 1 else "extractor"
    told = f"{'purged' if done else 'would purge'} the {many} {which}"
    if versions:
        rows = ", ".join(map(str, versions))
        names = f" ({', '.join(aliases)})" if aliases else ""
        plural = "s" if len(versions) > 1 else ""
        verb = "is" if done else "would be"
        told += f"; version{plural} {rows}{names} {verb} answered by the extractor before"
    return told


def _pictures(count: int) -> str:
    return "1 picture that is" if count == 1 else f"{count} pictures that are"


def undo(session: Session, event: int | None, *, force: bool, dry_run: bool) -> Update:
    """See `Classifier.undo`."""
    started = time.perf_counter()
    with session.writing("undo", dry_run=dry_run):
        target = session.store.last_undoable() if event is None else event
        kind = session.store.event(target).kind
        return _rewritten(
            session,
            "undo",
            f"took back event {target} ({kind})",
            started,
            target=target,
            force=force,
            dry_run=dry_run,
        )


def rename(session: Session, old: str, new: str) -> Update:
    """See `Classifier.rename`."""
    started = time.perf_counter()
    with session.writing("rename"):
        old, new = _names(session, old, new)
        if new in _classes(session):
            raise BadLabel(f"there is a class {new!r} already; use merge to join the two")
        detail = {"old": old, "new": new}
        return _rewritten(session, "rename", f"renamed {old!r} to {new!r}", started, detail=detail)


def merge(session: Session, old: str, into: str, *, force: bool, dry_run: bool) -> Update:
    """See `Classifier.merge`."""
    started = time.perf_counter()
    with session.writing("merge", dry_run=dry_run):
        old, into = _names(session, old, into)
        known = _classes(session)
        if into not in known:
            raise UnknownClass(
                f"there is no class {into!r} to merge into; use rename to give a new name"
            )
        adopted = session.start
        if adopted is not None and {old, into} <= set(adopted.classes):
            raise BadLabel(
                f"{old!r} and {into!r} were adopted with a row of weights each, which cannot be "
                f"made one; rename them alike in whatever reads the answers"
            )
        detail = {"old": old, "new": into}
        summary = f"merged {old!r} into {into!r}"
        return _rewritten(
            session, "merge", summary, started, detail=detail, force=force, dry_run=dry_run
        )


def _rewritten(
    session: Session,
    kind: str,
    summary: str,
    started: float,
    *,
    target: int | None = None,
    detail: dict[str, str] | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Update:
    state = session.state
    plan = session.store.preview(kind, target=target, detail=detail)
    candidate = _leading_to(session, state, plan)
    labels = {sample.image: sample.label for sample in state.samples}
    found = differences(state, candidate)
    if kind == "rename":
        # Every answer with the old name differs, and yet nothing has changed.
        found["worse"] = found["better"] = found["changed"] = ()
    verdict = None
    if kind != "rename":
        renamed = {detail["old"]: detail["new"]} if detail else {}
        verdict = session.watch(candidate, plan.rules.protected, renamed)
    update = Update(
        event=None,
        kind=kind,
        summary=summary,
        learned=sum(sample.image not in labels for sample in candidate.samples),
        relabelled=sum(
            labels.get(sample.image, sample.label) != sample.label for sample in candidate.samples
        ),
        **found,
        verdict=verdict,
    )
    event = None
    if not dry_run:
        if not force:
            refuse(update)
        event = session.store.append(kind, (), target=target, detail=detail)
        session.adopt(candidate, statistics=True)
    return concluded(update, event, started)


def _leading_to(session: Session, state: State, plan: Plan) -> State:
    """The state of a plan, once its era's extractor has seen every picture that comes back."""
    store, number = session.store, state.mind.event + 1
    if plan.era != state.mind.era:
        session.eyes_of(plan.era)  # nothing may be put in force that cannot be used
        session.fill(plan.era, [sample.image for sample in plan.members])
        return born(store, number, plan)
    back = [sample.image for sample in plan.members if sample.image not in state.rows]
    session.fill(plan.era, back)
    return restated(store, state, number, plan.members, plan.lesson, plan.rules.renames)


def _names(session: Session, old: str, new: str) -> tuple[str, str]:
    old, new = checked_label(old), checked_label(new)
    known = _classes(session)
    if old not in known:
        raise UnknownClass(_unknown(old, known))
    if old == new:
        raise BadLabel(f"the class is called {old!r} already")
    return old, new


def _classes(session: Session) -> set[str]:
    head = session.state.mind.head
    return set(head.classes) if head else set()


def _unknown(label: str, known: set[str]) -> str:
    return f"there is no class {label!r}; the classes are: {quoted(known)}"
