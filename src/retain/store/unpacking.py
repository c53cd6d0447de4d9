"""A classifier again from one file: nothing of the file is believed before it is compared."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retain.errors import (
    AlreadyExists,
    Damaged,
    NewerFormat,
    NotAClassifier,
    RetainError,
    StoreError,
)
from retain.store.failures import translated
from retain.store.manifest import Manifest, sync_folder
from retain.store.workshop import workshop

__all__ = ["CHUNK", "INDEX", "PACK_FORMAT", "Entry", "belongs", "unpack"]

PACK_FORMAT = 1
INDEX = "index.json"
CHUNK = 1 << 20
_BLOB = re.compile(r"blobs/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_PART = re.compile(r"[^./\\\x00-\x1f\x7f\ud800-\udfff][^/\\\x00-\x1f\x7f\ud800-\udfff]*")
# Bytes before a file in a ZIP, without its name.
_HEADER = 30
# What `zipfile` raises over bytes that are no ZIP.
_UNREADABLE = (
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of a file: its size and the digits of its SHA-256."""

    size: int
    sha256: str


def belongs(name: str) -> bool:
    """Whether a classifier may have a file of this name."""
    if name in {"manifest.json", "journal.db"} or _BLOB.fullmatch(name):
        return True
    parts = name.split("/")
    return (
        parts[0] == "extractors"
        and 3 <= len(parts) <= 9
        and all(_PART.fullmatch(part) and len(part.encode()) <= 255 for part in parts)
    )


def unpack(file: Path, folder: Path) -> Path:
    """Make a classifier of a packed one, whole or not at all; returns `folder`.

    Every file is compared with the index. Whether the journal is sound, `verify` says afterwards.

    Args:
        file: what `pack` wrote.
        folder: a directory that does not exist or is empty.

    Raises:
        NotAClassifier: if there is no file.
        Damaged: if it is not what `pack` wrote.
        NewerFormat: if a newer retain wrote it.
        AlreadyExists: if something is at `folder`.
        ReadOnly, DiskFull: if `folder` cannot be written.
    """
    place = Path(os.path.abspath(folder))
    with translated(place):
        _refuse_folder(place)
    with _opened(file) as archive:
        entries = _entries(archive, file)
        with translated(place), _parents(place), workshop(place) as room:
            whole = room / "whole"
            for name in ("", "blobs", "versions"):
                (whole / name).mkdir(0o755)
            for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
                if info.filename in entries:
                    _extract(archive, info, entries[info.filename], whole, file)
            try:
                Manifest.read(whole)
            except RetainError as error:
                raise type(error)(str(error).replace(str(whole), str(file))) from None
            # All written first and then forced, so that the disk may choose its own order.
            for here, _, names in os.walk(whole, topdown=False):
                for name in (*names, ""):
                    sync_folder(Path(here, name))
            try:
                whole.rename(place)
            except OSError:
                _refuse_folder(place)  # somebody else was faster
                raise
            sync_folder(place.parent)
    return folder


def _refuse_folder(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise AlreadyExists(f"{folder} exists and is not a directory; choose another name")
    if folder.is_dir() and any(folder.iterdir()):
        raise AlreadyExists(f"{folder} is not empty; choose another name")


def _damaged(file: Path, why: object) -> Damaged:
    return Damaged(
        f"{file} is not a packed classifier, or is damaged ({why}); nothing was unpacked. Get "
        f"another copy of it"
    )


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        if not file.is_file():
            there = "is not a file" if file.exists() else "does not exist"
            raise NotAClassifier(f"{file} {there}; name a file that retain pack wrote")
        source = file.open("rb")
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror}); make it readable") from error
    try:
        with source, zipfile.ZipFile(source) as archive:
            yield archive
    except RetainError:
        raise
    except _UNREADABLE as error:
        raise _damaged(file, error) from error


def _entries(archive: zipfile.ZipFile, file: Path) -> Mapping[str, Entry]:
    """What the index says, if that is what is there.

    Raises:
        Damaged: if it is not.
        NewerFormat: if a newer retain wrote it.
    """
    infos, end = archive.infolist(), 0
    if len({info.filename for info in infos}) != len(infos):
        raise _damaged(file, "it holds two files of one name")
    for info in sorted(infos, key=lambda info: info.header_offset):
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG} or info.orig_filename != info.filename:
            raise _damaged(file, f"{info.orig_filename!a:.200} is not an ordinary file")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise _damaged(file, f"{info.filename!a:.200} is compressed or encrypted")
        if info.file_size != info.compress_size or info.header_offset < end:
            raise _damaged(file, f"the size of {info.filename!a:.200} is impossible")
        end = info.header_offset + _HEADER + info.compress_size
    if end > file.stat().st_size:
        raise _damaged(file, "it ends too early")
    if INDEX not in archive.NameToInfo or archive.NameToInfo[INDEX].file_size > (
        65536 + 1024 * len(infos)
    ):
        raise _damaged(file, f"it has no {INDEX} of a possible size")
    entries = _understood(archive.read(INDEX), file)
    sizes = {info.filename: info.file_size for info in infos if info.filename != INDEX}
    if sizes != {name: entry.size for name, entry in entries.items()}:
        raise _damaged(file, f"it does not hold the files that {INDEX} names")
    return entries


def _understood(text: bytes, file: Path) -> Mapping[str, Entry]:
    values = json.loads(text, object_pairs_hook=_once)
    written = values.get("format") if isinstance(values, dict) else None
    if not isinstance(written, int) or isinstance(written, bool) or written < 1:
        raise _damaged(file, f"{INDEX} names no format")
    if written > PACK_FORMAT:
        raise NewerFormat(
            f"{file} has format {written}, and this retain unpacks up to {PACK_FORMAT}; install a "
            f"newer one: pip install --upgrade retain"
        )
    entries = {name: Entry(e["size"], e["sha256"]) for name, e in values["files"].items()}
    for name, entry in entries.items():
        blob = _BLOB.fullmatch(name)
        if (
            not belongs(name)
            or type(entry.size) is not int
            or not re.fullmatch("[0-9a-f]{64}", entry.sha256)
            or (blob and blob[2] != entry.sha256)
        ):
            raise _damaged(file, f"{INDEX} names a file that does not belong: {name!a:.200}")
    if not {"manifest.json", "journal.db"} <= entries.keys():
        raise _damaged(file, "it lacks manifest.json or journal.db")
    return entries


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


def _extract(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Entry, whole: Path, file: Path
) -> None:
    path, digest, left = whole / info.filename, hashlib.sha256(), entry.size
    for above in reversed(Path(info.filename).parents):
        (whole / above).mkdir(0o755, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:  # names that are one to this disk, such as a and A
        raise _damaged(file, f"{info.filename!a:.200} comes twice") from None
    with os.fdopen(handle, "wb") as into, archive.open(info) as source:
        while left and (chunk := source.read(min(CHUNK, left))):
            left -= len(chunk)
            digest.update(chunk)
            into.write(chunk)
        if left or source.read(1) or digest.hexdigest() != entry.sha256:
            raise _damaged(file, f"{info.filename!a:.200} is not what it was")


@contextmanager
def _parents(place: Path) -> Iterator[None]:
    """Make the folders above a place; they go again if what is done there fails."""
    missing = [above for above in place.parents if not above.exists()]
    place.parent.mkdir(0o755, parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for above in missing:
            with suppress(OSError):
                above.rmdir()
        raise
