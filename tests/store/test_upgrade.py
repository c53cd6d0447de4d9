"""A journal of version 1, made by the statements of its day, is brought up to date."""

import hashlib
import sqlite3

import numpy as np
import pytest

import retain
from retain.errors import NewerFormat
from retain.store import Store, schema
from retain.store.lock import exclusive
from tests.store.conftest import EXTRACTOR, D, everything, labels, learn, manifest, picture, traces

# Never to be changed: this is what was written when the version was 1.
VERSION_1 = """
CREATE TABLE events (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, at TEXT NOT NULL,
    target INTEGER, detail TEXT NOT NULL, actor TEXT, FOREIGN KEY(target) REFERENCES events (id)
);
CREATE TABLE images (
    id INTEGER NOT NULL, hash BLOB NOT NULL, source TEXT NOT NULL, staged INTEGER NOT NULL,
    PRIMARY KEY (id), UNIQUE (hash)
);
CREATE TABLE tunings ("key" TEXT NOT NULL, numbers TEXT NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE erasures (hash BLOB NOT NULL, PRIMARY KEY (hash));
CREATE TABLE assertions (
    event INTEGER NOT NULL, image INTEGER NOT NULL, label TEXT NOT NULL, pinned INTEGER NOT NULL,
    PRIMARY KEY (event, image),
    FOREIGN KEY(event) REFERENCES events (id), FOREIGN KEY(image) REFERENCES images (id)
) WITHOUT ROWID;
CREATE INDEX ix_assertions_image ON assertions (image);
CREATE TABLE members (
    image INTEGER NOT NULL, label TEXT NOT NULL, pinned INTEGER NOT NULL, event INTEGER NOT NULL,
    PRIMARY KEY (image),
    FOREIGN KEY(image) REFERENCES images (id), FOREIGN KEY(event) REFERENCES events (id)
);
CREATE TABLE features (
    image INTEGER NOT NULL, norm BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (image),
    FOREIGN KEY(image) REFERENCES images (id)
);
CREATE INDEX images_staged ON images (id) WHERE staged = 1;
CREATE INDEX images_source ON images (source);
INSERT INTO events VALUES (1, 'learn', '2026-01-02T03:04:05.678+00:00', NULL, '{}', NULL);
PRAGMA user_version = 1;
"""
COUNT = 1203  # more than are brought up to date at once


