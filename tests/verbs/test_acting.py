"""Who made a change is in the journal, for every verb that changes something."""

import threading

import numpy as np

import retain
from retain.suggesting import _latest
from tests.verbs.conftest import cluster, taught


def test_every_change_bears_a_name(shop):
    taught(shop, "ant", "bee")
    name = shop.samples()[0].image
    with shop.acting("anna"):
        shop.correct(cluster("cow", 1)[0], "cow")
        shop.undo()
        shop.protect(labels="ant")
        shop.gate(regressions=0.5)
        shop.promote()
        shop.rename("bee", "wasp")
        shop.forget(name, force=True)
    shop.learn(cluster("dog", 3), "dog")
    assert [event.actor for event in shop.log()] == [None] * 2 + ["anna"] * 7 + [None]
    assert shop.show(3).event.actor == "anna"
    assert retain.to_json(shop.log()[2])["actor"] == "anna"


def test_a_name_is_of_its_own_thread(shop):
    taught(shop, "ant")
    inside, done = threading.Event(), threading.Event()

    def other():
        with shop.acting("bob"):
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    shop.learn(cluster("bee", 3), "bee")
    done.set()
    thread.join()
    assert shop.log()[-1].actor is None


def test_a_name_outlives_reopening_and_packing(shop, tmp_path):
    with shop.acting("anna"):
        taught(shop, "ant")
    shop.pack(tmp_path / "p.retain")
    with retain.unpack(tmp_path / "p.retain", tmp_path / "again") as again:
        assert again.log()[0].actor == "anna"


def test_similar_advise_and_suggest(shop):
    given = taught(shop, "ant", "bee", "cow", n=10)
    near = shop.similar(given["ant"][:2], count=3)
    assert [len(each) for each in near] == [3, 3]
    for row, each in zip(given["ant"], near, strict=False):
        unit = {s.image: s for s in shop.samples()}
        assert all(neighbour.image in unit for neighbour in each)
        scores = [n.similarity for n in each]
        assert scores == sorted(scores, reverse=True)
        assert shop.explain(row, neighbours=3, remedies=0).neighbours == each
    pool = cluster("xx", 5, spread=0.1) * 3
    assert [each.size for each in shop.cluster(pool, count=1)] == [5]
    first = shop.suggest(pool, count=2)
    assert first[0].stands_for >= 4
    assert shop.cluster([]) == []
    assert shop.suggest([]) == []


def test_coverage_looks_at_what_was_taught_last(shop, monkeypatch):
    """Also in a classifier that was closed since, whose members come by their names."""
    monkeypatch.setattr("retain.suggesting._MOST", 9)
    for label in ("ant", "bee", "cat"):
        shop.learn(cluster(label, 30), label, force=True)
    with retain.open(shop.path) as again:
        samples = again._session.state.samples
        chosen = [samples[i] for i in _latest(samples)]
        assert {sample.label for sample in chosen} == {"cat"}
        cats = sorted(sample.image for sample in samples if sample.label == "cat")
        assert [sample.image for sample in chosen] == cats[-9:]
        asked = np.concatenate([cluster("ant", 3, seed=5), cluster("cat", 3, seed=5)])
        (first,) = again.suggest(asked, count=1)
        assert first.image in {p.image for p in again.predict(asked[:3])}
