from contextlib import suppress

import numpy as np
import pytest

import retain
from tests.verbs.adopted import adopt, pictures
from tests.verbs.conftest import cluster, fingerprint, taught

LABELS = ("ant", "bee", "cat", "dog")
OPEN = {"regressions": 1.0, "class_regressions": 1.0, "calibration": 99.0, "correction": 1.0,
        "new_class_accuracy": 0.0, "agreement": 1.0, "wrong_labels": 0.0}  # fmt: skip


def failed(error):
    return {check.name for check in error.value.verdict.checks if not check.passed}


@pytest.fixture
def guarded(shop):
    """Nothing is refused but what is protected: one picture in the middle of its class."""
    given = taught(shop, *LABELS, n=12)
    shop.gate(**OPEN)
    row = given["ant"][0]
    found = shop.predict(row[None])[0]
    assert found.label == "ant"
    shop.protect(found.image)
    return shop, row, found.image


def assault(row, n=40):
    """Pictures around one: enough of them under another name, and it flips."""
    noise = np.random.default_rng(3).normal(size=(n, len(row)))
    return (row + 0.02 * noise).astype(np.float32)


def test_a_lesson_cannot_flip_it(guarded):
    shop, row, _ = guarded
    before = fingerprint(shop)
    with pytest.raises(retain.GateRefused, match="must never get worse") as error:
        shop.learn(assault(row), "bee")
    assert failed(error) == {"protected"}
    assert fingerprint(shop) == before
    assert shop.predict(row[None])[0].label == "ant"


def test_a_correction_cannot_flip_it(guarded):
    """A near copy is to be another class: the edit would flip it, the exception does not."""
    shop, row, _ = guarded
    for k, near in enumerate(assault(row, 6)):
        try:
            update = shop.correct(near, LABELS[1 + k % 3])
        except retain.Refused:
            continue
        assert update.fixed
        assert shop.predict(row[None])[0].label == "ant"
    assert shop.predict(row[None])[0].label == "ant"
    assert shop.verify().ok


def test_forgetting_others_cannot_flip_it(guarded):
    shop, _, image = guarded
    others = [s.image for s in shop.samples() if s.label == "ant" and s.image != image]
    shop.learn(cluster("elk", 3), "elk")
    alone = [s.image for s in shop.samples() if s.label == "ant" and s.image != image]
    assert alone == others
    sample = shop.samples()
    odd = next(s for s in sample if s.label == "dog")
    shop.correct(odd.image, "fox")
    shop.protect(odd.image)
    assert shop.predict(np.zeros((1, 12), np.float32) + 1)[0]
    for step in range(4):
        gone = [s.image for s in shop.samples() if s.label == LABELS[step] and not s.protected][::2]
        with suppress(retain.GateRefused):
            shop.forget(gone)
    assert shop.show(image).prediction.label == "ant"
    assert shop.show(odd.image).prediction.label == "fox"


def test_forgetting_the_ground_it_stands_on(shop):
    """A class of two far apart: without the others, the one left out there is lost."""
    centre, far = cluster("ant", 1, spread=0)[0], cluster("bee", 1, spread=0)[0]
    middle = 0.45 * centre + 0.55 * far
    shop.learn(np.stack([middle, *assault(0.9 * middle + 0.1 * far, 3)]), "ant")
    shop.learn(cluster("bee", 30, spread=0.4), "bee", force=True)
    shop.learn(cluster("cat", 30, spread=0.4), "cat", force=True)
    shop.gate(**OPEN)
    answers = {s.image: shop.show(s.image).prediction.label for s in shop.samples()}
    ants = [s for s in shop.samples() if s.label == "ant"]
    kept = [s.image for s in ants if answers[s.image] == "ant"]
    assert kept
    shop.protect(kept[0])
    with suppress(retain.GateRefused):
        shop.forget([s.image for s in ants if s.image != kept[0]])
    assert shop.show(kept[0]).prediction.label == "ant"


def test_off_lets_it_flip(guarded):
    shop, row, image = guarded
    update = shop.protect(image, off=True)
    assert "no longer protected" in update.summary
    shop.learn(assault(row), "bee")
    assert shop.predict(row[None])[0].label != "ant"


