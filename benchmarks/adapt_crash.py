"""Kill `adapt` at random moments while a server answers: it goes on, to the same weights.

    python benchmarks/adapt_crash.py [--method icarl] [--quick]

Real pictures (mini_clothing10_128_cc0) through a small network (MobileNetV3 at half its width,
begun at random, 64 pixels). First an adapt that nobody kills, which says when which step is taken.
Of that time ten moments are drawn, early ones first; for each a child adapts a twin and is killed
(SIGKILL) as soon as it is as far as the first was at that moment. Then one is let finish. All keep
their state every five seconds (`--save-every`), where adapt does so every thirty, since a run takes
a minute or two. With `--method` it is a second lesson, of the classes that came later.

Every child says at which step it begins. Where nothing was kept, all would begin at the first, and
come to the same weights all the same: so it is amiss if one begins before the one ahead of it did,
or further than that came; if none begins in the middle; if the last takes as many steps as
an adapt that nobody killed; and if the tensors or the answers in the end are not those of that one,
bit for bit.

All the while `retain serve` answers for the twin, each time a picture that it was not asked before.
Each answer must be that of the version before, to the last digit, until the adapted network is in
place, and that of the version after from then on. How long it took is told, before the kills and
meanwhile; on a machine that is busy with training an answer takes longer.

Results are kept in `benchmarks/results-adapt`. `--quick` kills four times, with fewer pictures,
saving every second, and keeps what it found in `benchmarks/cache`. Needs the extras `train` and
`server`; `--server-python` names another interpreter for the server. Exits with 1 if anything is
amiss.
"""

from __future__ import annotations

import argparse
import bisect
import functools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import multiprocessing

import numpy as np
from _data import HERE, stored, table
from serving import answer, fresh, served

import retain
from retain.bench.results import environment
from retain.errors import MissingExtra

SIDE, ASKED, CHILDREN = 64, 12, multiprocessing.get_context("spawn")
RESULTS = HERE / "results-adapt"
PAUSE = 0.02  # seconds between two questions
QUIET = 5.0  # seconds of questions before the first child
# The very end of a run is left alone: a child may be a little faster than the one measured.
LATEST = 0.95

Event = tuple[str, str, int]
"""What a child says of itself: begun, a step of a phase, a phase trained, done."""

Answer = tuple[str, float]


@dataclass(frozen=True, slots=True)
class Job:
    """What every child does."""

    method: str | None
    epochs: int
    save_every: float


@dataclass(eq=False, slots=True)
class Child:
    """What a process that adapts said, and when, in seconds since it began to adapt.

    Attributes:
        events: what it said.
        times: when.
        code: how it ended, as `multiprocessing` tells it: 0, or −9 if it was killed.
    """

    events: list[Event] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    code: int | None = None

    @property
    def steps(self) -> list[Event]:
        """Those that it took."""
        return [each for each in self.events if each[0] == "step"]


