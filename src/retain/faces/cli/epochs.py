"""What the commands show of a training: a table of its epochs, and a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from retain.errors import GateRefused
from retain.faces.cli.output import Column, line, note, table
from retain.faces.text import clean, epoch_cells, training_said
from retain.values import Training, Update

if TYPE_CHECKING:
    from retain import Classifier

__all__ = ["paged", "told_training", "write_run"]


def told_training(training: Training) -> None:
    """What was trained, and a row for each epoch."""
    line(clean(training_said(training)))
    if not training.epochs:
        return
    heads, rows = epoch_cells(training)
    table([Column(head, head != "phase") for head in heads], rows)


def paged(page: Path | None, classifier: Classifier, train: Callable[[], Update]) -> Update:
    """What a training comes to, with a page about it; the page is written where it is refused too.

    Raises:
        GateRefused: as `train` does.
    """
    try:
        update = train()
    except GateRefused as error:
        if isinstance(error.update, Update):
            _write(page, classifier, error.update)
            if page is not None:
                note(f"page: {clean(page)}")
        raise
    _write(page, classifier, update)
    return update


def _write(page: Path | None, classifier: Classifier, update: Update) -> None:
    if update.training is not None:
        write_run(page, classifier, update.training, "retain adapt", update)


def write_run(
    page: Path | None,
    classifier: Classifier,
    training: Training,
    over: str,
    update: Update | None = None,
) -> None:
    """Write a page about a training, if one is wanted; see `training_page`."""
    if page is not None:
        from retain.faces.trained import training_page

        text = training_page(
            training,
            name=classifier.path.name,
            over=over,
            update=update,
            classifier=classifier,
        )
        page.write_text(text, encoding="utf-8")
