"""A large memory: 100,000 remembered pictures of 1,280 numbers (synthetic features).

Bars: `correct` under 1 s; opening and the first prediction, in a fresh process, under 3 s; memory
under 1.5 GB. Correcting is measured in a process that has the classifier open; the first correction
after opening, which loads every feature, is shown beside it.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _data import table

import retain

COUNT, D, CLASSES = 100_000, 1280, 100

ASK = """
import sys, time
started = time.perf_counter()
import numpy as np, retain
with retain.open(sys.argv[1]) as shop:
    opened = time.perf_counter() - started
    row = np.random.default_rng(5).normal(size=(1, {d})).astype(np.float32)
    shop.predict(row)
    first = time.perf_counter() - started
print(opened, first)
"""

CORRECT = """
import sys, time
import numpy as np, retain
random = np.random.default_rng(9)
with retain.open(sys.argv[1]) as shop:
    samples = shop.samples()
    for k in range(6):
        sample = samples[int(random.integers(len(samples)))]
        label = "class %03d" % ((int(sample.label[6:]) + 1) % {classes})
        started = time.perf_counter()
        assert shop.correct(sample.image, label).fixed
        print(time.perf_counter() - started)
"""

PEAK = """
# ru_maxrss of a child begins at its parent's size; the kernel's own high-water mark does not.
from pathlib import Path
status = Path("/proc/self/status")
if status.exists():
    print(status.read_text().split("VmHWM:")[1].split()[0])
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def child(code: str, path: Path) -> list[float]:
    """Run a fresh interpreter; the numbers it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code.format(d=D, classes=CLASSES) + PEAK, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    """Build it in ten lessons, then ask and correct in fresh processes."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLASSES, D)).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "large"
        started = time.perf_counter()
        with retain.create(path, extractor=f"vectors:{D}", memory="features") as shop:
            for _ in range(10):
                rows = random.integers(0, CLASSES, COUNT // 10)
                noise = random.normal(size=(len(rows), D)).astype(np.float32)
                shop.learn(centres[rows] + 2 * noise, [f"class {r:03d}" for r in rows])
        built = time.perf_counter() - started
        building = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        opened, first, reader = child(ASK, path)
        *corrections, writer = child(CORRECT, path)
        kilobytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1024
    cold, warm = corrections[0], float(np.median(corrections[1:]))
    table(
        f"{COUNT:,} remembered pictures of {D:,} numbers, {CLASSES} classes",
        ["what", "measured", "bar", "holds"],
        [
            ("open, fresh process", f"{opened:.2f} s", "", ""),
            ("open and first prediction", f"{first:.2f} s", "3 s", mark(first < 3)),
            ("correct, classifier open", f"{warm:.2f} s", "1 s", mark(warm < 1)),
            ("first correct after opening", f"{cold:.2f} s", "", ""),
            ("memory, predicting", f"{reader / 1024:.0f} MB", "1,500 MB", mark(reader < 1.5e6)),
            ("memory, correcting", f"{writer / 1024:.0f} MB", "1,500 MB", mark(writer < 1.5e6)),
            ("memory, learning in ten lessons", f"{building / 1024:.0f} MB", "", ""),
            ("time to learn all", f"{built:.0f} s", "", ""),
            ("on disk", f"{kilobytes / 1024:.0f} MB", "", ""),
        ],
    )


def mark(holds: bool) -> str:
    """Yes or no."""
    return "yes" if holds else "NO"


if __name__ == "__main__":
    main()
