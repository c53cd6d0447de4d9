"""The desk's file: one SQLite database that all worker processes share, and its transactions.

Nothing in it is worth a server that does not start: where it cannot be read, it is made anew.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, final

from retain.store.beside import discard, spoilt

__all__ = ["DeskFile"]

_LOG: Final = logging.getLogger("retain.serve")

_FORMAT: Final = 1

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS pictures (
    hash TEXT PRIMARY KEY, name TEXT NOT NULL, at REAL NOT NULL, bytes INTEGER NOT NULL,
    data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_at ON answers (at);
CREATE INDEX IF NOT EXISTS answers_hash ON answers (hash);
CREATE TABLE IF NOT EXISTS inbox (
    hash TEXT PRIMARY KEY, label TEXT NOT NULL, probability REAL NOT NULL,
    typicality REAL NOT NULL, answer TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS counters (key TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gauges (
    worker INTEGER, key TEXT, value REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (worker, key));
"""


@final
class DeskFile:
    """A connection to ``desk.db`` in a folder, for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._file = folder / "desk.db"
        self._base = self._opened()

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def rows(self, statement: str, given: Sequence[Any] = ()) -> list[Any]:
        """What a statement finds."""
        return self._base.execute(statement, given).fetchall()

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each row."""
        self._base.executemany(statement, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written, or nothing."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._base.execute("COMMIT")
        except BaseException:
            # A disk that is full, say, has ended it already.
            with suppress(sqlite3.Error):
                self._base.execute("ROLLBACK")
            raise

    def flush(self) -> None:
        """Empty the log of the database, which would still hold what was deleted."""
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def check(self) -> None:
        """Read all of it, and make it anew where that cannot be done; before others use it."""
        try:
            found = self.rows("PRAGMA quick_check(1)")[0][0]
        except sqlite3.DatabaseError as error:
            if not spoilt(error):
                raise
            found = str(error)
        if found != "ok":
            self._base.close()
            self._base = self._made_anew(found)

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.DatabaseError as error:
            if not spoilt(error):
                raise
            return self._made_anew(str(error))

    def _made_anew(self, why: str) -> sqlite3.Connection:
        _LOG.warning("the desk could not be read (%s) and is made anew", why)
        discard(self._file)
        return self._connected()

    def _connected(self) -> sqlite3.Connection:
        os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))
        base = sqlite3.connect(
            self._file, timeout=10.0, isolation_level=None, check_same_thread=False
        )
        try:
            _lay_out(base)
        except BaseException:
            base.close()
            raise
        return base


def _lay_out(base: sqlite3.Connection) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = OFF", "secure_delete = ON"):
        base.execute(f"PRAGMA {pragma}")
    if base.execute("PRAGMA user_version").fetchone()[0] not in (0, _FORMAT):
        base.execute("BEGIN IMMEDIATE")
        for table in ("pictures", "answers", "inbox", "counters", "gauges"):
            base.execute(f"DROP TABLE IF EXISTS {table}")
        base.execute("COMMIT")
    base.executescript(f"{_TABLES} PRAGMA user_version = {_FORMAT};")
