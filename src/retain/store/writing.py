"""Statements that change the journal, each inside its caller's transaction."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from retain.errors import AlreadyExists
from retain.store.acting import actor
from retain.store.failures import translated
from retain.store.journal import Assertion, Entry, Replay
from retain.store.manifest import Manifest, sync_folder, write_whole
from retain.store.reading import extractor_key, numbers, printable, to_bytes, to_name
from retain.store.schema import checksum, connect, migrate

__all__ = [
    "Featured",
    "NewImage",
    "build",
    "candidate",
    "delete_images",
    "drop_candidates",
    "feature_bytes",
    "insert_assertions",
    "insert_event",
    "insert_features",
    "insert_images",
    "insert_trained",
    "make",
    "purge",
    "replace_members",
    "replace_tuning",
    "staged",
]


Featured = tuple[str, NDArray[np.int16], float]
"""A picture by its content hash, its feature int16 [d], and that feature's original length."""


@dataclass(frozen=True, eq=False, slots=True)
class NewImage:
    """A picture to remember.

    Attributes:
        image: its content hash.
        source: the name it came under.
        data: its bytes; None where only features are kept.
        feature: int16 [d].
        norm: the feature's original length.
    """

    image: str
    source: str
    data: bytes | None
    feature: NDArray[np.int16]
    norm: float


def make(path: Path, manifest: Manifest, extractor_files: Mapping[str, bytes | Path]) -> None:
    """Make a classifier at `path`, whole or not at all: see `Store.create`."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise AlreadyExists(f"{path} exists and is not a directory; choose another name")
    if path.is_dir() and any(path.iterdir()):
        made = (path / "manifest.json").exists()
        what = "is a classifier already" if made else "is not empty"
        raise AlreadyExists(f"{path} {what}; choose another name")
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scaffold = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", dir=path.parent))
        try:
            scaffold.chmod(0o755)
            build(scaffold, manifest, extractor_files)
            scaffold.rename(path)
            sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(scaffold, ignore_errors=True)
            raise


def build(folder: Path, manifest: Manifest, extractor_files: Mapping[str, bytes | Path]) -> None:
    """Lay out an empty classifier in an empty folder."""
    for name in ("blobs", "versions"):
        (folder / name).mkdir()
    extractor = folder / "extractors" / manifest.extractor
    extractor.mkdir(parents=True)
    for name, content in extractor_files.items():
        data = content.read_bytes() if isinstance(content, Path) else content
        write_whole(extractor / name, data)
    engine = connect(folder / "journal.db", mode="rwc")
    with engine.execution_options(writes=True).begin() as connection:
        migrate(connection)
    engine.dispose()
    manifest.write(folder)
    for made in (folder / "extractors", folder):
        sync_folder(made)


def insert_event(
    connection: Connection, kind: str, target: int | None, detail: Mapping[str, Any] | None
) -> int:
    """A new last event, by whoever is `acting`; returns its number."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    found = connection.exec_driver_sql(
        "INSERT INTO events (kind, at, target, detail, actor) VALUES (?, ?, ?, ?, ?) RETURNING id",
        (kind, now, target, json.dumps(dict(detail or {})), actor()),
    )
    return int(found.scalar_one())


def insert_images(
    connection: Connection, new_images: Sequence[NewImage], key: int, *, staged: bool
) -> None:
    """Pictures and their features by an extractor; what is there already stays as it is."""
    for new in new_images:
        connection.exec_driver_sql(
            "INSERT INTO images (hash, source, staged) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (to_bytes(new.image), printable(new.source), int(staged)),
        )
    insert_features(connection, [(n.image, n.feature, n.norm) for n in new_images], key)


def insert_features(connection: Connection, found: Sequence[Featured], key: int) -> None:
    """Features of pictures that are there, by an extractor; those that are there stay."""
    for image, feature, length in found:
        norm = np.float32(length).astype("<f4").tobytes()
        vector = np.ascontiguousarray(feature, dtype="<i2").tobytes()
        row = (norm, vector, checksum(vector, norm), to_bytes(image))
        if key:
            connection.exec_driver_sql(
                "INSERT INTO later_features (extractor, image, norm, vector, checksum) "
                "SELECT ?, id, ?, ?, ? FROM images WHERE hash = ? ON CONFLICT DO NOTHING",
                (key, *row),
            )
        else:
            connection.exec_driver_sql(
                "INSERT INTO features (image, norm, vector, checksum) "
                "SELECT id, ?, ?, ? FROM images WHERE hash = ? ON CONFLICT DO NOTHING",
                row,
            )


def insert_trained(
    connection: Connection, number: int, images: Sequence[str], exemplars: Sequence[str] = ()
) -> None:
    """The pictures that the extractor of an `adapt` was trained with, of those that are there.

    Args:
        connection: of a transaction that writes.
        number: of the event.
        images: the pictures.
        exemplars: those of them that its method keeps, in its order.
    """
    places = {image: place for place, image in enumerate(exemplars)}
    for image in sorted({*images, *places}):
        connection.exec_driver_sql(
            "INSERT INTO trained (event, place, image) SELECT ?, ?, id FROM images WHERE hash = ?",
            (number, places.get(image), to_bytes(image)),
        )


