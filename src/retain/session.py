"""One process's hold on a classifier: the store, its extractor, and the state kept in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from retain.algebra import Factor, HeadOptions, Start
from retain.caches import Features, Mind, State, save
from retain.errors import UnknownImage
from retain.gate import Lesson, judge, watch
from retain.intake import FEW, Eyes, Taken, chunks, recomputed, take
from retain.jury import Judged, Jury, judged, with_newcomers
from retain.pairing import Pairs
from retain.projection import Item, after, load_mind, load_state, state_at
from retain.solving import Ground, Vectors, single_threaded
from retain.store import Assertion, Era, Store
from retain.values import Budgets, Progress, Sample, Skipped, Source, Verdict
from retain.vision import Decoder, Extractor, OnnxExtractor, load_extractor

__all__ = ["Session"]

# The cached sums (13 MB at 1,280 numbers) are written again after this many changed pictures.
_STALE = 64

# Pictures whose features are kept in one transaction.
_CHUNK = 128

# How often a state that was overtaken by an event is worked out anew before others must wait.
_TRIES = 3


class Session:
    """A store, and what was worked out from it, kept current with the journal."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._eyes: tuple[Eyes, ...] = ()
        self._apart: dict[tuple[str, str], tuple[Features, float]] = {}
        self._looking: tuple[Decoder, int] | None = None
        self._mind: Mind | None = None
        self._members: tuple[int, tuple[Sample, ...], Features] | None = None
        self._state: State | None = None
        self._unsaved = 0
        self._juries: list[tuple[Factor, Jury]] = []
        self._judged: list[tuple[State, Judged]] = []
        self._earlier: list[tuple[int, State]] = []

    @property
    def eyes(self) -> Eyes:
        """What turns pictures into features now; loaded when first needed."""
        return self.eyes_of(self.store.era)

    @property
    def extractor(self) -> Extractor:
        """The extractor of now; loaded when first needed."""
        return self.eyes.extractor

    def eyes_of(self, era: Era) -> Eyes:
        """What turned pictures into features in an era (Damaged if it is not what it was)."""
        for eyes in self._eyes:
            if eyes.era.extractor == era.extractor:
                return eyes if eyes.era == era else Eyes(era, eyes.extractor)
        extractor = self.load_extractor(era)
        if self._looking is not None and isinstance(extractor, OnnxExtractor):
            extractor = extractor.looking(*self._looking)
        eyes = Eyes(era, extractor)
        self._eyes = eyes, *self._eyes[:1]
        return eyes

    def load_extractor(self, era: Era) -> Extractor:
        """An era's extractor, read anew from disk; its fingerprint is checked (Damaged)."""
        return load_extractor(self.store.folder(era), era.extractor)

    def look_with(self, decoder: Decoder, recall: int) -> None:
        """Decode pictures by `decoder` from now on, and keep the last `recall` features."""
        self._looking, self._eyes = (decoder, recall), ()

    @property
    def start(self) -> Start | None:
        """The layer that was adopted, its classes by the names they have now; None if none was."""
        return Ground.of(self.store, self.store.era).start

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
    def samples(self) -> Sequence[Sample]:
        """Every member, current with the journal, in some order."""
        state = self._state
        if state is not None and state.mind.event == self.store.head_event():
            return state.samples
        return self.store.members()

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

    def answering(self, taken: Sequence[Taken]) -> tuple[Mind, set[str]]:
        """What answers now, and which of these pictures are members; both of one state."""
        if len(taken) <= FEW:
            # Most pictures that are asked about are new: then no transaction is needed.
            before, mind = self.store.stamp(), self.mind
            known = before is None or self.store.keeps([each.image for each in taken])
            if not known and self.store.stamp() == before:
                return mind, set()
        with self.reading() as now:
            return now, self.remembered(taken)

    def taken(
        self,
        eyes: Eyes,
        sources: Sequence[Source],
        skipped: list[Skipped],
        progress: Progress | None,
    ) -> list[Taken]:
        """The sources that can be read, without their bytes; the others are added to `skipped`."""
        found = []
        for each in take(self.store, eyes, sources, progress):
            if isinstance(each, Skipped):
                skipped.append(each)
            else:
                found.append(replace(each, data=None))
        return found

    def remembered(self, taken: Sequence[Taken]) -> set[str]:
        """Which of these pictures are members."""
        with self.store.reading():
            return self.store.among_members([each.image for each in taken])

    def vectors(self, era: Era, images: Sequence[str]) -> Vectors:
        """Features of kept pictures in an era and their lengths, in the order of `images`.

        What that era has not seen is computed from the pictures' bytes. Who may write keeps it.
        """
        if self.store.writing_now:
            self.fill(era, images)
        names, features, norms = self.store.features(images, era)
        row = {image: i for i, image in enumerate(names)}
        left = sorted(set(images) - row.keys())
        apart = {key: each for key, each in self._apart.items() if key[0] == era.extractor}
        fresh = [image for image in left if (era.extractor, image) not in apart]
        if fresh:
            found = recomputed(self.store, self.eyes_of(era), fresh)
            apart |= {(era.extractor, image): (vector, norm) for image, vector, norm in found}
        if left:
            self._apart = {key: each for key, each in apart.items() if key[1] in set(left)}
            if missing := [image for image in left if (era.extractor, image) not in apart]:
                raise UnknownImage(f"{missing[0]} was forgotten meanwhile; ask again")
            more = [apart[era.extractor, image] for image in left]
            row |= {image: i for i, image in enumerate(left, len(names))}
            features = np.concatenate([features, np.stack([vector for vector, _ in more])])
            norms = np.concatenate([norms, np.array([norm for _, norm in more], np.float32)])
        order = [row[image] for image in images]
        return features[order], norms[order]

    def fill(
        self,
        era: Era,
        images: Collection[str],
        progress: Progress | None = None,
        *,
        eyes: Eyes | None = None,
    ) -> None:
        """Compute and keep what an era's extractor has not seen of these pictures.

        Needs the right to write. It may be interrupted and goes on from there. `eyes` are the
        era's, where they are not on disk yet.
        """
        missing = sorted(set(images) - self.store.known(era)) if images else []
        if missing:
            found = recomputed(self.store, eyes or self.eyes_of(era), missing, progress)
            for chunk in chunks(found, _CHUNK):
                self.store.keep_features(chunk, era)

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
    def writing(self, verb: str, *, dry_run: bool = False) -> Iterator[None]:
        """Hold the one right to write, from reading the state to committing the event.

        A dry run holds it too, so that what it says is of one state, and writes nothing.
        """
        with self.store.writing(verb, dry_run=dry_run):
            yield

    def candidate(
        self, items: Sequence[Item], *, lesson: bool, before: State | None = None
    ) -> State:
        """The state as it would be with `items` learned or relabelled; nothing is written.

        By default it follows upon the state in force, else upon `before`.
        """
        state = before or self.state
        event = state.mind.event + 1
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
            kind,
            assertions,
            new_images=[taken.to_store(keep_bytes=keep) for taken in fresh],
            era=candidate.mind.era,
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

    def warm(self) -> None:
        """Work out what the next change is judged and corrections are measured by."""
        state = self.state
        self.judged(state)
        if state.solver is not None:
            with single_threaded():
                _ = state.solver.factor.firm

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
        before: State | None = None,
    ) -> Verdict:
        """What the gate says of going from the state in force to `candidate`.

        Args:
            candidate: the state as it would be.
            changed: pictures whose own label the change sets.
            lesson: labelled pictures that come in.
            edits: how many corrections the head is edited for.
            before: what to compare with, if not the state in force.
        """
        state, rules = before or self.state, self.store.rules()
        options = HeadOptions.from_dict(self.store.manifest.options)
        # The state in force first: it was the last candidate, and is known from there.
        found = self.judged(state)
        after = with_newcomers(self.judged(candidate), state, candidate, options)
        return judge(
            Pairs.of(state, candidate),
            (found, after),
            Budgets(**rules.budgets),
            protected=rules.protected,
            changed=changed,
            lesson=lesson,
            edits=edits,
            start=Ground.of(self.store, state.mind.era).start,
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
