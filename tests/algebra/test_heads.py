import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid

from retain.algebra import (
    UNTUNED,
    HeadOptions,
    Statistics,
    base_head,
    compare,
    predict_indices,
    quantize,
    to_float,
    tune,
    tuning_sample,
    typicality,
)
from retain.algebra.calibrate import fit_temperature, log_softmax
from retain.algebra.novelty import energy
from retain.algebra.tune import _Problem
from retain.errors import BadOption
from tests.reference import heads as twin

FAMILIES = ("cosine", "discriminant", "ridge", "nearest-mean")


def problem(seed=0, n=40, d=12, classes=4, spread=0.6, counts=None):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, d))
    y = np.repeat(np.arange(classes), counts) if counts else np.arange(n) % classes
    fixed, _ = quantize(centres[y] + spread * rng.normal(size=(len(y), d)) + 1.0)
    labels = [f"c{i}" for i in y]
    return fixed, labels, y


def options(family):
    return HeadOptions(family, priors="empirical" if family == "ridge" else "balanced")


def numbers(shrinkage, temperature=1.0, freedom=0.0):
    return replace(UNTUNED, shrinkage=shrinkage, temperature=temperature, freedom=freedom)


def raw(family, state, shrinkage, queries, freedom=0.0):
    """Raw scores of the package's head: temperature one, and priors taken off again."""
    chosen = options(family)
    head, _ = base_head(state, numbers(shrinkage, freedom=freedom), chosen)
    offsets = np.log(state.counts / state.total) if chosen.priors == "empirical" else 0.0
    return head.logits(queries) - offsets


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shrinkage", [1e-3, 0.3, 30.0])
@pytest.mark.parametrize("counts", [None, [15, 2, 9, 1]])
def test_every_head_is_the_one_of_the_formula(family, shrinkage, counts):
    fixed, labels, y = problem(counts=counts)
    queries, _, _ = problem(seed=1)
    noise, _ = twin.attenuated(to_float(fixed), y, shrinkage)
    freedom = noise * (len(y) - 4)
    ours = raw(family, Statistics.of(fixed, labels), shrinkage, queries, freedom)
    theirs = twin.scores(family, to_float(fixed), y, to_float(queries), shrinkage)
    if family in {"discriminant", "nearest-mean"}:
        # What is quadratic in the picture is common to all classes, and drops out.
        ours, theirs = ours - ours[:, :1], theirs - theirs[:, :1]
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8 * np.abs(theirs).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_left_out_energies_are_those_of_a_head_that_never_saw_the_picture(family):
    """Else every picture would be more familiar than all that are remembered: none unknown."""
    fixed, labels, _ = problem(n=80)
    state, chosen = Statistics.of(fixed, labels), options(family)
    tuning = tune(state, fixed, labels, chosen)
    apart = []
    for i in range(len(fixed)):
        rest = state - Statistics.of(fixed[i : i + 1], labels[i : i + 1])
        apart.append(float(energy(base_head(rest, tuning, chosen)[0].logits(fixed[i]))))
    # Not equal: left out in closed form, the centre and λ are held.
    spread = np.std(apart)
    np.testing.assert_allclose(tuning.energies, np.sort(apart), atol=0.2 * spread)
    known, _, _ = problem(seed=0, n=400)
    noise, _ = quantize(np.random.default_rng(3).normal(size=(400, 12)))
    head, _ = base_head(state, tuning, chosen)
    flagged = [
        float((typicality(energy(head.logits(some)), tuning.energies) < 0.05).mean())
        for some in (known[80:], noise)
    ]
    assert flagged[0] < 0.12
    assert flagged[1] > 0.15


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shrinkage", [1e-4, 0.3, 30.0])
@pytest.mark.parametrize(("counts", "d"), [(None, 12), ([15, 2, 9, 3], 12), ([4, 3, 2, 3], 90)])
def test_leave_one_out_in_closed_form_is_leaving_each_out(family, shrinkage, counts, d):
    fixed, labels, y = problem(counts=counts, d=d)
    state = Statistics.of(fixed, labels)
    ours = _Problem(state, fixed, y, options(family)).scores(shrinkage)
    theirs = twin.left_out(family, to_float(fixed), y, shrinkage, range(len(y)))
    # With more numbers than pictures and hardly any shrinkage, leverages come so near to one that
    # five digits of 1 − bq cancel.
    tolerance = 1e-4 if d > len(y) else 1e-6
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())


