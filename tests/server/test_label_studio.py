"""What a real Label Studio sent, once more; kept by scripts/label_studio_round_trip.py --record."""

from __future__ import annotations

import base64
import http.server
import json
import re
import threading
from pathlib import Path

import pytest

import retain
from retain.faces.server import labelstudio
from tests.faces.helpers import COLOURS, draw
from tests.server.conftest import Server

RECORDED = Path(__file__).parent / "recorded" / "label_studio.json"
SEEN = json.loads(RECORDED.read_text()) if RECORDED.exists() else []


class Uploads(http.server.BaseHTTPRequestHandler):
    """Gives the pictures that the recorded tasks name."""

    folder = Path()

    def do_GET(self):
        label = re.search(r"/data/upload/\d+/\w+-(\w+)\.png$", self.path)[1]
        self.send_response(200)
        self.end_headers()
        self.wfile.write((self.folder / f"{label}.png").read_bytes())

    def log_message(self, *_):
        pass


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Each recorded request with what is answered now, and the journal afterwards."""
    if not SEEN:
        pytest.skip(f"{RECORDED.name} is not there")
    shop = retain.create(tmp_path / "shop")
    with shop:
        files = [
            (label, draw(tmp_path / f"{label}{i}.png", label, i))
            for label in COLOURS
            for i in range(6)
        ]
        shop.learn([file for _, file in files], [label for label, _ in files])
        # What is annotated contradicts six pictures that look the same.
        shop.gate(regressions=1.0, class_regressions=1.0, calibration=99.0, correction=1.0)
    for label in COLOURS:
        draw(tmp_path / f"{label}.png", label, 9)
    Uploads.folder = tmp_path
    uploads = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Uploads)
    threading.Thread(target=uploads.serve_forever, daemon=True).start()
    monkeypatch.delenv(labelstudio.KEY, raising=False)
    address = f"http://127.0.0.1:{uploads.server_port}"
    answers = []
    with Server(tmp_path / "shop", label_studio=address) as server:
        token = server.tokens["teacher"]
        basic = base64.b64encode(f"anybody:{token}".encode()).decode()
        # Label Studio makes a webhook by itself for a backend, which knows no token.
        who = {"Basic BASIC": f"Basic {basic}", "Bearer TOKEN": f"Bearer {token}"}
        for each in SEEN:
            given = each["headers"].get("authorization")
            headers = {"Authorization": who[given]} if given else {}
            answer = server.client.request(
                each["method"], each["path"], json=each["body"], headers=headers
            )
            answers.append((each, answer))
        events = server.shop.log()
    uploads.shutdown()
    uploads.server_close()
    return answers, events


def test_each_request_is_answered_as_it_was(told):
    answers, _ = told
    for each, answer in answers:
        assert answer.status_code == each["status"], (each["path"], answer.text)
        now = answer.json()
        if each["path"].endswith("/predict"):
            assert [row["result"][0]["value"] for row in now["results"]] == [
                row["result"][0]["value"] for row in each["answer"]["results"]
            ]
        elif each["path"].endswith("/webhook"):
            assert now["status"] == each["answer"]["status"]
            assert now.get("error") == each["answer"].get("error")
            assert now.get("verb") == each["answer"].get("verb")


def test_annotations_reach_the_journal(told):
    answers, events = told
    verbs = [answer.json().get("verb") for _, answer in answers]
    assert [verb for verb in verbs if verb] == ["learn", "correct", "correct"]
    assert [each.kind for each in events] == ["learn", "gate", "learn", "correct", "correct"]
    assert {each.actor for each in events[2:]} == {"teacher"}


def test_nothing_of_anybodys_machine_was_kept():
    text = RECORDED.read_text() if SEEN else ""
    assert not re.search(r"127\.0\.0\.1|localhost:\d|/tmp/|/home/|/root/", text)
    for each in SEEN:
        assert each["headers"].get("authorization", "Basic BASIC") in (
            "Basic BASIC",
            "Bearer TOKEN",
        )
