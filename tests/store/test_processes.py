"""Several processes: many read while one writes; the lock; SIGKILL."""

import os
import signal
import time

import pytest
from benchmarks.crash import crash

from retain.errors import Locked
from retain.store import Store
from tests.store.conftest import labels, learn, picture


class Child:
    """A process that runs a function; what it says comes through a pipe, a line at a time."""

    def __init__(self, function):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            code = 1
            try:
                function(lambda text: os.write(writing, text.encode() + b"\n"))
                code = 0
            except BaseException as error:  # noqa: BLE001 the parent is told
                os.write(writing, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(code)
        os.close(writing)
        self.said = os.fdopen(reading, encoding="utf-8")

    def line(self):
        return self.said.readline().strip()

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        self.said.close()
        return os.waitpid(self.pid, 0)[1]


@pytest.fixture
def children():
    made = []

    def start(function):
        made.append(Child(function))
        return made[-1]

    yield start
    for child in made:
        if not child.said.closed:
            child.kill()
            child.wait()


def hold(path, verb):
    def function(say):
        with Store.open(path) as store, store.writing(verb):
            say("holding")
            time.sleep(60)

    return function


def test_the_second_writer_is_told_who_holds_the_lock(store, path, children):
    holder = children(hold(path, "learn"))
    assert holder.line() == "holding"
    started = time.monotonic()
    with pytest.raises(Locked) as caught, store.writing("forget", wait=0.2):
        pass
    assert time.monotonic() - started >= 0.2
    assert f"process {holder.pid}" in str(caught.value)
    assert "`learn`" in str(caught.value)
    assert store.members() == []  # reading is free


def test_a_killed_holder_holds_nothing(store, path, children):
    holder = children(hold(path, "learn"))
    assert holder.line() == "holding"
    holder.kill()
    holder.wait()
    with store.writing("correct", wait=0.0):
        pass
    learn(store, [0])


def test_the_second_writer_waits(store, path, children):
    def function(say):
        with Store.open(path) as mine, mine.writing("learn"):
            say("holding")
            time.sleep(0.3)

    assert children(function).line() == "holding"
    with store.writing("learn", wait=30.0):
        pass


def test_two_doors_in_one_process_exclude_each_other(store, path):
    with (
        Store.open(path) as other,
        store.writing("learn"),
        pytest.raises(Locked, match=f"process {os.getpid()}"),
        other.writing("undo", wait=0.0),
    ):
        pass
    with Store.open(path) as other, other.writing("undo", wait=0.0):
        pass


def test_readers_see_whole_events_while_one_writes(store, path, children):
    """Each event brings four pictures of one label, so a whole state has four of each."""

    def function(say):
        with Store.open(path) as mine:
            say("writing")
            for event in range(25):
                learn(mine, range(4 * event, 4 * event + 4), f"label {event}")
            with mine.writing("forget"):
                mine.forget([picture(n).image for n in range(4)])
        say("done")

    writer = children(function)
    assert writer.line() == "writing"
    seen = set()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with Store.open(path) as fresh:
            for reader in (store, fresh):
                found = list(labels(reader).values())
                assert all(found.count(label) == 4 for label in found)
                names, vectors, _ = reader.features(None)
                assert len(names) % 4 == 0
                assert len(vectors) == len(names)
                seen.add(len(found))
            if fresh.head_event() == 26:
                break
    assert writer.line() == "done"
    assert writer.wait() == 0
    assert len(labels(store)) == 96
    assert len(seen) > 2
    assert store.check() == ([], [])


def test_opening_does_not_wait_for_a_transaction(store, path):
    learn(store, [0])
    with store.writing("learn"), store._transaction(writes=True) as connection:
        connection.exec_driver_sql("DELETE FROM members")
        started = time.monotonic()
        with Store.open(path) as reader:
            assert len(reader.members()) == 1
        assert time.monotonic() - started < 5


def test_kills_lose_nothing_that_was_acknowledged(path):
    counts, problems = crash(path, kills=10, seed=1)
    assert problems == []
    assert counts["acknowledged"].total() > 0
