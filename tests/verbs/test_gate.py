import sqlite3

import numpy as np
import pytest

import retain
from retain.algebra import tuning_sample
from retain.jury import with_newcomers
from tests.verbs.conftest import cluster, fingerprint

LABELS = ("ant", "bee", "cat", "dog", "elk", "fox")


def failed(error):
    return {check.name for check in error.value.verdict.checks if not check.passed}


@pytest.fixture
def known(shop):
    for label in LABELS:
        shop.learn(cluster(label, 15, spread=0.4), label)
    return shop


def on_disk(shop):
    """Everything that the journal holds: its rows, and the files of pictures."""
    with sqlite3.connect(shop.path / "journal.db") as db:
        tables = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        rows = {
            name: sorted(map(repr, db.execute(f"SELECT * FROM {name}")))
            for name in tables
            # What was worked out for a state may be kept: it says nothing that is not known.
            if name != "tunings"
        }
    blobs = sorted(str(p) for p in (shop.path / "blobs").rglob("*") if p.is_file())
    return rows, blobs, fingerprint(shop)


def poisoned(label, how, *, n=24, seed=9):
    """A batch of a class, 30 % of it under wrong names."""
    rows, labels = cluster(label, n, seed=seed, spread=0.4), [label] * n
    for k in range(round(0.3 * n)):
        others = [other for other in LABELS if other != label]
        labels[k] = others[k % len(others)] if how == "spread" else others[0]
    return rows, labels


def strangers(label, how, *, n=24, seed=9):
    """A batch under the name of a class, 30 % of it pictures of others."""
    rows = cluster(label, n, seed=seed, spread=0.4)
    others = [other for other in LABELS if other != label]
    for k in range(round(0.3 * n)):
        other = others[k % len(others)] if how == "spread" else others[0]
        rows[k] = cluster(other, n, seed=seed, spread=0.4)[k]
    return rows, [label] * n


@pytest.mark.parametrize("how", ["spread", "one"])
@pytest.mark.parametrize("label", ["ant", "dog"])
@pytest.mark.parametrize("batch", [poisoned, strangers])
def test_wrong_labels_are_refused_and_the_class_is_named(known, batch, label, how):
    before = on_disk(known)
    rows, labels = batch(label, how)
    with pytest.raises(retain.GateRefused, match=f"'{label}'.*probably wrong") as error:
        known.learn(rows, labels)
    assert "labels" in failed(error)
    assert fingerprint(known) == before[2]
    assert error.value.verdict.suspects
    wrong = {
        p.image for p, given in zip(known.predict(rows), labels, strict=True) if p.label != given
    }
    assert {s.image for s in error.value.verdict.suspects} <= wrong


@pytest.mark.parametrize("label", LABELS)
def test_a_clean_batch_passes(known, label):
    assert known.learn(cluster(label, 24, seed=9), label).verdict.passed


def test_ordinary_mistakes_pass(fresh):
    """Classes that overlap: a large lesson of one of them looks like others now and then."""
    shop = fresh()
    for label in LABELS:
        shop.learn(cluster(label, 40, spread=1.6), label, force=True)
    for label in LABELS:
        for seed in range(20, 23):
            assert shop.learn(cluster(label, 60, seed=seed, spread=1.6), label).verdict.passed


@pytest.mark.parametrize("n", [1, 2, 5])
def test_new_classes_of_a_few_pictures_pass(known, n):
    for label in ("gnu", "hen", "ibis"):
        assert known.learn(cluster(label, n), label).verdict.passed


def test_force_lands_and_says_so(known):
    rows, labels = poisoned("ant", "one")
    update = known.learn(rows, labels, force=True)
    assert update.event == len(LABELS) + 1
    assert update.verdict.forced
    assert not update.verdict.passed
    assert known.verify().ok
    known.undo()
    assert known.learn(cluster("ant", 5, seed=3), "ant", force=True).verdict.forced is False


def test_a_dry_run_changes_nothing(known):
    before = on_disk(known)
    rows, labels = poisoned("ant", "one")
    assert known.learn(rows, labels, dry_run=True).verdict.passed is False
    assert known.learn(cluster("gnu", 9), "gnu", dry_run=True).new_classes == ("gnu",)
    assert known.correct(rows[0], "dog", dry_run=True).event is None
    assert known.correct(rows[1], "gnu", dry_run=True, exception=True).event is None
    assert known.forget(labels="ant", dry_run=True).event is None
    assert on_disk(known) == before
    assert known.verify().ok


def test_what_was_refused_is_not_kept(known):
    """Neither bytes nor features of a lesson that was refused stay behind."""
    before = on_disk(known)
    with pytest.raises(retain.GateRefused):
        known.learn(*poisoned("ant", "one"))
    assert on_disk(known) == before


def test_what_a_dry_run_says_is_what_happens(known):
    rows = cluster("gnu", 12, spread=1.5)
    said = known.learn(rows, "gnu", dry_run=True)
    done = known.learn(rows, "gnu")
    assert said.verdict == done.verdict
    assert (said.worse, said.better, said.new_classes) == (
        done.worse,
        done.better,
        done.new_classes,
    )


