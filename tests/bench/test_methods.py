"""Every method on one small stream: what all of them owe, and what single ones promise."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier

from retain.bench.methods import REGISTRY, Unsupported, make
from retain.bench.methods.base import unit
from retain.bench.methods.ridge import RIDGES, chosen_ridge, solve_ridge
from retain.errors import BadOption, MissingExtra, NothingLearned

D = 24
ON_FEATURES = [name for name, kind in REGISTRY.items() if kind.needs == "features"]
SMALL = {"ranpac": {"size": 200}, "acil": {"size": 200}}


@pytest.fixture(scope="module")
def stream():
    """Three lessons of two classes each; features as after a ReLU, lengths about three."""
    random = np.random.default_rng(7)
    centres = random.normal(0, 1, (6, D))
    labels = np.repeat([f"class {i}" for i in range(6)], 20)
    features = np.maximum(np.repeat(centres, 20, axis=0) + random.normal(0, 0.6, (120, D)), 0)
    order = np.concatenate([random.permutation(40) + 40 * i for i in range(3)])
    return features[order].astype(np.float32), labels[order]


def lessons(stream, size=40):
    features, labels = stream
    return [(features[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)]


def made(name, tmp_path, seed=0, **options):
    try:
        return make(name, D, seed, tmp_path, **{**SMALL.get(name, {}), **options})
    except MissingExtra as error:
        pytest.skip(str(error))


def by_name(method, features):
    """The probabilities with the classes in the order of their names."""
    classes, found = method.scores(features)
    return found[:, np.argsort(classes)]


@pytest.mark.parametrize("name", ON_FEATURES)
def test_answers_what_it_was_taught(name, stream, tmp_path):
    method = made(name, tmp_path)
    with pytest.raises(NothingLearned):
        method.scores(stream[0])
    seen: set[str] = set()
    for features, labels in lessons(stream):
        method.learn(features, labels)
        seen |= set(labels.tolist())
        classes, found = method.scores(features)
        assert set(classes) == seen
        assert found.shape == (len(features), len(classes))
        assert found.dtype == np.float64
        np.testing.assert_allclose(found.sum(axis=1), 1)
        assert (found >= 0).all()
        said = np.array(classes)[found.argmax(axis=1)]
        assert (said == labels).mean() > 0.8 or name in ("sgd", "river")
        assert method.stored_bytes() > 0
    method.close()


@pytest.mark.parametrize("name", ON_FEATURES)
def test_one_class_and_one_picture_at_a_time(name, stream, tmp_path):
    features, labels = stream
    method = made(name, tmp_path)
    first = np.flatnonzero(labels == labels[0])
    method.learn(features[first], labels[first])
    classes, found = method.scores(features[:3])
    assert classes == (labels[0],)
    np.testing.assert_array_equal(found, np.ones((3, 1)))
    other = np.flatnonzero(labels != labels[0])[:1]
    method.learn(features[other], labels[other])
    classes, found = method.scores(features[other])
    assert np.isfinite(found).all()
    assert set(classes) == {labels[0], labels[other[0]]}
    method.close()


@pytest.mark.parametrize("name", ON_FEATURES)
def test_forgets_or_says_that_it_cannot(name, stream, tmp_path):
    features, labels = stream
    method = made(name, tmp_path)
    method.learn(features, labels)
    gone = labels == labels[0]
    try:
        method.forget(features[gone][:5], labels[gone][:5])
    except Unsupported as refusal:
        said = str(refusal)
        assert method.title in said
        return
    anew = made(name, tmp_path)
    kept = np.ones(len(labels), bool)
    kept[np.flatnonzero(gone)[:5]] = False
    anew.learn(features[kept], labels[kept])
    if name != "ridge":  # λ was chosen with the forgotten ones
        np.testing.assert_allclose(by_name(method, features), by_name(anew, features), atol=1e-9)
    assert method.digest() == anew.digest()


@pytest.mark.parametrize("name", [name for name in REGISTRY if name.startswith("retain")])
def test_ours_step_by_step_is_all_at_once(name, stream, tmp_path):
    """Digest and every probability, bit for bit, with corrections too."""
    kept, joint = made(name, tmp_path), made(name, tmp_path)
    for features, labels in lessons(stream, 30):
        kept.learn(features, labels)
    joint.learn(*stream)
    assert kept.digest() == joint.digest() != ""
    assert kept.scores(stream[0])[0] == joint.scores(stream[0])[0]
    np.testing.assert_array_equal(kept.scores(stream[0])[1], joint.scores(stream[0])[1])


def test_the_joint_method_is_the_living_one_at_every_step(stream, tmp_path):
    kept, joint = made("retain", tmp_path), made("retain-joint", tmp_path)
    for features, labels in lessons(stream, 20):
        for method in (kept, joint):
            method.learn(features, labels)
        assert kept.digest() == joint.digest()
        np.testing.assert_array_equal(kept.scores(stream[0])[1], joint.scores(stream[0])[1])
    wrong, told = stream[0][:1] * 0.5 + stream[0][60:61] * 0.5, np.array(["class 3"])
    for method in (kept, joint):
        method.correct(wrong, told)
        classes, found = method.scores(wrong)
        assert classes[found[0].argmax()] == "class 3"
        method.forget(*lessons(stream, 20)[1])
    assert kept.digest() == joint.digest()
    np.testing.assert_array_equal(kept.scores(stream[0])[1], joint.scores(stream[0])[1])


def test_without_river_the_install_line_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "river", None)
    monkeypatch.setitem(sys.modules, "river.linear_model", None)
    with pytest.raises(MissingExtra, match=r"pip install 'retain\[bench\]'"):
        make("river", D, 0, tmp_path)


def test_river_answers_as_river_does(stream, tmp_path):
    method = made("river", tmp_path)
    method.learn(*stream)
    classes, found = method.scores(stream[0][:5])
    for row, chances in zip(unit(stream[0][:5]), found, strict=True):
        there = method._model.predict_proba_one(dict(enumerate(row.tolist())))
        np.testing.assert_allclose(chances, [there[label] for label in classes], atol=1e-12)


def test_a_layer_that_grows_is_one_that_knew_its_classes(stream, tmp_path):
    """Rows of one-against-rest do not see each other: against scikit-learn told the future."""
    features, labels = stream
    method = made("sgd", tmp_path, passes=1)
    method.learn(features, labels)
    order = np.random.default_rng(0).permutation(len(labels))
    twin = SGDClassifier(loss="log_loss", random_state=0, shuffle=False)
    twin.partial_fit(unit(features)[order], labels[order], classes=np.unique(labels))
    classes, found = method.scores(features)
    there = twin.predict_proba(unit(features))
    np.testing.assert_allclose(found[:, np.argsort(classes)], there, atol=1e-9)


def test_neighbours_and_logistic_are_scikit_learns(stream, tmp_path):
    features, labels = stream
    knn = made("knn", tmp_path)
    knn.learn(features, labels)
    there = KNeighborsClassifier(knn._k, metric="cosine", weights="distance")
    asked = np.maximum(features + 0.1, 0)
    there.fit(unit(features), labels)
    np.testing.assert_allclose(knn.scores(asked)[1], there.predict_proba(unit(asked)), atol=1e-9)
    layer = made("joint", tmp_path)
    for part in (slice(0, 40), slice(40, 120)):
        layer.learn(features[part], labels[part])
    twin = LogisticRegression(C=layer._strength, tol=1e-4, max_iter=1000)
    twin.fit(unit(features), labels)
    np.testing.assert_allclose(layer.scores(asked)[1], twin.predict_proba(unit(asked)), atol=2e-3)


def test_a_ridge_that_rounding_cannot_see_is_raised():
    rows = np.random.default_rng(0).normal(0, 30, (5, 40)).astype(np.float32)
    found = solve_ridge(rows.T @ rows, rows.T @ np.eye(5, dtype=np.float32), 1e-8)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(rows @ found, np.eye(5), atol=1e-2)


def test_the_choice_of_the_ridge_is_that_of_solving_each():
    """Both ways of the eigendecomposition against a solve for every λ."""
    random = np.random.default_rng(3)
    for n, m in ((30, 50), (80, 12)):
        x = random.normal(0, 1, (n, m))
        y = np.eye(3)[(x[:, 0] > 0).astype(int) + (random.random(n) > 0.7)]
        cut = int(n * 0.8)
        losses = []
        for ridge in RIDGES:
            gram = x[:cut].T @ x[:cut] + ridge * np.eye(m)
            layer = np.linalg.solve(gram, x[:cut].T @ y[:cut])
            losses.append(np.mean((x[cut:] @ layer - y[cut:]) ** 2))
        assert chosen_ridge(x, y) == RIDGES[np.argmin(losses)]


def test_names_and_options_are_checked(tmp_path):
    with pytest.raises(BadOption, match="no method 'svm'"):
        make("svm", D, 0, tmp_path)
    with pytest.raises(BadOption, match="no option 'shrink'; it has shrinkage, base, normalise"):
        make("slda", D, 0, tmp_path, shrink=1)
    for name, method in REGISTRY.items():
        assert method.name == name
        assert method.title
        assert method.source
