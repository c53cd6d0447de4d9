import numpy as np
import pytest

import retain
from tests.verbs.conftest import cluster, taught


def test_probabilities_are_probabilities(shop):
    taught(shop, "ant", "bee", "cat")
    for answer in shop.predict(cluster("bee", 10, seed=2), top=3):
        assert answer.top[0].label == answer.label
        assert answer.top[0].probability == answer.probability
        assert sum(s.probability for s in answer.top) == pytest.approx(1)
        assert list(answer.top) == sorted(answer.top, key=lambda s: -s.probability)


def test_top_limits_the_list(shop):
    taught(shop, "ant", "bee", "cat")
    assert len(shop.predict(cluster("bee", 1), top=2)[0].top) == 2
    assert len(shop.predict(cluster("bee", 1), top=99)[0].top) == 3


def test_one_class_is_certain(shop):
    taught(shop, "ant")
    answer = shop.predict(cluster("bee", 1))[0]
    assert (answer.label, answer.probability) == ("ant", 1.0)


def test_what_is_far_from_everything_is_less_typical(shop):
    labels = ("ant", "bee", "cat", "dog", "elk")
    taught(shop, *labels, n=30)
    near = shop.predict(np.concatenate([cluster(x, 50, seed=5) for x in labels]))
    far = shop.predict(np.concatenate([cluster(x, 50, seed=5) for x in ("yak", "gnu", "owl")]))
    assert np.mean([a.unknown for a in near]) < 0.12
    typical = np.array([a.typicality for a in near])
    odd = np.array([a.typicality for a in far])
    assert (typical[:, None] > odd).mean() > 0.6
    for answer in [*near, *far]:
        assert answer.unknown == (answer.typicality < 0.05)


def test_predicting_writes_nothing(shop, tmp_path):
    taught(shop, "ant", "bee")

    def snapshot():
        return {
            p.relative_to(shop.path): p.read_bytes() for p in shop.path.rglob("*") if p.is_file()
        }

    before = snapshot()
    shop.predict(cluster("ant", 5, seed=9))
    after = snapshot()
    assert {k: v for k, v in before.items() if "-shm" not in k.name} == {
        k: v for k, v in after.items() if "-shm" not in k.name
    }


def test_remembered_pictures_are_known_by_their_bytes(shop):
    given = taught(shop, "ant", "bee")
    assert shop.predict(given["ant"][:1])[0].remembered
    assert not shop.predict(cluster("ant", 1, seed=8))[0].remembered


def test_an_answer_does_not_depend_on_its_neighbours(shop):
    taught(shop, "ant", "bee", "cat")
    rows = cluster("bee", 20, seed=3, spread=2.0)
    together = list(shop.predict(rows))
    assert together == [
        retain.Prediction(
            **{
                f: getattr(shop.predict(rows[i : i + 1])[0], f)
                for f in retain.Prediction.__slots__
                if f != "path"
            },
            path=together[i].path,
        )
        for i in range(20)
    ]


def test_reopening_answers_the_same(shop):
    taught(shop, "ant", "bee", "cat")
    rows = cluster("bee", 20, seed=3, spread=2.0)
    before = list(shop.predict(rows))
    with retain.open(shop.path) as again:
        assert list(again.predict(rows)) == before


def test_urls_are_refused(shop):
    taught(shop, "ant", "bee")
    with pytest.raises(retain.InputError, match="download"):
        shop.predict("https://example.org/cat.jpg")
