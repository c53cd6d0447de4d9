"""The page about one evaluation: key figures, confusion matrix, classes, confident mistakes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from retain.faces.html import Html, confusion, el, measured, picture, table, tile
from retain.faces.page import footer, header, page, section
from retain.faces.text import counted, percent
from retain.values import Prediction, Report

__all__ = ["evaluation_page"]

_MISTAKES = 24
_HARDEST = 5


def evaluation_page(report: Report, *, name: str) -> str:
    """A page about one evaluation: key figures, confusion matrix, classes, confident mistakes."""
    rows = list(report.confusion)
    answered = {answer for row in report.confusion.values() for answer in row}
    columns = sorted({*rows, *answered} - set(report.unknown_classes))
    sentence = (
        f"{counted(report.n, 'picture')} of {counted(len(rows), 'class', 'classes')} were asked; "
        f"{counted(report.n - len(report.mistakes), 'answer')} were right."
    )
    sentence += _hardest(report)
    if report.remembered:
        sentence += f" {report.remembered:,} of the pictures are remembered, which flatters it."
    if report.unknown_classes:
        sentence += f" Never taught, so always wrong: {', '.join(report.unknown_classes)}."
    return page(
        f"{name}: evaluation",
        header("retain evaluate", f"How {name} was judged", sentence),
        el(
            "ul",
            tile(percent(report.accuracy), "accuracy", f"on {counted(report.n, 'picture')}"),
            tile(percent(report.balanced_accuracy), "balanced accuracy", "each class counts alike"),
            tile(f"{report.negative_log_likelihood:.3f}", "negative log-likelihood"),
            tile(percent(report.calibration_error), "calibration error", "15 bins"),
            class_="tiles",
        ),
        section(
            "Where the answers went",
            "Each row is a true class; the darker a cell, the larger its share of the row.",
            confusion(report.confusion, rows, columns, f"{counted(report.n, 'picture')}"),
        ),
        section(
            "Class by class",
            None,
            table(
                "Accuracy and precision of each class",
                [
                    ("class", False),
                    ("pictures", True),
                    ("accuracy", False),
                    ("precision", False),
                ],
                [
                    (
                        label,
                        f"{each.n:,}",
                        measured(each.accuracy),
                        "–" if each.precision is None else measured(each.precision),
                    )
                    for label, each in report.per_class.items()
                ],
            ),
        ),
        section(
            "The most confident mistakes",
            None if report.mistakes else "There are none.",
            _gallery(zip(report.mistakes[:_MISTAKES], report.truths, strict=False)),
        ),
        footer(),
    )


def _hardest(report: Report) -> str:
    """Which classes are answered right least often, where that is not all of them."""
    shares = {label: each.accuracy for label, each in report.per_class.items()}
    lowest = min(shares.values(), default=1.0)
    labels = sorted(label for label, share in shares.items() if share == lowest)
    if len(labels) == len(shares):
        return ""
    if len(labels) == 1:
        return f" The hardest class is {labels[0]} with {percent(lowest)}."
    named = f"{', '.join(labels[:-1])} and {labels[-1]}"
    if len(labels) > _HARDEST:
        named = f"{', '.join(labels[:_HARDEST])} and {len(labels) - _HARDEST} more"
    return f" The hardest classes are {named} with {percent(lowest)} each."


def _gallery(mistakes: Iterable[tuple[Prediction, str]]) -> Html:
    return el(
        "ul",
        [
            el(
                "li",
                picture(_read(each.path), f"a picture, in truth: {truth}"),
                el(
                    "span",
                    f"{each.label} {percent(each.probability)}".replace(" %", "\u00a0%"),
                    class_="label",
                ),
                el("span", f"is {truth}", class_="note"),
                el("span", Path(each.path).name, class_="note path"),
            )
            for each, truth in mistakes
        ],
        class_="gallery",
    )


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError):
        return None
