"""Whether a lesson's labels contradict what was known more often than mistakes explain.

A picture *contradicts* its label where another class wins and the label itself has a probability of
1 % or less. Counted twice, each time against the left-out mistakes of what is remembered:

- under a label: pictures given as c that are contradicted, against how often members of c are;
- by what they look like: pictures of c given other labels. What is usual follows from the labels
  given: of n_a pictures of class a, as many as members of a look like c.

What is remembered of an adopted classifier's classes is answered by the layer that was adopted,
which never saw it. Where nothing is, the other classes of the same lesson tell what is usual; where
there are none either, the labels cannot be checked, and that is said.

Whatever they look like, a lesson that gives all pictures of several classes fewer, new labels is
doubted too: joining classes is what `merge` is for.

How often is itself uncertain where few are remembered: rates have a beta prior around that of all
classes, so what is seen is beta-binomial, and improbable only beyond that uncertainty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retain.algebra import REFERENCE, Start
from retain.algebra.calibrate import log_softmax
from retain.caches import State
from retain.chances import surprise
from retain.intake import quoted
from retain.jury import Judged
from retain.values import Budgets, Check, Sample, Suspect

__all__ = ["Lesson", "doubted"]

_CONTRADICTED = float(np.log(0.01))
_FEWEST = 3
_SEVERAL = 2
_EXCESS = 0.15
# What the rate of all classes is worth beside a class's own members, in pictures; measured on
# Caltech-101 and photographs of clothing: 30 % wrong labels are found, clean lessons pass.
_OWN, _PAIR = 50.0, 5.0
_NAMED = 3


@dataclass(frozen=True, eq=False, slots=True)
class Lesson:
    """Labelled pictures that a change brings in.

    Attributes:
        samples: what they are.
        features: int16 [n, d].
        norms: the features' original lengths [n].
    """

    samples: Sequence[Sample]
    features: NDArray[np.int16]
    norms: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Look:
    """The label given, the class that wins, and whether that contradicts the label."""

    label: str
    answer: str
    contradicts: bool


@dataclass(frozen=True, slots=True)
class _Tally:
    """How many there are of a label, and how many of them contradict it, looking like what."""

    sizes: Counter[str]
    pairs: Counter[tuple[str, str]]

    @classmethod
    def of(cls, looks: Sequence[_Look]) -> _Tally:
        return cls(
            Counter(look.label for look in looks),
            Counter((look.label, look.answer) for look in looks if look.contradicts),
        )

    def under(self, label: str) -> int:
        return sum(count for (given, _), count in self.pairs.items() if given == label)

    def like(self, answer: str) -> int:
        return sum(count for (_, look), count in self.pairs.items() if look == answer)

    def usual(self) -> float:
        """How often a picture contradicts its label, whatever that is."""
        return (self.pairs.total() + 0.5) / (self.sizes.total() + 1.0)

    def without(self, label: str) -> _Tally:
        """What is known from all labels but one."""
        return _Tally(
            Counter({each: count for each, count in self.sizes.items() if each != label}),
            Counter({pair: count for pair, count in self.pairs.items() if pair[0] != label}),
        )


def doubted(
    before: State, old: Judged, lesson: Lesson, budgets: Budgets, start: Start | None
) -> tuple[list[Check], tuple[Suspect, ...]]:
    """What is to be said of a lesson's labels, and which pictures are probably labelled wrong."""
    emptied = _emptied(before, lesson, start) if budgets.wrong_labels else []
    checks, suspects = _contradicted(before, old, lesson, budgets, start)
    return [*emptied, *checks], suspects


def _emptied(before: State, lesson: Lesson, start: Start | None) -> list[Check]:
    """Whether several classes would be gone, all their pictures being given fewer, new labels."""
    given = {s.image: s.label for s in lesson.samples if s.image in before.rows}
    if not given:
        return []
    left = {s.label for s in before.samples if given.get(s.image, s.label) == s.label}
    adopted = set(start.classes) if start is not None else set()
    gone = {s.label for s in before.samples} - left - set(given.values()) - adopted - {REFERENCE}
    taken = [s for s in before.samples if s.label in gone]
    to = {given[s.image] for s in taken}
    if len(gone) < _SEVERAL or len(to) >= len(gone) or to & {s.label for s in before.samples}:
        return []
    sentence = (
        f"all {len(taken)} pictures of {quoted(gone)} are given as {quoted(to)}, so that "
        f"{len(gone)} classes would be gone; classes are joined by `retain classes` merge"
    )
    return [Check("labels", False, sentence, len(taken) / len(before.samples))]


