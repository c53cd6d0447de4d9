"""The journal as a living state: membership → statistics → tuning → head.

Every state is a pure function of the surviving journal. The functions here make one from another
(`after`, `restated`), which is fast, or from the journal alone (`derived_state`), which is the
truth that `verify` compares with; both give the same bits.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
from threadpoolctl import ThreadpoolController

from retain.algebra import (
    UNTUNED,
    HeadOptions,
    Pin,
    Statistics,
    Tuning,
    base_head,
    pin_head,
    predict_indices,
    tune,
    tuning_sample,
)
from retain.caches import (
    Features,
    Mind,
    State,
    cached_mind,
    cached_statistics,
    empty_mind,
    options_key,
)
from retain.errors import Damaged
from retain.store import Store
from retain.values import Sample

__all__ = [
    "LESSON_GROWTH",
    "Item",
    "after",
    "derived_state",
    "load_mind",
    "load_state",
    "restated",
    "single_threaded",
]

LESSON_GROWTH = 1.25


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """One member as the state holds it: a sample and its feature, int16 [d]."""

    sample: Sample
    feature: Features


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@final
class _Limit:
    """One limit for a whole process, set by the first thread that needs it, lifted by the last."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._inside = 0
        self._set = ExitStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._guard:
            if not self._inside:
                self._set.enter_context(_controller().limit(limits=1, user_api="blas"))
            self._inside += 1
        try:
            yield
        finally:
            with self._guard:
                self._inside -= 1
                if not self._inside:
                    self._set.close()


_LIMIT = _Limit()


def single_threaded() -> AbstractContextManager[None]:
    """Linear algebra on one thread, so that the same state gives the same bits."""
    return _LIMIT.held()


def load_mind(store: Store) -> Mind:
    """The mind of a store, from its cache when that is current, else by solving anew."""
    return cached_mind(store) or load_state(store).mind


def load_state(store: Store) -> State:
    """The whole state of a store, from its caches where they are current."""
    with store.reading():
        kept, mind = _kept(store), cached_mind(store)
    return _state(store, kept, _load_statistics(store, kept.samples, kept.features), mind)


def derived_state(store: Store) -> State:
    """The whole state of a store from its journal and features alone, without any cache."""
    with store.reading():
        kept = _kept(store)
    return _state(store, kept, _summed(store, kept.samples, kept.features), None, fresh=True)


def after(
    store: Store, state: State, event: int, changed: Sequence[Item], *, lesson: bool
) -> State:
    """The state once `changed` pictures have been learned or relabelled.

    Args:
        store: where the tuning is cached and the options are.
        state: the state before.
        event: the number the change will have in the journal.
        changed: new members, and members with their new label or pin.
        lesson: whether this is a lesson, after which the head is tuned anew; a change that makes
            the membership a quarter larger than at the last lesson is one too.
    """
    rows = {sample.image: i for i, sample in enumerate(state.samples)}
    moved = [item for item in changed if item.sample.image in rows]
    fresh = [item for item in changed if item.sample.image not in rows]
    samples = list(state.samples)
    statistics = state.statistics
    relabelled = [
        item for item in moved if samples[rows[item.sample.image]].label != item.sample.label
    ]
    if relabelled:
        statistics = statistics.relabel(
            np.stack([item.feature for item in relabelled]),
            [samples[rows[item.sample.image]].label for item in relabelled],
            [item.sample.label for item in relabelled],
        )
    for item in moved:
        samples[rows[item.sample.image]] = item.sample
    features = state.features
    if fresh:
        block = np.stack([item.feature for item in fresh])
        statistics = statistics + Statistics.of(block, [item.sample.label for item in fresh])
        features = np.concatenate([features, block])
        samples += [item.sample for item in fresh]
    return _settled(store, event, tuple(samples), features, statistics, state, lesson)


