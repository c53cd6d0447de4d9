"""The laws of the sum, with `==`."""

import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retain.algebra import SCALE, Statistics
from retain.algebra.fixed import EXACT_COUNT

LABELS = ("cat", "dog", "ant", "a/b\n☃")


@st.composite
def batches(draw, least=0, most=12, dimension=5):
    n = draw(st.integers(least, most))
    rows = draw(
        st.lists(
            st.lists(st.integers(-SCALE, SCALE), min_size=dimension, max_size=dimension),
            min_size=n,
            max_size=n,
        )
    )
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=n, max_size=n))
    return np.array(rows, dtype=np.int16).reshape(n, dimension), labels


def of(batch):
    return Statistics.of(*batch)


def naive(features, labels):
    """A twin in Python integers, which are exact whatever happens."""
    second = [[0] * features.shape[1] for _ in range(features.shape[1])]
    sums, counts = {}, {}
    for row, label in zip(features.tolist(), labels, strict=True):
        counts[label] = counts.get(label, 0) + 1
        total = sums.setdefault(label, [0] * len(row))
        for i, a in enumerate(row):
            total[i] += a
            for j, b in enumerate(row):
                second[i][j] += a * b
    return counts, sums, second


@given(batches())
def test_the_sums_are_those_of_python_integers(batch):
    state = of(batch)
    counts, sums, second = naive(*batch)
    assert dict(zip(state.classes, state.counts.tolist(), strict=True)) == counts
    assert dict(zip(state.classes, state.sums.tolist(), strict=True)) == sums
    assert state.second.tolist() == second


@given(batches(), batches(), batches())
def test_addition_is_commutative_associative_and_has_an_inverse(a, b, c):
    a, b, c = of(a), of(b), of(c)
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert (a + b) - b == a
    assert a + Statistics.empty(5) == a
    assert a - a == Statistics.empty(5)
    assert Statistics.merge([a, b, c]).digest == (c + a + b).digest


@given(batches(least=1), st.randoms(use_true_random=False))
def test_order_and_batches_do_not_matter(batch, random):
    features, labels = batch
    order = list(range(len(labels)))
    random.shuffle(order)
    cut = random.randint(0, len(order))
    parts = [order[:cut], order[cut:]]
    total = Statistics.merge(
        Statistics.of(features[part], [labels[i] for i in part]) for part in parts
    )
    assert total == of(batch)
    assert total.digest == of(batch).digest


@given(batches(least=1), st.data())
def test_relabelling_equals_having_learned_it_so(batch, data):
    features, labels = batch
    chosen = data.draw(st.lists(st.integers(0, len(labels) - 1), unique=True))
    new = [data.draw(st.sampled_from(LABELS)) for _ in chosen]
    moved = list(labels)
    for i, label in zip(chosen, new, strict=True):
        moved[i] = label
    relabelled = of(batch).relabel(features[chosen], [labels[i] for i in chosen], new)
    assert relabelled == Statistics.of(features, moved)


def test_relabelling_makes_nothing_as_large_as_the_second_moment():
    features = np.random.default_rng(0).integers(-99, 99, (3, 1500)).astype(np.int16)
    state = Statistics.of(features, ["cat", "cat", "dog"])
    tracemalloc.start()
    try:
        moved = state.relabel(features[:2], ["cat", "cat"], ["dog", "ant"])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert moved == Statistics.of(features, ["dog", "ant", "dog"])
    assert most < state.second.nbytes / 10


@given(batches(least=1))
def test_renaming_and_merging_classes_equal_having_learned_them_so(batch):
    features, labels = batch
    names = {"cat": "lion", "dog": "ant"}
    renamed = of(batch).rename(names)
    assert renamed == Statistics.of(features, [names.get(label, label) for label in labels])


@given(batches(), batches())
def test_digests_differ_where_states_do(a, b):
    a, b = of(a), of(b)
    assert (a.digest == b.digest) == (a == b)


def test_the_digest_is_the_one_written_down():
    """It must hold across machines and releases, so its recipe stands here a second time."""
    state = Statistics.of(np.array([[1, -2], [3, 4]], dtype=np.int16), ["é", "b"])
    expected = hashlib.sha256(b"retain statistics 1\n")
    for number in (2, 2):
        expected.update(number.to_bytes(8, "little", signed=True))
    for label in (b"b", "é".encode()):
        expected.update(len(label).to_bytes(8, "little") + label)
    for number in (1, 1, 3, 4, 1, -2, 10, 10, 10, 20):
        expected.update(number.to_bytes(8, "little", signed=True))
    assert state.digest == "sha256:" + expected.hexdigest()


def test_taking_away_what_was_never_there_is_refused():
    one = Statistics.of(np.array([[1, 2]], dtype=np.int16), ["a"])
    other = Statistics.of(np.array([[2, 1]], dtype=np.int16), ["a"])
    with pytest.raises(ValueError, match="never in the sum"):
        one - other
    with pytest.raises(ValueError, match="cannot take away more pictures of 'b'"):
        one - Statistics.of(np.array([[1, 2]], dtype=np.int16), ["b"])


def test_past_the_exact_range_of_float64_sums_go_on_in_int64():
    top = np.full((1, 2), SCALE, dtype=np.int16)
    one = Statistics.of(top, ["a"])
    half = EXACT_COUNT // 2 + 1
    many = Statistics(("a",), one.counts * half, one.sums * half, one.second * float(half))
    total = many + many + one
    assert total.second.dtype == np.int64
    assert total.second[0, 0] == (2 * half + 1) * SCALE * SCALE
    assert total.second[0, 0] > 2**53
    back = total - many
    assert back.second.dtype == np.float64
    assert back == many + one


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="quantize them first"):
        Statistics.of(np.ones((1, 2)), ["a"])
    with pytest.raises(ValueError, match="do not match 2 labels"):
        Statistics.of(np.ones((1, 2), dtype=np.int16), ["a", "b"])
    with pytest.raises(ValueError, match="do not add up"):
        Statistics.empty(2) + Statistics.empty(3)
    with pytest.raises(ValueError, match="nothing to merge"):
        Statistics.merge([])
