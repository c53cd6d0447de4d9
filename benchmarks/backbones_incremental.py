r"""Class-incremental methods that train the network itself, from scratch, on pictures of 32 pixels.

tiny100_32 (Tiny-ImageNet's first hundred classes at 32 pixels): five tasks of five classes with a
hundred pictures each, ResNet-32 of He 2016, twenty epochs a task, SGD as there (0.1, falling to a
tenth at half and at three quarters; momentum 0.9; decay 0.0002), batches of 32, pictures mirrored,
twenty exemplars of a class at random (herded for iCaRL and WA), three orders. Nothing was chosen by
test pictures but the batch, before anything was compared (64 gave 24.2 in the place of 32.4 with
`ft-exemplars` on one order: 160 steps hardly train the network).

With ``--peers`` the same methods of FACIL, PyCIL and Avalanche run on the very same streams with
the same settings (see benchmarks/_backbone_peers.py). Each network begins as its owner has it:
theirs at random, ours with each block as its shortcut, which is worth more than most methods
(docs/log.md)::

    python scripts/make_peer_environment.py avalanche --into ~/avalanche-env
    python benchmarks/backbones_incremental.py --peers --python ~/avalanche-env/bin/python \
        --facil ~/FACIL --pycil ~/PyCIL

Results are kept in benchmarks/results-backbones; what is there is not computed again, and an
interrupted run goes on after its last finished task. Words keep only methods whose name is one of
them; ``ewc+exemplars`` is a method that needs no exemplars with them. At the end: ours beside
theirs, and what the survey of Masana 2020 (arXiv:2010.15277) found, beside what is found here.
Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _backbone_peers import AUXILIARY, BESIDE, HERDED, WITH, run_beside
from _backbone_tables import Row, beside, findings, row
from _data import HERE, ROOT

from retain.bench import (
    REGISTRY,
    Job,
    Pool,
    Stream,
    load_pool,
    load_results,
    load_stream,
    make_stream,
    run_many,
    save_stream,
)

STREAMS = HERE / "cache" / "streams"
RESULTS = HERE / "results-backbones"
NETWORKS = ("resnet32", "plain32")
TRAINED = [name for name, kind in REGISTRY.items() if kind.needs == "images"]
NAMES = [*TRAINED, *(each for each in BESIDE if each.endswith(WITH)), "online-ewc" + WITH]


def stream_of(pool, seed: int, tasks: int, size: int, pictures: int) -> Stream:
    """The first tasks of the class-incremental stream, with so many pictures of each class."""
    whole = make_stream("class-incremental", pool, seed, first=size, step=size)
    steps = []
    for step in whole.steps[:tasks]:
        taken: dict[str, int] = {}
        rows = []
        for number in step.images:
            label = str(pool.labels[number])
            if taken.setdefault(label, 0) < pictures:
                taken[label] += 1
                rows.append(number)
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
        test=tuple(int(each) for each in asked),
    )


def run_ours(jobs: list[Job], processes: int) -> None:
    """All of ours, several at a time, and what is heard of them."""
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

    run_many(jobs, processes=processes, heard=heard)


def run_theirs(given: argparse.Namespace, pool: Pool, names: list[str]) -> None:
    """The toolboxes' own, one after the other."""
    clones = {"facil": given.facil, "pycil": given.pycil}
    for seed in given.seeds:
        stream = load_stream(stream_file(given, pool, seed))
        for name in names:
            if name not in BESIDE:
                continue
            peer = BESIDE[name]
            started = time.monotonic()
            result = run_beside(
                stream,
                pool,
                peer,
                theirs_options(given, name),
                given.python,
                clones.get(peer.peer),
                given.out,
                again=given.again,
            )
            what = f"{stream.name} {peer.name}: {result['status']} {result['reason']}"
            print(f"{time.monotonic() - started:6.0f} s  {what}", file=sys.stderr)


def stream_file(given: argparse.Namespace, pool: Pool, seed: int) -> Path:
    """The stream of a seed, kept in a file."""
    made = stream_of(pool, seed, given.tasks, given.classes, given.pictures)
    return save_stream(made, STREAMS)


