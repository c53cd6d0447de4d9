"""Looking at what lies on a disk without ever being held up by it.

A named pipe is never opened, a folder is read once however many links lead to it, and a name that
is not UTF-8 is shown with escapes, so that it can be printed and kept anywhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from retain.errors import BadImage

__all__ = ["LARGEST_FILE", "Entry", "read_file", "shown", "walk", "why_not_a_file"]

LARGEST_FILE = 512 * 1024 * 1024
"""In bytes; larger files are not pictures that could be decoded."""

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something found below a folder: a file to read, or why it is none (`problem`)."""

    path: str
    problem: str | None = None


def shown(path: str | bytes | os.PathLike[str]) -> str:
    r"""A path as text that can be printed and kept; bytes that are not UTF-8 become escapes.

    >>> shown(b"caf\xe9.jpg")
    'caf\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def reason(error: OSError | ValueError) -> str:
    """Why the operating system said no, in its own words."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)


def why_not_a_file(path: str) -> str | None:
    """Why a path cannot be read as a file; None if it can be tried."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link to nothing" if os.path.islink(path) else "there is no such file"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads back to itself"
        return f"it cannot be read: {reason(error)}"
    except ValueError as error:
        return f"it cannot be a file name: {error}"
    if stat.S_ISREG(mode):
        return None
    return f"{_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a picture file"


def read_file(path: str) -> bytes:
    """The content of a regular file.

    Raises:
        BadImage: if there is none, it is not regular, larger than `LARGEST_FILE`, or unreadable.
    """
    problem = why_not_a_file(path)
    if problem is not None:
        raise BadImage(problem)
    try:
        # Not blocking, in case a pipe has taken the file's place since the look.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise BadImage("not a picture file")
            if status.st_size > LARGEST_FILE:
                raise BadImage(
                    f"the file has {status.st_size:,} bytes, more than the limit of "
                    f"{LARGEST_FILE:,}; it is hardly one picture"
                )
            return file.read()
    except OSError as error:
        raise BadImage(f"it cannot be read: {reason(error)}") from error


def walk(folder: str, above: str | None = None) -> Iterator[Entry]:
    """Every file below a folder, sorted, links followed; hidden ones are left out.

    A folder that was read already, under whatever name, is named as a problem and not read again;
    so is the folder `above`.
    """
    seen = set() if above is None else {_identity(above)}
    yield from _walk(folder, seen)


def children(folder: str) -> tuple[list[str], list[Entry]]:
    """The visible folders directly in a folder, and everything else visible; both sorted.

    Raises:
        OSError: if the folder cannot be listed.
    """
    folders, others = [], []
    for name in sorted(os.listdir(folder), key=os.fsencode):
        if name.startswith("."):
            continue
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            folders.append(path)
        else:
            others.append(Entry(path, why_not_a_file(path)))
    return folders, others


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _walk(folder: str, seen: set[tuple[int, int]]) -> Iterator[Entry]:
    try:
        identity = _identity(folder)
        if identity in seen:
            yield Entry(folder, "a link to a folder that is read already")
            return
        seen.add(identity)
        folders, others = children(folder)
    except (OSError, ValueError) as error:
        yield Entry(folder, f"a folder that cannot be read: {reason(error)}")
        return
    yield from others
    for each in folders:
        yield from _walk(each, seen)
