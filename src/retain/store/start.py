"""The last layer that a classifier was adopted with, as one file beside its extractor."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retain.errors import Damaged

__all__ = ["FILE", "Layer", "packed", "read"]

FILE = "start.safetensors"

Layer = tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]
"""Labels in their own order, weights [C, d], bias [C]; weights [C, d] on unit features, or None."""


def packed(
    labels: tuple[str, ...],
    weights: NDArray[np.float64],
    bias: NDArray[np.float64],
    unit: NDArray[np.float64] | None = None,
) -> tuple[bytes, str]:
    """The file of a layer, and its SHA-256."""
    from safetensors.numpy import save

    names = np.frombuffer(json.dumps(labels).encode(), np.uint8)
    more = {} if unit is None else {"unit": unit}
    data = save({"weights": weights, "bias": bias, "labels": names, **more})
    return data, hashlib.sha256(data).hexdigest()


def read(folder: Path, sha256: str) -> Layer:
    """The layer in a folder.

    Raises:
        Damaged: if it is missing or not the one whose SHA-256 is recorded.
    """
    from safetensors.numpy import load

    path = folder / FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror}); restore it from a copy") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Damaged(f"{path} is not the layer that was adopted; restore it from a copy")
    arrays = load(data)
    labels = tuple(json.loads(arrays["labels"].tobytes()))
    return labels, arrays["weights"], arrays["bias"], arrays.get("unit")