def test_what_attenuation_took_is_returned_to_classes_of_few_pictures():
    """Own pictures of a class of one score lower than those of a class of many; less so now."""
    d, own = 100, {True: [], False: []}
    for seed in range(20):
        fixed, labels, y = problem(seed=seed, d=d, counts=[40, 40, 40, 1], spread=1.5)
        asked, _, truth = problem(seed=seed + 1000, d=d, counts=[40, 40, 40, 40], spread=1.5)
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(4, d))
        asked, _ = quantize(
            centres[truth] + 1.5 * np.random.default_rng(seed + 1).normal(size=(160, d)) + 1.0
        )
        state = Statistics.of(fixed, labels)
        noise, _ = twin.attenuated(to_float(fixed), y, 1.0)
        for given in (True, False):
            freedom = noise * (len(y) - 4) if given else 0.0
            scores = raw("cosine", state, 1.0, asked, freedom)
            right = scores.argmax(axis=1) == truth
            own[given].append((right[truth == 3].mean(), right[truth < 3].mean()))
    with_it, without = np.mean(own[True], axis=0), np.mean(own[False], axis=0)
    assert with_it[0] > without[0] + 0.03
    assert with_it[1] > without[1] - 0.02


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("counts", [[20, 2, 10, 8], [1, 1, 300], [5], [7, 7, 7]])
def test_mixed_priors_are_between_and_do_not_take_new_for_rare(family, counts):
    fixed, labels, _ = problem(counts=counts, classes=len(counts))
    state = Statistics.of(fixed, labels)

    def logits(priors):
        head, _ = base_head(state, numbers(0.3, 10.0), HeadOptions(family, priors=priors))
        return head.logits(fixed)

    added = logits("mixed") - logits("balanced")
    assert np.abs(added - twin.expected(counts)).max() < 1e-9 * max(1, np.abs(added).max()) + 1e-9
    rows = added[0]
    assert rows.min() > -np.log(2)
    if len(set(counts)) == 1:
        assert np.array_equal(logits("mixed"), logits("balanced"))
    if 1 in counts:
        assert rows[counts.index(1)] > -np.log(2) / 9


def test_favour_moves_between_few_and_many():
    fixed, labels, _ = problem(counts=[20, 2, 10, 8])
    state = Statistics.of(fixed, labels)
    rare = []
    for favour in (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0):
        head, _ = base_head(state, numbers(0.3, 10.0), HeadOptions(favour=favour))
        logits = head.logits(fixed)
        rare.append((np.exp(log_softmax(logits))[:, 1]).mean())
    assert rare == sorted(rare)
    assert rare[0] < rare[2] < rare[4]


def test_the_discriminant_is_scikit_learns():
    fixed, labels, y = problem(n=200)
    x, state = to_float(fixed), Statistics.of(fixed, labels)
    # With λ = 0 both use the pooled covariance itself.
    peer = LinearDiscriminantAnalysis(priors=[0.25] * 4).fit(x, y)
    head, _ = base_head(state, numbers(1e-12), HeadOptions("discriminant"))
    queries, _, _ = problem(seed=5, n=400)
    assert (predict_indices(head, queries) == peer.predict(to_float(queries))).all()


def test_ridge_is_scikit_learns():
    fixed, labels, y = problem(n=60, counts=[30, 15, 10, 5])
    x, state = to_float(fixed), Statistics.of(fixed, labels)
    scatter = x - x.mean(axis=0)
    alpha = 0.1 * (scatter**2).sum() / x.shape[1]
    peer = Ridge(alpha=alpha).fit(x, np.eye(4)[y])
    np.testing.assert_allclose(
        raw("ridge", state, 0.1, fixed), peer.predict(x), rtol=1e-8, atol=1e-10
    )


