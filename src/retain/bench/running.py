"""Running one method on one stream: taught step by step, judged after every step.

A run that was interrupted goes on where it stopped. Methods need not be able to save their state:
what was done is replayed from the start without being judged or timed again, and the answers after
the replay are held against those on record, so that a resumed run shows the same numbers or none.
A method that trains a network keeps its lessons in a folder beside the result until that is there,
and its replay only reads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from retain.bench import metrics
from retain.bench.judging import Answers, judged, summary
from retain.bench.meter import Meter, resident_bytes
from retain.bench.methods import REGISTRY, Method, Unsupported, checked, make
from retain.bench.pools import Pool
from retain.bench.results import (
    FORMAT,
    PARTIAL,
    Result,
    environment,
    read_result,
    result_name,
    write_result,
)
from retain.bench.streams import Step, Stream, check_stream, tasks_of
from retain.errors import AlreadyExists, BadOption, Damaged, RetainError
from retain.values import Progress

__all__ = ["run"]


def run(
    stream: Stream,
    pool: Pool,
    method: str,
    seed: int | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    again: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> Result:
    """Run a method on a stream; the result says how, where and what came of it.

    A method that fails, or cannot do what the stream asks, gives a result that says so.

    Args:
        stream: what is taught and asked.
        pool: the data set the stream was made from.
        method: a key of `retain.bench.methods.REGISTRY`.
        seed: of the method; by default that of the stream.
        options: of the method.
        folder: where the result is kept. One that is there is returned and not computed again
            (unless it failed), and an interrupted run goes on. None keeps nothing.
        again: compute it even if it is there.
        threads: of the linear algebra.
        progress: called with steps done and steps in all.

    Raises:
        BadOption: if the stream does not fit the pool, or there is no such method or option, or
            not with such a value.
        AlreadyExists: if another stream has a result under this name.
        Damaged: if the stream, or a result that is there, is not whole.
    """
    check_stream(stream, pool)
    options = checked(method, options or {})
    job = _Job(stream, pool, method, stream.seed if seed is None else seed, options)
    name = result_name(stream, method, job.options, job.seed)
    path = None if folder is None else folder / f"{name}.json"
    if path is not None and not again:
        found = _existing(path, job)
        if found is not None:
            return found
    record = job.opening(threads)
    partial = None if folder is None else folder / f"{name}{PARTIAL}"
    before = [] if again or partial is None else _begun(partial, record)
    lasting = None if folder is None else folder / f"{name}.work"
    if lasting is not None and not before:
        shutil.rmtree(lasting, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix="retain-bench-") as scratch,
        threadpool_limits(threads),
    ):
        try:
            if REGISTRY[method].needs == "images" and pool.images is None:
                raise Unsupported(
                    f"{REGISTRY[method].title} trains on pictures, and {pool.name} has vectors only"
                )
            base = resident_bytes()
            made = make(method, pool.features.shape[1], job.seed, Path(scratch), **job.options)
            if REGISTRY[method].needs == "images":
                made.lasting = lasting
            with contextlib.closing(made):
                _walk(job, made, record, before, partial, progress, base)
            record["status"] = "done"
        except Unsupported as error:
            record |= {"status": "unsupported", "reason": str(error)}
        # Whatever a method raises is its result, not the end of all other runs.
        except Exception as error:  # noqa: BLE001
            record |= {"status": "failed", "reason": _reason(error)}
    # Half a stream is no result: its numbers stay with its steps.
    steps = record["steps"] if record["status"] == "done" else []
    record["metrics"] = summary(steps, tasks_of(stream, pool))
    if path is not None:
        write_result(record, path)
        assert partial is not None
        partial.unlink(missing_ok=True)
    if lasting is not None:
        shutil.rmtree(lasting, ignore_errors=True)
    return record


@dataclass(frozen=True, eq=False)
class _Job:
    stream: Stream
    pool: Pool
    method: str
    seed: int
    options: Mapping[str, Any]

    def opening(self, threads: int) -> dict[str, Any]:
        """The result before the first step."""
        stream, kind = self.stream, REGISTRY[self.method]
        return {
            "format": FORMAT,
            "status": "running",
            "reason": "",
            "stream": stream.told,
            "order": list(stream.order),
            "tasks": [task.step for task in tasks_of(stream, self.pool)],
            "method": {
                "name": kind.name,
                "title": kind.title,
                "source": kind.source,
                "options": dict(self.options),
                "hindsight": kind.hindsight,
                "calibrated": kind.calibrated,
            },
            "seed": self.seed,
            "features": {
                "extractor": self.pool.extractor,
                "dimension": int(self.pool.features.shape[1]),
                "digest": "sha256:" + hashlib.sha256(self.pool.features.tobytes()).hexdigest(),
            },
            "environment": environment(threads),
            "resumed": [],
            "steps": [],
            "metrics": {},
        }


@dataclass(eq=False)
class _Life:
    """A method in the middle of a stream, and what it was taught so far."""

    method: Method
    pool: Pool
    held: dict[int, None] = field(default_factory=dict)
    corrected: list[int] = field(default_factory=list)

    def take(self, step: Step, meter: Meter) -> dict[str, Any]:
        """Do one step; the time includes being ready to answer, so that waiting pays nothing."""
        if step.verb == "correct":
            return self._correct(step, meter)
        rows = np.array(step.images)
        x, y = self.given(rows), self.pool.labels[rows]
        with meter:
            (self.method.learn if step.verb == "learn" else self.method.forget)(x, y)
            self.method.scores(x[:1])
        for row in step.images:
            if step.verb == "learn":
                self.held[row] = None
            else:
                self.held.pop(row)
        return {"images": len(rows), "updates": 1}

    def _correct(self, step: Step, meter: Meter) -> dict[str, Any]:
        fixed = 0
        corrected = []
        for row in step.images:
            x, y = self.given([row]), self.pool.labels[[row]]
            if self.answer(x)[0] == y[0]:
                continue
            with meter:
                self.method.correct(x, y)
                self.method.scores(x)
            corrected.append(row)
            self.held[row] = None
            fixed += int(self.answer(x)[0] == y[0])
        self.corrected += corrected
        count = len(corrected)
        return {
            "images": count,
            "updates": count,
            "candidates": len(step.images),
            "corrected_at_once": fixed / count if count else None,
        }

    def given(self, rows: NDArray[np.integer] | list[int]) -> NDArray[Any]:
        """Rows of the pool as the method needs them: features, or encoded pictures."""
        if self.method.needs == "features":
            return self.pool.features[rows]
        assert self.pool.images is not None
        found = np.empty(len(rows), object)
        for place, row in enumerate(rows):
            found[place] = self.pool.images(int(row))
        return found

    def answer(self, features: NDArray[Any]) -> NDArray[np.str_]:
        """The labels answered, [n]."""
        return Answers.of(self.method.scores(features), len(features)).labels

    def kept(self) -> float | None:
        """The share of all corrections so far that still hold."""
        if not self.corrected:
            return None
        rows = np.array(self.corrected)
        return metrics.accuracy(self.pool.labels[rows], self.answer(self.given(rows)))


def _digest(rows: Iterable[int]) -> str:
    """Of a set of pictures, whatever their order."""
    there = np.array(sorted(rows), dtype="<i8")
    return "sha256:" + hashlib.sha256(there.tobytes()).hexdigest()


def _walk(
    job: _Job,
    method: Method,
    record: dict[str, Any],
    before: list[dict[str, Any]],
    partial: Path | None,
    progress: Progress | None,
    base: int,
) -> None:
    """All steps of a stream, from the beginning; those in `before` are only replayed.

    `base` are the bytes that the process held before there was the method.
    """
    stream, pool = job.stream, job.pool
    test, tasks = np.array(sorted(stream.test)), tasks_of(stream, pool)
    life = _Life(method, pool)
    asked, truth = life.given(test), pool.labels[test]
    last: Answers | None = None
    for number, step in enumerate(stream.steps):
        meter = Meter(base)
        taken = life.take(step, meter)
        seen = {str(label) for label in np.unique(pool.labels[list(life.held)])}
        replayed = number < len(before)
        if replayed and number + 1 < len(before):
            record["steps"].append(before[number])
            continue
        answers = Answers.of(method.scores(asked), len(asked))
        if replayed:
            if answers.digest != before[number].get("answers"):
                raise Damaged(
                    f"after replaying {number + 1} steps {job.method} answers otherwise than "
                    f"before the interruption, so it is not deterministic; run it again from "
                    f"the start (--again)"
                )
            record["steps"].append(before[number])
            record["resumed"].append(number + 1)
            last = answers
            continue
        found = {
            "step": number,
            "verb": step.verb,
            **taken,
            "new_classes": list(step.new_classes),
            "wall_s": round(meter.wall_s, 6),
            "cpu_s": round(meter.cpu_s, 6),
            "peak_memory_bytes": meter.peak_bytes,
            "stored_bytes": method.stored_bytes(),
            **judged(stream, number, test, truth, answers, last, seen, tasks),
            "corrections_kept": life.kept() if stream.kind == "corrections" else None,
            "digest": method.digest(),
            "held": _digest(life.held),
        }
        record["steps"].append(found)
        last = answers
        if partial is not None and number + 1 < len(stream.steps):
            write_result(record, partial)
        if progress is not None:
            progress(number + 1, len(stream.steps))


def _existing(path: Path, job: _Job) -> Result | None:
    """The result that is there, if it is the one asked for; a failed one is tried again."""
    if not path.exists():
        return None
    found = read_result(path)
    same = (
        found["stream"]["digest"] == job.stream.digest
        and found["method"]["name"] == job.method
        and found["method"].get("options") == dict(job.options)
        and found["seed"] == job.seed
        and found.get("features", {}).get("extractor") == job.pool.extractor
    )
    if not same:
        raise AlreadyExists(
            f"{path} is the result of another stream, method, seed or extractor under the same "
            f"name; move it away, name another folder (--out), or replace it (--again)"
        )
    return found if found["status"] in {"done", "unsupported"} else None


def _begun(partial: Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of an interrupted run, if it was the same in everything that matters."""
    try:
        found = read_result(partial)
    except (BadOption, Damaged):
        # A run that left nothing to go on from begins anew.
        return []
    alike = ("stream", "method", "seed", "features")
    if any(found.get(key) != record[key] for key in alike):
        return []
    here, there = record["environment"], found["environment"]
    versions = ("retain", "commit", "python", "numpy", "scipy", "scikit-learn", "threads")
    if any(here.get(key) != there.get(key) for key in versions):
        return []
    steps: list[dict[str, Any]] = found["steps"]
    return steps


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, RetainError) else f"{type(error).__name__}: {error}"
