"""Results put in order for the report: which were run on the same stream, and which are as good.

Two results belong together when they differ in the seed alone: same pool, same kind of stream, same
options. A method with other options is another method.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Entry", "Family", "Measure", "as_good", "families", "measures"]

OURS = "retain"
ALPHA = 0.05


@dataclass(frozen=True)
class Measure:
    """A column: its key among the metrics, heading, factor, unit, and which way is better."""

    key: str
    title: str
    unit: str
    scale: float = 1.0
    larger: bool = True
    digits: int = 1

    def said(self, value: float | None) -> str:
        """The value in its unit, a dash for none.

        >>> Measure("last_accuracy", "last", "%", 100).said(0.875)
        '87.5'
        """
        if value is None:
            return "–"
        if self.unit == "time":
            return _seconds(value)
        if self.unit == "bytes":
            return _bytes(value)
        # A tiny negative mean must not be printed as minus nothing.
        return f"{round(self.scale * value, self.digits) + 0.0:.{self.digits}f}"


MEASURES = (
    Measure("harmonic", "harmonic mean, %", "%", 100),
    Measure("average_incremental_accuracy", "average incremental accuracy, %", "%", 100, digits=2),
    Measure("last_accuracy", "last accuracy, %", "%", 100, digits=2),
    Measure("forgetting", "forgetting, points", "points", 100, larger=False),
    Measure("backward_transfer", "backward transfer, points", "points", 100),
    Measure("forward_transfer", "forward transfer, points", "points", 100),
    Measure("intransigence", "intransigence, points", "points", 100, larger=False),
    Measure("recency_bias", "recency bias, points", "points", 100, larger=False),
    Measure("negative_flips_per_update", "negative flips an update", "", 1, larger=False, digits=2),
    Measure("ece", "calibration error, %", "%", 100, larger=False),
    Measure("auroc_unseen", "AUROC of unseen classes, %", "%", 100),
    Measure("wall_s_per_update", "time an update", "time", larger=False),
    Measure("cpu_s_per_update", "CPU time an update", "time", larger=False),
    Measure("peak_memory_bytes", "peak memory", "bytes", larger=False),
    Measure("stored_bytes", "stored", "bytes", larger=False),
)


@dataclass(frozen=True, eq=False)
class Entry:
    """One method on one family of streams: its finished results by seed."""

    label: str
    name: str
    title: str
    source: str
    hindsight: bool
    runs: Mapping[int, Mapping[str, Any]]

    @property
    def ours(self) -> bool:
        """Whether the method is this project's own."""
        return self.name == OURS or self.name.startswith((OURS + "-", OURS + ":"))

    def by_seed(self, key: str) -> dict[int, float]:
        """One metric of each seed that has it."""
        found = {}
        for seed, run in self.runs.items():
            value = (run.get("metrics") or {}).get(key)
            if isinstance(value, int | float):
                found[seed] = float(value)
        return found

    def mean(self, key: str) -> float | None:
        """The mean of a metric over the seeds, none where no seed has it."""
        values = list(self.by_seed(key).values())
        return float(np.mean(values)) if values else None

    def spread(self, key: str) -> tuple[float, float] | None:
        """The least and the greatest value of a metric over the seeds."""
        values = list(self.by_seed(key).values())
        return (min(values), max(values)) if values else None

    def curve(self, key: str) -> list[list[float]]:
        """Per step the values of each seed that has them; steps that not all seeds share end it."""
        series = [[step.get(key) for step in run.get("steps", [])] for run in self.runs.values()]
        shared = min((len(each) for each in series), default=0)
        return [[float(s[i]) for s in series if s[i] is not None] for i in range(shared)]

    def matrix(self) -> list[list[float]]:
        """Accuracy on each task after each step, mean over the seeds; rows are steps."""
        runs = [
            [s.get("by_task") or [] for s in run.get("steps", [])] for run in self.runs.values()
        ]
        steps = min((len(each) for each in runs), default=0)
        rows = []
        for i in range(steps):
            width = min(len(each[i]) for each in runs)
            columns = [[each[i][j] for each in runs] for j in range(width)]
            rows.append([_mean(column) for column in columns])
        return rows


