"""Full disks, read-only directories, other versions, damage: named errors, and nothing lost."""

import errno
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import retain
from retain.errors import (
    Damaged,
    DiskFull,
    NewerFormat,
    NotAClassifier,
    ReadOnly,
    RetainError,
    StoreError,
)
from retain.store import FORMAT, Store, blobs, caches, erasing
from retain.store.lock import exclusive
from retain.store.schema import MIGRATIONS
from tests.store.conftest import everything, labels, learn, picture, traces

ROOT = Path(__file__).resolve().parents[2]


def no_room(*_args, **_more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


class Killed(BaseException):
    """What nobody catches."""


# -- no room ------------------------------------------------------------------------------------


def test_no_room_in_the_database(store):
    learn(store, range(5))
    raw = store._engine.raw_connection()
    pages = raw.execute("PRAGMA page_count").fetchone()[0]
    raw.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull, match="Free some space"):
        learn(store, range(100, 400))
    assert len(store.members()) == 5
    assert store.head_event() == 1
    assert store.check()[0] == []
    raw.execute("PRAGMA max_page_count = 1000000")
    learn(store, range(100, 400))
    assert len(store.members()) == 305


def test_no_room_for_bytes(store, path, monkeypatch):
    learn(store, [0])
    monkeypatch.setattr(blobs.os, "fsync", no_room)
    with pytest.raises(DiskFull), store.writing("learn"):
        store.stage([picture(1)])
    monkeypatch.undo()
    assert store.known() == {picture(0).image}
    assert traces(path, picture(1)) == set()
    assert store.check() == ([], [])


@pytest.mark.skipif(sys.platform == "darwin", reason="file size limits differ there")
def test_no_room_for_any_file_to_grow(store, path):
    """As the kernel says it: nothing may be written past a size."""
    learn(store, range(5))
    limit = (path / "journal.db-wal").stat().st_size + 150_000
    child = os.fork()
    if child == 0:
        code = 9
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with Store.open(path) as mine:
                for event in range(400):
                    learn(mine, range(100 + 5 * event, 105 + 5 * event), f"label {event}")
        except DiskFull:
            code = 0
        except StoreError:
            code = 1
        finally:
            os._exit(code)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) in {0, 1}
    found = labels(store)
    events = store.head_event()
    assert len(found) == 5 * events
    assert 1 < events < 400
    assert store.check()[0] == []
    learn(store, [5])


def test_no_room_for_caches_denies_no_event(tmp_path, monkeypatch):
    with retain.create(tmp_path / "shop", extractor="vectors:4") as shop:
        rows = np.random.default_rng(0).normal(size=(20, 4))
        shop.learn(rows[:10], ["a", "b"] * 5)
        monkeypatch.setattr(caches, "write_whole", no_room)
        assert shop.learn(rows[10:], ["a", "b"] * 5).event == 2
        assert len(shop.samples()) == 20
        monkeypatch.undo()
    with retain.open(tmp_path / "shop") as again:
        assert again.verify().ok


def test_no_room_to_finish_erasing(store, path, monkeypatch):
    learn(store, range(3))

    def full(_engine):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(erasing, "rewrite", full)
    with store.writing("forget"), pytest.raises(DiskFull, match="they are forgotten"):
        store.forget([picture(0).image])
    with pytest.raises(DiskFull, match="erases the rest first"):
        learn(store, [7])
    monkeypatch.undo()
    assert "still to be erased" in store.check()[1][0]
    assert picture(0).image not in labels(store)
    learn(store, [7])
    assert traces(path, picture(0)) == set()
    assert store.check() == ([], [])


# -- an erasure that is interrupted -------------------------------------------------------------


