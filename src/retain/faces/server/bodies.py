"""What clients send: pictures in JSON, in forms, or as the body itself; names are only shown.

Nothing that a client says is ever used as a path: a picture is its bytes, a hash, or the name of an
answer.
"""

from __future__ import annotations

import binascii
import json
import re
import unicodedata
from base64 import b64decode
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from retain.errors import UnknownImage
from retain.faces.server.problems import Problem
from retain.faces.server.serving import Serving, source
from retain.faces.server.settings import PICTURES
from retain.values import Source, content_hash

__all__ = [
    "Corrections",
    "Given",
    "Hintables",
    "Items",
    "Picture",
    "Pictures",
    "References",
    "Strict",
    "checked",
    "clean_name",
    "decoded",
    "given",
    "hash_of",
    "parsed",
]

_HASH: Final = re.compile(r"(?:sha256:)?([0-9a-fA-F]{6,64})")
_FLAGS: Final = ("strict", "force", "dry_run", "replace", "exception")
_NAME: Final = 200

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """JSON in which nothing is taken for something else, and nothing is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Picture(Strict):
    """One picture: its bytes in base64, or its hash, or the answer that it was given."""

    bytes: str | None = None
    image: Annotated[str | None, Field(max_length=80)] = None
    prediction: Annotated[str | None, Field(max_length=80)] = None
    name: Annotated[str | None, Field(max_length=2000)] = None


class Taught(Picture):
    """A picture and what it is."""

    label: str


class Hinted(Picture):
    """A picture and what it would be taught as, if that is known."""

    label: str | None = None


class Pictures(Strict):
    """Pictures to look at."""

    pictures: Annotated[list[Picture], Field(max_length=PICTURES)]


class References(Pictures):
    """Typical pictures, without labels."""

    force: bool = False
    dry_run: bool = False


class Hintables(Strict):
    """Pictures that somebody thinks of teaching."""

    items: Annotated[list[Hinted], Field(max_length=PICTURES)]


class Items(Strict):
    """A lesson."""

    items: Annotated[list[Taught], Field(max_length=PICTURES)]
    strict: bool = False
    force: bool = False
    dry_run: bool = False


class Corrections(Strict):
    """Corrections, all of them or none."""

    corrections: Annotated[list[Taught], Field(max_length=PICTURES)]
    replace: bool = False
    exception: bool = False
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """Pictures that came with a request, and what was said of them.

    Attributes:
        sources: the pictures.
        labels: of each, where it has one.
        remembered: the hash of each that was named and is not on the desk; None for the others.
        flags: such as ``force``.
    """

    sources: tuple[Source, ...]
    labels: tuple[str | None, ...]
    remembered: tuple[str | None, ...]
    flags: dict[str, bool]

    @property
    def images(self) -> list[str]:
        """The hashes of all of them."""
        pairs = zip(self.sources, self.remembered, strict=True)
        return [image or content_hash(each.read()) for each, image in pairs]

    def told(self) -> list[str]:
        """The labels, of which none may be missing (Problem 422)."""
        if None in self.labels:
            raise Problem(422, "BadRequest", "every picture needs a label")
        return [str(label) for label in self.labels]


def parsed(text: bytes) -> Any:
    """JSON (Problem 400 if it is not)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Problem(400, "BadRequest", "the body is not JSON") from None


