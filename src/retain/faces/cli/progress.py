"""A progress bar on stderr for what takes longer than a moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from retain.values import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import Task
    from rich.text import Text

__all__ = ["progress"]

# What is done sooner than this needs no bar.
_PATIENCE = 0.7


@contextmanager
def progress(what: str, *, quiet: bool = False) -> Iterator[Progress | None]:
    """A callback that draws `what`, a bar, the rate and the time left, while the block runs.

    Yields None, and draws nothing, with `quiet` or when stderr is no terminal.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    started, bar = time.monotonic(), _Bar(what)

    def tick(done: int, total: int) -> None:
        if time.monotonic() - started >= _PATIENCE:
            bar.show(done, total)

    try:
        yield tick
    finally:
        bar.close()


class _Bar:
    """The bar of rich, made when first shown, since importing rich takes a while."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Bar | None = None

    def show(self, done: int, total: int) -> None:
        """Draw `done` of `total`."""
        if self._bar is None:
            self._bar = _made()
            self._bar.add_task(self._what, total=total)
            self._bar.start()
        task = self._bar.task_ids[0]
        what = self._what if done < total else f"{self._what}: finishing"
        self._bar.update(task, completed=done, total=total, description=what)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()


def _made() -> Bar:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Drawn
    from rich.text import Text as Shown

    class Rate(ProgressColumn):
        """Pictures a second."""

        def render(self, task: Task) -> Text:
            return Shown(f"{task.speed:.1f}/s" if task.speed else "", style="cyan")

    return Drawn(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        expand=True,
    )
