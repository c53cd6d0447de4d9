import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from retain.algebra import (
    HeadOptions,
    Pin,
    Statistics,
    base_head,
    nearest_head,
    quantize,
    to_float,
)
from retain.algebra.pins import lifted
from retain.algebra.whitening import scatter
from retain.errors import PinConflict
from tests.algebra.test_heads import numbers, problem
from tests.reference.pins import pinned_weights


def pin_head(head, solver, state, pins, margin):
    """The head, and the pins that needed an edit; raises where `correct` would refuse."""
    edited, active, conflict = nearest_head(head, solver, state, pins, margin)
    if conflict is not None:
        raise conflict
    return edited, active


@given(
    st.lists(st.floats(-20, 20), min_size=2, max_size=6),
    st.integers(0, 5),
    st.floats(0.01, 5),
)
def test_lifting_is_the_projection(logits, target, margin):
    f, target = np.array(logits), target % len(logits)
    u = lifted(f, target, margin)
    rivals = np.delete(u, target)
    assert u[target] - rivals.max() >= margin - 1e-9
    found = minimize(
        lambda v: ((v - f) ** 2).sum(),
        u + 0.1,
        jac=lambda v: 2 * (v - f),
        constraints=[
            {"type": "ineq", "fun": lambda v, r=r: v[target] - v[r] - margin}
            for r in range(len(f))
            if r != target
        ],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert ((u - f) ** 2).sum() <= found.fun + 1e-5


@pytest.mark.parametrize("family", ["cosine", "discriminant", "ridge", "nearest-mean"])
@pytest.mark.parametrize("how_many", [1, 3, 6])
def test_the_edit_is_the_optimum_of_the_programme(family, how_many):
    fixed, labels, _ = problem(n=40, d=6, classes=3, spread=1.2)
    state, options = Statistics.of(fixed, labels), HeadOptions(family)
    head, solver = base_head(state, numbers(0.1, 2.0), options)
    margin = 0.7
    queries, _, _ = problem(seed=9, n=how_many, d=6, classes=3, spread=1.2)
    # Ask for what is furthest from true, so that every pin is active.
    wanted = [head.classes[int(head.logits(row).argmin())] for row in queries]
    pins = [
        Pin(str(i), row, label) for i, (row, label) in enumerate(zip(queries, wanted, strict=True))
    ]
    edited, active = pin_head(head, solver, state, pins, margin)
    assert set(active) == {pin.image for pin in pins}
    _, level = scatter(state, family)
    weights, bias = pinned_weights(
        to_float(fixed),
        head.weights,
        head.bias,
        to_float(queries),
        [head.classes.index(label) for label in wanted],
        margin,
        0.03 * level,
    )
    x = to_float(fixed)

    def cost(w, b):
        return (((w - head.weights) @ x.T + (b - head.bias)[:, None]) ** 2).sum() + 0.03 * level * (
            (w - head.weights) ** 2
        ).sum()

    assert cost(edited.weights, edited.bias) <= cost(weights, bias) * (1 + 5e-3)
    for row, label in zip(queries, wanted, strict=True):
        logits = edited.logits(row)
        own = logits[head.classes.index(label)]
        rivals = np.delete(logits, head.classes.index(label))
        assert own - rivals.max() >= 0.99 * margin


def test_pins_that_hold_are_left_alone():
    fixed, labels, _ = problem()
    state = Statistics.of(fixed, labels)
    head, solver = base_head(state, numbers(0.1, 10.0), HeadOptions())
    answered = [head.classes[int(head.logits(row).argmax())] for row in fixed]
    pins = [Pin(str(i), fixed[i], answered[i]) for i in range(5)]
    edited, active = pin_head(head, solver, state, pins, 1e-9)
    assert edited is head
    assert active == ()


def test_the_edit_depends_on_the_set_only():
    """The order in which corrections were made is gone once they are sorted by image."""
    fixed, labels, _ = problem(n=60)
    state = Statistics.of(fixed, labels)
    head, solver = base_head(state, numbers(0.1, 10.0), HeadOptions())
    pins = [Pin(str(i), fixed[i], f"c{(i + 1) % 4}") for i in range(6)]
    heads = {
        pin_head(head, solver, state, sorted(order, key=lambda p: p.image), 1.0)[
            0
        ].weights.tobytes()
        for order in itertools.islice(itertools.permutations(pins), 5)
    }
    assert len(heads) == 1


def test_the_disturbance_is_within_its_certificate():
    fixed, labels, _ = problem(n=80, d=10, spread=1.0)
    state = Statistics.of(fixed, labels)
    head, solver = base_head(state, numbers(0.05, 5.0), HeadOptions())
    x = to_float(fixed)
    mean = x.mean(axis=0)
    for row in fixed[:10]:
        target = int(head.logits(row).argmin())
        edited, _ = pin_head(head, solver, state, [Pin("p", row, head.classes[target])], margin=1.0)
        offset = to_float(row) - mean
        h = offset @ solver.firm.apply_total(offset[:, None])[:, 0] + 1 / state.total
        delta = edited.logits(row) - head.logits(row)
        disturbed = ((edited.logits(fixed) - head.logits(fixed)) ** 2).sum()
        assert disturbed <= (delta @ delta) / h * (1 + 1e-9)


@pytest.mark.parametrize("shrinkage", [0.01, 0.2])
@pytest.mark.parametrize("firm", [False, True])
def test_the_total_metric_is_the_inverse_of_the_total_scatter(shrinkage, firm):
    """The head's shrinkage, or for corrections 0.03 where that is more."""
    fixed, labels, _ = problem(n=50, d=8, counts=[20, 2, 27, 1])
    state = Statistics.of(fixed, labels)
    _, solver = base_head(state, numbers(shrinkage, 1.0), HeadOptions())
    x = to_float(fixed)
    total = (x - x.mean(axis=0)).T @ (x - x.mean(axis=0))
    loaded = total + (min(shrinkage, 0.03) if firm else shrinkage) * scatter(state, "cosine")[
        1
    ] * np.eye(8)
    columns = np.random.default_rng(0).normal(size=(8, 3))
    np.testing.assert_allclose(
        (solver.firm if firm else solver).apply_total(columns),
        np.linalg.solve(loaded, columns),
        rtol=1e-8,
    )


@pytest.mark.parametrize("family", ["cosine", "ridge"])
def test_the_total_metric_of_many_classes_takes_no_matrix_of_classes(family, monkeypatch):
    fixed, labels, _ = problem(n=400, d=8, classes=150)
    state = Statistics.of(fixed, labels)
    _, solver = base_head(state, numbers(0.2, 1.0), HeadOptions(family))
    x = to_float(fixed)
    total = (x - x.mean(axis=0)).T @ (x - x.mean(axis=0))
    columns = np.random.default_rng(0).normal(size=(8, 3))
    wanted = np.linalg.solve(total + 0.2 * scatter(state, family)[1] * np.eye(8), columns)
    monkeypatch.setattr(np.linalg, "solve", None)
    np.testing.assert_allclose(solver.apply_total(columns), wanted, rtol=1e-8)
    np.testing.assert_allclose(solver.apply_total(columns[:, :0]), columns[:, :0])


def test_the_same_feature_with_two_labels_is_refused_and_both_are_named():
    fixed, labels, _ = problem()
    state = Statistics.of(fixed, labels)
    head, solver = base_head(state, numbers(0.1, 10.0), HeadOptions())
    pins = [Pin("sha256:aa", fixed[0], "c0"), Pin("sha256:bb", fixed[0].copy(), "c1")]
    with pytest.raises(PinConflict, match=r"sha256:aa.*'c0'.*sha256:bb.*'c1'"):
        pin_head(head, solver, state, pins, 1.0)


def test_pins_that_no_linear_head_satisfies_are_refused_and_two_are_named():
    """Two numbers a feature and an exclusive or: no line separates it."""
    fixed, _ = quantize([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    labels = ["a", "a", "b", "b"]
    state = Statistics.of(fixed, labels)
    head, solver = base_head(state, numbers(0.1, 10.0), HeadOptions())
    pins = [Pin(str(i), fixed[i], labels[i]) for i in range(4)]
    with pytest.raises(PinConflict, match="contradict each other"):
        pin_head(head, solver, state, pins, 1.0)
