"""What one server was told, as a value that every worker process is given."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["BODY", "PICTURES", "PORT", "VARIABLE", "Settings"]

VARIABLE: Final = "RETAIN_SERVE"
"""The environment variable through which worker processes are told."""

PORT: Final = 8150
BODY: Final = 64 * 1024 * 1024
PICTURES: Final = 2000

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server was told.

    Attributes:
        path: the classifier, absolute.
        host: the address it listens on.
        port: the port.
        workers: how many processes answer.
        body: bytes of one request's body at most.
        rate: requests a second of one client, all workers together.
        inbox: whether pictures called unknown are kept.
        label_studio: where Label Studio is, ``"https://host"``; pictures are fetched from nowhere
            else, and not at all where it is empty.
        session: the hash of the token of the link for this run; empty for none.
        decoders: processes that decode pictures, for each worker.
    """

    path: Path
    host: str = "127.0.0.1"
    port: int = PORT
    workers: int = 1
    body: int = BODY
    rate: float = 100.0
    inbox: bool = True
    label_studio: str = ""
    session: str = ""
    decoders: int = 3

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it, so that readers need no token."""
        return self.host in _LOOPBACK

    @property
    def name(self) -> str:
        """What people call the classifier."""
        return self.path.name

    @property
    def folder(self) -> Path:
        """Where the server keeps what is its own; no pack contains it."""
        return self.path / "serve"

    def to_text(self) -> str:
        """As one line, for `from_text`.

        >>> Settings.from_text(Settings(Path("/shop")).to_text()) == Settings(Path("/shop"))
        True
        """
        return json.dumps({**dataclasses.asdict(self), "path": str(self.path)})

    @classmethod
    def from_text(cls, text: str) -> Settings:
        """What `to_text` wrote."""
        values = json.loads(text)
        return cls(**{**values, "path": Path(values["path"])})
