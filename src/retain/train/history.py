"""What a run of training measured, epoch by epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

from retain.train.inference import Judged
from retain.train.needs import need

__all__ = ["Board", "Epoch", "epochs_from_json", "epochs_to_json"]


@final
@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch.

    Attributes:
        number: from 1 on.
        loss: the mean over its pictures, while the network changed.
        terms: the parts of the loss, by the names of the terms.
        accuracy: on its pictures, as they were seen; mixed ones count by their first label.
        rate: the learning rate at its end, before a plan's factors.
        seconds: how long it took, of all sittings together.
        validation: on pictures held out, at its end; None where there are none.
    """

    number: int
    loss: float
    terms: Mapping[str, float]
    accuracy: float
    rate: float
    seconds: float
    validation: Judged | None = None


def epochs_to_json(epochs: list[Epoch]) -> list[dict[str, Any]]:
    """The epochs in JSON's own types."""
    return [asdict(each) for each in epochs]


def epochs_from_json(values: list[dict[str, Any]]) -> list[Epoch]:
    """What `epochs_to_json` wrote."""
    result = []
    for each in values:
        judged = each["validation"]
        result.append(Epoch(**{**each, "validation": judged and Judged(**judged)}))
    return result


@final
class Board:
    """TensorBoard files of a run, where TensorBoard is installed.

    Attributes:
        note: why there are none, or ``""``.
    """

    def __init__(self, folder: str | os.PathLike[str], first: int) -> None:
        self._writer: Any = None
        self.note = ""
        if find_spec("tensorboard") is None:
            self.note = "no TensorBoard files were written; to have them: pip install tensorboard"
            return
        summary = need("torch.utils.tensorboard", "writing TensorBoard files")
        # What a killed run had written after its last checkpoint is not shown twice.
        self._writer = summary.SummaryWriter(os.fspath(Path(folder)), purge_step=first)

    def write(self, epoch: Epoch) -> None:
        """Adds an epoch."""
        if self._writer is None:
            return
        values = {"loss": epoch.loss, "accuracy": epoch.accuracy, "rate": epoch.rate}
        values |= {f"terms/{name}": value for name, value in epoch.terms.items()}
        if epoch.validation is not None:
            values["validation/loss"] = epoch.validation.loss
            values["validation/accuracy"] = epoch.validation.accuracy
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch.number)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()
