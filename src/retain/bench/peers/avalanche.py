"""Avalanche (Carta 2023): its strategies over a linear layer on the same frozen features.

``scripts/make_peer_environment.py avalanche --into DIR`` makes the environment.
"""

from __future__ import annotations

from typing import Final

from retain.bench.peers.exchange import Peer

__all__ = ["PEER", "STRATEGIES"]

PEER: Final = Peer(
    "avalanche",
    "Avalanche",
    "Carta et al. 2023, Avalanche: A PyTorch Library for Deep Continual Learning, "
    "arXiv:2302.01766; avalanche-lib on PyPI",
    "avalanche_worker.py",
    "features",
    classes_once=False,
)
STRATEGIES: Final = ("slda", "naive", "replay", "gdumb", "ewc", "lwf", "icarl", "joint")
