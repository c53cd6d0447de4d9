"""A machine-learning backend for Label Studio: pre-annotations out, annotations in.

The routes are those that Label Studio asks of a backend (``/health``, ``/setup``, ``/predict``,
``/webhook``), under ``/label-studio``. Pictures are fetched from the one Label Studio that the
server was told of, never from anywhere that a task names.
"""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree

from fastapi import APIRouter, Request
from starlette.responses import Response

from retain.faces.server.asked import Asked, Reader, Teacher
from retain.faces.server.bodies import clean_name, decoded, parsed
from retain.faces.server.problems import Json, Problem
from retain.faces.server.serving import Answers
from retain.faces.server.settings import Settings
from retain.values import Source, content_hash, to_json

__all__ = ["Config", "config_of", "router"]

router: Final = APIRouter(prefix="/label-studio", tags=["label studio"])

KEY: Final = "LABEL_STUDIO_API_KEY"

_CONFIG: Final = 200_000
_SECONDS: Final = 15.0
_FRESH: Final = 120.0
_ACCESS: Final[dict[tuple[str, str], tuple[str, float]]] = {}
_TASKS: Final = 500
_LOG: Final = logging.getLogger("retain.serve")
_ANNOTATED: Final = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED"})


@dataclass(frozen=True, slots=True)
class Config:
    """What a label config says: the tag of the choices, of the image, and the task's field.

    The fields are ``from_name``, ``to_name`` and the name after ``$`` in the image's value.
    """

    choices: str
    image: str
    field: str


def config_of(text: str) -> Config:
    """Read a label config.

    Raises:
        Problem: if it has no image with choices.

    >>> config_of('<View><Image name="i" value="$url"/><Choices name="c" toName="i"/></View>')
    Config(choices='c', image='i', field='url')
    """
    if len(text) > _CONFIG or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise Problem(422, "BadRequest", "this is no label config")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - entities were refused above
    except (ElementTree.ParseError, ValueError, RecursionError):
        raise Problem(422, "BadRequest", "the label config is not XML") from None
    images = {tag.get("name"): tag.get("value", "") for tag in root.iter("Image")}
    for tag in root.iter("Choices"):
        to = tag.get("toName")
        if to in images and tag.get("name") and images[to].startswith("$"):
            return Config(str(tag.get("name")), str(to), images[to][1:])
    raise Problem(422, "BadRequest", "the label config needs an Image with Choices")


@router.get("/")
@router.get("/health")
async def health(asked: Reader) -> Response:
    """Whether it runs."""
    return Json({"status": "UP", "model_class": "retain"})


@router.post("/setup")
async def setup(asked: Reader, request: Request) -> Response:
    """Label Studio says which project it is about to ask for."""
    value = _object(await request.body())
    schema = value.get("schema")
    if isinstance(schema, str) and schema.strip():
        config_of(schema)
    event = await asked.serving.read(lambda: asked.serving.classifier.event)
    return Json({"model_version": str(event)})


@router.get("/versions")
async def versions(asked: Reader) -> Response:
    """The versions that there are."""
    listed = await asked.serving.read(asked.serving.classifier.versions)
    return Json({"versions": [str(each.event) for each in listed]})


@router.post("/predict")
async def predict(asked: Teacher, request: Request) -> Response:
    """Answer tasks; one that cannot be read gets an empty answer.

    Their pictures are fetched with the owner's key: who may only read must not choose which.
    """
    value = _object(await request.body())
    tasks = value.get("tasks")
    if not isinstance(tasks, list) or len(tasks) > _TASKS:
        raise Problem(422, "BadRequest", f"tasks must be a list of {_TASKS} at most")
    config = config_of(str(value.get("label_config", "")))
    sources: dict[int, Source] = {}
    for i, task in enumerate(tasks):
        try:
            sources[i] = await asked.serving.read(_fetched, asked.serving.settings, task, config)
        except Problem as problem:
            _LOG.warning("a task of Label Studio could not be read: %s", problem.kind)
    rows: list[dict[str, Any]] = [{"result": [], "score": 0.0} for _ in tasks]
    event = 0
    if sources:
        found = await asked.serving.predict(list(sources.values()))
        event = found.event
        _fill(rows, sources, found, config)
    for row in rows:
        row["model_version"] = str(event)
    return Json({"results": rows, "model_version": str(event)})


def _fill(
    rows: list[dict[str, Any]], sources: dict[int, Source], found: Answers, config: Config
) -> None:
    answers = {each.image: each for each in found.answers}
    for i, each in sources.items():
        said = answers.get(content_hash(each.read()))
        if said is not None:
            rows[i] = {
                "result": [
                    {
                        "from_name": config.choices,
                        "to_name": config.image,
                        "type": "choices",
                        "value": {"choices": [said.label]},
                        "score": said.probability,
                    }
                ],
                "score": said.probability,
            }


