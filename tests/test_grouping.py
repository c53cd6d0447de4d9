"""Groups and coverage, beside slow twins written from the definitions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retain.algebra import Statistics, quantize
from retain.algebra.whitening import Factor, Moments, Solver
from retain.grouping import cover, gather, whitened


def heaps(sizes, *, seed=0, apart=6.0, d=5):
    random = np.random.default_rng(seed)
    centres = apart * random.normal(size=(len(sizes), d))
    points = np.vstack(
        [c + random.normal(size=(n, d)) for c, n in zip(centres, sizes, strict=True)]
    )
    return points, np.repeat(np.arange(len(sizes)), sizes)


def same_groups(a, b):
    return {frozenset(np.flatnonzero(a == k)) for k in set(a)} == {
        frozenset(np.flatnonzero(b == k)) for k in set(b)
    }


@pytest.mark.parametrize("sizes", [(12, 9), (20, 5, 14), (7, 7, 7, 7)])
@pytest.mark.parametrize("seed", range(4))
def test_heaps_that_lie_apart_are_found(sizes, seed):
    points, truth = heaps(sizes, seed=seed, apart=12.0)
    assert same_groups(gather(points), truth)
    assert same_groups(gather(points, len(sizes)), truth)


def test_one_heap_is_one_group():
    points, _ = heaps((40,), d=30)
    assert set(gather(points)) == {0}


@pytest.mark.parametrize("n", range(5))
def test_few_points(n):
    points = np.arange(n, dtype=np.float64)[:, None] ** 3
    assert len(gather(points)) == n
    assert len(gather(points, 3)) == n
    assert len(cover(points, 3)[0]) == min(n, 3)


def test_groups_do_not_depend_on_order():
    points, _ = heaps((9, 8, 11), seed=5)
    order = np.random.default_rng(1).permutation(len(points))
    assert same_groups(gather(points)[order], gather(points[order]))


def loss(points, chosen, taught):
    """The sum of squared distances to what stands nearest; the farthest pair and one for none."""
    farthest = max(((a - b) ** 2).sum() for a in points for b in points) + 1.0
    stand = [points[i] for i in chosen] + list(taught)
    best = [min((((x - s) ** 2).sum() for s in stand), default=farthest) for x in points]
    return sum(min(b, farthest) if not len(taught) else b for b in best)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(1, 7), k=st.integers(1, 3), m=st.integers(0, 2))
def test_each_choice_is_the_best_next_one(seed, n, k, m):
    random = np.random.default_rng(seed)
    points, taught = random.normal(size=(n, 3)), random.normal(size=(m, 3))
    chosen, owner = cover(points, k, taught)
    for step in range(len(chosen)):
        least = min(
            loss(points, [*chosen[:step], i], taught) for i in range(n) if i not in chosen[:step]
        )
        assert loss(points, chosen[: step + 1], taught) == pytest.approx(least)
    stand = [points[i] for i in chosen]
    for x, o in zip(points, owner, strict=True):
        every = [((x - s) ** 2).sum() for s in [*stand, *taught]]
        mine = every[o] if o >= 0 else min(every[len(stand) :])
        assert mine == pytest.approx(min(every))


def test_coverage_is_near_the_best_of_all():
    points, _ = heaps((4, 4, 4), seed=3, apart=2.0)
    chosen, _ = cover(points, 3)
    none = loss(points, [], [])
    best = min(loss(points, c, []) for c in itertools.combinations(range(12), 3))
    assert none - loss(points, chosen, []) >= (1 - 1 / np.e) * (none - best)


def test_whitened_is_the_map_of_the_head():
    """Squared lengths before normalising are those of the metric P = (S_W + λI)⁻¹."""
    random = np.random.default_rng(0)
    raw = random.normal(size=(40, 6))
    features = np.stack([quantize(row)[0] for row in raw.astype(np.float32)])
    statistics = Statistics.of(features, ["a", "b"] * 20)
    factor = Factor.of(statistics, 0.3, "cosine")
    solver = Solver(Moments.of(statistics), factor, "cosine")
    points = whitened(features, solver)
    assert np.linalg.norm(points, axis=1) == pytest.approx(np.ones(40))
    centred = features / 2.0**14 - solver.moments.centre
    metric = np.linalg.inv(np.tril(factor.lower) @ np.tril(factor.lower).T)
    cosines = centred @ metric @ centred.T
    lengths = np.sqrt(np.diag(cosines))
    assert points @ points.T == pytest.approx(cosines / np.outer(lengths, lengths))
