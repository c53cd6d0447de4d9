import numpy as np
import pytest

import retain
from tests.verbs.adopted import adopt, pictures
from tests.verbs.conftest import cluster, fingerprint, taught, wrong_one

LABELS = ("ant", "bee", "cat", "dog")


def at(shop, event):
    """What must be equal: digest, classes, the bits of the head, exceptions."""
    state = shop._session.earlier(event)
    head, apart = state.mind.head, state.mind.exceptions
    bits = None if head is None else (head.classes, head.weights.tobytes(), head.bias.tobytes())
    return state.statistics.digest, bits, apart.images, apart.thresholds.tobytes()


def now(shop):
    return at(shop, shop._session.store.head_event())


def story(shop, until=99):
    """Events of every kind, as calls; the first `until` of them."""
    given = {label: cluster(label, 12) for label in (*LABELS, "elk")}
    wild = {label: cluster(label, 3, seed=8, spread=2.0) for label in LABELS}
    calls = [
        lambda: shop.learn(
            np.concatenate([given["ant"], given["bee"]]), ["ant"] * 12 + ["bee"] * 12
        ),
        lambda: shop.learn(given["cat"], "cat"),
        lambda: shop.correct(wild["ant"][0], "cat", force=True),
        lambda: shop.learn(given["dog"], "dog"),
        lambda: shop.correct(wild["bee"][0], "dog", exception=True, force=True),
        lambda: shop.protect(labels="ant"),
        lambda: shop.rename("bee", "wasp"),
        lambda: shop.learn(given["elk"], "elk", force=True),
        lambda: shop.undo(2, force=True),
        lambda: shop.gate(regressions=0.5),
        lambda: shop.merge("elk", "dog"),
        lambda: shop.undo(9, force=True),
        lambda: shop.learn(given["bee"][:4], "dog", force=True),
        lambda: shop.undo(7, force=True),
    ]
    for call in calls[:until]:
        call()
    return len(calls[:until])


def test_a_version_is_a_classifier_given_the_same_events(fresh):
    whole = fresh()
    events = story(whole)
    for n in range(1, events + 1):
        twin = fresh()
        story(twin, n)
        assert at(whole, n) == now(twin), n


def test_the_last_version_is_the_state_in_force(fresh):
    shop = fresh()
    n = story(shop)
    assert at(shop, n)[0] == shop.digest
    assert at(shop, n)[1] == fingerprint(shop)[1:]
    with retain.open(shop.path) as again:
        assert at(again, n) == at(shop, n)


def test_a_version_answers(shop):
    given = taught(shop, *LABELS)
    rows = np.concatenate(list(given.values()))
    old = [(p.label, p.probability) for p in shop.predict(rows)]
    shop.learn(cluster("elk", 20), "elk")
    shop.forget(labels="elk", force=True)
    taught(shop, "fox", n=20)
    assert [(p.label, p.probability) for p in shop.predict(rows, version=4)] == old
    assert shop.evaluate(
        rows, [x for x in LABELS for _ in range(8)], version=2
    ).unknown_classes == (
        "cat",
        "dog",
    )


def test_forgetting_removes_it_from_every_version(fresh):
    one, never = fresh(), fresh()
    rows = cluster("ant", 10)
    for shop, kept in ((one, rows), (never, rows[1:])):
        shop.learn(kept, "ant")
        taught(shop, "bee", "cat")
        shop.correct(cluster("bee", 1, seed=4)[0], "cat", force=True)
    image = one.predict(rows[:1])[0].image
    one.forget(image, force=True)
    for event in range(1, 5):
        assert at(one, event) == at(never, event)
    with retain.open(one.path) as again:
        assert at(again, 2) == at(never, 2)


def test_versions_are_listed_with_their_aliases(shop):
    taught(shop, "ant", "bee")
    shop.gate(regressions=0.5)
    shop.promote(2)
    shop.promote(1, "candidate")
    listed = shop.versions()
    assert [v.event for v in listed] == [1, 2]
    assert [v.aliases for v in listed] == [("candidate",), ("production",)]


@pytest.mark.parametrize("version", [99, "99", "nobody", "", -1, "1.5", "٣", "9" * 40])
def test_there_is_no_such_version(shop, version):
    taught(shop, "ant", "bee")
    with pytest.raises(retain.UnknownEvent):
        shop.predict(cluster("ant", 1), version=version)


def test_before_the_first_event_nothing_is_known(shop):
    taught(shop, "ant", "bee")
    with pytest.raises(retain.NothingLearned):
        shop.predict(cluster("ant", 1), version=0)


def test_of_an_adopted_classifier(tmp_path):
    with adopt(tmp_path, reference=pictures(40)) as mine:
        rows = pictures(12, seed=3)
        first = [(p.label, p.top) for p in mine.predict(rows)]
        mine.learn(pictures(8, tint=1), "elk", force=True)
        mine.rename("ant", "formica")
        mine.learn(pictures(8, seed=2, tint=2), "formica", force=True)
        assert [(p.label, p.top) for p in mine.predict(rows, version=1)] == first
        assert [(p.label, p.top) for p in mine.predict(rows, version=0)] == first
        with adopt(tmp_path, "twin", reference=pictures(40)) as twin:
            twin.learn(pictures(8, tint=1), "elk", force=True)
            twin.rename("ant", "formica")
            assert at(mine, 3) == now(twin)


def test_reading_an_old_version_writes_nothing(shop):
    taught(shop, *LABELS)
    row, label = wrong_one(shop, LABELS)
    shop.correct(row, label)
    before = (shop.path / "journal.db").read_bytes()
    shop.predict(row[None], version=3)
    shop.diff(1, 4)
    assert (shop.path / "journal.db").read_bytes() == before
