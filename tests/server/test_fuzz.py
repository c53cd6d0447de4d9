"""Whatever comes in, what goes out is an answer: never a crash, never a path."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.conftest import Server, b64, cluster, npy

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = (
    "pictures",
    "items",
    "corrections",
    "images",
    "labels",
    "events",
    "event",
    "version",
    "alias",
    "old",
    "new",
    "into",
    "off",
    "force",
    "dry_run",
    "inputs",
    "tasks",
    "label_config",
    "action",
    "task",
    "annotation",
    "project",
    "regressions",
    "parameters",
    "replace",
)
PICTURE = st.fixed_dictionaries(
    {},
    optional={
        "bytes": JUNK | st.just(b64(npy([0.0] * 12))),
        "image": JUNK,
        "prediction": JUNK,
        "label": JUNK,
        "name": JUNK,
    },
)
BODIES = JUNK | st.dictionaries(
    st.sampled_from(FIELDS), JUNK | st.lists(PICTURE, max_size=3), max_size=4
)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    import retain
    from tests.verbs.conftest import D, taught

    path = tmp_path_factory.mktemp("fuzz") / "shop"
    with retain.create(path, extractor=f"vectors:{D}") as shop:
        taught(shop, "ant", "bee", n=6)
    with Server(path) as server:
        yield server


def posts(server):
    found = server.get("/openapi.json")["paths"]
    fill = {"{name}": "shop", "{version}": "1", "{name:path}": "shop"}
    made = []
    for route, kinds in found.items():
        for name, value in fill.items():
            route = route.replace(name, value)
        if "post" in kinds:
            made.append(route)
    return made


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=BODIES, pick=st.integers(0, 10**6))
def test_any_json(running, body, pick):
    route = posts_of(running)[pick % len(posts_of(running))]
    try:
        text = json.dumps(body)
    except ValueError:
        return
    headers = {
        "Authorization": f"Bearer {running.tokens['owner']}",
        "Content-Type": "application/json",
    }
    answer = running.client.post(route, content=text, headers=headers)
    assert answer.status_code < 500, (route, text, answer.text)
    assert str(running.settings.path.parent) not in answer.text
    if answer.status_code >= 400:
        assert {"error", "message", "status"} <= set(answer.json())


_POSTS: dict[int, list[str]] = {}


def posts_of(server):
    return _POSTS.setdefault(id(server), posts(server))


def test_any_bytes_in_any_form(running):
    chance = random.Random(4)
    picture = npy(cluster("bee", 1)[0])
    form = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.npy"\r\n\r\n'
        + picture
        + b'\r\n--x\r\nContent-Disposition: form-data; name="labels"\r\n\r\nbee\r\n--x--\r\n'
    )
    kinds = [
        "application/json",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "image/jpeg",
        "",
        "é/;=",
        "multipart/form-data; boundary=" + "y" * 300,
    ]
    for _ in range(250):
        data = bytearray(
            chance.choice([form, picture, b'{"pictures": [{"bytes": "AAAA"}]}', b"[" * 100_000])
        )
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(9)] = chance.randbytes(chance.randrange(9))
        kind = chance.choice(kinds)
        headers = {
            "Authorization": f"Bearer {running.tokens['owner']}",
            "Content-Type": kind.encode("latin-1"),
        }
        route = chance.choice(posts_of(running))
        answer = running.client.post(route, content=bytes(data), headers=headers)
        assert answer.status_code < 500, (route, kind, bytes(data)[:200], answer.text)


@pytest.mark.parametrize(
    "query",
    [
        "a=-1",
        "a=" + "9" * 60,
        "a=%00",
        "a=production&b=" + "x" * 65,
        "limit=0",
        "limit=1e9",
        "offset=-1",
        "side=15",
        "side=99999999",
        "label=%ff",
        "version=-5",
        "version=%E2%91%A0",
        "count=0",
        "k=0",
        "before=-2",
        "order=x",
        "top=0",
        "neighbours=99",
    ],
)
def test_any_query(running, query):
    for route in (
        "/diff",
        "/log",
        "/samples",
        "/image/" + "a" * 64,
        "/inbox",
        "/inbox/clusters",
        "/next",
        "/export",
        "/show/1",
        "/show/-1",
        "/show/99999999999999999999",
        "/show/x",
        "/samples/zz",
    ):
        answer = running.client.get(
            f"{route}?{query}", headers={"Authorization": f"Bearer {running.tokens['owner']}"}
        )
        assert answer.status_code < 500, (route, query, answer.text)
