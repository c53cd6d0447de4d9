"""Who is at work: a name that goes into the journal with every event written meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["acting", "actor"]

# Of each thread and task its own, so that many people may share one process.
_ACTOR: ContextVar[str | None] = ContextVar("actor", default=None)


def actor() -> str | None:
    """Who is at work here; None if nobody said so."""
    return _ACTOR.get()


@contextmanager
def acting(name: str | None) -> Iterator[None]:
    """Let what this thread writes until the end be recorded as the work of `name`.

    >>> with acting("anna"):
    ...     actor()
    'anna'
    >>> actor()
    """
    token = _ACTOR.set(name)
    try:
        yield
    finally:
        _ACTOR.reset(token)
