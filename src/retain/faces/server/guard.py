"""Pictures are decoded in processes of their own, so that no file can take the server down."""

from __future__ import annotations

import os
import queue
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO, Final, final

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadImage
from retain.faces.server.guard_worker import ANSWER, DECODE, DRAW, READY, REQUEST

__all__ = ["Guard"]

_SECONDS: Final = 10.0

# A process that begins may take so long; on a busy machine no picture is blamed for that.
_BEGIN: Final = 60.0
_MEMORY: Final = 1 << 30

# A file for pixels that grew beyond this is emptied again.
_LARGE: Final = 16 * 1024 * 1024

_DIED: Final = (
    "the decoder gave up on it (it crashed, or took too long or too much memory); save it anew as "
    "JPEG or PNG"
)


class _Died(Exception):
    """The process is no more; it may have been the picture, or somebody killed it."""


class _Slow(Exception):
    """The time is over."""


@final
class Guard:
    """So many processes that decode, each replaced when it dies; safe between threads."""

    def __init__(
        self, processes: int = 2, *, seconds: float = _SECONDS, memory: int = _MEMORY
    ) -> None:
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        self._seconds = seconds
        self.restarts = 0
        for _ in range(processes):
            self._idle.put(_Process(memory))
        self._processes = processes

    def decode(self, data: bytes, *, shorter: int | None = None) -> NDArray[np.uint8]:
        """What `retain.vision.decode` gives, uint8 [h, w, 3] (BadImage if nothing)."""
        found = self._ask(DECODE, shorter or 0, data)
        assert isinstance(found, np.ndarray)
        return found

    def draw(self, data: bytes, side: int) -> bytes:
        """A picture made small, as a JPEG with at most `side` pixels (BadImage if it is none)."""
        found = self._ask(DRAW, side, data)
        assert isinstance(found, bytes)
        return found

    def close(self) -> None:
        """End the processes."""
        for _ in range(self._processes):
            self._idle.get().kill()

    def _ask(self, kind: int, side: int, data: bytes) -> NDArray[np.uint8] | bytes:
        process = self._idle.get()
        try:
            # Once more, with a new process: this one may have been killed for another's sins.
            for left in (1, 0):
                try:
                    return process.ask(kind, side, data, self._seconds)
                except _Died:
                    self.restarts += 1
                    if not left:
                        raise BadImage(_DIED) from None
                except _Slow:
                    self.restarts += 1
                    raise BadImage(_DIED) from None
                except BadImage:
                    raise
                except BaseException:
                    # Half a conversation: what comes next would be another's answer.
                    process.kill()
                    raise
            raise AssertionError
        finally:
            self._idle.put(process)


@final
class _Process:
    """One process and the file that it writes pixels to; started when it is first needed."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._file: IO[bytes] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def ask(self, kind: int, side: int, data: bytes, seconds: float) -> NDArray[np.uint8] | bytes:
        with self._turn:
            child, file = self._started()
            deadline = time.monotonic() + seconds
            try:
                _send(child, (REQUEST.pack(kind, side, len(data)), data), deadline)
                head = _receive(child, ANSWER.size, deadline)
                done, height, width, size = ANSWER.unpack(head)
                body = _receive(child, size, deadline)
            except (_Died, _Slow):
                self.kill()
                raise
            if not done:
                raise BadImage(body.decode("utf-8", "replace"))
            if kind == DRAW:
                return body
            pixels = np.empty((height, width, 3), np.uint8)
            if os.preadv(file.fileno(), [pixels.data.cast("B")], 0) != pixels.nbytes:
                self.kill()
                raise BadImage(_DIED)
            if pixels.nbytes > _LARGE:
                os.ftruncate(file.fileno(), 0)
            return pixels

    def kill(self) -> None:
        """End it at once; the next question starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def _started(self) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        if self._file is None:
            self._file = _nameless()
        if self._child is None or self._child.poll() is not None:
            self.kill()
            environment = {
                "PATH": os.environ.get("PATH", ""),
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            }
            self._child = subprocess.Popen(  # noqa: S603 - this very program
                [
                    *(sys.executable, "-m", "retain.faces.server.guard_worker"),
                    *(str(self._file.fileno()), str(self._memory)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[self._file.fileno()],
                env=environment,
                bufsize=0,
            )
            assert self._child.stdin is not None
            os.set_blocking(self._child.stdin.fileno(), False)
            try:
                _receive(self._child, len(READY), time.monotonic() + _BEGIN)
            except (_Died, _Slow):
                self.kill()
                raise
        return self._child, self._file


def _nameless() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("pixels"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise _Slow


def _send(child: subprocess.Popen[bytes], parts: Sequence[bytes], deadline: float) -> None:
    assert child.stdin is not None
    left = [memoryview(part) for part in parts]
    while left:
        try:
            sent = os.writev(child.stdin.fileno(), left)
        except BlockingIOError:
            _wait(child.stdin.fileno(), select.POLLOUT, deadline)
            continue
        except OSError:
            raise _Died from None
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if left:
            left[0] = left[0][sent:]


def _receive(child: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
    assert child.stdout is not None
    parts = bytearray()
    while len(parts) < size:
        _wait(child.stdout.fileno(), select.POLLIN, deadline)
        part = os.read(child.stdout.fileno(), size - len(parts))
        if not part:
            raise _Died
        parts += part
    return bytes(parts)
