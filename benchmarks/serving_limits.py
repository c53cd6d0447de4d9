"""How soon a correction is seen, and what a server does with 10,000 bodies that mean nothing.

1. 3,000 remembered pictures of 100 kinds; pictures that are answered wrong are asked about,
   corrected, and asked about again, as the page does it: the time from the click to the new answer.
   Where playwright and a Chromium are there, also on the page itself, from the press to the frame
   that shows it. Bar: 300 ms.
2. 10,000 bodies, broken in many ways, to every route that takes one, as the owner. Bar: no answer
   of 500 or more, and no more memory at the end than 1.1 times that after a fifth of them.

`--quick` does a tenth of it.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
from _data import table
from serving import answer, pictures, request, served

import retain
from retain.vision import encode_vector

REMEMBERED = 3000
D = 16
KINDS = (
    "application/json",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "image/jpeg",
    "application/octet-stream",
    "",
    "text/plain; charset=nonsense",
)
VALUES = (None, True, -1, 0, 2**63, 1.5e308, "", "\u0000", "a" * 300, "../../etc", [], {}, [[]])
FIELDS = (
    *(
        "pictures",
        "items",
        "corrections",
        "images",
        "labels",
        "events",
        "event",
        "version",
        "alias",
    ),
    *("old", "new", "into", "off", "force", "dry_run", "inputs", "tasks", "label_config", "action"),
    *("task", "annotation", "project", "regressions", "parameters", "replace", "bytes", "label"),
)


def correction(scratch: Path, remembered: int, asked: int) -> None:
    """The first part, over HTTP and, where it can be had, on the page."""
    data, labels = pictures("caltech101_30_10")
    with retain.create(scratch / "shop") as shop:
        shop.learn(data[:remembered], labels[:remembered])
        rest = list(zip(data[remembered:], labels[remembered:], strict=True))[: 20 * asked]
        said = shop.predict([each for each, _ in rest])
        wrong = [
            (each, label)
            for (each, label), found in zip(rest, said, strict=True)
            if found.label != label
        ]
    taken: list[float] = []
    shown: list[float] = []
    with served(scratch / "shop", "--workers", "1") as (port, token, _):
        with socket.create_connection(("127.0.0.1", port)) as link, link.makefile("rb") as file:

            def post(route: str, body: bytes, kind: str = "application/json") -> dict:
                link.sendall(request(route, body, kind, token))
                status, told = answer(file)
                assert status == 200, told[:300]
                return json.loads(told)

            for each, label in wrong[:asked]:
                image = post("/predict?similar=4", each, "image/jpeg")["predictions"][0]["image"]
                started = time.perf_counter()
                said = {"corrections": [{"image": image, "label": label}], "force": True}
                post("/correct", json.dumps(said).encode())
                again = post("/predict", json.dumps({"pictures": [{"image": image}]}).encode())
                taken.append(time.perf_counter() - started)
                assert again["predictions"][0]["label"] == label
        shown = on_the_page(scratch, port, token, wrong[asked : 2 * asked])
    rows = [("over HTTP", taken), ("on the page", shown)]
    table(
        f"a correction with {remembered:,} remembered, ms (bar: 300)",
        ["", "corrections", "median", "90 %", "most"],
        [
            [
                name,
                len(found),
                *(f"{1e3 * np.percentile(found, q):.0f}" for q in (50, 90, 100)),
            ]
            for name, found in rows
            if found
        ],
    )


# From the press to the second frame after the card says that it is fixed: by then it is seen.
_PRESS = """(label) => new Promise((done) => {
  const card = document.querySelector(".card");
  const started = performance.now();
  new MutationObserver((_, watch) => {
    if (!card.classList.contains("fixed")) return;
    watch.disconnect();
    const end = () => done(performance.now() - started);
    requestAnimationFrame(() => requestAnimationFrame(end));
  }).observe(card, { attributes: true, attributeFilter: ["class"] });
  const field = card.querySelector(".name-field input");
  field.value = label;
  field.form.requestSubmit();
})"""


def on_the_page(
    scratch: Path, port: int, token: str, wrong: list[tuple[bytes, str]]
) -> list[float]:
    """Seconds from pressing to seeing, in Chromium; none where there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("the page is left out: there is no playwright, or no Chromium")
        return []
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{port}/#token={token}")
        page.wait_for_selector("body[data-ready]")
        for number, (data, label) in enumerate(wrong):
            (scratch / f"{number}.jpg").write_bytes(data)
            field = page.locator("main input[type=file]").first
            field.set_input_files(str(scratch / f"{number}.jpg"))
            page.locator(".card .choice").first.wait_for()
            with suppress(Exception):  # a refusal opens a dialog instead: it is not counted
                found.append(page.evaluate(_PRESS, label) / 1e3)
            page.keyboard.press("Escape")
            page.evaluate(
                "() => document.querySelectorAll('.card .remove').forEach((b) => b.click())"
            )
        browser.close()
    return found


