"""The pages: self-contained, safe whatever a label says, and well formed."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

import retain
from retain.faces.differing import explanation_page
from retain.faces.evaluation import evaluation_page
from retain.faces.html import Html, confusion, el, picture
from retain.faces.trained import training_page
from retain.values import ClassReport, Report, Training, TrainingEpoch, TrainingPhase
from tests.faces.helpers import draw

EVIL = '<script>alert("x")</script>'
VOID = {"img", "meta", "br"}


class Reader(HTMLParser):
    """Checks that tags nest, collects tags, addresses, ids and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.headings: list[int] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag[0] == "h" and tag[1:].isdigit():
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.images.append(dict(attrs))
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href"):
                self.addresses.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: str) -> Reader:
    read = Reader(page)
    assert "script" not in read.tags
    assert "link" not in read.tags
    assert all(address.startswith("data:image/jpeg;base64,") for address in read.addresses)
    assert "url(" not in page
    assert "@import" not in page
    assert all(image["alt"] for image in read.images)
    assert read.headings[0] == 1
    assert read.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(read.headings, read.headings[1:], strict=False))
    return read


def test_evaluation_page_is_safe(tmp_path: Path) -> None:
    with retain.create(tmp_path / EVIL.replace("/", "_")) as shop:
        train = [draw(tmp_path / f"{n}.jpg", "mug" if n < 3 else "plate", n) for n in range(6)]
        shop.learn(train, [EVIL] * 3 + ["\"'><img src=x onerror=y>"] * 3)
        strange = draw(tmp_path / '"><b>&.jpg', "plate", 9)
        report = shop.evaluate([strange, train[0]], [EVIL, EVIL])
        page = evaluation_page(report, name=shop.path.name)
    read = checked(page)
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert len(read.images) == len(report.mistakes) == 1


def test_elements_escape_everything_but_markup() -> None:
    assert el("p", EVIL, title='"') == (
        '<p title="&quot;">&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;</p>'
    )
    assert el("p", el("b", "x"), None, ["y", Html("<i>")]) == "<p><b>x</b>y<i></p>"
    assert "\u202e" not in el("p", "\u202e")


def test_a_picture_that_cannot_be_shown() -> None:
    assert "no picture kept" in picture(b"no picture", "x")
    assert "no picture kept" in picture(None, "x")


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "CMYK", "I;16"])
def test_pictures_of_every_kind(tmp_path: Path, mode: str) -> None:
    from PIL import Image

    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (300, 200)).save(path)
    assert "data:image/jpeg;base64," in picture(path.read_bytes(), "x")


def test_confusion_counts() -> None:
    page = confusion({"a": {"a": 3, "b": 1}}, ["a", "b"], ["a", "b"], "caption", split=1)
    Reader(page)
    assert "3 of 4 a answered a" in page
    assert "--share:25%" in page
    assert page.count('scope="row"') == 2
    assert "<caption>caption</caption>" in page


@pytest.mark.parametrize(
    ("right", "says"),
    [
        ({"a": 0, "b": 2, "c": 4}, "The hardest class is a with 0.0 %."),
        ({"a": 0, "b": 0, "c": 0, "d": 4}, "The hardest classes are a, b and c with 0.0 % each."),
        (dict.fromkeys("abcdefg", 0) | {"h": 4}, "are a, b, c, d, e and 2 more with 0.0 % each."),
        ({"a": 4, "b": 4}, None),
        ({"a": 2}, None),
    ],
)
def test_all_of_the_hardest_classes_are_named(right: dict[str, int], says: str | None) -> None:
    classes = {label: ClassReport(4, hits, hits / 4, None) for label, hits in right.items()}
    confusion = {label: {label: hits} for label, hits in right.items()}
    page = evaluation_page(Report(0.5, 4, classes, 0.5, 1.0, 0.1, confusion, (), ()), name="shop")
    assert ("hardest" in page) is (says is not None)
    assert says is None or says in page


def test_only_what_was_taught_is_marked_right(tmp_path: Path) -> None:
    with retain.create(tmp_path / "shop") as shop:
        train = [draw(tmp_path / f"{n}.jpg", "mug" if n < 3 else "plate", n) for n in range(6)]
        shop.learn(train, ["mug"] * 3 + ["plate"] * 3)
        strange = draw(tmp_path / "strange.jpg", "spoon", 9)
        pages = [
            explanation_page(shop, shop.explain(str(each)), name="shop")
            for each in (train[0], strange)
        ]
    for page in pages:
        checked(page)
    assert ['class="is-true"' in page for page in pages] == [True, False]


def epoch(number: int, **more: float) -> TrainingEpoch:
    return TrainingEpoch(number, 1.0 / number, {EVIL: 1.0 / number, "b": 0.0}, 0.5, 0.01, **more)


@pytest.mark.parametrize(
    ("phases", "figures", "lines"),
    [
        ((), 0, 0),
        ((TrainingPhase("train", (epoch(1),)),), 3, 5),
        (
            (
                TrainingPhase(EVIL, (epoch(1, validation_loss=2.0, validation_accuracy=0.25),)),
                TrainingPhase("second", tuple(epoch(n) for n in range(1, 30))),
            ),
            3,
            7 + 5,
        ),
    ],
)
def test_a_training_of_any_length_has_a_page(phases, figures: int, lines: int) -> None:
    training = Training(5, 1, 2.5, "lwf", 2, phases=phases)
    page = training_page(training, name=EVIL, over="retain show 2")
    read = checked(page)
    # Each figure is drawn for the page and for a phone.
    assert read.tags.count("svg") == 2 * figures
    assert page.count('<g class="series') == 2 * lines
    assert page.count('class="apart"') == 2 * 3 * max(len(phases) - 1, 0)
    assert EVIL not in page
    assert "nan" not in page
