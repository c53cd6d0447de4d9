"""What the verbs take and give back; `to_json` makes JSON of it, by field names that stay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from retain.plain import to_json
from retain.trainings import Training, TrainingEpoch, TrainingPhase
from retain.verdicts import Budgets, Check, Suspect, Verdict, Version

__all__ = [
    "Budgets",
    "Change",
    "Check",
    "ClassInfo",
    "ClassReport",
    "Correction",
    "Event",
    "EventDetail",
    "ImageDetail",
    "Prediction",
    "Predictions",
    "Progress",
    "Receipt",
    "Report",
    "Sample",
    "Score",
    "Skipped",
    "Source",
    "Status",
    "Suspect",
    "Training",
    "TrainingEpoch",
    "TrainingPhase",
    "Update",
    "Verdict",
    "Verification",
    "Version",
    "content_hash",
    "to_json",
]

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` while long work runs; both in pictures."""


def content_hash(data: bytes) -> str:
    """The name of some bytes: SHA-256 in hexadecimal, with the algorithm as prefix.

    >>> content_hash(b"")[:19]
    'sha256:e3b0c44298fc'
    """
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Source:
    """Where one picture comes from: a name to show, a way to read it, a label if it has one.

    `read` returns the bytes of an image file and raises `BadImage` when it cannot; `image` is their
    content hash, where that is known already.
    """

    name: str
    read: Callable[[], bytes]
    label: str | None = None
    image: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not used, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Score:
    """One class and its calibrated probability (0 to 1)."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the classifier says about one picture.

    Attributes:
        path: the name under which the picture was given.
        image: its content hash, by which it can be named later.
        label: the most probable class.
        probability: its calibrated probability, 0 to 1.
        unknown: True when the picture is farther from everything known than 95 % of the
            remembered pictures are (by leave-one-out).
        typicality: the conformal p-value behind `unknown`: the share of remembered pictures
            that are at least as far from everything known, 0 to 1.
        top: the most probable classes, best first.
        remembered: True when this very picture is remembered.
    """

    path: str
    image: str
    label: str
    probability: float
    unknown: bool
    typicality: float
    top: tuple[Score, ...]
    remembered: bool = False


@dataclass(frozen=True, slots=True)
class Predictions(Sequence[Prediction]):
    """The answers, in the order asked, all of the state after `event`; and files not read."""

    answers: tuple[Prediction, ...]
    skipped: tuple[Skipped, ...] = ()
    event: int = field(default=0, compare=False)

    def __len__(self) -> int:
        return len(self.answers)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Prediction, ...]: ...
    def __getitem__(self, index: int | slice) -> Prediction | tuple[Prediction, ...]:
        return self.answers[index]


@dataclass(frozen=True, slots=True)
class Change:
    """A remembered picture whose prediction changed.

    `image` is its content hash, `label` what it was taught as, `source` its original name.
    """

    image: str
    before: str | None
    after: str
    label: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Correction:
    """One corrected picture: what was said before, what is said now.

    `pinned` is True when learning or relabelling alone was not enough and the head was edited;
    `exception` when the picture answers for its own neighbourhood instead.
    """

    image: str
    before: str | None
    after: str
    label: str
    pinned: bool
    source: str = ""
    exception: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """What an event that changes the classifier did, and what else changed.

    Attributes:
        event: its number in the journal; None when nothing had to be written.
        kind: the verb.
        summary: one sentence.
        learned: how many pictures were new.
        relabelled: how many known pictures got another label.
        known: how many were known already, with this label.
        skipped: files that could not be used.
        new_classes: labels seen for the first time.
        gone_classes: labels that no picture has any more.
        corrected: for `correct`, each picture given.
        fixed: for `correct`, True when each of them is now predicted as told.
        pinned: for `correct`, True when at least one of them needed an edit of the head.
        worse: remembered pictures that were right before and are wrong now.
        better: remembered pictures that were wrong before and are right now.
        changed: remembered pictures that went from one wrong answer to another.
        verdict: what the gate said; None where it was not asked.
        training: for `adapt`, what was measured epoch by epoch.
        seconds: wall time of the whole call.
    """

    event: int | None
    kind: str
    summary: str
    learned: int = 0
    relabelled: int = 0
    known: int = 0
    skipped: tuple[Skipped, ...] = ()
    new_classes: tuple[str, ...] = ()
    gone_classes: tuple[str, ...] = ()
    corrected: tuple[Correction, ...] = ()
    fixed: bool | None = None
    pinned: bool | None = None
    worse: tuple[Change, ...] = ()
    better: tuple[Change, ...] = ()
    changed: tuple[Change, ...] = ()
    verdict: Verdict | None = None
    seconds: float = 0.0
    training: Training | None = None


