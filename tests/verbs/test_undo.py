import pytest

import retain
from tests.verbs.conftest import cluster, fingerprint, taught


def test_the_last_event_is_taken_back_and_can_be_brought_back(shop):
    taught(shop, "ant", "bee")
    before = fingerprint(shop)
    taught(shop, "cat")
    after = fingerprint(shop)
    assert shop.undo().gone_classes == ("cat",)
    assert fingerprint(shop) == before
    assert shop.undo(4).new_classes == ("cat",)
    assert fingerprint(shop) == after


def test_undo_of_undo_of_undo(shop):
    taught(shop, "ant", "bee")
    states = [fingerprint(shop)]
    taught(shop, "cat")
    states.append(fingerprint(shop))
    event = 3
    for k in range(4):
        event = shop.undo(event).event
        assert fingerprint(shop) == states[k % 2]
    assert shop.verify().ok


def test_plain_undo_goes_back_step_by_step(shop):
    taught(shop, "ant", "bee", "cat")
    shop.undo()
    shop.undo()
    assert shop.labels == ("ant",)


def test_a_correction_is_taken_back(shop):
    given = taught(shop, "ant", "bee", "cat")
    before = fingerprint(shop)
    shop.correct(given["ant"][0], "cat")
    shop.undo()
    assert fingerprint(shop) == before
    assert shop.predict(given["ant"][:1])[0].label == "ant"


def test_an_event_in_the_middle(shop, fresh):
    given = taught(shop, "ant", "bee", "cat", "dog")
    shop.undo(2)
    never = fresh()
    for label in ("ant", "cat", "dog"):
        never.learn(given[label], label)
    assert fingerprint(shop) == fingerprint(never)


def test_later_relabelling_stands_when_the_first_lesson_is_taken_back(shop):
    given = taught(shop, "ant", "bee")
    shop.correct(given["ant"][0], "bee")
    shop.undo(1)
    assert shop.predict(given["ant"][:1])[0].label == "bee"
    assert shop.labels == ("bee",)


def test_renaming_and_merging_are_taken_back(shop):
    taught(shop, "ant", "bee", "cat")
    before = fingerprint(shop)
    shop.rename("ant", "emmet")
    shop.undo()
    assert fingerprint(shop) == before
    shop.merge("ant", "bee")
    shop.undo()
    assert fingerprint(shop) == before


@pytest.mark.parametrize("event", [0, -1, 99])
def test_there_is_no_such_event(shop, event):
    taught(shop, "ant")
    with pytest.raises(retain.UnknownEvent):
        shop.undo(event)


def test_what_is_undone_cannot_be_undone_again(shop):
    taught(shop, "ant", "bee")
    shop.undo(2)
    with pytest.raises(retain.CannotUndo, match="event 3"):
        shop.undo(2)


def test_nothing_to_undo(shop):
    with pytest.raises(retain.CannotUndo):
        shop.undo()


def test_bytes_are_kept_for_redoing(shop):
    taught(shop, "ant", "bee")
    rows = cluster("cat", 2)
    shop.learn(rows, "cat")
    image = shop.predict(rows[:1])[0].image
    data = shop.image(image)
    shop.undo()
    # Lessons in between sweep away what no event speaks of; this is not that.
    taught(shop, "dog")
    shop.undo(4)
    assert shop.image(image) == data
    assert shop.verify(deep=True).ok