def test_force_flips_it_and_says_so(guarded):
    shop, row, _ = guarded
    update = shop.learn(assault(row), "bee", force=True)
    assert update.verdict.forced
    assert not update.verdict.passed
    assert shop.predict(row[None])[0].label != "ant"


def test_the_mark_is_kept(guarded):
    shop, row, image = guarded
    with retain.open(shop.path) as again:
        assert again.show(image).sample.protected
        assert again.status().protected == 1
        with pytest.raises(retain.GateRefused):
            again.learn(assault(row), "bee")
        assert again.verify().ok


def test_relabelling_it_by_a_lesson_is_skipped(guarded):
    shop, row, _ = guarded
    update = shop.learn(np.stack([row, cluster("bee", 1, seed=9)[0]]), "bee")
    assert update.learned == 1
    assert "protected as 'ant'" in update.skipped[0].reason


def test_correcting_it_is_its_owners_word(guarded):
    shop, row, image = guarded
    assert shop.correct(row, "dog").fixed
    sample = shop.show(image).sample
    assert (sample.label, sample.protected) == ("dog", True)


def test_undo_takes_the_mark_away_and_brings_it_back(guarded):
    shop, _, image = guarded
    event = shop.log()[-1].event
    undo = shop.undo(event).event
    assert not shop.show(image).sample.protected
    shop.undo(undo)
    assert shop.show(image).sample.protected
    assert shop.verify().ok


def test_undo_takes_the_mark_away_from_a_picture_corrected_since(guarded):
    shop, row, image = guarded
    event = shop.log()[-1].event
    shop.correct(row, "dog")
    shop.undo(event)
    assert not shop.show(image).sample.protected
    assert shop.verify().ok
    with retain.open(shop.path) as again:
        assert not again.show(image).sample.protected


def test_it_changes_no_answer(shop):
    taught(shop, *LABELS)
    before = fingerprint(shop)
    shop.protect(labels=["ant", "bee"])
    shop.protect(shop.samples()[0].image)
    assert fingerprint(shop) == before
    assert shop.verify().ok
    assert [e.kind for e in shop.log()][-2:] == ["protect", "protect"]


def test_again_changes_nothing(guarded):
    shop, _, image = guarded
    events = len(shop.log())
    assert shop.protect(image).event is None
    assert shop.protect(labels="bee", off=True).event is None
    assert len(shop.log()) == events


def test_a_class(shop):
    given = taught(shop, *LABELS, n=12)
    shop.gate(**OPEN)
    shop.protect(labels="ant")
    with pytest.raises(retain.GateRefused) as error:
        shop.learn(assault(given["ant"][0]), "bee")
    assert failed(error) == {"protected"}
    shop.rename("ant", "mite")
    with pytest.raises(retain.GateRefused):
        shop.learn(assault(given["ant"][0]), "bee")
    shop.undo()
    with pytest.raises(retain.GateRefused):
        shop.learn(assault(given["ant"][0]), "bee")
    shop.protect(labels="ant", off=True)
    shop.learn(assault(given["ant"][0]), "bee")


def test_names_that_stand_for_nothing(shop):
    with pytest.raises(retain.InputError):
        shop.protect()
    with pytest.raises(retain.UnknownClass, match="none yet"):
        shop.protect(labels="ant")
    taught(shop, "ant", "bee")
    with pytest.raises(retain.UnknownClass, match=r"'elk'.*'ant', 'bee'"):
        shop.protect(labels="elk")
    with pytest.raises(retain.UnknownImage):
        shop.protect("nobody.jpg")
    assert len(shop.log()) == 2


@pytest.fixture
def mine(tmp_path):
    with adopt(tmp_path, reference=pictures(40)) as made:
        made.gate(**OPEN)
        yield made


def twin_of(picture):
    """Nearly the same picture, which is not remembered."""
    other = picture.copy()
    other[0, 0] = 255 - other[0, 0]
    return other


def test_a_reference_picture(mine):
    """It has no label: what it is answered is what it must go on being answered."""
    picture = pictures(1)[0]
    found = mine.predict([picture])[0]
    free = mine.correct(twin_of(picture), "elk", dry_run=True)
    assert free.verdict.rung == "pin"
    mine.protect(found.image)
    held = mine.correct(twin_of(picture), "elk")
    assert held.verdict.rung == "exception"
    assert "must never get worse" in held.verdict.reason
    assert mine.predict([picture])[0].label == found.label
    assert mine.verify().ok


