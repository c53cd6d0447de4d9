"""Pictures to draw, and commands to run as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from retain.faces.cli import main; main()"]
COLOURS = {"mug": (200, 40, 40), "plate": (40, 160, 60), "spoon": (50, 70, 210)}


def draw(path: Path, label: str, number: int) -> Path:
    """One picture: shapes in the colour of the class, at places that depend on the number."""
    image = Image.new("RGB", (96, 96), (235, 235, 230))
    pen = ImageDraw.Draw(image)
    red, green, blue = COLOURS.get(label, (120, 120, 120))
    shade = (min(255, red + 6 * number), green, max(0, blue - 5 * number))
    at = 6 + 5 * (number % 7)
    box = (at, at, at + 50, at + 44)
    if label == "plate":
        pen.ellipse(box, fill=shade)
    elif label == "spoon":
        pen.line((at, 90, 90, at), fill=shade, width=9)
    else:
        pen.rectangle(box, fill=shade)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=92) if path.suffix == ".jpg" else image.save(path)
    return path


def process(*words: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a process of its own."""
    options.setdefault("env", environment())
    return subprocess.run([*COMMAND, *words], capture_output=True, timeout=120, **options)


def environment(**more: str) -> dict[str, str]:
    """The environment of a child: this process's, this source tree, and what is given."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}
