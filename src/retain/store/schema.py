"""The tables of ``journal.db``, and how older ones become today's.

``events`` is the truth about what happened and ``assertions`` about what each event says of which
picture; ``members`` is their replay, kept so that it need not be replayed; ``features`` holds each
picture's vector and, since version 2, its checksum; ``tunings`` caches numbers by key. A picture
with ``staged = 1`` was read by a lesson that has not ended: no event speaks of it yet.

Since version 3 a classifier may have other extractors than the one it was made with: ``extractors``
numbers their fingerprints, ``later_features`` holds pictures' vectors by picture and extractor, and
``trained`` the pictures that the extractor of an ``adapt`` was trained with; since version 4 with
the ``place`` of those that its method keeps as exemplars, in their order. What the founding
extractor computed stays in ``features``, so that nothing is copied when an older database is
brought up to date and nothing more is read where nothing was ever adapted.

The tables below are those of version 1. What later versions have besides is in their migrations, so
that a new database is made just as an old one is brought up to date.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    text,
)
from sqlalchemy.pool import StaticPool

from retain.errors import Damaged, NewerFormat

__all__ = ["CHECKSUMS", "ERAS", "MIGRATIONS", "checksum", "connect", "migrate", "version"]

# The versions since which features have checksums, and since which there may be other extractors.
CHECKSUMS = 2
ERAS = 3

# Features whose checksums are made at once when an older database is brought up to date.
_AT_ONCE = 500

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("target", Integer, ForeignKey("events.id")),
    Column("detail", Text, nullable=False),
    Column("actor", Text),
    sqlite_autoincrement=True,
)
images = Table(
    "images",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("source", Text, nullable=False),
    Column("staged", Integer, nullable=False),
)
assertions = Table(
    "assertions",
    metadata,
    Column("event", Integer, ForeignKey("events.id"), primary_key=True),
    Column("image", Integer, ForeignKey("images.id"), primary_key=True, index=True),
    Column("label", Text, nullable=False),
    Column("pinned", Integer, nullable=False),
    sqlite_with_rowid=False,
)
members = Table(
    "members",
    metadata,
    Column("image", Integer, ForeignKey("images.id"), primary_key=True),
    Column("label", Text, nullable=False),
    Column("pinned", Integer, nullable=False),
    Column("event", Integer, ForeignKey("events.id"), nullable=False),
)
features = Table(
    "features",
    metadata,
    Column("image", Integer, ForeignKey("images.id"), primary_key=True),
    Column("norm", LargeBinary, nullable=False),
    Column("vector", LargeBinary, nullable=False),
)
tunings = Table(
    "tunings",
    metadata,
    Column("key", Text, primary_key=True),
    Column("numbers", Text, nullable=False),
)
# Pictures whose rows are gone and whose bytes are still to be erased.
erasures = Table("erasures", metadata, Column("hash", LargeBinary, primary_key=True))


def _first(connection: Connection) -> None:
    metadata.create_all(connection)
    connection.execute(text("CREATE INDEX images_staged ON images (id) WHERE staged = 1"))
    connection.execute(text("CREATE INDEX images_source ON images (source)"))


def checksum(vector: bytes, norm: bytes) -> bytes:
    """What tells whether a feature is the one that was stored: 8 bytes of SHA-256.

    >>> checksum(b"", b"").hex()
    'e3b0c44298fc1c14'
    """
    return hashlib.sha256(vector + norm).digest()[:8]


def _checksums(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE features ADD COLUMN checksum BLOB"))
    last = -1
    while rows := connection.exec_driver_sql(
        "SELECT image, vector, norm FROM features WHERE image > ? ORDER BY image LIMIT ?",
        (last, _AT_ONCE),
    ).fetchall():
        last = rows[-1][0]
        # What is damaged gets none, and `verify` names it.
        made = [
            (checksum(vector, norm), image)
            for image, vector, norm in rows
            if isinstance(vector, bytes) and isinstance(norm, bytes)
        ]
        if made:
            connection.exec_driver_sql("UPDATE features SET checksum = ? WHERE image = ?", made)


_ERAS_TABLES = (
    "CREATE TABLE extractors (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE)",
    """CREATE TABLE later_features (
        image INTEGER NOT NULL REFERENCES images (id),
        extractor INTEGER NOT NULL REFERENCES extractors (id),
        norm BLOB NOT NULL, vector BLOB NOT NULL, checksum BLOB, PRIMARY KEY (image, extractor)
    )""",
    """CREATE TABLE trained (
        image INTEGER NOT NULL REFERENCES images (id),
        event INTEGER NOT NULL REFERENCES events (id), PRIMARY KEY (image, event)
    ) WITHOUT ROWID""",
)


def _eras(connection: Connection) -> None:
    for statement in _ERAS_TABLES:
        connection.execute(text(statement))


def _places(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE trained ADD COLUMN place INTEGER"))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first, _checksums, _eras, _places)
"""Numbered from 1: each brings a database of the version before to its own."""


def connect(file: Path, *, mode: str) -> Engine:
    """An engine of one connection to a database.

    Args:
        file: the database.
        mode: SQLite's: ``"rw"``; ``"rwc"`` to make it; ``"ro&readonly_shm=1"`` to read along with
            others, under locks; ``"ro&immutable=1"`` to read, without any, what nobody changes.
    """

    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=30.0,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        if mode.startswith("rw"):
            connection.execute("PRAGMA page_size = 4096")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        return connection

    engine = create_engine("sqlite://", creator=opened, poolclass=StaticPool)

    # The driver would open transactions late and only for some statements: we say when.
    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def version(connection: Connection) -> int:
    """The version of a database: today's, ``len(MIGRATIONS)``, or an older one.

    Raises:
        NewerFormat: if it is newer than this code.
        Damaged: if it has none, as nothing that was ever made here.
    """
    found = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if found < 1:
        raise Damaged(
            "journal.db is empty, so what was taught is lost; put a copy of the directory back if "
            "you have one"
        )
    _refuse_newer(found)
    connection.exec_driver_sql("SELECT max(id) FROM events")
    return found


def migrate(connection: Connection) -> None:
    """Bring a database to today's version, inside the caller's transaction.

    Raises:
        NewerFormat: if it is newer than this code.
    """
    found = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    _refuse_newer(found)
    for number, step in enumerate(MIGRATIONS[found:], found + 1):
        step(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {number}")


def _refuse_newer(found: int) -> None:
    if found > len(MIGRATIONS):
        raise NewerFormat(
            f"the journal has version {found}, and this retain knows up to {len(MIGRATIONS)}; "
            f"install a newer one: pip install --upgrade retain"
        )
