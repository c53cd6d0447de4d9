"""Kill a writing process at random moments; everything it acknowledged must be there, whole.

    python benchmarks/crash.py [--kills 200] [--seed 0]

A child process learns, corrects, forgets and undoes at random. It says over a pipe what it is about
to do and, when a call has returned, that it is done. The parent kills it (SIGKILL) at a random
moment, opens the classifier again and compares it with a model that replays exactly what was
acknowledged. One event more may be there, the one that was under way, if it is there whole. What
was forgotten must be in no file of the directory: at once where the forget was acknowledged, else
after the next process has begun to write. Exits with 1 if anything is amiss.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # the children are forks, which threads do not survive

import numpy as np  # noqa: E402

import retain  # noqa: E402
from retain.algebra import quantize  # noqa: E402

DIMENSION = 32
LABELS = ("cup", "fork", "mug", "plate", "spoon")
POOL = np.random.default_rng(7).normal(size=(60, DIMENSION)).astype(np.float32)
FULL = 40

Op = dict[str, Any]


@dataclass
class Model:
    """The journal as a list; membership by replaying it from the start every time."""

    events: list[Op] = field(default_factory=list)
    erased: set[str] = field(default_factory=set)

    def add(self, op: Op) -> None:
        """One event more."""
        self.events.append({**op, "says": dict(op.get("says", {}))})
        if op["kind"] == "forget":
            for event in self.events:
                for image in op["images"]:
                    event["says"].pop(image, None)
            self.erased |= set(op["images"])

    def members(self) -> dict[str, tuple[str, bool]]:
        """Image → label, pinned."""
        alive = [True] * len(self.events)
        for i in reversed(range(len(self.events))):
            if alive[i] and self.events[i]["kind"] == "undo":
                alive[self.events[i]["target"] - 1] = False
        found: dict[str, tuple[str, bool]] = {}
        for event, counts in zip(self.events, alive, strict=True):
            if counts:
                for image, label in event["says"].items():
                    found[image] = label, event["kind"] == "correct"
        return found


def main() -> int:
    """Run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        counts, problems = crash(Path(folder) / "shop", options.kills, options.seed)
    rows = {
        "kills": options.kills,
        **{f"  during {verb}": n for verb, n in sorted(counts["under way"].items())},
        "events acknowledged": sum(counts["acknowledged"].values()),
        **{f"  {verb}": n for verb, n in sorted(counts["acknowledged"].items())},
        "unacknowledged, and there whole": counts["complete"].total(),
        "erasures finished by the next process": counts["finished"].total(),
        "problems": len(problems),
    }
    for name, number in rows.items():
        print(f"{name:<40}{number:>7,}")
    print(f"{'seconds':<40}{time.perf_counter() - started:>7.0f}")
    for problem in problems:
        print(f"PROBLEM {problem}")
    return int(bool(problems))


