"""Whatever goes wrong: one sentence on stderr, an exit code, no traceback, nothing on stdout."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

import retain
from retain.faces.cli.failures import guarded
from retain.faces.cli.interrupting import finishing
from tests.faces.helpers import COMMAND, draw, environment, process


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("predict", "nowhere", "a.jpg"), 2, "retain init"),
        (("predict", "train", "a.jpg"), 2, "train"),
        (("init", "shop"), 2, "shop"),
        (("init", "new", "--extractor", "no-such-thing"), 2, "no-such-thing"),
        (("learn", "shop", "nowhere"), 2, "nowhere"),
        (("learn", "shop", "train", "test"), 2, "--label"),
        (("learn", "shop", "https://example.org/a.jpg"), 2, "download"),
        (("predict", "shop", "https://example.org/a.jpg"), 2, "download"),
        (("predict", "shop", "a.jpg", "--json", "--csv"), 2, "--json"),
        (("correct", "shop", "nowhere.jpg", "mug"), 2, "nowhere.jpg"),
        (("correct", "shop", "test/mug/mug6.jpg", "  "), 2, "empty"),
        (("correct", "shop", "--from", "nowhere.csv"), 2, "nowhere.csv"),
        (("forget", "shop", "--yes"), 2, "say what to forget"),
        (("forget", "shop", "--label", "vase", "--yes"), 2, "'vase'"),
        (("forget", "shop", "--event", "99", "--yes"), 2, "99"),
        (("undo", "shop", "99"), 2, "99"),
        (("show", "shop", "99"), 2, "99"),
        (("show", "shop", "nowhere.jpg"), 2, "nowhere.jpg"),
        (("evaluate", "shop", "nowhere"), 2, "nowhere"),
        (("classes", "shop", "rename", "vase", "cup"), 2, "'vase'"),
        (("demo", "--out", "train"), 2, "--out"),
        (("adopt", "new", "nosuch.onnx"), 2, "there is no such file"),
    ],
)
def test_mistakes(shop: Path, run, words, code, says) -> None:
    result = run(*words)
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("retain: error: ")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_usage_errors_are_2(run) -> None:
    for words in [
        ("bogus",),
        ("learn",),
        ("predict", "shop", "a", "--top", "0"),
        ("undo", "s", "x"),
    ]:
        result = run(*words)
        assert result.exit_code == 2
        assert "Traceback" not in result.stderr


def test_nothing_learned_says_what_to_do(here: Path, run) -> None:
    run("init", "new")
    result = run("predict", "new", "test/mug/mug6.jpg")
    assert result.exit_code == 1
    assert "retain learn" in result.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("evaluate", "new", "test"), "retain learn new FOLDER"),
        (("advise", "new"), "retain learn new FOLDER"),
        (("predict", "new", "test/mug/mug6.jpg"), "retain learn new FOLDER"),
        (("evaluate", "new", "test/mug"), "retain learn new FOLDER --label LABEL"),
        (("evaluate", "new", "test/mug/mug6.jpg"), "retain learn new PICTURE --label LABEL"),
        (("learn", "new", "test/mug"), "retain learn new FOLDER --label LABEL"),
        (("evaluate", "new", "empty"), "columns path,label"),
    ],
)
def test_advice_can_be_followed_as_it_stands(here: Path, run, words, says) -> None:
    (here / "empty").mkdir()
    run("init", "new")
    result = run(*words)
    assert result.exit_code in (1, 2)
    assert says in result.stderr
    assert "NAME" not in result.stderr
    assert "(--label" not in result.stderr


def test_a_picture_to_forget_is_named_with_its_classifier(capsys) -> None:
    def forget(name: str) -> None:
        raise retain.Damaged("forget the picture: retain forget NAME 12; or: retain init NAME")

    with pytest.raises(typer.Exit):
        guarded(forget)(name="my shop")
    assert "retain forget 'my shop' 12; or: retain init NAME" in capsys.readouterr().err


def test_a_named_picture_that_cannot_be_read_is_exit_1(shop: Path, here: Path, run) -> None:
    (here / "test" / "mug" / "bad.jpg").write_bytes(b"")
    folder = run("predict", "shop", "test/mug", "--json")
    assert folder.exit_code == 0
    assert len(json.loads(folder.stdout)) == 2
    assert "skipped test/mug/bad.jpg" in folder.stderr
    named = run("predict", "shop", "test/mug/bad.jpg", "test/mug/mug6.jpg", "--json")
    assert named.exit_code == 1
    assert len(json.loads(named.stdout)) == 1
    (here / "empty").mkdir()
    assert run("predict", "shop", "empty").exit_code == 1


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (retain.Locked("process 7 is writing"), 1, "process 7"),
        (retain.BadLabel("no"), 2, "no"),
        (OSError(errno.ENOSPC, "No space left on device", "x.db"), 1, "Make room"),
        (PermissionError(errno.EACCES, "Permission denied", b"x.db"), 1, "permissions"),
        (OSError("odd"), 1, "odd"),
        (MemoryError(), 1, "memory"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 1, "UTF-8"),
        (ZeroDivisionError("oh\x1b[2Jno"), 1, "ZeroDivisionError: oh\\x1b[2Jno"),
        (KeyboardInterrupt(), 130, "nothing acknowledged is lost"),
        (KeyboardInterrupt("stopped: 7 of 9 are prepared"), 130, "7 of 9"),
    ],
)
def test_every_failure_is_a_sentence(error, code, says, capsys, monkeypatch) -> None:
    def fail() -> None:
        raise error

    monkeypatch.delenv("RETAIN_DEBUG", raising=False)
    with pytest.raises(typer.Exit) as caught:
        guarded(fail)()
    assert caught.value.exit_code == code
    text = capsys.readouterr().err
    assert says in text
    assert "Traceback" not in text


def test_debug_shows_the_traceback(shop: Path) -> None:
    told = process("predict", "nowhere", "a.jpg", env=environment(RETAIN_DEBUG="1"))
    assert b"Traceback" in told.stderr
    assert told.returncode == 2


@pytest.mark.skipif(sys.platform == "darwin", reason="names must be UTF-8 there")
def test_names_that_are_no_text(shop: Path, here: Path) -> None:
    draw(here / "plain.jpg", "mug", 3)
    name = b"caf\xe9\n.jpg"
    os.rename(b"plain.jpg", name)
    for flags in ([], ["--json"], ["--csv"]):
        told = process("predict", "shop", name, *flags)
        assert told.returncode == 0, told.stderr
        assert b"caf" in told.stdout
        told.stdout.decode("utf-8")
        if flags == ["--json"]:
            assert "caf" in json.loads(told.stdout)[0]["path"]
    missing = process("predict", "shop", b"nowhere\xe9.jpg")
    assert missing.returncode == 1
    assert b"nowhere\\xe9.jpg" in missing.stderr


def test_an_ascii_terminal(shop: Path) -> None:
    told = process(
        "classes", "shop", "rename", "mug", "🙂", env=environment(PYTHONIOENCODING="ascii")
    )
    assert told.returncode == 0, told.stderr
    listed = process("classes", "shop", "--json", env=environment(PYTHONIOENCODING="ascii"))
    assert json.loads(listed.stdout)[-1]["label"] == "🙂"


def test_control_characters_never_reach_the_terminal(shop: Path, run) -> None:
    run("correct", "shop", "test/mug/mug6.jpg", "a\x1b]0;b\x07\u202ec")
    for words in [("predict", "shop", "test"), ("classes", "shop"), ("log", "shop")]:
        text = run(*words).stdout
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "a\\x1b]0;b\\x07\\u202ec" in run("classes", "shop").stdout


def test_a_reader_that_leaves(shop: Path) -> None:
    script = '"$@" | true; echo "${PIPESTATUS[0]}"'
    told = subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND, "predict", "shop", "test"],
        capture_output=True,
        timeout=60,
        env=environment(),
    )
    assert told.stderr == b""
    assert told.stdout.strip() in (b"141", b"0")


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(shop: Path, closed) -> None:
    for words in ("log shop", "learn shop test", "log nowhere"):
        told = subprocess.run(
            ["bash", "-c", f'"$@" {words} {closed}', "bash", *COMMAND],
            capture_output=True,
            timeout=60,
            env=environment(),
        )
        assert told.returncode == (2 if "nowhere" in words else 0), (words, told.stderr)
        assert b"Traceback" not in told.stderr
        assert b"Exception" not in told.stderr
    with retain.open(shop) as classifier:
        assert classifier.verify().ok


def test_forget_asks_on_a_terminal(shop: Path) -> None:
    for answer, code, left in ((b"n\n", 1, 3), (b"y\n", 0, 2)):
        ours, theirs = pty.openpty()
        child = subprocess.Popen(
            [*COMMAND, "forget", "shop", "--label", "mug"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        os.write(ours, answer)
        _, told = child.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert child.returncode == code
        assert b"6 pictures" in told
        assert b"mug0.jpg" in told
        with retain.open(shop) as classifier:
            assert len(classifier.labels) == left


# Of a shell that put the tests in the background, Ctrl-C is ignored by all who are started there.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from retain.faces.cli import main
main()
"""


