import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

import retain
from retain.vision import read_exported
from tests.verbs.adopted import ACTIVATIONS, NAMES, adopt, model, pictures, theirs
from tests.verbs.conftest import cluster, taught

DATA = Path(retain.__file__).parent / "data" / "mini_clothing10" / "mini_clothing10_128_cc0.npz"


@pytest.fixture
def mine(tmp_path):
    with adopt(tmp_path, reference=pictures(40)) as made:
        yield made


def run(path, rows):
    """What the file says, by ONNX Runtime alone."""
    return theirs_of(path, np.stack(rows).astype(np.float32).transpose(0, 3, 1, 2))


def theirs_of(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: one[None]})[0] for one in x])


def same(shop, path, rows):
    given = run(path, rows)
    for row, answer in zip(given, shop.predict(rows, top=len(shop.labels)), strict=True):
        assert shop.labels[int(row.argmax())] == answer.label
        wanted = {s.label: s.probability for s in answer.top}
        np.testing.assert_allclose(row, [wanted[label] for label in shop.labels], atol=1e-4)


def test_the_file_answers_as_the_classifier(mine, tmp_path):
    mine.learn(pictures(10, tint=1), "elk", force=True)
    mine.correct(pictures(1, seed=5)[0], "fox", force=True)
    mine.correct(pictures(2, seed=5)[1], "bee", exception=True, force=True)
    made = mine.export(tmp_path / "out.onnx")
    assert (made.classes, made.version, made.activation) == (6, 4, "softmax")
    assert made.bytes == (tmp_path / "out.onnx").stat().st_size
    same(mine, tmp_path / "out.onnx", [*pictures(20, seed=6), *pictures(2, seed=5)])
    onnx.checker.check_model(str(tmp_path / "out.onnx"))


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_untouched_it_is_the_original(tmp_path, activation):
    source = model(tmp_path / "theirs.onnx", activation=activation)
    with retain.adopt(tmp_path / "mine", source, labels=NAMES, preprocess="raw") as mine:
        made = mine.export(tmp_path / "out.onnx")
        rows = pictures(20, seed=6)
        assert made.output == "y"
        # Features are rounded once to 14 bits.
        np.testing.assert_allclose(run(made.path, rows), theirs(source, rows), atol=5e-3)


def test_a_version_is_exported_as_it_was(mine, tmp_path):
    first = mine.digest
    mine.learn(pictures(10, tint=1), "elk", force=True)
    made = mine.export(tmp_path / "old.onnx", version=1)
    assert (made.version, made.classes) == (1, 4)
    assert read_exported(tmp_path / "old.onnx").digest == first
    mine.export(tmp_path / "new.onnx")
    assert read_exported(tmp_path / "new.onnx").digest == mine.digest != first
    mine.promote(1)
    assert mine.export(tmp_path / "p.onnx", version="production").version == 1


def test_it_replaces_nothing_unasked(mine, tmp_path):
    target = tmp_path / "out.onnx"
    target.write_bytes(b"mine")
    with pytest.raises(retain.AlreadyExists):
        mine.export(target)
    assert target.read_bytes() == b"mine"
    mine.export(target, overwrite=True)
    same(mine, target, pictures(3, seed=6))


def test_what_cannot_be_exported(shop, tmp_path):
    with pytest.raises(retain.NothingLearned):
        shop.export(tmp_path / "out.onnx")
    taught(shop, "ant", "bee")
    with pytest.raises(retain.BadOption, match="vectors"):
        shop.export(tmp_path / "out.onnx")
    with pytest.raises(retain.UnknownEvent):
        shop.export(tmp_path / "out.onnx", version=9)
    assert not (tmp_path / "out.onnx").exists()
    assert cluster("ant", 1).shape == (1, 12)


# -- and back ----------------------------------------------------------------------------------


def all_answers(shop, rows):
    """Labels, and probabilities [n, C] in the order of the classes."""
    found = shop.predict(rows, top=len(shop.labels))
    by_label = [{s.label: s.probability for s in each.top} for each in found]
    return [p.label for p in found], np.array([[b[x] for x in shop.labels] for b in by_label])


def returned(path, folder, **options):
    return retain.adopt(folder, path, **options)


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_an_exported_classifier_can_be_adopted_again(tmp_path, activation):
    """With what it has learned: new classes, an old class relearned, a pin."""
    source = model(tmp_path / "theirs.onnx", activation=activation)
    rows = [*pictures(30, seed=6), *pictures(8, seed=50, tint=1), *pictures(1, seed=5)]
    with retain.adopt(
        tmp_path / "a", source, labels=NAMES, preprocess="raw", reference=pictures(40)
    ) as first:
        first.learn(pictures(10, tint=1), "elk", force=True)
        first.learn(pictures(6, tint=2), "ant", force=True)
        first.correct(pictures(1, seed=5)[0], "fox", force=True)
        first.export(tmp_path / "one.onnx")
        labels, wanted = all_answers(first, rows)
        classes = first.labels
    with returned(tmp_path / "one.onnx", tmp_path / "b") as second:
        assert second.labels == classes
        given = all_answers(second, rows)
        assert given[0] == labels
        np.testing.assert_array_equal(given[1], wanted)
        assert second.verify().ok
        assert any("exported by retain" in note for note in second.status().adopted["notes"])
        made = second.export(tmp_path / "two.onnx")
        assert (made.output, made.activation) == ("y", activation or "none")
    np.testing.assert_array_equal(
        run(tmp_path / "one.onnx", rows), run(tmp_path / "two.onnx", rows)
    )
    # And a third time: names inside the graph must not meet.
    with returned(tmp_path / "two.onnx", tmp_path / "c") as third:
        given = all_answers(third, rows)
        np.testing.assert_array_equal(given[1], wanted)


