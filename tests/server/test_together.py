"""Questions answered together are answered as each would be alone; the short way says the same."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from retain.values import Source, content_hash
from retain.vision import usable_cores
from tests.server.conftest import b64, npy
from tests.verbs.conftest import D, cluster

pytest.importorskip("fastapi")

from retain.faces.server import together
from retain.faces.server.together import Together


def asked(count, questions, work):
    """What comes of questions (kind, value) asked at once, and the groups that were made."""
    groups, hold = [], threading.Event()

    def grouped(kind, values):
        hold.wait(5)
        groups.append((kind, tuple(values)))
        return work(kind, values)

    async def run(pool):
        line = Together(pool, count, grouped)
        waiting = [asyncio.ensure_future(line.ask(*each)) for each in questions]
        await asyncio.sleep(0)
        hold.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    with ThreadPoolExecutor(count) as pool:
        return asyncio.run(run(pool)), groups


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_gets_its_own_answer(count, monkeypatch):
    monkeypatch.setattr(together, "_MOST", 4)
    questions = [("ab"[i % 2], i) for i in range(23)]
    told, groups = asked(count, questions, lambda kind, values: [(kind, v * v) for v in values])
    assert told == [(kind, value * value) for kind, value in questions]
    assert all(len(values) <= 4 for _, values in groups)
    assert Counter(v for _, values in groups for v in values) == Counter(range(23))
    # Each kind by itself, and nobody overtakes within it.
    for kind in "ab":
        came = [v for k, values in groups if k == kind for v in values]
        assert set(came) == {v for k, v in questions if k == kind}
        if count == 1:
            assert came == sorted(came)


def test_who_finds_a_thread_idle_does_not_wait_for_company():
    _, groups = asked(2, [("a", i) for i in range(6)], lambda _, values: list(values))
    assert sorted(values for _, values in groups)[:2] == [(0,), (1,)]


def test_none_fails_for_anothers_sins():
    def work(_, values):
        if 7 in values:
            raise LookupError("seven")
        return values

    told, groups = asked(1, [("a", i) for i in range(12)], work)
    assert isinstance(told.pop(7), LookupError)
    assert told == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    assert any(len(values) > 1 and 7 in values for _, values in groups)


def test_who_no_longer_waits_keeps_nobody_else():
    async def run(pool):
        line = Together(pool, 1, lambda _, values: list(values))
        waiting = [asyncio.ensure_future(line.ask("a", i)) for i in range(5)]
        await asyncio.sleep(0)
        waiting[2].cancel()
        return await asyncio.gather(*waiting, return_exceptions=True)

    with ThreadPoolExecutor(1) as pool:
        told = asyncio.run(run(pool))
    assert isinstance(told.pop(2), asyncio.CancelledError)
    assert told == [0, 1, 3, 4]


def test_pictures_answered_together_are_answered_as_alone(server):
    """Good ones, bad ones, twins, a remembered one, each with its own name."""
    random = np.random.default_rng(5)
    files = [npy(random.normal(size=D)) for _ in range(9)]
    remembered = server.shop.samples()[0].image
    files += [b"nonsense", files[0], b"", files[3], server.shop.image(remembered)]
    alone = [server.shop.predict([Source("x", lambda data=data: data)]) for data in files]
    serving = server.serving

    async def crowd():
        pictures = [[Source(f"{i}", lambda d=data: d)] for i, data in enumerate(files)]
        return await asyncio.gather(*(serving.predict(each) for each in pictures))

    told = server.client.portal.call(crowd)
    for i, (found, one) in enumerate(zip(told, alone, strict=True)):
        assert found.event == one.event
        assert [each.label for each in found.answers] == [each.label for each in one]
        assert [each.probability for each in found.answers] == [each.probability for each in one]
        assert [each.remembered for each in found.answers] == [each.remembered for each in one]
        assert [each.reason for each in found.skipped] == [each.reason for each in one.skipped]
        assert [each.path for each in found.answers] == [str(i)] * len(one)
        assert [each.path for each in found.skipped] == [str(i)] * len(one.skipped)
        for name, answer in zip(found.names, found.answers, strict=True):
            assert serving.desk.asked(name) == answer.image == content_hash(files[i])
    names = [name for each in told for name in each.names]
    assert len(set(names)) == len(names)


# -- the short way to /predict --------------------------------------------------------------------

LONG = {"top": "5"}
"""A query that says what holds anyway; with it, a request goes the usual way."""


def both(server, data, role=None, **more):
    kind = {"Content-Type": "application/octet-stream", **more.pop("headers", {})}
    ways = []
    for query in ({}, LONG):
        headers = dict(kind) | ({"Authorization": f"Bearer {server.tokens[role]}"} if role else {})
        ways.append(
            server.client.post("/predict", content=data, params=query, headers=headers, **more)
        )
    return ways


def plain(answer):
    value = answer.json()
    value.pop("seconds", None)
    for each in value.get("predictions", ()):
        assert each.pop("id").startswith("p-")
    return (
        answer.status_code,
        value,
        {k: v for k, v in answer.headers.items() if k != "content-length"},
    )


@pytest.mark.parametrize(
    "data", [npy(cluster("bee", 1, seed=8)[0]), b"nonsense", b"", b"\x93NUMPY"]
)
@pytest.mark.parametrize("role", [None, "reader", "owner"])
def test_the_short_way_says_the_same(server, data, role):
    short, usual = (plain(each) for each in both(server, data, role))
    assert short == usual


def test_the_short_way_is_taken_and_counted(server, monkeypatch):
    from retain.faces.server import routes_ask

    monkeypatch.setattr(routes_ask, "given", None)  # what only the usual way needs
    data, kind = npy(cluster("bee", 1, seed=8)[0]), {"Content-Type": "image/png"}
    server.post("/predict", content=data, headers=kind)
    server.ask("POST", "/predict", content=data, params=LONG, headers=kind, status=500)
    told = server.client.get("/metrics").text
    assert 'retain_requests_total{route="/predict",method="POST",status="200"} 1' in told
    assert 'retain_requests_total{route="/predict",method="POST",status="500"} 1' in told
    assert 'retain_request_seconds_count{route="/predict"} 2' in told


def test_refusals_are_the_same_on_both_ways(server):
    for short, usual in (
        both(server, b"x", headers={"Authorization": "Bearer wrong"}),
        both(server, b"x", headers={"Host": "evil.example"}),
        both(server, b"x", headers={"Origin": "http://evil.example"}),
        both(server, b"x", headers={"Content-Length": str(10**12)}),
    ):
        assert plain(short) == plain(usual)
        assert short.status_code >= 400


def test_what_breaks_is_said_alike_and_logged_without_the_picture(server, monkeypatch, caplog):
    async def broken(*_, **__):
        raise RuntimeError("within")

    monkeypatch.setattr(type(server.serving), "predict", broken)
    with caplog.at_level(logging.ERROR):
        short, usual = both(server, b"secret picture")
    assert plain(short) == plain(usual)
    assert short.status_code == 500
    assert caplog.text.count("RuntimeError: within") >= 2
    assert "secret" not in caplog.text


def test_events_go_the_usual_way(server):
    headers = {"Content-Type": "image/png", "Accept": "text/event-stream"}
    answer = server.ask(
        "POST", "/predict", content=npy(cluster("bee", 1, seed=8)[0]), headers=headers
    )
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_nothing_learned_is_said_on_both_ways(tmp_path):
    import retain
    from tests.server.conftest import Server

    retain.create(tmp_path / "new", extractor=f"vectors:{D}").close()
    with Server(tmp_path / "new") as made:
        short, usual = both(made, npy(np.ones(D)))
        assert plain(short) == plain(usual)
        assert short.json()["error"] == "NothingLearned"
        body = {"pictures": [{"bytes": b64(npy(np.ones(D)))}]}
        assert made.ask("POST", "/predict", json=body, status=short.status_code)


def test_a_crowd_keeps_nobody_from_reading_something_else(server, monkeypatch):
    """The threads that answer the crowd go from one group to the next, and never rest."""
    serving, hold = server.serving, threading.Event()
    began, many = threading.Semaphore(0), usable_cores() + 2
    meet = threading.Barrier(many, timeout=30)

    def held(kind, questions):
        began.release()
        assert hold.wait(60)
        return [None] * len(questions)

    monkeypatch.setattr(serving._together, "_work", held)
    count = serving._together._count

    async def crowd():
        return await asyncio.gather(*(serving._together.ask("kind", i) for i in range(50)))

    async def others():
        return await asyncio.gather(*(serving.read(meet.wait) for _ in range(many)))

    told = server.client.portal.start_task_soon(crowd)
    try:
        assert all(began.acquire(timeout=60) for _ in range(count))
        read = server.client.portal.start_task_soon(others)
        assert sorted(read.result(timeout=60)) == list(range(many))
        assert not told.done()
    finally:
        hold.set()
    assert told.result(timeout=60) == [None] * 50
