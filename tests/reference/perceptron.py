"""A slow float64 twin of a network of two layers and of gradient descent, its slopes by hand.

Weights are arrays by name: "body.weight" [h, d], "body.bias" [h], and for each part of the head, in
the order of arrival, "head.0.weight" [c, h], "head.0.bias" [c], "head.1.weight" and so on.
"""

import numpy as np


def parts(weights):
    """The names of the parts of the head, oldest first."""
    found = {name.rpartition(".")[0] for name in weights if name.startswith("head.")}
    return sorted(found, key=lambda part: int(part.rpartition(".")[2]))


def features(weights, x):
    """tanh(Wx + b) of one picture x [d]."""
    return np.tanh(weights["body.weight"] @ x + weights["body.bias"])


def logits(weights, x):
    """Of one picture, for all classes."""
    inner = features(weights, x)
    scores = [weights[f"{p}.weight"] @ inner + weights[f"{p}.bias"] for p in parts(weights)]
    return np.concatenate(scores)


def slope(weights, x, pull):
    """∂L/∂θ for one picture, where pull [classes] is ∂L/∂logits; the chain rule, layer by layer."""
    inner, found, below, place = features(weights, x), {}, 0.0, 0
    for part in parts(weights):
        rows = weights[f"{part}.weight"]
        own = pull[place : place + len(rows)]
        found[f"{part}.weight"] = np.outer(own, inner)
        found[f"{part}.bias"] = own.copy()
        below = below + rows.T @ own
        place += len(rows)
    below = below * (1 - inner**2)
    found["body.weight"], found["body.bias"] = np.outer(below, x), below
    return found


def softmax(row):
    shares = np.exp(row - row.max())
    return shares / shares.sum()


def sigmoid(row):
    return 1 / (1 + np.exp(-row))


def one_hot(target, count):
    return np.arange(count) == target


def surprise(row, target, among):
    """∂/∂logits of −log softmax, over the classes that compete alone."""
    found = np.zeros(len(row))
    found[among] = softmax(row[among]) - one_hot(target, len(row))[among]
    return found


def descend(weights, steps, pulls, *, rate, momentum, shrink, resting=(), penalty=None):
    """Gradient descent with momentum, step by step; what rests stays where it is.

    Yields pictures, targets, the weights before, the task's gradient and the weights after.

    steps: of each, the pictures [n, d] and the targets [n].
    pulls: (weights, pictures, targets) → for each picture ∂L/∂logits, L being the task's loss.
    shrink: weight decay, of which biases are spared.
    penalty: (weights) → its gradient by name, which the steps follow too; None for none.
    """
    speed = {name: np.zeros_like(each) for name, each in weights.items()}
    for x, y in steps:
        task = {name: np.zeros_like(each) for name, each in weights.items()}
        for picture, pull in zip(x, pulls(weights, x, y), strict=True):
            for name, each in slope(weights, picture, pull).items():
                task[name] += each
        held = penalty(weights) if penalty is not None else {}
        after = {}
        for name, each in weights.items():
            down = task[name] + held.get(name, 0.0) + (shrink * each if each.ndim > 1 else 0.0)
            speed[name] = momentum * speed[name] + down
            after[name] = each if name in resting else each - rate * speed[name]
        yield x, y, weights, task, after
        weights = after
