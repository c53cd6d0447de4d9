"""Exceptions in a living classifier: what they leave alone, and what they follow."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import retain
from tests.verbs.conftest import cluster, fingerprint, taught

LABELS = ("ant", "bee", "cat", "dog")


def apart(shop):
    found = shop._session.mind.exceptions
    return found.images, found.labels, found.thresholds.tobytes()


@pytest.fixture
def shop_with_one(shop):
    taught(shop, *LABELS, n=15)
    row = cluster("ant", 1, seed=30)[0]
    assert shop.correct(row, "dog", exception=True).corrected[0].exception
    return shop, row


def test_its_reach_shrinks_when_others_come_nearer(shop_with_one):
    shop, row = shop_with_one
    before = shop._session.mind.exceptions.thresholds[0]
    near = row + 0.1 * cluster("noise", 5)
    shop.learn(near.astype(np.float32), "bee", force=True)
    after = shop._session.mind.exceptions.thresholds[0]
    assert after > before
    assert shop.predict(row[None])[0].label == "dog"
    assert {p.label for p in shop.predict(near)} != {"dog"}
    shop.undo()
    assert shop._session.mind.exceptions.thresholds[0] == before


def test_it_is_there_after_reopening(shop_with_one):
    shop, row = shop_with_one
    with retain.open(shop.path) as again:
        assert apart(again) == apart(shop)
        (shop.path / "versions" / "head.safetensors").unlink()
    with retain.open(shop.path) as again:
        assert apart(again) == apart(shop)
        assert again.predict(row[None])[0].label == "dog"
        assert again.verify().ok


def test_undone_and_redone(shop_with_one):
    shop, row = shop_with_one
    before, head = apart(shop), fingerprint(shop)
    event = shop.undo().event
    assert apart(shop)[0] == ()
    assert shop.predict(row[None])[0].label == "ant"
    shop.undo(event)
    assert (apart(shop), fingerprint(shop)) == (before, head)


def test_forgotten_it_never_was(shop_with_one, fresh):
    shop, row = shop_with_one
    shop.forget(shop.predict(row[None])[0].image)
    never = fresh()
    taught(never, *LABELS, n=15)
    assert fingerprint(shop) == fingerprint(never)
    assert apart(shop)[0] == ()


def test_renamed_and_merged_it_follows(shop_with_one):
    shop, row = shop_with_one
    shop.rename("dog", "wolf")
    assert shop.predict(row[None])[0].label == "wolf"
    narrow = shop._session.mind.exceptions.thresholds[0]
    shop.merge("ant", "wolf")
    assert shop._session.mind.exceptions.thresholds[0] <= narrow
    assert shop.verify().ok


def test_a_changed_mind_replaces_it(shop_with_one):
    shop, row = shop_with_one
    assert shop.correct(row, "cat", replace=True, exception=True).fixed
    assert apart(shop)[1] == ("cat",)
    shop.correct(row, "ant", replace=True)
    assert shop.predict(row[None])[0].label == "ant"


def test_two_of_the_same_look_cannot_be_two_things(shop_with_one):
    shop, row = shop_with_one
    events = len(shop.log())
    with pytest.raises(retain.Refused):
        shop.correct(2 * row, "cat", exception=True)
    assert len(shop.log()) == events


def test_whatever_is_corrected_apart_nothing_else_is_answered_for(shop):
    """None of the remembered pictures of another class, for thirty exceptions in a row."""
    taught(shop, *LABELS, n=15)
    rows = np.concatenate([cluster(label, 8, seed=31, spread=1.2) for label in LABELS])
    for k, row in enumerate(rows[:30]):
        try:
            shop.correct(row, LABELS[(k * 7) % 4], exception=True, force=True)
        except retain.Refused:
            continue
        state, mind = shop._session.state, shop._session.mind
        for sample, spoken in zip(
            state.samples, mind.exceptions.nearest(state.features), strict=True
        ):
            assert spoken < 0 or mind.exceptions.labels[spoken] == sample.label
    assert len(shop._session.mind.exceptions) > 20
    assert shop.verify().ok


def test_verify_notices_a_cached_reach_that_was_changed(shop_with_one):
    shop, _ = shop_with_one
    path = shop.path / "versions" / "head.safetensors"
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        meta = file.metadata()
    arrays = load_file(path)
    arrays["thresholds"] = arrays["thresholds"] - 0.5
    save_file(arrays, path, meta)
    assert json.loads(meta["mind"])["exceptions"]
    with retain.open(shop.path) as again:
        found = again.verify()
        assert not found.ok
        assert "exceptions" in found.problems[0]
