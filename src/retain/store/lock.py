"""One writer at a time: a file lock that the kernel drops when its process dies."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from retain.errors import Locked

__all__ = ["exclusive"]

_POLL = 0.05


@contextmanager
def exclusive(folder: Path, verb: str, wait: float, name: str = "lock") -> Iterator[None]:
    """Hold the right to write to the classifier in `folder`.

    Args:
        folder: the classifier.
        verb: what it is held for; told to those who wait in vain.
        wait: how many seconds to wait for another holder.
        name: of the file, where another right than that to write is meant.

    Raises:
        Locked: if another process still holds it then; the message names it.
    """
    handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Locked(
                        f"{folder} is being written by {_holder(handle)}; nothing was changed. "
                        f"Try again when it has finished"
                    ) from None
                time.sleep(_POLL)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(handle, 0)
        os.pwrite(
            handle, json.dumps({"process": os.getpid(), "verb": verb, "since": now}).encode(), 0
        )
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    try:
        values = json.loads(os.pread(handle, 4096, 0))
        return f"process {values['process']} (`{values['verb']}`, since {values['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
