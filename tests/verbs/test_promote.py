import numpy as np
import pytest

import retain
from tests.verbs.conftest import cluster, fingerprint, taught, wrong_one

LABELS = ("ant", "bee", "cat", "dog")


def failed(error):
    return {check.name for check in error.value.verdict.checks if not check.passed}


def test_the_first_is_taken_as_it_is(shop):
    taught(shop, "ant", "bee")
    update = shop.promote()
    assert (update.event, update.verdict) == (3, None)
    assert shop.versions()[-1].aliases == ("production",)
    rows = cluster("ant", 5)
    assert shop.predict(rows, version="production") == shop.predict(rows)


def test_promoting_it_again_changes_nothing(shop):
    taught(shop, "ant", "bee")
    shop.promote(2)
    again = shop.promote(2)
    assert again.event is None
    assert "already" in again.summary


def test_a_better_one_passes(shop):
    taught(shop, *LABELS, n=20)
    shop.promote()
    for label in LABELS:
        shop.learn(cluster(label, 20, seed=4), label)
    update = shop.promote()
    assert update.verdict.passed
    assert update.verdict.judged > 0


def test_one_that_knows_less_is_refused(shop):
    """What it does not know cannot be left out of what it is judged by."""
    taught(shop, *LABELS, n=20)
    shop.promote()
    before = fingerprint(shop), len(shop.log())
    with pytest.raises(retain.GateRefused) as error:
        shop.promote(2)
    assert "regressions" in failed(error)
    assert (fingerprint(shop), len(shop.log())) == before
    with pytest.raises(retain.GateRefused):
        shop.promote(0)
    assert shop.promote(2, force=True).verdict.forced
    assert shop.predict(cluster("dog", 3), version="production")[0].label != "dog"


def test_gains_in_new_classes_do_not_pay_for_old_ones(shop):
    shop.learn(cluster("ant", 60), "ant")
    shop.learn(cluster("bee", 60), "bee")
    shop.promote()
    shop.learn(cluster("cat", 60), "cat", force=True)
    shop.learn(cluster("ant", 300, seed=7), "cat", force=True)
    with pytest.raises(retain.GateRefused) as error:
        shop.promote()
    assert failed(error) & {"regressions", "class regressions"}


def test_members_are_left_out_as_in_every_other_verb(shop):
    taught(shop, *LABELS, n=20)
    shop.promote()
    shop.rename("ant", "mite")
    shop.learn(cluster("elk", 20), "elk")
    update = shop.promote()
    assert (update.verdict.judged, update.verdict.left_out) == (80, 80)
    checks = {check.name: check for check in update.verdict.checks}
    assert {"calibration", "new class"} <= checks.keys()
    assert "'elk' is recognised in" in checks["new class"].sentence
    # What has another label by now is not left out under the old one.
    shop.learn(cluster("bee", 20)[:5], "cat", force=True)
    verdict = shop.promote(dry_run=True).verdict
    assert (verdict.judged, verdict.left_out) == (100, 95)


def test_a_new_class_that_is_nothing_is_not_promoted(shop):
    taught(shop, *LABELS, n=20)
    shop.promote()
    shop.gate(regressions=1.0, class_regressions=1.0, calibration=99.0, new_class_accuracy=0.9)
    rows = np.concatenate([cluster(label, 6, seed=5) for label in LABELS])
    shop.learn(rows, "stuff", force=True)
    with pytest.raises(retain.GateRefused, match="'stuff' is recognised in") as error:
        shop.promote()
    assert failed(error) == {"new class"}


def test_a_dry_run_changes_nothing(shop):
    taught(shop, *LABELS, n=20)
    shop.promote(4)
    before = (shop.path / "journal.db").read_bytes(), len(shop.log())
    assert shop.promote(2, dry_run=True).verdict.passed is False
    assert shop.promote(3, "candidate", dry_run=True).event is None
    assert ((shop.path / "journal.db").read_bytes(), len(shop.log())) == before


def test_what_is_protected_now_is_held_to(shop):
    given = taught(shop, *LABELS, n=20)
    shop.promote(4)
    shop.gate(regressions=1.0, class_regressions=1.0, calibration=9.0)
    image = shop.predict(given["dog"][:1])[0].image
    shop.promote(3, "staging")
    shop.promote(4, "staging")
    shop.protect(image)
    with pytest.raises(retain.GateRefused) as error:
        shop.promote(3)
    assert failed(error) == {"protected"}
    shop.protect(image, off=True)
    shop.promote(3)


def test_a_correction_that_held_must_go_on_to_hold(shop):
    taught(shop, *LABELS, n=20)
    row, label = wrong_one(shop, LABELS)
    shop.correct(row, label)
    shop.gate(regressions=1.0, class_regressions=1.0, calibration=9.0)
    shop.promote(5)
    with pytest.raises(retain.GateRefused) as error:
        shop.promote(4)
    assert failed(error) == {"corrections"}


def test_a_correction_that_neither_knows_is_no_loss(shop):
    taught(shop, *LABELS, n=20)
    shop.learn(cluster("ant", 20, seed=5), "ant")
    row, label = wrong_one(shop, LABELS)
    shop.correct(row, label)
    shop.promote(4)
    assert shop.promote(5).verdict.passed


def test_a_rename_between_them_is_no_loss(shop):
    taught(shop, *LABELS, n=20)
    shop.promote()
    shop.rename("ant", "mite")
    shop.protect(labels="mite")
    assert shop.promote(6).verdict.passed
    assert shop.promote(4).verdict.passed
    shop.undo(6)
    assert shop.promote(6).verdict.passed


@pytest.mark.parametrize("alias", ["", "latest", "1st", "a b", "é", "x" * 65, "-a"])
def test_names_that_cannot_be_an_alias(shop, alias):
    taught(shop, "ant", "bee")
    with pytest.raises(retain.BadOption, match="cannot be an alias"):
        shop.promote(1, alias)


def test_it_can_be_undone_and_is_there_after_reopening(shop):
    taught(shop, "ant", "bee", "cat")
    shop.promote(3)
    shop.promote(2, force=True)
    with retain.open(shop.path) as again:
        assert again.diff("production").a == 2
        again.undo()
        assert again.diff("production").a == 3
        again.undo(4)
        with pytest.raises(retain.UnknownEvent, match="none yet"):
            again.diff("production")
        assert again.verify().ok


def test_forgetting_everything_that_a_version_knew(shop):
    taught(shop, "ant", "bee", "cat")
    shop.promote(1)
    shop.forget(labels="ant", force=True)
    with pytest.raises(retain.NothingLearned):
        shop.predict(cluster("ant", 1), version="production")
    assert shop.promote(3).verdict.passed
    assert shop.predict(np.concatenate([cluster("bee", 2)]), version="production")
