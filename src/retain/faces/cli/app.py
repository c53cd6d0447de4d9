"""All commands in one list, and the run of one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from retain.faces.cli import adapting, ask, bench, decreeing, hand, own, teach
from retain.faces.cli import serve as serving
from retain.faces.cli.failures import guarded, told
from retain.faces.cli.output import line
from retain.faces.cli.progress import progress
from retain.faces.text import clean

__all__ = ["COMMANDS", "Command", "app", "run"]


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its name, what it runs, the group it is listed in, one line to try.

    A name of two words is a command of a tool, which is listed as one.
    """

    name: str
    function: Callable[..., None]
    group: str
    example: str
    hidden: bool = False


def demo(
    out: Annotated[
        Path, typer.Option(help="The folder to work in; made if it is not there.")
    ] = Path("demo"),
    browser: Annotated[
        bool, typer.Option("--open", help="Show the report in the browser afterwards.")
    ] = False,
) -> None:
    """See it all on real pictures, in a minute."""
    from retain.faces.demo import run as told_story

    page = told_story(out, say=lambda text, style="": line(clean(text), style), bar=progress)
    if browser:
        typer.launch(page.absolute().as_uri())


TEACH: Final = "Change it"
ASK: Final = "Ask it"
OWN: Final = "Own it"
JUDGE: Final = "Judge it"
TRY: Final = "Try it"

COMMANDS: Final = (
    Command("init", teach.init, TEACH, "retain init shop"),
    Command("create", teach.init, TEACH, "retain create shop", hidden=True),
    Command("learn", teach.learn, TEACH, "retain learn shop photos/"),
    Command("correct", teach.correct, TEACH, "retain correct shop photos/new/17.jpg mug"),
    Command("forget", teach.forget, TEACH, "retain forget shop --label mug"),
    Command("undo", teach.undo, TEACH, "retain undo shop"),
    Command("adapt", adapting.adapt, TEACH, "retain adapt shop --preset last-block --epochs 5"),
    Command("advise", adapting.advise, ASK, "retain advise shop --budget 5"),
    Command("purge", adapting.purge, TEACH, "retain purge shop --dry-run"),
    Command("predict", ask.predict, ASK, "retain predict shop new/*.jpg --top 3"),
    Command("evaluate", ask.evaluate, ASK, "retain evaluate shop test/ --html report.html"),
    Command("log", ask.log, ASK, "retain log shop -n 10"),
    Command("show", ask.show, ASK, "retain show shop 3"),
    Command("classes", teach.classes, ASK, "retain classes shop rename mug cup"),
    Command("verify", ask.verify, ASK, "retain verify shop --deep"),
    Command("explain", own.explain, ASK, "retain explain shop photo.jpg --html why.html"),
    Command(
        "adopt",
        own.adopt,
        OWN,
        "retain adopt shop model.onnx --labels names.txt",
    ),
    Command("reference", own.reference, OWN, "retain reference shop photos/"),
    Command("gate", decreeing.gate, OWN, "retain gate shop --regressions 0.01"),
    Command("protect", decreeing.protect, OWN, "retain protect shop --label mug"),
    Command("versions", own.versions, OWN, "retain versions shop"),
    Command("diff", own.diff, OWN, "retain diff shop production --html diff.html"),
    Command("promote", own.promote, OWN, "retain promote shop 12"),
    Command("rollback", own.rollback, OWN, "retain rollback shop"),
    Command("export", hand.export, OWN, "retain export shop shop.onnx"),
    Command("pack", hand.pack, OWN, "retain pack shop shop.retain"),
    Command("unpack", hand.unpack, OWN, "retain unpack shop2 shop.retain"),
    Command("serve", serving.serve, OWN, "retain serve shop"),
    Command(
        "bench stream",
        bench.stream,
        JUDGE,
        "retain bench stream photos/ -o first=2 -o step=2",
    ),
    Command(
        "bench run",
        bench.run,
        JUDGE,
        "retain bench run streams/*.json --pool photos/ --method all",
    ),
    Command("bench compare", bench.compare, JUDGE, "retain bench compare results/"),
    Command("bench report", bench.report, JUDGE, "retain bench report results/ --open"),
    Command("bench methods", bench.methods, JUDGE, "retain bench methods --json"),
    Command("demo", demo, TRY, "retain demo --open"),
)

TOOLS: Final = {"bench": (JUDGE, "Compare class-incremental methods on streams of pictures.")}
"""What has commands of its own: its group, and what it is for."""


def _version(wanted: bool) -> None:
    if wanted:
        import retain

        line(f"retain {retain.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Retain, don't retrain: an image classifier that learns, corrects, forgets and undoes.

    A classifier is a directory; its name is always the first argument.
    """


def _built() -> typer.Typer:
    made = typer.Typer(
        name="retain",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        # Rich's boxes are for a screen; a pipe gets plain text.
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
        context_settings={"help_option_names": ["--help", "-h"]},
        epilog="Example: retain init shop, then retain learn shop photos/, "
        "then retain predict shop new.jpg",
    )
    made.callback()(_root)
    homes = {"": made}
    for name, (group, text) in TOOLS.items():
        homes[name] = typer.Typer(
            no_args_is_help=True,
            rich_markup_mode=made.rich_markup_mode,
            context_settings={"help_option_names": ["--help", "-h"]},
        )
        made.add_typer(homes[name], name=name, help=text, rich_help_panel=group)
    for command in COMMANDS:
        home, _, last = command.name.rpartition(" ")
        homes[home].command(
            last,
            epilog=f"Example: {command.example}",
            rich_help_panel=command.group,
            hidden=command.hidden,
        )(guarded(command.function))
    return made


app: Final[Any] = _built()


def run() -> int:
    """Run the command line on `sys.argv`; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A file name need not be text, nor a terminal know every letter.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app(prog_name="retain")
        except SystemExit as end:
            sys.stdout.flush()
            return end.code if isinstance(end.code, int) else 1
        return 0
    except (KeyboardInterrupt, OSError) as error:
        return told(error)
