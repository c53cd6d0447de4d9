"""Pools: what is read, what is refused, and features that are computed once."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import retain
from retain.bench import find_pool, load_pool, make_stream
from retain.bench.corruptions import CORRUPTIONS, corrupt, parse_corruption
from retain.errors import BadImage, BadOption
from tests.bench.pool import small, write

SHIPPED = Path(retain.__file__).parent / "data" / "mini_clothing10" / "mini_clothing10_128_cc0.npz"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Sixteen real pictures of two classes, as an .npz like those of the shared data."""
    path = tmp_path_factory.mktemp("pictures") / "two.npz"
    with np.load(SHIPPED) as file:
        stored = {key: file[key] for key in file.files}
    rows = [
        row
        for label in (0, 1)
        for split, count in ((0, 5), (1, 3))
        for row in np.flatnonzero((stored["labels"] == label) & (stored["split"] == split))[:count]
    ]
    files = [stored["data"][stored["offsets"][r] : stored["offsets"][r + 1]] for r in rows]
    np.savez(
        path,
        data=np.concatenate(files),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=stored["labels"][rows],
        split=stored["split"][rows],
        split_names=stored["split_names"],
        classes=stored["classes"],
    )
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pool(pictures, cache):
    return load_pool(pictures, cache=cache)


def test_pictures(pool, pictures):
    assert pool.features.shape == (16, 1280)
    assert pool.features.dtype == np.float32
    assert pool.train.sum() == 10
    assert len(pool.classes) == 2
    assert Image.open(io.BytesIO(pool.images(0))).size
    from retain.vision import load_builtin

    extractor = load_builtin("efficientnet_lite0")
    assert pool.extractor == extractor.fingerprint
    for row in (0, 7, 15):
        assert np.array_equal(pool.features[row], extractor.feature(pool.images(row)))


def test_features_are_computed_once(pool, pictures, cache, monkeypatch):
    def never(*args, **options):
        raise AssertionError("computed again")

    monkeypatch.setattr("retain.bench.pools.extract_many", never)
    again = load_pool(pictures, cache=cache)
    assert np.array_equal(again.features, pool.features)
    assert again.digest == pool.digest
    with pytest.raises(AssertionError, match="computed again"):
        load_pool(pictures, cache=cache / "elsewhere")


@pytest.mark.parametrize("broken", [b"", b"\x93NUMPY", b"no array"])
def test_a_cache_that_is_not_whole_is_made_anew(pool, pictures, cache, tmp_path, broken):
    (kept,) = [each for each in cache.iterdir() if each.name.startswith("two.")]
    copy = tmp_path / kept.name
    copy.write_bytes(broken or kept.read_bytes()[:-7])
    assert np.array_equal(load_pool(pictures, cache=tmp_path).features, pool.features)
    assert copy.read_bytes() == kept.read_bytes()
    assert [each.name for each in tmp_path.iterdir()] == [kept.name]


def test_a_cache_of_other_pictures_is_not_taken(pool, pictures, cache, tmp_path):
    """The same name and number of pictures, but one is another: the name of the cache differs."""
    with np.load(pictures) as file:
        stored = {key: file[key] for key in file.files}
    first, second, third = stored["offsets"][:3]
    # The first two pictures change places: no byte more or less.
    data = stored["data"]
    stored["data"] = np.r_[data[second:third], data[first:second], data[third:]]
    stored["offsets"][1] = third - second
    other = tmp_path / "two.npz"
    np.savez(other, **stored)
    before = set(os.listdir(cache))
    assert load_pool(other, cache=cache).digest != pool.digest
    assert len(set(os.listdir(cache)) - before) == 1


def test_a_folder_with_what_is_no_picture(pool, tmp_path):
    place = tmp_path / "shop" / str(pool.labels[0])
    place.mkdir(parents=True)
    (place / "a.jpg").write_bytes(pool.images(0))
    (place / "notes.txt").write_text("hello")
    with pytest.raises(BadOption, match=r"notes\.txt cannot be used \(.*\); a benchmark needs"):
        load_pool(tmp_path / "shop", cache=tmp_path / "cache")
    (place / "more.txt").write_text("hello")
    with pytest.raises(BadOption, match=r"more\.txt cannot be used \(.*\), nor 1 more in "):
        load_pool(tmp_path / "shop", cache=tmp_path / "cache")


def test_a_folder_with_and_without_a_test_set(pool, tmp_path):
    for row in range(16):
        part = "train" if pool.train[row] else "test"
        place = tmp_path / "shop" / part / str(pool.labels[row]) / f"{row:02}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(pool.images(row))
    found = load_pool(tmp_path / "shop", cache=tmp_path / "cache")
    assert found.name == "shop"
    assert found.train.sum() == 10
    rows = {found.images(i): i for i in range(16)}
    for row in range(16):
        here = rows[pool.images(row)]
        assert found.labels[here] == pool.labels[row]
        assert found.train[here] == pool.train[row]
        assert np.array_equal(found.features[here], pool.features[row])
    flat = load_pool(shutil.copytree(tmp_path / "shop" / "train", tmp_path / "flat"),
                     cache=tmp_path / "cache")  # fmt: skip
    assert 0 < flat.train.sum() < 10
    again = load_pool(tmp_path / "flat", cache=tmp_path / "cache")
    assert flat.digest == again.digest
    (tmp_path / "flat" / str(pool.labels[0]) / "note.txt").write_text("x")
    with pytest.raises(BadOption, match=r"note\.txt cannot be used \(.*\); a benchmark needs"):
        load_pool(tmp_path / "flat")


