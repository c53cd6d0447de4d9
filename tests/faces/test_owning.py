"""Somebody's own classifier from the command line: adopted, extended, guarded, handed on."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import retain
from tests.faces.test_pages import checked
from tests.verbs.adopted import NAMES, SIDE, model, pictures, theirs

ADOPT = ("theirs.onnx", "--labels", "names.txt", "--preprocess", "raw")


def painted(folder: Path, n: int, seed: int, tint: int | None = None) -> Path:
    """A folder of small pictures; of the same tint they look alike."""
    folder.mkdir(parents=True)
    for number, pixels in enumerate(pictures(n, seed=seed, tint=tint)):
        Image.fromarray(pixels).save(folder / f"{folder.name}{number}.png")
    return folder


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: a trained classifier, the names of its classes, pictures."""
    model(tmp_path / "theirs.onnx")
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    painted(tmp_path / "typical", 30, seed=3)
    painted(tmp_path / "elks", 8, seed=4, tint=1)
    painted(tmp_path / "more", 4, seed=5, tint=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mine(desk: Path, run) -> Path:
    """The classifier, adopted as ./mine with a reference."""
    result = run("adopt", "mine", *ADOPT, "--reference", "typical")
    assert result.exit_code == 0, result.stderr
    return desk / "mine"


@pytest.fixture
def grown(mine: Path, run) -> Path:
    """The same, which has learned elks since: event 1 is the reference, 2 the lesson."""
    assert run("learn", "mine", "elks", "--label", "elk").exit_code == 0
    return mine


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def events(name: Path) -> int:
    with retain.open(name) as classifier:
        return len(classifier.log())


def wrong(result: Any, code: int = 2) -> str:
    """The one message of a command that failed."""
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("retain: error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert "unforeseen" not in result.stderr
    return str(result.stderr)


# -- adopt -------------------------------------------------------------------------------------


def test_adopted_it_answers_as_the_original(desk: Path, run, parsed) -> None:
    result = run("adopt", "mine", *ADOPT)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "adopted theirs as mine" in result.stdout
    assert "4 classes, 12 features, answers as before to" in result.stdout
    assert "retain reference mine FOLDER" in result.stdout
    answers = parsed("predict", "mine", "typical")
    rows = [np.asarray(Image.open(each["path"])) for each in answers]
    wanted = theirs(desk / "theirs.onnx", rows)
    assert [each["label"] for each in answers] == [NAMES[i] for i in wanted.argmax(axis=1)]
    found = parsed("adopt", "again", *ADOPT, "--reference", "typical")
    assert found["adopted"]["model"] == "theirs"
    assert (found["classes"], found["reference"]) == (4, 30)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.json", json.dumps(NAMES)),
        ("map.json", json.dumps({str(i): label for i, label in enumerate(NAMES)})),
        ("names.csv", "index,label\n" + "".join(f"{i},{n}\n" for i, n in enumerate(NAMES))),
    ],
)
def test_labels_from_files_of_other_kinds(desk: Path, run, name: str, text: str) -> None:
    (desk / name).write_text(text)
    result = run("adopt", "mine", "theirs.onnx", "--labels", name, "--preprocess", "raw")
    assert result.exit_code == 0, result.stderr
    with retain.open(desk / "mine") as classifier:
        assert classifier.labels == tuple(NAMES)


@pytest.mark.parametrize("preset", ["imagenet", "minus-one-to-one", "zero-to-one", "caffe"])
def test_presets_and_what_overrides_them(desk: Path, run, preset: str) -> None:
    words = ("adopt", "mine", "theirs.onnx", "--labels", "names.txt", "--preprocess", preset)
    result = run(*words, "--squash", "--interpolation", "box", "--mean", "0,0,0", "--std", "2,2,2")
    assert result.exit_code == 0, result.stderr
    with retain.open(desk / "mine") as classifier:
        rule = classifier._session.extractor.rule
    assert (rule.height, rule.width, rule.resize) == (SIDE, SIDE, "squash")
    assert (rule.interpolation, rule.mean, rule.std) == ("box", (0, 0, 0), (2, 2, 2))


