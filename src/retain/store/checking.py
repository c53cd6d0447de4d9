"""What `verify` asks of the files: is everything there, and what it was?"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine

from retain.errors import Damaged, RetainError, UnknownImage
from retain.store import journal, reading
from retain.store.blobs import Blobs
from retain.store.failures import translated, understood
from retain.store.journal import Plan, Replay
from retain.store.manifest import Manifest

__all__ = ["check", "checked_plan"]


def check(
    path: Path, manifest: Manifest, engine: Engine, blobs: Blobs
) -> tuple[list[str], list[str]]:
    """Problems, and notes on what is odd but harmless."""
    problems: list[str] = []
    notes: list[str] = []
    try:
        with translated(path), understood(path), engine.begin() as connection:
            problems += _database(connection)
            problems += _membership(connection, manifest)
            if connection.exec_driver_sql("SELECT 1 FROM erasures").first() is not None:
                notes.append(
                    "forgotten pictures are still to be erased from the files; the next command "
                    "that changes this classifier does so first"
                )
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
        notes.append(f"{spare} files in blobs/ belong to no picture; the next forget erases them")
    return problems, notes


def _database(connection: Connection) -> list[str]:
    found = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check(20)")]
    problems = [f"journal.db: {each}" for each in found if each != "ok"]
    loose = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if loose:
        problems.append(f"journal.db: {len(loose)} rows refer to rows that are not there")
    return problems


def checked_plan(connection: Connection, replayed: Replay) -> Plan:
    """A replay by hash, if the members kept are the same.

    Raises:
        Damaged: if they are not.
    """
    _compare_members(connection, replayed)
    plan = reading.plan(connection, replayed)
    # An index may say otherwise than the table that it indexes.
    if list(plan.members) != reading.samples(connection, "", {}):
        raise Damaged(
            "the pictures of journal.db are not what its index says; put a copy of the directory "
            "back if you have one"
        )
    return plan


def _compare_members(connection: Connection, replayed: Replay) -> None:
    """Compare the members kept with those of a replay.

    Raises:
        Damaged: if they differ.
    """
    kept = {
        image: (label, marks, event)
        for image, label, marks, event in connection.exec_driver_sql(
            "SELECT image, label, pinned, event FROM members"
        )
    }
    if kept != replayed.members:
        wrong = sum(kept.get(i) != replayed.members.get(i) for i in {*kept, *replayed.members})
        raise Damaged(
            f"the membership of {wrong} pictures is not what the journal says; put a copy of the "
            f"directory back if you have one"
        )


def _membership(connection: Connection, manifest: Manifest) -> list[str]:
    problems: list[str] = []
    replayed = journal.replay(reading.entries(connection), reading.said(connection))
    try:
        checked_plan(connection, replayed)
    except Damaged as error:
        problems.append(str(error))
    lengths = connection.exec_driver_sql(
        "SELECT i.hash, length(f.vector) FROM images i LEFT JOIN features f ON f.image = i.id"
    )
    for digest, length in lengths:
        if length != 2 * manifest.dimension:
            state = "missing" if length is None else f"{length} bytes long"
            problems.append(f"the feature of {reading.to_name(digest)} is {state}")
    return problems
