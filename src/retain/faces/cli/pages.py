"""Where a page may be written: checked before the work, and never in the place of anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from retain.faces.cli.failures import Mistake
from retain.faces.text import clean

__all__ = ["PageFile", "RunFile", "refuse_page"]

PageFile = Annotated[
    Path | None, typer.Option("--html", help="Also write a page with the pictures, to look at.")
]

RunFile = Annotated[
    Path | None, typer.Option("--html", help="Also write a page with the curves of the training.")
]

_SUFFIXES: Final = (".html", ".htm")
_BEGINNING: Final = b"<!doctype html>"


def refuse_page(page: Path | None, *, makes_folder: bool = False) -> None:
    """Say no to a page that would take the place of what is no page, or has no folder to be in.

    Args:
        page: the file to be written, if one is.
        makes_folder: whether the folder is made where it is missing.

    Raises:
        Mistake: with what to give instead.
    """
    if page is None:
        return
    for folder in page.absolute().resolve().parents:
        if (folder / "manifest.json").is_file() and (folder / "journal.db").is_file():
            raise Mistake(
                f"{clean(page)} lies inside the classifier {clean(folder)}, where nothing else is "
                f"written; name a file outside of it, such as {clean(folder.name)}.html"
            )
    if page.is_dir():
        raise Mistake(f"{clean(page)} is a folder; name a file, such as {clean(page)}/page.html")
    if page.is_file():
        if page.suffix.lower() not in _SUFFIXES and not _is_page(page):
            raise Mistake(
                f"{clean(page)} exists and is no page; name another file, such as "
                f"{clean(page.with_suffix('.html'))}, or remove it first"
            )
    elif not makes_folder and not page.parent.is_dir():
        raise Mistake(
            f"{clean(page)} cannot be written: there is no folder {clean(page.parent)}; make it "
            f"first, or name a file elsewhere"
        )


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_BEGINNING)).lower() == _BEGINNING
