"""One classifier, many who ask: processes without the right to write, and threads of one."""

import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import retain
from retain.errors import Locked, UnknownImage
from retain.solving import single_threaded
from retain.store import Store, database, erasing
from tests.store.conftest import EXTRACTOR, labels, learn, manifest, picture, traces
from tests.store.test_processes import Child

NOBODY = 65534
FOUR = range(4)


# -- who may not write ---------------------------------------------------------------------------


def without_rights(function):
    """Run as somebody who may read the directory and not write it."""

    def instead(say):
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        else:
            real = os.access
            os.access = lambda path, mode: mode != os.W_OK and real(path, mode)
        function(say)

    return instead


@pytest.fixture
def public():
    """A classifier's path that everybody can reach; pytest's own folders are private."""
    before = os.umask(0o022)
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder / "shop"
    os.umask(before)
    shutil.rmtree(folder)


@pytest.fixture
def children():
    made = []

    def start(function):
        made.append(Child(without_rights(function)))
        return made[-1]

    yield start
    for child in made:
        if not child.said.closed:
            child.kill()
            child.wait()


def watch(path, last, told=()):
    """Look until event `last` is seen, and fail at the first state that is not whole.

    Event n brings four pictures of one label: a whole state has four of each, and 4n in all.
    Says so when it has seen each of the events `told`, or a later one.
    """

    def whole(store):
        with store.reading():
            event, found = store.head_event(), list(labels(store).values())
            names, vectors, _ = store.features(None)
            assert len(found) == len(names) == len(vectors) == 4 * event
            assert all(found.count(label) == 4 for label in found)
            assert len(store.plan().lesson) == 4 * event
            return event

    def function(say):
        seen = set()
        deadline = time.monotonic() + 40
        with Store.open(path) as stays:
            assert not stays.writable
            say("watching")
            event, waiting = 0, list(told)
            while event < last:
                assert time.monotonic() < deadline, f"saw only up to event {event}"
                before, event = event, whole(stays)
                assert event >= before
                with Store.open(path) as fresh:
                    assert whole(fresh) >= event
                    assert fresh.check()[0] == []
                seen.add(event)
                while waiting and waiting[0] <= event:
                    say(f"reached {waiting.pop(0)}")
        say(f"saw {len(seen)}")

    return function


@pytest.mark.parametrize("stays", [True, False], ids=["the writer stays", "comes and goes"])
def test_who_may_not_write_sees_whole_states_and_every_new_one(public, children, stays):
    Store.create(public, manifest(), EXTRACTOR).close()
    watcher = children(watch(public, last=30, told=(10, 20)))
    assert watcher.line() == "watching"
    with ExitStack() as stack:
        if stays:
            stack.enter_context(Store.open(public))
        for event in range(30):
            with Store.open(public) as store:
                learn(store, range(4 * event, 4 * event + 4), f"label {event}")
            if event + 1 in (10, 20):  # a slow watcher is waited for, so that it sees some between
                assert watcher.line() == f"reached {event + 1}"
        told = watcher.line()
    assert told.startswith("saw"), told
    assert int(told.removeprefix("saw ")) >= 3
    assert watcher.wait() == 0


def test_who_may_not_write_sees_what_a_killed_writer_left(public, children):
    Store.create(public, manifest(), EXTRACTOR).close()
    child = os.fork()
    if child == 0:
        store = Store.open(public)
        learn(store, FOUR)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (public / "journal.db-wal").stat().st_size
    for index in (True, False):
        if not index:
            (public / "journal.db-shm").unlink()  # as in a copy that left it out
        watcher = children(watch(public, last=1))
        assert watcher.line() == "watching"
        assert watcher.line() == "saw 1"
        assert watcher.wait() == 0


@pytest.fixture
def unwritable(monkeypatch):
    monkeypatch.setattr("retain.store.store.os.access", lambda *_: False)


def test_a_torn_copy_is_thrown_away(store, path, monkeypatch, request):
    """Files are copied one after the other; what is written in between must not be read so."""
    learn(store, FOUR)
    store.close()
    request.getfixturevalue("unwritable")
    real, times = database.shutil.copyfile, []

    def disturbed(source, target):
        real(source, target)
        times.append(source)
        if len(times) < 4:
            data = bytearray(Path(source).read_bytes())
            Path(source).write_bytes(data)  # the same bytes, and yet it was written

    monkeypatch.setattr(database.shutil, "copyfile", disturbed)
    with Store.open(path) as reader:
        assert len(reader.members()) == 4
        assert len(times) == 4
        reader.head_event()
        assert len(times) == 4  # made once while nothing changes


