"""The one place where what SQLite and the operating system say becomes our own errors."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from retain.errors import Damaged, DiskFull, Locked, ReadOnly, RetainError, StoreError

__all__ = ["translated", "understood"]


@contextmanager
def translated(path: Path, *, reading: bool = False) -> Iterator[None]:
    """Raise errors about the classifier at `path` as members of the tree in `retain.errors`.

    With `reading`, a permission that is missing is one to read.
    """
    try:
        yield
    except RetainError:
        raise
    except DBAPIError as error:
        raise _of_sqlite(path, error.orig or error) from error
    except sqlite3.Error as error:
        raise _of_sqlite(path, error) from error
    except OSError as error:
        raise _of_system(path, error, reading=reading) from error


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Raise what goes wrong when rows become values as Damaged.

    SQLite hands over whatever an overwritten page holds, as long as it looks like a row.
    """
    try:
        yield
    except (RetainError, DBAPIError, sqlite3.Error, OSError):
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise Damaged(
            f"the journal of {path} holds something that cannot be understood ({error!r}). Run "
            f"`retain verify {path}` for the whole list, and put a copy of the directory back if "
            f"you have one"
        ) from error


def _of_sqlite(path: Path, error: BaseException) -> StoreError:
    text = str(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or "is full" in text:
        return _full(path)
    if code == sqlite3.SQLITE_READONLY or "readonly" in text:
        return ReadOnly(
            f"{path} cannot be written ({text}); make it writable, or work on a copy of it"
        )
    held = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
    if code in held or "locked" in text:
        return Locked(f"{path} is being written by another process ({text}); try again")
    if code == sqlite3.SQLITE_IOERR:
        return StoreError(
            f"the disk failed while {path} was read or written ({text}); what was acknowledged "
            f"before is kept. Check the disk and its free space, then run `retain verify {path}`"
        )
    if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return StoreError(
            f"the journal of {path} cannot be opened ({text}); check that you may read "
            f"{path / 'journal.db'} and the files beside it, and that the disk is there"
        )
    return Damaged(
        f"the journal of {path} is damaged ({text}). Run `retain verify {path}` for the whole "
        f"list, and put a copy of the directory back if you have one"
    )


def _of_system(path: Path, error: OSError, *, reading: bool) -> StoreError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return _full(path)
    if reading and error.errno in {errno.EACCES, errno.EPERM}:
        return StoreError(
            f"{path} cannot be read ({error.strerror}: {error.filename}); ask its owner for "
            f"permission, or work on a copy of it"
        )
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return ReadOnly(
            f"{path} cannot be written ({error.strerror}: {error.filename}); make it writable, or "
            f"work on a copy of it"
        )
    return StoreError(f"{path} cannot be used: {error.strerror or error} ({error.filename})")


def _full(path: Path) -> DiskFull:
    return DiskFull(
        f"no room left on the disk of {path}; nothing was changed and nothing acknowledged is "
        f"lost. Free some space and run the same command again"
    )
