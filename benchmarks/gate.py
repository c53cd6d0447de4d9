"""The gate: what it refuses of poisoned lessons, and what of clean ones.

Caltech-101 and clothing17 as feature vectors, ResNet-32 over JPEG CIFAR-10 as an adopted
classifier. Of every class some pictures are remembered; of ten classes a seed, the others come as
one lesson: as they are, or with 30 % of them wrong, in four ways. *Spread* and *one* give pictures
of the class other labels (any; always the same one); *strangers* bring pictures of other classes
under its name (of any; of one). A refusal counts as found only where it names the class. Every
lesson is tried as a dry run from the same state. Last: with all budgets open, lessons that would
flip protected pictures are tried for real, and the flips that land are counted. Bars: every
poisoned lesson of Caltech-101 found, no clean one refused, no flip lands.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
from _data import ROOT, load, stored, table

import retain

SEEDS = range(3)
CLASSES = 10
SHARE = 0.3
FEWEST = 15
KINDS = ("clean", "spread", "one", "strangers", "strangers of one")
OPEN = {
    "regressions": 1.0,
    "class_regressions": 1.0,
    "new_class_accuracy": 0.0,
    "calibration": 99.0,
    "agreement": 1.0,
    "correction": 1.0,
    "wrong_labels": 0.0,
}


def lesson(kind, label, pool, labels, rng):
    """The rows and labels of one batch of a class; `pool` are the rows that may be used."""
    mine = rng.permutation(pool[labels[pool] == label])
    given = np.full(len(mine), label, dtype=object)
    wrong = np.arange(len(mine))[: round(SHARE * len(mine))]
    others = [str(each) for each in rng.permutation(np.unique(labels)) if each != label]
    if kind == "spread":
        given[wrong] = rng.choice(others, len(wrong))
    elif kind == "one":
        given[wrong] = others[0]
    elif kind != "clean":
        from_ = others if kind == "strangers" else others[:1]
        strange = rng.permutation(pool[np.isin(labels[pool], from_)])
        wrong = wrong[: len(strange)]
        mine[wrong] = strange[: len(wrong)]
    return mine, given.tolist()


def judged(shop, pictures, kind, label):
    """Whether the gate refuses, whether it names the class for its labels, and why."""
    verdict = shop.learn(*pictures, dry_run=True).verdict
    failed = [check for check in verdict.checks if not check.passed]
    named = any(check.name == "labels" and repr(label) in check.sentence for check in failed)
    return bool(failed), named, [check.name for check in failed]


def trial(name, shop, given, rest, labels, seed, dilution=0):
    """All kinds of lessons for ten classes: counts by kind."""
    found, named, tried, reasons = Counter(), Counter(), Counter(), Counter()
    rng = np.random.default_rng([seed, 5])
    enough = [str(c) for c in np.unique(labels) if (labels[rest] == c).sum() >= FEWEST]
    for label in rng.permutation(enough)[:CLASSES].tolist():
        for kind in KINDS:
            rows, told = lesson(kind, label, rest, labels, np.random.default_rng([seed, 6]))
            for other in [c for c in enough if c != label][:dilution]:
                more = rest[labels[rest] == other]
                rows, told = np.concatenate([rows, more]), [*told, *[other] * len(more)]
            rows, first = np.unique(rows, return_index=True)
            told = [told[i] for i in first]
            refused, by_name, why = judged(shop, (given(rows), told), kind, label)
            tried[kind] += 1
            found[kind] += refused
            named[kind] += by_name
            if kind == "clean":
                reasons.update(why)
        print(f"\r{name}, seed {seed}: {tried['clean']} classes", end="", file=sys.stderr)
    return tried, found, named, reasons


def told(title, rows):
    """One table."""
    head = ["remembered", *(f"{kind}: refused" for kind in KINDS), "clean refused for"]
    print(file=sys.stderr)
    table(title, head, rows)


def row(name, counts):
    """One line of it, over seeds: for poison, how many were refused with the class named."""
    tried, found, named, reasons = (sum((c[i] for c in counts), Counter()) for i in range(4))
    cells = [f"{found['clean']} of {tried['clean']}"]
    cells += [f"{named[kind]} of {tried[kind]}" for kind in KINDS[1:]]
    return [name, *cells, ", ".join(f"{k} {n}" for k, n in reasons.items()) or "-"]


def vectors(name, amounts):
    """A classifier made here."""
    pictures = load(name)
    labels = pictures.labels.astype(object)
    rows = []
    for amount, dilution in amounts:
        counts = []
        for seed in SEEDS:
            rng = np.random.default_rng([seed, 4])
            order = rng.permutation(len(labels))
            known = np.concatenate([order[labels[order] == c][:amount] for c in np.unique(labels)])
            rest = np.setdiff1d(order, known)
            with tempfile.TemporaryDirectory() as folder:
                size = pictures.features.shape[1]
                with retain.create(Path(folder) / "shop", extractor=f"vectors:{size}") as shop:
                    shop.learn(pictures.features[known], labels[known].tolist(), force=True)
                    counts.append(
                        trial(
                            name,
                            shop,
                            lambda rows: pictures.features[rows],
                            rest,
                            labels,
                            seed,
                            dilution,
                        )
                    )
        diluted = f", among {dilution} clean classes" if dilution else ""
        rows.append(row(f"{amount} a class{diluted}", counts))
    told(f"{name}: refused; poisoned lessons with the class named", rows)


def adopted():
    """Somebody's classifier: nothing labelled is remembered at first."""
    model = ROOT / "weights" / "akamaster_resnet32_cifar10.onnx"
    if not model.exists():
        print(f"skipped: {model} is not there; set RETAIN_DATA to the folder that holds weights/")
        return
    files = stored("cifar10_small")
    names, labels = files.classes, files.labels.astype(object)

    def given(rows):
        return [files[i] for i in rows]

    rows = []
    for amount, dilution in ((0, 0), (0, 9), (40, 0), (40, 9)):
        counts = []
        for seed in SEEDS:
            rng = np.random.default_rng([seed, 4])
            order = rng.permutation(len(labels))
            known = [order[labels[order] == c][: 300 + 80] for c in names]
            rest = np.concatenate([each[340:] for each in known])
            taught = np.concatenate([each[300 : 300 + amount] for each in known])
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "theirs"
                with retain.adopt(path, model, labels=names, preprocess="imagenet") as mine:
                    mine.reference(given(np.concatenate([each[:30] for each in known])))
                    if amount:
                        mine.learn(given(taught), labels[taught].tolist(), force=True)
                    counts.append(trial("ResNet-32", mine, given, rest, labels, seed, dilution))
        what = f"{amount} a class" if amount else "nothing labelled"
        rows.append(row(f"{what}{f', among {dilution} clean classes' if dilution else ''}", counts))
    told("an adopted ResNet-32: refused; poisoned lessons with the class named", rows)


