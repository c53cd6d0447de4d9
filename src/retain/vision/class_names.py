"""The names of a classifier's classes, from the files in which people keep them."""

from __future__ import annotations

import ast
import csv
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from retain.errors import BadOption

__all__ = ["distinct", "metadata_labels", "read_labels"]

LARGEST: Final = 4 * 1024 * 1024
"""In bytes; larger files are no lists of classes."""

KEYS: Final = ("retain.labels", "names", "labels", "classes", "class_names", "id2label")
"""Where exporters put names into an ONNX file's metadata; Ultralytics says `names`."""


def read_labels(source: Sequence[str] | Mapping[Any, Any] | str | os.PathLike[str]) -> list[str]:
    """The names of the classes in the order of the outputs.

    Args:
        source: names in order; a mapping from index to name; or a file: text with one name a
            line, JSON (a list, an object from index to name, or Hugging Face's `config.json`
            with `id2label`), or CSV with `index,label`.

    Raises:
        BadOption: if the file cannot be read, a name is empty, or an index is missing or twice.

    >>> read_labels({"1": "dog", "0": "cat"})
    ['cat', 'dog']
    """
    if isinstance(source, Mapping):
        return _of_json(source, "the labels")
    if not isinstance(source, str | os.PathLike):
        return _checked(list(source), "the labels")
    name = os.fspath(source)
    path = Path(source)
    try:
        if path.stat().st_size > LARGEST:
            raise BadOption(f"{name} has {path.stat().st_size:,} bytes, too many for class names")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadOption(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadOption(f"{name} is not UTF-8 text ({error}); save it as UTF-8") from error
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "["):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadOption(f"{name} is not JSON: {error}") from error
        return _of_json(content, name)
    if path.suffix.lower() == ".csv":
        return _of_csv(text, name)
    return _checked(text.rstrip().splitlines(), name)


def distinct(labels: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of which no two are the same, and a note for each that was changed.

    Names count as the same if they are, once in NFC and without surrounding white space.

    >>> distinct(["crane", "dog", "crane"])
    (('crane', 'dog', 'crane (2)'), ("class 2 is 'crane (2)': class 0 is 'crane' too",))
    """
    normal = [unicodedata.normalize("NFC", label).strip() for label in labels]
    taken = set(normal)
    first: dict[str, int] = {}
    result, notes = [], []
    for index, label in enumerate(normal):
        if label not in first:
            first[label] = index
            result.append(labels[index])
            continue
        number = 2
        while f"{label} ({number})" in taken:
            number += 1
        result.append(f"{label} ({number})")
        taken.add(result[-1])
        notes.append(f"class {index} is {result[-1]!r}: class {first[label]} is {label!r} too")
    return tuple(result), tuple(notes)


def metadata_labels(told: Mapping[str, str]) -> tuple[str, list[str]] | None:
    """The names in an ONNX file's metadata, and under which key; None if there are none.

    Args:
        told: its `metadata_props`; the names are JSON, a Python list or dictionary, or separated
            by commas or lines.
    """
    for key in KEYS:
        text = told.get(key, "").strip()
        if not text or len(text) > LARGEST:
            continue
        try:
            return key, _of_json(_parsed(text), f"the metadata {key!r}")
        except BadOption:
            continue
    return None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if text[0] in "[{(":
        try:
            # Builds constants only; Ultralytics writes the text of a Python dictionary.
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            raise BadOption("not a list") from None
    return [each.strip() for each in (text.splitlines() if "\n" in text else text.split(","))]


def _of_json(content: Any, name: str) -> list[str]:
    if isinstance(content, Mapping):
        for key in ("id2label", "label_names", "labels", "names", "classes"):
            if isinstance(content.get(key), Mapping | list):
                return _of_json(content[key], name)
        return _of_pairs([(i, each) for i, each in content.items()], name)
    if isinstance(content, list | tuple):
        return _checked(list(content), name)
    raise BadOption(f"{name} holds a {type(content).__name__}; expected a list of names")


def _of_csv(text: str, name: str) -> list[str]:
    try:
        rows = [row for row in csv.reader(text.splitlines()) if any(map(str.strip, row))]
    except csv.Error as error:
        raise BadOption(f"{name} is not CSV: {error}") from error
    if rows and not rows[0][0].strip().isdigit():
        rows = rows[1:]
    short = next((row for row in rows if len(row) < 2), None)
    if short is not None:
        raise BadOption(f"{name} has the line {','.join(short)!r}; expected index,label")
    return _of_pairs([(row[0], row[1]) for row in rows], name)


def _of_pairs(pairs: Sequence[tuple[Any, Any]], name: str) -> list[str]:
    """Names by index: 0, 1, … each once."""
    found: dict[int, Any] = {}
    for index, label in pairs:
        text = str(index).strip()
        if not (text.isascii() and text.isdigit()):
            raise BadOption(f"{name} gives {label!r} the index {index!r}; use 0, 1, 2, …")
        if int(text) in found:
            raise BadOption(
                f"{name} gives the index {text} twice, to {found[int(text)]!r} and {label!r}"
            )
        # Keras's imagenet_class_index.json has [synset, name] for each.
        pair = isinstance(label, list | tuple) and len(label) == 2
        found[int(text)] = label[1] if pair else label
    missing = next((i for i in range(len(found)) if i not in found), None)
    if missing is not None:
        raise BadOption(f"{name} has {len(found)} names, but none for the index {missing}")
    return _checked([found[i] for i in range(len(found))], name)


def _checked(labels: list[Any], name: str) -> list[str]:
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise BadOption(f"{name}: the name of class {index} is {label!r}; give every class one")
    if not labels:
        raise BadOption(f"{name} holds no class name")
    return [label.strip() for label in labels]
