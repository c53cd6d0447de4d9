"""Weights averaged along the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, final

from retain.train.needs import Later
from retain.train.recipe import Averaging

__all__ = ["Average", "recount"]

torch: Final = Later("torch", "training a network")


@final
class Average:
    """An average of the weights of a network, see `Averaging`.

    Attributes:
        tensors: the average so far, by the names of the state dict.
        count: how many states are in it.
    """

    def __init__(self, averaging: Averaging, epochs: int) -> None:
        self._how = averaging
        # At least the last epoch, however few there are.
        self._from = min(math.floor(averaging.start * epochs), epochs - 1)
        self.tensors: dict[str, Any] = {}
        self.count = 0

    @property
    def recounts(self) -> bool:
        """Whether the statistics of batch normalisations do not fit the averaged weights."""
        return self._how.kind == "swa"

    def after_step(self, module: Any) -> None:
        """Takes in the weights after a step."""
        if self._how.kind == "ema":
            decay = min(self._how.decay, (1 + self.count) / (10 + self.count))
            self._take(module, 1 - decay)

    def after_epoch(self, module: Any, epoch: int) -> None:
        """Takes in the weights after an epoch, from 0 on."""
        if self._how.kind == "swa" and epoch >= self._from:
            self._take(module, 1 / (self.count + 1))

    def _take(self, module: Any, share: float) -> None:
        with torch.no_grad():
            for name, now in module.state_dict().items():
                if name not in self.tensors or not now.is_floating_point():
                    self.tensors[name] = now.clone()
                else:
                    self.tensors[name].lerp_(now, share)
        self.count += 1

    def restore(self, tensors: Mapping[str, Any], count: int, device: Any) -> None:
        """Goes on from a state that was saved."""
        self.tensors = {name: each.to(device) for name, each in tensors.items()}
        self.count = count

    def put(self, module: Any) -> None:
        """Gives a network the averaged weights."""
        if self.count:
            module.load_state_dict(self.tensors)

    @contextmanager
    def lent(self, module: Any) -> Iterator[None]:
        """Gives a network the averaged weights while the block runs, but not those of ``"swa"``.

        Their statistics are counted at the end alone.
        """
        if self._how.kind == "swa" or not self.count:
            yield
            return
        own = {name: each.clone() for name, each in module.state_dict().items()}
        self.put(module)
        try:
            yield
        finally:
            module.load_state_dict(own)


def recount(moving: list[Any], walk: Callable[[], None]) -> None:
    """Counts the statistics of batch normalisations anew, as the mean over all batches.

    Args:
        moving: the normalisations, in training mode.
        walk: runs the network on the batches.
    """
    before = [each.momentum for each in moving]
    for each in moving:
        each.reset_running_stats()
        each.momentum = None  # PyTorch's word for the plain mean
    try:
        with torch.no_grad():
            walk()
    finally:
        for each, momentum in zip(moving, before, strict=True):
            each.momentum = momentum