def memory(parent: int) -> float:
    """Megabytes of a process and of all that it started."""
    kin: dict[int, tuple[int, float]] = {}
    for child in Path("/proc").iterdir():
        if child.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                fields = (child / "stat").read_text().rpartition(")")[2].split()
                pages = int((child / "statm").read_text().split()[1])
                kin[int(child.name)] = int(fields[1]), pages * 4096 / 1e6
    total, open_ones = 0.0, [parent]
    while open_ones:
        one = open_ones.pop()
        total += kin.get(one, (0, 0.0))[1]
        open_ones += [each for each, (of, _) in kin.items() if of == one]
    return total


def nonsense(chance: random.Random, picture: bytes) -> bytes:
    """A body: JSON of the wrong shape, or a right body with bytes of it changed."""
    if chance.random() < 0.5:
        inner = [{"bytes": chance.choice(VALUES), "label": chance.choice(VALUES)}]
        fields = chance.sample(FIELDS, chance.randrange(4))
        return json.dumps({f: chance.choice([*VALUES, inner]) for f in fields}).encode()
    form = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.npy"\r\n\r\n'
        + picture
        + b'\r\n--x\r\nContent-Disposition: form-data; name="labels"\r\n\r\nbee\r\n--x--\r\n'
    )
    jpeg = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + chance.randbytes(200)
    data = bytearray(chance.choice([form, picture, jpeg, b"[" * 50_000, chance.randbytes(500)]))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(data))
        data[at : at + chance.randrange(9)] = chance.randbytes(chance.randrange(9))
    return bytes(data)


def fuzzed(scratch: Path, total: int) -> None:
    """The second part."""
    rows = np.random.default_rng(0).normal(size=(40, D)).astype("f4")
    with retain.create(scratch / "fuzz", extractor=f"vectors:{D}") as shop:
        shop.learn(rows[:20], "ant")
        shop.learn(rows[20:] + 1, "bee")
    chance, picture = random.Random(0), encode_vector(rows[0])
    statuses: dict[int, int] = {}
    used: list[float] = []
    with served(scratch / "fuzz") as (port, token, process):
        link = HTTPConnection("127.0.0.1", port, timeout=60)
        link.request("GET", "/openapi.json")
        paths = json.loads(link.getresponse().read())["paths"]
        routes = [
            route.replace("{name:path}", "fuzz").replace("{name}", "fuzz").replace("{version}", "1")
            for route, kinds in paths.items()
            if "post" in kinds
        ]
        for number in range(total):
            headers = {"Authorization": f"Bearer {token}", "Content-Type": chance.choice(KINDS)}
            route = chance.choice(routes)
            try:
                link.request("POST", route, nonsense(chance, picture), headers)
                found = link.getresponse()
                found.read()
            except OSError:
                # It may hang up on whom it refuses before all was sent; it must still be there.
                link.close()
                continue
            statuses[found.status] = statuses.get(found.status, 0) + 1
            if found.status >= 500:
                print(f"{found.status} from {route}")
            if number % (total // 10) == total // 10 - 1:
                used.append(memory(process.pid))
        assert process.poll() is None
    table(
        f"{total:,} bodies that mean nothing (bar: none of 500 or more, memory at most 1.1)",
        ["", ""],
        [
            *([f"answered {status}", count] for status, count in sorted(statuses.items())),
            ["MB after each tenth", " ".join(f"{each:.0f}" for each in used)],
            ["the last beside that after a fifth", f"{used[-1] / used[1]:.2f}"],
        ],
    )
    # A gate that is closed for a moment (503) would be no crash; there is one client, so none is.
    assert not any(status >= 500 for status in statuses)


def main() -> None:
    """Both parts."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth of it")
    options.add_argument("--only", choices=["correction", "fuzzed"])
    given = options.parse_args()
    part = 10 if given.quick else 1
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "correction":
            fuzzed(Path(folder), 10_000 // part)
        if given.only != "fuzzed":
            correction(Path(folder), REMEMBERED // part, 40 // part)


if __name__ == "__main__":
    main()
