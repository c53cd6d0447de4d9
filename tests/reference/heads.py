"""Slow float64 twins of the heads, written from the formulas, sharing no code with the package."""

import numpy as np


def attenuated(x, y, shrinkage):
    """ν and the typical distance of classes, by the definition."""
    classes = range(int(y.max()) + 1)
    d = x.shape[1]
    means = np.array([x[y == c].mean(axis=0) for c in classes])
    m = means.mean(axis=0)
    within = (x - means[y]).T @ (x - means[y])
    inverse = np.linalg.inv(within + shrinkage * np.trace(within) / d * np.eye(d))
    noise = np.trace(inverse @ within) / (len(x) - len(means))
    found = []
    for c in classes:
        length = (means[c] - m) @ inverse @ (means[c] - m)
        found.append(np.sqrt(max(length - noise / (y == c).sum(), 0)))
    return noise, np.median(found)


def expected(counts):
    """Log of how much more often than evenly mixed priors expect each class."""
    found = []
    for n in counts:
        evenly, as_taught = 1 / len(counts), n / sum(counts)
        often = (evenly + as_taught) / 2
        found.append(np.log(often / evenly) * n / (n + 8))
    return np.array(found)


def scores(family, x, y, queries, shrinkage, *, centre=None, level=None, held=None):
    """Raw scores [q, C] of `queries` by the head of labelled rows (x, y); labels 0..C-1.

    `centre`, `level` and the `held` numbers of the attenuation may come from outside (the
    closed-form leave-one-out holds them).
    """
    classes = range(int(y.max()) + 1)
    d = x.shape[1]
    means = np.array([x[y == c].mean(axis=0) for c in classes])
    m = means.mean(axis=0) if centre is None else centre
    within = np.zeros((d, d))
    for c in classes:
        for row in x[y == c]:
            within += np.outer(row - means[c], row - means[c])
    out = np.zeros((len(queries), len(means)))
    if family == "ridge":
        mean = x.mean(axis=0)
        total = (x - mean).T @ (x - mean)
        lam = shrinkage * (np.trace(total) / d if level is None else level)
        design = np.concatenate([x - mean, np.ones((len(x), 1))], axis=1)
        penalty = np.diag([lam] * d + [0.0])
        targets = np.eye(len(means))[y]
        solution = np.linalg.solve(design.T @ design + penalty, design.T @ targets)
        asked = np.concatenate([queries - mean, np.ones((len(queries), 1))], axis=1)
        return asked @ solution
    lam = shrinkage * (np.trace(within) / d if level is None else level)
    inverse = np.linalg.inv(within + lam * np.eye(d)) if family != "nearest-mean" else np.eye(d)
    for i, q in enumerate(queries):
        for c in classes:
            if family == "cosine":
                direction = means[c] - m
                out[i, c] = (q - m) @ inverse @ direction
                length = direction @ inverse @ direction
                out[i, c] /= np.sqrt(length)
                noise, typical = attenuated(x, y, shrinkage) if held is None else held
                reliable = min(max(1 - noise / ((y == c).sum() * length), 0.02), 1)
                out[i, c] += 0.4 * typical * (1 - np.sqrt(reliable))
            else:
                out[i, c] = -0.5 * (q - means[c]) @ inverse @ (q - means[c])
    return out


def left_out(family, x, y, shrinkage, rows):
    """Raw scores of each row by the head of all the others, m and λ held at those of all."""
    classes = range(int(y.max()) + 1)
    d = x.shape[1]
    means = np.array([x[y == c].mean(axis=0) for c in classes])
    centred = x - (x.mean(axis=0) if family == "ridge" else means[y])
    level = (centred**2).sum() / d
    held = attenuated(x, y, shrinkage)
    found = []
    for i in rows:
        keep = np.arange(len(x)) != i
        found.append(
            scores(
                family,
                x[keep],
                y[keep],
                x[i : i + 1],
                shrinkage,
                centre=means.mean(axis=0),
                level=level,
                held=held,
            )[0]
        )
    return np.array(found)
