"""The tensors of an adopted network, kept beside its graph, and how to build it again.

ONNX does not lead back to PyTorch. What does is the name of the network and what its constructor
was given, or, for somebody's own class, that class; it is kept as data and never as code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, final

from retain.errors import BadOption, CannotAdopt, Damaged
from retain.train.backbones import Network
from retain.train.needs import need
from retain.train.sizes import has_size, set_size
from retain.train.zoos import ZOOS, last_layer

__all__ = ["FILE", "Kept", "folded", "keep", "keep_module", "kept_again", "unpacked"]

FILE: Final = "weights.safetensors"
"""What it is called beside a feature graph."""

WHAT: Final = "a PyTorch network"
OWN: Final = "module"


@final
@dataclass(frozen=True, slots=True)
class Kept:
    """How to build a network again.

    Attributes:
        library: ``"timm"``, ``"torchvision"``, ``"transformers"``, or ``"module"`` for a class of
            somebody's own, of which only the name is known.
        name: of the network in that library, or of the class.
        head: the name of its last layer.
        classes: how many that had.
        options: of the constructor; for transformers the whole configuration.
        size: height and width of the pictures that it was set to after it was built, if it was and
            they decide the shapes of its tensors, as in vision transformers.
    """

    library: str
    name: str
    head: str
    classes: int
    options: Mapping[str, Any]
    size: tuple[int, int] | None = None

    def to_json(self) -> str:
        """As text."""
        told = asdict(self)
        if self.size is None:
            del told["size"]
        return json.dumps(told)

    @classmethod
    def from_json(cls, text: str) -> Kept:
        """What `to_json` gave.

        Raises:
            ValueError: if it is something else.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
        try:
            found = cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from error
        texts = (found.library, found.name, found.head)
        if not all(isinstance(each, str) for each in texts) or not isinstance(found.options, dict):
            raise ValueError("a value is impossible")
        if found.size is None:
            return found
        sides: list[Any] = found.size if isinstance(found.size, list) else []  # as JSON has it
        if len(sides) != 2 or not all(type(each) is int and each > 0 for each in sides):
            raise ValueError("a value is impossible")
        return replace(found, size=(sides[0], sides[1]))

    def build(self, module: Any = None, tensors: Mapping[str, Any] | None = None) -> Any:
        """The network with random weights.

        Args:
            module: for a class of somebody's own, one of it; taken as it is, but set to the size
                of the pictures where that was changed.
            tensors: that will be loaded; optional parts are built if they need them.

        Raises:
            BadOption: if such a module is needed and not given, or given and not needed.
            CannotAdopt: if the library cannot build it, as another version of it may not, or it
                cannot be of the size that it was set to.
            MissingExtra: if the library is not installed.
        """
        if (module is None) == (self.library == OWN):
            raise BadOption(
                f"the network is {self.name}, a class of your own; build one of it and give it as "
                f"module=, with any weights"
                if module is None
                else f"the network is {self.library}:{self.name} and is built by its library; "
                f"leave module= out"
            )
        network = self._built(tensors) if module is None else module
        if self.size is not None:
            try:
                set_size(network, self.size)
            except (BadOption, AttributeError) as error:
                raise CannotAdopt(
                    f"{self.library}:{self.name} is not what it was: {error}"
                ) from error
        return network

    def _built(self, tensors: Mapping[str, Any] | None) -> Any:
        try:
            if self.library == "transformers":
                return self._transformers()
            zoo = {each.name: each for each in ZOOS}[self.library]
            return zoo.create(self.name, self.classes, dict(self.options), tensors)
        except (KeyError, TypeError, ValueError, RuntimeError, AssertionError, OSError) as error:
            raise CannotAdopt(
                f"{self.library} cannot build {self.name} as it was ({error}); install the version "
                f"that it was adopted with"
            ) from error

    def _transformers(self) -> Any:
        library = need("transformers", f"a network of the model type {self.name!r}")
        config = library.AutoConfig.for_model(**{"model_type": self.name, **self.options})
        return library.AutoModelForImageClassification.from_config(
            config, attn_implementation="eager"
        )


