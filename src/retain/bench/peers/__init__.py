"""Other people's toolboxes on the same streams, each in an environment of its own.

A toolbox is never imported here. A worker, a script in `workers` that imports nothing of retain,
runs it in another Python and leaves what it answered after each step; `exchange` hands it the
stream and judges the answers by the same code as every other method's. A peer that will not
install or run gives a result with the status ``failed`` and the reason.
"""

from retain.bench.peers import avalanche, facil, pilot, pycil
from retain.bench.peers.exchange import Peer, Request, run_peer

__all__ = ["PEERS", "Peer", "Request", "run_peer"]

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (avalanche.PEER, avalanche.NETWORK, facil.PEER, pycil.PEER, pilot.PEER)
}
"""The toolboxes by name."""
