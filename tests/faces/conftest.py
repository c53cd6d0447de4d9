"""Small real pictures, a classifier that knows them, and ways to run the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from retain.faces.cli.app import app
from tests.faces.helpers import COLOURS, draw


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    for label in COLOURS:
        for number in range(6):
            draw(folder / "train" / label / f"{label}{number}.jpg", label, number)
        for number in range(6, 8):
            draw(folder / "test" / label / f"{label}{number}.jpg", label, number)
    return folder


@pytest.fixture(scope="session")
def taught(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import retain

    path = tmp_path_factory.mktemp("taught") / "shop"
    with retain.create(path) as shop:
        shop.learn(drawn / "train")
    return path


@pytest.fixture
def here(tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the pictures in it."""
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shop(here: Path, taught: Path) -> Path:
    """A classifier that has learned the training pictures, as ./shop."""
    shutil.copytree(taught, here / "shop")
    return here / "shop"


@pytest.fixture
def run() -> Callable[..., Any]:
    """Run a command inside this process; the result has exit_code, stdout, stderr."""

    def invoke(*words: str, stdin: bytes | str | None = None) -> Any:
        return CliRunner().invoke(app, list(words), input=stdin)

    return invoke


@pytest.fixture
def parsed(run: Callable[..., Any]) -> Callable[..., Any]:
    """Run a command with --json and parse all of stdout."""

    def invoke(*words: str, code: int = 0) -> Any:
        result = run(*words, "--json")
        assert result.exit_code == code, result.stderr
        return json.loads(result.stdout)

    return invoke
