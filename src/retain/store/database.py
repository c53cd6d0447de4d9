"""One door to ``journal.db``: one transaction at a time, each on one whole state.

Who may write the directory keeps one connection to it. Who may only read finds a way in before
every transaction, as what others do to the files decides:

- its log and its index (``-wal``, ``-shm``) are there, as they are while somebody has it open: read
  along, under SQLite's own shared locks, which take no right to write;
- otherwise the files lie still, and no locks can be had: read a private copy, which counts only if
  the files were the same before and after it was taken, and only for as long as they stay so.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from retain.errors import Locked
from retain.store.failures import translated, understood
from retain.store.schema import connect

__all__ = ["Database", "Stamp"]

# How often a way in that closes in front of a reader is tried again, and after how many seconds.
_TRIES = 40
_PAUSE = 0.05

# A clock of file times ticks at least this often, in seconds: what is written later than this
# after a look at a file has another time than that look saw.
_TICK = 0.02

# What SQLite says while others open, recover or close a database, not when it is damaged.
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}

Look = tuple[tuple[int, int, int] | None, ...]
"""Of the database, its log and its index: (inode, size, time of change); None if not there."""

Stamp = tuple[int, int]
"""How often this connection wrote, and SQLite's count of what others committed."""


class Database:
    """The journal's file in the classifier `folder`. Safe to share between threads.

    Threads take turns: one transaction, or one `reading`, at a time.
    """

    def __init__(self, folder: Path, *, writable: bool) -> None:
        self.folder = folder
        self.file = folder / "journal.db"
        self.writable = writable
        self._turn = threading.RLock()
        self._engine = connect(self.file, mode="rw") if writable else None
        self._joint: Connection | None = None
        self._driver: sqlite3.Connection | None = None
        self._writes = 0
        self._changing = False
        self._along = False
        self._seen: Look = ()

    @property
    def engine(self) -> Engine:
        """The connection, found anew where files decide."""
        return self._way_in()

    @property
    def joined(self) -> bool:
        """Whether this thread is inside a transaction or `reading`."""
        with self._turn:
            return self._joint is not None

    @property
    def along(self) -> bool:
        """Whether a reader without the right to write reads along, and not a copy."""
        return self._along

    def close(self) -> None:
        """Let go of the files."""
        with self._turn:
            self._driver = None
            if self._engine is not None:
                self._engine.dispose()
            if not self.writable:
                self._let_go()

    def stamp(self) -> Stamp | None:
        """What is another whenever something may have been committed, by anybody.

        Costs a hundredth of a transaction. Inside one it is that of the state it sees. None where
        that cannot be told: of files that cannot be written, and inside a change.
        """
        if not self.writable or self._engine is None:
            return None
        with translated(self.folder), self._turn:
            if self._changing:
                return None
            number = self._held().execute("PRAGMA data_version").fetchone()[0]
            return self._writes, int(number)

    def glance(self, question: str, given: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows that one statement finds, without the ceremony of a transaction."""
        if not self.writable or self._joint is not None:
            with self.transaction() as connection:
                return list(map(tuple, connection.exec_driver_sql(question, tuple(given))))
        with translated(self.folder), self._turn:
            return self._held().execute(question, given).fetchall()

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        """One transaction; one that reads joins the one its thread is in already."""
        with translated(self.folder), understood(self.folder), self._turn:
            if self._joint is None:
                with self._begun(writes=writes) as connection:
                    yield connection
            elif writes:
                raise RuntimeError("nothing can be written inside another transaction")
            else:
                yield self._joint

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let all this thread asks until the end see one state, whatever others write meanwhile.

        Keep it short: other threads wait for it, and an erasure cannot end before it does.
        """
        with self._turn, ExitStack() as stack:
            if self._joint is None:
                # What goes wrong in the caller's own work is not about this file.
                with translated(self.folder):
                    stack.enter_context(self._begun())
            yield

    @contextmanager
    def raw(self) -> Iterator[sqlite3.Cursor]:
        """A cursor outside any transaction, for what SQLite does to a whole file."""
        with self._turn, closing(self.engine.raw_connection()) as held:
            cursor = held.cursor()
            try:
                yield cursor  # type: ignore[misc]  # the driver's own
            finally:
                cursor.close()

    # -- inside -------------------------------------------------------------------------------

    @contextmanager
    def _begun(self, *, writes: bool = False) -> Iterator[Connection]:
        """A transaction that sees one state from here on."""
        for left in range(0 if self.writable else _TRIES, -1, -1):
            stack = ExitStack()
            try:
                connection = self._begin(stack, writes=writes)
            except (DBAPIError, Locked, FileNotFoundError) as error:
                with suppress(DBAPIError):
                    stack.close()
                if not left or (isinstance(error, DBAPIError) and not _passes(error)):
                    raise
                self._let_go()
                time.sleep(_PAUSE)
                continue
            try:
                with stack:
                    self._joint, self._changing = connection, writes
                    try:
                        yield connection
                    finally:
                        self._joint = None
            finally:
                # SQLite's own count is of what others commit.
                self._writes += writes
                self._changing = False
            return

    def _held(self) -> sqlite3.Connection:
        """The driver's one connection; whoever asks has the turn."""
        driver: Any = self._driver
        if driver is None and self._joint is not None:
            driver = self._joint.connection.driver_connection
        elif driver is None:
            # Given back, it is rolled back: not in the middle of a transaction.
            with closing(self.engine.raw_connection()) as held:
                driver = held.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver = driver
        return driver

    def _begin(self, stack: ExitStack, *, writes: bool) -> Connection:
        engine = self._way_in()
        if writes:
            return stack.enter_context(engine.execution_options(writes=True).begin())
        connection = stack.enter_context(engine.begin())
        # A transaction sees the state of its first question, not of its beginning.
        connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").fetchall()
        return connection

    def _way_in(self) -> Engine:
        if self.writable and self._engine is not None:
            return self._engine
        now = _look(self.file)
        if self._engine is not None:
            same = _inodes(now) == _inodes(self._seen) if self._along else now == self._seen
            if same:
                return self._engine
            self._let_go()
        self._engine = self._read_along() if None not in now else None
        self._along = self._engine is not None
        if self._engine is None:
            self._engine = self._copied(now)
        self._seen = now
        return self._engine

    def _let_go(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
        self._engine, self._along = None, False

    def _read_along(self) -> Engine | None:
        """A connection that takes shared locks and makes no file; None if that cannot be had."""
        engine = connect(self.file, mode="ro&readonly_shm=1")
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").fetchall()
        except DBAPIError:
            engine.dispose()
            return None
        return engine

    def _copied(self, before: Look) -> Engine:
        """A connection to a private copy, of which no file is left even now.

        Raises:
            Locked: if the files changed while they were copied.
        """
        folder = Path(tempfile.mkdtemp(prefix="retain-"))
        try:
            copy = folder / self.file.name
            # A second copy tells damage from file systems whose times are coarse.
            for _ in range(2):
                if _recent(before):
                    time.sleep(_TICK)
                for suffix in ("", "-wal"):
                    source = self.file.with_name(self.file.name + suffix)
                    if not suffix or source.exists():
                        shutil.copyfile(source, copy.with_name(source.name))
                if _look(self.file) != before:
                    raise Locked(
                        f"{self.folder} is being changed by another process and could not be read "
                        f"in one piece; try again"
                    )
                if _settled(copy):
                    break
            engine = connect(copy, mode="ro&immutable=1")
            with suppress(DBAPIError), engine.connect():
                pass  # opened now: its files go, and may not be left behind by a process that dies
            return engine
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _look(file: Path) -> Look:
    found: list[tuple[int, int, int] | None] = []
    for suffix in ("", "-wal", "-shm"):
        try:
            status = file.with_name(file.name + suffix).stat()
        except FileNotFoundError:
            found.append(None)
        else:
            # Readers touch the index too; only that it is there means anything.
            changed = (0, 0) if suffix == "-shm" else (status.st_size, status.st_mtime_ns)
            found.append((status.st_ino, *changed))
    return tuple(found)


def _inodes(look: Look) -> list[int | None]:
    return [each and each[0] for each in look]


def _recent(look: Look) -> bool:
    """Whether a change in this tick of the clock could go unseen."""
    return any(each and abs(time.time_ns() - each[2]) < 1e9 for each in look)


def _settled(copy: Path) -> bool:
    """Write a copy's log into it; whether what there is then is sound."""
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def _passes(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _PASSING
