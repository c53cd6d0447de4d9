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
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
        self._lines = threading.local()
        self.restarts = 0
        for _ in range(processes):
            self._idle.put(_Process(memory))
        self._processes = processes

    def decode(self, data: bytes, *, shorter: int | None = None) -> NDArray[np.uint8]:
        """What `retain.vision.decode` gives, uint8 [h, w, 3] (BadImage if nothing)."""
        line: _Line | None = getattr(self._lines, "line", None)
        if line is None:
            process = self._idle.get()
            try:
                found = self._ask(process, DECODE, shorter or 0, data)
            finally:
                self._idle.put(process)
        else:
            ahead = line.take(data, shorter or 0)
            found = self._ask(line.process, DECODE, shorter or 0, data) if ahead is None else ahead
        assert isinstance(found, np.ndarray)
        return found

    def draw(self, data: bytes, side: int) -> bytes:
        """A picture made small, as a JPEG with at most `side` pixels (BadImage if it is none)."""
        process = self._idle.get()
        try:
            found = self._ask(process, DRAW, side, data)
        finally:
            self._idle.put(process)
        assert isinstance(found, bytes)
        return found

    @contextmanager
    def in_line(self, pictures: Sequence[bytes]) -> Iterator[None]:
        """Inside, this thread will decode these, in this order or leaving some out.

        Whenever it has one, the next is decoded while the thread is busy with that; so it need not
        wait for any but the first.
        """
        try:
            process = self._idle.get_nowait()
        except queue.Empty:
            yield
            return
        line = self._lines.line = _Line(process, pictures, self._seconds)
        try:
            yield
        finally:
            self._lines.line = None
            line.end()
            self._idle.put(process)

    def close(self) -> None:
        """End the processes."""
        for _ in range(self._processes):
            self._idle.get().kill()

    def _ask(
        self, process: _Process, kind: int, side: int, data: bytes
    ) -> NDArray[np.uint8] | bytes:
        # Once more, with a new process: this one may have been killed for another's sins.
        for left in (1, 0):
            try:
                process.begin(kind, side, data, self._seconds)
                return process.finish(self._seconds)
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


@final
class _Line:
    """Pictures that one thread wants decoded in turn, and the process that does them."""

    def __init__(self, process: _Process, pictures: Sequence[bytes], seconds: float) -> None:
        self.process = process
        self._coming = deque(pictures)
        self._begun: bytes | None = None
        self._seconds = seconds

    def take(self, data: bytes, side: int) -> NDArray[np.uint8] | None:
        """The pixels of a picture; None if it must be asked for by itself (BadImage)."""
        while self._coming and any(each is data for each in self._coming):
            if self._coming.popleft() is data:
                break
        begun = self._begun is data
        if not begun:
            self.end()
        self._begun, process = None, self.process
        try:
            if not begun:
                process.begin(DECODE, side, data, self._seconds)
            try:
                found = process.finish(self._seconds)
            finally:
                if self._coming and process.alive:
                    process.begin(DECODE, side, self._coming[0], self._seconds)
                    self._begun = self._coming[0]
        except (_Died, _Slow):
            # By itself it is tried anew, and blamed if it must be.
            return None
        except BadImage:
            raise
        except BaseException:
            process.kill()
            raise
        assert isinstance(found, np.ndarray)
        return found

    def end(self) -> None:
        """What was begun is not wanted after all."""
        begun, self._begun = self._begun, None
        if begun is not None:
            try:
                self.process.finish(self._seconds)
            except (BadImage, _Died, _Slow):
                pass
            except BaseException:
                self.process.kill()
                raise


@final
class _Process:
    """One process, and files that it writes pixels to; started when it is first needed.

    One thread uses it at a time. Two pictures may be under way; they are finished in order.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._files: tuple[IO[bytes], ...] = ()
        self._child: subprocess.Popen[bytes] | None = None
        self._asked: deque[tuple[int, int]] = deque()
        self._place = 0

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return self._child is not None

    def begin(self, kind: int, side: int, data: bytes, seconds: float) -> None:
        """Ask for a picture (_Died, _Slow)."""
        child = self._started()
        self._place = (self._place + 1) % len(self._files)
        parts = REQUEST.pack(kind, self._place, side, len(data)), data
        try:
            _send(child, parts, time.monotonic() + seconds)
        except (_Died, _Slow):
            self.kill()
            raise
        self._asked.append((kind, self._place))

    def finish(self, seconds: float) -> NDArray[np.uint8] | bytes:
        """What came of the first that was asked for (BadImage, _Died, _Slow)."""
        child = self._child
        if child is None or not self._asked:
            raise _Died
        kind, place = self._asked.popleft()
        deadline = time.monotonic() + seconds
        try:
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
        file = self._files[place].fileno()
        pixels = np.empty((height, width, 3), np.uint8)
        if os.preadv(file, [pixels.data.cast("B")], 0) != pixels.nbytes:
            self.kill()
            raise BadImage(_DIED)
        if pixels.nbytes > _LARGE:
            os.ftruncate(file, 0)
        return pixels

    def kill(self) -> None:
        """End it at once; the next question starts another."""
        self._asked.clear()
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        self._files = self._files or (_nameless(), _nameless())
        if self._child is None or self._child.poll() is not None:
            lost = bool(self._asked)
            self.kill()
            if lost:
                raise _Died
            environment = {
                "PATH": os.environ.get("PATH", ""),
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            }
            files = [each.fileno() for each in self._files]
            self._child = subprocess.Popen(  # noqa: S603 - this very program
                [
                    *(sys.executable, "-m", "retain.faces.server.guard_worker"),
                    *(str(self._memory), *map(str, files)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=files,
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
        return self._child


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
