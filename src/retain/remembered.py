"""Remembered pictures as training sees them, and which of them are held out to judge."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retain.session import Session
from retain.values import Sample
from retain.vision.images import decode
from retain.vision.preprocess import Preprocess, prepare

if TYPE_CHECKING:
    from retain.train.data import Data

__all__ = ["parted", "prepared"]

# Prepared pictures are kept in memory up to so many bytes; beyond, they are read in every epoch.
_IN_MEMORY: Final = 3 << 30

# Classes of fewer pictures hold none out.
_ENOUGH: Final = 5


def parted(
    samples: Sequence[Sample], share: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """The pictures to learn from and those held out, sorted; which is which follows from a hash."""
    ranked: dict[str, list[Sample]] = {}
    for sample in samples:
        ranked.setdefault(sample.label, []).append(sample)
    learned: list[Sample] = []
    aside: list[Sample] = []
    for mine in ranked.values():
        mine.sort(key=lambda each: hashlib.sha256(f"{seed} {each.image}".encode()).digest())
        # A corrected picture is there because the classifier was wrong about it: it is learned.
        free = [each for each in mine if not each.pinned]
        many = max(1, round(share * len(mine))) if share and len(mine) >= _ENOUGH else 0
        out = {each.image for each in free[:many]}
        aside += [each for each in mine if each.image in out]
        learned += [each for each in mine if each.image not in out]
    by_name = attrgetter("image")
    return tuple(sorted(learned, key=by_name)), tuple(sorted(aside, key=by_name))


class _Remembered:
    """Remembered pictures as training sees them; prepared when they are asked for."""

    def __init__(self, session: Session, images: Sequence[str], rule: Preprocess) -> None:
        self._session, self._images = session, images
        zeros, ones = (0.0,) * rule.channels, (1.0,) * rule.channels
        self._rule = replace(rule, scale=1.0, mean=zeros, std=ones, dtype="uint8", layout="NCHW")

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, numbers: Any) -> Any:
        import torch

        found = [self._prepared(self._images[int(each)]) for each in numbers]
        return torch.from_numpy(np.concatenate(found))

    def _prepared(self, image: str) -> Any:
        data = self._session.store.blob(image)
        return prepare(decode(data, shorter=self._rule.needs), self._rule)


def prepared(session: Session, samples: Sequence[Sample], rule: Preprocess) -> Data:
    """Pictures as training sees them, with their labels."""
    import torch

    from retain.train.data import Data, nothing

    if not samples:
        return nothing()
    source: Any = _Remembered(session, [sample.image for sample in samples], rule)
    if len(samples) * rule.height * rule.width * rule.channels <= _IN_MEMORY:
        source = source[torch.arange(len(samples))]
    return Data(source, tuple(sample.label for sample in samples))
