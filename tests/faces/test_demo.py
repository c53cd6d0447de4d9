"""The demo tells a true story, writes its page, and harms nothing that it did not make."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import retain
from retain.faces import demo
from retain.faces.report import demo_page
from tests.faces.test_pages import checked


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, run) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = run("demo", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "--out" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    file = tmp_path / "thesis.txt"
    assert run("demo", "--out", str(file)).exit_code == 2
    assert file.read_text() == "years of work"


def test_a_folder_of_a_demo_is_made_anew_and_the_rest_kept(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo._prepare(out)
    (out / "classifier").mkdir()
    (out / "mine.txt").write_text("keep")
    demo._prepare(out)
    assert sorted(path.name for path in out.iterdir()) == [".retain-demo", "mine.txt"]


def test_the_shipped_pictures(tmp_path: Path) -> None:
    trained = demo._unpack(tmp_path)
    assert len(trained) == 300
    assert len(list(tmp_path.glob("test/*/*.jpg"))) == 200
    assert len(list(tmp_path.glob("lesson-1/*"))) == 6
    assert len(list(tmp_path.glob("lesson-2/*"))) == 4


@pytest.mark.slow
def test_the_story(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    story = demo.live(Path("demo"), lambda text, style="": told.append(text))
    assert story.seconds < 120
    assert story.same_as_at_once
    assert story.forgotten.same_as_never_seen
    assert (story.forgotten.found_before, story.forgotten.found_after) == (1, 0)
    assert story.digests[0] == story.digests[2] != story.digests[1]
    assert story.verification.ok
    assert story.six_after >= story.six_before - 0.05
    assert len(story.corrected) == 3
    assert all(each.after.label == each.truth != each.before.label for each in story.corrected)
    assert not any("bug" in line for line in told)
    page = demo_page(story)
    read = checked(page)
    assert len(read.images) >= 3
    assert page.count(">holds<") == 4
    for event in story.events:
        assert f'datetime="{event.at}"' in page

    # What the demo tells to try next works.
    told.clear()
    demo._tell_the_end(story, Path("demo/report.html"), lambda text, style="": told.append(text))
    tries = [line.strip() for line in told if re.match(r" +retain ", line)]
    assert len(tries) == 3
    for line in tries:
        result = run(*shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.stderr)
    with retain.open("demo/classifier") as shop:
        assert shop.verify().ok
