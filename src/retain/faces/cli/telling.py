"""What the commands say of a change: what it did, what the gate found, what else changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from retain.errors import GateRefused
from retain.faces.cli.output import Column, emit_json, line, note, table
from retain.faces.text import clean, counted
from retain.values import Change, Update, Verdict, to_json

if TYPE_CHECKING:
    from retain.comparisons import Diff

__all__ = [
    "headline",
    "told_changes",
    "told_classes",
    "told_groups",
    "told_refusal",
    "told_verdict",
]

_LISTED = 10
_DECIMALS_BELOW = 10.0


def headline(update: Update, *, dry_run: bool = False) -> None:
    """The one sentence of an update, and how long it took."""
    would = "dry run, nothing is written: " if dry_run else ""
    digits = 2 if update.seconds < _DECIMALS_BELOW else 1
    line(f"{would}{clean(update.summary)} ({update.seconds:.{digits}f} s)", style="bold")


def told_verdict(verdict: Verdict | None, *, always: bool = False) -> None:
    """What the gate said, if it refused, or if that was asked for."""
    if verdict is None or (verdict.passed and not always):
        return
    said = "the gate agrees" if verdict.passed else "the gate refuses"
    line(f"{said}{'; forced' if verdict.forced else ''}", style="" if verdict.passed else "red")
    for check in sorted(verdict.checks, key=lambda each: each.passed):
        line(f"  {'ok' if check.passed else 'NO'}  {clean(check.sentence)}")
    if verdict.suspects:
        line("labels to look at")
        table(
            [Column("picture", narrow="end"), Column("labelled"), Column("looks like")],
            [
                (each.source or each.image[:19], each.label, each.looks_like)
                for each in verdict.suspects[:_LISTED]
            ],
        )


def told_refusal(error: GateRefused, *, as_json: bool) -> None:
    """Why the gate refuses and what can be done: as a list on stderr, as JSON on stdout."""
    verdict, update = error.verdict, error.update
    if as_json and isinstance(update, Update):
        emit_json({**to_json(update), "refused": True, "choices": list(error.choices)})
    if not isinstance(verdict, Verdict):
        note(clean(error))
        return
    note("the gate refuses, and nothing has changed")
    for check in verdict.checks:
        if not check.passed:
            note(f"  NO  {clean(check.sentence)}", style="red")
    if verdict.suspects:
        note("labels to look at")
    for each in verdict.suspects[:_LISTED]:
        where = clean(each.source or each.image[:19])
        note(f"  {where}: labelled {each.label!r}, looks like {each.looks_like!r}")
    if len(verdict.suspects) > _LISTED:
        note(f"  … and {len(verdict.suspects) - _LISTED} more; --json lists them all")
    note("what you can do")
    for choice in error.choices:
        note(f"  - {choice}")


def told_classes(change: Update | Diff) -> None:
    """Which classes came, and which went."""
    for title, classes in (("new", change.new_classes), ("gone", change.gone_classes)):
        if classes:
            line(f"{title}: {', '.join(clean(each) for each in classes)}")


def told_changes(update: Update) -> None:
    """What else changed, the worse first; nothing is said plainly."""
    # What was answered by a class that is gone got another name, which is no gain.
    named = [each for each in update.better if each.before in update.gone_classes]
    groups: list[tuple[str, str, Sequence[Change]]] = [
        ("worse", "red", update.worse),
        ("better", "green", [e for e in update.better if e.before not in update.gone_classes]),
        ("otherwise wrong", "yellow", update.changed),
    ]
    for (old, new), count in Counter((each.before, each.after) for each in named).items():
        line(
            f"by another name: {counted(count, 'remembered picture')}, {clean(old)} → {clean(new)}"
        )
    if named or any(changes for *_, changes in groups):
        told_groups(groups)
    elif update.event is not None and update.kind != "rename":
        line("no other remembered picture is answered differently")


def told_groups(groups: Iterable[tuple[str, str, Sequence[Change]]], listed: int = _LISTED) -> None:
    """Remembered pictures whose answer changed: a title, its colour, and the pictures, each."""
    for title, style, changes in groups:
        if not changes:
            continue
        line(f"{title}: {counted(len(changes), 'remembered picture')}", style=style)
        table(
            [Column("picture", narrow="end"), Column("before"), Column("now"), Column("taught as")],
            [
                (each.source or each.image[:19], each.before, each.after, each.label)
                for each in changes[:listed]
            ],
        )
        if len(changes) > listed:
            line(f"… and {len(changes) - listed} more; --json lists them all")