@dataclass(frozen=True, eq=False)
class Family:
    """Results that differ in method and seed alone, best method first; `broken` did not finish."""

    title: str
    kind: str
    pool: str
    headline: Measure
    entries: tuple[Entry, ...]
    broken: tuple[Mapping[str, Any], ...]

    @property
    def seeds(self) -> list[int]:
        """Every seed of which there is a result."""
        return sorted({seed for each in self.entries for seed in each.runs})

    @property
    def rivals(self) -> tuple[Entry, ...]:
        """The methods that do not look at all data again."""
        return tuple(each for each in self.entries if not each.hindsight)

    @property
    def default(self) -> Entry | None:
        """Our default, or else the best of ours."""
        ours = [each for each in self.rivals if each.ours]
        return next((each for each in ours if each.label == OURS), ours[0] if ours else None)

    def any_run(self) -> Mapping[str, Any] | None:
        """One result, for what all of them share."""
        return next((run for each in self.entries for run in each.runs.values()), None)


def families(results: Sequence[Mapping[str, Any]]) -> list[Family]:
    """The results put together by stream, the largest family first."""
    together: dict[str, list[Mapping[str, Any]]] = {}
    for each in results:
        stream = each["stream"]
        key = json.dumps([stream["pool"], stream["kind"], stream.get("options")], sort_keys=True)
        together.setdefault(key, []).append(each)
    made = [_family(members) for members in together.values()]
    return sorted(made, key=lambda each: (_rank(each.kind), -len(each.entries), each.title))


def measures(family: Family) -> list[Measure]:
    """The columns for which at least one method has a value, the headline first."""
    held = [m for m in MEASURES if any(e.by_seed(m.key) for e in family.entries)]
    return sorted(held, key=lambda each: each.key != family.headline.key)


def as_good(entries: Sequence[Entry], measure: Measure) -> set[str]:
    """Labels of the best method and of those that are not significantly worse.

    A two-sided paired t test over the seeds both have, at 5 %, without correction for many
    comparisons. With one shared seed there is nothing to test and only the best (and its equals)
    are named; a method without a value is never named.
    """
    sign = 1 if measure.larger else -1
    held = {each.label: each.by_seed(measure.key) for each in entries}
    means = {label: float(np.mean(list(v.values()))) for label, v in held.items() if v}
    if not means:
        return set()
    best = max(means, key=lambda label: sign * means[label])
    return {label for label in means if label == best or not _worse(held[best], held[label], sign)}


def _worse(best: Mapping[int, float], other: Mapping[int, float], sign: int) -> bool:
    seeds = sorted(set(best) & set(other))
    behind = np.array([sign * (best[seed] - other[seed]) for seed in seeds])
    if not len(behind):
        return True
    if np.ptp(behind) <= 1e-12:
        return bool(behind[0] > 1e-12)
    if behind.mean() <= 0:
        return False
    from scipy import stats

    return bool(stats.ttest_1samp(behind, 0.0).pvalue < ALPHA)


def _family(members: Sequence[Mapping[str, Any]]) -> Family:
    done: dict[str, list[Mapping[str, Any]]] = {}
    for each in members:
        if each["status"] == "done":
            done.setdefault(label_of(each["method"]), []).append(each)
    entries = []
    for label, runs in done.items():
        method = runs[0]["method"]
        entries.append(
            Entry(
                label,
                str(method["name"]),
                str(method.get("title") or method["name"]),
                str(method.get("source") or ""),
                bool(method.get("hindsight")),
                {int(run["seed"]): run for run in sorted(runs, key=lambda r: int(r["seed"]))},
            )
        )
    stream = members[0]["stream"]
    few = stream["kind"] == "few-shot" and any(e.by_seed("harmonic") for e in entries)
    headline = MEASURES[0] if few else MEASURES[1]
    entries.sort(key=lambda each: (-_or(each.mean(headline.key), -1.0), each.label))
    return Family(
        re.sub(r"[-_.]s(eed)?\d+$", "", str(stream["name"])),
        str(stream["kind"]),
        str(stream["pool"]),
        headline,
        tuple(entries),
        tuple(each for each in members if each["status"] != "done"),
    )


def label_of(method: Mapping[str, Any]) -> str:
    """What a method is called: its name, and its options where it has any.

    >>> label_of({"name": "ranpac", "options": {"dimension": 5000}})
    'ranpac dimension=5000'
    """
    options = method.get("options") or {}
    return " ".join([str(method["name"]), *(f"{k}={options[k]}" for k in sorted(options))])


def _rank(kind: str) -> int:
    order = ["class-incremental", "few-shot", "new-instances", "blurry", "long-tail"]
    return order.index(kind) if kind in order else len(order)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _mean(values: Sequence[float | None]) -> float:
    held = [value for value in values if value is not None]
    return float(np.mean(held)) if held else float("nan")


def _seconds(value: float) -> str:
    if value < 0.9995e-3:
        return f"{1e6 * value:.0f} µs"
    if value < 0.9995:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.3g} s" if value < 100 else f"{value:,.0f} s"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:,.0f} {unit}"
        value /= 1000
    raise AssertionError
