"""A classifier as one file: the same afterwards, whole or not at all, and never believed unread."""

import errno
import fcntl
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import struct
import subprocess
import tempfile
import time
import tracemalloc
import zipfile
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import retain
from retain import to_json
from retain.errors import (
    AlreadyExists,
    BadOption,
    Damaged,
    DiskFull,
    Locked,
    NewerFormat,
    NotAClassifier,
    ReadOnly,
)
from retain.store import Packed, Store, pack, packing, unpack, unpacking
from tests.store.conftest import EXTRACTOR, everything, labels, learn, manifest, picture
from tests.store.test_processes import Child, children  # noqa: F401 a fixture
from tests.verbs.conftest import cluster, fingerprint, taught
from tests.vision.conftest import photos  # noqa: F401 a fixture


class Killed(BaseException):
    """What nobody catches."""


@pytest.fixture
def target(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "shop.retain"


def names(folder):
    return sorted(each.name for each in Path(folder).iterdir())


def entries(file):
    with zipfile.ZipFile(file) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def secrets(new):
    """What of one picture nobody may find in a file that it was forgotten before."""
    digest = new.image.removeprefix("sha256:")
    return [
        new.data,
        new.feature.astype("<i2").tobytes(),
        digest.encode(),
        bytes.fromhex(digest),
        new.source.encode(),
    ]


def told(data, new):
    return any(secret in data for secret in secrets(new))


# -- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["images", "features"])
def test_the_same_afterwards_and_can_be_taught_further(tmp_path, target, memory):
    rows = cluster("mug", 5, seed=9)
    with retain.create(tmp_path / "shop", extractor="vectors:12", memory=memory) as shop:
        given = taught(shop, "mug", "cup", "fork")
        shop.correct(given["cup"][0], "mug")
        shop.rename("fork", "spoon")
        shop.learn(cluster("fork", 3, seed=4), "knife")
        shop.undo()
        before, answers = fingerprint(shop), shop.predict(rows)
        packed = pack(shop.path, target)
        assert shop.verify().ok
        assert fingerprint(shop) == before
    assert isinstance(packed, Packed)
    assert packed.path == target
    assert packed.bytes == target.stat().st_size
    assert packed.digest == "sha256:" + sha256(target.read_bytes()).hexdigest()
    assert packed.files == len(entries(target)) - 1
    assert names(target.parent) == ["shop.retain"]
    assert unpack(target, tmp_path / "again") == tmp_path / "again"
    assert names(tmp_path) == ["again", "out", "shop"]
    with retain.open(tmp_path / "shop") as shop, retain.open(tmp_path / "again") as again:
        assert again.verify().ok
        assert not again.verify().notes
        assert fingerprint(again) == before
        assert to_json(again.predict(rows)) == to_json(answers)
        assert again.samples() == shop.samples()
        assert again.log() == shop.log()
        for one in (shop, again):
            one.learn(cluster("plate", 6), "plate")
            one.correct(rows[1], "plate")
            one.undo()
            one.undo(5)
            one.forget(labels=["cup"])
        assert fingerprint(again) == fingerprint(shop)
        assert again.verify().ok


def test_real_pictures(tmp_path, target, photos):  # noqa: F811
    files = []
    for number, data in enumerate(photos(6)):
        files.append(tmp_path / f"{number}.jpg")
        files[-1].write_bytes(data)
    with retain.create(tmp_path / "shop") as shop:
        shop.learn(files[:4], ["a", "b", "a", "b"])
        before, answers = fingerprint(shop), shop.predict(files)
        pack(shop.path, target)
    shutil.rmtree(tmp_path / "shop")
    with retain.open(unpack(target, tmp_path / "again")) as again:
        assert again.verify().ok
        assert fingerprint(again) == before
        assert to_json(again.predict(files)) == to_json(answers)
        again.learn(files[4:], "c")
        assert again.verify().ok


def test_an_empty_classifier(store, path, target, tmp_path):
    assert pack(path, target).files == 4
    with Store.open(unpack(target, tmp_path / "again")) as again:
        assert again.members() == []
        assert again.check() == ([], [])


def test_what_is_in_it(store, path, target):
    learn(store, range(3))
    (path / "notes.txt").write_text("mine")
    (path / "blobs" / "stray").write_text("mine")
    pack(path, target)
    found = entries(target)
    digests = [picture(n).image.removeprefix("sha256:") for n in range(3)]
    assert sorted(found) == sorted(
        [
            "index.json",
            "journal.db",
            "manifest.json",
            *(f"blobs/{digest[:2]}/{digest}" for digest in digests),
            *(f"extractors/eyes-1/{name}" for name in EXTRACTOR),
        ]
    )
    index = json.loads(found.pop("index.json"))
    assert index == {
        "format": 1,
        "files": {
            name: {"size": len(data), "sha256": sha256(data).hexdigest()}
            for name, data in found.items()
        },
    }


def test_any_tool_can_read_it(store, path, target, tmp_path):
    learn(store, range(3))
    pack(path, target)
    if not shutil.which("unzip"):
        pytest.skip("unzip is not installed")
    subprocess.run(["unzip", "-q", target, "-d", tmp_path / "by hand"], check=True)
    with Store.open(tmp_path / "by hand") as again:
        assert len(again.members()) == 3


def test_two_packs_of_the_same_are_the_same_file(store, path, target):
    learn(store, range(3))
    first = pack(path, target)
    time.sleep(0.01)
    assert pack(path, target.with_name("b")).digest == first.digest
    learn(store, [3])
    assert pack(path, target.with_name("c")).digest != first.digest


@pytest.mark.parametrize("limit", ["ZIP64_LIMIT", "ZIP_FILECOUNT_LIMIT"])
def test_the_form_for_large_files(store, path, target, tmp_path, monkeypatch, limit):
    learn(store, range(5))
    monkeypatch.setattr(zipfile, limit, 3)
    pack(path, target)
    monkeypatch.undo()
    assert b"PK\x06\x06" in target.read_bytes()
    assert everything(unpack(target, tmp_path / "again")).keys()
    with Store.open(tmp_path / "again") as again:
        assert again.check() == ([], [])


def test_large_files_are_never_in_memory(path, target, tmp_path):
    large = np.random.default_rng(0).bytes(40_000_000)
    Store.create(path, manifest(), {**EXTRACTOR, "weights.bin": large}).close()
    del large
    tracemalloc.start()
    try:
        pack(path, target)
        unpack(target, tmp_path / "again")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_permissions(store, path, target, tmp_path):
    learn(store, [0])
    before = os.umask(0)
    try:
        pack(path, target)
        unpack(target, tmp_path / "again")
    finally:
        os.umask(before)
    for file in (tmp_path / "again", *(tmp_path / "again").rglob("*")):
        wanted = 0o755 if file.is_dir() else 0o644
        assert stat.S_IMODE(file.stat().st_mode) == wanted


# -- where it may be written ----------------------------------------------------------------------


def test_packing_takes_nobodys_place(store, path, target):
    target.write_bytes(b"mine")
    with pytest.raises(AlreadyExists, match="may be overwritten"):
        pack(path, target)
    assert target.read_bytes() == b"mine"
    pack(path, target, overwrite=True)
    assert zipfile.is_zipfile(target)
    for name in ("folder", "link"):
        taken = target.with_name(name)
        taken.mkdir() if name == "folder" else taken.symlink_to(path / "journal.db")
        with pytest.raises(AlreadyExists, match="not a file"):
            pack(path, taken, overwrite=True)
    assert names(target.parent) == ["folder", "link", "shop.retain"]


@pytest.mark.parametrize("links", [True, False])
def test_what_came_meanwhile_stays(store, path, target, monkeypatch, links):
    def refused(*_args):
        raise OSError(errno.EPERM, "no hard links here")

    @contextmanager
    def meanwhile(folder, copy):
        target.write_bytes(b"mine")
        yield

    if not links:
        monkeypatch.setattr(packing.os, "link", refused)
        pack(path, target)  # goes without them
        target.unlink()
    monkeypatch.setattr(packing, "_unforgotten", meanwhile)
    with pytest.raises(AlreadyExists):
        pack(path, target)
    assert target.read_bytes() == b"mine"
    assert names(target.parent) == ["shop.retain"]


def test_not_into_itself(store, path, tmp_path, monkeypatch):
    before = everything(path)
    (tmp_path / "link").symlink_to(path)
    for inside in (path / "a", path / "blobs" / "a", tmp_path / "link" / "a", path / "journal.db"):
        with pytest.raises(BadOption, match="is inside"):
            pack(path, inside, overwrite=True)
    monkeypatch.chdir(path)
    with pytest.raises(BadOption, match="is inside"):
        pack(path, Path("a"))
    with pytest.raises(BadOption, match="make it first"):
        pack(path, tmp_path / "nowhere" / "a")
    assert everything(path) == before
    pack(Path(), Path("../a.retain"))
    assert unpack(Path("../a.retain"), Path("../b")) == Path("../b")


def test_packing_what_is_none(path, target, tmp_path, store):
    with pytest.raises(NotAClassifier, match="does not exist"):
        pack(tmp_path / "nowhere", target)
    with pytest.raises(NotAClassifier, match="holds no classifier"):
        pack(tmp_path, target)
    store.close()
    connection = sqlite3.connect(path / "journal.db")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(NewerFormat, match="version 9"):
        pack(path, target)
    (path / "journal.db").write_bytes(b"")
    with pytest.raises(Damaged, match="missing or empty"):
        pack(path, target)
    (path / "journal.db").write_bytes(b"x" * 9000)
    with pytest.raises(Damaged, match="is damaged"):
        pack(path, target)
    assert names(target.parent) == []


def test_unpacking_takes_nobodys_place(store, path, target, tmp_path, monkeypatch):
    pack(path, target)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in (path, tmp_path / "full", tmp_path / "link", target):
        with pytest.raises(AlreadyExists):
            unpack(target, taken)
    (tmp_path / "empty").mkdir()
    unpack(target, tmp_path / "empty")

    def meanwhile(folder):
        (tmp_path / "late").mkdir(exist_ok=True)
        (tmp_path / "late" / "x").write_bytes(b"mine")

    monkeypatch.setattr(unpacking.Manifest, "read", meanwhile)
    with pytest.raises(AlreadyExists, match="not empty"):
        unpack(target, tmp_path / "late")
    assert names(tmp_path / "late") == ["x"]


# -- while others write ---------------------------------------------------------------------------


def test_packing_while_another_process_writes(store, path, target, tmp_path, children):  # noqa: F811
    """Each event brings four pictures of one label, and every third is forgotten again, so a
    whole state has four of each, and all that it names is there."""

    def function(say):
        with Store.open(path) as mine:
            say("writing")
            event = 0
            while True:
                learn(mine, range(4 * event, 4 * event + 4), f"label {event}")
                if event % 3 == 2:
                    with mine.writing("forget"):
                        mine.forget([picture(n).image for n in range(4 * event, 4 * event + 4)])
                event += 1

    writer = children(function)
    assert writer.line() == "writing"
    seen = set()
    for turn in range(12):
        file = target.with_name(f"{turn}.retain")
        pack(path, file)
        with Store.open(unpack(file, tmp_path / f"again {turn}")) as again:
            found = list(labels(again).values())
            assert all(found.count(label) == 4 for label in found)
            assert again.check() == ([], [])
            again_event = again.head_event()
        seen.add(again_event)
        data = file.read_bytes()
        for event in range(2, 3 * again_event // 4, 3):
            assert event + 1 + (event + 1) // 3 <= again_event  # the number of its forgetting
            assert not any(told(data, picture(n)) for n in range(4 * event, 4 * event + 4))
    assert len(seen) > 4
    assert len(names(target.parent)) == 12


def test_a_picture_forgotten_while_it_is_packed(store, path, target, monkeypatch):
    """At every moment of packing: the file is made anew without it."""
    learn(store, range(40))
    real = packing._add
    for moment in (2, 4, 5, 20, 38):
        gone, calls = picture(moment), []

        def added(archive, name, file, *image, gone=gone, calls=calls, moment=moment):
            calls.append(name)
            if len(calls) == moment:
                with store.writing("forget"):
                    store.forget([gone.image])
            return real(archive, name, file, *image)

        monkeypatch.setattr(packing, "_add", added)
        packed = pack(path, target, overwrite=True)
        assert len(calls) > packed.files
        assert not told(target.read_bytes(), gone)
        assert packed.files == 4 + len(store.members())
    assert len(store.members()) == 35


@pytest.mark.parametrize("writable", [True, False])
def test_a_picture_forgotten_while_the_file_is_summed(store, path, target, monkeypatch, writable):
    """It is whole by then, and yet not in its place."""
    learn(store, range(6))
    real, gone = packing.hashlib.file_digest, iter([picture(2), picture(3)])

    def summed(*given):
        for each in gone:
            with store.writing("forget"):
                store.forget([each.image])
            break
        return real(*given)

    monkeypatch.setattr(packing.hashlib, "file_digest", summed)
    if not writable:
        monkeypatch.setattr(packing, "_writable", lambda _folder: False)
    packed = pack(path, target)
    data = target.read_bytes()
    assert [n for n in range(6) if told(data, picture(n))] == [0, 1, 4, 5]
    assert packed.files == 4 + 4
    assert packed.bytes == len(data)
    assert packed.digest == "sha256:" + sha256(data).hexdigest()


def test_nothing_is_forgotten_between_the_last_look_and_the_file(store, path, target, monkeypatch):
    """A lesson, which holds the right to write for long, is not waited for."""
    learn(store, range(4))
    store._engine.raw_connection().execute("PRAGMA busy_timeout = 0")
    real = packing._publish

    def published(*given):
        with pytest.raises(Locked):
            store.forget([picture(1).image])
        real(*given)

    monkeypatch.setattr(packing, "_publish", published)
    with store.writing("learn"):
        assert pack(path, target).files == 4 + 4
        store.forget([picture(1).image])
    assert told(target.read_bytes(), picture(1))
    assert names(target.parent) == ["shop.retain"]


def test_one_that_is_forgotten_from_all_the_time_is_held_for_a_moment(
    store, path, target, monkeypatch
):
    """The last attempt makes the others wait; where that cannot be, it says so."""
    monkeypatch.setattr(packing, "_PATIENCE", 0.1)
    real, number = packing._add, iter(range(100))
    learn(store, range(30))

    def added(archive, name, *more):
        if name == "journal.db":
            try:
                with store.writing("forget", wait=0.0):
                    store.forget([picture(next(number)).image])
            except Locked:
                held.append(name)
        return real(archive, name, *more)

    held = []
    monkeypatch.setattr(packing, "_add", added)
    assert pack(path, target).files == 4 + 26
    assert held == ["journal.db"]
    monkeypatch.setattr(packing, "_writable", lambda _folder: False)
    with pytest.raises(Locked, match="less is going on"):
        pack(path, target, overwrite=True)
    monkeypatch.undo()
    assert len(names(target.parent)) == 1


def test_nothing_that_is_forgotten_or_half_learned_is_in_it(store, path, target, tmp_path):
    learn(store, range(6))
    with store.writing("forget"):
        store.forget([picture(1).image])
    with store.writing("learn"):
        store.stage([picture(7)])
    # An erasure that was interrupted: the rows are gone, the rest is still everywhere.
    with store._transaction(writes=True) as connection:
        packing.Blobs(path / "blobs").write({picture(8).image: picture(8).data})
        digest = bytes.fromhex(picture(8).image.removeprefix("sha256:"))
        connection.exec_driver_sql("INSERT INTO erasures VALUES (?)", (digest,))
        connection.exec_driver_sql("INSERT INTO erasures VALUES (x'')")
    before = store.check()
    pack(path, target)
    assert store.check() == before
    data = target.read_bytes()
    assert [n for n in range(10) if told(data, picture(n))] == [0, 2, 3, 4, 5]
    with Store.open(unpack(target, tmp_path / "again")) as again:
        assert again.check() == ([], [])
        assert len(again.known()) == 5
        with again.writing("learn"):
            assert everything(tmp_path / "again").keys()


def test_what_only_an_undone_event_speaks_of_is_kept(store, path, target, tmp_path):
    learn(store, [0])
    learn(store, [1])
    with store.writing("undo"):
        store.append("undo")
    pack(path, target)
    with Store.open(unpack(target, tmp_path / "again")) as again:
        with again.writing("undo"):
            again.append("undo", target=3)
        assert again.blob(picture(1).image) == picture(1).data
        assert labels(again).keys() == {picture(0).image, picture(1).image}


# -- killed, full, unwritable ---------------------------------------------------------------------


def test_a_killed_packing_leaves_no_file(store, path, target, monkeypatch):
    learn(store, range(4))
    for name in ("_copy_journal", "_add", "_unforgotten", "_publish"):

        def killed(*_args):
            raise Killed

        monkeypatch.setattr(packing, name, killed)
        with pytest.raises(Killed):
            pack(path, target)
        assert names(target.parent) == []
        monkeypatch.undo()


def test_kills_without_warning(store, path, target, tmp_path):
    """SIGKILL at random moments: no file or a whole one; the next call clears away."""
    learn(store, range(300))
    pack(path, tmp_path / "whole")
    rng = random.Random(0)
    killed = 0
    for turn in range(16):
        unpacks = turn % 2

        def function(say, unpacks=unpacks):
            say("begun")
            if unpacks:
                unpack(tmp_path / "whole", target)
            else:
                pack(path, target)

        child = Child(function)
        assert child.line() == "begun"
        time.sleep(rng.uniform(0.0, 0.15))
        child.kill()
        killed += child.wait() == signal.SIGKILL
        if target.is_dir():
            with Store.open(target) as again:
                assert again.check() == ([], [])
            shutil.rmtree(target)
        elif target.exists():
            assert target.read_bytes() == (tmp_path / "whole").read_bytes()
            target.unlink()
    assert killed
    pack(path, target)
    assert names(target.parent) == ["shop.retain"]
    assert store.check() == ([], [])


def test_strays_go_and_others_work_stays(store, path, target):
    for name in (".shop.retain.1.retain-tmp", ".shop.retain.2.retain-tmp", ".other.1.retain-tmp"):
        target.with_name(name).mkdir()
        target.with_name(name).joinpath("whole").write_bytes(b"half")
    target.with_name(".shop.retain.3.retain-tmp").write_bytes(b"no folder")
    handle = os.open(target.with_name(".shop.retain.2.retain-tmp"), os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    pack(path, target)
    os.close(handle)
    assert names(target.parent) == [
        ".other.1.retain-tmp",
        ".shop.retain.2.retain-tmp",
        ".shop.retain.3.retain-tmp",
        "shop.retain",
    ]


def test_an_interrupted_unpacking_leaves_nothing(store, path, target, tmp_path, monkeypatch):
    learn(store, range(4))
    pack(path, target)
    for name in ("_extract", "sync_folder"):

        def killed(*_args):
            raise Killed

        monkeypatch.setattr(unpacking, name, killed)
        before = names(tmp_path)
        with pytest.raises(Killed):
            unpack(target, tmp_path / "a" / "b" / "again")
        assert names(tmp_path) == before
        monkeypatch.undo()
    unpack(target, tmp_path / "a" / "b" / "again")


def test_no_room(store, path, target, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    learn(store, range(4))
    pack(path, target)
    for module, name in ((packing.zipfile.ZipFile, "writestr"), (packing.os, "fsync")):
        monkeypatch.setattr(module, name, full)
        with pytest.raises(DiskFull, match=r"b\.retain"):
            pack(path, target.with_name("b.retain"))
        monkeypatch.undo()

    def database_full(_journal):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(packing, "_drop_pending", database_full)
    with pytest.raises(DiskFull, match=f"disk of {target.parent} to pack"):
        pack(path, target.with_name("b.retain"))
    monkeypatch.setattr(unpacking, "sync_folder", full)
    with pytest.raises(DiskFull, match="again"):
        unpack(target, tmp_path / "again")
    assert names(target.parent) == ["shop.retain"]
    assert not (tmp_path / "again").exists()


def as_nobody(function):
    """What a function says in a process that owns nothing; root may write anywhere."""

    def dropped(say):
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        function(say)

    child = Child(dropped)
    lines = child.said.read().strip().split("\n")
    child.wait()
    return lines


@pytest.fixture
def open_place():
    """A folder that everybody may look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for each in (folder, *folder.rglob("*")):
        if each.is_dir() and not each.is_symlink():
            each.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("log", ["none", "left", "in use"])
def test_a_read_only_directory_can_be_packed(open_place, tmp_path, log):
    path, free = open_place / "shop", open_place / "free"
    free.mkdir()
    free.chmod(0o777)
    store = Store.create(path, manifest(), EXTRACTOR)
    learn(store, range(5))
    if log == "none":
        store.close()
    if log == "left":
        shutil.copytree(path, open_place / "crashed")
        path = open_place / "crashed"
        (path / "journal.db-shm").unlink()
    assert (path / "journal.db-wal").exists() == (log != "none")
    if os.getuid() != 0:
        for each in (path, *path.rglob("*")):
            each.chmod(0o555 if each.is_dir() else 0o444)
    before = everything(path)

    def function(say):
        say(str(pack(path, free / "shop.retain").files))
        try:
            pack(path, open_place / "shop.retain")
        except ReadOnly:
            say("refused")
        try:
            unpack(free / "shop.retain", open_place / "again")
        except ReadOnly:
            say("refused")

    said = as_nobody(function)
    assert said[0] == "9", said
    if os.getuid() == 0:
        assert said[1:] == ["refused", "refused"]
    assert everything(path).keys() == before.keys()
    assert names(free) == ["shop.retain"]
    store.close()
    with Store.open(unpack(free / "shop.retain", tmp_path / "again")) as again:
        assert again.check() == ([], [])
        learn(again, [9])


@pytest.mark.skipif(os.getuid() != 0, reason="needs a file that its reader may not read")
def test_a_file_that_cannot_be_read(open_place):
    path = open_place / "shop"
    with Store.create(path, manifest(), EXTRACTOR) as store:
        learn(store, range(2))
    open_place.chmod(0o777)
    secret = path / "extractors" / "eyes-1" / "features.onnx"
    secret.chmod(0o600)

    def function(say):
        pack(path, open_place / "shop.retain")

    assert as_nobody(function)[0].startswith(f"StoreError: {secret} cannot be read (Permission")
    assert names(open_place) == ["shop"]


# -- a classifier that is damaged -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["missing", "changed"])
def test_a_damaged_picture_is_not_packed(store, path, target, how):
    learn(store, range(4))
    file = packing.Blobs(path / "blobs").path(picture(2).image)
    file.unlink() if how == "missing" else file.write_bytes(b"other")
    with pytest.raises(Damaged, match=f"retain forget {path} {picture(2).image}"):
        pack(path, target)
    assert names(target.parent) == []
    with store.writing("forget"):
        store.forget([picture(2).image])
    assert pack(path, target).files == 4 + 3


def test_odd_files_beside_the_extractor(store, path, target, tmp_path):
    extractor = path / "extractors" / "eyes-1"
    (extractor / ".features.onnx.1.tmp").write_bytes(b"half")
    (extractor / "more é").mkdir()
    (extractor / "more é" / "labels 1.txt").write_bytes(b"a")
    pack(path, target)
    found = everything(unpack(target, tmp_path / "again"))
    assert found[tmp_path / "again" / "extractors" / "eyes-1" / "more é" / "labels 1.txt"] == b"a"
    assert not any(".tmp" in str(file) for file in found)
    for odd in ("a\\b", "a\nb", "caf\udce9", ".hidden", "link", "pipe"):
        file = extractor / odd
        if odd == "link":
            file.symlink_to(tmp_path)
        elif odd == "pipe":
            os.mkfifo(file)
        else:
            file.write_bytes(b"")
        with pytest.raises(BadOption, match="rename or remove it"):
            pack(path, target, overwrite=True)
        file.unlink()
    shutil.move(extractor, tmp_path / "elsewhere")
    with pytest.raises(Damaged, match="is missing"):
        pack(path, target, overwrite=True)
    extractor.symlink_to(tmp_path / "elsewhere")
    pack(path, target, overwrite=True)
    assert everything(unpack(target, tmp_path / "more")).keys() >= {
        tmp_path / "more" / "extractors" / "eyes-1" / name for name in EXTRACTOR
    }


# -- a file that is damaged -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A packed classifier: its bytes, and the files that come out of it."""
    folder = tmp_path_factory.mktemp("sound")
    with Store.create(folder / "shop", manifest(), EXTRACTOR) as store:
        learn(store, range(8))
    pack(folder / "shop", folder / "file")
    unpack(folder / "file", folder / "again")
    found = everything(folder / "again")
    return (folder / "file").read_bytes(), relative(found, folder / "again")


def relative(found, folder):
    return {str(file.relative_to(folder)): data for file, data in found.items()}


def attempt(data, truth, tmp_path):
    """Unpack bytes: Damaged, or the very same files; returns whether it was Damaged."""
    (tmp_path / "file").write_bytes(data)
    place = tmp_path / "again"
    try:
        unpack(tmp_path / "file", place)
    except Damaged as error:
        assert str(tmp_path / "file") in str(error)  # noqa: PT017 it may also go well
        assert names(tmp_path) == ["file"]
        return True
    assert relative(everything(place), place) == truth
    shutil.rmtree(place)
    return False


def spread(data):
    """Sixty places in a file, half of them in what says where its parts are."""
    rng = random.Random(5)
    start = data.index(b"PK\x01\x02")
    return [rng.randrange(len(data)) for _ in range(30)] + [
        rng.randrange(start - 200, len(data)) for _ in range(30)
    ]


@pytest.mark.parametrize("mask", [0xFF, 0x01])
def test_one_byte_is_another(sound, tmp_path, mask):
    data, truth = sound
    damaged = 0
    for at in spread(data):
        changed = bytearray(data)
        changed[at] ^= mask
        damaged += attempt(bytes(changed), truth, tmp_path)
    assert damaged > 30


def test_every_byte_of_the_directory(sound, tmp_path):
    """The part of a ZIP that other programs trip over."""
    data, truth = sound
    start = data.index(b"PK\x01\x02")
    for at in [*range(30), *range(start, start + 60), *range(len(data) - 22, len(data))]:
        for mask in (0xFF, 0x80):
            changed = bytearray(data)
            changed[at] ^= mask
            attempt(bytes(changed), truth, tmp_path)


def test_cut_off_or_not_a_zip(sound, tmp_path):
    data, truth = sound
    for length in (0, 1, 4, 21, 22, len(data) // 2, len(data) - 22, len(data) - 1):
        assert attempt(data[:length], truth, tmp_path)
        assert attempt(data[length + 1 :], truth, tmp_path) or length == 0
    assert attempt(b"\xff\xd8\xff\xe0 a photo" * 100, truth, tmp_path)
    assert attempt(data[: len(data) // 2] + bytes(len(data) - len(data) // 2), truth, tmp_path)
    assert attempt(data[:3000] + data[3001:], truth, tmp_path)


def test_no_file(sound, tmp_path):
    with pytest.raises(NotAClassifier, match="does not exist"):
        unpack(tmp_path / "nowhere", tmp_path / "again")
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(NotAClassifier, match="is not a file"):
            unpack(other, tmp_path / "again")
    assert names(tmp_path) == ["pipe"]


# -- a file that means harm -----------------------------------------------------------------------


class Made:
    """A pack of somebody who knows the format: each part can be told otherwise."""

    def __init__(self, sound):
        with zipfile.ZipFile(io.BytesIO(sound[0])) as archive:
            self.files = {info.filename: archive.read(info) for info in archive.infolist()}
        self.index = json.loads(self.files.pop("index.json"))
        self.attributes, self.twice, self.compression = {}, (), zipfile.ZIP_STORED

    def add(self, name, data):
        self.files[name] = data
        self.index["files"][name] = {"size": len(data), "sha256": sha256(data).hexdigest()}

    def bytes(self):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", self.compression) as archive:
            for name, data in [*self.files.items(), ("index.json", json.dumps(self.index))]:
                info = zipfile.ZipInfo(name)
                info.compress_type = self.compression
                info.external_attr = self.attributes.get(name, 0)
                archive.writestr(info, data)
                if name in self.twice:
                    archive.writestr(info, data)
        return buffer.getvalue()


@pytest.fixture
def made(sound):
    return Made(sound)


def test_what_was_made_by_hand_is_fine(made, sound, tmp_path):
    assert not attempt(made.bytes(), sound[1], tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/tmp/evil",
        "extractors/../../evil",
        "extractors/eyes-1/../../../evil",
        "extractors/eyes-1/..",
        "extractors/eyes-1/.hidden",
        "extractors/eyes-1/",
        "extractors/eyes-1//a",
        "extractors/eyes-1/a\\..\\b",
        "extractors/eyes-1/a\nb",
        "extractors/evil",
        "..\\evil",
        "C:\\evil",
        "journal.db-wal",
        "lock",
        "versions/head.safetensors",
        "./manifest.json",
        "blobs/00/evil",
        "blobs/00/" + "1" * 64,
        "blobs/11/" + "1" * 64,
        "extractors/eyes-1/" + "é" * 200,
        "extractors/" + "a/" * 9 + "a",
        "",
    ],
)
def test_names_that_do_not_belong(made, sound, tmp_path, name):
    made.add(name, b"evil")
    assert attempt(made.bytes(), sound[1], tmp_path)
    del made.index["files"][name]
    assert attempt(made.bytes(), sound[1], tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_harm(made, sound, tmp_path):
    def harmed(change):
        other = Made(sound)
        change(other)
        return attempt(other.bytes(), sound[1], tmp_path)

    entry = "extractors/eyes-1/features.onnx"
    for kind in (stat.S_IFLNK, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO):
        assert harmed(lambda m, kind=kind: m.attributes.update({entry: (kind | 0o777) << 16}))
    assert not harmed(lambda m: m.attributes.update({entry: (stat.S_IFREG | 0o4777) << 16}))
    assert harmed(lambda m: setattr(m, "twice", {entry}))
    assert harmed(lambda m: setattr(m, "twice", {"index.json"}))
    assert harmed(lambda m: setattr(m, "compression", zipfile.ZIP_DEFLATED))
    assert harmed(lambda m: m.files.update({"extractors/eyes-1/more": b""}))
    for name in (entry, "manifest.json", "journal.db"):
        assert harmed(lambda m, name=name: m.files.pop(name))
        assert harmed(lambda m, name=name: m.index["files"].pop(name))
    for name in ("manifest.json", "journal.db"):
        assert harmed(lambda m, name=name: (m.files.pop(name), m.index["files"].pop(name)))


@pytest.mark.parametrize(
    "index",
    [
        [],
        None,
        {},
        {"format": 1},
        {"format": "1"},
        {"format": 0},
        {"format": True},
        {"format": 1, "files": []},
        {"format": 1, "files": {}},
        {"format": 1, "files": {"manifest.json": {}}},
        {"format": 1, "files": {"manifest.json": {"size": "2", "sha256": "0" * 64}}},
        {"format": 1, "files": {"manifest.json": {"size": 2, "sha256": 5}}},
        {"format": 1, "files": {"manifest.json": {"size": 2, "sha256": "A" * 64}}},
        {"format": 1, "files": "x" * 200_000},
    ],
)
def test_an_index_that_cannot_be(made, sound, tmp_path, index):
    made.index = index
    assert attempt(made.bytes(), sound[1], tmp_path)


def test_an_index_that_lies(made, sound, tmp_path):
    first = made.index["files"]["journal.db"]
    for lie in ({"size": first["size"] - 1}, {"size": 10**18}, {"size": -1}, {"sha256": "0" * 64}):
        other = Made(sound)
        other.index["files"]["journal.db"].update(lie)
        assert attempt(other.bytes(), sound[1], tmp_path)
    text = json.dumps(made.index).replace('"format": 1', '"format": 1, "format": 1')
    data = bytearray(made.bytes())
    made.index = None
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in [*made.files.items(), ("index.json", text)]:
            archive.writestr(name, content)
    assert attempt(buffer.getvalue(), sound[1], tmp_path)
    assert not attempt(bytes(data), sound[1], tmp_path)


@pytest.mark.parametrize("grow", [-1, 1, 10**6, 2**31])
def test_sizes_that_lie(made, sound, tmp_path, grow):
    """As a bomb would: what is said of an entry, in the directory and in the index, is no size
    that it has; nothing is written past the one that was said."""
    entry, data = "extractors/eyes-1/features.onnx", made.bytes()
    changed = bytearray(data)
    at = data.index(entry.encode(), data.index(b"PK\x01\x02")) - 46
    size = len(EXTRACTOR["features.onnx"])
    for field in ((24,), (20, 24)):
        for offset in field:
            struct.pack_into("<I", changed, at + offset, size + grow)
        assert attempt(bytes(changed), sound[1], tmp_path)


def test_two_entries_on_the_same_bytes(made, sound, tmp_path):
    """A bomb without compression: many names, one content."""
    inner, outer = "extractors/eyes-1/a", "extractors/eyes-1/b"
    made.add(inner, b"x" * 1000)
    made.add(outer, b"x" * 1000)
    data = bytearray(made.bytes())
    start = data.index(b"PK\x01\x02")
    one = data.index(inner.encode(), start) - 46
    two = data.index(outer.encode(), start) - 46
    data[two + 42 : two + 46] = data[one + 42 : one + 46]
    at = struct.unpack_from("<I", data, one + 42)[0]
    data[at + 30 : at + 30 + len(inner)] = outer.encode()
    assert attempt(bytes(data), sound[1], tmp_path)


def test_newer_ones(made, sound, tmp_path):
    made.index.update({"format": 2, "files": ["unheard", "of"]})
    made.files["unheard"] = b"of"
    (tmp_path / "file").write_bytes(made.bytes())
    with pytest.raises(NewerFormat, match="format 2, and this retain unpacks up to 1"):
        unpack(tmp_path / "file", tmp_path / "again")
    other = Made(sound)
    values = {**json.loads(other.files["manifest.json"]), "format": 9}
    other.add("manifest.json", json.dumps(values).encode())
    (tmp_path / "file").write_bytes(other.bytes())
    with pytest.raises(NewerFormat, match=f"{tmp_path / 'file'} has format 9"):
        unpack(tmp_path / "file", tmp_path / "again")
    other.add("manifest.json", b"{}")
    (tmp_path / "file").write_bytes(other.bytes())
    with pytest.raises(Damaged, match=r"manifest\.json cannot be understood"):
        unpack(tmp_path / "file", tmp_path / "again")
    assert names(tmp_path) == ["file"]
