"""`versions`, `diff`, `promote`, `rollback`: earlier states, and names for them.

A version is the state right after an event. It is not kept but derived from the journal, so a
forgotten picture is gone from all of them, and each is what it would be had it never been there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace

from retain.algebra import REFERENCE, compare
from retain.caches import Mind, State
from retain.comparisons import Diff
from retain.errors import BadOption, CannotUndo, NothingLearned, UnknownEvent
from retain.gate import judge, watch
from retain.jury import Judged
from retain.pairing import Pairs
from retain.refusal import concluded, refuse
from retain.session import Session
from retain.solving import Vectors
from retain.values import Budgets, Change, Update, Version

__all__ = [
    "PRODUCTION",
    "diff",
    "listed",
    "mind_of",
    "number_of",
    "promote",
    "rollback",
    "state_of",
]

PRODUCTION = "production"

_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_UNCHANGING = frozenset({"gate", "protect", "promote", "purge"})


def number_of(session: Session, version: int | str | None) -> int:
    """The event that a version stands for.

    Args:
        session: the classifier.
        version: an event's number, an alias, or ``"latest"`` or None for the state in force.

    Raises:
        UnknownEvent: if it stands for nothing.
    """
    latest = session.store.head_event()
    if version is None or version == "latest":
        return latest
    text = str(version)
    aliases = session.store.rules().aliases
    if text in aliases:
        return aliases[text]
    if text.isdecimal() and len(text) < 19:
        if int(text) > 0:
            session.store.event(int(text))
        return int(text)
    known = ", ".join(sorted(aliases)) or "none yet"
    raise UnknownEvent(
        f"there is no version {text!r}; give an event's number, 'latest', or an alias ({known})"
    )


def state_of(session: Session, version: int | str | None) -> State:
    """The state of a version, as far as it is remembered still."""
    number = number_of(session, version)
    return session.state if number == session.store.head_event() else session.earlier(number)


def mind_of(session: Session, version: int | str | None) -> Mind:
    """What a version answers with."""
    if number_of(session, version) == session.store.head_event():
        return session.mind
    return state_of(session, version).mind


def listed(session: Session) -> list[Version]:
    """See `Classifier.versions`."""
    names: dict[int, list[str]] = {}
    for alias, number in session.store.rules().aliases.items():
        names.setdefault(number, []).append(alias)
    return [
        Version(e.event, e.kind, e.at, e.summary, tuple(sorted(names.get(e.event, ()))))
        for e in session.store.events()
        if e.kind not in _UNCHANGING or e.event in names
    ]


def diff(session: Session, a: int | str, b: int | str | None) -> Diff:
    """See `Classifier.diff`."""
    started = time.perf_counter()
    first, second, now = state_of(session, a), state_of(session, b), session.state
    judges = [i for i, sample in enumerate(now.samples) if sample.label != REFERENCE]
    samples = [now.samples[i] for i in judges]
    before = [answer or None for answer in _answers(session, first, now, judges)]
    after = _answers(session, second, now, judges)
    if samples and second.mind.head is None:
        raise NothingLearned(f"version {b} knows no class yet, so there is nothing to compare")
    found = compare(before, after, [sample.label for sample in samples])

    def changes(indices: Sequence[int]) -> tuple[Change, ...]:
        return tuple(
            Change(samples[i].image, before[i], after[i], samples[i].label, samples[i].source)
            for i in indices
        )

    had, has = _classes(session, first), _classes(session, second)
    return Diff(
        a=first.mind.event,
        b=second.mind.event,
        worse=changes(found.worse),
        better=changes(found.better),
        changed=changes(found.changed),
        judged=len(samples),
        new_classes=tuple(sorted(has - had)),
        gone_classes=tuple(sorted(had - has)),
        seconds=time.perf_counter() - started,
    )


def _answers(session: Session, state: State, now: State, rows: Sequence[int]) -> tuple[str, ...]:
    """What a version answers for pictures of now, by the names that classes have now.

    It looks at them with its own extractor. "" stands for no answer.
    """
    if state.mind.head is None:
        return ("",) * len(rows)
    features, norms = _vectors(session, state, now)
    names = _names(session, state)
    return tuple(names[answer] for answer in state.mind.answers(features[rows], norms[rows]))


def _vectors(session: Session, state: State, now: State) -> Vectors:
    """What a version sees in the pictures of now."""
    if state.mind.era.extractor == now.mind.era.extractor:
        return now.features, now.norms
    return session.vectors(state.mind.era, [sample.image for sample in now.samples])


def _classes(session: Session, state: State) -> set[str]:
    return set(_names(session, state).values())


def _names(session: Session, state: State) -> dict[str, str]:
    """Names of a version's classes → their names now: renamed since, and named back by an undo."""
    if state.mind.head is None:
        return {}
    then = list(session.store.preview(at=state.mind.event).rules.renames)
    now = list(session.store.rules().renames)
    while then and now and then[0] == now[0]:
        del then[0], now[0]
    head = session.mind.head
    present = set(head.classes) if head else set()
    names = {}
    for label in state.mind.head.classes:
        name = label
        for old, new in reversed(then):
            # Two classes that were one for a while cannot be told apart; its name stands.
            name = old if name == new and new not in present else name
        for old, new in now:
            name = new if name == old else name
        names[label] = name
    return names


