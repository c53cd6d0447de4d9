"""From the answers on the test pictures to the numbers of a step, and of a whole run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retain.bench import metrics
from retain.bench.results import METRICS
from retain.bench.streams import Stream, Task
from retain.errors import BadOption

__all__ = ["Answers", "judged", "summary", "track_of"]

_SUM = 1e-6
_PLACES = 8


@dataclass(frozen=True, eq=False)
class Answers:
    """What a method answered on n pictures.

    Attributes:
        classes: the C classes it knows, sorted.
        chances: float64 [n, C], probabilities.
        labels: [n], the most probable class of each.
    """

    classes: tuple[str, ...]
    chances: NDArray[np.float64]
    labels: NDArray[np.str_]

    @staticmethod
    def of(scores: tuple[Sequence[str], NDArray[np.float64]], count: int) -> Answers:
        """Take a method's scores, and check that they are probabilities of distinct classes.

        Raises:
            BadOption: if they are not.
        """
        classes, chances = tuple(scores[0]), np.asarray(scores[1], dtype=np.float64)
        if chances.shape != (count, len(classes)) or not classes:
            raise BadOption(
                f"the scores of {count} pictures and {len(classes)} classes have the shape "
                f"{chances.shape}"
            )
        if len(set(classes)) != len(classes):
            raise BadOption("the scores name a class twice")
        sums = chances.sum(axis=1)
        if not (chances >= 0).all() or not np.allclose(sums, 1, rtol=0, atol=_SUM):
            raise BadOption(
                f"the scores are no probabilities: the least is {chances.min()}, the rows add up "
                f"to {sums.min()} to {sums.max()}"
            )
        # In sorted order a tie has the same winner whatever order the classes came in.
        places = np.argsort(np.array(classes))
        chances = np.ascontiguousarray(chances[:, places])
        named = np.array(classes)[places]
        return Answers(tuple(named.tolist()), chances, named[chances.argmax(axis=1)])

    @property
    def digest(self) -> str:
        """Hash of the labels answered."""
        return "sha256:" + hashlib.sha256("\x00".join(self.labels).encode()).hexdigest()

    @property
    def exact(self) -> str:
        """Hash of the labels and every bit of the probabilities."""
        found = hashlib.sha256("\x00".join(self.classes).encode())
        found.update(self.chances.astype("<f8").tobytes())
        return "sha256:" + found.hexdigest()

    def own(self, truth: NDArray[np.str_]) -> NDArray[np.float64]:
        """The probability of the right class of each picture; 0 where it is not known."""
        known = np.isin(truth, self.classes)
        places = np.searchsorted(np.array(self.classes), truth)
        rows = np.arange(len(truth))
        found = self.chances[rows, np.minimum(places, len(self.classes) - 1)]
        return np.where(known, found, 0.0)


def judged(
    stream: Stream,
    number: int,
    test: NDArray[np.intp],
    truth: NDArray[np.str_],
    answers: Answers,
    before: Answers | None,
    seen: set[str],
    tasks: Sequence[Task],
) -> dict[str, Any]:
    """The numbers of one step.

    Args:
        stream: what is run.
        number: of the step.
        test: the rows asked, [m], sorted.
        truth: their labels.
        answers: to them, now.
        before: to them, after the step before.
        seen: classes of which at least one picture is held.
        tasks: groups of the test pictures.
    """
    mine = np.isin(truth, sorted(seen))
    t, a = truth[mine], answers.labels[mine]
    confidence = answers.chances.max(axis=1)
    right = truth == answers.labels
    worse = better = compared = None
    if before is not None:
        # Only what could be answered before can get worse.
        both = mine & np.isin(truth, before.classes)
        compared = int(both.sum())
        worse, better = metrics.flips(truth[both], before.labels[both], answers.labels[both])
    found: dict[str, Any] = {
        "seen": len(seen),
        "judged": len(t),
        "accuracy": metrics.accuracy(t, a),
        "balanced": metrics.balanced_accuracy(t, a),
        "by_task": _by_task(number, test, truth, right, mine, tasks),
        "ece": metrics.calibration_error(right[mine], confidence[mine]),
        "nll": metrics.negative_log_likelihood(answers.own(truth)[mine]),
        "auroc_unseen": metrics.auroc(confidence[mine], confidence[~mine]),
        "recency_bias": _recency(stream.steps[number].new_classes, number, t, a),
        "got_worse": worse,
        "got_better": better,
        "compared": compared,
        "old": None,
        "new": None,
        "harmonic": None,
        "answers": answers.digest,
        "probabilities": answers.exact,
    }
    if stream.kind == "few-shot" and number:
        old = np.isin(t, stream.steps[0].new_classes)
        found["old"] = metrics.balanced_accuracy(t[old], a[old])
        found["new"] = metrics.balanced_accuracy(t[~old], a[~old])
        found["harmonic"] = metrics.harmonic_mean(found["old"], found["new"])
    if number + 1 == len(stream.steps):
        found["by_class"] = {
            str(label): metrics.accuracy(t[t == label], a[t == label]) for label in np.unique(t)
        }
    return {key: _rounded(value) for key, value in found.items()}


def summary(steps: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> dict[str, float | None]:
    """The metrics over a whole run; intransigence needs another one, see `comparing`."""
    found: dict[str, float | None] = dict.fromkeys(METRICS)
    if not steps:
        return found
    track, last = track_of(steps, [task.step for task in tasks]), steps[-1]
    # The first step founds the classifier; updates are what comes after, where anything does.
    updates = steps[1:] or steps
    count = sum(step["updates"] for step in updates)
    rates = [
        step["got_worse"] / step["compared"] if step.get("compared") else None for step in updates
    ]
    peaks = [step["peak_memory_bytes"] for step in steps if step["peak_memory_bytes"] is not None]
    flips = [step["got_worse"] for step in updates if step["got_worse"] is not None]
    found |= {
        "average_incremental_accuracy": metrics.average_incremental_accuracy(track.accuracies),
        "balanced_incremental_accuracy": metrics.average_incremental_accuracy(
            [step["balanced"] for step in steps]
        ),
        "last_accuracy": last["accuracy"],
        "forgetting": metrics.forgetting(track),
        "backward_transfer": metrics.backward_transfer(track),
        "forward_transfer": metrics.forward_transfer(track),
        "recency_bias": metrics.mean(
            [None if step["recency_bias"] is None else abs(step["recency_bias"]) for step in steps]
        ),
        "negative_flips_per_update": sum(flips) / count if flips and count else None,
        "negative_flip_rate": metrics.mean(rates),
        "ece": metrics.mean([step["ece"] for step in steps]),
        "nll": metrics.mean([step["nll"] for step in steps]),
        "auroc_unseen": metrics.mean([step["auroc_unseen"] for step in steps]),
        "wall_s_per_update": sum(s["wall_s"] for s in updates) / count if count else None,
        "cpu_s_per_update": sum(s["cpu_s"] for s in updates) / count if count else None,
        "peak_memory_bytes": max(peaks, default=None),
        "stored_bytes": last["stored_bytes"],
        "harmonic": last["harmonic"],
        "corrections_kept": last.get("corrections_kept"),
    }
    return {key: _rounded(value) for key, value in found.items()}


def track_of(steps: Sequence[Mapping[str, Any]], learned: Sequence[int]) -> metrics.Track:
    """What the metrics over steps need of a result."""
    chance = [1 / max(steps[max(min(s, len(steps)) - 1, 0)]["seen"], 1) for s in learned]
    return metrics.Track(
        [step["accuracy"] for step in steps], [step["by_task"] for step in steps], learned, chance
    )


def _by_task(
    number: int,
    test: NDArray[np.intp],
    truth: NDArray[np.str_],
    right: NDArray[np.bool_],
    mine: NDArray[np.bool_],
    tasks: Sequence[Task],
) -> list[float | None]:
    """A row of the matrix: what is known of each task; of a later one, only if all classes are."""
    row: list[float | None] = []
    for task in tasks:
        asked = np.isin(test, task.images)
        known = asked & mine
        if not known.any() or (task.step > number and not mine[asked].all()):
            row.append(None)
        else:
            row.append(float(right[known].mean()))
    while row and row[-1] is None:
        row.pop()
    return row


def _rounded(value: Any) -> Any:
    """Numbers to eight places, which a file need not exceed; equality is shown by digests."""
    if isinstance(value, float):
        return round(value, _PLACES)
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return value


def _recency(
    came: Sequence[str], number: int, truth: NDArray[np.str_], answers: NDArray[np.str_]
) -> float | None:
    return metrics.recency_bias(truth, answers, came) if number and came else None
