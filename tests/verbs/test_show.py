import pytest

import retain
from tests.verbs.conftest import taught


def test_an_event_and_its_pictures(shop):
    taught(shop, "ant", "bee")
    detail = shop.show(2)
    assert detail.event.kind == "learn"
    assert len(detail.samples) == 8
    assert {s.label for s in detail.samples} == {"bee"}


def test_a_picture_and_its_history(shop):
    given = taught(shop, "ant", "bee")
    shop.correct(given["ant"][0], "bee")
    detail = shop.show(shop.predict(given["ant"][:1])[0].image)
    assert (detail.sample.label, detail.sample.pinned, detail.sample.event) == ("bee", True, 3)
    assert detail.prediction.label == "bee"
    assert [e.event for e in detail.history] == [1, 3]


@pytest.mark.parametrize(
    ("what", "error"), [(9, retain.UnknownEvent), ("abcdef0", retain.UnknownImage)]
)
def test_what_is_not_there(shop, what, error):
    taught(shop, "ant")
    with pytest.raises(error):
        shop.show(what)
