"""What is asked most is not looked up again as long as nobody has committed anything."""

from contextlib import suppress

import numpy as np
import pytest

from retain.errors import CannotUndo
from retain.store import Store, writing
from tests.store.conftest import labels, learn, picture


def told(store, numbers):
    known = tuple(store.keeps([picture(number).image]) for number in numbers)
    return store.head_event(), store.era, known


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_remembers_says_what_a_fresh_one_says(store, path, seed):
    random = np.random.default_rng(seed)
    numbers = range(6)
    with Store.open(path) as other:
        for step in range(20):
            writer = (store, other)[random.integers(2)]
            kept = sorted(labels(writer))
            match random.integers(4):
                case 0 | 1:
                    learn(writer, [int(random.choice(numbers))], f"label{step}")
                case 2 if kept:
                    with writer.writing("forget"):
                        writer.forget([kept[random.integers(len(kept))]])
                case _ if kept:
                    with writer.writing("undo"), suppress(CannotUndo):
                        writer.append("undo")
            with Store.open(path) as fresh:
                expected = told(fresh, numbers)
            assert told(store, numbers) == told(other, numbers) == expected
            # And again, now that nothing was committed in between.
            assert told(store, numbers) == told(other, numbers) == expected


def test_a_stamp_is_the_same_until_somebody_commits(store, path):
    with Store.open(path) as other:
        seen = [store.stamp(), other.stamp()]
        labels(store), store.head_event(), store.keeps([picture(0).image])
        assert [store.stamp(), other.stamp()] == seen
        for writer in (store, other, other, store):
            learn(writer, [0])
            after = [store.stamp(), other.stamp()]
            assert all(now != then for now, then in zip(after, seen, strict=True))
            seen = after


def test_a_change_that_fails_is_not_remembered(store, monkeypatch):
    learn(store, [0])
    before = told(store, [0, 1])

    def fail(*_):
        raise OSError("no more room")

    # By then the event is inserted, and is taken back.
    monkeypatch.setattr(writing, "insert_assertions", fail)
    with pytest.raises(Exception, match="no more room"):
        learn(store, [1])
    assert told(store, [0, 1]) == before
    monkeypatch.undo()
    learn(store, [1])
    assert told(store, [0, 1]) == (2, before[1], (True, True))


def test_a_glance_inside_reading_is_at_the_same_state(store, path):
    learn(store, [0])
    with Store.open(path) as other:
        with store.reading():
            assert told(store, [0, 1])[::2] == (1, (True, False))
            learn(other, [1])
            assert told(store, [0, 1])[::2] == (1, (True, False))
        assert told(store, [0, 1])[::2] == (2, (True, True))


def test_who_may_not_write_has_no_stamp_and_is_answered_all_the_same(store, path, monkeypatch):
    learn(store, [0])
    monkeypatch.setattr("retain.store.store.os.access", lambda *_: False)
    with Store.open(path) as reader:
        assert reader.stamp() is None
        assert told(reader, [0, 1])[::2] == (1, (True, False))
        learn(store, [1])
        assert told(reader, [0, 1])[::2] == (2, (True, True))
