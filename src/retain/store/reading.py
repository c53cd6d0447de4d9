"""Queries: rows of the journal as values."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from retain.errors import Damaged
from retain.store.journal import EXCEPTION, PINNED, PROTECTED, Entry, Era, Plan, Replay, parsed
from retain.values import Sample

__all__ = [
    "adapted_since",
    "among_members",
    "asserted",
    "entries",
    "extractor_key",
    "features",
    "features_of",
    "find",
    "head_event",
    "history",
    "known",
    "labels_by_event",
    "lacking",
    "numbers",
    "plan",
    "said",
    "samples",
    "seen",
    "times",
    "to_bytes",
    "to_name",
    "trained",
    "tuning",
]

T = TypeVar("T")

# SQLite takes at most 999 parameters in one statement on old builds.
_AT_ONCE = 900


def to_bytes(image: str) -> bytes:
    """A content hash as the 32 bytes that are stored; what is not one finds nothing."""
    try:
        return bytes.fromhex(image.removeprefix("sha256:"))
    except ValueError:
        return b""


def to_name(digest: bytes) -> str:
    """The content hash of 32 stored bytes."""
    return "sha256:" + digest.hex()


def head_event(connection: Connection) -> int:
    """The number of the last event; 0 if there is none."""
    found = connection.exec_driver_sql("SELECT max(id) FROM events").scalar()
    return int(found or 0)


_TABLES = {
    "members": "members",
    "last_said": (
        "(SELECT image, label, pinned, max(event) AS event FROM assertions GROUP BY image)"
    ),
}


def adapted_since(connection: Connection, event: int, *, undone: bool) -> bool:
    """Whether there is an `adapt` after an event; or, with `undone`, anything that ends one."""
    kinds = "('adapt', 'undo', 'purge')" if undone else "('adapt')"
    found = connection.exec_driver_sql(
        f"SELECT 1 FROM events WHERE id > ? AND kind IN {kinds} LIMIT 1",  # noqa: S608 one of two
        (event,),
    )
    return found.first() is not None


def extractor_key(connection: Connection, fingerprint: str) -> int | None:
    """The number under which the features of a later extractor are kept; None if there is none."""
    found = connection.exec_driver_sql(
        "SELECT id FROM extractors WHERE fingerprint = ?", (fingerprint,)
    ).scalar()
    return None if found is None else int(found)


def features_of(key: int) -> str:
    """What to select features from: those of the first extractor (0), or of a later one."""
    if not key:
        return "features"
    return (
        "(SELECT image, norm, vector, checksum FROM later_features "  # noqa: S608 a number
        f"WHERE extractor = {int(key)})"
    )


def known(connection: Connection, key: int) -> set[str]:
    """All pictures whose feature by an extractor is kept, members or not."""
    rows = connection.exec_driver_sql(
        f"SELECT i.hash FROM {features_of(key)} f JOIN images i ON i.id = f.image"  # noqa: S608
    )
    return {to_name(row[0]) for row in rows}


def lacking(connection: Connection, key: int) -> list[str]:
    """Members without a feature by an extractor, sorted."""
    rows = connection.exec_driver_sql(
        "SELECT i.hash FROM members m JOIN images i ON i.id = m.image "  # noqa: S608
        f"LEFT JOIN {features_of(key)} f ON f.image = m.image WHERE f.image IS NULL ORDER BY i.hash"
    )
    return [to_name(row[0]) for row in rows]


def _portions(values: Sequence[T]) -> Iterator[tuple[tuple[T, ...], str]]:
    """Parameters, as many as a statement takes, and as many question marks."""
    for start in range(0, len(values), _AT_ONCE):
        part = tuple(values[start : start + _AT_ONCE])
        yield part, ", ".join("?" * len(part))


def _asked(images: Sequence[str]) -> Iterator[tuple[tuple[bytes, ...], str]]:
    """The same of hashes."""
    return _portions([to_bytes(image) for image in images])


def trained(connection: Connection, images: Sequence[str]) -> dict[int, int]:
    """Event of an `adapt` → how many of these pictures its extractor was trained with."""
    found: dict[int, int] = {}
    for part, marks in _asked(images):
        rows = connection.exec_driver_sql(
            "SELECT t.event, count(*) FROM trained t JOIN images i ON i.id = t.image "  # noqa: S608
            f"WHERE i.hash IN ({marks}) GROUP BY t.event",
            part,
        )
        for event, count in rows:
            found[event] = found.get(event, 0) + count
    return dict(sorted(found.items()))


def seen(connection: Connection, event: int) -> dict[str, int | None]:
    """The pictures that the extractor of an `adapt` was trained with, and their `place`."""
    rows = connection.exec_driver_sql(
        "SELECT i.hash, t.place FROM trained t JOIN images i ON i.id = t.image WHERE t.event = ?",
        (event,),
    )
    return {to_name(digest): place for digest, place in rows}


def tuning(connection: Connection, key: str) -> dict[str, Any] | None:
    """Numbers cached under a key, None if there are none."""
    row = connection.exec_driver_sql("SELECT numbers FROM tunings WHERE key = ?", (key,)).fetchone()
    return json.loads(row[0]) if row else None


def samples(
    connection: Connection, where: str, parameters: Mapping[str, Any], table: str = "members"
) -> list[Sample]:
    """Members that a condition on i (images) and m (members) selects, sorted by hash."""
    rows = connection.exec_driver_sql(
        f"SELECT i.hash, m.label, m.pinned, m.event, i.source FROM {_TABLES[table]} m "  # noqa: S608
        f"JOIN images i ON i.id = m.image {where} ORDER BY i.hash",
        dict(parameters),
    )
    return [_sample(*row) for row in rows]


def _sample(digest: bytes, label: str, marks: int, event: int, source: str) -> Sample:
    # SQLite does not hold columns to their types, and an overwritten page may hold any.
    if not (isinstance(label, str) and isinstance(source, str) and isinstance(event, int)):
        raise TypeError(f"{(label, source, event)!r:.200} is no label, source and event")
    return _marked(to_name(digest), label, marks, event, source)


def _marked(image: str, label: str, marks: int, event: int, source: str) -> Sample:
    pinned, exception, protected = (bool(marks & each) for each in (PINNED, EXCEPTION, PROTECTED))
    return Sample(image, label, pinned, event, source, exception, protected)


def find(connection: Connection, name: str, table: str) -> list[Sample]:
    """Pictures of this hash, of a hash that begins so (six digits or more), or of this source."""
    digits = name.removeprefix("sha256:").lower()
    if 6 <= len(digits) <= 64 and all(digit in "0123456789abcdef" for digit in digits):
        low, high = bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f"))
        found = samples(
            connection, "WHERE i.hash BETWEEN :low AND :high", {"low": low, "high": high}, table
        )
        if found:
            return found
    return samples(connection, "WHERE i.source = :source", {"source": printable(name)}, table)


def printable(source: str) -> str:
    """A file's name as text that can be stored and shown, whatever its bytes were."""
    return source.encode("utf-8", "backslashreplace").decode()


