"""The pages about a difference between versions, and about the reasons for one answer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from retain.classifier import Classifier
from retain.comparisons import Diff, Explanation
from retain.errors import RetainError
from retain.faces.html import Html, bars, el, picture, table, tile
from retain.faces.page import footer, header, page, section
from retain.faces.text import counted, percent
from retain.values import Change, ImageDetail, Prediction, Update
from retain.vision import encode_array, overlay

__all__ = ["changes", "diff_page", "explanation_page"]

_SHOWN = 60


def diff_page(classifier: Classifier, found: Diff, *, name: str) -> str:
    """A page about two versions: pictures that got worse first, then those that got better."""
    sentence = (
        f"Version {found.a} and version {found.b} were asked about "
        f"{counted(found.judged, 'remembered picture')}."
    )
    for verb, classes in (("New", found.new_classes), ("Gone", found.gone_classes)):
        if classes:
            sentence += f" {verb}: {', '.join(classes)}."
    return page(
        f"{name}: version {found.a} to {found.b}",
        header("retain diff", f"What changed in {name}", sentence),
        el(
            "ul",
            tile(f"{len(found.worse):,}", "got worse"),
            tile(f"{len(found.better):,}", "got better"),
            tile(f"{len(found.changed):,}", "otherwise wrong"),
            class_="tiles",
        ),
        changes(classifier, found),
        footer(),
    )


def changes(classifier: Classifier, found: Diff | Update) -> list[Html]:
    """The remembered pictures that are answered otherwise: those that got worse first."""
    groups: tuple[tuple[str, tuple[Change, ...], str], ...] = (
        ("Got worse", found.worse, "Right before, wrong now."),
        ("Got better", found.better, "Wrong before, right now."),
        ("Otherwise wrong", found.changed, "From one wrong answer to another."),
    )
    return [
        section(title, what if listed else "There are none.", _gallery(classifier, listed))
        for title, listed, what in groups
    ]


def explanation_page(classifier: Classifier, found: Explanation, *, name: str) -> str:
    """A page about one answer: the picture, where its evidence lies, what it resembles."""
    answer = found.prediction
    sentence = f"{answer.label}, with {percent(answer.probability)}."
    if found.runner_up is not None and found.margin is not None:
        sentence += f" The next is {found.runner_up}, {found.margin:.2f} logits behind."
    if answer.unknown:
        sentence += " It is unlike everything known."
    seen: list[Html] = []
    if found.view is not None:
        seen.append(_framed(encode_array(found.view), "what the network saw"))
        if found.evidence is not None:
            painted = encode_array(overlay(found.view, found.evidence))
            against = f" rather than {found.runner_up}" if found.runner_up else ""
            seen.append(
                _framed(painted, f"warm: speaks for {answer.label}{against}; blue: against")
            )
    return page(
        f"{name}: {answer.label}",
        header("retain explain", f"Why {name} says {answer.label}", sentence),
        section("The picture", found.note or None, el("ul", seen, class_="gallery")),
        section("The classes", None, bars(found.scores, _taught_as(classifier, answer), count=8)),
        section(
            "The taught pictures it resembles most",
            None,
            el(
                "ul",
                [
                    el(
                        "li",
                        picture(_kept(classifier, each.image), f"a picture taught as {each.label}"),
                        el("span", each.label, class_="label"),
                        el("span", f"similarity {each.similarity:.3f}", class_="note"),
                        el("span", f"event {each.event}, {each.at[:10]}", class_="note"),
                    )
                    for each in found.neighbours
                ],
                class_="gallery",
            ),
        ),
        section(
            "What would change the answer",
            None,
            table(
                "What it would take",
                [("class", False), ("what it takes", False), ("remembered made worse", True)],
                [(each.label, each.sentence, f"{each.worse:,}") for each in found.remedies],
            ),
        ),
        footer(),
        # Its sentences are long; the column beside them must stay in sight.
        style="tbody td:not(.right) { white-space: normal; }",
    )


def _gallery(classifier: Classifier, changes: Sequence[Change]) -> Html:
    return el(
        "ul",
        [
            el(
                "li",
                picture(_kept(classifier, each.image), f"a picture taught as {each.label}"),
                el("span", f"{each.before} → {each.after}", class_="label"),
                el("span", f"taught as {each.label}", class_="note"),
                el("span", each.source.rsplit("/", 1)[-1], class_="note path"),
            )
            for each in changes[:_SHOWN]
        ],
        class_="gallery",
    )


def _taught_as(classifier: Classifier, answer: Prediction) -> str:
    """What the picture was said to be; nothing where nobody has said it."""
    if answer.remembered:
        with suppress(RetainError):  # forgotten meanwhile
            found = classifier.show(answer.image)
            return found.sample.label if isinstance(found, ImageDetail) else ""
    return ""


def _framed(data: bytes, caption: str) -> Html:
    return el("li", picture(data, caption), el("span", caption, class_="note"))


def _kept(classifier: Classifier, image: str) -> bytes | None:
    try:
        return classifier.image(image)
    except RetainError:
        return None
