"""A dry run says what would happen and leaves the directory as it is: no row, no file, no cache."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from PIL import Image
from typer.testing import CliRunner

import retain
from retain.faces.cli.app import app
from tests.verbs.adopted import adopt, pictures

# How each verb is asked from Python, and from the command line; paths are those of `desk`.
VERBS = {
    "learn": (
        lambda mine: mine.learn("more", "gnu", dry_run=True),
        ("learn", "mine", "more", "--label", "gnu"),
    ),
    "learn what was taught as another class": (
        lambda mine: mine.learn("foxes", "elk", dry_run=True),
        ("learn", "mine", "foxes", "--label", "elk"),
    ),
    "learn by force": (
        lambda mine: mine.learn("more", "bee", force=True, dry_run=True),
        ("learn", "mine", "more", "--label", "bee", "--force"),
    ),
    "reference": (
        lambda mine: mine.reference("more", dry_run=True),
        ("reference", "mine", "more"),
    ),
    "correct": (
        lambda mine: mine.correct("more/0.png", "wasp", dry_run=True),
        ("correct", "mine", "more/0.png", "wasp"),
    ),
    "correct many": (
        lambda mine: mine.correct_many(
            [("more/0.png", "wasp"), ("elks/0.png", "fox")], dry_run=True
        ),
        ("correct", "mine", "--from", "list.csv"),
    ),
    "correct as an exception": (
        lambda mine: mine.correct("more/1.png", "gnu", exception=True, dry_run=True),
        ("correct", "mine", "more/1.png", "gnu", "--exception"),
    ),
    "forget": (
        lambda mine: mine.forget(labels="fox", dry_run=True),
        ("forget", "mine", "--label", "fox"),
    ),
    "undo": (lambda mine: mine.undo(dry_run=True), ("undo", "mine")),
    "undo a lesson": (lambda mine: mine.undo(2, dry_run=True), ("undo", "mine", "2")),
    "merge": (
        lambda mine: mine.merge("fox", "elk", dry_run=True),
        ("classes", "mine", "merge", "fox", "elk"),
    ),
    "promote": (
        lambda mine: mine.promote(3, dry_run=True),
        ("promote", "mine", "3"),
    ),
    "promote under a new name": (
        lambda mine: mine.promote(1, "candidate", dry_run=True),
        ("promote", "mine", "1", "--alias", "candidate"),
    ),
    "rollback": (lambda mine: mine.rollback(dry_run=True), ("rollback", "mine")),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An adopted classifier with a life behind it, and pictures to ask about."""
    desk = tmp_path_factory.mktemp("desk")
    rows = []
    for folder, tint in (("elks", 1), ("foxes", 2), ("more", 3)):
        (desk / folder).mkdir()
        for number, pixels in enumerate(pictures(6, seed=tint, tint=tint)):
            Image.fromarray(pixels).save(desk / folder / f"{number}.png")
    (desk / "list.csv").write_text("path,label\nmore/0.png,wasp\nelks/0.png,fox\n")
    with adopt(desk, reference=pictures(25)) as mine:
        mine.learn(desk / "elks", "elk", force=True)
        mine.learn(desk / "foxes", "fox", force=True)
        mine.promote(1, force=True)
        mine.promote(2, force=True)
        mine.correct(pictures(1, seed=9)[0], "bee", force=True)
        rows = [event.kind for event in mine.log()]
    assert rows == ["reference", "learn", "learn", "promote", "promote", "correct"]
    return desk


