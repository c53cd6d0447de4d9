"""Whether the labels of a lesson are to be believed, by what was known before it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from retain.algebra import REFERENCE, surprise
from retain.algebra.calibrate import log_softmax
from retain.caches import State
from retain.jury import Judged
from retain.values import Budgets, Check, Sample, Suspect

__all__ = ["doubted"]

# By how much of the pictures the disagreement must exceed the usual one.
_EXCESS = 0.15
_FEWEST = 3


def doubted(
    before: State,
    old: Judged,
    samples: Sequence[Sample],
    vectors: tuple[NDArray[np.int16], NDArray[np.float32]],
    budgets: Budgets,
) -> tuple[list[Check], tuple[Suspect, ...]]:
    """Whether a lesson's labels contradict what was known more often than mistakes explain.

    Counted twice: by the label given (pictures of other classes under this label) and by the class
    answered (pictures of this class under other labels); each against the left-out mistakes of the
    members, as a beta-binomial surprise.
    """
    # The head before pins: a pin is about one picture, and bends what is said of others.
    head = before.base
    if head is None or len(head.classes) < 2:
        return [], ()
    position = {label: i for i, label in enumerate(head.classes)}
    known = [
        (s, x, rho) for s, x, rho in zip(samples, *vectors, strict=True) if s.label in position
    ]
    if not known:
        return [], ()
    logs = log_softmax(
        head.logits(np.stack([x for _, x, _ in known]), np.array([n for *_, n in known]))
    )
    looks = [head.classes[i] for i in logs.argmax(axis=1)]
    chances = np.exp(logs.max(axis=1))
    tested = 2 * len({s.label for s, *_ in known} | set(looks))
    members = [
        (s.label, old.answers[s.image])
        for s in before.samples
        if s.image in old.answers and s.label != REFERENCE
    ]
    given = [(s.label, look) for (s, *_), look in zip(known, looks, strict=True)]
    found: list[tuple[float, Check, str, int]] = []
    for side, how in ((0, "given as"), (1, "that look like")):
        then, now = _disagreements(members, side), _disagreements(given, side)
        for label, (wrong, n) in now.items():
            usual, total = then.get(label, (0, 0))
            expected = n * (usual + 0.5) / (total + 1.0)
            chance = surprise(wrong, n, usual, total) * tested
            if wrong < _FEWEST or wrong - expected < _EXCESS * n or chance > budgets.wrong_labels:
                continue
            what = "look like other classes" if side == 0 else "are labelled otherwise"
            sentence = (
                f"{wrong} of the {n} pictures {how} {label!r} {what} to what is known so far, "
                f"where about {expected:.0f} would be usual: labels are probably wrong"
            )
            found.append((chance, Check("labels", False, sentence, wrong / n), label, side))
    named = {(label, side) for _, _, label, side in found}
    suspects = [
        Suspect(s.image, s.label, look, float(chance), s.source)
        for (s, *_), look, chance in zip(known, looks, chances, strict=True)
        if look != s.label and {(s.label, 0), (look, 1)} & named
    ]
    suspects.sort(key=lambda each: -each.probability)
    checks = [check for _, check, _, _ in sorted(found, key=lambda each: each[0])]
    if not checks:
        agreed = sum(a == b for a, b in given)
        checks = [
            Check(
                "labels",
                True,
                f"{agreed} of the {len(given)} pictures of known classes look like what they are "
                f"labelled, as is usual",
                agreed / len(given),
            )
        ]
    return checks, tuple(suspects)


def _disagreements(pairs: Sequence[tuple[str, str]], side: int) -> Mapping[str, tuple[int, int]]:
    """Label → (how many disagree, how many there are), by the first or the second of a pair."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for pair in pairs:
        found[pair[side]][0] += pair[0] != pair[1]
        found[pair[side]][1] += 1
    return {label: (wrong, n) for label, (wrong, n) in found.items()}