def promote(
    session: Session, version: int | str | None, alias: str, *, force: bool, dry_run: bool
) -> Update:
    """See `Classifier.promote`."""
    started = time.perf_counter()
    _checked_alias(alias)
    with session.writing("promote", dry_run=dry_run):
        number = number_of(session, version)
        rules = session.store.rules()
        present = rules.aliases.get(alias)
        update = Update(None, "promote", f"{alias} is version {number} now")
        if present is not None and present != number:
            before, after = state_of(session, present), state_of(session, number)
            had = {sample.image for sample in before.samples}
            before_now, after_now = _seen(session, before), _seen(session, after)
            verdict = judge(
                Pairs.of(before_now, _held(before_now, after_now)),
                (_judged(session, before), _judged(session, after)),
                Budgets(**rules.budgets),
                protected=rules.protected,
                # What only the new one was taught is no test of it.
                changed={s.image for s in after.samples} - had,
            )
            update = replace(update, verdict=verdict)
        elif present == number:
            return replace(update, summary=f"{alias} is version {number} already")
        event = None
        if not dry_run:
            if not force:
                refuse(update)
            event = session.decree("promote", detail={"alias": alias, "version": number})
    return concluded(update, event, started)


def rollback(session: Session, alias: str, *, force: bool, dry_run: bool) -> Update:
    """See `Classifier.rollback`."""
    started = time.perf_counter()
    _checked_alias(alias)
    with session.writing("rollback", dry_run=dry_run):
        past = [
            (entry.detail["alias"], int(entry.detail["version"]), bool(entry.detail.get("back")))
            for entry in session.store.promotions()
        ]
        trail: list[int] = []
        for name, number, back in past:
            if name != alias:
                continue
            if back and number in trail:
                del trail[len(trail) - trail[::-1].index(number) :]
            elif back:
                trail[-1:] = [number]
            else:
                trail.append(number)
        if len(trail) < 2:
            now = f"version {trail[0]}, the first on its trail" if trail else "no version yet"
            raise CannotUndo(
                f"{alias} stands for {now}, so there is nothing to go back to; let it stand for "
                f"another with `retain promote` (see `retain versions`)"
            )
        before, after = (_seen(session, state_of(session, each)) for each in trail[:-3:-1])
        verdict = watch(Pairs.of(before, after), protected=session.store.rules().protected)
        summary = f"{alias} is version {trail[-2]} again (it was {trail[-1]})"
        update = Update(None, "rollback", summary, verdict=verdict)
        event = None
        if not dry_run:
            if not force:
                refuse(update)
            detail = {"alias": alias, "version": trail[-2], "back": True}
            event = session.decree("promote", detail=detail)
    return concluded(update, event, started)


def _judged(session: Session, state: State) -> Judged:
    """What a version answers for its members left out: those that are called now as they were."""
    found, names, now = session.judged(state), _names(session, state), session.state
    kept = set()
    for image in found.answers:
        then, sample = state.sample(image), now.sample(image)
        if then is not None and sample is not None and names[then.label] == sample.label:
            kept.add(image)
    return Judged(
        {image: names[label] for image, label in found.answers.items() if image in kept},
        {image: loss for image, loss in found.losses.items() if image in kept},
        {image: score for image, score in found.scores.items() if image in kept},
    )


def _seen(session: Session, state: State) -> State:
    """A version on what is remembered now, whatever was remembered then, by the names of now."""
    now, mind = session.state, state.mind
    if mind.head is not None:
        names = _names(session, state)
        classes = tuple(names[label] for label in mind.head.classes)
        mind = replace(mind, head=replace(mind.head, classes=classes))
    answers = _answers(session, state, now, range(len(now.samples)))
    features, norms = _vectors(session, state, now)
    return replace(
        state,
        mind=mind,
        samples=now.samples,
        rows=now.rows,
        features=features,
        norms=norms,
        answers=answers,
    )


def _held(before: State, after: State) -> State:
    """The second, in which those corrections are pins that the first keeps."""
    pairs = zip(after.samples, before.answers, strict=True)
    kept = tuple(replace(s, pinned=s.pinned and answer == s.label) for s, answer in pairs)
    return replace(after, samples=kept)


def _checked_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias) or alias == "latest":
        raise BadOption(
            f"{alias!r} cannot be an alias; use a letter and then letters, digits, '.', '_' or '-' "
            f"(64 at most), and not 'latest'"
        )
