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
    InputError,
    Locked,
    MissingExtra,
    NewerFormat,
    NotAClassifier,
    NotCorrected,
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
    Change,
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
    Update,
    Verification,
    to_json,
)

if TYPE_CHECKING:
    from retain.classifier import Classifier, create, open

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "BadImage",
    "BadLabel",
    "BadManifest",
    "BadOption",
    "CannotAdopt",
    "CannotUndo",
    "Change",
    "ClassInfo",
    "ClassReport",
    "Classifier",
    "Correction",
    "Damaged",
    "DiskFull",
    "Event",
    "EventDetail",
    "ImageDetail",
    "InputError",
    "Locked",
    "MissingExtra",
    "NewerFormat",
    "NotAClassifier",
    "NotCorrected",
    "NothingLearned",
    "PinConflict",
    "Prediction",
    "Predictions",
    "ReadOnly",
    "Receipt",
    "Refused",
    "Report",
    "RetainError",
    "Sample",
    "Score",
    "Skipped",
    "Status",
    "StoreError",
    "UnknownClass",
    "UnknownEvent",
    "UnknownImage",
    "Update",
    "Verification",
    "create",
    "open",
    "to_json",
]


def __getattr__(name: str) -> Any:
    # NumPy, SQLAlchemy and ONNX Runtime wait until a classifier is wanted, so that the command
    # line answers at once.
    if name in {"Classifier", "create", "open"}:
        return getattr(import_module("retain.classifier"), name)
    raise AttributeError(f"module 'retain' has no attribute {name!r}")