def crash(path: Path, kills: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Kill that many children in turn; returns what was counted, and what is amiss."""
    with retain.create(path, extractor=f"vectors:{DIMENSION}") as shop:
        shop.learn(POOL[:10], [LABELS[i % 5] for i in range(10)])
        first = {s.image: s.label for s in shop.samples()}
        names = [p.image for p in shop.predict(POOL)]
    # The search for traces must be able to find them.
    kinds = {
        line.split(" has the ")[1].split(" of ")[0]
        for line in traces(path, set(first), names)
        if " has the " in line
    }
    if kinds != {"hash", "raw hash", "bytes", "feature"}:
        return {}, [f"of remembered pictures only {sorted(kinds)} could be found"]
    model = Model()
    model.add({"kind": "learn", "says": first})
    counts = {key: Counter[str]() for key in ("acknowledged", "under way", "complete", "finished")}
    problems: list[str] = []
    for kill in range(kills):
        rng = random.Random(f"{seed} {kill}")
        tried, acknowledged, told, brought = run_and_kill(path, rng, names)
        problems += [f"kill {kill}: {line}" for line in told]
        # What was brought again may be there for a moment, though it was refused.
        model.erased -= brought
        for number, op in enumerate(tried):
            # What was brought again may be there, even if it is no member (it was put aside).
            model.erased -= set(op.get("says", {}))
            if number < acknowledged:
                counts["acknowledged"][op["kind"]] += 1
                model.add(op)
        open_op = tried[acknowledged] if len(tried) > acknowledged else None
        counts["under way"][open_op["kind"] if open_op else "nothing"] += 1
        problems += [f"kill {kill}: {p}" for p in examine(path, model, open_op, names, counts)]
        if problems:
            break
    return counts, problems


def run_and_kill(
    path: Path, rng: random.Random, names: list[str]
) -> tuple[list[Op], int, list[str], set[str]]:
    """One child, killed.

    Returns:
        What it tried in order, how many it acknowledged, complaints, and the pictures of lessons
        that were refused.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        work(path, rng, names, writing)
    os.close(writing)
    data = os.read(reading, 65536)  # it is ready
    time.sleep(rng.uniform(0.0, 0.4))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while part := os.read(reading, 65536):
        data += part
    os.close(reading)
    tried: list[Op] = []
    brought: set[str] = set()
    acknowledged, told = 0, []
    for line in data.decode().splitlines():
        message = json.loads(line)
        if "try" in message:
            tried.append(message["try"])
        elif "done" in message:
            acknowledged += 1
        elif "refused" in message:
            brought |= set(tried.pop().get("says", {}))
        elif "failed" in message:
            told.append(message["failed"])
    return tried, acknowledged, told, brought


def work(path: Path, rng: random.Random, names: list[str], pipe: int) -> NoReturn:
    """The child: one random event after the other, until it is killed."""

    def say(message: Op) -> None:
        # Shorter than PIPE_BUF, so it is there whole or not at all.
        os.write(pipe, json.dumps(message).encode() + b"\n")

    try:
        say({"ready": True})
        with retain.open(path) as shop:
            while True:
                op = choose(shop, rng, names)
                say({"try": op})
                try:
                    carry_out(shop, op, names)
                except retain.Refused:
                    say({"refused": True})
                else:
                    say({"done": True})
    except BaseException as error:  # noqa: BLE001 the parent is told, whatever it is
        say({"failed": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(1)


def choose(shop: retain.Classifier, rng: random.Random, names: list[str]) -> Op:
    """An event that will change something; images are named by hash."""
    members = {s.image: s for s in shop.samples()}
    kinds = ["learn", "learn", "correct", "correct", "undo", "forget"]
    kind = "forget" if len(members) > FULL else rng.choice(kinds) if len(members) > 4 else "learn"
    if kind == "forget":
        return {"kind": kind, "images": rng.sample(sorted(members), rng.randint(1, 4))}
    if kind == "undo":
        possible = [
            e.event
            for e in shop.log()
            if e.undone is None and e.kind != "forget" and (e.images or e.kind == "undo")
        ]
        return {"kind": kind, "target": rng.choice(possible[-20:])}
    fresh = [name for name in names if name not in members]
    if kind == "learn":
        loose = sorted(name for name, s in members.items() if not s.pinned)
        says = {name: rng.choice(LABELS) for name in rng.sample(fresh, min(len(fresh), 6))}
        for name in rng.sample(loose, min(len(loose), 2)):
            says[name] = rng.choice([x for x in LABELS if x != members[name].label])
        return {"kind": kind, "says": says}
    name = rng.choice(names)
    was = members[name].label if name in members else None
    return {"kind": kind, "says": {name: rng.choice([x for x in LABELS if x != was])}}


def carry_out(shop: retain.Classifier, op: Op, names: list[str]) -> None:
    """The event, through the public door."""
    if op["kind"] == "forget":
        shop.forget(op["images"])
    elif op["kind"] == "undo":
        shop.undo(op["target"])
    else:
        rows = POOL[[names.index(image) for image in op["says"]]]
        labels = list(op["says"].values())
        if op["kind"] == "learn":
            shop.learn(rows, labels)
        else:
            shop.correct(rows[0], labels[0], replace=True)


def examine(
    path: Path, model: Model, open_op: Op | None, names: list[str], counts: dict[str, Counter[str]]
) -> list[str]:
    """What is amiss in a classifier whose writer was killed."""
    problems = [f"at once: {p}" for p in traces(path, model.erased, names)]
    with retain.open(path) as shop:
        log = shop.log()
        if open_op is not None and len(log) == len(model.events) + 1:
            model.add(open_op)
            counts["complete"][open_op["kind"]] += 1
        if [e.kind for e in log] != [e["kind"] for e in model.events]:
            problems.append(f"{len(log)} events, and not those {len(model.events)} acknowledged")
        found = {s.image: (s.label, s.pinned) for s in shop.samples()}
        if found != model.members():
            problems.append(f"{len(found)} members, and not as a replay says")
        for image in found:
            shop.image(image)
        verified = shop.verify()
        problems += verified.problems
        if any("still to be erased" in note for note in verified.notes):
            counts["finished"]["forget"] += 1
        with shop._session.writing("a check"):
            pass
        problems += [f"afterwards: {p}" for p in traces(path, model.erased, names)]
    return problems


def traces(path: Path, images: set[str], names: list[str]) -> list[str]:
    """Files with a hash, the bytes or the feature of one of these pictures."""
    found = []
    contents = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    for image in images:
        row = POOL[names.index(image)]
        feature, _ = quantize(row)
        digest = image.removeprefix("sha256:")
        secrets = {
            "hash": digest.encode(),
            "raw hash": bytes.fromhex(digest),
            "bytes": row.tobytes(),
            "feature": feature.tobytes(),
        }
        for file, data in contents.items():
            found += [
                f"{file.name} has the {k} of {image}" for k, s in secrets.items() if s in data
            ]
            if digest in file.name:
                found.append(f"{file} is named for {image}")
    return found


if __name__ == "__main__":
    sys.exit(main())
