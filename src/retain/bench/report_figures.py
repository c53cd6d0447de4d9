"""The report's figures of one stream: drawings with their titles, legends and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from retain.bench.report_data import Entry, Family, Measure
from retain.bench.report_plots import Point, Range, heat, ranges, scatter
from retain.markup import Child, Html, el
from retain.plots import Line, curves, figure, named

__all__ = [
    "cost_figure",
    "curves_figure",
    "differences_figure",
    "highlights",
    "marks_of",
    "matrices",
    "ranges_figure",
]

_COLOURS = 6


def curves_figure(family: Family, marks: Mapping[str, str]) -> Html:
    """Accuracy, or the harmonic mean, over the classes seen, with a legend of all methods."""
    key = "harmonic" if family.headline.key == "harmonic" else "accuracy"
    lines = [
        Line(
            each.label,
            marks[each.label],
            _axis(each),
            _percent(each.curve(key)),
            _loud(marks, each),
        )
        for each in family.entries
    ]
    title = "harmonic mean, %" if key == "harmonic" else "accuracy on all classes seen, %"
    return figure(
        "Accuracy as classes arrive" if _counts_classes(family) else "Accuracy step by step",
        curves(lines, x_title=_axis_title(family), y_title=title),
        _legend(family, marks),
        beside=True,
    )


def differences_figure(family: Family, marks: Mapping[str, str]) -> Html | None:
    """Each method less ours on the same order, where it stays near enough to be told apart."""
    ours = family.default
    if ours is None or family.headline.key == "harmonic":
        return None
    lines, rows = [], []
    for each in family.entries:
        apart = _apart(each, ours)
        flat = [value for values in apart for value in values]
        # Nearer than a tenth the eye can compare; the floor would flatten all the others.
        if each is not ours and flat and min(flat) > -10:
            mark = marks[each.label]
            lines.append(Line(each.label, mark, _axis(each), apart, _loud(marks, each)))
            mean = f"{sum(flat) / len(flat):+.2f}"
            rows.append(named(each.label, mark, mean, each.title))
    if not lines:
        return None
    return figure(
        f"The same, as the difference from {ours.label}",
        curves(
            lines,
            x_title=_axis_title(family),
            y_title="points above (+) or below (−) ours, same order",
            zero=True,
        ),
        el(
            "div",
            el("ul", rows, class_="legend"),
            el("p", "Mean difference; of the methods that stay within 10 points.", class_="note"),
        ),
    )


def _apart(entry: Entry, ours: Entry) -> list[list[float]]:
    seeds = [seed for seed in entry.runs if seed in ours.runs]
    pairs = [(entry.runs[s].get("steps", []), ours.runs[s].get("steps", [])) for s in seeds]
    steps = min((min(len(a), len(b)) for a, b in pairs), default=0)
    return [
        [
            100 * (a[i]["accuracy"] - b[i]["accuracy"])
            for a, b in pairs
            if a[i].get("accuracy") is not None and b[i].get("accuracy") is not None
        ]
        for i in range(steps)
    ]


def ranges_figure(
    family: Family, marks: Mapping[str, str], key: str, title: str, note: str
) -> Html | None:
    """One metric of every method, the smallest first; none where no method has it."""
    rows = []
    for each in family.entries:
        mean, reach = each.mean(key), each.spread(key)
        if mean is not None and reach is not None:
            low, high = (100 * value for value in reach)
            said = Measure(key, "", "points", 100).said(mean)
            rows.append(Range(each.label, marks[each.label], low, 100 * mean, high, said))
    if not rows:
        return None
    rows.sort(key=lambda row: (abs(row.mean), row.label))
    return figure(title, ranges(rows, title=title), el("p", note, class_="note"))


def cost_figure(
    family: Family, marks: Mapping[str, str], key: str, title: str, axis: str
) -> Html | None:
    """What a method costs against how well it answers."""
    unit = Measure(key, "", "bytes" if key.endswith("bytes") else "time")
    points = []
    for each in family.entries:
        cost, gain = each.mean(key), each.mean(family.headline.key)
        if cost is not None and gain is not None:
            points.append(
                Point(each.label, marks[each.label], cost, 100 * gain, _loud(marks, each))
            )
    if not points:
        return None
    return figure(
        title,
        scatter(points, x_title=axis, y_title=family.headline.title, said=unit.said),
        el(
            "p",
            "Nothing lies above and to the left of the dotted line. The scale of accuracy "
            "is stretched: halving the errors is as far everywhere.",
            class_="note",
        ),
    )


def matrices(family: Family) -> Html | None:
    """The matrix of ours beside that of the method that forgets most, the rest folded away."""
    drawn = [(each, each.matrix()) for each in family.entries]
    drawn = [(each, rows) for each, rows in drawn if rows and max(map(len, rows)) > 1]
    if not drawn:
        return None
    rivals = [pair for pair in drawn if pair[0] is not family.default]
    most = max(rivals, key=lambda pair: pair[0].mean("forgetting") or 0.0, default=None)
    shown = [pair for pair in drawn if pair[0] is family.default or pair is most][:2]
    rest = [pair for pair in drawn if pair not in shown]
    content: list[Child] = [
        el("h3", "Task by task"),
        el(
            "p",
            "Accuracy in % on the classes of each step (across) after each step (down), all "
            "classes seen so far competing, mean over the seeds. Forgetting is a column that pales "
            "downwards.",
        ),
        el("div", [heat(rows, each.label) for each, rows in shown], class_="two"),
    ]
    if rest:
        others = el("div", [heat(rows, each.label) for each, rows in rest], class_="two")
        content.append(el("details", el("summary", f"{len(rest)} other methods"), others))
    return el("div", *content)


def _legend(family: Family, marks: Mapping[str, str]) -> Html:
    items = [
        named(
            each.label,
            marks[each.label],
            family.headline.said(each.mean(family.headline.key)),
            each.title,
        )
        for each in family.entries
    ]
    return el(
        "div", el("p", family.headline.title, class_="note"), el("ul", items, class_="legend")
    )


def marks_of(grouped: Sequence[Family]) -> dict[str, str]:
    """A CSS class for each method: the same colour all through the page, by rank where it shows."""
    marks: dict[str, str] = {}
    coloured = 0
    for family in grouped:
        for each in family.entries:
            if each.label in marks:
                continue
            if each.hindsight:
                look = "ceiling"
            elif family.default is not None and each.label == family.default.label:
                look = "ours"
            elif each.ours:
                look = "own"
            elif coloured < _COLOURS:
                coloured += 1
                look = f"c{coloured}"
            else:
                look = "rest"
            marks[each.label] = f"{look} m{len(marks)}"
    return marks


def highlights(marks: Mapping[str, str]) -> str:
    """Pointing at a name dims every other line of the same figure."""
    rules = []
    for value in marks.values():
        mark = value.split()[-1]
        chosen = f".figure:has(.legend .{mark}:hover)"
        rules.append(f"{chosen} .series:not(.{mark}) {{ opacity: .12; }}")
        rules.append(f"{chosen} .{mark} .line {{ stroke-width: 3.4; }}")
    return "\n".join(rules) + "\n"


def _loud(marks: Mapping[str, str], entry: Entry) -> bool:
    return not marks[entry.label].startswith("rest")


def _counts_classes(family: Family) -> bool:
    run = family.any_run() or {}
    seen = [each.get("seen") or 0 for each in run.get("steps", [])]
    return len(seen) > 1 and all(a < b for a, b in pairwise(seen))


def _axis(entry: Entry) -> list[float]:
    steps = next(iter(entry.runs.values())).get("steps", [])
    seen = [float(each.get("seen") or 0) for each in steps]
    growing = all(a < b for a, b in pairwise(seen))
    return seen if growing and len(seen) > 1 else [float(i + 1) for i in range(len(steps))]


def _axis_title(family: Family) -> str:
    return "classes seen" if _counts_classes(family) else "step"


def _percent(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[100 * value for value in values] for values in rows]