def entries(connection: Connection) -> list[Entry]:
    """All events, oldest first."""
    rows = connection.exec_driver_sql(
        "SELECT id, kind, at, target, detail, actor FROM events ORDER BY id"
    )
    return [parsed(row) for row in rows]


def times(connection: Connection, numbers: Sequence[int]) -> dict[int, str]:
    """Event → when it was."""
    found: dict[int, str] = {}
    for part, marks in _portions(numbers):
        rows = connection.exec_driver_sql(
            f"SELECT id, at FROM events WHERE id IN ({marks})",  # noqa: S608 only question marks
            part,
        )
        found.update((number, at) for number, at in rows)
    return found


def said(connection: Connection) -> dict[int, list[tuple[int, str, int]]]:
    """Event → what it says: (picture, label, marks)."""
    found: dict[int, list[tuple[int, str, int]]] = defaultdict(list)
    for event, image, label, marks in connection.exec_driver_sql(
        "SELECT event, image, label, pinned FROM assertions"
    ):
        found[event].append((image, label, marks))
    return found


def labels_by_event(connection: Connection) -> dict[int, dict[str, int]]:
    """Event → label → how many pictures it gives that label to."""
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for event, label, count in connection.exec_driver_sql(
        "SELECT event, label, count(*) FROM assertions GROUP BY event, label"
    ):
        found[event][label] = count
    return found


