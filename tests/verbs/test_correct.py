import numpy as np
import pytest

import retain
from tests.verbs.conftest import cluster, fingerprint, taught, wrong_one

LABELS = ("ant", "bee", "cat", "dog")


def test_the_picture_is_what_you_said(shop):
    taught(shop, *LABELS, n=20)
    row, label = wrong_one(shop, LABELS)
    said = shop.predict(row[None])[0].label
    update = shop.correct(row, label)
    assert update.fixed
    assert update.corrected[0].before == said != label
    assert shop.predict(row[None])[0].label == label
    with retain.open(shop.path) as again:
        assert again.predict(row[None])[0].label == label


def test_learning_alone_is_preferred_to_an_edit(shop):
    taught(shop, *LABELS, n=20)
    row = cluster("bee", 1, seed=77, spread=0.1)
    assert shop.predict(row)[0].label == "bee"
    update = shop.correct(row[0], "bee")
    assert (update.fixed, update.pinned, update.learned) == (True, False, 1)


def test_a_known_picture_is_relabelled_and_answered_so(shop):
    given = taught(shop, *LABELS, n=20)
    shop.gate(correction=1.0)
    update = shop.correct(given["ant"][0], "dog")
    assert (update.learned, update.relabelled, update.fixed, update.pinned) == (0, 1, True, True)
    assert shop.predict(given["ant"][:1])[0].label == "dog"


def test_every_remembered_picture_whose_answer_changed_is_listed(shop):
    given = taught(shop, *LABELS, n=20)
    rows = np.concatenate(list(given.values()))
    before = {p.image: p.label for p in shop.predict(rows)}
    update = shop.correct(given["ant"][0], "dog")
    after = {p.image: p.label for p in shop.predict(rows)}
    corrected = update.corrected[0].image
    changed = {i for i in before if before[i] != after[i] and i != corrected}
    assert {c.image for c in (*update.worse, *update.better, *update.changed)} == changed


def test_all_corrections_hold_after_all_have_been_made(shop):
    taught(shop, *LABELS, n=15)
    made = []
    for k in range(8):
        row, label = wrong_one(shop, LABELS, start=100 + 60 * k)
        shop.correct(row, label)
        made.append((row, label))
    for row, label in made:
        assert shop.predict(row[None])[0].label == label
    assert shop.verify().ok


def test_what_no_linear_head_can_keep_becomes_an_exception(shop):
    """Twelve numbers a feature: some set of arbitrary answers has no linear head."""
    taught(shop, *LABELS, n=15)
    shop.gate(regressions=1.0, class_regressions=1.0, calibration=100.0, correction=1.0)
    rows = cluster("ant", 40, seed=3)
    apart = []
    for i, row in enumerate(rows):
        update = shop.correct(row, LABELS[i % 4])
        assert update.fixed
        if update.corrected[0].exception:
            assert not update.corrected[0].pinned
            assert "contradict each other" in update.verdict.reason
            apart.append(i)
    assert apart
    assert len(rows) - len(apart) > 12
    answers = [p.label for p in shop.predict(rows)]
    assert answers == [LABELS[i % 4] for i in range(len(rows))]
    assert shop.verify().ok


def test_an_exception_makes_nothing_remembered_worse(shop):
    taught(shop, *LABELS, n=20)
    row, label = wrong_one(shop, LABELS)
    before = {s.image for s in shop.samples()}
    update = shop.correct(row, label, exception=True)
    assert update.corrected[0].exception
    assert update.verdict.rung == "exception"
    assert shop.predict(row[None])[0].label == label
    learned_alone = {change.image for change in update.worse}
    assert learned_alone <= before
    # What got worse did so by learning the picture, never by the exception.
    state = shop._session.state
    assert shop._session.mind.head == state.base
    by_head = state.mind.head.logits(state.features).argmax(axis=1)
    for sample, answer, best in zip(state.samples, state.answers, by_head, strict=True):
        if state.mind.head.classes[best] == sample.label:
            assert answer == sample.label


