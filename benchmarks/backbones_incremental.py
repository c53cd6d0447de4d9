"""Class-incremental methods that train the network itself, from scratch, on pictures of 32 pixels.

tiny100_32 (Tiny-ImageNet's first hundred classes at 32 pixels): five tasks of ten classes with a
hundred pictures each, ResNet-32 of He 2016, twenty epochs a task, twenty exemplars a class, three
orders. Every method of `retain.train.methods`; the bars are the same methods of FACIL, PyCIL and
Avalanche on the very same streams (see docs/peers.md: `retain.bench.peers` reads what is written to
benchmarks/cache/streams, and its results are shown beside ours where they are in the folder).

Results are kept in benchmarks/results-backbones; what is there is not computed again, and an
interrupted run goes on after its last finished task. Words keep only methods whose name is one of
them. At the end: the tables, and what the survey of Masana 2020 found, beside what is found here.
Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from _data import HERE, ROOT

from retain.bench import (
    REGISTRY,
    Job,
    Stream,
    compare,
    load_pool,
    load_results,
    make_stream,
    run_many,
    save_stream,
)

STREAMS = HERE / "cache" / "streams"
RESULTS = HERE / "results-backbones"
TRAINED = [name for name, kind in REGISTRY.items() if kind.needs == "images"]
# Each is a name, the methods that the survey says do better, and those that they beat.
FINDINGS = [
    ("1 without exemplars, keeping answers beats keeping weights",
     ["lwf", "lwm"], ["ewc", "online-ewc", "si", "mas", "rwalk"]),
    ("2 fine-tuning with exemplars is a strong baseline",
     ["ft-exemplars"], ["icarl", "eeil", "der++", "er", "gdumb"]),
    ("4 correcting the bias helps", ["bic", "lucir", "il2m", "wa"], ["ft-exemplars", "icarl"]),
]  # fmt: skip
WAITING = {
    "3 with exemplars, keeping weights beats keeping answers": "needs EWC and LwF with exemplars",
    "5 skip connections matter": "run again with --network timm:vgg11_bn and the like",
}


def stream_of(pool, seed: int, tasks: int, size: int, pictures: int) -> Stream:
    """The first tasks of the class-incremental stream, with so many pictures of each class."""
    whole = make_stream("class-incremental", pool, seed, first=size, step=size)
    steps = []
    for step in whole.steps[:tasks]:
        taken: dict[str, int] = {}
        rows = []
        for row in step.images:
            label = str(pool.labels[row])
            if taken.setdefault(label, 0) < pictures:
                taken[label] += 1
                rows.append(row)
        steps.append(replace(step, images=tuple(rows)))
    order = tuple(name for step in steps for name in step.new_classes)
    asked = np.array(whole.test)
    asked = asked[np.isin(pool.labels[asked], order)]
    return replace(
        whole,
        name=f"{pool.name}-{tasks}x{size}x{pictures}-s{seed}",
        options={**whole.options, "tasks": tasks, "pictures": pictures},
        order=order,
        steps=tuple(steps),
        test=tuple(int(row) for row in asked),
    )


def shown(tables) -> dict[str, float]:
    """Prints every table; the mean average accuracies of the last."""
    found = {}
    for each in tables:
        print(
            f"\n{each.family}\n{'method':24}{'seeds':>6}{'average':>16}{'last':>16}{'s/task':>10}"
        )
        for row in each.rows:
            cells = []
            for name in ("average_incremental_accuracy", "last_accuracy"):
                value = row.values.get(name)
                text = "–" if value is None else f"{100 * value.mean:.2f}"
                if value is not None and value.sd is not None:
                    text += f" ± {100 * value.sd:.2f}"
                cells.append(f"{text:>16}")
            seconds = row.values.get("wall_s_per_update")
            cells.append(f"{'–' if seconds is None else f'{seconds.mean:.1f}':>10}")
            print(f"{row.method.partition(' ')[0]:24}{len(row.seeds):6}{''.join(cells)}")
            if "average_incremental_accuracy" in row.values:
                found[row.method.partition(" ")[0]] = (
                    100 * row.values["average_incremental_accuracy"].mean
                )
            for seed, reason in row.failed.items():
                print(f"  seed {seed}: {reason}")
    return found


def findings(found: dict[str, float]) -> None:
    """What the survey found, beside what is found here: average accuracies, best against best."""
    print("\nMasana 2020, arXiv:2010.15277")
    for title, better, worse in FINDINGS:
        one = {name: found[name] for name in better if name in found}
        other = {name: found[name] for name in worse if name in found}
        if not one or not other:
            print(f"  {title}: not run")
            continue
        first, second = max(one, key=one.get), max(other, key=other.get)
        said = "yes" if one[first] > other[second] else "NO"
        print(
            f"  {title}: {said} ({first} {one[first]:.2f}, {second} {other[second]:.2f}; on "
            f"average {np.mean(list(one.values())):.2f} and {np.mean(list(other.values())):.2f})"
        )
    for title, why in WAITING.items():
        print(f"  {title}: open, {why}")


def main() -> None:
    """All methods, the table, the findings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("words", nargs="*", help=f"methods, of {', '.join(TRAINED)}")
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--classes", type=int, default=10, help="of a task")
    parser.add_argument("--pictures", type=int, default=100, help="of a class")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--exemplars", type=int, default=20, help="of a class")
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--streams-only", action="store_true", help="for the peers to begin with")
    parser.add_argument("--again", action="store_true", help="compute what is there, too")
    given = parser.parse_args()
    unknown = sorted(set(given.words) - set(TRAINED))
    if unknown:
        parser.error(f"no method {', '.join(unknown)}; use {', '.join(TRAINED)}")
    path = ROOT / "data" / "tiny100_32.npz"
    if not path.exists():
        print(f"skipped: {path} is not there; set RETAIN_DATA to the folder that holds data/")
        return
    pool = load_pool(path, extractor="none")
    options = {
        "network": given.network,
        "epochs": given.epochs,
        "batch": given.batch,
        "rate": given.rate,
        "augment": "flip",  # as the peers have it
        "per_class": given.exemplars,
    }
    jobs = []
    for seed in given.seeds:
        made = stream_of(pool, seed, given.tasks, given.classes, given.pictures)
        file = save_stream(made, STREAMS)
        jobs += [
            Job(file, str(path), name, given.out, options=options, again=given.again)
            for name in given.words or TRAINED
        ]
    if given.streams_only:
        print(*sorted({str(job.stream) for job in jobs}), sep="\n")
        return
    started, ended = time.monotonic(), []

    def heard(event):
        seconds = time.monotonic() - started
        what = f"{event.job.stream.stem} {event.job.method}"
        if event.state != "step":
            ended.append(event)
            reason = f": {event.message}" if event.message else ""
            what += f": {event.state}{reason}"
        else:
            what += f": task {event.done} of {event.total}"
        print(f"{len(ended)}/{len(jobs)} {seconds:6.0f} s  {what}", file=sys.stderr)

    run_many(jobs, processes=given.processes, heard=heard)
    # Other settings in the folder stand for themselves; the peers have options of their own.
    results = [
        each
        for each in load_results(given.out)
        if each["method"]["name"] not in TRAINED or each["method"]["options"] == options
    ]
    print(", ".join(f"{name} {value}" for name, value in options.items()))
    findings(shown(compare(results)))
    minutes = (time.monotonic() - started) / 60
    print(f"\n{len(jobs)} runs in {minutes:.1f} minutes, {len(results)} results in {given.out}/")


if __name__ == "__main__":
    main()
