"""What `verify` asks of the files: is everything there, and what it was?"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine

from retain.errors import Damaged, RetainError, UnknownImage
from retain.store import journal, reading
from retain.store.blobs import Blobs
from retain.store.failures import translated
from retain.store.manifest import Manifest

__all__ = ["check"]


def check(
    path: Path, manifest: Manifest, engine: Engine, blobs: Blobs
) -> tuple[list[str], list[str]]:
    """Problems, and notes on what is odd but harmless."""
    problems: list[str] = []
    notes: list[str] = []
    try:
        with translated(path), engine.begin() as connection:
            problems += _database(connection)
            problems += _membership(connection, manifest)
            kept = {
                reading.to_name(row[0])
                for row in connection.exec_driver_sql("SELECT hash FROM images")
            }
    except RetainError as error:
        return [*problems, str(error)], notes
    if manifest.memory == "images":
        for image in sorted(kept):
            try:
                with translated(path):
                    blobs.read(image)
            except UnknownImage:
                problems.append(f"the bytes of {image} are missing")
            except (Damaged, RetainError) as error:
                problems.append(str(error))
    spare = sum(image not in kept for image in blobs.all())
    if spare:
        notes.append(f"{spare} files in blobs/ belong to no picture; they do no harm")
    return problems, notes


def _database(connection: Connection) -> list[str]:
    found = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check(20)")]
    problems = [f"journal.db: {each}" for each in found if each != "ok"]
    loose = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if loose:
        problems.append(f"journal.db: {len(loose)} rows refer to rows that are not there")
    return problems


def _membership(connection: Connection, manifest: Manifest) -> list[str]:
    problems: list[str] = []
    replayed = journal.replay(reading.entries(connection), reading.said(connection))
    kept = {
        image: (label, bool(pinned), event)
        for image, label, pinned, event in connection.exec_driver_sql(
            "SELECT image, label, pinned, event FROM members"
        )
    }
    wrong = {
        image
        for image in {*kept, *replayed.members}
        if kept.get(image) != replayed.members.get(image)
    }
    if wrong:
        problems.append(
            f"the membership of {len(wrong)} pictures is not what the journal says; put a copy of "
            f"the directory back if you have one"
        )
    lengths = connection.exec_driver_sql(
        "SELECT i.hash, length(f.vector) FROM images i LEFT JOIN features f ON f.image = i.id"
    )
    for digest, length in lengths:
        if length != 2 * manifest.dimension:
            state = "missing" if length is None else f"{length} bytes long"
            problems.append(f"the feature of {reading.to_name(digest)} is {state}")
    return problems
