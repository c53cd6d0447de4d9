"""What goes wrong, as JSON: one shape for every error, and the choices where the gate refuses."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from retain import errors
from retain.refusal import UNWEIGHED
from retain.values import Update, Verdict, to_json

__all__ = ["Json", "Problem", "answer_to", "failure", "problem_of"]

_LOG: Final = logging.getLogger("retain.serve")

_STATUS: Final = (
    (errors.UnknownImage, 404),
    (errors.UnknownClass, 404),
    (errors.UnknownEvent, 404),
    (errors.MissingExtra, 501),
    (errors.InputError, 422),
    (errors.Refused, 409),
    (errors.Locked, 503),
    (errors.ReadOnly, 403),
    (errors.DiskFull, 507),
    (errors.StoreError, 503),
)

# Seconds after which what is refused for now may be asked again.
_AGAIN: Final = {429: "1", 503: "2"}


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


class Json(Response):
    """JSON in ASCII, so that no text that came in can fail to go out."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of some JSON value."""
        return _ENCODER.encode(content).encode("ascii")


class Problem(Exception):
    """Something the server itself refuses: a kind, a sentence, a status of HTTP."""

    def __init__(self, status: int, kind: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.more = more

    def to_json(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"error": self.kind, "message": str(self), "status": self.status, **self.more}


def problem_of(error: BaseException, hide: Mapping[str, str]) -> Problem:
    """An exception as a problem.

    Args:
        error: what was raised.
        hide: text → what to say instead, such as the path of the classifier → its name.
    """
    if isinstance(error, Problem):
        return error
    if not isinstance(error, errors.RetainError):
        return Problem(500, "Broken", "something broke in the server; its log says what")
    message = str(error)
    for secret, shown in hide.items():
        message = message.replace(secret, shown)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    more: dict[str, Any] = {}
    if isinstance(error, errors.GateRefused):
        more = {
            "verdict": to_json(error.verdict),
            "update": to_json(error.update),
            "choices": _choices(error),
        }
    return Problem(status, type(error).__name__, message, **more)


def failure(error: Exception, hide: Mapping[str, str], path: str) -> Json:
    """The answer where something went wrong; what nobody foresaw goes into the log as well."""
    problem = problem_of(error, hide)
    if problem.kind == "Broken":
        # Neither pictures nor what clients said: where it broke is enough.
        _LOG.error("%s failed: %s", path[:100], type(error).__name__, exc_info=error)
    return answer_to(problem)


def answer_to(problem: Problem) -> Json:
    """The answer to a request that cannot be done."""
    headers = {"Retry-After": _AGAIN[problem.status]} if problem.status in _AGAIN else {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="retain"'
    return Json(problem.to_json(), problem.status, headers)


def _choices(error: errors.GateRefused) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"choice": "leave", "sentence": "leave it as it is"},
        {"choice": "dry_run", "sentence": "look at what would happen", "set": {"dry_run": True}},
    ]
    verdict, update = error.verdict, error.update
    if isinstance(verdict, Verdict) and verdict.suspects:
        images = [each.image for each in verdict.suspects]
        doubt = f"the {len(images)} pictures" if len(images) > 1 else "the picture"
        found.append(
            {"choice": "exclude", "sentence": f"leave out {doubt} in doubt", "images": images}
        )
    if isinstance(update, Update) and update.kind == "correct":
        found.append(
            {
                "choice": "exception",
                "sentence": "let it answer for its own neighbourhood only",
                "set": {"exception": True},
            }
        )
    found.append(
        {"choice": "force", "sentence": "do it all the same", "set": {"force": True}}
        | {"role": "owner"}
    )
    checks = verdict.checks if isinstance(verdict, Verdict) else ()
    if any(each.name == "protected" and not each.passed for each in checks):
        found.append(
            {"choice": "protection", "sentence": "protect it no longer", "route": "/protect"}
        )
    if not (isinstance(update, Update) and update.kind in UNWEIGHED):
        found.append(
            {"choice": "gate", "sentence": "set other budgets", "route": "/gate", "role": "owner"}
        )
    return found
