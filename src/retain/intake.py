"""What users hand over, made ready: labels checked, pictures read, features found or computed."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retain.algebra import quantize
from retain.errors import BadImage, BadLabel, UnknownImage
from retain.store import Era, NewImage, Store
from retain.store.writing import Featured
from retain.values import Progress, Sample, Skipped, Source, content_hash
from retain.vision import Extractor, extract_many, unlabelled

__all__ = [
    "FEW",
    "Eyes",
    "Taken",
    "checked_label",
    "chunks",
    "named",
    "quoted",
    "recomputed",
    "resolve",
    "take",
]

LONGEST_LABEL = 1000

_FEW_NAMES = 3

_T = TypeVar("_T")

# Up to so many pictures are looked up one by one; for more, all that is known is asked for at once.
FEW = 16


@dataclass(frozen=True, eq=False, slots=True)
class Eyes:
    """An era and its extractor, ready to look: what is seen with them is of that era alone."""

    era: Era
    extractor: Extractor


@dataclass(frozen=True, eq=False, slots=True)
class Taken:
    """A picture that could be read.

    Attributes:
        image: its content hash.
        name: how it was given.
        label: the label given with it, if any.
        feature: int16 [d].
        norm: the feature's original length.
        data: its bytes; None when the store has its feature already.
    """

    image: str
    name: str
    label: str | None
    feature: NDArray[np.int16]
    norm: float
    data: bytes | None

    def to_store(self, *, keep_bytes: bool) -> NewImage:
        """What the store needs to remember it."""
        return NewImage(
            self.image, self.name, self.data if keep_bytes else None, self.feature, self.norm
        )


def checked_label(label: object) -> str:
    """A label in the one form in which it is stored: NFC, without surrounding white space.

    Raises:
        BadLabel: if it is not text, empty, longer than 1,000 characters, or not valid Unicode.

    >>> checked_label(" café ")
    'café'
    """
    if not isinstance(label, str):
        raise BadLabel(f"a label must be text, not {type(label).__name__} ({label!r})")
    text = unicodedata.normalize("NFC", label).strip()
    if not text:
        raise BadLabel("a label is empty; give every picture a name for what it shows")
    if len(text) > LONGEST_LABEL:
        raise BadLabel(
            f"a label of {len(text):,} characters ({text[:30]!r}…) is too long; "
            f"use at most {LONGEST_LABEL:,}"
        )
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise BadLabel(f"the label {text[:60]!a} is not valid text; use ordinary Unicode")
    return text


def quoted(names: Iterable[str], most: int = 8) -> str:
    """Names between quotes, in order; of many the first, and how many there are.

    >>> quoted("ba"), quoted("dcba", most=2), quoted("")
    ("'a', 'b'", "'a', 'b', … (4 in all)", 'none yet')
    """
    known = sorted(names)
    several = ", ".join(repr(each) for each in known[:most])
    return f"{several}, … ({len(known)} in all)" if len(known) > most else several or "none yet"


def take(
    store: Store,
    eyes: Eyes,
    sources: Sequence[Source],
    progress: Progress | None = None,
) -> Iterator[Taken | Skipped]:
    """Each source in order, with its feature: looked up if the store has it, computed if not.

    What the store knows is never computed again, so a picture has one feature for good.
    """
    extractor, few = eyes.extractor, len(sources) <= FEW
    known = set[str]() if few else store.known(eyes.era)
    asked = {source.image for source in sources if source.image} if few else set()
    told = sorted(asked) if asked and store.keeps(sorted(asked)) else []
    names, vectors, norms = store.features(told, eyes.era) if told else ([], (), ())
    kept = {name: (vectors[i], float(norms[i])) for i, name in enumerate(names)}

    def skip(image: str) -> bool:
        if few:
            return image in kept if image in asked else store.feature(image, eyes.era) is not None
        return image in known

    for done, item in enumerate(extract_many(sources, extractor, skip=skip), 1):
        source = item.source
        found = kept.get(item.image)
        if item.skipped and found is None:
            found = store.feature(item.image, eyes.era)
        if item.skipped and found is None:
            # Another process has forgotten the picture meanwhile.
            item = next(extract_many([source], extractor))
        if item.error is not None:
            yield Skipped(source.name, str(item.error))
        elif found is not None:
            yield Taken(item.image, source.name, source.label, found[0], found[1], None)
        elif item.feature is not None:
            try:
                feature, norm = quantize(item.feature)
            except ValueError as error:
                yield Skipped(source.name, str(error))
            else:
                yield Taken(item.image, source.name, source.label, feature, float(norm), item.data)
        if progress is not None:
            progress(done, len(sources))


def recomputed(
    store: Store, eyes: Eyes, images: Sequence[str], progress: Progress | None = None
) -> Iterator[Featured]:
    """The features of kept pictures, from their bytes; those forgotten meanwhile are left out.

    Raises:
        BadImage: if the extractor cannot look at one of them.
        Damaged: if the bytes of one are not what they were.
    """

    def source(image: str) -> Source:
        def read() -> bytes:
            try:
                return store.blob(image)
            except UnknownImage as error:
                raise BadImage(str(error)) from None

        return Source(image, read)

    for done, item in enumerate(extract_many([source(i) for i in images], eyes.extractor), 1):
        image = item.source.name
        try:
            if item.error is not None:
                raise item.error
            assert item.feature is not None
            feature, norm = quantize(item.feature)
        except (BadImage, ValueError) as error:
            if store.find(image, kept=True):
                raise BadImage(
                    f"{image} cannot be looked at with the extractor {eyes.extractor.name}: "
                    f"{error}; forget the picture, or put a copy of its bytes back"
                ) from None
        else:
            yield image, feature, float(norm)
        if progress is not None:
            progress(done, len(images))


def resolve(store: Store, eyes: Eyes, image: Any) -> Taken:
    """One picture, given as a path, bytes, an array, or the name of a remembered one.

    Raises:
        BadImage: if the file cannot be read.
        UnknownImage: if the text is neither a file nor names exactly one remembered picture.
    """
    if isinstance(image, str) and not Path(image).exists():
        sample = named(store, image)
        found = store.feature(sample.image, eyes.era)
        if found is None:
            raise UnknownImage(f"the feature of {sample.image} is missing; run `retain verify`")
        return Taken(sample.image, sample.source, None, found[0], found[1], None)
    sources = unlabelled(image, eyes.extractor)
    if sources.skipped:
        raise BadImage(f"{sources.skipped[0].path}: {sources.skipped[0].reason}")
    if len(sources.sources) != 1:
        raise UnknownImage(
            f"{image!r} holds {len(sources.sources)} pictures; name exactly one file"
        )
    taken = next(take(store, eyes, sources.sources))
    if isinstance(taken, Skipped):
        raise BadImage(f"{taken.path}: {taken.reason}")
    return taken


def named(store: Store, text: str, *, kept: bool = False) -> Sample:
    """The one remembered picture that a file, a hash, the start of one, or a source stands for.

    With `kept`, also a picture that is only kept so that an undone event can be brought back.

    Raises:
        UnknownImage: if there is none, or more than one; the message says which.
    """
    found = _same_bytes(store, text, kept=kept) or _under_name(store, text, kept=kept)
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{s.image[7:19]} ({s.label})" for s in found[:5])
        raise UnknownImage(f"{text!r} could be {len(found)} pictures: {several}; use the hash")
    raise UnknownImage(_not_remembered(store, text))


def _not_remembered(store: Store, text: str) -> str:
    """Why a text names no remembered picture, and what to give instead."""
    if os.path.isdir(text):
        return (
            f"{text!r} is a folder; name its pictures one by one, as a shell does for "
            f"{os.path.join(text, '*')}, or a whole class"
        )
    if os.path.exists(text):
        return (
            f"{text!r} is there, but not remembered: it was never taught, or is forgotten; teach "
            f"it first (retain learn), or name another picture"
        )
    alike = [s.source for s in store.members() if os.path.basename(s.source) == text][:_FEW_NAMES]
    if alike:
        return (
            f"{text!r} is neither a file nor a remembered picture; did you mean "
            f"{' or '.join(repr(each) for each in alike)}, as it was taught?"
        )
    return (
        f"{text!r} is neither a file nor a remembered picture; give a path, the one under which it "
        f"was taught, or the first six or more digits of a picture's hash as `retain show` and "
        f"`retain predict --json` print it"
    )


def _under_name(store: Store, text: str, *, kept: bool) -> list[Sample]:
    """What has this name, or is called so from the folder we are in."""
    found = store.find(text, kept=kept)
    if not found and text:
        for same in dict.fromkeys((os.path.relpath(text), os.path.abspath(text))):
            found = found or store.find(same, kept=kept)
    return found


def _same_bytes(store: Store, text: str, *, kept: bool) -> list[Sample]:
    try:
        path = Path(text)
        return store.find(content_hash(path.read_bytes()), kept=kept) if path.is_file() else []
    except (OSError, ValueError):
        return []


def chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of at most `size` items."""
    chunk: list[_T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
