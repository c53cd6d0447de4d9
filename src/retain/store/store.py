"""The door of the room: one directory, opened for reading by many and for writing by one."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, final

from retain.errors import Damaged, DiskFull, Locked, ReadOnly, StoreError
from retain.store import caches, eras, erasing, journal, reading, schema, writing
from retain.store.failures import translated
from retain.store.journal import Assertion, Era
from retain.store.lock import exclusive
from retain.store.manifest import Manifest
from retain.store.records import Records
from retain.store.writing import Featured, NewImage

__all__ = ["NewImage", "Store"]


@final
class Store(Records):
    """A classifier's directory. Made by `create` and `open`; a context manager.

    Changing needs `writing`, which one thread of one process holds at a time. Every change is one
    transaction, durable when its method returns. Any number of threads may share a store.
    """

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

    @contextmanager
    def writing(self, verb: str, wait: float = 10.0, *, dry_run: bool = False) -> Iterator[None]:
        """Hold the right to write; also finishes an erasure that a crash interrupted.

        What the holder asks in the meantime is of one state, changed by nobody else; a holder for a
        `dry_run` asks only, and what it works out is not cached either.

        Raises:
            Locked: if another process holds it for longer than `wait` seconds.
            ReadOnly: if the directory cannot be written.
        """
        self._refuse_read_only()
        with ExitStack() as stack:
            # What goes wrong in the caller's own work is not about this directory.
            with translated(self.path):
                stack.enter_context(exclusive(self.path, verb, wait))
                self._bring_up_to_date()
                self._finish_erasing()
                if not dry_run:
                    self._sweep_extractors()
            self._writer = None if dry_run else threading.get_ident()
            try:
                yield
            finally:
                self._writer = None

    # -- writing ------------------------------------------------------------------------------

    def stage(self, new_images: Sequence[NewImage], era: Era | None = None) -> None:
        """Keep pictures that no event speaks of yet, so that a lesson may be long."""
        self._keep_bytes(new_images)
        with self._transaction(writes=True) as connection:
            key = (era or self._eras(connection)[0]).key
            writing.insert_images(connection, new_images, key, staged=True)

    def append(
        self,
        kind: str,
        assertions: Sequence[Assertion] = (),
        *,
        new_images: Sequence[NewImage] = (),
        target: int | None = None,
        detail: Mapping[str, Any] | None = None,
        era: Era | None = None,
    ) -> int:
        """Write one event, everything or nothing; returns its number.

        Features of new pictures are of `era`, by default that of now.

        Raises:
            UnknownEvent, CannotUndo: for an `undo` that is not possible.
        """
        self._keep_bytes(new_images)
        with self._transaction(writes=True) as connection:
            if kind == "undo":
                entries, said = reading.entries(connection), reading.said(connection)
                target = journal.undoable(entries, said, target).id
            if new_images:
                key = (era or self._eras(connection)[0]).key
                writing.insert_images(connection, new_images, key, staged=False)
            number = writing.insert_event(connection, kind, target, detail)
            if assertions:
                writing.insert_assertions(connection, number, assertions)
            if kind in {"undo", "rename", "merge", "protect"}:
                replayed = journal.replay(reading.entries(connection), reading.said(connection))
                writing.replace_members(connection, replayed)
        return number

    @contextmanager
    def adapting(self) -> Iterator[None]:
        """Hold the right to prepare another extractor, beside others who write.

        Raises:
            Locked: if another process holds it.
            ReadOnly: if the directory cannot be written.
        """
        self._refuse_read_only()
        with ExitStack() as stack:
            with translated(self.path):
                stack.enter_context(exclusive(self.path, "adapt", 0.0, "candidate.lock"))
            yield

    def candidate(self, fingerprint: str) -> int:
        """The key for the features of an extractor that may take the present one's place.

        What was computed for another candidate, which was given up, is dropped.
        """
        if fingerprint == self.manifest.extractor:
            return 0
        with self._transaction(writes=True) as connection:
            return writing.candidate(connection, fingerprint, self._eras(connection)[1])

    def drop_candidates(self) -> None:
        """Drop what was computed with extractors that never took the present one's place."""
        with self._transaction(writes=True) as connection:
            writing.drop_candidates(connection, self._eras(connection)[1])

    def keep_features(self, found: Sequence[Featured], era: Era) -> None:
        """Keep features of pictures that are there; those forgotten meanwhile are left out."""
        with self._transaction(writes=True) as connection:
            writing.insert_features(connection, found, era.key)

    def adapt(
        self,
        era: Era,
        files: eras.Files,
        *,
        detail: Mapping[str, Any],
        trained: Sequence[str],
        exemplars: Sequence[str] = (),
    ) -> int:
        """Write the event that an era begins with; returns its number.

        Args:
            era: the era; the features of all members must be kept under its key.
            files: its extractor's.
            detail: what a person wants to read of it.
            trained: the pictures that the extractor was trained with.
            exemplars: those of them that its method keeps, in its order.
        """
        with translated(self.path):
            eras.install(self.path, era.extractor, files)
        told = {"extractor": era.extractor, "dimension": era.dimension}
        if era.start is not None:
            told["start"] = era.start
        with self._transaction(writes=True) as connection:
            gone = len(trained) - len(reading.numbers(connection, trained))
            more = {"forgotten": gone} if gone else {}
            number = writing.insert_event(connection, "adapt", None, {**detail, **more, **told})
            if number != era.number:
                raise AssertionError(f"event {number} was expected to be {era.number}")
            writing.insert_trained(connection, number, trained, exemplars)
        return number

    def purge(self, events: Sequence[int]) -> tuple[int, int]:
        """Erase the extractors of these `adapt` events, and what they computed, for good.

        Each is afterwards as if it had never been. After the transaction the files are overwritten
        and unlinked and the database is rewritten; if that is interrupted, or others read for
        long, the next `writing` finishes it: ask `unerased`. Returns the event's number and the
        bytes erased.
        """
        with self._transaction(writes=True) as connection:
            purged = [e for e in journal.adapts(reading.entries(connection)) if e.id in set(events)]
            numbers = [entry.id for entry in purged]
            number = writing.insert_event(connection, "purge", None, {"adapts": numbers})
            writing.purge(connection, purged, number)
            kept = eras.named(self.manifest, reading.entries(connection))
            writing.drop_candidates(connection, kept)
        erased = self._sweep_extractors()
        self._finish_erasing()
        return number, erased

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
        if that is interrupted, or others read for long, the next `writing` finishes it: ask
        `unerased`.

        What was computed with an extractor that never came into force goes too: it may have been
        trained with them, and what it is when somebody adapts just now, that training looks after.
        """
        with ExitStack() as stack:
            idle = False
            with suppress(Locked):
                stack.enter_context(self.adapting())
                idle = True
            connection = stack.enter_context(self._transaction(writes=True))
            if idle:
                writing.drop_candidates(connection, self._eras(connection)[1])
            trained = reading.trained(connection, images)
            vectors = writing.feature_bytes(connection, images)
            writing.delete_images(connection, [*images, *writing.staged(connection)])
            connection.exec_driver_sql("DELETE FROM tunings")
            detail: dict[str, Any] = {"images": len(images)}
            if trained:
                detail["trained"] = trained
            number = writing.insert_event(connection, "forget", None, detail)
        return number, self._finish_erasing() + vectors

    def put_tuning(self, key: str, numbers: Mapping[str, Any]) -> None:
        """Cache numbers under a key."""
        with self._transaction(writes=True) as connection:
            writing.replace_tuning(connection, key, numbers)

    def write_cache(self, name: str, arrays: caches.Arrays, meta: Mapping[str, str]) -> None:
        """Keep arrays that follow from the journal, if that is possible; see `caches`."""
        # The event that they follow from is kept already: a full disk must not deny it.
        with suppress(OSError):
            caches.write(self.path / "versions", name, arrays, meta)

    def training(self, key: str) -> Path:
        """The folder that keeps the state of a training; those of others, given up, go.

        It lies among the caches, which `forget` clears: weights know the pictures they learned.
        """
        folder = self.path / "versions" / "training"
        with translated(self.path):
            for one in folder.iterdir() if folder.is_dir() else ():
                if one.name != key:
                    shutil.rmtree(one, ignore_errors=True)
            (folder / key).mkdir(parents=True, exist_ok=True)
        return folder / key

    def end_training(self) -> None:
        """Remove what trainings left; what came of them is in force."""
        shutil.rmtree(self.path / "versions" / "training", ignore_errors=True)

    def finish_erasing(self) -> bool:
        """Erase what a `forget` had to leave, if nobody reads or writes just now.

        For who stays open and seldom writes: it waits for nobody and, while others read, costs
        little. Returns whether nothing is left to erase.
        """
        if not self.unerased:
            return True
        if self.writable:
            # Who writes instead has begun by finishing it; a full disk is for who writes next.
            with (
                suppress(Locked, DiskFull),
                translated(self.path),
                exclusive(self.path, "forget", 0.0),
            ):
                if erasing.emptied(self._database):
                    self._finish_erasing()
        return not self.unerased

    def clear_caches(self) -> None:
        """Remove everything that `write_cache` kept."""
        caches.clear(self.path / "versions")

    # -- inside -------------------------------------------------------------------------------

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

    def _refuse_read_only(self) -> None:
        if not self.writable:
            raise ReadOnly(f"{self.path} cannot be written; make it writable, or work on a copy")

    def _sweep_extractors(self) -> int:
        """Remove folders of extractors that no event names; returns how many bytes that were."""
        if not eras.stray(self.path, {self.manifest.extractor}):
            return 0
        with self._transaction() as connection:
            kept = self._eras(connection)[1]
        return eras.sweep(self.path, kept)
