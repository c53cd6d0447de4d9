"""Run a toolbox's strategy on a stream: ``python -m retain.bench.peers STREAM PEER:STRATEGY``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retain.bench.peers import PEERS, Request, run_peer
from retain.bench.pools import find_pool, load_pool
from retain.bench.streams import load_stream
from retain.errors import RetainError


def main() -> int:
    """Run it and say what came of it; a peer that fails is a result too, with exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m retain.bench.peers", description=__doc__)
    parser.add_argument("stream", type=Path)
    parser.add_argument("method", metavar="PEER:STRATEGY", help=f"a peer is {', '.join(PEERS)}")
    parser.add_argument("--python", type=Path, required=True, help="of the peer's environment")
    parser.add_argument("--clone", type=Path, help="the peer's sources, where it is not installed")
    parser.add_argument("--pool", help="the data set; else found by the stream's name for it")
    parser.add_argument("--cache", type=Path, help="the folder that keeps features")
    parser.add_argument("--seed", type=int, help="by default the stream's")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--limit", type=float, default=3600.0, metavar="SECONDS")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    name, _, strategy = given.method.partition(":")
    if name not in PEERS or not strategy:
        parser.error(f"{given.method!r} is no PEER:STRATEGY; a peer is {', '.join(PEERS)}")
    try:
        stream = load_stream(given.stream)
        pool = load_pool(
            given.pool or find_pool(stream.pool, [given.stream.parent]), cache=given.cache
        )
        request = Request(
            strategy,
            stream.seed if given.seed is None else given.seed,
            given.python,
            given.clone,
            dict(each.split("=", 1) for each in given.option if "=" in each),
            given.limit,
            given.threads,
        )
        result = run_peer(PEERS[name], stream, pool, request, folder=given.out)
    except RetainError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    reached = result["metrics"].get("average_incremental_accuracy")
    told = f"average incremental accuracy {100 * reached:.2f} %" if reached is not None else ""
    print(f"{given.method} on {stream.name}: {result['status']} {result['reason'] or told}")
    return 0 if result["status"] == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
