"""Streams: what a method is taught, in which order, and what it is judged on.

A stream is a plain JSON file that can be read, kept beside results and given to any toolbox: rows
of a pool, one step after the other. It bears the digest of its pool and of itself, so that two
results are compared only where they were asked the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from retain.bench.pools import Pool
from retain.errors import BadOption, Damaged, NewerFormat

__all__ = [
    "Step",
    "Stream",
    "Task",
    "check_stream",
    "joint_stream",
    "load_stream",
    "save_stream",
    "tasks_of",
    "write_steps",
]

FORMAT = "retain-bench-stream/1"
Verb = Literal["learn", "correct", "forget"]
MAKE = "make one with: retain bench stream POOL --kind KIND"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens to a method.

    Attributes:
        verb: ``learn`` and ``forget`` take all the pictures at once; ``correct`` takes them one
            after the other, and only those that the method has wrong when their turn comes.
        images: rows of the pool.
        new_classes: classes that come with this step for the first time, in order of arrival.
        note: for people.
    """

    verb: Verb
    images: tuple[int, ...]
    new_classes: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A group of test pictures that belongs to a step: a row's accuracy in the per-task matrix."""

    step: int
    images: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream; see the module.

    Attributes:
        name: of the stream, and of the files that hold it and its results.
        kind: how it was made, such as ``class-incremental``.
        pool: the name of the data set.
        pool_digest: of the pool whose rows are meant.
        seed: of everything random in it.
        options: what the maker was given.
        order: all classes in order of arrival.
        steps: what happens.
        test: rows that are asked after every step.
        tasks: groups of `test`, where they do not follow from the classes that steps bring.
    """

    name: str
    kind: str
    pool: str
    pool_digest: str
    seed: int
    options: Mapping[str, Any]
    order: tuple[str, ...]
    steps: tuple[Step, ...]
    test: tuple[int, ...]
    tasks: tuple[Task, ...] = field(default=())

    @property
    def digest(self) -> str:
        """Hash of everything in it."""
        text = json.dumps(_body(self), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def told(self) -> dict[str, Any]:
        """How a result names it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "pool": self.pool,
            "pool_digest": self.pool_digest,
            "digest": self.digest,
            "seed": self.seed,
            "options": dict(self.options),
        }


def joint_stream(stream: Stream, pool: Pool) -> Stream:
    """The same pictures learned all at once, in the order of the pool: the ceiling.

    Pictures that were forgotten are left out, so it also shows what forgetting should come to.

    Raises:
        BadOption: if there are corrections in it, which depend on the method.
    """
    held: set[int] = set()
    for step in stream.steps:
        if step.verb == "correct":
            raise BadOption(
                f"{stream.name} has corrections, which depend on the method, so there is no joint "
                f"stream of it"
            )
        held = held - set(step.images) if step.verb == "forget" else held | set(step.images)
    rows = sorted(held)
    classes = tuple(str(label) for label in np.unique(pool.labels[rows]))
    return Stream(
        f"{stream.name}-joint",
        "joint",
        stream.pool,
        stream.pool_digest,
        stream.seed,
        {"of": stream.name},
        classes,
        (Step("learn", tuple(rows), classes, "everything at once"),),
        stream.test,
    )


def save_stream(stream: Stream, path: str | os.PathLike[str]) -> Path:
    """Write a stream as JSON, one step a line; a folder gets ``<name>.json``.

    Raises:
        OSError: if it cannot be written.
    """
    target = Path(path)
    if target.is_dir() or not target.suffix:
        target.mkdir(parents=True, exist_ok=True)
        target = target / f"{stream.name}.json"
    return write_steps(target, _body(stream) | {"digest": stream.digest})


def write_steps(path: Path, body: Mapping[str, Any]) -> Path:
    """Write a body as JSON, whole or not at all, with a line for each key and for each step.

    Raises:
        OSError: if it cannot be written.
    """
    lines = []
    for key, value in body.items():
        if key == "steps" and value:
            steps = ",\n    ".join(json.dumps(each, ensure_ascii=False) for each in value)
            lines.append(f'  "steps": [\n    {steps}\n  ]')
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    beside.replace(path)
    return path


