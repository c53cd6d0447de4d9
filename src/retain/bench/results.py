"""Results: one JSON file for each stream, method and seed, with all that is needed to trust it.

A result is kept as the mapping that its file holds, so that what other toolboxes write in the same
format is read alike; `read_result` checks it. While a run is under way it is a file that ends in
``.partial.json``, which nobody compares.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from retain.bench.streams import Stream, write_steps
from retain.errors import BadOption, Damaged, NewerFormat
from retain.vision import usable_cores

__all__ = [
    "METRICS",
    "Result",
    "environment",
    "load_results",
    "read_result",
    "result_name",
    "write_result",
]

FORMAT: Final = "retain-bench-result/1"
PARTIAL: Final = ".partial.json"
STATES: Final = ("done", "failed", "unsupported")

Result = Mapping[str, Any]
"""A result as its file holds it; see `docs/benchmarks.md`."""

METRICS: Final = (
    "average_incremental_accuracy",
    "balanced_incremental_accuracy",
    "last_accuracy",
    "forgetting",
    "backward_transfer",
    "forward_transfer",
    "intransigence",
    "recency_bias",
    "negative_flips_per_update",
    "negative_flip_rate",
    "ece",
    "nll",
    "auroc_unseen",
    "wall_s_per_update",
    "cpu_s_per_update",
    "peak_memory_bytes",
    "stored_bytes",
    "harmonic",
    "corrections_kept",
)
"""The metrics over a whole run; null where one cannot be had."""

_PARTS: Final[dict[str, type | tuple[type, ...]]] = {
    "status": str,
    "stream": dict,
    "order": list,
    "method": dict,
    "seed": int,
    "environment": dict,
    "steps": list,
    "metrics": dict,
}


def result_name(
    stream: Stream, method: str, options: Mapping[str, Any] | None = None, seed: int | None = None
) -> str:
    """The name of a result's file, without its ending.

    ``<stream>.<method>``, then the options if there are any, then the seed where it is not that of
    the stream; what a file name cannot hold becomes a minus.
    """
    parts = [stream.name, method]
    if options:
        parts.append(",".join(f"{key}={value}" for key, value in sorted(options.items())))
    if seed is not None and seed != stream.seed:
        parts.append(f"seed{seed}")
    return ".".join(re.sub(r"[^\w=,+.-]+", "-", part) for part in parts)


def write_result(result: Result, path: Path) -> Path:
    """Write a result, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_steps(path, _finite(result))


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one result and check that it is whole.

    Raises:
        BadOption: if there is no such file.
        Damaged: if it is not a whole result.
        NewerFormat: if a newer retain wrote it.
    """
    where = os.fspath(path)
    repair = "delete it and run the same command again"
    try:
        raw = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise BadOption(f"there is no result {where}") from None
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{where} is no result: {error}; {repair}") from None
    given = raw.get("format") if isinstance(raw, dict) else None
    if isinstance(given, str) and given.startswith("retain-bench-result/") and given != FORMAT:
        raise NewerFormat(f"{where} has the format {given}, this retain reads {FORMAT}")
    if given != FORMAT:
        raise Damaged(f"{where} is no result (format {given!r}); {repair}")
    for key, kind in _PARTS.items():
        if not isinstance(raw.get(key), kind) or isinstance(raw[key], bool):
            raise Damaged(f"{where} has no proper {key!r}; {repair}")
    texts = [("stream", each) for each in ("name", "kind", "digest")] + [("method", "name")]
    for part, key in texts:
        if not isinstance(raw[part].get(key), str):
            raise Damaged(f"{where} has no {key!r} of the {part}; {repair}")
    if not all(isinstance(each, dict) for each in raw["steps"]):
        raise Damaged(f"{where} has steps that are none; {repair}")
    for key, value in raw["metrics"].items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise Damaged(f"{where}: the metric {key!r} is {value!r}, not a number; {repair}")
    if raw["status"] not in (*STATES, "running"):
        raise Damaged(f"{where} has the status {raw['status']!r}; {repair}")
    found: dict[str, Any] = raw
    return found


def load_results(*paths: str | os.PathLike[str]) -> tuple[dict[str, Any], ...]:
    """All results in folders and files, in the order of their names; runs under way are left out.

    Raises:
        BadOption: if a path is not there.
        Damaged: if a file is not a whole result; streams kept beside them are passed over.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += [each for each in path.rglob("*.json") if not each.name.endswith(PARTIAL)]
        elif path.is_file():
            files.append(path)
        else:
            raise BadOption(f"there is no folder or result {path}; run: retain bench run STREAM")
    return tuple(read_result(each) for each in sorted(set(files)) if not _is_stream(each))


def environment(threads: int) -> dict[str, Any]:
    """What a run depends on besides its stream: versions, commit, machine, time."""
    import retain

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "retain": retain.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "scipy", "scikit-learn")},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": usable_cores(),
        "threads": threads,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """The commit of this source tree, with a plus where it was changed; None outside of one."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        done = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", str(root), *words],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "src")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def _is_stream(path: Path) -> bool:
    with path.open("rb") as file:
        return b'"retain-bench-stream/' in file.read(200)


def _finite(value: Any) -> Any:
    """JSON has no infinities: what is not finite is missing."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
