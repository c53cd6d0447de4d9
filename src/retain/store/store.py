"""The door of the room: one directory, opened for reading by many and for writing by one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from retain.errors import AlreadyExists, Damaged, ReadOnly, StoreError
from retain.store import caches, checking, erasing, journal, reading, snapshot, start, writing
from retain.store.blobs import Blobs
from retain.store.failures import translated, understood
from retain.store.journal import Assertion, Entry, Plan, Rules
from retain.store.lock import exclusive
from retain.store.manifest import Manifest, sync_folder
from retain.store.schema import connect, current, migrate
from retain.store.start import Layer
from retain.store.writing import NewImage
from retain.values import Event, Sample

__all__ = ["NewImage", "Store"]

Fixed = NDArray[np.int16]


class Store:
    """A classifier's directory. Made by `create` and `open`; a context manager.

    Changing needs `writing`, which one process holds at a time. Every change is one transaction,
    durable when its method returns.
    """

    def __init__(self, path: Path, manifest: Manifest, engine: Engine, *, writable: bool) -> None:
        self.path = path
        self.manifest = manifest
        self.writable = writable
        self.writing_now = False
        self._engine = engine
        self._blobs = Blobs(path / "blobs")
        self._copy: Path | None = None
        self._start: Layer | None = None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._engine.dispose()
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)
            self._copy = None

    # -- making and opening -------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: Path, manifest: Manifest, extractor_files: Mapping[str, bytes | Path]
    ) -> Store:
        """Make a classifier at `path`, whole or not at all.

        Raises:
            AlreadyExists: if something other than an empty directory is there.
        """
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise AlreadyExists(f"{path} exists and is not a directory; choose another name")
        if path.is_dir() and any(path.iterdir()):
            made = (path / "manifest.json").exists()
            what = "is a classifier already" if made else "is not empty"
            raise AlreadyExists(f"{path} {what}; choose another name")
        with translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            scaffold = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", dir=path.parent))
            try:
                scaffold.chmod(0o755)
                writing.build(scaffold, manifest, extractor_files)
                scaffold.rename(path)
                sync_folder(path.parent)
            except BaseException:
                shutil.rmtree(scaffold, ignore_errors=True)
                raise
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open the classifier at `path`; for reading only where the directory cannot be written.

        Raises:
            NotAClassifier, NewerFormat, Damaged: if it is not one, too new, or unreadable.
        """
        with translated(path):
            manifest = Manifest.read(path)
            database = path / "journal.db"
            if not database.is_file() or not database.stat().st_size:
                raise Damaged(
                    f"{path} has a manifest but {database} is missing or empty, so what it was "
                    f"taught is lost; put a copy of the directory back if you have one"
                )
            writable = os.access(path, os.W_OK) and os.access(database, os.W_OK)
            copy = None if writable else snapshot.taken(database)
            mode = "rw" if writable or copy else "ro&immutable=1"
            engine = connect(copy / database.name if copy else database, mode=mode)
            store = cls(path, manifest, engine, writable=writable)
            store._copy = copy
            try:
                store._bring_up_to_date()
            except BaseException:
                store.close()
                raise
        return store

    @contextmanager
    def writing(self, verb: str, wait: float = 10.0) -> Iterator[None]:
        """Hold the right to write; also finishes an erasure that a crash interrupted.

        Raises:
            Locked: if another process holds it for longer than `wait` seconds.
            ReadOnly: if the directory cannot be written.
        """
        if not self.writable:
            raise ReadOnly(f"{self.path} cannot be written; make it writable, or work on a copy")
        with ExitStack() as stack:
            # What goes wrong in the caller's own work is not about this directory.
            with translated(self.path):
                stack.enter_context(exclusive(self.path, verb, wait))
                self._finish_erasing()
            self.writing_now = True
            try:
                yield
            finally:
                self.writing_now = False

    # -- reading ------------------------------------------------------------------------------

    @property
    def extractor_dir(self) -> Path:
        """Where the extractor's files are."""
        return self.path / "extractors" / self.manifest.extractor

    def start(self) -> Layer | None:
        """The last layer that was adopted; None for a classifier made here."""
        if self._start is None and self.manifest.start is not None:
            self._start = start.read(self.extractor_dir, self.manifest.start["sha256"])
        return self._start

    def head_event(self) -> int:
        """The number of the last event; 0 if there is none."""
        with self._transaction() as connection:
            return reading.head_event(connection)

    def members(self) -> list[Sample]:
        """All members, sorted by hash."""
        with self._transaction() as connection:
            return reading.samples(connection, "", {})

    def member(self, image: str) -> Sample | None:
        """One member, None if the picture is not one."""
        with self._transaction() as connection:
            found = reading.samples(
                connection, "WHERE i.hash = :hash", {"hash": reading.to_bytes(image)}
            )
        return found[0] if found else None

    def find(self, name: str, *, kept: bool = False) -> list[Sample]:
        """Members with this hash, whose hash begins so (six digits or more), or of this source.

        With `kept`, also pictures that only undone events speak of, as they last were.
        """
        with self._transaction() as connection:
            return reading.find(connection, name, "last_said" if kept else "members")

    def known(self) -> set[str]:
        """All pictures whose feature is kept, members or not."""
        with self._transaction() as connection:
            return reading.known(connection)

    def features(
        self, images: Sequence[str] | None
    ) -> tuple[list[str], Fixed, NDArray[np.float32]]:
        """Features of `images`, or of all members, sorted by hash.

        Returns:
            The hashes found, int16 [n, d], and the original lengths float32 [n].
        """
        with self._transaction() as connection:
            return reading.features(connection, images, self.manifest.dimension)

    def feature(self, image: str) -> tuple[Fixed, float] | None:
        """One picture's feature int16 [d] and its length, whether it is a member or not."""
        _, vectors, norms = self.features([image])
        return (vectors[0], float(norms[0])) if len(vectors) else None

    def blob(self, image: str) -> bytes:
        """A picture's bytes (UnknownImage if not kept, Damaged if changed)."""
        with translated(self.path):
            return self._blobs.read(image)

    def events(self) -> list[Event]:
        """The journal for people, oldest first."""
        with self._transaction() as connection:
            entries, labels = reading.entries(connection), reading.labels_by_event(connection)
        undone = journal.active(entries)
        kinds = {entry.id: entry.kind for entry in entries}
        return [
            journal.described(entry, labels.get(entry.id, {}), kinds, undone.get(entry.id))
            for entry in entries
        ]

    def event(self, number: int) -> Event:
        """One event (UnknownEvent if there is none)."""
        found = [event for event in self.events() if event.event == number]
        if not found:
            with self._transaction() as connection:
                raise journal.unknown(number, reading.entries(connection))
        return found[0]

    def assertions(self, number: int) -> list[Sample]:
        """What an event says of the pictures that are still kept, sorted by hash."""
        with self._transaction() as connection:
            return reading.asserted(connection, number)

    def history(self, image: str) -> list[tuple[int, str]]:
        """What was said of a picture: (event, label), oldest first."""
        with self._transaction() as connection:
            return reading.history(connection, image)

    def lesson(self) -> Mapping[str, str]:
        """Image → label right after the last lesson (Damaged if the members are not a replay)."""
        with self._transaction() as connection:
            replayed = journal.replay(reading.entries(connection), reading.said(connection))
            return checking.checked_plan(connection, replayed).lesson

    def rules(self) -> Rules:
        """What the owner decreed: budgets, protection, aliases."""
        with self._transaction() as connection:
            return journal.rules(reading.entries(connection))

    def promotions(self) -> list[Entry]:
        """The active events that made an alias stand for a version, oldest first."""
        with self._transaction() as connection:
            entries = reading.entries(connection)
        undone = journal.active(entries)
        return [each for each in entries if each.kind == "promote" and each.id not in undone]

    def last_undoable(self) -> int:
        """The event that a plain `undo` takes back (CannotUndo if there is none)."""
        with self._transaction() as connection:
            entries, said = reading.entries(connection), reading.said(connection)
        return journal.undoable(entries, said, None).id

    def preview(
        self,
        kind: str | None = None,
        *,
        target: int | None = None,
        detail: Mapping[str, Any] | None = None,
        without: Sequence[str] = (),
        at: int | None = None,
    ) -> Plan:
        """The membership as it is, was, or would be after one more event; writes nothing.

        Args:
            at: right after this event, instead of now.
            kind: ``"undo"``, ``"rename"``, ``"merge"``, or None for no event.
            target: what `undo` takes back.
            detail: ``old`` and ``new`` names.
            without: pictures to be forgotten.
        """
        with self._transaction() as connection:
            entries, said = reading.entries(connection), reading.said(connection)
            if at is not None:
                entries = [entry for entry in entries if entry.id <= at]
            if kind == "undo":
                target = journal.undoable(entries, said, target).id
            if kind is not None:
                number = entries[-1].id + 1 if entries else 1
                entries = [*entries, Entry(number, kind, "", target, detail or {})]
            gone = reading.numbers(connection, without)
            replayed = journal.replay(entries, said, gone)
            return reading.plan(connection, replayed)

    # -- writing ------------------------------------------------------------------------------

    def stage(self, new_images: Sequence[NewImage]) -> None:
        """Keep pictures that no event speaks of yet, so that a lesson may be long."""
        self._keep_bytes(new_images)
        with self._transaction(writes=True) as connection:
            writing.insert_images(connection, new_images, staged=True)

    def append(
        self,
        kind: str,
        assertions: Sequence[Assertion] = (),
        *,
        new_images: Sequence[NewImage] = (),
        target: int | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> int:
        """Write one event, everything or nothing; returns its number.

        Raises:
            UnknownEvent, CannotUndo: for an `undo` that is not possible.
        """
        self._keep_bytes(new_images)
        with self._transaction(writes=True) as connection:
            if kind == "undo":
                entries, said = reading.entries(connection), reading.said(connection)
                target = journal.undoable(entries, said, target).id
            writing.insert_images(connection, new_images, staged=False)
            number = writing.insert_event(connection, kind, target, detail)
            if assertions:
                writing.insert_assertions(connection, number, assertions)
            if kind in {"undo", "rename", "merge", "protect"}:
                replayed = journal.replay(reading.entries(connection), reading.said(connection))
                writing.replace_members(connection, replayed)
        return number

    def sweep_staged(self) -> None:
        """Drop pictures that were put aside for a lesson that never ended.

        What is in the way (a full disk, say) is no reason to deny the event before; they are
        dropped after the next one instead.
        """
        with suppress(StoreError):
            with self._transaction() as connection:
                left = writing.staged(connection)
            if left:
                with self._transaction(writes=True) as connection:
                    writing.delete_images(connection, left)
                self._finish_erasing()

    def forget(self, images: Sequence[str]) -> tuple[int, int]:
        """Erase pictures for good; returns the event's number and the bytes erased.

        After the transaction the bytes are overwritten and unlinked and the database is rewritten;
        if that is interrupted, the next `writing` finishes it.
        """
        with self._transaction(writes=True) as connection:
            writing.delete_images(connection, [*images, *writing.staged(connection)])
            connection.exec_driver_sql("DELETE FROM tunings")
            number = writing.insert_event(connection, "forget", None, {"images": len(images)})
        vectors = len(images) * self.manifest.dimension * 2
        return number, self._finish_erasing() + vectors

    def get_tuning(self, key: str) -> dict[str, Any] | None:
        """Numbers cached under a key, None if there are none."""
        with self._transaction() as connection:
            return reading.tuning(connection, key)

    def put_tuning(self, key: str, numbers: Mapping[str, Any]) -> None:
        """Cache numbers under a key."""
        with self._transaction(writes=True) as connection:
            writing.replace_tuning(connection, key, numbers)

    def write_cache(self, name: str, arrays: caches.Arrays, meta: Mapping[str, str]) -> None:
        """Keep arrays that follow from the journal, if that is possible; see `caches`."""
        # The event that they follow from is kept already: a full disk must not deny it.
        with suppress(OSError):
            caches.write(self.path / "versions", name, arrays, meta)

    def read_cache(self, name: str) -> tuple[dict[str, Any], dict[str, str]] | None:
        """What `write_cache` kept; None if it is absent or unreadable."""
        return caches.read(self.path / "versions", name)

    def clear_caches(self) -> None:
        """Remove everything that `write_cache` kept."""
        caches.clear(self.path / "versions")

    def check(self) -> tuple[list[str], list[str]]:
        """Problems and notes about the files themselves: see `checking`."""
        return checking.check(self.path, self.manifest, self._engine, self._blobs)

    # -- inside -------------------------------------------------------------------------------

    def _bring_up_to_date(self) -> None:
        with self._transaction() as connection:
            if current(connection):
                return
        if not self.writable:
            raise ReadOnly(
                f"{self.path} is of an older format and cannot be written; work on a copy"
            )
        with self._transaction(writes=True) as connection:
            migrate(connection)

    @contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        with translated(self.path), understood(self.path):
            engine = self._engine.execution_options(writes=True) if writes else self._engine
            with engine.begin() as connection:
                yield connection

    def _keep_bytes(self, new_images: Sequence[NewImage]) -> None:
        with translated(self.path):
            self._blobs.write({n.image: n.data for n in new_images if n.data is not None})

    def _finish_erasing(self) -> int:
        return erasing.finish(self.path, self._engine, self._blobs)
