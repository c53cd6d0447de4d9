"""In which order pictures are seen in an epoch, as a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption

__all__ = ["Replay", "Sampling", "batches", "order", "parts"]

Sampling = Literal["all", "balanced"]
"""Every picture once, or every class equally often."""


@final
@dataclass(frozen=True, slots=True)
class Replay:
    """In each epoch all new pictures, and as many old ones, of which there are more.

    Attributes:
        fresh: how many are new; the first of all.
    """

    fresh: int


def order(
    labels: Sequence[str], sampling: Sampling | Replay, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The numbers of the pictures of one epoch, shuffled; in each epoch as many.

    They are as many as there are pictures, of a `Replay` twice as many as are new.

    Args:
        labels: the class of each.
        sampling: ``"balanced"`` draws every class equally often, up to one: each class is gone
            through in a new order as often as needed, and whole before any of it comes again. So
            are the old pictures of a `Replay`, from one epoch to the next.
        seed: of the run.
        epoch: from 0 on.

    Raises:
        BadOption: if there is no such sampling.

    >>> seen = order(["a"] * 9 + ["b"], "balanced", seed=0, epoch=0)
    >>> int((seen == 9).sum()), int((seen < 9).sum())
    (5, 5)
    """
    rng = np.random.default_rng((seed, epoch))
    if isinstance(sampling, Replay):
        old = _of_rounds(len(labels) - sampling.fresh, sampling.fresh, seed, epoch)
        both = np.concatenate([np.arange(sampling.fresh), sampling.fresh + old])
        return rng.permutation(both).astype(np.int64)
    if sampling not in get_args(Sampling):
        raise BadOption(f"sampling {sampling!r} is not known; give all or balanced")
    if sampling == "all":
        return rng.permutation(len(labels)).astype(np.int64)
    places: dict[str, list[int]] = {}
    for place, name in enumerate(labels):
        places.setdefault(name, []).append(place)
    classes = rng.permutation(np.array(sorted(places), dtype=object))
    drawn = []
    for place, name in enumerate(classes):
        own = np.array(places[name], np.int64)
        # Who gets one more is drawn anew each epoch, with the order of the classes.
        many = len(labels) // len(classes) + (place < len(labels) % len(classes))
        rounds = [rng.permutation(own) for _ in range(-(-many // len(own)))]
        drawn.append(np.concatenate([np.zeros(0, np.int64), *rounds])[:many])
    return rng.permutation(np.concatenate(drawn)).astype(np.int64)


def _of_rounds(count: int, many: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """What an epoch takes of numbers that are gone through in a new order each time they end."""
    first, end = epoch * many, (epoch + 1) * many
    rounds = [
        np.random.default_rng((seed, 1, each)).permutation(count)
        for each in range(first // count, -(-end // count))
    ]
    start = first - first // count * count
    return np.concatenate(rounds)[start : start + many]


def batches(numbers: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """An epoch cut into as few batches of at most `size` as possible, all of nearly one size.

    A batch of one picture, which batch normalisation cannot take, comes up only if there is but one
    picture, or `size` is 1: of an odd number cut into pairs, three are together.

    >>> [len(each) for each in batches(np.arange(101), 50)]
    [34, 34, 33]
    """
    if size < 1:
        raise BadOption(f"a batch of {size} pictures cannot be; give 1 or more")
    many = max(1, -(-len(numbers) // size))
    if size > 1 and len(numbers) > 1 and len(numbers) // many == 1:
        many = max(1, len(numbers) // 2)
    return np.array_split(numbers, many)


def parts(
    batch: NDArray[np.int64], process: int, processes: int, most: int
) -> list[NDArray[np.int64]]:
    """What one of several processes takes of a batch, cut into parts that go through the network.

    A part of one picture, which batch normalisation cannot take, comes up only where there is no
    more: there are `most` parts, or as many as have two.

    >>> [len(each) for each in parts(np.arange(7), 0, 1, 8)]
    [3, 2, 2]
    """
    own = batch[process::processes]
    cut = np.array_split(own, min(most, max(1, len(own) // 2)))
    return [each for each in cut if len(each)]
