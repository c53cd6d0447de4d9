"""Confidence bounds, against the distributions they come from, counted out or by SciPy."""

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import stats

from retain.algebra import bounds, net_bounds, surprise

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
    assert surprise(0, 0, 0, 0) == 1.0


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


@pytest.mark.parametrize("case", [(1, 1, 0, 0), (3, 5, 2, 9), (7, 20, 1, 40), (20, 20, 0, 30)])
def test_surprise_is_the_beta_binomial_tail(case):
    hits, n, before, total = case
    wanted = stats.betabinom(n, before + 0.5, total - before + 0.5).sf(hits - 1)
    assert surprise(*case) == pytest.approx(wanted, rel=1e-9)


def test_surprise_by_counting():
    """The beta-binomial as an urn (Pólya), with fractions, sequence by sequence."""
    before, total, n = 1, 4, 6

    def sequence(hits):
        a, b, p = Fraction(2 * before + 1, 2), Fraction(2 * (total - before) + 1, 2), Fraction(1)
        for k in range(n):
            if k < hits:
                p, a = p * a / (a + b), a + 1
            else:
                p, b = p * b / (a + b), b + 1
        return p

    for hits in range(n + 1):
        wanted = sum(comb(n, k) * sequence(k) for k in range(hits, n + 1))
        assert surprise(hits, n, before, total) == pytest.approx(float(wanted), rel=1e-12)


def test_surprise_falls_with_hits_and_rises_with_mistakes_seen_before():
    falling = [surprise(k, 12, 3, 30) for k in range(13)]
    assert all(a > b for a, b in itertools.pairwise(falling))
    rising = [surprise(6, 12, k, 30) for k in range(31)]
    assert all(a < b for a, b in itertools.pairwise(rising))
    assert all(0 <= p <= 1 for p in falling + rising)
