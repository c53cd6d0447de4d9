"""What users hand over, as a list of pictures to read and a list of what was left out.

Nothing is opened here but folders and lists: a picture is read when its turn comes, so a million
files cost a million names. What the user named explicitly and cannot be used is an error when
labels are given, and skipped with its reason when answers are asked for.
"""

from __future__ import annotations

import glob
import os
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadLabel, BadOption
from retain.values import Skipped, Source
from retain.vision import manifest
from retain.vision.extractor import Extractor, VectorExtractor
from retain.vision.files import (
    LARGEST_FILE,
    Entry,
    children,
    read_file,
    reason,
    shown,
    walk,
    why_not_a_file,
)
from retain.vision.images import SUFFIXES, encode_array, encode_pillow, encode_vector
from retain.vision.manifest import is_url, read_manifest

__all__ = ["Collected", "folders_of", "labelled", "unlabelled"]

LAYOUT = (
    "lay them out as FOLDER/label/picture.jpg, or list them in a file with the columns path,label "
    "and give that; to learn them as one class: retain learn NAME FOLDER --label LABEL"
)


@dataclass(frozen=True, slots=True)
class Collected:
    """The pictures found, in a fixed order, and what was left out, with reasons."""

    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...] = ()


def labelled(
    source: Any, labels: Sequence[str] | str | None = None, extractor: Extractor | None = None
) -> Collected:
    """Pictures with labels.

    Args:
        source: a folder of class folders; a CSV, TSV, JSONL or Parquet list (`path,label`); or,
            with `labels`, anything that `unlabelled` takes.
        labels: one for each picture, or one text for all.
        extractor: what will look at them; vectors are taken only by a `VectorExtractor`.

    Raises:
        BadOption: if nothing can be made of the source, or it does not fit the labels.
        BadManifest: if a list is malformed.
        BadLabel: if a label is not text.
    """
    if labels is not None:
        _refuse_own_labels(source)
        return _with_labels(_collect(source, extractor, strict=True), labels)
    if not isinstance(source, str | os.PathLike):
        raise BadOption(
            f"pictures given as {type(source).__name__} need labels: one for each, or one for all"
        )
    path = _checked_path(source)
    if os.path.isdir(path):
        return _class_folders(path)
    if _is_manifest(path):
        return Collected(
            tuple(
                Source(shown(row.path), partial(read_file, row.path), row.label)
                for row in read_manifest(path)
            )
        )
    problem = "it is standard input" if path == "-" else why_not_a_file(path)
    if problem is None or glob.has_magic(path) or path == "-":
        raise BadOption(
            f"{shown(path)} has no label of its own; give a folder of class folders or a list "
            f"(path,label); to learn it: retain learn NAME PICTURE --label LABEL"
        )
    raise BadOption(f"{shown(path)}: {problem}; give a folder of class folders or a list")


def unlabelled(source: Any, extractor: Extractor | None = None) -> Collected:
    """Pictures to be looked at.

    Args:
        source: a file, a folder (everything in it), a pattern such as ``photos/*.jpg``, a list of
            pictures, ``"-"`` (a picture on standard input), bytes, a uint8 array of one picture
            ([h, w, 3] or [h, w]) or many ([n, h, w, 3]), a Pillow image, float vectors [d] or
            [n, d] for a `VectorExtractor`, a `Source`, or a list of any of these.
        extractor: what will look at them.

    Raises:
        BadOption: if nothing can be made of the source; for files see `skipped` instead.
        BadManifest: if a list is malformed.
    """
    return _collect(source, extractor, strict=False)


def folders_of(source: Any, classes: Collection[str]) -> tuple[str, ...]:
    """Which of some classes have a folder of their name right inside a folder; sorted."""
    if not isinstance(source, str | os.PathLike) or not os.path.isdir(source):
        return ()
    try:
        folders, _ = children(_checked_path(source))
    except OSError:  # which is said when it is read
        return ()
    names = {
        unicodedata.normalize("NFC", shown(os.path.basename(each))).strip() for each in folders
    }
    return tuple(sorted(names & set(classes)))


# -- labels ------------------------------------------------------------------------------------


