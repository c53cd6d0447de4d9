"""Who may do what: tokens with roles, of which only hashes are kept.

A token is 256 random bits, so one round of SHA-256 hides it; whoever reads the file learns names
and roles and cannot sign in.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from retain.errors import BadOption, Damaged, StoreError
from retain.store.lock import exclusive

__all__ = ["ANONYMOUS", "ROLES", "Tokens", "Who", "hashed", "made"]

ROLES: Final = ("reader", "teacher", "owner")
"""From the least to the most: each may do what those before it may."""

_WAIT: Final = 10.0  # seconds
_KEY: Final = 32  # bytes

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.@-]{0,63}")


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody at the door: a name for the journal, and a role; None may do nothing yet."""

    name: str
    role: str | None

    def may(self, role: str) -> bool:
        """Whether this role's work may be done.

        >>> Who("anna", "teacher").may("reader"), Who("anna", "teacher").may("owner")
        (True, False)
        """
        return self.role is not None and ROLES.index(self.role) >= ROLES.index(role)


ANONYMOUS: Final = Who("anonymous", None)


def made() -> str:
    """A new token."""
    return "rt-" + secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    """What is kept of a token."""
    return "sha256:" + hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


@final
class Tokens:
    """The tokens of one classifier, in ``tokens.json`` (mode 0600); read anew when it changes."""

    def __init__(self, folder: Path, session: str = "") -> None:
        self._file = folder / "tokens.json"
        self._session = session
        self._seen: tuple[int, int, int] | None = None
        self._known: Mapping[str, Who] = {}

    def who(self, token: str) -> Who | None:
        """Whose token it is; compared with every one that there is, in constant time each."""
        given, found = hashed(token), None
        for kept, who in self._all().items():
            if hmac.compare_digest(kept, given):
                found = who
        return found

    def ticket(self, token: str, seconds: float) -> str:
        """What a browser is given for a token: good for so long at most, and as the token is.

        A browser sends its cookies to every port of a machine: whoever else listens there must not
        learn the token.
        """
        known, until = hashed(token), str(int(time.time() + seconds))
        return f"{_short(known)}.{until}.{self._signed(known, until)}"

    def of_ticket(self, ticket: str) -> Who | None:
        """Whose ticket it is; None if it is none, or of a token that opens nothing any more."""
        short, _, rest = ticket.partition(".")
        until, _, signature = rest.partition(".")
        if not (until.isascii() and until.isdecimal() and len(until) < 12 and signature.isascii()):
            return None
        if int(until) <= time.time():
            return None
        for known, who in self._all().items():
            if _short(known) == short:
                right = hmac.compare_digest(self._signed(known, until), signature)
                return who if right else None
        return None

    def names(self) -> dict[str, str]:
        """Name → role of all that have a token."""
        return {who.name: str(who.role) for who in self._read().values()}

    def add(self, name: str, role: str) -> str:
        """Make a token for somebody, in place of an earlier one; returned once and never again.

        Raises:
            BadOption: if there is no such role, or the name cannot be one.
            Locked: if somebody else is changing the tokens for too long.
        """
        if role not in ROLES:
            raise BadOption(f"there is no role {role!r}; use {', '.join(ROLES)}")
        if not _NAME.fullmatch(name):
            raise BadOption(
                f"{name!r} cannot be a name; use a letter and then letters, digits and _ . @ - "
                f"(64 at most)"
            )
        token = made()
        with self._changing():
            kept = {key: who for key, who in self._read().items() if who.name != name}
            self._write({**kept, hashed(token): Who(name, role)})
        return token

    def drop(self, name: str) -> None:
        """Let somebody's token open nothing any more.

        Raises:
            BadOption: if nobody of that name has one.
            Locked: if somebody else is changing the tokens for too long.
        """
        with self._changing():
            known = self._read()
            kept = {key: who for key, who in known.items() if who.name != name}
            if len(kept) == len(known):
                names = ", ".join(sorted(self.names())) or "nobody"
                raise BadOption(f"{name!r} has no token; those who have: {names}")
            self._write(kept)

    # -- inside -------------------------------------------------------------------------------

    def _all(self) -> Mapping[str, Who]:
        known = self._read()
        return {**known, self._session: Who("owner", "owner")} if self._session else known

    def _signed(self, known: str, until: str) -> str:
        return hmac.new(self._key(), f"{known} {until}".encode(), hashlib.sha256).hexdigest()

    def _key(self) -> bytes:
        """What tickets are signed with, by all processes and after a restart."""
        file = self._file.with_name("tickets.key")
        with suppress(FileNotFoundError):
            if len(key := file.read_bytes()) == _KEY:
                return key
        with self._changing():
            # Another process may have made it meanwhile.
            if not file.is_file() or file.stat().st_size != _KEY:
                self._write_whole(file, secrets.token_bytes(_KEY))
            return file.read_bytes()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Between reading and writing, nobody else changes them."""
        folder = self._file.parent
        folder.mkdir(mode=0o700, exist_ok=True)
        with exclusive(folder, "serve", _WAIT, "tokens.lock"):
            yield

    def _read(self) -> Mapping[str, Who]:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"{self._file} cannot be read ({error.strerror})") from error
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if seen != self._seen:
            try:
                rows = json.loads(self._file.read_bytes())["tokens"]
                known = {row["hash"]: Who(row["name"], row["role"]) for row in rows}
                if not all(who.role in ROLES for who in known.values()):
                    raise ValueError("a role that there is not")
            except FileNotFoundError:
                return {}
            except OSError as error:
                raise StoreError(f"{self._file} cannot be read ({error.strerror})") from error
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise Damaged(
                    f"{self._file} does not hold tokens ({error}); remove it, and new ones are made"
                ) from error
            self._known, self._seen = known, seen
        return self._known

    def _write(self, known: Mapping[str, Who]) -> None:
        rows = [{"name": who.name, "role": who.role, "hash": key} for key, who in known.items()]
        text = json.dumps({"format": 1, "tokens": rows}, indent=1)
        self._write_whole(self._file, text.encode())

    def _write_whole(self, file: Path, data: bytes) -> None:
        fresh = file.with_name(f".tokens.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        fresh.replace(file)


def _short(known: str) -> str:
    return known.removeprefix("sha256:")[:16]
