"""From sums to a head: what is solved, once the membership is known.

A classifier that was made here has a head of its own statistics; one that was adopted keeps the
last layer it came with and learns beside it. Both are pure functions of what is given.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import final

from threadpoolctl import ThreadpoolController

from retain.algebra import (
    STARTED,
    UNTUNED,
    Exceptions,
    ExtensionTuning,
    Factor,
    Head,
    HeadOptions,
    Moments,
    Pin,
    Solver,
    Start,
    Statistics,
    Tuning,
    base_head,
    extend,
    nearest_head,
    predict_indices,
    started,
    tune,
    tuning_sample,
)
from retain.caches import (
    Features,
    Lengths,
    Mind,
    State,
    answers_apart,
    empty_mind,
    options_key,
)
from retain.errors import CannotUndo
from retain.store import Era, Store
from retain.store.start import Layer
from retain.values import Sample

__all__ = ["Ground", "Vectors", "chosen", "single_threaded", "think", "tuned"]

Vectors = tuple[Features, Lengths]
"""The members' features int16 [n, d] and their original lengths float32 [n]."""


@dataclass(frozen=True, eq=False, slots=True)
class Ground:
    """What heads stand on besides data: an era, the owner's options, and its adopted layer."""

    store: Store
    era: Era
    options: HeadOptions
    start: Start | None

    @classmethod
    def of(
        cls,
        store: Store,
        era: Era,
        renames: Sequence[tuple[str, str]] | None = None,
        layer: Layer | None = None,
    ) -> Ground:
        """The ground of a store in an era.

        Args:
            store: where the options are.
            era: its extractor and adopted layer.
            renames: of classes, where they are not those in the journal.
            layer: the adopted layer, where it is not on disk yet.

        Raises:
            CannotUndo: if two adopted classes would bear one name.
        """
        options = HeadOptions.from_dict(store.manifest.options)
        layer = layer or store.start(era)
        if layer is None:
            return cls(store, era, options, None)
        labels, weights, bias, unit = layer
        for old, new in store.rules().renames if renames is None else renames:
            labels = tuple(new if label == old else label for label in labels)
        twice = sorted(label for label, count in Counter(labels).items() if count > 1)
        if twice:
            raise CannotUndo(
                f"two of the classes that were adopted would both be called {twice[0]!r}; rename "
                f"one of them first, or take back the event that gave it that name"
            )
        return cls(store, era, options, Start(labels, weights, bias, unit))


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


def think(
    ground: Ground,
    event: int,
    samples: tuple[Sample, ...],
    vectors: Vectors,
    statistics: Statistics,
    taught: Statistics,
    tuning: Tuning,
    lesson_size: int,
    jurors: Mapping[str, str],
    rows: Mapping[str, int],
    factor: Factor | None = None,
) -> State:
    """The state of a membership: its head, with pins and exceptions, and what it answers.

    Args:
        ground: what heads stand on besides data.
        event: the journal entry up to which it is true.
        samples: the members.
        vectors: their features and lengths.
        statistics: their sums.
        taught: the sums at the last lesson.
        tuning: that lesson's numbers.
        lesson_size: how many members it had.
        jurors: those that it was tuned by, and their labels then.
        rows: image → row of `samples`.
        factor: of `taught`, if it is at hand.
    """
    features, norms = vectors
    if not samples and ground.start is None:
        mind = empty_mind(event, ground.era)
        return State(mind, samples, features, norms, statistics, taught, (), rows, jurors)
    pins = sorted(
        (sample.image, i, sample.label)
        for i, sample in enumerate(samples)
        if sample.pinned and not sample.exception
    )
    apart = [i for i, sample in enumerate(samples) if sample.exception]
    with single_threaded():
        base, solver = _solved(ground, statistics, taught, tuning, factor)
        head, edited, conflict = base, tuple[str, ...](), None
        if solver is not None:
            head, edited, conflict = nearest_head(
                base,
                solver,
                statistics,
                [Pin(image, features[i], label, float(norms[i])) for image, i, label in pins],
                tuning.margin,
            )
        if conflict is not None:
            # `correct` refuses such a state. Where pictures go, or come, beside corrections that
            # were made, those that no head was found for hold by the next rung of the ladder.
            rows_of = [i for _, i, _ in pins]
            said = predict_indices(head, features[rows_of], norms[rows_of])
            answered = zip(rows_of, said, strict=True)
            apart += [i for i, k in answered if head.classes[k] != samples[i].label]
        exceptions = Exceptions()
        if apart:
            images, labels = [s.image for s in samples], [s.label for s in samples]
            exceptions = Exceptions.of(images, labels, features, apart)
        sigmoid = answers_apart(ground.store)
        mind = Mind(
            event, ground.era, head, tuning, lesson_size, frozenset(edited), exceptions, sigmoid
        )
        answers = mind.answers(features, norms)
    why = "" if conflict is None else str(conflict)
    return State(
        mind, samples, features, norms, statistics, taught, answers, rows, jurors, solver, base, why
    )


