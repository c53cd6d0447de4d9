"""What happened in the demo, as values: told on the terminal, shown in the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retain.values import Event, Prediction, Receipt, Report, Sample, Status, Update, Verification

__all__ = ["Corrected", "Forgotten", "Story", "Timing", "restricted", "share", "untouched"]


@dataclass(frozen=True, slots=True)
class Timing:
    """One call: what was done, wall time in seconds, on how many pictures."""

    what: str
    seconds: float
    pictures: int


@dataclass(frozen=True, slots=True)
class Corrected:
    """One test picture put right: its bytes, the truth, the answers before and after."""

    truth: str
    picture: bytes
    before: Prediction
    after: Prediction
    update: Update


@dataclass(frozen=True, slots=True)
class Forgotten:
    """One picture forgotten: in how many files its bytes were found before and after."""

    sample: Sample
    receipt: Receipt
    found_before: int
    found_after: int
    same_as_never_seen: bool


@dataclass(frozen=True, slots=True)
class Story:
    """Everything the report shows.

    Attributes:
        old: the classes learned first; `new`: the ones added later.
        at_six, at_ten, at_end: judged on all test pictures after the first lesson, after the
            second, and after the corrections.
        same_as_at_once: whether learning all ten classes at once, in another order, gives the
            same digest as learning them in two lessons.
        digests: before the last correction was taken back, without it, and with it again.
        pictures: the bytes of every remembered picture whose answer a correction changed.
    """

    folder: Path
    old: tuple[str, ...]
    new: tuple[str, ...]
    lessons: tuple[Update, Update]
    at_six: Report
    at_ten: Report
    at_end: Report
    same_as_at_once: bool
    corrected: tuple[Corrected, ...]
    digests: tuple[str, str, str]
    forgotten: Forgotten
    verification: Verification
    events: tuple[Event, ...]
    status: Status
    pictures: dict[str, bytes]
    timings: tuple[Timing, ...]
    seconds: float
    seed: int

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, the old ones first."""
        return self.old + self.new

    @property
    def six_before(self) -> float:
        """Accuracy on the old classes before the new ones came, 0 to 1."""
        right, count = share(self.at_six, self.old)
        return right / count

    @property
    def six_after(self) -> float:
        """Accuracy on the old classes, asked among themselves, after the new ones came, 0 to 1."""
        return restricted(self.at_ten, self.old)


def share(report: Report, labels: Sequence[str]) -> tuple[int, int]:
    """How many test pictures of some classes were right, of how many."""
    rows = [report.per_class[label] for label in labels]
    return sum(row.correct for row in rows), sum(row.n for row in rows)


def restricted(report: Report, labels: Sequence[str]) -> float:
    """The accuracy on some classes if only they may be answered, 0 to 1.

    Every mistake carries its five best answers; with at most four other classes, the best of
    `labels` is among them.
    """
    right, count = share(report, labels)
    for mistake, truth in zip(report.mistakes, report.truths, strict=True):
        if truth in labels:
            allowed = [score.label for score in mistake.top if score.label in labels]
            right += bool(allowed) and allowed[0] == truth
    return right / count


def untouched(report: Report, corrected: Sequence[Corrected]) -> tuple[set[str], int]:
    """The wrongly answered test pictures, and how many were asked, without the corrected ones."""
    paths = {each.before.path for each in corrected}
    return {mistake.path for mistake in report.mistakes} - paths, report.n - len(paths)
