"""Questions that wait for a thread are answered together, as many as each thread's share is.

Nobody waits for company: a question that finds a thread idle has it at once. What is spared is all
that comes with a question besides the network, done for several while the processor's caches still
hold it: between two runs of the network they hold nothing else.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final, Generic, TypeAlias, TypeVar, final

__all__ = ["Together"]

K = TypeVar("K", bound=Hashable)
Q = TypeVar("Q")
A = TypeVar("A")

_Asked: TypeAlias = tuple[Q, "asyncio.Future[A]"]

_MOST: Final = 8
"""Questions answered by one thread at a time; more were no faster, and each would wait longer."""


@final
class Together(Generic[K, Q, A]):
    """Hands questions of one kind to threads in groups; used from one event loop.

    Args:
        threads: where the work is done; so many of them have no time for anything else.
        count: how many groups are worked on at a time.
        work: a kind and its questions → their answers, in order. Where it raises with several
            questions, each is tried by itself, so that none fails for another's sins.
    """

    def __init__(
        self, threads: Executor, count: int, work: Callable[[K, Sequence[Q]], Sequence[A]]
    ) -> None:
        self._threads = threads
        self._free = count
        self._count = count
        self._work = work
        self._turn = threading.Lock()
        self._waiting: dict[K, list[_Asked[Q, A]]] = {}

    async def ask(self, kind: K, question: Q) -> A:
        """The answer to one question, or what `work` raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        asked = question, future
        with self._turn:
            idle = self._free > 0
            if idle:
                self._free -= 1
            else:
                self._waiting.setdefault(kind, []).append(asked)
        if idle:
            try:
                self._threads.submit(self._answer, loop, kind, [asked])
            except BaseException:
                with self._turn:
                    self._free += 1
                raise
        return await future

    def _answer(
        self, loop: asyncio.AbstractEventLoop, kind: K, group: Sequence[_Asked[Q, A]]
    ) -> None:
        """In a thread: answer a group, and then the next ones, until nobody waits."""
        while True:
            answers = self._answers(kind, [question for question, _ in group])
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._deliver, group, answers)
            with self._turn:
                if not self._waiting:
                    self._free += 1
                    return
                kind, group = self._next()

    def _next(self) -> tuple[K, list[_Asked[Q, A]]]:
        # The kind that has waited longest; what is left of it goes to the end of the line.
        kind = next(iter(self._waiting))
        line = self._waiting.pop(kind)
        share = min(_MOST, -(-len(line) // self._count))
        group, left = line[:share], line[share:]
        if left:
            self._waiting[kind] = left
        return kind, group

    def _answers(self, kind: K, questions: Sequence[Q]) -> list[A | Exception]:
        try:
            return list(self._work(kind, questions))
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            if len(questions) == 1:
                return [error]
            return [self._answers(kind, [each])[0] for each in questions]

    def _deliver(self, group: Sequence[_Asked[Q, A]], answers: Sequence[A | Exception]) -> None:
        for (_, future), answer in zip(group, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