@pytest.mark.parametrize("where", ["erase", "erased", "rewrite", "rewritten"])
def test_an_interrupted_forget_is_finished_by_the_next_writer(store, path, monkeypatch, where):
    learn(store, range(4))
    gone = picture(1)

    def killed(function, *, after):
        def instead(*args):
            if after:
                function(*args)
            raise Killed

        return instead

    holder, name = (blobs.Blobs, "erase") if where.startswith("erase") else (erasing, "rewrite")
    after = where in {"erased", "rewritten"}
    monkeypatch.setattr(holder, name, killed(getattr(holder, name), after=after))
    with pytest.raises(Killed), store.writing("forget"):
        store.forget([gone.image])
    monkeypatch.undo()
    store.close()
    with Store.open(path) as again:
        assert gone.image not in labels(again)
        assert again.events()[-1].kind == "forget"
        problems, notes = again.check()
        assert problems == []
        assert any("still to be erased" in note for note in notes)
        with again.writing("learn"):
            assert traces(path, gone) == set()
        assert again.check() == ([], [])


def test_a_reader_that_stays_delays_the_end_of_an_erasure(store, path, monkeypatch):
    """A reader in the middle of a transaction needs the old pages; they go when it has gone."""
    monkeypatch.setattr(erasing, "_PATIENCE", 0.2)
    learn(store, range(4))
    with Store.open(path) as reader:
        with reader._transaction() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM images").fetchall()
            with store.writing("forget"):
                store.forget([picture(1).image])
            assert traces(path, picture(1)) != set()
            assert "still to be erased" in store.check()[1][0]
        assert len(reader.members()) == 3
    with store.writing("learn"):
        assert traces(path, picture(1)) == set()
    assert store.check() == ([], [])


def test_who_stays_open_finishes_an_erasure_when_readers_have_gone(store, path, monkeypatch):
    """Without writing anything, and without keeping anybody waiting as long as they have not."""
    monkeypatch.setattr(erasing, "_PATIENCE", 0.0)
    learn(store, range(4))
    assert store.finish_erasing()  # there is nothing
    with Store.open(path) as reader:
        with reader.reading():
            with store.writing("forget"):
                store.forget([picture(1).image])
            assert store.unerased
            assert reader.unerased is False  # it still sees the state before
            with monkeypatch.context() as strict:
                strict.setattr(erasing, "rewrite", no_room)  # would be for nothing
                assert not store.finish_erasing()
            assert traces(path, picture(1)) != set()
        assert reader.unerased
        with reader.writing("learn", dry_run=True), monkeypatch.context() as strict:
            strict.setattr(erasing, "finish", no_room)  # who may write has done so
            assert store.finish_erasing()
        learn(store, range(4, 6))
        with reader.reading(), store.writing("forget"):
            store.forget([picture(2).image])
        assert traces(path, picture(2)) != set()
        assert store.finish_erasing()
        assert not reader.unerased
    assert traces(path, picture(2)) == set()
    assert store.head_event() == 4
    assert store.check() == ([], [])


def test_an_erasure_for_which_there_is_no_room_or_no_turn_waits(store, path, monkeypatch):
    monkeypatch.setattr(erasing, "_PATIENCE", 0.0)
    learn(store, range(4))
    with Store.open(path) as reader:
        with reader.reading(), store.writing("forget"):
            store.forget([picture(1).image])
        monkeypatch.setattr(erasing, "rewrite", no_room)
        assert not store.finish_erasing()
        monkeypatch.undo()
        with exclusive(path, "learn", 0.0):  # by somebody who has not come to it yet
            assert not store.finish_erasing()
        assert store.unerased
        assert store.finish_erasing()
    assert traces(path, picture(1)) == set()


# -- a directory that cannot be written ----------------------------------------------------------


