"""Who judges, and that left out means left out: against classifiers made without the picture."""

from dataclasses import replace

import numpy as np
import pytest

import retain
from retain.algebra import (
    UNTUNED,
    HeadOptions,
    Statistics,
    base_head,
    to_float,
    tuning_sample,
)
from retain.gate import paired
from retain.jury import Judged, Jury, Products, judged
from retain.pairing import Pairs
from retain.solving import chosen
from tests.algebra.test_heads import problem
from tests.verbs.conftest import cluster, fresh, shop, taught, wrong_one  # noqa: F401

LABELS = ("ant", "bee", "cat")


def said(shop):  # noqa: F811
    return everyone(shop, shop._session.judged(shop._session.state))


def everyone(shop, found):  # noqa: F811
    """What is said of all members: left out where that can be, as `predict` answers else."""
    state = shop._session.state
    answers = dict(zip((s.image for s in state.samples), state.answers, strict=False))
    return Judged({**answers, **found.answers}, found.losses, found.scores)


@pytest.mark.parametrize("head", ["cosine", "discriminant", "ridge", "nearest-mean"])
def test_every_member_is_left_out(fresh, head):  # noqa: F811
    shop = fresh(head=head)  # noqa: F811
    for label in LABELS:
        shop.learn(cluster(label, 12, spread=2.0), label, force=True)
    found = said(shop)
    assert set(found.losses) == set(found.answers) == {s.image for s in shop.samples()}
    truth = {s.image: s.label for s in shop.samples()}
    state = shop._session.state
    inside = dict(zip((s.image for s in state.samples), state.answers, strict=True))
    right_inside = sum(inside[i] == truth[i] for i in truth)
    right_outside = sum(found.answers[i] == truth[i] for i in truth)
    assert right_outside < right_inside
    assert all(loss > 0 for loss in found.losses.values())


def test_without_it_means_without_it(fresh):  # noqa: F811
    """Nearest-mean has no scatter: leaving out is what forgetting leaves, but scale and priors."""
    shop, other = (fresh(head="nearest-mean", priors="balanced") for _ in range(2))  # noqa: F811
    for one in (shop, other):
        for label in LABELS:
            one.learn(cluster(label, 9, spread=2.0), label, force=True)
    found = said(shop)
    rows = np.concatenate([cluster(label, 9, spread=2.0) for label in LABELS])
    images = [p.image for p in shop.predict(rows)]
    for row, image in list(zip(rows, images, strict=True))[::3]:
        event = other.forget(image, force=True).event
        assert event
        assert other.predict(row[None])[0].label == found.answers[image]
        label = next(s.label for s in shop.samples() if s.image == image)
        other.learn(row[None], label, force=True)


def test_a_corrected_picture_is_judged_as_it_is_answered(shop):  # noqa: F811
    taught(shop, *LABELS, n=15)
    row, label = wrong_one(shop, LABELS)
    shop.correct(row, label)
    image = shop.predict(row[None])[0].image
    found = said(shop)
    assert image not in found.losses
    assert found.answers[image] == label


def test_the_only_one_of_a_class_cannot_be_left_out(shop):  # noqa: F811
    taught(shop, *LABELS, n=10)
    shop.learn(cluster("elk", 1), "elk", force=True)
    (elk,) = [s.image for s in shop.samples() if s.label == "elk"]
    found = said(shop)
    assert elk not in found.losses
    assert found.answers[elk] == "elk"


def test_one_class_and_none(shop):  # noqa: F811
    assert said(shop).answers == {}
    taught(shop, "ant")
    assert set(said(shop).answers.values()) == {"ant"}
    assert said(shop).losses == {}


def test_it_follows_every_event(shop):  # noqa: F811
    """What is kept of an earlier jury never judges a later state."""
    taught(shop, *LABELS, n=10)
    row, label = wrong_one(shop, LABELS)
    calls = [
        lambda: shop.correct(row, label),
        lambda: shop.forget(shop.samples()[0].image, force=True),
        lambda: shop.rename("ant", "mite"),
        lambda: shop.learn(cluster("elk", 9), "elk", force=True),
        lambda: shop.protect(labels="elk"),
        lambda: shop.undo(4),
    ]
    for call in calls:
        call()
        session = shop._session
        options = HeadOptions.from_dict(session.store.manifest.options)
        assert session.state.jurors == chosen(session.store.plan().lesson)
        anew = everyone(shop, judged(session.state, Jury.of(session.state, options), options))
        kept = said(shop)
        assert kept.answers == anew.answers
        assert kept.losses == anew.losses


