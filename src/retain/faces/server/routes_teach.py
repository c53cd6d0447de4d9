"""The routes that change something: learn, correct, undo; and, for the owner, forget and decree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Query
from pydantic import Field
from starlette.responses import FileResponse, Response

from retain.errors import BadOption
from retain.faces.server.asked import Asked, Owner, Teacher, pictures_body, version_of
from retain.faces.server.bodies import (
    Corrections,
    Items,
    References,
    Strict,
    given,
    hash_of,
)
from retain.faces.server.downloads import download
from retain.faces.server.problems import Json
from retain.faces.server.restoring import restored, undoable
from retain.faces.server.settings import PICTURES
from retain.faces.server.streaming import answered
from retain.values import Budgets, Progress, to_json

__all__ = ["router"]

router: Final = APIRouter(tags=["teach"])

Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
Hash = Annotated[str, Field(max_length=80)]
Hashes = Annotated[list[Hash], Field(max_length=PICTURES)]


class Undo(Strict):
    """What to take back; the last event, if none is named."""

    event: Number | None = None
    force: bool = False
    dry_run: bool = False


class Restore(Strict):
    """The event right after which the classifier shall be as it was."""

    event: Number
    force: bool = False


class Forget(Strict):
    """What to forget."""

    images: Hashes = Field(default_factory=list)
    labels: Annotated[list[str], Field(max_length=PICTURES, default_factory=list)]
    events: Annotated[list[Number], Field(max_length=PICTURES, default_factory=list)]
    force: bool = False
    dry_run: bool = False


class Promote(Strict):
    """What an alias shall stand for."""

    version: Number | Annotated[str, Field(max_length=64)] | None = None
    alias: Annotated[str, Field(max_length=64)] = "production"
    force: bool = False
    dry_run: bool = False


class Rollback(Strict):
    """Which alias shall go back."""

    alias: Annotated[str, Field(max_length=64)] = "production"
    force: bool = False
    dry_run: bool = False


class Protect(Strict):
    """What must never get worse."""

    images: Hashes = Field(default_factory=list)
    labels: Annotated[list[str], Field(max_length=PICTURES, default_factory=list)]
    off: bool = False


class Rename(Strict):
    """A class and its new name."""

    old: str
    new: str


class Merge(Strict):
    """A class, and the one that takes it in."""

    old: str
    into: str
    force: bool = False
    dry_run: bool = False


@router.post("/learn", openapi_extra=pictures_body(Items, labels=True))
async def learn(asked: Teacher) -> Response:
    """Learn labelled pictures."""
    serving = asked.serving
    lesson = await given(asked.request, serving, Items)
    labels, flags = lesson.told(), lesson.flags
    asked.check_force(flags.get("force", False))
    options = {name: flags.get(name, False) for name in ("strict", "force", "dry_run")}

    async def work(progress: Progress | None) -> Any:
        def learned() -> Any:
            found = serving.classifier.learn(
                list(lesson.sources), labels, **options, progress=progress
            )
            if not options["dry_run"]:
                serving.taught(lesson.images)
            return found

        return to_json(await serving.change(asked.who, learned))

    return await answered(asked.request, asked.hide, work)


@router.post("/reference", openapi_extra=pictures_body(References))
async def reference(asked: Teacher) -> Response:
    """Take in typical pictures without labels; for a classifier that was adopted."""
    serving = asked.serving
    lesson = await given(asked.request, serving, References)
    asked.check_force(lesson.flags.get("force", False))
    options = {name: lesson.flags.get(name, False) for name in ("force", "dry_run")}

    async def work(progress: Progress | None) -> Any:
        def taken() -> Any:
            sources = list(lesson.sources)
            found = serving.classifier.reference(sources, **options, progress=progress)
            if not options["dry_run"]:
                serving.taught(lesson.images)
            return found

        return to_json(await serving.change(asked.who, taken))

    return await answered(asked.request, asked.hide, work)


@router.post("/correct", openapi_extra=pictures_body(Corrections, labels=True))
async def correct(asked: Teacher) -> Response:
    """Say what pictures are; all of them or none."""
    serving = asked.serving
    lesson = await given(asked.request, serving, Corrections, unread=True)
    labels, flags = lesson.told(), lesson.flags
    asked.check_force(flags.get("force", False))
    names = ("replace", "exception", "force", "dry_run")
    options = {name: flags.get(name, False) for name in names}
    pictures = [name or each for each, name in zip(lesson.sources, lesson.remembered, strict=True)]

    async def work(progress: Progress | None) -> Any:
        def corrected() -> Any:
            pairs = zip(pictures, labels, strict=True)
            found = serving.classifier.correct_many(pairs, **options, progress=progress)
            if not options["dry_run"]:
                serving.taught([each.image for each in found.corrected])
            return found

        return to_json(await serving.change(asked.who, corrected))

    return await answered(asked.request, asked.hide, work)


@router.post("/undo")
async def undo(asked: Teacher, body: Undo | None = None) -> Response:
    """Take back an event."""
    given = body or Undo()
    asked.check_force(given.force)
    options = {"force": given.force, "dry_run": given.dry_run}
    classifier = asked.serving.classifier

    def work() -> Any:
        return classifier.undo(undoable(classifier, given.event, asked.who), **options)

    return await _changed(asked, work)


@router.post("/restore")
async def restore(asked: Teacher, body: Restore) -> Response:
    """Take back every later event: all that can be, or none where one fails."""
    asked.check_force(body.force)
    return await _changed(
        asked,
        lambda: restored(asked.serving.classifier, body.event, asked.who, force=body.force),
    )


@router.post("/forget")
async def forget(asked: Owner, body: Forget) -> Response:
    """Forget pictures for good."""
    serving = asked.serving

    def work() -> Any:
        images = [hash_of(serving, image) for image in body.images]
        chosen = (images, body.labels, body.events)
        gone = [each.image for each in serving.classifier.forget_preview(*chosen)]
        # What waits to be written there is not where `forget` would look for it.
        serving.desk.settle()
        found = serving.classifier.forget(*chosen, force=body.force, dry_run=body.dry_run)
        if not body.dry_run:
            # Who asked meanwhile has left a question once more.
            serving.forgotten(gone)
        return found

    return await _changed(asked, work)


@router.post("/promote")
async def promote(asked: Owner, body: Promote) -> Response:
    """Let an alias stand for a version."""
    version = version_of(body.version) if isinstance(body.version, str) else body.version
    options = {"force": body.force, "dry_run": body.dry_run}
    return await _changed(
        asked, lambda: asked.serving.classifier.promote(version, body.alias, **options)
    )


@router.post("/rollback")
async def rollback(asked: Owner, body: Rollback | None = None) -> Response:
    """Let an alias stand for the version before."""
    given = body or Rollback()
    options = {"force": given.force, "dry_run": given.dry_run}
    return await _changed(asked, lambda: asked.serving.classifier.rollback(given.alias, **options))


@router.post("/protect")
async def protect(asked: Teacher, body: Protect) -> Response:
    """Say what must never get worse."""
    serving = asked.serving

    def work() -> Any:
        images = [hash_of(serving, image) for image in body.images]
        return serving.classifier.protect(images, body.labels, off=body.off)

    return await _changed(asked, work)


@router.post("/rename")
async def rename(asked: Owner, body: Rename) -> Response:
    """Give a class another name."""
    return await _changed(asked, lambda: asked.serving.classifier.rename(body.old, body.new))


@router.post("/merge")
async def merge(asked: Owner, body: Merge) -> Response:
    """Make two classes one."""
    options = {"force": body.force, "dry_run": body.dry_run}
    return await _changed(
        asked, lambda: asked.serving.classifier.merge(body.old, body.into, **options)
    )


@router.post("/gate")
async def gate(asked: Owner, body: Annotated[dict[str, float], Body()]) -> Response:
    """Set what a change may cost."""
    known = {field.name for field in fields(Budgets)}
    if not body or not set(body) <= known:
        raise BadOption(f"give some of the budgets {', '.join(sorted(known))}")
    return await _changed(asked, lambda: asked.serving.classifier.gate(**body))


@router.get("/export", response_class=FileResponse)
async def export(
    asked: Owner, version: Annotated[str | None, Query(max_length=64)] = None
) -> Response:
    """The classifier as one ONNX file."""
    chosen = version_of(version)
    return await download(
        asked.serving, ".onnx", lambda file: asked.serving.classifier.export(file, version=chosen)
    )


@router.get("/pack", response_class=FileResponse)
async def pack(asked: Owner) -> Response:
    """All of it as one file."""
    return await download(asked.serving, ".retain", asked.serving.classifier.pack)


async def _changed(asked: Asked, work: Callable[[], Any]) -> Response:
    return Json(to_json(await asked.serving.change(asked.who, work)))
