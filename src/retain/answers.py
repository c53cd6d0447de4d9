"""From logits to what a person reads: predictions, and reports on labelled pictures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retain.algebra import typicality
from retain.algebra.novelty import UNKNOWN_BELOW, energy
from retain.caches import Mind
from retain.errors import NothingLearned
from retain.solving import single_threaded
from retain.values import ClassReport, Prediction, Report, Score, Skipped

__all__ = ["BINS", "answer", "calibration_error", "report"]

BINS = 15


def answer(
    mind: Mind,
    path: str,
    image: str,
    feature: NDArray[np.int16],
    norm: float,
    *,
    top: int = 5,
    remembered: bool = False,
) -> Prediction:
    """What a mind says about one picture; `feature` is int16 [d], `norm` its length.

    Raises:
        NothingLearned: if the mind knows no class.
    """
    return _answer(mind, path, image, (feature, norm), top, remembered)[0]


def _answer(
    mind: Mind,
    path: str,
    image: str,
    vector: tuple[NDArray[np.int16], float],
    top: int,
    remembered: bool,
) -> tuple[Prediction, NDArray[np.float64]]:
    if mind.head is None or mind.tuning is None:
        raise NothingLearned(
            "nothing has been learned yet, so there is nothing to predict; "
            "teach it first: retain learn NAME FOLDER"
        )
    with single_threaded():
        logits = mind.logits(*vector)
    logs = mind.log_probabilities(logits)
    # A stable sort, so that equal logits come in the order in which argmax sees them.
    order = np.argsort(-logits, kind="stable")
    scores = tuple(
        Score(mind.head.classes[i], float(np.exp(logs[i]))) for i in order[: max(top, 1)]
    )
    typical = float(typicality(energy(logits), mind.tuning.energies))
    prediction = Prediction(
        path=path,
        image=image,
        label=scores[0].label,
        probability=scores[0].probability,
        unknown=typical < UNKNOWN_BELOW,
        typicality=typical,
        top=scores,
        remembered=remembered,
    )
    return prediction, logs


def report(
    mind: Mind,
    pictures: Sequence[tuple[str, str, str, tuple[NDArray[np.int16], float], bool]],
    skipped: Sequence[Skipped],
) -> Report:
    """Judge a mind on labelled pictures.

    Args:
        mind: what answers.
        pictures: (path, image, true label, (feature, length), remembered) of each.
        skipped: what could not be read.

    Raises:
        NothingLearned: if the mind knows no class.
    """
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    answered: Counter[str] = Counter()
    losses, confidences, hits = [], [], []
    mistakes: list[tuple[Prediction, str]] = []
    known = {label: i for i, label in enumerate(mind.head.classes)} if mind.head else {}
    for path, image, truth, vector, remembered in pictures:
        prediction, logs = _answer(mind, path, image, vector, 5, remembered)
        confusion[truth][prediction.label] += 1
        answered[prediction.label] += 1
        # A class nobody taught has no probability; the loss of the smallest one stands for it.
        losses.append(-float(logs[known[truth]]) if truth in known else -float(np.log(1e-12)))
        confidences.append(prediction.probability)
        hits.append(prediction.label == truth)
        if prediction.label != truth:
            mistakes.append((prediction, truth))
    mistakes.sort(key=lambda pair: -pair[0].probability)
    per_class = {}
    for label in sorted(confusion):
        n, right = confusion[label].total(), confusion[label][label]
        precision = right / answered[label] if answered[label] else None
        per_class[label] = ClassReport(n, right, right / n, precision)
    count = len(pictures)
    return Report(
        accuracy=sum(hits) / count if count else 0.0,
        n=count,
        per_class=per_class,
        balanced_accuracy=float(np.mean([each.accuracy for each in per_class.values()]))
        if per_class
        else 0.0,
        negative_log_likelihood=float(np.mean(losses)) if losses else 0.0,
        calibration_error=calibration_error(np.array(confidences), np.array(hits)),
        confusion={truth: dict(row) for truth, row in sorted(confusion.items())},
        mistakes=tuple(prediction for prediction, _ in mistakes),
        truths=tuple(truth for _, truth in mistakes),
        remembered=sum(remembered for *_, remembered in pictures),
        unknown_classes=tuple(sorted(set(confusion) - set(known))),
        skipped=tuple(skipped),
    )


def calibration_error(confidences: NDArray[np.float64], hits: NDArray[np.bool_]) -> float:
    """Expected calibration error over 15 equal bins (Naeini 2015; Guo 2017, eq. 3), 0 to 1.

    >>> calibration_error(np.array([0.9, 0.9]), np.array([True, False]))
    0.4
    """
    if not len(confidences):
        return 0.0
    bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=confidences - hits, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidences))
