"""How much each weight matters: gradients of single pictures, summed up.

The network is in evaluation mode, so that looking does not move the statistics of its batch
normalisations; and the pictures count one by one: the square of a batch's mean gradient is another
number than the mean of the squares, and no Fisher information.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, get_args

import numpy as np

from retain.errors import BadOption
from retain.train.augment import Views
from retain.train.data import Data
from retain.train.growing import Growing
from retain.train.inference import judging
from retain.train.needs import Later
from retain.typed import FROM_1, limited

__all__ = ["Labels", "fisher", "gathered"]

torch: Final = Later("torch", "measuring importance")

LARGEST: Final = 1 << 30
"""Bytes that the gradients of single pictures may take at once."""

Labels = Literal["true", "predicted", "sampled"]
"""Whose likelihood is meant: of the labels given (the empirical Fisher), of the network's first
guess, or of labels drawn from what the network believes, which is the Fisher information itself."""


def fisher(
    model: Growing,
    data: Data,
    views: Views,
    *,
    labels: Labels = "sampled",
    most: int | None = None,
    batch: int = 32,
    seed: int = 0,
) -> dict[str, Any]:
    """The diagonal of the Fisher information: the mean square of each single picture's gradient.

    Args:
        model: left as it is.
        data: pictures, and labels among the model's classes.
        views: makes numbers of the pictures.
        labels: see `Labels`.
        most: so many pictures, drawn at random, are enough; None for all.
        batch: how many are looked at at once; see `gathered`.
        seed: of what is drawn.

    Returns:
        By the names of all parameters, in their shapes.

    Raises:
        BadLabel: if a label is none of the model's classes.
        BadOption: if there are no pictures, no such `labels`, or `most` is below 1.
    """
    if labels not in get_args(Labels):
        raise BadOption(f"labels is {labels!r}; give one of {', '.join(get_args(Labels))}")
    targets = model.positions(data.labels)
    generator = torch.Generator().manual_seed(seed)

    def aim(logits: Any, numbers: Any) -> Any:
        if labels == "true":
            return targets[numbers].to(logits.device)
        if labels == "predicted":
            return logits.argmax(1)
        drawn = torch.multinomial(logits.cpu().softmax(1), 1, generator=generator)
        return drawn.flatten().to(logits.device)

    def loss(logits: Any, target: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits, target)

    return gathered(
        model, data, views, loss, torch.square, aim=aim, most=most, batch=batch, seed=seed
    )


def gathered(
    model: Growing,
    data: Data,
    views: Views,
    loss: Callable[[Any, Any], Any],
    weigh: Callable[[Any], Any],
    *,
    aim: Callable[[Any, Any], Any] | None = None,
    most: int | None = None,
    batch: int = 32,
    seed: int = 0,
) -> dict[str, Any]:
    """The mean over pictures of what becomes of each one's own gradient.

    Args:
        model: left as it is.
        data: the pictures.
        views: makes numbers of the pictures.
        loss: (logits [1, classes], target [1]) → a number.
        weigh: what becomes of a gradient: `torch.square` for the Fisher information, `torch.abs`
            for memory-aware synapses.
        aim: (logits [n, classes], numbers [n]) → the targets [n]; None for the first guess.
        most: so many pictures are enough.
        batch: how many are looked at at once; where their gradients would take more than `LARGEST`,
            these are worked out for fewer at once, which changes the sum by its rounding alone.
        seed: of the choice of `most`.

    Raises:
        BadOption: if there are no pictures, or `most` is not a whole number from 1 on.
    """
    limited("most", int | None, most, FROM_1)
    if not len(data):
        raise BadOption("there are no pictures to measure importance on; give some")
    numbers = np.arange(len(data))
    if most is not None and most < len(data):
        numbers = np.sort(np.random.default_rng(seed).choice(numbers, most, replace=False))
    module = model.module
    weights = {name: each.detach() for name, each in module.named_parameters()}
    totals = {name: torch.zeros_like(each) for name, each in weights.items()}
    most = max(1, LARGEST // sum(each.nbytes for each in weights.values()))

    def alone(values: Any, picture: Any, target: Any) -> Any:
        torch.func.functional_call(module, values, (picture[None],))
        (_, logits), model.layer.seen = model.layer.seen, None
        return loss(logits.float(), target[None])

    each_one = torch.func.vmap(torch.func.grad(alone), in_dims=(None, 0, 0))
    with judging(model):
        for start in range(0, len(numbers), batch):
            chosen = torch.from_numpy(numbers[start : start + batch])
            pictures = views(data.pictures[chosen].to(model.device))
            logits = model(pictures).logits.float()
            targets = logits.argmax(1) if aim is None else aim(logits, chosen)
            for few, aims in zip(pictures.split(most), targets.split(most), strict=True):
                with torch.enable_grad():
                    found = each_one(weights, few, aims)
                for name, gradient in found.items():
                    totals[name] += weigh(gradient.detach()).sum(0)
    return {name: each / len(numbers) for name, each in totals.items()}
