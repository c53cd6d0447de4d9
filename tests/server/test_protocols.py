"""What clients that are there already send, and what they read."""

import base64
import http.server
import json
import struct
import threading
from typing import ClassVar

import numpy as np
import pytest

import retain
from retain.faces.server import protocols
from retain.values import content_hash
from tests.server.conftest import LABELS, Server, b64, cluster, npy


def tensor(**more):
    return {"inputs": [{"name": "images", **more}]}


def test_v2_says_what_it_is(server):
    assert server.get("/v2/health/live")["live"] is True
    assert server.get("/v2/health/ready")["ready"] is True
    assert server.get("/v2")["name"] == "retain"
    told = server.get("/v2/models/shop")
    assert told["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 12]}]
    assert told["versions"] == ["1", "2", "3"]
    assert server.get("/v2/models/shop/versions/2/ready")["ready"] is True
    assert server.get("/v2/models/other", status=404)["error"] == "NotFound"


def test_v2_is_not_ready_before_it_knows_something(tmp_path):
    """The protocol wants 4xx, not 5xx: nothing is broken."""
    with retain.create(tmp_path / "empty", extractor="vectors:4"):
        pass
    with Server(tmp_path / "empty") as made:
        for route in ("/v2/health/ready", "/v2/models/empty/ready"):
            assert made.get(route, status=400)["ready"] is False
        assert made.get("/v2/health/live")["live"] is True


def test_v2_answers_as_predict(server):
    rows = cluster("bee", 3, seed=4)
    own = server.shop.predict(rows, top=3)
    several = [
        tensor(datatype="FP32", shape=[3, 12], data=rows.astype(float).ravel().tolist()),
        tensor(datatype="FP32", shape=[3, 12], data=rows.astype(float).tolist()),
        tensor(datatype="BYTES", shape=[3], data=[b64(npy(row)) for row in rows]),
    ]
    for body in several:
        told = server.post("/v2/models/shop/infer", json={**body, "id": "42"})
        out = {each["name"]: each for each in told["outputs"]}
        assert (told["id"], told["model_version"]) == ("42", "3")
        assert out["label"]["data"] == [each.label for each in own]
        assert out["classes"]["data"] == sorted(LABELS)
        table = np.array(out["probabilities"]["data"]).reshape(out["probabilities"]["shape"])
        for row, each in zip(table, own, strict=True):
            said = dict(zip(out["classes"]["data"], row, strict=True))
            assert said == {score.label: score.probability for score in each.top}
    old = server.post("/v2/models/shop/versions/2/infer", json=several[0])
    assert old["model_version"] == "2"


def test_v2_binary(server):
    rows = cluster("bee", 2, seed=4).astype("<f4")
    strings = b"".join(struct.pack("<I", len(npy(row))) + npy(row) for row in rows)
    for kind, shape, data in (("FP32", [2, 12], rows.tobytes()), ("BYTES", [2], strings)):
        head = json.dumps(
            {
                **tensor(datatype=kind, shape=shape, parameters={"binary_data_size": len(data)}),
                "outputs": [{"name": "label"}],
            }
        ).encode()
        told = server.post(
            "/v2/models/shop/infer",
            content=head + data,
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        assert told["outputs"][0]["data"] == [each.label for each in server.shop.predict(rows)]


def test_v2_pixels(photos, drawn):
    from retain.vision import decode

    pixels = decode(drawn["mug"][6].read_bytes())
    told = photos.post(
        "/v2/models/shop/infer",
        json=tensor(datatype="UINT8", shape=[1, *pixels.shape], data=pixels.ravel().tolist()),
    )
    assert told["outputs"][0]["data"] == [photos.shop.predict(pixels)[0].label]


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"inputs": []},
        {"inputs": [1]},
        tensor(datatype="FP32"),
        tensor(datatype="FP32", shape=[1, 12], data=[1] * 11),
        tensor(datatype="FP32", shape=[1000, 10**9], data=[1]),
        tensor(datatype="X", shape=[1], data=[1]),
        tensor(datatype="BYTES", shape=[1], data=["!!"]),
        tensor(datatype="BYTES", shape=[2], data=["AAAA"]),
        tensor(datatype="FP32", shape=[1, 12], data=["a"] * 12),
        tensor(datatype=["FP32"], shape=[1, 12], data=[1] * 12),
        tensor(datatype="FP32", shape=[1, 11], data=[1] * 11),
        tensor(datatype="FP32", shape=[1, 12], data=[float("1e308")] * 12),
        {**tensor(datatype="FP32", shape=[1, 12], data=[1] * 12), "outputs": [{"name": "x"}]},
        tensor(datatype="UINT8", shape=[1, 2, 2, 3], data=[300] * 12),
    ],
)
def test_v2_refuses_in_words(server, body):
    answer = server.client.post("/v2/models/shop/infer", json=body)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["message"]


