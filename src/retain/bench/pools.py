"""Pools: the labelled pictures or vectors of one data set, with their features.

A benchmark compares what is done with features, so they are computed once, by retain's own
extractor, and kept in a folder under the hash of the pictures and the extractor's fingerprint: two
methods on the same pool get the same numbers to the last bit.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retain.bench.corruptions import corrupt, parse_corruption
from retain.errors import BadImage, BadOption
from retain.values import Progress, Source, content_hash
from retain.vision import Extractor, extract_many, labelled, load_builtin

__all__ = ["Pool", "default_cache", "find_pool", "load_pool"]

EXTRACTOR = "efficientnet_lite0"
NO_EXTRACTOR = "none"
LAYOUT = (
    "give an .npz with data, offsets, labels, classes, split and split_names (pictures), an .npz "
    "with features, labels and train (vectors), or a folder of class folders, which may lie in "
    "train/ and test/"
)
# Of a folder without a test set, about one picture in five is kept for testing.
_HELD_OUT = 5
_EVERY = 50


@dataclass(frozen=True, eq=False)
class Pool:
    """The labelled pictures of one data set; a row is a picture, everywhere in the benchmark.

    Attributes:
        name: of the data set, with its corruptions if there are any.
        features: float32 [n, d], as an extractor gives them, not normalised.
        labels: [n] texts.
        train: bool [n]; the others are test pictures, which nothing ever learns.
        domains: [n] texts, such as who sent the picture; None where nothing is known.
        digest: hash over pictures (or vectors), labels and split.
        extractor: its fingerprint; ``"vectors"`` where the features were given, ``"none"`` where
            there are none (d is 0).
        images: the file of picture i; None where only vectors are there.
    """

    name: str
    features: NDArray[np.float32]
    labels: NDArray[np.str_]
    train: NDArray[np.bool_]
    domains: NDArray[np.str_] | None
    digest: str
    extractor: str
    images: Callable[[int], bytes] | None

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels of the training pictures, sorted."""
        return tuple(sorted({str(label) for label in self.labels[self.train]}))


def load_pool(
    source: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    extractor: str = EXTRACTOR,
    progress: Progress | None = None,
) -> Pool:
    """A data set as a pool; features are computed the first time and read from then on.

    Args:
        source: an ``.npz`` of pictures or of vectors, or a folder of class folders (see `LAYOUT`).
            After a plus come corruptions: ``shop.npz+gaussian-noise:3+contrast:3`` has every
            picture three times, in the domains clean, gaussian-noise:3 and contrast:3.
        cache: the folder that keeps features; by default `default_cache`.
        extractor: as `retain.create` takes it; not used for vectors. ``"none"`` leaves features
            out, for methods that need pictures only.
        progress: called with pictures done and pictures in all while features are computed.

    Raises:
        BadOption: if the source cannot be read as a pool; the message says what was found.
        BadImage: if a picture cannot be read: a benchmark needs all of them.
    """
    path, *wanted = _split(os.fspath(source))
    raw = _of_folder(Path(path)) if os.path.isdir(path) else _of_npz(Path(path))
    if raw.features is not None:
        if wanted:
            raise BadOption(f"{path} holds vectors, which cannot be corrupted; leave {wanted} out")
        return _pool(raw, np.ascontiguousarray(raw.features, dtype=np.float32), "vectors")
    for each in wanted:
        parse_corruption(each)
    if wanted:
        raw = _corrupted(raw, wanted)
    if extractor == NO_EXTRACTOR:
        return _pool(raw, np.zeros((len(raw.labels), 0), np.float32), NO_EXTRACTOR)
    return _extracted(raw, load_builtin(extractor), Path(cache or default_cache()), progress)