def _contradicted(
    before: State, old: Judged, lesson: Lesson, budgets: Budgets, start: Start | None
) -> tuple[list[Check], tuple[Suspect, ...]]:
    """What is to be said of labels beside what is known, and which are probably wrong."""
    # The head before pins: a pin is about one picture, and bends what is said of others.
    head = before.base
    if head is None or len(head.classes) < 2:
        return [], ()
    position = {label: i for i, label in enumerate(head.classes)}
    rows = [i for i, sample in enumerate(lesson.samples) if sample.label in position]
    if not rows:
        return [], ()
    samples = [lesson.samples[i] for i in rows]
    logs = log_softmax(head.logits(lesson.features[rows], lesson.norms[rows]))
    looks = [
        _look(s.label, head.classes[row.argmax()], float(row[position[s.label]]))
        for s, row in zip(samples, logs, strict=True)
    ]
    then, now = _Tally.of(_members(before, old, start)), _Tally.of(looks)
    if not then.sizes and len(now.sizes) == 1:
        sentence = (
            f"whether the labels are right cannot be told: nothing labelled is remembered yet, and "
            f"all {len(looks)} pictures are given as {looks[0].label!r}"
        )
        return [Check("labels", True, sentence)], ()
    found = _found(then, now, looks, budgets.wrong_labels)
    if not found:
        agreed = sum(look.label == look.answer for look in looks)
        sentence = (
            f"{agreed} of the {len(looks)} pictures of known classes look like what they are "
            f"labelled, as is usual"
        )
        return [Check("labels", True, sentence, agreed / len(looks))], ()
    under = {label for _, _, label, by_look in found if not by_look}
    like = {label for _, _, label, by_look in found if by_look}
    suspects = [
        Suspect(s.image, s.label, look.answer, float(np.exp(row.max())), s.source)
        for s, look, row in zip(samples, looks, logs, strict=True)
        if look.contradicts and (look.label in under or look.answer in like)
    ]
    suspects.sort(key=lambda each: (-each.probability, each.image))
    found.sort(key=lambda each: each[0])
    return [check for _, check, _, _ in found], tuple(suspects)


def _members(before: State, old: Judged, start: Start | None) -> list[_Look]:
    """What is remembered, each picture answered by what never saw it."""
    if start is None:
        return [
            _look(s.label, old.answers[s.image], -old.losses[s.image])
            for s in before.samples
            if s.image in old.losses and s.label != REFERENCE
        ]
    position = {label: i for i, label in enumerate(start.classes)}
    rows = [i for i, sample in enumerate(before.samples) if sample.label in position]
    if not rows:
        return []
    logs = log_softmax(start.logits(before.features[rows], before.norms[rows]))
    labels = [before.samples[i].label for i in rows]
    return [
        _look(label, start.classes[row.argmax()], float(row[position[label]]))
        for label, row in zip(labels, logs, strict=True)
    ]


def _look(label: str, answer: str, log: float) -> _Look:
    return _Look(label, answer, label != answer and log <= _CONTRADICTED)


def _found(
    then: _Tally, now: _Tally, looks: Sequence[_Look], budget: float
) -> list[tuple[float, Check, str, bool]]:
    """What is too improbable: the chance, the check, the class, and whether by what they look like.

    Everything that is tested counts against the budget (Bonferroni).
    """
    total = then.sizes.total()
    # By what they look like only what is remembered can tell.
    answers = sorted({look.answer for look in looks}) if total else []
    tested = len(now.sizes) + len(answers)
    found: list[tuple[float, Check, str, bool]] = []
    for label in sorted(now.sizes):
        wrong, n = now.under(label), now.sizes[label]
        if wrong < _FEWEST:
            continue
        usual = (then if total else now.without(label)).usual()
        groups = [_group(n, then.under(label), then.sizes[label], usual, _OWN)]
        expected = _mean(groups)
        chance = surprise(wrong, groups) * tested
        if wrong - expected >= _EXCESS * n and chance <= budget:
            sentence = (
                f"{wrong} of the {n} pictures given as {label!r} look like other classes to what "
                f"is known so far, where about {expected:.0f} would be usual: labels are probably "
                f"wrong"
            )
            found.append((chance, Check("labels", False, sentence, wrong / n), label, False))
    for answer in answers:
        wrong = now.like(answer)
        if wrong < _FEWEST:
            continue
        rest = total - then.sizes[answer]
        rate = (then.like(answer) + 0.5) / (rest + 1.0)
        groups = [
            _group(n, then.pairs[label, answer], then.sizes[label], rate, _PAIR)
            for label, n in sorted(now.sizes.items())
            if label != answer
        ]
        chance = surprise(wrong, groups) * tested
        if chance <= budget:
            given = Counter(a for a, b in now.pairs.elements() if b == answer).most_common()
            named = ", ".join(f"{count} as {label!r}" for label, count in given[:_NAMED])
            sentence = (
                f"{wrong} pictures that look like {answer!r} to what is known so far are given as "
                f"other classes ({named}{', …' if len(given) > _NAMED else ''}), where about "
                f"{_mean(groups):.0f} would be usual: labels are probably wrong"
            )
            share = wrong / max(sum(look.answer == answer for look in looks), 1)
            found.append((chance, Check("labels", False, sentence, share), answer, True))
    return found


def _group(n: int, hits: int, total: int, rate: float, worth: float) -> tuple[int, float, float]:
    """N pictures, and the beta distribution of how often one of them contradicts."""
    return n, hits + worth * rate, total - hits + worth * (1.0 - rate)


def _mean(groups: Sequence[tuple[int, float, float]]) -> float:
    return sum(n * a / (a + b) for n, a, b in groups)
