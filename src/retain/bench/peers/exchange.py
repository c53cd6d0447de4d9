"""How a stream goes to a toolbox in another Python, and how what it answered comes back.

The folder of a job holds

- ``job.json``: strategy, seed, options, threads; `classes` in order of arrival; `labels`, for each
  row of the pool a position among them; `steps`, rows to learn; `new`, how many classes each step
  brings; `once`, whether it brings nothing else; `seen`, the classes known after it; `test`, rows
  to answer, and for toolboxes that train on pictures `pictures`, a file for each row in use;
- ``features.npy``: float32 [n, d], for toolboxes that work on features.

The worker leaves ``steps.json``, for each step `wall_s`, `cpu_s`, `peak_memory_bytes` and
`stored_bytes`, and its answers in one of three ways: ``step-NNN.npz`` with `scores`
[test, classes]; the same with `labels` [test], positions of classes, −1 where nothing was asked; or
`by_task` in ``steps.json``, the accuracy on the classes of each step so far. At the end comes
``done.json`` with `versions` and `settings`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from retain.bench.judging import summary
from retain.bench.peers.answered import steps_of
from retain.bench.pools import Pool
from retain.bench.results import FORMAT, Result, environment, result_name, write_result
from retain.bench.streams import Stream, check_stream, tasks_of

__all__ = ["Peer", "Request", "reason_in", "run_peer"]

WORKERS: Final = Path(__file__).parent / "workers"
_LONGEST = 400
_UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Peer:
    """A toolbox.

    Attributes:
        name: by which it is called; its results are named ``<name>:<strategy>``.
        title: as its authors write it.
        source: the paper or the software.
        worker: the script in `workers`.
        needs: ``"features"``, or ``"pictures"`` where it trains a network of its own.
        marks: files of a clone by which it is known; none for one that is installed.
        hindsight: strategies that use everything again at each step.
        uncalibrated: strategies whose scores are no logits; see `Method.calibrated`.
        classes_once: every class must come in one step, whole.
    """

    name: str
    title: str
    source: str
    worker: str
    needs: str
    marks: tuple[str, ...] = ()
    hindsight: frozenset[str] = frozenset({"joint"})
    uncalibrated: frozenset[str] = frozenset({"icarl", "il2m"})
    classes_once: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be run.

    Attributes:
        strategy: as the toolbox calls it.
        seed: of everything random in it.
        python: the interpreter of its environment.
        clone: the folder of its sources, where it is not installed.
        options: its own.
        limit_s: after so many seconds it is stopped, and that is its result.
        threads: of its arithmetic.
    """

    strategy: str
    seed: int = 0
    python: Path = Path(sys.executable)
    clone: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    limit_s: float = 3600.0
    threads: int = 1


def run_peer(
    peer: Peer, stream: Stream, pool: Pool, request: Request, *, folder: Path | None = None
) -> Result:
    """Run a toolbox's strategy on a stream and judge what it answered.

    Whatever keeps it from running is its result, with the reason.

    Args:
        peer: the toolbox.
        stream: what is taught and asked.
        pool: the data set the stream was made from.
        request: strategy, environment, options.
        folder: where the result is kept; None keeps nothing.

    Raises:
        BadOption: if the stream does not fit the pool.
        Damaged: if the stream is not whole.
    """
    check_stream(stream, pool)
    record = _opening(peer, stream, pool, request)
    with tempfile.TemporaryDirectory(prefix="retain-peer-") as scratch:
        try:
            _refuse(peer, stream, pool, request)
            _hand_over(peer, stream, pool, request, Path(scratch))
            _work(peer, request, Path(scratch))
            told = json.loads((Path(scratch) / "done.json").read_text(encoding="utf-8"))
            record["environment"] |= told["versions"]
            record["settings"] = told["settings"]
            record["steps"] = steps_of(stream, pool, Path(scratch))
            record["status"] = "done"
        except _Unsupported as error:
            record |= {"status": "unsupported", "reason": str(error)}
        except _Failed as error:
            record |= {"status": "failed", "reason": str(error)}
        except _UNREADABLE as error:
            reason = f"what it left cannot be read: {type(error).__name__}: {error}"
            record |= {"status": "failed", "reason": reason}
    record["metrics"] = summary(record["steps"], tasks_of(stream, pool))
    if folder is not None:
        name = result_name(stream, record["method"]["name"], request.options, request.seed)
        write_result(record, folder / f"{name}.json")
    return record


