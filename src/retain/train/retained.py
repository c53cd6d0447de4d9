"""A living classifier as a PyTorch module: its network, and retain's head as the last layer.

The head is more than a matrix: features are brought to length one and rounded, as in `predict`, and
a corrected picture may answer for its own neighbourhood. So the last layer is replaced by a small
module that computes the same in the same order; all other layers keep their names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption, CannotAdopt, Damaged
from retain.train.exporting import scores_in
from retain.train.keeping import OWN, Kept, unpacked
from retain.train.needs import need

__all__ = ["load_exported", "rebuilt", "rebuilt_network", "runner", "torch_file"]

WHAT: Final = "a classifier as a PyTorch module"
SCALE: Final = float(1 << 14)
TINY: Final = 1e-300
LARGEST: Final = float(np.finfo(np.float32).max)
ACTIVATIONS: Final = ("softmax", "log_softmax", "sigmoid", "none")

_PARTS: Final = ("weight", "bias", "start", "stored", "thresholds", "targets")


def torch_file(
    kept: bytes,
    head: Mapping[str, NDArray[Any]],
    numbers: Mapping[str, float],
    told: Mapping[str, str],
) -> bytes:
    """The safetensors file that `load_exported` reads.

    Args:
        kept: the network's own tensors, as `keeping` packed them.
        head: ``weight`` float64 [C, d] on unit features, ``bias`` [C]; and where there are such,
            ``start`` [C₀, d] on features of their length, and exceptions: ``stored`` int16 [K, d],
            ``thresholds`` [K], ``targets`` int64 [K].
        numbers: ``power`` and ``margin``.
        told: metadata: ``retain.labels``, ``retain.preprocess``, ``retain.activation``, ….

    Raises:
        Damaged: if `kept` is not what was packed.
        MissingExtra: if PyTorch is not installed.
    """
    torch = need("torch", WHAT)
    from safetensors.torch import save

    tensors, metadata = unpacked(kept, "weights.safetensors")
    network = _network(metadata, "weights.safetensors")
    whole = {n: t for n, t in tensors.items() if not n.startswith(f"{network.head}.")}
    for name, array in head.items():
        whole[f"{network.head}.{name}"] = torch.from_numpy(np.array(array))
    more = {"retain.network": network.to_json(), "retain.head": json.dumps(dict(numbers))}
    data: bytes = save(whole, metadata={**told, **more})
    return data


def load_exported(path: str | os.PathLike[str], module: Any = None) -> Any:
    """The classifier that ``retain export --format torch`` wrote, as a `torch.nn.Module`.

    It takes prepared pictures, float32 [n, channels, height, width], and gives probabilities
    [n, C] in the order of its `labels`; `preprocess` says how pictures are prepared, `network` is
    the network itself. In evaluation mode, on the CPU. Nothing of the file is run.

    Args:
        path: the file.
        module: where the network is of a class of your own: one of it, changed in place.

    Raises:
        BadOption: if there is no such file, it is another one, or `module` is needed.
        CannotAdopt: if the network cannot be built, or the tensors do not fit it.
        Damaged: if the file is not whole.
        MissingExtra: if PyTorch or the network's library is not installed.
    """
    name = os.fspath(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadOption(f"{name} cannot be read: {error.strerror}") from error
    return rebuilt(data, name, module)


def rebuilt(data: bytes, name: str, module: Any = None) -> Any:
    """What `load_exported` gives for a file of this content and name; raises the same."""
    need("torch", WHAT)
    tensors, told = unpacked(data, name)
    kept = _network(told, name)
    try:
        labels = tuple(json.loads(told["retain.labels"]))
        rule = json.loads(told["retain.preprocess"])
        numbers = {key: float(value) for key, value in json.loads(told["retain.head"]).items()}
        power, margin, activation = numbers["power"], numbers["margin"], told["retain.activation"]
        if activation not in ACTIVATIONS:
            raise ValueError(f"its activation is {activation!r}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadOption(f"{name} is not what retain export wrote: {error}") from error
    network = kept.build(module, tensors)
    found = {part: tensors.get(f"{kept.head}.{part}") for part in _PARTS}
    if found["weight"] is None or found["bias"] is None or len(found["weight"]) != len(labels):
        raise BadOption(f"{name} is not what retain export wrote: its head is not whole")
    classes = _classes()
    owner, _, leaf = kept.head.rpartition(".")
    try:
        setattr(network.get_submodule(owner), leaf, classes.RetainedHead(found, power, margin))
        network.load_state_dict(tensors)
    except (AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CannotAdopt(
            f"the tensors of {name} do not fit {kept.library}:{kept.name} ({reason}); install the "
            f"version of it that the classifier was adopted with"
        ) from error
    return classes.RetainedNetwork(network, activation, labels, rule).eval()


def rebuilt_network(kept: bytes, module: Any = None) -> tuple[Any, str]:
    """The network that `keeping` packed, with its weights, and the name of its last layer.

    Raises:
        BadOption: if `module` is needed and not given.
        CannotAdopt: if the network cannot be built, or the tensors do not fit it.
        Damaged: if `kept` is not what was packed.
        MissingExtra: if PyTorch or the network's library is not installed.
    """
    need("torch", WHAT)
    tensors, told = unpacked(kept, "weights.safetensors")
    described = _network(told, "weights.safetensors")
    network = described.build(module, tensors)
    _fit(network, described.head, tensors)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        way_out = (
            "give one of that class, built as the one that was adopted"
            if described.library == OWN
            else "install the version of it that the classifier was made with"
        )
        raise CannotAdopt(
            f"the tensors that are kept do not fit {described.library}:{described.name} "
            f"({reason}); {way_out}"
        ) from error
    return network.eval(), described.head


def _fit(network: Any, head: str, tensors: Mapping[str, Any]) -> None:
    """Lessons add classes to a linear last layer, and biases where it had none."""
    torch = need("torch", WHAT)
    weight, bias = tensors.get(f"{head}.weight"), f"{head}.bias" in tensors
    try:
        layer = network.get_submodule(head)
    except AttributeError:
        return  # whatever does not fit is told when the tensors are loaded
    if weight is None or weight.ndim != 2 or type(layer) is not torch.nn.Linear:
        return
    classes, width = weight.shape
    now = (layer.out_features, layer.in_features, layer.bias is not None)
    if now != (classes, width, bias) and width == layer.in_features:
        owner, _, leaf = head.rpartition(".")
        setattr(network.get_submodule(owner), leaf, torch.nn.Linear(width, classes, bias=bias))


def runner(network: Any) -> Callable[[NDArray[Any]], NDArray[np.float64]]:
    """A module as a function from one prepared picture [1, …] to probabilities [C].

    Its errors are `CannotAdopt`: a network of somebody's own may fail in any way.
    """
    torch = need("torch", WHAT)

    def run(pixels: NDArray[Any]) -> NDArray[np.float64]:
        try:
            with torch.no_grad():
                answer = network(torch.from_numpy(np.ascontiguousarray(pixels)))
            return np.asarray(answer[0].numpy(), np.float64)
        except Exception as error:  # modules are anybody's code
            reason = " ".join(str(error).split())[:200]
            raise CannotAdopt(
                f"the network does not take retain's head in the place of its last layer "
                f"({reason}); export it as ONNX"
            ) from error

    return run


def _network(told: Mapping[str, str], name: str) -> Kept:
    try:
        return Kept.from_json(told["retain.network"])
    except KeyError as error:
        raise BadOption(
            f"{name} was not exported by retain; load it with the library that wrote it"
        ) from error
    except ValueError as error:
        raise Damaged(f"{name} does not say what network it holds: {error}") from error


@cache
def _classes() -> SimpleNamespace:
    """The two modules; made when PyTorch is wanted, and not before."""
    torch = need("torch", WHAT)
    nn = torch.nn

    class RetainedHead(nn.Module):  # type: ignore[misc, name-defined]
        """Features [n, d] to logits float32 [n, C], as `retain.algebra` computes them."""

        def __init__(self, parts: Mapping[str, Any], power: float, margin: float) -> None:
            super().__init__()
            for name in ("weight", "bias", "start"):
                value = parts[name]
                self.register_parameter(name, None if value is None else nn.Parameter(value))
            for name in ("stored", "thresholds", "targets"):
                self.register_buffer(name, parts[name])
            self.power, self.margin = power, margin

        def forward(self, features: Any) -> Any:
            wide = self.weight.shape[1]
            if features.ndim == 4 and features.shape[1:] == (wide, 1, 1):
                return self.logits(features.flatten(1))[:, :, None, None]
            flat = features.reshape(-1, wide)
            return self.logits(flat).reshape(*features.shape[:-1], -1)

        def logits(self, features: Any) -> Any:
            x = features.double()
            if self.power != 1.0:
                x = (x.sign() * x.abs() ** self.power).float().double()
            largest = x.abs().amax(1, keepdim=True).clamp_min(TINY)
            x = x / largest
            length = (x * x).sum(1, keepdim=True).sqrt()
            scaled = x / length.clamp_min(TINY) * SCALE
            # Rounded, but with the gradient of what was rounded; the sum is exact.
            whole = scaled + (scaled.round() - scaled).detach()
            phi = whole / SCALE
            found = nn.functional.linear(phi, self.weight.double(), self.bias.double())
            if self.start is not None:
                rho = (length * largest).clamp_max(LARGEST).float().double()
                begun = rho * nn.functional.linear(phi, self.start.double())
                rest = found.shape[1] - begun.shape[1]
                found = found + nn.functional.pad(begun, (0, rest))
            return (self.excepted(whole, found) if self.stored is not None else found).float()

        def excepted(self, whole: Any, logits: Any) -> Any:
            stored = self.stored.double()
            lengths = (stored * stored).sum(1).sqrt().clamp_min(1.0)
            own = (whole * whole).sum(1, keepdim=True).sqrt().clamp_min(1.0)
            cosines = (whole @ stored.T) / (own * lengths)
            near = torch.where(cosines > self.thresholds, cosines, -2.0)
            best, nearest = near.max(1, keepdim=True)
            hits = near == best
            nearest = hits.int().argmax(1, keepdim=True)  # the first of equals
            classes = torch.arange(logits.shape[1], device=logits.device)
            chosen = (self.targets[nearest] == classes) & (best > -1.5)
            rivals = torch.where(chosen, -torch.inf, logits).amax(1, keepdim=True)
            return torch.where(chosen, torch.maximum(logits, rivals + self.margin), logits)

    class RetainedNetwork(nn.Module):  # type: ignore[misc, name-defined]
        """Prepared pictures [n, channels, height, width] to probabilities [n, C]."""

        def __init__(
            self, network: Any, activation: str, labels: Sequence[str], preprocess: Any
        ) -> None:
            super().__init__()
            self.network, self.activation = network, activation
            self.labels, self.preprocess = tuple(labels), preprocess

        def forward(self, pictures: Any) -> Any:
            answer = scores_in(torch, self.network(pictures))
            if self.activation == "none":
                return answer.softmax(1)
            return answer.exp() if self.activation == "log_softmax" else answer

    return SimpleNamespace(RetainedHead=RetainedHead, RetainedNetwork=RetainedNetwork)
