"""What a network says to many pictures, without learning from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

from retain.errors import BadOption
from retain.train.augment import Views
from retain.train.data import Data, Pictures
from retain.train.growing import Growing, Output
from retain.train.needs import Later

__all__ = ["Judged", "evaluate", "judging", "outputs"]

torch: Final = Later("torch", "using a network")


@final
@dataclass(frozen=True, slots=True)
class Judged:
    """How a network does on labelled pictures.

    Attributes:
        loss: the mean of −log of the probability of the label.
        accuracy: the share whose label has the highest score.
    """

    loss: float
    accuracy: float


def outputs(model: Growing, pictures: Pictures, views: Views, batch: int = 128) -> Output:
    """Scores and features of pictures in evaluation mode, float32 [n, ·] on the CPU.

    The network is left in the mode that it was in.
    """
    with judging(model):
        parts = [
            model(views(pictures[torch.arange(start, end)].to(model.device)))
            for start, end in _spans(len(pictures), batch)
        ]
    if not parts:
        return Output(torch.zeros(0, len(model.classes)), torch.zeros(0, model.width))
    return Output(
        torch.cat([each.logits.float().cpu() for each in parts]),
        torch.cat([each.features.float().cpu() for each in parts]),
    )


def evaluate(model: Growing, data: Data, views: Views, batch: int = 128) -> Judged:
    """How a network does on labelled pictures, in evaluation mode.

    Raises:
        BadLabel: if a label is none of the network's classes.
        BadOption: if there are no pictures.
    """
    if not len(data):
        raise BadOption("there are no pictures to evaluate on; give some, or no validation")
    targets = model.positions(data.labels)
    logits = outputs(model, data.pictures, views, batch).logits.double()
    loss = torch.nn.functional.cross_entropy(logits, targets)
    return Judged(float(loss), float((logits.argmax(1) == targets).double().mean()))


def _spans(total: int, batch: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, batch):
        yield start, min(start + batch, total)


@contextmanager
def judging(model: Growing) -> Iterator[None]:
    """Evaluation mode without gradients while the block runs; then every part as it was."""
    modes = [(part, part.training) for part in model.module.modules()]
    model.module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode
