"""The journal as a living state: membership → statistics → tuning → head.

Every state is a pure function of the surviving journal. The functions here make one from another
(`after`, `restated`), which is fast, or from the journal alone (`derived_state`), which is the
truth that `verify` compares with; both give the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from retain.algebra import (
    UNTUNED,
    Exceptions,
    Factor,
    HeadOptions,
    Pin,
    Statistics,
    Tuning,
    base_head,
    pin_head,
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


@contextmanager
def single_threaded() -> Iterator[None]:
    """Linear algebra on one thread, so that the same state gives the same bits."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


def load_mind(store: Store) -> Mind:
    """The mind of a store, from its cache when that is current, else by solving anew."""
    return cached_mind(store) or load_state(store).mind


def load_state(store: Store) -> State:
    """The whole state of a store, from its caches where they are current."""
    samples, features = _members(store)
    statistics = _load_statistics(store, samples, features)
    return _state(store, samples, features, statistics, cached_mind(store))


def derived_state(store: Store) -> State:
    """The whole state of a store from its journal and features alone, without any cache."""
    samples, features = _members(store)
    return _state(store, samples, features, _summed(store, samples, features), None, fresh=True)


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
    return _think(event, store, ordered, features, statistics, taught, tuning, len(lesson))


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
    factor = before.solver.factor if before.solver else None
    if lesson or tuning is None or len(samples) >= LESSON_GROWTH * size:
        members = {sample.image: sample.label for sample in samples}
        size, taught, factor = len(samples), statistics, None
        tuning = _tuning(store, samples, features, statistics, members)
    return _think(event, store, samples, features, statistics, taught, tuning, size, factor)


def _think(
    event: int,
    store: Store,
    samples: tuple[Sample, ...],
    features: Features,
    statistics: Statistics,
    taught: Statistics,
    tuning: Tuning,
    lesson_size: int,
    factor: Factor | None = None,
) -> State:
    if not samples:
        return State(empty_mind(event), samples, features, statistics, taught, ())
    options = HeadOptions.from_dict(store.manifest.options)
    pins = sorted(
        (sample.image, i, sample.label)
        for i, sample in enumerate(samples)
        if sample.pinned and not sample.exception
    )
    apart = [i for i, sample in enumerate(samples) if sample.exception]
    with single_threaded():
        base, solver = base_head(statistics, tuning, options, taught, factor)
        head, edited = pin_head(
            base,
            solver,
            statistics,
            [Pin(image, features[i], label) for image, i, label in pins],
            tuning.margin,
        )
        exceptions = Exceptions.of(
            [sample.image for sample in samples],
            [sample.label for sample in samples],
            features,
            apart,
        )
        mind = Mind(event, head, tuning, lesson_size, frozenset(edited), exceptions)
        answers = mind.answers(features)
    return State(mind, samples, features, statistics, taught, answers, solver, base)


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


def _members(store: Store) -> tuple[tuple[Sample, ...], Features]:
    samples = tuple(store.members())
    images, features, _ = store.features(None)
    if list(images) != [sample.image for sample in samples]:
        raise Damaged(f"members and features of {store.path} disagree; run `retain verify`")
    return samples, features


def _state(
    store: Store,
    samples: tuple[Sample, ...],
    features: Features,
    statistics: Statistics,
    mind: Mind | None,
    *,
    fresh: bool = False,
) -> State:
    lesson = store.lesson()
    taught = _at_lesson(samples, features, statistics, lesson)
    event = store.head_event() if mind is None else mind.event
    tuning = mind.tuning if mind is not None else None
    if tuning is None:
        tuning = _tuning(store, samples, features, taught, lesson, fresh=fresh)
    return _think(event, store, samples, features, statistics, taught, tuning, len(lesson))
