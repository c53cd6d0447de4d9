"""Pictures made on the fly, and real ones where they are."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retain.vision import Extractor, load_builtin

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("RETAIN_DATA", ROOT.parent / "shared")) / "data"


def scene(width: int = 96, height: int = 64, seed: int = 0) -> np.ndarray:
    """A picture without symmetry, smooth enough for JPEG."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    pixels[: height // 4, : width // 3] = (250, 20, 20)
    return pixels


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    """An image file."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def lite() -> Extractor:
    return load_builtin("efficientnet_lite0")


@pytest.fixture(scope="session")
def photos() -> Callable[[int], list[bytes]]:
    """Some real photos; the test is skipped where there are none."""

    def load(count: int) -> list[bytes]:
        path = DATA / "caltech101_30_10.npz"
        if not path.exists():
            pytest.skip(f"{path} is missing; set RETAIN_DATA to the folder that holds data/")
        with np.load(path) as file:
            data, offsets = file["data"], file["offsets"]
        chosen = np.linspace(0, len(offsets) - 2, count).astype(int)
        return [data[offsets[i] : offsets[i + 1]].tobytes() for i in chosen]

    return load
