"""How training uses memory: what the allocator gives back, and how numbers lie in a tensor."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache
from typing import Any, Final

from retain.train.needs import Later

__all__ = ["laid_out", "quick"]

torch: Final = Later("torch", "training a network")

# The numbers of mallopt(3) in glibc.
_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_THRESHOLD: Final = -3


@cache
def quick() -> None:
    """Keep freed memory in the process, once and for all; nothing where that cannot be told.

    A step of training asks for gigabytes in large blocks and frees them again. By default glibc
    gets each from the kernel, which fills it with zeros page by page, and hands it back: half of
    the time of a small network. PyTorch's guide to tuning reaches the same by another allocator.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # another C library than glibc
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc takes
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_TOP_PAD, 256 << 20)


def laid_out(tensor: Any) -> Any:
    """A tensor as training lays it out: with four dimensions, the channels last."""
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
