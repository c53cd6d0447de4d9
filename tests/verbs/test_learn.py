import numpy as np
import pytest

import retain
from tests.verbs.conftest import D, cluster, fingerprint, taught


def test_unseen_labels_become_classes(shop):
    update = shop.learn(cluster("mug", 5), "mug")
    assert (update.learned, update.new_classes, update.event) == (5, ("mug",), 1)
    update = shop.learn(
        np.concatenate([cluster("cup", 4), cluster("jug", 3)]), ["cup"] * 4 + ["jug"] * 3
    )
    assert (update.learned, update.new_classes) == (7, ("cup", "jug"))
    assert shop.labels == ("cup", "jug", "mug")


@pytest.mark.parametrize("head", ["cosine", "discriminant", "ridge", "nearest-mean"])
def test_class_by_class_in_any_order_is_all_at_once(fresh, head):
    labels = ["ant", "bee", "cat", "dog"]
    rows = {label: cluster(label, 6) for label in labels}
    joint = fresh(head=head)
    joint.learn(np.concatenate(list(rows.values())), [label for label in labels for _ in range(6)])
    for order in (labels, labels[::-1], ["cat", "ant", "dog", "bee"]):
        steps = fresh(head=head)
        for label in order:
            for part in (rows[label][:2], rows[label][2:]):
                steps.learn(part, label)
        assert fingerprint(steps) == fingerprint(joint)


def test_a_known_picture_with_the_same_label_is_a_no_op_that_says_so(shop):
    rows = cluster("mug", 5)
    shop.learn(rows, "mug")
    before, events = fingerprint(shop), len(shop.log())
    update = shop.learn(rows, "mug")
    assert (update.event, update.learned, update.known) == (None, 0, 5)
    assert "known already" in update.summary
    assert (fingerprint(shop), len(shop.log())) == (before, events)


def test_a_known_picture_with_another_label_is_relabelled(shop, fresh):
    given = taught(shop, "mug", "cup")
    update = shop.learn(given["mug"][:3], "cup")
    assert (update.learned, update.relabelled, update.known) == (0, 3, 0)
    told = fresh()
    told.learn(given["mug"][3:], "mug")
    told.learn(np.concatenate([given["cup"], given["mug"][:3]]), "cup")
    assert fingerprint(shop) == fingerprint(told)


def test_relabelling_the_last_picture_ends_a_class(shop):
    row = cluster("odd", 1)
    taught(shop, "mug", "cup")
    shop.learn(row, "odd")
    update = shop.learn(row, "mug")
    assert update.gone_classes == ("odd",)
    assert shop.labels == ("cup", "mug")


def test_several_classes_are_not_made_one_new_class_unasked(shop):
    given = taught(shop, "mug", "cup", "jug")
    everything = np.concatenate([given["mug"], given["cup"]])
    with pytest.raises(retain.GateRefused, match="classes would be gone") as refused:
        shop.learn(everything, "vessel")
    assert "all 16 pictures of 'cup', 'mug' are given as 'vessel'" in str(refused.value)
    assert shop.labels == ("cup", "jug", "mug")
    assert not shop.learn(everything, "vessel", dry_run=True).verdict.passed
    # Other names for as many classes, and a part of each, are what somebody may want.
    assert shop.learn(everything, ["Mug"] * 8 + ["Cup"] * 8, dry_run=True).verdict.passed
    assert shop.learn(everything[:-1], "vessel", dry_run=True).verdict.passed
    update = shop.learn(everything, "vessel", force=True)
    assert update.gone_classes == ("cup", "mug")
    assert shop.labels == ("jug", "vessel")


def test_the_same_picture_twice_in_one_lesson(shop):
    row = cluster("mug", 1)
    update = shop.learn(np.concatenate([row, row]), ["mug", "mug"])
    assert (update.learned, update.known) == (1, 1)
    update = shop.learn(np.concatenate([cluster("cup", 1)] * 2), ["cup", "jug"])
    assert (update.learned, len(update.skipped)) == (1, 1)
    assert "also given as 'cup'" in update.skipped[0].reason


def test_a_corrected_picture_is_not_overruled_by_a_lesson(shop):
    given = taught(shop, "mug", "cup")
    shop.correct(given["mug"][0], "cup")
    update = shop.learn(given["mug"], "mug")
    assert update.known == 7
    assert "corrected to 'cup'" in update.skipped[0].reason
    assert shop.predict(given["mug"][:1])[0].label == "cup"


@pytest.mark.parametrize(
    "label", ["a/b", 'it\'s "quoted"', "two\nlines", "😀", "日本語", "x" * 1000, "--strict", "é"]
)
def test_labels_are_kept_as_they_are(shop, label):
    shop.learn(cluster("mug", 3), label)
    shop.learn(cluster("cup", 3), "cup")
    assert label in shop.labels
    path = shop.path
    shop.close()
    with retain.open(path) as again:
        assert {info.label for info in again.classes()} == {label, "cup"}
        assert again.predict(cluster("mug", 1))[0].label == label


def test_labels_have_one_form(shop):
    shop.learn(cluster("cafe", 2), "cafe\u0301 ")
    shop.learn(cluster("cafe", 2, seed=1), "caf\u00e9")
    assert shop.labels == ("caf\u00e9",)