@pytest.fixture
def unwritable(monkeypatch):
    """Root may write anywhere, so the question is answered for it."""
    real = os.access
    monkeypatch.setattr(
        "retain.store.store.os.access", lambda p, mode: mode != os.W_OK and real(p, mode)
    )


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where copies are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.mark.parametrize("log", [False, True])
def test_a_read_only_directory_can_be_read(store, path, unwritable, temporary, log):
    learn(store, range(3))
    # Two in one process share SQLite's index, in which the first to read leaves its mark.
    assert len(store.members()) == 3
    if not log:
        store.close()
        assert not (path / "journal.db-wal").exists()
    assert (path / "journal.db-wal").exists() == log
    before = everything(path)
    with Store.open(path) as reader:
        assert len(reader.members()) == 3
        assert reader.events()[0].images == 3
        assert reader.check() == ([], [])
        with pytest.raises(ReadOnly, match="make it writable"), reader.writing("learn"):
            pass
        # While the log is there it is read along with; else a copy is, of which no file is left.
        assert reader._database.along == log
        assert list(temporary.iterdir()) == []
    assert everything(path) == before
    assert list(temporary.iterdir()) == []


def test_a_lock_that_cannot_be_made(store, monkeypatch):
    def refused(*_args):
        raise PermissionError(errno.EACCES, "Permission denied", "lock")

    monkeypatch.setattr("retain.store.lock.os.open", refused)
    with pytest.raises(ReadOnly, match="Permission denied"), store.writing("learn"):
        pass


def test_the_callers_own_errors_are_left_alone(store):
    with pytest.raises(FileNotFoundError), store.writing("learn"):
        Path("/no/such/picture.jpg").read_bytes()
    with store.writing("learn", wait=0.0):
        pass


# -- other versions ------------------------------------------------------------------------------


def test_a_newer_manifest(store, path):
    values = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**values, "format": 7, "unheard-of": 1}))
    with pytest.raises(NewerFormat, match=f"format 7, and this retain reads up to {FORMAT}"):
        Store.open(path)


@pytest.mark.parametrize("writable", [True, False])
def test_a_newer_journal(store, path, writable, request):
    store.close()
    connection = sqlite3.connect(path / "journal.db")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    if not writable:
        request.getfixturevalue("unwritable")
    with pytest.raises(
        NewerFormat, match=f"version 9, and this retain knows up to {len(MIGRATIONS)}"
    ):
        Store.open(path)


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b'{"format": 1}',
        b'{"format": "one"}',
        b'{"format": Infinity}',
        b"[" * 100_000,
    ],
)
def test_a_manifest_that_cannot_be_understood(store, path, text):
    (path / "manifest.json").write_bytes(text)
    with pytest.raises(Damaged, match=r"manifest\.json cannot be understood"):
        Store.open(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dimension", 0),
        ("dimension", "8"),
        ("dimension", 8.5),
        ("memory", "dreams"),
        ("options", "cosine"),
        ("extractor", None),
        ("surplus", 1),
    ],
)
def test_a_manifest_with_an_impossible_value(store, path, key, value):
    values = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**values, key: value}))
    with pytest.raises(Damaged, match=r"manifest\.json cannot be understood"):
        Store.open(path)


def test_a_journal_that_is_gone_is_not_begun_anew(store, path):
    learn(store, [0])
    store.close()
    for damage in (lambda file: file.write_bytes(b""), Path.unlink):
        damage(path / "journal.db")
        with pytest.raises((Damaged, NotAClassifier), match="put a copy of the directory back"):
            Store.open(path)
    sqlite3.connect(path / "journal.db").execute("CREATE TABLE t (x)")
    with pytest.raises(Damaged, match="is empty"):
        Store.open(path)


def test_check_names_what_is_broken(store, path):
    learn(store, range(4))
    store._blobs.path(picture(0).image).write_bytes(b"other bytes")
    store._blobs.path(picture(1).image).unlink()
    with store._transaction(writes=True) as connection:
        number = "(SELECT id FROM images WHERE hash = ?)"
        for n, statement in [
            (2, f"UPDATE members SET label = 'x' WHERE image = {number}"),
            (3, f"UPDATE features SET vector = x'00' WHERE image = {number}"),
        ]:
            digest = bytes.fromhex(picture(n).image.removeprefix("sha256:"))
            connection.exec_driver_sql(statement, (digest,))
    problems = "\n".join(store.check()[0])
    assert f"{picture(0).image.removeprefix('sha256:')} does not hold" in problems
    assert f"the bytes of {picture(1).image} are missing" in problems
    assert "the membership of 1 pictures" in problems
    assert f"the feature of {picture(3).image} is 1 bytes long" in problems
    with pytest.raises(Damaged):
        store.blob(picture(0).image)
    with pytest.raises(Damaged):
        store.features(None)


