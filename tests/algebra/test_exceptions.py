"""Exceptions against a twin that loops, in the arithmetic of fractions where it matters."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retain.algebra import Exceptions, overridden, quantize

RNG = np.random.default_rng(0)


def members(n, d, *, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    features = np.stack([quantize(x)[0] for x in rng.normal(size=(n, d))])
    labels = [f"c{i}" for i in rng.integers(classes, size=n)]
    return [f"p{i:03}" for i in range(n)], labels, features


def cosine(a, b):
    a, b = [int(v) for v in a], [int(v) for v in b]
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    square = sum(x * x for x in a) * sum(y * y for y in b)
    return float(dot / Fraction(square) ** 0.5) if square else 0.0


def twin(names, labels, features, chosen):
    """Threshold of each, and who answers for whom, one pair at a time."""
    found = []
    for k in sorted(chosen, key=lambda i: names[i]):
        others = [
            cosine(features[i], features[k]) for i in range(len(names)) if labels[i] != labels[k]
        ]
        found.append((names[k], labels[k], (1 + max(others, default=-1.0)) / 2))
    return found


@pytest.mark.parametrize(("n", "d", "k"), [(2, 2, 1), (12, 3, 4), (60, 8, 20), (40, 40, 40)])
def test_thresholds_and_answers_are_the_twins(n, d, k):
    names, labels, features = members(n, d, seed=n)
    chosen = list(np.random.default_rng(1).permutation(n)[:k])
    found = Exceptions.of(names, labels, features, chosen)
    wanted = twin(names, labels, features, chosen)
    assert list(zip(found.images, found.labels, strict=True)) == [w[:2] for w in wanted]
    np.testing.assert_allclose(found.thresholds, [w[2] for w in wanted], atol=1e-12)
    asked = members(50, d, seed=n + 1)[2]
    for x, answer in zip(asked, found.nearest(asked), strict=True):
        reached = [
            (cosine(x, e), -j)
            for j, e in enumerate(found.features)
            if cosine(x, e) > found.thresholds[j]
        ]
        assert answer == (-max(reached)[1] if reached else -1)
        assert found.speaking(x) == (answer if answer >= 0 else None)


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(3, 30))
@settings(deadline=None, max_examples=60)
def test_no_remembered_picture_of_another_class_is_answered_for(seed, d, n):
    names, labels, features = members(n, d, seed=seed)
    # Coarse features, so that twins and near twins of other classes are common.
    features = (features // 4096 * 4096).astype(np.int16)
    found = Exceptions.of(names, labels, features, range(n))
    for label, spoken in zip(labels, found.nearest(features), strict=True):
        assert spoken < 0 or found.labels[spoken] == label


def test_the_very_same_feature_of_another_class_silences_it():
    x = np.array([[16384, 0], [16384, 0], [0, 16384]], np.int16)
    found = Exceptions.of(["a", "b", "c"], ["ant", "bee", "ant"], x, [0])
    assert found.thresholds == [1.0]
    assert found.speaking(x[0]) is None


def test_alone_it_answers_for_half_the_space():
    x = np.array([[16384, 0]], np.int16)
    found = Exceptions.of(["a"], ["ant"], x, [0])
    assert found.thresholds == [0.0]
    assert found.nearest(np.array([[8000, 8000], [-5, 9]], np.int16)).tolist() == [0, -1]


def test_a_feature_of_nothing_is_nobodys_neighbour():
    zero = np.zeros((1, 2), np.int16)
    found = Exceptions.of(["a", "b"], ["ant", "bee"], np.array([[9, 1], [1, 9]], np.int16), [0])
    assert found.nearest(zero).tolist() == [-1]


def test_the_order_of_members_does_not_matter():
    names, labels, features = members(30, 5)
    chosen = [3, 7, 9, 11]
    first = Exceptions.of(names, labels, features, chosen)
    order = RNG.permutation(30)
    again = Exceptions.of(
        [names[i] for i in order],
        [labels[i] for i in order],
        features[order],
        [int(np.flatnonzero(order == i)[0]) for i in chosen],
    )
    assert first.images == again.images
    assert first.thresholds.tobytes() == again.thresholds.tobytes()
    assert first.features.tobytes() == again.features.tobytes()


def test_none():
    assert len(Exceptions.of([], [], np.zeros((0, 3), np.int16), [])) == 0
    assert Exceptions().nearest(np.ones((4, 3), np.int16)).tolist() == [-1] * 4


def test_more_members_than_a_block(monkeypatch):
    import retain.algebra.exceptions as module

    names, labels, features = members(40, 4)
    whole = Exceptions.of(names, labels, features, [1, 2, 30])
    answers = whole.nearest(features)
    monkeypatch.setattr(module, "_BLOCK", 7)
    parts = Exceptions.of(names, labels, features, [1, 2, 30])
    assert whole.thresholds.tobytes() == parts.thresholds.tobytes()
    assert answers.tolist() == parts.nearest(features).tolist()


@pytest.mark.parametrize("target", [0, 1, 2])
def test_lifting_a_class_moves_no_other(target):
    logits = np.array([3.0, 2.0, -1.0])
    lifted = overridden(logits, target, 0.5)
    others = [i for i in range(3) if i != target]
    assert (lifted[others] == logits[others]).all()
    assert lifted[target] == max(logits[target], logits[others].max() + 0.5)
    assert overridden(np.array([1.0]), 0, 0.5) == [1.0]
