"""FACIL (Masana 2022): its approaches on the pictures of a stream, from a clone of its sources."""

from __future__ import annotations

from typing import Final

from retain.bench.peers.exchange import Peer

__all__ = ["PEER"]

PEER: Final = Peer(
    "facil",
    "FACIL",
    "Masana et al. 2022, Class-incremental learning: survey and performance evaluation on image "
    "classification, arXiv:2010.15277; github.com/mmasana/FACIL",
    "facil_worker.py",
    "pictures",
    ("src/main_incremental.py", "src/datasets/base_dataset.py"),
)
