"""LAMDA-PILOT (Sun 2023): its models over pre-trained backbones, from a clone of its sources."""

from __future__ import annotations

from typing import Final

from retain.bench.peers.exchange import Peer

__all__ = ["PEER"]

PEER: Final = Peer(
    "pilot",
    "LAMDA-PILOT",
    "Sun et al. 2023, PILOT: a pre-trained model-based continual learning toolbox, "
    "arXiv:2309.07117; github.com/sun-hailong/LAMDA-PILOT",
    "pycil_worker.py",
    "pictures",
    ("trainer.py", "utils/data_manager.py", "backbone"),
)
