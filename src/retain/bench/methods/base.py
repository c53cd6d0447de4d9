"""What a method is to a benchmark: it learns features with labels, and answers with scores.

A method is given what the extractor gave (float32, not normalised), or the pictures themselves if
it needs them, and decides itself what to make of it. It is never told what comes later: neither how
many classes there will be, nor test data.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption, NothingLearned, Refused
from retain.typed import hints_of

__all__ = ["Floats", "Labels", "Memory", "Method", "Roster", "Scores", "Unsupported"]
__all__ += ["held", "probabilities", "unit"]

Floats = NDArray[np.float64]
Labels = NDArray[np.str_]
Scores = tuple[tuple[str, ...], Floats]


class Unsupported(Refused):
    """The method has no way to do what the stream asks; the message says why."""


class Method(ABC):
    """A class-incremental method on frozen features.

    Attributes:
        name: by which `make` knows it.
        title: for tables and plots.
        source: the paper or the software, as a reference.
        needs: ``"features"``, or ``"images"`` for methods that change the backbone: then what is
            called features below are encoded pictures, an array of `bytes` objects [n].
        hindsight: True when it uses everything stored again at each step: for such a method a
            class-incremental stream is no harder than all data at once.
        keeps: what it stores between lessons, in a word.
        calibrated: True when its scores are meant as probabilities by its authors; of the others,
            they are the softmax of its scores, which ranks alike but says nothing of confidence.
        dimension: d, of the features.
        seed: of everything random in it.
        lasting: a folder that outlives an interrupted run, for methods whose lessons take long:
            what is left there spares the run that goes on from learning them again. None for none.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[Literal["features", "images"]] = "features"
    hindsight: ClassVar[bool] = False
    keeps: ClassVar[str] = "statistics"
    calibrated: ClassVar[bool] = True

    def __init__(self, dimension: int, seed: int, workdir: Path) -> None:
        self.dimension = dimension
        self.seed = seed
        self.workdir = workdir
        self.lasting: Path | None = None

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Its options and their defaults: what its constructor takes by name."""
        given = inspect.signature(cls).parameters.values()
        return {each.name: each.default for each in given if each.kind is each.KEYWORD_ONLY}

    @classmethod
    def types(cls) -> Mapping[str, Any]:
        """The types of its options, as `retain.typed.read` takes them."""
        return hints_of(cls.__init__)

    @abstractmethod
    def learn(self, features: NDArray[Any], labels: Labels) -> None:
        """Learn pictures, of old classes or new ones.

        Args:
            features: float32 [n, d], not normalised.
            labels: str [n].
        """

    @abstractmethod
    def scores(self, features: NDArray[Any]) -> Scores:
        """The classes known, C of them, and float64 [n, C]: rows of probabilities.

        Raises:
            NothingLearned: if no class is known.
        """

    def correct(self, features: NDArray[Any], labels: Labels) -> None:
        """Take corrections of pictures that were answered wrongly; by default, learn them."""
        self.learn(features, labels)

    def forget(self, features: NDArray[Any], labels: Labels) -> None:
        """Forget pictures that were learned.

        Raises:
            Unsupported: if the method cannot.
        """
        raise Unsupported(f"{self.title} has no way to forget: {self.keeps} cannot be taken back")

    @abstractmethod
    def stored_bytes(self) -> int:
        """How many bytes it keeps in order to go on learning and to answer."""

    def digest(self) -> str:
        """The digest of its state, where it has one; otherwise empty."""
        return ""

    def close(self) -> None:  # noqa: B027 - most methods hold nothing that must be let go
        """Let go of files."""


class Roster:
    """The classes in the order in which they came: the only place where names become positions."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names, by position."""
        return tuple(self._positions)

    def enter(self, labels: Labels) -> NDArray[np.intp]:
        """The positions of labels [n]; new ones are entered at the end."""
        for label in labels.tolist():
            self._positions.setdefault(label, len(self._positions))
        return np.array([self._positions[label] for label in labels.tolist()], np.intp)

    def known(self, labels: Labels) -> NDArray[np.intp]:
        """The positions of labels [n] that are all known.

        Raises:
            BadOption: if one is not.
        """
        for label in labels.tolist():
            if label not in self._positions:
                raise BadOption(f"{label!r} was never learned, so it cannot be forgotten")
        return self.enter(labels)

    def asked(self, title: str) -> tuple[str, ...]:
        """The classes, for an answer.

        Raises:
            NothingLearned: if there are none.
        """
        if not self._positions:
            raise NothingLearned(f"{title} has learned nothing yet, so there is nothing to answer")
        return self.classes


class Memory:
    """Everything learned, for methods that are refitted on all of it.

    A picture is its feature vector; the same vector with another label is relabelled.
    """

    def __init__(self, dimension: int) -> None:
        self._rows: dict[bytes, str] = {}
        self._dimension = dimension

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Keep pictures; one that is kept already takes the new label."""
        for row, label in zip(_rows(features), labels.tolist(), strict=True):
            self._rows[row] = label

    def remove(self, features: NDArray[np.float32]) -> None:
        """Drop pictures.

        Raises:
            BadOption: if one is not there.
        """
        rows = _rows(features)
        missing = sum(row not in self._rows for row in rows)
        if missing:
            raise BadOption(f"{missing} of {len(rows)} pictures to forget were never learned")
        for row in rows:
            self._rows.pop(row, None)

    def among(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Those of the pictures [n, d] that are kept."""
        kept = [row in self._rows for row in _rows(features)]
        return np.asarray(features[np.array(kept, bool)], np.float32)

    @property
    def features(self) -> NDArray[np.float32]:
        """The features, float32 [n, d]."""
        shape = len(self), self._dimension
        found: NDArray[np.float32] = np.ndarray(shape, np.float32, b"".join(self._rows))
        return found

    @property
    def labels(self) -> Labels:
        """The labels, str [n]."""
        return np.array(list(self._rows.values()), np.str_)

    @property
    def nbytes(self) -> int:
        """What it holds: features in float32 and names of labels."""
        return 4 * self._dimension * len(self) + sum(len(e.encode()) for e in self._rows.values())


def _rows(features: NDArray[np.float32]) -> list[bytes]:
    return [row.tobytes() for row in np.ascontiguousarray(features, np.float32)]


def unit(features: NDArray[np.floating]) -> Floats:
    """The features [n, d] at length one, float64; a zero vector stays zero.

    >>> unit(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    x = np.asarray(features, np.float64)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    found: Floats = x / np.where(lengths > 0, lengths, 1.0)
    return found


def probabilities(scores: NDArray[np.floating]) -> Floats:
    """The softmax of each row of scores [n, C].

    >>> probabilities(np.zeros((1, 2)))
    array([[0.5, 0.5]])
    """
    x = np.asarray(scores, np.float64)
    x = np.exp(x - x.max(axis=1, keepdims=True))
    found: Floats = x / x.sum(axis=1, keepdims=True)
    return found


def held(*arrays: NDArray[np.generic] | None, classes: Iterable[str] = ()) -> int:
    """Bytes in arrays and in names of classes."""
    names = sum(len(name.encode()) for name in classes)
    return sum(array.nbytes for array in arrays if array is not None) + names
