"""In which order pictures are seen in an epoch, as a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption

__all__ = ["Sampling", "batches", "order"]

Sampling = Literal["all", "balanced"]
"""Every picture once, or every class equally often."""


def order(labels: Sequence[str], sampling: Sampling, seed: int, epoch: int) -> NDArray[np.int64]:
    """The numbers of the pictures of one epoch, shuffled; as many as there are pictures.

    Args:
        labels: the class of each.
        sampling: ``"balanced"`` draws every class equally often, up to one: each class is gone
            through in a new order as often as needed, and whole before any of it comes again.
        seed: of the run.
        epoch: from 0 on.

    Raises:
        BadOption: if there is no such sampling.

    >>> seen = order(["a"] * 9 + ["b"], "balanced", seed=0, epoch=0)
    >>> int((seen == 9).sum()), int((seen < 9).sum())
    (5, 5)
    """
    rng = np.random.default_rng((seed, epoch))
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
