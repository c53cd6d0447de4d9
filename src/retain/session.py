"""One process's hold on a classifier: the store, its extractor, and the state kept in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from retain.algebra import REFERENCE, Factor, HeadOptions, Start, compare
from retain.caches import Features, Mind, State, save
from retain.gate import Lesson, judge, watch
from retain.intake import Taken, take
from retain.jury import Judged, Jury, judged
from retain.pairing import Pairs
from retain.projection import Item, after, load_mind, load_state, state_at
from retain.solving import Ground
from retain.store import Assertion, Store
from retain.values import Budgets, Change, Progress, Sample, Skipped, Source, Verdict
from retain.vision import Decoder, Extractor, OnnxExtractor, load_extractor

__all__ = ["Differences", "Session", "differences"]

# The cached sums (13 MB at 1,280 numbers) are written again after this many changed pictures.
_STALE = 64

# How often a state that was overtaken by an event is worked out anew before others must wait.
_TRIES = 3


class Session:
    """A store, and what was worked out from it, kept current with the journal."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._extractor: Extractor | None = None
        self._looking: tuple[Decoder, int] | None = None
        self._mind: Mind | None = None
        self._units: tuple[Features, NDArray[np.float32]] | None = None
        self._members: tuple[int, tuple[Sample, ...], Features] | None = None
        self._state: State | None = None
        self._unsaved = 0
        self._juries: list[tuple[Factor, Jury]] = []
        self._judged: list[tuple[State, Judged]] = []
        self._earlier: list[tuple[int, State]] = []

    @property
    def extractor(self) -> Extractor:
        """What turns pictures into features; loaded when first needed."""
        if self._extractor is None:
            extractor = self.load_extractor()
            if self._looking is not None and isinstance(extractor, OnnxExtractor):
                extractor = extractor.looking(*self._looking)
            self._extractor = extractor
        return self._extractor

    def look_with(self, decoder: Decoder, recall: int) -> None:
        """Decode pictures by `decoder` from now on, and keep the last `recall` features."""
        self._looking, self._extractor = (decoder, recall), None

    @property
    def start(self) -> Start | None:
        """The layer that was adopted, its classes by the names they have now; None if none was."""
        return Ground.of(self.store).start

    def load_extractor(self) -> Extractor:
        """The extractor, read anew from disk; its fingerprint is checked (Damaged)."""
        return load_extractor(self.store.extractor_dir, self.store.manifest.extractor)

    @property
    def mind(self) -> Mind:
        """What answering needs, current with the journal."""
        mind = self._mind
        if mind is None or mind.event != self.store.head_event():
            self._mind = mind = load_mind(self.store)
        return mind

    @property
    def knows_something(self) -> bool:
        """Whether a class was known when that was last looked at, or is now."""
        mind = self._mind
        return (mind is not None and mind.head is not None) or self.mind.head is not None

    @property
    def state(self) -> State:
        """What changing needs, current with the journal."""
        state = self._state
        if state is None or state.mind.event != self.store.head_event():
            self._state = state = load_state(self.store)
            self._mind = state.mind
        return state

    @property
    def members(self) -> tuple[tuple[Sample, ...], Features]:
        """Every member and its feature int16 [n, d], current with the journal, in one order."""
        state = self._state
        event = self.store.head_event()
        if state is not None and state.mind.event == event:
            return state.samples, state.features
        if self._members is None or self._members[0] != event:
            with self.store.reading():
                samples = {sample.image: sample for sample in self.store.members()}
                names, features, _ = self.store.features(None)
                event = self.store.head_event()
            self._members = event, tuple(samples[name] for name in names), features
        return self._members[1:]

    @property
    def gallery(self) -> tuple[tuple[Sample, ...], Features, NDArray[np.float32]]:
        """`members`, and their features at length one, float32 [n, d], for looking quickly."""
        samples, features = self.members
        kept = self._units
        if kept is None or kept[0] is not features:
            units = features.astype(np.float32)
            lengths = np.sqrt(np.einsum("ij,ij->i", units, units))[:, None]
            units /= np.where(lengths > 0, lengths, np.float32(1))
            self._units = kept = features, units
        return samples, features, kept[1]

    @contextmanager
    def reading(self) -> Iterator[Mind]:
        """A mind, and until the end a store that says the same, whatever others write meanwhile.

        The mind is worked out before, since others wait while a store is being read; only when
        they write faster than that is it worked out inside.
        """
        for attempt in range(_TRIES):
            # What was worked out last is nearly always still true, and asking twice costs more.
            mind = (None if attempt else self._mind) or self.mind
            with self.store.reading():
                if mind.event == self.store.head_event():
                    yield mind
                    return
        with self.store.reading():
            yield self.mind

    def taken(
        self, sources: Sequence[Source], skipped: list[Skipped], progress: Progress | None
    ) -> list[Taken]:
        """The sources that can be read, without their bytes; the others are added to `skipped`."""
        found = []
        for each in take(self.store, self.extractor, sources, progress):
            if isinstance(each, Skipped):
                skipped.append(each)
            else:
                found.append(replace(each, data=None))
        return found

    def remembered(self, taken: Sequence[Taken]) -> set[str]:
        """Which of these pictures are members."""
        with self.store.reading():
            found = (self.store.member(each.image) for each in taken)
            return {member.image for member in found if member is not None}

    def earlier(self, event: int) -> State:
        """The state right after an earlier event, of what is still remembered."""
        latest = self.store.head_event()
        for seen, state in self._earlier:
            if seen == latest and state.mind.event == event:
                return state
        state = state_at(self.store, event)
        self._earlier = [(latest, state), *self._earlier[:1]]
        return state

    @contextmanager
    def writing(self, verb: str) -> Iterator[None]:
        """Hold the one right to write, from reading the state to committing the event."""
        with self.store.writing(verb):
            yield

    def candidate(self, items: Sequence[Item], *, lesson: bool) -> State:
        """The state as it would be with `items` learned or relabelled; nothing is written."""
        state, event = self.state, self.store.head_event() + 1
        numbered = [replace(item, sample=replace(item.sample, event=event)) for item in items]
        return after(self.store, state, event, numbered, lesson=lesson)

    def commit(
        self,
        kind: str,
        candidate: State,
        items: Iterable[Item],
        fresh: Iterable[Taken] = (),
    ) -> int:
        """Write the event that makes `candidate` true, and keep it; returns its number."""
        assertions = [
            Assertion(
                item.sample.image,
                item.sample.label,
                item.sample.pinned,
                item.sample.exception,
                item.sample.protected,
            )
            for item in items
        ]
        keep = self.store.manifest.memory == "images"
        event = self.store.append(
            kind, assertions, new_images=[taken.to_store(keep_bytes=keep) for taken in fresh]
        )
        if event != candidate.mind.event:
            raise AssertionError(f"event {event} was expected to be {candidate.mind.event}")
        self.store.sweep_staged()
        self._unsaved += len(assertions)
        self.adopt(candidate, statistics=kind == "learn" or self._unsaved >= _STALE)
        return event

    def judged(self, state: State) -> Judged:
        """What a state, in force or a candidate, answers for members that can be left out."""
        for known, found in self._judged:
            if known is state:
                return found
        options = HeadOptions.from_dict(self.store.manifest.options)
        found = judged(state, self._jury(state, options), options)
        self._judged = [(state, found), *self._judged[:1]]
        return found

    def _jury(self, state: State, options: HeadOptions) -> Jury:
        if state.solver is None or self.store.manifest.start is not None:
            return Jury({}, {})
        for factor, jury in self._juries:
            if factor is state.solver.factor:
                return jury
        jury = Jury.of(state, options)
        self._juries = [(state.solver.factor, jury), *self._juries[:1]]
        return jury

    def verdict(
        self,
        candidate: State,
        *,
        changed: Collection[str] = (),
        lesson: Lesson | None = None,
        edits: int = 0,
    ) -> Verdict:
        """What the gate says of going from the state in force to `candidate`.

        Args:
            candidate: the state as it would be.
            changed: pictures whose own label the change sets.
            lesson: labelled pictures that come in.
            edits: how many corrections the head is edited for.
        """
        state, rules = self.state, self.store.rules()
        before = self.judged(state)
        return judge(
            Pairs.of(state, candidate),
            (before, self.judged(candidate)),
            Budgets(**rules.budgets),
            protected=rules.protected,
            changed=changed,
            lesson=lesson,
            edits=edits,
            start=self.start,
        )

    def watch(
        self,
        candidate: State,
        protected: Collection[str] | None = None,
        renamed: Mapping[str, str] | None = None,
    ) -> Verdict:
        """Whether going from the state in force to `candidate` leaves alone what is protected.

        Args:
            candidate: the state as it would be.
            protected: classes that must never get worse then, where those are not the same.
            renamed: old → new names of classes.
        """
        held = self.store.rules().protected if protected is None else protected
        return watch(Pairs.of(self.state, candidate), protected=held, renamed=renamed)

    def decree(
        self,
        kind: str,
        assertions: Sequence[Assertion] = (),
        *,
        detail: Mapping[str, Any] | None = None,
    ) -> int:
        """Write an event that changes no answer; returns its number."""
        state = self.state
        event = self.store.append(kind, assertions, detail=detail)
        marked = {assertion.image: assertion.protected for assertion in assertions}
        samples = tuple(
            replace(s, protected=marked[s.image]) if s.image in marked else s for s in state.samples
        )
        self.adopt(
            replace(state, samples=samples, mind=replace(state.mind, event=event)),
            statistics=False,
        )
        return event

    def adopt(self, state: State, *, statistics: bool) -> None:
        """Keep a state that the journal now says, and cache it on disk."""
        self._state, self._mind = state, state.mind
        save(self.store, state, statistics=statistics)
        if statistics:
            self._unsaved = 0

    def close(self) -> None:
        """Let go of the directory."""
        self.store.close()


