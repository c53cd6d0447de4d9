import json
import sqlite3

import pytest

import retain
from tests.verbs.conftest import taught


def test_a_sound_classifier(shop):
    taught(shop, "ant", "bee")
    found = shop.verify(deep=True)
    assert (found.ok, found.problems, found.images, found.events) == (True, (), 16, 2)
    assert found.digest == shop.digest


def a_blob(path):
    return next(p for p in (path / "blobs").rglob("*") if p.is_file())


def truncate_blob(path):
    a_blob(path).write_bytes(b"short")


def remove_blob(path):
    a_blob(path).unlink()


def flip_label(path):
    with sqlite3.connect(path / "journal.db") as db:
        db.execute("UPDATE members SET label='cat' WHERE rowid=(SELECT min(rowid) FROM members)")


def flip_feature(path):
    with sqlite3.connect(path / "journal.db") as db:
        db.execute("UPDATE features SET vector=zeroblob(length(vector))")


def damage_extractor(path):
    target = next((path / "extractors").rglob("*.json"))
    target.write_text(json.dumps({"changed": True}))


@pytest.mark.parametrize(
    "harm", [truncate_blob, remove_blob, flip_label, flip_feature, damage_extractor]
)
def test_harm_is_found_and_named(shop, harm):
    taught(shop, "ant", "bee")
    path = shop.path
    shop.close()
    harm(path)
    with retain.open(path) as again:
        found = again.verify(deep=True)
    assert not found.ok
    assert found.problems
    assert all(isinstance(problem, str) and len(problem) > 10 for problem in found.problems)


@pytest.mark.parametrize("name", ["head.safetensors", "statistics.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 100, None])
def test_caches_may_be_lost_at_any_time(shop, name, content):
    given = taught(shop, "ant", "bee")
    before, said = shop.digest, list(shop.predict(given["ant"]))
    path = shop.path
    shop.close()
    target = path / "versions" / name
    assert target.exists()
    target.unlink() if content is None else target.write_bytes(content)
    with retain.open(path) as again:
        assert list(again.predict(given["ant"])) == said
        assert again.digest == before
        assert again.verify().ok


def test_deep_says_where_there_is_nothing_to_look_at_again(fresh):
    for memory, said in (("features", 1), ("images", 0)):
        shop = fresh(memory=memory)
        taught(shop, "ant", "bee")
        found = shop.verify(deep=True)
        assert found.ok
        assert len(found.notes) == said
        assert all("no feature was computed again" in note for note in found.notes)
        assert shop.verify().notes == ()
