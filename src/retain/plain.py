"""Values as what JSON knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any

__all__ = ["to_json"]


def to_json(value: Any) -> Any:
    """Values of `retain`, which are data classes, as dictionaries, lists, strings and numbers.

    >>> from retain.values import Skipped
    >>> to_json(Skipped("a.txt", "not a picture"))
    {'path': 'a.txt', 'reason': 'not a picture'}
    """
    if (fields := _fields(value.__class__)) is not None:
        return {name: to_json(getattr(value, name)) for name in fields}
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    return value


@cache
def _fields(kind: type) -> tuple[str, ...] | None:
    """The names of a data class's fields that are shown; None if it is none."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind) if field.repr)
