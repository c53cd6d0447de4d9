from fractions import Fraction

import numpy as np
import pytest

import retain
from retain.algebra import quantize
from tests.verbs.adopted import adopt, pictures
from tests.verbs.conftest import cluster, taught, wrong_one

LABELS = ("ant", "bee", "cat", "dog")


@pytest.fixture
def known(shop):
    taught(shop, *LABELS, n=12)
    return shop


def test_it_explains_what_predict_answers(known):
    for row in cluster("ant", 5, seed=3, spread=1.5):
        found = known.explain(row)
        answer = known.predict(row[None], top=4)[0]
        assert found.prediction.label == answer.label
        assert found.scores == answer.top
        assert found.runner_up == answer.top[1].label
        p, q = (score.probability for score in answer.top[:2])
        assert found.margin == pytest.approx(np.log(p / q))


def test_the_neighbours_are_the_nearest_by_brute_force(known):
    row = cluster("bee", 1, seed=4)[0]
    found = known.explain(row, neighbours=7)
    rows = np.concatenate([cluster(label, 12) for label in LABELS])
    cosines = rows @ row / np.linalg.norm(rows, axis=1) / np.linalg.norm(row)
    order = np.argsort(-cosines)[:7]
    images = [p.image for p in known.predict(rows)]
    assert [n.image for n in found.neighbours] == [images[i] for i in order]
    np.testing.assert_allclose([n.similarity for n in found.neighbours], cosines[order], atol=1e-3)
    assert {n.event for n in found.neighbours} <= {1, 2, 3, 4}


def test_a_remembered_picture_is_not_its_own_neighbour(known):
    image = known.samples()[0].image
    found = known.explain(image)
    assert found.prediction.remembered
    assert image not in {n.image for n in found.neighbours}
    assert len(known.explain(image, neighbours=1000).neighbours) == 47
    assert known.explain(image, neighbours=0, remedies=0).remedies == ()


def test_a_remedy_is_what_correcting_would_do(known):
    row, _ = wrong_one(known, LABELS)
    for remedy in known.explain(row, remedies=3).remedies:
        said = known.correct(row, remedy.label, dry_run=True, force=True)
        how = said.corrected[0]
        assert remedy.how == ("exception" if how.exception else "pin" if how.pinned else "learn")
        assert remedy.worse == len(said.worse)


def test_it_names_the_exception_that_answers(known):
    row = cluster("ant", 1)[0]
    known.correct(row, "dog", exception=True)
    image = known.predict(row[None])[0].image
    assert known.explain(row).because == image
    assert known.explain(cluster("cat", 1, seed=3)[0]).because is None


def test_it_writes_nothing(known):
    before = (known.path / "journal.db").read_bytes()
    known.explain(cluster("ant", 1, seed=3)[0], remedies=3)
    assert (known.path / "journal.db").read_bytes() == before


def test_one_class_has_no_runner_up(shop):
    taught(shop, "ant", n=3)
    found = shop.explain(cluster("ant", 1, seed=2)[0])
    assert (found.runner_up, found.margin, found.remedies) == (None, None, ())


def test_nothing_to_explain(shop):
    with pytest.raises(retain.NothingLearned):
        shop.explain(cluster("ant", 1)[0])
    taught(shop, "ant")
    with pytest.raises(retain.UnknownImage):
        shop.explain("nobody.jpg")


def test_of_an_adopted_classifier(tmp_path):
    with adopt(tmp_path, reference=pictures(20)) as mine:
        found = mine.explain(pictures(1, seed=4)[0])
        assert found.neighbours == ()
        assert found.view is not None
        assert found.view.shape[2] == 3
        mine.learn(pictures(6, tint=1), "elk", force=True)
        assert {n.label for n in mine.explain(pictures(1, seed=4)[0]).neighbours} == {"elk"}
        assert len(mine.explain(mine.samples()[0].image).scores) == 5


def test_those_that_are_almost_equally_near_come_in_the_right_order(fresh):
    """The quick look that comes first must not lose one of them; equals come in order of hash."""
    chance = np.random.default_rng(0)
    near = np.ones(12) + chance.normal(size=(300, 12)) * 3e-4
    rows = np.concatenate([near, 2 * near[:20], chance.normal(size=(80, 12))]).astype("f4")
    shop = fresh()
    shop.learn(rows[::2], "ant", force=True)
    shop.learn(rows[1::2], "bee", force=True)
    images = np.array([each.image for each in shop.predict(rows)])
    fixed = quantize(rows)[0].astype(object)
    for row in (np.ones(12, "f4"), near[7].astype("f4") * 3):
        asked = quantize(row[None])[0][0].astype(object)
        dots, lengths = fixed @ asked, (fixed * fixed).sum(axis=1)
        # Exactly: the order of the cosines is that of dot·|dot| / length².
        share = [
            Fraction(int(dot) * abs(int(dot)), int(n)) for dot, n in zip(dots, lengths, strict=True)
        ]
        own = shop.predict(row[None])[0].image
        order = sorted(range(len(rows)), key=lambda i: (-share[i], images[i]))
        wanted = [images[i] for i in order if images[i] != own][:25]
        (found,) = shop.similar(row[None], count=25)
        assert [each.image for each in found] == wanted