def test_a_check_warns_when_another_preset_does_better(desk: Path, run, parsed) -> None:
    """The labels are what the original answers to raw pixels, so that is what it was made for."""
    model(desk / "theirs.onnx", seed=2)
    for number, colour in enumerate(np.random.default_rng(5).integers(0, 256, (40, 3))):
        flat = np.full((SIDE, SIDE, 3), colour, np.uint8)
        label = NAMES[int(theirs(desk / "theirs.onnx", [flat])[0].argmax())]
        (desk / "test" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(flat).save(desk / "test" / label / f"{number}.png")
    assert len(list((desk / "test").iterdir())) > 1
    right = run("adopt", "right", *ADOPT, "--check", "test")
    assert right.exit_code == 0, right.stderr
    assert "right on 100.0 % of 40 labelled pictures" in right.stdout
    assert "  with zero-to-one instead: " in right.stdout
    assert "warning" not in right.stdout
    words = ("theirs.onnx", "--labels", "names.txt", "--preprocess", "zero-to-one")
    result = run("adopt", "mine", *words, "--check", "test")
    assert result.exit_code == 0, result.stderr
    assert "  with raw instead: 100.0 %" in result.stdout
    (warning,) = [each for each in result.stdout.splitlines() if each.startswith("warning: ")]
    assert "it was probably trained with 'raw'" in warning
    found = parsed("adopt", "third", *words, "--check", "test")["adopted"]["check"]
    assert (found["n"], found["better"], found["others"]["raw"]) == (40, "raw", 1.0)


class Trap:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def spoiled(desk: Path) -> None:
    """Files that are not what they should be."""
    whole = (desk / "theirs.onnx").read_bytes()
    (desk / "half.onnx").write_bytes(whole[: len(whole) // 2])
    (desk / "noise.onnx").write_bytes(np.random.default_rng(0).bytes(3000))
    (desk / "empty.onnx").write_bytes(b"")
    for name in ("trap.onnx", "trap.pth", "trap.safetensors"):
        (desk / name).write_bytes(pickle.dumps(Trap()))
    (desk / "short.txt").write_text("wasp\nant\n")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("theirs.onnx", "--labels", "short.txt", "--preprocess", "raw"), 2, "2 names"),
        (("theirs.onnx", "--labels", "nowhere.txt", "--preprocess", "raw"), 2, "nowhere.txt"),
        (("theirs.onnx", "--labels", "half.onnx", "--preprocess", "raw"), 2, "half.onnx"),
        (("theirs.onnx", "--labels", "typical", "--preprocess", "raw"), 2, "typical"),
        (("theirs.onnx", "--preprocess", "raw"), 2, "--labels"),
        (("theirs.onnx", "--labels", "names.txt"), 2, "--preprocess"),
        (("theirs.onnx", "--labels", "names.txt", "--preprocess", "imagnet"), 2, "'imagnet'"),
        (("nowhere.onnx", *ADOPT[1:]), 2, "nowhere.onnx"),
        (("half.onnx", *ADOPT[1:]), 1, "half.onnx"),
        (("noise.onnx", *ADOPT[1:]), 1, "noise.onnx"),
        (("empty.onnx", *ADOPT[1:]), 1, "empty.onnx"),
        (("names.txt", *ADOPT[1:]), 1, "names.txt"),
        (("trap.onnx", *ADOPT[1:]), 1, "pickle, which is never opened"),
        (("trap.pth", *ADOPT[1:]), 1, "--weights trap.pth"),
        ((*ADOPT, "--weights", "trap.pth"), 2, "leave them out"),
        (("typical", "--weights", "trap.pth", *ADOPT[1:]), 2, "leave them out"),
        ((*ADOPT, "--reference", "nowhere"), 2, "nowhere"),
        ((*ADOPT, "--reference", "names.txt"), 2, "names.txt"),
        ((*ADOPT, "--check", "nowhere"), 2, "nowhere"),
        ((*ADOPT, "--check", "elks"), 2, "no class folders"),
        ((*ADOPT, "--mean", "1,2"), 2, "2 means"),
        ((*ADOPT, "--std", "0,0,0"), 2, "std not zero"),
        ((*ADOPT, "--size", "12"), 2, "12"),
        ((*ADOPT, "--colour", "PINK"), 2, "'PINK'"),
        ((*ADOPT, "--output", "z1"), 2, "'z1'"),
        ((*ADOPT, "--shorter", "12", "--squash"), 2, "exclude each other"),
    ],
)
def test_what_cannot_be_adopted_leaves_nothing(desk: Path, run, words, code, says) -> None:
    spoiled(desk)
    before = everything(desk)
    assert says in wrong(run("adopt", "mine", *words), code)
    assert everything(desk) == before
    assert not (desk / "mine").exists()
    assert not (desk / "executed").exists()


