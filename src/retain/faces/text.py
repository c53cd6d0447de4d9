"""Words and numbers as every face writes them."""

from __future__ import annotations

from retain.markup import clean
from retain.trainings import Training

__all__ = ["clean", "counted", "epoch_cells", "percent", "training_said"]


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


def training_said(training: Training) -> str:
    """What was trained on what, in a sentence."""
    what = counted(training.pictures, "picture")
    if training.method is not None:
        what = f"lesson {training.lesson} by {training.method}: {what} that were new"
        if training.exemplars:
            what += f" and {counted(training.exemplars, 'exemplar')}"
    else:
        what = f"trained on {what}"
    held = f"{training.held_out:,} held out to judge"
    if not training.phases:
        return f"{what}, {held}; what was measured epoch by epoch is not kept"
    many = counted(len(training.epochs), "epoch")
    if len(training.phases) > 1:
        many += f" in {counted(len(training.phases), 'phase')}"
    return f"{what}, {held}; {many} in {training.seconds:,.1f} s"


def epoch_cells(training: Training) -> tuple[list[str], list[list[str]]]:
    """The heads of a table of all epochs, and a row for each."""
    several = len(training.phases) > 1
    judged = any(each.validation_loss is not None for each in training.epochs)
    heads = ["phase"] * several + ["epoch", "loss", "accuracy"]
    heads += ["validation loss", "validation accuracy"] * judged + ["rate"]
    rows = []
    for phase in training.phases:
        for each in phase.epochs:
            row = [phase.name] * several + [str(each.epoch), f"{each.loss:.4f}"]
            row += [percent(each.accuracy)]
            if judged:
                loss = each.validation_loss
                row += ["–" if loss is None else f"{loss:.4f}"]
                row += ["–" if loss is None else percent(each.validation_accuracy)]
            rows.append([*row, f"{each.rate:.3g}"])
    return heads, rows
