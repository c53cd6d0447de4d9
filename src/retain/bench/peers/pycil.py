"""PyCIL (Zhou 2023): its models on the pictures of a stream, from a clone of its sources."""

from __future__ import annotations

from typing import Final

from retain.bench.peers.exchange import Peer

__all__ = ["PEER"]

PEER: Final = Peer(
    "pycil",
    "PyCIL",
    "Zhou et al. 2023, PyCIL: a Python toolbox for class-incremental learning, arXiv:2112.12533; "
    "github.com/G-U-N/PyCIL",
    "pycil_worker.py",
    "pictures",
    ("trainer.py", "utils/data_manager.py", "convs"),
)
