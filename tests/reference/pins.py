"""A slow twin of the pinned head: least-distance programming by Lawson & Hanson (1974, ch. 23)."""

import numpy as np
from scipy.optimize import nnls


def pinned_weights(x, weights, bias, pins, targets, margin, ridge):
    """Weights and bias minimising Σ‖Δf(x_i)‖² + ridge·‖ΔW‖² under all margins.

    With the Hessian LLᵀ and z = Lᵀv the programme is min ‖z‖² subject to Gz ≥ h, whose solution
    follows from one non-negative least-squares problem.
    """
    classes, d = weights.shape
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    penalty = np.diag([ridge] * d + [0.0])
    hessian = np.kron(np.eye(classes), design.T @ design + penalty)
    rows, lower = [], []
    for pin, target in zip(pins, targets, strict=True):
        extended = np.append(pin, 1.0)
        logits = weights @ pin + bias
        for rival in range(classes):
            if rival == target:
                continue
            row = np.zeros((classes, d + 1))
            row[target] += extended
            row[rival] -= extended
            rows.append(row.ravel())
            lower.append(margin - (logits[target] - logits[rival]))
    factor = np.linalg.cholesky(hessian)
    constraints = np.linalg.solve(factor, np.array(rows).T)
    system = np.concatenate([constraints, np.array(lower)[None, :]])
    wanted = np.append(np.zeros(len(hessian)), 1.0)
    multipliers, _ = nnls(system, wanted, maxiter=100 * system.shape[1])
    residual = system @ multipliers - wanted
    z = -residual[:-1] / residual[-1]
    change = np.linalg.solve(factor.T, z).reshape(classes, d + 1)
    return weights + change[:, :d], bias + change[:, d]
