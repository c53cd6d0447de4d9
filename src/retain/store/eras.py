"""Extractors: the one a classifier was made with, and those that took its place since.

Each has a folder ``extractors/<fingerprint>/``, whole on disk before any event names it. A folder
that no event names was left by a process that was killed, or holds an extractor that was purged; it
goes when somebody writes next.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from retain.errors import BadOption, Damaged
from retain.store import journal, reading, start
from retain.store.journal import Entry, Era
from retain.store.manifest import Manifest, sync_folder, write_whole

__all__ = [
    "FOLDER",
    "Files",
    "beside",
    "every",
    "file_of",
    "founding",
    "install",
    "layer_of",
    "named",
    "of",
    "stray",
    "sweep",
]

FOLDER = "extractors"

Files = Mapping[str, bytes | Path]
"""What an extractor consists of, as file name → content or file to copy."""

_FINGERPRINT = re.compile(r"sha256-[0-9a-f]{64}|vectors-[0-9]+")
_SCAFFOLD = ".tmp"
# Of a SHA-256, in the name of a file.
_DIGITS = 16


def founding(manifest: Manifest) -> Era:
    """The era before anything was adapted."""
    sha256 = (manifest.start or {}).get("sha256")
    return Era(0, manifest.extractor, manifest.dimension, sha256)


def of(connection: Connection, manifest: Manifest, entry: Entry | None) -> Era:
    """The era that begins with an `adapt`; the first one for None.

    Raises:
        Damaged: if the journal does not tell its extractor.
    """
    if entry is None:
        return founding(manifest)
    extractor: Any = entry.detail.get("extractor")
    dimension = entry.detail.get("dimension")
    sha256 = entry.detail.get("start")
    key = 0
    if isinstance(extractor, str) and extractor != manifest.extractor:
        key = reading.extractor_key(connection, extractor) or -1
    known = isinstance(extractor, str) and _FINGERPRINT.fullmatch(extractor) and key >= 0
    if not (known and isinstance(dimension, int) and isinstance(sha256, str | None)):
        raise Damaged(
            f"event {entry.id} does not tell which extractor it put in place; put a copy of the "
            f"directory back if you have one"
        )
    return Era(entry.id, extractor, dimension, sha256, key)


def every(connection: Connection, manifest: Manifest, entries: Sequence[Entry]) -> list[Era]:
    """All eras that the journal tells of, also those taken back, oldest first."""
    found = [of(connection, manifest, each) for each in journal.adapts(entries)]
    return [founding(manifest), *found]


def named(manifest: Manifest, entries: Iterable[Entry]) -> set[str]:
    """The extractors that a classifier has: its first, and those of all its `adapt` events."""
    told = (each.detail.get("extractor") for each in journal.adapts(entries))
    return {manifest.extractor, *(each for each in told if isinstance(each, str))}


def layer_of(folder: Path, era: Era) -> start.Layer | None:
    """The adopted layer of an era, from its extractor's folder; None where there is none."""
    if era.start is None:
        return None
    return start.read(folder, era.start, start.file_name(era.start, era.number))


def file_of(what: str, data: bytes, kind: str) -> str:
    """What a file beside an extractor is called that its fingerprint does not cover.

    The name tells what is in it, so that several events may have the same extractor.

    >>> file_of("history", b"", "json")
    'history-e3b0c44298fc1c14.json'
    """
    return f"{what}-{hashlib.sha256(data).hexdigest()[:_DIGITS]}.{kind}"


def beside(folder: Path, name: str) -> bytes:
    """The content of a file that `file_of` named.

    Raises:
        Damaged: if it is missing, or not what was written.
    """
    file = folder / Path(name).name
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Damaged(
            f"{file} cannot be read ({error.strerror}); put a copy of it back if you have one"
        ) from error
    what, _, rest = file.name.rpartition("-")
    if file_of(what, data, rest.partition(".")[2]) != file.name:
        raise Damaged(f"{file} is not what was written; put a copy of it back if you have one")
    return data


def install(path: Path, fingerprint: str, files: Files) -> None:
    """Put an extractor's files in their place, whole or not at all; durable on return.

    Where it is there already, what it lacks is added and nothing is changed.

    Raises:
        BadOption: if a file's name is not a plain one.
    """
    for name in files:
        if Path(name).name != name or name.startswith("."):
            raise BadOption(f"{name!r} cannot be a file of an extractor; use a plain name")
    place = path / FOLDER / fingerprint
    if place.is_dir():
        for name, content in files.items():
            if not (place / name).exists():
                write_whole(place / name, _data(content))
        return
    scaffold = place.with_name(f".{fingerprint}.{os.getpid()}{_SCAFFOLD}")
    shutil.rmtree(scaffold, ignore_errors=True)
    try:
        scaffold.mkdir(parents=True)
        for name, content in files.items():
            write_whole(scaffold / name, _data(content))
        scaffold.rename(place)
    finally:
        shutil.rmtree(scaffold, ignore_errors=True)
    sync_folder(place.parent)


def _data(content: bytes | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def stray(path: Path, kept: Collection[str]) -> list[Path]:
    """Folders of extractors that are not in `kept`, and what a killed process left of one."""
    found = []
    with suppress(OSError), os.scandir(path / FOLDER) as there:
        for each in there:
            half = each.name.startswith(".") and each.name.endswith(_SCAFFOLD)
            whole = _FINGERPRINT.fullmatch(each.name) and each.name not in kept
            if half or whole:
                found.append(Path(each.path))
    return sorted(found)


def sweep(path: Path, kept: Collection[str]) -> int:
    """Overwrite and remove what `stray` finds; to be done by the one who may write.

    Weights know the pictures that they were trained with. Returns how many bytes there were.
    """
    erased = 0
    for folder in stray(path, kept):
        # The files one is known by go last: half of an extractor is never taken for a whole one.
        for file in sorted(folder.iterdir(), reverse=True):
            with suppress(OSError):
                size = file.stat().st_size
                with file.open("r+b") as opened:
                    opened.write(bytes(size))
                    opened.flush()
                    os.fsync(opened.fileno())
                file.unlink()
                erased += size
        shutil.rmtree(folder, ignore_errors=True)
    return erased
