"""The process that decodes pictures: little memory, no files, nothing worth stealing.

It reads requests on standard input and answers on standard output, in order. A picture is in one of
the files without a name that its parent opened, and its pixels go there in its place; so several
may be under way. It is told nothing but bytes, and is killed when it takes too long.
"""

from __future__ import annotations

import os
import resource
import struct
import sys
from collections.abc import Sequence
from io import BytesIO
from typing import Final

__all__ = ["ANSWER", "DECODE", "DRAW", "READY", "REQUEST", "serve"]

REQUEST: Final = struct.Struct("<BBIQ")
"""What is wanted, in which file it is, the side (0 for none), how many bytes it has."""

ANSWER: Final = struct.Struct("<BIIQ")
"""Whether it is done (1), height, width, and how many bytes follow (here: text, or a JPEG)."""

READY: Final = b"."
"""What it says first, when it can begin."""

DECODE: Final = 1
DRAW: Final = 2

_FILE: Final = 256 * 1024 * 1024


def serve(pixels: Sequence[int], memory: int) -> None:
    """Answer until standard input ends.

    Args:
        pixels: the files for pixels, as descriptors.
        memory: how many bytes may be taken besides those that the program itself needs.
    """
    from PIL import Image  # noqa: F401 - imported before the limits hold

    from retain.errors import BadImage
    from retain.vision.images import decode

    decode(b"P6 1 1 255 abc")
    _limit(memory)
    source, target = sys.stdin.buffer, sys.stdout.buffer
    target.write(READY)
    target.flush()
    while len(head := source.read(REQUEST.size)) == REQUEST.size:
        kind, place, side, size = REQUEST.unpack(head)
        data = os.pread(pixels[place], size, 0)
        shape, body = (0, 0), b""
        try:
            found = decode(data, shorter=side or None)
            if kind == DRAW:
                body = _drawn(found, side)
            else:
                os.pwrite(pixels[place], found.data.cast("B"), 0)
            shape, done = (found.shape[0], found.shape[1]), 1
        except BadImage as error:
            body, done = str(error).encode("utf-8", "replace"), 0
        except MemoryError:
            body, done = b"there is not enough memory to decode it", 0
        target.write(ANSWER.pack(done, *shape, len(body)) + body)
        target.flush()


def _drawn(pixels: object, side: int) -> bytes:
    from PIL import Image

    picture = Image.fromarray(pixels)  # type: ignore[arg-type]
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()


def _limit(memory: int) -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        own = int(file.read().split()[0]) * resource.getpagesize()
    for kind, most in (
        (resource.RLIMIT_AS, own + memory),
        (resource.RLIMIT_FSIZE, _FILE),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 8),
    ):
        resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    serve([int(each) for each in sys.argv[2:]], int(sys.argv[1]))
