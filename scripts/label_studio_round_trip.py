"""A round trip with a real Label Studio: its pictures are pre-annotated, its annotations learned.

Starts a Label Studio (from an environment of its own: ``python -m venv ls && ls/bin/pip install
label-studio``) with SQLite in a temporary folder, and a `retain serve` beside it; makes a project,
uploads pictures, connects the backend and a webhook, fetches predictions, annotates through its
API, and looks whether the annotations were learned and corrected. Takes minutes, most of which
Label Studio spends on making its database.

`--record FILE` keeps what Label Studio sent, for tests/server/test_label_studio.py: names of
machines, keys and times are replaced.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import http.server
import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

import retain
from retain.faces.server.settings import Settings
from retain.faces.server.tokens import Tokens

CONFIG = (
    '<View><Image name="img" value="$image"/>'
    '<Choices name="what" toName="img"><Choice value="mug"/><Choice value="plate"/>'
    '<Choice value="spoon"/></Choices></View>'
)
COLOURS = {"mug": (200, 40, 40), "plate": (40, 160, 60), "spoon": (50, 70, 210)}
USER, PASSWORD = "owner@example.com", "Round-Trip-1"
START = 900.0
KEPT = ("authorization", "content-type", "user-agent")


def drawn(label: str, number: int) -> bytes:
    """A picture of one colour, as a PNG."""
    image = Image.new("RGB", (96, 96), (235, 235, 230))
    ImageDraw.Draw(image).rectangle((4 + number, 8, 60 + number, 70), fill=COLOURS[label])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Recorder(http.server.BaseHTTPRequestHandler):
    """Stands between Label Studio and the server, and keeps what was said."""

    protocol_version = "HTTP/1.1"
    port = 0
    seen: list[dict[str, Any]] = []  # noqa: RUF012 - one recorder in one process

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        link.request(self.command, self.path, body, {**headers, "Host": f"127.0.0.1:{self.port}"})
        answer = link.getresponse()
        told = answer.read()
        kept = {name.lower(): self.headers[name] for name in self.headers if name.lower() in KEPT}
        sent = json.loads(body) if body else None
        said = json.loads(told) if told else None
        self.seen.append(
            {"method": self.command, "path": self.path, "headers": kept, "body": sent}
            | {"status": answer.status, "answer": said}
        )
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    do_GET = do_POST = _pass_on  # noqa: N815 - so they are called

    def log_message(self, *_: Any) -> None:
        """Nothing: what it said is kept."""


class Studio:
    """Label Studio's own API."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key

    def ask(self, method: str, route: str, value: Any = None, files: Any = None) -> Any:
        """What it says; SystemExit where it says no."""
        headers = {"Authorization": f"Token {self.key}"}
        data = None
        if files is not None:
            edge = secrets.token_hex(8)
            headers["Content-Type"] = f"multipart/form-data; boundary={edge}"
            data = (
                b"".join(
                    f'--{edge}\r\nContent-Disposition: form-data; name="{name}"; '
                    f'filename="{name}"\r\n'
                    "Content-Type: image/png\r\n\r\n".encode()
                    + content
                    + b"\r\n"
                    for name, content in files.items()
                )
                + f"--{edge}--\r\n".encode()
            )
        elif value is not None:
            headers["Content-Type"], data = "application/json", json.dumps(value).encode()
        request = urllib.request.Request(self.url + route, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                told = answer.read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {route}: {error.code} {error.read()[:600]!r}") from None
        return json.loads(told) if told else None


def wait_for(url: str, process: subprocess.Popen[Any], log: Path) -> None:
    """Wait until it answers; SystemExit with the end of its log where it does not."""
    until = time.monotonic() + START
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"it ended by itself:\n{log.read_text()[-3000:]}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"{url} did not answer in {START:.0f} s:\n{log.read_text()[-3000:]}")


def annotation(label: str) -> dict[str, Any]:
    """One choice, as Label Studio's own editor sends it."""
    value = {"choices": [label]}
    return {
        "result": [{"from_name": "what", "to_name": "img", "type": "choices", "value": value}],
        "lead_time": 1.5,
    }


def trip(studio: Studio, backend: str, token: str, shop: Path) -> None:
    """Everything once; an AssertionError says what was not as it should be."""
    project = studio.ask("POST", "/api/projects", {"title": "trip", "label_config": CONFIG})["id"]
    files = {f"{label}.png": drawn(label, 21) for label in COLOURS}
    studio.ask("POST", f"/api/projects/{project}/import", files=files)
    made = studio.ask(
        "POST",
        "/api/ml",
        {"url": backend, "project": project, "title": "retain", "auth_method": "BASIC_AUTH"}
        | {"basic_auth_user": "anybody", "basic_auth_pass": token},
    )
    assert made["state"] == "CO", made
    studio.ask(
        "POST",
        "/api/webhooks/",
        {"url": f"{backend}/webhook", "project": project, "send_payload": True}
        | {"send_for_all_actions": True, "headers": {"Authorization": f"Bearer {token}"}},
    )
    studio.ask(
        "POST",
        f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}",
        {"selectedItems": {"all": True, "excluded": []}},
    )
    listed = studio.ask("GET", f"/api/tasks?project={project}&fields=all")["tasks"]
    tasks = {}
    for each in listed:
        task = studio.ask("GET", f"/api/tasks/{each['id']}/")
        truth = re.search(r"(mug|plate|spoon)\.png", task["data"]["image"])[1]
        predictions = task["predictions"]
        assert len(predictions) == 1, task
        said = predictions[0]["result"][0]
        assert said["value"] == {"choices": [truth]}, (truth, said)
        assert (said["from_name"], said["to_name"]) == ("what", "img")
        assert 0 < predictions[0]["score"] <= 1
        tasks[truth] = task["id"]
    print(f"pre-annotations: {len(tasks)} of 3 arrived, all right, score and version with them")

    def last() -> retain.Event:
        with retain.open(shop) as opened:
            return opened.log()[-1]

    before = last().event
    studio.ask("POST", f"/api/tasks/{tasks['mug']}/annotations/", annotation("mug"))
    learned = last()
    assert (learned.event, learned.kind) == (before + 1, "learn"), learned
    assert learned.actor == "studio", learned
    print(f"an annotation that agrees: {learned.summary!r}, by {learned.actor}")
    made = studio.ask("POST", f"/api/tasks/{tasks['spoon']}/annotations/", annotation("plate"))
    corrected = last()
    assert (corrected.event, corrected.kind) == (before + 2, "correct"), corrected
    print(f"an annotation that contradicts: {corrected.summary!r}")
    studio.ask("PATCH", f"/api/annotations/{made['id']}/", annotation("spoon"))
    again = last()
    assert (again.event, again.kind) == (before + 3, "correct"), again
    print(f"the annotation changed: {again.summary!r}")
    studio.ask("DELETE", f"/api/annotations/{made['id']}/")
    assert last().event == again.event
    print("the annotation deleted: ignored, since what it taught can be undone here")


