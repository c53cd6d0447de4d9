"""Results side by side: means over seeds, which is best, and which are not told apart from it.

Results belong together when they differ in the seed alone: same data set, kind of stream and
options, and the same features. Methods that use all stored data again (joint training) stand beside
as ceilings; the best is sought among the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from retain.bench import metrics
from retain.bench.results import METRICS, Result
from retain.errors import BadOption

__all__ = ["LOWER", "Proof", "Row", "Summary", "Table", "compare", "completed", "proofs"]

LEVEL: Final = 0.05
# What learned everything at once: of the methods on features, and of those that train a network.
REFERENCES: Final = ("joint", "network-joint")
# Of a method whose scores are no probabilities these say nothing.
OF_PROBABILITIES: Final = ("ece", "nll")

LOWER: Final = frozenset(
    {
        "forgetting",
        "intransigence",
        "recency_bias",
        "negative_flips_per_update",
        "negative_flip_rate",
        "ece",
        "nll",
        "wall_s_per_update",
        "cpu_s_per_update",
        "peak_memory_bytes",
        "stored_bytes",
    }
)
"""Metrics of which less is better; of the others it is more."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric of one method over seeds.

    Attributes:
        mean: over the seeds.
        sd: standard deviation over the seeds (n − 1); None with one seed.
        n: seeds.
        p: of the paired t-test against the best over the seeds both have, two-sided; None for the
            best itself, and where fewer than two seeds are shared.
        best: it has the best mean.
        as_good: the best, or not significantly worse (p ≥ 0.05).
    """

    mean: float
    sd: float | None
    n: int
    p: float | None = None
    best: bool = False
    as_good: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One method: its name with its options, and a summary of every metric it has.

    `failed` holds the reasons of the runs that did not come to an end, by seed.
    """

    method: str
    title: str
    hindsight: bool
    seeds: tuple[int, ...]
    values: Mapping[str, Summary]
    failed: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """The methods on one family of streams, the best first."""

    family: str
    kind: str
    pool: str
    rows: tuple[Row, ...]
    by: str


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a run ended where its reference did: the same state, and the same probabilities.

    `steps` are those at which the state could be compared, `equal_steps` those at which it was the
    same. `equal_state` is None where one of them has no digest.
    """

    stream: str
    seed: int
    method: str
    reference: str
    equal_state: bool | None
    equal_answers: bool
    steps: int
    equal_steps: int


def compare(results: Sequence[Result], by: str = "average_incremental_accuracy") -> list[Table]:
    """Tables of all results, one for each family of streams.

    Args:
        results: as `retain.bench.load_results` gives them.
        by: the metric that orders the rows; few-shot streams are ordered by the harmonic mean
            unless another is asked for.

    Raises:
        BadOption: if there is no such metric, or results of different features stand in one family.
    """
    if by not in METRICS:
        raise BadOption(f"there is no metric {by!r}; use {', '.join(METRICS)}")
    families: dict[str, list[Result]] = {}
    for result in completed(results):
        families.setdefault(family_of(result), []).append(result)
    return [_table(name, families[name], by) for name in sorted(families)]


def family_of(result: Result) -> str:
    """The name of a stream without its seed."""
    stream = result["stream"]
    ending = f"-s{stream.get('seed')}"
    name: str = stream["name"]
    # Of the joint stream the seed stands before the last word.
    return name.removesuffix(ending).replace(ending + "-", "-")


def label_of(result: Result) -> str:
    """A method with its options."""
    method = result["method"]
    options = method.get("options") or {}
    words = ", ".join(f"{key}={value}" for key, value in sorted(options.items()))
    return f"{method['name']} ({words})" if words else str(method["name"])


def completed(results: Sequence[Result]) -> list[Result]:
    """The results, with what can be said only of several, and without what says nothing.

    Intransigence is told where joint training was run on the same stream: on features, or of the
    network where that is what the method trains. Calibration and likelihood are left out of methods
    whose scores are no probabilities (see `Method.calibrated`).
    """
    joints = {
        (result["stream"]["digest"], _sees_pictures(result)): result
        for result in results
        if result["method"]["name"] in REFERENCES and result["status"] == "done"
    }
    found: list[Result] = []
    for result in results:
        told: dict[str, float | None] = {}
        if not result["method"].get("calibrated", True):
            told |= dict.fromkeys(OF_PROBABILITIES)
        joint = joints.get((result["stream"]["digest"], _sees_pictures(result)))
        if joint is not None and result["status"] == "done" and result is not joint:
            tasks = [step.get("by_task") or [] for step in result["steps"]]
            track = metrics.Track([], tasks, _learned(result), [])
            reached = [step.get("by_task") or [] for step in joint["steps"]]
            told["intransigence"] = metrics.intransigence(track, reached)
        found.append({**result, "metrics": {**result["metrics"], **told}} if told else result)
    return found


def proofs(results: Sequence[Result]) -> list[Proof]:
    """Every run of ours beside what learned everything at once.

    The reference is ``retain-joint`` with the same options on the same stream, where it was run;
    it begins anew at every step with all that is held.
    """
    found = []
    done = [result for result in results if result["status"] == "done" and result["steps"]]
    joints = {
        (result["stream"]["digest"], _options(result)): result
        for result in done
        if result["method"]["name"] == "retain-joint"
    }
    for result in done:
        if result["method"]["name"] != "retain":
            continue
        joint = joints.get((result["stream"]["digest"], _options(result)))
        if joint is None:
            continue
        pairs = list(zip(result["steps"], joint["steps"], strict=False))
        states = [(a["digest"], b["digest"]) for a, b in pairs if a["digest"] and b["digest"]]
        last, other = pairs[-1]
        found.append(
            Proof(
                result["stream"]["name"],
                result["seed"],
                label_of(result),
                label_of(joint),
                states[-1][0] == states[-1][1] if states else None,
                last.get("probabilities") == other.get("probabilities"),
                len(states),
                sum(a == b for a, b in states),
            )
        )
    return found


def _table(name: str, results: Sequence[Result], by: str) -> Table:
    first = results[0]
    # Methods that train the network see pictures, and stand beside those on anybody's features.
    seen = {
        result["features"]["extractor"]
        for result in results
        if result.get("features") and not _sees_pictures(result)
    }
    pools = {result["stream"].get("pool_digest") for result in results}
    if len(seen) > 1 or len(pools) > 1:
        raise BadOption(
            f"the results on {name} come from {max(len(seen), len(pools))} different data sets or "
            f"extractors and cannot be compared; keep them in folders of their own"
        )
    if first["stream"]["kind"] == "few-shot" and by == "average_incremental_accuracy":
        by = "harmonic"
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(label_of(result), []).append(result)
    values = {
        label: {metric: _by_seed(mine, metric) for metric in METRICS}
        for label, mine in grouped.items()
    }
    hindsight = {label: bool(mine[0]["method"].get("hindsight")) for label, mine in grouped.items()}
    summaries: dict[str, dict[str, Summary]] = {label: {} for label in grouped}
    for metric in METRICS:
        mine = {label: found[metric] for label, found in values.items() if found[metric]}
        for label, summary in _summaries(metric, mine, hindsight).items():
            summaries[label][metric] = summary
    rows = [
        Row(
            label,
            str(mine[0]["method"].get("title") or mine[0]["method"]["name"]),
            hindsight[label],
            tuple(sorted(_key(each) for each in mine if each["status"] == "done")),
            summaries[label],
            {_key(each): each["reason"] for each in mine if each["status"] != "done"},
        )
        for label, mine in grouped.items()
    ]

    def place(row: Row) -> tuple[bool, float, str]:
        found = row.values.get(by)
        return found is None, 0.0 if found is None else -_good(by, found.mean), row.method

    stream = first["stream"]
    return Table(name, stream["kind"], str(stream.get("pool")), tuple(sorted(rows, key=place)), by)


def _summaries(
    metric: str, values: Mapping[str, Mapping[int, float]], hindsight: Mapping[str, bool]
) -> dict[str, Summary]:
    means = {label: float(np.mean(list(mine.values()))) for label, mine in values.items()}
    # One lucky seed does not make a method the best of those with all.
    most = max(len(mine) for mine in values.values()) if values else 0
    rivals = [each for each in values if not hindsight[each] and len(values[each]) == most]
    rivals = rivals or [each for each in values if not hindsight[each]]
    best = max(rivals, key=lambda label: _good(metric, means[label]), default=None)
    found = {}
    for label, mine in values.items():
        there = list(mine.values())
        sd = float(np.std(there, ddof=1)) if len(there) > 1 else None
        p = None
        as_good = label == best or (best is not None and means[label] == means[best])
        if best is not None and label != best:
            p = paired(mine, values[best])
            as_good = as_good or (p is not None and p >= LEVEL)
        found[label] = Summary(
            means[label], sd, len(there), p, label == best, as_good and not hindsight[label]
        )
    return found


def paired(mine: Mapping[int, float], best: Mapping[int, float]) -> float | None:
    """The p-value of the paired t-test over the seeds both have; None with fewer than two.

    >>> round(paired({0: 0.90, 1: 0.92, 2: 0.91}, {0: 0.93, 1: 0.94, 2: 0.94}), 3)
    0.015
    """
    shared = sorted(mine.keys() & best.keys())
    if len(shared) < 2:
        return None
    gaps = np.array([mine[seed] - best[seed] for seed in shared])
    spread = float(gaps.std(ddof=1))
    # The same gap at every seed has no spread to be tested against; rounding must not make one.
    if spread <= 1e-12 * max(float(np.abs(gaps).max()), 1e-300):
        return 1.0 if gaps[0] == 0 else 0.0
    from scipy.stats import t

    statistic = float(gaps.mean()) / (spread / np.sqrt(len(gaps)))
    return float(2 * t.sf(abs(statistic), len(gaps) - 1))


def _by_seed(results: Sequence[Result], metric: str) -> dict[int, float]:
    found = {}
    for result in results:
        value = result["metrics"].get(metric)
        if result["status"] == "done" and value is not None:
            found[_key(result)] = float(value)
    return found


def _good(metric: str, value: float) -> float:
    """The value, such that more is better."""
    return -value if metric in LOWER else value


def _key(result: Result) -> int:
    """Runs are paired by the seed of the stream; a method's own seed makes another run of it."""
    stream = int(result["stream"].get("seed") or 0)
    return stream if result["seed"] == stream else 1_000_000 * (1 + result["seed"]) + stream


def _sees_pictures(result: Result) -> bool:
    """Whether the method trains a network: then the pool was read without an extractor."""
    return (result.get("features") or {}).get("extractor") == "none"


def _learned(result: Result) -> list[int]:
    """The steps in which tasks were learned: as it says, else those that brought classes."""
    told: list[int] | None = result.get("tasks")
    if told is not None:
        return told
    return [number for number, step in enumerate(result["steps"]) if step.get("new_classes")]


def _options(result: Result) -> str:
    return repr(sorted((result["method"].get("options") or {}).items()))
