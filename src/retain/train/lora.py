"""Adapters of low rank beside frozen weights (Hu 2021), put in and merged by peft."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from retain.errors import BadOption
from retain.train.blocks import Block
from retain.train.needs import Later

__all__ = ["adaptable", "adapter_size", "insert", "merge"]

torch: Final = Later("torch", "training a network")
peft: Final = Later("peft", "training by LoRA")


def adaptable(module: Any, blocks: Sequence[Block]) -> frozenset[str]:
    """The layers that can have an adapter: the linear ones, or else the convolutions.

    Depthwise and grouped convolutions are left out, where a low rank saves nothing; so are the
    projections inside `torch.nn.MultiheadAttention`, which does not call its layers.
    """
    names = [layer.name for block in blocks if not block.head for layer in block.layers]
    parts = {name: each for name, each in module.named_modules() if name in set(names)}
    linear = {name for name, each in parts.items() if type(each) is torch.nn.Linear}
    return frozenset(
        linear
        or {
            name
            for name, each in parts.items()
            if isinstance(each, torch.nn.Conv2d) and each.groups == 1
        }
    )


def adapter_size(module: Any, name: str, rank: int) -> int:
    """How many numbers the adapter of a layer has."""
    shape = module.get_submodule(name).weight.shape
    return rank * int(shape[0] + shape[1:].numel())


def insert(module: Any, names: Sequence[str], rank: int, seed: int) -> None:
    """Gives the named layers adapters, in place; they change nothing until they have learned.

    The strength α is twice the rank.

    Raises:
        BadOption: if no layer is named.
        MissingExtra: if peft is not installed.
    """
    if not names:
        raise BadOption("no layer that learns can have a LoRA adapter; train it in full")
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="|".join(re.escape(each) for each in names)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, module)


def merge(module: Any) -> None:
    """Adds what the adapters learned to the weights, and takes them out, in place."""
    layers = Later("peft.tuners.tuners_utils", "training by LoRA")
    for name, part in list(module.named_modules()):
        if isinstance(part, layers.BaseTunerLayer):
            part.merge()
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, part.get_base_layer())
    if hasattr(module, "peft_config"):
        del module.peft_config
