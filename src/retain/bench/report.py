"""The report of a benchmark: one self-contained page made of result files.

It shows what the results say and adds no run of its own: what failed, and what a method cannot do,
stands in it beside the rest.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from retain.bench.report_data import Entry, Family, Measure, as_good, families, measures
from retain.bench.report_how import broken, environments, methods_run, reading
from retain.bench.report_plots import Line, Point, Range, curves, heat, ranges, scatter
from retain.bench.report_proof import proof
from retain.errors import BadOption
from retain.markup import Child, Html, el, header, page, section, tile

__all__ = ["write"]

_COLOURS = 6
_TIME = "wall_s_per_update"
_STORED = "stored_bytes"


def write(results: Sequence[Mapping[str, Any]], target: Path) -> Path:
    """Write the report of these results to `target` and return it.

    Args:
        results: result files as `retain.bench` writes them, read.
        target: the HTML file, replaced where it exists.

    Raises:
        BadOption: there are no results.
    """
    if not results:
        raise BadOption("there are no results to report; run `retain bench run` first")
    text = _page(list(results))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).chmod(0o644)
    Path(name).replace(target)
    return target


def _page(results: Sequence[Mapping[str, Any]]) -> str:
    grouped = families(results)
    marks = _marks(grouped)
    shown = [each for each in grouped if each.entries]
    look = (files("retain") / "bench" / "report.css").read_text(encoding="utf-8")
    return page(
        "retain: benchmark",
        _lead(results, grouped),
        _tiles(shown, results),
        _contents(shown),
        *(_family(each, marks, f"stream-{i}") for i, each in enumerate(shown)),
        proof(shown),
        broken(grouped),
        reading(shown),
        methods_run(shown),
        environments(results),
        el(
            "footer",
            el(
                "p", f"Made {datetime.now().astimezone():%Y-%m-%d %H:%M %Z} by retain bench report."
            ),
        ),
        style=look + _highlights(marks),
    )


def _lead(results: Sequence[Mapping[str, Any]], grouped: Sequence[Family]) -> Html:
    names = {entry.label for each in grouped for entry in each.entries}
    seeds = {int(each["seed"]) for each in results}
    pools = sorted({each.pool for each in grouped})
    done = sum(each["status"] == "done" for each in results)
    sentence = (
        f"{_many(done, 'run')} of {_many(len(names), 'method')} on {_many(len(grouped), 'stream')} "
        f"of {_listed(pools)}, {_many(len(seeds), 'seed')}. Lines and numbers are means over the "
        f"seeds; bands and the small numbers reach from the least to the greatest."
    )
    if len(results) > done:
        sentence += f" {_many(len(results) - done, 'run')} did not finish; each is listed below."
    return header("retain bench", "What is kept, what is lost, what it costs", sentence)


def _tiles(shown: Sequence[Family], results: Sequence[Mapping[str, Any]]) -> Html | None:
    first = next((each for each in shown if each.default), None)
    if first is None or first.default is None:
        return None
    ours, measure = first.default, first.headline
    others = [each for each in first.rivals if not each.ours]
    best = max(others, key=lambda each: _value(each, measure), default=None)
    told = [tile(measure.said(ours.mean(measure.key)), f"ours: {measure.title}", first.title)]
    if best is not None:
        told.append(tile(measure.said(best.mean(measure.key)), "the best other method", best.label))
    time = ours.mean(_TIME)
    if time is not None:
        told.append(
            tile(Measure("", "", "time").said(time), "an update of ours", "wall time, mean")
        )
    lost = ours.mean("forgetting")
    if lost is not None:
        told.append(tile(f"{100 * lost + 0.0:.1f}", "points forgotten by ours", "mean over tasks"))
    failed = sum(each["status"] == "failed" for each in results)
    if failed:
        told.append(tile(str(failed), "runs failed", "with the reason, below", "bad"))
    return el("ul", told, class_="tiles", style=f"--tiles: {len(told)}")


def _contents(shown: Sequence[Family]) -> Html | None:
    links = [
        el("a", f"{each.title}: {each.kind}", href=f"#stream-{i}") for i, each in enumerate(shown)
    ]
    links += [
        el("a", words, href=f"#{name}")
        for name, words in (("proof", "same as joint"), ("reading", "how to read this"))
    ]
    return el("nav", links, class_="contents")


def _family(family: Family, marks: Mapping[str, str], name: str) -> Html:
    body = section(
        f"{family.title}: {family.kind}",
        _sentence(family),
        _curves(family, marks),
        _differences(family, marks),
        el("div", _forgetting(family, marks), _last(family, marks), class_="two"),
        el(
            "div",
            _cost(family, marks, _TIME, "Time against accuracy", "wall time an update"),
            _cost(family, marks, _STORED, "Memory against accuracy", "bytes stored"),
            class_="two",
        ),
        el("h3", "All numbers"),
        el("p", _bold_sentence(family)),
        _table(family, marks),
        _matrices(family),
    )
    return el("div", body, id=name)


def _sentence(family: Family) -> str:
    run = family.any_run() or {}
    steps = run.get("steps", [])
    judged = steps[-1].get("judged") if steps else None
    words = f"{_many(len(steps), 'step')}"
    if run.get("order"):
        words += f", {len(run['order'])} classes"
    if judged:
        words += f", {judged:,} test pictures after the last step"
    seeds = family.seeds
    return (
        f"{words}; {_many(len(seeds), 'seed')} ({', '.join(map(str, seeds))}), each with an order "
        f"of its own. After each step every class seen so far is judged together, and nobody says "
        f"which step a picture belongs to."
    )


def _curves(family: Family, marks: Mapping[str, str]) -> Html:
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
    return _figure(
        "Accuracy as classes arrive" if _counts_classes(family) else "Accuracy step by step",
        curves(lines, x_title=_axis_title(family), y_title=title),
        _legend(family, marks),
    )


def _differences(family: Family, marks: Mapping[str, str]) -> Html | None:
    ours = family.default
    if ours is None or family.headline.key == "harmonic":
        return None
    lines = []
    for each in family.entries:
        apart = _apart(each, ours)
        flat = [value for values in apart for value in values]
        # Nearer than a tenth the eye can compare; the floor would flatten all the others.
        if each is not ours and flat and min(flat) > -10:
            lines.append(
                Line(each.label, marks[each.label], _axis(each), apart, _loud(marks, each))
            )
    if not lines:
        return None
    return _figure(
        f"The same, as the difference from {ours.label}",
        curves(
            lines,
            x_title=_axis_title(family),
            y_title="points above (+) or below (−) ours, same order",
            zero=True,
        ),
        el("p", "Of the methods that stay within 10 points.", class_="note"),
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


def _forgetting(family: Family, marks: Mapping[str, str]) -> Html | None:
    return _ranges(family, marks, "forgetting", "Forgetting, points", "smaller is better")


def _last(family: Family, marks: Mapping[str, str]) -> Html | None:
    return _ranges(
        family, marks, "recency_bias", "Bias towards the last task, points", "nearer 0 is better"
    )


def _ranges(
    family: Family, marks: Mapping[str, str], key: str, title: str, note: str
) -> Html | None:
    rows = []
    for each in family.entries:
        mean, reach = each.mean(key), each.spread(key)
        if mean is not None and reach is not None:
            low, high = (100 * value for value in reach)
            said = f"{100 * mean + 0.0:.1f}"
            rows.append(Range(each.label, marks[each.label], low, 100 * mean, high, said))
    if not rows:
        return None
    rows.sort(key=lambda row: (abs(row.mean), row.label))
    return _figure(title, ranges(rows, title=title), el("p", note, class_="note"))


def _cost(family: Family, marks: Mapping[str, str], key: str, title: str, axis: str) -> Html | None:
    unit = Measure(key, "", "time" if key == _TIME else "bytes")
    points = []
    for each in family.entries:
        cost, gain = each.mean(key), each.mean(family.headline.key)
        if cost is not None and gain is not None:
            points.append(
                Point(each.label, marks[each.label], cost, 100 * gain, _loud(marks, each))
            )
    if not points:
        return None
    return _figure(
        title,
        scatter(points, x_title=axis, y_title=family.headline.title, said=unit.said),
        el("p", "Nothing lies above and to the left of the dotted line.", class_="note"),
    )


def _table(family: Family, marks: Mapping[str, str]) -> Html:
    columns = measures(family)
    good = {each.key: as_good(family.rivals, each) for each in columns}
    ceilings = [each for each in family.entries if each.hindsight]
    body = [_row(each, columns, good, marks) for each in family.rivals]
    if ceilings:
        words = "With hindsight: these see everything again at every step, and are not compared"
        body.append(el("tr", el("th", words, colspan=str(len(columns) + 1), class_="among")))
        body += [_row(each, columns, {}, marks) for each in ceilings]
    heads = [el("th", each.title, scope="col", class_="right") for each in columns]
    return el(
        "div",
        el(
            "table",
            el("caption", f"{family.title}, {_many(len(family.seeds), 'seed')}"),
            el("thead", el("tr", el("th", "method", scope="col"), heads)),
            el("tbody", body),
            class_="methods",
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=f"All numbers of {family.title}",
    )


def _row(
    entry: Entry,
    columns: Sequence[Measure],
    good: Mapping[str, set[str]],
    marks: Mapping[str, str],
) -> Html:
    cells = []
    for each in columns:
        said, reach = each.said(entry.mean(each.key)), entry.spread(each.key)
        note = None
        if reach and reach[0] != reach[1] and each.unit not in ("time", "bytes"):
            note = el("span", f"{each.said(reach[0])} … {each.said(reach[1])}", class_="note")
        bold = entry.label in good.get(each.key, ())
        cells.append(el("td", el("b", said) if bold else said, note, class_="right"))
    name = el("th", el("span", class_="swatch"), entry.label, scope="row", title=entry.title)
    return el("tr", name, cells, class_=marks[entry.label])


def _bold_sentence(family: Family) -> str:
    seeds = len(family.seeds)
    words = (
        "Bold: the best, and those not significantly worse than it (paired t test over the seeds, "
        "two-sided, 5 %, each method against the best, not corrected for their number). "
    )
    if seeds < 2:
        return words + "There is one seed, so nothing can be tested: only the best are bold."
    words += (
        f"With {seeds} seeds the test has {_many(seeds - 1, 'degree')} of freedom: what is not "
        f"bold is behind in every order by much the same amount; what is bold may be equal, or "
        f"may need more seeds to tell. "
    )
    run = family.any_run() or {}
    judged = (run.get("steps") or [{}])[-1].get("judged")
    share = next((each.mean("last_accuracy") for each in family.rivals), None)
    if judged and share is not None:
        error = 100 * (share * (1 - share) / judged) ** 0.5
        words += (
            f"It speaks of other orders, not of other pictures: on {judged:,} test pictures one "
            f"accuracy alone is known to ±{1.96 * error:.1f} points."
        )
    return words


def _matrices(family: Family) -> Html | None:
    drawn = [(each, each.matrix()) for each in family.entries]
    drawn = [(each, rows) for each, rows in drawn if rows and max(map(len, rows)) > 1]
    if not drawn:
        return None
    first = [drawn[0], drawn[-1]] if len(drawn) > 1 else drawn
    ours = next(((e, rows) for e, rows in drawn if e is family.default), None)
    shown = [ours, *(pair for pair in first if pair is not ours)][:2] if ours else first
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
        el(
            "li",
            el("i"),
            el("span", each.label, class_="label", title=each.title),
            el("span", family.headline.said(each.mean(family.headline.key)), class_="number"),
            class_=marks[each.label],
        )
        for each in family.entries
    ]
    return el(
        "div", el("p", family.headline.title, class_="note"), el("ul", items, class_="legend")
    )


def _figure(title: str, drawing: Html, beside: Html | None = None) -> Html:
    legended = beside is not None and "legend" in beside
    return el(
        "figure",
        el("figcaption", title),
        drawing,
        beside,
        class_="figure legended" if legended else "figure",
    )


def _marks(grouped: Sequence[Family]) -> dict[str, str]:
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


def _highlights(marks: Mapping[str, str]) -> str:
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


def _value(entry: Entry, measure: Measure) -> float:
    value = entry.mean(measure.key)
    return -1.0 if value is None else value


def _many(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
