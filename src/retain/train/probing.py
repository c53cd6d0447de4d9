"""What a short training would make of a network's features, for less than the training costs.

To train the last block, the block before it is asked once: its answers to every picture, and to a
few random versions of each, are kept, and the rest of the network learns from these, once for each
fold. Where the whole network is to learn there is no such way, only smaller pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from retain.train.augment import PLAIN, Views
from retain.train.blocks import blocks_of
from retain.train.data import Data, Pictures
from retain.train.growing import Growing
from retain.train.inference import judging, outputs
from retain.train.loop import fit
from retain.train.memory import laid_out, quick
from retain.train.needs import Later
from retain.train.plan import Plan
from retain.train.recipe import Recipe
from retain.values import Progress

__all__ = ["Part", "Remains", "features", "multiply_adds", "parts", "remains", "trained"]

torch: Final = Later("torch", "trying what training would bring")

Floats = NDArray[np.float32]

_BATCH: Final = 64

# How much of the memory may hold what the block before the last one answered.
_BYTES: Final = 1 << 30


@final
@dataclass(frozen=True, slots=True)
class Part:
    """A block of a network: its name, and how many numbers its parameters are."""

    name: str
    parameters: int


def parts(model: Growing) -> tuple[Part, ...]:
    """The blocks of a network from the input to the head, which comes last."""
    return tuple(Part(each.name, each.size) for each in blocks_of(model.module, model.head))


def multiply_adds(model: Growing, shape: Sequence[int]) -> int:
    """How many multiplications a picture [channels, height, width] costs, forwards.

    Those of convolutions and linear layers are counted, which is nearly all of them.
    """
    total = 0

    def count(layer: Any, given: Any, made: Any) -> None:
        nonlocal total
        each = layer.weight.numel() // layer.weight.shape[0]
        total += each * (made.numel() if torch.is_tensor(made) else 0)

    kinds = torch.nn.Linear | torch.nn.modules.conv._ConvNd
    counted = [part for part in model.module.modules() if isinstance(part, kinds)]
    hooks = [part.register_forward_hook(count) for part in counted]
    try:
        with judging(model):
            model(torch.zeros(1, *shape, device=model.device))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def features(model: Growing, pictures: Pictures, views: Views) -> Floats:
    """What the last layer is given, float32 [n, d], in evaluation mode."""
    return np.asarray(outputs(model, pictures, views, _BATCH).features.numpy(), np.float32)


def trained(
    model: Growing,
    data: Data,
    rows: Sequence[int],
    plan: Plan,
    recipe: Recipe,
    progress: Progress | None = None,
) -> Floats:
    """The features of all pictures [n, d] after a training with those of `rows` alone.

    Raises:
        BadOption, Refused: as `fit`.
    """
    fitted = fit(model, data.take(rows), recipe, plan=plan, progress=progress)
    return features(fitted.model, data.pictures, recipe.views)


@final
@dataclass(frozen=True, eq=False, slots=True)
class Remains:
    """What is left of a network behind the blocks that keep still, and what these answered.

    Attributes:
        model: a network that takes such answers in the place of pictures.
        kept: float16 [(1 + versions)·n, …], the pictures as they are first.
        unit: what these numbers are to be multiplied by.
        labels: of the pictures [n].
        versions: how many random ones there are of each.
    """

    model: Growing
    kept: Any
    unit: float
    labels: tuple[str, ...]
    versions: int

    def frozen(self) -> Floats:
        """The features [n, d] of the network as it is."""
        return features(self.model, self._plain, Views())

    def trained(self, rows: Sequence[int], recipe: Recipe) -> Floats:
        """The features of all pictures [n, d] after the last block learned from those of `rows`.

        As many steps are taken as the recipe would, on the versions that there are.

        Raises:
            BadOption, Refused: as `fit`.
        """
        n, turns = len(self.labels), max(self.versions, 1)
        starts = [n * (1 + turn) for turn in range(self.versions)] or [0]
        short = replace(
            recipe, epochs=max(1, round(recipe.epochs / turns)), augment=PLAIN, views=Views()
        )
        data = Data(_Rows(self.kept, self.unit), self.labels * (1 + self.versions))
        plan = Plan.preset("last-block", batchnorm="frozen")
        chosen = data.take([start + row for start in starts for row in rows])
        fitted = fit(self.model, chosen, short, plan=plan)
        return features(fitted.model, self._plain, Views())

    @property
    def _plain(self) -> _Rows:
        return _Rows(self.kept[: len(self.labels)], self.unit)


@final
class _Rows:
    """Rows of a tensor, read when asked for: a tensor itself would be copied for every fold."""

    def __init__(self, whole: Any, unit: float) -> None:
        self._whole, self._unit = whole, unit

    def __len__(self) -> int:
        return len(self._whole)

    def __getitem__(self, numbers: Any) -> Any:
        return self._whole[numbers].float() * self._unit


def remains(
    model: Growing,
    data: Data,
    recipe: Recipe,
    versions: int = 3,
    progress: Progress | None = None,
) -> Remains | None:
    """The last block and the head by themselves; None where they cannot be taken apart.

    That is the case where something leads around the block before them, such as a connection from
    an earlier one: it is tried on pictures.

    Args:
        model: the network.
        data: all pictures.
        recipe: whose random changes and whose seed make the versions.
        versions: how many random ones of each picture; fewer where memory does not hold them.
        progress: called with the pictures that are done, and their number.
    """
    quick()
    block = blocks_of(model.module, model.head)[-2].name
    views, n = recipe.views, len(data)
    first = views(data.pictures[torch.arange(min(n, 4))])
    twin = model.copy()
    twin.module.to(memory_format=torch.channels_last)
    try:
        given = _given(twin, block, laid_out(first))
        rest = _rest(twin, block, first[:1], tuple(given.shape[1:]))
        with judging(twin), judging(rest):
            wanted = twin(laid_out(first)).features
            found = rest(_four(given)).features
        apart = bool((found - wanted).abs().max() <= 1e-3 * wanted.abs().max())
    except (RuntimeError, TypeError, AttributeError, IndexError):  # modules are anybody's code
        apart = False
    if not apart:
        return None
    shape, largest = _four(given).shape[1:], float(given.abs().max()) or 1.0
    versions = max(0, min(versions, _BYTES // (2 * n * shape.numel()) - 1))
    kept = torch.empty((1 + versions) * n, *shape, dtype=torch.float16)
    done = 0
    with torch.random.fork_rng(devices=[]):
        for turn in range(1 + versions):
            torch.manual_seed(recipe.seed + turn)
            change = recipe.augment if turn else PLAIN
            for start in range(0, n, _BATCH):
                numbers = torch.arange(start, min(start + _BATCH, n))
                seen = laid_out(change.change(data.pictures[numbers], views))
                kept[turn * n + numbers] = _halved(_four(_given(twin, block, seen)) / largest)
                done += len(numbers)
                if progress is not None:
                    progress(done, len(kept))
    return Remains(rest, kept, largest, data.labels, versions)


def _halved(numbers: Any) -> Any:
    """In half precision, which holds no more than 65,504."""
    return numbers.clamp(-6e4, 6e4).half()


def _four(given: Any) -> Any:
    """With four dimensions, as pictures have."""
    return given if given.ndim == 4 else given.reshape(len(given), -1, 1, 1)


def _given(model: Growing, block: str, pictures: Any) -> Any:
    """What a block of the network is given when the network is given pictures."""
    found: list[Any] = []

    def look(part: Any, given: tuple[Any, ...]) -> None:
        found.append(given[0])

    hook = model.module.get_submodule(block).register_forward_pre_hook(look)
    try:
        with judging(model):
            model(pictures)
    finally:
        hook.remove()
    return found[0]


def _rest(model: Growing, block: str, picture: Any, shape: tuple[int, ...]) -> Growing:
    module = _resumed()(model.copy().module, block, picture, shape)
    return Growing(module, f"whole.{model.head}", model.groups, model.kind)


@cache
def _resumed() -> Any:
    """The class of networks that begin at a block; made at its first use, as PyTorch is."""

    class Resumed(torch.nn.Module):  # type: ignore[misc, name-defined]
        """Runs the whole network on one picture, and exchanges what a block is given.

        So no network need be taken to pieces, and what is spent on its first part is that of one
        picture for a whole batch.
        """

        def __init__(self, whole: Any, block: str, picture: Any, shape: tuple[int, ...]) -> None:
            super().__init__()
            self.whole, self.block, self.shape = whole, block, shape
            self.register_buffer("picture", picture, persistent=False)

        def forward(self, given: Any) -> Any:
            part, shape = self.whole.get_submodule(self.block), (len(given), *self.shape)
            hook = part.register_forward_pre_hook(
                lambda _, theirs: (given.reshape(shape), *theirs[1:])
            )
            try:
                return self.whole(self.picture)
            finally:
                hook.remove()

    return Resumed
