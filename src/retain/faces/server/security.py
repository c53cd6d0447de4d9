"""The door: who may come in, how often and with how much; and what browsers are told.

Plain ASGI, since everything passes here. A request without a token is a reader's on loopback and
nobody's elsewhere. With a cookie, whatever may change something must come from the server's own
page, which shows by a header that no foreign page may set.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, final
from urllib.parse import urlsplit

from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retain.errors import RetainError
from retain.faces.server.metrics import Metrics
from retain.faces.server.problems import Problem, answer_to, problem_of
from retain.faces.server.settings import Settings
from retain.faces.server.tokens import ANONYMOUS, Tokens, Who

__all__ = ["COOKIE_AGE", "Door", "cookie_name"]

COOKIE_AGE: Final = 12 * 3600

_HEADERS: Final = [
    (name.encode(), value.encode())
    for name, value in {
        "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; "
        "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "permissions-policy": "camera=(self), microphone=(), geolocation=()",
        "cache-control": "no-store",
    }.items()
]
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1", "testserver"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_READ: Final = 30.0

# Bytes of all the bodies that one process holds at a time.
_HELD: Final = 1024 * 1024 * 1024
_CLIENTS: Final = 10_000
_BURST: Final = 4.0

# What load balancers ask, and what must answer when nothing else does.
_OPEN: Final = frozenset({"/v2/health/live", "/v2/health/ready"})
_PAGE: Final = frozenset({"/", "/session", "/favicon.ico"})


def cookie_name(settings: Settings) -> str:
    """The cookie's name: of this classifier's own, since ports of one machine share cookies."""
    return "retain_" + hashlib.sha256(f"{settings.path}:{settings.port}".encode()).hexdigest()[:8]


@final
class Door:
    """What every request passes before the application sees it."""

    def __init__(self, app: ASGIApp, settings: Settings, tokens: Tokens, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._tokens = tokens
        self._metrics = metrics
        self._cookie = cookie_name(settings)
        self._hide = {str(settings.path): settings.name}
        self._rates: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._held = _Held(max(_HELD, 2 * settings.body))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        measured = _Measured(receive, self._settings.body, self._held)

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                message["headers"] += [pair for pair in _HEADERS if pair[0] not in given]
            await send(message)

        try:
            try:
                scope["retain.who"] = self._admitted(scope)
            except RetainError as error:
                # Whatever is wrong with the tokens.
                raise problem_of(error, self._hide) from error
            await self._app(scope, measured, guarded)
        except Problem as problem:
            await answer_to(problem)(scope, receive, guarded)
        finally:
            self._held.bytes -= measured.read
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - started
            self._metrics.request(route, str(scope["method"])[:10], status, seconds)

    def _admitted(self, scope: Scope) -> Who:
        """Who asks; raises where the answer is no already."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        self._check_host(headers)
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or int(length) > self._settings.body:
            raise Problem(413, "TooLarge", f"a body may have {self._settings.body:,} bytes at most")
        token, by_cookie = self._token(headers)
        known = self._tokens.of_ticket if by_cookie else self._tokens.who
        who = known(token) if token else None
        self._check_rate(scope, who)
        if token and who is None and not by_cookie:
            raise Problem(401, "Unauthorized", "this token opens nothing; ask the owner for one")
        safe = scope["method"] in _SAFE
        own = self._is_own(headers)
        if not safe and (not own or (who and by_cookie and headers.get(b"x-retain") != "1")):
            raise Problem(
                403, "Forbidden", "only the server's own page may do this (header X-Retain: 1)"
            )
        if who is not None:
            return who
        if self._settings.local:
            return Who(ANONYMOUS.name, "reader")
        if path in _OPEN or (path in _PAGE and scope["method"] == "GET") or path[:6] == "/page/":
            return ANONYMOUS
        raise Problem(401, "Unauthorized", "this needs a token: Authorization: Bearer TOKEN")

    def _token(self, headers: Mapping[bytes, str]) -> tuple[str, bool]:
        """The token that came, or the ticket, and whether it was that: a cookie."""
        kind, _, value = headers.get(b"authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return value.strip() or "?", False
        if kind.lower() == "basic":
            try:
                text = base64.b64decode(value.strip(), validate=True).decode()
            except ValueError:
                return "?", False
            return text.partition(":")[2] or "?", False
        if kind:
            return "?", False
        # Other servers of this machine set cookies too, in whatever form: each is read by itself.
        return cookie_parser(headers.get(b"cookie", "")).get(self._cookie, ""), True

    def _check_host(self, headers: Mapping[bytes, str]) -> None:
        # On loopback readers need no token, so a name that an attacker lets point here (DNS
        # rebinding) must not make a foreign page one of ours.
        host = _place("//" + headers.get(b"host", ""))[1]
        if self._settings.local and host not in _LOCAL:
            raise Problem(
                403, "Forbidden", f"this server answers to localhost, not to {host[:100]!r}"
            )

    def _is_own(self, headers: Mapping[bytes, str]) -> bool:
        origin = headers.get(b"origin")
        if origin is None:
            return headers.get(b"sec-fetch-site", "same-origin") in {"same-origin", "none"}
        return _place(origin)[0] == headers.get(b"host", "")

    def _check_rate(self, scope: Scope, who: Who | None) -> None:
        """A bucket for each client, filled at the rate, that may run over a little."""
        rate = self._settings.rate / self._settings.workers
        if rate <= 0:
            return
        client = scope.get("client") or ("?", 0)
        key = who.name if who else client[0]
        now, most = time.monotonic(), max(rate * _BURST, 1.0)
        left, at = self._rates.pop(key, (most, now))
        left = min(most, left + (now - at) * rate)
        self._rates[key] = (max(left - 1.0, 0.0), now)
        if len(self._rates) > _CLIENTS:
            self._rates.popitem(last=False)
        if left < 1.0:
            raise Problem(429, "TooMany", f"more than {self._settings.rate:g} requests a second")


def _place(address: str) -> tuple[str, str]:
    """Host and port, and the host alone; empty where it is no address."""
    try:
        found = urlsplit(address)
        return found.netloc, found.hostname or ""
    except ValueError:
        return "", ""


@final
class _Held:
    """How many bytes of bodies are held, of all requests under way, and may be."""

    def __init__(self, most: int) -> None:
        self.bytes = 0
        self.most = most


@final
class _Measured:
    """A request's body, which may be neither too long nor too slow, nor come when many do."""

    def __init__(self, receive: Receive, most: int, held: _Held) -> None:
        self._receive = receive
        self.read = 0
        self._most = most
        self._held = held
        self._until = time.monotonic() + _READ
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(max(self._until - time.monotonic(), 0.01)):
                message: Any = await self._receive()
        except TimeoutError:
            raise Problem(408, "TooSlow", f"the body took longer than {_READ:.0f} s") from None
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self.read += size
            self._held.bytes += size
            self._whole = not message.get("more_body", False)
            if self._held.bytes > self._held.most:
                raise Problem(503, "Busy", "too much is being sent already; try again in a moment")
            if self.read > self._most:
                raise Problem(413, "TooLarge", f"a body may have {self._most:,} bytes at most")
        return message  # type: ignore[no-any-return]