def protected():
    """Flips of protected pictures that land, with nothing else refused."""
    pictures = load("clothing17_224")
    labels = pictures.labels.astype(object)
    train = np.flatnonzero(pictures.train)
    tried = refused = landed = 0
    assert set(OPEN) == {field.name for field in fields(retain.Budgets)}
    for seed in SEEDS:
        rng = np.random.default_rng([seed, 8])
        order = rng.permutation(train)
        known, rest = order[:800], order[800:]
        with tempfile.TemporaryDirectory() as folder:
            size = pictures.features.shape[1]
            with retain.create(Path(folder) / "shop", extractor=f"vectors:{size}") as shop:
                shop.learn(pictures.features[known], labels[known].tolist(), force=True)
                shop.gate(**OPEN)
                answers = shop.predict(pictures.features[known])
                right = [
                    p.image for p, i in zip(answers, known, strict=True) if p.label == labels[i]
                ]
                watched = rng.permutation(right)[:100].tolist()
                shop.protect(watched)
                want = {p.image: p.label for p in answers}
                for _ in range(10):
                    batch = rng.permutation(rest)[:40]
                    wrong = rng.permutation(labels[batch])
                    tried += 1
                    try:
                        shop.learn(pictures.features[batch], wrong.tolist())
                    except retain.GateRefused:
                        refused += 1
                    said = {p.image: p.label for p in shop.predict(pictures.features[known])}
                    landed += sum(said[image] != want[image] for image in watched)
    table(
        "clothing17_224, 800 remembered, 100 of them protected, all budgets open",
        ["lessons of 40 shuffled labels", "refused", "flips of protected pictures that landed"],
        [[tried, refused, landed]],
    )


if __name__ == "__main__":
    vectors("caltech101_30_10", ((15, 0), (15, 10)))
    vectors("clothing17_224", ((8, 0), (60, 0)))
    adopted()
    protected()
