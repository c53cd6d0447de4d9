"""Many runs side by side, each in a process of its own.

A process for each run keeps their memory apart, so that its peak is the run's own, and a run that
is killed takes no other with it. Each has one thread for linear algebra, so that as many runs as
there are cores do not wait for each other and their times can be compared.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from retain.errors import BadOption, RetainError

__all__ = ["Event", "Job", "run_many"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
# What every run needs is imported once; the runs are forked from there.
_PRELOADED = ["retain.bench.running", "scipy.linalg", "sklearn.linear_model"]


@dataclass(frozen=True)
class Job:
    """One run to be done.

    Attributes:
        stream: the file of the stream.
        pool: the data set, as `retain.bench.load_pool` takes it.
        method: a key of the registry.
        folder: where the result is kept.
        seed: of the method; by default that of the stream.
        options: of the method.
        again: compute it even if the result is there.
        threads: of the linear algebra.
        cache: the folder that keeps features.
    """

    stream: Path
    pool: str
    method: str
    folder: Path
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    again: bool = False
    threads: int = 1
    cache: Path | None = None


@dataclass(frozen=True)
class Event:
    """What is heard of a run: that it goes on (``step``), or how it ended.

    Attributes:
        job: which.
        state: ``step``; ``done``, ``failed`` and ``unsupported`` as in the result; ``error`` where
            there is no result, since it could not begin or was killed.
        done: steps done.
        total: steps in all.
        message: why, where it is not done.
        result: its metrics, where there is a result.
    """

    job: Job
    state: Literal["step", "done", "failed", "unsupported", "error"]
    done: int = 0
    total: int = 0
    message: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)


def run_many(
    jobs: Sequence[Job], *, processes: int = 1, heard: Callable[[Event], None] | None = None
) -> tuple[Event, ...]:
    """Do all jobs; what is there already is not computed again, what was interrupted goes on.

    Args:
        jobs: what to run, begun in this order.
        processes: how many at a time.
        heard: called with every event.

    Returns:
        How each job ended, in the order of the jobs.

    Raises:
        BadOption: if `processes` is less than one.
        KeyboardInterrupt: when it is interrupted; the runs are stopped, and go on next time.
    """
    if processes < 1:
        raise BadOption(f"{processes} processes do nothing; use 1 or more")
    context = _context()
    waiting = list(range(len(jobs)))[::-1]
    ended: dict[int, Event] = {}
    alive: dict[Connection, tuple[int, BaseProcess]] = {}

    def tell(number: int, event: Event) -> None:
        if event.state != "step":
            ended[number] = event
        if heard is not None:
            heard(event)

    try:
        while waiting or alive:
            while waiting and len(alive) < processes:
                number = waiting.pop()
                here, there = context.Pipe(duplex=False)
                with _threads(jobs[number].threads):
                    child = context.Process(target=_child, args=(jobs[number], there), daemon=True)
                    child.start()
                there.close()
                alive[here] = number, child
            for ready in wait(list(alive)):
                assert isinstance(ready, Connection)
                number, child = alive[ready]
                try:
                    tell(number, Event(jobs[number], **ready.recv()))
                except EOFError:
                    child.join()
                    del alive[ready]
                    ready.close()
                    if number not in ended:
                        tell(number, Event(jobs[number], "error", message=_died(child.exitcode)))
    finally:
        for _, child in alive.values():
            child.terminate()
        for _, child in alive.values():
            child.join()
    return tuple(ended[number] for number in range(len(jobs)))


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _child(job: Job, out: Connection) -> None:
    """One run, in its own process."""
    from retain.bench.methods import REGISTRY
    from retain.bench.pools import EXTRACTOR, NO_EXTRACTOR, load_pool
    from retain.bench.running import run
    from retain.bench.streams import load_stream

    try:
        stream = load_stream(job.stream)
        total = len(stream.steps)
        kind = REGISTRY.get(job.method)
        pictures = kind is not None and kind.needs == "images"
        extractor = NO_EXTRACTOR if pictures else EXTRACTOR
        pool = load_pool(job.pool, cache=job.cache, extractor=extractor)
        result = run(
            stream,
            pool,
            job.method,
            job.seed,
            options=job.options,
            folder=job.folder,
            again=job.again,
            threads=job.threads,
            progress=lambda done, total: out.send({"state": "step", "done": done, "total": total}),
        )
    except KeyboardInterrupt:
        return
    except (RetainError, OSError, MemoryError) as error:
        out.send({"state": "error", "message": str(error) or type(error).__name__})
        return
    out.send(
        {
            "state": result["status"],
            "done": len(result["steps"]),
            "total": total,
            "message": result["reason"],
            "result": result["metrics"],
        }
    )


def _died(code: int | None) -> str:
    how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with {code}"
    return (
        f"the process {how} before the run was over; perhaps memory ran out. Run the same command "
        f"again: it goes on after the last step that was finished"
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """The number of threads for libraries that are loaded meanwhile, by processes begun here."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
