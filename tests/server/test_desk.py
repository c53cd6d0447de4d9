"""What is kept besides: bounded, shared, and gone when it should be."""

import asyncio
import sqlite3
import stat
import threading
import time
from contextlib import contextmanager

import pytest

import retain
from retain.store import Store, erasing
from tests.server.conftest import Server, body, cluster, npy

from retain.faces.server import desk as module  # isort: skip
from retain.faces.server import waiting  # isort: skip
from retain.faces.server.desk import Desk, Kept  # isort: skip
from retain.store.beside import erase_asked  # isort: skip


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path / "serve")
    yield made
    made.close()


def kept(n, size=100):
    return Kept(f"sha256:{n:064x}", f"{n}.jpg", f"picture {n} ".encode() * (size // 10))


def test_an_answer_leads_to_its_picture_from_any_process(desk, tmp_path):
    other = Desk(tmp_path / "serve")
    names = desk.keep([kept(1), kept(2)])
    assert other.asked(names[1]) == kept(2).image
    assert other.picture(kept(2).image) == kept(2)
    assert other.asked("p-nothing") is None
    assert len(other.find("sha256:" + "0" * 20)) == 2
    other.close()


def test_only_the_latest_are_kept(desk, monkeypatch):
    monkeypatch.setattr(module, "_ANSWERS", 10)
    monkeypatch.setattr(module, "_TIDY", 1)
    names = [desk.keep([kept(n)])[0] for n in range(30)]
    assert desk.asked(names[0]) is None
    assert desk.picture(kept(0).image) is None
    assert all(desk.asked(name) for name in names[-10:])


def test_what_is_a_day_old_goes_though_nobody_asks(vectors, monkeypatch):
    monkeypatch.setattr("retain.faces.server.serving._TIDY", 0.5)
    row = cluster("eel", 1, seed=3)[0]
    with Server(vectors, inbox=False) as server:
        asked = server.post("/predict", content=npy(row))["predictions"][0]
        desk = server.serving.desk
        time.sleep(1.5)
        assert desk.picture(asked["image"])
        monkeypatch.setattr(module, "_AGE", 0.5)
        deadline = time.monotonic() + 30
        while desk.picture(asked["image"]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert desk.picture(asked["image"]) is None
        assert desk.asked(asked["id"]) is None
        for file in server.settings.folder.iterdir():
            assert npy(row)[-40:] not in file.read_bytes(), file


def test_only_so_many_bytes_are_kept(desk, monkeypatch):
    monkeypatch.setattr(module, "_BYTES", 5000)
    monkeypatch.setattr(module, "_TIDY", 1)
    for n in range(30):
        desk.keep([kept(n, 1000)])
    sizes = [len(each.data) for each in desk.lately(100)]
    assert 0 < sum(sizes) <= 5000


def test_the_inbox_is_bounded_and_the_latest_come_first(desk, monkeypatch):
    monkeypatch.setattr(module, "_INBOX", 5)
    for n in range(8):
        name = desk.keep([kept(n)])[0]
        desk.wonder([(kept(n).image, "mug", 0.5, 0.01, name)])
    total, rows = desk.inbox()
    assert total == 5
    assert [row.name for row in rows] == [f"{n}.jpg" for n in (7, 6, 5, 4, 3)]
    assert desk.dismiss([kept(7).image]) == 1
    assert desk.picture(kept(7).image) is None
    assert desk.dismiss([]) == 4
    assert desk.inbox() == (0, [])


def test_what_is_erased_is_on_no_disk(desk, tmp_path):
    desk.keep([kept(n, 3000) for n in range(4)])
    desk.erase([kept(2).image], answers=True)
    data = b"".join(each.read_bytes() for each in (tmp_path / "serve").iterdir())
    assert b"picture 1 " in data
    assert b"picture 2 " not in data
    assert kept(2).image.encode() not in data


def test_forgetting_overwrites_a_desk_without_a_server(tmp_path, desk):
    """As the command line does, whether the server runs or not."""
    names = desk.keep([kept(n, 3000) for n in range(3)])
    desk.wonder([(kept(1).image, "mug", 0.5, 0.01, names[1])])
    desk.settle()
    erase_asked(tmp_path, [kept(1).image])
    data = b"".join(each.read_bytes() for each in (tmp_path / "serve").iterdir())
    assert b"picture 1 " not in data
    assert kept(1).image.encode() not in data
    assert desk.asked(names[1]) is None
    assert desk.inbox() == (0, [])
    assert desk.picture(kept(2).image) == kept(2, 3000)
    erase_asked(tmp_path / "nothing", [kept(1).image])


@pytest.mark.parametrize("spoilt", [b"", b"no database at all " * 300])
def test_forgetting_removes_a_desk_that_cannot_be_read(tmp_path, spoilt):
    (tmp_path / "serve").mkdir()
    file = tmp_path / "serve" / "desk.db"
    file.write_bytes(spoilt)
    erase_asked(tmp_path, [kept(1).image])
    assert not spoilt or not file.exists()


def spoil(file, how):
    data = bytearray(file.read_bytes())
    if how == "torn":
        data = data[: len(data) // 2]
    elif how == "other":
        data = b"no database at all " * 300
    else:
        start = 4096 if how == "inside" else 0
        data[start : start + 20_000] = b"\xa5" * 20_000
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["torn", "other", "inside", "header"])
def test_a_damaged_desk_is_made_anew(tmp_path, how):
    """There is nothing on it that a server would have to end for."""
    first = Desk(tmp_path / "serve")
    first.keep([kept(n, 3000) for n in range(30)])
    first.close()
    file = tmp_path / "serve" / "desk.db"
    spoil(file, how)
    second = Desk(tmp_path / "serve")
    second.begin()
    name = second.keep([kept(1)])[0]
    assert second.asked(name) == kept(1).image
    assert len(second.lately(10)) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    second.close()


def test_many_write_at_once(desk, tmp_path):
    others = [desk, Desk(tmp_path / "serve"), Desk(tmp_path / "serve")]
    names, failures = [], []

    def work(which, start):
        try:
            for n in range(start, start + 40):
                names.append((which.keep([kept(n)])[0], n))
                which.count({"a": 1.0}, {"g": 2.0})
        except Exception as error:  # noqa: BLE001 - any at all
            failures.append(error)

    threads = [threading.Thread(target=work, args=(d, 100 * i)) for i, d in enumerate(others)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failures
    assert all(desk.asked(name) == kept(n).image for name, n in names)
    assert desk.counted()[0]["a"] == 120
    for each in others[1:]:
        each.close()


def far(n, seed=0):
    """Vectors far from everything taught, in two heaps."""
    left = cluster("xx", n, seed=seed, spread=0.1) * 4
    right = cluster("yy", n, seed=seed, spread=0.1) * 4
    return left, right


def test_the_inbox_groups_and_suggestions(server, monkeypatch):
    left, right = far(6)
    monkeypatch.setattr("retain.answers.UNKNOWN_BELOW", 2.0)
    for rows in (left, right):
        server.post("/predict", json={"pictures": [body(row) for row in rows]})
    assert server.get("/inbox")["total"] == 12
    told = server.get("/inbox/clusters")
    assert [each["size"] for each in told["clusters"]] == [6, 6]
    assert told["clusters"][0]["sentence"] == "these 6 look alike: name them?"
    groups = [set(each["images"]) for each in told["clusters"]]
    of = server.post("/predict?keep=false", json={"pictures": [body(row) for row in left]})
    assert {each["image"] for each in of["predictions"]} in groups
    chosen = server.get("/next?count=2")["pictures"]
    assert len({next(i for i, g in enumerate(groups) if c["image"] in g) for c in chosen}) == 2
    items = [{"image": image, "label": "new"} for image in sorted(groups[0])]
    assert server.post("/learn", "teacher", json={"items": items})["learned"] == 6
    assert server.get("/inbox")["total"] == 6
    assert server.post("/inbox/dismiss", "teacher", json={"images": []})["dismissed"] == 6


@pytest.mark.parametrize(("options", "query"), [({"inbox": False}, ""), ({}, "?keep=false")])
def test_nothing_is_kept_where_that_is_not_wanted(vectors, monkeypatch, options, query):
    monkeypatch.setattr("retain.answers.UNKNOWN_BELOW", 2.0)
    with Server(vectors, **options) as server:
        told = server.post(f"/predict{query}", content=npy(far(1)[0][0]))["predictions"][0]
        assert told["unknown"] is True
        assert server.get("/inbox")["total"] == 0
        assert bool(told["id"]) == (not query)


def test_hints(server):
    known = server.shop.samples()
    ant = next(each for each in known if each.label == "ant")
    near = body(cluster("ant", 12)[0] * 1.0)
    told = server.post(
        "/hints",
        json={
            "items": [
                {"image": ant.image, "label": "bee"},
                {**near, "label": "bee"},
                {"bytes": "AAAA", "label": "bee"},
                *[body(cluster("gnu", 1)[0] * (1 + k / 1000)) for k in range(3)],
            ]
        },
    )["hints"]
    kinds = [{hint["kind"] for hint in each} for each in told]
    assert "unreadable" in kinds[2]
    assert all("burst" in each for each in kinds[3:])
    assert "3 of the pictures given" in told[3][0]["sentence"]


def test_hints_on_photographs(photos, drawn):
    from io import BytesIO

    from PIL import Image, ImageFilter

    tiny, blurred = BytesIO(), BytesIO()
    picture = Image.open(drawn["plate"][6])
    picture.resize((20, 20)).save(tiny, "PNG")
    picture.resize((300, 300)).filter(ImageFilter.GaussianBlur(9)).save(blurred, "PNG")
    files = [
        ("files", (name, data))
        for name, data in (
            ("tiny.png", tiny.getvalue()),
            ("blurred.png", blurred.getvalue()),
            ("again.jpg", drawn["mug"][0].read_bytes()),
        )
    ]
    told = photos.post("/hints", files=files, data={"labels": ["plate", "plate", "spoon"]})["hints"]
    kinds = [{hint["kind"] for hint in each} for each in told]
    assert "small" in kinds[0]
    assert "blurry" in kinds[1]
    assert "contradicts" in kinds[2]


def test_metrics_count_what_happened(server):
    wrong = [body(row, label="bee") for row in cluster("ant", 12, seed=9)]
    server.post("/predict", json={"pictures": [body(row) for row in cluster("bee", 3)]})
    server.post("/learn", "teacher", json={"items": wrong}, status=409)
    elk = body(cluster("elk", 1)[0], label="elk")
    server.post("/correct", "teacher", json={"corrections": [elk]})
    text = server.ask("GET", "/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values["retain_pictures_total"] == "3"
    assert values['retain_changes_total{verb="correct"}'] == "1"
    assert values["retain_refusals_total"] == "1"
    assert values["retain_version"] == "4"
    assert values["retain_workers"] == "1"
    assert values['retain_requests_total{route="/predict",method="POST",status="200"}'] == "1"
    assert values['retain_request_seconds_bucket{route="/predict",le="+Inf"}'] == "1"


# -- written behind ---------------------------------------------------------------------------


def test_what_waits_is_known_at_once_here_and_soon_elsewhere(tmp_path):
    late, other = Desk(tmp_path / "serve", behind=0.2), Desk(tmp_path / "serve")
    names = late.keep([kept(1), kept(2)])
    late.wonder([(kept(1).image, "mug", 0.5, 0.01, names[0])])
    deadline = time.monotonic() + 20
    while not other.inbox()[1] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert other.asked(names[1]) == kept(2).image
    assert other.picture(kept(2).image) == kept(2)
    assert [each.image for each in other.inbox()[1]] == [kept(1).image]
    last = late.keep([kept(3)])[0]
    assert late.asked(last) == kept(3).image
    late.close()
    other.close()


def test_what_waits_is_written_when_it_closes(tmp_path):
    late = Desk(tmp_path / "serve", behind=60)
    names = late.keep([kept(n) for n in range(3)])
    started = time.monotonic()
    late.close()
    assert time.monotonic() - started < 30
    found = Desk(tmp_path / "serve")
    assert [found.asked(name) for name in names] == [kept(n).image for n in range(3)]
    found.close()


def test_what_waits_is_erased_as_if_it_had_been_written(tmp_path):
    late = Desk(tmp_path / "serve", behind=60)
    names = late.keep([kept(n, 3000) for n in range(3)])
    late.erase([kept(1).image], answers=False)
    assert late.picture(kept(1).image) is None
    assert late.asked(names[1]) == kept(1).image
    for file in (tmp_path / "serve").iterdir():
        assert kept(1, 3000).data not in file.read_bytes()
    late.close()


def test_too_much_does_not_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "BYTES", 1000)
    late, other = Desk(tmp_path / "serve", behind=60), Desk(tmp_path / "serve")
    first = late.keep([kept(1, 400)])[0]
    assert other.asked(first) is None
    second = late.keep([kept(2, 700)])[0]
    assert [other.asked(each) for each in (first, second)] == [kept(1).image, kept(2).image]
    other.close()
    late.close()


def test_many_keep_while_it_is_written_behind(tmp_path):
    late = Desk(tmp_path / "serve", behind=0.001)
    names = []

    def ask(start):
        for n in range(start, start + 50):
            names.append((late.keep([kept(n)])[0], n))
            if n % 7 == 0:
                assert late.asked(names[-1][0])

    threads = [threading.Thread(target=ask, args=(100 * k,)) for k in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    late.close()
    found = Desk(tmp_path / "serve")
    assert all(found.asked(name) == kept(n).image for name, n in names)
    assert len(names) == 200
    found.close()


def test_of_what_is_remembered_only_the_question_is_kept(desk):
    name = desk.keep([kept(1), kept(2)], {kept(1).image})
    assert [desk.asked(each) for each in name] == [kept(1).image, kept(2).image]
    assert desk.picture(kept(1).image) is None
    assert desk.picture(kept(2).image) == kept(2)


# -- where the disk does not let it ----------------------------------------------------------------


class Full:
    """A desk's file that takes nothing while `full`."""

    def __init__(self, file):
        self.file, self.full = file, True

    def __getattr__(self, name):
        return getattr(self.file, name)

    @contextmanager
    def transaction(self):
        with self.file.transaction():
            yield
            if self.full:
                self.file.rows("ROLLBACK")  # as SQLite itself does where the disk is full
                raise sqlite3.OperationalError("database or disk is full")


def filled(desk, monkeypatch):
    monkeypatch.setattr(module, "_REST", 0.0)
    desk._file = Full(desk._file)
    return desk._file


def test_what_cannot_be_written_is_answered_without_a_name(desk, monkeypatch):
    file = filled(desk, monkeypatch)
    assert desk.keep([kept(1), kept(2)]) == ["", ""]
    assert desk.picture(kept(1).image) is None
    file.full = False
    name = desk.keep([kept(3)])[0]
    assert desk.asked(name) == kept(3).image
    assert [each.image for each in desk.lately(10)] == [kept(3).image]


def test_what_waits_is_not_lost_where_the_disk_is_full_for_a_while(tmp_path, monkeypatch):
    late = Desk(tmp_path / "serve", behind=0.01)
    file = filled(late, monkeypatch)
    names = late.keep([kept(1), kept(2, 3000)])
    late.wonder([(kept(1).image, "mug", 0.5, 0.01, names[0])])
    time.sleep(0.2)
    assert late.asked(names[0]) is None
    file.full = False
    assert late.asked(names[0]) == kept(1).image
    assert late.inbox()[0] == 1
    late.close()


def test_what_is_erased_meanwhile_does_not_come_back(tmp_path, monkeypatch):
    late = Desk(tmp_path / "serve", behind=60)
    monkeypatch.setattr(module, "_REST", 60.0)
    file = Full(late._file)
    late._file = file
    names = late.keep([kept(n) for n in range(4)])
    late.wonder([(kept(n).image, "mug", 0.5, 0.01, names[n]) for n in range(4)])
    assert late.lately(9) == []
    file.full = False
    late.erase([kept(1).image], answers=True)
    late.erase([kept(2).image], answers=False)
    late.dismiss([kept(3).image])
    late._rest = 0.0
    assert [each.image for each in late.lately(9)] == [kept(0).image]
    assert [late.asked(name) for name in names] == [
        kept(n).image if n != 1 else None for n in range(4)
    ]
    late.close()


def test_too_much_that_cannot_be_written_is_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "ANSWERS", 10)
    late = Desk(tmp_path / "serve", behind=60)
    filled(late, monkeypatch)
    names = [late.keep([kept(n)])[0] for n in range(30)]
    assert all(names[:10])
    assert not any(names[10:])
    late.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_desk_keeps_nobody_from_an_answer(vectors, monkeypatch, workers):
    with Server(vectors, workers=workers) as server:
        file = filled(server.serving.desk, monkeypatch)
        row = cluster("bee", 1)[0] * 1.01
        told = server.post("/predict", content=npy(row))["predictions"][0]
        assert told["label"] == "bee"
        assert bool(told["id"]) == (workers == 1)
        # What was written to the journal is not denied.
        lesson = [body(cluster("bee", 1)[0] * 1.02, label="bee")]
        assert server.post("/learn", "teacher", json={"items": lesson})["learned"] == 1
        server.ask("GET", "/metrics")
        file.full = False
        text = server.ask("GET", "/metrics").text
        assert 'retain_changes_total{verb="learn"} 1' in text


def test_a_desk_that_is_in_the_way_keeps_no_news_back(server, monkeypatch):
    async def told():
        queue = server.serving.listen()
        return asyncio.get_running_loop(), queue

    loop, queue = server.client.portal.call(told)
    broken = sqlite3.DatabaseError("database disk image is malformed")
    monkeypatch.setattr(Desk, "hold", lambda *_: (_ for _ in ()).throw(broken))
    serving, last = server.serving, server.shop.event
    lesson = [body(cluster("bee", 1)[0] * 1.02, label="bee")]
    server.post("/learn", "teacher", json={"items": lesson})
    looked = serving._desk_work.submit(serving._looked, last, loop).result()
    assert looked == server.shop.event == last + 1
    assert server.client.portal.call(queue.get)["event"] == last + 1


def test_a_running_server_finishes_what_readers_kept_from_being_erased(vectors, monkeypatch):
    """The log of the journal would hold the label and the hash until somebody wrote again."""
    monkeypatch.setattr(erasing, "_PATIENCE", 0.0)
    with Server(vectors) as server, retain.open(vectors) as shop:
        gone = shop.samples()[0].image
        with Store.open(vectors) as reader, reader.reading():
            receipt = shop.forget([gone], force=True)
            assert receipt.traces
            assert receipt.level == "pending"
        until = time.monotonic() + 30
        while server.serving.classifier._session.store.unerased:
            assert time.monotonic() < until, "the watch did not finish it"
            time.sleep(0.05)
    files = [each for each in vectors.rglob("*") if each.is_file()]
    assert not any(gone.encode() in each.read_bytes() for each in files)
