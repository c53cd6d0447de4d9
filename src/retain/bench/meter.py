"""What a piece of work costs: wall time, CPU time, and the most memory held meanwhile."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

__all__ = ["Meter", "resident_bytes"]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(eq=False)
class Meter:
    """Times the block under it; CPU time is that of all threads and of children that ended.

    Attributes:
        base: bytes held before the work began, which do not count as its own.
        wall_s: seconds, summed over every use of this meter.
        cpu_s: likewise.
        peak_bytes: the most held above `base` in any use; None where the system does not tell.
    """

    base: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int | None = None

    def __enter__(self) -> Meter:
        _forget_peak()
        self._cpu, self._wall = _cpu(), time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wall_s += time.perf_counter() - self._wall
        self.cpu_s += _cpu() - self._cpu
        peak = _status("VmHWM")
        if peak is not None:
            self.peak_bytes = max(self.peak_bytes or 0, peak - self.base, 0)


def resident_bytes() -> int:
    """The memory this process holds now; 0 where the system does not tell."""
    return _status("VmRSS") or 0


def _cpu() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _forget_peak() -> None:
    """Let the system's record of the most memory held begin anew (Linux)."""
    if sys.platform == "linux":
        try:
            _CLEAR.write_text("5", encoding="ascii")
        except OSError:
            return


def _status(key: str) -> int | None:
    try:
        text = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])
    return None
