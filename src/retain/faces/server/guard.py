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

# A file for a picture that grew beyond this is emptied again.
_LARGE: Final = 16 * 1024 * 1024

# So many pictures of a line are under way at a time: the process need not be woken for each.
_AHEAD: Final = 4

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
        self._begun: deque[bytes] = deque()
        self._seconds = seconds

    def take(self, data: bytes, side: int) -> NDArray[np.uint8] | None:
        """The pixels of a picture; None if it must be asked for by itself (BadImage)."""
        try:
            if self._goes_to(data):
                self._begin(side)
                self._begun.popleft()
            else:
                self.process.begin(DECODE, side, data, self._seconds)
            found = self.process.finish(self._seconds)
            self._begin(side)
        except (_Died, _Slow):
            # By itself it is tried anew, and blamed if it must be.
            self._lost()
            return None
        except BadImage:
            raise
        except BaseException:
            self.process.kill()
            self._lost()
            raise
        assert isinstance(found, np.ndarray)
        return found

    def end(self) -> None:
        """What was begun is not wanted after all."""
        while self._begun:
            self._drop()

    def _goes_to(self, data: bytes) -> bool:
        """Leave out those before this one; False if it is none of the line, which waits then."""
        while self._begun and any(each is data for each in self._begun):
            if self._begun[0] is data:
                return True
            self._drop()
        if self._begun:
            again = tuple(self._begun)
            self.end()
            self._coming.extendleft(reversed(again))
        while any(each is data for each in self._coming):
            if self._coming[0] is data:
                return True
            self._coming.popleft()
        return False

    def _begin(self, side: int) -> None:
        """Have the next ones begun, as many as may be under way."""
        while self._coming and len(self._begun) < _AHEAD:
            self.process.begin(DECODE, side, self._coming[0], self._seconds)
            self._begun.append(self._coming.popleft())

    def _drop(self) -> None:
        """The first that was begun is not wanted after all."""
        self._begun.popleft()
        try:
            self.process.finish(self._seconds)
        except BadImage:
            pass
        except (_Died, _Slow):
            self._lost()
        except BaseException:
            self.process.kill()
            self._lost()
            raise

    def _lost(self) -> None:
        """The process is gone, and what was begun must be begun anew."""
        self._coming.extendleft(reversed(self._begun))
        self._begun.clear()


@final
class _Process:
    """One process, and files that hold a picture each; started when it is first needed.

    A file has what was sent, and then its pixels. One thread uses the process at a time. As many
    pictures as there are files may be under way; they are finished in order.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._files: tuple[IO[bytes], ...] = ()
        self._child: subprocess.Popen[bytes] | None = None
        self._asked: deque[tuple[int, int, int]] = deque()
        self._place = 0

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return self._child is not None

    def begin(self, kind: int, side: int, data: bytes, seconds: float) -> None:
        """Ask for a picture (_Died, _Slow)."""
        child = self._started()
        self._place = (self._place + 1) % len(self._files)
        _write(self._files[self._place].fileno(), data)
        try:
            _send(
                child,
                REQUEST.pack(kind, self._place, side, len(data)),
                time.monotonic() + seconds,
            )
        except (_Died, _Slow):
            self.kill()
            raise
        self._asked.append((kind, self._place, len(data)))

    def finish(self, seconds: float) -> NDArray[np.uint8] | bytes:
        """What came of the first that was asked for (BadImage, _Died, _Slow)."""
        child = self._child
        if child is None or not self._asked:
            raise _Died
        kind, place, sent = self._asked.popleft()
        file = self._files[place].fileno()
        deadline = time.monotonic() + seconds
        try:
            head = _receive(child, ANSWER.size, deadline)
            done, height, width, size = ANSWER.unpack(head)
            body = _receive(child, size, deadline)
        except (_Died, _Slow):
            self.kill()
            raise
        if not done or kind == DRAW:
            self._spare(file, sent)
            if not done:
                raise BadImage(body.decode("utf-8", "replace"))
            return body
        pixels = np.empty((height, width, 3), np.uint8)
        if os.preadv(file, [pixels.data.cast("B")], 0) != pixels.nbytes:
            self.kill()
            raise BadImage(_DIED)
        self._spare(file, max(sent, pixels.nbytes))
        return pixels

    @staticmethod
    def _spare(file: int, size: int) -> None:
        if size > _LARGE:
            os.ftruncate(file, 0)

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
        self._files = self._files or tuple(_nameless() for _ in range(_AHEAD))
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
            for pipe in (self._child.stdin, self._child.stdout):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
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


def _write(file: int, data: bytes) -> None:
    left, place = memoryview(data), 0
    while left:
        done = os.pwrite(file, left, place)
        left, place = left[done:], place + done


def _send(child: subprocess.Popen[bytes], request: bytes, deadline: float) -> None:
    assert child.stdin is not None
    while request:
        try:
            request = request[os.write(child.stdin.fileno(), request) :]
        except BlockingIOError:
            _wait(child.stdin.fileno(), select.POLLOUT, deadline)
        except OSError:
            raise _Died from None


def _receive(child: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
    assert child.stdout is not None
    parts = bytearray()
    while len(parts) < size:
        try:
            part = os.read(child.stdout.fileno(), size - len(parts))
        except BlockingIOError:
            _wait(child.stdout.fileno(), select.POLLIN, deadline)
            continue
        if not part:
            raise _Died
        parts += part
    return bytes(parts)