def test_an_exception_answers_for_near_copies_only(shop):
    given = taught(shop, *LABELS, n=20)
    row = given["ant"][0]
    update = shop.correct(row, "dog", exception=True)
    assert update.corrected[0].exception
    near = (row * 1.0 + 1e-3).astype(np.float32)
    assert shop.predict(near[None])[0].label == "dog"
    stored = shop._session.mind.exceptions
    assert len(stored) == 1
    cosines = np.array([s.label != "dog" for s in shop._session.state.samples])
    features = shop._session.state.features[cosines].astype(np.float64)
    e = stored.features[0].astype(np.float64)
    closest = (features @ e / np.linalg.norm(features, axis=1) / np.linalg.norm(e)).max()
    assert stored.thresholds[0] == pytest.approx((1 + closest) / 2, abs=1e-12)


def test_later_lessons_keep_corrections(shop):
    given = taught(shop, *LABELS, n=20)
    shop.correct(given["ant"][0], "dog")
    taught(shop, "elk", n=40)
    shop.learn(cluster("ant", 60, seed=5), "ant")
    assert shop.predict(given["ant"][:1])[0].label == "dog"


def test_a_correction_may_name_a_new_class(shop):
    taught(shop, "ant", "bee")
    row = cluster("elk", 1)[0]
    update = shop.correct(row, "elk")
    assert update.new_classes == ("elk",)
    assert shop.predict(row[None])[0].label == "elk"


def test_the_first_picture_ever_may_be_a_correction(shop):
    assert shop.correct(cluster("ant", 1)[0], "ant").fixed
    assert shop.labels == ("ant",)


def test_saying_the_same_again_changes_nothing(shop):
    given = taught(shop, *LABELS)
    shop.correct(given["ant"][0], "dog")
    before = fingerprint(shop)
    update = shop.correct(given["ant"][0], "dog")
    assert (update.event, update.fixed) == (None, True)
    assert fingerprint(shop) == before


def test_changing_your_mind_must_be_said(shop):
    given = taught(shop, *LABELS)
    shop.correct(given["ant"][0], "dog")
    with pytest.raises(retain.PinConflict, match=r"'dog' by event 5.*'cat'.*replace"):
        shop.correct(given["ant"][0], "cat")
    assert shop.predict(given["ant"][:1])[0].label == "dog"
    assert shop.correct(given["ant"][0], "cat", replace=True).fixed
    assert shop.predict(given["ant"][:1])[0].label == "cat"


def test_one_picture_cannot_be_two_things_at_once(shop):
    given = taught(shop, *LABELS)
    with pytest.raises(retain.PinConflict, match="both 'bee' and 'cat'"):
        shop.correct_many([(given["ant"][0], "bee"), (given["ant"][0], "cat")])
    assert len(shop.log()) == 4


def test_two_files_with_the_same_feature_cannot_be_two_things(shop):
    given = taught(shop, *LABELS)
    shop.correct(given["ant"][0], "dog")
    # Another file, the same direction: the feature is the same integer vector.
    twin = given["ant"][0] * 2
    with pytest.raises(retain.PinConflict, match=r"'dog'.*looks the same.*'cat'|'cat'.*'dog'"):
        shop.correct(twin, "cat")
    assert len(shop.log()) == 5
    assert shop.verify().ok


def test_many_at_once_are_one_event(shop):
    given = taught(shop, *LABELS)
    pairs = [(given["ant"][i], "dog") for i in range(3)]
    update = shop.correct_many(pairs)
    assert (len(update.corrected), update.fixed, len(shop.log())) == (3, True, 5)
    with pytest.raises(retain.InputError, match="nothing to correct"):
        shop.correct_many([])


def test_by_hash_by_its_beginning_and_by_name(shop):
    given = taught(shop, *LABELS)
    image = shop.predict(given["ant"][:1])[0].image
    assert shop.correct(image, "dog").fixed
    assert shop.correct(image[7:19], "cat", replace=True).fixed
    with pytest.raises(retain.UnknownImage, match="neither a file nor a remembered picture"):
        shop.correct("no-such-thing.jpg", "cat")


