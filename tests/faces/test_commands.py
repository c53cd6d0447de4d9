"""Every command does what it says, for people and as JSON, CSV and exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest

import retain
from retain.store import erasing
from tests.faces.helpers import draw


def test_init_makes_a_classifier(here: Path, run, parsed) -> None:
    result = run("init", "new", "--head", "ridge", "--priors", "empirical", "--favour", "-0.5")
    assert result.exit_code == 0
    assert "retain learn new FOLDER" in result.stdout
    with retain.open(here / "new") as made:
        assert made.status().options == {"family": "ridge", "priors": "empirical", "favour": -0.5}
    assert parsed("create", "other", "--memory", "features")["memory"] == "features"


def test_learn_says_what_it_did(here: Path, run, parsed) -> None:
    run("init", "new")
    found = parsed("learn", "new", "train")
    assert (found["learned"], found["relabelled"], found["known"], found["skipped"]) == (
        18,
        0,
        0,
        [],
    )
    assert found["new_classes"] == ["mug", "plate", "spoon"]
    again = parsed("learn", "new", "train")
    assert (again["learned"], again["known"], again["event"]) == (0, 18, None)
    result = run("learn", "new", "test/mug/mug6.jpg", "test/mug/mug7.jpg", "--label", "cup")
    assert result.exit_code == 0
    assert "learned 2 pictures" in result.stdout
    assert "new: cup" in result.stdout


def test_learn_lists_what_it_skipped(shop: Path, here: Path, run, parsed) -> None:
    (here / "more" / "mug").mkdir(parents=True)
    draw(here / "more" / "mug" / "good.jpg", "mug", 30)
    (here / "more" / "mug" / "bad.jpg").write_bytes(b"no picture")
    strict = run("learn", "shop", "more", "--strict")
    assert strict.exit_code == 2
    assert "bad.jpg" in strict.stderr
    result = run("learn", "shop", "more")
    assert result.exit_code == 0
    assert "skipped more/mug/bad.jpg" in result.stderr
    assert "bad.jpg" not in result.stdout
    assert parsed("learn", "shop", "more")["skipped"][0]["path"] == "more/mug/bad.jpg"


def test_predict_as_table_json_and_csv(shop: Path, run, parsed) -> None:
    result = run("predict", "shop", "test/mug/mug6.jpg")
    assert result.exit_code == 0
    assert re.search(r"test/mug/mug6\.jpg +mug +\d+\.\d %", result.stdout)
    answers = parsed("predict", "shop", "test", "--top", "2")
    assert len(answers) == 6
    for each in answers:
        assert {"path", "label", "probability", "unknown", "top"} <= each.keys()
        assert [set(score) for score in each["top"]] == [{"label", "probability"}] * 2
        assert isinstance(each["unknown"], bool)
    rows = list(csv.DictReader(io.StringIO(run("predict", "shop", "test", "--csv").stdout)))
    assert [row["path"] for row in rows] == [each["path"] for each in answers]
    assert [row["label"] for row in rows] == [each["label"] for each in answers]
    assert set(rows[0]) >= {"path", "label", "probability", "unknown", "label_2", "probability_3"}


def test_predict_takes_folders_globs_and_stdin(shop: Path, here: Path, run, parsed) -> None:
    assert len(parsed("predict", "shop", "test/mug", "test/plate/*.jpg")) == 4
    data = (here / "test" / "spoon" / "spoon6.jpg").read_bytes()
    result = run("predict", "shop", "-", "--json", stdin=data)
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["path"] == "-"


def test_csv_of_strange_labels_comes_back_as_corrections(shop: Path, here: Path, run) -> None:
    label = 'a "b", c\nd 🙂;\té'
    run("correct", "shop", "test/mug/mug6.jpg", label)
    text = run("predict", "shop", "test/mug/mug6.jpg", "test/mug/mug7.jpg", "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert rows[0]["label"] == label
    rows[1]["label"] = label
    with (here / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    result = run("correct", "shop", "--from", "list.csv", "--all")
    assert result.exit_code == 0, result.stderr
    with retain.open(shop) as classifier:
        assert classifier.predict("test/mug/mug7.jpg")[0].label == label


def test_correct_says_what_else_changed(shop: Path, run, parsed) -> None:
    found = parsed("correct", "shop", "test/mug/mug6.jpg", "spoon")
    assert found["fixed"] is True
    assert isinstance(found["pinned"], bool)
    assert isinstance(found["seconds"], float)
    for change in [*found["worse"], *found["better"]]:
        assert {"image", "before", "after", "label"} <= change.keys()
    assert parsed("predict", "shop", "test/mug/mug6.jpg")[0]["label"] == "spoon"
    result = run("correct", "shop", "test/plate/plate6.jpg", "plate")
    assert "worse" in result.stdout or "no other remembered picture" in result.stdout


def test_worse_is_listed_before_better(capsys: pytest.CaptureFixture[str]) -> None:
    from retain.faces.cli.teach import told_changes
    from retain.values import Change, Update

    change = Change("sha256:00", "mug", "plate", "mug", "a.jpg")
    told_changes(Update(1, "correct", "", better=(change,), worse=(change, change)))
    text = capsys.readouterr().out
    assert text.index("worse: 2 remembered pictures") < text.index("better: 1 remembered picture")


def test_correct_by_hash_and_from_a_list_of_hashes(shop: Path, here: Path, run, parsed) -> None:
    image = parsed("predict", "shop", "train/mug/mug0.jpg")[0]["image"]
    assert run("correct", "shop", image, "cup").exit_code == 0
    (here / "list.csv").write_text(f"path,label\n{image},bowl\n")
    refused = run("correct", "shop", "--from", "list.csv")
    assert refused.exit_code == 1
    assert "'cup'" in refused.stderr
    assert "'bowl'" in refused.stderr
    assert run("correct", "shop", "--from", "list.csv", "--replace").exit_code == 0
    assert parsed("predict", "shop", "train/mug/mug0.jpg")[0]["label"] == "bowl"


@pytest.mark.parametrize(
    "words", [(), ("a.jpg",), ("a.jpg", "mug", "--from", "l.csv"), ("a.jpg", "--from", "l.csv")]
)
def test_correct_needs_a_picture_with_a_label_or_a_list(shop: Path, run, words) -> None:
    result = run("correct", "shop", *words)
    assert result.exit_code == 2
    assert "--from" in result.stderr


def test_forget_needs_a_yes(shop: Path, run, parsed) -> None:
    refused = run("forget", "shop", "--label", "mug")
    assert refused.exit_code == 2
    assert "6 pictures" in refused.stderr
    assert "retain forget shop --label mug --yes" in refused.stderr
    assert len(parsed("classes", "shop")) == 3
    receipt = parsed("forget", "shop", "--label", "mug", "--yes")
    assert receipt["level"] == "exact"
    assert (receipt["images"], receipt["gone_classes"]) == (6, ["mug"])
    result = run("forget", "shop", "train/plate/plate0.jpg", "-y")
    assert result.exit_code == 0
    assert "level exact" in result.stdout


def test_forget_says_what_it_had_to_leave(shop: Path, run, monkeypatch) -> None:
    monkeypatch.setattr(erasing, "_PATIENCE", 0.0)
    with retain.open(shop) as other, other._session.store.reading():
        result = run("forget", "shop", "train/plate/plate0.jpg", "-y")
    assert result.exit_code == 0
    told = " ".join(result.stdout.split())
    assert "traces are still in journal.db" in told
    assert "level pending: statistics and head are bit for bit those" in told


def test_undo_and_its_undo(shop: Path, run, parsed) -> None:
    before = parsed("show", "shop")["digest"]
    run("correct", "shop", "test/mug/mug6.jpg", "spoon")
    undone = parsed("undo", "shop")
    assert undone["kind"] == "undo"
    assert parsed("show", "shop")["digest"] == before
    result = run("undo", "shop", str(undone["event"]))
    assert result.exit_code == 0
    assert "to have it again: retain undo shop" in result.stdout
    assert parsed("show", "shop")["digest"] != before


def test_evaluate(shop: Path, here: Path, run, parsed) -> None:
    found = parsed("evaluate", "shop", "test")
    assert found["n"] == 6
    assert 0 <= found["accuracy"] <= 1
    assert set(found["per_class"]) == {"mug", "plate", "spoon"}
    result = run("evaluate", "shop", "train", "--html", "page.html")
    assert "balanced accuracy" in result.stdout
    assert "18 of these pictures are remembered" in result.stderr
    assert "data:image/" in (here / "page.html").read_text() or found["accuracy"] == 1


def test_evaluate_shows_the_mistakes(shop: Path, here: Path, run) -> None:
    (here / "wrong.csv").write_text("path,label\ntest/mug/mug6.jpg,spoon\ntest/mug/mug7.jpg,vase\n")
    result = run("evaluate", "shop", "wrong.csv", "--html", "page.html")
    assert "most confident mistakes" in result.stdout
    assert "never taught, so always wrong: vase" in result.stderr
    page = (here / "page.html").read_text()
    assert page.count("data:image/jpeg") == 2


def test_log_show_and_classes(shop: Path, run, parsed) -> None:
    run("correct", "shop", "test/mug/mug6.jpg", "spoon")
    events = parsed("log", "shop")
    assert [each["kind"] for each in events] == ["learn", "correct"]
    assert all({"event", "kind", "at", "summary"} <= each.keys() for each in events)
    assert [each["event"] for each in parsed("log", "shop", "-n", "1")] == [2]
    assert "learn" in run("log", "shop").stdout
    assert parsed("show", "shop", "1")["event"]["kind"] == "learn"
    assert "and" not in parsed("show", "shop")["digest"]
    image = run("show", "shop", "train/mug/mug0.jpg")
    assert image.exit_code == 0
    assert "taught as" in image.stdout
    assert "18" in run("show", "shop", "1").stdout or "mug0.jpg" in run("show", "shop", "1").stdout
    listed = parsed("classes", "shop")
    assert [(each["label"], each["images"]) for each in listed] == [
        ("mug", 6),
        ("plate", 6),
        ("spoon", 7),
    ]


def test_classes_rename_and_merge(shop: Path, run, parsed) -> None:
    assert run("classes", "shop", "rename", "mug", "cup").exit_code == 0
    assert parsed("classes", "shop", "merge", "plate", "cup")["gone_classes"] == ["plate"]
    assert [each["label"] for each in parsed("classes", "shop")] == ["cup", "spoon"]
    lacking = run("classes", "shop", "rename", "cup")
    assert lacking.exit_code == 2
    assert "OLD NEW" in lacking.stderr


def test_verify_names_what_is_broken(shop: Path, run, parsed) -> None:
    found = parsed("verify", "shop", "--deep")
    assert found["ok"] is True
    assert found["problems"] == []
    assert found["digest"].startswith("sha256:")
    assert run("verify", "shop").stdout.startswith("ok: 18 pictures, 1 event")
    blob = next(path for path in (shop / "blobs").rglob("*") if path.is_file())
    os.chmod(blob, 0o644)
    blob.write_bytes(b"something else")
    assert parsed("verify", "shop", code=1)["ok"] is False
    broken = run("verify", "shop")
    assert broken.exit_code == 1
    assert blob.name in broken.stdout


def test_version(run) -> None:
    assert run("--version").stdout == f"retain {retain.__version__}\n"


def test_one_label_for_the_folders_of_known_classes_is_refused(shop: Path, here: Path, run) -> None:
    for source in ("train", "test"):
        result = run("learn", "shop", source, "--label", "thing")
        assert result.exit_code == 2
        assert "'mug', 'plate', 'spoon'" in result.stderr
        assert f"'{source}/*/*'" in result.stderr
    assert run("classes", "shop").stdout.count("6") == 3
    # A folder of the class itself, whatever it holds, is meant.
    assert run("learn", "shop", "test/mug", "--label", "mug").exit_code == 0
    (here / "photos" / "monday").mkdir(parents=True)
    (here / "test" / "plate").rename(here / "photos" / "monday" / "sun")
    assert run("learn", "shop", "photos", "--label", "plate").exit_code == 0


def test_classes_that_go_are_named(shop: Path, run) -> None:
    result = run("learn", "shop", "train/mug", "--label", "vase")
    assert result.exit_code == 0, result.stderr
    assert "new: vase" in result.stdout
    assert "gone: mug" in result.stdout
    taken_back = run("undo", "shop").stdout
    assert "new: mug" in taken_back
    assert "gone: vase" in taken_back


def test_a_correction_to_an_unknown_class_is_said(shop: Path, run, parsed) -> None:
    for flags in (["--dry-run"], []):
        result = run("correct", "shop", "test/mug/mug6.jpg", "Mugg", *flags)
        assert result.exit_code == 0, result.stderr
        assert "new: Mugg" in result.stdout
        assert "did you mean 'mug'?" in result.stderr
        assert ("retain undo shop" in result.stderr) is not bool(flags)
    other = run("correct", "shop", "test/mug/mug7.jpg", "vase")
    assert "new: vase" in other.stdout
    assert "did you mean" not in other.stderr
    known = run("correct", "shop", "test/plate/plate6.jpg", "plate")
    assert "new:" not in known.stdout
    assert "did you mean" not in known.stderr


@pytest.mark.parametrize("verb", ["protect", "forget", "show"])
def test_a_file_that_is_there_but_not_remembered(shop: Path, run, verb) -> None:
    more = ["--yes"] if verb == "forget" else []
    for name, says in (
        ("test/mug/mug6.jpg", "is there, but not remembered"),
        ("test/mug", "is a folder; name its pictures one by one"),
        ("nowhere.jpg", "is neither a file nor a remembered picture"),
        ("mug2.jpg", "train/mug/mug2.jpg', as it was taught?"),
    ):
        result = run(verb, "shop", name, *more)
        assert result.exit_code == 2
        assert says in result.stderr
        assert ("neither" in result.stderr) is not Path(name).exists()


def test_a_picture_is_named_by_where_it_lay(shop: Path, here: Path, run) -> None:
    run("learn", "shop", "test")
    for gone in ("mug/mug6.jpg", "mug/mug7.jpg", "plate/plate6.jpg"):
        (here / "test" / gone).unlink()
    assert run("show", "shop", "test/mug/mug6.jpg").exit_code == 0
    assert run("show", "shop", "./test/plate/../mug/mug7.jpg").exit_code == 0
    assert run("forget", "shop", str(here / "test/plate/plate6.jpg"), "--yes").exit_code == 0
    with retain.open(shop) as classifier:
        assert len(classifier.samples()) == 23


@pytest.fixture
def guesses(shop: Path, here: Path, run) -> Path:
    """What `predict --csv` wrote of six pictures, one row edited."""
    run("correct", "shop", "test/mug/mug6.jpg", "plate")
    text = run("predict", "shop", "test", "--csv").stdout
    assert text.count("\n") == 7
    (here / "unedited.csv").write_text(text)
    lines = [
        line.replace("7.jpg,mug,", "7.jpg,plate,") if "mug7.jpg" in line else line
        for line in text.splitlines()
    ]
    (here / "edited.csv").write_text("\n".join(lines))
    return here


def test_guesses_that_nobody_edited_are_no_corrections(guesses: Path, run, parsed) -> None:
    left = run("correct", "shop", "--from", "unedited.csv")
    assert left.exit_code == 2
    assert "every row of unedited.csv says what is answered now" in left.stderr
    result = run("correct", "shop", "--from", "edited.csv", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "5 rows of edited.csv" in result.stderr
    assert "--all" in result.stderr
    assert len(parsed("correct", "shop", "--from", "edited.csv")["corrected"]) == 1
    everything = run("correct", "shop", "--from", "edited.csv", "--all")
    assert everything.exit_code == 0, everything.stderr
    assert "corrected 6 pictures" in everything.stdout
    assert "answered so before: 6 of them" in everything.stdout


def test_a_list_of_ones_own_confirms_unless_told_otherwise(guesses: Path, run, parsed) -> None:
    digits = parsed("predict", "shop", "train/mug/mug0.jpg")[0]["image"][7:19]
    (guesses / "own.csv").write_text(f"path,label\ntest/mug/mug7.jpg,plate\n{digits},mug\n")
    words = ("correct", "shop", "--from", "own.csv", "--dry-run")
    assert len(parsed(*words)["corrected"]) == 2
    assert len(parsed(*words, "--different")["corrected"]) == 1


def test_paths_of_a_list_in_another_folder(guesses: Path, run) -> None:
    (guesses / "lists").mkdir()
    (guesses / "edited.csv").rename(guesses / "lists" / "edited.csv")
    result = run("correct", "shop", "--from", "lists/edited.csv")
    assert result.exit_code == 2
    assert "relative to the list" in result.stderr


def test_show_says_when_nothing_could_be_tuned(here: Path, run, parsed) -> None:
    run("init", "new")
    assert "tuned" not in run("show", "new").stdout
    for label in ("mug", "plate"):
        run("learn", "new", f"train/{label}/{label}0.jpg", "--label", label)
    shown = run("show", "new").stdout
    assert "no picture can be left out" in shown
    assert "shrinkage" not in shown
    run("learn", "new", "train")
    shown = run("show", "new").stdout
    assert "no picture can be left out" not in shown
    assert "leave-one-out" in shown
    assert "shrinkage" in shown
    assert parsed("show", "new")["leave_one_out_accuracy"] is not None


def test_another_name_is_no_improvement(shop: Path, run) -> None:
    run("classes", "shop", "rename", "mug", "cup")
    for words, names in (
        (("undo", "shop"), "cup → mug"),
        (("classes", "shop", "merge", "plate", "mug", "--dry-run"), "plate → mug"),
        (("learn", "shop", "train/mug", "--label", "vase"), "mug → vase"),
    ):
        result = run(*words)
        assert result.exit_code == 0, result.stderr
        assert f"by another name: 6 remembered pictures, {names}" in result.stdout
        assert "better" not in result.stdout
