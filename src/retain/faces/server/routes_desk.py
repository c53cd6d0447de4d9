"""The routes of the page's own: sessions, the inbox and its groups, what to teach next, hints."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

import retain
from retain.faces.server.asked import Reader, Teacher, pictures_body
from retain.faces.server.bodies import Hintables, Strict, given, hash_of
from retain.faces.server.problems import Json, Problem
from retain.faces.server.routes_teach import Hashes
from retain.faces.server.security import COOKIE_AGE, cookie_name
from retain.faces.server.serving import Serving, source
from retain.faces.server.settings import PICTURES
from retain.faces.server.tokens import Who
from retain.values import to_json
from retain.vision.images import LARGEST_PICTURE

__all__ = ["router"]

router: Final = APIRouter(tags=["desk"])

_POOL: Final = 500

# An answer less sure than this may well be wrong.
_SURE: Final = 0.8


class Dismiss(Strict):
    """What to take out of the inbox; everything, if it names nothing."""

    images: Hashes = Field(default_factory=list)


@router.get("/session")
async def session(request: Request) -> Response:
    """Who asks, and what may be sent."""
    return Json(_session(request.app.state.serving, request.scope["retain.who"]))


@router.post("/session")
async def sign_in(request: Request) -> Response:
    """Trade a token for a cookie."""
    serving: Serving = request.app.state.serving
    who: Who = request.scope["retain.who"]
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or who.role is None or who.name == "anonymous":
        raise Problem(401, "Unauthorized", "give the token as Authorization: Bearer TOKEN")
    answer = Json(_session(serving, who))
    answer.set_cookie(
        cookie_name(serving.settings),
        serving.tokens.ticket(token.strip(), COOKIE_AGE),
        max_age=COOKIE_AGE,
        httponly=True,
        samesite="strict",
        secure=_came_by_https(request),
    )
    return answer


@router.delete("/session")
async def sign_out(request: Request) -> Response:
    """Take the cookie away."""
    serving: Serving = request.app.state.serving
    answer = Json({"actor": "anonymous", "role": "reader" if serving.settings.local else None})
    answer.delete_cookie(cookie_name(serving.settings), httponly=True, samesite="strict")
    return answer


def _came_by_https(request: Request) -> bool:
    """Whether the browser did, be it through somebody else who speaks TLS for this server.

    Who makes this up has a cookie that comes by HTTPS alone, and nothing more.
    """
    headers = request.headers
    return (
        request.url.scheme == "https"
        or headers.get("x-forwarded-proto", "").lower() == "https"
        or headers.get("origin", "").lower().startswith("https://")
    )


def _session(serving: Serving, who: Who) -> dict[str, Any]:
    found: dict[str, Any] = {
        "actor": who.name,
        "role": who.role,
        "open": serving.settings.local,
        "version": retain.__version__,
        "limits": {
            "body": serving.settings.body,
            "pictures": PICTURES,
            "pixels": LARGEST_PICTURE,
        },
    }
    if who.role is not None:
        extractor = serving.extractor
        found |= {
            "name": serving.settings.name,
            "extractor": extractor,
            "vectors": extractor.startswith("vectors:"),
        }
    return found


@router.get("/inbox")
async def inbox(
    asked: Reader,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 60,
) -> Response:
    """Pictures that were called unknown, the latest first."""
    total, rows = await asked.serving.read(asked.serving.desk.inbox, offset, limit)
    return Json({"total": total, "offset": offset, "pictures": to_json(rows)})


@router.post("/inbox/dismiss")
async def dismiss(asked: Teacher, body: Dismiss) -> Response:
    """Take pictures out of the inbox."""
    serving = asked.serving

    def work() -> int:
        return serving.desk.dismiss([hash_of(serving, image) for image in body.images])

    return Json({"dismissed": await serving.read(work)})


@router.get("/inbox/clusters")
async def clusters(asked: Reader, k: Annotated[int | None, Query(ge=1, le=100)] = None) -> Response:
    """The inbox, those that look alike together."""
    serving, started = asked.serving, time.perf_counter()

    def work() -> list[retain.Cluster]:
        names = [each.image for each in serving.desk.inbox()[1]]
        kept = [each for each in map(serving.desk.picture, names) if each is not None]
        return serving.classifier.cluster([source(each) for each in kept], count=k)

    found = await serving.read(work)
    told = [{**to_json(each), "sentence": _alike(each.size)} for each in found]
    total = sum(each.size for each in found)
    return Json({"total": total, "seconds": time.perf_counter() - started, "clusters": told})


@router.get("/next")
async def suggestions(asked: Reader, count: Annotated[int, Query(ge=1, le=100)] = 12) -> Response:
    """What to label next, of the inbox and of what was asked about lately."""
    serving = asked.serving

    def work() -> list[retain.Suggestion]:
        kept = serving.desk.lately(_POOL)
        return serving.classifier.suggest([source(each) for each in kept], count=count)

    found = await serving.read(work)
    told = [{**to_json(each), "sentence": _stands(each)} for each in found]
    return Json({"pictures": told})


@router.post("/hints", openapi_extra=pictures_body(Hintables, labels=True))
async def hints(asked: Reader) -> Response:
    """Advice on pictures before they are taught."""
    lesson = await given(asked.request, asked.serving, Hintables)
    found = await asked.serving.read(
        asked.serving.classifier.hints, list(lesson.sources), list(lesson.labels)
    )
    return Json({"hints": to_json(found)})


def _alike(size: int) -> str:
    return f"these {size} look alike: name them?" if size > 1 else "this one looks like no other"


def _stands(each: retain.Suggestion) -> str:
    if each.stands_for > 1:
        return f"it stands for {each.stands_for} pictures like it"
    if each.probability is not None and each.probability < _SURE:
        return "no other is like it, and it is not sure of it"
    return "no other is like it"
