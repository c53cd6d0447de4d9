"""A way past the framework for the question that is asked most: what is this picture?

The framework takes longer to find the route, its parameters and its answer's form than the rest of
the server takes to answer. What is not exactly that question goes the usual way, which answers it
alike; a test asks both.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, final

from starlette.types import ASGIApp, Receive, Scope, Send

from retain.faces.server.bodies import clean_name
from retain.faces.server.problems import Json, Problem, failure
from retain.faces.server.routes_ask import answers_json
from retain.faces.server.serving import Serving
from retain.values import Source

__all__ = ["Lane"]

_ROUTE: Final = "/predict"
_BODIES: Final = (b"image/", b"application/octet-stream")


@dataclass(frozen=True, slots=True)
class _Route:
    """What the door counts requests by."""

    path: str


@final
class Lane:
    """Answers ``POST /predict`` where the body is a picture and nothing else is asked for."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving
        settings = serving.settings
        self._hide = {str(settings.path): settings.name}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or not _plain(scope):
            await self._app(scope, receive, send)
            return
        scope["route"] = _Route(_ROUTE)
        started = asyncio.get_running_loop().time()
        try:
            body = await _body(receive)
            if body is None:
                return
            if not body:
                raise Problem(400, "BadRequest", "there is no picture in the request")
            found = await self._serving.predict([Source(clean_name(None), lambda: body)])
            answer = Json(answers_json(found, asyncio.get_running_loop().time() - started))
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer says it
            answer = failure(error, self._hide, _ROUTE)
        await answer(scope, receive, send)


def _plain(scope: Scope) -> bool:
    if scope["path"] != _ROUTE or scope["method"] != "POST" or scope["query_string"]:
        return False
    if not scope["retain.who"].may("reader"):
        return False
    kind, stream = b"", False
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value.lower()
        elif name == b"accept":
            stream |= b"text/event-stream" in value
    return kind.startswith(_BODIES) and not stream


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if the client has gone."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