@pytest.mark.parametrize("label", ["", "  ", "x" * 10_000, "\ud800", "a\0b", 7, None])
def test_impossible_labels_are_refused_and_nothing_is_learned(shop, label):
    with pytest.raises(retain.InputError):
        shop.learn(cluster("mug", 2), ["mug", label])
    assert shop.log() == []
    assert shop.verify().ok


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((2, D + 1), np.float32),
        np.full((2, D), np.nan, np.float32),
        np.full((2, D), np.inf, np.float32),
        np.zeros((0, D), np.float32),
    ],
)
def test_impossible_vectors_are_refused(shop, rows):
    with pytest.raises(retain.InputError):
        shop.learn(rows, ["mug"] * len(rows))
    assert shop.log() == []


def test_strict_refuses_everything_when_one_cannot_be_used(shop):
    rows = cluster("mug", 3)
    rows[1] = np.nan
    update = shop.learn(rows, "mug")
    assert (update.learned, len(update.skipped)) == (2, 1)
    with pytest.raises(retain.InputError, match="nothing was learned"):
        shop.learn(np.concatenate([cluster("cup", 2), rows[1:2]]), "cup", strict=True)
    assert shop.labels == ("mug",)


def test_what_else_changed_is_listed(shop):
    given = taught(shop, "mug", "cup", n=10)
    before = {p.image: p.label for p in shop.predict(np.concatenate(list(given.values())))}
    update = shop.learn(cluster("mug", 30, seed=4, spread=3.0), "cup", force=True)
    after = {p.image: p.label for p in shop.predict(np.concatenate(list(given.values())))}
    truth = {s.image: s.label for s in shop.samples()}
    changed = {image for image in before if before[image] != after[image]}
    assert {c.image for c in (*update.worse, *update.better, *update.changed)} == changed
    for change in update.worse:
        assert change.before == truth[change.image] != change.after == after[change.image]
    for change in update.better:
        assert change.after == truth[change.image] != change.before


def test_a_number_of_options_reach_the_head(fresh):
    """Balanced and empirical priors must differ on an unbalanced set, and only there."""
    rows = np.concatenate([cluster("ant", 40), cluster("bee", 4)])
    labels = ["ant"] * 40 + ["bee"] * 4
    balanced, empirical = fresh(), fresh(priors="empirical")
    for each in (balanced, empirical):
        each.learn(rows, labels)
    middle = (cluster("ant", 50, seed=3).mean(axis=0) + cluster("bee", 50, seed=3).mean(axis=0)) / 2
    share = [
        next(s.probability for s in each.predict(middle[None])[0].top if s.label == "ant")
        for each in (balanced, empirical)
    ]
    assert share[1] > share[0]


def test_nothing_of_a_refused_lesson_stays(shop):
    taught(shop, "mug", "cup", n=20)
    before, kept = fingerprint(shop), shop._session.store.known()
    with pytest.raises(retain.GateRefused, match="labels are probably wrong"):
        shop.learn(cluster("mug", 30, seed=4), "cup")
    assert fingerprint(shop) == before
    assert shop._session.store.known() == kept
    assert [event.kind for event in shop.log()] == ["learn", "learn"]
    files = {file.name for file in (shop.path / "blobs").rglob("*") if file.is_file()}
    assert len(files) == len(kept)


def told_to_stop(error):
    """A progress that raises when all is read."""

    def progress(done, total):
        if done == total:
            raise error

    return progress


FAILURES = {
    "strict": lambda shop, rows: shop.learn(
        np.concatenate([rows, np.full((1, D), np.nan, np.float32)]), "jug", strict=True
    ),
    "label": lambda shop, rows: shop.learn(rows, ["jug"] * (len(rows) - 1) + ["\0"]),
    "own": lambda shop, rows: shop.learn(
        rows, "jug", progress=told_to_stop(ZeroDivisionError("no picture"))
    ),
}


@pytest.mark.parametrize("how", FAILURES)
def test_nothing_of_a_failed_lesson_stays(shop, how):
    """Whatever it failed of: its pictures could not be named, so not be forgotten either."""
    taught(shop, "mug", "cup")
    before, kept = fingerprint(shop), shop._session.store.known()
    rows = cluster("jug", 140)  # more than are put aside at once
    with pytest.raises((retain.InputError, ZeroDivisionError)):
        FAILURES[how](shop, rows)
    assert fingerprint(shop) == before
    assert shop._session.store.known() == kept
    files = [file for file in (shop.path / "blobs").rglob("*") if file.is_file()]
    assert len(files) == len(kept)
    assert shop.verify().notes == ()
    assert shop.learn(rows, "jug").learned == 140


def test_what_an_interrupted_lesson_put_aside_outlives_a_mistyped_one(shop):
    """It goes with the next lesson that is read, or is learned by it."""
    taught(shop, "mug", "cup")
    kept = shop._session.store.known()
    rows = cluster("jug", 140)
    with pytest.raises(KeyboardInterrupt, match="128 of 140 pictures are prepared"):
        shop.learn(rows, "jug", progress=told_to_stop(KeyboardInterrupt()))
    assert len(shop._session.store.known()) == len(kept) + 128
    with pytest.raises(retain.InputError):
        shop.learn(shop.path / "nowhere")
    with pytest.raises(retain.InputError, match="empty"):
        shop.learn(rows, "", dry_run=True)
    assert len(shop._session.store.known()) == len(kept) + 128
    with pytest.raises(retain.InputError, match="nothing was learned"):
        FAILURES["strict"](shop, rows)
    assert shop._session.store.known() == kept
