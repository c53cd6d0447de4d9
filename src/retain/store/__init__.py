"""Memory: the only room that writes. A classifier is a directory.

- ``manifest.json``: format, extractor, options. See `manifest`.
- ``journal.db``: events, membership, features; SQLite, one transaction an event. See `schema`.
- ``blobs/``: the pictures' bytes by SHA-256. See `blobs`.
- ``extractors/<fingerprint>/``: the graph and its preprocessing, of each extractor. See `eras`.
- ``versions/``: caches of what follows from the journal. See `caches`.
- ``lock``: held by the one process that writes. See `lock`.
"""

from retain.store.acting import acting
from retain.store.journal import Assertion, Era, Plan
from retain.store.manifest import FORMAT, Manifest
from retain.store.packing import Packed, pack, unpack
from retain.store.store import NewImage, Store

__all__ = [
    "FORMAT",
    "Assertion",
    "Era",
    "Manifest",
    "NewImage",
    "Packed",
    "Plan",
    "Store",
    "acting",
    "pack",
    "unpack",
]
