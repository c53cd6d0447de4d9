"""Confidence bounds, against the distributions they come from, counted out or by SciPy."""

import time
from fractions import Fraction
from itertools import pairwise
from math import comb

import numpy as np
import pytest
from scipy import stats

from retain.chances import bounds, net_bounds, surprise

CASES = [(h, n) for n in (1, 2, 5, 17, 100) for h in {0, 1, n // 3, n - 1, n}]


@pytest.mark.parametrize(("hits", "n"), CASES)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_the_interval_of_a_share_is_clopper_and_pearsons(hits, n, confidence):
    wanted = stats.binomtest(hits, n).proportion_ci(confidence, "exact")
    np.testing.assert_allclose(bounds(hits, n, confidence), wanted, atol=1e-12)


@pytest.mark.parametrize(("hits", "n"), [(0, 4), (1, 4), (3, 9), (9, 9)])
def test_the_interval_turns_the_binomial_tails(hits, n):
    """At either end, what was seen or worse has the probability that the ends leave."""
    low, high = bounds(hits, n, 0.9)

    def tail(share, ks):
        return sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in ks)

    if hits:
        assert tail(low, range(hits, n + 1)) == pytest.approx(0.05)
    if hits < n:
        assert tail(high, range(hits + 1)) == pytest.approx(0.05)


def test_nothing_seen_says_nothing():
    assert bounds(0, 0) == (0.0, 1.0)
    assert net_bounds(0, 0, 0) == (0.0, 0.0)
    assert net_bounds(0, 0, 50) == (0.0, 0.0)
    assert surprise(0, []) == 1.0
    assert surprise(1, []) == 0.0


@pytest.mark.parametrize(("lost", "gained", "n"), [(3, 0, 10), (5, 5, 40), (30, 2, 100), (0, 9, 9)])
def test_the_net_share(lost, gained, n):
    low, high = net_bounds(lost, gained, n)
    ci = stats.binomtest(lost, lost + gained).proportion_ci(0.95, "exact")
    changed = (lost + gained) / n
    assert low == pytest.approx((2 * ci.low - 1) * changed)
    assert high == pytest.approx((2 * ci.high - 1) * changed)
    assert low <= (lost - gained) / n <= high
    mirrored = net_bounds(gained, lost, n)
    np.testing.assert_allclose(mirrored, (-high, -low), atol=1e-12)


def test_a_loss_is_shown_exactly_when_a_sign_test_shows_it():
    """The lower bound is above zero where McNemar's exact test is at 2.5 %, one-sided."""
    for lost in range(14):
        for gained in range(14 - lost):
            if lost + gained == 0:
                continue
            p = stats.binomtest(lost, lost + gained, alternative="greater").pvalue
            assert (net_bounds(lost, gained, 100)[0] > 0) == (p < 0.025), (lost, gained)


@pytest.mark.parametrize(
    "case", [(1, 1, 0.5, 0.5), (3, 5, 2.5, 7), (7, 20, 1.5, 40), (20, 20, 1, 30)]
)
def test_surprise_is_the_beta_binomial_tail(case):
    hits, n, a, b = case
    wanted = stats.betabinom(n, a, b).sf(hits - 1)
    assert surprise(hits, [(n, a, b)]) == pytest.approx(wanted, rel=1e-9)


def urn(n, hits, a, b):
    """The chance of one sequence with so many hits (Pólya's urn), as a fraction."""
    p = Fraction(1)
    for k in range(n):
        if k < hits:
            p, a = p * a / (a + b), a + 1
        else:
            p, b = p * b / (a + b), b + 1
    return p


def test_surprise_by_counting():
    """Every way in which two groups can come out, with fractions."""
    groups = [(4, Fraction(3, 2), Fraction(7, 2)), (3, Fraction(1, 3), Fraction(9))]
    counted = [Fraction(0)] * 8
    for i in range(5):
        for j in range(4):
            ways = comb(4, i) * comb(3, j)
            counted[i + j] += ways * urn(4, i, *groups[0][1:]) * urn(3, j, *groups[1][1:])
    assert sum(counted) == 1
    floats = [(n, float(a), float(b)) for n, a, b in groups]
    for hits in range(8):
        assert surprise(hits, floats) == pytest.approx(float(sum(counted[hits:])), rel=1e-12)


def test_surprise_of_many_groups_is_simulated():
    rng = np.random.default_rng(0)
    groups = [(int(n), 0.3 + n / 9, 4.0 + n) for n in rng.integers(1, 30, 12)]
    draws = sum(rng.binomial(n, rng.beta(a, b, 200_000)) for n, a, b in groups)
    for hits in (5, 15, 25, 40):
        assert surprise(hits, groups) == pytest.approx((draws >= hits).mean(), abs=0.006)


def test_surprise_of_a_large_lesson_takes_no_time():
    """100,000 pictures of 50 classes, of which about 2,000 contradict their labels."""
    groups = [(2_000, 0.8, 39.2)] * 50
    began = time.process_time()
    likely = [surprise(hits, groups) for hits in (40, 400, 2_000)]
    assert time.process_time() - began < 1.5
    assert likely[0] == pytest.approx(1.0)
    assert 0.45 < likely[2] < 0.55
    # A tail that is tiny keeps its digits.
    assert surprise(6, [(3, 1e-8, 1.0)] * 2) == pytest.approx(surprise(3, [(3, 1e-8, 1.0)]) ** 2)


def test_surprise_falls_with_hits_and_rises_with_mistakes_seen_before():
    falling = [surprise(k, [(12, 3, 30)]) for k in range(13)]
    assert all(a > b for a, b in pairwise(falling))
    rising = [surprise(6, [(12, k + 0.5, 30.5 - k)]) for k in range(31)]
    assert all(a < b for a, b in pairwise(rising))
    assert all(0 <= p <= 1 for p in falling + rising)
