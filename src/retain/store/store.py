"""The door of the room: one directory, opened for reading by many and for writing by one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from retain.errors import Damaged, DiskFull, Locked, ReadOnly, StoreError, UnknownImage
from retain.store import caches, checking, erasing, journal, reading, schema, start, writing
from retain.store.blobs import Blobs
from retain.store.database import Database
from retain.store.failures import translated
from retain.store.journal import Assertion, Entry, Plan, Rules
from retain.store.lock import exclusive
from retain.store.manifest import Manifest
from retain.store.start import Layer
from retain.store.writing import NewImage
from retain.values import Event, Sample

__all__ = ["NewImage", "Store"]

Fixed = NDArray[np.int16]


class Store:
    """A classifier's directory. Made by `create` and `open`; a context manager.

    Changing needs `writing`, which one thread of one process holds at a time. Every change is one
    transaction, durable when its method returns. Any number of threads may share a store.
    """

    def __init__(self, path: Path, manifest: Manifest, *, writable: bool) -> None:
        self.path = path
        self.manifest = manifest
        self.writable = writable
        self._writer: int | None = None
        self._blobs = Blobs(path / "blobs")
        self._database = Database(path, writable=writable)
        self._transaction = self._database.transaction
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
        self._database.close()

    # -- making and opening -------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: Path, manifest: Manifest, extractor_files: Mapping[str, bytes | Path]
    ) -> Store:
        """Make a classifier at `path`, whole or not at all.

        Raises:
            AlreadyExists: if something other than an empty directory is there.
        """
        writing.make(path, manifest, extractor_files)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open the classifier at `path`; for reading only where the directory cannot be written.

        An older format is brought up to date by whoever may write; it can be read as it is.

        Raises:
            NotAClassifier, NewerFormat, Damaged: if it is not one, too new, or unreadable.
        """
        with translated(path, reading=True):
            manifest = Manifest.read(path)
            database = path / "journal.db"
            if not database.is_file() or not database.stat().st_size:
                raise Damaged(
                    f"{path} has a manifest but {database} is missing or empty, so what it was "
                    f"taught is lost; put a copy of the directory back if you have one"
                )
            writable = os.access(path, os.W_OK) and os.access(database, os.W_OK)
            store = cls(path, manifest, writable=writable)
            try:
                # Where that cannot be now, whoever writes next does it; until then it is read so.
                if store._outdated() and writable:
                    with suppress(Locked, DiskFull), store.writing("upgrade", wait=0.0):
                        pass
            except BaseException:
                store.close()
                raise
        return store

    @property
    def writing_now(self) -> bool:
        """Whether this thread may write at this point: it holds the right, and is not `reading`."""
        return self._writer == threading.get_ident() and not self._database.joined

    @contextmanager
    def writing(self, verb: str, wait: float = 10.0, *, dry_run: bool = False) -> Iterator[None]:
        """Hold the right to write; also finishes an erasure that a crash interrupted.

        What the holder asks in the meantime is of one state, changed by nobody else; a holder for a
        `dry_run` asks only, and what it works out is not cached either.

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
                self._bring_up_to_date()
                self._finish_erasing()
            self._writer = None if dry_run else threading.get_ident()
            try:
                yield
            finally:
                self._writer = None

    # -- reading ------------------------------------------------------------------------------

    def reading(self) -> AbstractContextManager[None]:
        """Let all questions until the end be answered from one state, whatever others write.

        May be nested. Nothing can be written inside, by this thread. Keep it short, for other
        threads and the end of an erasure wait for it: ask, leave, then compute.
        """
        return self._database.reading()

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
        with translated(self.path, reading=True):
            try:
                return self._blobs.read(image)
            except Damaged:
                # Bytes are overwritten while they are erased.
                with self._transaction() as connection:
                    if reading.numbers(connection, [image]):
                        raise
                raise UnknownImage(f"the bytes of {image} are not kept here any more") from None

    def events(self) -> list[Event]:
        """The journal for people, oldest first."""
        with self._transaction() as connection:
            return journal.told(reading.entries(connection), reading.labels_by_event(connection))

    def event(self, number: int) -> Event:
        """One event (UnknownEvent if there is none)."""
        events = self.events()
        for event in events:
            if event.event == number:
                return event
        raise journal.unknown(number, events[-1].event if events else 0)

    def assertions(self, number: int) -> list[Sample]:
        """What an event says of the pictures that are still kept, sorted by hash."""
        with self._transaction() as connection:
            return reading.asserted(connection, number)

    def history(self, image: str) -> list[tuple[int, str]]:
        """What was said of a picture: (event, label), oldest first."""
        with self._transaction() as connection:
            return reading.history(connection, image)

    def plan(self) -> Plan:
        """The membership of now (Damaged if the members kept are not its replay)."""
        with self._transaction() as connection:
            replayed = journal.replay(reading.entries(connection), reading.said(connection))
            return checking.checked_plan(connection, replayed)

    def rules(self) -> Rules:
        """What the owner decreed: budgets, protection, aliases."""
        with self._transaction() as connection:
            return journal.rules(reading.entries(connection))

    def promotions(self) -> list[Entry]:
        """The active events that made an alias stand for a version, oldest first."""
        with self._transaction() as connection:
            return journal.promotions(reading.entries(connection))

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
            entries = [entry for entry in entries if at is None or entry.id <= at]
            entries = journal.followed(entries, said, kind, target, detail)
            gone = reading.numbers(connection, without)
            return reading.plan(connection, journal.replay(entries, said, gone))

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
        return checking.check(self._database, self.manifest, self._blobs)

    # -- inside -------------------------------------------------------------------------------

    @property
    def _engine(self) -> Engine:
        return self._database.engine

    def _outdated(self) -> bool:
        with self._transaction() as connection:
            return schema.version(connection) < len(schema.MIGRATIONS)

    def _bring_up_to_date(self) -> None:
        if self._outdated():
            with self._transaction(writes=True) as connection:
                schema.migrate(connection)

    def _keep_bytes(self, new_images: Sequence[NewImage]) -> None:
        with translated(self.path):
            self._blobs.write({n.image: n.data for n in new_images if n.data is not None})

    def _finish_erasing(self) -> int:
        return erasing.finish(self._database, self._blobs)
