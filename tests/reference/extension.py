"""Slow float64 twin of the extension, written from the formulas, sharing no code with the package.

The features are unit vectors x with labels; the label "" is the reference.
"""

import numpy as np


def geometry(x, labels, old, eps, *, ridge=None):
    """Inverse, centre, sorted classes and their means, by the definition."""
    classes = sorted(set(labels))
    d = x.shape[1]
    labels = np.array(labels)
    means = {c: x[labels == c].mean(axis=0) for c in classes}
    within = np.zeros((d, d))
    for row, c in zip(x, labels, strict=True):
        within += np.outer(row - means[c], row - means[c])
    typical = [c == "" or c in old for c in labels]
    if any(typical):
        centre = x[np.array(typical)].mean(axis=0)
    elif len(classes) > 1:
        centre = np.mean([means[c] for c in classes], axis=0)
    else:
        centre = np.zeros(d)
    lam = eps * np.trace(within) / d if ridge is None else ridge
    return np.linalg.inv(within + lam * np.eye(d)), centre, classes, means


def cosines(x, labels, old, eps, queries, *, ridge=None, centre=None):
    """Whitened cosines {class: [q]} of `queries`; ridge and centre may be held."""
    inverse, middle, classes, means = geometry(x, labels, old, eps, ridge=ridge)
    centre = middle if centre is None else centre
    found = {}
    for c in classes:
        direction = means[c] - centre
        length = np.sqrt(direction @ inverse @ direction) or 1.0
        found[c] = np.array([(q - centre) @ inverse @ direction / length for q in queries])
    return found


def left_out(x, labels, old, eps):
    """Cosines [n, C] of each row by all the others, NaN where its class is gone; λ held.

    The centre moves where the row is typical; without typical pictures it is held.
    """
    classes = sorted(set(labels))
    means = {c: x[np.array(labels) == c].mean(axis=0) for c in classes}
    d = x.shape[1]
    trace = sum(((row - means[c]) ** 2).sum() for row, c in zip(x, labels, strict=True))
    _, whole, _, _ = geometry(x, labels, old, eps)
    anchored = any(c == "" or c in old for c in labels)
    out = np.full((len(x), len(classes)), np.nan)
    for i in range(len(x)):
        keep = [j for j in range(len(x)) if j != i]
        scores = cosines(
            x[keep],
            [labels[j] for j in keep],
            old,
            eps,
            x[i : i + 1],
            ridge=eps * trace / d,
            centre=None if anchored else whole,
        )
        for c, values in scores.items():
            out[i, classes.index(c)] = values[0]
    return out


def logits(x, norms, weights, bias, start_classes, members, labels, tuning):
    """Logits [q, C] by the rule: old classes in their order, then new ones sorted."""
    z = norms[:, None] * (x @ weights.T) + bias
    s = cosines(members, labels, start_classes, tuning.shrinkage, x)
    columns = []
    for k, c in enumerate(start_classes):
        column = z[:, k]
        n = labels.count(c)
        if n and tuning.prior is not None:
            alpha = n / (n + tuning.prior)
            learnt = tuning.old_scale * s[c] + tuning.old_offset
            column = (1 - alpha) * column + alpha * learnt
        columns.append(column)
    added = sorted(set(labels) - set(start_classes) - {""})
    columns += [tuning.scale * s[c] + tuning.offset for c in added]
    return np.stack(columns, axis=1)
