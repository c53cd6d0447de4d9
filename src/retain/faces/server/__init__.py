"""The server: one classifier over HTTP, for people, for programs, for clients there already.

Read in this order: `settings`, `tokens` and `security` (who may), `guard` (pictures are decoded in
processes that have nothing to lose), `desk` (what is kept besides the classifier), `serving` (work
in threads, many readers and one writer), `bodies` (what clients send), `routes` (the verbs),
`protocols` and `labelstudio` (others' shapes), `app` and `run` (all of it together).

Needs the extra ``server``. Everything here goes through the public door and decides nothing itself.
"""

from __future__ import annotations

from importlib.util import find_spec

from retain.errors import MissingExtra

__all__ = ["need_extra"]


def need_extra() -> None:
    """Say how to install what serving needs, where it is missing (MissingExtra)."""
    for module in ("fastapi", "uvicorn", "python_multipart"):
        if find_spec(module) is None:
            raise MissingExtra.of("serving", "server")
