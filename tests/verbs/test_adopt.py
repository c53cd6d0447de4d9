import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import onnx
import pytest

import retain
from tests.verbs.adopted import ACTIVATIONS, NAMES, adopt, model, pictures, theirs
from tests.verbs.conftest import fingerprint


@pytest.fixture
def mine(tmp_path):
    with adopt(tmp_path, reference=pictures(60)) as made:
        yield made


def answers(shop, rows):
    """Label and probabilities, in the order of the classes."""
    found = []
    for each in shop.predict(rows, top=len(shop.labels)):
        by_label = {score.label: score.probability for score in each.top}
        found.append((each.label, [by_label[label] for label in shop.labels]))
    return found


def bits(shop):
    head = shop._session.mind.head
    raw = None if head.raw is None else head.raw.tobytes()
    return (*fingerprint(shop), raw, answers(shop, pictures(6, seed=9)))


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_it_answers_as_the_original(tmp_path, activation):
    source = model(tmp_path / "theirs.onnx", activation=activation)
    rows = pictures(40, seed=3)
    wanted = theirs(source, rows).astype(float)
    if activation in (None, "log_softmax"):
        wanted = np.exp(wanted) / np.exp(wanted).sum(axis=1, keepdims=True)
    with retain.adopt(tmp_path / "mine", source, labels=NAMES, preprocess="raw") as mine:
        assert mine.labels == tuple(NAMES)
        given = answers(mine, rows)
        assert [label for label, _ in given] == [NAMES[i] for i in wanted.argmax(axis=1)]
        np.testing.assert_allclose([p for _, p in given], wanted, atol=2e-4)
        assert mine.verify().ok
        assert mine.status().adopted["classes"] == 4


def test_a_sigmoid_stays_one(tmp_path):
    """Old classes keep their scores to the last digit, and new ones rank among them."""
    source, rows = model(tmp_path / "theirs.onnx", activation="sigmoid"), pictures(20, seed=3)
    new = pictures(10, seed=50, tint=1)
    with retain.adopt(
        tmp_path / "mine", source, labels=NAMES, preprocess="raw", reference=pictures(40)
    ) as mine:
        assert any("sigmoid" in note for note in mine.status().adopted["notes"])
        before = answers(mine, rows)
        assert max(sum(p) for _, p in before) > 1.01
        mine.learn(pictures(10, tint=1), "elk", force=True)
        after = answers(mine, rows)
        assert [p[:4] for _, p in after] == [p for _, p in before]
        assert [label for label, _ in answers(mine, new)].count("elk") >= 8
        found = mine.explain(new[0])
        assert found.scores == mine.predict(new[:1], top=5)[0].top
        report = mine.evaluate(new, ["elk"] * len(new))
        logs = [-np.log(p[4]) for _, p in answers(mine, new)]
        assert report.negative_log_likelihood == pytest.approx(np.mean(logs))
        # The same after a restart, from what is cached on disk, and from nothing.
        with retain.open(mine.path) as again:
            assert answers(again, rows) == after
            made = again.export(tmp_path / "out.onnx")
            assert made.activation == "sigmoid"
            np.testing.assert_allclose(theirs(made.path, rows), [p for _, p in after], atol=1e-6)


def test_every_activation_gives_the_original_label(tmp_path):
    rows = pictures(30, seed=4)
    for activation in ACTIVATIONS:
        source = model(tmp_path / f"{activation}.onnx", activation=activation)
        with retain.adopt(tmp_path / activation, source, labels=NAMES, preprocess="raw") as mine:
            wanted = [NAMES[i] for i in theirs(source, rows).argmax(axis=1)]
            assert [p.label for p in mine.predict(rows)] == wanted


def test_a_reference_changes_no_answer(tmp_path):
    with adopt(tmp_path) as mine:
        before = answers(mine, pictures(20, seed=5))
        mine.reference(pictures(50))
        assert answers(mine, pictures(20, seed=5)) == before


def test_undoing_everything_is_the_original(tmp_path):
    with adopt(tmp_path) as mine:
        before = bits(mine)
        mine.reference(pictures(50))
        mine.learn(pictures(8, tint=1), "elk")
        mine.learn(pictures(5, tint=2), "ant", force=True)
        mine.correct(pictures(1, seed=7)[0], "bee", force=True)
        mine.correct(pictures(1, seed=8)[0], "fox", force=True)
        mine.rename("ant", "formica")
        for event in range(len(mine.log()), 0, -1):
            mine.undo(event)
        assert bits(mine) == before
        with retain.open(mine.path) as again:
            assert bits(again) == before
            assert again.verify().ok


