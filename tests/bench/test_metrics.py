"""Every metric against a slow twin written from its paper, and against cases done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retain.bench import metrics as m
from retain.bench.metrics import Track

shares = st.floats(0, 1, allow_nan=False)


# -- by hand -----------------------------------------------------------------------------------

R = [[0.9], [0.6, 0.8], [0.7, 0.5, 1.0]]
HAND = Track([0.9, 0.7, 0.7], R, [0, 1, 2], [1.0, 0.5, 0.25])


def test_by_hand():
    # Forgetting: (max(.9, .6) − .7 + .8 − .5)/2; backward: ((.7 − .9) + (.5 − .8))/2.
    assert m.forgetting(HAND) == pytest.approx((0.2 + 0.3) / 2)
    assert m.backward_transfer(HAND) == pytest.approx((-0.2 - 0.3) / 2)
    assert m.average_incremental_accuracy(HAND.accuracies) == pytest.approx(2.3 / 3)
    joint = [[0.95], [0.9, 0.9], [0.9, 0.9, 0.9]]
    assert m.intransigence(HAND, joint) == pytest.approx((0.05 + 0.1 - 0.1) / 3)


def test_forgetting_and_backward_transfer_differ_where_a_task_got_better_in_between():
    track = Track([], [[0.5], [0.9, 1.0], [0.7, 1.0, 1.0]], [0, 1, 2], [])
    assert m.forgetting(track) == pytest.approx(((0.9 - 0.7) + 0) / 2)
    assert m.backward_transfer(track) == pytest.approx(((0.7 - 0.5) + 0) / 2)


def test_what_cannot_be_had_is_none():
    one = Track([1.0], [[1.0]], [0], [1.0])
    assert m.forgetting(one) is m.backward_transfer(one) is m.forward_transfer(one) is None
    # Classes of later tasks were not known: no forward transfer, rather than minus chance.
    assert m.forward_transfer(HAND) is None
    assert m.average_incremental_accuracy([]) is None
    assert m.intransigence(HAND, []) is None
    nothing = np.array([], dtype=str)
    assert m.accuracy(nothing, nothing) is m.balanced_accuracy(nothing, nothing) is None
    assert m.calibration_error(np.array([], bool), np.array([])) is None
    assert m.negative_log_likelihood(np.array([])) is None
    assert m.auroc(np.array([]), np.array([0.5])) is m.auroc(np.array([0.5]), np.array([])) is None
    assert m.harmonic_mean(None, 0.5) is None
    assert m.recency_bias(np.array(["a"]), np.array(["a"]), ["a"]) is None


def test_the_trap_of_the_mean_over_tasks():
    """Average incremental accuracy is not the mean over tasks after the last one."""
    last = np.mean(R[-1])
    assert m.average_incremental_accuracy(HAND.accuracies) != pytest.approx(last)


def test_forward_transfer_by_hand():
    track = Track([], [[0.9, 0.7, 0.4], [0.9, 0.9, 0.5], [0.9, 0.9, 0.9]], [0, 1, 2], [0.1] * 3)
    assert m.forward_transfer(track) == pytest.approx(((0.7 - 0.1) + (0.5 - 0.1)) / 2)


def test_calibration_error_by_hand():
    # Two bins: (.6, .6667] with one of two right, (.9333, 1] with both right.
    right = np.array([True, False, True, True])
    confidence = np.array([0.61, 0.65, 0.95, 1.0])
    expected = 0.5 * abs(0.5 - 0.63) + 0.5 * abs(1 - 0.975)
    assert m.calibration_error(right, confidence) == pytest.approx(expected)


def test_edges_of_bins_belong_below():
    """(m − 1)/15 < confidence ≤ m/15, as Guo 2017 has it."""
    for k in range(1, 16):
        edge = np.array([k / 15, k / 15 - 1e-9])
        assert m.calibration_error(np.array([True, False]), edge) == pytest.approx(
            abs(0.5 - edge.mean())
        )


def test_a_probability_of_nothing_stays_finite():
    assert m.negative_log_likelihood(np.array([0.0])) == pytest.approx(-math.log(1e-12))


def test_recency_by_hand():
    truth, new = np.array(["a", "a", "b", "b"]), ["b"]
    assert m.recency_bias(truth, np.array(["b", "b", "b", "b"]), new) == 0.5
    assert m.recency_bias(truth, np.array(["b", "a", "a", "b"]), new) == 0.0
    assert m.recency_bias(truth, np.array(["a", "a", "a", "b"]), new) == -0.25


# -- twins -------------------------------------------------------------------------------------


@st.composite
def tracks(draw):
    tasks = draw(st.integers(1, 6))
    waits = draw(st.lists(st.integers(0, 2), min_size=tasks, max_size=tasks))
    learned = [sum(waits[: i + 1]) + i for i in range(tasks)]
    steps = learned[-1] + 1 + draw(st.integers(0, 2))
    cell = st.one_of(shares, st.none())
    matrix = [
        [draw(shares if learned[j] <= i else cell) for j in range(tasks)] for i in range(steps)
    ]
    for i, row in enumerate(matrix):
        known = sum(since <= i for since in learned)
        # Rows may be as short as the tasks so far.
        if all(each is None for each in row[known:]) or draw(st.booleans()):
            del row[known:]
    chance = draw(st.lists(shares, min_size=tasks, max_size=tasks))
    return Track([draw(shares) for _ in range(steps)], matrix, learned, chance)


def cell(matrix, i, j):
    return matrix[i][j] if j < len(matrix[i]) else None


@given(tracks())
@settings(max_examples=200, deadline=None)
def test_metrics_over_tasks_equal_their_definitions(track):
    R, learned, T = track.matrix, track.learned, len(track.matrix)
    lost, back, forward = [], [], []
    for j, since in enumerate(learned):
        if since < T - 1:
            best = R[since][j]
            for i in range(since, T - 1):
                if R[i][j] > best:
                    best = R[i][j]
            lost.append(best - R[T - 1][j])
            back.append(R[T - 1][j] - R[since][j])
        if since > 0 and cell(R, since - 1, j) is not None:
            forward.append(R[since - 1][j] - track.chance[j])
    for found, values in (
        (m.forgetting(track), lost),
        (m.backward_transfer(track), back),
        (m.forward_transfer(track), forward),
        (m.average_incremental_accuracy(track.accuracies), track.accuracies),
    ):
        if values:
            assert found == pytest.approx(sum(values) / len(values), abs=1e-12)
        else:
            assert found is None


@given(tracks(), st.data())
@settings(deadline=None)
def test_intransigence_equals_its_definition(track, data):
    joint = [[data.draw(shares) for _ in row] for row in track.matrix]
    gaps = [joint[s][j] - track.matrix[s][j] for j, s in enumerate(track.learned)]
    assert m.intransigence(track, joint) == pytest.approx(sum(gaps) / len(gaps), abs=1e-12)
    assert m.intransigence(track, track.matrix) == 0


labels = st.lists(st.sampled_from("abc"), min_size=1, max_size=30)


@given(labels, st.data())
@settings(deadline=None)
def test_metrics_over_answers_equal_their_definitions(truth, data):
    n = len(truth)
    draw = st.lists(st.sampled_from("abcd"), min_size=n, max_size=n)
    before, after = data.draw(draw), data.draw(draw)
    t, b, a = np.array(truth), np.array(before), np.array(after)
    hits = [x == y for x, y in zip(truth, after, strict=True)]
    assert m.accuracy(t, a) == pytest.approx(sum(hits) / n)
    per = []
    for label in set(truth):
        mine = [hit for hit, x in zip(hits, truth, strict=True) if x == label]
        per.append(sum(mine) / len(mine))
    assert m.balanced_accuracy(t, a) == pytest.approx(sum(per) / len(per))
    worse = sum(x == y and x != z for x, y, z in zip(truth, before, after, strict=True))
    better = sum(x != y and x == z for x, y, z in zip(truth, before, after, strict=True))
    assert m.flips(t, b, a) == (worse, better)
    if set(truth) - {"c"}:
        old_as_new = sum(x != "c" and z == "c" for x, z in zip(truth, after, strict=True))
        new_as_old = sum(x == "c" and z != "c" for x, z in zip(truth, after, strict=True))
        assert m.recency_bias(t, a, ["c"]) == pytest.approx((old_as_new - new_as_old) / n)


@given(st.lists(st.tuples(st.booleans(), shares), min_size=1, max_size=60))
@settings(deadline=None)
def test_calibration_error_equals_its_definition(pairs):
    right, confidence = zip(*pairs, strict=True)
    total, n = 0.0, len(pairs)
    for k in range(15):
        # Which bin: compared as the definition does, by ceil, since k/15 is no exact number.
        inside = [i for i, c in enumerate(confidence) if max(math.ceil(c * 15), 1) == k + 1]
        if inside:
            share = sum(right[i] for i in inside) / len(inside)
            mean = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / n * abs(share - mean)
    assert m.calibration_error(np.array(right), np.array(confidence)) == pytest.approx(total)


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
@settings(deadline=None)
def test_auroc_equals_counting_pairs(known, unknown):
    wins = sum((k > u) + 0.5 * (k == u) for k in known for u in unknown)
    found = m.auroc(np.array(known, float), np.array(unknown, float))
    assert found == pytest.approx(wins / (len(known) * len(unknown)))


def test_auroc_and_likelihood_equal_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

    random = np.random.default_rng(0)
    known, unknown = random.random(50), random.random(40)
    truth = np.r_[np.ones(50), np.zeros(40)]
    assert m.auroc(known, unknown) == pytest.approx(roc_auc_score(truth, np.r_[known, unknown]))
    chances = random.dirichlet(np.ones(4), 60)
    labels = random.integers(0, 4, 60)
    own = chances[np.arange(60), labels]
    assert m.negative_log_likelihood(own) == pytest.approx(log_loss(labels, chances))
    names = np.array(list("abcd"))
    answers = names[chances.argmax(1)]
    assert m.balanced_accuracy(names[labels], answers) == pytest.approx(
        balanced_accuracy_score(names[labels], answers)
    )