@pytest.mark.parametrize("trap", ["trap.pth", "trap.safetensors"])
def test_a_pickle_as_weights_is_never_executed(desk: Path, run, trap: str) -> None:
    """With PyTorch it is refused for what it is, without it for want of PyTorch."""
    spoiled(desk)
    before = everything(desk)
    result = run("adopt", "mine", "timm:resnet18", "--weights", trap, *ADOPT[1:])
    message = wrong(result, result.exit_code)
    assert result.exit_code in (1, 2)
    assert trap in message or "retain[train]" in message
    assert everything(desk) == before
    assert not (desk / "executed").exists()


def test_adopt_does_not_take_the_place_of_another(mine: Path, desk: Path, run) -> None:
    before = everything(mine)
    assert "choose another name" in wrong(run("adopt", "mine", *ADOPT))
    assert everything(mine) == before
    assert "names.txt" in wrong(run("adopt", "names.txt", *ADOPT))
    assert (desk / "names.txt").read_text().split() == NAMES


# -- reference, protect ------------------------------------------------------------------------


def test_reference(desk: Path, run, parsed) -> None:
    run("adopt", "mine", *ADOPT)
    before = parsed("predict", "mine", "typical")
    found = parsed("reference", "mine", "typical")
    assert (found["kind"], found["learned"], found["event"]) == ("reference", 30, 1)
    again = run("reference", "mine", "typical", "elks")
    assert again.exit_code == 0
    assert "took 8 pictures as reference, 30 known already" in again.stdout
    assert parsed("show", "mine")["reference"] == 38
    after = parsed("predict", "mine", "typical")
    assert [each["top"] for each in after] == [each["top"] for each in before]
    assert "nowhere" in wrong(run("reference", "mine", "nowhere"))
    run("init", "made")
    assert "only one that was adopted" in wrong(run("reference", "made", "typical"))


def test_protect_and_unprotect(grown: Path, run, parsed) -> None:
    assert run("protect", "mine", "--label", "elk").stdout == "protected: class 'elk'\n"
    assert parsed("protect", "mine", "--label", "elk")["event"] is None
    assert parsed("protect", "mine", "elks/elks0.png")["event"] == 4
    lesson = ("learn", "mine", "elks/elks0.png", "--label", "wasp", "--force")
    assert "it is protected as 'elk'" in wrong(run(*lesson))
    assert parsed("show", "mine", "elks/elks0.png")["sample"]["label"] == "elk"
    lifted = run("protect", "mine", "elks/elks0.png", "--label", "elk", "--off")
    assert lifted.stdout == "no longer protected: 1 picture, class 'elk'\n"
    idle = run("protect", "mine", "--label", "elk", "--off")
    assert idle.stdout == "nothing changes: not protected\n"
    assert run(*lesson).exit_code == 0
    assert parsed("show", "mine", "elks/elks0.png")["sample"]["label"] == "wasp"


@pytest.mark.parametrize(
    ("words", "says"),
    [((), "--label"), (("nowhere.png",), "nowhere.png"), (("--label", "fox"), "'fox'")],
)
def test_protect_needs_what_there_is(grown: Path, run, words, says) -> None:
    before = events(grown)
    assert says in wrong(run("protect", "mine", *words))
    assert events(grown) == before


# -- correct, learn ----------------------------------------------------------------------------


def test_an_exception_answers_for_its_neighbourhood(grown: Path, run, parsed) -> None:
    before = parsed("predict", "mine", "typical")
    image = "typical/typical3.png"
    found = parsed("correct", "mine", image, "cat", "--exception")
    assert found["fixed"] is True
    assert found["corrected"][0]["exception"] is True
    assert parsed("predict", "mine", image)[0]["label"] == "cat"
    others = [each for each in parsed("predict", "mine", "typical") if each["path"] != image]
    assert others == [each for each in before if each["path"] != image]
    assert "an exception answered" in run("explain", "mine", image).stdout
    told = run("correct", "mine", "typical/typical4.png", "ant", "--exception")
    assert "as an exception: it answers for its own neighbourhood" in told.stdout


def test_a_dry_run_writes_nothing(mine: Path, run, parsed) -> None:
    before = events(mine), parsed("show", "mine")
    blobs = sorted((mine / "blobs").rglob("*"))
    result = run("learn", "mine", "elks", "--label", "elk", "--dry-run")
    assert result.exit_code == 0
    assert "dry run, nothing is written: learned 8 pictures" in result.stdout
    assert "the gate agrees" in result.stdout
    assert "new: elk" in result.stdout
    found = parsed("learn", "mine", "elks", "--label", "elk", "--dry-run")
    assert (found["event"], found["learned"], found["verdict"]["passed"]) == (None, 8, True)
    assert (events(mine), parsed("show", "mine")) == before
    assert sorted((mine / "blobs").rglob("*")) == blobs


