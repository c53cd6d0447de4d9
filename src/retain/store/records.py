"""What can be asked of a classifier's directory."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from retain.errors import Damaged, UnknownImage
from retain.store import caches, checking, eras, journal, reading
from retain.store.blobs import Blobs
from retain.store.database import Database, Stamp
from retain.store.failures import translated
from retain.store.journal import Entry, Era, Plan, Rules
from retain.store.manifest import Manifest
from retain.store.start import Layer
from retain.values import Event, Sample

__all__ = ["Records"]

Fixed = NDArray[np.int16]


class Records:
    """The half of `Store`, its one heir, that changes nothing."""

    def __init__(self, path: Path, manifest: Manifest, *, writable: bool) -> None:
        self.path = path
        self.manifest = manifest
        self.writable = writable
        self._writer: int | None = None
        self._blobs = Blobs(path / "blobs")
        self._database = Database(path, writable=writable)
        self._transaction = self._database.transaction
        self._starts: dict[str, Layer] = {}
        # The last event that was looked at, the era then, and all extractors that events name.
        self._seen: tuple[int, Era, frozenset[str]] | None = None
        # The same, as long as nobody has committed anything since.
        self._noted: tuple[Stamp, int, Era] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._database.close()

    @property
    def writing_now(self) -> bool:
        """Whether this thread may write at this point: it holds the right, and is not `reading`."""
        return self._writer == threading.get_ident() and not self._database.joined

    def reading(self) -> AbstractContextManager[None]:
        """Let all questions until the end be answered from one state, whatever others write.

        May be nested. Nothing can be written inside, by this thread. Keep it short, for other
        threads and the end of an erasure wait for it: ask, leave, then compute.
        """
        return self._database.reading()

    @property
    def era(self) -> Era:
        """Which extractor is in force now, and since when."""
        return self._now()[1]

    @property
    def extractor(self) -> str:
        """The fingerprint of the extractor in force."""
        return self.era.extractor

    @property
    def dimension(self) -> int:
        """How many numbers its features have."""
        return self.era.dimension

    @property
    def extractor_dir(self) -> Path:
        """Where its files are."""
        return self.folder(self.era)

    def folder(self, era: Era) -> Path:
        """Where the files of an era's extractor are."""
        return self.path / eras.FOLDER / era.extractor

    def every_era(self) -> list[Era]:
        """All eras that the journal tells of, also those taken back, oldest first."""
        with self._transaction() as connection:
            if not reading.adapted_since(connection, 0, undone=False):
                return [eras.founding(self.manifest)]
            return eras.every(connection, self.manifest, reading.entries(connection))

    def start(self, era: Era | None = None) -> Layer | None:
        """The adopted layer of an era, or of now; None for a classifier made here."""
        era = era or self.era
        if era.start is None:
            return None
        if era.start not in self._starts:
            layer = eras.layer_of(self.folder(era), era)
            assert layer is not None
            self._starts[era.start] = layer
        return self._starts[era.start]

    def head_event(self) -> int:
        """The number of the last event; 0 if there is none."""
        return self._now()[0]

    @property
    def unerased(self) -> bool:
        """Whether traces of what was forgotten are still in some file, as others were reading."""
        return bool(self._database.glance("SELECT 1 FROM erasures LIMIT 1"))

    def stamp(self) -> Stamp | None:
        """Equal as long as nobody has changed anything; None where only a transaction can tell."""
        return self._database.stamp()

    def keeps(self, images: Sequence[str]) -> bool:
        """Whether anything is known of any of these pictures, be it that they once were taught."""
        marks = ", ".join("?" * len(images))
        found = self._database.glance(
            f"SELECT 1 FROM images WHERE hash IN ({marks}) LIMIT 1",  # noqa: S608 - marks only
            [reading.to_bytes(image) for image in images],
        )
        return bool(found)

    def members(self) -> list[Sample]:
        """All members, sorted by hash."""
        with self._transaction() as connection:
            return reading.samples(connection, "", {})

    def member(self, image: str) -> Sample | None:
        """One member, None if the picture is not one."""
        with self._transaction() as connection:
            found = reading.samples(
                connection, "WHERE i.hash = :hash", {"hash": reading.to_bytes(image)}
            )
        return found[0] if found else None

    def among_members(self, images: Sequence[str]) -> set[str]:
        """Those of these pictures that are members."""
        with self._transaction() as connection:
            return reading.among_members(connection, images)

    def find(self, name: str, *, kept: bool = False) -> list[Sample]:
        """Members with this hash, whose hash begins so (six digits or more), or of this source.

        With `kept`, also pictures that only undone events speak of, as they last were.
        """
        with self._transaction() as connection:
            return reading.find(connection, name, "last_said" if kept else "members")

    def known(self, era: Era | None = None) -> set[str]:
        """All pictures whose feature of an era, or of now, is kept, members or not."""
        with self._transaction() as connection:
            return reading.known(connection, (era or self._eras(connection)[0]).key)

    def lacking(self, era: Era) -> list[str]:
        """Members without a feature of an era, sorted."""
        with self._transaction() as connection:
            return reading.lacking(connection, era.key)

    def features(
        self, images: Sequence[str] | None, era: Era | None = None
    ) -> tuple[list[str], Fixed, NDArray[np.float32]]:
        """Features, of an era or of now, of `images` or of all members, sorted by hash.

        Returns:
            The hashes found, int16 [n, d], and the original lengths float32 [n].
        """
        with self._transaction() as connection:
            return reading.features(connection, images, era or self._eras(connection)[0])

    def feature(self, image: str, era: Era | None = None) -> tuple[Fixed, float] | None:
        """One picture's feature int16 [d] and its length, whether it is a member or not."""
        _, vectors, norms = self.features([image], era)
        return (vectors[0], float(norms[0])) if len(vectors) else None

    def trained(self, images: Sequence[str]) -> dict[int, int]:
        """Event of an `adapt` → how many of these pictures its extractor was trained with."""
        with self._transaction() as connection:
            if len(self._eras(connection)[1]) < 2:
                return {}
            return reading.trained(connection, images)

    def seen(self, event: int) -> tuple[frozenset[str], tuple[str, ...]]:
        """What the extractor of an `adapt` was trained with, as far as it is still kept.

        Returns:
            The pictures, and those of them that its method keeps as exemplars, in its order.
        """
        with self._transaction() as connection:
            if len(self._eras(connection)[1]) < 2:
                return frozenset(), ()
            found = reading.seen(connection, event)
        placed = sorted((place, image) for image, place in found.items() if place is not None)
        return frozenset(found), tuple(image for _, image in placed)

    def detail(self, event: int) -> Mapping[str, Any]:
        """What an event says besides pictures; empty where there is no such event."""
        with self._transaction() as connection:
            told = (each for each in reading.entries(connection) if each.id == event)
            return next((each.detail for each in told), {})

    def unknown(self, images: Collection[str]) -> int:
        """How many of these pictures are not kept: forgotten, or never learned."""
        with self._transaction() as connection:
            return len(set(images)) - len(reading.numbers(connection, sorted(set(images))))

    def owed(self) -> dict[int, int]:
        """Event of an `adapt` → how many pictures it was trained with that are forgotten since."""
        with self._transaction() as connection:
            if len(self._eras(connection)[1]) < 2:
                return {}
            return journal.owed(reading.entries(connection))

    def blob(self, image: str) -> bytes:
        """A picture's bytes (UnknownImage if not kept, Damaged if changed)."""
        with translated(self.path, reading=True):
            try:
                return self._blobs.read(image)
            except Damaged:
                # Bytes are overwritten while they are erased.
                with self._transaction() as connection:
                    if reading.numbers(connection, [image]):
                        raise
                raise UnknownImage(f"the bytes of {image} are not kept here any more") from None

    def events(self) -> list[Event]:
        """The journal for people, oldest first."""
        with self._transaction() as connection:
            return journal.told(reading.entries(connection), reading.labels_by_event(connection))

    def times(self, numbers: Collection[int]) -> dict[int, str]:
        """Event → when it was, in UTC, ISO 8601, of those of these numbers that there are."""
        with self._transaction() as connection:
            return reading.times(connection, sorted(numbers)) if numbers else {}

    def event(self, number: int) -> Event:
        """One event (UnknownEvent if there is none)."""
        events = self.events()
        for event in events:
            if event.event == number:
                return event
        raise journal.unknown(number, events[-1].event if events else 0)

    def assertions(self, number: int) -> list[Sample]:
        """What an event says of the pictures that are still kept, sorted by hash."""
        with self._transaction() as connection:
            return reading.asserted(connection, number)

    def history(self, image: str) -> list[tuple[int, str]]:
        """What was said of a picture: (event, label), oldest first."""
        with self._transaction() as connection:
            return reading.history(connection, image)

    def plan(self) -> Plan:
        """The membership of now (Damaged if the members kept are not its replay)."""
        with self._transaction() as connection:
            replayed = journal.replay(reading.entries(connection), reading.said(connection))
            return checking.checked_plan(connection, replayed, self._eras(connection)[0])

    def rules(self) -> Rules:
        """What the owner decreed: budgets, protection, aliases."""
        with self._transaction() as connection:
            return journal.rules(reading.entries(connection))

    def promotions(self) -> list[Entry]:
        """The active events that made an alias stand for a version, oldest first."""
        with self._transaction() as connection:
            return journal.promotions(reading.entries(connection))

    def last_undoable(self) -> int:
        """The event that a plain `undo` takes back (CannotUndo if there is none)."""
        with self._transaction() as connection:
            entries, said = reading.entries(connection), reading.said(connection)
        return journal.undoable(entries, said, None).id

    def preview(
        self,
        kind: str | None = None,
        *,
        target: int | None = None,
        detail: Mapping[str, Any] | None = None,
        without: Sequence[str] = (),
        at: int | None = None,
    ) -> Plan:
        """The membership as it is, was, or would be after one more event; writes nothing.

        Args:
            at: right after this event, instead of now.
            kind: ``"undo"``, ``"rename"``, ``"merge"``, or None for no event.
            target: what `undo` takes back.
            detail: ``old`` and ``new`` names.
            without: pictures to be forgotten.
        """
        with self._transaction() as connection:
            entries, said = reading.entries(connection), reading.said(connection)
            entries = [entry for entry in entries if at is None or entry.id <= at]
            entries = journal.followed(entries, said, kind, target, detail)
            gone = reading.numbers(connection, without)
            era = eras.of(connection, self.manifest, journal.era(entries))
            return reading.plan(connection, journal.replay(entries, said, gone), era)

    def get_tuning(self, key: str) -> dict[str, Any] | None:
        """Numbers cached under a key, None if there are none."""
        with self._transaction() as connection:
            return reading.tuning(connection, key)

    def read_cache(self, name: str) -> tuple[dict[str, Any], dict[str, str]] | None:
        """What `write_cache` kept; None if it is absent or unreadable."""
        return caches.read(self.path / "versions", name)

    def check(self) -> tuple[list[str], list[str]]:
        """Problems and notes about the files themselves: see `checking`."""
        return checking.check(self._database, self.manifest, self._blobs)

    # -- inside -------------------------------------------------------------------------------

    @property
    def _engine(self) -> Engine:
        return self._database.engine

    def _now(self) -> tuple[int, Era]:
        """The last event, and the era in force."""
        stamp, noted = self._database.stamp(), self._noted
        if stamp is not None and noted is not None and noted[0] == stamp:
            return noted[1:]
        with self._transaction() as connection:
            stamp = self._database.stamp()
            era = self._eras(connection)[0]
            assert self._seen is not None
            last = self._seen[0]
        if stamp is not None:
            self._noted = stamp, last, era
        return last, era

    def _eras(self, connection: Connection) -> tuple[Era, frozenset[str]]:
        """The era in force, and all extractors that events name; both change with events only."""
        seen, last = self._seen, reading.head_event(connection)
        if seen is None or seen[0] > last:
            fresh = reading.adapted_since(connection, 0, undone=False)
            seen = last, eras.founding(self.manifest), frozenset({self.manifest.extractor})
        else:
            adapted = bool(seen[1].number) or len(seen[2]) > 1
            fresh = seen[0] != last and reading.adapted_since(connection, seen[0], undone=adapted)
        if fresh:
            entries = reading.entries(connection)
            era = eras.of(connection, self.manifest, journal.era(entries))
            seen = last, era, frozenset(eras.named(self.manifest, entries))
        self._seen = last, seen[1], seen[2]
        return seen[1], seen[2]
