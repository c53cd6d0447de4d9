"""Bias correction: two numbers for the newest classes, learned on pictures set aside.

Wu 2019 (1905.13260).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption
from retain.train.data import Data, joined
from retain.train.growing import Growing
from retain.train.inference import outputs
from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases
from retain.train.needs import Later
from retain.train.processes import at_work
from retain.train.rehearsal import choose, owned
from retain.train.terms import CrossEntropy, Distillation, Term
from retain.typed import ABOVE_0, FROM_0, INSIDE, checked

__all__ = ["BiC", "bias"]

torch: Final = Later("torch", "training a network")


@final
@dataclass(frozen=True, slots=True)
class BiC(Method):
    """Distillation with λ = n/(n + m), then α·o + β for the scores o of the newest classes.

    Of the exemplars of each class, and of as many new pictures, a part is set aside before the
    training and never learned from: it counts in the budget, and alone decides α and β (§3.2, §4).
    Where it has none of the old classes or none of the new ones, nothing is corrected; exemplars
    that another method or budget chose, or of a class some of which are gone, are all learned from.
    Deviations: where no class is new, λ is the share of the classes of which nothing arrived; α and
    β are the exact minimum of the cross-entropy of the scores in evaluation mode,
    not some epochs of SGD; they become part of the head's weights, which says the same until these
    learn on, with α times less of a gradient than under a correction that stays outside.

    Attributes:
        temperature: T of equation 1; §6.2 takes 2.
        aside: the share of the exemplars that validate; §6.1 has 9:1.
        pull: of α towards 1 and β towards 0, half the square of which is added: 0.1 in the
            authors' code for β; for α, which grows for ever where validation is perfect, ours.
    """

    keeps: ClassVar[Keeps] = "exemplars"
    temperature: float = 2.0
    aside: float = 0.1
    pull: float = 0.1

    def __post_init__(self) -> None:
        checked(self, temperature=ABOVE_0, aside=INSIDE, pull=FROM_0)

    def phases(self, lesson: Lesson) -> Phases:
        """The training; the correction is computed, not trained."""
        if lesson.model.kind != "linear" and self._share(lesson.memory.budget.most):
            raise BadOption(
                "a cosine head has no bias to correct; begin with growing(kind='linear')"
            )
        learned, held = self._parted(lesson)
        terms: list[Term] = [CrossEntropy()]
        if lesson.learned:
            past = lesson.past
            terms = [
                CrossEntropy(strength=1 - past),
                Distillation(lesson.before, self.temperature, past),
            ]
        model = yield Phase("train", learned, terms)
        judged = set(held.classes)
        if not lesson.learned or not judged & set(lesson.new) or judged <= set(lesson.new):
            return None
        with at_work(model, lesson.recipe):
            said = outputs(model, held.pictures, lesson.recipe.views).logits
        newest = model.positions(lesson.new).numpy()
        targets = model.positions(held.labels).numpy()
        alpha, beta = bias(said.double().numpy(), targets, newest, self.pull)
        return _corrected(model, alpha, beta)

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """How many exemplars of each class there are, and how many of them were held out."""
        both = joined([lesson.exemplars, lesson.fresh])
        quotas, held = lesson.memory.budget.quotas(both.counts), self._parted(lesson)[1].counts
        kept = [quotas.get(name, 0) for name in model.classes]
        aside = [
            min(self._share(many), held[name])
            for name, many in zip(model.classes, kept, strict=True)
        ]
        return {"kept": torch.tensor(kept), "held": torch.tensor(aside)}

    def keep(self, lesson: Lesson, model: Growing) -> Data:
        """Of each class, those that are learned from, and then those that validate."""
        learned, held = self._parted(lesson)
        both = joined([lesson.exemplars, lesson.fresh])
        quotas = lesson.memory.budget.quotas(both.counts)
        fresh = set(lesson.fresh.classes)
        parts: list[Data] = []
        for name in both.classes:
            own, spared = learned.take(learned.of_class(name)), held.take(held.of_class(name))
            many = min(self._share(quotas[name]), len(spared))
            if name in fresh:
                rest = choose(
                    model,
                    own,
                    {name: quotas[name] - many},
                    lesson.memory.choice,
                    views=lesson.recipe.views,
                    seed=lesson.seed("exemplars"),
                )
            else:
                rest = own.take(range(quotas[name] - many))
            parts += [rest, spared.take(range(many))]
        return owned(joined(parts))

    def _share(self, count: int) -> int:
        """How many of the exemplars of a class validate; with one more, at most one more does."""
        return 0 if count < 2 else min(count - 1, max(1, int(self.aside * count + 0.5)))

    def _aside(self, lesson: Lesson) -> dict[str, int]:
        """Of the exemplars of each class, how many at the end are held out.

        None where they are not those that it chose itself.
        """
        counts, carried = lesson.exemplars.counts, lesson.carried
        known = lesson.before.classes if "held" in carried else ()
        numbers = {
            name: (int(carried["kept"][place]), int(carried["held"][place]))
            for place, name in enumerate(known)
        }
        found = {name: numbers.get(name, (0, 0)) for name in counts}
        return {name: held if kept == counts[name] else 0 for name, (kept, held) in found.items()}

    def _parted(self, lesson: Lesson) -> tuple[Data, Data]:
        """What is learned from, and what is set aside; the same pictures whenever it is asked."""
        old, fresh = lesson.exemplars, lesson.fresh
        quotas = lesson.memory.budget.quotas(joined([old, fresh]).counts)
        learned, held = [], []
        aside = self._aside(lesson)
        for name in old.classes:
            own = old.of_class(name)
            many = len(own) - aside[name]
            learned += own[:many]
            held += own[many:]
        parts = [[old.take(sorted(learned))], [old.take(sorted(held))]]
        new: list[int] = []
        had = old.counts
        for place, name in enumerate(fresh.classes):
            own = fresh.of_class(name)
            lacking = self._share(quotas[name]) - aside.get(name, 0)
            order = np.random.default_rng((lesson.seed("aside"), place)).permutation(len(own))
            # A class learns from one picture at least.
            most = len(own) if had[name] > aside.get(name, 0) else len(own) - 1
            new += [own[each] for each in order[: max(0, min(lacking, most))]]
        rest = sorted(set(range(len(fresh))) - set(new))
        parts[0].insert(0, fresh.take(rest))
        parts[1].append(fresh.take(sorted(new)))
        return joined(parts[0]), joined(parts[1])


def bias(
    logits: NDArray[np.float64],
    targets: NDArray[np.int64],
    newest: Sequence[int] | NDArray[np.int64],
    pull: float,
) -> tuple[float, float]:
    """The α and β that make the cross-entropy of the corrected scores the least (equation 5).

    The sum of cross-entropy and pull is strictly convex: Newton's steps, halved where they would
    not descend, reach its one minimum.

    Args:
        logits: float64 [n, classes].
        targets: int64 [n].
        newest: the classes that are corrected.
        pull: half of it times (α − 1)² + β² is added.
    """
    own = np.zeros(logits.shape[1], bool)
    own[np.asarray(newest)] = True
    rows = np.arange(len(logits))

    def value(at: NDArray[np.float64]) -> float:
        scores = np.where(own, at[0] * logits + at[1], logits)
        top = scores.max(1, keepdims=True)
        loss = np.log(np.exp(scores - top).sum(1)) + top[:, 0] - scores[rows, targets]
        return float(loss.mean() + 0.5 * pull * ((at[0] - 1) ** 2 + at[1] ** 2))

    at = np.array([1.0, 0.0])
    directions = np.stack([np.where(own, logits, 0.0), np.broadcast_to(own, logits.shape)], 2)
    for _ in range(100):
        scores = np.where(own, at[0] * logits + at[1], logits)
        shares = np.exp(scores - scores.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        means = np.einsum("nc,ncd->nd", shares, directions)
        slope = (means - directions[rows, targets]).mean(0) + pull * (at - [1.0, 0.0])
        curve = np.einsum("nc,ncd,nce->de", shares, directions, directions)
        curve = (curve - means.T @ means) / len(logits) + (pull + 1e-9) * np.eye(2)
        move = -np.linalg.solve(curve, slope)
        size = 1.0
        while size > 1e-8 and value(at + size * move) > value(at) + 1e-4 * size * slope @ move:
            size /= 2
        at = at + size * move
        if np.abs(slope).max() < 1e-10:
            break
    return float(at[0]), float(at[1])


def _corrected(model: Growing, alpha: float, beta: float) -> Growing:
    twin = model.copy()
    newest = twin.layer[len(twin.layer) - 1]
    with torch.no_grad():
        newest.weight.mul_(alpha)
        newest.bias.mul_(alpha).add_(beta)
    return twin
