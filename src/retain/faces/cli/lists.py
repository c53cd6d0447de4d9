"""Corrections from a list, which may be what `retain predict --csv` wrote, edited or not."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from retain.faces.cli.failures import Mistake
from retain.faces.cli.output import note
from retain.faces.text import clean, counted
from retain.values import ImageDetail

if TYPE_CHECKING:
    from retain import Classifier

__all__ = ["Pairs", "listed", "without_agreeing", "written_by_predict"]

Pairs = list[tuple[str, str]]
"""Pictures, by file or by hash, and what they are said to be."""

_HASH = re.compile(r"(sha256:)?[0-9a-f]{6,64}")
_HEADER = 4096


def listed(source: str) -> Pairs:
    """The pictures and labels of a list; a row may name a remembered picture by its hash."""
    from retain.vision.manifest import read_manifest

    folder, pairs = os.path.dirname(source), []
    for row in read_manifest(source):
        last, there = os.path.basename(row.path), os.path.exists(row.path)
        from_here = os.path.relpath(row.path, folder or os.curdir)
        if not there and folder and os.path.exists(from_here):
            raise Mistake(
                f"{clean(row.path)} is not there, but {clean(from_here)} is: paths in a list are "
                f"relative to the list; put {clean(source)} into the folder you are in"
            )
        remembered = _HASH.fullmatch(last) and not there
        pairs.append((last if remembered else row.path, row.label or ""))
    return pairs


def written_by_predict(source: str) -> bool:
    """Whether a list has the columns of `retain predict --csv`, edited or not."""
    with open(source, "rb") as file:
        header = file.readline(_HEADER).decode("utf-8", "replace")
    names = {each.strip().strip('"').lower() for each in re.split("[,;\t]", header)}
    return {"path", "label", "probability", "unknown"} <= names


def without_agreeing(classifier: Classifier, pairs: Pairs, source: str) -> Pairs:
    """The rows that say something else than what is answered now; the others are counted."""
    from retain.intake import checked_label

    answers = {each.path: each.label for each in classifier.predict([p for p, _ in pairs], top=1)}
    for image, _ in pairs:
        if image not in answers and _HASH.fullmatch(image):
            found = classifier.show(image)
            if isinstance(found, ImageDetail):
                answers[image] = found.prediction.label
    left = [(p, label) for p, label in pairs if answers.get(p) != checked_label(label)]
    same = len(pairs) - len(left)
    if not left:
        raise Mistake(
            f"nothing to correct: every row of {clean(source)} says what is answered now; edit the "
            f"labels that are wrong, or confirm all of them with --all"
        )
    if same:
        note(
            f"note: left out are {counted(same, 'row')} of {clean(source)} with what is answered "
            f"now; --all confirms them too"
        )
    return left
