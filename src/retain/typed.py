"""Values of options, checked by the types of what they are for; text is read, as far as it can be.

>>> read("temperature", float, "2.5"), read("exemplars", bool, "No"), read("clip", float | None, 1)
(2.5, False, 1)
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from typing import Any, Final, Literal, Union, final, get_args, get_origin, get_type_hints

from retain.errors import BadOption

__all__ = ["ABOVE_0", "FROM_0", "FROM_1", "INSIDE", "SHARE", "Limit"]
__all__ += ["checked", "fields_read", "hints_of", "limited", "read"]

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


@final
@dataclass(frozen=True, slots=True)
class Limit:
    """Which numbers an option may have.

    Attributes:
        words: that say it.
        holds: whether a number is one of them.
    """

    words: str
    holds: Callable[[float], bool]


FROM_0: Final = Limit("from 0 on", lambda value: value >= 0)
FROM_1: Final = Limit("from 1 on", lambda value: value >= 1)
ABOVE_0: Final = Limit("above 0", lambda value: value > 0)
SHARE: Final = Limit("from 0 to 1", lambda value: 0 <= value <= 1)
INSIDE: Final = Limit("between 0 and 1", lambda value: 0 < value < 1)


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
    raise _refused(name, choices, value)


def limited(name: str, hint: Any, value: Any, limit: Limit | None = None) -> None:
    """Raise unless a value is of a type as it is, and a number within its limit.

    Args:
        name: of the option.
        hint: its type, as for `read`; text is text here, and says nothing else.
        value: to be checked.
        limit: of numbers; None for any that is finite.

    Raises:
        BadOption: if it does not fit; it says what does.

    >>> limited("every", int | None, 0, FROM_1)
    Traceback (most recent call last):
    retain.errors.BadOption: every is 0; give a whole number from 1 on or none
    """
    choices = _choices(hint)
    fits = any(_is(each, value) for each in choices)
    if not fits or not (limit is None or value is None or limit.holds(value)):
        raise _refused(name, choices, value, limit)


def checked(made: Any, **limits: Limit) -> None:
    """Raise unless every field of a dataclass has a value of its type, and within its limit.

    Args:
        made: of the dataclass.
        **limits: of its numbers, by name.

    Raises:
        BadOption: which names the first field that does not fit, and says what does.
    """
    kind: Any = type(made)
    hints = hints_of(kind)
    for each in fields(made):
        limited(each.name, hints[each.name], getattr(made, each.name), limits.get(each.name))


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
        return next((each for each in get_args(hint) if value is each or text == each), _NOT)
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


def _is(hint: Any, value: Any) -> bool:
    found = _fitting(hint, value)
    # What is read from text is something else, but for the words that it may be.
    return found is value or (isinstance(value, str) and found == value)


def _refused(
    name: str, choices: tuple[Any, ...], value: Any, limit: Limit | None = None
) -> BadOption:
    said = dict.fromkeys(word for each in choices for word in _called(each))
    bounds = f" {limit.words}" if limit else ""
    *first, last = (f"{word}{bounds}" if "number" in word else word for word in said)
    return BadOption(f"{name} is {value!r}; give {', '.join(first)}{' or ' if first else ''}{last}")


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
