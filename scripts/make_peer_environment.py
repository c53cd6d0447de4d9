"""Make an environment for a toolbox that the benchmark compares with.

    python scripts/make_peer_environment.py avalanche --into ~/avalanche-env
    python -m retain.bench.peers STREAM avalanche:slda --python ~/avalanche-env/bin/python

The environment is a venv with the toolbox (Avalanche) or with what its sources need (FACIL, PyCIL,
LAMDA-PILOT, of which you have a clone). Nothing of retain goes into it. The versions that were
installed are left in DIR/installed.txt.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

PACKAGES = {
    # avalanche-lib 0.6.0 installs and runs with Python 3.11 and torch 2.15 (2026-11).
    "avalanche": ["avalanche-lib==0.6.0"],
    "facil": ["torch", "torchvision", "numpy", "matplotlib", "tensorboard"],
    "pycil": ["torch", "torchvision", "numpy", "scipy", "tqdm", "scikit-learn", "quadprog", "POT"],
    "pilot": [
        "torch",
        "torchvision",
        "timm==0.6.13",
        "numpy",
        "scipy",
        "tqdm",
        "easydict",
        "scikit-learn",
    ],
}


def main() -> int:
    """Make it, or say what would not install."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=sorted(PACKAGES))
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    given = parser.parse_args()
    if given.into.exists() and any(given.into.iterdir()):
        print(f"{given.into} is not empty; name another folder", file=sys.stderr)
        return 2
    venv.create(given.into, with_pip=True)
    python = given.into / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    print(f"installing {', '.join(PACKAGES[given.peer])} into {given.into}", flush=True)
    done = subprocess.run([*pip, "install", "--quiet", *PACKAGES[given.peer]], check=False)
    if done.returncode:
        print(f"{given.peer} cannot be installed here; pip says why above", file=sys.stderr)
        return 1
    frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
    (given.into / "installed.txt").write_text(frozen, encoding="utf-8")
    print(f"run it with: --python {python}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
