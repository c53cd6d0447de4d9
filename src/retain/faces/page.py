"""A whole page as the faces end it: with version, environment and date."""

from __future__ import annotations

import os
import platform
from datetime import datetime

import retain
from retain.faces.text import counted
from retain.markup import Html, el, header, page, section

__all__ = ["footer", "header", "page", "section"]


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
