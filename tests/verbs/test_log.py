from datetime import datetime

from tests.verbs.conftest import taught


def test_the_journal_tells_what_happened(shop):
    given = taught(shop, "ant", "bee")
    shop.correct(given["ant"][0], "bee")
    shop.rename("bee", "wasp")
    shop.undo()
    shop.forget(labels=["ant"])
    log = shop.log()
    assert [e.event for e in log] == [1, 2, 3, 4, 5, 6]
    assert [e.kind for e in log] == ["learn", "learn", "correct", "rename", "undo", "forget"]
    assert log[3].undone == 5
    assert log[4].target == 4
    assert all(datetime.fromisoformat(e.at).tzinfo is not None for e in log)
    assert "8 pictures" in log[1].summary
    assert "'wasp'" in log[3].summary
