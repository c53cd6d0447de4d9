"""The field's methods give what their authors' code gave on one small case.

`published/*.json` holds that code's answers and the commit they come from; see `published_cases`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retain.bench.methods import make
from retain.bench.methods.base import probabilities, unit
from tests.bench.published_cases import SIZE, D, case

PUBLISHED = Path(__file__).parent / "published"


def published(name):
    return json.loads((PUBLISHED / f"{name}.json").read_text())


def taught(name, tmp_path, lessons, **options):
    """The method after each lesson; classes come in the order of their numbers."""
    method = make(name, D, 0, tmp_path, **options)
    for features, where in lessons:
        # Classes must take their positions as in the published code, which knows only numbers.
        method._roster.enter(np.unique(where).astype(str))
        method.learn(features, where.astype(str))
        yield method


def test_slda(tmp_path):
    lessons, queries = case()
    there = published("slda")
    first, _, last = (m.scores(queries) for m in taught("slda", tmp_path, lessons))
    assert last[0] == tuple("012345")
    np.testing.assert_allclose(last[1], there["probabilities"], atol=2e-4)
    np.testing.assert_allclose(first[1], there["first"], atol=2e-4)
    # Probabilities saturate; the scores themselves, up to what all classes share:
    method = [*taught("slda", tmp_path, lessons)][-1]
    weights, bias = method._linear or method._solved()
    np.testing.assert_allclose(
        queries @ weights - bias, there["last"], rtol=1e-4, atol=1e-4 * np.abs(there["last"]).max()
    )


@pytest.mark.parametrize("style", ["cnn", "vit"])
def test_fecam(style, tmp_path):
    """The authors' code knows a class once: of old classes, it is not given more pictures."""
    lessons, queries = case()
    old: set[int] = set()
    once = []
    for features, where in lessons:
        fresh = ~np.isin(where, list(old))
        once.append((features[fresh], where[fresh]))
        old |= set(where.tolist())
    method = [*taught("fecam", tmp_path, once, style=style)][-1]
    np.testing.assert_allclose(method._distances(queries), published("fecam")[style], rtol=1e-3)


@pytest.mark.parametrize(("name", "options"), [("ranpac", {"size": SIZE}), ("ridge", {})])
def test_ranpac_with_projection_and_without(name, options, tmp_path):
    """Ridge ran in float64: in float32 λ below 1e-6 is noise, and it took 1e-7 for 1e-8 once."""
    lessons, queries = case()
    there = published(name)
    ridges, found = [], []
    for method in taught(name, tmp_path, lessons, **options):
        ridges.append(method._ridge)
        found.append(method.scores(queries)[1])
    assert ridges == there["ridges"]
    np.testing.assert_allclose(found[0], probabilities(np.array(there["first"])), atol=1e-4)
    np.testing.assert_allclose(found[-1], probabilities(np.array(there["last"])), atol=1e-4)


def test_acil(tmp_path):
    lessons, queries = case()
    there = published("acil")
    found = [m._outputs(queries) for m in taught("acil", tmp_path, lessons, size=SIZE)]
    np.testing.assert_allclose(found[0], there["first"], atol=1e-7)
    np.testing.assert_allclose(found[-1], there["last"], atol=1e-7)


def test_slda_of_many_is_slda_of_one_after_another(tmp_path):
    """The batched sum against the recursion of the paper, picture by picture, and no base."""
    lessons, queries = case()
    whole = make("slda", D, 0, tmp_path, base=False)
    single = make("slda", D, 0, tmp_path, base=False)
    means, counts, sigma, total = np.zeros((6, D)), np.zeros(6), np.zeros((D, D)), 0
    for features, where in lessons:
        whole.learn(features, where.astype(str))
        for x, c in zip(features.astype(np.float64), where, strict=True):
            single.learn(x[None].astype(np.float32), np.array([str(c)]))
            away = x - means[c]
            delta = np.outer(away, away) * total / (total + 1)
            sigma = (total * sigma + delta) / (total + 1)
            means[c] += away / (counts[c] + 1)
            counts[c] += 1
            total += 1
    weights = np.linalg.inv((1 - 1e-4) * sigma + 1e-4 * np.eye(D)) @ means.T
    expected = probabilities(queries @ weights - 0.5 * (means.T * weights).sum(axis=0))
    for method in (whole, single):
        classes, found = method.scores(queries)
        np.testing.assert_allclose(found[:, np.argsort(classes)], expected, atol=1e-8)


def test_acil_is_ridge_on_everything(tmp_path):
    lessons, queries = case()
    method = [*taught("acil", tmp_path, lessons, size=SIZE, gamma=0.5)][-1]
    x = np.maximum(np.concatenate([f for f, _ in lessons]) @ method._projection, 0)
    y = np.eye(6)[np.concatenate([w for _, w in lessons])]
    weights = np.linalg.solve(x.T @ x + 0.5 * np.eye(SIZE), x.T @ y)
    expected = np.maximum(queries @ method._projection, 0) @ weights
    np.testing.assert_allclose(method._outputs(queries), expected, atol=1e-8)


@pytest.mark.parametrize("style", ["cnn", "vit"])
def test_fecam_is_its_dense_twin(style, tmp_path):
    """Against shrinkage, scaling and inverse of whole matrices; classes that come in two parts."""
    lessons, queries = case()
    method = [*taught("fecam", tmp_path, lessons, style=style)][-1]
    queries = queries.astype(np.float64)
    x = np.concatenate([f for f, _ in lessons]).astype(np.float64)
    where = np.concatenate([w for _, w in lessons])

    def shrunk(matrix, second):
        off = matrix - np.diag(np.diag(matrix))
        rest = np.ones((D, D)) - np.eye(D)
        mean = off.sum() / np.count_nonzero(off)
        return matrix + np.trace(matrix) / D * np.eye(D) + second * mean * rest

    for c in range(6):
        mine = x[where == c]
        if style == "cnn":
            matrix = shrunk(shrunk(np.cov(np.sqrt(mine).T), 1), 1)
            away = unit(np.sqrt(queries)) - unit(np.sqrt(mine.mean(axis=0))[None])
        else:
            matrix = shrunk(np.cov(unit(mine).T), 0)
            away = unit(queries) - unit(mine).mean(axis=0)
        scale = np.sqrt(np.diag(matrix))
        inverse = np.linalg.inv(matrix / np.outer(scale, scale))
        expected = np.einsum("nd,de,ne->n", away, inverse, away)
        np.testing.assert_allclose(method._distances(queries)[:, c], expected, rtol=1e-8)


def test_fecam_refuses_negative_features(tmp_path):
    method = make("fecam", D, 0, tmp_path)
    with pytest.raises(ValueError, match="style='vit'"):
        method.learn(-np.ones((2, D), np.float32), np.array(["a", "b"]))
    with pytest.raises(ValueError, match="'cnn' or 'vit'"):
        make("fecam", D, 0, tmp_path, style="mlp")
