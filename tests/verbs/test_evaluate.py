import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

import retain
from tests.verbs.conftest import cluster, taught

LABELS = ["ant", "bee", "cat"]


def test_the_figures_are_scikit_learns(shop):
    taught(shop, *LABELS)
    rows = np.concatenate(
        [cluster(x, n, seed=3, spread=1.6) for x, n in zip(LABELS, (30, 20, 5), strict=True)]
    )
    truth = ["ant"] * 30 + ["bee"] * 20 + ["cat"] * 5
    report = shop.evaluate(rows, truth)
    answers = shop.predict(rows, top=3)
    said = [a.label for a in answers]
    probabilities = [
        [next(s.probability for s in a.top if s.label == label) for label in LABELS]
        for a in answers
    ]
    assert report.n == 55
    assert report.accuracy == pytest.approx(accuracy_score(truth, said))
    assert report.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, said))
    assert report.negative_log_likelihood == pytest.approx(log_loss(truth, probabilities))
    assert sum(sum(row.values()) for row in report.confusion.values()) == 55
    assert len(report.mistakes) == sum(a != b for a, b in zip(said, truth, strict=True))
    assert report.per_class["cat"].n == 5


def test_remembered_pictures_are_counted(shop):
    given = taught(shop, *LABELS)
    report = shop.evaluate(np.concatenate([given["ant"], cluster("ant", 2, seed=9)]), "ant")
    assert (report.n, report.remembered) == (10, 8)


def test_a_class_nobody_taught_is_wrong_and_named(shop):
    taught(shop, *LABELS)
    report = shop.evaluate(cluster("yak", 4), "yak")
    assert (report.accuracy, report.unknown_classes) == (0.0, ("yak",))


def test_nothing_learned_yet(shop):
    with pytest.raises(retain.NothingLearned):
        shop.evaluate(cluster("ant", 2), "ant")


def test_evaluating_changes_nothing(shop):
    taught(shop, *LABELS)
    before = shop.digest
    shop.evaluate(cluster("ant", 5, seed=2), "ant")
    assert shop.digest == before
    assert len(shop.samples()) == 24
