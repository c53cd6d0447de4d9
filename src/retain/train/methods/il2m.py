"""IL2M: scores of old classes are lifted by what they were when they were new.

Belouadah and Popescu 2019 (ICCV), "IL2M: class incremental learning with dual memory".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

from retain.train.augment import Views
from retain.train.data import Pictures
from retain.train.growing import Growing
from retain.train.inference import outputs
from retain.train.lessons import Keeps, Lesson, Method, Phase, Phases, Taught
from retain.train.needs import Later
from retain.train.terms import CrossEntropy

__all__ = ["IL2M", "rectified"]

torch: Final = Later("torch", "training a network")


@final
@dataclass(frozen=True, slots=True)
class IL2M(Method):
    """Fine-tuning with exemplars, and a second memory of how sure the network was (§3).

    Scores are probabilities: with logits, which may be negative, the ratios would turn the order
    round.
    """

    keeps: ClassVar[Keeps] = "exemplars"

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        yield Phase("train", lesson.rehearsed, [CrossEntropy()])
        return None

    def after(self, lesson: Lesson, model: Growing) -> Mapping[str, Any]:
        """Of each class: its mean score then and now, how sure the network was then, the lesson."""
        data, classes = lesson.rehearsed, model.classes
        if len(classes) < 2:  # nothing was trained, and one class is sure whatever it is asked
            return {}
        shares = outputs(model, data.pictures, lesson.recipe.views).logits.double().softmax(1)
        known = lesson.before.classes if lesson.learned else ()
        before = {name: place for place, name in enumerate(known)}
        arrived = [row for row, name in enumerate(data.labels) if name not in before]
        sure = float(shares[arrived].max(1).values.mean()) if arrived else float("nan")
        result = torch.full((4, len(classes)), torch.nan, dtype=torch.float64)
        for place, name in enumerate(classes):
            own = data.of_class(name)
            if own:
                result[1, place] = shares[own, place].mean()
            if name in before:
                if "scores" in lesson.carried:
                    old = lesson.carried["scores"]
                    result[[0, 2, 3], place] = old[[0, 2, 3], before[name]]
            else:
                result[0, place], result[2, place] = result[1, place], sure
                result[3, place] = lesson.number
        return {"scores": result}

    def scores(self, taught: Taught, pictures: Pictures, views: Views) -> Any:
        """Logarithms of rectified probabilities."""
        shares = outputs(taught.model, pictures, views).logits.double().softmax(1)
        if "scores" not in taught.carried:
            return shares.log().float()
        return rectified(shares, taught.carried["scores"]).log().float()


def rectified(shares: Any, memory: Any) -> Any:
    """Probabilities [n, classes] after equation 1: where a new class won, old ones are lifted.

    Args:
        shares: of the network, float64.
        memory: float64 [4, classes]: mean score of each class in its first lesson and now, how sure
            the network was in its first lesson, and which lesson that was; NaN for what is unknown,
            which changes nothing.
    """
    then, now, sure, lesson = memory
    newest = lesson == lesson.nan_to_num(-1).max()
    if not bool(newest.any()):
        return shares
    factor = then / now.clamp(min=1e-12) * sure[newest].mean() / sure
    factor = torch.where(newest | ~factor.isfinite(), 1.0, factor)
    won = newest[shares.argmax(1)]
    return torch.where(won[:, None], shares * factor, shares)