def find_pool(name: str, folders: Sequence[str | os.PathLike[str]] = ()) -> str:
    """The path of a data set by the name that a stream gives it, with its corruptions.

    Looked for in `folders`, in ``$RETAIN_DATA/data`` and ``$RETAIN_DATA`` (by default
    ``../shared``), and in the current folder, as ``<name>.npz`` or a folder.

    Raises:
        BadOption: if it is nowhere; the message lists where it was looked for.
    """
    plain, *corruptions = _split(name)
    root = Path(os.environ.get("RETAIN_DATA", "../shared"))
    tried = [Path(each) for each in folders] + [root / "data", root, Path()]
    for folder in tried:
        for found in (folder / f"{plain}.npz", folder / plain):
            if found.is_file() or (found.suffix != ".npz" and found.is_dir()):
                return "+".join([str(found), *corruptions])
    raise BadOption(
        f"the data set {plain!r} is not in {', '.join(str(each) for each in tried)}; "
        f"name it (--pool PATH), or set RETAIN_DATA to the folder that holds data/{plain}.npz"
    )


def default_cache() -> Path:
    """Where features are kept: ``$RETAIN_CACHE``, else ``retain/features`` in the user's cache."""
    given = os.environ.get("RETAIN_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retain" / "features"


# -- what is on disk ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Raw:
    name: str
    labels: NDArray[np.str_]
    train: NDArray[np.bool_]
    domains: NDArray[np.str_] | None
    content: str
    images: Callable[[int], bytes] | None = None
    features: NDArray[Any] | None = None


def _split(source: str) -> list[str]:
    """A path and its corruptions; a plus inside a file's own name is left alone."""
    if os.path.exists(source):
        return [source]
    path, *rest = source.split("+")
    while rest and ":" not in rest[0]:
        path = f"{path}+{rest.pop(0)}"
    return [path, *rest]


def _of_npz(path: Path) -> _Raw:
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise BadOption(f"there is no {path}; {LAYOUT}") from None
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        raise BadOption(f"{path} cannot be read as .npz ({error}); {LAYOUT}") from None
    if {"features", "labels", "train"} <= stored.keys():
        return _of_vectors(path, stored)
    if {"data", "offsets", "labels", "classes", "split", "split_names"} <= stored.keys():
        return _of_pictures(path, stored)
    raise BadOption(f"{path} has the arrays {', '.join(sorted(stored)) or 'none'}; {LAYOUT}")


def _of_vectors(path: Path, stored: Mapping[str, NDArray[Any]]) -> _Raw:
    features, train = stored["features"], stored["train"]
    labels = stored["labels"].astype(np.str_)
    if features.ndim != 2 or not len(features) == len(labels) == len(train):
        raise BadOption(
            f"{path}: features {features.shape}, labels {labels.shape} and train {train.shape} "
            f"do not belong together; they must be [n, d], [n] and [n]"
        )
    if features.dtype.kind not in "fiu" or not np.isfinite(features).all():
        raise BadOption(f"{path}: features must be finite numbers")
    held = np.ascontiguousarray(features, dtype=np.float32)
    return _Raw(
        path.stem,
        labels,
        train.astype(np.bool_),
        _domains(stored, len(labels)),
        _hash([str(held.shape).encode(), held.tobytes()]),
        features=held,
    )


def _of_pictures(path: Path, stored: Mapping[str, NDArray[Any]]) -> _Raw:
    data, offsets = stored["data"], stored["offsets"]
    count = len(offsets) - 1
    splits = [str(each) for each in stored["split_names"]]
    if "train" not in splits or not count == len(stored["labels"]) == len(stored["split"]):
        raise BadOption(
            f"{path}: {count} pictures, {len(stored['labels'])} labels, {len(stored['split'])} "
            f"entries in split, split_names {splits}; one of each a picture, and train among them"
        )
    names = stored["classes"].astype(np.str_)

    def read(row: int) -> bytes:
        return bytes(data[offsets[row] : offsets[row + 1]])

    return _Raw(
        path.stem,
        names[stored["labels"]],
        stored["split"] == splits.index("train"),
        _domains(stored, count),
        _hash([offsets.astype("<i8").tobytes(), np.ascontiguousarray(data).data]),
        images=read,
    )


def _of_folder(path: Path) -> _Raw:
    parts = [path / "train", path / "test"]
    if not all(each.is_dir() for each in parts):
        parts = [path]
    sources: list[Source] = []
    train: list[bool] = []
    for part in parts:
        found = labelled(str(part))
        if found.skipped:
            worst, more = found.skipped[0], len(found.skipped) - 1
            others = f", nor {more} more in {part}" if more else ""
            raise BadOption(
                f"{worst.path} cannot be used ({worst.reason}){others}; a benchmark needs every "
                f"picture: take out what is none"
            )
        ordered = sorted(found.sources, key=lambda each: each.name)
        sources += ordered
        train += [part.name != "test"] * len(ordered)
    if not sources:
        raise BadOption(f"there are no pictures in {path}; {LAYOUT}")
    hashes = [content_hash(each.read()) for each in sources]
    if len(parts) == 1:
        train = [int(each[-8:], 16) % _HELD_OUT > 0 for each in hashes]
    return _Raw(
        path.resolve().name,
        np.array([each.label for each in sources], dtype=np.str_),
        np.array(train),
        None,
        _hash([each.encode() for each in hashes]),
        images=lambda row: sources[row].read(),
    )


def _domains(stored: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.str_] | None:
    for key in ("domains", "sender"):
        if key in stored and len(stored[key]) == count:
            return stored[key].astype(np.str_)
    return None


def _corrupted(raw: _Raw, wanted: Sequence[str]) -> _Raw:
    kinds = ["clean", *wanted]
    count, clean = len(raw.labels), raw.images
    assert clean is not None

    def read(row: int) -> bytes:
        kind, of = divmod(row, count)
        return clean(of) if kind == 0 else corrupt(clean(of), kinds[kind])

    return _Raw(
        "+".join([raw.name, *wanted]),
        np.tile(raw.labels, len(kinds)),
        np.tile(raw.train, len(kinds)),
        np.repeat(np.array(kinds, dtype=np.str_), count),
        _hash([raw.content.encode(), *(each.encode() for each in kinds)]),
        images=read,
    )


# -- features ----------------------------------------------------------------------------------


def _extracted(raw: _Raw, extractor: Extractor, cache: Path, progress: Progress | None) -> Pool:
    name = f"{raw.name}.{raw.content[-16:]}.{extractor.fingerprint[-16:]}.npy"
    kept = cache / name
    count, images = len(raw.labels), raw.images
    assert images is not None
    features = _kept(kept, (count, extractor.dimension))
    if features is None:
        features = np.empty((count, extractor.dimension), dtype=np.float32)
        sources = [Source(str(row), partial(images, row)) for row in range(count)]
        for done, each in enumerate(extract_many(sources, extractor), 1):
            if each.feature is None:
                raise BadImage(
                    f"picture {each.source.name} of {raw.name} cannot be read ({each.error}); a "
                    f"benchmark needs every picture: take it out of the data set"
                )
            features[done - 1] = each.feature
            if progress is not None and (done % _EVERY == 0 or done == count):
                progress(done, count)
        cache.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f"{name}.{os.getpid()}.tmp")
        with beside.open("wb") as file:
            np.save(file, features)
        beside.replace(kept)
    return _pool(raw, features, extractor.fingerprint)


def _kept(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Features computed before; None where there are none, or the file is not whole."""
    try:
        found: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None


def _pool(raw: _Raw, features: NDArray[np.float32], extractor: str) -> Pool:
    if not raw.train.any() or raw.train.all():
        raise BadOption(
            f"{raw.name} has {int(raw.train.sum())} training and {int((~raw.train).sum())} test "
            f"pictures; a benchmark needs both"
        )
    digest = _hash(
        [raw.content.encode(), "\x00".join(raw.labels).encode(), raw.train.tobytes()]
        + ([] if raw.domains is None else ["\x00".join(raw.domains).encode()])
    )
    return Pool(
        raw.name, features, raw.labels, raw.train, raw.domains, digest, extractor, raw.images
    )


def _hash(parts: Sequence[bytes | memoryview]) -> str:
    """SHA-256 over parts, each preceded by its length, so that no two lists give the same."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(memoryview(part).cast("B")).to_bytes(8, "little"))
        found.update(part)
    return "sha256:" + found.hexdigest()