def ours_options(given: argparse.Namespace, name: str, network: str) -> dict[str, Any]:
    """The options of one of our methods."""
    options = {
        "network": network,
        "epochs": given.epochs,
        "batch": given.batch,
        "rate": given.rate,
        "augment": "flip",  # as the peers have it
        "per_class": given.exemplars,
    }
    if name.endswith(WITH):
        options["exemplars"] = True
    if name == "dmc":
        options |= AUXILIARY
    kind = REGISTRY[name.removesuffix(WITH)]
    if (name.endswith(WITH) or "exemplars" in kind.keeps) and name not in HERDED:
        options["choice"] = "random"
    return options


def theirs_options(given: argparse.Namespace, name: str) -> dict[str, Any]:
    """The options of the toolbox's method beside one of ours."""
    return BESIDE[name].options(given.epochs, given.batch, given.rate, given.exemplars)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("words", nargs="*", help=f"methods, of {', '.join(NAMES)}")
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--classes", type=int, default=5, help="of a task")
    parser.add_argument("--pictures", type=int, default=100, help="of a class")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--exemplars", type=int, default=20, help="of a class")
    parser.add_argument("--network", default="resnet32", help="plain32 is without skip connections")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--peers", action="store_true", help="run the toolboxes' methods as well")
    parser.add_argument("--only-peers", action="store_true", help="run none of ours")
    parser.add_argument("--python", type=Path, help="of the environment that the toolboxes run in")
    parser.add_argument("--facil", type=Path, help="a clone of mmasana/FACIL")
    parser.add_argument("--pycil", type=Path, help="a clone of G-U-N/PyCIL")
    parser.add_argument("--streams-only", action="store_true", help="write the streams, no more")
    parser.add_argument("--tables-only", action="store_true", help="show what is there")
    parser.add_argument("--again", action="store_true", help="compute what is there, too")
    given = parser.parse_args()
    unknown = sorted(set(given.words) - set(NAMES))
    if unknown:
        parser.error(f"no method {', '.join(unknown)}; use {', '.join(NAMES)}")
    if (given.peers or given.only_peers) and given.python is None:
        parser.error("the toolboxes need an environment; say which with --python")
    return given


def main() -> None:
    """All methods, the table, the findings."""
    given = arguments()
    path = ROOT / "data" / "tiny100_32.npz"
    if not path.exists():
        print(f"skipped: {path} is not there; set RETAIN_DATA to the folder that holds data/")
        return
    names = given.words or NAMES
    if not given.tables_only:
        pool = load_pool(path, extractor="none")
        files = [stream_file(given, pool, seed) for seed in given.seeds]
        if given.streams_only:
            print(*files, sep="\n")
            return
        if not given.only_peers:
            run_ours(
                [
                    Job(
                        file,
                        str(path),
                        name.removesuffix(WITH),
                        given.out,
                        options=ours_options(given, name, given.network),
                        again=given.again,
                    )
                    for file in files
                    for name in names
                ],
                given.processes,
            )
        if given.peers or given.only_peers:
            run_theirs(given, pool, names)
    show(given)


def show(given: argparse.Namespace) -> None:
    """The table of all results that are there, whichever were asked for, and the findings."""
    family = f"-{given.tasks}x{given.classes}x{given.pictures}-s"
    results = [each for each in load_results(given.out) if family in each["stream"]["name"]]

    def ours(name: str, network: str = given.network) -> Row:
        options = ours_options(given, name, network)
        return row(results, name.removesuffix(WITH), options, given.epochs)

    def theirs(name: str) -> Row:
        return row(results, BESIDE[name].name, theirs_options(given, name), given.epochs)

    # The findings compare methods with each other: by the orders alone that all of them have.
    rows = {network: {name: ours(name, network) for name in NAMES} for network in NETWORKS}
    shared = {
        network: set.intersection(*(set(each.average) for each in found.values() if each.average))
        for network, found in rows.items()
        if any(each.average for each in found.values())
    }

    def mean(name: str, network: str, seeds: set[int]) -> float | None:
        found = rows[network][name].average
        return float(np.mean([found[seed] for seed in seeds])) if found and seeds else None

    print(*beside(ours, theirs, NAMES), sep="\n")
    with_, without = (shared.get(network, set()) for network in NETWORKS)
    both = with_ & without
    print(f"\nMasana 2020, arXiv:2010.15277; orders {sorted(with_)}, the fifth {sorted(both)}")
    said = findings(
        lambda name: mean(name, "resnet32", with_),
        lambda name: mean(name, "resnet32", both),
        lambda name: mean(name, "plain32", both),
    )
    print(*said, sep="\n")
    print(f"\n{len(results)} results in {given.out}/")


if __name__ == "__main__":
    main()
