"""Riemannian walk: EWC's Fisher information and SI's path, both along the way.

Chaudhry 2018 (1801.10112).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from retain.train.checkpoints import prefixed, unprefixed
from retain.train.growing import Growing
from retain.train.lessons import Lesson, Phase, Phases
from retain.train.methods.rehearsing import Holding
from retain.train.needs import Later
from retain.train.paths import PathIntegral, RiemannianWalk, penalty
from retain.train.terms import CrossEntropy
from retain.typed import ABOVE_0, FROM_0, FROM_1, SHARE, checked

__all__ = ["RWalk"]

torch = Later("torch", "training a network")


@final
@dataclass(frozen=True, slots=True)
class RWalk(Holding):
    """Cross-entropy over what arrives, and λ·Σ (F + s) (θ − θ*)² (equation 8).

    F is the running Fisher information (equation 10), s the scores (equations 6 and 7), the mean of
    those so far and those of the lesson. Both are brought to 0…1 over all weights, as the authors'
    published code does. Deviations: F is taken picture by picture, from the first batch of each
    stretch (of its first part, where batches are cut for accumulation), where their code squares
    the mean gradient of every batch, and over all known classes, while only those that arrive
    compete; one head grows, and parts of it that rest keep their scores; the sum is cut where a
    step would overshoot (see `penalty`); exemplars, which §4.2 adds, only where they are asked for
    (the choices ``"entropy"`` and ``"distance"`` of `Memory` are from there).

    Attributes:
        strength: λ; 1, within the 0.1 to 10 that their code chooses among.
        every: Δt, the steps of a stretch; 50 in their code for CIFAR.
        decay: α of equation 10, the share of the newest; 0.9 in their code.
        damping: ε of equation 6; 0.001.
        exemplars: see `Rehearsing`; §4.2 has them.
    """

    strength: float = 1.0
    every: int = 50
    decay: float = 0.9
    damping: float = 1e-3
    exemplars: bool = False

    def __post_init__(self) -> None:
        checked(self, strength=FROM_0, every=FROM_1, decay=SHARE, damping=ABOVE_0)

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        data, among, plan = self.material(lesson)
        pull = None
        if lesson.learned and lesson.carried:
            weights = {name for name, _ in lesson.before.module.named_parameters()}
            information = _normal(unprefixed(lesson.carried, "fisher."))
            scores = _normal(unprefixed(lesson.carried, "score."))
            both = {n: information[n] + scores.get(n, 0.0) for n in information if n in weights}
            held = self.held(lesson, both)
            strength = 2 * self.strength
            pull = penalty(lesson.before, held, strength, lesson.recipe, lesson.rates)
        walk = RiemannianWalk(PathIntegral(pull), self.every, self.decay, self.damping)
        walk.information = unprefixed(lesson.carried, "fisher.")
        terms = [CrossEntropy(among), walk]
        model = yield Phase("train", data, terms, plan)
        walk.close(model)
        lesson.left["walk"] = walk
        return None

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """The running Fisher information and the scores."""
        if "walk" not in lesson.left:
            return lesson.carried
        walk = lesson.left["walk"]
        scores = unprefixed(lesson.carried, "score.")
        for name, found in walk.scores.items():
            new = found.cpu()
            # In the first lesson there is nothing to take the mean with.
            scores[name] = (scores[name] + new) / 2 if name in scores else new
        information = {name: each.cpu() for name, each in walk.information.items()}
        return {**prefixed("fisher.", information), **prefixed("score.", scores)}


def _normal(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers of all tensors brought to 0…1."""
    if not tensors:
        return {}
    least = min(float(each.min()) for each in tensors.values())
    most = max(float(each.max()) for each in tensors.values())
    return {name: (each - least) / max(most - least, 1e-32) for name, each in tensors.items()}
