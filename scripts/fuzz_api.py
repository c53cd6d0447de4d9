"""Let schemathesis ask a server everything that its OpenAPI description allows, and more.

    python scripts/fuzz_api.py [--examples 50] [--seed 1] [--schemathesis PATH]

Schemathesis pins versions of what it needs, so it lives in an environment of its own (`make
test-api` makes it); only its command is needed here. A server of a small classifier of vectors is
started, asked as its owner, and ended. Fails on any answer of 500 or more.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import retain

D = 12
# A stream without an end is no answer that can be waited for.
ENDLESS = "/events"


def started(path: Path, port: int) -> tuple[subprocess.Popen[str], str]:
    """A server, and its owner's token."""
    process = subprocess.Popen(
        [sys.executable, "-m", "retain", "serve", str(path), "--port", str(port), "--rate", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"#token=(\S+)", line):
            token = found[1]
            break
    else:
        sys.exit("the server ended before it began")
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, token
        except OSError:
            time.sleep(0.1)
    sys.exit("the server does not listen")


def main() -> int:
    """Start, ask, end."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--examples", type=int, default=50, help="of each operation, at most")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--schemathesis", default=shutil.which("schemathesis"))
    given = options.parse_args()
    if not given.schemathesis:
        print("there is no schemathesis: make test-api, or give --schemathesis PATH")
        return 2
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        with retain.create(Path(folder) / "shop", extractor=f"vectors:{D}") as shop:
            for i, label in enumerate(("ant", "bee", "cow")):
                rows = np.random.default_rng(i).normal(3 * np.eye(D)[i], 0.7, (12, D))
                shop.learn(rows.astype(np.float32), label)
        process, token = started(Path(folder) / "shop", port)
        try:
            # It runs in another folder, where a path from here leads nowhere.
            words = [
                str(Path(given.schemathesis).absolute()),
                "run",
                f"http://127.0.0.1:{port}/openapi.json",
            ]
            words += ["--header", f"Authorization: Bearer {token}"]
            words += ["--checks", "not_a_server_error", "--exclude-path", ENDLESS]
            words += ["--max-examples", str(given.examples), "--seed", str(given.seed)]
            code = subprocess.run(words, cwd=folder, check=False).returncode
            if process.poll() is not None:
                print("the server ended")
                return 1
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    return code


if __name__ == "__main__":
    sys.exit(main())
