"""What is printed: tables for people, plain columns for pipes, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal, TextIO

from retain.faces.text import clean

__all__ = ["Column", "bar", "emit_csv", "emit_json", "line", "note", "table"]

# Wider cells stick out when piped, rather than push all others to the right.
_WIDEST = 100
_LABEL = 24
_LEAST = 22
_FEW = 8


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its heading, and how it is set.

    On a terminal that is too narrow a column gives way as `narrow` says: it keeps its end
    (paths), its head, or folds; all others keep their width.
    """

    title: str
    right: bool = False
    style: str = ""
    narrow: Literal["", "end", "head", "fold"] = ""


def bar(share: float, width: int = 12) -> str:
    """A share of 1 as a bar, for terminals; nothing when piped.

    >>> bar(0.5)
    ''
    """
    return "█" * round(share * width) + "░" * (width - round(share * width)) if _rich() else ""


def line(text: str = "", style: str = "") -> None:
    """One line on stdout; `style` shows on terminals only."""
    _print(sys.stdout, text, style)


def note(text: str, style: str = "") -> None:
    """One line on stderr, for what is not the answer."""
    _print(sys.stderr, text, style)


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Rows under headings: with rich on a terminal, in plain columns when piped."""
    texts = [[clean(cell) for cell in row] for row in rows]
    if not _rich():
        _plain(columns, texts, title)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    _narrowed(columns, texts, console.width)
    shown = Table(
        box=box.SIMPLE_HEAD,
        title=Text(title) if title else None,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        show_header=any(column.title for column in columns),
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        shown.add_column(
            column.title,
            justify="right" if column.right else "left",
            style=column.style,
            overflow="fold" if column.narrow == "fold" else "ellipsis",
            no_wrap=column.narrow != "fold",
        )
    for row in texts:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown)
    console.print()


def emit_json(value: Any) -> None:
    """A value as JSON on stdout, and nothing else."""
    whole = (sys.stdout.encoding or "ascii").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not whole, indent=2)
    # A file name that is no text holds half a character, which has no UTF-8: written as JSON
    # writes any other, it comes back as Python's own name for that file.
    lone = {code: f"\\u{code:04x}" for code in map(ord, text) if 0xD800 <= code <= 0xDFFF}
    sys.stdout.write(text.translate(lone) + "\n")


def emit_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table as CSV on stdout: a heading, then the rows, quoted where needed."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    # Line ends are the csv module's own; stdout must not translate them again.
    _bytes(sys.stdout, text.getvalue())


def _rich() -> bool:
    return sys.stdout.isatty()


def _print(stream: IO[str], text: str, style: str) -> None:
    if style and stream.isatty():
        from rich.console import Console
        from rich.text import Text

        Console(file=stream).print(Text(text, style=style), soft_wrap=True)
    else:
        stream.write(text + "\n")


def _narrowed(columns: Sequence[Column], rows: list[list[str]], width: int) -> None:
    """Shorten the cells of the columns that give way until the table fits, in place."""
    from rich.cells import cell_len

    elastic = [i for i, column in enumerate(columns) if column.narrow in ("end", "head")]
    if not rows or not elastic:
        return
    widths = [
        max([cell_len(column.title), *(cell_len(row[i]) for row in rows)]) + 2
        for i, column in enumerate(columns)
    ]
    # A label of a thousand letters must not push the rest off the screen.
    for i, column in enumerate(columns):
        if not column.narrow and widths[i] > _LABEL + 2:
            widths[i] = _LABEL + 2
            for row in rows:
                row[i] = _cut(row[i], _LABEL, "head")
    for place, i in enumerate(elastic):
        others = sum(widths[j] for j in range(len(columns)) if j != i)
        # The later ones give way first; only then the earlier.
        later = sum(max(widths[j] - _LEAST, 0) for j in elastic[place + 1 :])
        room = max(width - others + later - 2, _FEW)
        widths[i] = min(widths[i], room + 2)
        for row in rows:
            row[i] = _cut(row[i], room, columns[i].narrow)


def _cut(text: str, room: int, keep: str) -> str:
    from rich.cells import cell_len

    if cell_len(text) <= room:
        return text
    while text and cell_len(text) > room - 1:
        text = text[1:] if keep == "end" else text[:-1]
    return "…" + text if keep == "end" else text + "…"


def _plain(columns: Sequence[Column], rows: list[list[str]], title: str) -> None:
    widths = [
        min(_WIDEST, max([len(column.title), *(len(row[i]) for row in rows)]))
        for i, column in enumerate(columns)
    ]

    def joined(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        )
        return "  ".join(padded).rstrip()

    if title:
        line(title)
    if any(column.title for column in columns):
        line(joined([column.title for column in columns]))
    for row in rows:
        line(joined(row))


def _bytes(stream: TextIO, text: str) -> None:
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(text)
        return
    stream.flush()
    buffer.write(text.encode(stream.encoding or "utf-8", "backslashreplace"))
    buffer.flush()
