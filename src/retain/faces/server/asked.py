"""What every route needs: the classifier's server, who asks, and whether that may be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, final

from fastapi import Depends, Request
from pydantic import BaseModel

from retain.errors import UnknownEvent
from retain.faces.server.problems import Problem
from retain.faces.server.serving import Serving
from retain.faces.server.tokens import Who

__all__ = ["Asked", "Owner", "Reader", "Teacher", "pictures_body", "version_of"]

_LAST: Final = 2**31 - 1


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may be done: the server, who asks, and the request itself."""

    serving: Serving
    who: Who
    request: Request

    @property
    def hide(self) -> dict[str, str]:
        """What no message may tell: where the classifier is."""
        return {str(self.serving.settings.path): self.serving.settings.name}

    def check_force(self, force: bool) -> None:
        """Only the owner overrules the gate (Problem 403)."""
        if force and not self.who.may("owner"):
            raise Problem(403, "Forbidden", "only the owner may force what the gate refuses")


def _needs(role: str) -> Callable[[Request], Awaitable[Asked]]:
    # Asynchronous, since what is not would be run in a thread of its own.
    async def asked(request: Request) -> Asked:
        who: Who = request.scope["retain.who"]
        if not who.may(role):
            if who.name == "anonymous":
                raise Problem(401, "Unauthorized", f"this needs the token of {_a(role)}")
            raise Problem(403, "Forbidden", f"this is for {_a(role)}; {who.name} is {who.role}")
        return Asked(request.app.state.serving, who, request)

    return asked


def _a(role: str) -> str:
    return f"{'an' if role == 'owner' else 'a'} {role}"


Reader = Annotated[Asked, Depends(_needs("reader"))]
Teacher = Annotated[Asked, Depends(_needs("teacher"))]
Owner = Annotated[Asked, Depends(_needs("owner"))]


def version_of(text: str | None) -> int | str | None:
    """A version as the classifier takes it: a number or an alias; None for the latest."""
    if text is None or not text.isascii() or not text.isdecimal():
        return text
    if len(text) > 10 or int(text) > _LAST:
        raise UnknownEvent(f"there is no event {text[:40]}")
    return int(text)


def pictures_body(model: type[BaseModel], *, labels: bool = False) -> dict[str, Any]:
    """How a body that holds pictures is described in the API's own description."""
    files: dict[str, Any] = {
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    }
    if labels:
        files["labels"] = {"type": "array", "items": {"type": "string"}}
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = schema.pop("$defs", {})
    content = {
        "application/json": {"schema": _inlined(schema, parts)},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": files, "required": ["files"]}
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: Any, parts: dict[str, Any]) -> Any:
    """A schema in which every reference is replaced by what it refers to."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(parts[schema["$ref"].rpartition("/")[2]], parts)
        return {key: _inlined(value, parts) for key, value in schema.items()}
    return [_inlined(each, parts) for each in schema] if isinstance(schema, list) else schema
