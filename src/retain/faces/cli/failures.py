"""Every failure as one sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import errno
import functools
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from retain.errors import GateRefused, NotAClassifier, RetainError
from retain.faces.cli.interrupting import interruptible
from retain.faces.cli.telling import told_refusal
from retain.faces.text import clean

__all__ = ["Mistake", "complain", "guarded"]

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130
PIPE_CLOSED = 141
_STOPPED = (
    "stopped; the classifier is as it was, nothing acknowledged is lost; "
    "run the same command again to go on"
)

# Of `init` and its like the name is still to be chosen.
_NAMELESS = re.compile(r"(retain (?!init|create|unpack)[a-z]+) NAME\b")


class Mistake(RetainError):
    """The command was understood but cannot be carried out as it was typed."""

    exit_code = 2


def complain(message: str) -> None:
    """Print one error on stderr."""
    typer.secho("retain: error: ", fg="red", bold=True, nl=False, err=True)
    print(clean(message), file=sys.stderr)


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """The command, with everything that can go wrong turned into a sentence and an exit code."""

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with interruptible():
                result = function(*args, **kwargs)
                # A reader who has gone (`| head`) is noticed here, not in the interpreter's last
                # act.
                sys.stdout.flush()
                return result
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        # The last place where whatever it is can become a sentence.
        except BaseException as error:
            if isinstance(error, SystemExit | GeneratorExit):
                raise
            name = kwargs.get("name")
            code = told(
                error,
                as_json=bool(kwargs.get("as_json")),
                name=name if isinstance(name, str) else None,
            )
            raise typer.Exit(code) from None

    return command


def told(error: BaseException, *, as_json: bool = False, name: str | None = None) -> int:
    """Say what happened, a refusal as JSON too where asked; returns the exit code.

    Commands that it names are of the classifier that was named.
    """
    if isinstance(error, KeyboardInterrupt):
        print(f"\nretain: {clean(_of(str(error), name)) or _STOPPED}", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # Nobody reads any more: what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    if os.environ.get("RETAIN_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, GateRefused):
        told_refusal(error, as_json=as_json)
        return error.exit_code
    if isinstance(error, RetainError):
        complain(_of(_with_help(error), name))
        return error.exit_code
    if isinstance(error, OSError):
        complain(_of_the_system(error))
    elif isinstance(error, MemoryError):
        complain(
            "not enough memory; nothing acknowledged is lost. Close other programs, or give fewer "
            "pictures at a time"
        )
    elif isinstance(error, UnicodeError):
        complain(f"something given is not valid text ({error}); use UTF-8")
    else:
        complain(
            f"something unforeseen happened ({type(error).__name__}: {error}); nothing "
            f"acknowledged is lost. Please report it to the project's issue tracker with the "
            f"traceback, which RETAIN_DEBUG=1 prints"
        )
    return 1


def _with_help(error: RetainError) -> str:
    text = str(error)
    told = any(each in text for each in ("retain init", "retain pack"))
    if isinstance(error, NotAClassifier) and not told:
        text += "; make a new classifier with: retain init NAME"
    return text


def _of(text: str, name: str | None) -> str:
    """A text whose commands say NAME, of the classifier that was named."""
    if name is None:
        return text
    return _NAMELESS.sub(lambda found: f"{found[1]} {shlex.quote(name)}", text)


def _of_the_system(error: OSError) -> str:
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    what = f"{error.strerror or error}{where}"
    if error.errno == errno.ENOSPC:
        return f"{what}; nothing acknowledged is lost. Make room and run the same command again"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{what}; change its permissions, or work on a copy that you own"
    return f"{what}; nothing acknowledged is lost"
