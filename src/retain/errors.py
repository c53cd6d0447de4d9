"""Everything that can go wrong, as one tree.

Every message says what happened, with the caller's own values, and what to do next::

    RetainError
    ├── InputError            what was given cannot be used (exit code 2)
    │   ├── BadImage          one file is not a picture we can read
    │   ├── BadLabel          a label is empty, too long, or not text
    │   ├── BadManifest       a CSV/JSONL/Parquet list is malformed
    │   ├── BadOption         an option has an impossible value
    │   ├── UnknownImage      the picture is not remembered
    │   ├── UnknownClass      no remembered picture has this label
    │   ├── UnknownEvent      the journal has no such event
    │   └── MissingExtra      an optional dependency is not installed
    ├── Refused               understood, but not done; nothing has changed (exit code 1)
    │   ├── PinConflict       two corrections contradict each other
    │   ├── CannotAdopt       a trained classifier cannot be taken over
    │   ├── CannotUndo        the event cannot be taken back
    │   ├── GateRefused       the change would cost more than the owner allows
    │   ├── NotExported       the file would answer otherwise than the classifier
    │   ├── NotCorrected      the promise of `correct` could not be kept
    │   └── NothingLearned    no class is known yet, so there is nothing to predict
    └── StoreError            the directory on disk (exit code 1)
        ├── NotAClassifier    the path holds no classifier
        ├── AlreadyExists     the path is taken
        ├── Locked            another process is writing
        ├── ReadOnly          the directory cannot be written
        ├── DiskFull          no room left
        ├── NewerFormat       written by a newer retain
        └── Damaged           a file or page does not hold what it should
"""

from __future__ import annotations

__all__ = [
    "AlreadyExists",
    "BadImage",
    "BadLabel",
    "BadManifest",
    "BadOption",
    "CannotAdopt",
    "CannotUndo",
    "Damaged",
    "DiskFull",
    "GateRefused",
    "InputError",
    "Locked",
    "MissingExtra",
    "NewerFormat",
    "NotAClassifier",
    "NotCorrected",
    "NotExported",
    "NothingLearned",
    "PinConflict",
    "ReadOnly",
    "Refused",
    "RetainError",
    "StoreError",
    "UnknownClass",
    "UnknownEvent",
    "UnknownImage",
]


class RetainError(Exception):
    """The root of the tree; catching it catches everything that retain raises on purpose."""

    exit_code = 1


class InputError(RetainError, ValueError):
    """What was given cannot be used; nothing has changed."""

    exit_code = 2


class BadImage(InputError):
    """One file is not a picture that can be read; the message says which and why."""


class BadLabel(InputError):
    """A label is empty, too long, or not text."""


class BadManifest(InputError):
    """A CSV, JSONL or Parquet list of pictures is malformed; the message names the line."""


class BadOption(InputError):
    """An option has an impossible value."""


class UnknownImage(InputError):
    """The picture is not remembered."""


class UnknownClass(InputError):
    """No remembered picture has this label."""


class UnknownEvent(InputError):
    """The journal has no such event."""


class MissingExtra(InputError):
    """An optional dependency is not installed; the message is the install line."""

    @classmethod
    def of(cls, what: str, extra: str) -> MissingExtra:
        """The error for a feature `what` that needs the extra `extra`.

        >>> print(MissingExtra.of("reading Parquet", "parquet"))
        reading Parquet needs an optional dependency; install it with: pip install 'retain[parquet]'
        """
        return cls(
            f"{what} needs an optional dependency; install it with: pip install 'retain[{extra}]'"
        )


class Refused(RetainError):
    """Understood, but not done; nothing has changed."""


class PinConflict(Refused):
    """Two corrections contradict each other; both are named."""


class CannotAdopt(Refused):
    """Somebody's classifier cannot be taken over; the message says what was found in it."""


class CannotUndo(Refused):
    """The event cannot be taken back."""


class GateRefused(Refused):
    """The change would cost more than the owner allows; the classifier is as it was.

    Attributes:
        verdict: what the gate found, a `Verdict`.
        update: what would have happened, an `Update` without an event.
        choices: what can be done instead, each as a phrase.
    """

    def __init__(
        self,
        message: str,
        verdict: object = None,
        update: object = None,
        choices: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.verdict = verdict
        self.update = update
        self.choices = choices


class NotExported(Refused):
    """The exported file would answer otherwise than the classifier; it was removed."""


class NotCorrected(Refused):
    """The promise of `correct` could not be kept; the classifier is as it was."""


class NothingLearned(Refused):
    """No class is known yet, so there is nothing to predict."""


class StoreError(RetainError):
    """Something about the directory on disk."""


class NotAClassifier(StoreError):
    """The path holds no classifier."""

    exit_code = 2


class AlreadyExists(StoreError):
    """The path is taken."""

    exit_code = 2


class Locked(StoreError):
    """Another process is writing; the message says who, since when, and which verb."""


class ReadOnly(StoreError):
    """The directory cannot be written."""


class DiskFull(StoreError):
    """No room left on the disk; nothing acknowledged was lost."""


class NewerFormat(StoreError):
    """The directory was written by a newer retain."""


class Damaged(StoreError):
    """A file or a database page does not hold what it should."""
