"""What is to be expected of each choice before anything is tried, and what trials make of it.

The constants are rough, and meant to be: they say which way a thing usually goes with so many
pictures, and how far from that it often is. What is tried on the classifier's own pictures
outweighs them as soon as it is surer than they are. They come from `benchmarks/advising.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from retain.advice import Choice, Option
from retain.trials import Gain

__all__ = [
    "INDIFFERENT",
    "TRAINED",
    "Known",
    "believed",
    "best",
    "expected",
    "folds_of",
    "pays_by_pins",
]

INDIFFERENT: Final = 0.01
"""Options that differ by less than a point are alike, and the cheaper one is taken."""

TRAINED: Final[tuple[Choice, ...]] = ("last-block", "full", "start-again")
"""The choices that train, the cheapest first."""

_SPREAD: Final[Mapping[Choice, float]] = {"last-block": 0.02, "full": 0.05, "start-again": 0.15}
"""Standard deviation of gains about `expected`."""

# Standard deviation from one training to the next.
_RUN: Final = 0.015

# Parts of the mistakes that training everything takes away, and adds, at most; and what of that
# the last block does.
_MENDED: Final = 0.3
_SPOILT: Final = 0.1
_BY_LAST_BLOCK: Final = 0.2

# With so many pictures of a class, half of what a network can learn of them is learned.
_HALF_TUNED: Final = 50
_HALF_GROWN: Final = 350

# Mistakes are few below this share, and isolated if no confusion holds more than this part of them.
_FEW: Final = 0.05
_PILED: Final = 0.34
_PAIR: Final = 2


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a classifier's pictures: how many, of how many classes, how many right."""

    images: int
    classes: int
    accuracy: float

    @property
    def each(self) -> float:
        """Pictures of a class, on the average."""
        return self.images / self.classes


def expected(choice: Choice, known: Known) -> Gain:
    """The gain that is usual; 0 for what does not train.

    Of the mistakes, training all of the network takes three in ten away with many pictures, and
    adds one in ten with few, which it learns by heart; the last block does a fifth of either. What
    begins anew knows what its own pictures tell, and no more.

    >>> few, many = Known(40, 8, 0.6), Known(4000, 8, 0.6)
    >>> expected("full", few).mean < 0 < expected("full", many).mean
    True
    """
    wrong, each = 1 - known.accuracy, known.each
    tuned = each / (each + _HALF_TUNED)
    moved = wrong * (_MENDED * tuned - _SPOILT * (1 - tuned))
    if choice == "full":
        mean = moved
    elif choice == "last-block":
        mean = _BY_LAST_BLOCK * moved
    elif choice == "start-again":
        chance, grown = 1 / known.classes, each / (each + _HALF_GROWN)
        mean = chance + (1 - chance) * grown - known.accuracy
    else:
        return Gain(0.0, 0.0, 0)
    return Gain(mean, _SPREAD[choice], 0)


def folds_of(images: int) -> int:
    """In how many folds so many pictures are parted for trials: few need most to learn from."""
    return 5 if images <= 200 else 3


def believed(choice: Choice, known: Known, tried: Gain | None) -> Gain:
    """What to believe after a trial, or without one.

    A trial learns from a fold less than there is, so it gets what that usually costs; and of two
    trainings that differ by their seeds alone, one is a point or two better.
    """
    usual = expected(choice, known)
    if tried is None:
        return usual
    kept = round(known.images * (1 - 1 / folds_of(known.images)))
    missing = usual.mean - expected(choice, replace(known, images=kept)).mean
    error = (tried.error**2 + _RUN**2) ** 0.5
    return Gain(tried.mean + missing, error, tried.judged).beside(usual.mean, usual.error)


def best(options: Sequence[Option]) -> Option:
    """The cheapest of the options within a point of the best, of those that can be done.

    They are given cheapest first. To throw everything away is advised only where that was tried.
    Whether single mistakes are to be corrected is not decided here: see `pays_by_pins`.

    >>> one = Option("learn", 0.0, 0.0, 0.0, None, "", "", "retain learn shop FOLDER")
    >>> two = Option("full", 0.03, -0.01, 0.07, 60.0, "", "", "retain adapt shop")
    >>> best([one, two]).choice
    'full'
    """
    possible = [
        each
        for each in options
        if each.command
        and each.choice != "pin"
        and (each.choice != "start-again" or each.trial is not None)
    ]
    most = max(each.gain for each in possible if each.gain is not None)
    return next(each for each in possible if (each.gain or 0.0) >= most - INDIFFERENT)


def pays_by_pins(images: int, mistakes: int, confused: tuple[str, str, int] | None) -> bool:
    """Whether mistakes are few and isolated, so that correcting them one by one is the cure."""
    if not mistakes or confused is None or mistakes > _FEW * images:
        return False
    return confused[2] <= max(_PAIR, _PILED * mistakes)