def test_what_is_learned_stands_beside_it(mine):
    update = mine.learn(pictures(12, tint=1), "elk")
    assert update.new_classes == ("elk",)
    assert mine.labels == (*NAMES, "elk")
    right = [p.label for p in mine.predict(pictures(20, seed=50, tint=1))]
    assert right.count("elk") >= 16


def test_an_adopted_class_can_be_renamed_and_back(mine):
    before = bits(mine)
    mine.rename("ant", "formica")
    assert mine.labels == ("wasp", "formica", "cat", "bee")
    with retain.open(mine.path) as again:
        assert again.labels == mine.labels
        assert again.verify().ok
    mine.undo()
    assert bits(mine) == before


def test_a_name_that_was_given_up_can_be_taken_by_a_new_class(mine):
    mine.rename("ant", "formica")
    mine.learn(pictures(8, tint=1), "ant")
    assert mine.labels == ("wasp", "formica", "cat", "bee", "ant")
    mine.rename("ant", "elk")
    assert mine.labels == ("wasp", "formica", "cat", "bee", "elk")
    assert mine.verify().ok


def test_undoing_a_rename_whose_name_another_class_took(mine):
    """Two rows of the adopted layer cannot bear one name."""
    mine.rename("wasp", "zebra")
    mine.rename("ant", "wasp")
    before = bits(mine)
    with pytest.raises(retain.CannotUndo, match="'wasp'"):
        mine.undo(2)
    assert bits(mine) == before
    assert mine.verify().ok
    mine.undo(3)
    mine.undo(2)
    assert mine.labels == tuple(NAMES)


def test_undoing_a_rename_under_a_merge(mine):
    mine.rename("bee", "elk")
    mine.rename("elk", "fox")
    mine.learn(pictures(6, tint=1), "elk")
    mine.merge("elk", "ant")
    before = bits(mine)
    with pytest.raises(retain.CannotUndo):
        mine.undo(3)
    assert bits(mine) == before


def test_adopted_classes_cannot_be_merged(mine):
    with pytest.raises(retain.BadLabel, match="row of weights"):
        mine.merge("ant", "bee")


def test_forgetting_an_adopted_class_without_pictures_says_what_there_is(mine):
    with pytest.raises(retain.UnknownClass, match=r"no picture.*'ant'"):
        mine.forget(labels="ant")


def test_it_is_opened_by_two_processes(mine):
    code = (
        "import sys, retain; from tests.verbs.adopted import pictures\n"
        "shop = retain.open(sys.argv[1]); shop.learn(pictures(8, tint=1), 'elk', force=True)\n"
        "print(shop.digest, [p.label for p in shop.predict(pictures(9, seed=6))])"
    )
    before = mine.digest
    done = subprocess.run(
        [sys.executable, "-c", code, str(mine.path)], capture_output=True, text=True, check=True
    )
    assert mine.digest != before
    said = [p.label for p in mine.predict(pictures(9, seed=6))]
    assert done.stdout.strip() == f"{mine.digest} {said}"


def test_a_damaged_layer_is_noticed(mine):
    (start,) = mine.path.rglob("start.safetensors")
    data = bytearray(start.read_bytes())
    data[-3] ^= 1
    start.write_bytes(data)
    found = mine.verify()
    assert not found.ok
    assert any("start.safetensors" in problem for problem in found.problems)
    with retain.open(mine.path) as again, pytest.raises(retain.Damaged, match="start"):
        again.learn(pictures(3, tint=1), "elk")
    start.unlink()
    with retain.open(mine.path) as again, pytest.raises(retain.Damaged, match="cannot be read"):
        again.learn(pictures(3, tint=1), "elk")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written(mine):
    mine.close()
    for folder, _, files in os.walk(mine.path):
        for each in files:
            os.chmod(os.path.join(folder, each), 0o444)
        os.chmod(folder, 0o555)
    try:
        with retain.open(mine.path) as again:
            assert again.labels == tuple(NAMES)
            assert again.verify().ok
            with pytest.raises(retain.ReadOnly):
                again.learn(pictures(3, tint=1), "elk")
    finally:
        for folder, _, files in os.walk(mine.path):
            os.chmod(folder, 0o755)
            for each in files:
                os.chmod(os.path.join(folder, each), 0o644)


