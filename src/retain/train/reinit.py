"""New random weights for layers of any network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from retain.errors import BadOption
from retain.train.needs import Later

__all__ = ["reinitialise"]

torch: Final = Later("torch", "training a network")

NARROW: Final = 0.02
"""The standard deviation for tokens, positions, and all weights of transformers (ViT, BERT)."""

FAINT: Final = 1e-6
"""Where the scales of residual branches begin (ConvNeXt, appendix A.1)."""


def reinitialise(module: Any, layers: Sequence[str], seed: int) -> None:
    """Gives layers new random weights, in place, and normalisations their first statistics.

    Convolutions as in He 2015, equation 10, by the number of outputs; linear layers as PyTorch
    does, or in transformers normally with a deviation of 0.02. The scale of the last batch
    normalisation of a residual block begins at zero, so that the block begins as its shortcut and
    few steps are enough (Goyal 2017, 1706.02677, §5.1), unless the block says `zero_init=False`.

    Args:
        module: a `torch.nn.Module`.
        layers: names of modules or of parameters.
        seed: the same seed gives the same weights, whatever was drawn before.

    Raises:
        BadOption: if it is not known how a layer begins.
    """
    attention = any(
        hasattr(part, "qkv") or isinstance(part, torch.nn.MultiheadAttention)
        for part in module.modules()
    )
    parts, last = dict(module.named_modules()), _closing(module)
    parameters = dict(module.named_parameters())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name in layers:
            if name in parts and any(True for _ in parts[name].parameters(recurse=False)):
                _layer(name, parts[name], attention)
                if name in last:
                    torch.nn.init.zeros_(parts[name].weight)
            elif name in parts:
                _restart(parts[name])
            else:
                _parameter(name, parameters[name])


def _closing(module: Any) -> set[str]:
    """The last batch normalisation of each residual block, in the form that the zoos give them.

    Without those of blocks of which the network itself says that they begin otherwise.
    """
    found = set()
    for name, part in module.named_modules():
        numbered = sorted(
            each
            for each, child in part.named_children()
            if re.fullmatch(r"bn\d", each)
            and isinstance(child, torch.nn.modules.batchnorm._BatchNorm)
        )
        residual = hasattr(part, "downsample") or getattr(part, "shortcut", False)
        if numbered and residual and getattr(part, "zero_init", True):
            found.add(f"{name}.{numbered[-1]}" if name else numbered[-1])
    return found


def _layer(name: str, part: Any, attention: bool) -> None:
    init = torch.nn.init
    weight = getattr(part, "weight", None)
    if isinstance(part, torch.nn.modules.conv._ConvNd):
        init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(part, torch.nn.Linear) and attention:
        init.trunc_normal_(weight, std=NARROW)
    elif weight is not None and weight.ndim < 2:
        init.ones_(weight)
    elif hasattr(part, "reset_parameters"):
        part.reset_parameters()
    else:
        for key, each in part.named_parameters(recurse=False):
            _parameter(f"{name}.{key}", each)
    bias = getattr(part, "bias", None)
    plain = isinstance(part, torch.nn.Linear) and not attention
    if torch.is_tensor(bias) and not plain:
        init.zeros_(bias)
    _restart(part)


def _restart(part: Any) -> None:
    if getattr(part, "running_mean", None) is not None:
        part.reset_running_stats()


def _parameter(name: str, parameter: Any) -> None:
    key = name.rpartition(".")[2]
    if re.search(r"gamma|layer_scale|^ls", key) or name.endswith(".scale"):
        parameter.fill_(1.0 if parameter.ndim == 0 else FAINT)
    elif key.endswith("bias"):
        parameter.zero_()
    elif key == "in_proj_weight":
        torch.nn.init.xavier_uniform_(parameter)
    elif parameter.ndim > 1 or re.search(r"pos|token|embed", key):
        torch.nn.init.trunc_normal_(parameter, std=NARROW)
    else:
        raise BadOption(
            f"it is not known how the parameter {name!r} begins; leave it out with a rule: "
            f"fine-tuned instead of re-initialised"
        )
