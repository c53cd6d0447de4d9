"""Words and numbers as every face writes them."""

from __future__ import annotations

import unicodedata

__all__ = ["clean", "counted", "percent"]

# Joiners hold emoji and several scripts together; every other format character can only deceive.
_JOINERS = "\u200c\u200d"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def clean(text: object) -> str:
    r"""Text with control, format and undecodable characters escaped, safe to show anywhere.

    >>> clean("two\nlines \x1b[31mred")
    'two\\nlines \\x1b[31mred'
    """
    return "".join(
        character
        if character in _JOINERS or unicodedata.category(character) not in _HIDDEN
        else _escaped(character)
        for character in str(text)
    )


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


def _escaped(character: str) -> str:
    # Python keeps a byte that is no text as a lone surrogate; the byte is what its owner knows.
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
