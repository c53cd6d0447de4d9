"""How many pictures a second become features: ours, the usual PyTorch pipeline, bare ONNX Runtime.

    python benchmarks/extract_speed.py --torch /path/to/python-with-torch-and-timm

Three kinds of picture: photos of 224 px, for which decoding is not the limit; and, made of real
photos laid side by side (so that they have the detail of real ones), pictures of about 100 KB
(800×600) and of 12 megapixels (4000×3000). The usual pipeline is timm's
model in eager mode on batches of 16, Pillow, and timm's default transform, in a process of its
own; stock, with glibc's allocator told to keep its memory (page faults halve the stock one), and
with a DataLoader of one worker per core. The weights do not matter for speed: timm's are random.

Targets: 3.3 × PyTorch at 100 KB, 6 × at 12 megapixels, 85 % of bare ONNX Runtime at 224 px.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
DATA = Path(os.environ.get("RETAIN_DATA", HERE.parents[2] / "shared")) / "data"
PLAIN, DETAIL = "clothing17_224.npz", "caltech101_30_10.npz"
BATCH = 16
ROUNDS = 3
TUNED = {
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}
KINDS = ("224 px", "100 KB", "12 MP")


def main() -> int:
    """Make the pictures, run every pipeline, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch", default=os.environ.get("RETAIN_TORCH_PYTHON", sys.executable))
    parser.add_argument("--small", type=int, default=256, help="how many 100 KB pictures")
    parser.add_argument("--large", type=int, default=48, help="how many 12-megapixel pictures")
    parser.add_argument("--json", action="store_true", help="print the rates as JSON")
    parser.add_argument("--torch-side", choices=["plain", "loader"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch_side:
        print(torch_side(Path(options.folder), loader=options.torch_side == "loader"))
        return 0
    for name in (PLAIN, DETAIL):
        if not (DATA / name).exists():
            print(f"skipped: {DATA / name} is missing; set RETAIN_DATA")
            return 0
    rates: dict[str, dict[str, float]] = {}
    limit = bare(options.small)
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            place = Path(folder, kind.replace(" ", ""))
            place.mkdir()
            if kind == "224 px":
                copy_pictures(place, options.small)
            elif kind == "100 KB":
                make_pictures(place, options.small, 800, 600, 100_000)
            else:
                make_pictures(place, options.large, 4000, 3000, None)
            sizes = [file.stat().st_size for file in place.iterdir()]
            print(f"{kind}: {len(sizes)} pictures of {np.mean(sizes):,.0f} bytes", file=sys.stderr)
            rates[kind] = {"retain": ours(place), **limit, **torch(place, options.torch)}
    if options.json:
        print(json.dumps(rates, indent=2))
    else:
        table(rates)
    return 0


def copy_pictures(place: Path, count: int) -> None:
    """Write `count` photos whose shorter side is 224 px, as they are."""
    with np.load(DATA / PLAIN) as file:
        data, offsets = file["data"], file["offsets"]
    for number in range(count):
        (place / f"{number:04}.jpg").write_bytes(data[offsets[number] : offsets[number + 1]])


def make_pictures(place: Path, count: int, width: int, height: int, size: int | None) -> None:
    """Write `count` JPEG files of real photos side by side.

    With `size`, the quality is chosen for each so that the file has about as many bytes.
    """
    from PIL import Image

    with np.load(DATA / DETAIL) as file:
        data, offsets = file["data"], file["offsets"]
    order = iter(np.random.default_rng(0).permutation(len(offsets) - 1).tolist() * 100)
    for number in range(count):
        canvas = Image.new("RGB", (width, height))
        for top in range(0, height, 200):
            for left in range(0, width, 300):
                i = next(order)
                photo = Image.open(BytesIO(data[offsets[i] : offsets[i + 1]].tobytes()))
                canvas.paste(photo.convert("RGB").resize((300, 200)), (left, top))
        low, high, encoded = 30, 95, b""
        while low <= high:
            quality = (low + high) // 2 if size else 90
            buffer = BytesIO()
            canvas.save(buffer, "JPEG", quality=quality)
            encoded = buffer.getvalue()
            if size is None:
                break
            low, high = (quality + 1, high) if len(encoded) < size else (low, quality - 1)
        (place / f"{number:04}.jpg").write_bytes(encoded)


def best(run: Callable[[], int]) -> float:
    """Pictures a second in the fastest of a few rounds, after one to warm up."""
    rates = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        count = run()
        rates.append(count / (time.perf_counter() - start))
    return max(rates[1:])


def ours(place: Path) -> float:
    """Our pipeline, from files to features."""
    from retain.vision import extract_many, load_builtin, unlabelled

    extractor = load_builtin("efficientnet_lite0")
    sources = unlabelled(place, extractor).sources
    return best(lambda: sum(x.feature is not None for x in extract_many(sources, extractor)))


def bare(count: int) -> dict[str, float]:
    """ONNX Runtime alone, on tensors that are ready, in the ways one would try."""
    import onnxruntime

    from retain.vision import usable_cores

    graph = str(HERE.parents[1] / "src/retain/data/efficientnet_lite0/features.onnx")
    cores = usable_cores()

    def rate(batch: int, inside: int, outside: int) -> float:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = inside
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        pixels = np.random.default_rng(0).normal(size=(batch, 3, 224, 224)).astype(np.float32)

        def run() -> int:
            calls = max(2 * cores, count // batch)
            with ThreadPoolExecutor(outside) as pool:
                list(pool.map(lambda _: session.run(None, {"pixels": pixels}), range(calls)))
            return calls * batch

        return best(run)

    return {
        f"ONNX Runtime alone, batch {batch}, {inside}×{outside} threads": rate(
            batch, inside, outside
        )
        for batch in (1, BATCH)
        for inside, outside in {(1, cores), (cores, 1)}
    }


def torch(place: Path, python: str) -> dict[str, float]:
    """The usual pipeline in its own process; nothing where PyTorch and timm are absent."""
    rates = {}
    for name, side, variables in (
        ("PyTorch, stock", "plain", {}),
        ("PyTorch, allocator tuned", "plain", TUNED),
        ("PyTorch, DataLoader workers, tuned", "loader", TUNED),
    ):
        done = subprocess.run(
            [python, str(HERE), "--torch-side", side, "--folder", str(place)],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it failed"])[-1]
            print(f"skipped {name!r} ({python}): {last}", file=sys.stderr)
            continue
        rates[name] = float(done.stdout.split()[-1])
    return rates


def torch_side(place: Path, *, loader: bool) -> float:
    """What people write today; run by the interpreter that has PyTorch."""
    import timm
    import torch
    from PIL import Image

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    files = sorted(place.iterdir())

    class Pictures(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> Any:
            return transform(Image.open(files[index]).convert("RGB"))

    def batches() -> Iterator[Any]:
        if loader:
            workers = len(os.sched_getaffinity(0))
            yield from torch.utils.data.DataLoader(Pictures(), BATCH, num_workers=workers)
            return
        pictures = Pictures()
        for start in range(0, len(files), BATCH):
            chosen = range(start, min(start + BATCH, len(files)))
            yield torch.stack([pictures[i] for i in chosen])

    def run() -> int:
        with torch.inference_mode():
            return sum(len(model(batch)) for batch in batches())

    return best(run)


def table(rates: dict[str, dict[str, float]]) -> None:
    """Print pictures a second, and how many times the others' rate ours is."""
    kinds = list(rates)
    print(
        f"\n{'pictures a second (retain is x times as fast)':50}"
        + "".join(f"{k:>20}" for k in kinds)
    )
    names = list(dict.fromkeys(name for kind in kinds for name in rates[kind]))
    for name in names:
        cells = []
        for kind in kinds:
            rate = rates[kind].get(name)
            times = (
                "" if rate is None or name == "retain" else f"({rates[kind]['retain'] / rate:.2f})"
            )
            cells.append(f"{'' if rate is None else f'{rate:.1f}':>12}{times:>8}")
        print(f"{name:50}" + "".join(cells))
    for kind, target in (("100 KB", 3.3), ("12 MP", 6.0)):
        usual = [rates[kind][n] for n in rates[kind] if n.startswith("PyTorch, allocator")]
        if usual:
            ratio = rates[kind]["retain"] / usual[0]
            verdict = "reached" if ratio >= target else "MISSED"
            print(
                f"{kind}: {ratio:.2f} × PyTorch with a tuned allocator, target {target}: {verdict}"
            )
    for kind in KINDS:
        column = rates[kind]
        share = column["retain"] / max(v for k, v in column.items() if k.startswith("ONNX"))
        verdict = ", target 85%: " + ("reached" if share >= 0.85 else "MISSED")
        print(f"{kind}: {share:.0%} of bare ONNX Runtime{verdict if kind == '224 px' else ''}")


if __name__ == "__main__":
    sys.exit(main())