# -- versions ----------------------------------------------------------------------------------


def test_diff_in_words_json_and_pictures(grown: Path, desk: Path, run, parsed) -> None:
    result = run("diff", "mine", "1", "2", "--html", "page.html")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("version 1 to 2, on 8 remembered pictures: 0 worse, 8 better")
    assert "new: elk" in result.stdout
    assert "page: page.html" in result.stdout
    read = checked((desk / "page.html").read_text())
    assert len(read.images) == 8
    found = parsed("diff", "mine", "2", "1")
    assert (found["a"], found["b"], found["judged"]) == (2, 1, 8)
    assert {each["before"] for each in found["worse"]} == {"elk"}
    assert found["gone_classes"] == ["elk"]
    assert parsed("diff", "mine", "1")["b"] == 2
    for words, says in ((("99",), "99"), (("candidate",), "'candidate'")):
        assert says in wrong(run("diff", "mine", *words))
    lost = run("diff", "mine", "1", "--html", "nowhere/page.html")
    assert "nowhere/page.html" in wrong(lost)


def test_a_page_that_cannot_be_written_is_said_without_an_answer(grown: Path, run) -> None:
    for words in (("diff", "mine", "1"), ("explain", "mine", "more/more0.png")):
        assert "typical" in wrong(run(*words, "--html", "typical"))


def test_aliases_promote_and_roll_back(grown: Path, run, parsed) -> None:
    assert parsed("promote", "mine", "1")["event"] == 3
    assert run("promote", "mine", "2", "--dry-run").stdout.startswith("dry run, nothing is written")
    assert run("promote", "mine", "2", "--alias", "candidate").exit_code == 0
    old = parsed("predict", "mine", "more", "--version", "production")
    new = parsed("predict", "mine", "more", "--version", "candidate")
    assert "elk" not in {score["label"] for each in old for score in each["top"]}
    assert {each["label"] for each in new} == {"elk"}
    assert old == parsed("predict", "mine", "more", "--version", "1")
    listed = {each["event"]: each["aliases"] for each in parsed("versions", "mine")}
    assert (listed[1], listed[2]) == (["production"], ["candidate"])
    assert "production" in run("versions", "mine").stdout
    assert "version 2 now" in run("promote", "mine", "candidate").stdout
    back = run("rollback", "mine")
    assert back.exit_code == 0
    assert "production is version 1 again (it was 2)" in back.stdout
    assert parsed("predict", "mine", "more", "--version", "production") == old
    assert parsed("diff", "mine", "production", "candidate")["b"] == 2
    assert "nothing to go back to" in wrong(run("rollback", "mine"), 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("promote", "mine", "99"), "99"),
        (("promote", "mine", "1", "--alias", "latest"), "'latest'"),
        (("promote", "mine", "1", "--alias", "a b"), "'a b'"),
        (("predict", "mine", "more", "--version", "next"), "'next'"),
        (("export", "mine", "out.onnx", "--version", "99"), "99"),
    ],
)
def test_versions_that_are_none(grown: Path, run, words, says) -> None:
    before = events(grown)
    assert says in wrong(run(*words))
    assert events(grown) == before


# -- explain -----------------------------------------------------------------------------------


def test_explain_in_words_json_and_pictures(grown: Path, desk: Path, run, parsed) -> None:
    result = run("explain", "mine", "more/more0.png", "--html", "why.html")
    assert result.exit_code == 0, result.stderr
    answer = parsed("predict", "mine", "more/more0.png", "--top", "5")[0]
    assert result.stdout.startswith(f"{answer['label']}, ")
    assert "the taught pictures it resembles most" in result.stdout
    assert "elks/elks" in result.stdout
    assert "it takes" in result.stdout
    assert "page: why.html" in result.stdout
    read = checked((desk / "why.html").read_text())
    assert len(read.images) >= 5
    found = parsed("explain", "mine", "more/more0.png")
    assert found["prediction"]["label"] == answer["label"]
    assert found["scores"] == answer["top"]
    assert {each["label"] for each in found["neighbours"]} == {"elk"}
    assert all({"label", "how", "worse", "sentence"} <= each.keys() for each in found["remedies"])
    for words in (("nowhere.png",), ("typical",), ("names.txt",)):
        assert words[0] in wrong(run("explain", "mine", *words))


