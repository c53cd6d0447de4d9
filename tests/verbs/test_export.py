import numpy as np
import onnx
import pytest

import retain
from retain.vision import read_exported
from tests.verbs.adopted import ACTIVATIONS, NAMES, adopt, model, pictures, theirs
from tests.verbs.conftest import cluster, taught


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
