"""The drawings that only the report has, besides the curves of `plots`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from retain.markup import Html, el
from retain.plots import LETTER, Frame, axes, both, framed, path, svg

__all__ = ["Point", "Range", "heat", "ranges", "scatter"]

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Point:
    """One method in a scatter plot."""

    label: str
    mark: str
    x: float
    y: float
    loud: bool = True


@dataclass(frozen=True)
class Range:
    """One method's least, mean and greatest value."""

    label: str
    mark: str
    low: float
    mean: float
    high: float
    said: str


def scatter(
    points: Sequence[Point], *, x_title: str, y_title: str, said: Callable[[float], str]
) -> Html:
    """Points of percentages over a logarithmic axis, which `said` labels.

    The upright axis is logarithmic in the errors; the best corner is the upper left.
    """
    kept = [each for each in points if each.x > 0]
    return both(lambda width: _scatter(kept, width, x_title, y_title, said), 450, y_title)


def ranges(rows: Sequence[Range], *, title: str) -> Html:
    """A row for each method: a dot at the mean, a bar from least to greatest, and the number."""
    low = min([0.0, *(each.low for each in rows)])
    high = max([1e-9, *(each.high for each in rows)])

    def at(value: float) -> float:
        return 100 * (value - low) / (high - low)

    return el(
        "ol",
        [
            el(
                "li",
                el("span", row.label, class_="label"),
                el(
                    "span",
                    el("i", class_="zero", style=f"left:{at(0):.2f}%"),
                    el(
                        "i",
                        class_="reach",
                        style=f"left:{min(at(0), at(row.mean)):.2f}%;"
                        f"width:{abs(at(row.mean) - at(0)):.2f}%",
                    ),
                    el(
                        "i",
                        class_="whisker",
                        style=f"left:{at(row.low):.2f}%;width:{at(row.high) - at(row.low):.2f}%",
                    ),
                    el("i", class_="dot", style=f"left:{at(row.mean):.2f}%"),
                    class_="rail",
                ),
                el("span", row.said, class_="number"),
                class_=row.mark,
            )
            for row in rows
        ],
        class_="ranges",
        aria_label=title,
    )


