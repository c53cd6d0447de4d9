"""What is counted, for Prometheus: each process adds to the common sums once a second."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final, final

__all__ = ["BUCKETS", "Metrics", "exposition", "series"]

BUCKETS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0)
"""Upper ends of latencies, in seconds."""

_HELP: Final = {
    "retain_requests_total": ("counter", "Requests by route, method and status."),
    "retain_request_seconds": ("histogram", "How long requests took, by route."),
    "retain_pictures_total": ("counter", "Pictures answered."),
    "retain_unknown_total": ("counter", "Pictures answered and called unknown."),
    "retain_changes_total": ("counter", "Changes made, by verb."),
    "retain_regressions_total": ("counter", "Remembered pictures that changes made worse."),
    "retain_refusals_total": ("counter", "Changes that the gate refused."),
    "retain_decoder_restarts_total": ("counter", "Decoders that died or were too slow."),
    "retain_queue": ("gauge", "Requests that wait or are being worked on."),
    "retain_workers": ("gauge", "Processes that answer."),
    "retain_version": ("gauge", "The journal's last event."),
    "retain_images": ("gauge", "Pictures remembered."),
    "retain_classes": ("gauge", "Classes known."),
    "retain_inbox": ("gauge", "Pictures in the inbox."),
}


def series(name: str, **labels: object) -> str:
    r"""One time series as Prometheus writes it.

    >>> series("retain_changes_total", verb='a"b')
    'retain_changes_total{verb="a\\"b"}'
    """
    if not labels:
        return name
    parts = (f'{key}="{_escaped(str(value))}"' for key, value in labels.items())
    return f"{name}{{{','.join(parts)}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@final
class Metrics:
    """What this process counted since it last handed that in."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._new: dict[str, float] = defaultdict(float)
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: dict[str, list[float]] = {}

    def add(self, name: str, value: float = 1.0, **labels: object) -> None:
        """Count something."""
        with self._turn:
            self._new[series(name, **labels)] += value

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request and its latency."""
        with self._turn:
            self._requests[route, method, status] += 1
            # Of each bucket alone, longer ones last, and then the sum; put together when taken.
            found = self._seconds.setdefault(route, [0] * (len(BUCKETS) + 1) + [0.0])
            found[bisect_left(BUCKETS, seconds)] += 1
            found[-1] += seconds

    def give_back(self, counted: Mapping[str, float]) -> None:
        """What was taken and could not be handed in, to be taken once more."""
        with self._turn:
            for key, value in counted.items():
                self._new[key] += value

    def taken(self) -> dict[str, float]:
        """What was counted, which is handed in then."""
        with self._turn:
            found, self._new = dict(self._new), defaultdict(float)
            requests, self._requests = self._requests, defaultdict(int)
            latencies, self._seconds = self._seconds, {}
        for (route, method, status), count in requests.items():
            told = {"route": route, "method": method, "status": status}
            found[series("retain_requests_total", **told)] = count
        for route, (*counts, seconds) in latencies.items():
            for end, total in zip((*BUCKETS, "+Inf"), accumulate(counts), strict=True):
                if total:
                    found[series("retain_request_seconds_bucket", route=route, le=end)] = total
            found[series("retain_request_seconds_sum", route=route)] = seconds
            found[series("retain_request_seconds_count", route=route)] = sum(counts)
        return found


def exposition(values: Mapping[str, float]) -> str:
    """Series and their values as Prometheus reads them (text format 0.0.4)."""
    grouped: dict[str, list[str]] = {name: [] for name in _HELP}
    for key in sorted(values):
        family = key.partition("{")[0]
        for end in ("_bucket", "_sum", "_count"):
            if family.endswith(end) and family.removesuffix(end) in _HELP:
                family = family.removesuffix(end)
        if family in grouped:
            grouped[family].append(f"{key} {_number(values[key])}")
    return "".join(_family(name, lines) for name, lines in grouped.items() if lines)


def _family(name: str, lines: Iterable[str]) -> str:
    kind, told = _HELP[name]
    return "\n".join([f"# HELP {name} {told}", f"# TYPE {name} {kind}", *lines, ""])


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
