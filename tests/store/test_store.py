"""One process, nothing going wrong: what the store's methods promise."""

from dataclasses import replace

import numpy as np
import pytest

from retain.errors import (
    AlreadyExists,
    BadOption,
    CannotUndo,
    NotAClassifier,
    RetainError,
    UnknownEvent,
    UnknownImage,
)
from retain.store import Assertion, Store, writing
from tests.store.conftest import (
    ALL_TRACES,
    EXTRACTOR,
    D,
    everything,
    labels,
    learn,
    manifest,
    picture,
    traces,
)


def test_create_then_open(path):
    with Store.create(path, manifest(options={"head": "cosine"}), EXTRACTOR) as made:
        assert made.head_event() == 0
        assert made.members() == made.events() == []
        assert made.features(None)[1].shape == (0, D)
    with Store.open(path) as again:
        assert again.manifest.options == {"head": "cosine"}
        assert {p.name for p in again.extractor_dir.iterdir()} == set(EXTRACTOR)
        assert (again.extractor_dir / "features.onnx").read_bytes() == b"a graph"
        assert again.check() == ([], [])


@pytest.mark.parametrize("breaks", ["connect", "sync_folder", "write_whole"])
def test_create_is_all_or_nothing(path, monkeypatch, breaks):
    def fail(*_args, **_more):
        raise RuntimeError("the power went")

    monkeypatch.setattr(writing, breaks, fail)
    with pytest.raises(RuntimeError):
        Store.create(path, manifest(), EXTRACTOR)
    assert list(path.parent.iterdir()) == []
    monkeypatch.undo()
    Store.create(path, manifest(), EXTRACTOR).close()


def test_create_only_where_nothing_is(path, tmp_path):
    path.mkdir()
    Store.create(path, manifest(), EXTRACTOR).close()  # an empty directory will do
    before = everything(path)
    with pytest.raises(AlreadyExists, match="is a classifier already"):
        Store.create(path, manifest(), EXTRACTOR)
    assert everything(path) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"")
    with pytest.raises(AlreadyExists, match="not empty"):
        Store.create(tmp_path / "full", manifest(), EXTRACTOR)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in (tmp_path / "full" / "x", tmp_path / "link"):
        with pytest.raises(AlreadyExists, match="not a directory"):
            Store.create(taken, manifest(), EXTRACTOR)


def test_open_what_is_none(tmp_path):
    with pytest.raises(NotAClassifier, match="does not exist"):
        Store.open(tmp_path / "nowhere")
    with pytest.raises(NotAClassifier, match="holds no classifier"):
        Store.open(tmp_path)
    with pytest.raises(BadOption, match="'statistics'"):
        manifest(memory="statistics")


def test_events_and_members(store):
    a, b, c = (picture(n) for n in range(3))
    assert learn(store, [0, 1]) == 1
    assert learn(store, [2], "cup") == 2
    assert learn(store, [0], "cup", kind="correct", pinned=True) == 3
    assert labels(store) == {a.image: "cup", b.image: "mug", c.image: "cup"}
    assert [s.image for s in store.members()] == sorted([a.image, b.image, c.image])
    assert store.member(a.image).pinned
    assert store.member(a.image).event == 3
    assert store.history(a.image) == [(1, "mug"), (3, "cup")]
    assert [(e.event, e.kind, e.images) for e in store.events()] == [
        (1, "learn", 2),
        (2, "learn", 1),
        (3, "correct", 1),
    ]
    assert [s.label for s in store.assertions(1)] == ["mug", "mug"]
    assert store.plan().lesson == {a.image: "mug", b.image: "mug", c.image: "cup"}
    with pytest.raises(UnknownEvent, match="1 to 3"):
        store.event(4)


def test_features_are_the_very_integers(store):
    learn(store, range(5))
    names, vectors, norms = store.features(None)
    assert names == sorted(picture(n).image for n in range(5))
    for n in range(5):
        row = names.index(picture(n).image)
        assert np.array_equal(vectors[row], picture(n).feature)
        assert norms[row] == 2.5
        assert store.blob(picture(n).image) == picture(n).data
    assert store.features(["sha256:00", picture(3).image])[0] == [picture(3).image]
    assert store.feature("no hash at all") is None
    with pytest.raises(UnknownImage):
        store.blob(picture(9).image)


def test_more_pictures_than_one_statement_takes(store):
    new = [replace(picture(n), data=None) for n in range(2000)]
    with store.writing("learn"):
        store.append("learn", [Assertion(each.image, "mug") for each in new], new_images=new)
    assert len(store.features([picture(n).image for n in range(2000)])[0]) == 2000
    with store.writing("forget"):
        store.forget([picture(n).image for n in range(1, 2000)])
    assert labels(store) == {picture(0).image: "mug"}


def test_find_by_hash_prefix_and_source(store):
    learn(store, range(3))
    new = picture(1)
    digits = new.image.removeprefix("sha256:")
    for name in (new.image, digits, digits.upper(), digits[:6], digits[:7], new.source):
        assert [s.image for s in store.find(name)] == [new.image]
    assert store.find(digits[:5]) == store.find("") == store.find("%") == []
    with store.writing("undo"):
        store.append("undo", target=1)
    assert store.find(digits) == []
    assert [s.image for s in store.find(digits, kept=True)] == [new.image]


def test_undo_and_its_preview_agree(store):
    learn(store, [0, 1])
    learn(store, [1, 2], "cup")
    for target in (1, 3, 2, None):
        plan = store.preview("undo", target=target)
        with store.writing("undo"):
            store.append("undo", target=target)
        assert tuple(store.members()) == plan.members
        assert store.plan().lesson == plan.lesson
        assert store.check() == ([], [])
    # A plain undo took back event 1, the last that counted; now there is none.
    assert labels(store) == {}
    with store.writing("undo"), pytest.raises(CannotUndo, match="nothing to undo"):
        store.append("undo")