@pytest.mark.parametrize("step", ["writing.build", "Path.rename", "Store.open"])
def test_killed_in_the_middle_it_is_there_or_not(tmp_path, step):
    """The directory is a classifier, or it is not there."""
    model(tmp_path / "theirs.onnx")
    owner, name = step.split(".")
    code = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from retain.store import store, writing
        from retain.store.store import Store
        def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
        setattr({owner}, {name!r}, die)
        from tests.verbs.adopted import adopt
        adopt(Path({str(tmp_path)!r}))
    """)
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    if (tmp_path / "mine").exists():
        with retain.open(tmp_path / "mine") as made:
            assert made.labels == tuple(NAMES)
            assert made.verify().ok
    else:
        adopt(tmp_path).close()


@pytest.mark.parametrize("reference", ["nowhere", [b"no picture"], []])
def test_a_bad_reference_leaves_nothing(tmp_path, reference):
    with pytest.raises(retain.InputError):
        adopt(tmp_path, reference=reference)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["theirs.onnx"]


def test_it_does_not_take_the_place_of_another(tmp_path):
    adopt(tmp_path, reference=pictures(10)).close()
    with pytest.raises(retain.AlreadyExists):
        adopt(tmp_path, reference=["nowhere"])
    with retain.open(tmp_path / "mine") as kept:
        assert kept.status().reference == 10


def test_a_graph_that_takes_any_size_is_told_one(tmp_path):
    source = model(tmp_path / "theirs.onnx")
    free = onnx.load(source)
    for axis, name in ((2, "h"), (3, "w")):
        free.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(free, tmp_path / "free.onnx")
    given = {"labels": NAMES, "preprocess": "raw"}
    with pytest.raises(retain.BadOption, match="any size; give one"):
        retain.adopt(tmp_path / "mine", tmp_path / "free.onnx", **given)
    with retain.adopt(tmp_path / "mine", tmp_path / "free.onnx", size=(10, 14), **given) as mine:
        rule = mine._session.extractor.rule
        assert (rule.height, rule.width) == (10, 14)
    with pytest.raises(retain.BadOption, match="12"):
        retain.adopt(tmp_path / "other", source, size=12, **given)


@pytest.mark.parametrize("first", ["background", "Background ", "dummy"])
def test_a_leading_background_stands_for_no_class(tmp_path, first):
    """TensorFlow's lists of ImageNet have 1,001 names, for networks of 1,000 classes."""
    source = model(tmp_path / "theirs.onnx")
    (tmp_path / "labels.txt").write_text("\n".join([first, *NAMES]) + "\n")
    with retain.adopt(
        tmp_path / "mine", source, labels=tmp_path / "labels.txt", preprocess="raw"
    ) as mine:
        assert mine.labels == tuple(NAMES)
        (note,) = [each for each in mine.status().adopted["notes"] if "stands for no class" in each]
        assert note.startswith(repr(first.strip()))
        assert "5 names" in note
        rows = pictures(9, seed=4)
        wanted = [NAMES[i] for i in theirs(source, rows).argmax(axis=1)]
        assert [p.label for p in mine.predict(rows)] == wanted


def test_a_background_that_is_a_class_stays(tmp_path):
    names = ["background", *NAMES[1:]]
    source = model(tmp_path / "theirs.onnx")
    with retain.adopt(tmp_path / "mine", source, labels=names, preprocess="raw") as mine:
        assert mine.labels == tuple(names)
        assert not any("stands for no class" in each for each in mine.status().adopted["notes"])


@pytest.mark.parametrize("names", [["thing", *NAMES], [*NAMES, "background"], NAMES[1:]])
def test_another_name_too_many_is_not_guessed_away(tmp_path, names):
    source = model(tmp_path / "theirs.onnx")
    with pytest.raises(retain.BadOption, match=r"4 classes.*begin with 'background'"):
        retain.adopt(tmp_path / "mine", source, labels=names, preprocess="raw")
    assert not (tmp_path / "mine").exists()


def test_labels_that_cannot_be_labels(tmp_path):
    source = model(tmp_path / "theirs.onnx")
    for labels in (["a", "b", "c", " "], ["a", "b", "c"], ["a", "b", "c", "d\0"]):
        with pytest.raises((retain.BadLabel, retain.BadOption)):
            retain.adopt(tmp_path / "mine", source, labels=labels, preprocess="raw")
        assert not (tmp_path / "mine").exists()
    twice = ["cafe\u0301", "caf\u00e9", "b ", "b"]
    with retain.adopt(tmp_path / "mine", source, labels=twice, preprocess="raw") as mine:
        assert mine.labels == ("caf\u00e9", "caf\u00e9 (2)", "b", "b (2)")
