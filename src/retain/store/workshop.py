"""Where something is made that is to appear whole or not at all: a folder beside its place."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["workshop"]

_SUFFIX = ".retain-tmp"


@contextmanager
def workshop(place: Path) -> Iterator[Path]:
    """A new folder beside a place, for its owner only; gone afterwards.

    One that a killed process left, with pictures in it that may have to be forgotten, goes when
    the next thing is made for the same place.
    """
    parent, prefix = place.absolute().parent, f".{place.name[:40]}."
    with suppress(OSError):
        _sweep(parent, prefix)
    room, handle = _room(parent, prefix)
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)
        os.close(handle)


def _sweep(parent: Path, prefix: str) -> None:
    for stray in parent.iterdir():
        if stray.name.startswith(prefix) and stray.name.endswith(_SUFFIX):
            with suppress(OSError):
                handle = _opened(stray)
                try:
                    # The kernel lets go of it when its process dies.
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(stray, ignore_errors=True)
                finally:
                    os.close(handle)


def _room(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        room = Path(tempfile.mkdtemp(_SUFFIX, prefix, parent))
        handle = None
        with suppress(FileNotFoundError):  # another process sweeps just now
            handle = _opened(room)
            if _held(handle) and room.exists():
                return room, handle
        if handle is not None:
            os.close(handle)


def _held(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network disks lock no folders; there, strays stay
        pass
    return True


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