def test_rename_and_its_preview_agree(store):
    learn(store, [0, 1])
    learn(store, [2], "cup")
    detail = {"old": "mug", "new": "cup"}
    plan = store.preview("merge", detail=detail)
    with store.writing("merge"):
        store.append("merge", detail=detail)
    assert tuple(store.members()) == plan.members
    assert set(labels(store).values()) == {"cup"}
    assert set(store.plan().lesson.values()) == {"cup"}


def test_an_event_that_fails_leaves_nothing(store):
    learn(store, [0])
    new = picture(1)
    twice = [Assertion(new.image, "a"), Assertion(new.image, "b")]
    with store.writing("learn"), pytest.raises(RetainError):
        store.append("learn", twice, new_images=[new])
    assert store.head_event() == 1
    assert store.member(new.image) is None
    assert new.image not in store.known()
    with store.writing("undo"), pytest.raises(UnknownEvent):
        store.append("undo", target=7)
    assert store.head_event() == 1
    assert store.check()[0] == []


def test_forget_leaves_no_trace(store, path):
    learn(store, range(6))
    learn(store, [1], "cup", kind="correct", pinned=True)
    gone, stays = picture(1), picture(2)
    with store.writing("learn"):
        store.put_tuning("sha256:key", {"shrinkage": 0.5})
    assert traces(path, gone) >= ALL_TRACES - {"hash"}
    plan = store.preview(without=[gone.image])
    with store.writing("forget"):
        number, erased = store.forget([gone.image])
    assert number == 3
    assert erased == len(gone.data) + 2 * D
    assert traces(path, gone) == set()
    assert traces(path, stays) >= ALL_TRACES - {"hash"}
    assert tuple(store.members()) == plan.members
    assert store.get_tuning("sha256:key") is None
    assert store.history(gone.image) == store.find(gone.source, kept=True) == []
    assert store.check() == ([], [])


def test_forgotten_pictures_can_be_learned_again(store, path):
    learn(store, range(3))
    with store.writing("forget"):
        store.forget([picture(0).image])
    learn(store, [0], "cup")
    assert labels(store)[picture(0).image] == "cup"
    assert store.blob(picture(0).image) == picture(0).data
    assert store.check() == ([], [])


def test_forget_erases_what_only_an_undone_event_speaks_of(store, path):
    learn(store, [0])
    learn(store, [1])
    with store.writing("undo"):
        store.append("undo", target=1)
    with store.writing("forget"):
        store.forget([picture(0).image])
    assert traces(path, picture(0)) == set()
    assert store.events()[0].summary == "learned pictures since forgotten"


def test_features_mode_keeps_no_bytes(path):
    with Store.create(path, manifest(memory="features"), EXTRACTOR) as store:
        new = replace(picture(0), data=None)
        with store.writing("learn"):
            store.append("learn", [Assertion(new.image, "mug")], new_images=[new])
        assert traces(path, picture(0)) == {"feature", "raw hash", "name"}
        with store.writing("forget"):
            store.forget([new.image])
        assert traces(path, picture(0)) == set()
        assert store.check() == ([], [])


def test_staged_pictures_wait_and_are_swept(store, path):
    with store.writing("learn"):
        store.stage([picture(0), picture(1)])
    store.close()
    with Store.open(path) as again:
        assert again.known() == {picture(0).image, picture(1).image}
        assert again.members() == again.events() == []
        assert again.check() == ([], [])
        learn(again, [0])
        with again.writing("learn"):
            again.sweep_staged()
        assert again.known() == set(labels(again)) == {picture(0).image}
        assert traces(path, picture(1)) == set()
        assert again.check() == ([], [])


def test_forget_takes_what_a_killed_writer_left(store, path):
    learn(store, [0])
    with store.writing("learn"):
        store.stage([picture(1)])
    store._keep_bytes([picture(2)])  # killed before any row spoke of it
    half = store._blobs.path(picture(3).image)
    half.parent.mkdir(exist_ok=True)
    half.with_name(f".{half.name}.77.tmp").write_bytes(picture(3).data[:60])
    assert "belong to no picture" in store.check()[1][0]
    with store.writing("forget"):
        store.forget([picture(0).image])
    assert [p for p in everything(path) if "blobs" in p.parts] == []
    assert all(traces(path, picture(n)) == set() for n in range(4))


def test_caches_come_back_or_not_at_all(store, path):
    arrays = {"weights": np.arange(6.0).reshape(2, 3)}
    store.write_cache("head", arrays, {"mind": "{}"})
    found, meta = store.read_cache("head")
    assert np.array_equal(found["weights"], arrays["weights"])
    assert meta == {"mind": "{}"}
    file = path / "versions" / "head.safetensors"
    for bad in (b"", b"\xff" * 50, file.read_bytes()[:-5]):
        file.write_bytes(bad)
        assert store.read_cache("head") is None
    store.clear_caches()
    assert store.read_cache("head") is None
    store.write_cache("head", arrays, {})
    assert store.read_cache("head") is not None


def test_odd_names_and_labels(store):
    new = picture(0)
    label = "a/b'\"\n🙂;DROP TABLE events" + "x" * 900
    odd = type(new)(new.image, "caf\udce9.jpg", new.data, new.feature, 1.0)
    with store.writing("learn"):
        store.append("learn", [Assertion(new.image, label)], new_images=[odd])
    assert store.members()[0].label == label
    assert [s.image for s in store.find("caf\udce9.jpg")] == [new.image]