def test_a_new_class_over_an_old_one_costs_it(known):
    known.learn(cluster("ant", 30, seed=8), "ant")
    with pytest.raises(retain.GateRefused, match="class 'ant' would lose") as error:
        known.learn(cluster("ant", 200, seed=4), "gnu")
    assert "class regressions" in failed(error)


def test_a_class_that_is_nothing_is_not_recognised(known):
    rows = np.concatenate([cluster(label, 5, seed=5) for label in LABELS])
    known.gate(regressions=1.0, class_regressions=1.0, calibration=99.0, wrong_labels=0.0)
    with pytest.raises(retain.GateRefused, match="'stuff' is recognised in") as error:
        known.learn(rows, "stuff")
    assert failed(error) == {"new class"}
    known.gate(new_class_accuracy=0.0)
    assert known.learn(rows, "stuff").verdict.passed


def test_a_new_class_that_hardly_any_juror_is_of_is_judged_all_the_same(known, monkeypatch):
    """Of many classes each has few jurors; what else is judged stays as it is, bit for bit."""
    monkeypatch.setattr("retain.solving.tuning_sample", lambda members: tuning_sample(members, 14))
    known.gate(regressions=1.0, class_regressions=1.0, calibration=99.0, wrong_labels=0.0)
    known.gate(new_class_accuracy=0.9)
    session, seen = known._session, []
    real = with_newcomers
    monkeypatch.setattr("retain.session.with_newcomers", lambda *a: seen.append(a) or real(*a))
    rows = np.concatenate([cluster(label, 5, seed=5) for label in LABELS])
    with pytest.raises(retain.GateRefused, match=r"'stuff' is recognised in .* of 20 pictures"):
        known.learn(rows, "stuff")
    found = seen[0][0]
    assert 0 < len(found.losses) <= 14
    more = real(*seen[0])
    assert {image: more.losses[image] for image in found.losses} == found.losses
    update = known.learn(cluster("gnu", 30), "gnu")
    sentence = next(c.sentence for c in update.verdict.checks if c.name == "new class")
    assert "of 20 pictures when each is left out" in sentence
    assert session.judged(session.state).losses.keys() <= session.state.jurors.keys()


def test_budgets_are_kept_and_undone(known):
    assert known.gate() == retain.Budgets()
    known.gate(regressions=0.5, agreement=0.1)
    with retain.open(known.path) as again:
        assert again.gate() == retain.Budgets(regressions=0.5, agreement=0.1)
        again.undo()
        assert again.gate() == retain.Budgets()
    events = len(known.log())
    known.gate(regressions=0.02)
    assert len(known.log()) == events
    known.undo(events)
    assert known.gate().regressions == 0.5


@pytest.mark.parametrize(
    "wrong",
    [{"nothing": 1.0}, {"regressions": -1}, {"regressions": float("nan")}, {"regressions": "1"},
     {"agreement": float("inf")}, {"agreement": None}, {"new_class_accuracy": 1.01},
     {"wrong_labels": 2}],
)  # fmt: skip
def test_budgets_that_are_none(known, wrong):
    events = len(known.log())
    with pytest.raises(retain.BadOption):
        known.gate(**wrong)
    assert len(known.log()) == events


def test_per_cent_are_not_taken_for_shares(known):
    with pytest.raises(retain.BadOption, match=r"500%; it is a share and at most 1: 0\.05 is 5 %"):
        known.gate(regressions=5)
    assert known.gate() == retain.Budgets()
    assert known.gate(regressions=1, calibration=7.5).calibration == 7.5


def test_setting_budgets_changes_no_answer(known):
    before = fingerprint(known)
    known.gate(regressions=0.9)
    assert fingerprint(known) == before
    assert known.verify().ok


def test_the_sentences_come_with_numbers(known):
    update = known.learn(cluster("gnu", 10), "gnu")
    text = " ".join(update.verdict.sentences)
    assert "of 90 remembered pictures" in text
    assert "95 % confidence" in text
    assert update.verdict.judged == 90
    assert update.verdict.left_out == 90


def test_the_first_lesson_has_nothing_to_cost(shop):
    assert shop.learn(cluster("ant", 5), "ant").verdict.passed


def test_forgetting_everything_is_allowed(known):
    receipt = known.forget(labels=list(LABELS))
    assert receipt.verdict.passed
    assert known.labels == ()


def test_forgetting_what_holds_a_class_up_is_refused(shop):
    """Two clouds of one class: without the nearer, the other is taken for a neighbour."""
    near, far = cluster("ant", 40, spread=0.3), cluster("bee", 40, spread=0.3)
    shop.learn(np.concatenate([near, 0.55 * far + 0.45 * near]), "ant")
    shop.learn(far, "bee", force=True)
    gone = [p.image for p in shop.predict(0.55 * far + 0.45 * near)][:38]
    receipt = shop.forget(gone, dry_run=True)
    assert receipt.verdict.judged == 120 - 38
    assert receipt.event is None
