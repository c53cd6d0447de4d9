"""``manifest.json``: what a classifier is, apart from what it was taught."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retain.errors import BadOption, Damaged, NewerFormat, NotAClassifier

__all__ = ["FORMAT", "MEMORIES", "Manifest", "write_whole"]

FORMAT = 1
MEMORIES = ("images", "features")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The unchanging facts about a classifier.

    Attributes:
        name: what its owner called it.
        created: UTC, ISO 8601.
        extractor: the fingerprint of what turns pictures into features.
        dimension: how many numbers a feature has.
        memory: ``"images"`` or ``"features"``.
        options: the owner's choices about the head, as plain JSON.
        start: of a classifier that was adopted: ``sha256`` of its last layer, and what its file
            looked like (``input``, ``output``, ``activation``); None for one made here.
        format: the version of the layout on disk.
    """

    name: str
    created: str
    extractor: str
    dimension: int
    memory: str
    options: Mapping[str, Any]
    format: int = FORMAT
    start: Mapping[str, Any] | None = None

    @classmethod
    def new(
        cls,
        *,
        name: str,
        extractor: str,
        dimension: int,
        memory: str,
        options: Mapping[str, Any],
        start: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """The manifest of a classifier that is being made.

        Raises:
            BadOption: if `memory` is not one of the modes.
        """
        if memory not in MEMORIES:
            raise BadOption(f"memory {memory!r} is not one of {', '.join(MEMORIES)}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        safe = name.encode("utf-8", "backslashreplace").decode()
        return cls(safe, now, extractor, dimension, memory, dict(options), start=start)

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        write_whole(folder / "manifest.json", json.dumps(asdict(self), indent=2).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read it.

        Raises:
            NotAClassifier: if there is none.
            NewerFormat: if a newer retain wrote it.
            Damaged: if it is not what it should be.
        """
        try:
            text = (folder / "manifest.json").read_text("utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            there = "holds no classifier" if folder.exists() else "does not exist"
            raise NotAClassifier(
                f"{folder} {there}; make one with: retain init {folder}"
            ) from error
        except UnicodeDecodeError as error:
            raise Damaged(_damaged(folder, "it is not text")) from error
        try:
            values = json.loads(text)
            written = int(values["format"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise Damaged(_damaged(folder, str(error))) from error
        if written > FORMAT:
            raise NewerFormat(
                f"{folder} has format {written}, and this retain reads up to {FORMAT}; install a "
                f"newer one: pip install --upgrade retain"
            )
        try:
            found = cls(**values)
            texts = (found.name, found.created, found.extractor, found.memory)
            if (
                not all(isinstance(text, str) for text in texts)
                or not isinstance(found.options, dict)
                or not (found.start is None or isinstance(found.start.get("sha256"), str))
                or not isinstance(found.dimension, int)
                or found.memory not in MEMORIES
                or found.dimension < 1
            ):
                raise ValueError("a value is impossible")
        except (AttributeError, TypeError, ValueError) as error:
            raise Damaged(_damaged(folder, str(error))) from error
        return found


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damaged(folder: Path, why: str) -> str:
    return (
        f"{folder / 'manifest.json'} cannot be understood ({why}); put a copy of the directory "
        f"back if you have one"
    )
