"""Every method on one small stream: what all of them owe, and what single ones promise."""

from __future__ import annotations

import numpy as np
import pytest

from retain.bench.methods import REGISTRY, Unsupported, make
from retain.errors import BadOption, NothingLearned

D = 24
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
    except ImportError as error:
        pytest.skip(str(error))


def by_name(method, features):
    """The probabilities with the classes in the order of their names."""
    classes, found = method.scores(features)
    return found[:, np.argsort(classes)]


@pytest.mark.parametrize("name", REGISTRY)
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
        assert (said == labels).mean() > 0.8
        assert method.stored_bytes() > 0
    method.close()


@pytest.mark.parametrize("name", REGISTRY)
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


@pytest.mark.parametrize("name", REGISTRY)
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


def test_names_and_options_are_checked(tmp_path):
    with pytest.raises(BadOption, match="no method 'svm'"):
        make("svm", D, 0, tmp_path)
    with pytest.raises(BadOption, match="no option 'shrink'; it has shrinkage, base, normalise"):
        make("slda", D, 0, tmp_path, shrink=1)
    for name, method in REGISTRY.items():
        assert method.name == name
        assert method.title
        assert method.source
