"""Results put in order for the report: which were run on the same stream, and which are as good.

What belongs together, and what is as good as the best, is decided in `comparing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retain.bench.comparing import compare, completed, family_of, label_of

__all__ = ["Entry", "Family", "Measure", "families", "many", "measures"]

OURS = "retain"


@dataclass(frozen=True)
class Measure:
    """A column: its key among the metrics, heading, unit, and factor."""

    key: str
    title: str
    unit: str
    scale: float = 1.0
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
    Measure("balanced_incremental_accuracy", "the same, balanced, %", "%", 100, digits=2),
    Measure("last_accuracy", "last accuracy, %", "%", 100, digits=2),
    Measure("forgetting", "forgetting, points", "points", 100),
    Measure("backward_transfer", "backward transfer, points", "points", 100),
    Measure("forward_transfer", "forward transfer, points", "points", 100),
    Measure("intransigence", "intransigence, points", "points", 100),
    Measure("recency_bias", "recency bias, points", "points", 100),
    Measure("negative_flips_per_update", "negative flips an update", "", digits=2),
    Measure("negative_flip_rate", "negative flip rate, %", "%", 100, digits=2),
    Measure("corrections_kept", "corrections kept, %", "%", 100),
    Measure("nll", "negative log-likelihood", "", digits=3),
    Measure("ece", "calibration error, %", "%", 100),
    Measure("auroc_unseen", "AUROC of unseen classes, %", "%", 100),
    Measure("wall_s_per_update", "time an update", "time"),
    Measure("cpu_s_per_update", "CPU time an update", "time"),
    Measure("peak_memory_bytes", "peak memory", "bytes"),
    Measure("stored_bytes", "stored", "bytes"),
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
    """Results that differ in method and seed alone, best method first.

    `broken` did not finish; `good` has, by metric, the best and those not significantly worse.
    """

    title: str
    kind: str
    pool: str
    headline: Measure
    entries: tuple[Entry, ...]
    broken: tuple[Mapping[str, Any], ...]
    good: Mapping[str, frozenset[str]]

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
    """The results put together by stream, the most telling kinds of stream first.

    Raises:
        BadOption: if results of different features stand in one family.
    """
    together: dict[str, list[Mapping[str, Any]]] = {}
    for each in completed(results):
        together.setdefault(family_of(each), []).append(each)
    good = {
        table.family: {
            key: frozenset(
                row.method for row in table.rows if key in row.values and row.values[key].as_good
            )
            for key in {key for row in table.rows for key in row.values}
        }
        for table in compare(results)
    }
    made = [_family(name, members, good[name]) for name, members in together.items()]
    return sorted(made, key=lambda each: (_rank(each.kind), -len(each.entries), each.title))


def measures(family: Family) -> list[Measure]:
    """The columns for which at least one method has a value, the headline first."""
    held = [m for m in MEASURES if any(e.by_seed(m.key) for e in family.entries)]
    return sorted(held, key=lambda each: each.key != family.headline.key)


def _family(
    name: str, members: Sequence[Mapping[str, Any]], good: Mapping[str, frozenset[str]]
) -> Family:
    done: dict[str, list[Mapping[str, Any]]] = {}
    for each in members:
        if each["status"] == "done":
            done.setdefault(label_of(each), []).append(each)
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
                {_seed(run): run for run in sorted(runs, key=_seed)},
            )
        )
    stream = members[0]["stream"]
    few = stream["kind"] == "few-shot" and any(e.by_seed("harmonic") for e in entries)
    headline = MEASURES[0] if few else MEASURES[1]
    entries.sort(key=lambda each: (-_or(each.mean(headline.key), -1.0), each.label))
    return Family(
        name,
        str(stream["kind"]),
        str(stream["pool"]),
        headline,
        tuple(entries),
        tuple(each for each in members if each["status"] != "done"),
        good,
    )


def _rank(kind: str) -> int:
    order = ["class-incremental", "few-shot", "new-instances", "blurry", "long-tail"]
    return order.index(kind) if kind in order else len(order)


def _seed(result: Mapping[str, Any]) -> int:
    """The stream's seed; a run with a seed of its own beside it is told by both."""
    stream = int(result["stream"].get("seed") or 0)
    own = int(result["seed"])
    return stream if own == stream else 1000 * (own + 1) + stream


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


def many(count: int, one: str) -> str:
    """So many of something: ``1 run``, ``1,000 runs``."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"
