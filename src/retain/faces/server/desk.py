"""What the server keeps besides the classifier: what was asked about lately, and the inbox.

One SQLite file that all worker processes share, so that a correction may name a prediction that
another of them made. It may be deleted at any time; what is taught moves out of it, and what is
forgotten is overwritten.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

from retain.faces.server.desk_file import DeskFile
from retain.faces.server.waiting import Answer, Kept, Waiting, Wondered

__all__ = ["Desk", "Kept", "Unknown"]

_LOG: Final = logging.getLogger("retain.serve")

_ANSWERS: Final = 2000
_BYTES: Final = 256 * 1024 * 1024
_AGE: Final = 24 * 3600.0
_INBOX: Final = 500

# How often it is tidied, in answers and in bytes.
_TIDY: Final = 500
_TIDY_BYTES: Final = 32 * 1024 * 1024

# Seconds until it is tried again to write, where that failed.
_REST: Final = 1.0


@dataclass(frozen=True, slots=True)
class Unknown:
    """A picture in the inbox, and what was answered; `at` in UTC, ISO 8601."""

    image: str
    name: str
    label: str
    probability: float
    typicality: float
    at: str
    prediction: str


@final
class Desk:
    """The desk in a folder; safe between threads, shared by processes.

    Args:
        folder: where its file is.
        behind: seconds that what was asked about may wait to be written, with what comes after it;
            this object knows it at once all the same, other processes only then. 0 writes it before
            `keep` and `wonder` return.
    """

    def __init__(self, folder: Path, behind: float = 0.0) -> None:
        self._turn = threading.RLock()
        self._starting = threading.Lock()
        self._behind = behind
        self._waiting = Waiting()
        self._since = self._since_bytes = 0
        self._rest = 0.0
        self._ended = threading.Event()
        self._writer: threading.Thread | None = None
        self._file = DeskFile(folder)

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        self._ended.set()
        self._waiting.call()
        if self._writer is not None:
            self._writer.join()
        with self._reading():
            self._file.close()

    def settle(self) -> None:
        """Write what waits."""
        with self._reading():
            pass

    # -- pictures asked about ------------------------------------------------------------------

    def keep(self, pictures: Sequence[Kept], remembered: Container[str] = ()) -> list[str]:
        """Keep pictures that were asked about; returns a new name for the answer to each.

        The names are empty where the disk does not let it: that is no reason to answer nothing.

        Args:
            pictures: what was asked about.
            remembered: hashes of those that the classifier keeps itself: of these, only that they
                were asked about.
        """
        now = time.time()
        pictures = [
            replace(each, data=b"") if each.image in remembered else each for each in pictures
        ]
        names = [f"p-{secrets.token_hex(12)}" for _ in pictures]
        many = self._waiting.add(
            [(name, each, now) for name, each in zip(names, pictures, strict=True)]
        )
        self._wait(many)
        if (many or not self._behind) and self._waiting.give_up(names):
            return [""] * len(names)
        return names

    def _wait(self, many: bool) -> None:
        """Have what waits written soon; now, if nothing may wait or too much does."""
        if many or not self._behind:
            self.settle()
            return
        with self._starting:
            if self._writer is None and not self._ended.is_set():
                self._writer = threading.Thread(
                    target=self._write_behind, name="retain-desk-behind", daemon=True
                )
                self._writer.start()
        self._waiting.call()

    def _write_behind(self) -> None:
        while True:
            self._waiting.wait(self._ended.is_set)
            if self._ended.wait(max(self._behind, self._rest - time.monotonic())):
                return
            self.settle()

    def _write_kept(self, waiting: Sequence[Answer]) -> None:
        self._file.many(
            "INSERT INTO pictures VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (hash) DO UPDATE SET at = excluded.at",
            [
                (each.image, each.name, at, len(each.data), each.data)
                for _, each, at in waiting
                if each.data
            ],
        )
        self._file.many(
            "INSERT INTO answers VALUES (?, ?, ?)",
            [(name, each.image, at) for name, each, at in waiting],
        )
        self._since += len(waiting)
        self._since_bytes += sum(len(each.data) for _, each, _ in waiting)
        if self._since >= _TIDY or self._since_bytes >= _TIDY_BYTES:
            self._since = self._since_bytes = 0
            self._tidy(waiting[-1][2])

    def _write_wondered(self, rows: Sequence[Wondered]) -> None:
        self._file.many(
            "INSERT INTO inbox SELECT ?, ?, ?, ?, ?, ? "
            "WHERE EXISTS (SELECT 1 FROM pictures WHERE hash = ?) ON CONFLICT DO NOTHING",
            [(*row, row[0]) for row in rows],
        )
        self._file.rows(
            "DELETE FROM inbox WHERE hash NOT IN "
            "(SELECT hash FROM inbox ORDER BY at DESC, rowid DESC LIMIT ?)",
            (_INBOX,),
        )

    def asked(self, prediction: str) -> str | None:
        """The hash of the picture that an answer was about; None if that is not known any more."""
        with self._reading():
            rows = self._file.rows("SELECT hash FROM answers WHERE id = ?", (prediction,))
        return rows[0][0] if rows else None

    def picture(self, image: str) -> Kept | None:
        """A picture by its hash."""
        with self._reading():
            rows = self._file.rows("SELECT hash, name, data FROM pictures WHERE hash = ?", (image,))
        return Kept(*rows[0]) if rows else None

    def find(self, start: str) -> list[str]:
        """The hashes that begin so."""
        with self._reading():
            rows = self._file.rows(
                "SELECT hash FROM pictures WHERE hash >= ? AND hash < ? LIMIT 2",
                (start, start + "g"),
            )
        return [row[0] for row in rows]

    def lately(self, count: int) -> list[Kept]:
        """The inbox, and then the others asked about, the latest first."""
        with self._reading():
            rows = self._file.rows(
                "SELECT p.hash, p.name, p.data FROM pictures p LEFT JOIN inbox i USING (hash) "
                "ORDER BY i.hash IS NULL, p.at DESC, p.hash LIMIT ?",
                (count,),
            )
        return [Kept(*row) for row in rows]

    def erase(self, images: Sequence[str], *, answers: bool) -> None:
        """Overwrite pictures; with `answers`, also what tells that they were asked about."""
        rows = [(image,) for image in images]
        with self._writing_without(set(images), answers=answers):
            self._file.many("DELETE FROM pictures WHERE hash = ?", rows)
            self._file.many("DELETE FROM inbox WHERE hash = ?", rows)
            if answers:
                self._file.many("DELETE FROM answers WHERE hash = ?", rows)
        self._flush()

    def hold(self, images: Container[str]) -> list[str]:
        """The hashes of those of these pictures whose bytes are here."""
        with self._reading():
            rows = self._file.rows("SELECT hash FROM pictures")
        return [row[0] for row in rows if row[0] in images]

    def forget_strays(self, remembered: set[str]) -> None:
        """Drop what tells of pictures that are neither here nor remembered any more."""
        with self._writing():
            rows = self._file.rows(
                "SELECT DISTINCT hash FROM answers WHERE hash NOT IN (SELECT hash FROM pictures)"
            )
            gone = [row for row in rows if row[0] not in remembered]
            self._file.many("DELETE FROM answers WHERE hash = ?", gone)
        self._flush()

    # -- the inbox -----------------------------------------------------------------------------

    def wonder(self, rows: Sequence[tuple[str, str, float, float, str]]) -> None:
        """Put pictures into the inbox: (hash, label, probability, typicality, answer) of each."""
        now = time.time()
        self._waiting.wonder([(*row, now) for row in rows])
        self._wait(False)

    def inbox(self, offset: int = 0, limit: int = _INBOX) -> tuple[int, list[Unknown]]:
        """How many there are, and some of them, the latest first."""
        with self._reading():
            total = int(self._file.rows("SELECT count(*) FROM inbox")[0][0])
            rows = self._file.rows(
                "SELECT i.hash, p.name, i.label, i.probability, i.typicality, i.at, i.answer "
                "FROM inbox i JOIN pictures p USING (hash) "
                "ORDER BY i.at DESC, i.hash LIMIT ? OFFSET ?",
                (limit, offset),
            )
        return total, [
            Unknown(image, name, label, probability, typicality, _iso(at), answer)
            for image, name, label, probability, typicality, at, answer in rows
        ]

    def dismiss(self, images: Sequence[str]) -> int:
        """Take pictures out of the inbox, or all; returns how many. Their bytes go as well."""
        if not images:
            images = [each.image for each in self.inbox()[1]]
        with self._writing_without(set(images), answers=False):
            before = self._file.rows("SELECT count(*) FROM inbox")[0][0]
            rows = [(image,) for image in images]
            self._file.many("DELETE FROM inbox WHERE hash = ?", rows)
            left = self._file.rows("SELECT count(*) FROM inbox")[0][0]
            self._file.many("DELETE FROM pictures WHERE hash = ?", rows)
        self._flush()
        return int(before - left)

    # -- what all workers count ------------------------------------------------------------------

    def count(self, counters: Mapping[str, float], gauges: Mapping[str, float]) -> None:
        """Add to the counters, and set this process's gauges."""
        now = time.time()
        with self._writing():
            self._file.many(
                "INSERT INTO counters VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = value + excluded.value",
                list(counters.items()),
            )
            self._file.many(
                "INSERT OR REPLACE INTO gauges VALUES (?, ?, ?, ?)",
                [(os.getpid(), key, value, now) for key, value in gauges.items()],
            )

    def counted(self) -> tuple[dict[str, float], dict[str, float]]:
        """All counters, and the gauges of the processes that are alive, added up."""
        with self._reading():
            counters = dict(self._file.rows("SELECT key, value FROM counters"))
            gauges = self._file.rows(
                "SELECT key, sum(value) FROM gauges WHERE at > ? GROUP BY key",
                (time.time() - 5.0,),
            )
        return counters, dict(gauges)

    def begin(self) -> None:
        """Start counting from nothing, and drop what is too old, or cannot be read."""
        with self._reading():
            self._file.check()
        with self._writing():
            self._file.rows("DELETE FROM counters")
            self._file.rows("DELETE FROM gauges")
            self._tidy(time.time())
        self._flush()

    def tidy(self) -> None:
        """Drop what is too old, or too much."""
        with self._writing():
            self._tidy(time.time())
        self._flush()

    # -- inside -------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._reading(), self._file.transaction():
            yield

    @contextmanager
    def _writing_without(self, images: set[str], *, answers: bool) -> Iterator[None]:
        """Inside, these pictures do not wait to be written either, nor, with `answers`, theirs."""
        with self._writing():
            self._waiting.erase(images, answers=answers)
            yield

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Inside, nobody else uses the file, and nothing waits that could be written."""
        with self._turn:
            if time.monotonic() >= self._rest:
                self._write_waiting()
            yield

    def _write_waiting(self) -> None:
        """Write what waits; where that fails it waits on, and the disk is given a rest."""
        kept, wondered = self._waiting.take()
        if not (kept or wondered):
            return
        try:
            with self._file.transaction():
                if kept:
                    self._write_kept(kept)
                if wondered:
                    self._write_wondered(wondered)
        except sqlite3.Error as error:
            _LOG.warning("the desk could not be written: %s", error)
            self._rest = time.monotonic() + _REST
            self._waiting.give_back(kept, wondered)

    def _tidy(self, now: float) -> None:
        run = self._file.rows
        run("DELETE FROM answers WHERE at < ?", (now - _AGE,))
        run(
            "DELETE FROM answers WHERE at < (SELECT at FROM answers ORDER BY at DESC "
            "LIMIT 1 OFFSET ?)",
            (_ANSWERS,),
        )
        run(
            "DELETE FROM pictures WHERE hash NOT IN (SELECT hash FROM answers) "
            "AND hash NOT IN (SELECT hash FROM inbox)"
        )
        over = int(run("SELECT total(bytes) FROM pictures")[0][0]) - _BYTES
        if over > 0:
            for image, size in run("SELECT hash, bytes FROM pictures ORDER BY at"):
                run("DELETE FROM pictures WHERE hash = ?", (image,))
                over -= size
                if over <= 0:
                    break
        run("DELETE FROM inbox WHERE hash NOT IN (SELECT hash FROM pictures)")

    def _flush(self) -> None:
        with self._turn:
            self._file.flush()


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
