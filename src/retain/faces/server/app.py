"""The application: routes, the door in front of them, errors in one shape, the page at ``/``."""

from __future__ import annotations

import asyncio
import gc
import logging
import mimetypes
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from types import FrameType
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

import retain
from retain.faces.server import labelstudio, protocols, routes_ask, routes_desk, routes_teach
from retain.faces.server.downloads import sweep
from retain.faces.server.lane import Lane
from retain.faces.server.problems import Problem, answer_to, failure
from retain.faces.server.security import Door
from retain.faces.server.serving import Serving
from retain.faces.server.settings import VARIABLE, Settings

__all__ = ["application", "from_environment"]

_SWITCH: Final = 5e-4  # seconds

_KINDS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "NotAllowed",
    413: "TooLarge",
}


def application(settings: Settings, *, alone: bool = False) -> ASGIApp:
    """The whole server as an ASGI application.

    Args:
        settings: what to serve, and how.
        alone: whether there is nothing else in this process.

    Raises:
        NotAClassifier, NewerFormat, Damaged: if the classifier cannot be opened.
    """
    serving = Serving.open(settings)
    sweep(settings)
    # What is wrong with a form is said to whoever sent it; anybody could fill the log with it.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        # The first to ask need not wait for the network to be loaded.
        await serving.read(_warm, serving)
        watch = asyncio.create_task(serving.watch())
        # Nor the first to teach; meanwhile others are answered.
        warm = asyncio.create_task(_settle(serving, alone))
        _end_streams_first(serving)
        try:
            yield
        finally:
            for task in (warm, watch):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await asyncio.to_thread(serving.close)

    app = FastAPI(
        title=f"retain: {settings.name}",
        version=retain.__version__,
        description="An image classifier that learns, corrects, forgets and undoes.",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.serving = serving
    for part in (routes_ask, routes_teach, routes_desk, protocols, labelstudio):
        app.include_router(part.router)
    app.add_api_route("/page/{file:path}", _asset, include_in_schema=False)
    app.add_api_route("/", _front, include_in_schema=False)
    app.add_api_route("/favicon.ico", _icon, include_in_schema=False)
    _translate_errors(app, settings)
    return Door(Lane(app, serving), settings, serving.tokens, serving.metrics)


def from_environment() -> ASGIApp:
    """The application of one worker process, told by the environment what to serve."""
    settings = Settings.from_text(os.environ[VARIABLE])
    # Threads that come back from the network wait for one that computes in Python; not for long.
    sys.setswitchinterval(_SWITCH)
    # Nothing that a client says is a path; if it ever were one, it would lead nowhere.
    os.chdir(settings.folder)
    return application(settings, alone=True)


async def _settle(serving: Serving, alone: bool) -> None:
    """Make ready for the first change."""
    await serving.warm()
    if alone:
        # What is there by now stays; to look through it for garbage takes a tenth of a second.
        gc.collect()
        gc.freeze()


def _end_streams_first(serving: Serving) -> None:
    """End the streams that have no end as soon as the server is told to stop.

    It would otherwise wait for every page that is open somewhere to be closed.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        if not callable(before):
            continue

        def told(
            signum: int,
            frame: FrameType | None,
            before: Callable[[int, FrameType | None], Any] = before,
        ) -> None:
            loop.call_soon_threadsafe(serving.end_streams)
            before(signum, frame)

        signal.signal(number, told)


def _warm(serving: Serving) -> None:
    serving.extractor  # noqa: B018 - asked for once, so that it is known
    with suppress(retain.RetainError):
        if serving.classifier.labels and not serving.extractor.startswith("vectors:"):
            serving.classifier.predict(b"P6 1 1 255 abc")


def _translate_errors(app: FastAPI, settings: Settings) -> None:
    hide = {str(settings.path): settings.name}

    async def told(request: Request, error: Exception) -> Response:
        return failure(error, hide, request.url.path)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part)[:60] for part in first.get("loc", ()))
        return answer_to(Problem(422, "BadRequest", f"{where}: {first.get('msg', 'invalid')}"))

    async def plain(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = _KINDS.get(error.status_code, "BadRequest")
        return answer_to(Problem(error.status_code, kind, str(error.detail)))

    async def broken(request: Request, error: Exception) -> Response:
        return failure(error, hide, request.url.path)

    app.add_exception_handler(Problem, told)
    app.add_exception_handler(retain.RetainError, told)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, broken)


# -- the page ----------------------------------------------------------------------------------


async def _front() -> Response:
    return _static("index.html")


async def _icon() -> Response:
    return _static("icon.svg")


async def _asset(file: str) -> Response:
    return _static(file)


def _assets() -> dict[str, Any]:
    """The files of the page: what is not listed here is not there, whatever it is called."""
    folder = files("retain") / "faces" / "page"
    if not folder.is_dir():
        return {}
    return {each.name: each for each in folder.iterdir() if each.is_file()}


def _static(name: str) -> Response:
    found = _assets().get(name)
    if found is None:
        raise Problem(404, "NotFound", "there is no such page; the API is at /openapi.json")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"Cache-Control": "no-cache"}
    return Response(found.read_bytes(), media_type=kind, headers=headers)
