"""A classifier of vectors (fast), one of drawn pictures, and ways to ask a server about them."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

import retain
from retain.vision import encode_vector
from tests.faces.helpers import COLOURS, draw
from tests.verbs.conftest import D, cluster, taught

LABELS = ("ant", "bee", "cow")


def npy(row) -> bytes:
    """A vector as the "picture" that a classifier of vectors takes."""
    return encode_vector(np.asarray(row, np.float32))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def body(row, **more):
    """A picture in JSON."""
    return {"bytes": b64(npy(row)), **more}


class Server:
    """A server in this process, its clients by role, and the classifier behind it."""

    def __init__(self, path: Path, **options):
        # Here, and not above, since where these are not installed nothing of this is collected.
        from starlette.testclient import TestClient

        from retain.faces.server.app import application
        from retain.faces.server.settings import Settings
        from retain.faces.server.tokens import Tokens

        self.settings = Settings(path, **{"rate": 0.0, "decoders": 1, **options})
        self.settings.folder.mkdir(exist_ok=True)
        tokens = Tokens(self.settings.folder)
        self.tokens = {role: tokens.add(role, role) for role in ("reader", "teacher", "owner")}
        self.client = TestClient(
            application(self.settings),
            base_url="http://localhost",
            raise_server_exceptions=False,
        )

    def __enter__(self):
        self.client.__enter__()
        return self

    def __exit__(self, *error):
        self.client.__exit__(*error)

    def ask(self, method, route, role=None, *, status=200, **more):
        headers = dict(more.pop("headers", {}))
        if role:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        answer = self.client.request(method, route, headers=headers, **more)
        assert answer.status_code == status, (answer.status_code, answer.text[:500])
        return answer

    def get(self, route, role=None, **more):
        return self.ask("GET", route, role, **more).json()

    def post(self, route, role=None, **more):
        return self.ask("POST", route, role, **more).json()

    @property
    def shop(self):
        return self.client.app._app._app.state.serving.classifier

    @property
    def serving(self):
        return self.client.app._app._app.state.serving


@pytest.fixture
def vectors(tmp_path):
    """A classifier of vectors that knows three classes."""
    with retain.create(tmp_path / "shop", extractor=f"vectors:{D}") as shop:
        taught(shop, *LABELS, n=12)
    return tmp_path / "shop"


@pytest.fixture
def server(vectors):
    with Server(vectors) as made:
        yield made


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Drawn pictures by label: label → files."""
    folder = tmp_path_factory.mktemp("drawn")
    return {
        label: [draw(folder / label / f"{label}{n}.jpg", label, n) for n in range(8)]
        for label in COLOURS
    }


@pytest.fixture(scope="session")
def photos_path(drawn, tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "shop"
    with retain.create(path) as shop:
        for label, files in drawn.items():
            shop.learn(files[:5], label)
    return path


@pytest.fixture
def photos(photos_path, tmp_path):
    """A server of a classifier that knows drawn pictures."""
    import shutil

    shutil.copytree(photos_path, tmp_path / "shop")
    with Server(tmp_path / "shop") as made:
        yield made


__all__ = ["LABELS", "D", "Server", "b64", "body", "cluster", "npy"]
