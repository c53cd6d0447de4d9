"""The last layer that a classifier was adopted with, as one file beside its extractor.

An extractor that takes the place of the adopted one brings a layer of its own, named by its digest,
since two eras may have one extractor and different layers.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retain.errors import Damaged

__all__ = ["FILE", "Layer", "file_name", "packed", "read"]

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


def file_name(sha256: str, era: int) -> str:
    """What the file of a layer is called in the folder of the extractor of an era.

    >>> file_name("0123456789abcdef0123", 0), file_name("0123456789abcdef0123", 7)
    ('start.safetensors', 'start-0123456789abcdef.safetensors')
    """
    return f"start-{sha256[:16]}.safetensors" if era else FILE


def read(folder: Path, sha256: str, name: str = FILE) -> Layer:
    """The layer in a folder.

    Raises:
        Damaged: if it is missing or not the one whose SHA-256 is recorded.
    """
    from safetensors.numpy import load

    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror}); restore it from a copy") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Damaged(f"{path} is not the layer that was adopted; restore it from a copy")
    arrays = load(data)
    labels = tuple(json.loads(arrays["labels"].tobytes()))
    return labels, arrays["weights"], arrays["bias"], arrays.get("unit")