@dataclass(frozen=True, slots=True)
class ClassReport:
    """One class in a report: `n` pictures of it, `correct` of them right.

    `accuracy` (recall) is correct/n; `precision` is the share of answers with this label that
    were right, None if it was never answered.
    """

    n: int
    correct: int
    accuracy: float
    precision: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """How good the classifier is on labelled pictures.

    Attributes:
        accuracy: share of right answers, 0 to 1.
        n: how many pictures were judged.
        per_class: label → `ClassReport`.
        balanced_accuracy: mean over classes of their accuracy.
        negative_log_likelihood: mean of −ln p(true label), in nats.
        calibration_error: expected calibration error over 15 equal bins, 0 to 1
            (Naeini 2015; Guo 2017).
        confusion: true label → predicted label → count.
        mistakes: the wrong ones, most confident first, `before` empty.
        remembered: how many of the pictures are remembered (their answers flatter).
        unknown_classes: labels given that the classifier does not know; always wrong.
        skipped: files that could not be used.
        seconds: wall time of the whole call.
    """

    accuracy: float
    n: int
    per_class: Mapping[str, ClassReport]
    balanced_accuracy: float
    negative_log_likelihood: float
    calibration_error: float
    confusion: Mapping[str, Mapping[str, int]]
    mistakes: tuple[Prediction, ...]
    truths: tuple[str, ...]
    remembered: int = 0
    unknown_classes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What `forget` erased, and how deep.

    `level` is ``"exact"``: the head and the statistics are bit for bit those of a classifier
    that never saw the pictures, and neither their bytes nor their features are on disk. It is
    ``"pending"`` where that is so but extractors were trained with some of them: `pending` are the
    `adapt` events that these came with. It is ``"rebuilt"`` where `purge` erased such extractors
    and another was trained without. `traces` is True, and the level ``"pending"``, where others
    were reading for so long that not everything could be erased from ``journal.db`` and the log
    beside it; whoever changes the classifier next does so first. The level is ``"none"``, and
    `event` None, where nothing was forgotten, since it was only asked what would happen, or there
    was nothing to do.
    """

    event: int | None
    images: int
    labels: tuple[str, ...]
    gone_classes: tuple[str, ...]
    level: str
    bytes_erased: int
    digest: str
    summary: str
    verdict: Verdict | None = None
    seconds: float = 0.0
    pending: tuple[int, ...] = ()
    traces: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One remembered picture.

    `event` is the journal entry that gave it its present label; `pinned` is True when it was
    corrected, so that it must keep this label, and `exception` when it then answers for its own
    neighbourhood instead of moving the head; `protected` when it must never get worse. A picture
    of the reference, which nobody labelled, has the label ``""``.
    """

    image: str
    label: str
    pinned: bool
    event: int
    source: str
    exception: bool = False
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the journal.

    `at` is UTC in ISO 8601; `images` counts what it changed and is still remembered; `undone` names
    the event that took it back; `target` what an undo took back; `actor` who did it, if known.
    """

    event: int
    kind: str
    at: str
    summary: str
    images: int = 0
    undone: int | None = None
    target: int | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class EventDetail:
    """One entry of the journal and the remembered pictures it speaks of, as it left them.

    `training` tells of an `adapt` how the extractor was trained, epoch by epoch.
    """

    event: Event
    samples: tuple[Sample, ...]
    training: Training | None = None


@dataclass(frozen=True, slots=True)
class ImageDetail:
    """One remembered picture: what it was taught as, its answer, its history (oldest first)."""

    sample: Sample
    prediction: Prediction
    history: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """A classifier in a few numbers.

    `shrinkage`, `temperature` and `leave_one_out_accuracy` (balanced over classes, 0 to 1) are
    None until there is evidence; `edited` counts the corrections that needed an edit of the head,
    `exceptions` those that answer for their own neighbourhood. `reference` counts pictures without
    a label, and `adopted` tells what a classifier that was trained elsewhere looked like.
    """

    path: str
    extractor: str
    dimension: int
    memory: str
    options: Mapping[str, Any]
    images: int
    classes: int
    pinned: int
    edited: int
    events: int
    digest: str
    shrinkage: float | None
    temperature: float | None
    leave_one_out_accuracy: float | None
    exceptions: int = 0
    protected: int = 0
    reference: int = 0
    adopted: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class: its name, how many pictures are remembered, how many of them are corrections."""

    label: str
    images: int
    pinned: int


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found: `ok`, the digest of the statistics re-derived, and any problems."""

    ok: bool
    digest: str
    problems: tuple[str, ...]
    images: int = 0
    events: int = 0
    notes: tuple[str, ...] = field(default=())
    seconds: float = 0.0
