"""How the learning rate moves: pure functions of the time, so that a run resumes anywhere."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from retain.errors import BadOption

__all__ = ["Constant", "Cosine", "Exponential", "OneCycle", "Schedule", "Steps", "WarmUp"]


class Schedule(ABC):
    """What the learning rates are multiplied by, as a function of the time."""

    @abstractmethod
    def at(self, epoch: float, epochs: float) -> float:
        """The factor when `epoch` of `epochs` are over; an epoch may be half over."""


@final
@dataclass(frozen=True, slots=True)
class Constant(Schedule):
    """The same rate from beginning to end."""

    def at(self, epoch: float, epochs: float) -> float:
        """One.

        >>> Constant().at(3, 10)
        1.0
        """
        return 1.0


@final
@dataclass(frozen=True, slots=True)
class Steps(Schedule):
    """The rate is multiplied by `factor` at each milestone.

    Attributes:
        milestones: epochs, or below 1 parts of the whole; those of He 2016, §4.2 (32,000 and 48,000
            of 64,000 steps).
        factor: 0.1 as there.

    Raises:
        BadOption: if one of them is not above 0.
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1

    def __post_init__(self) -> None:
        _positive(self.factor, *self.milestones)

    def at(self, epoch: float, epochs: float) -> float:
        """See `Schedule`.

        >>> [round(Steps().at(e, 8), 3) for e in (0, 3.9, 4, 6)]
        [1.0, 1.0, 0.1, 0.01]
        """
        past = sum(epoch >= (each * epochs if each < 1 else each) for each in self.milestones)
        return float(self.factor**past)


@final
@dataclass(frozen=True, slots=True)
class Exponential(Schedule):
    """The rate is multiplied by `factor` in the course of each epoch.

    Raises:
        BadOption: if it is not above 0.
    """

    factor: float = 0.9

    def __post_init__(self) -> None:
        _positive(self.factor)

    def at(self, epoch: float, epochs: float) -> float:
        """See `Schedule`.

        >>> round(Exponential(0.5).at(2, 10), 3)
        0.25
        """
        return float(self.factor**epoch)


@final
@dataclass(frozen=True, slots=True)
class Cosine(Schedule):
    """Half a cosine from 1 to `last` (Loshchilov and Hutter 2017, equation 5, without restarts).

    Raises:
        BadOption: if `last` is no share.
    """

    last: float = 0.0

    def __post_init__(self) -> None:
        _shares(self.last)

    def at(self, epoch: float, epochs: float) -> float:
        """See `Schedule`.

        >>> [round(Cosine().at(e, 10), 3) for e in (0, 5, 10)]
        [1.0, 0.5, 0.0]
        """
        part = min(max(epoch / epochs, 0.0), 1.0)
        return self.last + (1 - self.last) * (1 + math.cos(math.pi * part)) / 2


@final
@dataclass(frozen=True, slots=True)
class OneCycle(Schedule):
    """Up to the full rate and down again, by cosines (Smith and Topin 2018).

    Attributes:
        rise: the part of the time that goes up; 0.3, `first` and `last` as in PyTorch's OneCycleLR.
        first: where it begins.
        last: where it ends.

    Raises:
        BadOption: if one of them is no share, or it rises for ever.
    """

    rise: float = 0.3
    first: float = 1 / 25
    last: float = 1 / 25e4

    def __post_init__(self) -> None:
        _shares(self.rise, self.first, self.last)
        if self.rise == 1:
            raise BadOption("a cycle that only rises has no end; give a rise below 1")

    def at(self, epoch: float, epochs: float) -> float:
        """See `Schedule`.

        >>> [round(OneCycle().at(e, 10), 2) for e in (0, 3, 10)]
        [0.04, 1.0, 0.0]
        """
        part = min(max(epoch / epochs, 0.0), 1.0)
        if part < self.rise:
            return _between(self.first, 1.0, part / self.rise)
        return _between(1.0, self.last, (part - self.rise) / (1 - self.rise))


@final
@dataclass(frozen=True, slots=True)
class WarmUp(Schedule):
    """The rate rises in a straight line over the first epochs, then another schedule takes over.

    Attributes:
        then: what follows; its time begins when the warm-up is over.
        epochs: how long, in epochs (Goyal 2017, §2.2: five).

    Raises:
        BadOption: if it takes no time or less.
    """

    then: Schedule
    epochs: float = 5.0

    def __post_init__(self) -> None:
        if not self.epochs > 0:
            raise BadOption(f"a warm-up of {self.epochs} epochs cannot be; leave it out")

    def at(self, epoch: float, epochs: float) -> float:
        """See `Schedule`.

        >>> [round(WarmUp(Constant(), 2).at(e, 10), 2) for e in (0, 1, 2, 9)]
        [0.0, 0.5, 1.0, 1.0]
        """
        if epoch < self.epochs:
            return epoch / self.epochs * self.then.at(0.0, max(epochs - self.epochs, 1e-9))
        return self.then.at(epoch - self.epochs, max(epochs - self.epochs, 1e-9))


def _between(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _positive(*numbers: float) -> None:
    for each in numbers:
        if not 0 < each < math.inf:
            raise BadOption(f"a schedule with {each} cannot be; give a factor or an epoch above 0")


def _shares(*numbers: float) -> None:
    for each in numbers:
        if not 0 <= each <= 1:
            raise BadOption(f"a schedule with {each} cannot be; give a share, 0 to 1")
