"""Pieces of a page about a classifier: bars, pictures, matrices, besides those of every page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

from retain.faces.text import percent
from retain.markup import Child, Html, el, meter, table, tile
from retain.values import Score

__all__ = [
    "Child",
    "Html",
    "bars",
    "confusion",
    "el",
    "measured",
    "meter",
    "picture",
    "table",
    "tile",
]

_THUMBNAIL = 160


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