@pytest.fixture(params=["as it is", "without its caches"])
def desk(made, tmp_path, monkeypatch, request):
    """A copy to work in; without caches, whatever a verb needs it has to work out itself."""
    shutil.copytree(made, tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    if request.param == "without its caches":
        for file in (tmp_path / "desk" / "mine" / "versions").iterdir():
            file.unlink()
        with closing(sqlite3.connect(tmp_path / "desk" / "mine" / "journal.db")) as db, db:
            assert db.execute("DELETE FROM tunings").rowcount > 0
    return tmp_path / "desk"


def whole(folder):
    """Every row of every table, and every other file with its content."""
    with closing(sqlite3.connect(folder / "journal.db")) as db:
        tables = [t for (t,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {t: sorted(map(repr, db.execute(f'SELECT * FROM "{t}"'))) for t in tables}
    assert {"events", "images", "members", "features", "tunings", "erasures"} <= rows.keys()
    files = {
        # The lock says who held it last.
        str(path.relative_to(folder)): b"" if path.name == "lock" else path.read_bytes()
        for path in folder.rglob("*")
        # SQLite's own log comes and goes as the file is opened and closed.
        if path.is_file() and not path.name.startswith("journal.db")
    }
    return rows, files


@pytest.mark.parametrize("verb", VERBS)
def test_from_python(desk, verb):
    ask, _ = VERBS[verb]
    before = whole(desk / "mine")
    with retain.open("mine") as mine:
        said = ask(mine)
        assert said.event is None
        assert whole(desk / "mine") == before
    assert whole(desk / "mine") == before


@pytest.mark.parametrize("verb", VERBS)
def test_from_the_command_line(desk, verb):
    _, words = VERBS[verb]
    before = whole(desk / "mine")
    result = CliRunner().invoke(app, [*words, "--dry-run"])
    assert result.exit_code == 0, result.stderr
    assert "dry run, nothing is written" in result.stdout or "would forget" in result.stdout
    assert whole(desk / "mine") == before
    result = CliRunner().invoke(app, [*words, "--dry-run", "--json"])
    assert result.exit_code == 0, result.stderr
    assert whole(desk / "mine") == before


def test_every_verb_that_has_a_dry_run_is_here():
    """Whatever takes `dry_run` is asked above."""
    import inspect

    takes = {
        name
        for name, verb in inspect.getmembers(retain.Classifier, inspect.isfunction)
        if "dry_run" in inspect.signature(verb).parameters
    }
    # They need another extractor: tests/train/test_adapt.py, tests/eras/test_purge.py.
    takes -= {"adapt", "purge"}
    assert takes == {
        *("learn", "reference", "correct", "correct_many", "forget", "undo", "merge"),
        *("promote", "rollback"),
    }
    assert {verb.split()[0] for verb in VERBS} == takes - {"correct_many"}


def test_the_real_thing_writes(desk):
    """Otherwise the comparison above would prove nothing."""
    before = whole(desk / "mine")
    with retain.open("mine") as mine:
        mine.learn("more", "gnu", force=True)
    (rows, files), (was, were) = whole(desk / "mine"), before
    assert len(rows["tunings"]) > len(was["tunings"])
    assert len(rows["images"]) == len(was["images"]) + 6
    assert files.keys() - were.keys()


def test_what_an_interrupted_lesson_prepared_is_left_to_it(desk):
    """A dry run in between does not sweep away what the same command would go on from."""

    def stop(done, total):
        if done == total:
            raise KeyboardInterrupt

    with retain.open("mine") as mine:
        with pytest.raises(KeyboardInterrupt, match="are prepared"):
            mine.learn(pictures(130, seed=31, tint=4), "gnu", progress=stop)
        before = whole(desk / "mine")
        assert any(", 1)" in row for row in before[0]["images"])
        mine.learn("more", "gnu", dry_run=True)
        assert whole(desk / "mine") == before


def test_a_dry_run_that_is_interrupted_leaves_nothing(desk):
    def stop(done, total):
        if done == total:
            raise KeyboardInterrupt

    before = whole(desk / "mine")
    with retain.open("mine") as mine:
        with pytest.raises(KeyboardInterrupt, match="dry run, nothing is written"):
            mine.learn(pictures(130, seed=31, tint=4), "gnu", progress=stop, dry_run=True)
        assert whole(desk / "mine") == before


def test_a_dry_run_says_what_then_happens(desk):
    with retain.open("mine") as mine:
        said = mine.learn("more", "gnu", dry_run=True)
        done = mine.learn("more", "gnu", force=True)
    assert (said.learned, said.new_classes, said.worse) == (6, ("gnu",), done.worse)
    assert [c.sentence for c in said.verdict.checks] == [c.sentence for c in done.verdict.checks]
