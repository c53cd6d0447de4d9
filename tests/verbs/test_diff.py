import numpy as np
import pytest

import retain
from tests.verbs.adopted import adopt, pictures
from tests.verbs.conftest import cluster, taught

LABELS = ("ant", "bee", "cat", "dog")


def mirrored(found):
    turn = lambda changes: {(c.image, c.after, c.before, c.label) for c in changes}  # noqa: E731
    return turn(found.better), turn(found.worse), turn(found.changed)


def plain(found):
    told = lambda changes: {(c.image, c.before, c.after, c.label) for c in changes}  # noqa: E731
    return told(found.worse), told(found.better), told(found.changed)


@pytest.fixture
def busy(shop):
    for label in LABELS:
        shop.learn(cluster(label, 15, spread=2.0), label, force=True)
    shop.correct(cluster("ant", 1, seed=5, spread=2.0)[0], "dog", force=True)
    shop.correct(cluster("bee", 1, seed=5, spread=2.0)[0], "cat", exception=True, force=True)
    shop.rename("bee", "wasp")
    shop.merge("dog", "cat")
    return shop


def test_a_version_beside_itself(busy):
    for n in (0, 1, 4, 6, 8, "latest"):
        found = busy.diff(n, n) if n else None
        if found:
            assert plain(found) == (set(), set(), set())
            assert found.new_classes == found.gone_classes == ()
            assert found.a == found.b


@pytest.mark.parametrize(("a", "b"), [(2, 3), (3, 5), (4, 6), (5, 7), (4, 8), (6, 8), (1, 8)])
def test_the_other_way_round(busy, a, b):
    one, other = busy.diff(a, b), busy.diff(b, a)
    assert mirrored(one) == plain(other)
    assert one.new_classes == other.gone_classes
    assert one.gone_classes == other.new_classes


def test_against_asking_each_version(busy):
    rows = np.concatenate([cluster(label, 15, spread=2.0) for label in LABELS[:2]])
    names = {"bee": "wasp", "dog": "cat"}
    said = {
        n: {p.image: names.get(p.label, p.label) for p in busy.predict(rows, version=n)}
        for n in (3, 6)
    }
    found = busy.diff(3, 6)
    told = {(c.image, c.before, c.after) for c in (*found.worse, *found.better, *found.changed)}
    mine = {(i, said[3][i], said[6][i]) for i in said[3] if said[3][i] != said[6][i]}
    assert mine <= told
    assert {one for one in told if one[0] in said[3]} == mine


def test_a_rename_alone_is_no_change(shop):
    taught(shop, *LABELS)
    shop.rename("bee", "wasp")
    for a, b in ((4, 5), (5, 4)):
        found = shop.diff(a, b)
        assert plain(found) == (set(), set(), set())
        assert found.new_classes == found.gone_classes == ()


def test_a_rename_taken_back_is_no_change(shop):
    taught(shop, *LABELS)
    shop.rename("bee", "wasp")
    shop.rename("ant", "mite")
    shop.undo(5)
    for a in range(4, 8):
        for b in range(4, 8):
            found = shop.diff(a, b)
            assert plain(found) == (set(), set(), set()), (a, b)
            assert found.new_classes == found.gone_classes == (), (a, b)


def test_names_that_change_places(shop):
    taught(shop, "ant", "bee", "cat")
    shop.rename("ant", "x")
    shop.rename("bee", "ant")
    shop.rename("x", "bee")
    for a, b in ((3, 6), (6, 3), (4, 5), (5, 3)):
        found = shop.diff(a, b)
        assert plain(found) == (set(), set(), set()), (a, b)
        assert found.new_classes == found.gone_classes == ()


def test_from_nothing(shop):
    taught(shop, *LABELS)
    found = shop.diff(0, 2)
    assert found.new_classes == ("ant", "bee")
    assert plain(found) == (set(), set(), set())
    with pytest.raises(retain.NothingLearned):
        shop.diff(2, 0)


def test_nothing_is_remembered(shop):
    taught(shop, "ant")
    shop.forget(labels="ant", force=True)
    found = shop.diff(1, 2)
    assert found.judged == 0


def test_of_an_adopted_classifier(tmp_path):
    with adopt(tmp_path, reference=pictures(40)) as mine:
        mine.learn(pictures(10, tint=1), "elk", force=True)
        mine.rename("ant", "formica")
        found = mine.diff(1, 3)
        assert found.new_classes == ("elk",)
        assert found.gone_classes == ()
        assert found.judged == 10
        assert mirrored(found) == plain(mine.diff(3, 1))