@pytest.mark.parametrize("memory", ["images", "features"])
@pytest.mark.parametrize("head", ["cosine", "discriminant", "ridge", "nearest-mean"])
def test_every_head_and_memory_can_be_corrected(fresh, head, memory):
    shop = fresh(head=head, memory=memory)
    given = taught(shop, *LABELS)
    assert shop.correct(given["bee"][0], "ant").fixed
    assert shop.predict(given["bee"][:1])[0].label == "ant"
    assert shop.verify().ok


def test_a_head_is_a_function_of_what_is_taught_and_corrected(fresh):
    """The same lessons, then the same corrections in another order: the same bits.

    As long as the gate sends them up the same rung, that is: it judges each where it comes.
    """
    one, other = fresh(), fresh()
    for each in (one, other):
        each.gate(correction=1.0)
    pairs = [(cluster("ant", 8)[0], "dog"), (cluster("bee", 8)[1], "cat")]
    taught(one, *LABELS)
    taught(other, *reversed(LABELS))
    for row, label in pairs:
        one.correct(row, label)
    for row, label in reversed(pairs):
        other.correct(row, label)
    assert fingerprint(one) == fingerprint(other)


@pytest.fixture
def alike(shop, monkeypatch):
    """Two corrections of pictures that hardly differ, and sweeps too few to satisfy both again."""
    for label in LABELS:
        shop.learn(cluster(label, 30, spread=1.0), label, force=True)
    row = cluster("ant", 1, seed=50)[0]
    rows = np.stack([row, row + 0.12 * np.random.default_rng(0).normal(size=12)])
    rows = rows.astype(np.float32)
    for each, label in zip(rows, ("bee", "cat"), strict=True):
        assert not shop.correct(each, label, force=True).corrected[0].exception
    monkeypatch.setattr("retain.algebra.pins._SWEEPS", 3)
    monkeypatch.setattr("retain.algebra.pins._FIRM_SWEEPS", 3)
    return rows


@pytest.mark.parametrize("verb", ["forget", "learn", "undo"])
def test_corrections_that_no_head_is_found_for_stop_nothing_else(shop, alike, verb, monkeypatch):
    """They hold by the next rung, as long as that is so: "no head was found" is no proof."""
    if verb == "forget":
        gone = [s.image for s in shop.samples() if not s.pinned][:40]
        verdict = shop.forget(gone, force=True).verdict
        assert any("1 of them as exceptions" in sentence for sentence in verdict.sentences)
    elif verb == "learn":
        shop.learn(cluster("dog", 9, seed=7), "dog", force=True)
    else:
        shop.undo(2, force=True)
    state = shop._session.state
    assert "no head was found" in state.conflict
    assert len(state.yielding) == 1
    assert [p.label for p in shop.predict(alike)] == ["bee", "cat"]
    assert shop.verify().ok
    with retain.open(shop.path) as again:
        assert fingerprint(again) == fingerprint(shop)
        assert [p.label for p in again.predict(alike)] == ["bee", "cat"]
    assert shop.correct(cluster("dog", 1, seed=60, spread=2.0)[0], "ant", force=True).fixed
    assert shop.correct(alike[0], "dog", replace=True, force=True).corrected[0].exception
    assert [p.label for p in shop.predict(alike)] == ["dog", "cat"]
    monkeypatch.undo()
    shop.learn(cluster("bee", 3, seed=8), "bee", force=True)
    assert not shop._session.state.yielding
    assert not shop._session.state.conflict


def test_a_correction_that_no_head_is_found_for_becomes_an_exception(shop, alike):
    row = alike[0] + np.float32(0.01)
    update = shop.correct(row, "dog", force=True)
    assert update.corrected[0].exception
    assert "no head was found" in update.verdict.reason
