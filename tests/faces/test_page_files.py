"""Where `--html` and `bench report --out` may write: never in the place of what is no page."""

from __future__ import annotations

from pathlib import Path

import pytest

import retain


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of a classifier although it could be known that the page cannot be written."""
    found: list[str] = []
    for verb in ("evaluate", "explain", "diff", "adapt", "show"):
        monkeypatch.setattr(retain.Classifier, verb, lambda *_, verb=verb, **__: found.append(verb))
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "shop", "test", "--html"),
        ("explain", "shop", "test/mug/mug6.jpg", "--html"),
        ("diff", "shop", "1", "--html"),
        ("adapt", "shop", "--html"),
        ("show", "shop", "1", "--html"),
        ("bench", "report", "results", "--out"),
    ],
)
def test_nothing_but_a_page_is_overwritten(shop: Path, here: Path, run, asked, words) -> None:
    photo, journal = here / "test" / "mug" / "mug7.jpg", shop / "journal.db"
    (here / "link.html").symlink_to(journal)
    kept = photo.read_bytes(), journal.read_bytes()
    for page, says in (
        ("test/mug/mug7.jpg", "mug7.html"),
        ("shop/journal.db", "outside"),
        ("shop/new.html", "outside"),
        ("shop/blobs/deep/new.html", "outside"),
        ("link.html", "outside"),
        ("test", "is a folder"),
    ):
        result = run(*words, page)
        assert result.exit_code == 2, (page, result.stderr)
        assert says in result.stderr
        assert result.stdout == ""
    assert (photo.read_bytes(), journal.read_bytes()) == kept
    assert not (shop / "new.html").exists()
    assert asked == []


def test_a_missing_folder_is_said_before_the_work(shop: Path, run, asked) -> None:
    result = run("evaluate", "shop", "test", "--html", "nosuchdir/r.html")
    assert result.exit_code == 2
    assert "nosuchdir" in result.stderr
    assert asked == []


def test_a_page_takes_the_place_of_a_page(shop: Path, here: Path, run) -> None:
    (here / "notes.htm").write_text("of mine")
    for page in ("notes.htm", "page", "page"):
        result = run("diff", "shop", "1", "--html", page)
        assert result.exit_code == 0, result.stderr
        assert (here / page).read_text().startswith("<!doctype html>")
