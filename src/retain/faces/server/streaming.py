"""Long work as server-sent events: how far it is, and then what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from retain.faces.server.problems import Json, Problem, problem_of
from retain.faces.server.serving import Serving
from retain.values import Progress, to_json

__all__ = ["answered", "changes"]

_ALIVE: Final = 15.0

Work = Callable[[Progress | None], Awaitable[Any]]


async def answered(request: Request, hide: dict[str, str], work: Work) -> Response:
    """The answer to a request: JSON, or where it asks for that, events while the work goes on.

    Args:
        request: what was asked.
        hide: see `problem_of`.
        work: called with a function to tell how far it is.
    """
    if "text/event-stream" not in request.headers.get("accept", ""):
        return Json(await work(None))
    return _stream(_told(hide, work))


def changes(serving: Serving) -> Response:
    """Every event of the journal from now on, the last one first."""
    return _stream(_changes(serving))


def _stream(events: AsyncIterator[bytes]) -> Response:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _told(hide: dict[str, str], work: Work) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    steps: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

    def progress(done: int, total: int) -> None:
        loop.call_soon_threadsafe(steps.put_nowait, (done, total))

    task = asyncio.ensure_future(work(progress))
    while not task.done() or not steps.empty():
        step = asyncio.ensure_future(steps.get())
        done, _ = await asyncio.wait({task, step}, timeout=_ALIVE, return_when="FIRST_COMPLETED")
        if step in done:
            latest = step.result()
            while not steps.empty():
                latest = steps.get_nowait()
            yield _event("progress", {"done": latest[0], "total": latest[1]})
        else:
            step.cancel()
            if not done:
                yield b":\n\n"
    try:
        yield _event("result", task.result())
    except Exception as error:  # noqa: BLE001 - the status is sent already: this is an event, too
        problem: Problem = problem_of(error, hide)
        yield _event("error", problem.to_json())


async def _changes(serving: Serving) -> AsyncIterator[bytes]:
    queue = serving.listen()
    try:
        log = await serving.read(serving.classifier.log)
        last = log[-1].event if log else 0
        if log:
            yield _event("version", to_json(log[-1]))
        while True:
            try:
                event = await asyncio.wait_for(queue.get(), _ALIVE)
                if event is None:
                    return
                # What happened while the log was read is in both.
                if event["event"] > last:
                    last = event["event"]
                    yield _event("version", event)
            except TimeoutError:
                yield b":\n\n"
    finally:
        serving.unlisten(queue)


def _event(kind: str, value: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(value, separators=(',', ':'))}\n\n".encode("ascii")