def test_one_that_came_back_learns_on(mine, tmp_path):
    mine.learn(pictures(10, tint=1), "elk", force=True)
    mine.export(tmp_path / "one.onnx")
    with returned(tmp_path / "one.onnx", tmp_path / "b", reference=pictures(40)) as again:
        before = all_answers(again, pictures(20, seed=6))
        again.learn(pictures(10, tint=3), "gnu", force=True)
        assert again.labels == (*NAMES, "elk", "gnu")
        found = [p.label for p in again.predict(pictures(20, seed=50, tint=3))]
        assert found.count("gnu") >= 15
        old = [p.label for p in again.predict(pictures(20, seed=50, tint=1))]
        assert old.count("elk") >= 15
        again.learn(pictures(6, tint=4), "elk", force=True)
        again.correct(pictures(1, seed=8)[0], "bee", force=True)
        again.export(tmp_path / "two.onnx")
        same_export(again, tmp_path / "two.onnx")
        assert again.verify(deep=True).ok
        for event in range(len(again.log()), 0, -1):
            again.undo(event)
        after = all_answers(again, pictures(20, seed=6))
        np.testing.assert_array_equal(after[1], before[1])


def same_export(shop, path):
    given = run(path, pictures(9, seed=6))
    np.testing.assert_allclose(given, all_answers(shop, pictures(9, seed=6))[1], atol=1e-6)


def test_one_that_was_made_here_comes_back(tmp_path):
    """The shipped extractor, with its power; a head of sums alone, and its pins."""
    with np.load(DATA) as file:
        data, offsets = file["data"], file["offsets"]
        labels = [str(file["classes"][i]) for i in file["labels"]]
    files = [data[a:b].tobytes() for a, b in itertools.pairwise(offsets)]
    with retain.create(tmp_path / "a") as first:
        first.learn(files[::10], labels[::10])
        wrong = next(
            i for i, p in enumerate(first.predict(files[1:200:10])) if p.label != labels[1 + 10 * i]
        )
        first.correct(files[1 + 10 * wrong], labels[1 + 10 * wrong], force=True)
        found, wanted = all_answers(first, files[1::40])
        first.export(tmp_path / "one.onnx")
        fingerprint = first._session.extractor.power
    with returned(tmp_path / "one.onnx", tmp_path / "b") as second:
        assert second._session.extractor.power == fingerprint != 1.0
        given = all_answers(second, files[1::40])
        assert given[0] == found
        np.testing.assert_allclose(given[1], wanted, atol=1e-6)


def test_exceptions_do_not_come_back_and_it_says_so(mine, tmp_path):
    mine.correct(pictures(1, seed=5)[0], "bee", exception=True, force=True)
    mine.export(tmp_path / "one.onnx")
    with pytest.raises(retain.CannotAdopt, match=r"1 exception, answered 'bee': .*retain pack"):
        returned(tmp_path / "one.onnx", tmp_path / "b")
    mine.correct(pictures(2, seed=5)[1], "bee", exception=True, force=True)
    mine.correct(pictures(3, seed=5)[2], "fox", exception=True, force=True)
    mine.export(tmp_path / "two.onnx")
    with pytest.raises(
        retain.CannotAdopt, match=r"3 exceptions, answered 'bee' \(2\), 'fox'.*retain unpack"
    ):
        returned(tmp_path / "two.onnx", tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"retain.head": "["},
        {"retain.head": "{}"},
        {"retain.head": '{"power": 1, "weights": ["nowhere"], "bias": ["nowhere"]}'},
        {"retain.features": "nowhere"},
        {"retain.activation": "tanh"},
    ],
)
def test_one_whose_metadata_were_changed(mine, tmp_path, change):
    """Then it is a graph like any other; this one has no last linear map alone."""
    mine.learn(pictures(10, tint=1), "elk", force=True)
    mine.export(tmp_path / "one.onnx")
    rewritten(tmp_path / "one.onnx", change)
    with pytest.raises(retain.CannotAdopt, match="Concat"):
        returned(tmp_path / "one.onnx", tmp_path / "b")


def test_one_whose_head_was_changed_is_found_out(mine, tmp_path):
    mine.export(tmp_path / "one.onnx")
    told = {each.key: each.value for each in onnx.load(tmp_path / "one.onnx").metadata_props}
    rewritten(tmp_path / "one.onnx", {"retain.head": told["retain.head"].replace(": 1.0", ": 0.5")})
    with pytest.raises(retain.CannotAdopt, match="answer otherwise than the whole"):
        returned(tmp_path / "one.onnx", tmp_path / "b")
    with pytest.raises(retain.BadOption, match="no output 'z'"):
        returned(tmp_path / "one.onnx", tmp_path / "b", output="z")


def rewritten(path, change):
    changed = onnx.load(path)
    told = {each.key: each.value for each in changed.metadata_props}
    onnx.helper.set_model_props(changed, {**told, **change})
    onnx.save(changed, path)