def infer(server, count, kind, shape, data):
    """A request with `data` after its JSON; they speak of `count` pictures."""
    given = {
        "name": "images",
        "shape": [count, *shape],
        "datatype": kind,
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"inputs": [given]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return server.post("/v2/models/shop/infer", content=head + data, headers=headers, status=413)


@pytest.mark.parametrize(
    ("kind", "shape", "size"), [("UINT8", [1, 1, 3], 3), ("FP32", [1], 4), ("BYTES", [], 4)]
)
def test_v2_counts_pictures_before_it_makes_them(server, monkeypatch, kind, shape, size):
    made = []
    for name in ("encode_array", "encode_vector", "_source"):
        monkeypatch.setattr(protocols, name, lambda *_: made.append(1) or b"")
    count = 100_000
    assert infer(server, count, kind, shape, bytes(count * size))["error"] == "TooLarge"
    if kind == "BYTES":
        assert infer(server, 1, kind, shape, bytes(count * size))["error"] == "TooLarge"
    assert not made


def test_hugging_face_shapes(server):
    row = npy(cluster("cow", 1)[0])
    own = server.shop.predict([row], top=5)[0]
    plain = [{"label": s.label, "score": s.probability} for s in own.top]
    assert server.post("/", content=row) == plain
    assert server.post("/models/shop", content=row, headers={"Content-Type": "image/png"}) == plain
    assert server.post("/", json={"inputs": b64(row), "parameters": {"top_k": 1}}) == plain[:1]
    assert server.post("/", json={"inputs": [b64(row), b64(row)]}) == [plain, plain]
    for bad in (
        {},
        {"inputs": 3},
        {"inputs": []},
        {"inputs": b64(row), "parameters": {"top_k": 0}},
        {"inputs": "%"},
    ):
        assert server.client.post("/", json=bad).status_code == 422, bad
    assert server.client.post("/", content=b"").status_code == 400
    assert server.client.post("/", content=b"junk").status_code == 422


# -- Label Studio --------------------------------------------------------------------------------

CONFIG = (
    '<View><Image name="img" value="$image"/>'
    '<Choices name="what" toName="img"><Choice value="bee"/></Choices></View>'
)


class Studio(http.server.BaseHTTPRequestHandler):
    pictures: ClassVar[dict[str, bytes]] = {}
    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self):
        Studio.seen.append((self.path, self.headers.get("Authorization")))
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/secret")
            self.end_headers()
            return
        found = self.pictures.get(self.path)
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(found or b"")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Studio.seen.append((self.path, body.get("refresh")))
        good = self.path == "/api/token/refresh" and body == {"refresh": "a.b.c"}
        told = json.dumps({"access": "short"} if good else {"detail": "no"}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_):
        pass


@pytest.fixture
def studio():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Studio)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Studio.seen.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def annotation(label, **more):
    result = [
        {"from_name": "what", "to_name": "img", "type": "choices", "value": {"choices": [label]}}
    ]
    return {"id": 7, "result": result, "was_cancelled": False, **more}


