"""Who connects and asks nothing is in nobody's way."""

import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from retain.faces.server import connections
from retain.faces.server.security import cookie_name


async def slow(scope, receive, send):
    """Answers after a while, the longer the route."""
    import asyncio

    await asyncio.sleep(len(scope["path"]) / 10)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


@contextmanager
def serving(**options):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    config = uvicorn.Config(
        slow, port=port, http=connections.Prompt, log_level="error", lifespan="off", **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        yield port
    finally:
        server.should_exit = True
        thread.join(30)


def closed(sock) -> bool:
    """Whether the other side ends it within a few seconds."""
    sock.settimeout(10)
    try:
        return sock.recv(1000) == b""
    except TimeoutError:
        return False


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: local"])
def test_who_asks_nothing_is_sent_away(monkeypatch, said):
    monkeypatch.setattr(connections, "_PATIENCE", 0.3)
    with serving() as port, socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(said)
        assert closed(sock)


def test_silent_connections_shut_nobody_out(monkeypatch):
    monkeypatch.setattr(connections, "_PATIENCE", 0.3)
    with serving(limit_concurrency=5) as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        deadline, codes = time.monotonic() + 10, []
        while 200 not in codes and time.monotonic() < deadline:
            codes.append(httpx.get(f"http://127.0.0.1:{port}/").status_code)
        assert 200 in codes
        for each in silent:
            each.close()


def test_who_asks_is_answered_however_long_it_takes(monkeypatch):
    """And may pause between two requests, for as long as uvicorn lets it."""
    monkeypatch.setattr(connections, "_PATIENCE", 0.3)
    with serving() as port, httpx.Client() as client:
        used = set()
        for route in ("/", "/" + "x" * 15, "/"):
            answer = client.get(f"http://127.0.0.1:{port}{route}", timeout=20)
            assert answer.text == "done"
            used.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
            time.sleep(1.0)
        assert len(used) == 1


def test_the_rest_of_a_second_request_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(connections, "_PATIENCE", 0.3)
    with serving() as port, socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.settimeout(10)
        answer = b""
        while b"done" not in answer:
            answer += sock.recv(1000)
        sock.sendall(b"GET / HT")
        while (more := sock.recv(1000)) not in (b"",):
            assert b"200" not in more


@pytest.mark.parametrize(
    ("headers", "secure"),
    [
        ({}, False),
        ({"X-Forwarded-Proto": "https"}, True),
        ({"Origin": "https://localhost"}, True),
        ({"Origin": "http://localhost"}, False),
    ],
)
def test_a_cookie_that_came_by_https_goes_by_nothing_else(server, headers, secure):
    """Where something before this server speaks TLS for it."""
    cookie = server.ask("POST", "/session", "owner", headers=headers).headers["set-cookie"]
    assert cookie.startswith(cookie_name(server.settings))
    assert ("; secure" in cookie.lower()) == secure
