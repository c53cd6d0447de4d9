"""Scores to probabilities: one temperature, by the likelihood of left-out scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retain.algebra.heads import UNTUNED

__all__ = ["fit_temperature", "log_sigmoid", "log_softmax", "softmax"]

Floats = NDArray[np.float64]

_LOWEST, _HIGHEST = np.log(1e-6), np.log(1e9)


def log_softmax(logits: Floats) -> Floats:
    """Logarithms of probabilities over the last axis; no overflow.

    >>> np.exp(log_softmax(np.array([1000.0, 1000.0])))
    array([0.5, 0.5])
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def log_sigmoid(logits: Floats) -> Floats:
    """Logarithms of the probabilities of logits, each by itself; any shape.

    >>> np.exp(log_sigmoid(np.array([0.0, 1000.0])))
    array([0.5, 1. ])
    """
    return np.asarray(-np.logaddexp(0.0, -logits), dtype=np.float64)


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis."""
    result: Floats = np.exp(log_softmax(logits))
    return result


def fit_temperature(
    scores: Floats, truth: NDArray[np.intp], weights: Floats, offsets: Floats
) -> tuple[float, float]:
    """The factor T that makes ``softmax(T · scores + offsets)`` most likely (Guo 2017).

    The likelihood is smoothed with one uniform pseudo-observation in n, so that T stays finite
    when every left-out picture is right. It is convex in T; Newton's steps on log T inside a
    bracket find the optimum, always in the same number of operations for the same input. Scores
    that tell no classes apart have no likeliest T: it is then that of `UNTUNED`.

    Args:
        scores: raw scores [n, C].
        truth: the right class of each, [n].
        weights: how much each counts, [n], non-negative, adding up to one.
        offsets: added to the logits, [C].

    Returns:
        T, and the weighted negative log-likelihood at T (not smoothed), in nats.
    """
    rows = np.arange(len(scores))
    smoothing = 1.0 / (len(scores) + 1)
    own = scores[rows, truth]
    target = float(weights @ ((1 - smoothing) * own + smoothing * scores.mean(axis=1)))

    def slope(log_temperature: float) -> tuple[float, float]:
        temperature = np.exp(log_temperature)
        probabilities = softmax(temperature * scores + offsets)
        first = (probabilities * scores).sum(axis=1)
        second = (probabilities * scores * scores).sum(axis=1) - first * first
        gradient = float(weights @ first) - target
        curvature = float(weights @ second)
        return temperature * gradient, temperature * (gradient + temperature * curvature)

    low, high = float(_LOWEST), float(_HIGHEST)
    spread = float(np.sqrt(np.mean((scores - scores.mean(axis=1, keepdims=True)) ** 2)))
    blank = spread <= 1e-12 * max(1.0, float(np.abs(scores).max()))
    here = float(np.log(UNTUNED.temperature) if blank else np.clip(-np.log(spread), low, high))
    for _ in range(0 if blank else 60):
        gradient, curvature = slope(here)
        if gradient > 0:
            high = here
        else:
            low = here
        step = here - gradient / curvature if curvature > 0 else np.inf
        # Newton may leave the bracket or creep; halving always makes progress.
        following = step if low < step < high and abs(step - here) < 4 else 0.5 * (low + high)
        if abs(following - here) < 1e-10:
            break
        here = following
    temperature = float(np.exp(here))
    picked = log_softmax(temperature * scores + offsets)[rows, truth]
    return temperature, float(-(weights @ picked))
