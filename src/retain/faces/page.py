"""A whole page: the document, its header, its sections, its footer; nothing from elsewhere."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from importlib.resources import files

import retain
from retain.faces.html import Child, Html, el
from retain.faces.text import counted

__all__ = ["footer", "header", "page", "section"]


def page(title: str, *sections: Child) -> str:
    """A whole document that needs nothing from elsewhere."""
    style = (files("retain") / "faces" / "report.css").read_text(encoding="utf-8")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Html(style)),
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


def footer(*notes: str) -> Html:
    """Version, environment, date, and further notes."""
    import numpy

    environment = (
        f"retain {retain.__version__}, Python {platform.python_version()}, NumPy "
        f"{numpy.__version__}, {platform.system()} {platform.machine()}, "
        f"{counted(os.cpu_count() or 1, 'processor')}"
    )
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return el("footer", el("p", f"{environment}. Made {made}."), [el("p", each) for each in notes])