def checked(model: type[M], value: Any) -> M:
    """A value as a model (Problem 422 if it is not)."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Problem(422, "BadRequest", f"{where}: {first['msg']}") from None


def hash_of(serving: Serving, text: str) -> str:
    """The whole hash that a client means, of a picture that is remembered or on the desk.

    Raises:
        UnknownImage: if it is none, or of no picture, or could be several.
    """
    found = _HASH.fullmatch(text)
    if found is None:
        raise UnknownImage(f"{text[:80]!r} is not the hash of a picture (six digits or more)")
    start = "sha256:" + found[1].lower()
    if len(found[1]) == 64:
        return start
    known = set(serving.desk.find(start))
    known |= {each.image for each in serving.classifier.samples() if each.image.startswith(start)}
    if len(known) != 1:
        what = "no picture" if not known else "several pictures"
        raise UnknownImage(f"{text!r} begins the hash of {what}; give more of it")
    return known.pop()


async def given(
    request: Request, serving: Serving, model: type[BaseModel], *, unread: bool = False
) -> Given:
    """The pictures of a request, in whichever way they came.

    Args:
        request: with JSON, a form with files, or a picture as its body.
        serving: where pictures are that are only named.
        model: of the JSON; its first field holds the pictures.
        unread: whether a picture that is remembered may do without its bytes.

    Raises:
        Problem: if it cannot be understood.
        UnknownImage: if a picture that is named is not there.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _form(request)
    body = await request.body()
    if kind == "application/json" or (not kind and body[:1] == b"{"):
        value = checked(model, parsed(body))
        items = getattr(value, next(iter(type(value).model_fields)))
        if not items:
            raise Problem(422, "BadRequest", "no picture is given")
        flags = {name: getattr(value, name) for name in _FLAGS if hasattr(value, name)}
        found = await serving.read(lambda: [_source(serving, item, unread) for item in items])
        labels = tuple(getattr(item, "label", None) for item in items)
        return Given(tuple(f[0] for f in found), labels, tuple(f[1] for f in found), flags)
    if not body:
        raise Problem(400, "BadRequest", "there is no picture in the request")
    query = request.query_params
    flags = {name: _true(query[name]) for name in _FLAGS if name in query}
    name = clean_name(query.get("name"))
    return Given((Source(name, lambda: body),), (query.get("label"),), (None,), flags)


async def _form(request: Request) -> Given:
    try:
        async with request.form(max_files=PICTURES, max_fields=PICTURES + 20) as form:
            files = [each for each in form.getlist("files") if isinstance(each, UploadFile)]
            pairs = [(clean_name(each.filename), await each.read()) for each in files]
            labels = [each for each in form.getlist("labels") if isinstance(each, str)]
            flags = {name: _true(str(form[name])) for name in _FLAGS if name in form}
    except (MultiPartException, HTTPException) as error:
        told = getattr(error, "detail", None) or str(error)
        raise Problem(400, "BadRequest", f"the form cannot be read: {told}") from None
    if not files:
        raise Problem(422, "BadRequest", "the form has no file in the field 'files'")
    if len(labels) == 1:
        labels *= len(files)
    if labels and len(labels) != len(files):
        raise Problem(
            422, "BadRequest", f"{len(files)} files came with {len(labels)} labels; give one each"
        )
    sources = tuple(Source(name, partial(bytes, data)) for name, data in pairs)
    none: tuple[str | None, ...] = (None,) * len(files)
    return Given(sources, tuple(labels) or none, none, flags)


def _source(serving: Serving, item: Picture, unread: bool) -> tuple[Source, str | None]:
    ways = [item.bytes, item.image, item.prediction]
    if sum(way is not None for way in ways) != 1:
        raise Problem(422, "BadRequest", "a picture is one of bytes, image and prediction")
    if item.bytes is not None:
        return Source(clean_name(item.name), partial(bytes, decoded(item.bytes))), None
    image = item.image
    if item.prediction is not None:
        image = serving.desk.asked(item.prediction)
        if image is None:
            raise UnknownImage(
                f"there is no answer {item.prediction!a} (they are kept for a day); give the "
                f"picture itself"
            )
    image = hash_of(serving, image or "")
    kept = serving.desk.picture(image)
    if kept is not None:
        return source(kept), None
    name = image[:19]
    if unread:
        return Source(name, lambda: serving.classifier.image(image)), image
    return Source(name, partial(bytes, serving.classifier.image(image))), image


def decoded(text: str) -> bytes:
    """Bytes from base64, or from a ``data:`` URI of it (Problem 422 if it is neither)."""
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise Problem(422, "BadRequest", "a data: URI must be in base64")
    try:
        return b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise Problem(422, "BadRequest", "bytes are not base64") from None


def clean_name(name: str | None) -> str:
    r"""A name to show: the last part of whatever a client calls a picture, without surprises.

    >>> clean_name("C:\\photos\\mug.jpg"), clean_name("../../etc/passwd"), clean_name(None)
    ('mug.jpg', 'passwd', 'picture')
    """
    last = (name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    kept = "".join(c for c in last if unicodedata.category(c)[0] != "C").strip()
    return kept[:_NAME] if kept.strip(".~-") else "picture"


def _true(text: str) -> bool:
    return text.lower() in {"1", "true", "yes", "on"}
