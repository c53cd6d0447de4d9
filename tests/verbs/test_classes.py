import numpy as np
import pytest

import retain
from tests.verbs.conftest import cluster, fingerprint, taught


def test_classes_are_listed_with_their_counts(shop):
    given = taught(shop, "ant", "bee")
    shop.correct(given["ant"][0], "bee")
    assert [(c.label, c.images, c.pinned) for c in shop.classes()] == [("ant", 7, 0), ("bee", 9, 1)]


def test_a_renamed_class_is_the_class_under_another_name(shop, fresh):
    given = taught(shop, "ant", "bee")
    update = shop.rename("ant", "emmet")
    assert (update.new_classes, update.gone_classes) == (("emmet",), ("ant",))
    assert (update.worse, update.better, update.changed) == ((), (), ())
    told = fresh()
    told.learn(given["ant"], "emmet")
    told.learn(given["bee"], "bee")
    assert fingerprint(shop) == fingerprint(told)


def test_merged_classes_are_one(shop, fresh):
    given = taught(shop, "ant", "bee", "cat")
    shop.merge("ant", "bee")
    told = fresh()
    told.learn(given["ant"], "bee")
    told.learn(given["bee"], "bee")
    told.learn(given["cat"], "cat")
    assert shop.digest == told.digest
    assert shop.predict(given["ant"][:1])[0].label == "bee"


def test_an_old_name_can_be_used_again(shop):
    taught(shop, "ant", "bee")
    shop.rename("ant", "emmet")
    shop.learn(cluster("cat", 5), "ant")
    assert shop.labels == ("ant", "bee", "emmet")
    assert shop.verify().ok


@pytest.mark.parametrize(
    ("verb", "names", "error"),
    [
        ("rename", ("unicorn", "x"), retain.UnknownClass),
        ("rename", ("ant", "bee"), retain.BadLabel),
        ("rename", ("ant", "ant"), retain.BadLabel),
        ("rename", ("ant", " "), retain.BadLabel),
        ("merge", ("ant", "unicorn"), retain.UnknownClass),
        ("merge", ("unicorn", "ant"), retain.UnknownClass),
    ],
)
def test_impossible_names_are_refused(shop, verb, names, error):
    taught(shop, "ant", "bee")
    with pytest.raises(error):
        getattr(shop, verb)(*names)
    assert len(shop.log()) == 2


def test_of_many_classes_some_are_named_and_all_are_counted(shop):
    labels = [f"c{number}" for number in range(10)]
    shop.learn(np.concatenate([cluster(label, 2) for label in labels]), sorted([*labels, *labels]))
    for refused in (
        lambda: shop.rename("nope", "x"),
        lambda: shop.protect(labels="nope"),
        lambda: shop.forget(labels="nope"),
    ):
        with pytest.raises(retain.UnknownClass, match=r"'c0', .*'c7', … \(10 in all\)"):
            refused()
    shop.forget(labels=["c8", "c9"])
    with pytest.raises(retain.UnknownClass, match=r"'c7'$"):
        shop.rename("nope", "x")