def test_nearest_mean_is_scikit_learns():
    fixed, labels, y = problem(n=60)
    head, _ = base_head(Statistics.of(fixed, labels), UNTUNED, HeadOptions("nearest-mean"))
    queries, _, _ = problem(seed=5, n=300)
    peer = NearestCentroid().fit(to_float(fixed), y)
    assert (predict_indices(head, queries) == peer.predict(to_float(queries))).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_members_give_the_same_bits(family):
    fixed, labels, _ = problem(n=60, counts=[20, 5, 30, 5])
    names = [f"image{i}" for i in range(len(labels))]

    def learned(order):
        rows = list(order)
        parts = [rows[:7], rows[7:40], rows[40:]]
        state = Statistics.merge(
            Statistics.of(fixed[part], [labels[i] for i in part]) for part in parts
        )
        chosen = tuning_sample({names[i]: labels[i] for i in rows}, size=30)
        at = [names.index(name) for name in chosen]
        tuning = tune(state, fixed[at], [labels[i] for i in at], HeadOptions(family))
        return tuning, base_head(state, tuning, HeadOptions(family))[0]

    one, other = learned(range(60)), learned(np.random.default_rng(3).permutation(60))
    assert one == other
    assert one[1].weights.tobytes() == other[1].weights.tobytes()


def test_scores_of_many_classes_are_not_all_held_at_once(monkeypatch):
    fixed, labels, _ = problem(n=600, d=16, classes=200)
    state = Statistics.of(fixed, labels)
    found, most = [], []
    for kept in (2**25, 0):
        # By its name in the package one would have the function.
        monkeypatch.setattr(sys.modules["retain.algebra.tune"], "_KEPT", kept, raising=False)
        tracemalloc.start()
        try:
            found.append(tune(state, fixed, labels, HeadOptions()))
            most.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert found[0] == found[1]
    assert most[1] < 15 * 8 * 600 * 200 < most[0]


def test_pictures_that_cannot_be_left_out_do_not_crowd_out_those_that_can():
    many = {f"m{c}-{i}": f"many{c}" for c in range(5) for i in range(30)}
    alone = {f"a{i}": f"alone{i}" for i in range(500)}
    chosen = tuning_sample({**alone, **many}, size=80)
    assert sum(name in many for name in chosen) == 70
    few = {name: many[name] for name in list(many)[:25]}
    assert set(few) <= set(tuning_sample({**alone, **few}, size=80))
    # Where they are few, each is heard as before.
    chosen = tuning_sample({**dict(list(alone.items())[:6]), **many}, size=80)
    assert sum(name in alone for name in chosen) == 6
    assert len(chosen) == 80


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("priors", ["mixed", "balanced", "empirical"])
@pytest.mark.parametrize(
    ("features", "labels"),
    [
        ([[3, 1], [1, 2]], ["a", "a"]),  # one class
        ([[3, 1]], ["a"]),  # one picture
        ([[3, 1], [1, 3]], ["a", "b"]),  # one picture a class
        ([[3, 1], [3, 1], [1, 3], [1, 3]], ["a", "a", "b", "b"]),  # duplicates
        ([[3, 1], [3, 1]], ["a", "b"]),  # the same picture twice, two labels
        ([[1, 1], [1, 1], [1, 1]], ["a", "a", "b"]),  # constant features
        ([[0, 0], [0, 0]], ["a", "b"]),  # no feature at all
        ([[3, 1], [2.9, 1], [1, 3]], ["a", "a", "b"]),
    ],
)
def test_degenerate_states_are_sane(family, priors, features, labels):
    fixed, _ = quantize(features)
    state, chosen = Statistics.of(fixed, labels), HeadOptions(family, priors)
    tuning = tune(state, fixed, labels, chosen)
    head, _ = base_head(state, tuning, chosen)
    logits = head.logits(fixed)
    assert np.isfinite(logits).all()
    assert np.isfinite([tuning.shrinkage, tuning.temperature, tuning.margin]).all()
    if len({tuple(row) for row in features}) == len(set(labels)) > 1:
        answered = [head.classes[i] for i in predict_indices(head, fixed)]
        assert answered == labels