def test_what_is_never_at_rest_is_named(store, path, unwritable, monkeypatch):
    store.close()
    real = database.shutil.copyfile

    def disturbed(source, target):
        real(source, target)
        Path(source).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(database.shutil, "copyfile", disturbed)
    monkeypatch.setattr(database, "_TRIES", 3)
    monkeypatch.setattr(database, "_PAUSE", 0.0)
    with pytest.raises(Locked, match="in one piece; try again"):
        Store.open(path)
    assert list(Path(tempfile.gettempdir()).glob("retain-*/journal.db")) == []


# -- one state for several questions -------------------------------------------------------------


def test_questions_inside_reading_are_answered_from_one_state(store, path, monkeypatch):
    monkeypatch.setattr(erasing, "_PATIENCE", 0.0)
    learn(store, FOUR)
    with Store.open(path) as other:
        with store.reading():
            # The state is that of the beginning, not of the first question.
            learn(other, range(4, 8), "cup")
            with other.writing("forget"):
                other.forget([picture(0).image])
            with store.reading():
                assert labels(store) == {picture(n).image: "mug" for n in FOUR}
            assert store.head_event() == 1
            assert len(store.features(None)[0]) == len(store.plan().lesson) == 4
            assert store.find(picture(5).source) == []
            assert store.history(picture(0).image) == [(1, "mug")]
            assert traces(path, picture(0)) != set()
        assert len(store.members()) == 7
        assert store.head_event() == 3
        # Readers that have gone are in nobody's way.
        with other.writing("learn"):
            assert traces(path, picture(0)) == set()
        assert other.check() == ([], [])


def test_nothing_is_written_inside_reading(store):
    with store.writing("learn"):
        assert store.writing_now
        with store.reading():
            assert not store.writing_now
            with pytest.raises(RuntimeError, match="inside another transaction"):
                store.put_tuning("key", {})
        store.put_tuning("key", {"a": 1})
    assert not store.writing_now
    assert store.get_tuning("key") == {"a": 1}


def test_the_callers_errors_leave_reading_as_they_are(store):
    with pytest.raises(FileNotFoundError), store.reading():
        Path("/no/such/file").read_bytes()
    with store.writing("learn"):
        store.put_tuning("key", {})


def test_bytes_that_are_being_erased_are_gone_and_not_damaged(store, path):
    learn(store, FOUR)
    with store._transaction(writes=True) as connection:
        for table, column in [("members", "image"), ("assertions", "image"), ("features", "image")]:
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE {column} = 1")
        connection.exec_driver_sql("DELETE FROM images WHERE id = 1")
    file = store._blobs.path(picture(0).image)
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(UnknownImage, match="not kept here any more"):
        store.blob(picture(0).image)


D = 4
ROWS = np.random.default_rng(5).normal(size=(40, D)).astype(np.float32)
QUESTIONS = [
    *("head_event", "members", "member", "find", "known", "features", "events", "assertions"),
    *("history", "plan", "get_tuning", "read_cache"),
]


def plain(answer):
    """An answer without how long it took."""
    return replace(answer, seconds=0.0) if hasattr(answer, "seconds") else answer


VERBS = {
    "predict": lambda shop: tuple(shop.predict(ROWS[:12])),
    "evaluate": lambda shop: shop.evaluate(ROWS[8:16], ["a", "b"] * 4),
    "status": lambda shop: replace(shop.status(), path=""),
    "show": lambda shop: shop.show(shop_image(0)),
    "show event": lambda shop: shop.show(1),
    "classes": lambda shop: shop.classes(),
    "digest": lambda shop: shop.digest,
    "forget_preview": lambda shop: shop.forget_preview(labels=["a"], events=[2]),
    "log": lambda shop: shop.log(),
    "verify": lambda shop: replace(shop.verify(), events=0),
}


