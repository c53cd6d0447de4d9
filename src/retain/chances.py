"""How certain counts are: intervals of shares, and what would be a surprise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["bounds", "net_bounds", "surprise"]


def bounds(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share, `hits` of `n` (Clopper & Pearson 1934), 0 to 1.

    >>> [round(limit, 3) for limit in bounds(3, 100)]
    [0.006, 0.085]
    >>> bounds(0, 0)
    (0.0, 1.0)
    """
    from scipy.special import betaincinv

    tail = (1.0 - confidence) / 2.0
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1.0 - tail)) if hits < n else 1.0
    return low, high


def net_bounds(lost: int, gained: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the net share lost, (lost − gained)/n, given how many answers changed.

    Exact: of the answers that changed, how many were lost is a binomial share, as in McNemar's
    test (1947).

    >>> low, high = net_bounds(10, 7, 100)
    >>> low < 0 < high
    True
    >>> net_bounds(30, 0, 100)[0] > 0.2
    True
    """
    low, high = bounds(lost, lost + gained, confidence)
    scale = (lost + gained) / max(n, 1)
    return (2.0 * low - 1.0) * scale, (2.0 * high - 1.0) * scale


def surprise(hits: int, groups: Sequence[tuple[int, float, float]]) -> float:
    """How improbable `hits` or more are, in all, of several groups.

    The tail of a sum of beta-binomial counts.

    Args:
        hits: how many there were.
        groups: of each the size n and the two parameters of the beta distribution of its rate.

    >>> surprise(1, [(10, 10.5, 90.5)]) > 0.5
    True
    >>> surprise(9, [(5, 10.5, 90.5), (5, 10.5, 90.5)]) < 1e-6
    True
    """
    from scipy.special import betaln, gammaln

    if hits <= 0:
        return 1.0
    # What has reached `hits` is kept apart: a sum from below would be one minus nearly one, and of
    # all that a large lesson might bring only counts below `hits` must be told apart.
    below, reached = np.ones(1), 0.0
    for n, a, b in groups:
        k = np.arange(n + 1)
        logs = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        chances = np.exp(logs + betaln(k + a, n - k + b) - betaln(a, b))
        tails = np.cumsum(chances[::-1])[::-1]
        needed = hits - np.arange(len(below))
        within = needed <= n
        reached += float(below[within] @ tails[needed[within]])
        below = np.convolve(below, chances[:hits])[:hits]
    return min(reached, 1.0)
