"""Starting the server: the first token, the link, the worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import retain
from retain.faces.server.desk import Desk
from retain.faces.server.settings import VARIABLE, Settings
from retain.faces.server.tokens import Tokens, hashed, made

__all__ = ["prepare", "serve"]


def prepare(settings: Settings, say: Callable[[str], None]) -> Settings:
    """Make the first token and the link for this run, and say them; returns the settings for it.

    Raises:
        NotAClassifier, NewerFormat, Damaged: if the classifier cannot be opened.
    """
    retain.open(settings.path).close()
    settings.folder.mkdir(mode=0o700, exist_ok=True)
    tokens = Tokens(settings.folder)
    if not tokens.names():
        say(f"the owner's token, shown this once: {tokens.add('owner', 'owner')}")
    link = made()
    settings = replace(settings, session=hashed(link))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    say(f"open http://{host}:{settings.port}/#token={link}")
    return settings


def serve(settings: Settings) -> None:
    """Answer until told to stop."""
    import uvicorn

    from retain.faces.server.connections import Prompt

    desk = Desk(settings.folder)
    desk.begin()
    desk.close()
    os.environ[VARIABLE] = settings.to_text()
    uvicorn.run(
        "retain.faces.server.app:from_environment",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers if settings.workers > 1 else None,
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        limit_concurrency=1024,
        http=Prompt,
        ws="none",
        lifespan="on",
    )
