"""The pictures that are members of two states, and which of them are answered otherwise.

Of a hundred thousand few change. So that is found out once for a pair of states, and everybody who
asks what a change costs looks at those alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

from retain.algebra import REFERENCE, compare
from retain.caches import State
from retain.values import Change, Sample

__all__ = ["Differences", "Pairs", "differences"]


@dataclass(frozen=True, eq=False, slots=True)
class Pairs:
    """Members of two states, by their rows in either.

    Attributes:
        before: the first.
        after: the second.
        rows: (row in the first, row in the second) of every picture that is in both.
        moved: those of them whose answers differ.
    """

    before: State
    after: State
    rows: Sequence[tuple[int, int]]
    moved: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, before: State, after: State) -> Pairs:
        """Pair two states of one classifier."""
        old, new = before.samples, after.samples
        # What is learned comes last: as a rule the first are the same, and in the same order.
        if len(old) <= len(new) and all(
            a is b or a.image == b.image for a, b in zip(old, new, strict=False)
        ):
            numbers = range(len(old))
            rows = list(zip(numbers, numbers, strict=True))
        else:
            found = ((before.rows.get(sample.image), j) for j, sample in enumerate(new))
            rows = [(i, j) for i, j in found if i is not None]
        was, now = before.answers, after.answers
        if not was or not now:
            return cls(before, after, rows, ())
        moved = tuple((i, j) for i, j in rows if was[i] != now[j])
        return cls(before, after, rows, moved)

    def changes(self) -> Iterator[tuple[Sample, str, str]]:
        """Of every picture that moved: as it is after, its answer before, its answer after."""
        for i, j in self.moved:
            yield self.after.samples[j], self.before.answers[i], self.after.answers[j]


class Differences(TypedDict):
    """What else changed, as the fields of an `Update`."""

    worse: tuple[Change, ...]
    better: tuple[Change, ...]
    changed: tuple[Change, ...]
    new_classes: tuple[str, ...]
    gone_classes: tuple[str, ...]


def differences(before: State, now: State, exclude: frozenset[str] = frozenset()) -> Differences:
    """Classes that came and went, and remembered pictures whose answer changed.

    Pictures that are members both before and after count, except those in `exclude`.
    """
    shared = [
        (sample, was, answer)
        for sample, was, answer in Pairs.of(before, now).changes()
        if sample.image not in exclude and sample.label != REFERENCE
    ]
    found = compare(
        [old for _, old, _ in shared],
        [new for _, _, new in shared],
        [sample.label for sample, _, _ in shared],
    )

    def listed(indices: tuple[int, ...]) -> tuple[Change, ...]:
        changes = [shared[i] for i in indices]
        return tuple(
            Change(s.image, old, new, s.label, s.source)
            for s, old, new in sorted(changes, key=lambda change: change[0].image)
        )

    had, has = (set(s.mind.head.classes) if s.mind.head else set() for s in (before, now))
    return {
        "worse": listed(found.worse),
        "better": listed(found.better),
        "changed": listed(found.changed),
        "new_classes": tuple(sorted(has - had)),
        "gone_classes": tuple(sorted(had - has)),
    }
