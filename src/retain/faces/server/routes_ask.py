"""The routes that change nothing: predict, evaluate, explain, and what there is to look at."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from io import BytesIO
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Query
from starlette.responses import Response

from retain.errors import BadImage, UnknownImage
from retain.faces.server.asked import Asked, Reader, pictures_body, version_of
from retain.faces.server.bodies import Items, Pictures, given, hash_of
from retain.faces.server.metrics import exposition
from retain.faces.server.problems import Json, Problem
from retain.faces.server.serving import Answers
from retain.faces.server.streaming import answered, changes
from retain.suggesting import contradiction
from retain.values import Event, Progress, to_json

__all__ = ["answers_json", "router"]

router: Final = APIRouter(tags=["ask"])

_LARGEST: Final = 1600

Version = Annotated[str | None, Query(max_length=64, description="an event or an alias")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1)]


def answers_json(found: Answers, seconds: float) -> dict[str, Any]:
    """Answers as `/predict` gives them."""
    told = []
    for each, name, around in zip(found.answers, found.names, found.similar, strict=True):
        told.append({"id": name, **to_json(each), "similar": to_json(around)})
        if around:
            against = contradiction(each.label, each.probability, around)
            told[-1]["contradicts"] = to_json(against) if against else None
    return {
        "event": found.event,
        "seconds": seconds,
        "predictions": told,
        "skipped": to_json(found.skipped),
    }


@router.post("/predict", openapi_extra=pictures_body(Pictures))
async def predict(
    asked: Reader,
    top: Annotated[int, Query(ge=1, le=1000)] = 5,
    similar: Annotated[int, Query(ge=0, le=20)] = 0,
    version: Version = None,
    keep: bool = True,
) -> Response:
    """Answer pictures."""
    started = asyncio.get_running_loop().time()
    pictures = await given(asked.request, asked.serving, Pictures)

    async def work(progress: Progress | None) -> dict[str, Any]:
        found = await asked.serving.predict(
            pictures.sources,
            top=top,
            similar=similar,
            version=version_of(version),
            keep=keep,
            progress=progress,
        )
        return answers_json(found, asyncio.get_running_loop().time() - started)

    return await answered(asked.request, asked.hide, work)


@router.post("/evaluate", openapi_extra=pictures_body(Items, labels=True))
async def evaluate(asked: Reader, version: Version = None) -> Response:
    """Judge the classifier on labelled pictures; nothing is learned."""
    lesson = await given(asked.request, asked.serving, Items)
    labels = lesson.told()

    async def work(progress: Progress | None) -> Any:
        return to_json(
            await asked.serving.read(
                asked.serving.classifier.evaluate,
                list(lesson.sources),
                labels,
                version=version_of(version),
                progress=progress,
            )
        )

    return await answered(asked.request, asked.hide, work)


@router.post("/explain", openapi_extra=pictures_body(Pictures))
async def explain(
    asked: Reader,
    neighbours: Annotated[int, Query(ge=0, le=20)] = 5,
    remedies: Annotated[int, Query(ge=0, le=5)] = 2,
) -> Response:
    """Say why a picture is answered as it is, and what would change that."""
    pictures = await given(asked.request, asked.serving, Pictures, unread=True)
    if len(pictures.sources) != 1:
        raise Problem(422, "BadRequest", "one picture at a time can be explained")
    picture = pictures.remembered[0] or pictures.sources[0]

    def work() -> Any:
        found = asked.serving.classifier.explain(picture, neighbours=neighbours, remedies=remedies)
        shown = None
        if found.view is not None and found.evidence is not None:
            from retain.vision import overlay

            shown = _png(overlay(found.view, found.evidence))
        return {**to_json(found), "evidence": shown}

    return Json(await asked.serving.read(work))


@router.get("/status")
async def status(asked: Reader) -> Response:
    """The classifier in a few numbers."""
    serving = asked.serving

    def work() -> Any:
        found = {**to_json(serving.classifier.status()), "name": serving.settings.name}
        del found["path"]
        return {**found, "event": serving.classifier.event, "inbox": serving.desk.inbox(0, 1)[0]}

    return Json(await serving.read(work))


@router.get("/classes")
async def classes(asked: Reader) -> Response:
    """The classes, sorted by name."""
    return Json({"classes": to_json(await asked.serving.read(asked.serving.classifier.classes))})


@router.get("/versions")
async def versions(asked: Reader) -> Response:
    """The states it has been in, oldest first."""
    return Json({"versions": to_json(await asked.serving.read(asked.serving.classifier.versions))})


@router.get("/log")
async def log(
    asked: Reader,
    limit: Limit = 100,
    before: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
) -> Response:
    """The journal, newest first."""
    events: list[Event] = await asked.serving.read(asked.serving.classifier.log)
    chosen = [each for each in reversed(events) if before is None or each.event < before]
    return Json({"total": len(events), "events": to_json(chosen[:limit])})


@router.get("/show/{event}")
async def show(asked: Reader, event: int) -> Response:
    """One entry of the journal, and the pictures that it speaks of."""
    number = version_of(str(abs(event)))
    assert isinstance(number, int)
    return Json(to_json(await asked.serving.read(asked.serving.classifier.show, number)))


@router.get("/samples")
async def samples(
    asked: Reader,
    label: Annotated[str | None, Query(max_length=1000)] = None,
    pinned: bool | None = None,
    order: Annotated[str, Query(pattern="^(recent|hash)$")] = "recent",
    offset: Offset = 0,
    limit: Limit = 60,
) -> Response:
    """The remembered pictures, a page of them."""
    found = await asked.serving.read(asked.serving.classifier.samples)
    chosen = [
        each
        for each in found
        if (label is None or each.label == label) and (pinned is None or each.pinned == pinned)
    ]
    if order == "recent":
        chosen.sort(key=lambda each: -each.event)
    page = chosen[offset : offset + limit]
    return Json({"total": len(chosen), "offset": offset, "samples": to_json(page)})


@router.get("/samples/{image}")
async def sample(asked: Reader, image: str) -> Response:
    """One remembered picture, what it is answered, and its history."""
    serving = asked.serving

    def work() -> Any:
        return to_json(serving.classifier.show(hash_of(serving, image)))

    return Json(await serving.read(work))


@router.get("/image/{image}", response_class=Response)
async def image(
    asked: Reader, image: str, side: Annotated[int, Query(ge=16, le=_LARGEST)] = 256
) -> Response:
    """A picture, small, made anew from its pixels."""
    serving = asked.serving

    def work() -> bytes:
        name = hash_of(serving, image)
        kept = serving.desk.picture(name)
        data = kept.data if kept else serving.classifier.image(name)
        try:
            return serving.guard.draw(data, side)
        except BadImage as error:
            raise UnknownImage(f"it cannot be shown: {error}") from None

    drawn = await serving.read(work)
    # What a hash names never changes; only forgetting must not be undone by a cache on disk.
    return Response(
        drawn, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"}
    )


@router.get("/diff")
async def diff(
    asked: Reader, a: Annotated[str, Query(max_length=64)], b: Version = None
) -> Response:
    """Two versions side by side."""
    first, second = version_of(a), version_of(b)
    found = await asked.serving.read(asked.serving.classifier.diff, first, second)
    return Json(to_json(found))


@router.get("/gate")
async def gate(asked: Reader) -> Response:
    """What a change may cost."""
    return Json(to_json(await asked.serving.read(asked.serving.classifier.gate)))


@router.get("/verify")
async def verify(asked: Reader) -> Response:
    """Derive everything again from the journal."""
    return Json(to_json(await asked.serving.read(asked.serving.classifier.verify)))


@router.get("/events", response_class=Response)
async def events(asked: Reader) -> Response:
    """A stream that tells of every change."""
    return changes(asked.serving)


@router.get("/metrics", response_class=Response)
async def metrics(asked: Reader) -> Response:
    """What is counted, for Prometheus."""
    return Response(
        await asked.serving.read(_exposed, asked), media_type="text/plain; version=0.0.4"
    )


def _exposed(asked: Asked) -> str:
    serving = asked.serving
    serving.hand_in()
    counters, gauges = serving.desk.counted()
    known = serving.classifier.classes()
    return exposition(
        {
            **counters,
            **gauges,
            "retain_version": serving.classifier.event,
            "retain_classes": len(known),
            "retain_images": sum(each.images for each in known),
            "retain_inbox": serving.desk.inbox(0, 1)[0],
        }
    )


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode("ascii")
