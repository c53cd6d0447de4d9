"""Class-incremental learning on frozen features: every method, side by side, in two processes.

* caltech101: ten tasks of ten classes (the last of eleven), and a half (50 classes) followed by
  five tasks; three orders each.
* clothing17: 17 unbalanced classes, one at a time; three orders.
* few-shot: 81 classes of caltech101 with 30 pictures each, then 20 with 1, 2 or 5; five draws.
* with --more: the other kinds of streams on clothing17, one seed.

Streams are made in benchmarks/cache/streams, results are kept in benchmarks/results; what is there
is not computed again, and an interrupted run goes on. Arguments keep only the streams and methods
whose names contain one of them (retain and joint always stay). Bars: all in under 30 minutes on two
cores; retain equals learning everything at once; its average incremental accuracy is at most 0.3
points below the best, and nothing as accurate is faster; few-shot, harmonic mean 5 points above the
best other method at one picture and 2 at five.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from _data import HERE, ROOT, table

from retain.bench import (
    REGISTRY,
    Job,
    compare,
    load_pool,
    load_results,
    make_stream,
    proofs,
    run_many,
    save_stream,
)
from retain.bench.comparing import completed

CALTECH, CLOTHING = "caltech101_30_10", "clothing17_224"
CACHE, RESULTS = HERE / "cache", HERE / "results"
ORDERS, DRAWS = range(3), range(5)

STREAMS = [
    (CALTECH, "class-incremental", {"first": 10, "step": 10}, ORDERS),
    (CALTECH, "class-incremental", {"first": 50, "step": 10}, ORDERS),
    (CLOTHING, "class-incremental", {"first": 1, "step": 1}, ORDERS),
    *((CALTECH, "few-shot", {"new": 20, "shots": shots}, DRAWS) for shots in (1, 2, 5)),
]
MORE = [
    (CLOTHING, "new-instances", {"steps": 10}, range(1)),
    (CLOTHING, "blurry", {"tasks": 5}, range(1)),
    (CALTECH, "long-tail", {"imbalance": 10.0}, range(1)),
    (CLOTHING, "corrections", {"steps": 5}, range(1)),
    (CLOTHING, "deletions", {"steps": 5, "share": 0.02, "classes": 1}, range(1)),
    (CLOTHING, "domain-shift", {"groups": 5}, range(1)),
]
# Where the test pictures are as unbalanced as the lessons, plain accuracy wants priors.
UNBALANCED = {CLOTHING: [("retain", {"priors": "balanced"}), ("retain", {"priors": "empirical"})]}
# By default old classes come first; an owner may want new ones as badly.
FEW = [("retain", {"favour": favour}) for favour in (1.0, 2.0)]
# Standard metrics of a table, with headings; the report has them all.
SHOWN = {
    "average_incremental_accuracy": ("average", 100),
    "balanced_incremental_accuracy": ("balanced", 100),
    "last_accuracy": ("last", 100),
    "harmonic": ("harmonic", 100),
    "forgetting": ("forgetting", 100),
    "intransigence": ("intransig.", 100),
    "recency_bias": ("recency", 100),
    "negative_flips_per_update": ("worse/update", 1),
    "ece": ("ECE", 100),
    "auroc_unseen": ("AUROC", 100),
    "wall_s_per_update": ("s/update", 1),
    "peak_memory_bytes": ("peak MB", 1e-6),
    "stored_bytes": ("stored MB", 1e-6),
}


def jobs_of(streams, words, again):
    """Every run: each method on each seed of each stream."""
    pools, jobs = {}, []
    for name, kind, options, seeds in streams:
        path = ROOT / "data" / f"{name}.npz"
        if not path.exists():
            print(f"skipped: {path} is not there; set RETAIN_DATA to the folder that holds data/")
            sys.exit(0)
        if name not in pools:
            pools[name] = load_pool(path, cache=CACHE)
        for seed in seeds:
            made = make_stream(kind, pools[name], seed, **options)
            file = save_stream(made, CACHE / "streams")
            on_features = [(each, {}) for each in REGISTRY if REGISTRY[each].needs == "features"]
            more = FEW if kind == "few-shot" else UNBALANCED.get(name, [])
            for method, own in [*on_features, *more]:
                kept = (
                    not words
                    or any(word in made.name for word in words)
                    or any(word in method for word in words)
                )
                # These two are what the others are held against.
                if kept or method in {"retain", "joint"}:
                    jobs.append(
                        Job(
                            file,
                            str(path),
                            method,
                            RESULTS,
                            options=own,
                            again=again and kept,
                            cache=CACHE,
                        )
                    )
    return jobs


def shown(tables):
    """Every family of streams as a table."""
    for each in tables:
        keys = [key for key in SHOWN if any(key in row.values for row in each.rows)]
        rows = []
        for row in each.rows:
            cells = []
            for key in keys:
                found = row.values.get(key)
                if found is None:
                    cells.append("–")
                    continue
                factor = SHOWN[key][1]
                digits = 4 if key == "wall_s_per_update" else 1 if "bytes" in key else 2
                mark = "*" if found.as_good else "†" if row.hindsight else " "
                spread = "" if found.sd is None or factor != 100 else f" ± {100 * found.sd:.2f}"
                wide = "accuracy" in key or key == "harmonic"
                cells.append(f"{factor * found.mean:.{digits}f}{spread if wide else ''}{mark}")
            rows.append([row.method, len(row.seeds), *cells])
        table(
            f"{each.family} (* best or not significantly worse; † all stored data again)",
            ["method", "seeds", *(SHOWN[key][0] for key in keys)],
            rows,
        )
        for row in each.rows:
            for seed, reason in row.failed.items():
                print(f"{row.method}, seed {seed}: {reason}")


def reached(each, by):
    """How ours does by one measure on one family of streams, beside the best of the others."""
    values = {row.method: row.values for row in each.rows if by in row.values}
    others = {
        name: found
        for name, found in values.items()
        if not name.startswith("retain") and name != "joint"
    }
    rows = []
    for name in (each for each in values if each == "retain" or each.startswith("retain (")):
        if not others:
            break
        ours = 100 * values[name][by].mean
        best = max(others, key=lambda other: others[other][by].mean)
        gap = ours - 100 * others[best][by].mean
        bar = -0.3
        if each.kind == "few-shot":
            bar = {"1": 5.0, "5": 2.0}.get(each.family.rpartition("x")[2], 0.0)
        holds = "yes" if gap >= bar else "NO"
        rows.append(
            [f"{each.family}, {by}: {name}", f"{ours:.2f}, {best} {gap:+.2f}", f"{bar:+.1f}", holds]
        )
        if each.kind == "class-incremental":
            spent = values[name]["wall_s_per_update"].mean
            faster = [
                other
                for other, found in others.items()
                if 100 * found[by].mean >= ours and found["wall_s_per_update"].mean < spent
            ]
            holds = "NO" if faster else "yes"
            rows.append(["  as accurate and faster", ", ".join(faster) or "none", "none", holds])
    return rows


def bars(tables, equal):
    """What must be reached, and whether it is."""
    rows = []
    whole = [one for one in equal if one.equal_state and one.equal_answers]
    rows.append(["step by step = all at once", f"{len(whole)} of {len(equal)} runs", "all",
                 "yes" if equal and len(whole) == len(equal) else "NO"])  # fmt: skip
    for each in tables:
        measures = [each.by]
        if each.kind == "class-incremental":
            measures = ["average_incremental_accuracy", "balanced_incremental_accuracy"]
        for by in measures:
            rows += reached(each, by)
    table("what must be reached", ["what", "found", "bar", "holds"], rows)


def main() -> None:
    """All streams, all methods, the tables, the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="keep streams and methods that contain one")
    parser.add_argument("--more", action="store_true", help="the other kinds of streams too")
    parser.add_argument("--again", action="store_true", help="compute what is there, too")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", type=Path, help="write the report to this file")
    given = parser.parse_args()
    jobs = jobs_of([*STREAMS, *(MORE if given.more else [])], given.words, given.again)
    started, ended = time.monotonic(), []

    def heard(event):
        if event.state == "step":
            return
        ended.append(event)
        reason = f": {event.message}" if event.message else ""
        print(
            f"{len(ended)}/{len(jobs)} {time.monotonic() - started:6.0f} s  "
            f"{event.job.stream.stem} {event.job.method}: {event.state}{reason}",
            file=sys.stderr,
        )

    run_many(jobs, processes=given.processes, heard=heard)
    minutes = (time.monotonic() - started) / 60
    results = load_results(RESULTS)
    tables, equal = compare(results), proofs(results)
    shown(tables)
    bars(tables, equal)
    print(f"\n{len(jobs)} runs in {minutes:.1f} minutes, {len(results)} results in {RESULTS.name}/")
    if given.report:
        from retain.bench.report import write

        print(f"wrote {write(completed(results), given.report)}")


if __name__ == "__main__":
    main()