def _with_labels(collected: Collected, labels: Sequence[str] | str) -> Collected:
    sources, count = collected.sources, len(collected.sources)
    if isinstance(labels, str):
        given: list[Any] = [labels] * count
    else:
        given = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    if len(given) != count:
        raise BadOption(f"{count} pictures were given with {len(given)} labels; give one for each")
    for label in given:
        if not isinstance(label, str):
            raise BadLabel(f"a label must be text, not {type(label).__name__} ({label!r})")
    return Collected(
        tuple(
            Source(each.name, each.read, str(label))
            for each, label in zip(sources, given, strict=True)
        ),
        collected.skipped,
    )


def _refuse_own_labels(source: Any) -> None:
    if isinstance(source, str | os.PathLike) and _is_manifest(os.fspath(source)):
        raise BadOption(f"the list {shown(source)} brings its own labels; give no other")


def _class_folders(folder: str) -> Collected:
    try:
        folders, others = children(folder)
    except OSError as error:
        raise BadOption(f"the folder {shown(folder)} cannot be read: {reason(error)}") from error
    if not folders:
        pictures = sum(_is_picture(each.path) for each in others)
        holds = f"{pictures} pictures but " if pictures else ""
        raise BadOption(f"{shown(folder)} holds {holds}no class folders; {LAYOUT}")
    sources: list[Source] = []
    skipped = [
        Skipped(shown(each.path), each.problem or "it lies beside the class folders: no label")
        for each in others
    ]
    for each in folders:
        label = shown(os.path.basename(each))
        found, left_out = _pictures(walk(each, above=folder), label)
        sources += found
        skipped += left_out
        if not found and not left_out:
            skipped.append(Skipped(shown(each), "a class folder without pictures"))
    return Collected(tuple(sources), tuple(skipped))


# -- what was handed over ------------------------------------------------------------------------


def _collect(source: Any, extractor: Extractor | None, *, strict: bool) -> Collected:
    if isinstance(source, str | os.PathLike):
        return _path(_checked_path(source), strict=strict)
    if isinstance(source, bytes | bytearray | memoryview):
        return Collected((Source("bytes", partial(bytes, source)),))
    if isinstance(source, Source):
        return Collected((source,))
    if _is_pillow(source):
        return Collected((Source("picture", partial(encode_pillow, source)),))
    if isinstance(extractor, VectorExtractor):
        vectors = _as_vectors(source, extractor)
        if vectors is not None:
            return _vectors(vectors)
    if not isinstance(source, Iterable):
        raise BadOption(f"pictures cannot be given as {type(source).__name__}; give paths")
    if hasattr(source, "__array__"):
        return _arrays(np.asarray(source), strict=strict)
    sources: list[Source] = []
    skipped: list[Skipped] = []
    for i, item in enumerate(source):
        named = isinstance(item, str | os.PathLike)
        if strict and named and item != "-":
            # With a label for each item, one that cannot be read must not shift the others.
            path = _checked_path(item)
            sources.append(Source(shown(path), partial(read_file, path)))
            continue
        inner = _collect(item, extractor, strict=strict)
        if strict and len(inner.sources) != 1:
            raise BadOption(
                f"item {i} of the list holds {len(inner.sources)} pictures; give one each"
            )
        own = named or isinstance(item, Source)
        sources += [
            each if own else Source(f"{each.name}[{i}]", each.read) for each in inner.sources
        ]
        skipped += inner.skipped
    return Collected(tuple(sources), tuple(skipped))


def _checked_path(source: str | os.PathLike[str]) -> str:
    path = os.fspath(source)
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if is_url(path):
        raise BadOption(f"{path} is on the network; download it and give the file")
    if not path:
        raise BadOption("an empty text is not a path; name a file or a folder")
    return path


