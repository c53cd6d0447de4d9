"""Real pictures for benchmarks: features through retain's own extractor, computed once.

The data are found through the environment variable RETAIN_DATA, by default ``../shared`` beside the
repository: a folder with ``data/<name>.npz``. Features are cached in ``benchmarks/cache``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retain.values import Source
from retain.vision import extract_many, load_builtin

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("RETAIN_DATA", HERE.parent.parent / "shared"))


@dataclass(frozen=True, eq=False)
class Stored:
    """Encoded pictures as they lie in a file: `labels` names [n], `train` bool [n]."""

    classes: list[str]
    labels: np.ndarray
    train: np.ndarray
    _offsets: np.ndarray
    _data: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> bytes:
        return self._data[self._offsets[number] : self._offsets[number + 1]].tobytes()

    def of(self, train: bool) -> tuple[list[bytes], list[str]]:
        """The files of the training pictures or of the others, and their labels."""
        rows = np.flatnonzero(self.train == train)
        return [self[i] for i in rows], self.labels[rows].tolist()


def stored(name: str) -> Stored:
    """The encoded pictures of a data set; ends the script with a message where it is absent."""
    path = ROOT / "data" / f"{name}.npz"
    if not path.exists():
        print(f"skipped: {path} is not there; set RETAIN_DATA to the folder that holds data/")
        sys.exit(0)
    with np.load(path) as file:
        classes = [str(each) for each in file["classes"]]
        labels = np.array(classes)[file["labels"]]
        train = file["split"] == [str(each) for each in file["split_names"]].index("train")
        return Stored(classes, labels, train, file["offsets"], file["data"])


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled pictures: `features` float32 [n, d] unnormalised, `labels` [n], `train` bool [n]."""

    name: str
    features: np.ndarray
    labels: np.ndarray
    train: np.ndarray

    @property
    def split(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Training features, training labels, test features, test labels."""
        t = self.train
        return self.features[t], self.labels[t], self.features[~t], self.labels[~t]


def load(name: str) -> Pictures:
    """The pictures of one data set; ends the script with a message where it is absent."""
    files = stored(name)
    extractor = load_builtin("efficientnet_lite0")
    cached = HERE / "cache" / f"{name}.{extractor.fingerprint[-16:]}.npy"
    if cached.exists():
        features = np.load(cached)
    else:
        print(f"extracting {name} once …", file=sys.stderr)
        sources = [Source(str(i), (lambda i=i: files[i])) for i in range(len(files))]
        features = np.stack([each.feature for each in extract_many(sources, extractor)])
        cached.parent.mkdir(exist_ok=True)
        np.save(cached, features)
    return Pictures(name, features, files.labels, files.train)


def unit(features: np.ndarray) -> np.ndarray:
    """What the other classifiers get: the same features at length one, float64."""
    x = features.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    print(f"\n{title}")
    for number, row in enumerate(cells):
        print(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )
        if number == 0:
            print("  ".join("-" * width for width in widths))
    sys.stdout.flush()
