"""The journal as a living state: membership → statistics → tuning → head.

Every state is a pure function of the surviving journal. The functions here make one from another
(`after`, `restated`), which is fast, or from the journal alone (`derived_state`), which is the
truth that `verify` compares with; both give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retain.algebra import Statistics, Tuning
from retain.caches import Features, Mind, State, cached_mind, cached_statistics
from retain.errors import Damaged
from retain.solving import Ground, Vectors, chosen, think, tuned
from retain.store import Plan, Store
from retain.values import Sample

__all__ = [
    "LESSON_GROWTH",
    "Item",
    "after",
    "derived_state",
    "load_mind",
    "load_state",
    "restated",
    "state_at",
]

LESSON_GROWTH = 1.25


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """One member as the state holds it: a sample, its feature int16 [d], its original length."""

    sample: Sample
    feature: Features
    norm: float


def load_mind(store: Store) -> Mind:
    """The mind of a store, from its cache when that is current, else by solving anew."""
    return cached_mind(store) or load_state(store).mind


def load_state(store: Store) -> State:
    """The whole state of a store, from its caches where they are current."""
    with store.reading():
        kept, mind = _kept(store, None), cached_mind(store)
    statistics = _load_statistics(store, kept.plan.members, kept.vectors[0])
    return _state(store, kept, statistics, mind.tuning if mind else None)


def derived_state(store: Store) -> State:
    """The whole state of a store from its journal and features alone, without any cache."""
    with store.reading():
        kept = _kept(store, None)
    return _state(store, kept, _summed(store, kept.plan.members, kept.vectors[0]), fresh=True)


def state_at(store: Store, event: int) -> State:
    """The state right after an event, of what is still remembered."""
    with store.reading():
        kept = _kept(store, event)
    return _state(store, kept, _summed(store, kept.plan.members, kept.vectors[0]))


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
    rows = state.rows
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
    features, norms = state.features, state.norms
    if fresh:
        block = np.stack([item.feature for item in fresh])
        norms = np.concatenate([norms, np.array([item.norm for item in fresh], np.float32)])
        statistics = statistics + Statistics.of(block, [item.sample.label for item in fresh])
        features = np.concatenate([features, block])
        added = (item.sample.image for item in fresh)
        rows = {**rows, **{image: i for i, image in enumerate(added, len(samples))}}
        samples += [item.sample for item in fresh]
    vectors = features, norms
    return _settled(store, event, tuple(samples), rows, vectors, statistics, state, lesson)


def restated(
    store: Store,
    state: State,
    event: int,
    samples: Iterable[Sample],
    lesson: Mapping[str, str],
    renames: Sequence[tuple[str, str]] | None = None,
) -> State:
    """The state with another membership, given whole: after undo, rename, merge or forget.

    Args:
        store: holds the features of every picture in `samples`.
        state: the state before.
        event: the number the change will have in the journal.
        samples: all members.
        lesson: image → label as they were right after the last surviving lesson.
        renames: (old, new) labels of classes, where the journal does not say them yet.
    """
    target = {sample.image: sample for sample in samples}
    gone = [i for i, sample in enumerate(state.samples) if sample.image not in target]
    kept = [i for i, sample in enumerate(state.samples) if sample.image in target]
    moved = [i for i in kept if target[state.samples[i].image].label != state.samples[i].label]
    present = {state.samples[i].image for i in kept}
    fresh = sorted(image for image in target if image not in present)
    features, norms, statistics = state.features, state.norms, state.statistics
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
        features, norms = features[kept], norms[kept]
    order = [state.samples[i].image for i in kept] + fresh
    if fresh:
        images, block, lengths = store.features(fresh)
        row = {image: i for i, image in enumerate(images)}
        if len(row) < len(fresh):
            raise Damaged(f"features are missing in {store.path}; run `retain verify`")
        found = [row[image] for image in fresh]
        block, norms = block[found], np.concatenate([norms, lengths[found]])
        statistics = statistics + Statistics.of(block, [target[image].label for image in fresh])
        features = np.concatenate([features, block])
    ordered = tuple(target[image] for image in order)
    taught = _at_lesson(ordered, features, statistics, lesson)
    ground, vectors = Ground.of(store, renames), (features, norms)
    rows, jurors = _rows(ordered), chosen(lesson)
    tuning = tuned(ground, rows, vectors, taught, lesson, jurors)
    return think(
        ground, event, ordered, vectors, statistics, taught, tuning, len(lesson), jurors, rows
    )


def _rows(samples: Sequence[Sample]) -> dict[str, int]:
    return {sample.image: i for i, sample in enumerate(samples)}


def _settled(
    store: Store,
    event: int,
    samples: tuple[Sample, ...],
    rows: Mapping[str, int],
    vectors: Vectors,
    statistics: Statistics,
    before: State,
    lesson: bool,
) -> State:
    size, tuning, taught = before.mind.lesson_size, before.mind.tuning, before.lesson
    jurors = before.jurors
    factor = before.solver.factor if before.solver else None
    ground = Ground.of(store)
    if lesson or tuning is None or len(samples) >= LESSON_GROWTH * size:
        members = {sample.image: sample.label for sample in samples}
        size, taught, factor, jurors = len(samples), statistics, None, chosen(members)
        tuning = tuned(ground, rows, vectors, statistics, members, jurors)
    return think(
        ground, event, samples, vectors, statistics, taught, tuning, size, jurors, rows, factor
    )


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
    """What the journal says after one event, and what of it is still remembered."""

    event: int
    plan: Plan
    vectors: Vectors


def _kept(store: Store, event: int | None) -> _Kept:
    """What is kept after an event; now, and held against the members kept, if it is None."""
    plan = store.plan() if event is None else store.preview(at=event)
    images, features, norms = store.features([sample.image for sample in plan.members])
    if list(images) != [sample.image for sample in plan.members]:
        raise Damaged(f"members and features of {store.path} disagree; run `retain verify`")
    return _Kept(store.head_event() if event is None else event, plan, (features, norms))


def _state(
    store: Store,
    kept: _Kept,
    statistics: Statistics,
    tuning: Tuning | None = None,
    *,
    fresh: bool = False,
) -> State:
    samples, lesson = kept.plan.members, kept.plan.lesson
    ground = Ground.of(store, kept.plan.rules.renames)
    taught = _at_lesson(samples, kept.vectors[0], statistics, lesson)
    rows, jurors, vectors = _rows(samples), chosen(lesson), kept.vectors
    if tuning is None:
        tuning = tuned(ground, rows, vectors, taught, lesson, jurors, fresh=fresh)
    size = len(lesson)
    return think(
        ground, kept.event, samples, vectors, statistics, taught, tuning, size, jurors, rows
    )
