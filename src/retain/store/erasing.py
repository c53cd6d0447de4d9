"""What `forget` still has to do once its event is written: leave no trace in any file."""

from __future__ import annotations

import time

from retain.errors import DiskFull
from retain.store.blobs import Blobs
from retain.store.database import Database
from retain.store.failures import translated
from retain.store.reading import to_name

__all__ = ["emptied", "finish", "rewrite"]

# How long to wait for readers before leaving the rest of an erasure to the next writer, seconds.
_PATIENCE = 5.0


def finish(database: Database, blobs: Blobs) -> int:
    """Erase what is pending; returns how many bytes of pictures were erased.

    Where others read for longer than they are waited for, something stays pending.

    Bytes first, then every trace in the database, then the list of what to erase. The list ends
    with an empty name, which goes last, so that an interruption at any point leaves something for
    the next call to find.

    Raises:
        DiskFull: if there is no room to write the database anew; the next call goes on.
    """
    path = database.folder
    with database.transaction() as connection:
        rows = connection.exec_driver_sql("SELECT hash FROM erasures").fetchall()
        if not rows:
            return 0
        kept = {row[0] for row in connection.exec_driver_sql("SELECT hash FROM images")}
    try:
        with translated(path):
            erased = blobs.erase(to_name(row[0]) for row in rows if row[0])
            erased += blobs.erase_strays({to_name(digest) for digest in kept})
            with database.transaction(writes=True) as connection:
                connection.exec_driver_sql("DELETE FROM erasures WHERE hash != x''")
            if rewrite(database):
                with database.transaction(writes=True) as connection:
                    connection.exec_driver_sql("DELETE FROM erasures")
    except DiskFull as error:
        raise DiskFull(
            f"no room left on the disk of {path} to erase the last traces of forgotten pictures; "
            f"they are forgotten, and nothing else is lost. Free some space: the next command that "
            f"changes {path} erases the rest first"
        ) from error
    return erased


def rewrite(database: Database) -> bool:
    """Write the database anew and empty its log, so that nothing deleted is left in either.

    Readers may hold an old state of the log for a moment; they are waited for. Returns whether the
    log could be emptied.
    """
    with database.raw() as cursor:
        cursor.execute("VACUUM")
    deadline = time.monotonic() + _PATIENCE
    while not emptied(database):
        if time.monotonic() >= deadline:
            return False
        # Other threads of this process read in between.
        time.sleep(0.05)
    return True


def emptied(database: Database) -> bool:
    """Empty the database's log, unless somebody reads what is in it; returns whether it is so."""
    with database.raw() as cursor:
        # A checkpoint would itself wait for readers, and for as long as a writer waits.
        before = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
        cursor.execute("PRAGMA busy_timeout = 50")
        try:
            return not cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {before}")
