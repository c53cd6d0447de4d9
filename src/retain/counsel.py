"""Advice in words: what to do, what is known of the pictures, and what speaks for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from retain.advice import Choice, Option
from retain.algebra.novelty import UNKNOWN_BELOW
from retain.attempts import Attempts
from retain.errors import MissingExtra
from retain.expecting import TRAINED, Known
from retain.trials import Step
from retain.values import Sample

__all__ = ["Looked", "sentences"]

# Several times as many pictures of one class as of another are said.
_UNBALANCED: Final = 5
_MANY_NOVEL: Final = 0.15
_WORTH_COLLECTING: Final = 0.02


@dataclass(frozen=True, slots=True)
class Looked:
    """What the frozen network says of the remembered pictures.

    Attributes:
        samples: those with a label, sorted by hash.
        counts: pictures of each class.
        known: their numbers, and how many are right when left out.
        interval: where that share lies with 90 % confidence.
        judged: how many could be left out.
        mistakes: how many of these are wrong.
        confused: label, answer and number of the most frequent mistake.
        steps: the learning curve, all pictures last.
        doubled: the accuracy it leads to with twice as many.
    """

    samples: tuple[Sample, ...]
    counts: Counter[str]
    known: Known
    interval: tuple[float, float]
    judged: int
    mistakes: int
    confused: tuple[str, str, int] | None
    steps: tuple[Step, ...]
    doubled: float | None


_DO: Final = {
    "learn": "Go on learning",
    "pin": "Go on learning, and correct the mistakes one by one",
    "last-block": "Adapt the last block",
    "full": "Adapt all of the network",
    "start-again": "Start again: train all of the network from random weights",
}


def sentences(
    choice: Choice,
    options: Sequence[Option],
    looked: Looked,
    tried: Attempts,
    novel: float | None,
    refused: Exception | None,
) -> tuple[str, ...]:
    """What to do, and then the reasons.

    Args:
        choice: what is advised.
        options: all that there are.
        looked: what the frozen network says.
        tried: what trials told.
        novel: the share of pictures in a folder that resembles nothing taught, if one was given.
        refused: why there is no training, if there is none.
    """
    by = {each.choice: each for each in options}
    said = [_first(by[choice], by)]
    n, classes = looked.known.images, looked.known.classes
    sizes = looked.counts.values()
    spread = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    low, high = looked.interval
    said.append(
        f"{n:,} pictures of {classes} classes are remembered, {spread} of each; with the network "
        f"as it is, {_share(looked.known.accuracy)} of them are right when they are left out "
        f"({_share(low)} to {_share(high)})."
    )
    if max(sizes) >= _UNBALANCED * min(sizes):
        rare = min(looked.counts, key=lambda label: (looked.counts[label], label))
        said.append(
            f"The classes are out of balance: {rare!r} has {looked.counts[rare]}. Pictures of the "
            f"rare classes help most."
        )
    if looked.confused is not None and looked.confused[2] > 1:
        label, answered, many = looked.confused
        said.append(
            f"Of the {looked.mistakes:,} mistakes {many:,} are {label!r} answered {answered!r}."
        )
    if looked.doubled is not None:
        more = looked.doubled - looked.known.accuracy
        said.append(
            f"Twice as many pictures would bring about {_points(more)} by themselves."
            if more >= _WORTH_COLLECTING
            else "More pictures of the same kind would bring little by themselves."
        )
    if novel is not None:
        beyond = novel > _MANY_NOVEL
        said.append(
            f"Of the pictures in the folder {_share(novel)} resemble nothing taught"
            + (
                "; label some of these before anything is trained, for nobody can judge it there."
                if beyond
                else ", which is usual."
                if novel <= 2 * UNKNOWN_BELOW
                else "."
            )
        )
    if tried.network:
        whole = sum(each.parameters for each in tried.network)
        last = tried.network[-2]
        said.append(
            f"The network has {_millions(whole)} parameters, {_millions(last.parameters)} of them "
            f"in its last block ({last.name})."
        )
    if isinstance(refused, MissingExtra):
        full = by["full"]
        said.append(
            f"Training was not tried, for PyTorch is not installed. With this many, training "
            f"all of the network usually brings {_points(full.gain or 0.0)}; with the extra it is "
            f"tried on yours: pip install 'retain[train]', then ask again."
        )
    elif refused is not None:
        said.append(f"It cannot be trained: {refused}.")
    return tuple(said)


def _first(chosen: Option, by: dict[Choice, Option]) -> str:
    doing = _DO[chosen.choice]
    if chosen.choice in TRAINED:
        assert chosen.gain is not None
        assert chosen.low is not None
        assert chosen.high is not None
        takes = "" if chosen.seconds is None else f", in {_duration(chosen.seconds)}"
        return (
            f"{doing}: {_points(chosen.gain)} are expected on new pictures "
            f"({100 * chosen.low:+.1f} to {100 * chosen.high:+.1f}){takes}: {chosen.command}"
        )
    others = [by[each] for each in TRAINED if by[each].gain is not None and by[each].command]
    if not others:
        return f"{doing}."
    most = max(others, key=lambda each: each.gain or 0.0)
    return (
        f"{doing}: of training, {_points(most.gain or 0.0)} are expected at most on new pictures, "
        f"which is not worth it."
    )


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f} points"


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f} million"


def _duration(seconds: float) -> str:
    return f"about {seconds:.0f} seconds" if seconds < 90 else f"about {seconds / 60:.0f} minutes"
