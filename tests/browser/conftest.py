"""The page in a real Chromium, on a real server of a classifier that was taught real photographs.

Needs playwright and axe (the extra `browser`) and a Chromium: that of RETAIN_CHROMIUM, or the one
on the path. Where one is missing these tests are skipped, and say which. With RETAIN_SCREENSHOTS
set to a folder, what they see on the way is kept there. RETAIN_PATIENCE is how many seconds they
wait for something to appear (60): more than that on a machine that does much else.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import retain
from tests.browser.helpers import PATIENCE
from tests.faces.helpers import COMMAND, environment

DATA = Path(retain.__file__).parent / "data" / "mini_clothing10" / "mini_clothing10_128_cc0.npz"
KNOWN = ("Dress", "Hat", "Longsleeve", "Outwear", "Pants", "Shirt", "Shoes", "Shorts")
WIDTHS = {"desktop": (1280, 860), "phone": (390, 844)}


def _chromium() -> str | None:
    named = os.environ.get("RETAIN_CHROMIUM")
    names = (named,) if named else ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def _missing() -> str:
    for module in ("fastapi", "uvicorn", "playwright", "axe_playwright_python"):
        if not find_spec(module):
            return f"{module} is not installed; make test-browser installs it"
    if _chromium() is None:
        return "there is no Chromium; apt install chromium, or name it: RETAIN_CHROMIUM=/path"
    return ""


def pytest_collection_modifyitems(items) -> None:
    missing = _missing()
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Folders of photographs: train/CLASS/N.jpg, test/CLASS/N.jpg."""
    root = tmp_path_factory.mktemp("pictures")
    with np.load(DATA) as stored:
        offsets, data, classes = stored["offsets"], stored["data"], stored["classes"]
        parts = [str(stored["split_names"][i]) for i in stored["split"]]
        for i, (label, part) in enumerate(zip(stored["labels"], parts, strict=True)):
            folder = root / part / str(classes[label])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.jpg").write_bytes(data[offsets[i] : offsets[i + 1]].tobytes())
    return root


@pytest.fixture(scope="session")
def test_pictures(pictures):
    """The test photographs of a class."""
    return lambda label: sorted((pictures / "test" / label).glob("*.jpg"))


@pytest.fixture(scope="session")
def taught(pictures, tmp_path_factory) -> Path:
    """A classifier that knows eight of ten kinds of clothes: six at once, then two more."""
    path = tmp_path_factory.mktemp("taught") / "clothes"
    with retain.create(path) as shop:
        for labels in (KNOWN[:6], KNOWN[6:7], KNOWN[7:]):
            files = [f for label in labels for f in sorted((pictures / "train" / label).iterdir())]
            shop.learn(files, [file.parent.name for file in files])
        shop.promote()
    return path


class Served:
    """A server as `retain serve` starts it, and the links that it prints."""

    def __init__(self, path: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.path = path
        self.address = f"http://127.0.0.1:{self.port}/"
        self.process = subprocess.Popen(
            [*COMMAND, "serve", str(path), "--port", str(self.port), "--rate", "0"],
            stdout=subprocess.PIPE,
            text=True,
            env={**environment(), "PYTHONUNBUFFERED": "1"},
        )
        self.link = self.token = ""
        assert self.process.stdout is not None
        while not self.link:
            line = self.process.stdout.readline()
            assert line, "the server ended"
            if found := re.search(r"this once: (\S+)", line):
                self.token = found[1]
            if found := re.search(r"http\S+#token=\S+", line):
                self.link = found[0]
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server does not listen")

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@pytest.fixture
def serve(tmp_path):
    """Start servers of copies of a classifier; they end with the test."""
    made = []

    def start(path: Path) -> Served:
        copy = tmp_path / f"{len(made)}" / path.name
        shutil.copytree(path, copy)
        made.append(Served(copy))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def server(serve, taught) -> Served:
    return serve(taught)


# Of this package: while it lives, an event loop runs, which other tests want for themselves.
@pytest.fixture(scope="package")
def chromium():
    """One Chromium for all tests; its camera is a made-up one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_chromium(),
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open a server's page as somebody new; nothing may go wrong in it, or leave this machine."""
    opened, wrong = [], []

    def start(server: Served, *, link: str = "", width="desktop", scheme="light", touch=None):
        across, high = WIDTHS[width]
        phone = width == "phone" if touch is None else touch
        context = chromium.new_context(
            viewport={"width": across, "height": high},
            color_scheme=scheme,
            has_touch=phone,
            is_mobile=phone,
            locale="en-GB",
            accept_downloads=True,
        )
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))

        def heard(message) -> None:
            text = message.text
            # What the server says no to is no fault of the page.
            if message.type == "error" and not text.startswith("Failed to load resource"):
                wrong.append(f"console: {text}")

        def asked(request) -> None:
            if not request.url.startswith((server.address, "blob:", "data:")):
                wrong.append(f"asked elsewhere: {request.url}")

        page.on("console", heard)
        page.on("request", asked)
        page.goto(link or server.link)
        page.wait_for_selector("body[data-ready]")
        opened.append(context)
        return page

    yield start
    for context in opened:
        context.close()
    assert not wrong, wrong


@pytest.fixture
def shot():
    """Keep what a page shows, small, where somebody asked for it."""
    folder = os.environ.get("RETAIN_SCREENSHOTS")

    def keep(page, name: str) -> None:
        if not folder:
            return
        from io import BytesIO

        from PIL import Image

        page.wait_for_timeout(300)
        picture = Image.open(BytesIO(page.screenshot()))
        Path(folder).mkdir(parents=True, exist_ok=True)
        picture.convert("RGB").save(Path(folder) / f"{name}.webp", quality=72, method=6)

    return keep
