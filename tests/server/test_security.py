"""Who may do what; what no client can reach; how much, how often, from where."""

import json
import os
import stat
import threading
import time
from functools import partial

import pytest

import retain
from retain.values import content_hash
from tests.server.conftest import Server, b64, body, cluster, npy

from retain.errors import BadOption  # isort: skip
from retain.faces.server import security, serving  # isort: skip
from retain.faces.server.security import cookie_name  # isort: skip
from retain.faces.server.tokens import Tokens, hashed  # isort: skip

READERS = {
    ("POST", route) for route in ("/predict", "/evaluate", "/explain", "/hints", "/", "/session")
}
OWNERS = {"/forget", "/gate", "/promote", "/rollback", "/rename", "/merge"}
OWNERS_READ = {"/export", "/pack"}


def routes(server):
    """(method, route) of everything there is."""
    found = server.get("/openapi.json", "reader")["paths"]
    assert "/events" in found
    del found["/events"]  # a stream without an end
    return {(method.upper(), route) for route, kinds in found.items() for method in kinds}


def filled(route):
    """A route with something in its places."""
    for name, value in (("event", "1"), ("image", "a" * 64), ("name", "shop"), ("version", "1")):
        route = route.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
    return route


# 127.0.0.2 is for a proxy on the same machine, through which others come.
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.2"])
def test_everything_needs_a_token_where_others_can_reach_it(vectors, host):
    with Server(vectors, host=host) as server:
        answer = server.client.get("/session", headers={"Host": "shop.example.org"})
        assert answer.status_code == 200
        for method, route in sorted(routes(server)):
            if route in ("/v2/health/live", "/v2/health/ready", "/session"):
                continue
            answer = server.client.request(method, filled(route), json={})
            assert answer.status_code == 401, (method, route, answer.text)
        assert server.get("/session")["role"] is None
        assert "name" not in server.get("/session")
        assert server.get("/status", "reader")["images"] == 36


def test_on_loopback_reading_is_open_and_changing_is_not(server):
    for method, route in sorted(routes(server)):
        answer = server.client.request(method, filled(route), json={})
        reads = method == "GET" and route not in OWNERS_READ
        protocol = route.startswith(("/v2", "/models", "/label-studio")) and route not in (
            "/label-studio/webhook",
            "/label-studio/predict",
        )
        if reads or protocol or (method, route) in READERS or method == "DELETE":
            assert answer.status_code != 403, (method, route, answer.text)
            assert answer.status_code != 401 or route == "/session", (method, route)
        else:
            assert answer.status_code == 401, (method, route, answer.text)


def test_roles(server):
    for method, route in sorted(routes(server)):
        if method == "POST" and route not in ("/session",):
            answer = server.client.request(
                method,
                filled(route),
                json={},
                headers={"Authorization": f"Bearer {server.tokens['teacher']}"},
            )
            assert (answer.status_code == 403) == (route in OWNERS), (route, answer.text)
    for route in OWNERS_READ:
        server.ask("GET", route, "teacher", status=403)


def decrees(server):
    """(event, kind) of what only the owner may do, each done once."""
    for route, wanted in (
        ("/gate", {"regressions": 0.5}),
        ("/promote", {"version": 2, "force": True}),
        ("/promote", {"version": 3, "force": True}),
        ("/rollback", {}),
        ("/rename", {"old": "bee", "new": "hornet"}),
        ("/merge", {"old": "hornet", "into": "cow", "force": True}),
    ):
        server.post(route, "owner", json=wanted)
        yield server.shop.event, server.shop.log()[-1].kind


def test_what_the_owner_decreed_only_the_owner_takes_back(server):
    for event, kind in decrees(server):
        for wanted in ({"event": event}, {}, {"event": event, "dry_run": True}):
            told = server.post("/undo", "teacher", json=wanted, status=403)
            assert (told["error"], kind in told["message"]) == ("Forbidden", True)
        assert server.shop.event == event
    server.post("/undo", "owner", json={"event": event})
    # Nor is it brought back by anybody else.
    back = server.shop.event
    server.post("/undo", "teacher", json={"event": back}, status=403)
    server.post("/undo", "owner", json={"event": back})
    server.post("/undo", "teacher", json={"event": 10_000}, status=404)


def test_a_teacher_restores_only_what_teachers_did(server):
    first = server.shop.event
    lesson = [body(row, label="dog") for row in cluster("dog", 4)]
    server.post("/learn", "teacher", json={"items": lesson})
    taught = server.shop.event
    server.post("/gate", "owner", json={"regressions": 0.5})
    decreed = server.shop.event
    told = server.post("/restore", "teacher", json={"event": first})
    assert (told["undone"], told["kept"]) == ([taught], [decreed])
    assert told["summary"] == f"as after event {first}, but for 1 that cannot be taken back by you"
    assert server.get("/gate")["regressions"] == 0.5
    told = server.post("/restore", "owner", json={"event": first})
    assert told["undone"] == [decreed]
    undone = server.shop.event
    # As it was before the owner took that back: nobody else may.
    told = server.post("/restore", "teacher", json={"event": undone - 1})
    assert (told["undone"], told["kept"]) == ([], [undone])
    assert server.get("/gate")["regressions"] != 0.5


