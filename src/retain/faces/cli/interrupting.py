"""What Ctrl-C does while a command changes a classifier.

Until the last picture is read it stops the command at once, and nothing has happened. From then on
the event is being worked out and written, which is short: what is begun is finished and reported,
so that nobody is told that nothing happened when it has. A second Ctrl-C stops even that, and what
is said then is to look whether it was done.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from retain.values import Progress

__all__ = ["MAYBE_DONE", "finishing", "held", "interruptible"]

MAYBE_DONE: Final = (
    "stopped at the very end, so it may have been done: see `retain log NAME` before you run the "
    "same command again"
)

_WAIT: Final = b"\nretain: finishing what is begun; Ctrl-C once more stops even that\n"


class _Later:
    """A handler of SIGINT that waits for the end; the second time it does not."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt(MAYBE_DONE)
        self.asked = True
        # Not by way of Python's streams: they may be in the middle of something.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _WAIT)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C do again, at the end, what it did at the beginning."""
    before = _handler()
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def held() -> None:
    """From here to the end of the command, finish what is begun before a Ctrl-C counts."""
    if _handler() is signal.default_int_handler:
        signal.signal(signal.SIGINT, _Later())


def finishing(tick: Progress | None) -> Progress:
    """The same progress, after whose last picture what is begun is finished."""

    def heard(done: int, total: int) -> None:
        handler = _handler()
        if done >= total:
            held()
        elif isinstance(handler, _Later):
            # There is more to come after all.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if handler.asked:
                raise KeyboardInterrupt
        if tick is not None:
            tick(done, total)

    return heard


def _handler() -> Any:
    """What handles SIGINT; None where that cannot be said or set: outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.getsignal(signal.SIGINT)
