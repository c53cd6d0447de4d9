"""Pictures' bytes are on the disk before anything speaks of them, and waited for all at once."""

import os
from pathlib import Path

import numpy as np
import pytest

from retain.store.blobs import Blobs
from retain.values import content_hash


def pictures(count, seed=0):
    data = [np.random.default_rng([seed, n]).bytes(50 + n) for n in range(count)]
    return {content_hash(each): each for each in data}


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the disk, in order: ("write" | "sync" | "name", inode)."""
    found = []
    sync, write, name = os.fsync, Path.write_bytes, Path.replace

    def synced(handle):
        found.append(("sync", os.fstat(handle).st_ino))
        sync(handle)

    def written(path, data):
        write(path, data)
        found.append(("write", path.stat().st_ino))

    def named(path, target):
        found.append(("name", path.stat().st_ino))
        return name(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "write_bytes", written)
    monkeypatch.setattr(Path, "replace", named)
    return found


def test_all_are_written_then_all_waited_for_then_all_named(tmp_path, calls):
    blobs, given = Blobs(tmp_path), pictures(40)
    blobs.write(given)
    files = [blobs.path(image).stat().st_ino for image in given]
    folders = {blobs.path(image).parent.stat().st_ino for image in given}
    assert calls[:120] == [(what, file) for what in ("write", "sync", "name") for file in files]
    assert sorted(calls[120:]) == sorted(
        ("sync", folder) for folder in {tmp_path.stat().st_ino, *folders}
    )
    assert {image: blobs.read(image) for image in given} == given


def test_what_is_there_is_not_written_again_but_its_name_is_made_sure(tmp_path, calls):
    blobs, given = Blobs(tmp_path), pictures(3)
    blobs.write(given)
    calls.clear()
    blobs.write(given)
    assert {what for what, _ in calls} == {"sync"}
    assert len(calls) == 1 + len({blobs.path(image).parent for image in given})


@pytest.mark.parametrize("point", range(0, 26, 5))
def test_a_stop_at_any_point_leaves_only_whole_pictures(tmp_path, monkeypatch, point):
    """An error anywhere leaves no half-written file, and no name without its bytes synced."""
    blobs, given = Blobs(tmp_path), pictures(8)
    count = 0

    def stopping(function):
        def instead(*args):
            nonlocal count
            count += 1
            if count > point:
                raise KeyboardInterrupt
            return function(*args)

        return instead

    for holder, name in ((Path, "write_bytes"), (os, "fsync"), (Path, "replace")):
        monkeypatch.setattr(holder, name, stopping(getattr(holder, name)))
    with pytest.raises(KeyboardInterrupt):
        blobs.write(given)
    monkeypatch.undo()
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(len(path.name) == 64 for path in left)
    assert all(blobs.read(f"sha256:{path.name}") == given[f"sha256:{path.name}"] for path in left)
    assert len(left) == max(0, min(8, point - 16))
    blobs.write(given)
    assert set(blobs.all()) == set(given)