class Differences(TypedDict):
    """What else changed, as the fields of an `Update`."""

    worse: tuple[Change, ...]
    better: tuple[Change, ...]
    changed: tuple[Change, ...]
    new_classes: tuple[str, ...]
    gone_classes: tuple[str, ...]


def differences(before: State, now: State, exclude: frozenset[str] = frozenset()) -> Differences:
    """Classes that came and went, and remembered pictures whose answer changed.

    Pictures that are members both before and after count, except those in `exclude`.
    """
    shared = [
        (sample, was, answer)
        for sample, was, answer in Pairs.of(before, now).changes()
        if sample.image not in exclude and sample.label != REFERENCE
    ]
    found = compare(
        [old for _, old, _ in shared],
        [new for _, _, new in shared],
        [sample.label for sample, _, _ in shared],
    )

    def listed(indices: tuple[int, ...]) -> tuple[Change, ...]:
        changes = [shared[i] for i in indices]
        return tuple(
            Change(s.image, old, new, s.label, s.source)
            for s, old, new in sorted(changes, key=lambda change: change[0].image)
        )

    had, has = (set(s.mind.head.classes) if s.mind.head else set() for s in (before, now))
    return {
        "worse": listed(found.worse),
        "better": listed(found.better),
        "changed": listed(found.changed),
        "new_classes": tuple(sorted(has - had)),
        "gone_classes": tuple(sorted(had - has)),
    }
