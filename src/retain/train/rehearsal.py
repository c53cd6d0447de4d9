"""Exemplars: which pictures are kept for later lessons, and how many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, final, get_args

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption
from retain.train.augment import Views
from retain.train.data import Data, joined
from retain.train.growing import Growing, Output
from retain.train.inference import outputs
from retain.train.needs import Later
from retain.typed import checked

__all__ = ["Budget", "Choice", "Memory", "choose", "kept", "owned"]

torch: Final = Later("torch", "choosing exemplars")

# Of numbers near 1; far more than rounding makes of them.
_NEAR: Final = 1e-6

Choice = Literal["random", "herding", "entropy", "distance"]
"""``"random"``; ``"herding"``, the mean feature as well as possible (iCaRL, algorithm 4);
``"entropy"``, the most uncertain, and ``"distance"``, the nearest to the decision plane of their
own class (both RWalk, §4.2)."""


@final
@dataclass(frozen=True, slots=True)
class Budget:
    """How many exemplars are kept; give one of the two.

    Attributes:
        total: of all classes together, shared evenly.
        per_class: of each class.

    Raises:
        BadOption: if not exactly one is given, or it is negative or no whole number.
    """

    total: int | None = None
    per_class: int | None = None

    def __post_init__(self) -> None:
        checked(self)
        given = [each for each in (self.total, self.per_class) if each is not None]
        if len(given) != 1 or given[0] < 0:
            raise BadOption(
                f"a budget of total={self.total}, per_class={self.per_class} cannot be; give one "
                f"of the two, 0 or more"
            )

    @property
    def most(self) -> int:
        """The most pictures of a class that may be kept."""
        return (self.per_class if self.total is None else self.total) or 0

    def quotas(self, available: Mapping[str, int]) -> dict[str, int]:
        """How many pictures of each class are kept.

        What a small class leaves is shared among the others. Where the total does not divide, the
        classes with the most pictures get one more; where there are more classes than pictures to
        keep, some get none.

        Args:
            available: how many there are of each.

        >>> Budget(total=10).quotas({"a": 50, "b": 2, "c": 9})
        {'a': 4, 'b': 2, 'c': 4}
        >>> Budget(per_class=3).quotas({"a": 50, "b": 2})
        {'a': 3, 'b': 2}
        """
        if self.per_class is not None:
            return {name: min(many, self.per_class) for name, many in available.items()}
        assert self.total is not None
        result = dict.fromkeys(available, 0)
        left = self.total
        # The smallest first: what they do not need is there when the larger ones are served.
        for place, name in enumerate(sorted(available, key=lambda each: (available[each], each))):
            result[name] = min(available[name], left // (len(available) - place))
            left -= result[name]
        return result


@final
@dataclass(frozen=True, slots=True)
class Memory:
    """What may be kept for methods that want exemplars.

    Attributes:
        budget: how many.
        choice: which.

    Raises:
        BadOption: if there is no such choice.
    """

    budget: Budget = field(default_factory=lambda: Budget(total=2000))
    choice: Choice = "herding"

    def __post_init__(self) -> None:
        checked(self)


def choose(
    model: Growing,
    data: Data,
    many: Mapping[str, int],
    how: Choice,
    *,
    views: Views,
    seed: int = 0,
    batch: int = 128,
) -> Data:
    """The exemplars of each class, the most important first.

    Args:
        model: whose features and scores decide.
        data: to choose from.
        many: how many of each class; a class with fewer gives all that it has.
        how: see `Choice`.
        views: makes numbers of the pictures; nothing is augmented.
        seed: of ``"random"``.
        batch: pictures at once.

    Raises:
        BadOption: if there is no such choice.
    """
    if how not in get_args(Choice):
        raise BadOption(
            f"the choice {how!r} is not known; give one of {', '.join(get_args(Choice))}"
        )
    chosen: list[int] = []
    for place, name in enumerate(sorted(many)):
        own = data.of_class(name)
        quota = min(many[name], len(own))
        if not quota:
            continue
        if how == "random":
            ranked = np.random.default_rng((seed, place)).permutation(len(own))
        else:
            said = outputs(model, data.take(own).pictures, views, batch)
            ranked = _ranked(model, said, name, how, quota)
        chosen += [own[int(each)] for each in ranked[:quota]]
    return data.take(chosen)


def _ranked(model: Growing, said: Output, label: str, how: Choice, quota: int) -> NDArray[np.int64]:
    if how == "herding":
        return _herded(said.features.double().numpy(), quota)
    if how == "entropy":
        logs = said.logits.double().log_softmax(1)
        worth = -(logs.exp() * logs).sum(1)
    else:
        worth = -said.logits[:, int(model.positions([label])[0])].double()
    return np.argsort(-worth.numpy(), kind="stable").astype(np.int64)


def _herded(features: NDArray[np.float64], quota: int) -> NDArray[np.int64]:
    """iCaRL, algorithm 4: each next one brings the mean of the chosen nearest to the true one.

    Which are near is told by one product with all features, and which of these is nearest by the
    formula itself, so that rounding decides nothing that it did not decide there.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(lengths > 0, lengths, 1)
    mean = unit.mean(0)
    total = np.zeros_like(mean)
    # ‖μ − (t + φ)/c‖² = (‖cμ − t‖² − 2 φ·(cμ − t) + ‖φ‖²)/c², of which φ = 0 has no last part.
    own = (lengths[:, 0] > 0).astype(np.float64)
    result: list[int] = []
    for count in range(1, quota + 1):
        rough = own - 2 * (unit @ (count * mean - total))
        near = np.flatnonzero(rough <= rough.min() + _NEAR)
        apart = np.linalg.norm(mean - (total + unit[near]) / count, axis=1)
        best = int(near[np.argmin(apart)])
        result.append(best)
        own[best] = np.inf
        total += unit[best]
    return np.array(result, dtype=np.int64)


def kept(
    model: Growing,
    before: Data,
    fresh: Data,
    budget: Budget,
    how: Choice,
    *,
    views: Views,
    seed: int = 0,
) -> Data:
    """The exemplars after a lesson, never more than the budget.

    A class without new pictures keeps the first of those it had (iCaRL, algorithm 5); any other
    chooses anew among old and new ones.

    Args:
        model: after the lesson.
        before: the exemplars so far, as this function gave them.
        fresh: the lesson's pictures.
        budget: how many.
        how: see `Choice`.
        views: makes numbers of the pictures.
        seed: of ``"random"``.
    """
    pool = joined([before, fresh])
    quotas = budget.quotas(pool.counts)
    new = set(fresh.classes)
    held = [
        place
        for name in before.classes
        if name not in new
        for place in before.of_class(name)[: quotas[name]]
    ]
    chosen = choose(
        model,
        pool,
        {name: many for name, many in quotas.items() if name in new},
        how,
        views=views,
        seed=seed,
    )
    return owned(joined([before.take(held), chosen]))


def owned(data: Data) -> Data:
    """The same pictures in a tensor of their own: what is not among them can be let go."""
    if not len(data):
        return data
    pictures: Any = data.pictures
    return Data(pictures[torch.arange(len(data))], data.labels)
