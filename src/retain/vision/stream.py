"""Many pictures through an extractor: read, hashed, decoded and run in parallel, given in order.

Each thread takes one picture all the way; NumPy, libjpeg-turbo, Pillow and ONNX Runtime let go of
the interpreter while they work, so two threads do nearly twice as much. Only a few pictures per
thread are under way at any time, so memory does not grow with the number of files.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadImage, BadOption
from retain.values import Source, content_hash
from retain.vision.extractor import Extractor

__all__ = ["Extracted", "by_itself", "extract_many", "usable_cores"]

AHEAD = 4
"""How many pictures per thread may be under way or waiting to be taken."""

_BY_ITSELF: ContextVar[bool] = ContextVar("by_itself", default=False)


@dataclass(frozen=True, eq=False, slots=True)
class Extracted:
    """What became of one source: a feature, an error, or neither when it was skipped.

    Attributes:
        source: where it came from.
        image: its content hash; empty when it could not be read.
        data: its bytes; None when it could not be read or was skipped.
        feature: float32 [d], not normalised.
        error: why there is no feature.
        skipped: True when `skip` said that the feature is not needed.
    """

    source: Source
    image: str = ""
    data: bytes | None = None
    feature: NDArray[np.float32] | None = None
    error: BadImage | None = None
    skipped: bool = False


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def by_itself() -> Iterator[None]:
    """Inside, `extract_many` starts no threads unless told; for who has one for each core already.

    >>> with by_itself():
    ...     list(extract_many([], None))
    []
    """
    token = _BY_ITSELF.set(True)
    try:
        yield
    finally:
        _BY_ITSELF.reset(token)


def extract_many(
    sources: Iterable[Source],
    extractor: Extractor,
    *,
    skip: Callable[[str], bool] | None = None,
    threads: int | None = None,
) -> Iterator[Extracted]:
    """Each source with its feature, in the order given; a bad file never stops the others.

    Closing the iterator, or an exception such as Ctrl-C in whoever consumes it, stops the work.

    Args:
        sources: where the pictures come from; taken lazily, by the calling thread.
        extractor: what computes features.
        skip: called with the content hash, from any thread; True means that no feature is needed.
        threads: how many to use; by default, one for each usable core (but see `by_itself`).

    Raises:
        BadOption: if `threads` is less than one.
    """
    if threads is not None and threads < 1:
        raise BadOption(f"{threads} threads cannot work; use 1 or more")
    alone = threads is None and _BY_ITSELF.get()
    if alone or (isinstance(sources, list | tuple) and len(sources) == 1):
        threads = 1
    return _stream(iter(sources), extractor, skip, threads or usable_cores())


def _stream(
    sources: Iterator[Source],
    extractor: Extractor,
    skip: Callable[[str], bool] | None,
    threads: int,
) -> Iterator[Extracted]:
    stop = threading.Event()
    if threads == 1:
        for source in sources:
            yield _extract(source, extractor, skip, stop)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="retain-eyes")
    try:
        waiting: deque[Future[Extracted]] = deque()
        for source in islice(sources, threads * AHEAD):
            waiting.append(pool.submit(_extract, source, extractor, skip, stop))
        while waiting:
            yield waiting.popleft().result()
            for source in islice(sources, 1):
                waiting.append(pool.submit(_extract, source, extractor, skip, stop))
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _extract(
    source: Source,
    extractor: Extractor,
    skip: Callable[[str], bool] | None,
    stop: threading.Event,
) -> Extracted:
    """One picture; between its steps it looks whether anybody still waits for it."""
    image, data = "", None
    try:
        data = source.read()
        if stop.is_set():
            return Extracted(source)
        image = source.image or content_hash(data)
        if skip is not None and skip(image):
            return Extracted(source, image, skipped=True)
        return Extracted(source, image, data, extractor.feature(data))
    except BadImage as error:
        return Extracted(source, image, data, error=error)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return Extracted(source, error=BadImage(f"it cannot be read: {reason}"))
