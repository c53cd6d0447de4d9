"""Keeping decoders quiet about damaged files: what matters about them is in the error.

Pillow warns through `warnings` and `logging`; libtiff, beneath it, writes to standard error.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import Any, final

__all__ = ["hush_libtiff", "quiet"]


@final
class _Quiet:
    """Ignores the warnings of Pillow's modules, in all threads, while any thread is inside.

    `warnings.catch_warnings` would do, were it not for threads that leave in another order than
    they came; this adds one filter that concerns Pillow alone and takes it out again.
    """

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._inside = 0
        self._filter: Any = None

    def __enter__(self) -> None:
        with self._gate:
            if self._inside == 0:
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._filter = warnings.filters[0]
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._gate:
            self._inside -= 1
            if self._inside == 0 and self._filter in warnings.filters:
                warnings.filters.remove(self._filter)  # type: ignore[attr-defined]


quiet = _Quiet()

# What logging prints where nobody asked for a log; whoever asks still gets it.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@cache
def hush_libtiff() -> bool:
    """Take the printing error handler out of the libtiff that Pillow carries; False if not found.

    Pillow raises an error of its own all the same.
    """
    import PIL

    package = Path(PIL.__file__).parent
    for place in (package.parent / "pillow.libs", package / ".dylibs"):
        for library in place.glob("libtiff*"):
            try:
                handler = ctypes.CDLL(str(library)).TIFFSetErrorHandler
            except (OSError, AttributeError):
                continue
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)
            return True
    return False
