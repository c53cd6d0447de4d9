"""Real processes: a correction is seen by all of them, and one that dies takes nothing along."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

import retain
from tests.faces.helpers import COMMAND, environment
from tests.server.conftest import LABELS, D, b64, cluster, npy
from tests.verbs.conftest import taught


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Running:
    """A server of its own processes, as `retain serve` starts it."""

    def __init__(self, path: Path, *options: str):
        self.port = free_port()
        words = ["serve", str(path), "--port", str(self.port), "--rate", "0", *options]
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(PYTHONUNBUFFERED="1"),
            start_new_session=True,
        )
        said = self.process.stdout.readline() + self.process.stdout.readline()
        self.token = re.search(r"#token=(\S+)", said)[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self.headers = {"Authorization": f"Bearer {self.token}"}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(self.base + "/v2/health/live", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise AssertionError("the server did not start")

    def client(self):
        # No connection is kept, so that each request may go to another worker.
        return httpx.Client(
            base_url=self.base, headers={**self.headers, "Connection": "close"}, timeout=30
        )

    def workers(self):
        """The processes that answer."""
        found = []
        for child in Path("/proc").iterdir():
            if child.name.isdigit():
                try:
                    line = (child / "cmdline").read_bytes()
                    parent = int((child / "stat").read_text().rpartition(")")[2].split()[1])
                except (OSError, IndexError):
                    continue
                if parent == self.process.pid and b"spawn_main" in line:
                    found.append(int(child.name))
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        finally:
            self.process.stdout.close()


@pytest.fixture(scope="module")
def taught_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("processes") / "shop"
    with retain.create(path, extractor=f"vectors:{D}") as shop:
        taught(shop, *LABELS, n=12)
    return path


@pytest.fixture(scope="module")
def running(taught_path):
    """One for all, since it takes a while to start."""
    with Running(taught_path, "--workers", "2") as made:
        yield made


def patient(client, *given, **more):
    """Ask until somebody answers: a connection to a worker that was killed is nobody's fault."""
    for _ in range(60):
        try:
            return client.request(*given, **more)
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("nobody answered")


def test_a_correction_is_seen_by_every_worker_within_a_second(running):
    with running.client() as client:
        for number, row in enumerate(cluster("emu", 4)):
            wanted = {"corrections": [{"bytes": b64(npy(row)), "label": f"emu{number}"}]}
            told = client.post("/correct", json=wanted)
            assert told.status_code == 200, told.text
            until, seen = time.monotonic() + 1.0, []
            while time.monotonic() < until:
                said = client.post("/predict", json={"pictures": [{"bytes": b64(npy(row))}]}).json()
                seen.append((said["event"], said["predictions"][0]["label"]))
            assert set(seen) == {(told.json()["event"], f"emu{number}")}


def test_a_killed_worker_takes_nothing_along(running, taught_path):
    """Requests go on, workers are killed; what was acknowledged is there, no answer is mixed."""
    done, problems = threading.Event(), []
    with retain.open(taught_path) as shop:
        before, events = len(shop.samples()), shop.event

    def ask():
        with running.client() as client:
            while not done.is_set():
                rows = [{"bytes": b64(npy(r))} for r in cluster("bee", 3, seed=2)]
                said = patient(client, "POST", "/predict", json={"pictures": rows})
                if said.status_code != 200:
                    problems.append(said.text)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for each in threads:
        each.start()
    acknowledged = {}
    with running.client() as client:
        for number in range(12):
            if number in (3, 7):
                os.kill(running.workers()[0], signal.SIGKILL)
            row = cluster("yak", 1, seed=number)[0]
            wanted = {"corrections": [{"bytes": b64(npy(row)), "label": "yak"}], "force": True}
            told = patient(client, "POST", "/correct", json=wanted)
            assert told.status_code == 200, told.text
            acknowledged[told.json()["corrected"][0]["image"]] = told.json()["event"]
    done.set()
    for each in threads:
        each.join()
    assert not problems
    with retain.open(taught_path) as shop:
        there = {sample.image: sample for sample in shop.samples()}
        assert all(there[image].label == "yak" for image in acknowledged)
        assert before + len(acknowledged) == len(there)
        assert shop.verify().ok
        assert all(event.actor == "owner" for event in shop.log()[events:])


def test_events_tell_of_changes_by_others(running, taught_path):
    heard = []

    def listen():
        with httpx.stream(
            "GET", running.base + "/events", headers=running.headers, timeout=20
        ) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    heard.append(line)
                if len(heard) == 2:
                    return

    thread = threading.Thread(target=listen)
    thread.start()
    deadline = time.monotonic() + 10
    while not heard and time.monotonic() < deadline:
        time.sleep(0.05)
    with retain.open(taught_path) as shop, shop.acting("console"):
        shop.correct(cluster("kea", 1)[0], "kea", force=True)
    thread.join(10)
    assert '"actor":"console"' in heard[1]


def test_an_open_page_does_not_keep_it_from_ending(vectors):
    """A stream of events has no end; whoever listens must not be waited for."""
    with Running(vectors) as running:
        with httpx.stream("GET", running.base + "/events", timeout=60) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("event:")
            started = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            with suppress(httpx.HTTPError):
                list(lines)
        told = running.process.communicate(timeout=60)[0]
        # It waits ten seconds for what is under way, and says so if that did not suffice.
        assert "exceeded" not in told
        assert "Traceback" not in told
        assert time.monotonic() - started < 60


def test_it_ends_when_told_to_and_leaves_no_process(vectors):
    with Running(vectors) as running:
        group = running.process.pid
        assert httpx.get(running.base + "/status", timeout=10).json()["images"] == 36
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("processes are left")
