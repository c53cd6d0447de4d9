"""What the commands share: common arguments, opening a classifier, listing what was skipped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retain.faces.cli.failures import Mistake
from retain.faces.cli.output import emit_json, note
from retain.faces.text import clean
from retain.values import Skipped, to_json

if TYPE_CHECKING:
    from retain import Classifier

__all__ = ["DryRun", "Force", "Json", "Name", "Version", "answered", "named_texts", "opened"]
__all__ += ["named_values", "told_skipped"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="The classifier: its directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]

Force = Annotated[bool, typer.Option("--force", help="Do it even if the gate refuses.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would happen, and what the gate says.")
]

Version = Annotated[
    str | None, typer.Option("--version", help="An event or an alias; without it, the latest.")
]

# More than this is not read by people; --json lists everything.
_LISTED = 10


def opened(name: str) -> Classifier:
    """The classifier in a directory; NumPy and the like are imported here and not before."""
    import retain

    return retain.open(name)


def answered(value: Any, *, as_json: bool) -> bool:
    """Print a value as JSON if that was asked for; says whether it was."""
    if as_json:
        emit_json(to_json(value))
    return as_json


def told_skipped(skipped: Iterable[Skipped], *, all_of_them: bool = False) -> None:
    """List on stderr the files that could not be used, and why."""
    files = list(skipped)
    shown = files if all_of_them else files[:_LISTED]
    for each in shown:
        note(f"skipped {clean(each.path)}: {clean(each.reason)}", style="yellow")
    if len(files) > len(shown):
        note(f"… and {len(files) - len(shown)} more were skipped; --json lists them all")


def named_texts(given: Iterable[str] | None, by: str = "--option") -> dict[str, str]:
    """``name=value`` as options, each given once; their values as they were typed.

    Args:
        given: what was typed.
        by: the option of the command that takes them.
    """
    found: dict[str, str] = {}
    for each in given or []:
        typed, equals, value = each.partition("=")
        name = typed.strip().replace("-", "_")
        if not equals or not name:
            raise Mistake(f"{each!r} is no option; write it as {by} name=value")
        if name in found:
            raise Mistake(f"{by} {typed} was given twice; leave one out")
        found[name] = value
    return found


def named_values(given: Iterable[str] | None) -> dict[str, Any]:
    """The same, read: whole numbers, numbers, true and false, else text."""
    return {name: _value(text) for name, text in named_texts(given).items()}


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
