import pytest

import retain
from tests.verbs.adopted import NAMES, adopt, pictures
from tests.verbs.conftest import cluster, fingerprint


@pytest.fixture
def mine(tmp_path):
    with adopt(tmp_path) as made:
        yield made


def test_it_is_kept_without_a_label(mine):
    update = mine.reference(pictures(20))
    assert (update.event, update.learned, update.kind) == (1, 20, "reference")
    assert mine.labels == tuple(NAMES)
    status = mine.status()
    assert (status.images, status.reference, status.classes) == (0, 20, 4)
    assert [(c.label, c.images) for c in mine.classes()] == [(n, 0) for n in sorted(NAMES)]
    assert mine.log()[0].summary == "took 20 pictures as reference"
    assert mine.verify().ok


def test_again_is_known(mine):
    mine.reference(pictures(20))
    again = mine.reference(pictures(25))
    assert (again.learned, again.known) == (5, 20)
    assert mine.reference(pictures(25)).event is None


def test_the_order_and_the_batches_do_not_matter(tmp_path):
    with adopt(tmp_path, "a") as one, adopt(tmp_path, "b") as other:
        rows = pictures(20)
        one.reference(rows)
        one.learn(pictures(6, tint=1), "elk", force=True)
        other.learn(pictures(6, tint=1), "elk", force=True)
        other.reference(rows[10:])
        other.reference(rows[:10])
        assert fingerprint(one) == fingerprint(other)


def test_a_picture_of_it_can_be_learned_and_taken_back(mine):
    mine.reference(pictures(20))
    before = fingerprint(mine)
    update = mine.learn(pictures(2), "elk", force=True)
    assert (update.learned, update.relabelled) == (0, 2)
    assert mine.status().reference == 18
    mine.undo()
    assert fingerprint(mine) == before
    assert mine.correct(pictures(1)[0], "bee", force=True).fixed
    mine.undo()
    assert fingerprint(mine) == before


def test_it_can_be_forgotten_and_undone(mine):
    empty = fingerprint(mine)
    mine.reference(pictures(20))
    mine.undo()
    assert fingerprint(mine) == empty
    mine.undo(2)
    mine.forget(events=1)
    assert fingerprint(mine) == empty
    assert mine.status().reference == 0
    assert mine.verify().ok


def test_only_what_was_adopted_needs_one(shop):
    with pytest.raises(retain.BadOption, match="adopted"):
        shop.reference(cluster("ant", 3))
    assert shop.log() == []


def test_nothing_usable(mine):
    with pytest.raises(retain.InputError):
        mine.reference([b"no picture"])
    assert mine.log() == []


def test_nothing_of_one_that_failed_stays(mine):
    def fails(done, total):
        if done == total:
            raise ZeroDivisionError("no picture")

    before = mine._session.store.known()
    with pytest.raises(ZeroDivisionError):
        mine.reference(pictures(140), progress=fails)  # more than are put aside at once
    assert mine._session.store.known() == before
    assert mine.verify().notes == ()


def test_it_has_no_name(mine):
    mine.reference(pictures(5))
    for call in (
        lambda: mine.learn(pictures(1, seed=5), ""),
        lambda: mine.forget(labels=""),
        lambda: mine.rename("", "elk"),
        lambda: mine.protect(labels=""),
    ):
        with pytest.raises(retain.RetainError):
            call()
    assert len(mine.log()) == 1
    changed = mine.learn(pictures(9, tint=1), "elk", force=True)
    assert "" not in {c.label for c in (*changed.worse, *changed.better, *changed.changed)}


def test_new_classes_leave_it_alone(mine):
    """The gate watches that what is typical goes on being answered as it was."""
    mine.reference(pictures(60))
    update = mine.learn(pictures(12, tint=1), "elk")
    (agreement,) = [c for c in update.verdict.checks if c.name == "agreement"]
    assert agreement.passed
    assert "of 60 reference pictures" in agreement.sentence
