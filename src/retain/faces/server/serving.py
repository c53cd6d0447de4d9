"""One worker process's hold on the classifier: work in threads, many readers and one writer.

A picture is looked at by one thread from beginning to end, as the only one or as one of a few that
waited for it (`together`); the network itself sees each alone. Changes wait for each other in a
line of their own, so that they never keep readers from a thread. Each answer is of one version,
since the classifier asks its journal once for each call; nothing here keeps a version of its own.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, final

import retain
from retain.faces.server.desk import Desk, Kept
from retain.faces.server.guard import Guard
from retain.faces.server.metrics import Metrics
from retain.faces.server.problems import Problem
from retain.faces.server.settings import Settings
from retain.faces.server.together import Together
from retain.faces.server.tokens import Tokens, Who
from retain.values import Prediction, Receipt, Source, Update, content_hash

__all__ = ["Answers", "Serving", "source"]

T = TypeVar("T")

_WAITING: Final = 256
_RECALL: Final = 512
_POLL: Final = 0.25
_TIDY: Final = 3600.0

# Bytes whose hash takes so long (a millisecond) that others are answered meanwhile.
_LARGE: Final = 1024 * 1024

# Seconds that what is kept for whoever corrects it may wait to be written, where no other process
# can be asked about it.
_BEHIND: Final = 0.2
_LOG: Final = logging.getLogger("retain.serve")


# Events that make members, and how many of them are looked at one by one.
_TEACHING: Final = frozenset({"learn", "reference", "correct"})
_MANY: Final = 10

Asking = tuple[int, int | str | None, bool]
"""How a picture is asked about: how many classes, of which version, whether it is kept."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What was asked of some pictures: the version's event, each answer and its name, the rest."""

    event: int
    answers: tuple[Prediction, ...]
    names: tuple[str, ...]
    similar: tuple[tuple[retain.Neighbour, ...], ...]
    skipped: tuple[retain.Skipped, ...]


def source(kept: Kept) -> Source:
    """A picture from the desk, as the classifier takes it."""
    return Source(kept.name, lambda: kept.data, image=kept.image)


def _named(read: Sequence[tuple[str, bytes]]) -> list[Kept]:
    """Pictures by their hashes."""
    return [Kept(content_hash(data), name, data) for name, data in read]


