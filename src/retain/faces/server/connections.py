"""Connections on which nobody asks anything are closed, so that they shut nobody else out.

uvicorn counts them among those that it answers at a time, and by itself waits for a first request,
or for the rest of one's headers, for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Protocol
except ImportError:  # httptools is not there for every machine
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol  # type: ignore[assignment]

__all__ = ["Prompt"]

# Seconds in which a request must have begun, and its headers must be there.
_PATIENCE: Final = 10.0


class Prompt(Protocol):
    """uvicorn's protocol, which looks at each connection from time to time; no request is slower.

    Where it waits for a request, but for the pause between two that uvicorn itself limits, and
    waited for the same one when it was looked at last, the connection is closed.
    """

    _timer: asyncio.TimerHandle | None = None
    _waited: Any = None

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(_PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        cycle, paused = self.cycle, self.timeout_keep_alive_task is not None
        waits = cycle is None or (cycle.response_complete and not paused)
        if waits and self._waited is cycle:
            self.transport.close()
            return
        # What is never a cycle, so that the next look does not close it.
        self._waited = cycle if waits else self
        self._timer = self.loop.call_later(_PATIENCE, self._look)
