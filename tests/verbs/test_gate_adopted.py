"""The gate of an adopted classifier: labels are doubted by the layer that never saw them."""

import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import retain
from retain.solving import Ground

COLOURS = ("red", "green", "blue")


def by_colour(path):
    """Somebody's classifier: the mean colour of a picture, and a layer that knows three."""
    weights = (0.15 * (3 * np.eye(3) - 1)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["z"], transB=1),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 3))],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.zeros(3, "f4"), "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def painted(colour, n, seed=0):
    """n pictures uint8 [8, 8, 3] in which one colour prevails, now and then barely."""
    rng = np.random.default_rng([seed, COLOURS.index(colour)])
    base = rng.integers(60, 140, (n, 1, 1, 3))
    base[..., COLOURS.index(colour)] += rng.integers(60, 110, (n, 1, 1))
    return list(np.clip(base + rng.integers(-20, 20, (n, 8, 8, 3)), 0, 255).astype(np.uint8))


def batch(n=20, seed=1, wrong=None, share=0.3):
    """A lesson of all three; some pictures of class `wrong` are of the next one."""
    rows, labels = [], []
    for i, colour in enumerate(COLOURS):
        bad = round(share * n) if colour == wrong else 0
        rows += painted(colour, n - bad, seed) + painted(COLOURS[(i + 1) % 3], bad, seed + 50)
        labels += [colour] * n
    return rows, labels


@pytest.fixture
def mine(tmp_path):
    source = by_colour(tmp_path / "theirs.onnx")
    with retain.adopt(tmp_path / "mine", source, labels=COLOURS, preprocess="raw") as made:
        yield made


def labels_check(update):
    return next(check for check in update.verdict.checks if check.name == "labels")


@pytest.mark.parametrize("wrong", COLOURS)
def test_the_first_lesson_is_held_against_its_other_classes(mine, wrong):
    with pytest.raises(retain.GateRefused, match=f"given as '{wrong}'.*probably wrong") as error:
        mine.learn(*batch(40, wrong=wrong))
    suspects = error.value.verdict.suspects
    assert {suspect.label for suspect in suspects} == {wrong}
    assert len(suspects) >= 4
    assert mine.log() == []


def test_a_clean_first_lesson_passes(mine):
    assert labels_check(mine.learn(*batch())).passed


def test_with_one_class_and_nothing_remembered_it_says_that_it_cannot_tell(mine):
    update = mine.learn(painted("red", 10) + painted("blue", 5), "red")
    check = labels_check(update)
    assert check.passed
    assert "cannot be told" in check.sentence


@pytest.mark.parametrize("wrong", COLOURS)
def test_later_lessons_are_held_against_what_is_remembered(mine, wrong):
    mine.learn(*batch())
    i = COLOURS.index(wrong)
    rows = painted(wrong, 14, seed=7) + painted(COLOURS[(i + 1) % 3], 6, seed=8)
    with pytest.raises(retain.GateRefused, match=f"'{wrong}'.*probably wrong"):
        mine.learn(rows, wrong)
    assert labels_check(mine.learn(painted(wrong, 14, seed=7), wrong)).passed


def test_a_classifier_that_is_often_wrong_there_is_not_believed(mine):
    """Two fifths of what it said of all classes was contradicted: so much is usual then."""
    rows, labels = [], []
    for i, colour in enumerate(COLOURS):
        for seed in (1, 2):
            rows += painted(colour, 12, seed) + painted(COLOURS[(i + 1) % 3], 8, seed + 30)
            labels += [colour] * 20
    mine.learn(rows, labels, force=True)
    update = mine.learn(painted("red", 14, seed=7) + painted("green", 6, seed=8), "red", force=True)
    assert labels_check(update).passed


def test_new_names_follow_a_class(mine):
    mine.learn(*batch())
    mine.rename("red", "crimson")
    rows = painted("red", 14, seed=7) + painted("green", 6, seed=8)
    with pytest.raises(retain.GateRefused, match=r"'crimson'.*probably wrong"):
        mine.learn(rows, "crimson")


def test_labelled_pictures_may_move_answers_between_their_classes(mine):
    """The owner's colours differ a little: labelled pictures of all classes decide, and the
    reference, which has no labels, does not forbid it."""
    rng = np.random.default_rng(4)
    flat = rng.integers(60, 200, (300, 1, 1, 3))
    rows = list(np.clip(flat + rng.integers(-9, 9, (300, 8, 8, 3)), 0, 255).astype(np.uint8))
    mean = np.array([row.reshape(-1, 3).mean(axis=0) for row in rows]) + np.array([45, 0, 0])
    labels = [COLOURS[i] for i in mean.argmax(axis=1)]
    mine.reference(rows[200:])
    before = [p.label for p in mine.predict(rows[200:])]
    mine.gate(wrong_labels=0.0, regressions=0.0, class_regressions=0.0)
    update = mine.learn(rows[:200], labels[:200])
    agreement = next(check for check in update.verdict.checks if check.name == "agreement")
    assert agreement.passed
    assert [p.label for p in mine.predict(rows[200:])] != before


def test_answers_of_the_reference_that_move_are_counted(mine):
    asked = [picture for colour in COLOURS for picture in painted(colour, 40, seed=5)]
    mine.reference(asked)
    before = [p.label for p in mine.predict(asked)]
    mine.gate(agreement=0.0, correction=1.0)
    odd = next(p for p in painted("red", 40, seed=6) if mine.predict([p])[0].label == "red")
    update = mine.correct(odd, "green", force=True)
    agreement = next(check for check in update.verdict.checks if check.name == "agreement")
    now = [p.label for p in mine.predict(asked)]
    moved = sum(old != new for old, new in zip(before, now, strict=True))
    assert moved > 0
    assert agreement.value == pytest.approx(moved / len(asked))
    assert not agreement.passed


def test_many_labels_take_no_time(mine):
    """As many as ImageNet has; each was once compared with all others, which took 16 s a call."""
    store = mine._session.store
    names = tuple(f"class {i}" for i in range(21_841))
    began = time.process_time()
    ground = Ground.of(store, store.era, (), (names, np.zeros((21_841, 3)), np.zeros(21_841), None))
    assert ground.start.classes == names
    assert time.process_time() - began < 2
    with pytest.raises(retain.CannotUndo, match="both be called 'class 7'"):
        Ground.of(
            store,
            store.era,
            [("class 9", "class 7")],
            (names, np.zeros((21_841, 3)), np.zeros(21_841), None),
        )


def test_a_new_class_that_cannot_be_left_out_is_said_to_be_unjudged(mine):
    grey = np.random.default_rng(0).integers(90, 110, (8, 8, 8, 3)).astype(np.uint8)
    update = mine.learn(list(grey), ["grey"] * 8, force=True)
    (check,) = (check for check in update.verdict.checks if check.name == "new class")
    assert check.passed
    assert check.sentence == (
        "the new class 'grey' could not be judged: of its 8 pictures 0 can be left out"
    )