@pytest.fixture
def old(path):
    """The directory of version 1; of its pictures only the first three keep their bytes."""
    (path / "blobs").mkdir(parents=True)
    (path / "versions").mkdir()
    manifest(memory="features").write(path)
    extractor = path / "extractors" / "eyes-1"
    extractor.mkdir(parents=True)
    for name, data in EXTRACTOR.items():
        (extractor / name).write_bytes(data)
    connection = sqlite3.connect(path / "journal.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(VERSION_1)
    connection.execute("BEGIN")
    for number in range(COUNT):
        new = picture(number)
        row, digest = 2 * number + 7, bytes.fromhex(new.image.removeprefix("sha256:"))
        vector, norm = new.feature.astype("<i2").tobytes(), np.float32(2.5).tobytes()
        connection.execute("INSERT INTO images VALUES (?, ?, ?, 0)", (row, digest, new.source))
        connection.execute("INSERT INTO assertions VALUES (1, ?, 'mug', 0)", (row,))
        connection.execute("INSERT INTO members VALUES (?, 'mug', 0, 1)", (row,))
        connection.execute("INSERT INTO features VALUES (?, ?, ?)", (row, norm, vector))
    connection.execute("COMMIT")
    connection.close()
    return path


def raw(path, statement, *parameters):
    connection = sqlite3.connect(path / "journal.db")
    with connection:
        found = connection.execute(statement, parameters).fetchall()
    connection.close()
    return found


def version(path):
    return raw(path, "PRAGMA user_version")[0][0]


def check_everything(store):
    assert labels(store) == {picture(n).image: "mug" for n in range(COUNT)}
    names, vectors, norms = store.features(None)
    for n in (0, 1, COUNT - 1):
        row = names.index(picture(n).image)
        assert np.array_equal(vectors[row], picture(n).feature)
        assert norms[row] == 2.5
    assert store.events()[0].at == "2026-01-02T03:04:05.678+00:00"


def test_an_old_journal_is_brought_up_to_date_when_it_is_opened(old):
    assert version(old) == 1
    with Store.open(old) as store:
        check_everything(store)
        assert store.check() == ([], [])
        learn(store, [COUNT])
        with store.writing("undo"):
            store.append("undo")
        with store.writing("forget"):
            store.forget([picture(1).image])
        assert traces(old, picture(1)) == set()
        assert store.check() == ([], [])
    assert version(old) == len(schema.MIGRATIONS)
    rows = raw(old, "SELECT vector, norm, checksum FROM features")
    assert len(rows) == COUNT  # one more that was taken back, one less that was forgotten
    for vector, norm, checksum in rows:
        assert checksum == hashlib.sha256(vector + norm).digest()[:8]


def test_a_new_journal_is_what_an_old_one_becomes(old, tmp_path):
    Store.open(old).close()
    Store.create(tmp_path / "new", manifest(), EXTRACTOR).close()
    shape = 'SELECT m.name, c.name, c.type, c."notnull", c.pk FROM sqlite_master m JOIN \
        pragma_table_info(m.name) c ORDER BY 1, c.cid'
    assert raw(old, shape) == raw(tmp_path / "new", shape)
    assert version(old) == version(tmp_path / "new") == len(schema.MIGRATIONS)


def test_an_old_journal_that_cannot_be_written_is_read_as_it_is(old, monkeypatch):
    monkeypatch.setattr("retain.store.store.os.access", lambda *_: False)
    before = everything(old)
    with Store.open(old) as store:
        check_everything(store)
        problems, notes = store.check()
        assert problems == []
        assert "no checksums yet" in notes[0]
    assert everything(old) == before


def test_an_old_journal_that_somebody_writes_is_brought_up_to_date_by_the_next(old):
    with exclusive(old, "learn", 0.0), Store.open(old) as store:
        check_everything(store)
        assert version(old) == 1
    Store.open(old).close()
    assert version(old) == len(schema.MIGRATIONS)


def test_a_store_that_was_open_before_is_brought_up_to_date_when_it_writes(old):
    with exclusive(old, "learn", 0.0):
        store = Store.open(old)
    with store:
        assert version(old) == 1
        learn(store, [COUNT])
        assert version(old) == len(schema.MIGRATIONS)
        assert store.check() == ([], [])


def test_an_upgrade_is_whole_or_not_at_all(old, monkeypatch):
    made = []

    def killed(vector, norm):
        made.append(norm)
        if len(made) == 700:
            raise KeyboardInterrupt
        return bytes(8)

    monkeypatch.setattr(schema, "checksum", killed)
    with pytest.raises(KeyboardInterrupt):
        Store.open(old)
    monkeypatch.undo()
    assert version(old) == 1
    with Store.open(old) as store:
        check_everything(store)
        assert store.check() == ([], [])


def test_a_newer_retain_may_come_while_a_store_is_open(store, path):
    raw(path, "PRAGMA user_version = 9")
    with pytest.raises(NewerFormat, match="version 9"), store.writing("learn"):
        pass


# -- version 2, before a classifier could change its extractor -------------------------------------


@pytest.fixture
def second(tmp_path):
    """A classifier as the last retain before version 3 left it, and what it answered."""
    path = tmp_path / "second"
    rows = np.random.default_rng(3).normal(size=(30, 6)).astype(np.float32)
    with retain.create(path, extractor="vectors:6") as shop:
        shop.learn(rows[:20], ["ant", "bee"] * 10, force=True)
        shop.correct(rows[20], "ant", force=True)
        said = [(p.label, p.probability) for p in shop.predict(rows)]
        digest = shop.digest
    raw(path, "DROP TABLE trained")
    raw(path, "DROP TABLE later_features")
    raw(path, "DROP TABLE extractors")
    raw(path, "PRAGMA user_version = 2")
    return path, rows, said, digest


@pytest.mark.parametrize("writable", [True, False], ids=["written", "read"])
def test_a_journal_of_version_2_answers_as_it_did(second, monkeypatch, writable):
    path, rows, said, digest = second
    if not writable:
        monkeypatch.setattr("retain.store.store.os.access", lambda *_: False)
    before = everything(path)
    with retain.open(path) as shop:
        assert [(p.label, p.probability) for p in shop.predict(rows)] == said
        assert [(p.label, p.probability) for p in shop.predict(rows, version=2)] == said
        assert shop.digest == digest
        assert shop.verify().ok
        assert shop.status().dimension == 6
        if writable:
            assert version(path) == len(schema.MIGRATIONS)
            shop.forget(shop.samples()[0].image, force=True)
            shop.undo(2)
            assert shop.verify().ok
    if not writable:
        assert everything(path) == before


def test_a_pack_of_version_2_can_be_unpacked(second, tmp_path, monkeypatch):
    path, rows, said, _ = second
    monkeypatch.setattr("retain.store.store.os.access", lambda *_: False)
    with retain.open(path) as shop:
        shop.pack(tmp_path / "old.retain")
    monkeypatch.undo()
    with retain.unpack(tmp_path / "old.retain", tmp_path / "again") as again:
        assert [(p.label, p.probability) for p in again.predict(rows)] == said
        assert version(again.path) == len(schema.MIGRATIONS)


# -- checksums -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("vector", bytes(2 * D)),
        ("norm", b"\0\0\0\0"),
        ("checksum", bytes(8)),
        ("checksum", None),
        ("checksum", "text"),
    ],
)
def test_check_names_a_feature_that_is_not_what_was_stored(store, path, column, value):
    learn(store, range(4))
    digest = bytes.fromhex(picture(2).image.removeprefix("sha256:"))
    which = "image = (SELECT id FROM images WHERE hash = ?)"
    raw(path, f"UPDATE features SET {column} = ? WHERE {which}", value, digest)
    problems, _ = store.check()
    assert len(problems) == 1
    assert f"the feature of {picture(2).image} is not the one that was stored" in problems[0]


def test_check_names_features_that_are_no_bytes(old):
    raw(old, "UPDATE features SET vector = 'sixteen letters.' WHERE image = 7")
    raw(old, "UPDATE features SET norm = 2.5 WHERE image = 9")
    raw(old, "UPDATE features SET vector = 12 WHERE image = 11")
    with Store.open(old) as store:
        problems = "\n".join(store.check()[0])
    assert all(picture(n).image in problems for n in range(3))
    assert picture(3).image not in problems
