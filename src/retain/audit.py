"""`verify`: everything derived again from the journal, and compared with what is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retain.algebra import Exceptions, quantize
from retain.caches import cached_mind
from retain.errors import Damaged, InputError, RetainError
from retain.histories import KEY
from retain.intake import Eyes
from retain.projection import derived_state
from retain.session import Session
from retain.store import Era, Store
from retain.store.eras import beside, founding, layer_of
from retain.values import Progress, Sample, Verification

__all__ = ["verify"]

# Features computed on another machine may differ in the last bits of a convolution.
_SAME = 0.9999

# Under which `adapt` events name files beside their extractor: what a method finds again, epochs.
_BESIDE: Final = ("lessons", KEY)


def verify(session: Session, *, deep: bool, progress: Progress | None) -> Verification:
    """See `Classifier.verify`."""
    started = time.perf_counter()
    store = session.store
    problems, notes = store.check()
    digest, images = "", 0
    problems += _unloadable(session)
    try:
        derived = derived_state(store)
        digest, images = derived.statistics.digest, len(derived.samples)
        event, state = derived.mind.event, session.state
        # Another process may have written since; what it cached is then of another state.
        if state.mind.event == event and state.statistics.digest != digest:
            problems.append(
                "the cached sums are not those of the members; delete versions/statistics."
                "safetensors, they are rebuilt"
            )
        cached = cached_mind(store)
        if cached is not None and cached.event == event and cached.head != derived.mind.head:
            if (
                cached.head is not None
                and derived.mind.head is not None
                and cached.head.classes == derived.mind.head.classes
                and np.allclose(cached.head.weights, derived.mind.head.weights, atol=1e-6)
            ):
                notes.append(
                    "the cached head differs from the derived one in its last bits, as it does "
                    "when another machine or linear-algebra library solved it"
                )
            else:
                problems.append(
                    "the cached head is not that of the journal; delete versions/head.safetensors,"
                    " it is solved again"
                )
        elif cached is not None and not _same(cached.exceptions, derived.mind.exceptions):
            problems.append(
                "the cached exceptions are not those of the journal; delete versions/head."
                "safetensors, it is made again"
            )
        if deep and store.manifest.memory != "images":
            notes.append(
                "no feature was computed again: this classifier keeps features and no pictures, so "
                "that there is nothing to compute them from"
            )
        elif deep:
            problems += _reextracted(session, progress)
    except RetainError as error:
        problems.append(str(error))
    return Verification(
        ok=not problems,
        digest=digest,
        problems=tuple(problems),
        images=images,
        events=len(store.events()) if not problems else 0,
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
    )


def _unloadable(session: Session) -> list[str]:
    """Extractors and adopted layers, also of eras taken back, that are not what they were."""
    problems, store = [], session.store
    try:
        several = store.every_era()
    except RetainError:  # the journal is damaged, which is said elsewhere
        several = [founding(store.manifest)]
    for era in {(era.extractor, era.start): era for era in reversed(several)}.values():
        try:
            # What is in memory was right when it was read; what counts is what is on disk.
            session.load_extractor(era)
            layer_of(store.folder(era), era)
        except RetainError as error:
            problems.append(str(error))
    return [*problems, *_altered(store, several)]


def _altered(store: Store, several: Sequence[Era]) -> list[str]:
    """Files beside extractors that are missing or altered, each once."""
    problems = []
    for era in several:
        told = store.detail(era.number) if era.number else {}
        for name in (told.get(key) for key in _BESIDE):
            if isinstance(name, str):
                try:
                    beside(store.folder(era), name)
                except Damaged as error:
                    problems.append(str(error))
    return list(dict.fromkeys(problems))


def _reextracted(session: Session, progress: Progress | None) -> list[str]:
    """Members whose feature, by whichever extractor, is not that of their picture."""
    store = session.store
    eras = {era.extractor: era for era in store.every_era()}
    samples = store.members()
    done, total = 0, len(samples) * len(eras)
    problems: list[str] = []
    for era in eras.values():
        known = store.known(era)
        for sample in samples:
            if sample.image in known or era == store.era:
                problems += _differs(session, session.eyes_of(era), sample)
            done += 1
            if progress is not None:
                progress(done, total)
    return problems


def _differs(session: Session, eyes: Eyes, sample: Sample) -> list[str]:
    store = session.store
    try:
        again, _ = quantize(eyes.extractor.feature(store.blob(sample.image)))
    except (InputError, Damaged) as error:
        # Another process may have forgotten it since.
        kept = store.member(sample.image) is not None
        return [f"{sample.image} ({sample.source}): {error}"] * kept
    found = store.feature(sample.image, eyes.era)
    same = found is not None and _cosine(again, found[0]) >= _SAME
    if same or store.member(sample.image) is None:
        return []
    return [f"{sample.image} ({sample.source}): its feature is not that of its picture"]


def _same(a: Exceptions, b: Exceptions) -> bool:
    return (
        (a.images, a.labels) == (b.images, b.labels)
        and np.array_equal(a.features, b.features)
        and np.array_equal(a.thresholds, b.thresholds)
    )


def _cosine(a: NDArray[np.int16], b: NDArray[np.int16]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    lengths = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / lengths if lengths else 1.0
