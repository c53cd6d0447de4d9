"""The state of a classifier: exact sums over its members, and nothing else.

For features x and labels c the state is the second moment G = Σ xxᵀ, the class sums S_c = Σ x and
the class counts n_c. All are integers (see `fixed`), so states add and subtract exactly:
``(a + b) - b == a``, whatever the order, the batches or the shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from retain.algebra.fixed import EXACT_COUNT

__all__ = ["Statistics"]

Integers = NDArray[np.int64]
Moment = NDArray[np.float64] | NDArray[np.int64]

# Rows per block when features are turned into float64 for a product: bounds the memory.
_BLOCK = 8192
_NO_MOMENT = np.zeros((0, 0))


@dataclass(frozen=True, eq=False)
class Statistics:
    """Exact sums over a set of labelled features; a commutative group under ``+`` and ``-``.

    Attributes:
        classes: the labels present, sorted; a class without pictures does not exist.
        counts: n_c, int64 [C], all positive.
        sums: S_c = Σ x over class c, int64 [C, d], in units of 2⁻¹⁴.
        second: G = Σ xxᵀ, [d, d], in units of 2⁻²⁸; integers held in float64 for up to 2²⁵
            members and in int64 beyond.

    >>> x = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.int16)
    >>> a = Statistics.of(x[:2], ["cat", "dog"]); b = Statistics.of(x[2:], ["cat"])
    >>> a + b == Statistics.of(x[[2, 0, 1]], ["cat", "cat", "dog"])
    True
    >>> (a + b) - b == a
    True
    """

    classes: tuple[str, ...]
    counts: Integers
    sums: Integers
    second: Moment

    @classmethod
    def empty(cls, dimension: int) -> Statistics:
        """The state that has seen nothing, for features of `dimension` numbers."""
        return _frozen(
            (),
            np.zeros(0, np.int64),
            np.zeros((0, dimension), np.int64),
            np.zeros((dimension, dimension)),
        )

    @classmethod
    def of(cls, features: NDArray[np.int16], labels: Sequence[str]) -> Statistics:
        """The state of one batch.

        Args:
            features: int16 [n, d] as `quantize` makes them.
            labels: n names.

        Raises:
            ValueError: if the shapes disagree or the features are not fixed point.
        """
        features = np.asarray(features)
        bare = _bare(features, labels)
        second: Moment = np.zeros((features.shape[1],) * 2)
        if len(features) > EXACT_COUNT:
            second = second.astype(np.int64)
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK].astype(np.float64)
            # For a single one it takes longer to wake threads than to multiply.
            product = np.outer(block, block) if len(block) == 1 else block.T @ block
            product = product.astype(second.dtype, copy=False)
            second = second + product if start else product
        return _frozen(bare.classes, bare.counts, bare.sums, second)

    @property
    def dimension(self) -> int:
        """How many numbers a feature has."""
        return int(self.sums.shape[1])

    @property
    def total(self) -> int:
        """How many members there are."""
        return int(self.counts.sum())

    def __add__(self, other: Statistics) -> Statistics:
        return self._combined(other, 1)

    def __sub__(self, other: Statistics) -> Statistics:
        return self._combined(other, -1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Statistics):
            return NotImplemented
        return (
            self.classes == other.classes
            and np.array_equal(self.counts, other.counts)
            and np.array_equal(self.sums, other.sums)
            and np.array_equal(self.second, other.second)
        )

    def __hash__(self) -> int:
        return hash((self.classes, self.counts.tobytes(), self.sums.tobytes()))

    def relabel(
        self, features: NDArray[np.int16], old: Sequence[str], new: Sequence[str]
    ) -> Statistics:
        """Members that change class: their sums move, and G stays as it is.

        Args:
            features: int16 [k, d] of members.
            old: their k present labels.
            new: their k new labels.

        Raises:
            ValueError: if they cannot all be members with the old labels.
        """
        if not len(features):
            return self
        features = np.asarray(features)
        bare = Statistics(self.classes, self.counts, self.sums, _NO_MOMENT)
        moved = bare._combined(_bare(features, old), -1)._combined(_bare(features, new), 1)
        return _frozen(moved.classes, moved.counts, moved.sums, self.second)

    def rename(self, names: Mapping[str, str]) -> Statistics:
        """Other names for classes; two that get the same name become one class.

        >>> s = Statistics.of(np.array([[1], [2]], dtype=np.int16), ["a", "b"])
        >>> s.rename({"a": "b"}).counts
        array([2])
        """
        renamed = [names.get(label, label) for label in self.classes]
        classes = tuple(sorted(set(renamed)))
        rows = np.array([classes.index(label) for label in renamed], dtype=np.intp)
        counts = np.zeros(len(classes), np.int64)
        sums = np.zeros((len(classes), self.dimension), np.int64)
        np.add.at(counts, rows, self.counts)
        np.add.at(sums, rows, self.sums)
        return _frozen(classes, counts, sums, self.second)

    @cached_property
    def digest(self) -> str:
        """The name of this state: equal states have equal digests, on every machine."""
        sha = hashlib.sha256(b"retain statistics 1\n")
        sha.update(np.array([self.dimension, len(self.classes)], "<i8").tobytes())
        for label in self.classes:
            encoded = label.encode("utf-8", "surrogatepass")
            sha.update(len(encoded).to_bytes(8, "little") + encoded)
        for array in (self.counts, self.sums, self.second):
            little = np.ascontiguousarray(array, dtype="<i8")
            sha.update(little.data if little.size else b"")
        return "sha256:" + sha.hexdigest()

    @staticmethod
    def merge(states: Iterable[Statistics]) -> Statistics:
        """The sum of any number of states (shards, sites), at least one."""
        iterator = iter(states)
        total = next(iterator, None)
        if total is None:
            raise ValueError("nothing to merge: give at least one state")
        for state in iterator:
            total = total + state
        return total

    def _combined(self, other: Statistics, sign: int) -> Statistics:
        if self.sums.shape[1] != other.sums.shape[1]:
            raise ValueError(
                f"features of {self.dimension} and of {other.dimension} numbers do not add up"
            )
        classes = tuple(sorted({*self.classes, *other.classes}))
        counts = np.zeros(len(classes), np.int64)
        sums = np.zeros((len(classes), self.sums.shape[1]), np.int64)
        position = {label: i for i, label in enumerate(classes)}
        for state, factor in ((self, 1), (other, sign)):
            rows = [position[label] for label in state.classes]
            counts[rows] += factor * state.counts
            sums[rows] += factor * state.sums
        if (counts < 0).any():
            label = classes[int(counts.argmin())]
            raise ValueError(f"cannot take away more pictures of {label!r} than there are")
        if sums[counts == 0].any():
            raise ValueError("what is taken away was never in the sum")
        wide = int(counts.sum()) > EXACT_COUNT or np.int64 in (
            self.second.dtype,
            other.second.dtype,
        )
        first: Moment = self.second
        second: Moment = other.second
        if wide:
            first, second = first.astype(np.int64), second.astype(np.int64)
        combined: Moment = first + second if sign > 0 else first - second
        if int(counts.sum()) <= EXACT_COUNT:
            combined = combined.astype(np.float64, copy=False)
        kept = np.flatnonzero(counts)
        return _frozen(
            tuple(classes[i] for i in kept),
            counts[kept],
            sums[kept],
            combined,
        )


def _frozen(
    classes: tuple[str, ...],
    counts: Integers,
    sums: Integers,
    second: Moment,
) -> Statistics:
    for array in (counts, sums, second):
        array.setflags(write=False)
    return Statistics(classes, counts, sums, second)


def _bare(features: NDArray[np.int16], labels: Sequence[str]) -> Statistics:
    """The counts and sums of a batch, without its second moment, which costs far more."""
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(f"features {features.shape} do not match {len(labels)} labels")
    if features.dtype != np.int16:
        raise ValueError(f"features are {features.dtype}; quantize them first")
    classes = tuple(sorted(set(labels)))
    position = {label: i for i, label in enumerate(classes)}
    rows = np.array([position[label] for label in labels], dtype=np.intp)
    counts = np.bincount(rows, minlength=len(classes)).astype(np.int64)
    sums = np.zeros((len(classes), features.shape[1]), dtype=np.int64)
    if len(features):
        order = np.argsort(rows, kind="stable")
        starts = np.flatnonzero(np.diff(rows[order], prepend=-1))
        np.add.reduceat(features[order], starts, axis=0, dtype=np.int64, out=sums)
    return Statistics(classes, counts, sums, _NO_MOMENT)
