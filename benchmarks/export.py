"""A classifier as one ONNX file: is it the same, how large is it, how long does a picture take.

    python benchmarks/export.py

A head of 101 classes, learned on Caltech-101, goes out in four forms: plain; with a starting head
for the first half of the classes; with 100 exceptions; with everything. Each file is run by plain
ONNX Runtime on 1,000 real pictures beside the classifier, then timed on one thread, as is the
feature graph alone; rounds alternate, and the median counts.

Targets: every label the same, every probability within 1e-4.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _data import load, stored, table

from retain.algebra import HeadOptions, Statistics, base_head, quantize, to_float, tune
from retain.algebra.calibrate import softmax
from retain.vision import (
    ExportExceptions,
    ExportHead,
    ExportStart,
    decode,
    export_onnx,
    load_builtin,
    parity,
    prepare,
)

NAME = "caltech101_30_10"
ROUNDS = 7
TIMED = 40


def main() -> int:
    """Export, compare, time, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=1000, help="how many to compare on")
    options = parser.parse_args()
    pictures = load(NAME)
    extractor = load_builtin("efficientnet_lite0")
    folder = extractor.files()["features.onnx"].parent
    files = stored(NAME)
    # Those kept for testing first: on them a head is less sure.
    order = np.concatenate([np.flatnonzero(~pictures.train), np.flatnonzero(pictures.train)])
    chosen = order[: options.pictures]
    tensors = [
        prepare(decode(files[i], shorter=extractor.rule.needs), extractor.rule) for i in chosen
    ]
    heads = forms(pictures)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        files = {"feature graph alone": folder / "features.onnx"}
        for name, head in heads.items():
            path = Path(place, f"{len(files)}.onnx")
            started = time.perf_counter()
            files[name] = export_onnx(folder, head, extractor.rule, path)
            seconds = time.perf_counter() - started
            expected = [answer(head, pictures.features[i]) for i in chosen]
            found = parity(path, zip(tensors, expected, strict=True))
            rows.append([name, found, seconds])
        times = timed(files, tensors[:TIMED])
        alone = times["feature graph alone"]
        cells = [
            ["feature graph alone", "", "", "", megabytes(folder / "features.onnx"), ms(alone), ""]
        ]
        for name, found, seconds in rows:
            cells.append(
                [
                    name,
                    f"{found.labels_equal}/{found.n}",
                    f"{found.worst_probability_difference:.1e}",
                    f"{seconds:.2f}",
                    megabytes(files[name]),
                    ms(times[name]),
                    f"{1e3 * (times[name] - alone):+.2f}",
                ]
            )
    table(
        f"{NAME}: 101 classes, 1,280 features, plain ONNX Runtime on one thread",
        ["file", "same labels", "worst diff.", "export s", "MB", "ms/picture", "head ms"],
        cells,
    )
    held = all(found.holds for _, found, _ in rows)
    print(f"every label the same, every probability within 1e-4: {'reached' if held else 'MISSED'}")
    return 0 if held else 1


def forms(pictures) -> dict[str, ExportHead]:
    """The forms of one head."""
    features, labels, _, _ = pictures.split
    fixed, lengths = quantize(features)
    statistics = Statistics.of(fixed, list(labels))
    rng = np.random.default_rng(0)
    some = rng.choice(len(fixed), 1000, replace=False)
    tuning = tune(statistics, fixed[some], list(labels[some]), HeadOptions())
    head, _ = base_head(statistics, tuning, HeadOptions())
    plain = ExportHead(head.classes, head.weights, head.bias)
    taken = rng.choice(len(fixed), 100, replace=False)
    exceptions = ExportExceptions(
        fixed[taken], np.full(100, 0.8), rng.integers(0, len(head.classes), 100), tuning.margin
    )
    # As an adopted head would be: it wants the feature at its own length.
    start = ExportStart(head.weights[:51] / float(lengths.mean()), np.zeros(51))

    def make(**more) -> ExportHead:
        return ExportHead(plain.labels, plain.weights, plain.bias, **more)

    return {
        "head": plain,
        "head, starting head": make(start=start),
        "head, 100 exceptions": make(exceptions=exceptions),
        "everything, power 0.5": make(start=start, exceptions=exceptions, power=0.5),
    }


def answer(head: ExportHead, feature: np.ndarray) -> np.ndarray:
    """The probabilities of one feature, in NumPy."""
    raised = np.sign(feature) * np.abs(feature.astype(np.float64)) ** head.power
    fixed, length = quantize(raised)
    phi = to_float(fixed)
    logits = head.weights @ phi + head.bias
    if head.start is not None:
        logits[: len(head.start.bias)] += length * (head.start.weights @ phi) + head.start.bias
    if head.exceptions is not None:
        kept = to_float(head.exceptions.features)
        cosines = kept @ phi / np.linalg.norm(kept, axis=1) / np.linalg.norm(phi)
        cosines[cosines <= head.exceptions.thresholds] = -2
        if cosines.max() > -2:
            target = head.exceptions.targets[cosines.argmax()]
            bar = np.delete(logits, target).max() + head.exceptions.margin
            logits[target] = max(logits[target], bar)
    return softmax(logits)


def timed(files: dict[str, Path], tensors: list[np.ndarray]) -> dict[str, float]:
    """Seconds a picture for each file: the median of rounds that take turns."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for name, path in files.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            for tensor in tensors:
                started = time.perf_counter()
                session.run(None, {"pixels": tensor})
                seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(found)) for name, found in seconds.items()}


def megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f}"


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


if __name__ == "__main__":
    sys.exit(main())
