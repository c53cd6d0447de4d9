"""The page about one training: its curves, what the gate said of it, what it changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from retain.classifier import Classifier
from retain.faces.differing import changes
from retain.faces.html import Child, Html, el, table, tile
from retain.faces.page import footer, header, page, section
from retain.faces.text import epoch_cells, percent, training_said
from retain.plots import Line, curves, figure, look, named
from retain.values import Training, TrainingEpoch, Update, Verdict

__all__ = ["training_page"]

_Values = Sequence[tuple[str, str, Callable[[TrainingEpoch], float | None]]]
"""Name, CSS class and value of each line of a figure."""

_COLOURS = 6


def training_page(
    training: Training,
    *,
    name: str,
    over: str,
    update: Update | None = None,
    classifier: Classifier | None = None,
) -> str:
    """A page about one training.

    Args:
        training: what was measured.
        name: of the classifier.
        over: the command that the page is of.
        update: what came of it, where that is known; also a refused one.
        classifier: that has its pictures; needed with `update`.
    """
    said = training_said(training)
    sections: list[Child] = [
        header(over, f"How {name} was trained", f"{said[0].upper()}{said[1:]}."),
        _tiles(training, update),
    ]
    if training.epochs:
        sections.append(section("Epoch by epoch", _measured(training), *_figures(training)))
        sections.append(section("The numbers", None, _rows(training)))
    if update is not None and update.verdict is not None:
        sections.append(_gate(update.verdict))
    if update is not None and classifier is not None:
        sections += changes(classifier, update)
    return page(f"{name}: training", *sections, footer(), style=look())


def _measured(training: Training) -> str:
    told = (
        "Loss and accuracy are means over the pictures of an epoch as they were seen, augmented, "
        "while the network changed. "
    )
    if any(each.validation_loss is not None for each in training.epochs):
        return told + (
            "Validation is on pictures that are not learned from and tell when it is enough; the "
            "gate judges by others."
        )
    return told + "The pictures that were held out judge once, at the end."


def _tiles(training: Training, update: Update | None) -> Html:
    tiles = []
    if update is not None and update.verdict is not None:
        said, tone = _answer(update.verdict)
        used = "in place" if update.event is not None else "nothing has changed"
        tiles.append(tile(said, "says the gate", used, tone))
    if training.epochs:
        first, last = training.epochs[0], training.epochs[-1]
        tiles.append(
            tile(
                f"{last.loss:.3f}", "loss in the last epoch", f"{first.loss:.3f} in the first epoch"
            )
        )
        tiles.append(
            tile(
                percent(last.accuracy),
                "accuracy on what is learned",
                f"{percent(first.accuracy)} in the first epoch",
            )
        )
        if last.validation_accuracy is not None:
            tiles.append(tile(percent(last.validation_accuracy), "validation accuracy"))
    tiles.append(tile(f"{training.seconds:,.1f} s", "trained", "all sittings together"))
    return el("ul", tiles, class_="tiles")


def _answer(verdict: Verdict) -> tuple[str, str]:
    if verdict.passed:
        return "yes", "good"
    return ("no; forced" if verdict.forced else "no"), "bad"


def _figures(training: Training) -> list[Html]:
    terms = list(dict.fromkeys(name for each in training.epochs for name in each.terms))
    loss: list[tuple[str, str, Callable[[TrainingEpoch], float | None]]] = [
        ("loss", "ours", lambda each: each.loss),
        ("validation", "c1", lambda each: each.validation_loss),
    ]
    if len(terms) > 1:
        loss += [
            (term, f"c{2 + place % (_COLOURS - 1)}", lambda each, term=term: each.terms.get(term))  # type: ignore[misc]
            for place, term in enumerate(terms)
        ]
    accuracy: _Values = [
        ("on what is learned", "ours", lambda each: 100 * each.accuracy),
        (
            "validation",
            "c1",
            lambda each: (
                None if each.validation_accuracy is None else 100 * each.validation_accuracy
            ),
        ),
    ]
    rate: _Values = [("learning rate", "c5", lambda each: each.rate)]
    return [
        _figure(training, "Loss", "loss", loss, "{:.3f}", least=0.0),
        _figure(training, "Accuracy", "accuracy, %", accuracy, "{:.1f}"),
        _figure(training, "Learning rate", "at the end of the epoch", rate, "{:.2g}", least=0.0),
    ]


def _figure(
    training: Training,
    title: str,
    y_title: str,
    values: _Values,
    form: str,
    *,
    least: float | None = None,
) -> Html:
    """Curves over the epochs of all phases, counted on; no line goes from one phase to the next."""
    lines, legend, begins = [], [], list[tuple[float, str]]()
    done = 0
    for phase in training.phases:
        begins.append((done + 0.5, phase.name))
        for label, mark, value in values:
            held = [(done + i, value(each)) for i, each in enumerate(phase.epochs, 1)]
            found = [(float(x), y) for x, y in held if y is not None]
            lines.append(Line(label, mark, [x for x, _ in found], [[y] for _, y in found]))
        done += len(phase.epochs)
    for label, mark, value in values:
        told = [y for each in training.epochs if (y := value(each)) is not None]
        if told:
            legend.append(named(label, mark, form.format(told[-1])))
    drawing = curves(
        lines,
        x_title="epoch",
        y_title=y_title,
        least=least,
        parts=begins if len(begins) > 1 else (),
    )
    return figure(title, drawing, el("ul", legend, class_="legend"), beside=True)


def _rows(training: Training) -> Html:
    heads, rows = epoch_cells(training)
    return table("What each epoch measured", [(head, head != "phase") for head in heads], rows)


def _gate(verdict: Verdict) -> Html:
    return section(
        "The gate",
        "It weighs the old extractor and the new one on remembered pictures, "
        "those held out of the training where there are any.",
        el(
            "ul",
            [
                el(
                    "li",
                    el("span", "holds", class_="good")
                    if each.passed
                    else el("span", "NO", class_="bad"),
                    el("p", each.sentence),
                )
                for each in sorted(verdict.checks, key=lambda each: each.passed)
            ],
            class_="claims",
        ),
    )
