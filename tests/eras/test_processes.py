"""Another extractor while others ask and learn, and while the process is killed."""

import os
import random
import signal
import time

import pytest

import retain
from retain.errors import Locked
from tests.eras.small import KINDS, adapt, answers, files, of_kind, shop, taught
from tests.store.test_processes import Child
from tests.verbs.adopted import pictures
from tests.verbs.conftest import fingerprint

A, B, C = files(1), files(2), files(3, 12)
ASKED = pictures(6, seed=60)


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


def test_asking_and_learning_go_on_while_another_process_adapts(tmp_path, children):
    """Every answer is wholly of one era: of that before, or of that after."""
    with shop(tmp_path / "mine", A) as mine:
        taught(mine, "ant", "bee", n=20)
        first = answers(mine, ASKED)
    path = tmp_path / "mine"

    def adapting(say):
        with retain.open(path) as one:
            for new in (C, B, A, C):
                adapt(one, new)
        say("done")

    child = children(adapting)
    seen = []
    with retain.open(path) as mine:
        deadline = time.monotonic() + 300
        while len(mine.log()) < 6 and time.monotonic() < deadline:
            seen.append(tuple(answers(mine, ASKED)))
        assert child.line() == "done"
        assert child.wait() == 0
        last = answers(mine, ASKED)
        allowed = [tuple(answers(mine, ASKED, version=event)) for event in (2, 3, 4, 5, 6)]
        assert allowed[0] == tuple(first)
        assert allowed[-1] == tuple(last)
        assert set(seen) <= set(allowed)
        assert mine.verify(deep=True).ok


def test_what_is_learned_while_another_process_adapts_is_of_the_era_it_lands_in(tmp_path, children):
    with shop(tmp_path / "mine", A) as mine:
        taught(mine, "ant", "bee")
    path = tmp_path / "mine"

    def adapting(say):
        with retain.open(path) as one:
            for new in (C, B, C):
                for _ in range(100):
                    try:
                        adapt(one, new)
                        break
                    except Locked:
                        time.sleep(0.02)
        say("done")

    child = children(adapting)
    lessons = [("cat", seed) for seed in range(3)] + [("ant", 3), ("bee", 4)]
    with retain.open(path) as mine:
        for kind, seed in lessons:
            mine.learn(of_kind(kind, 3, seed=10 + seed), kind, force=True)
        assert child.line() == "done"
        assert child.wait() == 0
        with shop(tmp_path / "twin", C) as twin:
            taught(twin, "ant", "bee")
            for kind, seed in lessons:
                twin.learn(of_kind(kind, 3, seed=10 + seed), kind, force=True)
            assert fingerprint(mine) == fingerprint(twin)
        assert mine.verify(deep=True).ok


def test_kills_leave_it_as_before_or_as_after(tmp_path, children):
    rng = random.Random(5)
    path = tmp_path / "mine"
    with shop(path, A) as mine:
        taught(mine, *KINDS, n=30)
    states = {}
    for new in (A, B, C):
        with shop(tmp_path / f"twin{len(states)}", new) as twin:
            taught(twin, *KINDS, n=30)
            states[twin._session.store.extractor] = fingerprint(twin), answers(twin, ASKED)

    def adapting(say):
        with retain.open(path) as one:
            say("open")
            while True:
                now = one._session.store.extractor
                adapt(one, next(f for f in (C, B, A) if mine_of(f) != now))
                say("adapted")
                one.undo(force=True)
                say("undone")

    names = {}

    def mine_of(new):
        key = id(new)
        if key not in names:
            from retain.vision import load_extractor
            from tests.eras.small import laid

            names[key] = load_extractor(
                laid(tmp_path / f"eyes{os.getpid()}-{key}", new)
            ).fingerprint
        return names[key]

    acknowledged = 0
    for _ in range(10):
        child = children(adapting)
        assert child.line() == "open"
        time.sleep(rng.random() * 0.6)
        os.kill(child.pid, signal.SIGKILL)
        acknowledged += len(child.said.read().split())
        child.wait()
        with retain.open(path) as one:
            assert (fingerprint(one), answers(one, ASKED)) == states[one._session.store.extractor]
            found = one.verify()
            assert found.ok, found.problems
            assert len(one.log()) >= acknowledged + 3
    with retain.open(path) as one:
        one.learn(of_kind("ant", 1, seed=99), "ant", force=True)
        left = {p.name for p in (path / "extractors").iterdir()}
        assert left <= set(states)
        adapt(one, next(f for f in (C, B) if mine_of(f) != one._session.store.extractor))
        assert one.verify(deep=True).notes == ()
