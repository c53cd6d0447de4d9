"""The commands that hand a classifier on: export, pack, unpack."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from retain.faces.cli.common import Json, Name, answered, opened
from retain.faces.cli.output import line
from retain.faces.text import clean, counted

__all__ = ["export", "pack", "unpack"]


class Format(StrEnum):
    """What an exported file is."""

    onnx = "onnx"
    torch = "torch"


def export(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    version: Annotated[
        str | None, typer.Option("--version", help="An event or an alias; else the latest.")
    ] = None,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="onnx runs anywhere; torch, with the extra train and where the network is known "
            "as a PyTorch module, is a state dict for retain.train.load_exported.",
        ),
    ] = Format.onnx,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: Json = False,
) -> None:
    """Write it as one file that answers without retain's directory."""
    with opened(name) as classifier:
        made = classifier.export(file, version=version, format=form.value, overwrite=overwrite)
    if not answered(made, as_json=as_json):
        line(f"wrote {clean(made.path)}: {made.bytes:,} bytes, {made.classes:,} classes")
        line(
            f"held against predict on {counted(made.compared, 'picture')}: all labels equal, "
            f"probabilities to {made.worst_difference:.0e}"
            + (f"; its output is {clean(made.output)}" if form is Format.onnx else "")
        )
        if form is Format.torch:
            line(f"in Python: retain.train.load_exported({clean(repr(made.path))})")


def pack(
    name: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write, such as shop.retain.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: Json = False,
) -> None:
    """Write all of it as one file, to be taught again."""
    with opened(name) as classifier:
        made = classifier.pack(file, overwrite=overwrite)
    if not answered(made, as_json=as_json):
        line(f"packed {counted(made.files, 'file')} into {clean(made.path)}: {made.bytes:,} bytes")
        line(f"to have it again: retain unpack NAME {clean(made.path)}")


def unpack(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What retain pack wrote.")],
    as_json: Json = False,
) -> None:
    """Make a classifier of a packed one."""
    import retain

    with retain.unpack(file, name) as made:
        status = made.status()
    if not answered(status, as_json=as_json):
        line(
            f"unpacked {clean(name)}: {counted(status.images, 'picture')}, "
            f"{counted(status.classes, 'class', 'classes')}, {counted(status.events, 'event')}; "
            f"every digest is right"
        )