def shop_image(row):
    return retain.values.content_hash(retain.vision.encode_vector(ROWS[row]))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Learned, corrected, undone; without any cache, so that all must be asked of the journal."""
    path = tmp_path_factory.mktemp("taught") / "shop"
    with retain.create(path, extractor=f"vectors:{D}", memory="features") as shop:
        shop.learn(ROWS[:8], ["a", "b"] * 4)
        shop.learn(ROWS[8:12], ["c", "a"] * 2)
        shop.correct(ROWS[1], "c")
    shutil.rmtree(path / "versions")
    return path


def change(shop):
    shop.learn(ROWS[12:30], ["b", "c", "d"] * 6)
    shop.forget(shop_image(2))
    shop.undo(2)


@pytest.mark.parametrize("verb", VERBS)
def test_an_answer_is_that_of_one_state_whenever_others_write(taught, tmp_path, monkeypatch, verb):
    """Somebody else writes right before the first question, the second, and so on."""
    monkeypatch.setattr(erasing, "_PATIENCE", 0.0)
    ask = VERBS[verb]
    with retain.open(shutil.copytree(taught, tmp_path / "quiet")) as shop:
        before = plain(ask(shop))
    for turn in range(40):
        path = shutil.copytree(taught, tmp_path / str(turn))
        with (
            retain.open(path) as shop,
            retain.open(path) as other,
            pytest.MonkeyPatch.context() as p,
        ):
            asked = []

            def meddled(name, real, shop=shop, other=other, asked=asked, turn=turn):
                def instead(self, *args, **more):
                    if self is shop._session.store:
                        asked.append(name)
                        if len(asked) == turn + 1:
                            change(other)
                    return real(self, *args, **more)

                return instead

            for name in QUESTIONS:
                p.setattr(Store, name, meddled(name, getattr(Store, name)))
            found = plain(ask(shop))
        with retain.open(path) as shop:
            after = plain(ask(shop))
        if len(asked) <= turn:
            break
        assert found in (before, after), asked
    assert turn > 0


# -- threads -------------------------------------------------------------------------------------


def together(*functions):
    """Run functions in a thread each; the first error is raised here."""
    errors = []

    def guarded(function):
        try:
            function()
        except BaseException as error:  # noqa: BLE001 raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[each]) for each in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_share_a_store(store):
    """Event n brings four pictures of one label; eight threads look while one writes."""
    done, seen = threading.Event(), set()

    def write():
        try:
            for event in range(40):
                learn(store, range(4 * event, 4 * event + 4), f"label {event}")
            with store.writing("undo"):
                store.append("undo", target=40)
        finally:
            done.set()

    def read():
        while not done.is_set():
            with store.reading():
                event, found = store.head_event(), list(labels(store).values())
                assert (
                    len(store.features(None)[0]) == len(found) == 4 * min(event, 39 + (event < 41))
                )
            assert all(found.count(label) == 4 for label in found)
            assert len(store.events()) >= event
            assert not store.writing_now
            seen.add(event)

    together(write, *[read] * 8)
    assert len(seen) > 3
    assert store.check() == ([], [])


def test_threads_that_write_take_turns(store):
    def write(start):
        for number in range(start, start + 5):
            learn(store, [number], f"label {start}")

    together(*[lambda start=start: write(start) for start in range(0, 40, 10)])
    assert store.head_event() == len(store.members()) == 20
    assert store.check() == ([], [])


def lessons(shop):
    """What one thread does, a step at a time."""
    yield shop.learn(ROWS[:8], ["a", "b"] * 4)
    for start in range(8, 24, 4):
        yield shop.learn(ROWS[start : start + 4], ["b", "c", "a", "a"])
        yield shop.correct(ROWS[start + 1], "d")
        yield shop.undo()
        yield shop.correct(ROWS[start - 3], "c", replace=True)
    yield shop.rename("c", "e")
    yield shop.forget(shop_image(5))
    yield shop.undo(2)


def asked(shop):
    """Answers of which each must be that of one state."""
    status = replace(shop.status(), path="")
    predictions = tuple(shop.predict(ROWS[:10]))
    report = plain(shop.evaluate(ROWS[:10], ["a", "b"] * 5))
    return {"status": status, "predict": predictions, "evaluate": report, "classes": shop.classes()}


def test_threads_share_a_classifier(tmp_path):
    """Eight threads ask while one teaches; a twin, taught alone, knows all whole states."""
    with retain.create(tmp_path / "twin", extractor=f"vectors:{D}") as twin:
        states = [asked(twin) for _ in lessons(twin)]
    with retain.create(tmp_path / "shop", extractor=f"vectors:{D}") as shop:
        steps, done, taught = lessons(shop), threading.Event(), 0
        next(steps)

        def teach():
            nonlocal taught
            try:
                for _ in steps:
                    taught += 1
                    time.sleep(0.01)
            finally:
                done.set()

        answers = []

        def ask():
            while not done.is_set():
                answers.append(asked(shop))

        together(teach, *[ask] * 8)
        assert taught == len(states) - 1
        for question in ("status", "predict", "evaluate", "classes"):
            possible = [state[question] for state in states]
            assert all(answer[question] in possible for answer in answers)
        assert len({answer["status"].events for answer in answers}) > 2
        assert asked(shop) == states[-1]
        assert shop.verify().ok


def test_the_limit_on_linear_algebra_lasts_until_the_last_thread_leaves():
    def limits():
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    before = limits()
    first, second = ExitStack(), ExitStack()
    first.enter_context(single_threaded())
    second.enter_context(single_threaded())
    first.close()
    assert set(limits()) == {1}
    second.close()
    assert limits() == before
