"""The numbers of a benchmark as the command line shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retain.faces.cli.output import Column

if TYPE_CHECKING:
    from retain.bench.comparing import Row

__all__ = ["LONG", "SHORT", "cell", "headings", "shown"]

SHORT = ("average_incremental_accuracy", "last_accuracy", "harmonic", "wall_s_per_update")
LONG = (
    "average_incremental_accuracy",
    "balanced_incremental_accuracy",
    "last_accuracy",
    "harmonic",
    "forgetting",
    "intransigence",
    "recency_bias",
    "negative_flips_per_update",
    "ece",
    "auroc_unseen",
    "wall_s_per_update",
    "peak_memory_bytes",
    "stored_bytes",
)
HEADINGS = {
    "average_incremental_accuracy": "average %",
    "balanced_incremental_accuracy": "balanced %",
    "last_accuracy": "last %",
    "harmonic": "harmonic %",
    "forgetting": "forgetting",
    "intransigence": "intransig.",
    "recency_bias": "recency",
    "negative_flips_per_update": "got worse",
    "ece": "ECE %",
    "auroc_unseen": "AUROC %",
    "wall_s_per_update": "s/update",
    "peak_memory_bytes": "peak MB",
    "stored_bytes": "stored MB",
}


def headings(names: Sequence[str]) -> list[Column]:
    """A column for each metric."""
    return [Column(HEADINGS.get(name, name.replace("_", " ")), right=True) for name in names]


def shown(name: str, value: float | None) -> str:
    """A metric as people read it: shares per cent, bytes in millions, a dash for none.

    >>> shown("last_accuracy", 0.875), shown("stored_bytes", 1_500_000), shown("ece", None)
    ('87.50', '1.5', '–')
    """
    if value is None:
        return "–"
    if name.endswith("_bytes"):
        return f"{value / 1e6:,.1f}"
    if name.endswith("_s_per_update"):
        return f"{value:.4f}"
    if name == "nll":
        return f"{value:.3f}"
    if name == "negative_flips_per_update":
        return f"{value:.2f}"
    return f"{100 * value:.2f}"


def cell(row: Row, name: str) -> str:
    """The mean of a metric, marked if it is as good as the best, or a ceiling."""
    found = row.values.get(name)
    if found is None:
        return "–"
    mark = "*" if found.as_good else "†" if row.hindsight else " "
    return f"{shown(name, found.mean)}{mark}"