def test_a_wrong_token_opens_nothing(server):
    for value in ("Bearer x", "Bearer ", "Basic !!", "Basic eDp5", "Digest x", "Bearer " + "é" * 9):
        answer = server.client.get("/status", headers={"Authorization": value.encode("latin-1")})
        assert answer.status_code == 401, value
        assert "Bearer" in answer.headers["www-authenticate"]


def test_tokens_are_kept_as_hashes_for_their_owner_only(vectors):
    folder = vectors / "serve"
    tokens = Tokens(folder)
    token = tokens.add("anna", "teacher")
    file = folder / "tokens.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert token not in file.read_text()
    assert hashed(token) in file.read_text()
    assert Tokens(folder).who(token).role == "teacher"
    again = tokens.add("anna", "reader")
    assert tokens.who(token) is None
    assert tokens.who(again).role == "reader"
    tokens.drop("anna")
    assert tokens.who(again) is None
    for name, role in (("anna", "king"), ("a b", "reader"), ("", "owner"), ("x" * 65, "owner")):
        with pytest.raises(BadOption):
            tokens.add(name, role)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tokens": [{"hash": 1}]}', "[" * 100_000])
def test_damaged_tokens_are_said_and_close_no_more_than_they_must(server, text):
    (server.settings.folder / "tokens.json").write_text(text)
    told = server.get("/status", "owner", status=503)
    assert told["error"] == "Damaged"
    assert str(server.settings.path) not in told["message"]
    assert server.get("/status")["images"] == 36
    (server.settings.folder / "tokens.json").unlink()
    server.ask("GET", "/status", "owner", status=401)


def test_tokens_may_be_made_at_the_same_time(vectors):
    """From several terminals, say: none takes another's away."""
    folder, made = vectors / "serve", {}

    def make(start):
        for number in range(start, start + 10):
            made[f"a{number}"] = Tokens(folder).add(f"a{number}", "reader")
        Tokens(folder).drop(f"a{start}")

    threads = [threading.Thread(target=make, args=(10 * n,)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    names = {f"a{n}" for n in range(40) if n % 10}
    assert set(Tokens(folder).names()) == names
    assert all(Tokens(folder).who(made[name]).name == name for name in names)


def test_a_dropped_token_is_refused_at_once(server):
    server.get("/session", "teacher")
    Tokens(server.settings.folder).drop("teacher")
    server.ask("GET", "/session", "teacher", status=401)


def test_tokens_are_compared_in_constant_time(server, monkeypatch):
    import hmac

    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(1) or real(a, b))
    server.client.get("/status", headers={"Authorization": "Bearer wrong"})
    wrong = len(compared)
    server.get("/status", "reader")
    assert (wrong, len(compared)) == (3, 6)


def test_a_cookie_changes_something_only_from_our_own_page(server):
    answer = server.ask("POST", "/session", "teacher")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert cookie.startswith(cookie_name(server.settings))
    assert server.get("/session")["actor"] == "teacher"
    told = {"items": [body(cluster("dog", 1)[0], label="dog")]}
    mine = {"X-Retain": "1", "Origin": "http://localhost"}
    for headers in (
        {},
        {"Origin": "http://localhost"},
        {**mine, "Origin": "http://evil.example"},
        {**mine, "Origin": "null"},
        {"X-Retain": "1", "Sec-Fetch-Site": "cross-site"},
    ):
        server.post("/learn", json=told, headers=headers, status=403)
    assert server.post("/learn", json=told, headers=mine)["learned"] == 1
    server.ask("DELETE", "/session", headers=mine)
    server.post("/undo", headers=mine, status=401)


def ticket(server, role="teacher"):
    """The cookie that a token is traded for, and nothing else of the kind."""
    answer = server.ask("POST", "/session", role)
    server.client.cookies.clear()
    return answer.headers["set-cookie"].partition(";")[0]


def test_the_cookie_is_not_the_token_and_ends_with_it(vectors, monkeypatch):
    with Server(vectors) as server, Server(vectors) as other:
        mine = {"Cookie": ticket(other)}  # the token of a role is made anew by the last server
        token = other.tokens["teacher"]
        assert token not in mine["Cookie"]
        assert hashed(token) not in mine["Cookie"]
        assert stat.S_IMODE((vectors / "serve" / "tickets.key").stat().st_mode) == 0o600
        # As good as the token in any process, and after a restart.
        assert server.get("/session", headers=mine)["actor"] == "teacher"
        # As a token it opens nothing.
        bare = mine["Cookie"].partition("=")[2]
        server.ask("GET", "/session", headers={"Authorization": f"Bearer {bare}"}, status=401)
        # Nor is the token itself taken as a cookie.
        name = cookie_name(server.settings)
        assert server.get("/session", headers={"Cookie": f"{name}={token}"})["role"] == "reader"
        Tokens(vectors / "serve").drop("teacher")
        assert server.get("/session", headers=mine)["role"] == "reader"


def test_a_cookie_is_good_for_half_a_day(server, monkeypatch):
    mine, now = {"Cookie": ticket(server, "owner")}, time.time()
    for hours, actor in ((11.9, "owner"), (12.1, "anonymous")):
        monkeypatch.setattr(
            "retain.faces.server.tokens.time.time", partial(float, now + 3600 * hours)
        )
        assert server.get("/session", headers=mine)["actor"] == actor


def test_a_cookie_cannot_be_made_up(server):
    good = ticket(server, "owner")
    name, _, value = good.partition("=")
    short, until, signature = value.split(".")
    longer = str(int(until) + 9)
    flipped = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    for made in (
        f"{short}.{longer}.{signature}",
        f"{short}.{until}.{flipped}",
        f"{short}.{until}.",
        f"{short}.{until}.é",
        f"{short}..{signature}",
        f"{'0' * 16}.{until}.{signature}",
        f"{hashed(server.tokens['reader'])[7:23]}.{until}.{signature}",
        f"{short}.{'9' * 40}.{signature}",
        "..",
        ".",
        "",
    ):
        told = server.get("/session", headers={"Cookie": f"{name}={made}".encode("latin-1")})
        assert told["role"] == "reader", made
    (server.settings.folder / "tickets.key").write_bytes(b"torn")
    assert server.get("/session", headers={"Cookie": good})["role"] == "reader"
    assert server.get("/session", headers={"Cookie": ticket(server, "owner")})["role"] == "owner"


@pytest.mark.parametrize(
    "other", ['prefs={"theme":"dark"}', "name=Anna Maria", "=", "a", 'b="', "c=é", "d[]=1,2"]
)
def test_cookies_of_others_sign_nobody_out(server, other):
    answer = server.ask("POST", "/session", "teacher")
    mine = answer.headers["set-cookie"].partition(";")[0]
    server.client.cookies.clear()
    for both in (f"{other}; {mine}", f"{mine}; {other}", f"{other};{mine};{other}"):
        told = server.get("/session", headers={"Cookie": both.encode("latin-1")})
        assert told["actor"] == "teacher"
    assert server.get("/session", headers={"Cookie": other.encode("latin-1")})["role"] == "reader"


def test_a_foreign_page_cannot_even_ask(server):
    """Otherwise any site could fill the inbox of whoever visits it."""
    row = npy(cluster("bee", 1)[0])
    server.post("/predict", content=row, headers={"Origin": "http://evil.example"}, status=403)
    server.post("/predict", content=row, headers={"Sec-Fetch-Site": "cross-site"}, status=403)


def test_another_name_for_loopback_is_refused(server):
    for host in ("evil.example", "evil.example:8150", "localhost.evil.example", "", "[::2]", "[::"):
        assert server.client.get("/status", headers={"Host": host}).status_code == 403
    for host in ("127.0.0.1:8150", "localhost", "[::1]:8150"):
        assert server.client.get("/status", headers={"Host": host}).status_code == 200


def test_what_browsers_are_told(server):
    for route in ("/status", "/nothing", "/page/nothing.js", "/"):
        headers = server.client.get(route).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_a_body_may_be_so_long(vectors):
    with Server(vectors, body=10_000) as server:
        server.post("/predict", content=b"x" * 10_001, status=413)
        # A length that is not told beforehand is counted.
        told = server.post("/predict", content=iter([b"x" * 6000, b"x" * 6000]), status=413)
        assert told["error"] == "TooLarge"
        assert server.post("/predict", content=npy(cluster("bee", 1)[0]))["predictions"]


def test_so_much_may_come_at_a_time(vectors, monkeypatch):
    """Of all clients together, since each body is held until it is whole."""
    monkeypatch.setattr(security, "_HELD", 0)
    with Server(vectors, body=10_000) as server:
        row, held = npy(cluster("bee", 1)[0]), server.client.app._held
        for kind in ("image/jpeg", "text/plain"):
            held.bytes = 19_990
            told = server.client.post("/predict", content=row, headers={"Content-Type": kind})
            assert (told.status_code, told.json()["error"]) == (503, "Busy")
            assert told.headers["retry-after"]
            assert held.bytes == 19_990
            held.bytes = 0
            server.post("/predict", content=row, headers={"Content-Type": kind})
            assert held.bytes == 0


def test_a_large_picture_is_named_beside_others(vectors, monkeypatch):
    """Its hash takes long: others are answered meanwhile."""
    where = []
    real = serving.content_hash
    monkeypatch.setattr(
        serving, "content_hash", lambda data: where.append(threading.current_thread()) or real(data)
    )
    with Server(vectors) as server:
        for size, name in ((1000, "asyncio"), (2_000_000, "retain-read")):
            server.post("/predict", content=bytes(size))
            assert where[-1].name.startswith(name)


def test_requests_may_come_so_often(vectors):
    with Server(vectors, rate=5.0) as server:
        codes = [server.client.get("/gate").status_code for _ in range(40)]
        assert codes[:20] == [200] * 20
        assert 429 in codes
        assert server.client.get("/gate").headers["retry-after"]
        assert server.get("/gate", "owner")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../../manifest.json",
        "manifest.json",
        "journal.db",
        "-",
        "*",
        "http://example.com/a.jpg",
        "file:///etc/passwd",
        "sha256:",
        "",
        "a" * 65,
    ],
)
def test_no_path_reaches_the_files(server, monkeypatch, name):
    opened = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *a, **k: opened.append(str(path)) or real(path, *a, **k)
    )
    for route, wanted in (
        ("/predict", {"pictures": [{"image": name}]}),
        ("/correct", {"corrections": [{"image": name, "label": "x"}]}),
        ("/learn", {"items": [{"image": name, "label": "x"}]}),
        ("/explain", {"pictures": [{"image": name}]}),
        ("/forget", {"images": [name]}),
        ("/protect", {"images": [name]}),
        ("/inbox/dismiss", {"images": [name]}),
    ):
        server.post(route, "owner", json=wanted, status=404)
    for route in (f"/image/{name}", f"/samples/{name}", f"/page/{name}"):
        assert server.client.get(route).status_code in (404, 405, 200)
    assert not [path for path in opened if "passwd" in path or path.endswith(name or "\0")]