def _path(path: str, *, strict: bool) -> Collected:
    if path == "-":
        # Read here, in the caller's thread, where Ctrl-C can end the waiting.
        data = sys.stdin.buffer.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise BadOption(f"standard input has more than {LARGEST_FILE:,} bytes: not a picture")
        return Collected((Source("-", partial(bytes, data)),))
    if os.path.isdir(path):
        sources, skipped = _pictures(walk(path), None)
        if not sources and not skipped:
            return _refuse(path, "a folder without pictures", strict)
        return Collected(tuple(sources), tuple(skipped))
    problem = why_not_a_file(path)
    if problem is not None and glob.has_magic(path) and not os.path.lexists(path):
        matches = sorted(glob.glob(path, recursive=True), key=os.fsencode)
        # Folders that a pattern such as **/* also matches are not read a second time.
        several = [each for each in matches if not os.path.isdir(each)] or matches
        if not several:
            return _refuse(path, "no file has such a name", strict)
        parts = [_path(each, strict=False) for each in several]
        return Collected(
            tuple(source for part in parts for source in part.sources),
            tuple(skipped for part in parts for skipped in part.skipped),
        )
    if problem is not None:
        return _refuse(path, problem, strict)
    if _is_manifest(path):
        rows = read_manifest(path, labels=False)
        return Collected(
            tuple(Source(shown(row.path), partial(read_file, row.path)) for row in rows)
        )
    return Collected((Source(shown(path), partial(read_file, path)),))


def _refuse(path: str, problem: str, strict: bool) -> Collected:
    if strict:
        raise BadOption(f"{shown(path)}: {problem}")
    return Collected((), (Skipped(shown(path), problem),))


def _pictures(entries: Iterator[Entry], label: str | None) -> tuple[list[Source], list[Skipped]]:
    sources, skipped = [], []
    for entry in entries:
        name = shown(entry.path)
        if entry.problem is not None:
            skipped.append(Skipped(name, entry.problem))
        elif _is_picture(entry.path):
            sources.append(Source(name, partial(read_file, entry.path), label))
        else:
            suffix = os.path.splitext(name)[1]
            what = f"{suffix} is not the suffix of a picture" if suffix else "it has no suffix"
            skipped.append(Skipped(name, what))
    return sources, skipped


def _is_picture(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES


def _is_manifest(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in manifest.SUFFIXES


def _is_pillow(source: Any) -> bool:
    # Without importing Pillow for those who never use it.
    return any(each.__module__ == "PIL.Image" for each in type(source).__mro__)


def _as_vectors(source: Any, extractor: VectorExtractor) -> NDArray[Any] | None:
    """Numbers [d] or [n, d]; None if the source is something else, such as a list of paths."""
    try:
        array = np.asarray(source)
    except ValueError:
        raise BadOption(
            f"the vectors differ in length; this classifier takes {extractor.dimension} numbers "
            "for each picture"
        ) from None
    if array.dtype.kind in "iufb" and array.ndim in (1, 2) and array.size:
        if array.shape[-1] != extractor.dimension:
            raise BadOption(
                f"vectors of {array.shape[-1]} numbers were given; this classifier takes "
                f"{extractor.dimension} for each picture"
            )
        return array
    if array.dtype.kind in "iufbc" and array.size:
        raise BadOption(
            f"an array of {array.dtype} {list(array.shape)} is not a list of vectors; give "
            f"real numbers [n, {extractor.dimension}]"
        )
    return None


def _vectors(array: NDArray[Any]) -> Collected:
    if array.ndim == 1:
        return Collected((Source("vector", partial(encode_vector, array)),))
    return Collected(
        tuple(Source(f"vectors[{i}]", partial(encode_vector, row)) for i, row in enumerate(array))
    )


def _arrays(array: NDArray[Any], *, strict: bool) -> Collected:
    if array.dtype.kind in "OUS" and array.ndim == 1:
        return _collect(array.tolist(), None, strict=strict)
    if array.dtype != np.uint8 or array.ndim not in (2, 3, 4):
        raise BadOption(
            f"an array of {array.dtype} {list(array.shape)} is not pictures; give uint8 "
            "[n, height, width, 3] or [height, width, 3] with values from 0 to 255"
        )
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3):
        return Collected((Source("array", partial(encode_array, array)),))
    return Collected(
        tuple(Source(f"array[{i}]", partial(encode_array, each)) for i, each in enumerate(array))
    )
