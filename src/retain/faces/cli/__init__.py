"""The command line: one command per verb, the classifier always the first argument.

Nothing heavy is imported before a verb needs it, so that help and mistakes answer at once.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line on `sys.argv` and exit with its code."""
    _opened()
    # Ctrl-C may come while the modules are still being imported.
    try:
        from retain.faces.cli.app import run

        code = run()
    except KeyboardInterrupt:
        print("retain: stopped; the classifier is as it was", file=sys.stderr)
        code = 130
    sys.exit(code)


def _opened() -> None:
    """Let streams that were closed before we began lead nowhere, not into the next file opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is given out first: this one.
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
