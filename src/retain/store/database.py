"""One door to ``journal.db``: one transaction at a time, each on one whole state.

Who may write the directory keeps one connection. Who may only read cannot take SQLite's locks
wherever no file can be made beside the database, and so looks anew before every transaction:

- while somebody has it open, its shared memory (``-shm``) is there: read along, under locks;
- nobody has, but a killed writer left a log (``-wal``): read a copy, in which files can be made;
- neither: read it as it lies. Nobody is writing; should somebody begin, the answer is thrown away.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.pool import NullPool, StaticPool

from retain.errors import Locked
from retain.store.failures import translated, understood
from retain.store.schema import connected, engine_of

__all__ = ["Database"]

_TRIES = 20
_PAUSE = 0.02

State = tuple[tuple[int, int, int] | None, ...]


class Database:
    """The journal's file in the classifier `folder`. Safe to share between threads."""

    def __init__(self, folder: Path, *, writable: bool) -> None:
        self.folder = folder
        self.file = folder / "journal.db"
        if writable:
            self._engine = engine_of(lambda: connected(self.file, mode="rw"), StaticPool)
        else:
            self._engine = engine_of(self._way_in, NullPool)
        self._alone = threading.RLock()
        self._joint: Connection | None = None
        self._unlocked: State | None = None
        self._copy: tuple[Path, State] | None = None

    def close(self) -> None:
        """Let go of the files."""
        with self._alone:
            self._engine.dispose()
            self._drop_copy()

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        """One transaction; joins the one that `reading` began in the same thread."""
        with translated(self.folder), understood(self.folder), self._alone:
            if self._joint is not None:
                if writes:
                    raise RuntimeError("inside `reading`, nothing can be written")
                yield self._joint
                return
            engine = self._engine.execution_options(writes=True) if writes else self._engine
            with self._undisturbed(), engine.begin() as connection:
                yield connection

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let all transactions until the end see one state, whatever others write meanwhile.

        Raises:
            Locked: if the state changed under a reader who could take no lock.
        """
        with self._alone, ExitStack() as stack:
            if self._joint is None:
                stack.enter_context(self._undisturbed())
                # What goes wrong in the caller's own work is not about this file.
                with translated(self.folder):
                    connection = stack.enter_context(self._engine.begin())
                    # A transaction sees the state of its first question, not of its beginning.
                    connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").fetchall()
                self._joint = connection
                stack.callback(self._part)
            yield

    @contextmanager
    def raw(self) -> Iterator[sqlite3.Cursor]:
        """A cursor outside any transaction, for what SQLite does to a whole file."""
        with self._alone:
            held = self._engine.raw_connection()
            try:
                cursor = held.cursor()
                try:
                    yield cursor  # type: ignore[misc]  # the driver's own
                finally:
                    cursor.close()
            finally:
                held.close()

    # -- inside -------------------------------------------------------------------------------

    def _part(self) -> None:
        self._joint = None

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """What is read without a lock counts only if nobody wrote meanwhile."""
        self._unlocked = None
        try:
            yield
        except Exception as error:
            if self._disturbed():
                raise self._moved() from error
            raise
        if self._disturbed():
            raise self._moved()

    def _disturbed(self) -> bool:
        return self._unlocked is not None and self._unlocked != _state(self.file)

    def _moved(self) -> Locked:
        return Locked(
            f"{self.folder} was changed by another process in the middle of reading it; try again"
        )

    def _way_in(self) -> sqlite3.Connection:
        """A connection for somebody who may only read.

        Files come and go as others open and close the database, so a way may close in between.
        """
        for tries_left in range(_TRIES, -1, -1):
            before = _state(self.file)
            _, log, shared = before
            copied = shared is None and bool(log and log[1])
            if copied:
                file, mode = self._copied(before), "rw"
            else:
                file, mode = self.file, "ro" if shared else "ro&immutable=1"
            try:
                connection = connected(file, mode=mode)
                try:
                    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
                except BaseException:
                    connection.close()
                    raise
            except sqlite3.Error:
                if not tries_left or before == _state(self.file):
                    raise
                time.sleep(_PAUSE)
                continue
            self._unlocked = before if mode.endswith("immutable=1") else None
            return connection
        raise self._moved()

    def _copied(self, state: State) -> Path:
        """A copy of the database and its log; made once for each state of the two."""
        if self._copy is None or self._copy[1] != state:
            self._drop_copy()
            folder = Path(tempfile.mkdtemp(prefix="retain-"))
            self._copy = folder, state
            for suffix in ("", "-wal"):
                name = self.file.name + suffix
                shutil.copyfile(self.file.with_name(name), folder / name)
            if _state(self.file) != state:
                self._drop_copy()
                raise self._moved()
        return self._copy[0] / self.file.name

    def _drop_copy(self) -> None:
        if self._copy is not None:
            shutil.rmtree(self._copy[0], ignore_errors=True)
            self._copy = None


def _state(file: Path) -> State:
    """What tells whether anybody changed a database: of it, its log, and its shared memory."""
    found: list[tuple[int, int, int] | None] = []
    for suffix in ("", "-wal", "-shm"):
        try:
            status = file.with_name(file.name + suffix).stat()
        except FileNotFoundError:
            found.append(None)
        else:
            # Readers touch the shared memory too; only that it is there means anything.
            changed = 0 if suffix == "-shm" else status.st_mtime_ns
            found.append((status.st_ino, status.st_size, changed))
    return tuple(found)
