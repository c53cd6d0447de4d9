"""Pages that need nothing from elsewhere: elements that escape what they are given."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from importlib.resources import files

__all__ = ["Child", "Html", "clean", "el", "header", "meter", "page", "section", "table", "tile"]

_VOID = frozenset({"img", "br", "meta"})
# Joiners hold emoji and several scripts together; every other format character can only deceive.
_JOINERS = "\u200c\u200d"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class Html(str):
    """Text that is markup already; every other text is escaped."""

    __slots__ = ()


Child = str | Html | Iterable["str | Html"] | None


def el(tag: str, *children: Child, **attributes: str | bool | None) -> Html:
    """One element; a trailing underscore in an attribute's name is dropped, inner ones are dashes.

    >>> el("p", "1 < 2", class_="small")
    '<p class="small">1 &lt; 2</p>'
    """
    written = "".join(
        f" {_attribute(name)}" if value is True else f' {_attribute(name)}="{_safe(str(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{_joined(children)}</{tag}>")


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


def tile(value: str, what: str, note: str = "", tone: str = "") -> Html:
    """One key figure: the number, what it is, and a line of context."""
    return el(
        "li",
        el("span", value, class_="value"),
        el("span", what, class_="what"),
        el("span", note, class_="note") if note else None,
        class_=f"tile {tone}".strip(),
    )


def meter(share: float, tone: str = "") -> Html:
    """A share of 1 as a bar; the number must stand beside it."""
    return el(
        "span",
        el("span", style=f"width:{100 * min(max(share, 0), 1):.1f}%"),
        class_=f"meter {tone}".strip(),
        aria_hidden="true",
    )


def table(
    caption: str,
    headings: Sequence[tuple[str, bool]],
    rows: Iterable[Sequence[Child]],
) -> Html:
    """A table whose first column names the row; headings are (text, set to the right)."""
    return el(
        "div",
        el(
            "table",
            el("caption", caption),
            el(
                "thead",
                el(
                    "tr",
                    [
                        el("th", title, scope="col", class_="right" if right else None)
                        for title, right in headings
                    ],
                ),
            ),
            el("tbody", [_row(cells, headings) for cells in rows]),
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def page(title: str, *sections: Child, style: str = "") -> str:
    """A whole document that needs nothing from elsewhere; `style` adds to the common look."""
    look = (files("retain") / "markup.css").read_text(encoding="utf-8")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Html(look + style)),
    )
    return f"<!doctype html>\n{el('html', head, el('body', el('main', *sections)), lang='en')}\n"


def header(over: str, title: str, sentence: str) -> Html:
    """The top: a line above, the title, one paragraph."""
    return el(
        "header", el("p", over, class_="over"), el("h1", title), el("p", sentence, class_="lead")
    )


def section(title: str, sentence: str | None, *content: Child) -> Html:
    """A part of a page under its heading."""
    return el("section", el("h2", title), el("p", sentence) if sentence else None, *content)


def _row(cells: Sequence[Child], headings: Sequence[tuple[str, bool]]) -> Html:
    first, *rest = cells
    return el(
        "tr",
        el("th", first, scope="row"),
        [
            el("td", cell, class_="right" if right else None)
            for cell, (_, right) in zip(rest, headings[1:], strict=True)
        ],
    )


def _joined(children: Iterable[Child]) -> str:
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            parts.append(_safe(child))
        else:
            parts.append(_joined(child))
    return "".join(parts)


def _safe(text: str) -> str:
    return text if isinstance(text, Html) else html.escape(clean(text), quote=True)


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _escaped(character: str) -> str:
    # Python keeps a byte that is no text as a lone surrogate; the byte is what its owner knows.
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
