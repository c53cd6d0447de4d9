"""Lists of pictures: CSV (or TSV), JSONL and Parquet files with the columns `path` and `label`.

Paths are relative to the folder of the list. A list is a contract: the first line that cannot be
meant is an error that names it, whereas a picture that cannot be read is only skipped, later.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from retain.errors import BadImage, BadManifest, MissingExtra
from retain.vision.files import read_file, shown

__all__ = ["SUFFIXES", "Row", "is_url", "read_manifest"]

SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a list: where it is, and what it shows if that is known."""

    path: str
    label: str | None


def is_url(text: str) -> bool:
    """Whether a text is the address of something on the network.

    >>> is_url("https://example.org/a.jpg"), is_url("s3://photos/a.jpg"), is_url("C:/a.jpg")
    (True, True, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def read_manifest(path: str, *, labels: bool = True) -> list[Row]:
    """The rows of a list of pictures.

    Args:
        path: a `.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet` file.
        labels: whether every row must have a label.

    Raises:
        BadManifest: if a column, a path or a label is missing or malformed; names the line.
        MissingExtra: if a Parquet file is given and pyarrow is not installed.
    """
    name, suffix = shown(path), os.path.splitext(path)[1].lower()
    try:
        data = read_file(path)
    except BadImage as error:
        raise BadManifest(f"the list {name} cannot be read: {error}") from error
    if suffix == ".parquet":
        records = _parquet(data, name)
    elif suffix in (".jsonl", ".ndjson"):
        records = _jsonl(_text(data, name), name)
    else:
        records = _csv(_text(data, name), name, "\t" if suffix == ".tsv" else ",")
    rows = list(_rows(records, name, os.path.dirname(path), labels))
    if not rows:
        raise BadManifest(f"the list {name} names no picture; give one a line: path,label")
    return rows


def _text(data: bytes, name: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadManifest(f"the list {name} is in UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadManifest(
            f"{name}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8"
        ) from error


Record = tuple[str, dict[str, Any]]
"""Where in the list, for people, and the columns."""


def _csv(text: str, name: str, delimiter: str) -> Iterator[Record]:
    header_line = text.split("\n", 1)[0]
    if ";" in header_line and delimiter not in header_line:
        delimiter = ";"  # what spreadsheets write where the comma separates decimals
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            where, start = f"line {start}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip().lower() for cell in cells]
                _check_columns(header, name)
                continue
            if len(cells) != len(header):
                raise BadManifest(
                    f"{name}, {where}: {len(cells)} columns where the first line has "
                    f"{len(header)}; put a text that holds {delimiter!r} in double quotes"
                )
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise BadManifest(f"{name}, line {start}: {error}; check its quotes") from error


def _jsonl(text: str, name: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadManifest(f"{name}, line {number}: not JSON ({error})") from error
        if not isinstance(record, dict):
            raise BadManifest(
                f'{name}, line {number}: not an object; write {{"path": …, "label": …}}'
            )
        yield f"line {number}", record


def _parquet(data: bytes, name: str) -> Iterator[Record]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra.of("reading Parquet", "parquet") from error
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        columns = {column.lower(): column for column in file.schema_arrow.names}
        _check_columns(columns, name)
        wanted = [columns[key] for key in ("path", "label") if key in columns]
        records = file.read(columns=wanted).to_pylist()
    except (OSError, ValueError, NotImplementedError, pyarrow.ArrowException) as error:
        if isinstance(error, BadManifest):
            raise
        raise BadManifest(f"{name} is not a readable Parquet file: {error}") from error
    for number, record in enumerate(records, 1):
        yield f"row {number}", {key.lower(): value for key, value in record.items()}


def _check_columns(columns: Iterable[str], name: str) -> None:
    if "path" not in columns:
        raise BadManifest(
            f"{name} has the columns {', '.join(map(repr, columns))}; "
            "it needs 'path' and 'label', named in the first line"
        )


def _rows(records: Iterable[Record], name: str, folder: str, labels: bool) -> Iterator[Row]:
    for where, record in records:
        path = record.get("path")
        if not isinstance(path, str) or not path.strip():
            raise BadManifest(f"{name}, {where}: the path is {path!r}; name a picture file")
        if is_url(path):
            raise BadManifest(
                f"{name}, {where}: {path} is on the network; download it and name the file"
            )
        label = record.get("label")
        if isinstance(label, int) and not isinstance(label, bool):
            label = str(label)
        if not isinstance(label, str) or not label.strip():
            if labels:
                raise BadManifest(
                    f"{name}, {where}: the label is {'missing' if label is None else repr(label)}"
                    "; give a text that says what the picture shows (column 'label')"
                )
            label = None
        yield Row(os.path.join(folder, path), label)