@router.post("/webhook")
async def webhook(asked: Teacher, request: Request) -> Response:
    """Learn an annotation, or where the classifier says otherwise, correct it."""
    value = _object(await request.body())
    action = value.get("action")
    if not isinstance(action, str) or action not in _ANNOTATED:
        return Json({"status": "ignored", "action": str(action)[:100]})
    task, annotation = value.get("task"), value.get("annotation")
    if not isinstance(task, dict) or not isinstance(annotation, dict):
        raise Problem(422, "BadRequest", "an annotation comes with its task")
    label = _label(annotation)
    if label is None or annotation.get("was_cancelled"):
        return Json({"status": "ignored", "action": action})
    config = _config_for(value, annotation)
    picture = await asked.serving.read(_fetched, asked.serving.settings, task, config)
    return Json(await asked.serving.change(asked.who, _taught, asked, picture, label))


def _taught(asked: Asked, picture: Source, label: str) -> dict[str, Any]:
    """One annotation: what is answered so already is learned, anything else is corrected."""
    classifier = asked.serving.classifier
    known = classifier.labels
    said = classifier.predict([picture], top=1) if known else ()
    if said and said[0].label != label:
        found = classifier.correct(picture, label, replace=True)
    else:
        found = classifier.learn([picture], [label])
    asked.serving.changed(found)
    asked.serving.taught([content_hash(picture.read())])
    return {"status": "ok", "verb": found.kind, "update": to_json(found)}


def _object(body: bytes) -> dict[str, Any]:
    value = parsed(body)
    if not isinstance(value, dict):
        raise Problem(422, "BadRequest", "the body is not an object")
    return value


def _label(annotation: dict[str, Any]) -> str | None:
    """The one choice of an annotation; None where there is none, or there are several."""
    result = annotation.get("result")
    for each in result if isinstance(result, list) else ():
        if isinstance(each, dict) and each.get("type") == "choices":
            value = each.get("value")
            chosen = value.get("choices") if isinstance(value, dict) else None
            if isinstance(chosen, list) and len(chosen) == 1 and isinstance(chosen[0], str):
                return chosen[0]
    return None


def _config_for(value: dict[str, Any], annotation: dict[str, Any]) -> Config:
    project = value.get("project")
    text = project.get("label_config") if isinstance(project, dict) else None
    if isinstance(text, str) and text.strip():
        return config_of(text)
    return Config("", "", "image")


def _fetched(settings: Settings, task: Any, config: Config) -> Source:
    """The picture of a task."""
    data = task.get("data") if isinstance(task, dict) else None
    place = data.get(config.field) if isinstance(data, dict) else None
    if not isinstance(place, str) or not place:
        raise Problem(422, "BadRequest", f"the task has no {config.field!a}")
    if place.startswith("data:"):
        read = decoded(place)
        return Source("picture", lambda: read)
    if not settings.label_studio:
        raise Problem(
            422, "BadRequest", "start retain serve with --label-studio URL to fetch pictures"
        )
    try:
        base = urlsplit(settings.label_studio)
        url = urlsplit(urljoin(settings.label_studio.rstrip("/") + "/", place))
    except ValueError:
        raise Problem(422, "BadRequest", "the task's picture is at no address") from None
    if (url.scheme, url.netloc) != (base.scheme, base.netloc) or url.scheme not in (
        "http",
        "https",
    ):
        raise Problem(422, "Forbidden", "pictures are fetched from Label Studio alone")
    fetched = _fetch(url.geturl(), settings.label_studio.rstrip("/"), settings.body)
    return Source(clean_name(url.path), lambda: fetched)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Whoever answers may not send us elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _authorization(base: str) -> str:
    """How Label Studio knows us: by a legacy token, or by what it gives for a personal one."""
    key = os.environ.get(KEY, "")
    # A personal access token is a JSON web token, good for nothing but short-lived ones.
    if key.count(".") != 2:
        return f"Token {key}" if key else ""
    known, until = _ACCESS.get((base, key), ("", 0.0))
    if time.monotonic() > until:
        request = urllib.request.Request(  # noqa: S310 - where the owner said that it is
            f"{base}/api/token/refresh",
            json.dumps({"refresh": key}).encode(),
            {"Content-Type": "application/json"},
        )
        with _opener().open(request, timeout=_SECONDS) as answer:
            known = str(json.loads(answer.read(65536))["access"])
        _ACCESS[base, key] = known, time.monotonic() + _FRESH
    return f"Bearer {known}"


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Stay, urllib.request.ProxyHandler({}))


def _fetch(url: str, base: str, most: int) -> bytes:
    request = urllib.request.Request(url)  # noqa: S310 - its origin was checked
    try:
        if told := _authorization(base):
            request.add_header("Authorization", told)
        with _opener().open(request, timeout=_SECONDS) as answer:
            data: bytes = answer.read(most + 1)
    except (urllib.error.URLError, OSError, ValueError, LookupError, TypeError) as error:
        code = getattr(error, "code", "")
        raise Problem(502, "Unreachable", f"Label Studio did not give the picture {code}") from None
    if len(data) > most:
        raise Problem(413, "TooLarge", f"the picture has more than {most:,} bytes")
    return data