def test_the_classes_of_an_adopted_classifier(mine):
    """They have no pictures but the reference: what that is answered stands for them."""
    with pytest.raises(retain.UnknownClass) as error:
        mine.protect(labels="elk")
    assert "''" not in str(error.value)
    picture = pictures(1)[0]
    label = mine.predict([picture])[0].label
    mine.protect(labels=label)
    held = mine.correct(twin_of(picture), "elk")
    assert held.verdict.rung == "exception"
    assert mine.predict([picture])[0].label == label


@pytest.fixture
def propped(shop):
    """A picture that only a lesson about its like keeps right; the lesson is event 2."""
    taught(shop, *LABELS, n=12)
    shop.gate(**OPEN)
    row = cluster("bee", 1, spread=0)[0]
    shop.learn(assault(row, 60), "ant")
    lesson = shop.log()[-1].event
    shop.learn(row[None] + 0.001, "ant", force=True)
    image = shop.predict(row[None] + 0.001)[0].image
    assert shop.show(image).prediction.label == "ant"
    shop.protect(image)
    return shop, image, lesson


def test_undo_cannot_flip_it(propped):
    shop, image, lesson = propped
    before = fingerprint(shop)
    tried = shop.undo(lesson, dry_run=True)
    assert tried.event is None
    assert not tried.verdict.passed
    with pytest.raises(retain.GateRefused, match="undo all the same") as error:
        shop.undo(lesson)
    assert failed(error) == {"protected"}
    assert fingerprint(shop) == before
    assert shop.undo(lesson, force=True).verdict.forced
    assert shop.show(image).prediction.label != "ant"
    assert shop.verify().ok


def test_going_back_to_a_version_cannot_flip_it(propped):
    shop, _, lesson = propped
    shop.promote(lesson - 1)
    shop.promote("latest", force=True)
    with pytest.raises(retain.GateRefused) as error:
        shop.rollback()
    assert failed(error) == {"protected"}
    assert shop.rollback(dry_run=True).event is None
    update = shop.rollback(force=True)
    assert update.verdict.forced
    assert f"version {lesson - 1} again" in update.summary


def test_merging_a_protected_class_is_no_harm_to_it_but_to_others_it_may_be(shop):
    """The name goes, and what bore it is right as the other; a neighbour that flips is harm."""
    centre, other = cluster("ant", 1, spread=0)[0], cluster("bee", 1, spread=0)[0]
    shop.learn(cluster("ant", 12), "ant")
    shop.learn(cluster("bee", 12), "bee")
    shop.learn(cluster("cat", 12), "cat")
    shop.gate(**OPEN)
    between = (0.52 * centre + 0.48 * other)[None]
    shop.learn(between, "ant", force=True)
    image = shop.predict(between)[0].image
    if shop.show(image).prediction.label != "ant":
        shop.correct(between[0], "ant")
    shop.protect(image)
    shop.protect(labels="cat")
    merged = shop.merge("cat", "ant")
    assert merged.verdict.passed
    assert shop.show(image).prediction.label == "ant"
    assert shop.verify().ok


def test_a_reference_cannot_flip_it(tmp_path):
    """What a reference changes of a head is watched like everything else."""
    with adopt(tmp_path) as mine:
        mine.gate(**OPEN)
        mine.reference(pictures(12, 1))
        mine.learn(pictures(6, 0, tint=7), "new", force=True)
        images = [s.image for s in mine.samples() if s.label == "new"]
        assert {mine.show(image).prediction.label for image in images} == {"new"}
        mine.protect(images)
        alike = pictures(60, 50, tint=7)
        assert not mine.reference(alike, dry_run=True).verdict.passed
        with pytest.raises(retain.GateRefused) as error:
            mine.reference(alike)
        assert failed(error) == {"protected"}
        assert {mine.show(image).prediction.label for image in images} == {"new"}
        assert mine.reference(pictures(3, 9), dry_run=True).event is None
        assert mine.reference(alike, force=True).verdict.forced
        assert mine.verify().ok