def test_label_studio_round_trip(vectors, studio, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "key")
    rows = cluster("bee", 3, seed=6)
    Studio.pictures.update({f"/data/upload/1/{i}.npy": npy(row) for i, row in enumerate(rows)})
    with Server(vectors, label_studio=studio) as server:
        basic = "Basic " + base64.b64encode(f"any:{server.tokens['teacher']}".encode()).decode()
        headers = {"Authorization": basic}
        assert server.get("/label-studio/health", headers=headers)["status"] == "UP"
        setup = {
            "project": "1.1700000000",
            "schema": CONFIG,
            "hostname": studio,
            "access_token": "x",
        }
        assert (
            server.post("/label-studio/setup", json=setup, headers=headers)["model_version"] == "3"
        )
        tasks = [{"id": i, "data": {"image": f"/data/upload/1/{i}.npy"}} for i in range(3)]
        tasks.append({"id": 9, "data": {"image": "/missing.npy"}})
        asked = {"tasks": tasks, "project": "1.17", "label_config": CONFIG, "params": {}}
        told = server.post("/label-studio/predict", json=asked, headers=headers)["results"]
        assert [each["result"][0]["value"]["choices"] for each in told[:3]] == [["bee"]] * 3
        assert told[0]["result"][0]["from_name"] == "what"
        assert told[3]["result"] == []
        assert Studio.seen[0] == ("/data/upload/1/0.npy", "Token key")
        event = {
            "action": "ANNOTATION_CREATED",
            "task": tasks[0],
            "annotation": annotation("bee"),
            "project": {"id": 1, "label_config": CONFIG},
        }
        assert server.post("/label-studio/webhook", json=event, headers=headers)["verb"] == "learn"
        event |= {"action": "ANNOTATION_UPDATED", "annotation": annotation("wasp")}
        assert (
            server.post("/label-studio/webhook", json=event, headers=headers)["verb"] == "correct"
        )
        labels = {each.image: each.label for each in server.shop.samples()}
        assert labels[content_hash(npy(rows[0]))] == "wasp"
        # The same again changes nothing.
        assert (
            server.post("/label-studio/webhook", json=event, headers=headers)["update"]["event"]
            is None
        )
        for action in ("ANNOTATIONS_DELETED", None, ["ANNOTATION_CREATED"], {}):
            event["action"] = action
            told = server.post("/label-studio/webhook", json=event, headers=headers)
            assert told["status"] == "ignored"


def test_a_personal_access_token_is_traded_for_a_short_one(vectors, studio, monkeypatch):
    """As Label Studio wants it by default now; a legacy token is sent as it is."""
    rows = cluster("bee", 2, seed=6)
    Studio.pictures.update({f"/{i}.npy": npy(row) for i, row in enumerate(rows)})
    tasks = [{"id": i, "data": {"image": f"/{i}.npy"}} for i in range(2)]
    asked = {"tasks": tasks, "label_config": CONFIG}
    with Server(vectors, label_studio=studio) as server:
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", "a.b.c")
        told = server.post("/label-studio/predict", "teacher", json=asked)["results"]
        assert all(each["result"] for each in told)
        refresh = ("/api/token/refresh", "a.b.c")
        assert Studio.seen == [refresh, ("/0.npy", "Bearer short"), ("/1.npy", "Bearer short")]
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", "x.y.z")
        told = server.post("/label-studio/predict", "teacher", json=asked)["results"]
        assert not any(each["result"] for each in told)


def test_readers_have_nothing_fetched_with_the_owners_key(vectors, studio, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "key")
    Studio.pictures["/secret.npy"] = npy(cluster("bee", 1)[0])
    asked = {"tasks": [{"data": {"image": "/secret.npy"}}], "label_config": CONFIG}
    with Server(vectors, label_studio=studio) as server:
        server.post("/label-studio/predict", json=asked, status=401)
        server.post("/label-studio/predict", "reader", json=asked, status=403)
        assert not Studio.seen
        assert server.serving.desk.lately(9) == []
        server.post("/label-studio/predict", "teacher", json=asked)
        assert Studio.seen == [("/secret.npy", "Token key")]


@pytest.mark.parametrize(
    "place",
    [
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        "//evil.example/x",
        "/away",
        "gopher://x",
        "http://127.0.0.1:1/x",
        "s3://bucket/x",
        "\\\\evil\\x",
        "http://[",
        3,
        None,
        "",
    ],
)
def test_nothing_is_fetched_from_anywhere_else(vectors, studio, place):
    with Server(vectors, label_studio=studio) as server:
        told = server.post(
            "/label-studio/predict",
            "teacher",
            json={"tasks": [{"data": {"image": place}}], "label_config": CONFIG},
        )
        assert told["results"][0]["result"] == []
        event = {
            "action": "ANNOTATION_CREATED",
            "task": {"data": {"image": place}},
            "annotation": annotation("bee"),
            "project": {"label_config": CONFIG},
        }
        answer = server.ask(
            "POST",
            "/label-studio/webhook",
            "teacher",
            json=event,
            status=502 if place in ("/away", "\\\\evil\\x") else 422,
        )
        assert answer.json()["message"]


@pytest.mark.parametrize(
    "config",
    [
        "",
        "<",
        "<View/>",
        "x" * 300_000,
        '<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>',
        "<View>" * 5000,
        '<View><Image name="i" value="x"/><Choices name="c" toName="i"/></View>',
    ],
)
def test_a_label_config_may_be_anything(server, config):
    headers = {"Authorization": f"Bearer {server.tokens['teacher']}"}
    asked = {"tasks": [], "label_config": config}
    answer = server.client.post("/label-studio/predict", json=asked, headers=headers)
    assert answer.status_code == 422