def purge(connection: Connection, purged: Sequence[Entry], number: int) -> None:
    """Each of these `adapt` events says from now on that its extractor was purged, and by whom."""
    for entry in purged:
        told = {
            key: value
            for key, value in entry.detail.items()
            if key not in ("extractor", "dimension", "start", "forgotten")
        }
        connection.exec_driver_sql(
            "UPDATE events SET detail = ? WHERE id = ?",
            (json.dumps({**told, "purged": number}), entry.id),
        )
        connection.exec_driver_sql("DELETE FROM trained WHERE event = ?", (entry.id,))
    connection.exec_driver_sql("DELETE FROM tunings")
    # The database is to be written anew.
    connection.exec_driver_sql("INSERT OR IGNORE INTO erasures VALUES (x'')")


def candidate(connection: Connection, fingerprint: str, kept: Collection[str]) -> int:
    """The number of a later extractor, made if there is none; other candidates are dropped.

    Args:
        connection: of a transaction that writes.
        fingerprint: its own.
        kept: the extractors that events name.
    """
    drop_candidates(connection, {*kept, fingerprint})
    connection.exec_driver_sql(
        "INSERT INTO extractors (fingerprint) VALUES (?) ON CONFLICT DO NOTHING", (fingerprint,)
    )
    return extractor_key(connection, fingerprint) or 0


def drop_candidates(connection: Connection, kept: Collection[str]) -> None:
    """Erase what was computed with extractors that are not in `kept`."""
    rows = connection.exec_driver_sql("SELECT id, fingerprint FROM extractors").fetchall()
    for number in [number for number, fingerprint in rows if fingerprint not in kept]:
        for table, column in (("later_features", "extractor"), ("extractors", "id")):
            connection.exec_driver_sql(
                f"DELETE FROM {table} WHERE {column} = ?",  # noqa: S608 one of two
                (number,),
            )


def insert_assertions(connection: Connection, number: int, assertions: Sequence[Assertion]) -> None:
    """What an event says of pictures that are there; they are members from now on."""
    rows = [(to_bytes(a.image), a.label, a.marks) for a in assertions]
    for digest, label, marks in rows:
        image = connection.exec_driver_sql(
            "UPDATE images SET staged = 0 WHERE hash = ? RETURNING id", (digest,)
        ).scalar_one()
        connection.exec_driver_sql(
            "INSERT INTO assertions (event, image, label, pinned) VALUES (?, ?, ?, ?)",
            (number, image, label, marks),
        )
        connection.exec_driver_sql(
            "INSERT INTO members (image, label, pinned, event) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (image) DO UPDATE SET label = excluded.label, pinned = excluded.pinned, "
            "event = excluded.event",
            (image, label, marks, number),
        )


def replace_members(connection: Connection, replayed: Replay) -> None:
    """Membership as a replay says."""
    connection.exec_driver_sql("DELETE FROM members")
    rows = [
        (image, label, marks, event) for image, (label, marks, event) in replayed.members.items()
    ]
    if rows:
        connection.exec_driver_sql(
            "INSERT INTO members (image, label, pinned, event) VALUES (?, ?, ?, ?)", rows
        )


def replace_tuning(connection: Connection, key: str, values: Mapping[str, Any]) -> None:
    """Cache numbers under a key."""
    connection.exec_driver_sql(
        "INSERT OR REPLACE INTO tunings VALUES (?, ?)", (key, json.dumps(dict(values)))
    )


def staged(connection: Connection) -> list[str]:
    """Pictures that no event speaks of."""
    rows = connection.exec_driver_sql("SELECT hash FROM images WHERE staged = 1")
    return [to_name(row[0]) for row in rows]


def feature_bytes(connection: Connection, images: Sequence[str]) -> int:
    """How many bytes of features are kept of pictures, by all extractors."""
    found = 0
    for number in numbers(connection, images):
        for table in ("features", "later_features"):
            found += connection.exec_driver_sql(
                f"SELECT coalesce(sum(length(vector)), 0) FROM {table} WHERE image = ?",  # noqa: S608
                (number,),
            ).scalar_one()
    return found


def delete_images(connection: Connection, images: Sequence[str]) -> None:
    """Every row about pictures goes, and their bytes go on the list of what to erase."""
    gone = [(number,) for number in sorted(numbers(connection, images))]
    if not gone:
        return
    connection.exec_driver_sql(
        "INSERT OR IGNORE INTO erasures SELECT hash FROM images WHERE id = ?", gone
    )
    connection.exec_driver_sql("INSERT OR IGNORE INTO erasures VALUES (x'')")
    for table in ("members", "assertions", "features", "later_features", "trained"):
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE image = ?", gone)  # noqa: S608
    connection.exec_driver_sql("DELETE FROM images WHERE id = ?", gone)
