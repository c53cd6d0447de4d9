from pathlib import Path

import numpy as np
import pytest

from retain.store import Assertion, Manifest, NewImage, Store
from retain.values import content_hash

D = 8
EXTRACTOR = {"features.onnx": b"a graph", "preprocess.json": b"{}"}


def manifest(**changes):
    given = {"name": "shop", "extractor": "eyes-1", "dimension": D, "memory": "images"}
    return Manifest.new(**{**given, "options": {}, **changes})


def picture(number):
    """A picture that is like no other: its bytes, feature and name are its own."""
    rng = np.random.default_rng(number)
    data = b"picture" + rng.bytes(120)
    feature = rng.integers(-16000, 16000, D).astype(np.int16)
    return NewImage(content_hash(data), f"folder/my_{number:04d}_face.jpg", data, feature, 2.5)


def learn(store, numbers, label="mug", kind="learn", pinned=False):
    """One event that says so of pictures, new or not."""
    new = [picture(number) for number in numbers]
    says = [Assertion(each.image, label, pinned) for each in new]
    with store.writing(kind):
        return store.append(kind, says, new_images=new)


def labels(store):
    return {sample.image: sample.label for sample in store.members()}


def everything(folder):
    """Every file's name and bytes."""
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def traces(folder, new):
    """What of one picture can still be found in any file of the directory."""
    digest = new.image.removeprefix("sha256:")
    secrets = {
        "bytes": new.data,
        "feature": new.feature.astype("<i2").tobytes(),
        "hash": digest.encode(),
        "raw hash": bytes.fromhex(digest),
        "name": new.source.encode(),
    }
    found = set()
    for path, data in everything(folder).items():
        found |= {what for what, secret in secrets.items() if secret in data}
        if digest in path.name:
            found.add("file name")
    return found


ALL_TRACES = {"bytes", "feature", "raw hash", "name", "file name"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shop"


@pytest.fixture
def store(path):
    with Store.create(path, manifest(), EXTRACTOR) as made:
        yield made
