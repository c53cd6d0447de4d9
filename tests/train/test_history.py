"""What a training measured: kept beside its extractor, shown, and written for TensorBoard."""

import json
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

import retain  # noqa: E402
from retain import histories, train  # noqa: E402
from retain.faces.cli.app import app  # noqa: E402
from retain.train import Budget, Memory, transfer  # noqa: E402
from tests.faces.test_pages import checked  # noqa: E402
from tests.train.test_adapt import LATE, SIDE, adapted, photo, taught  # noqa: E402
from tests.train.test_loop import shown  # noqa: E402

RECIPE = transfer(epochs=2, batch=8, rate=0.002)


@pytest.fixture
def shop(tmp_path):
    with taught(tmp_path / "shop") as made:
        yield made


def kept(shop):
    """The files of epochs that there are, by name."""
    return {file.name: file.read_bytes() for file in shop.path.rglob("history-*.json")}


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_epochs_are_kept_with_the_extractor_and_shown(shop, monkeypatch):
    fit, fitted = train.fit, []
    monkeypatch.setattr(train, "fit", lambda *a, **o: fitted.append(fit(*a, **o)) or fitted[-1])
    update = adapted(shop, recipe=RECIPE, held_out=0.2)
    training = shop.show(update.event).training
    assert training == update.training
    assert (training.pictures, training.held_out, training.method) == (16, 4, None)
    assert [phase.name for phase in training.phases] == ["train"]
    assert [
        (each.epoch, each.loss, each.terms, each.accuracy, each.rate, each.validation_loss)
        for each in training.epochs
    ] == [
        (each.number, each.loss, each.terms, each.accuracy, each.rate, None)
        for each in fitted[0].history
    ]
    assert shop.show(1).training is None
    (name,) = kept(shop)
    assert name == shop._session.store.detail(2)["history"]
    assert (shop._session.store.extractor_dir / name).exists()
    back = shop.undo()
    assert shop.show(2).training == training
    shop.undo(back.event)
    assert shop.show(2).training == training
    assert shop.verify().ok


def test_validation_is_kept_where_there_is_one(shop):
    recipe = transfer(epochs=2, batch=8, rate=0.002, patience=2)
    update = adapted(shop, recipe=recipe)
    assert all(each.validation_loss > 0 for each in update.training.epochs)
    assert all(0 <= each.validation_accuracy <= 1 for each in update.training.epochs)


def test_a_refused_or_dry_run_keeps_nothing_and_tells_all(shop, monkeypatch, tmp_path):
    dry = adapted(shop, recipe=RECIPE, dry_run=True)
    assert len(dry.training.epochs) == 2
    assert kept(shop) == {}
    monkeypatch.setattr(retain.adapting, "refuse", refused)
    with pytest.raises(retain.GateRefused) as error:
        adapted(shop, recipe=RECIPE, force=False)
    assert error.value.update.training == dry.training
    assert kept(shop) == {}
    forced = adapted(shop, recipe=RECIPE)
    assert forced.training == dry.training
    assert len(kept(shop)) == 1


def refused(update):
    raise retain.GateRefused("the gate refuses", update.verdict, update)


