"""Which tensor of a file belongs where in a network; what does not belong is told, never skipped.

A network with a part left at its random start answers like any other, only wrong. So every
tensor of the network must be found, by name and shape, or nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args

from retain.errors import BadOption, CannotAdopt
from retain.train.weights import State

__all__ = ["Match", "classes_of", "distance", "fit", "load"]

Match = Literal["names", "order"]
"""Find the place of a tensor by its name, or by its position in the file."""

_PREFIXES: Final = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "network.")
"""What wrappers put before every name: DataParallel, torch.compile, Lightning, and people."""

_HARMLESS: Final = (
    "num_batches_tracked", "total_ops", "total_params", "n_averaged", "attn_mask",
    "relative_position_index", "relative_coords_table", "position_ids",
)  # fmt: skip
"""Ends of names of counters and tables that no longer matter or that the network makes itself."""

_KINDS: Final = frozenset({"weight", "bias", "running_mean", "running_var"})
_SHOWN: Final = 4


def _harmless(name: str) -> bool:
    return name.rpartition(".")[2] in _HARMLESS


def _stripped(tensors: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors under the names that fit best once prefixes are taken away."""
    start = {name.replace("_orig_mod.", ""): value for name, value in tensors.items()}
    best, most = start, len(start.keys() & wanted.keys())
    layer = [start]
    for _ in range(3):
        following = []
        for names in layer:
            for prefix in _PREFIXES:
                if any(name.startswith(prefix) for name in names):
                    bare = {name.removeprefix(prefix): value for name, value in names.items()}
                    following.append(bare)
                    found = len(bare.keys() & wanted.keys())
                    if found > most and len(bare) == len(names):
                        best, most = bare, found
        layer = following
    return best


def _in_order(state: State, wanted: Mapping[str, Any]) -> dict[str, Any]:
    if not state.ordered:
        raise CannotAdopt(
            f"{state.name} is a safetensors file, which is sorted by name and has lost the order "
            f"of the network; match by names, or give the original .pth file"
        )
    given = [(name, value) for name, value in state.tensors.items() if not _harmless(name)]
    places = [name for name in wanted if not _harmless(name)]
    if len(given) != len(places):
        raise CannotAdopt(
            f"{state.name} has {len(given)} tensors and the network {len(places)}, so they cannot "
            f"be matched by order; this is another network"
        )
    for (name, _), place in zip(given, places, strict=True):
        kinds = {name.rpartition(".")[2], place.rpartition(".")[2]}
        if len(kinds) == 2 and kinds <= _KINDS:
            raise CannotAdopt(
                f"by order, {name} of {state.name} would become {place}, which is another kind of "
                f"tensor; the orders differ, so match by names"
            )
    return {place: value for place, (_, value) in zip(places, given, strict=True)}


def fit(state: State, wanted: Mapping[str, Any], match: Match = "names") -> dict[str, Any]:
    """The tensors of a file under the names of a network; nothing is checked but the order.

    Args:
        state: from `read_state`.
        wanted: tensors of the network by name.
        match: by ``"names"``, of which usual prefixes are taken away, or by ``"order"``.

    Raises:
        BadOption: if `match` is neither.
        CannotAdopt: if the order cannot be that of the network.
    """
    if match not in get_args(Match):
        raise BadOption(f"match is {match!r}; use one of {', '.join(get_args(Match))}")
    if match == "order":
        return _in_order(state, wanted)
    return _stripped(state.tensors, wanted)


def classes_of(tensors: Mapping[str, Any], head: str) -> int | None:
    """How many classes the last layer, called `head`, has among named tensors; None if absent."""
    for part in ("weight", "bias"):
        tensor = tensors.get(f"{head}.{part}")
        if tensor is not None and tensor.ndim:
            return int(tensor.shape[0])
    return None


def distance(tensors: Mapping[str, Any], wanted: Mapping[str, Any], head: str = "") -> int:
    """How many names are on one side only or differ in shape, the last layer left out."""
    ours = {n: tuple(t.shape) for n, t in tensors.items() if not _skipped(n, head)}
    theirs = {n: tuple(t.shape) for n, t in wanted.items() if not _skipped(n, head)}
    both = ours.keys() & theirs.keys()
    same = sum(ours[name] == theirs[name] for name in both)
    return len(ours.keys() | theirs.keys()) - same


def _skipped(name: str, head: str) -> bool:
    return _harmless(name) or (head != "" and name.startswith(f"{head}."))


def load(module: Any, tensors: Mapping[str, Any], *, name: str, network: str, head: str) -> None:
    """Put tensors into a network; all of them, or none.

    Args:
        module: the network, a `torch.nn.Module`; changed in place.
        tensors: from `fit`.
        name: of the file, for messages.
        network: its name, for messages.
        head: the name of the last layer, ``""`` if unknown.

    Raises:
        CannotAdopt: if a tensor is missing, left over, of another shape, or not of numbers that
            the place can hold; the message lists the first of each and what that looks like.
    """
    wanted = module.state_dict()
    missing = [n for n in wanted if n not in tensors and not _harmless(n)]
    unexpected = [n for n in tensors if n not in wanted and not _harmless(n)]
    shared = [n for n in wanted if n in tensors]
    shapes = [
        f"{n} is {_shape(tensors[n])} instead of {_shape(wanted[n])}"
        for n in shared
        if tensors[n].shape != wanted[n].shape
    ]
    kinds = [
        f"{n} is {tensors[n].dtype} instead of {wanted[n].dtype}"
        for n in shared
        if wanted[n].is_floating_point() != tensors[n].is_floating_point()
    ]
    problems = [
        f"{title}: {_few(names)}"
        for title, names in (
            ("missing", missing),
            ("left over", unexpected),
            ("of another shape", shapes),
            ("of another kind", kinds),
        )
        if names
    ]
    if problems:
        hint = _hint(missing, unexpected, shapes, head, network)
        raise CannotAdopt(
            f"the weights {name} do not fit {network}: {'; '.join(problems)}"
            + (f". {hint}" if hint else "")
        )
    # The counters that old files lack stay as they are; everything else has been checked.
    module.load_state_dict({n: tensors[n] for n in shared}, strict=False)


def _shape(tensor: Any) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _hint(
    missing: list[str], unexpected: list[str], shapes: list[str], head: str, network: str
) -> str:
    """What the differences look like; "" if like nothing in particular."""
    replaced = [n for n in unexpected if head and n.startswith(f"{head}.")]
    if replaced and all(n.startswith(f"{head}.") for n in [*missing, *unexpected]) and not shapes:
        return (
            f"The last layer was replaced by several ({_few(replaced)}), and what lies between "
            f"them is not in the file: build the network in Python as it was trained, load the "
            f"weights, and give that module"
        )
    if head and missing and not unexpected and all(n.startswith(f"{head}.") for n in missing):
        return (
            "The file has no last layer: these are the weights of a feature extractor, not of a "
            "classifier"
        )
    positions = ("pos_embed", "position_embed", "relative_position", "rel_pos")
    if shapes and not missing and not unexpected:
        if all(any(each in n for each in positions) for n in shapes):
            return (
                "They were trained at another picture size: give size=, in pixels (or options="
                "{'img_size': …} for timm, {'image_size': …} for torchvision)"
            )
        if all(n.count("×") >= 6 and n.split(" is ")[1].split("×")[1] in "14" for n in shapes[:1]):
            return f"The first layer takes another number of channels than {network}"
    return ""
