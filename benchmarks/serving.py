"""What HTTP costs, how much one server answers, and what is lost when its processes are killed.

1. Batch 1: the same pictures in turn through `Classifier.predict` here and through a server;
   the median difference. Bar: 3 ms.
2. 32 clients at once on one server, beside the bare extractor, in short turns; no picture comes
   twice, so that no answer is remembered. Bar: 0.9 of what the extractor does in batches,
   whatever their size, from the bytes of a picture to its features. Beside it the network alone on
   pictures that were prepared beforehand, and `extract_many`, which is faster than batches on most
   processors: one picture at a time on a thread for each core, decoding included. The
   clients, and whatever else the machine does, take from the same processors; so beside the rates
   stands the processor time of an answer, that of the clients by itself.
3. 10,000 mixed requests to two workers, 200 of them corrections, while workers are killed five
   times: every correction that was acknowledged is there, and every answer is that of the version
   that it names. Bar: nothing lost, nothing mixed.

`--quick` does a tenth of it.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from _data import stored, table

import retain
from retain.values import Source
from retain.vision import (
    OnnxExtractor,
    encode_vector,
    extract_many,
    load_builtin,
    prepare,
    usable_cores,
)

COMMAND = ["-c", "from retain.faces.cli import main; main()"]
TAUGHT = 200
CLIENTS = 32
TURN = 1.5  # seconds
LENGTH = re.compile(rb"content-length: (\d+)")
D = 128
BATCHES = (1, 4, 8, 16, 32)


@contextmanager
def served(
    path: Path, *options: str, python: str = sys.executable
) -> Iterator[tuple[int, str, subprocess.Popen[str]]]:
    """A server as `retain serve` starts it: its port, its owner's token, its process."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen(
        [python, *COMMAND, "serve", str(path), "--port", str(port), "--rate", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        token = ""
        while not token:
            line = process.stdout.readline()
            token = (re.search(r"#token=(\S+)", line) or [None, ""])[1]
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1):
                    break
            except OSError:
                time.sleep(0.1)
        yield port, token, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def request(route: str, body: bytes, kind: str, token: str = "") -> bytes:
    """An HTTP request as bytes, so that asking costs next to nothing."""
    who = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{who}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def answer(file: socket.SocketIO) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    status = int(file.readline().split()[1])
    length = 0
    while (line := file.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, file.read(length)


def pictures(name: str) -> tuple[list[bytes], list[str]]:
    files = stored(name)
    order = np.random.default_rng(0).permutation(len(files))
    return [files[i] for i in order], files.labels[order].tolist()


def spent(process: int) -> float:
    """Processor seconds of a process and of those it started, so far."""
    total = 0
    for child in Path("/proc").iterdir():
        if child.name.isdigit():
            try:
                fields = (child / "stat").read_text().rpartition(")")[2].split()
                if process in (int(child.name), int(fields[1])):
                    for thread in (child / "task").iterdir():
                        total += int((thread / "schedstat").read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def overhead(shop: retain.Classifier, port: int, asked: list[bytes]) -> None:
    own, http = [], []
    with socket.create_connection(("127.0.0.1", port)) as link, link.makefile("rb") as file:
        for data in asked:
            started = time.perf_counter()
            here = shop.predict([data])[0]
            own.append(time.perf_counter() - started)
            started = time.perf_counter()
            link.sendall(request("/predict", data, "image/jpeg"))
            status, body = answer(file)
            http.append(time.perf_counter() - started)
            there = json.loads(body)["predictions"][0]
            assert (status, there["label"]) == (200, here.label), body
    a, b = np.array(own) * 1e3, np.array(http) * 1e3
    table(
        f"batch 1, {len(asked)} pictures, ms (bar: +3)",
        ["", "median", "90 %"],
        [
            ["predict", f"{np.median(a):.2f}", f"{np.percentile(a, 90):.2f}"],
            ["over HTTP", f"{np.median(b):.2f}", f"{np.percentile(b, 90):.2f}"],
            ["difference", f"{np.median(b - a):.2f}", ""],
        ],
    )


def fresh(asked: list[bytes]) -> Iterator[bytes]:
    """Requests about pictures of which no two have the same bytes: none was ever seen before."""
    head = request("/predict", b"", "image/jpeg").partition(b"Content-Length")[0]
    for number, data in enumerate(itertools.cycle(asked)):
        # What comes after the end of a JPEG is not looked at.
        yield b"%bContent-Length: %d\r\n\r\n%b%08d" % (head, len(data) + 8, data, number)


def crowd(port: int, requests: Iterator[bytes], seconds: float) -> tuple[int, float, int]:
    """How many answers so many clients get in so many seconds, each asking again when answered.

    It is counted while all of them ask: not before each was answered once, nor while the last ones
    are waited for. One thread and one `select` for all of them: what asks must not take from what
    answers.

    Returns:
        The answers that count, the seconds that they took, and all answers.
    """
    with selectors.DefaultSelector() as waiting:
        for _ in range(CLIENTS):
            link = socket.create_connection(("127.0.0.1", port))
            waiting.register(link, selectors.EVENT_READ, bytearray())
            link.sendall(next(requests))
        done = counted = 0
        began = ended = 0.0
        while waiting.get_map():
            for key, _ in waiting.select(60):
                link, told = key.fileobj, key.data
                told += link.recv(65536)
                head = told.find(b"\r\n\r\n")
                if head < 0:
                    continue
                assert told.startswith(b"HTTP/1.1 200"), bytes(told)
                length = int(LENGTH.search(told)[1])
                if len(told) < head + 4 + length:
                    continue
                told.clear()
                done += 1
                if not ended:
                    now = time.perf_counter()
                    if done == CLIENTS:
                        began = now
                    elif began and now - began >= seconds:
                        counted, ended = done - CLIENTS, now
                if ended:
                    waiting.unregister(link)
                    link.close()
                else:
                    link.sendall(next(requests))
    return counted, ended - began, done


def bare(extractor: OnnxExtractor, pictures: Iterator[bytes], seconds: float) -> tuple[int, float]:
    """How many pictures the extractor does in so many seconds, from the first answer on."""
    stream = (Source("", lambda data=data: data) for data in pictures)
    began = 0.0
    for done, _ in enumerate(extract_many(stream, extractor)):
        now = time.perf_counter()
        began = began or now
        if now - began >= seconds:
            return done, now - began
    raise AssertionError


def batched(
    extractor: OnnxExtractor, asked: list[bytes], size: int, *, decoding: bool
) -> Iterator[float]:
    """Pictures a second in batches on all cores, one turn after another.

    With `decoding` from the bytes of a picture to its features, as the server has it, the next
    batch being decoded in threads while the network is busy with this one; without, the network
    alone, on pictures that were prepared beforehand.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    # Threads that wait for work without letting go of a core would take it from the decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(not decoding)))
    graph = str(extractor.files()["features.onnx"])
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def ready(data: bytes) -> np.ndarray:
        return prepare(extractor.pixels(data), extractor.rule)

    known = [] if decoding else [ready(data) for data in asked[: 4 * max(BATCHES)]]
    with ThreadPoolExecutor(usable_cores()) as pool:
        turns = itertools.cycle(asked if decoding else known)
        ahead = [pool.submit(ready, next(turns)) for _ in range(size)] if decoding else []
        wait(ahead)
        while True:
            done, started = 0, time.perf_counter()
            while time.perf_counter() - started < TURN:
                if decoding:
                    rows = [each.result() for each in ahead]
                    ahead = [pool.submit(ready, next(turns)) for _ in range(size)]
                else:
                    rows = [next(turns) for _ in range(size)]
                session.run(None, {given.name: np.concatenate(rows)})
                done += size
            rate = done / (time.perf_counter() - started)
            wait(ahead)  # nothing goes on beside what is measured next
            yield rate


def throughput(port: int, process: int, asked: list[bytes], turns: int) -> None:
    extractor = load_builtin("efficientnet_lite0")
    requests, pictures = fresh(asked), itertools.cycle(asked)
    crowd(port, requests, TURN)
    assert isinstance(extractor, OnnxExtractor)
    batches = [
        batched(extractor, asked, size, decoding=decoding)
        for size in BATCHES
        for decoding in (True, False)
    ]
    rows, alone = [], []
    for _ in range(turns):
        alone.append([next(each) for each in batches])
        used = time.process_time()
        done, seconds = bare(extractor, pictures, TURN)
        alone_cpu = (time.process_time() - used) / done * 1e3
        used, own = spent(process), time.process_time()
        count, window, every = crowd(port, requests, TURN)
        asking = (time.process_time() - own) / every * 1e3
        cpu = (spent(process) - used) / every * 1e3
        rows.append((done / seconds, alone_cpu, count / window, cpu, asking))
    bare_rate, bare_cpu, rate, cpu, asking = np.array(rows).T
    columns = iter(np.array(alone).T)
    together = []
    for size in BATCHES:
        pair = next(columns), next(columns)
        cells = [[f"{np.median(each):.0f}", f"{np.median(rate / each):.2f}"] for each in pair]
        together.append([f"{size}", *cells[0], *cells[1]])
    table(
        f"{CLIENTS} clients beside the extractor in batches (bar: 0.90 of its rate)",
        ["batch", "pictures a second", "server / that", "network alone", "server / that"],
        together,
    )
    table(
        f"{CLIENTS} clients, {turns} turns of {TURN:g} s each, medians",
        ["", "pictures a second", "processor ms each"],
        [
            [
                "bare extractor, one at a time on each core",
                f"{np.median(bare_rate):.0f}",
                f"{np.median(bare_cpu):.2f}",
            ],
            ["server", f"{np.median(rate):.0f}", f"{np.median(cpu):.2f}"],
            ["clients", "", f"{np.median(asking):.2f}"],
            [
                "server / bare, turn by turn",
                f"{np.median(rate / bare_rate):.2f}",
                f"{np.median(bare_cpu / cpu):.2f}",
            ],
            ["with the clients", "", f"{np.median(bare_cpu / (cpu + asking)):.2f}"],
        ],
    )


def workers(parent: int) -> list[int]:
    found = []
    for child in Path("/proc").iterdir():
        if child.name.isdigit():
            try:
                fields = (child / "stat").read_text().rpartition(")")[2].split()
                line = (child / "cmdline").read_bytes()
            except OSError:
                continue
            if int(fields[1]) == parent and b"spawn_main" in line:
                found.append(int(child.name))
    return found


def mixed(scratch: Path, total: int, corrections: int, kills: int) -> None:
    """The third part; asks with vectors, since not the network is on trial here."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(6, D))
    rows = (centres[random.integers(0, 6, 400)] + 0.8 * random.normal(size=(400, D))).astype("f4")
    with retain.create(scratch / "mixed", extractor=f"vectors:{D}") as shop:
        for c in range(6):
            taught = centres[c] + 0.8 * random.normal(size=(15, D))
            shop.learn(taught.astype("f4"), f"class{c}")
    answers: list[tuple[int, int, str, float]] = []
    acknowledged: dict[str, str] = {}
    turn, failed, refused = threading.Lock(), [0], [0]
    every = total // corrections
    numbers = iter(range(total))

    def picture(row: np.ndarray) -> str:
        return base64.b64encode(encode_vector(row)).decode()

    def ask(port: int, token: str) -> None:
        link = file = None
        while True:
            with turn:
                number = next(numbers, None)
            if number is None:
                return
            correct = number % every == every - 1
            chosen = [number % 400, (number * 7 + 1) % 400]
            if correct:
                # Pictures that nobody else corrects, so that what is said of them stays said.
                # Half of them get an arbitrary name: as many as there are numbers cannot hold.
                own = np.random.default_rng(number).normal(size=D)
                row = (centres[number % 6] + 1.5 * own).astype("f4")
                turned = number // every
                label = f"class{turned % 6 if turned % 2 else number % 6}"
                body = {"corrections": [{"bytes": picture(row), "label": label}], "force": True}
            else:
                body = {"pictures": [{"bytes": picture(rows[i])} for i in chosen]}
            text = json.dumps(body).encode()
            route = "/correct" if correct else "/predict"
            while True:
                try:
                    if link is None:
                        link = socket.create_connection(("127.0.0.1", port), 30)
                        file = link.makefile("rb")
                    link.sendall(request(route, text, "application/json", token))
                    status, told = answer(file)
                    if status != 503:
                        break
                    # Another writes for longer than it waits, or too many wait: try again, it says.
                    failed[0] += 1
                    time.sleep(1)
                except (OSError, IndexError, ValueError):
                    # Its worker was killed: ask again, as any client would.
                    failed[0] += 1
                    link = None
                    time.sleep(0.05)
            value = json.loads(told)
            if status == 200 and correct:
                acknowledged[value["corrected"][0]["image"]] = label
            elif status == 200:
                for i, each in zip(chosen, value["predictions"], strict=True):
                    answers.append((value["event"], i, each["label"], each["probability"]))
            elif correct and status == 409:
                refused[0] += 1
            else:
                raise AssertionError((status, told[:300]))

    with served(scratch / "mixed", "--workers", "2") as (port, token, process):
        threads = [threading.Thread(target=ask, args=(port, token)) for _ in range(8)]
        started = time.perf_counter()
        for each in threads:
            each.start()
        killed = 0
        while any(each.is_alive() for each in threads):
            time.sleep(0.2)
            due = (killed + 1) * total / (kills + 1)
            if killed < kills and len(answers) / 2 >= due:
                alive = workers(process.pid)
                if alive:
                    os.kill(alive[killed % len(alive)], signal.SIGKILL)
                    killed += 1
        seconds = time.perf_counter() - started
    with retain.open(scratch / "mixed") as shop:
        there = {sample.image: sample.label for sample in shop.samples()}
        lost = sum(there.get(image) != label for image, label in acknowledged.items())
        sound = shop.verify().ok
        events = sorted({event for event, *_ in answers})
        sampled = {*events[:: max(1, len(events) // 40)], events[-1]}
        checked = wrong = 0
        for event in sampled:
            said = shop.predict(rows, version=event, top=1)
            for at, i, label, probability in answers:
                if at == event:
                    checked += 1
                    same = abs(said[i].probability - probability) < 1e-9
                    wrong += not (same and said[i].label == label)
    table(
        f"{total:,} requests in {seconds:.0f} s, {killed} workers killed (bar: 0 lost, 0 mixed)",
        ["", "count"],
        [
            ["corrections acknowledged", len(acknowledged)],
            ["of these lost", lost],
            ["corrections refused (409)", refused[0]],
            ["requests asked again", failed[0]],
            ["versions that answered", len(events)],
            ["answers held against their version", checked],
            ["of these otherwise", wrong],
            ["verify", "ok" if sound else "NOT OK"],
        ],
    )
    assert not lost
    assert not wrong
    assert sound


def main() -> None:
    """All three parts."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth of it")
    options.add_argument("--only", choices=["latency", "throughput", "mixed"])
    given = options.parse_args()
    part = 10 if given.quick else 1
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if given.only != "mixed":
            data, labels = pictures("clothing17_224")
            with retain.create(scratch / "shop") as shop:
                shop.learn(data[:TAUGHT], labels[:TAUGHT])
                with served(scratch / "shop") as (port, _, process):
                    if given.only != "throughput":
                        overhead(shop, port, data[TAUGHT : TAUGHT + max(1000 // part, 100)])
                    if given.only != "latency":
                        throughput(port, process.pid, data[TAUGHT:], 20 if part == 1 else 5)
        if given.only in (None, "mixed"):
            mixed(scratch, 10_000 // part, 200 // part, 1 if given.quick else 5)


if __name__ == "__main__":
    main()
