"""Files that are made to be sent, and are gone once they are, whatever comes in between."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import final

from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from retain.faces.server.serving import Serving
from retain.faces.server.settings import Settings
from retain.store.workshop import workshop

__all__ = ["download", "sweep"]


async def download(serving: Serving, suffix: str, write: Callable[[Path], object]) -> Response:
    """An answer with the file that `write` makes, under the classifier's name and a suffix."""
    name = f"{serving.settings.name}{suffix}"
    stack = ExitStack()
    try:
        folder = await serving.read(stack.enter_context, workshop(_place(serving.settings)))
        await serving.read(write, folder / f"made{suffix}")
    except BaseException:
        stack.close()
        raise
    return _Once(stack, folder / f"made{suffix}", name)


def sweep(settings: Settings) -> None:
    """Remove what a server of this classifier left that was killed while it sent something."""
    with workshop(_place(settings)):
        pass


def _place(settings: Settings) -> Path:
    # No pack may lie inside the classifier, and beside it there may be nothing to write to.
    mark = hashlib.sha256(str(settings.path).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"retain-serve-{mark}"


@final
class _Once(FileResponse):
    """A file that goes with its folder when it was sent, or could not be."""

    def __init__(self, stack: ExitStack, file: Path, name: str) -> None:
        super().__init__(file, media_type="application/octet-stream", filename=name)
        # It is made anew for each request: there is no rest of it to ask for.
        self.headers["accept-ranges"] = "none"
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"range", b"if-range")]
        try:
            await super().__call__({**scope, "headers": headers}, receive, send)
        finally:
            self._stack.close()