def load_stream(path: str | os.PathLike[str]) -> Stream:
    """Read a stream and check that it is as it was made.

    Raises:
        BadOption: if there is no such file, or it is not a stream.
        NewerFormat: if a newer retain wrote it.
        Damaged: if it was changed after it was made.
    """
    try:
        raw = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise BadOption(f"there is no stream {os.fspath(path)}; {MAKE}") from None
    except (OSError, ValueError) as error:
        raise BadOption(f"{os.fspath(path)} is not a stream ({error}); {MAKE}") from None
    given = raw.get("format") if isinstance(raw, dict) else None
    if given != FORMAT:
        if isinstance(given, str) and given.startswith("retain-bench-stream/"):
            raise NewerFormat(
                f"{os.fspath(path)} has the format {given}, this retain reads "
                f"{FORMAT}; install a newer one"
            )
        raise BadOption(f"{os.fspath(path)} is not a stream (format {given!r}); {MAKE}")
    try:
        stream = _stream(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(
            f"{os.fspath(path)} is not a whole stream ({type(error).__name__}: {error}); {MAKE}"
        ) from None
    if raw.get("digest") != stream.digest:
        raise Damaged(
            f"{os.fspath(path)} was changed after it was made: its content has the digest "
            f"{stream.digest[:23]}…, it says {str(raw.get('digest'))[:23]}…; {MAKE}"
        )
    return stream


def check_stream(stream: Stream, pool: Pool) -> None:
    """Hold a stream against its pool: nothing of the test set is taught, all is as it says.

    Raises:
        BadOption: if the stream was made from another pool.
        Damaged: if the stream teaches test pictures, asks training pictures, or contradicts
            itself.
    """
    if stream.pool_digest != pool.digest:
        raise BadOption(
            f"the stream {stream.name} was made from another {stream.pool} (digest "
            f"{stream.pool_digest[:23]}…) than {pool.name} here ({pool.digest[:23]}…); give the "
            f"pool it was made from (--pool), or make the stream anew"
        )
    count = len(pool.labels)
    asked, taught = set(stream.test), {row for step in stream.steps for row in step.images}
    for row in (*asked, *taught):
        if not 0 <= row < count:
            raise _wrong(stream, f"row {row} of {count} does not exist")
    for row in sorted(taught):
        if not pool.train[row]:
            raise _wrong(stream, f"it teaches row {row}, a test picture")
    for row in sorted(asked):
        if pool.train[row]:
            raise _wrong(stream, f"it asks row {row}, a training picture")
    if not stream.steps or not asked:
        raise _wrong(stream, "it has no steps or no test pictures")
    held: set[int] = set()
    known: set[str] = set()
    for number, step in enumerate(stream.steps):
        rows = set(step.images)
        if not rows or len(rows) != len(step.images):
            raise _wrong(stream, f"step {number} has no pictures or one of them twice")
        if step.verb == "forget" and not rows <= held:
            raise _wrong(stream, f"step {number} forgets row {min(rows - held)}, never learned")
        if step.verb != "forget" and rows & held:
            raise _wrong(stream, f"step {number} teaches row {min(rows & held)} a second time")
        came = {str(label) for label in np.unique(pool.labels[sorted(rows)])} - known
        if step.verb == "learn" and came != set(step.new_classes):
            raise _wrong(stream, f"step {number} brings {sorted(came)}, not as it says")
        if step.verb == "learn":
            known |= came
        held = held - rows if step.verb == "forget" else held | rows
    for task in stream.tasks:
        if not set(task.images) <= asked or not 0 <= task.step < len(stream.steps):
            raise _wrong(stream, "a task asks pictures that are no test pictures")


def tasks_of(stream: Stream, pool: Pool) -> tuple[Task, ...]:
    """The tasks of a stream: as it says, else the test pictures of the classes a step brings."""
    if stream.tasks:
        return stream.tasks
    test = np.array(stream.test)
    tasks = []
    for number, step in enumerate(stream.steps):
        rows = test[np.isin(pool.labels[test], list(step.new_classes))]
        if len(rows):
            tasks.append(Task(number, tuple(int(row) for row in rows)))
    return tuple(tasks)


def _wrong(stream: Stream, what: str) -> Damaged:
    return Damaged(f"the stream {stream.name} cannot be used: {what}; {MAKE}")


def _body(stream: Stream) -> dict[str, Any]:
    test: dict[str, Any] = {"images": list(stream.test)}
    if stream.tasks:
        test["tasks"] = [{"step": each.step, "images": list(each.images)} for each in stream.tasks]
    return {
        "format": FORMAT,
        "name": stream.name,
        "kind": stream.kind,
        "pool": stream.pool,
        "pool_digest": stream.pool_digest,
        "seed": stream.seed,
        "options": dict(stream.options),
        "order": list(stream.order),
        "steps": [
            {
                "verb": each.verb,
                "new_classes": list(each.new_classes),
                "note": each.note,
                "images": list(each.images),
            }
            for each in stream.steps
        ],
        "test": test,
    }


def _stream(raw: Mapping[str, Any]) -> Stream:
    steps = []
    for each in raw["steps"]:
        if each["verb"] not in get_args(Verb):
            raise ValueError(f"no verb {each['verb']!r}")
        steps.append(
            Step(each["verb"], _rows(each["images"]), _texts(each["new_classes"]), each["note"])
        )
    tasks = tuple(
        Task(int(each["step"]), _rows(each["images"])) for each in raw["test"].get("tasks", ())
    )
    return Stream(
        str(raw["name"]),
        str(raw["kind"]),
        str(raw["pool"]),
        str(raw["pool_digest"]),
        int(raw["seed"]),
        dict(raw["options"]),
        _texts(raw["order"]),
        tuple(steps),
        _rows(raw["test"]["images"]),
        tasks,
    )


def _rows(given: Any) -> tuple[int, ...]:
    if any(type(each) is not int for each in given):
        raise TypeError("rows must be whole numbers")
    return tuple(given)


def _texts(given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or any(type(each) is not str for each in given):
        raise TypeError("classes must be texts")
    return tuple(given)
