"""How to read a journal in a directory where no file can be made."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

__all__ = ["taken"]


def taken(database: Path) -> Path | None:
    """A folder with a copy of a database and its log; None if it can be read where it is.

    What is only in the write-ahead log cannot be read without making files beside it.
    """
    log = database.with_name(database.name + "-wal")
    if not log.exists() or not log.stat().st_size:
        return None
    folder = Path(tempfile.mkdtemp(prefix="retain-"))
    try:
        for file in (database, log):
            shutil.copyfile(file, folder / file.name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder
