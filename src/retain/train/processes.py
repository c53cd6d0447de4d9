"""One or many processes that take the same steps, and randomness that any step can begin with."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from retain.errors import BadOption
from retain.train.growing import Growing
from retain.train.needs import Later
from retain.train.recipe import Precision, Recipe

__all__ = ["accelerator", "agree", "at_work", "drawn_from", "own_randomness", "summed"]

torch: Final = Later("torch", "training a network")
accelerate: Final = Later("accelerate", "training a network")
state: Final = Later("accelerate.state", "training a network")


def accelerator(precision: Precision, device: str) -> Any:
    """The `accelerate.Accelerator` of this process.

    It shards nothing and wraps no network: what a step is, is decided here, so that any loss can
    use any part of a network, and any number of processes takes the same step.

    Without CUDA it is the CPU: accelerate would take Apple's GPU, which has no float64, and losses
    are added up in that.

    Raises:
        BadOption: if the precision needs a GPU and there is none.
    """
    # accelerate keeps one precision and one device per process for good; runs here differ.
    alone = state.PartialState._shared_state.get("num_processes", 1) == 1
    state.AcceleratorState._reset_state(reset_partial_state=alone)
    cpu = device == "cpu" or not torch.cuda.is_available()
    if cpu and precision == "fp16":
        raise BadOption(
            "precision fp16 needs a GPU, and this training runs on the CPU; give bf16, or no"
        )
    return accelerate.Accelerator(mixed_precision=precision, cpu=cpu)


def summed(helper: Any, parameters: Sequence[Any], numbers: Any) -> Any:
    """Adds gradients and some numbers over all processes; the numbers are given back.

    Args:
        helper: the accelerator.
        parameters: whose gradients become the sums; one that has none anywhere keeps none.
        numbers: float64 [n].
    """
    if helper.num_processes == 1:
        return numbers
    has = torch.tensor([each.grad is not None for each in parameters], dtype=torch.float64)
    joint = helper.reduce(torch.cat([has.to(numbers.device), numbers]), "sum")
    shared = [each for each, any_ in zip(parameters, joint[: len(has)] > 0, strict=True) if any_]
    if shared:
        for each in shared:
            if each.grad is None:
                each.grad = torch.zeros_like(each)
        flat = helper.reduce(torch.cat([each.grad.flatten() for each in shared]), "sum")
        for each, part in zip(shared, flat.split([p.numel() for p in shared]), strict=True):
            each.grad.copy_(part.view_as(each))
    return joint[len(has) :]


def agree(helper: Any, normalisations: Sequence[Any]) -> None:
    """Gives batch normalisations the mean of the statistics that the processes saw."""
    tensors = [t for each in normalisations for t in (each.running_mean, each.running_var)]
    if helper.num_processes == 1 or not tensors:
        return
    flat = helper.reduce(torch.cat([each.flatten() for each in tensors]), "mean")
    for each, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        each.copy_(part.view_as(each))


def drawn_from(*place: int) -> None:
    """Seeds every random generator by a place in a run: seed, step, process, part.

    So a step draws the same numbers whether the run came there by itself or resumed, without any
    state of a generator to be kept.
    """
    digest = hashlib.sha256(repr(place).encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "little"))
    # Nothing here draws from these, but a network of the user's own may.
    np.random.seed(int.from_bytes(digest[8:12], "little"))  # noqa: NPY002
    random.seed(digest)


@contextmanager
def own_randomness() -> Iterator[None]:
    """Leaves every random generator as it was before the block."""
    before = (np.random.get_state(), random.getstate())  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(before[0])  # noqa: NPY002
            random.setstate(before[1])


@contextmanager
def at_work(model: Growing, recipe: Recipe) -> Iterator[None]:
    """The network where it was trained, a GPU if there is one; and then on the CPU again.

    For all looks at many pictures before, between and after the phases of a lesson.
    """
    device = accelerator("no", recipe.device).device
    if device.type != "cuda":
        yield
        return
    model.module.to(device)
    try:
        yield
    finally:
        model.module.to("cpu")
