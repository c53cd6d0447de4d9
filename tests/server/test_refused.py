"""What is protected stays so whichever verb would harm it; a refusal says what can be done."""

from __future__ import annotations

import pytest

import retain
from retain.errors import BadImage, Damaged, DiskFull, Locked
from tests.server.conftest import LABELS, D, Server, b64, npy
from tests.verbs.conftest import cluster, fingerprint, taught
from tests.verbs.test_protect import OPEN, assault


@pytest.fixture
def propped(tmp_path):
    """A server whose protected picture only one lesson keeps right; that lesson's number."""
    with retain.create(tmp_path / "shop", extractor=f"vectors:{D}") as shop:
        taught(shop, *LABELS, n=12)
        shop.gate(**OPEN)
        row = cluster("bee", 1, spread=0)[0]
        shop.learn(assault(row, 60), "ant")
        lesson = shop.log()[-1].event
        shop.learn(row[None] + 0.001, "ant", force=True)
        image = shop.predict(row[None] + 0.001)[0].image
        shop.protect(image)
    with Server(tmp_path / "shop") as made:
        yield made, image, lesson


def choices(told):
    assert told["error"] == "GateRefused"
    assert not told["verdict"]["passed"]
    return [each["choice"] for each in told["choices"]]


def test_undo(propped):
    server, image, lesson = propped
    before = fingerprint(server.shop)
    tried = server.post("/undo", "teacher", json={"event": lesson, "dry_run": True})
    assert (tried["event"], tried["verdict"]["passed"]) == (None, False)
    told = server.post("/undo", "teacher", json={"event": lesson}, status=409)
    assert choices(told) == ["leave", "dry_run", "force", "protection"]
    assert image in [each["image"] for each in told["update"]["worse"]]
    assert fingerprint(server.shop) == before
    server.post("/undo", "teacher", json={"event": lesson, "force": True}, status=403)
    done = server.post("/undo", "owner", json={"event": lesson, "force": True})
    assert done["verdict"]["forced"]


def test_restore_is_whole_or_not_at_all(propped):
    """Of two events that would be taken back the second is refused: the first comes again."""
    server, image, lesson = propped
    server.post("/protect", "teacher", json={"images": [image], "off": True})
    off = server.shop.event
    server.post("/undo", "teacher", json={"event": off})
    # As it was while the mark was off, and no lesson: the lesson is taken back before the mark is.
    server.post("/undo", "owner", json={"event": lesson, "force": True})
    gone = server.shop.event
    server.post("/undo", "owner", json={"event": gone})
    fox = {"bytes": b64(npy(cluster("fox", 1)[0])), "label": "fox"}
    server.post("/correct", "teacher", json={"corrections": [fox]})
    before = fingerprint(server.shop)
    told = server.post("/restore", "teacher", json={"event": gone}, status=409)
    assert "protection" in choices(told)
    assert fingerprint(server.shop) == before
    assert "fox" in {s.label for s in server.shop.samples()}
    server.post("/restore", "teacher", json={"event": gone, "force": True}, status=403)
    done = server.post("/restore", "owner", json={"event": gone, "force": True})
    assert len(done["undone"]) == 2
    assert fingerprint(server.shop) != before


def taught_twice(server):
    for number in range(2):
        fox = {"bytes": b64(npy(cluster("fox", 1, seed=number)[0])), "label": "fox"}
        server.post("/correct", "teacher", json={"corrections": [fox]})
    return fingerprint(server.shop), server.shop.event


@pytest.mark.parametrize(
    ("error", "status"),
    [(Locked, 503), (DiskFull, 507), (BadImage, 422), (Damaged, 503), (ZeroDivisionError, 500)],
)
def test_restore_is_whole_or_not_at_all_whatever_happens(server, monkeypatch, error, status):
    before, last = taught_twice(server)
    real, failing = retain.Classifier.undo, [True]

    def undo(shop, event=None, **more):
        if event == last - 1 and failing:
            failing.clear()
            raise error("this once")
        return real(shop, event, **more)

    monkeypatch.setattr(retain.Classifier, "undo", undo)
    server.post("/restore", "owner", json={"event": last - 2}, status=status)
    assert fingerprint(server.shop) == before
    server.post("/restore", "owner", json={"event": last - 2})
    assert "fox" not in {each["label"] for each in server.get("/classes")["classes"]}


def test_a_restoration_that_stays_half_done_says_so(server, monkeypatch):
    before, last = taught_twice(server)
    real = retain.Classifier.undo

    def undo(shop, event=None, **more):
        if event != last:
            raise DiskFull(f"no room left on the disk of {shop.path}; nothing was changed")
        return real(shop, event, **more)

    monkeypatch.setattr(retain.Classifier, "undo", undo)
    told = server.post("/restore", "owner", json={"event": last - 2}, status=507)
    assert "half way" in told["message"]
    assert told["message"].endswith(f"in this order: {last + 1}")
    assert str(server.settings.path) not in told["message"]
    monkeypatch.undo()
    server.post("/undo", "owner", json={"event": last + 1})
    assert fingerprint(server.shop) == before


def test_rollback(propped):
    server, _, lesson = propped
    server.post("/promote", "owner", json={"version": lesson - 1, "force": True})
    server.post("/promote", "owner", json={"force": True})
    told = server.post("/rollback", "owner", status=409)
    assert "gate" not in choices(told)
    assert server.post("/rollback", "owner", json={"dry_run": True})["event"] is None
    assert server.post("/rollback", "owner", json={"force": True})["verdict"]["forced"]


def test_merge(propped):
    server, *_ = propped
    tried = server.post("/merge", "owner", json={"old": "cow", "into": "bee", "dry_run": True})
    assert tried["event"] is None
    assert {"cow", "bee"} <= {s.label for s in server.shop.samples()}