@final
class Serving:
    """The classifier and all that goes with it in one process; made by `open`."""

    def __init__(self, settings: Settings, classifier: retain.Classifier) -> None:
        from retain.vision import usable_cores

        self.settings = settings
        self.classifier = classifier
        self.guard = Guard(settings.decoders)
        self.desk = Desk(settings.folder, _BEHIND if settings.workers == 1 else 0.0)
        self.metrics = Metrics()
        self.tokens = Tokens(settings.folder, settings.session)
        groups = usable_cores() + 1
        self._lookers = ThreadPoolExecutor(groups, thread_name_prefix="retain-look")
        self._readers = ThreadPoolExecutor(usable_cores() + 2, thread_name_prefix="retain-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="retain-write")
        self._desk_work = ThreadPoolExecutor(1, thread_name_prefix="retain-desk")
        self._together: Together[Asking, Kept, Answers] = Together(
            self._lookers, groups, self._answered
        )
        self._extractor = ""
        self._waiting = 0
        self._restarts = 0
        self._ended = threading.Event()
        self._listeners: set[asyncio.Queue[dict[str, Any] | None]] = set()
        classifier.look_with(self.guard.decode, recall=_RECALL)

    @classmethod
    def open(cls, settings: Settings) -> Serving:
        """Open the classifier (NotAClassifier and the like)."""
        return cls(settings, retain.open(settings.path))

    def close(self) -> None:
        """Finish what has begun, and let go."""
        self._ended.set()
        for pool in (self._lookers, self._readers, self._writer, self._desk_work):
            pool.shutdown(wait=True, cancel_futures=True)
        with suppress(Exception):
            self.hand_in()
        self.classifier.close()
        self.desk.close()
        self.guard.close()

    @property
    def extractor(self) -> str:
        """The name of what looks at pictures."""
        if not self._extractor:
            self._extractor = self.classifier.status().extractor
        return self._extractor

    # -- work in threads -----------------------------------------------------------------------

    async def read(self, work: Callable[..., T], *given: Any, **more: Any) -> T:
        """Run what only reads, when a thread is free."""
        return await self._run(self._readers, partial(work, *given, **more))

    async def change(self, who: Who, work: Callable[..., T], *given: Any, **more: Any) -> T:
        """Run what changes the classifier, after other changes, in somebody's name."""

        def named() -> T:
            with self.classifier.acting(who.name):
                found = work(*given, **more)
            self.changed(found)
            with suppress(RuntimeError):
                self._writer.submit(self._ready)
            return found

        # What has begun is finished even if nobody waits for the answer any more.
        return await asyncio.shield(self._run(self._writer, named))

    async def warm(self) -> None:
        """Make ready for the first change."""
        with suppress(RuntimeError):
            await asyncio.get_running_loop().run_in_executor(self._writer, self._ready)

    def _ready(self) -> None:
        """Work out now what the next change would have to."""
        with suppress(retain.RetainError):
            self.classifier.warm()

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await self._counted(asyncio.get_running_loop().run_in_executor, pool, work)

    async def _counted(self, begin: Callable[..., Awaitable[T]], *given: Any) -> T:
        """Await what begins, unless too many wait already (Problem 503)."""
        if self._waiting >= _WAITING:
            raise Problem(503, "Busy", "too many requests wait already; try again in a moment")
        self._waiting += 1
        try:
            return await begin(*given)
        except retain.GateRefused as error:
            self.metrics.add("retain_refusals_total")
            raise error
        finally:
            self._waiting -= 1

    # -- what is asked -------------------------------------------------------------------------

    async def predict(
        self,
        pictures: Sequence[Source],
        *,
        top: int = 5,
        similar: int = 0,
        version: int | str | None = None,
        keep: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Answers:
        """Answer pictures, and keep them on the desk for whoever corrects them."""
        read = [(each.name, each.read()) for each in pictures]
        many = sum(len(data) for _, data in read) > _LARGE
        kept = await self.read(_named, read) if many else _named(read)
        if len(kept) == 1 and not similar and progress is None:
            return await self._counted(self._together.ask, (top, version, keep), kept[0])
        asking = top, version, keep
        return await self.read(self._looked_at, kept, asking, similar=similar, progress=progress)

    def _answered(self, asking: Asking, kept: Sequence[Kept]) -> list[Answers]:
        """Single pictures asked about in the same way, each with an answer of its own."""
        from retain.vision import by_itself

        with by_itself(), self.guard.in_line([each.data for each in kept]):
            found = self._looked_at(kept, asking)
        rest, skipped = list(zip(found.answers, found.names, strict=True)), list(found.skipped)
        each: list[Answers] = []
        for picture in kept:
            if rest and rest[0][0].image == picture.image:
                answer, name = rest.pop(0)
                each.append(Answers(found.event, (answer,), (name,), ((),), ()))
            else:
                each.append(Answers(found.event, (), (), (), (skipped.pop(0),)))
        return each

    def _looked_at(
        self,
        kept: Sequence[Kept],
        asking: Asking,
        *,
        similar: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Answers:
        top, version, keep = asking
        sources = [source(each) for each in kept]
        found = self.classifier.predict(sources, top=top, version=version, progress=progress)
        answers = tuple(found)
        read = {each.image for each in answers}
        good = [each for each in kept if each.image in read]
        around: Sequence[tuple[retain.Neighbour, ...]] = [()] * len(answers)
        if similar:
            around = self.classifier.similar([source(each) for each in good], count=similar)
        names: dict[str, str] = {}
        if keep and good:
            remembered = {each.image for each in answers if each.remembered}
            given = self.desk.keep(good, remembered)
            names = {each.image: name for each, name in zip(good, given, strict=True) if name}
        self._wonder(answers, names)
        return Answers(
            found.event,
            answers,
            tuple(names.get(each.image, "") for each in answers),
            tuple(around),
            found.skipped,
        )

    def _wonder(self, answers: Sequence[Prediction], names: dict[str, str]) -> None:
        """Count the answers, and put the unknown ones into the inbox."""
        self.metrics.add("retain_pictures_total", len(answers))
        unknown = [each for each in answers if each.unknown and not each.remembered]
        if unknown:
            self.metrics.add("retain_unknown_total", len(unknown))
        if unknown and names and self.settings.inbox:
            self.desk.wonder(
                [
                    (each.image, each.label, each.probability, each.typicality, names[each.image])
                    for each in unknown
                ]
            )

    # -- what changed ----------------------------------------------------------------------------

    def changed(self, found: object) -> None:
        """Count a change."""
        if isinstance(found, Update | Receipt) and found.event is not None:
            kind = found.kind if isinstance(found, Update) else "forget"
            self.metrics.add("retain_changes_total", verb=kind)
            worse = len(found.worse) if isinstance(found, Update) else 0
            if worse:
                self.metrics.add("retain_regressions_total", worse)

    def taught(self, images: Sequence[str]) -> None:
        """Taught pictures leave the desk: the classifier keeps them now."""
        self._leave(images, answers=False)

    def forgotten(self, images: Sequence[str]) -> None:
        """Nothing tells any more that these were asked about."""
        self._leave(images, answers=True)

    def _leave(self, images: Sequence[str], *, answers: bool) -> None:
        # The event is written by now: a desk that is in the way must not deny it. What cannot go
        # now goes by the next event or the next start, and what is forgotten went before.
        try:
            if images:
                self.desk.erase(list(images), answers=answers)
        except sqlite3.Error as error:
            _LOG.warning("what was taught could not leave the desk: %s", error)

    def listen(self) -> asyncio.Queue[dict[str, Any] | None]:
        """A queue that is told of every new event, until `unlisten`; None says that it ends."""
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(maxsize=100)
        self._listeners.add(queue)
        return queue

    def unlisten(self, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        """Tell a queue nothing more."""
        self._listeners.discard(queue)

    def end_streams(self) -> None:
        """Tell every queue that there is nothing more to come."""
        for queue in self._listeners:
            with suppress(asyncio.QueueFull):
                queue.put_nowait(None)

    async def watch(self) -> None:
        """Look for changes that other processes made, hand in what was counted, tidy; for ever."""
        loop, last, turns = asyncio.get_running_loop(), -1, 0
        tidied = loop.time()
        while not self._ended.is_set():
            try:
                last = await loop.run_in_executor(self._desk_work, self._looked, last, loop)
                turns += 1
                if turns % 4 == 0:
                    await loop.run_in_executor(self._desk_work, self.hand_in)
                    await loop.run_in_executor(self._desk_work, self.classifier.finish_erasing)
                if loop.time() - tidied >= _TIDY:
                    tidied = loop.time()
                    await loop.run_in_executor(self._desk_work, self._tidy)
            except Exception as error:  # noqa: BLE001 - it must go on, whatever it met
                _LOG.warning("the watch stumbled: %s", type(error).__name__)
            await asyncio.sleep(_POLL)

    def _looked(self, last: int, loop: asyncio.AbstractEventLoop) -> int:
        event = self.classifier.event
        if last < 0:
            self._clear_desk()
        if event == last or last < 0:
            return event
        log = self.classifier.log()
        fresh = [each for each in log if each.event > last]
        for each in fresh:
            loop.call_soon_threadsafe(self._tell, retain.to_json(each))
        try:
            self._make_room(fresh, {each.event: each.kind for each in log})
        except sqlite3.Error as error:
            # Whoever listens is told of each event once, whatever is wrong with the desk.
            _LOG.warning("what was taught could not leave the desk: %s", error)
        return event

    def _make_room(self, fresh: Sequence[retain.Event], kinds: dict[int, str]) -> None:
        """What others taught leaves the desk as well, and so does what tells of the forgotten."""
        taught = [each.event for each in fresh if each.kind in _TEACHING]
        # An undo that is taken back brings pictures back, and does not say which.
        back = any(each.kind == "undo" and kinds.get(each.target or 0) == "undo" for each in fresh)
        if back or len(taught) > _MANY or any(each.kind == "forget" for each in fresh):
            self._clear_desk()
        elif taught:
            shown = [self.classifier.show(event) for event in taught]
            spoken = [sample for each in shown for sample in getattr(each, "samples", ())]
            self.taught(self.desk.hold({sample.image for sample in spoken}))

    def _tidy(self) -> None:
        """What is too old goes even where nobody asks anything any more."""
        self.desk.tidy()
        self._clear_desk()

    def _clear_desk(self) -> None:
        """Take what the classifier keeps off the desk, and what tells of pictures that are gone."""
        remembered = {each.image for each in self.classifier.samples()}
        self.taught(self.desk.hold(remembered))
        self.desk.forget_strays(remembered)

    def _tell(self, event: dict[str, Any]) -> None:
        for queue in self._listeners:
            with suppress(asyncio.QueueFull):
                queue.put_nowait(event)

    def hand_in(self) -> None:
        """Add what this process counted to what all did."""
        restarts = self.guard.restarts
        if restarts > self._restarts:
            self.metrics.add("retain_decoder_restarts_total", restarts - self._restarts)
            self._restarts = restarts
        gauges = {"retain_queue": float(self._waiting), "retain_workers": 1.0}
        counted = self.metrics.taken()
        try:
            self.desk.count(counted, gauges)
        except sqlite3.Error as error:
            self.metrics.give_back(counted)
            _LOG.warning("what was counted could not be written: %s", error)