def test_pictures_are_left_out_of_both_states_or_of_neither(fresh, monkeypatch):  # noqa: F811
    """Where a lesson or a forgetting replaces jurors, those of one state are no measure."""
    monkeypatch.setattr("retain.solving.tuning_sample", lambda members: tuning_sample(members, 40))
    shop = fresh()  # noqa: F811
    shop.gate(regressions=1.0, class_regressions=1.0, calibration=99.0)
    for label in LABELS:
        shop.learn(cluster(label, 40, spread=2.0), label, force=True)
    session = shop._session
    before = session.state
    shop.forget([s.image for s in shop.samples()][::2])
    after = session.state
    said = old, new = session.judged(before), session.judged(after)
    one = old.answers.keys() ^ new.answers.keys()
    assert len(one & {s.image for s in after.samples}) > 10
    lost = gained = 0
    for sample, now in zip(after.samples, after.answers, strict=True):
        was = before.answers[before.rows[sample.image]]
        if sample.image in old.answers.keys() & new.answers.keys():
            was, now = old.answers[sample.image], new.answers[sample.image]
        lost += was == sample.label != now
        gained += was != sample.label == now
    assert paired(Pairs.of(before, after), said) == (lost, gained, len(after.samples))


def test_who_is_warm_need_not_work_out_the_jury_with_the_first_change(fresh, monkeypatch):  # noqa: F811
    shop = fresh()  # noqa: F811
    shop.warm()  # nothing is known, so there is nothing to do
    for label in LABELS:
        shop.learn(cluster(label, 12, spread=2.0), label, force=True)
    with retain.open(shop.path) as other:
        made, real = [], Jury.of
        monkeypatch.setattr(Jury, "of", lambda *given: made.append(1) or real(*given))
        other.warm()
        assert len(made) == 1
        other.correct(cluster("ant", 1, seed=9)[0], "bee", force=True, dry_run=True)
        assert len(made) == 1


@pytest.mark.parametrize("family", ["cosine", "discriminant", "ridge", "nearest-mean"])
def test_products_are_the_same_whatever_was_asked_before(family):
    """And are those that they are called, where nothing is kept."""
    fixed, _, y = problem(n=60)
    state = Statistics.of(fixed, [f"c{i}" for i in y])
    options = HeadOptions(family)
    _, solver = base_head(state, replace(UNTUNED, shrinkage=0.3), options)
    x, kept = to_float(fixed), Products(solver.factor, fixed, options)
    chance = np.random.default_rng(0)
    means = chance.normal(size=(21, x.shape[1]))
    for turn in range(12):
        some = chance.permutation(60)[:40]
        means = means.copy()
        means[chance.integers(17, size=turn % 3)] += 0.1
        if turn == 6:
            means = means[:17]
        anew = Products(solver.factor, fixed, options).of(means, some)
        for ours, theirs in zip(kept.of(means, some), anew, strict=True):
            assert (ours == theirs).all()
        held = np.eye(x.shape[1])
        whole = held if family == "nearest-mean" else solver.apply(held)
        about = x[some] - kept.point
        np.testing.assert_allclose(
            anew[1], about @ whole @ (means - kept.point).T, rtol=1e-9, atol=1e-9
        )


def test_a_state_is_judged_once_though_every_change_is_compared_with_it(shop, monkeypatch):  # noqa: F811
    """What was the candidate of one change is what the next one is compared with."""
    taught(shop, *LABELS, n=12)
    asked = []

    def counted(state, jury, options):
        asked.append(state)
        return judged(state, jury, options)

    monkeypatch.setattr("retain.session.judged", counted)
    for seed in range(3):
        shop.correct(cluster("ant", 1, seed=50 + seed)[0], "ant", force=True)
        shop.correct(cluster("bee", 1, seed=60 + seed)[0], "bee", force=True)
    assert len(asked) == 6