def reason_in(log: str, code: int) -> str:
    r"""Why a process ended: the last line of what it said that names an error.

    >>> reason_in("Traceback:\n  File x\nImportError: no module named 'torch'\n", 1)
    "ImportError: no module named 'torch'"
    >>> reason_in("", -9)
    'it was killed by signal 9 and said nothing'
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    # Progress bars and warnings may follow the traceback.
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt|Exit)\b", line)]
    said = (errors or lines)[-1][:_LONGEST] if lines else ""
    if said:
        return said
    how = f"was killed by signal {-code}" if code < 0 else f"ended with the exit status {code}"
    return f"it {how} and said nothing"


class _Unsupported(Exception):
    """The toolbox has no way to do what the stream asks."""


class _Failed(Exception):
    """The toolbox would not run."""


def _refuse(peer: Peer, stream: Stream, pool: Pool, request: Request) -> None:
    verbs = sorted({step.verb for step in stream.steps} - {"learn"})
    if verbs:
        raise _Unsupported(f"{peer.title} has no way to {' or to '.join(verbs)} pictures")
    if peer.classes_once and not _once(stream, pool):
        raise _Unsupported(f"in {peer.title} every class comes in one step only")
    if peer.needs == "pictures" and pool.images is None:
        raise _Unsupported(f"{peer.title} trains on pictures, and {pool.name} holds vectors")
    if peer.marks:
        if request.clone is None:
            raise _Failed(f"{peer.title} runs from a clone of its sources; say where it is")
        missing = [each for each in peer.marks if not (request.clone / each).exists()]
        if missing:
            raise _Failed(f"{request.clone} is no clone of {peer.title}: {missing[0]} is missing")


def _once(stream: Stream, pool: Pool) -> bool:
    """Whether every step brings new classes only."""
    return all(set(pool.labels[list(s.images)]) == set(s.new_classes) for s in stream.steps)


def _hand_over(peer: Peer, stream: Stream, pool: Pool, request: Request, folder: Path) -> None:
    place = {label: i for i, label in enumerate(stream.order)}
    test = sorted(stream.test)
    known = 0
    seen = []
    for step in stream.steps:
        known += len(step.new_classes)
        seen.append(list(range(known)))
    job: dict[str, Any] = {
        "strategy": request.strategy,
        "seed": request.seed,
        "options": dict(request.options),
        "threads": request.threads,
        "clone": str(request.clone.resolve()) if request.clone else None,
        "classes": list(stream.order),
        "labels": [place.get(str(label), -1) for label in pool.labels],
        "steps": [list(step.images) for step in stream.steps],
        "new": [len(step.new_classes) for step in stream.steps],
        "seen": seen,
        "once": _once(stream, pool),
        "test": test,
    }
    if peer.needs == "features":
        np.save(folder / "features.npy", pool.features)
    else:
        job["pictures"] = _pictures(stream, pool, folder)
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")


def _pictures(stream: Stream, pool: Pool, folder: Path) -> dict[int, str]:
    assert pool.images is not None
    kept = folder / "pictures"
    kept.mkdir()
    found = {}
    for row in sorted({*stream.test, *(row for step in stream.steps for row in step.images)}):
        data = pool.images(row)
        ending = "png" if data.startswith(b"\x89PNG") else "jpg"
        path = kept / f"{row:07d}.{ending}"
        path.write_bytes(data)
        found[row] = str(path)
    return found


def _work(peer: Peer, request: Request, folder: Path) -> None:
    """Run the worker to its end; it gets none of this process's own Python settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    kept |= {"OMP_NUM_THREADS": str(request.threads), "PYTHONHASHSEED": "0", "MPLBACKEND": "Agg"}
    command = [str(request.python), "-P", str(WORKERS / peer.worker), str(folder)]
    log = folder / "log"
    with log.open("wb") as out:
        try:
            process = subprocess.Popen(  # noqa: S603 - the interpreter is the caller's
                command, cwd=folder, env=kept, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise _Failed(f"{request.python} cannot be started: {error.strerror}") from None
        try:
            code = process.wait(request.limit_s)
        except subprocess.TimeoutExpired:
            raise _Failed(f"it was stopped after {request.limit_s:g} s without an end") from None
        finally:
            # Its data loaders are processes of the same group.
            _end(process)
    if code:
        raise _Failed(reason_in(log.read_text(encoding="utf-8", errors="replace"), code))
    if not (folder / "done.json").exists():
        raise _Failed("it ended without an error and without a result")


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _opening(peer: Peer, stream: Stream, pool: Pool, request: Request) -> dict[str, Any]:
    ours = environment(request.threads)
    ran = {key: ours[key] for key in ("platform", "processor", "cores", "threads", "date")}
    record: dict[str, Any] = {
        "format": FORMAT,
        "status": "running",
        "reason": "",
        "stream": stream.told,
        "order": list(stream.order),
        "method": {
            "name": f"{peer.name}:{request.strategy}",
            "title": f"{peer.title}, {request.strategy}",
            "source": peer.source,
            "options": dict(request.options),
            "hindsight": request.strategy in peer.hindsight,
            "calibrated": request.strategy not in peer.uncalibrated,
        },
        "seed": request.seed,
        "environment": ran,
        "steps": [],
        "metrics": {},
    }
    if peer.needs == "features":
        record["features"] = {
            "extractor": pool.extractor,
            "dimension": int(pool.features.shape[1]),
            "digest": "sha256:" + hashlib.sha256(pool.features.tobytes()).hexdigest(),
        }
    return record
