"""What a class-incremental method finds again in its next lesson, in a file beside the extractor.

The head of the network in the groups that it grew by, with the names of its classes, and the
tensors that the method carries. It names no picture and holds nothing of a single one.
"""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retain.errors import Damaged
from retain.store import Era, Store, eras

if TYPE_CHECKING:
    from retain.train.growing import Growing
    from retain.train.lessons import Method, Taught
    from retain.train.rehearsal import Memory

__all__ = ["KEY", "alike", "file_of", "linear", "packed", "restored"]

KEY: Final = "lessons"
"""Under which an `adapt` event names the file."""

_FORMAT: Final = 1


def file_of(data: bytes) -> str:
    """What the file is called; the same extractor may come out of another lesson again."""
    return eras.file_of(KEY, data, "safetensors")


def packed(
    model: Growing,
    method: Method | None = None,
    memory: Memory | None = None,
    carried: Mapping[str, Any] | None = None,
    lessons: int = 1,
) -> bytes:
    """The head of a network in the groups that it grew by, and what its method carries.

    Args:
        model: the network; of the rest of it nothing is kept here.
        method: that trained it; None for none.
        memory: what it may keep.
        carried: tensors by name; those that speak of single pictures are left out.
        lessons: how many it has had.
    """
    from safetensors.torch import save

    single = method.single if method is not None else frozenset()
    tensors = {f"head.{name}": each for name, each in model.layer.state_dict().items()}
    tensors |= {
        f"carried.{name}": each for name, each in (carried or {}).items() if name not in single
    }
    told = {
        "format": _FORMAT,
        "groups": model.groups,
        "kind": model.kind,
        "method": [repr(method), repr(memory)] if method is not None else ["", ""],
        "lessons": lessons,
    }
    apart = {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}
    data: bytes = save(apart, metadata={"retain.lessons": json.dumps(told)})
    return data


def alike(method: Method, told: str) -> bool:
    """Whether what a method carried, as it was then, serves it with the options that it has now.

    Args:
        method: as it is.
        told: its text of then, see `packed`.
    """
    if told == repr(method):
        return True
    try:
        call: Any = ast.parse(told, mode="eval").body
        name = call.func.id
        then = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError, AttributeError):
        return False
    now = {each.name: getattr(method, each.name) for each in fields(method)}  # type: ignore[arg-type]
    return name == type(method).__name__ and all(
        name in then and then[name] == value
        for name, value in now.items()
        if name not in method.free
    )


def restored(
    store: Store, era: Era, module: Any, head: str, method: Method, names: Mapping[str, str]
) -> tuple[Taught, list[str]]:
    """The network of an era with the head that it had, what is carried, and by which method.

    Args:
        store: the classifier.
        era: whose extractor it is.
        module: the network, as it is kept.
        head: the name of its last layer.
        method: that goes on with it.
        names: what classes are called now, where they had another name.

    Returns:
        The network, and the method that trained it with its memory, as text.

    Raises:
        Damaged: if the file is missing or not what it was.
    """
    from retain import train
    from retain.train.keeping import unpacked

    file = store.detail(era.number).get(KEY)
    if not isinstance(file, str):  # it came from elsewhere, and nobody knows what its head says
        return train.Taught(train.growing(module, (), head=head, kind=method.head)), ["", ""]
    path = store.folder(era) / Path(file).name
    try:
        data = eras.beside(path.parent, path.name)
        tensors, metadata = unpacked(data, path.name)
        told = json.loads(metadata["retain.lessons"])
        groups = _renamed(told["groups"], names)
        lessons, by = int(told["lessons"]), [str(each) for each in told["method"]]
    except (OSError, KeyError, TypeError, ValueError, Damaged) as error:
        raise Damaged(
            f"{path} does not hold the lessons of the extractor in force ({error}); restore it "
            f"from a copy, or adapt without a method, which does not need it"
        ) from error
    model = _with_head(module, head, method, groups, tensors)
    carried = {
        name.removeprefix("carried."): each
        for name, each in tensors.items()
        if name.startswith("carried.")
    }
    return train.Taught(model, carried=carried, lessons=lessons), by


def _with_head(
    module: Any, head: str, method: Method, groups: Sequence[Sequence[str]], tensors: Any
) -> Growing:
    import torch

    from retain.train import growing

    model = growing(module, (), head=head, kind=method.head)
    for place, group in enumerate(groups):
        model = model.grown(group)
        part = model.layer[place]
        with torch.no_grad():
            # In the order that they had: a name may have changed since.
            part.weight.copy_(tensors[f"head.{place}.weight"])
            if part.bias is not None:
                bias = tensors.get(f"head.{place}.bias")
                part.bias.copy_(torch.zeros(()) if bias is None else bias)
    if method.head == "cosine" and "head.scale" in tensors:
        with torch.no_grad():
            model.layer.scale.copy_(tensors["head.scale"])
    model.groups = tuple(tuple(group) for group in groups)
    return model


def _renamed(groups: Sequence[Sequence[str]], names: Mapping[str, str]) -> list[list[str]]:
    """Groups of classes by the names of now; a class that another took in keeps its own."""
    taken = {name for group in groups for name in group if name not in names}
    found: list[list[str]] = []
    for group in groups:
        found.append([])
        for name in group:
            new = names.get(name, name)
            if name in names and new in taken:
                new = name
            taken.add(new)
            found[-1].append(new)
    return found


def linear(model: Growing) -> Any:
    """The network with one linear layer for all classes, also where it computes cosines.

    Then the scores are the cosines times the length of the features: the best stays the best.
    """
    import torch

    if model.kind == "linear":
        return model.plain()
    from retain.train.growing import Growing

    twin = Growing(copy.deepcopy(model.module), model.head, model.groups, model.kind)
    whole = torch.nn.Linear(model.width, len(model.classes), device=model.device)
    with torch.no_grad():
        rows = torch.cat([torch.nn.functional.normalize(part.weight) for part in model.layer])
        whole.weight.copy_(model.layer.scale * rows)
        whole.bias.zero_()
    parent, _, own = model.head.rpartition(".")
    setattr(twin.module.get_submodule(parent), own, whole)
    return twin.module.eval()
