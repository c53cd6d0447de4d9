"""A refusal of the gate: a list for people, JSON for programs, exit code 1, nothing changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import retain


@pytest.fixture
def guarded(shop: Path, here: Path) -> Path:
    """Every mug is protected, and a lesson that calls them plates is at hand."""
    with retain.open(shop) as classifier:
        classifier.protect(labels="mug")
    return shop


def contradiction(folder: Path) -> None:
    """The very mugs it was taught, a little paler each time, as plates."""
    folder.mkdir(parents=True)
    for number in range(6):
        picture = Image.open(folder.parents[1] / "train" / "mug" / f"mug{number}.jpg")
        for step in range(1, 9):
            picture.point(lambda value, step=step: min(255, value + step)).save(
                folder / f"{number}-{step}.png"
            )


def test_people_get_a_list_and_choices(guarded: Path, here: Path, run) -> None:
    contradiction(here / "bad" / "plate")
    before = retain.open(guarded).digest
    result = run("learn", "shop", "bad")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert "the gate refuses, and nothing has changed" in lines
    assert any(line.startswith("  NO  ") for line in lines)
    assert any("--force" in line for line in lines)
    assert any("retain protect --off" in line or "leave out" in line for line in lines)
    assert result.stdout == ""
    assert retain.open(guarded).digest == before


def test_programs_get_json(guarded: Path, here: Path, run) -> None:
    contradiction(here / "bad" / "plate")
    result = run("learn", "shop", "bad", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["refused"] is True
    assert found["event"] is None
    assert found["verdict"]["passed"] is False
    assert any(not check["passed"] for check in found["verdict"]["checks"])
    assert any("--force" in choice for choice in found["choices"])
    forced = run("learn", "shop", "bad", "--json", "--force")
    assert forced.exit_code == 0
    assert json.loads(forced.stdout)["verdict"]["forced"] is True


def test_a_dry_run_of_taking_back_writes_nothing(guarded: Path, run) -> None:
    with retain.open(guarded) as classifier:
        events = len(classifier.log())
    result = run("undo", "shop", "--dry-run")
    assert result.exit_code == 0
    assert "dry run, nothing is written" in result.stdout
    assert "to have it again" not in result.stdout
    with retain.open(guarded) as classifier:
        assert len(classifier.log()) == events


def test_a_new_name_is_nothing_to_force(guarded: Path, run) -> None:
    result = run("classes", "shop", "rename", "mug", "cup", "--force")
    assert result.exit_code == 2
    assert "for merge" in result.stderr