def asserted(connection: Connection, number: int) -> list[Sample]:
    """What an event says of pictures, sorted by hash."""
    rows = connection.exec_driver_sql(
        "SELECT i.hash, a.label, a.pinned, a.event, i.source FROM assertions a "
        "JOIN images i ON i.id = a.image WHERE a.event = ? ORDER BY i.hash",
        (number,),
    )
    return [_sample(*row) for row in rows]


def history(connection: Connection, image: str) -> list[tuple[int, str]]:
    """What was said of a picture: (event, label), oldest first."""
    rows = connection.exec_driver_sql(
        "SELECT a.event, a.label FROM assertions a JOIN images i ON i.id = a.image "
        "WHERE i.hash = ? ORDER BY a.event",
        (to_bytes(image),),
    )
    return [(int(number), str(label)) for number, label in rows]


def among_members(connection: Connection, images: Sequence[str]) -> set[str]:
    """Those of these pictures that are members."""
    found: set[str] = set()
    for part, marks in _asked(images):
        rows = connection.exec_driver_sql(
            "SELECT i.hash FROM members m JOIN images i ON i.id = m.image "  # noqa: S608
            f"WHERE i.hash IN ({marks})",
            part,
        )
        found.update(to_name(row[0]) for row in rows)
    return found


def numbers(connection: Connection, images: Sequence[str]) -> set[int]:
    """The row numbers of pictures."""
    found: set[int] = set()
    for part, marks in _asked(images):
        rows = connection.exec_driver_sql(
            f"SELECT id FROM images WHERE hash IN ({marks})",  # noqa: S608 only question marks
            part,
        )
        found.update(int(row[0]) for row in rows)
    return found


def plan(connection: Connection, replayed: Replay, era: Era) -> Plan:
    """A replay with pictures by hash instead of row number."""
    names: dict[int, tuple[str, str]] = {}
    for number, digest, source in connection.exec_driver_sql("SELECT id, hash, source FROM images"):
        if number in replayed.members:
            names[number] = to_name(digest), source
    try:
        members = [
            _marked(names[number][0], label, marks, event, names[number][1])
            for number, (label, marks, event) in replayed.members.items()
        ]
        lesson = {names[number][0]: label for number, label in replayed.lesson.items()}
    except KeyError as error:
        raise Damaged(
            f"the journal speaks of picture number {error}, which is not there; run `retain "
            f"verify`, and put a copy of the directory back if you have one"
        ) from None
    ordered = tuple(sorted(members, key=lambda sample: sample.image))
    return Plan(ordered, lesson, replayed.rules, era)


def features(
    connection: Connection, images: Sequence[str] | None, era: Era
) -> tuple[list[str], NDArray[np.int16], NDArray[np.float32]]:
    """Features of `images`, or of all members, sorted by hash: see `Store.features`."""
    dimension = era.dimension
    if images is None:
        count = int(connection.exec_driver_sql("SELECT count(*) FROM members").scalar_one())
        parts: list[tuple[str, tuple[bytes, ...]]] = [
            ("JOIN members m ON m.image = i.id ORDER BY i.hash", ())
        ]
    else:
        ordered = sorted({to_bytes(image) for image in images})
        count = len(ordered)
        parts = [
            (f"WHERE i.hash IN ({marks}) ORDER BY i.hash", part)
            for part, marks in _portions(ordered)
        ]
    names: list[str] = []
    vectors = np.zeros((count, dimension), dtype=np.int16)
    norms = np.zeros(count, dtype=np.float32)
    for condition, parameters in parts:
        rows = connection.exec_driver_sql(
            f"SELECT i.hash, f.vector, f.norm FROM {features_of(era.key)} f "  # noqa: S608
            f"JOIN images i ON i.id = f.image {condition}",
            parameters,
        )
        for digest, vector, norm in rows:
            if len(vector) != 2 * dimension or len(norm) != 4:
                raise Damaged(
                    f"the feature of {to_name(digest)} has the wrong length; put a copy of the "
                    f"directory back, or forget the picture and learn it again"
                )
            row = len(names)
            vectors[row] = np.frombuffer(vector, dtype="<i2")
            norms[row] = np.frombuffer(norm, dtype="<f4")[0]
            names.append(to_name(digest))
    return names, vectors[: len(names)], norms[: len(names)]
