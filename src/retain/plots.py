"""Drawings as inline SVG that takes its colours from the page, light or dark.

Each drawing is made twice, wide and narrow, so that its letters keep their size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from retain.markup import Html, el

__all__ = [
    "LETTER",
    "Frame",
    "Line",
    "axes",
    "both",
    "curves",
    "figure",
    "framed",
    "look",
    "named",
    "path",
    "plain",
    "rule",
    "svg",
    "text",
]

LETTER = 6.6
"""Mean width of a letter at 12 px."""


@dataclass(frozen=True)
class Line:
    """A curve: x and the values at each x, such as one a seed; `mark` is its CSS class."""

    label: str
    mark: str
    x: Sequence[float]
    y: Sequence[Sequence[float]]
    loud: bool = True


@dataclass(frozen=True)
class Frame:
    """Where a drawing's axes lie, and where on it a value is, both in pixels."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x: Callable[[float], float]
    y: Callable[[float], float]


def look() -> str:
    """The CSS that figures need besides that of every page."""
    return (files("retain") / "plots.css").read_text(encoding="utf-8")


def figure(title: str, drawing: Html, more: Html | None = None, *, beside: bool = False) -> Html:
    """A drawing under its title, with what explains it below or `beside` it."""
    style = "figure legended" if beside else "figure"
    return el("figure", el("figcaption", title), drawing, more, class_=style)


def named(label: str, mark: str, number: str, title: str | None = None) -> Html:
    """A row of a legend, a list of the class ``legend``: a line's colour, its name, a number."""
    name = el("span", label, class_="label", title=title)
    return el("li", el("i"), name, el("span", number, class_="number"), class_=mark)


def curves(
    lines: Sequence[Line],
    *,
    x_title: str,
    y_title: str,
    zero: bool = False,
    least: float | None = None,
    parts: Sequence[tuple[float, str]] = (),
) -> Html:
    """Mean over values as a line, least to greatest as a band.

    Args:
        lines: those without a value are left out.
        x_title: what goes to the right.
        y_title: what goes up.
        zero: draw a line at nought, in a figure as wide as the page.
        least: where the axis begins at the latest.
        parts: where on the x axis a part begins, and its name; told from the one before by a line.
    """
    kept = [line for line in lines if any(line.y)]
    base = [0.0] if zero else [] if least is None else [least]

    def draw(width: float) -> Html:
        frame, drawn = _axed(kept, width, x_title, y_title, base)
        if zero:
            drawn.append(rule(frame.left, frame.y(0), frame.right, frame.y(0), "nought"))
        drawn += _parted(frame, parts)
        drawn += [_line(frame, line) for line in sorted(kept, key=lambda each: each.loud)]
        return svg(frame, drawn)

    return both(draw, 960 if zero else 680, y_title)


def both(draw: Callable[[float], Html], wide: float, title: str) -> Html:
    """A drawing of some width in pixels, made for the page and for a phone."""
    return el(
        "div",
        el("div", draw(wide), class_="wide"),
        el("div", draw(350), class_="narrow", aria_hidden="true"),
        class_="drawing",
        role="img",
        aria_label=title,
    )


def _axed(
    lines: Sequence[Line], width: float, x_title: str, y_title: str, base: Sequence[float]
) -> tuple[Frame, list[Html]]:
    xs = [x for line in lines for x in line.x[: len(line.y)]] or [0.0, 1.0]
    ys = [y for line in lines for values in line.y for y in values] or [0.0, 1.0]
    y_ticks = _ticks(min([*ys, *base]), max([*ys, *base]), 6)
    frame = framed(width, (min(xs), max(xs)), (y_ticks[0], y_ticks[-1]))
    return frame, axes(frame, _ticks_inside(min(xs), max(xs), 6), y_ticks, x_title, y_title)


def _parted(frame: Frame, parts: Sequence[tuple[float, str]]) -> list[Html]:
    """A line where each part but the first begins, and its name where there is room for it."""
    drawn = []
    for place, (begin, name) in enumerate(parts):
        left = max(frame.x(begin), frame.left)
        right = frame.x(parts[place + 1][0]) if place + 1 < len(parts) else frame.right
        if place:
            drawn.append(rule(left, frame.top, left, frame.bottom, "apart"))
        if LETTER * len(name) + 8 <= right - left:
            drawn.append(text((left + right) / 2, frame.top + 11, name, "middle"))
    return drawn


def _line(frame: Frame, line: Line) -> Html:
    held = [(x, values) for x, values in zip(line.x, line.y, strict=False) if values]
    mean = [(frame.x(x), frame.y(sum(v) / len(v))) for x, v in held]
    upper = [(frame.x(x), frame.y(max(v))) for x, v in held]
    lower = [(frame.x(x), frame.y(min(v))) for x, v in reversed(held)]
    banded = any(len(v) > 1 for _, v in held)
    return el(
        "g",
        el("title", line.label),
        el("path", d=path(upper + lower) + "Z", class_="band") if banded else None,
        el("path", d=path(mean), class_="line"),
        [el("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="2.6") for x, y in mean]
        if len(mean) <= 12
        else None,
        class_=f"series {line.mark}",
    )


def framed(width: float, xs: tuple[float, float], ys: tuple[float, float]) -> Frame:
    """The frame of a drawing whose axes go from the first to the second value of each pair."""
    height = min(0.86 * width, 340 + max(width - 680, 0) / 8)
    left, right, top, bottom = 46.0, width - 14, 26.0, height - 44
    across, up = xs[1] - xs[0] or 1.0, ys[1] - ys[0] or 1.0
    return Frame(
        width,
        height,
        left,
        right,
        top,
        bottom,
        lambda v: left + (v - xs[0]) / across * (right - left),
        lambda v: bottom - (v - ys[0]) / up * (bottom - top),
    )


def axes(
    frame: Frame,
    xs: Sequence[float],
    ys: Sequence[float],
    x_title: str,
    y_title: str,
    said: Callable[[float], str] | None = None,
) -> list[Html]:
    """The axes with their ticks, those of x labelled by `said`."""
    say = said or plain
    parts = []
    for y in ys:
        parts.append(rule(frame.left, frame.y(y), frame.right, frame.y(y), "grid"))
        parts.append(text(frame.left - 8, frame.y(y) + 4, plain(y), "end"))
    for x in xs:
        at = frame.x(x)
        parts.append(rule(at, frame.bottom, at, frame.bottom + 4, "grid"))
        parts.append(text(at, frame.bottom + 18, say(x), "middle"))
    parts.append(text(frame.left - 38, 13, y_title, "start", "title"))
    parts.append(text(frame.right, frame.height - 6, x_title, "end", "title"))
    return parts


def svg(frame: Frame, parts: Sequence[Html]) -> Html:
    """The drawing of some parts."""
    return el("svg", *parts, viewBox=f"0 0 {frame.width:.0f} {frame.height:.0f}")


def rule(x1: float, y1: float, x2: float, y2: float, name: str) -> Html:
    """A straight line of the CSS class `name`."""
    return el("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=name)


def text(x: float, y: float, words: str, anchor: str, name: str | None = None) -> Html:
    """Words at a place, which is their start, middle or end."""
    return el("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=name)


def path(points: Sequence[tuple[float, float]]) -> str:
    """A path through points, as SVG writes it."""
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


def plain(value: float) -> str:
    """A number as short as it can be said."""
    return f"{value:.10g}"
