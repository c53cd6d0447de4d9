"""``versions/``: what follows from the journal and is kept only to save time. Never pickle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from retain.store.manifest import write_whole

__all__ = ["clear", "read", "write"]

Arrays = Mapping[str, NDArray[np.generic]]


def write(folder: Path, name: str, arrays: Arrays, meta: Mapping[str, str]) -> None:
    """Keep arrays and texts under a name, whole or not at all; not forced to disk."""
    folder.mkdir(exist_ok=True)
    data = save({key: np.ascontiguousarray(a) for key, a in arrays.items()}, dict(meta))
    write_whole(folder / f"{name}.safetensors", data, durable=False)


def read(folder: Path, name: str) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]] | None:
    """What was kept under a name; None if there is nothing, or nothing readable."""
    path = folder / f"{name}.safetensors"
    try:
        with safe_open(path, framework="np") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return None


def clear(folder: Path) -> None:
    """Remove everything kept."""
    shutil.rmtree(folder, ignore_errors=True)
