"""Retain, don't retrain: keep a trained image classifier alive.

`create` a classifier or `open` one; teach it with `Classifier.learn`, put it right with
`Classifier.correct`, take things back with `Classifier.undo` and `Classifier.forget`. Everything
is a directory on disk, exact, and works without a network.

>>> import retain
>>> retain.__version__
'0.1.0'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from retain.errors import (
    AlreadyExists,
    BadImage,
    BadLabel,
    BadManifest,
    BadOption,
    CannotAdopt,
    CannotUndo,
    Damaged,
    DiskFull,
    GateRefused,
    InputError,
    Locked,
    MissingExtra,
    NewerFormat,
    NotAClassifier,
    NotCorrected,
    NotExported,
    NothingLearned,
    PinConflict,
    ReadOnly,
    Refused,
    RetainError,
    StoreError,
    UnknownClass,
    UnknownEvent,
    UnknownImage,
)
from retain.values import (
    Budgets,
    Change,
    Check,
    ClassInfo,
    ClassReport,
    Correction,
    Event,
    EventDetail,
    ImageDetail,
    Prediction,
    Predictions,
    Receipt,
    Report,
    Sample,
    Score,
    Skipped,
    Status,
    Suspect,
    Training,
    TrainingEpoch,
    TrainingPhase,
    Update,
    Verdict,
    Verification,
    Version,
    to_json,
)

if TYPE_CHECKING:
    from retain.advice import Advice, Option, Part, Trial
    from retain.classifier import Classifier
    from retain.comparisons import (
        Cluster,
        Diff,
        Explanation,
        Export,
        Hint,
        Neighbour,
        Pack,
        Remedy,
        Suggestion,
    )
    from retain.founding import adopt, create, open, unpack

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "AlreadyExists",
    "BadImage",
    "BadLabel",
    "BadManifest",
    "BadOption",
    "Budgets",
    "CannotAdopt",
    "CannotUndo",
    "Change",
    "Check",
    "ClassInfo",
    "ClassReport",
    "Classifier",
    "Cluster",
    "Correction",
    "Damaged",
    "Diff",
    "DiskFull",
    "Event",
    "EventDetail",
    "Explanation",
    "Export",
    "GateRefused",
    "Hint",
    "ImageDetail",
    "InputError",
    "Locked",
    "MissingExtra",
    "Neighbour",
    "NewerFormat",
    "NotAClassifier",
    "NotCorrected",
    "NotExported",
    "NothingLearned",
    "Option",
    "Pack",
    "Part",
    "PinConflict",
    "Prediction",
    "Predictions",
    "ReadOnly",
    "Receipt",
    "Refused",
    "Remedy",
    "Report",
    "RetainError",
    "Sample",
    "Score",
    "Skipped",
    "Status",
    "StoreError",
    "Suggestion",
    "Suspect",
    "Training",
    "TrainingEpoch",
    "TrainingPhase",
    "Trial",
    "UnknownClass",
    "UnknownEvent",
    "UnknownImage",
    "Update",
    "Verdict",
    "Verification",
    "Version",
    "adopt",
    "create",
    "open",
    "to_json",
    "unpack",
]


_COMPARISONS = frozenset(
    {"Cluster", "Diff", "Explanation", "Export", "Hint", "Neighbour", "Pack", "Remedy"}
    | {"Suggestion"}
)


def __getattr__(name: str) -> Any:
    # NumPy, SQLAlchemy and ONNX Runtime wait until a classifier is wanted, so that the command
    # line answers at once.
    if name == "Classifier":
        return import_module("retain.classifier").Classifier
    if name in {"Advice", "Option", "Part", "Trial"}:
        return getattr(import_module("retain.advice"), name)
    if name in _COMPARISONS:
        return getattr(import_module("retain.comparisons"), name)
    if name in {"adopt", "create", "open", "unpack"}:
        return getattr(import_module("retain.founding"), name)
    raise AttributeError(f"module 'retain' has no attribute {name!r}")