def _solved(
    ground: Ground,
    statistics: Statistics,
    taught: Statistics,
    tuning: Tuning,
    factor: Factor | None,
) -> tuple[Head, Solver | None]:
    """The head before pins, and what it was solved with."""
    start = ground.start
    if start is None:
        return base_head(statistics, tuning, ground.options, taught, factor)
    extension = ExtensionTuning.from_dict(tuning.extension or {})
    if not statistics.total:
        return extend(start, statistics, extension), None
    if factor is None:
        whitening = taught if taught.total else statistics
        factor = Factor.of(whitening, extension.shrinkage, "cosine")
    solver = Solver(Moments.of(statistics), factor, "cosine")
    return extend(start, statistics, extension, solver), solver


def tuned(
    ground: Ground,
    rows: Mapping[str, int],
    vectors: Vectors,
    taught: Statistics,
    lesson: Mapping[str, str],
    jurors: Mapping[str, str],
    *,
    fresh: bool = False,
) -> Tuning:
    """The tuning for the membership at a lesson, from the cache when it was tuned before.

    Args:
        ground: what heads stand on besides data.
        rows: image → row of `vectors`.
        vectors: the members' features and lengths.
        taught: the sums at the lesson.
        lesson: image → label of all its members.
        jurors: the same of those it is tuned by.
        fresh: whether to leave the cache alone.
    """
    if not lesson:
        return UNTUNED if ground.start is None else STARTED
    store, key = ground.store, _lesson_key(ground, lesson)
    cached = None if fresh else store.get_tuning(key)
    if cached is not None:
        return Tuning.from_dict(cached)
    indices = [rows[image] for image in jurors]
    features, norms = vectors[0][indices], vectors[1][indices]
    labels = list(jurors.values())
    with single_threaded():
        if ground.start is not None:
            tuning = started(ground.start, taught, features, norms, labels)
        else:
            tuning = tune(taught, features, labels, ground.options)
    if not fresh and store.writing_now:
        store.put_tuning(key, tuning.to_dict())
    return tuning


def chosen(lesson: Mapping[str, str]) -> dict[str, str]:
    """The members of a lesson that it is tuned by, and their labels."""
    return {image: lesson[image] for image in tuning_sample(lesson)}


def _lesson_key(ground: Ground, lesson: Mapping[str, str]) -> str:
    sha = hashlib.sha256(options_key(ground.store, ground.era).encode())
    if ground.start is not None:
        sha.update("\0".join(ground.start.classes).encode("utf-8", "surrogatepass"))
    for image in sorted(lesson):
        label = lesson[image].encode("utf-8", "surrogatepass")
        sha.update(image.encode() + len(label).to_bytes(8, "little") + label)
    return "sha256:" + sha.hexdigest()
