"""The case on which twins are compared with the code that their authors published.

In `published/` are that code's answers to it, with the commit they come from; the code itself is
not here. Features are not negative, as after a ReLU, and not normalised; the second lesson brings
two new classes, the third two more and pictures of old ones.
"""

from __future__ import annotations

import numpy as np

D, SIZE = 16, 48
"""Dimension of the features, and of the random projections."""


def case():
    """Lessons, each (float32 [n, D], int [n]), and queries float32 [12, D]."""
    random = np.random.default_rng(20)
    centres = random.gamma(2.0, 1.0, (6, D))

    def drawn(c):
        features = np.maximum(centres[c] + random.normal(0, 0.8, (len(c), D)), 0)
        return features.astype(np.float32)

    parts = [np.repeat([0, 1], 20), np.repeat([2, 3], 15), np.repeat([4, 5, 0, 3], (14, 12, 6, 5))]
    lessons = []
    for part in parts:
        where = random.permutation(part)
        lessons.append((drawn(where), where))
    return lessons, drawn(np.arange(12) % 6)
