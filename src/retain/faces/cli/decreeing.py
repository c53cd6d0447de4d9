"""The commands by which an owner says what a change may cost, and what it may never: gate, protect.

Each is an event like any other.
"""

from __future__ import annotations

from typing import Annotated

import typer

from retain.faces.cli.common import Json, Name, answered, opened
from retain.faces.cli.interrupting import held
from retain.faces.cli.output import Column, line, table
from retain.faces.text import clean

__all__ = ["gate", "protect"]


def gate(
    name: Name,
    regressions: Annotated[
        float | None, typer.Option(min=0, help="Net share of all remembered pictures lost.")
    ] = None,
    class_regressions: Annotated[
        float | None, typer.Option(min=0, help="The same within one class.")
    ] = None,
    new_class_accuracy: Annotated[
        float | None, typer.Option(min=0, help="Wanted of a new class, left out.")
    ] = None,
    calibration: Annotated[
        float | None, typer.Option(min=0, help="Growth of the likelihood's negative log, in nats.")
    ] = None,
    agreement: Annotated[
        float | None, typer.Option(min=0, help="Share of the reference answered otherwise.")
    ] = None,
    correction: Annotated[
        float | None, typer.Option(min=0, help="Share that one edit of the head may make worse.")
    ] = None,
    wrong_labels: Annotated[
        float | None, typer.Option(min=0, help="Chance below which labels are called wrong.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show or set what a change may cost."""
    given = {
        "regressions": regressions,
        "class_regressions": class_regressions,
        "new_class_accuracy": new_class_accuracy,
        "calibration": calibration,
        "agreement": agreement,
        "correction": correction,
        "wrong_labels": wrong_labels,
    }
    with opened(name) as classifier:
        held()
        budgets = classifier.gate(**{k: v for k, v in given.items() if v is not None})
    if not answered(budgets, as_json=as_json):
        rows = [(field.replace("_", "-"), f"{getattr(budgets, field):g}") for field in given]
        table([Column("budget"), Column("value", right=True)], rows)


def protect(
    name: Name,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE", help="Remembered pictures, by file or by hash."),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="A whole class; may be repeated.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Lift the protection.")] = False,
    as_json: Json = False,
) -> None:
    """Say which pictures and classes must never get worse."""
    with opened(name) as classifier:
        held()
        update = classifier.protect(images or [], label or [], off=off)
    if not answered(update, as_json=as_json):
        line(clean(update.summary), style="bold")
