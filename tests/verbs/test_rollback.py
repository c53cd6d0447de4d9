import pytest

import retain
from tests.verbs.conftest import cluster, fingerprint, taught


@pytest.fixture
def three(shop):
    taught(shop, "ant", "bee", "cat", n=12)
    for n in (1, 2, 3):
        shop.promote(n, force=True)
    return shop


def production(shop):
    return shop._session.store.rules().aliases.get("production")


def test_it_goes_back_step_by_step(three):
    assert production(three) == 3
    assert "version 2 again (it was 3)" in three.rollback().summary
    assert production(three) == 2
    three.rollback()
    assert production(three) == 1
    with pytest.raises(retain.CannotUndo, match="stands for version 1, the first on its trail"):
        three.rollback()
    with pytest.raises(retain.CannotUndo, match="candidate stands for no version yet"):
        three.rollback("candidate")


def test_after_going_back_one_can_go_on(three):
    three.rollback()
    three.promote(1, force=True)
    assert production(three) == 1
    three.rollback()
    assert production(three) == 2


def test_it_can_be_undone(three):
    event = three.rollback().event
    three.undo(event)
    assert production(three) == 3
    three.undo()
    with retain.open(three.path) as again:
        assert production(again) == production(three)


def test_undoing_the_promotion_beneath_it(three):
    three.rollback()
    three.undo(6)
    assert production(three) == 2
    three.rollback()
    assert production(three) == 1


def test_undoing_the_promotion_it_went_back_to(three):
    """2 → 3 → 2, and then the promotion of 3 had never been: 2 was not left."""
    three.rollback()
    three.undo(5)
    three.rollback()
    assert production(three) == 1
    with pytest.raises(retain.CannotUndo):
        three.rollback()


def test_it_changes_no_answer(three):
    before = fingerprint(three)
    three.rollback()
    assert fingerprint(three) == before
    assert three.verify().ok


def test_nothing_to_go_back_to(shop):
    taught(shop, "ant", "bee")
    with pytest.raises(retain.CannotUndo):
        shop.rollback()
    shop.promote()
    with pytest.raises(retain.CannotUndo):
        shop.rollback()
    with pytest.raises(retain.BadOption):
        shop.rollback("no alias")


def test_another_alias_is_left_alone(three):
    three.promote(1, "candidate")
    three.rollback()
    assert three._session.store.rules().aliases == {"production": 2, "candidate": 1}
    assert three.predict(cluster("ant", 1), version="candidate")[0].label == "ant"
