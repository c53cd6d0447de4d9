"""The report's drawings, as inline SVG that takes its colours from the page, light or dark.

Each drawing is made twice, wide and narrow, so that its letters keep their size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from retain.markup import Html, el

__all__ = ["Line", "Point", "Range", "curves", "heat", "ranges", "scatter"]

_LETTER = 6.6  # mean width of a letter at 12 px
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Line:
    """One method's curve: x and the values of every seed at each x; `mark` is its CSS class."""

    label: str
    mark: str
    x: Sequence[float]
    y: Sequence[Sequence[float]]
    loud: bool = True


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


@dataclass(frozen=True)
class _Frame:
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x: Callable[[float], float]
    y: Callable[[float], float]


def curves(lines: Sequence[Line], *, x_title: str, y_title: str, zero: bool = False) -> Html:
    """Mean over seeds as a line, least to greatest as a band.

    `zero` draws a line at nought, and is for a figure as wide as the page.
    """
    kept = [line for line in lines if any(line.y)]
    wide = 960 if zero else 680
    return _both(lambda width: _curves(kept, width, x_title, y_title, zero=zero), wide, y_title)


def scatter(
    points: Sequence[Point], *, x_title: str, y_title: str, said: Callable[[float], str]
) -> Html:
    """Points of percentages over a logarithmic axis, which `said` labels.

    The upright axis is logarithmic in the errors; the best corner is the upper left.
    """
    kept = [each for each in points if each.x > 0]
    return _both(lambda width: _scatter(kept, width, x_title, y_title, said), 450, y_title)


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


def _both(draw: Callable[[float], Html], wide: float, title: str) -> Html:
    return el(
        "div",
        el("div", draw(wide), class_="wide"),
        el("div", draw(350), class_="narrow", aria_hidden="true"),
        class_="drawing",
        role="img",
        aria_label=title,
    )


def _curves(lines: Sequence[Line], width: float, x_title: str, y_title: str, *, zero: bool) -> Html:
    xs = [x for line in lines for x in line.x[: len(line.y)]] or [0.0, 1.0]
    ys = [y for line in lines for values in line.y for y in values] or [0.0, 1.0]
    if zero:
        ys.append(0.0)
    y_ticks = _ticks(min(ys), max(ys), 6)
    frame = _frame(width, (min(xs), max(xs)), (y_ticks[0], y_ticks[-1]))
    parts = [*_axes(frame, _ticks_inside(min(xs), max(xs), 6), y_ticks, x_title, y_title)]
    if zero:
        parts.append(_rule(frame.left, frame.y(0), frame.right, frame.y(0), "nought"))
    parts += [_line(frame, line) for line in sorted(lines, key=lambda each: each.loud)]
    return _svg(frame, parts)


def _line(frame: _Frame, line: Line) -> Html:
    held = [(x, values) for x, values in zip(line.x, line.y, strict=False) if values]
    mean = [(frame.x(x), frame.y(sum(v) / len(v))) for x, v in held]
    upper = [(frame.x(x), frame.y(max(v))) for x, v in held]
    lower = [(frame.x(x), frame.y(min(v))) for x, v in reversed(held)]
    banded = any(len(v) > 1 for _, v in held)
    return el(
        "g",
        el("title", line.label),
        el("path", d=_path(upper + lower) + "Z", class_="band") if banded else None,
        el("path", d=_path(mean), class_="line"),
        [el("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="2.6") for x, y in mean]
        if len(mean) <= 12
        else None,
        class_=f"series {line.mark}",
    )


def _scatter(
    points: Sequence[Point], width: float, x_title: str, y_title: str, said: Callable[[float], str]
) -> Html:
    xs = [math.log10(each.x) for each in points] or [0.0, 1.0]
    ys = [_stretched(each.y) for each in points] or [0.0, 1.0]
    pad, rise = 0.06 * (max(xs) - min(xs) or 1), 0.08 * (max(ys) - min(ys) or 1)
    low, high = min(ys) - rise, max(ys) + rise
    y_ticks = _percents(low, high)
    flat = _frame(width, (min(xs) - pad, max(xs) + pad), (low, high))
    frame = replace(flat, y=lambda v: flat.y(_stretched(v)))
    decades = _decades(min(xs) - pad, max(xs) + pad)
    parts = [*_axes(frame, decades, y_ticks, x_title, y_title, lambda v: said(10**v))]
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
    return _svg(frame, parts)


def _front(frame: _Frame, points: Sequence[Point]) -> Html:
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
    return el("path", d=_path(corners) if corners else "", class_="front")


def _place(label: str, x: float, y: float, frame: _Frame, taken: list[Box]) -> Html | None:
    """A label beside its dot where nothing else stands, or none."""
    wide = _LETTER * len(label) * 0.95
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


def _frame(width: float, xs: tuple[float, float], ys: tuple[float, float]) -> _Frame:
    height = min(0.86 * width, 340 + max(width - 680, 0) / 8)
    left, right, top, bottom = 46.0, width - 14, 26.0, height - 44
    across, up = xs[1] - xs[0] or 1.0, ys[1] - ys[0] or 1.0
    return _Frame(
        width,
        height,
        left,
        right,
        top,
        bottom,
        lambda v: left + (v - xs[0]) / across * (right - left),
        lambda v: bottom - (v - ys[0]) / up * (bottom - top),
    )


def _axes(
    frame: _Frame,
    xs: Sequence[float],
    ys: Sequence[float],
    x_title: str,
    y_title: str,
    said: Callable[[float], str] | None = None,
) -> list[Html]:
    say = said or _plain
    parts = []
    for y in ys:
        parts.append(_rule(frame.left, frame.y(y), frame.right, frame.y(y), "grid"))
        parts.append(_text(frame.left - 8, frame.y(y) + 4, _plain(y), "end"))
    for x in xs:
        at = frame.x(x)
        parts.append(_rule(at, frame.bottom, at, frame.bottom + 4, "grid"))
        parts.append(_text(at, frame.bottom + 18, say(x), "middle"))
    parts.append(_text(frame.left - 38, 13, y_title, "start", "title"))
    parts.append(_text(frame.right, frame.height - 6, x_title, "end", "title"))
    return parts


def _svg(frame: _Frame, parts: Sequence[Html]) -> Html:
    return el("svg", *parts, viewBox=f"0 0 {frame.width:.0f} {frame.height:.0f}")


def _rule(x1: float, y1: float, x2: float, y2: float, name: str) -> Html:
    return el("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=name)


def _text(x: float, y: float, words: str, anchor: str, name: str | None = None) -> Html:
    return el("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=name)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers that enclose low and high.

    >>> _ticks(0.13, 0.88, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    step = _step(high - low, count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def _ticks_inside(low: float, high: float, count: int) -> list[float]:
    step = _step(high - low, count)
    step = max(step, 1.0) if high - low >= 1 else step
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _step(span: float, count: int) -> float:
    rough = (span or 1.0) / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * each for each in (1, 2, 5, 10) if power * each >= rough * 0.999)


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


def _plain(value: float) -> str:
    return f"{value:.10g}"
