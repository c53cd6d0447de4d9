"""The command line: one command per verb, the classifier always the first argument.

Nothing heavy is imported before a verb needs it, so that help and mistakes answer at once.
"""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line on `sys.argv` and exit with its code."""
    # Ctrl-C may come while the modules are still being imported.
    try:
        from retain.faces.cli.app import run

        code = run()
    except KeyboardInterrupt:
        print("retain: stopped; the classifier is as it was", file=sys.stderr)
        code = 130
    sys.exit(code)
