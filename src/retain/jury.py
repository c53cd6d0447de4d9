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

from retain.algebra import HeadOptions, left_out_logits, squares, to_float, tuning_sample
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
    def of(cls, state: State, lesson: Mapping[str, str], options: HeadOptions) -> Jury:
        """The jury of a state whose last lesson was `lesson`."""
        if state.solver is None:
            return cls({}, lesson)
        rows = {sample.image: i for i, sample in enumerate(state.samples)}
        chosen = [image for image in tuning_sample(lesson) if image in rows]
        with single_threaded():
            found = squares(
                state.solver.factor, state.features[[rows[image] for image in chosen]], options
            )
        return cls(dict(zip(chosen, found.tolist(), strict=True)), lesson)


@dataclass(frozen=True, slots=True)
class Judged:
    """Answers for remembered pictures.

    Attributes:
        answers: image → label answered; left out where that is possible.
        losses: image → −ln p of its own label, in nats, of those left out.
    """

    answers: Mapping[str, str]
    losses: Mapping[str, float]


def judged(state: State, jury: Jury, options: HeadOptions) -> Judged:
    """What a state answers for its members."""
    answers = {
        sample.image: answer for sample, answer in zip(state.samples, state.answers, strict=False)
    }
    head, base, solver, tuning = state.mind.head, state.base, state.solver, state.mind.tuning
    if head is None or base is None or solver is None or tuning is None or len(head.classes) < 2:
        return Judged(answers, {})
    position = {label: i for i, label in enumerate(head.classes)}
    counts = solver.moments.counts
    rows = [
        i
        for i, sample in enumerate(state.samples)
        if sample.image in jury.square and not sample.pinned and counts[position[sample.label]] > 1
    ]
    if not rows:
        return Judged(answers, {})
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
    for sample, best in zip(samples, logits.argmax(axis=1), strict=True):
        answers[sample.image] = head.classes[best]
    losses = -logs[np.arange(len(rows)), truth]
    return Judged(answers, {s.image: float(loss) for s, loss in zip(samples, losses, strict=True)})
