"""Whether an adopted classifier is fed as it was trained, judged by the other usual ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, final

import numpy as np

from retain.chances import net_bounds
from retain.errors import BadImage, BadOption
from retain.vision.adopt import Adopted
from retain.vision.extractor import GRAPH
from retain.vision.images import decode
from retain.vision.lookup import session
from retain.vision.preprocess import Preprocess, prepare
from retain.vision.presets import PRESETS, preset

__all__ = ["PresetTrial", "check_presets"]

CLEAR: Final = 0.02
"""How much better, in accuracy, another way must be to be worth a word."""


@final
@dataclass(frozen=True, slots=True)
class PresetTrial:
    """How well a classifier does with its preprocessing, and with others.

    Attributes:
        n: how many pictures were tried.
        accuracy: with the chosen rule, 0 to 1.
        others: accuracy with each preset that differs from the rule, size and crop unchanged.
        better: the best of them, if clearly better; else None.
        ignored: how many pictures had a label that the classifier does not know.
        warning: what to tell, in a sentence; empty if nothing.
    """

    n: int
    accuracy: float
    others: Mapping[str, float]
    better: str | None
    ignored: int
    warning: str


def check_presets(adopted: Adopted, pictures: Iterable[tuple[bytes, str]]) -> PresetTrial:
    """Try the other usual ways of preparing pictures.

    Clearly better means: by 2 points, and more often right where the two differ than chance
    explains, as in McNemar's test (1947), whichever of the presets it is.

    Args:
        adopted: the classifier.
        pictures: image files with their labels.

    Raises:
        BadImage: if one of them cannot be read.
        BadOption: if none has a label that the classifier knows.
    """
    known = {label: index for index, label in enumerate(adopted.labels)}
    rules = {"": adopted.rule} | {n: r for n in PRESETS if (r := _other(adopted.rule, n))}
    run = session(adopted.files[GRAPH])
    entry, leaving = run.get_inputs()[0].name, run.get_outputs()[0].name
    right: dict[str, list[bool]] = {name: [] for name in rules}
    ignored = 0
    for number, (data, label) in enumerate(pictures):
        if label not in known:
            ignored += 1
            continue
        try:
            pixels = decode(data, shorter=adopted.rule.needs)
        except BadImage as error:
            raise BadImage(f"picture {number + 1}: {error}") from error
        for name, rule in rules.items():
            features = run.run([leaving], {entry: prepare(pixels, rule)})[0]
            right[name].append(int(adopted.scores(features)[0].argmax()) == known[label])
    n = len(right[""])
    if not n:
        raise BadOption(
            f"none of the {ignored} pictures has a label that the classifier knows, such as "
            f"{', '.join(map(repr, adopted.labels[:3]))}"
        )
    hits = {name: np.array(values, float) for name, values in right.items()}
    accuracy = {name: float(values.mean()) for name, values in hits.items()}
    own = accuracy.pop("")
    better = None
    for name in sorted(accuracy, key=accuracy.__getitem__, reverse=True):
        gains = hits[name] - hits[""]
        won, lost = int((gains > 0).sum()), int((gains < 0).sum())
        # Two pictures are nothing, however alike they are.
        surely, _ = net_bounds(won, lost, n, 1.0 - 0.05 / len(accuracy))
        if gains.mean() >= CLEAR and surely > 0:
            better = name
            break
    warning = ""
    if better is not None:
        warning = (
            f"prepared as {better!r} it is right on {accuracy[better]:.1%} of {n} pictures, as "
            f"chosen on {own:.1%}; it was probably trained with {better!r}"
        )
    return PresetTrial(n, own, MappingProxyType(accuracy), better, ignored, warning)


def _other(rule: Preprocess, name: str) -> Preprocess | None:
    """The rule with a preset's numbers; None if they are its own or do not fit."""
    try:
        numbers = preset(name, rule.height, rule.width, channels=rule.channels)
        changed = replace(
            rule,
            colour=numbers.colour,
            scale=numbers.scale,
            mean=numbers.mean,
            std=numbers.std,
        )
    except BadOption:
        return None
    return None if _numbers(changed) == _numbers(rule) else changed


def _numbers(rule: Preprocess) -> tuple[object, ...]:
    """What a rule does to black and to one step of each channel, but for rounding."""
    mean, std = np.array(rule.mean), np.array(rule.std)
    return (rule.colour, *np.round([-mean / std, 255 * rule.scale / std], 6).ravel().tolist())
