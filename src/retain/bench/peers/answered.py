"""From what a toolbox answered to the numbers of each step, by the judge of every other method.

Where only the labels answered are known, what needs probabilities is missing; where only the
accuracy on the classes of each step is known, so is everything about single pictures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retain.bench.judging import Answers, judged
from retain.bench.pools import Pool
from retain.bench.streams import Stream, Task, tasks_of
from retain.errors import BadOption

__all__ = ["steps_of"]

_OF_CHANCES = ("ece", "nll", "auroc_unseen", "probabilities")
_COSTS = ("wall_s", "cpu_s", "peak_memory_bytes", "stored_bytes")


def steps_of(stream: Stream, pool: Pool, folder: Path) -> list[dict[str, Any]]:
    """The steps of a result, from what a worker left in `folder`.

    Raises:
        BadOption: if there are not as many steps as in the stream, or they are not as agreed.
        OSError, ValueError, KeyError: if a file is missing or is not what it should be.
    """
    told = json.loads((folder / "steps.json").read_text(encoding="utf-8"))
    if len(told) != len(stream.steps):
        raise BadOption(f"it left {len(told)} steps of {len(stream.steps)}")
    test, tasks = np.array(sorted(stream.test)), tasks_of(stream, pool)
    truth = pool.labels[test]
    seen: set[str] = set()
    last: Answers | None = None
    found = []
    for number, (step, said) in enumerate(zip(stream.steps, told, strict=True)):
        seen |= {str(label) for label in np.unique(pool.labels[list(step.images)])}
        if "by_task" in said:
            numbers = _of_tasks(said["by_task"], number, test, tasks)
        else:
            answers, certain = _answers(folder / f"step-{number:03d}.npz", stream, seen, len(test))
            numbers = judged(stream, number, test, truth, answers, last, seen, tasks)
            if not certain:
                numbers |= dict.fromkeys(_OF_CHANCES)
            last = answers
        costs = {key: said.get(key) for key in _COSTS}
        found.append(
            {
                "step": number,
                "verb": step.verb,
                "images": len(step.images),
                "updates": 1,
                "new_classes": list(step.new_classes),
                **costs,
                **numbers,
                "seen": len(seen),
                "corrections_kept": None,
                "digest": "",
            }
        )
    return found


def _answers(path: Path, stream: Stream, seen: set[str], count: int) -> tuple[Answers, bool]:
    """The answers, and whether their probabilities are the toolbox's own."""
    with np.load(path, allow_pickle=False) as file:
        stored = {key: file[key] for key in file.files}
    # Some toolboxes have a place for every class from the start: what was not taught is no answer.
    places = np.array([i for i, label in enumerate(stream.order) if label in seen])
    classes = tuple(stream.order[i] for i in places)
    if "scores" in stored:
        return Answers.of((classes, _softmax(stored["scores"][:, places])), count), True
    labels = stored["labels"]
    if labels.shape != (count,):
        raise BadOption(f"{count} pictures were asked, and {labels.shape} answered")
    chances = np.zeros((count, len(classes)))
    # What was not asked is a picture of a class not seen yet, which nobody judges.
    chances[np.arange(count), np.maximum(np.searchsorted(places, labels), 0)] = 1.0
    return Answers.of((classes, chances), count), False


def _of_tasks(
    by_task: list[float], number: int, test: NDArray[np.intp], tasks: tuple[Task, ...]
) -> dict[str, Any]:
    so_far = [task for task in tasks if task.step <= number]
    if len(by_task) != len(so_far):
        raise BadOption(f"step {number} has {len(so_far)} tasks so far, and {len(by_task)} figures")
    sizes = np.array([int(np.isin(test, task.images).sum()) for task in so_far])
    missing = (
        "balanced", "recency_bias", "got_worse", "got_better", "compared", "old", "new",
        "harmonic", "answers", *_OF_CHANCES,
    )  # fmt: skip
    return {
        "judged": int(sizes.sum()),
        "accuracy": float(np.dot(sizes, by_task) / sizes.sum()),
        "by_task": list(by_task),
        **dict.fromkeys(missing),
    }


def _softmax(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    x = np.asarray(scores, np.float64)
    x = np.exp(x - x.max(axis=1, keepdims=True))
    chances: NDArray[np.float64] = x / x.sum(axis=1, keepdims=True)
    return chances
