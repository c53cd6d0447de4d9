"""Whether pictures that another extractor was not trained with show that it is better.

To change every answer for nothing is no gain, so the burden of proof is on the new extractor. Few
answers change from wrong to right or back, and counting those alone sees little; how much is
believed of the truth changes for every picture. So the quadratic score is compared, picture by
picture (Brier 1950): it is proper, that is, best in the mean for who says what is true, and it is
bounded, so that no single picture decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr

from retain.caches import Mind, State
from retain.gate import paired
from retain.jury import Judged
from retain.pairing import Pairs
from retain.session import Session
from retain.solving import Vectors
from retain.values import Check

__all__ = ["HeldOut", "brier", "compared", "evidence", "luck"]

# How likely the gains may be by chance alone.
_CHANCE = 0.1


@dataclass(frozen=True, eq=False, slots=True)
class HeldOut:
    """Pictures that neither extractor was trained with and nobody learned.

    Attributes:
        before: their features by the extractor in force, int16 [n, d], and lengths float32 [n].
        after: the same by the one that is to come.
        labels: what they are.
    """

    before: Vectors
    after: Vectors
    labels: Sequence[str]


def luck(gains: ArrayLike) -> float:
    """How likely such a mean gain, or a greater, is by chance where there is none, 0 to 1.

    The one-sided t-test of paired differences (Student 1908), but never less than the chance that
    all of so many gain, which needs no normal distribution; so few cannot show that they have one.

    >>> round(luck([0.1, 0.3, 0.2, -0.1]), 2), luck([-0.1, -0.3]) > 0.5, luck([1.0, 1.1])
    (0.12, True, 0.25)
    """
    values = np.asarray(gains, dtype=np.float64)
    n = len(values)
    if n < 2 or np.ptp(values) == 0:
        return 0.5**n if n and values[0] > 0 else 1.0
    error = values.std(ddof=1) / np.sqrt(n)
    return max(float(stdtr(n - 1, -values.mean() / error)), 0.5**n)


def compared(state: State, candidate: State, aside: HeldOut) -> tuple[int, int]:
    """How many pictures held out are lost and gained."""
    was = state.mind.answers(*aside.before)
    now = candidate.mind.answers(*aside.after)
    told = list(zip(was, now, aside.labels, strict=True))
    lost = sum(a == truth != b for a, b, truth in told)
    return lost, sum(a != truth == b for a, b, truth in told)


def evidence(
    session: Session,
    state: State,
    candidate: State,
    seen: Collection[str],
    aside: HeldOut | None,
) -> Check:
    """Whether those that it was not trained with show that an extractor is better.

    Args:
        session: the classifier.
        state: as it is.
        candidate: as it would be, through the other extractor.
        seen: content hashes of the pictures that it was trained with.
        aside: pictures that judge besides those that are remembered.
    """
    pairs, said = Pairs.of(state, candidate), (session.judged(state), session.judged(candidate))
    lost, gained, n = paired(pairs, said, seen)
    scores = list(_remembered(pairs, said, seen))
    if aside is not None and len(aside.labels):
        more = compared(state, candidate, aside)
        lost, gained, n = lost + more[0], gained + more[1], n + len(aside.labels)
        scores += _apart(state.mind, candidate.mind, aside)
    was, now = np.array(scores).reshape(-1, 2).T
    return _said(lost, gained, n, was, now)


def _said(
    lost: int, gained: int, n: int, was: NDArray[np.float64], now: NDArray[np.float64]
) -> Check:
    chance = luck(was - now)
    what = f"of {n:,} pictures that the extractor was not trained with, {gained:,} would be right "
    what += f"that are wrong now, and {lost:,} wrong that are right"
    if len(was):
        what += f"; their Brier score goes from {was.mean():.3f} to {now.mean():.3f}"
    passed = gained >= lost and chance <= _CHANCE
    if not n:
        what = "every remembered picture was trained with, so none can judge the extractor"
    elif not passed and (gained < lost or chance >= 0.5):
        what += ": nothing shows that it is better"
    elif not passed:
        what = f"undecided: {what}; {n:,} judges cannot tell that from chance ({chance:.0%})"
    return Check("evidence", passed, what, chance, limit=_CHANCE)


def _remembered(
    pairs: Pairs, said: tuple[Judged, Judged], seen: Collection[str]
) -> Iterator[tuple[float, float]]:
    """The scores of members: left out where that can be had in both states, else as answered."""
    states, known = (pairs.before, pairs.after), _both(pairs.before.mind, pairs.after.mind)
    for rows in pairs.rows:
        samples = [state.samples[row] for state, row in zip(states, rows, strict=True)]
        image, label = samples[1].image, samples[1].label
        if image in seen or label != samples[0].label or label not in known:
            continue
        if all(image in each.scores for each in said):
            yield said[0].scores[image], said[1].scores[image]
        else:
            was, now = (
                brier(state.mind, state.features[row], float(state.norms[row]), label)
                for state, row in zip(states, rows, strict=True)
            )
            yield was, now


def _apart(was: Mind, now: Mind, aside: HeldOut) -> list[tuple[float, float]]:
    known = _both(was, now)
    each = zip(*aside.before, *aside.after, aside.labels, strict=True)
    return [
        (brier(was, a, float(b), label), brier(now, c, float(d), label))
        for a, b, c, d, label in each
        if label in known
    ]


def _both(was: Mind, now: Mind) -> set[str]:
    """The classes that two minds know."""
    return {*(was.head.classes if was.head else ())} & {*(now.head.classes if now.head else ())}


def brier(mind: Mind, feature: NDArray[np.int16], norm: float, label: str) -> float:
    """Σ (p − y)² over the classes (Brier 1950) of what a mind answers for a picture.

    0 to 2; up to the number of classes where their probabilities stand apart.
    """
    assert mind.head is not None
    logs = mind.log_probabilities(mind.logits(feature, norm))
    chances = np.exp(logs)
    chances[mind.head.classes.index(label)] -= 1
    return float(chances @ chances)