def test_killed_and_resumed_keeps_the_same_bytes(shop, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def kill(done, total):
        if done >= 0.6 * total:
            raise Killed

    adapted(shop, recipe=RECIPE)
    monkeypatch.setattr(train.checkpoints.Checkpoint, "due", lambda self: True)
    with taught(tmp_path / "killed") as other:
        with pytest.raises(Killed):
            adapted(other, recipe=RECIPE, progress=kill)
        adapted(other, recipe=RECIPE)
        assert kept(other) == kept(shop)


def test_it_travels_with_the_classifier_and_damage_is_found(shop, tmp_path, monkeypatch):
    """What a method finds again was looked at by the next lesson only."""
    adapted(shop, recipe=RECIPE)
    training = shop.show(2).training
    shop.pack(tmp_path / "shop.retain")
    with retain.unpack(tmp_path / "shop.retain", tmp_path / "there") as there:
        assert there.show(2).training == training
        assert there.verify().ok
    for what in ("history", "lessons"):
        (file,) = shop._session.store.extractor_dir.glob(f"{what}-*")
        content = file.read_bytes()
        for change in (
            file.unlink,
            lambda file=file: file.write_bytes(b""),
            lambda file=file, content=content: file.write_bytes(content.replace(b"1", b"2")),
        ):
            change()
            (problem,) = shop.verify().problems
            assert file.name in problem
            if what == "history":
                with pytest.raises(retain.Damaged, match=file.name):
                    shop.show(2)
            file.write_bytes(content)
    assert shop.verify().ok
    # A journal from before.
    detail = type(shop._session.store).detail

    def older(store, event):
        return {k: v for k, v in detail(store, event).items() if k != histories.KEY}

    monkeypatch.setattr(type(shop._session.store), "detail", older)
    old = shop.show(2).training
    assert old == replace(training, phases=())
    assert shop.verify().ok
    assert "is not kept" in run("show", shop.path, 2).stdout


def test_it_goes_with_an_extractor_that_is_purged(shop):
    adapted(shop, recipe=RECIPE, held_out=0.0)
    first = set(kept(shop))
    shop.forget([shop.samples()[0].image], force=True)
    adapted(shop, held_out=0.0)
    assert len(kept(shop)) == 2
    shop.purge()
    assert len(kept(shop)) == 1
    assert not first & set(kept(shop))
    assert shop.show(2).training.phases == ()
    assert shop.verify().ok


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{",
        b'{"phases": [{"name": "train", "epochs": [{"epoch": 1}]}]}',
        b'{"phases": [{"name": "a", "epochs": [{"epoch": 1, "loss": NaN, "terms": {}, '
        b'"accuracy": 0, "rate": 0}]}]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_history_is_damaged(text):
    detail = {"epochs": 1, "pictures": 2, "held_out": 0, "seconds": 1.0}
    with pytest.raises(retain.Damaged, match="not what was written"):
        histories.training(detail, text)


def test_phases_of_a_method_are_told_apart_everywhere(shop, tmp_path):
    memory = Memory(Budget(per_class=3))
    given = {"recipe": RECIPE, "memory": memory, "held_out": 0.0, "method": "eeil", "force": True}
    shop.adapt(LATE, size=SIDE, **given)
    shop.learn([photo(kind, seed) for kind in (2, 3) for seed in range(6)], ["a"] * 6 + ["b"] * 6)
    update = shop.adapt(LATE, board=tmp_path / "board", **given)
    training = shop.show(update.event).training
    assert training == update.training
    assert (training.method, training.lesson, training.exemplars) == ("eeil", 2, 6)
    names = [phase.name for phase in training.phases]
    assert names == ["train", "balanced"]
    (folder,) = (tmp_path / "board").iterdir()
    assert folder.name.startswith("eeil-")
    assert sorted(each.name for each in folder.iterdir()) == sorted(names)
    for phase in training.phases:
        wanted = [(each.epoch, pytest.approx(each.loss, rel=1e-6)) for each in phase.epochs]
        assert shown(folder / phase.name)["loss"] == wanted
    told = run("show", shop.path, update.event, "--html", tmp_path / "page.html")
    assert told.exit_code == 0, told.stderr
    assert all(name in told.stdout for name in names)
    assert told.stdout.count("\n") > len(training.epochs)
    page = (tmp_path / "page.html").read_text()
    read = checked(page)
    assert read.tags.count("svg") == 2 * 3
    assert page.count('class="apart"') == 2 * 3 * (len(names) - 1)


def test_the_command_writes_a_page_also_where_the_gate_refuses(shop, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    page, board = tmp_path / "run.html", tmp_path / "board"
    words = ["adapt", shop.path, "--last", 2, "--epochs", 2, "--batch", 8, "--rate", 0.002]
    words += ["--size", SIDE, "--html", page, "--board", board]
    monkeypatch.setattr(retain.adapting, "refuse", refused)
    told = run(*words)
    assert told.exit_code == 1
    assert f"page: {page}" in told.stderr
    text = page.read_text()
    assert checked(text).tags.count("svg") == 2 * 3
    assert ">no<" in text
    page.unlink()
    told = run(*words, "--force", "--json")
    assert told.exit_code == 0, told.stderr
    update = json.loads(told.stdout)
    assert len(update["training"]["phases"][0]["epochs"]) == 2
    assert "in place" in page.read_text()
    (folder,) = board.iterdir()
    assert [step for step, _ in shown(folder)["loss"]] == [1, 2]
    event = json.loads(run("show", shop.path, 2, "--json").stdout)
    assert event["training"] == update["training"]
    assert run("show", shop.path, 1, "--html", page).exit_code == 2
    assert run("show", shop.path, "--html", page).exit_code == 2
    assert run(*words, "--plan").exit_code == 2


def test_what_no_board_can_be_written_to_is_said_before_it_trains(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *a, **o: pytest.fail("it trained"))
    (tmp_path / "file").write_text("of mine")
    pytest.importorskip("tensorboard")
    for board, says in (
        (tmp_path / "file", "cannot be written to"),
        (shop.path / "board", "lies inside the classifier"),
    ):
        with pytest.raises(retain.BadOption, match=says):
            adapted(shop, board=board)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(retain.MissingExtra, match="pip install tensorboard"):
        adapted(shop, board=tmp_path / "board")
    assert not (shop.path / "board").exists()
    assert not (tmp_path / "board").exists()
