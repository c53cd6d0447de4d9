"""What `advise` gives back, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Advice", "Choice", "Option", "Part", "Trial"]

Choice = Literal["learn", "pin", "last-block", "full", "start-again"]
"""What can be done, the cheapest first: go on learning, correct single mistakes, `adapt` the last
block, all of the network, or all of it from random weights."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial showed: the difference in accuracy, its standard error, on how many pictures."""

    gain: float
    error: float
    judged: int


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can be done, and what is to be expected of it.

    Attributes:
        choice: see `Choice`.
        gain: expected change of the accuracy on new pictures, against going on as it is: 0.02 is
            two points; None where it cannot be done.
        low: the lower end of where it lies with 90 % probability.
        high: the upper end.
        seconds: what it takes, about; None where it cannot be done, or takes no time of its own.
        risk: in words.
        why: how the gain is known, or why it cannot be done.
        trial: what a trial showed; None where there was none, and the gain is what is usual.
        command: what to type.
    """

    choice: Choice
    gain: float | None
    low: float | None
    high: float | None
    seconds: float | None
    risk: str
    why: str
    command: str = ""
    trial: Trial | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A block of the network, and how many numbers its parameters are."""

    name: str
    parameters: int


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a classifier, and why.

    Attributes:
        choice: the cheapest option whose expected gain is within a point of the best.
        sentences: the same in words, the reasons with it.
        options: all of them, the cheapest first.
        event: the journal's last entry when it was worked out.
        images: remembered pictures with a label.
        classes: how many there are.
        smallest: the pictures of the smallest class.
        largest: those of the largest.
        accuracy: the share of remembered pictures that is right when it is left out.
        low: the lower end of its 90 % interval.
        high: the upper end.
        mistakes: how many of them are wrong then.
        confused: what most of the mistakes are: the label, what it is answered, how many; None
            without mistakes.
        curve: (pictures, accuracy) with ever more of the remembered pictures.
        doubled: the accuracy to expect with twice as many pictures; None where nothing tells.
        novel: of the pictures in the folder that was given, the share that resembles nothing
            taught; about 0.05 is usual; None without a folder.
        network: the blocks from the input to the head; empty where that is not known.
        notes: what else a person should know.
        seconds: wall time of the whole call.
    """

    choice: Choice
    sentences: tuple[str, ...]
    options: tuple[Option, ...]
    event: int
    images: int
    classes: int
    smallest: int
    largest: int
    accuracy: float
    low: float
    high: float
    mistakes: int
    confused: tuple[str, str, int] | None
    curve: tuple[tuple[int, float], ...]
    doubled: float | None
    novel: float | None
    network: tuple[Part, ...]
    notes: tuple[str, ...]
    seconds: float

    def option(self, choice: Choice) -> Option:
        """The option of this name."""
        return next(each for each in self.options if each.choice == choice)
