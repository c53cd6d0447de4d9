"""Replay against a model that starts from nothing for every question and shares no code."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retain.errors import CannotUndo, UnknownEvent
from retain.store import journal
from retain.store.journal import Entry

IMAGES = st.integers(0, 7)
LABELS = st.sampled_from(["ant", "bee", "cat", "dog"])


@st.composite
def journals(draw):
    """A list of entries and what they say; undos name any earlier event that can be undone."""
    entries, said = [], {}
    for number in range(1, draw(st.integers(1, 14)) + 1):
        kind = draw(st.sampled_from(["learn", "learn", "correct", "rename", "undo", "forget"]))
        target, detail = None, {}
        if kind in {"learn", "correct"}:
            rows = draw(st.dictionaries(IMAGES, LABELS, max_size=4))
            said[number] = [(image, label, kind == "correct") for image, label in rows.items()]
        elif kind == "rename":
            old, new = draw(st.lists(LABELS, min_size=2, max_size=2, unique=True))
            kind, detail = draw(st.sampled_from(["rename", "merge"])), {"old": old, "new": new}
        elif kind == "undo":
            taken_back = slow_active(entries)
            possible = [e.id for e in entries if e.kind != "forget" and e.id in taken_back]
            if not possible:
                kind, detail = "forget", {"images": 1}
            else:
                target = draw(st.sampled_from(possible))
        entries.append(Entry(number, kind, "", target, detail))
    return entries, said


def slow_active(entries):
    """The ids that count, by definition: an event counts unless an event that counts undoes it."""

    def counts(entry):
        return not any(
            other.kind == "undo" and other.target == entry.id and counts(other)
            for other in entries
            if other.id > entry.id
        )

    return {entry.id for entry in entries if counts(entry)}


def slow_replay(entries, said, without):
    """Image by image, from the last event back; a label's later names applied one by one."""
    active = slow_active(entries)
    live = [e for e in entries if e.id in active]

    def label_of(image, upto):
        for at in range(upto, -1, -1):
            for row in said.get(live[at].id, ()):
                if live[at].kind in {"learn", "correct"} and row[0] == image:
                    _, label, pinned = row
                    event = live[at].id
                    for later in live[at + 1 : upto + 1]:
                        if later.kind in {"rename", "merge"} and later.detail["old"] == label:
                            label, event = later.detail["new"], later.id
                    return label, pinned, event
        return None

    def members(upto):
        images = {row[0] for rows in said.values() for row in rows} - set(without)
        return {i: found for i in images if (found := label_of(i, upto)) is not None}

    last, size = None, 0
    for at, entry in enumerate(live):
        says = [row for row in said.get(entry.id, ()) if row[0] not in without]
        if entry.kind == "learn" or entry.kind == "correct":
            now = len(members(at))
            if says and (entry.kind == "learn" or 4 * now >= 5 * size):
                last, size = at, now
    lesson = {}
    if last is not None:
        for image, (label, _, _) in members(last).items():
            for later in live[last + 1 :]:
                if later.kind in {"rename", "merge"} and later.detail["old"] == label:
                    label = later.detail["new"]
            lesson[image] = label
    return members(len(live) - 1), lesson


@settings(max_examples=150, deadline=None)
@given(journals(), st.sets(IMAGES, max_size=3))
def test_replay_is_that_of_the_slow_model(case, without):
    entries, said = case
    found = journal.replay(entries, said, without)
    assert (dict(found.members), dict(found.lesson)) == slow_replay(entries, said, without)
    assert {e.id for e in entries} - set(journal.active(entries)) == slow_active(entries)


@settings(max_examples=50, deadline=None)
@given(journals())
def test_undo_of_an_undo_is_no_change(case):
    entries, said = case
    before = journal.replay(entries, said)
    try:
        target = journal.undoable(entries, said, None).id
    except CannotUndo:
        return
    number = entries[-1].id
    twice = [
        *entries,
        Entry(number + 1, "undo", "", target, {}),
        Entry(number + 2, "undo", "", number + 1, {}),
    ]
    after = journal.replay(twice, said)
    assert (after.members, after.lesson) == (before.members, before.lesson)
    assert target in journal.active(twice[:-1])


def test_what_cannot_be_undone_says_why():
    entries = [
        Entry(1, "learn", "", None, {}),
        Entry(2, "undo", "", 1, {}),
        Entry(3, "learn", "", None, {}),
        Entry(4, "forget", "", None, {"images": 1}),
    ]
    said = {1: [(1, "mug", False)]}
    for target, error, says in [
        (1, CannotUndo, "event 2 already"),
        (3, CannotUndo, "nothing is left"),
        (4, CannotUndo, "for good"),
        (None, CannotUndo, "for good"),
        (9, UnknownEvent, "events go from 1 to 4"),
    ]:
        with pytest.raises(error, match=says):
            journal.undoable(entries, said, target)
    assert journal.undoable(entries, said, 2).id == 2
    with pytest.raises(CannotUndo, match="nothing to undo"):
        journal.undoable([], {}, None)
    with pytest.raises(UnknownEvent, match="empty"):
        journal.undoable([], {}, 1)