def keep(network: Network) -> bytes | None:
    """The file of a built network; None where its last layer is not known.

    Raises:
        MissingExtra: if PyTorch is not installed.
    """
    library, _, name = network.name.partition(":")
    options = dict(network.options)
    if getattr(network.module, "transform_input", False):
        options["transform_input"] = True
    return _packed(network.module, Kept(library, name, network.head, network.classes, options))


def keep_module(module: Any, classes: int) -> bytes | None:
    """The file of somebody's own module; None where it has no last layer of so many classes."""
    kind = type(module)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return _packed(module, Kept(OWN, name, last_layer(module, classes), classes, {}))


def kept_again(
    before: bytes, module: Any, classes: int, size: tuple[int, int] | None = None
) -> bytes:
    """The file of a network that was trained further: the same network, with other weights.

    Args:
        before: the file of what it was.
        module: the network now, its last layer linear.
        classes: of that layer.
        size: height and width of its pictures, where it was set to others than before; None if not.

    Raises:
        Damaged: if `before` is no such file.
    """
    _, told = unpacked(before, FILE)
    try:
        kept = replace(Kept.from_json(told["retain.network"]), classes=classes)
    except (KeyError, ValueError) as error:
        raise Damaged(f"{FILE} does not say what network it holds: {error}") from error
    if size is not None and has_size(module):
        kept = replace(kept, size=size)
    data = _packed(module, kept)
    assert data is not None
    return data


def _packed(module: Any, kept: Kept) -> bytes | None:
    torch = need("torch", WHAT)
    from safetensors.torch import save

    if not kept.head:
        return None
    tensors = {}
    for name, tensor in module.state_dict().items():
        if not torch.is_tensor(tensor):
            return None
        whole = tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else None)
        tensors[name] = whole.contiguous().clone()  # tied weights would share their memory
    try:
        described = kept.to_json()
    except (TypeError, ValueError):  # options that are objects
        described = replace(kept, library=OWN, options={}).to_json()
    data: bytes = save(tensors, metadata={"retain.network": described})
    return data


def unpacked(data: bytes, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        Damaged: if it is none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        size = int.from_bytes(data[:8], "little")
        told = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        return load(data), {str(key): str(value) for key, value in told.items()}
    except (SafetensorError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise Damaged(f"{name} is not a whole safetensors file: {error}") from error


def folded(name: str, convolutions: list[tuple[Any, Any]]) -> bytes:
    """The file of a network of timm's whose normalisations are folded into its convolutions.

    They become normalisations that change nothing but the bias.

    Args:
        name: in timm.
        convolutions: weight [out, in, kh, kw] and bias [out] of each, in the order of the network.

    Raises:
        CannotAdopt: if they are not those of this network.
        MissingExtra: if PyTorch or timm is not installed.
    """
    torch = need("torch", WHAT)
    zoo = ZOOS[0]
    module = zoo.create(name, None, {})
    parts = [each for _, each in module.named_modules()]
    layers = [each for each in parts if isinstance(each, torch.nn.Conv2d)]
    norms = [each for each in parts if isinstance(each, torch.nn.BatchNorm2d)]
    shapes = [tuple(each.weight.shape) for each in layers]
    if shapes != [weight.shape for weight, _ in convolutions] or len(norms) != len(layers):
        raise CannotAdopt(f"the graph does not hold the convolutions of timm's {name}")
    with torch.no_grad():
        for layer, norm, (weight, bias) in zip(layers, norms, convolutions, strict=True):
            layer.weight.copy_(torch.from_numpy(weight.copy()))
            norm.bias.copy_(torch.from_numpy(bias.copy()))
            norm.running_mean.zero_()
            norm.running_var.fill_(1.0)
            norm.weight.fill_((1.0 + norm.eps) ** 0.5)
    classes = int(module.num_classes)
    data = _packed(module, Kept(zoo.name, name, zoo.head(module), classes, {}))
    assert data is not None
    return data
