"""What `verify` asks of the files: is everything there, and what it was?"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from retain.errors import Damaged, RetainError, UnknownImage
from retain.store import eras, journal, reading, schema
from retain.store.blobs import Blobs
from retain.store.database import Database
from retain.store.failures import translated
from retain.store.journal import Entry, Era, Plan, Replay
from retain.store.manifest import Manifest

__all__ = ["check", "checked_plan"]


def check(database: Database, manifest: Manifest, blobs: Blobs) -> tuple[list[str], list[str]]:
    """Problems, and notes on what is odd but harmless."""
    problems: list[str] = []
    notes: list[str] = []
    try:
        with database.transaction() as connection:
            problems += _database(connection)
            entries = reading.entries(connection)
            problems += _membership(connection, manifest, entries)
            found = schema.version(connection)
            summed = found >= schema.CHECKSUMS
            several = eras.every(connection, manifest, entries)
            problems += _features(connection, several, later=found >= schema.ERAS, summed=summed)
            in_force = eras.of(connection, manifest, journal.era(entries))
            problems += [
                f"the feature of {image} by the extractor in force is missing"
                for image in reading.lacking(connection, in_force.key)
                if in_force.key
            ]
            extractors = eras.named(manifest, entries)
            if found >= schema.ERAS:
                notes += _lineage(connection, entries, extractors)
            if not summed:
                notes.append(
                    "the features have no checksums yet; the next command that changes this "
                    "classifier makes them"
                )
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
                with translated(database.folder, reading=True):
                    blobs.read(image)
            except RetainError as error:
                # Somebody may have forgotten it since.
                if _kept(database, image):
                    missing = isinstance(error, UnknownImage)
                    problems.append(f"the bytes of {image} are missing" if missing else str(error))
    spare = sum(image not in kept for image in blobs.all())
    if spare:
        notes.append(f"{spare} files in blobs/ belong to no picture; the next forget erases them")
    if eras.stray(database.folder, extractors):
        notes.append(
            "extractors/ holds one that no event names, left by an adapt that did not end; the "
            "next command that changes this classifier removes it"
        )
    return problems, notes


def _lineage(connection: Connection, entries: Sequence[Entry], kept: Collection[str]) -> list[str]:
    """What is to be said of extractors: what they owe to forgotten pictures, and candidates."""
    notes = []
    for event, count in journal.owed(entries).items():
        gone = "1 picture that is" if count == 1 else f"{count} pictures that are"
        notes.append(
            f"the extractor of event {event} was trained with {gone} forgotten since; to train one "
            f"without: retain adapt, then retain purge"
        )
    begun = {row[0] for row in connection.exec_driver_sql("SELECT fingerprint FROM extractors")}
    if begun - set(kept):
        notes.append(
            "features were computed for an extractor that no event put in place; adapting to it "
            "goes on from there, and adapting to another drops them"
        )
    return notes


def _kept(database: Database, image: str) -> bool:
    with database.transaction() as connection:
        return bool(reading.numbers(connection, [image]))


def _database(connection: Connection) -> list[str]:
    found = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check(20)")]
    problems = [f"journal.db: {each}" for each in found if each != "ok"]
    loose = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if loose:
        problems.append(f"journal.db: {len(loose)} rows refer to rows that are not there")
    return problems


def checked_plan(connection: Connection, replayed: Replay, era: Era) -> Plan:
    """A replay by hash, if the members kept are the same.

    Raises:
        Damaged: if they are not.
    """
    _compare_members(connection, replayed)
    plan = reading.plan(connection, replayed, era)
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


def _membership(connection: Connection, manifest: Manifest, entries: Sequence[Entry]) -> list[str]:
    problems: list[str] = []
    replayed = journal.replay(entries, reading.said(connection))
    try:
        checked_plan(connection, replayed, eras.founding(manifest))
    except Damaged as error:
        problems.append(str(error))
    return problems


def _features(
    connection: Connection, several: Sequence[Era], *, later: bool, summed: bool
) -> list[str]:
    """Features that are missing, cut short, or (where there are checksums) not what was stored."""
    problems: list[str] = []
    column = "f.checksum" if summed else "NULL"
    rows = [(several[0].key, several[0].dimension, "images i LEFT JOIN features f")]
    spoken = {era.key: era.dimension for era in several if era.key}
    rows += [
        (key, size, f"images i JOIN {reading.features_of(key)} f") for key, size in spoken.items()
    ]
    elsewhere = set()
    if later:
        held = "SELECT DISTINCT i.hash FROM later_features f JOIN images i ON i.id = f.image"
        elsewhere = {row[0] for row in connection.exec_driver_sql(held)}
    for key, dimension, tables in rows:
        by = " by a later extractor" if key else ""
        kept = connection.exec_driver_sql(
            f"SELECT i.hash, f.vector, f.norm, {column} FROM {tables} ON f.image = i.id"  # noqa: S608
        )
        for digest, vector, norm, checksum in kept:
            if vector is None and digest in elsewhere:
                continue
            if vector is None:
                state = "missing"
            elif not (isinstance(vector, bytes) and isinstance(norm, bytes)):
                state = "no feature at all"
            elif len(vector) != 2 * dimension:
                state = f"{len(vector)} bytes long"
            elif summed and schema.checksum(vector, norm) != checksum:
                state = "not the one that was stored: its checksum differs"
            else:
                continue
            problems.append(f"the feature{by} of {reading.to_name(digest)} is {state}")
    return problems
