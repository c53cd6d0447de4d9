"""The tables of ``journal.db``, and how older ones become today's.

``events`` is the truth about what happened and ``assertions`` about what each event says of which
picture; ``members`` is their replay, kept so that it need not be replayed; ``features`` holds each
picture's vector; ``tunings`` caches numbers by key. A picture with ``staged = 1`` was read by a
lesson that has not ended: no event speaks of it yet.
"""

from __future__ import annotations

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

__all__ = ["MIGRATIONS", "connect", "current", "migrate"]

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


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first,)
"""Numbered from 1: each brings a database of the version before to its own."""


def connect(file: Path, *, mode: str) -> Engine:
    """An engine of one connection to a database.

    Args:
        file: the database.
        mode: SQLite's, ``"rw"``, ``"rwc"``, or ``"ro&immutable=1"`` where no file can be made.
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


def current(connection: Connection) -> bool:
    """Whether a database has today's version, and not an older one.

    Raises:
        NewerFormat: if it is newer than this code.
        Damaged: if it has none, as nothing that was ever made here.
    """
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if version < 1:
        raise Damaged(
            "journal.db is empty, so what was taught is lost; put a copy of the directory back if "
            "you have one"
        )
    _refuse_newer(version)
    connection.exec_driver_sql("SELECT max(id) FROM events")
    return version == len(MIGRATIONS)


def migrate(connection: Connection) -> None:
    """Bring a database to today's version, inside the caller's transaction.

    Raises:
        NewerFormat: if it is newer than this code.
    """
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    _refuse_newer(version)
    for number, step in enumerate(MIGRATIONS[version:], version + 1):
        step(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {number}")


def _refuse_newer(version: int) -> None:
    if version > len(MIGRATIONS):
        raise NewerFormat(
            f"the journal has version {version}, and this retain knows up to {len(MIGRATIONS)}; "
            f"install a newer one: pip install --upgrade retain"
        )
