"""What a training measured, epoch by epoch, in a file beside the extractor that came of it.

The same training writes the same bytes, however often it was killed: how long it took, which is
another each time, stands in the journal. The file names no picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from retain.errors import Damaged
from retain.store import Store, eras
from retain.trainings import Training, TrainingEpoch, TrainingPhase

if TYPE_CHECKING:
    from retain.train.history import Epoch

__all__ = ["KEY", "file_of", "packed", "told", "training"]

KEY: Final = "history"
"""Under which an `adapt` event names its file."""

_FORMAT: Final = 1


def file_of(data: bytes) -> str:
    """What the file is called; the same extractor may come out of another training again."""
    return eras.file_of(KEY, data, "json")


def packed(histories: Mapping[str, Sequence[Epoch]]) -> bytes:
    """The file of the epochs of phases, by their names and in their order."""
    phases = [
        {"name": name, "epochs": [_row(each) for each in epochs]}
        for name, epochs in histories.items()
    ]
    return (json.dumps({"format": _FORMAT, "phases": phases}, indent=1) + "\n").encode()


def _row(epoch: Epoch) -> dict[str, Any]:
    judged = epoch.validation
    row: dict[str, Any] = {
        "epoch": epoch.number,
        "loss": epoch.loss,
        "terms": dict(epoch.terms),
        "accuracy": epoch.accuracy,
        "rate": epoch.rate,
    }
    if judged is not None and math.isfinite(judged.loss):
        row |= {"validation_loss": judged.loss, "validation_accuracy": judged.accuracy}
    return row


def training(detail: Mapping[str, Any], data: bytes | None) -> Training | None:
    """How an extractor was trained; None where it was put in place without any training.

    Args:
        detail: what its `adapt` event says.
        data: the file, where there is one.

    Raises:
        Damaged: if either is not what was written.
    """
    if "epochs" not in detail:
        return None
    try:
        method, lesson = detail.get("method"), detail.get("lesson")
        return Training(
            pictures=int(detail["pictures"]),
            held_out=int(detail["held_out"]),
            seconds=_number(detail["seconds"]),
            method=None if method is None else str(method),
            lesson=None if lesson is None else int(lesson),
            exemplars=int(detail.get("exemplars", 0)),
            phases=() if data is None else _phases(data),
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise Damaged(
            f"what the journal keeps of a training is not what was written ({error}); put a copy "
            f"of the directory back if you have one"
        ) from error


def _phases(data: bytes) -> tuple[TrainingPhase, ...]:
    return tuple(
        TrainingPhase(str(phase["name"]), tuple(map(_epoch, phase["epochs"])))
        for phase in json.loads(data)["phases"]
    )


def _epoch(row: Mapping[str, Any]) -> TrainingEpoch:
    judged = "validation_loss" in row
    return TrainingEpoch(
        epoch=int(row["epoch"]),
        loss=_number(row["loss"]),
        terms={str(name): _number(value) for name, value in row["terms"].items()},
        accuracy=_number(row["accuracy"]),
        rate=_number(row["rate"]),
        validation_loss=_number(row["validation_loss"]) if judged else None,
        validation_accuracy=_number(row["validation_accuracy"]) if judged else None,
    )


def _number(value: Any) -> float:
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{value} is no number")
    return found


def told(store: Store, event: int) -> Training | None:
    """How the extractor of an `adapt` event was trained; None for other events.

    Raises:
        Damaged: if the file is missing, or not what was written.
    """
    detail = store.detail(event)
    name, extractor = detail.get(KEY), detail.get("extractor")
    if not isinstance(name, str) or not isinstance(extractor, str):  # older, or purged
        return training(detail, None)
    return training(detail, eras.beside(store.path / eras.FOLDER / extractor, name))
