"""adapt on real pictures: what the extractor wins by learning, how long it takes, what it costs.

clothing17_224, all 1,724 training pictures remembered, 569 test pictures; each row is one command.
Bars: at least two points of accuracy over the frozen extractor, the gate agrees, under 15 minutes
on two cores. Needs the extra `train`. Arguments keep only the rows whose name contains one of them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from _data import ROOT, table

import retain
from retain.train import Plan, transfer
from retain.train.schedules import Exponential

COMMANDS = {
    "retain adapt": {},
    "retain adapt --last 6": {"plan": Plan(last=6, batchnorm="frozen")},
    "retain adapt --size 150": {"size": 150},
    "retain adapt --rate 1e-5 --schedule exponential": {
        "recipe": transfer(rate=1e-5, schedule=Exponential())
    },
}


def pictures(name, split):
    """The files of one split, and their labels."""
    import numpy as np

    path = ROOT / "data" / f"{name}.npz"
    if not path.exists():
        print(f"skipped: {path} is not there; set RETAIN_DATA to the folder that holds data/")
        sys.exit(0)
    with np.load(path) as file:
        stored = {key: file[key] for key in file.files}
    wanted = [str(each) for each in stored["split_names"]].index(split)
    names = [str(each) for each in stored["classes"]]
    rows = np.flatnonzero(stored["split"] == wanted)
    begin, blob = stored["offsets"], stored["data"]
    files = [blob[begin[i] : begin[i + 1]].tobytes() for i in rows]
    return files, [names[stored["labels"][i]] for i in rows]


def main() -> None:
    """Each command on a classifier of its own."""
    words = sys.argv[1:]
    train, test = pictures("clothing17_224", "train"), pictures("clothing17_224", "test")
    rows = []
    for name, options in COMMANDS.items():
        if words and not any(word in name for word in words):
            continue
        with (
            tempfile.TemporaryDirectory() as folder,
            retain.create(Path(folder) / "shop") as shop,
        ):
            shop.learn(*train)
            before = shop.evaluate(*test)
            started = time.monotonic()
            try:
                update = shop.adapt(**options)
                said = "agrees"
            except retain.MissingExtra as error:
                print(f"skipped: {error}")
                return
            except retain.GateRefused as refusal:
                update, said = refusal.update, "refuses"
            spent = time.monotonic() - started
            after = shop.evaluate(*test)
        cells = [(each.accuracy, each.balanced_accuracy) for each in (before, after)]
        rows.append(
            [
                name,
                *(f"{100 * each:.2f}" for pair in zip(*cells, strict=True) for each in pair),
                said,
                f"{len(update.worse)} / {len(update.better)}",
                f"{spent / 60:.1f}",
            ]
        )
        print(rows[-1], file=sys.stderr, flush=True)
    table(
        "clothing17_224: accuracy and balanced accuracy before and after",
        ["command", "before", "after", "balanced", "after", "the gate", "worse / better", "min"],
        rows,
    )


if __name__ == "__main__":
    main()