def test_interrupted_learning_keeps_the_classifier_whole(shop: Path, here: Path) -> None:
    data = draw(here / "one.jpg", "mug", 40).read_bytes()
    (here / "many" / "vase").mkdir(parents=True)
    for number in range(1200):
        # Bytes after the end of a JPEG make it another picture for us, and the same to look at.
        (here / "many" / "vase" / f"{number}.jpg").write_bytes(data + b"%d" % number)
    blobs = len(list((shop / "blobs").rglob("*")))
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "learn", "shop", "many"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    while len(list((shop / "blobs").rglob("*"))) <= blobs:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, told = child.communicate(timeout=300)
    assert child.returncode == 130, told
    assert out == b""
    assert b"Traceback" not in told
    assert b"retain: stopped" in told
    with retain.open(shop) as classifier:
        assert classifier.labels == ("mug", "plate", "spoon")
        assert [event.kind for event in classifier.log()] == ["learn"]
        assert classifier.verify().ok
        assert classifier.learn(here / "many").learned == 1200


# Ctrl-C comes when the event is in the journal already, as often as is told.
INTERRUPTED_LATE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from retain.store import Store
times = int(sys.argv.pop(1))
def late(written):
    def method(self, *given, **options):
        found = written(self, *given, **options)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        return found
    return method