def restated(
    store: Store,
    state: State,
    event: int,
    samples: Iterable[Sample],
    lesson: Mapping[str, str],
) -> State:
    """The state with another membership, given whole: after undo, rename, merge or forget.

    Args:
        store: holds the features of every picture in `samples`.
        state: the state before.
        event: the number the change will have in the journal.
        samples: all members.
        lesson: image → label as they were right after the last surviving lesson.
    """
    target = {sample.image: sample for sample in samples}
    gone = [i for i, sample in enumerate(state.samples) if sample.image not in target]
    kept = [i for i, sample in enumerate(state.samples) if sample.image in target]
    moved = [i for i in kept if target[state.samples[i].image].label != state.samples[i].label]
    present = {state.samples[i].image for i in kept}
    fresh = sorted(image for image in target if image not in present)
    features, statistics = state.features, state.statistics
    if gone:
        statistics = statistics - Statistics.of(
            features[gone], [state.samples[i].label for i in gone]
        )
    if moved:
        statistics = statistics.relabel(
            features[moved],
            [state.samples[i].label for i in moved],
            [target[state.samples[i].image].label for i in moved],
        )
    if gone:
        features = features[kept]
    order = [state.samples[i].image for i in kept] + fresh
    if fresh:
        images, block, _ = store.features(fresh)
        row = {image: i for i, image in enumerate(images)}
        if len(row) < len(fresh):
            raise Damaged(f"features are missing in {store.path}; run `retain verify`")
        block = block[[row[image] for image in fresh]]
        statistics = statistics + Statistics.of(block, [target[image].label for image in fresh])
        features = np.concatenate([features, block])
    ordered = tuple(target[image] for image in order)
    taught = _at_lesson(ordered, features, statistics, lesson)
    tuning = _tuning(store, ordered, features, taught, lesson)
    mind = _think(event, store, ordered, features, statistics, taught, tuning, len(lesson))
    return State(mind, ordered, features, statistics, taught, _answers(mind, features))


def _settled(
    store: Store,
    event: int,
    samples: tuple[Sample, ...],
    features: Features,
    statistics: Statistics,
    before: State,
    lesson: bool,
) -> State:
    size, tuning, taught = before.mind.lesson_size, before.mind.tuning, before.lesson
    if lesson or tuning is None or len(samples) >= LESSON_GROWTH * size:
        members = {sample.image: sample.label for sample in samples}
        size, taught = len(samples), statistics
        tuning = _tuning(store, samples, features, statistics, members)
    mind = _think(event, store, samples, features, statistics, taught, tuning, size)
    return State(mind, samples, features, statistics, taught, _answers(mind, features))


def _think(
    event: int,
    store: Store,
    samples: tuple[Sample, ...],
    features: Features,
    statistics: Statistics,
    taught: Statistics,
    tuning: Tuning,
    lesson_size: int,
) -> Mind:
    if not samples:
        return empty_mind(event)
    options = HeadOptions.from_dict(store.manifest.options)
    pins = sorted(
        (sample.image, i, sample.label) for i, sample in enumerate(samples) if sample.pinned
    )
    with single_threaded():
        head, solver = base_head(statistics, tuning, options, taught)
        head, edited = pin_head(
            head,
            solver,
            statistics,
            [Pin(image, features[i], label) for image, i, label in pins],
            tuning.margin,
        )
    return Mind(event, head, tuning, lesson_size, frozenset(edited))


def _answers(mind: Mind, features: Features) -> tuple[str, ...]:
    if mind.head is None:
        return ()
    with single_threaded():
        found = predict_indices(mind.head, features)
    return tuple(mind.head.classes[i] for i in found)


def _at_lesson(
    samples: Sequence[Sample],
    features: Features,
    statistics: Statistics,
    lesson: Mapping[str, str],
) -> Statistics:
    """The sums at a lesson, from those of now: what came later taken away, relabelling undone."""
    later = [i for i, sample in enumerate(samples) if sample.image not in lesson]
    moved = [i for i, s in enumerate(samples) if lesson.get(s.image, s.label) != s.label]
    if later:
        statistics = statistics - Statistics.of(features[later], [samples[i].label for i in later])
    if moved:
        statistics = statistics.relabel(
            features[moved],
            [samples[i].label for i in moved],
            [lesson[samples[i].image] for i in moved],
        )
    return statistics


def _tuning(
    store: Store,
    samples: Sequence[Sample],
    features: Features,
    taught: Statistics,
    lesson: Mapping[str, str],
    *,
    fresh: bool = False,
) -> Tuning:
    """The tuning for the membership at a lesson, from the cache when it was tuned before."""
    if not lesson:
        return UNTUNED
    key = _lesson_key(store, lesson)
    cached = None if fresh else store.get_tuning(key)
    if cached is not None:
        return Tuning.from_dict(cached)
    rows = {sample.image: i for i, sample in enumerate(samples)}
    chosen = tuning_sample(lesson)
    with single_threaded():
        tuning = tune(
            taught,
            features[[rows[image] for image in chosen]],
            [lesson[image] for image in chosen],
            HeadOptions.from_dict(store.manifest.options),
        )
    if not fresh and store.writing_now:
        store.put_tuning(key, tuning.to_dict())
    return tuning


def _lesson_key(store: Store, lesson: Mapping[str, str]) -> str:
    sha = hashlib.sha256(options_key(store).encode())
    for image in sorted(lesson):
        label = lesson[image].encode("utf-8", "surrogatepass")
        sha.update(image.encode() + len(label).to_bytes(8, "little") + label)
    return "sha256:" + sha.hexdigest()


def _load_statistics(store: Store, samples: Sequence[Sample], features: Features) -> Statistics:
    """The sums, from the cache and what changed since; from the features when that fails."""
    present = {sample.image: (sample.label, i) for i, sample in enumerate(samples)}
    cached = cached_statistics(store)
    if cached is not None:
        statistics, members = cached
        gone = [image for image in members if image not in present]
        moved = [i for im, (label, i) in present.items() if members.get(im, label) != label]
        fresh = [i for im, (_, i) in present.items() if im not in members]
        if not gone and len(moved) + len(fresh) <= max(64, len(samples) // 2):
            if moved:
                statistics = statistics.relabel(
                    features[moved],
                    [members[samples[i].image] for i in moved],
                    [samples[i].label for i in moved],
                )
            if fresh:
                statistics = statistics + Statistics.of(
                    features[fresh], [samples[i].label for i in fresh]
                )
            return statistics
    return _summed(store, samples, features)


def _summed(store: Store, samples: Sequence[Sample], features: Features) -> Statistics:
    if not samples:
        return Statistics.empty(store.manifest.dimension)
    return Statistics.of(features, [sample.label for sample in samples])


@dataclass(frozen=True, eq=False, slots=True)
class _Kept:
    """What the journal says after one event."""

    event: int
    samples: tuple[Sample, ...]
    features: Features
    lesson: Mapping[str, str]


def _kept(store: Store) -> _Kept:
    samples = tuple(store.members())
    images, features, _ = store.features(None)
    if list(images) != [sample.image for sample in samples]:
        raise Damaged(f"members and features of {store.path} disagree; run `retain verify`")
    return _Kept(store.head_event(), samples, features, store.lesson())


def _state(
    store: Store, kept: _Kept, statistics: Statistics, mind: Mind | None, *, fresh: bool = False
) -> State:
    samples, features, lesson = kept.samples, kept.features, kept.lesson
    taught = _at_lesson(samples, features, statistics, lesson)
    if mind is None:
        tuning = _tuning(store, samples, features, taught, lesson, fresh=fresh)
        size = len(lesson)
        mind = _think(kept.event, store, samples, features, statistics, taught, tuning, size)
    return State(mind, samples, features, statistics, taught, _answers(mind, features))