D = 24


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A classifier whose journal has some dozens of pages; and what it remembers."""
    path = tmp_path_factory.mktemp("sound") / "shop"
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(400, D)).astype(np.float32)
    with retain.create(path, extractor=f"vectors:{D}", memory="features") as shop:
        for part in range(4):
            at = slice(100 * part, 100 * part + 100)
            shop.learn(rows[at], [f"label {i % 5}" for i in range(100)])
        shop.correct(rows[0], "label 3")
        shop.rename("label 4", "label 9")
        shop.undo(2)
        truth = remembered(shop)
    return path, truth, rows[:20]


def remembered(shop):
    names, vectors, _ = shop._session.store.features(None)
    return {s.image: (s.label, s.pinned) for s in shop.samples()}, names, vectors.tobytes()


def damage(file, kind, seed):
    data = bytearray(file.read_bytes())
    rng = np.random.default_rng(seed)
    page = 4096 * int(rng.integers(1, len(data) // 4096))
    if kind == "start":
        data[:4096] = rng.bytes(4096)
    elif kind == "header kept":
        data[100:4096] = rng.bytes(3996)
    elif kind == "page":
        data[page : page + 4096] = rng.bytes(4096)
    elif kind == "zeros":
        data[page : page + 4096] = bytes(4096)
    elif kind == "swapped":
        other = 4096 * int(rng.integers(1, len(data) // 4096))
        data[page : page + 4096], data[other : other + 4096] = (
            data[other : other + 4096],
            data[page : page + 4096],
        )
    elif kind == "bytes":
        for at in rng.integers(page, page + 4096, size=12):
            data[at] = int(rng.integers(256))
    elif kind == "cut":
        del data[page + int(rng.integers(4096)) :]
    file.write_bytes(data)


CASES = [("start", 0), ("header kept", 0)] + [
    (kind, seed) for kind in ("page", "zeros", "swapped", "bytes", "cut") for seed in range(8)
]


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_a_damaged_journal_is_named_and_never_a_surprise(sound, tmp_path, kind, seed):
    path, truth, rows = sound
    shutil.copytree(path, tmp_path / "shop")
    damage(tmp_path / "shop" / "journal.db", kind, seed)
    try:
        shop = retain.open(tmp_path / "shop")
    except RetainError as error:
        # The test goes on below only where the directory could be opened.
        assert "copy of the directory" in str(error) or "retain verify" in str(error)  # noqa: PT017
        return
    with shop:
        verified = shop.verify()  # says what is wrong, and does not raise
        if verified.ok:
            assert remembered(shop) == truth
        for verb in (
            lambda: shop.predict(rows),
            lambda: shop.log(),
            lambda: shop.show(1),
            lambda: shop.show(truth[1][5]),
            lambda: shop.classes(),
            lambda: shop.status(),
            lambda: shop.learn(np.ones((2, D)), "label 1"),
            lambda: shop.correct(rows[3] + 1, "label 2"),
            lambda: shop.undo(),
            lambda: shop.forget(truth[1][7]),
        ):
            with suppress(RetainError):
                verb()


@pytest.mark.parametrize(
    ("kind", "words"), [("start", ["log"]), ("page", ["verify"]), ("cut", ["classes"])]
)
def test_the_command_line_says_it_in_a_sentence(sound, tmp_path, kind, words):
    shutil.copytree(sound[0], tmp_path / "shop")
    damage(tmp_path / "shop" / "journal.db", kind, 1)
    told = subprocess.run(
        [sys.executable, "-c", "from retain.faces.cli import main; main()", *words, "shop"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert told.returncode == 1, told
    assert "Traceback" not in told.stderr + told.stdout
    assert "journal" in told.stderr + told.stdout
