"""Where a network's blocks begin and end, found in any network.

Plans speak of blocks: what is repeated in a deep network (a residual block, an encoder layer), and
each layer with weights of its own before, between and behind these. Containers of blocks are taken
apart, blocks are not; a normalisation belongs to what comes before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, final

from retain.errors import BadOption
from retain.train.needs import Later

__all__ = ["Block", "Layer", "blocks_of"]

torch: Final = Later("torch", "training")


@final
@dataclass(frozen=True, slots=True)
class Layer:
    """What is frozen, fine-tuned or re-initialised as one.

    Attributes:
        name: as in `named_modules`, or the name of a parameter that is in no layer.
        kind: the name of its class, ``"Parameter"`` for a parameter that is in no layer.
        module: the name of the module that owns the parameters.
        parameters: their names, as in `named_parameters`; none where a normalisation has
            statistics alone.
        size: how many numbers they are.
    """

    name: str
    kind: str
    module: str
    parameters: tuple[str, ...]
    size: int


@final
@dataclass(frozen=True, slots=True)
class Block:
    """Layers that a plan counts as one step of depth.

    Attributes:
        name: of its first module.
        layers: in the order of the network's parts.
        head: whether it is the last layer.
    """

    name: str
    layers: tuple[Layer, ...]
    head: bool = False

    @property
    def size(self) -> int:
        """How many numbers its parameters are."""
        return sum(each.size for each in self.layers)


def blocks_of(module: Any, head: str) -> tuple[Block, ...]:
    """The blocks of a network from the input to the head, which comes last and stands alone.

    Args:
        module: a `torch.nn.Module`; the order of its parts is taken for the order of the depth.
        head: the name of the last layer.

    Raises:
        BadOption: if the network has no such layer, or nothing before it.
    """
    parts = dict(module.named_modules())
    if not head or head not in parts:
        raise BadOption(
            f"{type(module).__name__} has no layer {head!r}; its last layers are "
            f"{', '.join([*parts][-4:])}: name the one that gives the scores"
        )
    found: list[tuple[str, list[Layer]]] = []
    waiting: list[Layer] = []
    for name, layers in _pieces(module, "", head):
        lone = all(_small(parts, each) for each in layers)
        if name != head and lone and not (found and found[-1][0] != head):
            waiting += layers
        elif name != head and lone:
            found[-1][1].extend(layers)
        else:
            found.append((name, [*waiting, *layers]))
            waiting = []
    if waiting and found:
        found[-1][1].extend(waiting)
    body = [Block(name, tuple(layers)) for name, layers in found if name != head]
    if not body:
        raise BadOption(
            f"{type(module).__name__} has nothing before its last layer {head!r}; a network of "
            f"one layer is a head: learn without adapting"
        )
    top = [Block(name, tuple(layers), head=True) for name, layers in found if name == head]
    return (*body, *(top or [Block(head, (), head=True)]))


def _pieces(module: Any, path: str, head: str) -> Iterator[tuple[str, list[Layer]]]:
    for name, parameter in module.named_parameters(recurse=False):
        full = _join(path, name)
        yield full, [Layer(full, "Parameter", path, (full,), parameter.numel())]
    for name, child in module.named_children():
        full = _join(path, name)
        if full != head and (_leads(full, head) or _holds_blocks(child)):
            yield from _pieces(child, full, head)
        elif layers := list(_layers(child, full)):
            yield full, layers


def _layers(module: Any, path: str) -> Iterator[Layer]:
    for name, part in module.named_modules(prefix=path):
        own = {_join(name, key): each for key, each in part.named_parameters(recurse=False)}
        if own and any(True for child in part.children() for _ in child.parameters()):
            for key, each in own.items():
                yield Layer(key, "Parameter", name, (key,), each.numel())
        elif own or _counts(part):
            size = sum(each.numel() for each in own.values())
            yield Layer(name, type(part).__name__, name, tuple(own), size)


def _small(parts: dict[str, Any], layer: Layer) -> bool:
    """Whether a layer is a normalisation, a scale or a token: it is no step of depth."""
    if layer.kind == "Parameter":
        return True
    own = parts[layer.module].parameters(recurse=False)
    return all(each.ndim < 2 for each in own)


def _counts(part: Any) -> bool:
    """Whether a module has statistics, but perhaps no parameters."""
    return getattr(part, "running_mean", None) is not None


def _holds_blocks(module: Any) -> bool:
    """Whether a module is a container of blocks rather than a block."""
    if isinstance(module, torch.nn.Sequential | torch.nn.ModuleList | torch.nn.ModuleDict):
        weighty = [child for child in module.children() if _weights(child)]
        if len(weighty) > 1:
            return True
    return any(_repeats(part) for part in module.modules())


def _repeats(part: Any) -> bool:
    if not isinstance(part, torch.nn.Sequential | torch.nn.ModuleList | torch.nn.ModuleDict):
        return False
    kinds = Counter(
        type(child)
        for child in part.children()
        # A convolution with its normalisation is repeated inside blocks; blocks have two weights.
        if not isinstance(child, torch.nn.Sequential) and _weights(child) > 1
    )
    return any(number > 1 for number in kinds.values())


def _weights(module: Any) -> int:
    return sum(each.ndim > 1 for each in module.parameters())


def _leads(path: str, head: str) -> bool:
    return head.startswith(path + ".")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
