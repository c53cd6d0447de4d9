"""Slow float64 twins of methods that hold weights: MAS, SI and RWalk, written from their papers.

They share no code with the package. Each is a lesson: weights with the rows of the new classes, and
what was carried, to the weights at the end and what is carried on. What the package says it does
otherwise than the papers is here too: an importance is cut where a step would overshoot, and one
below zero counts as zero.
"""

import numpy as np

from .perceptron import descend, logits, slope, surprise


def entropy(among):
    """The task: the mean cross-entropy among some classes."""

    def pulls(weights, x, y):
        rows = zip(x, y, strict=True)
        return [surprise(logits(weights, each), own, among) / len(x) for each, own in rows]

    return pulls


def anchor(star, importance, strength, rate, free):
    """The gradient of strength·Σ Ω (θ − θ*)², without what is free."""
    cut = 1 / (2 * strength * rate)

    def pull(weights):
        return {
            name: 2 * strength * np.minimum(each, cut) * (weights[name] - star[name])
            for name, each in importance.items()
            if not name.startswith(free)
        }

    return pull


def mas(weights, omega, steps, shown, among, *, strength, decay, rate, free=(), **how):
    """Aljundi 2018, equations 2 and 3; `shown` are the pictures of the lesson, without labels."""
    penalty = anchor(weights, omega, strength, rate, free)
    for *_, after in descend(weights, steps, entropy(among), rate=rate, penalty=penalty, **how):
        weights = after
    found = {name: np.zeros_like(each) for name, each in weights.items()}
    for x in shown:
        # ‖F(x)‖² is Σ F_k², of which the slope by F_k is 2·F_k.
        for name, each in slope(weights, x, 2 * logits(weights, x)).items():
            found[name] += np.abs(each) / len(shown)
    return weights, {name: each + decay * omega.get(name, 0.0) for name, each in found.items()}


def si(weights, omega, steps, among, *, strength, damping, rate, free=(), resting=(), **how):
    """Zenke 2017, equations 3 to 5."""
    star, how = weights, {"rate": rate, "resting": resting, **how}
    path = {name: np.zeros_like(each) for name, each in star.items() if name not in resting}
    penalty = anchor(star, omega, strength, rate, free)
    for _, _, before, task, after in descend(star, steps, entropy(among), penalty=penalty, **how):
        for name in path:
            path[name] -= task[name] * (after[name] - before[name])
        weights = after
    omega = dict(omega)
    for name, each in path.items():
        gain = each / ((weights[name] - star[name]) ** 2 + damping)
        omega[name] = omega.get(name, 0.0) + np.maximum(gain, 0)
    return weights, omega


def fisher(weights, x, y):
    """The mean over the pictures of the square of each one's own slope, over all classes."""
    found = {name: np.zeros_like(each) for name, each in weights.items()}
    for picture, target in zip(x, y, strict=True):
        row = logits(weights, picture)
        pull = surprise(row, target, np.arange(len(row)))
        for name, each in slope(weights, picture, pull).items():
            found[name] += each**2 / len(x)
    return found


def spread(tensors):
    """All numbers of all tensors brought to 0…1."""
    every = np.concatenate([each.ravel() for each in tensors.values()])
    low, high = every.min(), every.max()
    return {name: (each - low) / (high - low) for name, each in tensors.items()}


def rwalk(
    weights, information, scores, steps, among,
    *, strength, every, decay, damping, rate, free=(), resting=(), **how,
):  # fmt: skip
    """Chaudhry 2018, equations 6 to 8 and 10; a stretch has `every` steps, the last fewer."""
    star, how = weights, {"rate": rate, "resting": resting, **how}
    if information:
        s, F = spread(scores), spread(information)
        importance = {name: each + s.get(name, 0.0) for name, each in F.items()}
        how["penalty"] = anchor(star, importance, strength, rate, free)
    information, lesson = dict(information), {}
    for number, (x, y, before, task, after) in enumerate(
        descend(star, steps, entropy(among), **how), 1
    ):
        if (number - 1) % every == 0:
            for name, each in fisher(before, x, y).items():
                older = information.get(name, each)
                information[name] = decay * each + (1 - decay) * older
            origin = before
            gain = {name: 0.0 for name in before if name not in resting}
        for name, each in gain.items():
            gain[name] = each - task[name] * (after[name] - before[name])
        if number % every == 0 or number == len(steps):
            for name, each in gain.items():
                went = 0.5 * information[name] * (after[name] - origin[name]) ** 2
                lesson[name] = lesson.get(name, 0.0) + np.maximum(each / (went + damping), 0)
        weights = after
    scores = dict(scores)
    for name, each in lesson.items():
        scores[name] = (scores[name] + each) / 2 if name in scores else each
    return weights, information, scores
