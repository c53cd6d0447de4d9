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

_SPREAD: Final[Mapping[Choice, float]] = {"last-block": 0.026, "full": 0.065}
"""Standard deviation of gains about `expected`, in parts of the mistakes."""

_SPREAD_ANEW: Final = 0.15
"""That of starting again, in parts of all."""

# One situation in so many is that much further from what is usual.
_STRANGE: Final = 0.2
_FAR: Final = 4.0

# Standard deviation from one training to the next.
_RUN: Final = 0.015

# Parts of the mistakes that training everything takes away, and adds, at most; and what of that
# the last block does.
_MENDED: Final = 0.3
_SPOILT: Final = 0.1
_BY_LAST_BLOCK: Final = 0.1

# With so many pictures of a class, half of what a network can learn of them is learned.
_HALF_TUNED: Final = 50
# The same for a network that begins anew, with a million parameters; it grows with this power.
_HALF_GROWN: Final = 230
_GROWING: Final = 0.3

_USUAL: Final = 4_000_000

# Who is right in less than this part of what is beyond chance sees next to nothing. Small steps do
# not mend that, though few pictures may still be learned by heart, and there is little to lose.
_BLIND: Final = 0.25

# Mistakes are few below this share, and isolated if no confusion holds more than this part of them.
_FEW: Final = 0.05
_PILED: Final = 0.34
_PAIR: Final = 2


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a classifier's pictures: how many, of how many classes, how many right.

    And how many parameters its network has; None where that is not known.
    """

    images: int
    classes: int
    accuracy: float
    parameters: int | None = None

    @property
    def each(self) -> float:
        """Pictures of a class, on the average."""
        return self.images / self.classes

    @property
    def blind(self) -> bool:
        """Whether hardly more is right than by chance."""
        return (self.accuracy * self.classes - 1) / (self.classes - 1) < _BLIND


def expected(choice: Choice, known: Known) -> Gain:
    """The gain that is usual; 0 for what does not train.

    Of the mistakes, training all of the network takes three in ten away with many pictures, and
    adds one in ten with few, which it learns by heart; the last block does a tenth of either. What
    begins anew knows what its own pictures tell, and no more; the smaller it is, the sooner.

    >>> few, many = Known(40, 8, 0.6), Known(4000, 8, 0.6)
    >>> expected("full", few).mean < 0 < expected("full", many).mean
    True
    """
    wrong, each = 1 - known.accuracy, known.each
    tuned = each / (each + _HALF_TUNED)
    moved = wrong * (_MENDED * tuned - _SPOILT * (1 - tuned))
    if known.blind:
        moved = min(moved, 0.0)
    if choice == "full":
        return Gain(moved, _SPREAD[choice] * wrong, 0)
    if choice == "last-block":
        return Gain(_BY_LAST_BLOCK * moved, _SPREAD[choice] * wrong, 0)
    if choice == "start-again":
        millions = (known.parameters or _USUAL) / 1e6
        chance, half = 1 / known.classes, _HALF_GROWN * millions**_GROWING
        mean = chance + (1 - chance) * each / (each + half) - known.accuracy
        return Gain(mean, _SPREAD_ANEW, 0)
    return Gain(0.0, 0.0, 0)


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
        return usual.mixed(replace(usual, error=_FAR * usual.error), _STRANGE)
    kept = round(known.images * (1 - 1 / folds_of(known.images)))
    missing = usual.mean - expected(choice, replace(known, images=kept)).mean
    error = (tried.error**2 + _RUN**2) ** 0.5
    told = Gain(tried.mean + missing, error, tried.judged)
    # Once in a while a situation is like no other; the trial says how likely that is here.
    near, far = usual.error, _FAR * usual.error
    weight = _STRANGE * told.likelihood(usual.mean, far)
    weight /= weight + (1 - _STRANGE) * told.likelihood(usual.mean, near)
    return told.beside(usual.mean, near).mixed(told.beside(usual.mean, far), weight)


def best(options: Sequence[Option], *, blind: bool = False) -> Option:
    """The cheapest of the options within a point of the best, of those that can be done.

    They are given cheapest first. To throw everything away is advised only where that was tried, or
    where what there is sees next to nothing (`blind`). Whether single mistakes are to be corrected
    is not decided here: see `pays_by_pins`.

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
        and (each.choice != "start-again" or each.trial is not None or blind)
    ]
    most = max(each.gain for each in possible if each.gain is not None)
    return next(each for each in possible if (each.gain or 0.0) >= most - INDIFFERENT)


def pays_by_pins(images: int, mistakes: int, confused: tuple[str, str, int] | None) -> bool:
    """Whether mistakes are few and isolated, so that correcting them one by one is the cure."""
    if not mistakes or confused is None or mistakes > _FEW * images:
        return False
    return confused[2] <= max(_PAIR, _PILED * mistakes)
