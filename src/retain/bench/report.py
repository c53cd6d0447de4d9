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
from pathlib import Path
from typing import Any

from retain.bench.report_data import Entry, Family, Measure, families, many, measures
from retain.bench.report_figures import (
    cost_figure,
    curves_figure,
    differences_figure,
    highlights,
    marks_of,
    matrices,
    ranges_figure,
)
from retain.bench.report_how import broken, environments, methods_run, reading
from retain.bench.report_proof import proof
from retain.errors import BadOption
from retain.markup import Html, el, header, page, section, tile
from retain.plots import look

__all__ = ["write"]

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
    marks = marks_of(grouped)
    shown = [each for each in grouped if each.entries]
    own = (files("retain") / "bench" / "report.css").read_text(encoding="utf-8")
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
        style=look() + own + highlights(marks),
    )


def _lead(results: Sequence[Mapping[str, Any]], grouped: Sequence[Family]) -> Html:
    names = {entry.label for each in grouped for entry in each.entries}
    seeds = {int(each["seed"]) for each in results}
    pools = sorted({each.pool for each in grouped})
    done = sum(each["status"] == "done" for each in results)
    sentence = (
        f"{many(done, 'run')} of {many(len(names), 'method')} on {many(len(grouped), 'stream')} "
        f"of {_listed(pools)}, {many(len(seeds), 'seed')}. Lines and numbers are means over the "
        f"seeds; bands and the small numbers reach from the least to the greatest."
    )
    if len(results) > done:
        sentence += f" {many(len(results) - done, 'run')} did not finish; each is listed below."
    return header("retain bench", "What is kept, what is lost, what it costs", sentence)


def _tiles(shown: Sequence[Family], results: Sequence[Mapping[str, Any]]) -> Html | None:
    first = next((each for each in shown if each.default), None)
    if first is None or first.default is None:
        return None
    ours, measure = first.default, first.headline
    # A mean over fewer orders is not the same figure.
    others = [e for e in first.rivals if not e.ours and e.runs.keys() >= ours.runs.keys()]
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
    if not any(len(each.matrix()) > 1 for each in family.entries):
        only = section(
            f"{family.title}: {family.kind}", _bold_sentence(family), _table(family, marks)
        )
        return el("div", only, id=name)
    body = section(
        f"{family.title}: {family.kind}",
        _sentence(family),
        curves_figure(family, marks),
        differences_figure(family, marks),
        el(
            "div",
            ranges_figure(family, marks, "forgetting", "Forgetting, points", "Less is better."),
            ranges_figure(
                family,
                marks,
                "recency_bias",
                "Bias towards the last task, points",
                "Nearer to 0 is better.",
            ),
            class_="two",
        ),
        el(
            "div",
            cost_figure(family, marks, _TIME, "Time against accuracy", "wall time an update"),
            cost_figure(family, marks, _STORED, "Memory against accuracy", "bytes stored"),
            class_="two",
        ),
        el("h3", "All numbers"),
        el("p", _bold_sentence(family)),
        _table(family, marks),
        matrices(family),
    )
    return el("div", body, id=name)


def _sentence(family: Family) -> str:
    run = family.any_run() or {}
    steps = run.get("steps", [])
    judged = steps[-1].get("judged") if steps else None
    words = f"{many(len(steps), 'step')}"
    if run.get("order"):
        words += f", {len(run['order'])} classes"
    if judged:
        words += f", {judged:,} test pictures after the last step"
    seeds = family.seeds
    return (
        f"{words}; {many(len(seeds), 'seed')} ({', '.join(map(str, seeds))}), each with an order "
        f"of its own. After each step every class seen so far is judged together, and nobody says "
        f"which step a picture belongs to."
    )


def _table(family: Family, marks: Mapping[str, str]) -> Html:
    columns = measures(family)
    ceilings = [each for each in family.entries if each.hindsight]
    every = len(family.seeds)
    body = [_row(each, columns, family.good, marks, every) for each in family.rivals]
    if ceilings:
        words = "With hindsight: these see everything again at every step, and are not compared"
        body.append(el("tr", el("th", words, colspan=str(len(columns) + 1), class_="among")))
        body += [_row(each, columns, {}, marks, every) for each in ceilings]
    heads = [el("th", each.title, scope="col", class_="right") for each in columns]
    return el(
        "div",
        el(
            "table",
            el("caption", f"{family.title}, {many(len(family.seeds), 'seed')}"),
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
    good: Mapping[str, frozenset[str]],
    marks: Mapping[str, str],
    every: int,
) -> Html:
    cells = []
    for each in columns:
        said, reach = each.said(entry.mean(each.key)), entry.spread(each.key)
        note = None
        if reach and reach[0] != reach[1] and each.unit not in ("time", "bytes"):
            note = el("span", f"{each.said(reach[0])} … {each.said(reach[1])}", class_="note")
        bold = entry.label in good.get(each.key, ())
        cells.append(el("td", el("b", said) if bold else said, note, class_="right"))
    few = f" {len(entry.runs)} of {every} seeds" if len(entry.runs) < every else None
    swatch, few_seeds = el("span", class_="swatch"), el("span", few, class_="note") if few else None
    name = el("th", swatch, entry.label, few_seeds, scope="row", title=entry.title)
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
        f"With {seeds} seeds the test has {many(seeds - 1, 'degree')} of freedom: what is not "
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


def _value(entry: Entry, measure: Measure) -> float:
    value = entry.mean(measure.key)
    return -1.0 if value is None else value


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