def test_explaining_opens_no_file_that_a_name_names(drawn, tmp_path, monkeypatch):
    """Where only features are kept, the picture is what was sent, or there is none."""
    with retain.create(tmp_path / "shop", memory="features") as shop:
        for label, files in drawn.items():
            shop.learn(files[:3], label)
    first, *rest = drawn
    mine = drawn[first][0].read_bytes()
    with Server(tmp_path / "shop") as server:
        monkeypatch.chdir(server.settings.folder)
        (server.settings.folder / "secret.jpg").write_bytes(drawn[rest[0]][5].read_bytes())
        shown = []
        for name in ("free.jpg", "secret.jpg", "tokens.json"):
            given = {"pictures": [{"bytes": b64(mine), "name": name}]}
            shown.append(server.post("/explain", json=given)["evidence"])
        assert shown[0]
        assert shown == shown[:1] * 3
        last = drawn[first][7].read_bytes()
        lesson = {"items": [{"bytes": b64(last), "name": "tokens.json", "label": first}]}
        server.post("/learn", "owner", json={**lesson, "force": True})
        told = server.post("/explain", json={"pictures": [{"image": content_hash(last)}]})
        assert told["evidence"] is None
        assert "only its feature" in told["note"]


def test_a_name_is_only_shown(server):
    row = npy(cluster("fly", 1)[0])
    for name in ("/etc/passwd", "..\\..\\x", "a\u202eb\x00c", "~", "x" * 2000):
        told = server.post("/predict", json={"pictures": [{"bytes": b64(row), "name": name}]})
        shown = told["predictions"][0]["path"]
        assert "/" not in shown
        assert "\\" not in shown
        assert shown.isprintable()
        assert len(shown) <= 200
    # Half a character is no text.
    broken = json.dumps({"pictures": [{"bytes": b64(row), "name": "\ud800"}]})
    kind = {"Content-Type": "application/json"}
    assert server.client.post("/predict", content=broken, headers=kind).status_code in (200, 422)


def test_logs_hold_no_pictures(server, caplog, monkeypatch):
    row = npy(cluster("fly", 1)[0])
    monkeypatch.setattr(server.serving.classifier, "predict", lambda *a, **k: 1 / 0)
    told = server.post(
        "/predict", json={"pictures": [{"bytes": b64(row), "name": "secret.jpg"}]}, status=500
    )
    assert told["error"] == "Broken"
    assert "ZeroDivision" not in json.dumps(told)
    assert "secret" not in caplog.text
    assert b64(row)[:40] not in caplog.text
