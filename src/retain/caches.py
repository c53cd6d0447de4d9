"""A state in memory, and what of it is cached on disk.

`Mind` is what answering needs and is small; `State` is what changing needs and holds every
member's feature. A cache is checked by its event number or its digest and is never trusted further;
any of them may be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retain.algebra import (
    Exceptions,
    Head,
    Solver,
    Statistics,
    Tuning,
    overridden,
    predict_indices,
)
from retain.algebra.calibrate import log_sigmoid, log_softmax
from retain.store import Era, Store
from retain.values import Sample

__all__ = [
    "Features",
    "Lengths",
    "Mind",
    "State",
    "answers_apart",
    "cached_mind",
    "cached_statistics",
    "empty_mind",
    "options_key",
    "save",
]

Features = NDArray[np.int16]
Floats = NDArray[np.float64]
Lengths = NDArray[np.float32]

# What heads depend on besides data.
_ALGEBRA = "3"


@dataclass(frozen=True, eq=False, slots=True)
class Mind:
    """What answering needs.

    Attributes:
        event: the journal entry up to which it is true.
        era: whose extractor's features it answers.
        head: None while no class is known.
        tuning: the numbers behind the head.
        lesson_size: how many members there were at the last lesson.
        edited: remembered pictures whose pins needed an edit of the head.
        exceptions: those that answer for their own neighbourhood.
        apart: whether the probability of each class stands by itself (a sigmoid), as in a
            classifier that was adopted so; else they add up to one (a softmax).
    """

    event: int
    era: Era
    head: Head | None
    tuning: Tuning | None
    lesson_size: int
    edited: frozenset[str]
    exceptions: Exceptions = field(default_factory=Exceptions)
    apart: bool = False

    def logits(self, feature: Features, norm: float) -> Floats:
        """Logits [C] of one picture, int16 [d] of original length `norm`, exceptions included."""
        if self.head is None or self.tuning is None:
            return np.zeros(0)
        logits = self.head.logits(feature, norm)
        spoken = self.exceptions.speaking(feature)
        if spoken is None:
            return logits
        target = self.head.classes.index(self.exceptions.labels[spoken])
        return overridden(logits, target, self.tuning.margin)

    def log_probabilities(self, logits: Floats) -> Floats:
        """The logarithms of what `predict` says for logits [C]."""
        return log_sigmoid(logits) if self.apart else log_softmax(logits)

    def answers(self, features: Features, norms: Lengths) -> tuple[str, ...]:
        """The labels of pictures int16 [n, d], as `logits` gives them one by one."""
        if self.head is None:
            return ()
        classes = self.head.classes
        found = [classes[i] for i in predict_indices(self.head, features, norms)]
        for row, spoken in enumerate(self.exceptions.nearest(features)):
            if spoken >= 0:
                found[row] = self.exceptions.labels[spoken]
        return tuple(found)


@dataclass(frozen=True, eq=False, slots=True)
class State:
    """What changing needs: every member, its feature, the sums, and the mind they make.

    `lesson` are the sums as they were right after the last lesson, whose scatter whitens, and
    `jurors` those that it was tuned by: image → label then. `samples[i]`, `features[i]` and its
    original length `norms[i]` belong together, in no particular order, and `rows[image]` is i;
    `answers` are the predicted labels of the members, none while no class is known. `solver` and
    `base` are what the head was made with and what it was before pins; None while no class is
    known. `conflict` says why not all pins reach their margin, where they do not: those that do
    not hold in the head are among the mind's exceptions then.
    """

    mind: Mind
    samples: tuple[Sample, ...]
    features: Features
    norms: Lengths
    statistics: Statistics
    lesson: Statistics
    answers: tuple[str, ...]
    rows: Mapping[str, int]
    jurors: Mapping[str, str]
    solver: Solver | None = None
    base: Head | None = None
    conflict: str = ""

    def sample(self, image: str) -> Sample | None:
        """A member by its content hash."""
        row = self.rows.get(image)
        return None if row is None else self.samples[row]

    @property
    def yielding(self) -> frozenset[str]:
        """Pins that are exceptions for now, since no head was found that satisfies all."""
        found = ((image, self.sample(image)) for image in self.mind.exceptions.images)
        return frozenset(image for image, sample in found if sample and not sample.exception)


def empty_mind(event: int, era: Era) -> Mind:
    """The mind that knows no class."""
    return Mind(event, era, None, None, 0, frozenset())


def answers_apart(store: Store) -> bool:
    """Whether the classifier was adopted with a sigmoid at its end; see `Mind.apart`."""
    return (store.manifest.start or {}).get("activation") == "sigmoid"


def save(store: Store, state: State, *, statistics: bool) -> None:
    """Cache a state on disk: the mind always, the sums (larger) when asked."""
    mind = state.mind
    meta: dict[str, Any] = {
        "event": mind.event,
        "key": options_key(store, mind.era),
        "tuning": mind.tuning.to_dict() if mind.tuning else None,
        "lesson_size": mind.lesson_size,
        "edited": sorted(mind.edited),
        "classes": mind.head.classes if mind.head else None,
        "exceptions": [mind.exceptions.images, mind.exceptions.labels],
    }
    head, exceptions = mind.head, mind.exceptions
    arrays: dict[str, NDArray[Any]] = {"bias": np.zeros(0)}
    if head is not None:
        arrays = {"weights": head.weights, "bias": head.bias}
        if head.raw is not None:
            arrays["raw"] = head.raw
        arrays |= {"stored": exceptions.features, "thresholds": exceptions.thresholds}
    store.write_cache("head", arrays, {"mind": json.dumps(meta)})
    if statistics:
        sums = state.statistics
        store.write_cache(
            "statistics",
            {"counts": sums.counts, "sums": sums.sums, "second": sums.second},
            {
                "classes": json.dumps(sums.classes),
                "digest": sums.digest,
                "extractor": mind.era.extractor,
                "members": json.dumps([[s.image, s.label] for s in state.samples]),
            },
        )


def options_key(store: Store, era: Era) -> str:
    """What a mind depends on besides the journal; part of every cache key."""
    parts = [_ALGEBRA, era.extractor, dict(store.manifest.options)]
    if era.number and era.start is not None:
        parts.append(era.start)
    return json.dumps(parts, sort_keys=True)


def cached_mind(store: Store) -> Mind | None:
    """The mind cached on disk, if it is current with the journal and can be read."""
    found = store.read_cache("head")
    if found is None:
        return None
    arrays, text = found
    try:
        meta = json.loads(text["mind"])
        with store.reading():
            event, era = store.head_event(), store.era
        if meta["event"] != event or meta["key"] != options_key(store, era):
            return None
        if meta["classes"] is None:
            return empty_mind(event, era)
        head = Head(tuple(meta["classes"]), arrays["weights"], arrays["bias"], arrays.get("raw"))
        return Mind(
            event,
            era,
            head,
            Tuning.from_dict(meta["tuning"]),
            meta["lesson_size"],
            frozenset(meta["edited"]),
            Exceptions(
                tuple(meta["exceptions"][0]),
                tuple(meta["exceptions"][1]),
                arrays["stored"],
                arrays["thresholds"],
            ),
            apart=answers_apart(store),
        )
    except (KeyError, TypeError, ValueError):
        return None


def cached_statistics(store: Store, era: Era) -> tuple[Statistics, dict[str, str]] | None:
    """The sums cached on disk, of an era, and the members (image → label) that they are of."""
    found = store.read_cache("statistics")
    if found is None:
        return None
    arrays, text = found
    try:
        if text.get("extractor", store.manifest.extractor) != era.extractor:
            return None
        statistics = Statistics(
            tuple(json.loads(text["classes"])), arrays["counts"], arrays["sums"], arrays["second"]
        )
        members = dict(json.loads(text["members"]))
        return (statistics, members) if statistics.digest == text["digest"] else None
    except (KeyError, TypeError, ValueError):
        return None
