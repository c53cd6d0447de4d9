"""What waits to be written to the desk: answers and their pictures, and rows of the inbox."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, final

__all__ = ["Answer", "Kept", "Waiting", "Wondered"]

# So many bytes wait to be written at most, or as many answers; and as much of the inbox.
BYTES: Final = 16 * 1024 * 1024
ANSWERS: Final = 500


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture on the desk: its hash, the name it came under, its bytes."""

    image: str
    name: str
    data: bytes


Answer: TypeAlias = tuple[str, Kept, float]
"""The name of an answer, the picture it is about, and when it was given."""

Wondered: TypeAlias = tuple[str, str, float, float, str, float]
"""Of a picture called unknown: hash, label, probability, typicality, answer, and when."""


@final
class Waiting:
    """A line of what is to be written; safe between threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._called = threading.Condition(self._turn)
        self._answers: list[Answer] = []
        self._wondered: list[Wondered] = []
        self._bytes = 0

    def add(self, answers: Sequence[Answer]) -> bool:
        """Let answers wait; returns whether that is too much."""
        with self._turn:
            self._answers += answers
            self._bytes += sum(len(each.data) for _, each, _ in answers)
            return self._bytes > BYTES or len(self._answers) > ANSWERS

    def wonder(self, rows: Sequence[Wondered]) -> None:
        """Let rows of the inbox wait."""
        with self._turn:
            self._wondered += rows

    def take(self) -> tuple[list[Answer], list[Wondered]]:
        """All that waits, which does so no longer."""
        with self._turn:
            answers, wondered = self._answers, self._wondered
            self._set([])
            self._wondered = []
        return answers, wondered

    def give_back(self, answers: Sequence[Answer], wondered: Sequence[Wondered]) -> None:
        """Let what could not be written wait once more, before what came since."""
        with self._turn:
            self._set([*answers, *self._answers])
            self._wondered = [*wondered, *self._wondered][-ANSWERS:]

    def give_up(self, names: Collection[str]) -> bool:
        """Let these answers wait no longer; returns whether one still did."""
        with self._turn:
            before = len(self._answers)
            self._set([each for each in self._answers if each[0] not in names])
            return len(self._answers) < before

    def erase(self, images: Collection[str], *, answers: bool) -> None:
        """Let pictures wait no longer; with `answers`, nor what tells that somebody asked."""
        with self._turn:
            if not (self._answers or self._wondered):
                return
            gone = [each for each in self._answers if each[1].image in images]
            left = [each for each in self._answers if each[1].image not in images]
            if not answers:
                left += [(name, replace(kept, data=b""), at) for name, kept, at in gone]
            self._set(left)
            self._wondered = [row for row in self._wondered if row[0] not in images]

    def call(self) -> None:
        """Wake whoever is in `wait`."""
        with self._called:
            self._called.notify()

    def wait(self, ended: Callable[[], bool]) -> None:
        """Return once something waits, or it has ended."""
        with self._called:
            while not (self._answers or self._wondered or ended()):
                self._called.wait()

    def _set(self, answers: list[Answer]) -> None:
        self._answers = answers
        self._bytes = sum(len(each.data) for _, each, _ in answers)
