"""Two shapes that clients speak already: Open Inference Protocol v2, and Hugging Face's.

Sources: the Open Inference Protocol's "Predict Protocol - Version 2" with its binary tensor data
extension, and the image-classification task of Hugging Face's inference endpoints.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray
from starlette.responses import Response

import retain
from retain.errors import NothingLearned
from retain.faces.server.asked import Asked, Reader, version_of
from retain.faces.server.bodies import decoded, parsed
from retain.faces.server.problems import Json, Problem
from retain.faces.server.serving import Answers, Serving
from retain.faces.server.settings import PICTURES
from retain.values import Source
from retain.vision import encode_array, encode_vector

__all__ = ["router"]

router: Final = APIRouter(tags=["protocols"])

_EVERY: Final = 1_000_000
_OUTPUTS: Final = ("label", "probability", "unknown", "classes", "probabilities")
_NUMBERS: Final[dict[str, np.dtype[Any]]] = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "UINT8": np.dtype("u1"),
}

# -- Open Inference Protocol v2 ------------------------------------------------------------------


@router.get("/v2")
async def server(asked: Reader) -> Response:
    """The server's name and version."""
    return Json(
        {"name": "retain", "version": retain.__version__, "extensions": ["binary_tensor_data"]}
    )


@router.get("/v2/health/live")
async def live() -> Response:
    """Whether it runs."""
    return Json({"live": True})


@router.get("/v2/health/ready")
async def ready(request: Request) -> Response:
    """Whether it answers."""
    serving: Serving = request.app.state.serving
    known = await serving.read(lambda: bool(serving.classifier.labels))
    return Json({"ready": known}, 200 if known else 400)


@router.get("/v2/models/{name}")
@router.get("/v2/models/{name}/versions/{version}")
async def model(asked: Reader, name: str, version: str | None = None) -> Response:
    """What goes in and what comes out."""
    serving = _named(asked, name)
    vectors = serving.extractor.startswith("vectors:")
    images: dict[str, Any] = {"name": "images", "datatype": "BYTES", "shape": [-1]}
    if vectors:
        dimension = int(serving.extractor.partition(":")[2])
        images = {"name": "images", "datatype": "FP32", "shape": [-1, dimension]}
    listed = await serving.read(serving.classifier.versions)
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probability", "datatype": "FP32", "shape": [-1]},
        {"name": "unknown", "datatype": "BOOL", "shape": [-1]},
        {"name": "classes", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, -1]},
    ]
    return Json(
        {
            "name": serving.settings.name,
            "versions": [str(each.event) for each in listed],
            "platform": "retain",
            "inputs": [images],
            "outputs": outputs,
        }
    )


@router.get("/v2/models/{name}/ready")
@router.get("/v2/models/{name}/versions/{version}/ready")
async def model_ready(asked: Reader, name: str, version: str | None = None) -> Response:
    """Whether this classifier answers."""
    serving = _named(asked, name)
    known = await serving.read(lambda: bool(serving.classifier.labels))
    return Json({"name": serving.settings.name, "ready": known}, 200 if known else 400)


@router.post("/v2/models/{name}/infer")
@router.post("/v2/models/{name}/versions/{version}/infer")
async def infer(asked: Reader, name: str, version: str | None = None) -> Response:
    """Answer pictures, as tensors."""
    serving = _named(asked, name)
    body = await asked.request.body()
    length = asked.request.headers.get("inference-header-content-length")

    def understood() -> tuple[dict[str, Any], list[Source]]:
        value, binary = _parts(body, length)
        return value, _pictures(value, binary)

    value, pictures = await serving.read(understood)
    asked_for = value.get("outputs") or [{"name": each} for each in _OUTPUTS]
    if not isinstance(asked_for, list):
        raise Problem(400, "BadRequest", "outputs must be a list")
    names = [each.get("name") if isinstance(each, dict) else None for each in asked_for]
    for each in names:
        if each not in _OUTPUTS:
            raise Problem(400, "BadRequest", f"there is no output {each!a}")
    found = await serving.predict(pictures, top=_EVERY, version=version_of(version))
    if found.skipped:
        first = found.skipped[0]
        raise Problem(422, "BadImage", f"{first.path}: {first.reason}")
    told: dict[str, Any] = {
        "model_name": serving.settings.name,
        "model_version": str(found.event),
        "outputs": [_output(str(each), found) for each in names],
    }
    if isinstance(value.get("id"), str):
        told["id"] = value["id"]
    return Json(told)


def _named(asked: Asked, name: str) -> Serving:
    if name != asked.serving.settings.name:
        raise Problem(404, "NotFound", f"there is no model {name!a}")
    return asked.serving


