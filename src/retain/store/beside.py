"""What a server keeps beside a classifier, as far as forgetting reaches it.

A server's desk holds pictures that it was asked about, in a file of its own. What is forgotten goes
from there too, whoever forgets it, and whether the server runs, or is even installed here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from retain.store.failures import translated

__all__ = ["discard", "erase_asked", "spoilt"]

_FILE: Final = Path("serve", "desk.db")
_TABLES: Final = ("pictures", "inbox", "answers")

# The file holds nothing that could not be asked again: one that cannot be understood goes whole.
_SPOILT: Final = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def erase_asked(path: Path, images: Sequence[str]) -> None:
    """Overwrite what a server of the classifier at `path` keeps of pictures it was asked about.

    Raises:
        Locked: if a server is writing there for too long.
        DiskFull, ReadOnly, StoreError: if the disk does not let it.
    """
    file = path / _FILE
    if not file.is_file():
        return
    with translated(path):
        try:
            with closing(sqlite3.connect(file, timeout=10.0, isolation_level=None)) as base:
                _erase(base, [(image,) for image in images])
        except sqlite3.DatabaseError as error:
            if not spoilt(error):
                raise
            discard(file)


def spoilt(error: sqlite3.Error) -> bool:
    """Whether an error says that the file holds nothing that can be understood."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SPOILT


def discard(file: Path) -> None:
    """Remove a database and the files that go with it."""
    for end in ("", "-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)


def _erase(base: sqlite3.Connection, rows: Sequence[tuple[str]]) -> None:
    base.execute("PRAGMA secure_delete = ON").fetchall()
    there = {row[0] for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    base.execute("BEGIN IMMEDIATE")
    for table in _TABLES:
        if table in there:
            base.executemany(f"DELETE FROM {table} WHERE hash = ?", rows)  # noqa: S608 one of three
    base.execute("COMMIT")
    # The log would still hold what was deleted.
    base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
