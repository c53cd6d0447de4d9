"""Old pictures beside new ones in every step, and loss terms that weigh single pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption
from retain.train.data import Data, joined
from retain.train.needs import Later
from retain.train.recipe import Recipe
from retain.train.sampling import Replay, Sampling
from retain.train.terms import Step, Term

__all__ = ["MIXED", "LogitMatch", "RowCrossEntropy", "beside"]

torch: Final = Later("torch", "training a network")

MIXED: Final = "remembered logits speak of whole pictures; turn mixup and cutmix off"
"""Why they cannot be matched with others."""


def beside(
    fresh: Data, old: Data, recipe: Recipe, seed: int
) -> tuple[Data, NDArray[np.int64], Recipe]:
    """As many old pictures as new ones in a batch of twice the size, and all classes alike often.

    Each old picture comes as often as the others, up to one. Where there are more of them than new
    ones, each epoch takes others: so all old ones are there, if there are epochs enough.

    Args:
        fresh: the new ones.
        old: the kept ones; none for the new ones alone.
        recipe: of the training.
        seed: of who comes once more.

    Returns:
        The new ones and then the old ones; the number among `old` of each, −1 for a new one; and
        the recipe with its batches, and an order that does not ask for classes.

    >>> data = Data([0, 1, 2], ("a", "b", "c"))
    >>> beside(data, Data([], ()), Recipe(), seed=0)[1].tolist()
    [-1, -1, -1]
    """
    if not len(old):
        return fresh, np.full(len(fresh), -1), recipe
    sampling: Sampling | Replay = "all"
    if len(old) > len(fresh):
        drawn, sampling = np.arange(len(old)), Replay(len(fresh))
    else:
        whole, more = divmod(len(fresh), len(old))
        again = np.sort(np.random.default_rng(seed).choice(len(old), more, replace=False))
        drawn = np.concatenate([np.tile(np.arange(len(old)), whole), again])
    numbers = np.concatenate([np.full(len(fresh), -1), drawn.astype(np.int64)])
    changed = replace(recipe, batch=2 * recipe.batch, sampling=sampling)
    return joined([fresh, old.drawn(drawn.tolist())]), numbers, changed


@final
@dataclass(frozen=True, eq=False, slots=True)
class RowCrossEntropy(Term):
    """Cross-entropy over all classes, each picture with a weight of its own; a mean over the batch.

    Attributes:
        weights: float32 [n], of the pictures of the run.
    """

    weights: Any

    def loss(self, step: Step) -> Any:
        """See `Term`."""
        aim = step.targets if step.soft is None else step.soft
        each = torch.nn.functional.cross_entropy(step.output.logits.float(), aim, reduction="none")
        return (self.weights[step.numbers].to(each.device) * each).mean()


@final
@dataclass(frozen=True, eq=False, slots=True)
class LogitMatch(Term):
    """The mean squared distance of logits from remembered ones (DER, equation 5).

    Attributes:
        wanted: float32 [m, classes]; NaN where nothing is remembered, which counts for nothing.
        rows: int64 [n], which of them belongs to each picture of the run; −1 for the last.
        weights: float32 [n], of the pictures.

    Raises:
        BadOption: in `loss`, if pictures are mixed: no logits of mixtures are remembered.
    """

    wanted: Any
    rows: Any
    weights: Any

    def loss(self, step: Step) -> Any:
        """See `Term`."""
        if step.soft is not None:
            raise BadOption(MIXED)
        logits = step.output.logits.float()
        wanted = self.wanted[self.rows[step.numbers]].to(logits.device)
        known = ~wanted.isnan()
        apart = torch.where(known, logits - wanted.nan_to_num(), 0.0).square().sum(1)
        each = apart / known.sum(1).clamp(min=1)
        return (self.weights[step.numbers].to(logits.device) * each).mean()
