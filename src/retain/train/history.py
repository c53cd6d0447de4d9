"""What a run of training measured, epoch by epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from retain.train.inference import Judged
from retain.train.needs import need

__all__ = ["Board", "Epoch", "epochs_from_json", "epochs_to_json", "tensorboard"]

_WHAT: Final = "writing TensorBoard files"


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


def tensorboard() -> Any:
    """What writes TensorBoard files.

    Raises:
        MissingExtra: if TensorBoard or PyTorch is not installed.
    """
    need("tensorboard", _WHAT)
    return need("torch.utils.tensorboard", _WHAT)


@final
class Board:
    """TensorBoard files of a run.

    Args:
        folder: made if it is not there. What another sitting wrote there of this run, or what
            another run did, is shown no more: the run is written from its beginning.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._writer = tensorboard().SummaryWriter(os.fspath(folder), purge_step=1)

    def write(self, epoch: Epoch) -> None:
        """Adds an epoch."""
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
        self._writer.close()