def _parts(body: bytes, length: str | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON of a request, and the binary data after it."""
    if length is not None and not (length.isascii() and length.isdecimal() and len(length) < 12):
        raise Problem(400, "BadRequest", "Inference-Header-Content-Length is not a number")
    end = len(body) if length is None else int(length)
    if end > len(body):
        raise Problem(400, "BadRequest", "the body is shorter than its header says")
    value = parsed(body[:end])
    if not isinstance(value, dict):
        raise Problem(400, "BadRequest", "the body is not an object")
    return value, memoryview(body)[end:]


def _pictures(value: dict[str, Any], binary: memoryview) -> list[Source]:
    inputs = value.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Problem(400, "BadRequest", "give one input, 'images'")
    given = inputs[0]
    shape, kind, data = given.get("shape"), given.get("datatype"), given.get("data")
    good = isinstance(shape, list) and 1 <= len(shape) <= 4
    if not good or any(type(n) is not int or not 0 < n <= 2**31 for n in shape or []):
        raise Problem(400, "BadRequest", "the input's shape is not a list of positive numbers")
    assert isinstance(shape, list)
    _check_count(shape[0])
    parameters = given.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and (type(size) is not int or size != len(binary)):
        raise Problem(400, "BadRequest", "binary_data_size is not what follows the JSON")
    if kind == "BYTES":
        parts = _strings(data) if size is None else _binary_strings(binary)
        if len(parts) != int(np.prod(shape, dtype=object)):
            raise Problem(400, "BadRequest", f"{len(parts)} pictures came with shape {shape}")
        return [_source(i, part) for i, part in enumerate(parts)]
    if not isinstance(kind, str) or kind not in _NUMBERS:
        raise Problem(400, "BadRequest", "images are BYTES, UINT8 [n, h, w, 3] or FP32 [n, d]")
    array = _array(data if size is None else binary, _NUMBERS[kind], shape)
    if kind == "UINT8":
        if array.ndim != 4 or array.shape[3] != 3:
            raise Problem(400, "BadRequest", "UINT8 pictures are [n, h, w, 3], RGB")
        return [_source(i, encode_array(each)) for i, each in enumerate(array)]
    if array.ndim != 2:
        raise Problem(400, "BadRequest", "vectors are [n, d]")
    return [_source(i, encode_vector(each)) for i, each in enumerate(array)]


def _check_count(count: int) -> None:
    """Before anything is made of them: a short body may speak of millions (Problem 413)."""
    if count > PICTURES:
        raise Problem(413, "TooLarge", f"{PICTURES:,} pictures at most in one request")


def _source(i: int, data: bytes) -> Source:
    return Source(f"images[{i}]", lambda: data)


def _strings(data: Any) -> list[bytes]:
    if not isinstance(data, list) or not all(isinstance(each, str) for each in data):
        raise Problem(400, "BadRequest", "BYTES in JSON are texts in base64")
    _check_count(len(data))
    return [decoded(each) for each in data]


def _binary_strings(binary: memoryview) -> list[bytes]:
    """Each with its length before it, four bytes, little-endian."""
    found: list[bytes] = []
    at = 0
    while at < len(binary):
        _check_count(len(found) + 1)
        size = int.from_bytes(binary[at : at + 4], "little")
        if at + 4 + size > len(binary):
            raise Problem(400, "BadRequest", "the binary data end in the middle of a picture")
        found.append(bytes(binary[at + 4 : at + 4 + size]))
        at += 4 + size
    return found


def _array(data: Any, kind: np.dtype[Any], shape: list[int]) -> NDArray[Any]:
    count = int(np.prod(shape, dtype=object))
    try:
        if isinstance(data, memoryview):
            flat = np.frombuffer(data, kind)
        else:
            wide = np.asarray(data, np.float64).reshape(-1)
            if kind.kind == "u" and not ((wide >= 0) & (wide <= 255) & (wide % 1 == 0)).all():
                raise ValueError("UINT8 are whole numbers from 0 to 255")
            with np.errstate(over="ignore"):
                flat = wide.astype(kind)
        if len(flat) != count:
            raise ValueError(f"{len(flat)} numbers came with shape {shape}")
        return flat.reshape(shape)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Problem(400, "BadRequest", f"the input cannot be read: {error}") from None


def _output(name: str, found: Answers) -> dict[str, Any]:
    answers, n = found.answers, len(found.answers)
    classes = sorted({score.label for each in answers[:1] for score in each.top})
    if name == "label":
        return _tensor(name, "BYTES", [n], [each.label for each in answers])
    if name == "probability":
        return _tensor(name, "FP32", [n], [each.probability for each in answers])
    if name == "unknown":
        return _tensor(name, "BOOL", [n], [each.unknown for each in answers])
    if name == "classes":
        return _tensor(name, "BYTES", [len(classes)], classes)
    rows = [{score.label: score.probability for score in each.top} for each in answers]
    flat = [row[label] for row in rows for label in classes]
    return _tensor(name, "FP32", [n, len(classes)], flat)


def _tensor(name: str, kind: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": shape, "data": data}


# -- Hugging Face, image classification ------------------------------------------------------------


@router.post("/")
@router.post("/models/{name:path}")
async def classify(
    asked: Reader, name: str | None = None, top_k: Annotated[int, Query(ge=1, le=1000)] = 5
) -> Response:
    """An image in, labels and scores out."""
    if name is not None:
        _named(asked, name)
    body = await asked.request.body()
    kind = asked.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    several = False
    pictures = [body]
    if kind == "application/json":
        value = parsed(body)
        inputs = value.get("inputs") if isinstance(value, dict) else None
        several = isinstance(inputs, list)
        given = inputs if isinstance(inputs, list) else [inputs]
        texts = [each for each in given if isinstance(each, str)]
        if not texts or len(texts) != len(given):
            raise Problem(422, "BadRequest", "inputs must be an image in base64, or a list of them")
        _check_count(len(texts))
        parameters = value.get("parameters") or {}
        wanted = parameters.get("top_k", top_k) if isinstance(parameters, dict) else None
        if type(wanted) is not int or not 1 <= wanted <= 1000:
            raise Problem(422, "BadRequest", "top_k is a number from 1 to 1,000")
        top_k, pictures = wanted, [decoded(each) for each in texts]
    if not all(pictures):
        raise Problem(400, "BadRequest", "there is no picture in the request")
    sources = [_source(i, each) for i, each in enumerate(pictures)]
    found = await asked.serving.predict(sources, top=top_k)
    if found.skipped:
        raise Problem(422, "BadImage", found.skipped[0].reason)
    if not found.answers:
        raise NothingLearned("nothing has been learned yet")
    rows = [
        [{"label": score.label, "score": score.probability} for score in each.top]
        for each in found.answers
    ]
    return Json(rows if several else rows[0])
