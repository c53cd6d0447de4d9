"""Kill `adapt` at random moments while somebody asks all the time: the same weights must come out.

    python benchmarks/adapt_crash.py [--kills 10] [--seed 0] [--method icarl]

Real pictures (mini_clothing10_128_cc0) through a small network (MobileNetV3 at half its width,
begun at random, 64 pixels). A child adapts and is killed (SIGKILL) at a random moment of its work,
ten times; then it is let finish. Meanwhile another process asks for the same pictures without
pause. Afterwards the network's tensors must be those of an adapt that nobody killed, bit for bit,
and each answer must be, to the last digit, that of the version before or of the version after. With
`--method` it is a second lesson, of the classes that came later. Needs the extra `train`. Exits
with 1 if anything is amiss.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import multiprocessing

from _data import stored, table

import retain
from retain.errors import MissingExtra

SIDE, ASKED, CHILDREN = 64, 12, multiprocessing.get_context("spawn")


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


def work(path: str, method: str | None, epochs: int, done: Any) -> None:
    """Adapt; in a process of its own."""
    from retain.train import Budget, Memory, Plan, transfer

    memory = Memory(Budget(per_class=5)) if method else None
    recipe = transfer(epochs=epochs, batch=16, rate=0.02)
    plan = Plan(batchnorm="frozen")
    with retain.open(path) as shop:
        shop.adapt(plan, recipe=recipe, method=method, memory=memory, force=True)
    done.set()


def ask(path: str, asked: list[bytes], stop: Any, told: Any) -> None:
    """Ask until told to stop; tell how often, the answers that there were, and what went wrong."""
    found: set[Any] = set()
    count, wrong = 0, []
    with retain.open(path) as shop:
        while not stop.is_set():
            try:
                found.add(tuple((p.label, p.probability) for p in shop.predict(asked)))
                count += 1
            except Exception as error:  # noqa: BLE001 whatever it is, it was not to be
                wrong.append(f"{type(error).__name__}: {error}")
    told.put((count, found, wrong))


def tensors(shop: Any) -> bytes:
    """The network in force."""
    return (shop._session.store.extractor_dir / "weights.safetensors").read_bytes()


def made(
    path: Path, eyes: Path, files: list[bytes], labels: list[str], method: str | None, epochs: int
) -> None:
    """A classifier that has learned; for a method, its first lesson too."""
    early = sorted(set(labels))[:6] if method else sorted(set(labels))
    with retain.create(path, extractor=eyes) as shop:
        for wanted in (early, sorted(set(labels) - set(early))):
            mine = [i for i, label in enumerate(labels) if label in wanted]
            if mine:
                shop.learn([files[i] for i in mine], [labels[i] for i in mine], force=True)
            if method and wanted is early:
                work(str(path), method, epochs, CHILDREN.Event())


def main() -> int:
    """Run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--method")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    files, labels = stored("mini_clothing10_128_cc0").of(train=True)
    asked = files[:: len(files) // ASKED][:ASKED]
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            eyes = extractor(home / "eyes")
        except (MissingExtra, ModuleNotFoundError) as error:
            print(f"skipped: {error}")
            return 0
        for name in ("calm", "killed"):
            made(home / name, eyes, files, labels, options.method, options.epochs)
        calm = str(home / "calm"), options.method, options.epochs
        began = time.perf_counter()
        alone = CHILDREN.Event()
        child = CHILDREN.Process(target=work, args=(*calm, alone))
        child.start()
        child.join()
        whole = time.perf_counter() - began
        if not alone.is_set():
            print("PROBLEM an adapt that nobody killed did not come to its end")
            return 1
        with retain.open(home / "killed") as shop:
            before = tuple((p.label, p.probability) for p in shop.predict(asked))
        with retain.open(home / "calm") as shop:
            after = tuple((p.label, p.probability) for p in shop.predict(asked))
            wanted = tensors(shop)
        stop, told = CHILDREN.Event(), CHILDREN.Queue()
        asking = CHILDREN.Process(target=ask, args=(str(home / "killed"), asked, stop, told))
        asking.start()
        moments, finished = [], CHILDREN.Event()
        for _ in range(options.kills):
            # Most of a whole run, so that some are killed in the beginning and some near the end.
            child = CHILDREN.Process(target=work, args=(str(home / "killed"), *calm[1:], finished))
            child.start()
            wait = rng.uniform(0.1, 0.8) * whole
            time.sleep(wait)
            if finished.is_set():
                child.join()
                break
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
            moments.append(wait)
            with retain.open(home / "killed") as shop:
                problems += shop.verify().problems
        if not finished.is_set():
            with retain.open(home / "killed") as shop:
                begun = len(shop.log())
            with retain.open(home / "calm") as shop:
                over = len(shop.log())
            if begun < over:
                work(str(home / "killed"), *calm[1:], finished)
        time.sleep(1.0)
        stop.set()
        count, found, wrong = told.get()
        asking.join()
        problems += wrong[:5]
        with retain.open(home / "killed") as shop:
            if tensors(shop) != wanted:
                problems.append("the weights are not those of an adapt that nobody killed")
            if tuple((p.label, p.probability) for p in shop.predict(asked)) != after:
                problems.append("the answers in the end are not those of an adapt nobody killed")
        strange = found - {before, after}
        problems += [f"{len(strange)} answers were of neither version"] * bool(strange)
    table(
        f"adapt{f' --method {options.method}' if options.method else ''}, killed at random moments",
        ["", ""],
        [
            ["seconds of an adapt that nobody kills", f"{whole:.0f}"],
            ["kills", len(moments)],
            ["after seconds", " ".join(f"{each:.0f}" for each in moments)],
            ["answered meanwhile, pictures", f"{count * len(asked):,}"],
            ["different answers (the version before, and after)", len(found)],
            ["problems", len(problems)],
        ],
    )
    for problem in problems:
        print(f"PROBLEM {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
