"""Avalanche (Carta 2023): its strategies over a linear layer on the same frozen features, or over
its own ResNet-32 on the same pictures of 32 pixels.

``scripts/make_peer_environment.py avalanche --into DIR`` makes the environment.
"""

from __future__ import annotations

from typing import Final

from retain.bench.peers.exchange import Peer

__all__ = ["NETWORK", "PEER", "STRATEGIES"]

_SOURCE: Final = (
    "Carta et al. 2023, Avalanche: A PyTorch Library for Deep Continual Learning, "
    "arXiv:2302.01766; avalanche-lib on PyPI"
)
PEER: Final = Peer(
    "avalanche",
    "Avalanche",
    _SOURCE,
    "avalanche_worker.py",
    "features",
    classes_once=False,
)
STRATEGIES: Final = ("slda", "naive", "replay", "gdumb", "ewc", "lwf", "icarl", "joint")
NETWORK: Final = Peer(
    "avalanche-network",
    "Avalanche (ResNet-32)",
    _SOURCE,
    "avalanche_network_worker.py",
    "pictures",
    classes_once=False,
)
