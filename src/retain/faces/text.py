"""Words and numbers as every face writes them."""

from __future__ import annotations

from retain.markup import clean

__all__ = ["clean", "counted", "percent"]


def percent(share: float | None) -> str:
    """A share of 1 as a percentage, a dash for none.

    >>> percent(0.875)
    '87.5 %'
    """
    return "–" if share is None else f"{100 * share:.1f} %"


def counted(count: int, one: str, several: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "picture"), counted(1200, "picture"), counted(2, "class", "classes")
    ('1 picture', '1,200 pictures', '2 classes')
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"
