import numpy as np
import pytest

import retain
from retain.store import erasing
from tests.verbs.conftest import cluster, fingerprint, taught


def everything_on_disk(path):
    return b"\n".join(p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file())


def test_it_is_as_if_it_had_never_been(shop, fresh):
    given = taught(shop, "ant", "bee", "cat")
    image = shop.predict(given["ant"][:1])[0].image
    receipt = shop.forget([image])
    never = fresh()
    never.learn(given["ant"][1:], "ant")
    never.learn(given["bee"], "bee")
    never.learn(given["cat"], "cat")
    assert fingerprint(shop) == fingerprint(never)
    assert (receipt.images, receipt.level, receipt.digest) == (1, "exact", never.digest)
    assert receipt.bytes_erased > 0
    assert shop.verify().ok
    with retain.open(shop.path) as again:
        assert fingerprint(again) == fingerprint(never)


def test_nothing_of_it_is_on_the_disk(shop):
    given = taught(shop, "ant", "bee", "cat", n=30)
    taught(shop, "dog")
    shop.correct(given["ant"][3], "bee")
    sample = shop.show(shop.predict(given["ant"][3:4])[0].image).sample
    data = shop.image(sample.image)
    feature, _ = shop._session.store.feature(sample.image)
    assert data[-40:] in everything_on_disk(shop.path)
    assert feature.tobytes()[:16] in everything_on_disk(shop.path)
    shop.forget([sample.image])
    rest = everything_on_disk(shop.path)
    digest = sample.image.removeprefix("sha256:")
    for trace in (data[-40:], feature.tobytes()[:16], digest.encode(), bytes.fromhex(digest)):
        assert trace not in rest
    assert not list(shop.path.rglob(f"*{digest[:12]}*"))


def test_what_others_read_just_now_is_not_said_to_be_erased(shop, fresh, monkeypatch):
    """The log keeps it as long as a reader may ask for it: the receipt says so, and what then."""
    monkeypatch.setattr(erasing, "_PATIENCE", 0.0)
    given = taught(shop, "ant", "bee")
    sample = shop.show(shop.predict(given["ant"][:1])[0].image).sample
    digest = bytes.fromhex(sample.image.removeprefix("sha256:"))
    with retain.open(shop.path) as other:
        with other._session.store.reading():
            asked = shop.forget([sample.image], dry_run=True)
            assert (asked.level, asked.traces) == ("none", False)
            receipt = shop.forget([sample.image])
            assert digest in everything_on_disk(shop.path)
        assert (receipt.level, receipt.traces, receipt.pending) == ("pending", True, ())
        assert "the next command that changes this classifier erases them" in receipt.summary
        never = fresh()
        never.learn(given["ant"][1:], "ant")
        never.learn(given["bee"], "bee")
        assert fingerprint(shop) == fingerprint(never)
        receipt = shop.forget(labels="bee", force=True)
        assert (receipt.level, receipt.traces) == ("exact", False)
        assert receipt.summary == "forgot 8 pictures for good"
        assert digest not in everything_on_disk(shop.path)


def test_a_class_and_an_event_can_be_forgotten(shop, fresh):
    given = taught(shop, "ant", "bee", "cat", "dog")
    receipt = shop.forget(labels=["bee"], events=[3])
    assert (receipt.images, receipt.gone_classes) == (16, ("bee", "cat"))
    never = fresh()
    never.learn(given["ant"], "ant")
    never.learn(given["dog"], "dog")
    assert fingerprint(shop) == fingerprint(never)


def test_everything_can_be_forgotten(shop):
    taught(shop, "ant", "bee")
    shop.forget(labels=["ant", "bee"])
    assert shop.labels == ()
    assert shop.verify().ok
    taught(shop, "ant")
    assert shop.labels == ("ant",)


def test_a_forgotten_correction_is_as_if_it_had_never_been_made(shop, fresh):
    taught(shop, "ant", "bee", "cat")
    row = cluster("ant", 1, seed=9)[0]
    update = shop.correct(row, "cat")
    shop.forget([update.corrected[0].image])
    never = fresh()
    taught(never, "ant", "bee", "cat")
    assert fingerprint(shop) == fingerprint(never)


def test_a_forgotten_lesson_does_not_leave_its_tuning_behind(shop, fresh):
    """Corrections made before and after a lesson that is forgotten: as if it had not been."""
    rows = {label: cluster(label, 8) for label in ("ant", "bee")}
    extra = cluster("ant", 4, seed=5, spread=3.0)
    fixes = [(cluster("bee", 1, seed=6)[0], "ant"), (cluster("ant", 1, seed=7)[0], "bee")]

    def teach(classifier, with_extra):
        for label, given in rows.items():
            classifier.learn(given, label)
        classifier.correct(*fixes[0])
        if with_extra:
            classifier.learn(extra, "bee")
        classifier.correct(*fixes[1])

    teach(shop, True)
    shop.forget(events=[4])
    never = fresh()
    teach(never, False)
    assert fingerprint(shop) == fingerprint(never)


def test_undone_pictures_can_be_forgotten_too(shop):
    """They are kept for redoing, so they are on the disk, so they can be erased."""
    taught(shop, "ant", "bee")
    rows = cluster("cat", 3)
    image = shop.learn(rows, "cat") and shop.predict(rows[:1])[0].image
    data = shop.image(image)
    shop.undo()
    assert data[-40:] in everything_on_disk(shop.path)
    shop.forget(events=[3])
    assert data[-40:] not in everything_on_disk(shop.path)


def test_forgetting_cannot_be_undone(shop):
    taught(shop, "ant", "bee")
    shop.forget(labels=["bee"])
    with pytest.raises(retain.CannotUndo):
        shop.undo()
    with pytest.raises(retain.CannotUndo):
        shop.undo(3)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({}, retain.InputError),
        ({"images": ["feedbeef"]}, retain.UnknownImage),
        ({"labels": ["unicorn"]}, retain.UnknownClass),
        ({"events": [99]}, retain.UnknownEvent),
    ],
)
def test_what_is_not_there_cannot_be_forgotten(shop, request_, error):
    taught(shop, "ant", "bee")
    before = fingerprint(shop)
    with pytest.raises(error):
        shop.forget(**request_)
    assert fingerprint(shop) == before
    assert len(shop.log()) == 2


def test_a_forgotten_picture_can_be_learned_again(shop):
    given = taught(shop, "ant", "bee")
    before = fingerprint(shop)
    image = shop.predict(given["ant"][:1])[0].image
    shop.forget([image])
    assert shop.learn(given["ant"][:1], "ant").learned == 1
    assert fingerprint(shop) == before


def test_the_journal_does_not_tell_what_was_forgotten(shop):
    given = taught(shop, "ant", "bee")
    rows = np.concatenate([given["ant"][:2]])
    images = [p.image for p in shop.predict(rows)]
    shop.forget(images)
    text = repr(shop.log()) + repr([shop.show(e.event) for e in shop.log()])
    assert not any(image[7:] in text for image in images)
    assert "2 pictures" in shop.log()[-1].summary
