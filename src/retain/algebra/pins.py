"""Corrections as constraints: the nearest head that satisfies every pin.

A pin says that a picture x must be answered t, with a margin γ over every other class. The head
that does so and moves least, measured by what the move does to everything seen so far, minimises

    Σ_i ‖Δf(x_i)‖² + λ‖ΔW‖²   subject to   f_t(x_j) − f_r(x_j) ≥ γ   for every pin j and rival r,

a strictly convex quadratic programme. With Φ the pinned features about the mean μ̄,
P_T = (S_T + λI)⁻¹ and H = Φ P_T Φᵀ + 1/N (the 1/N is the intercept, which is free) the solution is

    ΔW = Bᵀ Φ P_T,   Δb = Bᵀ1/N − ΔW μ̄,

so only B, one row per pin, has to be found. For a single pin it has a closed form: project the
logits f onto {u : u_t − u_r ≥ γ}, that is u_r = min(f_r, θ), u_t = θ + γ with
θ = (f_t + Σ of the j largest rivals − γ)/(j + 1), and B = (u − f)/h. For many, each row in turn
is set to what is optimal given the others (block coordinate ascent on the dual; Hildreth 1957,
Tseng 1990), which converges to the optimum.

Since the edit minimises the disturbance Σ‖Δf(x_i)‖², a single pin disturbs it by at most ‖δ‖²/h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retain.algebra.fixed import SCALE, to_float
from retain.algebra.heads import Head
from retain.algebra.statistics import Statistics
from retain.algebra.whitening import Solver
from retain.errors import PinConflict

__all__ = ["Pin", "lifted", "nearest_head"]

Floats = NDArray[np.float64]

# A pin is left alone while it holds by a tenth of the margin: editing it would move others.
_SLACK = 0.1
_TOLERANCE = 1e-3
_SWEEPS = 2000
# With little shrinkage; then the head's own is tried, which needs fewer.
_FIRM_SWEEPS = 1_000


@dataclass(frozen=True, eq=False, slots=True)
class Pin:
    """A picture that must be answered `label`: name, feature int16 [d], label, original length."""

    image: str
    feature: NDArray[np.int16]
    label: str
    norm: float = 1.0


def lifted(logits: Floats, target: int, margin: float) -> Floats:
    """The nearest logits [C] in which `target` beats every other class by `margin`.

    >>> lifted(np.array([3.0, 2.0, 0.0]), target=1, margin=1.0)
    array([2., 3., 0.])
    """
    rivals = np.delete(logits, target)
    if not len(rivals) or logits[target] - rivals.max() >= margin:
        return logits.copy()
    ordered = np.sort(rivals)[::-1]
    thresholds = (logits[target] + np.cumsum(ordered) - margin) / np.arange(2, len(ordered) + 2)
    following = np.append(ordered[1:], -np.inf)
    threshold = float(thresholds[int(np.argmax(following <= thresholds))])
    result: Floats = np.minimum(logits, threshold)
    result[target] = threshold + margin
    return result


def nearest_head(
    head: Head, solver: Solver, statistics: Statistics, pins: Sequence[Pin], margin: float
) -> tuple[Head, tuple[str, ...], PinConflict | None]:
    """The head nearest to `head` in which every pin holds, or as near to that as was found.

    Pins that hold by themselves are not touched; those that do not, or that cease to when others
    are lifted, are lifted to the margin.

    Args:
        head: the solved head.
        solver: the factorisation it came from.
        statistics: the state.
        pins: the corrections, in an order that depends on nothing but the set.
        margin: γ, in logits.

    Returns:
        The head, the images whose pins needed an edit, and, where not all of these reach the
        margin, why.

    Raises:
        PinConflict: if two pins of one feature contradict each other; both are named.
    """
    if not pins or len(head.classes) < 2:
        return head, (), None
    _refuse_twins(pins)
    position = {label: i for i, label in enumerate(head.classes)}
    targets = np.array([position[pin.label] for pin in pins], dtype=np.intp)
    features = np.stack([pin.feature for pin in pins])
    norms = np.array([pin.norm for pin in pins])
    active: list[int] = []
    edited, conflict = head, None
    while True:
        gaps = _gaps(edited.logits(features, norms), targets)
        held = set(active)
        violated = [j for j in range(len(pins)) if j not in held and gaps[j] < _SLACK * margin]
        if not violated or conflict is not None:
            return edited, tuple(pins[j].image for j in active), conflict
        active = sorted({*active, *violated})
        bound = [pins[j] for j in active]
        wanted = statistics, features[active], targets[active], margin, bound
        edited, conflict = _edit(head, solver.firm, *wanted, sweeps=_FIRM_SWEEPS)
        if conflict is not None:
            # Near what no linear head can do, little shrinkage takes more sweeps than there are.
            edited, conflict = _edit(head, solver, *wanted, sweeps=_SWEEPS)


def _edit(
    head: Head,
    solver: Solver,
    statistics: Statistics,
    features: NDArray[np.int16],
    targets: NDArray[np.intp],
    margin: float,
    pins: Sequence[Pin],
    sweeps: int,
) -> tuple[Head, PinConflict | None]:
    total = statistics.total
    mean = statistics.sums.sum(axis=0) / total / SCALE
    offsets = to_float(features) - mean
    carried = solver.apply_total(offsets.T)
    gram = offsets @ carried + 1.0 / total
    start = head.logits(features, np.array([pin.norm for pin in pins]))
    multipliers, conflict = np.zeros_like(start), None
    for _ in range(sweeps):
        for j, target in enumerate(targets):
            now = start[j] + gram[j] @ multipliers
            own = gram[j, j] * multipliers[j]
            multipliers[j] = (lifted(now - own, int(target), margin) - (now - own)) / gram[j, j]
        logits = start + gram @ multipliers
        if (_gaps(logits, targets) >= (1 - _TOLERANCE) * margin).all():
            break
    else:
        conflict = _conflict(pins, gram, _gaps(start + gram @ multipliers, targets))
    change = (carried @ multipliers).T
    bias = multipliers.sum(axis=0) / total - change @ mean
    return Head(head.classes, head.weights + change, head.bias + bias, head.raw), conflict


def _gaps(logits: Floats, targets: NDArray[np.intp]) -> Floats:
    rows = np.arange(len(targets))
    rivals = logits.copy()
    rivals[rows, targets] = -np.inf
    result: Floats = logits[rows, targets] - rivals.max(axis=1)
    return result


def _refuse_twins(pins: Sequence[Pin]) -> None:
    seen: dict[bytes, Pin] = {}
    for pin in pins:
        other = seen.setdefault(pin.feature.tobytes(), pin)
        if other.label != pin.label:
            raise _conflict_of(other, pin)


def _conflict(pins: Sequence[Pin], gram: Floats, gaps: Floats) -> PinConflict:
    worst = int(gaps.argmin())
    scale = np.sqrt(np.diagonal(gram))
    likeness = np.abs(gram[worst]) / (scale * scale[worst])
    different = [j for j, pin in enumerate(pins) if pin.label != pins[worst].label]
    if not different:
        return PinConflict(
            f"no head was found that satisfies the correction of {pins[worst].image} to "
            f"{pins[worst].label!r} together with the other corrections; undo some of them"
        )
    other = pins[max(different, key=lambda j: float(likeness[j]))]
    return PinConflict(
        f"two corrections contradict each other beside the others: {pins[worst].image} is to be "
        f"{pins[worst].label!r} and {other.image}, which is like it, is to be {other.label!r}, and "
        f"no head was found that says so; undo or forget one of them"
    )


def _conflict_of(first: Pin, second: Pin) -> PinConflict:
    return PinConflict(
        f"two corrections contradict each other: {first.image} is to be {first.label!r} and "
        f"{second.image}, which looks the same to this classifier, is to be {second.label!r}; "
        f"undo or forget one of them"
    )
