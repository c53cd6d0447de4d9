"""A whole classifier as one file to hand on, and back again to be taught further.

The file is a ZIP that any tool can list: ``manifest.json``, ``journal.db``, ``extractors/…``,
``blobs/…`` and, last, ``index.json`` with the version of this layout and the size and SHA-256 of
every other entry. Nothing is compressed, as pictures and features do not shrink, so an entry can
never be larger than the file that it came in. Caches and the lock stay behind.

What is packed is one moment of the journal: others may learn and forget meanwhile. What was
forgotten before the file takes its place is not in it: nobody can forget between the last look and
that, unless the classifier may be read only.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from retain.errors import (
    AlreadyExists,
    BadOption,
    Damaged,
    DiskFull,
    Locked,
    StoreError,
    UnknownImage,
)
from retain.store.blobs import Blobs
from retain.store.database import Database
from retain.store.eras import FOLDER
from retain.store.failures import translated, understood
from retain.store.lock import exclusive
from retain.store.manifest import Manifest, sync_folder
from retain.store.reading import to_bytes, to_name
from retain.store.schema import version
from retain.store.unpacking import CHUNK, INDEX, PACK_FORMAT, Entry, belongs, unpack
from retain.store.workshop import workshop

__all__ = ["Packed", "pack", "unpack"]

# How often to begin anew when pictures are forgotten meanwhile; the last time, forgetting waits.
_ATTEMPTS = 5
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Packed:
    """A classifier as one file.

    Attributes:
        path: the file.
        bytes: its size.
        files: how many files of the classifier are in it.
        digest: its SHA-256; equal for packs of a classifier that has not changed in between.
    """

    path: Path
    bytes: int
    files: int
    digest: str


class _Changed(Exception):
    """What was to be packed went meanwhile: a picture, or None if it is not known which."""

    def __init__(self, image: str | None) -> None:
        super().__init__(image)
        self.image = image


def pack(folder: Path, target: Path, *, overwrite: bool = False) -> Packed:
    """Write a classifier to one file, whole or not at all, while others may go on using it.

    Args:
        folder: the classifier; it may be read-only.
        target: the file, by custom ``NAME.retain``.
        overwrite: take the place of a file that is there.

    Raises:
        AlreadyExists: if something is at `target`.
        BadOption: if `target` is inside `folder`, or its own folder does not exist.
        NotAClassifier, NewerFormat, Damaged: if `folder` is not one, too new, or broken.
        ReadOnly, DiskFull: if `target` cannot be written.
        Locked: if pictures were forgotten all the time.

    >>> import tempfile, retain
    >>> home = Path(tempfile.mkdtemp())
    >>> with retain.create(home / "shop", extractor="vectors:2") as shop:
    ...     _ = shop.learn([[1.0, 0.1], [0.1, 1.0]], ["mug", "cup"])
    >>> packed = pack(home / "shop", home / "shop.retain")
    >>> with retain.open(unpack(packed.path, home / "again")) as again:
    ...     again.predict([[0.9, 0.2]])[0].label
    'mug'
    """
    with translated(folder):
        manifest = Manifest.read(folder)
    with translated(target):
        _refuse_target(folder, target, overwrite)
        with workshop(target) as room:
            return _pack_until_still(folder, manifest, room, target, overwrite)


def _refuse_target(folder: Path, target: Path, overwrite: bool) -> None:
    parent = target.absolute().parent.resolve()
    if not parent.is_dir():
        raise BadOption(f"{target} cannot be made: {parent} is not a folder; make it first")
    if any(above.samefile(folder) for above in (parent, *parent.parents)):
        raise BadOption(f"{target} is inside {folder}, which is to be packed; choose another place")
    if os.path.lexists(target):
        if target.is_symlink() or not target.is_file():
            raise AlreadyExists(f"{target} exists and is not a file; choose another name")
        if not overwrite:
            raise _taken(target)


def _taken(target: Path) -> AlreadyExists:
    return AlreadyExists(f"{target} exists; choose another name, or say that it may be overwritten")


def _publish(whole: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        whole.replace(target)
    else:
        try:
            # Unlike a renaming, this cannot take the place of what came meanwhile.
            os.link(whole, target)
        except OSError:
            if os.path.lexists(target):
                raise _taken(target) from None
            whole.rename(target)  # a disk without hard links
    sync_folder(target.absolute().parent)


def _pack_until_still(
    folder: Path, manifest: Manifest, room: Path, target: Path, overwrite: bool
) -> Packed:
    for left in reversed(range(_ATTEMPTS)):
        with ExitStack() as stack:
            if not left and _writable(folder):
                with translated(folder):
                    stack.enter_context(exclusive(folder, "pack", _PATIENCE))
            try:
                files = _pack_once(folder, manifest, room)
                whole = room / "whole"
                with whole.open("rb") as made:
                    os.fsync(made.fileno())
                    digest = hashlib.file_digest(made, "sha256").hexdigest()
                size = whole.stat().st_size
                with _unforgotten(folder, room / "journal.db"), translated(target):
                    _publish(whole, target, overwrite)
                return Packed(target, size, files, f"sha256:{digest}")
            except _Changed as changed:
                if changed.image is not None:
                    _refuse_damage(folder, changed.image)
    raise Locked(
        f"pictures of {folder} were forgotten or files of it changed whenever it was packed; "
        f"nothing was written. Try again when less is going on"
    )


def _pack_once(folder: Path, manifest: Manifest, room: Path) -> int:
    """Write ``whole`` into `room`; returns how many files are in it.

    Raises:
        _Changed: if something went meanwhile.
    """
    whole, copy = room / "whole", room / "journal.db"
    index: dict[str, Entry] = {}
    copy.unlink(missing_ok=True)
    _copy_journal(folder, copy)
    blobs = Blobs(folder / "blobs")
    with zipfile.ZipFile(whole, "w") as archive:
        index["manifest.json"] = _add(archive, "manifest.json", folder / "manifest.json")
        index["journal.db"] = _add(archive, "journal.db", copy)
        for file in _extractor_files(folder, _extractors(folder, manifest, copy)):
            name = file.relative_to(folder).as_posix()
            index[name] = _add(archive, name, file)
        for image in _pictures(folder, copy) if manifest.memory == "images" else ():
            file = blobs.path(image)
            name = file.relative_to(folder).as_posix()
            index[name] = _add(archive, name, file, image)
            if f"sha256:{index[name].sha256}" != image:
                raise _Changed(image)
        files = {name: {"size": each.size, "sha256": each.sha256} for name, each in index.items()}
        text = json.dumps({"format": PACK_FORMAT, "files": files}, indent=0)
        archive.writestr(_info(INDEX), text)
    return len(index)


def _info(name: str) -> zipfile.ZipInfo:
    # No times: two packs of the same classifier are the same file.
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    return info


def _add(archive: zipfile.ZipFile, name: str, file: Path, image: str | None = None) -> Entry:
    digest, size, info = hashlib.sha256(), 0, _info(name)
    try:
        info.file_size = file.stat().st_size  # decides on the form for large files
        with archive.open(info, "w") as into:
            for chunk in _chunks(file):
                digest.update(chunk)
                size += len(chunk)
                into.write(chunk)
    except FileNotFoundError:
        raise _Changed(image) from None
    return Entry(size, digest.hexdigest())


def _chunks(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as source:
            while chunk := source.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{file} cannot be read ({error.strerror}), so nothing was packed; make it "
        f"readable, or put a copy of it back"
    )


def _extractors(folder: Path, manifest: Manifest, copy: Path) -> set[str]:
    """Those that the journal names, also in events that were taken back."""
    with translated(folder), understood(folder), closing(sqlite3.connect(copy)) as journal:
        rows = journal.execute("SELECT detail FROM events WHERE kind = 'adapt'").fetchall()
        return {manifest.extractor, *_named(rows)}


def _named(rows: Sequence[tuple[str]]) -> set[str]:
    """The extractors of `adapt` events, by their details, but those that were purged."""
    told = [json.loads(detail) for (detail,) in rows]
    return {each["extractor"] for each in told if not each.get("purged")}


def _extractor_files(folder: Path, extractors: Collection[str]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error)

    for name in sorted(extractors):
        one = folder / FOLDER / name
        if not one.is_dir():
            raise Damaged(f"{one} is missing; put a copy of it back")
        for here, folders, names in os.walk(one, onerror=refuse):
            folders.sort()
            for name in sorted(
                [*names, *(each for each in folders if Path(here, each).is_symlink())]
            ):
                file = Path(here, name)
                if name.endswith(".tmp"):
                    continue
                if not file.is_file() or not belongs(file.relative_to(folder).as_posix()):
                    raise BadOption(
                        f"{file} is no ordinary file or has a name that cannot be packed; rename "
                        f"or remove it"
                    )
                yield file


def _pictures(folder: Path, copy: Path) -> Iterator[str]:
    with translated(folder), closing(sqlite3.connect(copy)) as journal:
        for (digest,) in journal.execute("SELECT hash FROM images ORDER BY hash"):
            if not isinstance(digest, bytes) or len(digest) != 32:
                raise Damaged(
                    f"the journal of {folder} is damaged (a picture has no hash). Run `retain "
                    f"verify {folder}` for the whole list"
                )
            yield to_name(digest)


def _copy_journal(folder: Path, copy: Path) -> None:
    """One moment of the journal, without anything that was deleted or is only being read in."""
    try:
        with _journal(folder) as engine:
            with engine.begin() as connection:
                version(connection)
            with closing(engine.raw_connection()) as raw:
                raw.cursor().execute("VACUUM INTO ?", (str(copy.absolute()),))
        with (
            translated(folder),
            closing(sqlite3.connect(copy, isolation_level=None)) as journal,
        ):
            _drop_pending(journal)
    except DiskFull as error:
        # It is the other disk, unless the two are one.
        raise DiskFull(
            f"no room left on the disk of {copy.parent.parent} to pack {folder}; nothing was "
            f"changed. Free some space and run the same command again"
        ) from error


def _drop_pending(journal: sqlite3.Connection) -> None:
    tables = journal.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    before = journal.total_changes
    journal.execute("PRAGMA secure_delete = ON")
    journal.execute("BEGIN")
    for (table,) in tables:
        for key in journal.execute("SELECT * FROM pragma_foreign_key_list(?)", (table,)).fetchall():
            if key[2] == "images":
                journal.execute(
                    f'DELETE FROM "{table}" WHERE "{key[3]}" IN '  # noqa: S608
                    "(SELECT id FROM images WHERE staged = 1)"
                )
    journal.execute("DELETE FROM images WHERE staged = 1")
    journal.execute("DELETE FROM erasures")
    if any(table == "later_features" for (table,) in tables):
        # What was computed for an extractor that no event names yet.
        told = journal.execute("SELECT detail FROM events WHERE kind = 'adapt'").fetchall()
        named = _named(told)
        rows = journal.execute("SELECT id, fingerprint FROM extractors").fetchall()
        for number in [(number,) for number, fingerprint in rows if fingerprint not in named]:
            journal.execute("DELETE FROM later_features WHERE extractor = ?", number)
            journal.execute("DELETE FROM extractors WHERE id = ?", number)
    journal.execute("COMMIT")
    if journal.total_changes > before:
        journal.execute("VACUUM")


@contextmanager
def _unforgotten(folder: Path, copy: Path) -> Iterator[None]:
    """Let nobody forget anything until the end; where that may not be, only look once more.

    Lessons hold the right to write for long, and the journal only for moments: those are waited
    for.

    Raises:
        _Changed: if a picture of the copy was forgotten before.
    """
    with _journal(folder) as engine, closing(engine.raw_connection()) as raw:
        cursor = raw.cursor()
        cursor.execute("ATTACH ? AS packed", (str(copy.absolute()),))
        cursor.execute("BEGIN IMMEDIATE" if _writable(folder) else "BEGIN")
        try:
            cursor.execute(
                "SELECT 1 FROM packed.images WHERE hash NOT IN (SELECT hash FROM main.images) "
                "LIMIT 1"
            )
            if cursor.fetchone() is not None:
                raise _Changed(None)
            yield
        finally:
            cursor.execute("ROLLBACK")


def _refuse_damage(folder: Path, image: str) -> None:
    """Raise Damaged if a picture's bytes are gone though nobody forgot it."""
    # A forgotten picture is first no more in the journal, and then erased.
    if not _remembered(folder, image):
        return
    try:
        with translated(folder):
            Blobs(folder / "blobs").read(image)
    except (UnknownImage, Damaged) as error:
        if _remembered(folder, image):
            raise Damaged(
                f"{folder} cannot be packed: {error}. Put a copy of the file back, or forget the "
                f"picture: retain forget {folder} {image}"
            ) from error


def _remembered(folder: Path, image: str) -> bool:
    with _journal(folder) as engine, engine.begin() as connection:
        found = connection.exec_driver_sql(
            "SELECT 1 FROM images WHERE hash = ?", (to_bytes(image),)
        )
        return found.first() is not None


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and os.access(folder / "journal.db", os.W_OK)


@contextmanager
def _journal(folder: Path) -> Iterator[Engine]:
    """The journal to read from, also where no file can be made beside it."""
    database = folder / "journal.db"
    with translated(folder), understood(folder), ExitStack() as stack:
        if not database.is_file() or not database.stat().st_size:
            raise Damaged(f"{database} is missing or empty; put a copy of the directory back")
        door = Database(folder, writable=_writable(folder))
        stack.callback(door.close)
        yield door.engine