Store.append, Store.forget = late(Store.append), late(Store.forget)
from retain.faces.cli import main
main()
"""


def late(times: int, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED_LATE, str(times), *words],
        capture_output=True,
        timeout=120,
        env=environment(),
    )


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        (("learn", "shop", "test"), "learn", b"learned 6 pictures"),
        (("correct", "shop", "test/mug/mug6.jpg", "plate"), "correct", b"is 'plate' now"),
        (("forget", "shop", "--label", "mug", "--yes"), "forget", b"forgot 6 pictures"),
        (("undo", "shop"), "undo", b"took back event 1 (learn)"),
        (("protect", "shop", "--label", "mug"), "protect", b"protected: class 'mug'"),
    ],
)
def test_what_is_written_already_is_finished_and_told(shop: Path, words, kind, says) -> None:
    told = late(1, *words)
    assert told.returncode == 0, told.stderr
    assert says in told.stdout
    assert b"finishing what is begun" in told.stderr
    assert b"as it was" not in told.stderr
    with retain.open(shop) as classifier:
        assert [event.kind for event in classifier.log()][1:] == [kind]
        assert classifier.verify().notes == ()


def test_who_does_not_wait_is_told_to_look(shop: Path) -> None:
    told = late(2, "learn", "shop", "test")
    assert told.returncode == 130
    assert b"may have been done" in told.stderr
    assert b"retain log" in told.stderr
    assert b"as it was" not in told.stderr


def test_a_stop_between_two_stretches_of_work_is_heeded_at_the_next() -> None:
    def work() -> None:
        heard: list[int] = []
        tick = finishing(lambda done, total: heard.append(done))
        tick(2, 2)
        os.kill(os.getpid(), signal.SIGINT)
        assert heard == [2]
        tick(1, 2)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(typer.Exit) as caught:
            guarded(work)()
        assert caught.value.exit_code == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
