"""Values of options, checked by the types of what they are for; text is read, as far as it can be.

>>> read("temperature", float, "2.5"), read("exemplars", bool, "No"), read("clip", float | None, 1)
(2.5, False, 1)
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from functools import cache
from numbers import Integral, Real
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from retain.errors import BadOption

__all__ = ["fields_read", "hints_of", "read"]

_WORDS: Final = {"true": True, "yes": True, "false": False, "no": False}

_CALLED: Final[Mapping[Any, tuple[str, ...]]] = types.MappingProxyType(
    {
        types.NoneType: ("none",),
        bool: ("true", "false"),
        int: ("a whole number",),
        float: ("a number",),
        str: ("text",),
    }
)

_NOT: Final = object()
"""What a value is that does not fit."""


def read(name: str, hint: Any, value: Any) -> Any:
    """A value for an option, checked; text becomes what it says.

    Args:
        name: of the option.
        hint: its type: bool, a number, text, literals, numbers in a row, any class, or one of
            several of these. Only what is given as it is can be of any other class.
        value: text, or what the type asks for. Text says none in any case, true, false, yes and no
            likewise, and numbers in a row with commas between them.

    Raises:
        BadOption: if it does not fit; it says what does.

    >>> read("milestones", tuple[float, ...], "0.5,0.75")
    (0.5, 0.75)
    """
    choices = _choices(hint)
    for each in choices:
        found = _fitting(each, value)
        if found is not _NOT:
            return found
    if isinstance(value, str) and not any(
        _as_text(each) for each in choices if each != types.NoneType
    ):
        raise BadOption(f"{name} cannot be given as text; give it from Python")
    words = dict.fromkeys(word for each in choices for word in _called(each))
    *first, last = words
    raise BadOption(f"{name} is {value!r}; give {', '.join(first)}{' or ' if first else ''}{last}")


def fields_read(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for fields of a dataclass, checked one by one as `read` does.

    Raises:
        BadOption: if one does not fit.
    """
    hints = hints_of(kind)
    return {name: read(name, hints[name], value) for name, value in given.items()}


@cache
def hints_of(kind: Any) -> Mapping[str, Any]:
    """The types of the fields of a class, or of the arguments of a function, by name."""
    return types.MappingProxyType(get_type_hints(kind))


def _choices(hint: Any) -> tuple[Any, ...]:
    several = get_origin(hint) in (Union, types.UnionType)
    # Any text is text: whether it says something else is asked first.
    return tuple(sorted(get_args(hint), key=lambda each: each is str)) if several else (hint,)


def _fitting(hint: Any, value: Any) -> Any:
    """The value, read if it is text, or `_NOT`."""
    text = value.strip() if isinstance(value, str) else None
    if get_origin(hint) is Literal:
        return value if any(value is each or text == each for each in get_args(hint)) else _NOT
    if get_origin(hint) is tuple:
        return _row(get_args(hint)[0], value if text is None else text.split(","))
    if hint is types.NoneType:
        return None if value is None or (text or "").lower() == "none" else _NOT
    if hint is bool:
        return _WORDS.get(text.lower(), _NOT) if text is not None else _same(bool, value)
    if hint in (int, float):
        return _number(hint, value if text is None else _counted(text))
    if hint is str:
        # Where numbers have been read from text already: a layer may be called 3.
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return str(value) if number else _same(str, value)
    return _same(hint, value)


def _same(hint: Any, value: Any) -> Any:
    return value if isinstance(value, hint) else _NOT


def _number(hint: Any, value: Any) -> Any:
    kind: Any = Integral if hint is int else Real
    fits = isinstance(value, kind) and not isinstance(value, bool) and -math.inf < value < math.inf
    return value if fits else _NOT


def _counted(text: str) -> Any:
    """The number that a text says; a whole one stays whole, where any will do."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return _NOT


def _row(hint: Any, values: Any) -> Any:
    if not isinstance(values, list | tuple):
        return _NOT
    found = tuple(_fitting(hint, each) for each in values)
    return _NOT if any(each is _NOT for each in found) else found


def _as_text(hint: Any) -> bool:
    return get_origin(hint) in (Literal, tuple) or hint in (bool, int, float, str)


def _called(hint: Any) -> tuple[str, ...]:
    if get_origin(hint) is Literal:
        return tuple(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return ("numbers with commas between them",)
    return _CALLED.get(hint) or (f"a {hint.__name__}",)
