"""What a terminal shows and a pipe gets."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retain.faces.cli import output
from retain.faces.cli.progress import progress
from retain.faces.text import clean
from tests.faces.helpers import COMMAND, environment


def on_terminal(*words: str, columns: int = 80) -> str:
    """What a command shows on a terminal of so many columns, without colours."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [*COMMAND, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(COLUMNS=str(columns), TERM="xterm"),
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    child.wait(timeout=60)
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode("utf-8")).replace("\r\n", "\n")


def test_tables_fit_80_columns(shop: Path, here: Path) -> None:
    label = "a label that is much longer than anybody would want to have it in a table"
    deep = here / "a-folder-with-a-rather-long-name" / "and-another-one-inside-of-it"
    (here / "test").rename(here / "t")
    deep.parent.mkdir()
    (here / "t").rename(deep)
    for words in (
        ("classes", "shop", "rename", "mug", label),
        ("predict", "shop", str(deep)),
        ("log", "shop"),
        ("show", "shop"),
        ("show", "shop", "1"),
        ("show", "shop", "train/mug/mug0.jpg"),
        ("classes", "shop"),
        ("--help",),
    ):
        shown = on_terminal(*words)
        # A slow machine shows progress first, which writes over its own line again and again.
        widths = [len(line) for line in re.split(r"[\r\n]", shown)]
        if words[0] != "classes" or len(words) == 2:
            assert max(widths) <= 80, shown
    shown = on_terminal("predict", "shop", str(deep))
    assert "mug6.jpg" in shown, "a path keeps its end"
    assert "a label that" in shown


def test_piped_tables_are_plain_and_whole(shop: Path, run) -> None:
    text = run("predict", "shop", str(shop.parent / "test")).stdout
    assert "\x1b" not in text
    assert "─" not in text
    assert str(shop.parent / "test" / "mug" / "mug6.jpg") in text


def test_progress_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with progress("learning") as tick:
        assert tick is None

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Screen())
    with progress("learning", quiet=True) as tick:
        assert tick is None
    with progress("learning") as tick:
        assert tick is not None
        tick(1, 100)
        assert sys.stderr.getvalue() == "", "what is quick needs no bar"
        time.sleep(0.8)
        for done in range(2, 101):
            tick(done, 100)
            time.sleep(0.002)
    shown = sys.stderr.getvalue()
    assert "learning" in shown
    assert "/100" in shown
    assert "/s" in shown


def test_json_keeps_names_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_json({"path": "caf\udce9", "label": "🙂"})
    text = capsys.readouterr().out
    text.encode("utf-8")
    assert json.loads(text) == {"path": "caf\udce9", "label": "🙂"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 🙂", "plain é 🙂"),
        ("👩‍🔧", "👩‍🔧"),
        ("a\tb\r\n", "a\\tb\\r\\n"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202eevil", "\\u202eevil"),
        ("caf\udce9", "caf\\xe9"),
        ("\u2028", "\\u2028"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown
