"""Questions that wait for a thread are answered together, as many as each thread's share is.

Nobody waits for company: a question that finds a thread idle has it at once. What is spared is all
that comes with a question besides the network, done for several while the processor's caches still
hold it: between two runs of the network they hold nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final, Generic, TypeVar, final

__all__ = ["Together"]

K = TypeVar("K", bound=Hashable)
Q = TypeVar("Q")
A = TypeVar("A")

_MOST: Final = 8
"""Questions answered by one thread at a time; more were no faster, and each would wait longer."""


@final
class Together(Generic[K, Q, A]):
    """Hands questions of one kind to threads in groups; used from one event loop.

    Args:
        threads: where the work is done.
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
        self._waiting: dict[K, list[tuple[Q, asyncio.Future[A]]]] = {}

    async def ask(self, kind: K, question: Q) -> A:
        """The answer to one question, or what `work` raises."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(kind, []).append((question, future))
        self._start()
        return await future

    def _start(self) -> None:
        while self._free and self._waiting:
            # The kind that has waited longest; what is left of it goes to the end of the line.
            kind = next(iter(self._waiting))
            line = self._waiting.pop(kind)
            share = min(_MOST, -(-len(line) // self._count))
            group, left = line[:share], line[share:]
            if left:
                self._waiting[kind] = left
            self._free -= 1
            loop = asyncio.get_running_loop()
            task = loop.run_in_executor(self._threads, self._answers, kind, [q for q, _ in group])
            task.add_done_callback(partial(self._deliver, group))

    def _answers(self, kind: K, questions: Sequence[Q]) -> list[A | Exception]:
        try:
            return list(self._work(kind, questions))
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            if len(questions) == 1:
                return [error]
            return [self._answers(kind, [each])[0] for each in questions]

    def _deliver(
        self,
        group: Sequence[tuple[Q, asyncio.Future[A]]],
        done: asyncio.Future[list[A | Exception]],
    ) -> None:
        self._free += 1
        if done.cancelled():
            for _, future in group:
                future.cancel()
            return
        self._start()
        for (_, future), answer in zip(group, done.result(), strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
