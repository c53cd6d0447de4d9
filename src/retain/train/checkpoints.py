"""The state of a run in one file, replaced in one instant.

safetensors holds the tensors, and JSON in its header everything else: weights and progress cannot
part, whatever dies when. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

from retain.errors import BadOption, Damaged, DiskFull, ReadOnly
from retain.train.data import Data
from retain.train.needs import Later

__all__ = [
    "FILE",
    "Checkpoint",
    "digest",
    "flatten",
    "glimpse",
    "prefixed",
    "unflatten",
    "unprefixed",
]

torch: Final = Later("torch", "training a network")

FILE: Final = "run.safetensors"
_FORMAT: Final = 1

# Pictures that are compared when a run goes on.
_GLIMPSES: Final = 32


@final
class Checkpoint:
    """Where a run keeps its state, and when.

    Args:
        folder: made if it is not there.
        seconds: at least so long between two saves, and at least twenty times as long as a save
            takes, except at the end.
        before: called before each save; what it raises keeps the state from the disk.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        seconds: float,
        before: Callable[[], None] | None = None,
    ) -> None:
        self._path = Path(folder) / FILE
        self._fingerprint = ""
        self._seconds, self._took, self._last = seconds, 0.0, time.monotonic()
        self._before = before

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._last >= max(
            self._seconds, 20 * self._took * bool(self._seconds)
        )

    def save(self, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Replaces what is kept; on return it has reached the disk.

        Raises:
            DiskFull: if there is no room.
            ReadOnly: if the folder cannot be written.
        """
        from safetensors.torch import save

        if self._before is not None:
            self._before()
        began = time.monotonic()
        # Own memory for each: safetensors refuses tensors that share theirs.
        apart = {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}
        header = {"format": _FORMAT, "fingerprint": self._fingerprint, "state": state}
        content = save(apart, metadata={"retain": json.dumps(header)})
        unfinished = self._path.with_suffix(f".{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._path)
            _flush(self._path.parent)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            kind = DiskFull if error.errno in (28, 122) else ReadOnly
            raise kind(
                f"the state of the training could not be saved to {self._path} ({error}); the last "
                f"one is still there"
            ) from error
        self._last = time.monotonic()
        self._took = self._last - began

    def load(self, told: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The tensors and the state that were saved last; None if nothing was.

        Args:
            told: all that decides the result of the run; its text is what counts.

        Raises:
            BadOption: if they are of another run.
            Damaged: if the file does not hold what it should.
        """
        from safetensors import SafetensorError, safe_open

        self._fingerprint = "sha256:" + hashlib.sha256(repr(told).encode()).hexdigest()
        for stale in self._path.parent.glob(f"{self._path.stem}.*.part"):
            stale.unlink(missing_ok=True)
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt", device="cpu") as file:
                header = json.loads((file.metadata() or {})["retain"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            known, state = header["format"] == _FORMAT, header["state"]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise Damaged(
                f"{self._path} is not the state of a training run ({error}); remove it to begin "
                f"again"
            ) from error
        if not known or header.get("fingerprint") != self._fingerprint:
            raise BadOption(
                f"{self._path} belongs to another run: the network, the pictures, the recipe, the "
                f"plan or the loss differ; give another folder, or remove it to begin again"
            )
        return tensors, state


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(tensors: Mapping[str, Any]) -> str:
    """The SHA-256 of tensors with their names, shapes and types."""
    result = hashlib.sha256()
    for name in sorted(tensors):
        each = tensors[name].detach().cpu().contiguous()
        result.update(f"{name} {each.dtype} {tuple(each.shape)}\n".encode())
        result.update(each.reshape(-1).view(torch.uint8).numpy().tobytes())
    return "sha256:" + result.hexdigest()


def flatten(prefix: str, state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of an optimiser as tensors by name, and numbers for JSON.

    Args:
        prefix: of the names.
        state: as `torch.optim.Optimizer.state_dict` gives it.
    """
    tensors: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    for place, values in state["state"].items():
        for key, value in values.items():
            if torch.is_tensor(value):
                tensors[f"{prefix}{place}.{key}"] = value
            else:
                numbers[f"{place}.{key}"] = value
    return tensors, numbers


def unflatten(
    prefix: str,
    tensors: Mapping[str, Any],
    numbers: Mapping[str, Any],
    groups: list[dict[str, Any]],
) -> dict[str, Any]:
    """What `flatten` took apart, for `torch.optim.Optimizer.load_state_dict`."""
    named = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    state: dict[int, dict[str, Any]] = {}
    for name, value in (*named.items(), *numbers.items()):
        place, _, key = name.partition(".")
        state.setdefault(int(place), {})[key] = value
    return {"state": state, "param_groups": groups}


def prefixed(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors under longer names.

    >>> prefixed("a.", {"b": 1})
    {'a.b': 1}
    """
    return {prefix + name: each for name, each in tensors.items()}


def unprefixed(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Those whose names begin so, under the rest of their names.

    >>> unprefixed({"a.b": 1, "c": 2}, "a.")
    {'b': 1}
    """
    return {
        name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)
    }


def glimpse(data: Data) -> tuple[Any, ...]:
    """Which pictures these are: all labels, and some of the pictures themselves.

    Args:
        data: all would have to be read from disk.
    """
    some = torch.linspace(0, len(data) - 1, _GLIMPSES).round().long().unique()
    return data.labels, digest({"": data.pictures[some]})