def extractor(folder: Path) -> Path:
    """A small network begun at random, as a folder that classifiers are made with."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_small_050", num_classes=2)
    folder.mkdir()
    save_file(network.state_dict(), folder / "random.safetensors")
    with retain.adopt(
        folder / "made",
        "timm:mobilenetv3_small_050",
        weights=folder / "random.safetensors",
        size=SIDE,
        labels=["a", "b"],
        preprocess="imagenet",
    ):
        return next((folder / "made" / "extractors").iterdir())


def work(path: str, job: Job, link: Any = None) -> None:
    """Adapt, and say how far it is; in a process of its own."""
    from retain import train

    if link is not None:
        report(train, link)
    train.fit = functools.partial(train.fit, save_every=job.save_every)
    train.teach = functools.partial(train.teach, save_every=job.save_every)
    memory = train.Memory(train.Budget(per_class=5)) if job.method else None
    recipe = train.transfer(epochs=job.epochs, batch=16, rate=0.02)
    plan = train.Plan(batchnorm="frozen")
    with retain.open(path) as shop:
        if link is not None:
            link.send(("begun", "", 0))
        shop.adapt(plan, recipe=recipe, method=job.method, memory=memory, force=True)
    if link is not None:
        link.send(("done", "", 0))


def report(train: Any, link: Any) -> None:
    """Has the loop say each step before it is taken, and when a phase is trained."""
    run = train.loop._Run
    take, go = run._take, run.go

    def name(self: Any) -> str:
        return str(self.checkpoint._path.parent.name)

    def took(self: Any, *given: Any) -> Any:
        link.send(("step", name(self), self.step))
        return take(self, *given)

    def went(self: Any, *given: Any) -> Any:
        found = go(self, *given)
        link.send(("trained", name(self), 0))
        return found

    run._take, run.go = took, went


def run(path: Path, job: Job, enough: Callable[[Child], float | None] = lambda _: None) -> Child:
    """Adapt in a process of its own.

    Args:
        path: of the classifier.
        job: what it does.
        enough: asked after each event; so many seconds after it first gives a number, the process
            is killed.
    """
    link, theirs = CHILDREN.Pipe(duplex=False)
    process = CHILDREN.Process(target=work, args=(str(path), job, theirs))
    process.start()
    theirs.close()
    child, began, end = Child(), 0.0, float("inf")
    while True:
        left = max(0.0, end - time.perf_counter())
        if not link.poll(min(left, 600.0)):
            if left <= 600.0:
                os.kill(process.pid or 0, signal.SIGKILL)
                end = float("inf")
            continue
        try:
            event = link.recv()
        except (EOFError, OSError):
            break
        now = time.perf_counter()
        began = began or now
        child.events.append(event)
        child.times.append(now - began)
        wait = enough(child)
        if wait is not None and end == float("inf") and event[0] != "done":
            end = now + wait
    process.join()
    link.close()
    child.code = process.exitcode
    return child


class Asking(threading.Thread):
    """Asks a server without end, a picture that is new to it each time.

    Attributes:
        answers: when each question was asked, how long the answer took, which picture it was of,
            and what it said.
        wrong: what was no answer.
    """

    def __init__(self, port: int, asked: list[bytes]) -> None:
        super().__init__(daemon=True)
        self._port, self._asked, self._over = port, asked, threading.Event()
        self.answers: list[tuple[float, float, int, Answer]] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        """Until `end`."""
        with (
            socket.create_connection(("127.0.0.1", self._port), 600) as link,
            link.makefile("rb") as file,
        ):
            for number, asked in enumerate(fresh(self._asked)):
                if self._over.wait(PAUSE):
                    return
                began = time.perf_counter()
                try:
                    link.sendall(asked)
                    status, told = answer(file)
                except (OSError, IndexError, ValueError) as error:
                    self.wrong.append(f"the server did not answer: {error!r}")
                    return
                took = time.perf_counter() - began
                if status != 200:
                    self.wrong.append(f"the server answered {status}: {told[:200]!r}")
                    continue
                (found,) = json.loads(told)["predictions"]
                said = str(found["label"]), float(found["probability"])
                self.answers.append((began, took, number % len(self._asked), said))

    def end(self) -> None:
        """No more questions."""
        self._over.set()
        self.join()

    def until(self, moment: float, wait: float = 60.0) -> None:
        """Until a question is answered that was asked after a moment."""
        limit = time.perf_counter() + wait
        while self.is_alive() and time.perf_counter() < limit:
            if self.answers and self.answers[-1][0] > moment:
                return
            time.sleep(0.05)


def said(path: Path, asked: list[bytes]) -> list[Answer]:
    """What a classifier answers."""
    with retain.open(path) as shop:
        return [(each.label, each.probability) for each in shop.predict(asked)]


def tensors(path: Path) -> bytes:
    """The network in force."""
    with retain.open(path) as shop:
        return (shop._session.store.extractor_dir / "weights.safetensors").read_bytes()


def made(path: Path, eyes: Path, files: list[bytes], labels: list[str], job: Job) -> None:
    """A classifier that has learned; for a method, its first lesson too."""
    early = sorted(set(labels))[:6] if job.method else sorted(set(labels))
    for wanted in (early, sorted(set(labels) - set(early))):
        mine = [i for i, label in enumerate(labels) if label in wanted]
        with retain.open(path) if path.exists() else retain.create(path, extractor=eyes) as shop:
            if mine:
                shop.learn([files[i] for i in mine], [labels[i] for i in mine], force=True)
        if job.method and wanted is early:
            run(path, job)


def due(whole: Child, moment: float) -> Callable[[Child], float | None]:
    """When to kill a child, so that it is as far as the whole run was at a moment."""
    place = bisect.bisect_right(whole.times, moment) - 1
    places = {event: number for number, event in enumerate(whole.events)}

    def enough(child: Child) -> float | None:
        now = places[child.events[-1]]
        if now < place:
            return None
        return moment - whole.times[place] if now == place else 0.0

    return enough


def resumed(whole: Child, children: list[Child], last: Child) -> tuple[list[dict[str, Any]], Any]:
    """At which step each began and to which it came, from 1 on; and what is amiss with that."""
    number = {event: place for place, event in enumerate(whole.steps, 1)}
    rows, problems, begun, came = [], [], 0, 0
    for child in [*children, last]:
        steps = [number[event] for event in child.steps]
        rows.append(
            {"begins": steps[0] if steps else None, "comes_to": steps[-1] if steps else None}
        )
        if not steps:
            continue
        if not begun <= steps[0] <= came + 1:
            problems.append(f"a child began at step {steps[0]}, after one from {begun} to {came}")
        if steps != list(range(steps[0], steps[0] + len(steps))):
            problems.append(f"a child left steps out: {steps}")
        begun, came = steps[0], steps[-1]
    grown = sorted({row["begins"] for row in rows if row["begins"]})
    if len(grown) < 2:
        problems.append("every child began at the first step; more --epochs, or less --save-every")
    if len(last.steps) >= len(whole.steps):
        problems.append("after the last kill all steps were taken again")
    return rows, problems


def judged(
    answers: list[tuple[float, float, int, Answer]],
    before: list[Answer],
    after: list[Answer],
    started: float,
    done: float,
) -> tuple[dict[str, Any], list[str]]:
    """What the server said: by which version, and what is amiss.

    Args:
        answers: see `Asking`.
        before: what the version before says to each picture.
        after: the version after.
        started: when the last child began, and nothing was in place yet.
        done: when it was.
    """
    strange = early = late = back = new = 0
    for asked, took, which, told in answers:
        old = told == before[which]
        if told not in (before[which], after[which]):
            strange += 1
        elif before[which] != after[which]:
            early += not old and asked + took < started
            late += old and asked > done
            back += old and new > 0
            new += not old
    counts = {"neither version": strange, "the version after, too early": early}
    counts |= {"the version before, too late": late, "the version before, after the other": back}
    problems = [f"{many:,} answers were of {what}" for what, many in counts.items() if many]
    if not new:
        problems.append("the server never answered by the adapted network")
    return {"answers": len(answers), "by_the_version_after": new, **counts}, problems


def spread(seconds: list[float]) -> dict[str, float]:
    """Milliseconds of answers."""
    found = np.array(seconds) * 1e3
    ranks = {"median": 50, "p99": 99, "largest": 100}
    return {name: round(float(np.percentile(found, rank)), 1) for name, rank in ranks.items()}


def able(python: str) -> str:
    """Why an interpreter cannot serve; empty if it can."""
    code = "import fastapi, uvicorn, multipart, retain"
    tried = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return tried.stderr.strip().rpartition("\n")[2] if tried.returncode else ""


def measured(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """The whole benchmark in a folder."""
    job = Job(options.method, options.epochs, options.save_every)
    files, labels = stored("mini_clothing10_128_cc0").of(train=True)
    asked = files[:: len(files) // ASKED][:ASKED]
    files, labels = files[:: options.every], labels[:: options.every]
    eyes = extractor(home / "eyes")
    for name in ("calm", "killed"):
        made(home / name, eyes, files, labels, job)
    before = said(home / "killed", asked)
    whole = run(home / "calm", job)
    if whole.code:
        raise SystemExit("PROBLEM an adapt that nobody killed did not come to its end")
    after, wanted = said(home / "calm", asked), tensors(home / "calm")
    rng = random.Random(options.seed)
    moments = sorted(rng.uniform(0, LATEST * whole.times[-1]) for _ in range(options.kills))
    with retain.open(home / "calm") as shop:
        events = len(shop.log())
    problems: list[str] = []
    children: list[Child] = []
    with served(home / "killed", python=options.server_python) as (port, _, _):
        asking = Asking(port, asked)
        asking.start()
        time.sleep(QUIET)
        began = time.perf_counter()
        for moment in [*moments, None]:
            started = time.perf_counter()
            until = () if moment is None else (due(whole, moment),)
            children.append(run(home / "killed", job, *until))
            if children[-1].code not in (0, -signal.SIGKILL):
                problems.append(f"a child ended with {children[-1].code}")
            with retain.open(home / "killed") as shop:
                problems += shop.verify().problems
                if shop.log()[-1].kind == "adapt" and len(shop.log()) == events:
                    break
        done = time.perf_counter()
        asking.until(done + 1.0)
        asking.end()
    *killed, last = children
    if last.code and len(children) <= options.kills:
        killed, last = children, Child()
    kills = len(killed)
    if kills < options.kills:
        problems.append(
            f"it was in place after {kills} of {options.kills} kills; run it with another --seed"
        )
    rows, amiss = resumed(whole, killed, last)
    # Before the child began that put the adapted network in place, it cannot have been there.
    told, strange = judged(asking.answers, before, after, started, done)
    problems += [*amiss, *asking.wrong[:5], *strange]
    if tensors(home / "killed") != wanted:
        problems.append("the weights are not those of an adapt that nobody killed")
    if said(home / "killed", asked) != after:
        problems.append("the answers in the end are not those of an adapt that nobody killed")
    quiet = [took for moment, took, _, _ in asking.answers if moment + took < began]
    meanwhile = [took for moment, took, _, _ in asking.answers if moment + took >= began]
    for row, moment in zip(rows[:kills], moments, strict=False):
        row["killed_at_s"] = round(moment, 1)
    return {
        "method": options.method,
        "pictures": len(files),
        "epochs": options.epochs,
        "save_every_s": options.save_every,
        "seed": options.seed,
        "whole_s": round(whole.times[-1], 1),
        "whole_steps": len(whole.steps),
        "kills": kills,
        "children": rows,
        "steps_of_all": sum(len(each.steps) for each in children),
        "server": told,
        "latency_ms": {"before": spread(quiet), "meanwhile": spread(meanwhile)},
        "problems": problems,
        "environment": environment(1),
    }


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    title = f"adapt{' --method ' + found['method'] if found['method'] else ''}"
    *kills, last = found["children"]
    table(
        f"{title}, {found['kills']} kills; a whole run: {found['whole_s']:.0f} s, "
        f"{found['whole_steps']} steps",
        ["killed where a whole run is after seconds", "begins at step", "comes to"],
        [
            [row.get("killed_at_s", "not"), row["begins"] or "–", row["comes_to"] or "–"]
            for row in [*kills, last]
        ],
    )
    server, latency = found["server"], found["latency_ms"]
    table(
        "retain serve, all the while",
        ["answer, ms", *latency["before"]],
        [[name, *each.values()] for name, each in latency.items()],
    )
    rows = [[name.replace("_", " "), f"{many:,}"] for name, many in server.items()]
    rows.append(["steps that all children took", f"{found['steps_of_all']:,}"])
    table("", ["", "count"], [*rows, ["problems", len(found["problems"])]])
    for problem in found["problems"]:
        print(f"PROBLEM {problem}")


def main() -> int:
    """Run, keep the result, print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--save-every", type=float, help="seconds; adapt has 30")
    parser.add_argument("--method")
    parser.add_argument("--quick", action="store_true", help="four kills and fewer pictures")
    parser.add_argument("--server-python", default=sys.executable, help="that runs the server")
    parser.add_argument("--out", type=Path, help="the folder that keeps the result")
    options = parser.parse_args()
    quick = options.quick
    options.kills = options.kills or (4 if quick else 10)
    options.epochs = options.epochs or (3 if quick else 60)
    options.every = 3 if quick else 1
    options.save_every = options.save_every or (1.0 if quick else 5.0)
    if reason := able(options.server_python):
        print(
            f"{options.server_python} cannot serve ({reason}); name one that has retain and the "
            f"extra server with --server-python"
        )
        return 1
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = measured(options, Path(folder))
        except (MissingExtra, ModuleNotFoundError) as error:
            print(f"skipped: {error}")
            return 0
    out = options.out or (HERE / "cache" / RESULTS.name if quick else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{options.method or 'adapt'}-s{options.seed}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    show(found)
    return int(bool(found["problems"]))


if __name__ == "__main__":
    sys.exit(main())
