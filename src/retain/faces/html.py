"""Pieces of a page: elements that escape what they are given, tiles, bars, pictures, matrices."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence

from retain.faces.text import clean, percent
from retain.values import Score

__all__ = ["Html", "bars", "confusion", "el", "measured", "meter", "picture", "table", "tile"]

_VOID = frozenset({"img", "br", "meta"})
_THUMBNAIL = 160


class Html(str):
    """Text that is markup already; every other text is escaped."""

    __slots__ = ()


Child = str | Html | Iterable["str | Html"] | None


def el(tag: str, *children: Child, **attributes: str | bool | None) -> Html:
    """One element; a trailing underscore in an attribute's name is dropped, inner ones are dashes.

    >>> el("p", "1 < 2", class_="small")
    '<p class="small">1 &lt; 2</p>'
    """
    written = "".join(
        f" {_attribute(name)}" if value is True else f' {_attribute(name)}="{_safe(str(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{_joined(children)}</{tag}>")


def tile(value: str, what: str, note: str = "", tone: str = "") -> Html:
    """One key figure: the number, what it is, and a line of context."""
    return el(
        "li",
        el("span", value, class_="value"),
        el("span", what, class_="what"),
        el("span", note, class_="note") if note else None,
        class_=f"tile {tone}".strip(),
    )


def meter(share: float, tone: str = "") -> Html:
    """A share of 1 as a bar; the number must stand beside it."""
    return el(
        "span",
        el("span", style=f"width:{100 * min(max(share, 0), 1):.1f}%"),
        class_=f"meter {tone}".strip(),
        aria_hidden="true",
    )


def measured(share: float) -> Html:
    """A share of 1 as a percentage over a bar."""
    return el("span", percent(share), meter(share), class_="measured")


def bars(scores: Sequence[Score], truth: str, count: int = 3) -> Html:
    """The most probable classes with their probabilities, the true one marked."""
    return el(
        "ol",
        [
            el(
                "li",
                el("span", score.label, class_="label"),
                meter(score.probability),
                el("span", percent(score.probability), class_="number"),
                class_="is-true" if score.label == truth else None,
            )
            for score in scores[:count]
        ],
        class_="bars",
    )


def picture(data: bytes | None, alt: str) -> Html:
    """A thumbnail inside the page, or a frame that says there is none."""
    small = _thumbnail(data) if data else None
    if small is None:
        return el("span", "no picture kept", class_="no-picture")
    address = "data:image/jpeg;base64," + base64.b64encode(small).decode("ascii")
    return el("img", src=address, alt=alt, loading="lazy")


def table(
    caption: str,
    headings: Sequence[tuple[str, bool]],
    rows: Iterable[Sequence[Child]],
) -> Html:
    """A table whose first column names the row; headings are (text, set to the right)."""
    return el(
        "div",
        el(
            "table",
            el("caption", caption),
            el(
                "thead",
                el(
                    "tr",
                    [
                        el("th", title, scope="col", class_="right" if right else None)
                        for title, right in headings
                    ],
                ),
            ),
            el("tbody", [_row(cells, headings) for cells in rows]),
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def confusion(
    counts: Mapping[str, Mapping[str, int]],
    rows: Sequence[str],
    columns: Sequence[str],
    caption: str,
    *,
    split: int = 0,
) -> Html:
    """A confusion matrix: true classes down, answers across, shaded by the share of the row.

    `split` draws a line after so many classes.
    """
    body = []
    for i, truth in enumerate(rows):
        row = counts.get(truth, {})
        total = sum(row.values()) or 1
        cells = [
            _cell(
                truth,
                answer,
                row.get(answer, 0),
                total,
                edge=bool(split) and j + 1 == split < len(columns),
            )
            for j, answer in enumerate(columns)
        ]
        edge = "edge" if split and i + 1 == split < len(rows) else None
        body.append(el("tr", el("th", truth, scope="row"), cells, class_=edge))
    heads = [
        el(
            "th",
            el("span", answer),
            scope="col",
            class_="edge" if split and j + 1 == split < len(columns) else None,
        )
        for j, answer in enumerate(columns)
    ]
    return el(
        "div",
        el(
            "table",
            el("caption", caption),
            el("thead", el("tr", el("td", "true ↓ answered →", class_="corner"), heads)),
            el("tbody", body),
            class_="confusion",
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _cell(truth: str, answer: str, count: int, total: int, *, edge: bool) -> Html:
    share = count / total
    classes = [
        "right-answer" if truth == answer else "wrong-answer",
        "strong" if share > 0.5 else "",
        "zero" if not count else "",
    ]
    square = el(
        "span",
        str(count) if count else "·",
        class_=" ".join(filter(None, classes)),
        style=f"--share:{100 * share:.0f}%" if count else None,
        title=f"{count} of {total} {truth} answered {answer}" if count else None,
    )
    return el("td", square, class_="edge" if edge else None)


def _row(cells: Sequence[Child], headings: Sequence[tuple[str, bool]]) -> Html:
    first, *rest = cells
    return el(
        "tr",
        el("th", first, scope="row"),
        [
            el("td", cell, class_="right" if right else None)
            for cell, (_, right) in zip(rest, headings[1:], strict=True)
        ],
    )


def _thumbnail(data: bytes) -> bytes | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.draft("RGB", (2 * _THUMBNAIL, 2 * _THUMBNAIL))
            seen = ImageOps.exif_transpose(opened).convert("RGBA")
            seen.thumbnail((_THUMBNAIL, _THUMBNAIL))
            small = Image.new("RGB", seen.size, "white")
            small.paste(seen, mask=seen)
            out = io.BytesIO()
            small.save(out, "JPEG", quality=85)
            return out.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _joined(children: Iterable[Child]) -> str:
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            parts.append(_safe(child))
        else:
            parts.append(_joined(child))
    return "".join(parts)


def _safe(text: str) -> str:
    return text if isinstance(text, Html) else html.escape(clean(text), quote=True)


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")
