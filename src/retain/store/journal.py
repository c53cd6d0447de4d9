"""Who is a member, with which label, since when: the replay of events, and nothing else.

An event asserts labels of pictures (`learn`, `correct`), maps one label to another at that point
(`rename`, `merge`), takes an earlier event back (`undo`), or records that pictures were forgotten.
`reference` takes pictures in without a label, `protect` marks pictures and classes that must never
get worse, `gate` sets the budgets that changes are held to, and `promote` lets an alias stand for
the state right after some event. `adapt` puts another extractor in the place of the one before;
what follows, until the next that is active, is its era; after a `purge` some are as if they had
never been. An event that an active `undo` names is not active; an undo may itself be taken back.
Membership is what the active events say, in order; the last word on a picture counts. Forgotten
pictures have no rows left, so a replay cannot meet them.

A *lesson* is an active `learn` or `reference` that still says something, or a `correct` that leaves
the membership a quarter larger than the lesson before it did. What was a member, and as what, right
after the last lesson decides how the head is tuned; a class renamed or merged later bears its new
name there too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retain.errors import CannotUndo, UnknownEvent
from retain.values import Event, Sample

__all__ = [
    "EXCEPTION",
    "GROWTH",
    "PINNED",
    "PROTECTED",
    "Assertion",
    "Entry",
    "Era",
    "Plan",
    "Replay",
    "Rules",
    "active",
    "adapts",
    "era",
    "followed",
    "owed",
    "promotions",
    "replay",
    "rules",
    "told",
    "undoable",
]

GROWTH = 1.25

# The marks of a picture, as bits of the column ``pinned``.
PINNED, EXCEPTION, PROTECTED = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Assertion:
    """What an event says of one picture: its content hash, its label, and its marks."""

    image: str
    label: str
    pinned: bool = False
    exception: bool = False
    protected: bool = False

    @property
    def marks(self) -> int:
        """The three marks as bits."""
        return PINNED * self.pinned | EXCEPTION * self.exception | PROTECTED * self.protected


@dataclass(frozen=True, slots=True)
class Rules:
    """What the owner decreed, apart from labels.

    Attributes:
        budgets: the numbers that the gate holds changes to, where they are not the defaults.
        protected: classes that must never get worse.
        aliases: name → the event whose state it stands for.
        renames: (old, new) labels of classes, oldest first.
    """

    budgets: Mapping[str, Any] = field(default_factory=dict)
    protected: frozenset[str] = frozenset()
    aliases: Mapping[str, int] = field(default_factory=dict)
    renames: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Era:
    """Which extractor is in force, and since when.

    Attributes:
        number: the `adapt` that it began with; 0 for the one that the classifier was made with.
        extractor: the fingerprint of what turns pictures into features.
        dimension: how many numbers a feature has.
        start: SHA-256 of the adopted layer that goes with it; None where nothing was adopted.
        key: the number under which its features are kept; 0 for those of the first extractor.
    """

    number: int
    extractor: str
    dimension: int
    start: str | None = None
    key: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A membership: the samples sorted by hash, image → label at the last lesson, rules and era."""

    members: tuple[Sample, ...]
    lesson: Mapping[str, str]
    rules: Rules
    era: Era


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the journal: `target` for undo, `detail` as it was written, `actor` who did it."""

    id: int
    kind: str
    at: str
    target: int | None
    detail: Mapping[str, Any]
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """Membership by row number: picture → (label, marks, event), now and at the last lesson."""

    members: Mapping[int, tuple[str, int, int]]
    lesson: Mapping[int, str]
    rules: Rules = field(default_factory=Rules)


Said = Mapping[int, Sequence[tuple[int, str, int]]]
"""Event → what it says: (picture, label, marks)."""


def active(entries: Sequence[Entry]) -> dict[int, int]:
    """The events taken back: event → the active undo that did it."""
    undone: dict[int, int] = {}
    for entry in reversed(entries):
        if entry.kind == "undo" and entry.target is not None and entry.id not in undone:
            undone[entry.target] = entry.id
    return undone


def replay(entries: Sequence[Entry], said: Said, without: Collection[int] = ()) -> Replay:
    """Membership after `entries`, as if the pictures `without` had never been."""
    undone = active(entries)
    members: dict[int, tuple[str, int, int]] = {}
    lesson: dict[int, str] = {}
    size = 0
    for entry in entries:
        if entry.id in undone:
            continue
        if entry.kind in {"learn", "correct", "reference"}:
            rows = [row for row in said.get(entry.id, ()) if row[0] not in without]
            for image, label, marks in rows:
                # Protection is what `protect` says and nobody else, so that it can be taken back.
                guarded = members[image][1] & PROTECTED if image in members else 0
                members[image] = label, marks & ~PROTECTED | guarded, entry.id
            grown = len(members) >= GROWTH * size
            if rows and (entry.kind != "correct" or grown):
                lesson = {image: label for image, (label, _, _) in members.items()}
                size = len(members)
        elif entry.kind in {"rename", "merge"}:
            old, new = entry.detail["old"], entry.detail["new"]
            for image, (label, marks, _) in members.items():
                if label == old:
                    members[image] = new, marks, entry.id
            lesson = {image: new if label == old else label for image, label in lesson.items()}
        elif entry.kind == "protect":
            for image, _, marks in said.get(entry.id, ()):
                if image in members:
                    label, earlier, event = members[image]
                    members[image] = label, earlier & ~PROTECTED | marks & PROTECTED, event
    return Replay(members, lesson, rules(entries))


def era(entries: Sequence[Entry]) -> Entry | None:
    """The `adapt` whose extractor is in force after `entries`; None where it is the first one."""
    undone = active(entries)
    left = (each for each in reversed(adapts(entries)) if each.id not in undone)
    return next(left, None)


def adapts(entries: Iterable[Entry]) -> list[Entry]:
    """The `adapt` events whose extractor is still kept, also those taken back, oldest first."""
    return [each for each in entries if each.kind == "adapt" and not each.detail.get("purged")]


def owed(entries: Sequence[Entry]) -> dict[int, int]:
    """Event of an `adapt` → how many pictures its extractor was trained with and are forgotten."""
    found: dict[int, int] = {}
    kept = {entry.id for entry in adapts(entries)}
    for entry in entries:
        debts = entry.detail.get("trained", {}) if entry.kind == "forget" else {}
        if entry.kind == "adapt" and entry.detail.get("forgotten"):
            debts = {entry.id: entry.detail["forgotten"]}
        for event, count in debts.items():
            if int(event) in kept:
                found[int(event)] = found.get(int(event), 0) + int(count)
    return found


def rules(entries: Sequence[Entry]) -> Rules:
    """What the owner decreed in `entries`, apart from labels."""
    undone = active(entries)
    budgets: dict[str, Any] = {}
    protected: frozenset[str] = frozenset()
    aliases: dict[str, int] = {}
    renames: list[tuple[str, str]] = []
    for entry in entries:
        if entry.id in undone:
            continue
        if entry.kind in {"rename", "merge"}:
            old, new = entry.detail["old"], entry.detail["new"]
            protected = frozenset(new if label == old else label for label in protected)
            renames.append((old, new))
        elif entry.kind == "protect":
            classes = frozenset(entry.detail.get("classes", ()))
            protected = protected - classes if entry.detail.get("off") else protected | classes
        elif entry.kind == "gate":
            budgets = {**budgets, **entry.detail}
        elif entry.kind == "promote":
            aliases[entry.detail["alias"]] = entry.detail["version"]
    return Rules(budgets, protected, aliases, tuple(renames))


def promotions(entries: Sequence[Entry]) -> list[Entry]:
    """The active events that made an alias stand for a version, oldest first."""
    undone = active(entries)
    return [each for each in entries if each.kind == "promote" and each.id not in undone]


def undoable(entries: Sequence[Entry], said: Said, target: int | None) -> Entry:
    """The event that `undo` means.

    Raises:
        UnknownEvent: if there is none of that number.
        CannotUndo: if it cannot be taken back; the message says why and what can.
    """
    undone = active(entries)
    if target is None:
        left = [e for e in entries if e.id not in undone and e.kind not in ("undo", "purge")]
        left = [e for e in left if not e.detail.get("purged")]
        if not left:
            raise CannotUndo("there is nothing to undo")
        found = left[-1]
        if found.kind == "forget":
            raise CannotUndo(
                f"the last event ({found.id}) forgot pictures, and forgetting is for good; to take "
                f"back an earlier event, name it: see `retain log`"
            )
    else:
        by_id = {entry.id: entry for entry in entries}
        if target not in by_id:
            raise unknown(target, entries[-1].id if entries else 0)
        found = by_id[target]
    if found.kind == "forget":
        raise CannotUndo(f"event {found.id} forgot pictures, and forgetting is for good")
    if found.kind == "purge":
        raise CannotUndo(f"event {found.id} purged extractors, and that is for good")
    if found.kind == "adapt" and found.detail.get("purged"):
        raise CannotUndo(
            f"the extractor of event {found.id} was purged by event {found.detail['purged']}, so "
            f"it is as if it had never been"
        )
    if found.id in undone:
        by = undone[found.id]
        raise CannotUndo(
            f"event {found.id} was taken back by event {by} already; to bring it back, undo "
            f"event {by}"
        )
    if found.kind in {"learn", "correct", "reference"} and not said.get(found.id):
        raise CannotUndo(
            f"nothing is left of event {found.id}: every picture it speaks of was forgotten"
        )
    return found


def followed(
    entries: Sequence[Entry],
    said: Said,
    kind: str | None,
    target: int | None,
    detail: Mapping[str, Any] | None,
) -> list[Entry]:
    """The journal as it would be after one more event; as it is for no kind."""
    if kind is None:
        return list(entries)
    if kind == "undo":
        target = undoable(entries, said, target).id
    number = entries[-1].id + 1 if entries else 1
    return [*entries, Entry(number, kind, "", target, detail or {})]


def unknown(number: int, last: int) -> UnknownEvent:
    """The error for a number that no event has."""
    there = f"events go from 1 to {last}" if last else "the journal is empty"
    return UnknownEvent(f"there is no event {number}; {there}")


def told(entries: Sequence[Entry], labels: Mapping[int, Mapping[str, int]]) -> list[Event]:
    """The journal for people; `labels` are event → label → how many pictures it gives it to."""
    undone, debts = active(entries), owed(entries)
    kinds = {entry.id: entry.kind for entry in entries}
    return [
        described(e, labels.get(e.id, {}), kinds, undone.get(e.id), debts.get(e.id, 0))
        for e in entries
    ]


def described(
    entry: Entry,
    labels: Mapping[str, int],
    kinds: Mapping[int, str],
    undone: int | None,
    debt: int = 0,
) -> Event:
    """An entry for people: counts and labels of what is still remembered, never a file's name."""
    count = sum(labels.values())
    pictures = f"{count} picture" if count == 1 else f"{count} pictures"
    what = repr(next(iter(labels))) if len(labels) == 1 else f"{len(labels)} classes"
    if entry.kind == "learn":
        summary = f"learned {pictures} of {what}" if count else "learned pictures since forgotten"
    elif entry.kind == "correct":
        summary = (
            f"corrected {pictures} to {what}" if count else "corrected pictures since forgotten"
        )
    elif entry.kind == "undo":
        summary = f"took back event {entry.target} ({kinds[entry.target or 0]})"
    elif entry.kind == "forget":
        gone = entry.detail["images"]
        summary = f"forgot {gone} {'picture' if gone == 1 else 'pictures'}"
        if eras := sorted(map(int, entry.detail.get("trained", {}))):
            summary += f", with which the extractor of event {_listed(eras)} was trained"
    elif entry.kind == "reference":
        summary = f"took {pictures} as reference" if count else "took pictures since forgotten"
    elif entry.kind == "protect":
        names = [f"class {label!r}" for label in entry.detail.get("classes", ())]
        named = ", ".join([pictures] * bool(count) + names) or "pictures since forgotten"
        summary = f"{'no longer protects' if entry.detail.get('off') else 'protects'} {named}"
    elif entry.kind == "gate":
        summary = "set budgets: " + ", ".join(f"{k} {v}" for k, v in entry.detail.items())
    elif entry.kind == "adapt":
        how = f" by {entry.detail['method']}" if entry.detail.get("method") else ""
        summary = f"put another extractor in place{how}"
        if entry.detail.get("purged"):
            summary += f", purged by event {entry.detail['purged']}"
        elif debt:
            gone = "picture that is" if debt == 1 else "pictures that are"
            summary += f", trained with {debt} {gone} forgotten since"
    elif entry.kind == "purge":
        many = [int(each) for each in entry.detail["adapts"]]
        summary = f"purged the extractor{'s' * (len(many) > 1)} of event {_listed(many)}"
    elif entry.kind == "promote":
        summary = f"{entry.detail['alias']} is version {entry.detail['version']} now"
    else:
        verb = "renamed" if entry.kind == "rename" else "merged"
        joint = "to" if entry.kind == "rename" else "into"
        summary = f"{verb} {entry.detail['old']!r} {joint} {entry.detail['new']!r}"
    return Event(entry.id, entry.kind, entry.at, summary, count, undone, entry.target, entry.actor)


def _listed(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))


def parsed(row: Any) -> Entry:
    """An entry from a row of the table ``events``."""
    return Entry(row.id, row.kind, row.at, row.target, json.loads(row.detail), row.actor)