def cleaned(seen: list[dict[str, Any]], hidden: dict[str, str]) -> str:
    """What was recorded, without anything of this machine."""
    text = json.dumps(seen, indent=1, sort_keys=True)
    for secret, shown in hidden.items():
        text = text.replace(secret, shown)
    text = re.sub(r"20\d\d-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "2026-01-01T00:00:00Z", text)
    text = re.sub(r'"(1\.)1\d{9}"', r'"\g<1>1700000000"', text)
    return re.sub(r"/data/upload/(\d+)/[0-9a-f]{8}-", r"/data/upload/\1/0a1b2c3d-", text) + "\n"


def main() -> None:
    """The round trip."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--label-studio", default="label-studio", help="its command")
    options.add_argument("--record", type=Path, help="keep what it sent in this file")
    given = options.parse_args()
    command = shutil.which(given.label_studio)
    if command is None:
        print(f"skipped: there is no {given.label_studio}; see the top of this file")
        return
    key, port, own, between = secrets.token_hex(20), free_port(), free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    running: list[subprocess.Popen[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        try:
            shop = scratch / "shop"
            with retain.create(shop) as made:
                labels = [label for label in COLOURS for _ in range(6)]
                pictures = [drawn(label, 3 * i) for label in COLOURS for i in range(6)]
                made.learn(pictures, labels)
            settings = Settings(shop)
            settings.folder.mkdir(mode=0o700)
            tokens = Tokens(settings.folder)
            tokens.add("owner", "owner")
            token = tokens.add("studio", "teacher")
            log = scratch / "studio.log"
            environment = {
                **os.environ,
                "LABEL_STUDIO_BASE_DATA_DIR": str(scratch / "studio"),
                "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
                # Both servers are on this machine, which Label Studio would not ask otherwise.
                "ML_BLOCK_LOCAL_IP": "false",
                "SSRF_PROTECTION_ENABLED": "false",
                "ML_TIMEOUT_HEALTH": "30",
                "ML_TIMEOUT_SETUP": "30",
                "WEBHOOK_TIMEOUT": "60",
                "COLLECT_ANALYTICS": "false",
                "LATEST_VERSION_CHECK": "false",
            }
            arguments = ["start", "--no-browser", "--port", str(port), "--user-token", key]
            arguments += ["--internal-host", "127.0.0.1", "--username", USER]
            with log.open("w") as file:
                running.append(
                    subprocess.Popen(
                        [command, *arguments, "--password", PASSWORD],
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        cwd=scratch,
                    )
                )
            Recorder.port = own
            recorder = http.server.ThreadingHTTPServer(("127.0.0.1", between), Recorder)
            threading.Thread(target=recorder.serve_forever, daemon=True).start()
            wait_for(f"{url}/health", running[0], log)
            personal = Studio(url, key).ask("POST", "/api/token/", {})["token"]
            serve = "from retain.faces.cli import main; main()"
            command_line = [sys.executable, "-c", serve, "serve", str(shop), "--port", str(own)]
            own_log = scratch / "own.log"
            with own_log.open("w") as file:
                running.append(
                    subprocess.Popen(
                        [*command_line, "--label-studio", url],
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env={**os.environ, "LABEL_STUDIO_API_KEY": personal},
                    )
                )
            wait_for(f"http://127.0.0.1:{own}/v2/health/live", running[1], own_log)
            trip(Studio(url, key), f"http://127.0.0.1:{between}/label-studio", token, shop)
            if given.record:
                basic = base64.b64encode(f"anybody:{token}".encode()).decode()
                hidden = {
                    basic: "BASIC",
                    token: "TOKEN",
                    key: "KEY",
                    personal: "KEY",
                    USER: "owner@example.com",
                }
                hidden[url] = hidden[f"http://localhost:{port}"] = "http://studio.example"
                hidden[str(scratch)] = "/studio"
                given.record.write_text(cleaned(Recorder.seen, hidden))
                print(f"kept: {len(Recorder.seen)} requests in {given.record}")
            recorder.shutdown()
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(60)


if __name__ == "__main__":
    main()
