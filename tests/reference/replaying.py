"""Slow float64 twins of methods that keep pictures: WA, iCaRL and DER++, written from their papers.

They share no code with the package. Each is a lesson: weights with the rows of the new classes, to
the weights at the end.
"""

import numpy as np

from .perceptron import descend, features, logits, one_hot, parts, sigmoid, softmax, surprise


def last(walk, weights):
    """The weights at the end of a descent."""
    for *_, after in walk:
        weights = after
    return weights


def wa(weights, old, steps, *, past, temperature, known, **how):
    """Zhao 2020, equations 3 and 4: the training, before the rows are aligned.

    old: the weights before, of the `known` first classes; past: λ.
    """

    def pulls(now, x, y):
        found = []
        for picture, target in zip(x, y, strict=True):
            row = logits(now, picture)
            pull = surprise(row, target, np.arange(len(row)))
            if known:
                # −Σ q̂ log q with q = softmax(o/T): its slope by o is (q − q̂)/T.
                wanted = softmax(logits(old, picture)[:known] / temperature)
                apart = (softmax(row[:known] / temperature) - wanted) / temperature
                pull = (1 - past) * pull
                pull[:known] += past * apart
            found.append(pull / len(x))
        return found

    return last(descend(weights, steps, pulls, **how), weights)


def aligned(weights):
    """Zhao 2020, equations 7 and 8: ŵ = γ·w for the newest rows, γ = Mean(norms old)/Mean(new)."""
    *older, newest = parts(weights)
    norms = [np.sqrt((row**2).sum()) for part in older for row in weights[f"{part}.weight"]]
    new = [np.sqrt((row**2).sum()) for row in weights[f"{newest}.weight"]]
    gamma = np.mean(norms) / np.mean(new)
    return {**weights, f"{newest}.weight": gamma * weights[f"{newest}.weight"]}


def icarl(weights, old, steps, *, known, **how):
    """Rebuffi 2017, algorithm 3: −Σ δ log g + (1 − δ) log(1 − g) over new classes, and with the
    old network's g in the place of δ over the `known` first.
    """

    def pulls(now, x, y):
        found = []
        for picture, target in zip(x, y, strict=True):
            row = logits(now, picture)
            wanted = one_hot(target, len(row)).astype(float)
            if known:
                wanted[:known] = sigmoid(logits(old, picture))
            # The slope of −δ log g − (1 − δ) log(1 − g) with g = sigmoid(a) by a is g − δ.
            found.append((sigmoid(row) - wanted) / len(x))
        return found

    return last(descend(weights, steps, pulls, **how), weights)


def nearest_mean(weights, kept, labels, asked):
    """Rebuffi 2017, algorithm 1: −‖φ − μ‖², features and their means brought to length 1."""

    def unit(row):
        return row / np.sqrt((row**2).sum())

    found = np.full((len(asked), sum(len(weights[f"{p}.bias"]) for p in parts(weights))), -np.inf)
    for label in set(labels):
        own = [unit(features(weights, x)) for x in kept[labels == label]]
        mean = unit(sum(own) / len(own))
        for row, x in enumerate(asked):
            found[row, label] = -((unit(features(weights, x)) - mean) ** 2).sum()
    return found


def derpp(weights, fresh, kept, remembered, *, alpha, beta, steps, **how):
    """Buzzega 2020, equation 6, all pictures in every step.

    fresh, kept: pictures and targets; remembered: of each kept picture its logits z, of as many
    classes as were known then. The distance from them is a mean over these classes.
    """
    fresh_x, fresh_y = fresh
    kept_x, kept_y = kept

    def pulls(now, x, y):
        every = np.arange(len(logits(now, x[0])))
        found = []
        for place, (picture, target) in enumerate(zip(x, y, strict=True)):
            row = logits(now, picture)
            pull = surprise(row, target, every)
            if place < len(fresh_x):
                found.append(pull / len(fresh_x))
                continue
            z = remembered[place - len(fresh_x)]
            pull = beta * pull
            pull[: len(z)] += alpha * 2 * (row[: len(z)] - z) / len(z)
            found.append(pull / len(kept_x))
        return found

    both = np.concatenate([fresh_x, kept_x]), np.concatenate([fresh_y, kept_y]).astype(int)
    return last(descend(weights, [both] * steps, pulls, **how), weights)
