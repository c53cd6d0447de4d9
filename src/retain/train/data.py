"""Labelled pictures as training sees them: numbers and names, from memory or read when needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, final

import numpy as np

from retain.errors import BadLabel, BadOption
from retain.train.needs import Later

__all__ = ["Data", "Pictures", "joined", "nothing", "split"]

torch: Final = Later("torch", "training a network")


class Pictures(Protocol):
    """Anything that gives pictures by number; a tensor does, and so can a reader of files.

    `source[numbers]`, for int64 [batch] on the CPU, is uint8 or float32
    [batch, channels, height, width], the same at every call.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, numbers: Any, /) -> Any: ...


@final
@dataclass(frozen=True, eq=False, slots=True)
class Data:
    """Labelled pictures.

    Attributes:
        pictures: what gives them by number.
        labels: the class of each, by name.

    Raises:
        BadOption: if there are not as many labels as pictures.
    """

    pictures: Pictures
    labels: tuple[str, ...]
    _places: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.labels):
            raise BadOption(
                f"{len(self.labels)} labels were given for {len(self.pictures)} pictures; give one "
                f"for each"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted.

        Raises:
            BadLabel: if text is mixed with something else.
        """
        try:
            return tuple(sorted(set(self.labels)))
        except TypeError as error:
            bad = next(each for each in self.labels if not isinstance(each, str))
            raise BadLabel(
                f"{bad!r} cannot be a class; labels are text that is not empty"
            ) from error

    @property
    def counts(self) -> Counter[str]:
        """How many pictures each class has."""
        return Counter(self.labels)

    def of_class(self, label: str) -> list[int]:
        """The numbers of the pictures of a class."""
        if not self._places:
            for place, each in enumerate(self.labels):
                self._places.setdefault(each, []).append(place)
        return list(self._places.get(label, ()))

    def take(self, numbers: Sequence[int]) -> Data:
        """The pictures of these numbers, in this order; copied where they are a tensor."""
        if torch.is_tensor(self.pictures):
            chosen = torch.tensor(list(numbers), dtype=torch.int64)
            return Data(self.pictures[chosen], tuple(self.labels[each] for each in numbers))
        return self.drawn(numbers)

    def drawn(self, numbers: Sequence[int]) -> Data:
        """The same without a copy: a picture may come any number of times at no cost."""
        chosen = torch.tensor(list(numbers), dtype=torch.int64)
        return Data(_Chosen(self.pictures, chosen), tuple(self.labels[each] for each in numbers))

    def __add__(self, other: Data) -> Data:
        return joined([self, other])


@final
class _Chosen:
    def __init__(self, source: Pictures, chosen: Any) -> None:
        self._source, self._chosen = source, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, numbers: Any) -> Any:
        return self._source[self._chosen[numbers]]


@final
class _Joined:
    def __init__(self, sources: Sequence[Pictures]) -> None:
        self.sources = sources
        self._ends = torch.tensor(np.cumsum([len(each) for each in sources]), dtype=torch.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, numbers: Any) -> Any:
        owner = torch.searchsorted(self._ends, numbers, right=True)
        result = None
        for which, source in enumerate(self.sources):
            rows = (owner == which).nonzero().flatten()
            if len(rows):
                found = source[numbers[rows] - (self._ends[which] - len(source))]
                if result is None:
                    result = found.new_empty((len(numbers), *found.shape[1:]))
                result[rows] = found
        return result


def nothing() -> Data:
    """No pictures at all."""
    return Data(torch.zeros(0, 3, 1, 1, dtype=torch.uint8), ())


def joined(parts: Sequence[Data]) -> Data:
    """Several sets of pictures as one, in this order.

    The pictures of all parts have one size and one type of numbers.
    """
    filled = [each for each in parts if len(each)]
    if len(filled) < 2:
        return filled[0] if filled else nothing()
    labels = tuple(label for each in filled for label in each.labels)
    sources: list[Pictures] = []
    for each in filled:  # of one depth, lesson after lesson
        pictures = each.pictures
        sources += pictures.sources if isinstance(pictures, _Joined) else [pictures]
    return Data(_Joined(sources), labels)


def split(data: Data, share: float, seed: int = 0) -> tuple[Data, Data]:
    """Two disjoint parts, the second with about `share` of every class.

    A class of one picture stays whole in the first part; any other gives at least one picture and
    keeps at least one.

    Raises:
        BadOption: if `share` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise BadOption(f"a share of {share} cannot be set aside; give one between 0 and 1")
    aside: list[int] = []
    for place, label in enumerate(data.classes):
        numbers = data.of_class(label)
        order = np.random.default_rng((seed, place)).permutation(len(numbers))
        many = min(max(1, round(share * len(numbers))), len(numbers) - 1)
        aside += [numbers[each] for each in order[:many]]
    kept = sorted(set(range(len(data))) - set(aside))
    return data.take(kept), data.take(sorted(aside))