def test_no_class_with_two_pictures_leaves_the_defaults():
    fixed, _, _ = problem(n=3, classes=3)
    state = Statistics.of(fixed, ["a", "b", "c"])
    assert tune(state, fixed, ["a", "b", "c"], HeadOptions()) is UNTUNED


def test_tuning_beats_bad_shrinkage_where_pictures_are_as_many_as_numbers():
    """With constant 1e-4 accuracy collapses where N ≈ d; leave-one-out sees it coming."""
    train, labels, _ = problem(seed=0, n=200, d=200, classes=8, spread=1.5)
    test, truth, _ = problem(seed=0, n=1000, d=200, classes=8, spread=1.5)
    state = Statistics.of(train, labels)
    chosen = tune(state, train, labels, HeadOptions()).shrinkage

    def accuracy(shrinkage):
        head, _ = base_head(state, numbers(shrinkage), HeadOptions())
        return np.mean(
            [head.classes[i] == t for i, t in zip(predict_indices(head, test), truth, strict=True)]
        )

    assert accuracy(chosen) > accuracy(1e-4)
    assert accuracy(chosen) >= max(accuracy(10.0**k) for k in range(-4, 3)) - 0.01


def test_temperature_is_where_the_likelihood_is_greatest():
    rng = np.random.default_rng(0)
    scores, truth = rng.normal(size=(300, 5)), rng.integers(0, 5, 300)
    scores[np.arange(300), truth] += 1.0
    weights, offsets = rng.random(300), rng.normal(size=5)
    weights /= weights.sum()
    smoothing = 1 / 301

    def loss(log_temperature):
        logs = log_softmax(np.exp(log_temperature) * scores + offsets)
        own = logs[np.arange(300), truth]
        return -(weights @ ((1 - smoothing) * own + smoothing * logs.mean(axis=1)))

    peer = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-10})
    temperature, _ = fit_temperature(scores, truth, weights, offsets)
    assert np.log(temperature) == pytest.approx(peer.x, abs=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_temperature_stays_finite_when_everything_is_right(scale):
    scores = scale * np.eye(4)
    temperature, loss = fit_temperature(scores, np.arange(4), np.full(4, 0.25), np.zeros(4))
    assert np.isfinite(temperature)
    assert 0 < loss < np.log(4)


@pytest.mark.parametrize("level", [0.0, -3.7, 1e6])
def test_scores_that_tell_nothing_apart_make_nobody_sure(level):
    rng = np.random.default_rng(0)
    scores = level + 1e-14 * max(abs(level), 1.0) * rng.normal(size=(9, 3))
    temperature, loss = fit_temperature(scores, np.arange(9) % 3, np.full(9, 1 / 9), np.zeros(3))
    assert temperature == pytest.approx(UNTUNED.temperature)
    assert loss == pytest.approx(np.log(3))


def test_many_at_once_are_answered_as_one_by_one():
    fixed, labels, _ = problem(n=300, d=64, classes=9)
    head, _ = base_head(Statistics.of(fixed, labels), numbers(0.3, 20.0), HeadOptions())
    # Near ties: pictures on the boundary between two classes.
    x = to_float(fixed)
    boundary, _ = quantize(x[:100] + x[1:101])
    asked = np.concatenate([fixed, boundary])
    one_by_one = [int(head.logits(row).argmax()) for row in asked]
    assert predict_indices(head, asked).tolist() == one_by_one


def test_typicality_flags_one_in_twenty_of_its_own():
    energies = np.sort(np.random.default_rng(0).normal(size=999))
    assert (typicality(energies, energies) < 0.05).mean() == pytest.approx(0.05, abs=0.003)
    assert typicality(np.array([-100.0]), ()) == 1.0


def test_compare_needs_equal_lengths():
    with pytest.raises(ValueError, match="argument 2"):
        compare(["a"], ["a", "b"], ["a", "b"])


@pytest.mark.parametrize(
    "bad", [{"family": "svm"}, {"priors": "mine"}, {"favour": 2.5}, {"favour": float("nan")}]
)
def test_impossible_options_are_refused(bad):
    with pytest.raises(BadOption):
        HeadOptions(**bad)