def heat(rows: Sequence[Sequence[float]], caption: str) -> Html:
    """A matrix of shares of 1: row is after which step, column is which step's classes."""
    width = max((len(row) for row in rows), default=0)
    body = []
    for i, row in enumerate(rows):
        cells = [_heat_cell(value, i, j) for j, value in enumerate(row)]
        cells += [el("td")] * (width - len(row))
        body.append(el("tr", el("th", str(i + 1), scope="row"), cells))
    heads = [el("th", str(j + 1), scope="col") for j in range(width)]
    return el(
        "div",
        el(
            "table",
            el("caption", caption),
            el("thead", el("tr", el("td", "after ↓ on →", class_="corner"), heads)),
            el("tbody", body),
            class_="heat small" if width > 12 else "heat",
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _heat_cell(value: float, i: int, j: int) -> Html:
    if math.isnan(value):
        return el("td", el("span", "–", class_="none"))
    share = max(0.0, min(1.0, value))
    return el(
        "td",
        el(
            "span",
            f"{100 * value:.0f}",
            class_="strong" if share > 0.6 else None,
            style=f"--share:{100 * share**2:.0f}%",
            title=f"after step {i + 1}, on the classes of step {j + 1}: {100 * value:.1f} %",
        ),
    )


def _scatter(
    points: Sequence[Point], width: float, x_title: str, y_title: str, said: Callable[[float], str]
) -> Html:
    xs = [math.log10(each.x) for each in points] or [0.0, 1.0]
    ys = [_stretched(each.y) for each in points] or [0.0, 1.0]
    pad, rise = 0.06 * (max(xs) - min(xs) or 1), 0.08 * (max(ys) - min(ys) or 1)
    low, high = min(ys) - rise, max(ys) + rise
    y_ticks = _percents(low, high)
    flat = framed(width, (min(xs) - pad, max(xs) + pad), (low, high))
    frame = replace(flat, y=lambda v: flat.y(_stretched(v)))
    decades = _decades(min(xs) - pad, max(xs) + pad)
    parts = [*axes(frame, decades, y_ticks, x_title, y_title, lambda v: said(10**v))]
    parts.append(_front(frame, points))
    dots = [(frame.x(math.log10(each.x)), frame.y(each.y)) for each in points]
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in dots]
    order = sorted(range(len(points)), key=lambda i: (not points[i].loud, -points[i].y))
    labels = {i: _place(points[i].label, *dots[i], frame, taken) for i in order}
    for i in sorted(order, key=lambda i: points[i].loud):
        point, (x, y), label = points[i], dots[i], labels[i]
        words = f"{point.label}: {said(point.x)}, {point.y:.2f}"
        parts.append(
            el(
                "g",
                el("title", words),
                el("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="5"),
                label,
                class_=f"spot {point.mark}",
            )
        )
    return svg(frame, parts)


def _front(frame: Frame, points: Sequence[Point]) -> Html:
    """The steps that no method lies above and to the left of."""
    best = -math.inf
    corners: list[tuple[float, float]] = []
    for each in sorted(points, key=lambda p: (p.x, -p.y)):
        if each.y > best:
            x, y = frame.x(math.log10(each.x)), frame.y(each.y)
            if corners:
                corners.append((x, corners[-1][1]))
            corners.append((x, y))
            best = each.y
    if corners:
        corners.append((frame.right, corners[-1][1]))
    return el("path", d=path(corners) if corners else "", class_="front")


def _place(label: str, x: float, y: float, frame: Frame, taken: list[Box]) -> Html | None:
    """A label beside its dot where nothing else stands, or none."""
    wide = LETTER * len(label) * 0.95
    for dx, dy, anchor in (
        (9, 4, "start"), (-9, 4, "end"), (0, -11, "middle"), (0, 19, "middle"),
        (8, -9, "start"), (-8, -9, "end"), (8, 17, "start"), (-8, 17, "end"),
    ):  # fmt: skip
        left = x + dx - (wide if anchor == "end" else wide / 2 if anchor == "middle" else 0)
        box = (left, y + dy - 10, left + wide, y + dy + 3)
        if box[0] < frame.left or box[2] > frame.width - 2 or box[1] < 2 or box[3] > frame.bottom:
            continue
        if any(_meet(box, other) for other in taken):
            continue
        taken.append(box)
        return el("text", label, x=f"{x + dx:.1f}", y=f"{y + dy:.1f}", text_anchor=anchor)
    return None


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _stretched(percent: float) -> float:
    """A scale on which halving the errors is as far everywhere."""
    return -math.log10(max(100 - percent, 0.02))


def _percents(low: float, high: float) -> list[float]:
    """Round percentages between two places of the stretched scale, seven at most."""
    finest = [0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99]
    candidates = [*finest, 99.5, 99.8, 99.9]
    held = [float(p) for p in candidates if low <= _stretched(p) <= high]
    while len(held) > 7:
        # Drop the tick that stands nearest to a neighbour.
        gaps = [_stretched(b) - _stretched(a) for a, b in pairwise(held)]
        tight = min(range(len(gaps)), key=gaps.__getitem__)
        held.pop(tight + 1 if held[tight] % 10 == 0 or tight == 0 else tight)
    return held


def _decades(low: float, high: float) -> list[float]:
    """Whole powers of ten; with fewer than three of them, also 3 of each (as logarithms)."""
    whole = [float(i) for i in range(math.ceil(low), math.floor(high) + 1)]
    if len(whole) >= 3:
        return whole
    both = [i + extra for i in range(math.floor(low), math.ceil(high) + 1)
            for extra in (0.0, math.log10(3))]  # fmt: skip
    inside = [each for each in both if low <= each <= high]
    return inside or [(low + high) / 2]