# -- export, pack, unpack ----------------------------------------------------------------------


def test_an_export_runs_in_plain_onnxruntime(grown: Path, desk: Path, run, parsed) -> None:
    import onnxruntime

    found = parsed("export", "mine", "out.onnx")
    assert (found["classes"], found["version"], found["output"]) == (5, 2, "y")
    session = onnxruntime.InferenceSession(str(desk / "out.onnx"))
    assert [each.name for each in session.get_inputs()] == ["x"]
    assert [each.name for each in session.get_outputs()] == ["y"]
    answers = parsed("predict", "mine", "more", "typical", "--top", "5")
    pixels = np.stack([np.asarray(Image.open(each["path"])) for each in answers])
    given = session.run(None, {"x": pixels.astype(np.float32).transpose(0, 3, 1, 2)})[0]
    for row, answer in zip(given, answers, strict=True):
        told = {score["label"]: score["probability"] for score in answer["top"]}
        wanted = [told[label] for label in [*NAMES, "elk"]]
        np.testing.assert_allclose(row, wanted, atol=1e-4)
    before = (desk / "out.onnx").read_bytes()
    assert "out.onnx exists" in wrong(run("export", "mine", "out.onnx", "--version", "1"))
    assert (desk / "out.onnx").read_bytes() == before
    result = run("export", "mine", "out.onnx", "--version", "1", "--overwrite")
    assert result.exit_code == 0
    assert "4 classes" in result.stdout
    assert "its output is y" in result.stdout
    assert (desk / "out.onnx").read_bytes() != before


def test_where_nothing_can_be_exported_to(grown: Path, desk: Path, run) -> None:
    before = everything(desk)
    for words, says in (
        (("nowhere/out.onnx",), "nowhere"),
        (("typical",), "typical is a folder"),
        (("theirs.onnx",), "theirs.onnx exists"),
        (("out.pt", "--format", "torch"), "as an ONNX graph only"),
    ):
        assert says in wrong(run("export", "mine", *words))
    assert everything(desk).keys() == before.keys()
    assert (desk / "theirs.onnx").read_bytes() == before["theirs.onnx"]


def test_packed_and_unpacked_it_learns_on(grown: Path, desk: Path, run, parsed) -> None:
    digest = parsed("show", "mine")["digest"]
    found = parsed("pack", "mine", "mine.retain")
    assert found["bytes"] == (desk / "mine.retain").stat().st_size
    assert "mine.retain exists" in wrong(run("pack", "mine", "mine.retain"))
    assert run("pack", "mine", "mine.retain", "--overwrite").exit_code == 0
    shutil.rmtree(grown)
    result = run("unpack", "again", "mine.retain")
    assert result.exit_code == 0, result.stderr
    assert "unpacked again: 8 pictures, 5 classes, 2 events; every digest is right" in result.stdout
    assert parsed("show", "again")["digest"] == digest
    assert parsed("learn", "again", "more", "--label", "elk")["learned"] == 4
    assert parsed("undo", "again")["kind"] == "undo"
    assert parsed("show", "again")["digest"] == digest
    assert parsed("verify", "again")["ok"] is True
    assert "not empty" in wrong(run("unpack", "again", "mine.retain"))


def test_a_flipped_byte_is_refused(grown: Path, desk: Path, run) -> None:
    run("pack", "mine", "mine.retain")
    whole = (desk / "mine.retain").read_bytes()
    with zipfile.ZipFile(desk / "mine.retain") as archive:
        starts = [each.header_offset for each in archive.infolist()]
    ends = [*starts[1:], len(whole)]
    # Within what a file holds, not in the archive's own headers.
    places = [(start + end) // 2 for start, end in zip(starts, ends, strict=True)]
    for place in [*places[:: max(1, len(places) // 8)], len(whole) - 5]:
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x10
        (desk / "spoilt.retain").write_bytes(spoilt)
        result = run("unpack", "again", "spoilt.retain")
        assert "spoilt.retain" in wrong(result, 1), place
        assert not (desk / "again").exists()
    (desk / "spoilt.retain").write_bytes(whole[: len(whole) // 2])
    assert "spoilt.retain" in wrong(run("unpack", "again", "spoilt.retain"), 1)
    assert not (desk / "again").exists()


def test_what_was_never_packed(desk: Path, run) -> None:
    for name, code in (("nowhere", 2), ("typical", 2), ("theirs.onnx", 1)):
        message = wrong(run("unpack", "again", name), code)
        assert name in message
        assert "retain init" not in message
    assert not (desk / "again").exists()