def test_an_unreadable_picture_is_named(pictures, tmp_path):
    with np.load(pictures) as file:
        stored = {key: file[key] for key in file.files}
    stored["data"][stored["offsets"][3] : stored["offsets"][4]] = 0
    np.savez(tmp_path / "bad.npz", **stored)
    with pytest.raises(BadImage, match="picture 3 of bad cannot be read"):
        load_pool(tmp_path / "bad.npz", cache=tmp_path)


def test_vectors(tmp_path):
    pool = small(tmp_path, domains=3)
    assert pool.features.shape == (112, 6)
    assert pool.extractor == "vectors"
    assert pool.images is None
    assert set(pool.domains) == {"d0", "d1", "d2"}
    with pytest.raises(BadOption, match="cannot be corrupted"):
        load_pool(f"{tmp_path / 'small.npz'}+contrast:3")


def test_the_digest_covers_all_that_a_stream_depends_on(tmp_path):
    path = write(tmp_path / "small.npz", domains=3)
    with np.load(path) as file:
        stored = {key: file[key] for key in file.files}
    seen = {load_pool(path).digest}
    for key in ("features", "labels", "train", "domains"):
        changed = {name: value.copy() for name, value in stored.items()}
        changed[key][0] = {"features": 3, "train": not stored["train"][0]}.get(key, "x")
        np.savez(path, **changed)
        seen.add(load_pool(path).digest)
    assert len(seen) == 5
    # The same texts cut elsewhere are other labels.
    np.savez(path, **stored | {"labels": np.roll(stored["labels"], 1)})
    assert load_pool(path).digest not in seen


def test_what_is_no_pool_is_told(tmp_path):
    path = tmp_path / "p.npz"
    good = {"features": np.ones((4, 2)), "labels": np.array(list("abab")), "train": np.eye(4)[0]}
    cases = [
        ({"x": np.ones(3)}, "has the arrays x; give an .npz"),
        (good | {"features": np.ones((3, 2))}, "do not belong together"),
        (good | {"features": np.full((4, 2), np.nan)}, "finite"),
        (good | {"train": np.ones(4)}, "0 test pictures; a benchmark needs both"),
        (good | {"labels": np.array([{}] * 4, dtype=object)}, "cannot be read"),
    ]
    for arrays, said in cases:
        np.savez(path, **arrays)
        with pytest.raises(BadOption, match=said):
            load_pool(path)
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(BadOption, match="cannot be read"):
        load_pool(path)
    with pytest.raises(BadOption, match="there is no"):
        load_pool(tmp_path / "none.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadOption):
        load_pool(tmp_path / "empty")


def test_a_pool_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("RETAIN_DATA", str(tmp_path / "shared"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadOption, match="--pool PATH"):
        find_pool("small")
    (tmp_path / "shared" / "data").mkdir(parents=True)
    path = write(tmp_path / "shared" / "data" / "small.npz")
    assert find_pool("small") == str(path)
    assert find_pool("small+contrast:3") == f"{path}+contrast:3"
    near = write(tmp_path / "small.npz")
    assert find_pool("small", [tmp_path]) == str(near)


# -- corruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_the_same_every_time_and_worse_when_severe(pool, kind):
    data = pool.images(0)
    clean = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
    gaps = []
    for severity in range(1, 6):
        made = corrupt(data, f"{kind}:{severity}")
        assert made == corrupt(data, f"{kind}:{severity}")
        x = np.asarray(Image.open(io.BytesIO(made)), float)
        assert x.shape == clean.shape
        gaps.append(np.abs(x - clean).mean())
    assert gaps == sorted(gaps)
    assert gaps[0] > 0


def test_corrupted_pools_have_a_domain_for_each(pool, pictures, cache):
    found = load_pool(f"{pictures}+contrast:4+gaussian-noise:5", cache=cache)
    assert found.name == "two+contrast:4+gaussian-noise:5"
    assert (
        found.domains.tolist() == ["clean"] * 16 + ["contrast:4"] * 16 + ["gaussian-noise:5"] * 16
    )
    assert np.array_equal(found.features[:16], pool.features)
    assert not np.array_equal(found.features[16:32], pool.features)
    assert found.train.tolist() == 3 * pool.train.tolist()
    stream = make_stream("domain-shift", found, 0)
    assert set(found.domains[list(stream.steps[0].images)]) == {"clean"}
    assert len(stream.steps) == len(stream.tasks) == 3
    assert ":" not in stream.name


@pytest.mark.parametrize(
    "text", ["fog:3", "contrast", "contrast:0", "contrast:6", "contrast:x", ""]
)
def test_no_such_corruption(text):
    with pytest.raises(BadOption, match="there is no corruption"):
        parse_corruption(text)
