"""What the remembered pictures say of a state: by leave-one-out where they are inside the sum.

A picture that was learned is answered right a little too easily. So up to 2,048 members, those that
the last lesson was tuned by, are judged by the head that never saw them; all others, and every
corrected picture, by what `predict` answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retain.algebra import HeadOptions, left_out_logits, squares, to_float
from retain.algebra.calibrate import log_softmax
from retain.caches import State
from retain.solving import single_threaded

__all__ = ["Judged", "Jury", "judged"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Jury:
    """Members whose left-out scores are cheap, since what they cost is spent once a lesson.

    Attributes:
        square: image → xᵀPx, with P that of the lesson.
        lesson: image → label as they were in the scatter that whitens.
    """

    square: Mapping[str, float]
    lesson: Mapping[str, str]

    @classmethod
    def of(cls, state: State, options: HeadOptions) -> Jury:
        """The jury of a state: those of its jurors that are members still."""
        if state.solver is None:
            return cls({}, state.jurors)
        chosen = [image for image in state.jurors if image in state.rows]
        rows = [state.rows[image] for image in chosen]
        with single_threaded():
            found = squares(state.solver.factor, state.features[rows], options)
        return cls(dict(zip(chosen, found.tolist(), strict=True)), state.jurors)


@dataclass(frozen=True, slots=True)
class Judged:
    """Answers for remembered pictures that are left out; for all others, `predict` stands.

    Attributes:
        answers: image → label answered.
        losses: image → −ln p of its own label, in nats, of those left out.
        scores: image → Σ (p − y)² over the classes (Brier 1950), 0 to 2, of the same.
    """

    answers: Mapping[str, str]
    losses: Mapping[str, float]
    scores: Mapping[str, float]


def judged(state: State, jury: Jury, options: HeadOptions) -> Judged:
    """What a state answers for those of its members that can be left out."""
    head, base, solver, tuning = state.mind.head, state.base, state.solver, state.mind.tuning
    if head is None or base is None or solver is None or tuning is None or len(head.classes) < 2:
        return Judged({}, {}, {})
    position = {label: i for i, label in enumerate(head.classes)}
    counts = solver.moments.counts
    rows = [
        i
        for i in sorted(state.rows[image] for image in jury.square if image in state.rows)
        if not (sample := state.samples[i]).pinned and counts[position[sample.label]] > 1
    ]
    if not rows:
        return Judged({}, {}, {})
    samples = [state.samples[i] for i in rows]
    truth = np.array([position[sample.label] for sample in samples], dtype=np.intp)
    features = state.features[rows]
    with single_threaded():
        logits = left_out_logits(
            solver,
            tuning,
            options,
            features,
            truth,
            np.array([jury.square[sample.image] for sample in samples]),
            np.array([jury.lesson.get(sample.image) == sample.label for sample in samples]),
        )
        if state.mind.edited:
            logits += to_float(features) @ (head.weights - base.weights).T
            logits += head.bias - base.bias
    logs = log_softmax(logits)
    best = (head.classes[i] for i in logits.argmax(axis=1))
    answers = {sample.image: label for sample, label in zip(samples, best, strict=True)}
    images, own = [sample.image for sample in samples], np.arange(len(rows))
    losses = -logs[own, truth]
    chances = np.exp(logs)
    chances[own, truth] -= 1
    scores = np.einsum("ij,ij->i", chances, chances)
    return Judged(
        answers,
        dict(zip(images, losses.tolist(), strict=True)),
        dict(zip(images, scores.tolist(), strict=True)),
    )
