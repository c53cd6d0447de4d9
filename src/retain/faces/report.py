"""The report of the demo: one self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from retain.faces.html import (
    Child,
    Html,
    bars,
    confusion,
    el,
    measured,
    meter,
    picture,
    table,
    tile,
)
from retain.faces.page import footer, header, page, section
from retain.faces.story import Story, share, untouched
from retain.faces.text import counted, percent
from retain.values import Change, Event

__all__ = ["demo_page"]


def demo_page(story: Story) -> str:
    """The report of the demo."""
    return page(
        "retain: the demo",
        _lead(story),
        _tiles(story),
        _corrections(story),
        _changes(story),
        _matrices(story),
        _classes(story),
        _proofs(story),
        _journal(story.events),
        _timings(story),
        footer(
            f"Pictures: 500 crops of the Clothing dataset by Alexey Grigorev, CC0 1.0. "
            f"Seed of the comparison's order: {story.seed}; nothing else is left to chance."
        ),
    )


def _lead(story: Story) -> Html:
    first, second = story.lessons
    return header(
        "retain demo",
        f"{_word(len(story.classes)).capitalize()} classes, learned in two lessons",
        f"A classifier learned {first.learned} photographs of {_word(len(story.old))} kinds of "
        f"clothes in {first.seconds:.1f} seconds, then {_word(len(story.new))} new kinds from "
        f"{second.learned} photographs of those alone. Asked among the first "
        f"{_word(len(story.old))}, it answers {percent(story.six_after)} of their test pictures "
        f"rightly; before the new ones came it was {percent(story.six_before)}. "
        f"{_word(len(story.corrected)).capitalize()} mistakes were corrected one by one, the last "
        f"correction was undone and redone, and one photograph was forgotten for good. Every "
        f"number on this page was measured during this run.",
    )


def _tiles(story: Story) -> Html:
    worse = sum(len(each.update.worse) for each in story.corrected)
    times = [each.update.seconds for each in story.corrected]
    right, count = story.at_ten.n - len(story.at_ten.mistakes), story.at_ten.n
    forgotten = story.forgotten
    return el(
        "ul",
        tile(
            f"{percent(story.six_before)} → {percent(story.six_after)}",
            "the first six classes, asked among six",
            "before and after four new classes came",
            "wide",
        ),
        tile(percent(right / count), "all ten classes", f"{count} test pictures, after lesson 2"),
        tile(
            f"{1000 * sum(times) / max(len(times), 1):.0f} ms",
            "a correction",
            f"mean of {len(times)}, everything included",
        ),
        tile(
            str(worse),
            "remembered pictures got worse",
            f"of {story.status.images}, by all corrections together",
            "bad" if worse else "good",
        ),
        tile(
            str(forgotten.found_after),
            "files hold the forgotten picture",
            f"{forgotten.found_before} before",
            "good" if not forgotten.found_after else "bad",
        ),
        class_="tiles six",
    )


def _corrections(story: Story) -> Html:
    cards = []
    for each in story.corrected:
        how = "an edit of the head" if each.update.pinned else "learning it was enough"
        cards.append(
            el(
                "article",
                picture(each.picture, f"a test picture, in truth: {each.truth}"),
                el(
                    "div",
                    el("h3", f"{each.before.label} → {each.after.label}"),
                    el("p", f"{how}, {1000 * each.update.seconds:.0f} ms", class_="note"),
                    el("p", "before", class_="when"),
                    bars(each.before.top, each.truth),
                    el("p", "after", class_="when"),
                    bars(each.after.top, each.truth),
                ),
                class_="card",
            )
        )
    return section(
        "Corrected",
        "The most confident mistakes on the test pictures, one of each class. After the call each "
        "picture is answered as it was told, and stays so.",
        el("div", cards, class_="cards"),
    )


def _changes(story: Story) -> Html:
    groups: list[tuple[str, str, Sequence[Change]]] = [
        ("worse", "bad", [c for each in story.corrected for c in each.update.worse]),
        ("better", "good", [c for each in story.corrected for c in each.update.better]),
        (
            "still wrong, otherwise",
            "",
            [c for each in story.corrected for c in each.update.changed],
        ),
    ]
    shown: list[Html] = []
    for title, tone, changes in groups:
        heading = el(
            "h3", f"{title}: {len(changes) or 'nothing'}", class_=tone if changes and tone else None
        )
        shown.append(heading)
        if changes:
            shown.append(el("ul", [_change(each, story) for each in changes], class_="gallery"))
    if not any(changes for *_, changes in groups):
        shown = [
            el("p", "Nothing: no other remembered picture is answered differently.", class_="good")
        ]
    was, count = untouched(story.at_ten, story.corrected)
    now, _ = untouched(story.at_end, story.corrected)
    return section(
        "What else changed",
        f"After each correction every other remembered picture was asked again: these are the "
        f"ones that are answered differently. Of the {count} test pictures that nobody "
        f"corrected, {count - len(was)} were right before and {count - len(now)} after: "
        f"{len(now - was)} got worse, {len(was - now)} better.",
        shown,
    )


def _change(change: Change, story: Story) -> Html:
    return el(
        "li",
        picture(story.pictures.get(change.image), f"a remembered picture of {change.label}"),
        el("span", f"{change.before} → {change.after}", class_="label"),
        el("span", f"taught as {change.label}", class_="note"),
    )


def _matrices(story: Story) -> Html:
    rows, six = list(story.classes), list(story.old)
    return section(
        "Before and after",
        "The same 200 test pictures. On the left only six classes are known, so the four others "
        "must be answered wrongly; on the right all ten are known and the mistakes are corrected. "
        "The upper left block is what was not to be forgotten.",
        el(
            "div",
            confusion(story.at_six.confusion, rows, six, "Six classes known", split=len(six)),
            confusion(
                story.at_end.confusion, rows, rows, "Ten known, three corrected", split=len(six)
            ),
            class_="pair",
        ),
    )


def _classes(story: Story) -> Html:
    rows: list[Sequence[Child]] = []
    for label in story.classes:
        first = label in story.old
        six = measured(story.at_six.per_class[label].accuracy) if first else "not taught yet"
        ten, end = (
            measured(each.per_class[label].accuracy) for each in (story.at_ten, story.at_end)
        )
        lesson = el("span", " lesson 1" if first else " lesson 2", class_="note")
        rows.append(([label, lesson], six, ten, end))
    _, count = share(story.at_ten, story.old)
    drawn = sum(story.at_ten.confusion[old].get(new, 0) for old in story.old for new in story.new)
    return section(
        "Class by class",
        f"Accuracy on 20 test pictures of each class. Of the {count} pictures of old classes, "
        f"{drawn} are answered with a new one once these are known: four more ways to be wrong.",
        table(
            "Accuracy of each class over time",
            [
                ("class", False),
                ("six known", False),
                ("ten known", False),
                ("corrected", False),
            ],
            rows,
        ),
    )


def _proofs(story: Story) -> Html:
    before, without, again = story.digests
    forgotten = story.forgotten
    claims = [
        (
            story.same_as_at_once,
            "Two lessons equal one.",
            "Another classifier learned all ten classes at once, in another order: the same "
            "digest of the statistics, bit for bit.",
        ),
        (
            before == again and before != without,
            "Undo undoes, and can be undone.",
            f"The digest went {_short(before)} → {_short(without)} → {_short(again)}.",
        ),
        (
            forgotten.same_as_never_seen,
            "Forgotten is never seen.",
            f"{Path(forgotten.sample.source).name} ({forgotten.sample.label}) was forgotten; a "
            f"classifier that never saw it has the same digest, bit for bit. Its bytes were in "
            f"{counted(forgotten.found_before, 'file')} and are in {forgotten.found_after}.",
        ),
        (
            story.verification.ok,
            "The journal agrees.",
            f"Everything was derived again from {counted(story.verification.events, 'event')} and "
            f"{counted(story.verification.images, 'picture')}: "
            f"{'; '.join(story.verification.problems) or 'no problem'}.",
        ),
    ]
    return section(
        "Checked, not promised",
        None,
        el(
            "ul",
            [
                el(
                    "li",
                    el("span", "holds" if holds else "FAILS", class_="good" if holds else "bad"),
                    el("div", el("strong", title), el("p", text)),
                )
                for holds, title, text in claims
            ],
            class_="claims",
        ),
    )


def _journal(events: Iterable[Event]) -> Html:
    return section(
        "The journal",
        "What is known is what these events say, and nothing else.",
        el(
            "ol",
            [
                el(
                    "li",
                    el("span", each.kind, class_=f"kind {_known_kind(each.kind)}"),
                    el("span", each.summary, class_="summary"),
                    el("span", f"undone by event {each.undone}", class_="note")
                    if each.undone is not None
                    else None,
                    el("time", _clock(each.at), datetime=each.at),
                    class_="undone" if each.undone is not None else None,
                )
                for each in events
            ],
            class_="journal",
        ),
    )


def _timings(story: Story) -> Html:
    longest = max(each.seconds for each in story.timings)
    return section(
        "How long it took",
        f"Wall time of each call, everything included; the whole story took "
        f"{story.seconds:.0f} seconds.",
        table(
            "Timings",
            [("call", False), ("pictures", True), ("seconds", True), ("", False)],
            [
                (
                    each.what,
                    f"{each.pictures:,}",
                    f"{each.seconds:.3f}",
                    meter(each.seconds / longest),
                )
                for each in story.timings
            ],
        ),
    )


def _known_kind(kind: str) -> str:
    return kind if kind.isalpha() and kind.isascii() else "other"


def _word(number: int) -> str:
    words = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    return words[number] if number < len(words) else str(number)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:8]


def _clock(at: str) -> str:
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return at
