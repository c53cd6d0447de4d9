"""The command that puts a classifier on the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retain.errors import BadOption
from retain.faces.cli.common import Name
from retain.faces.cli.output import line

__all__ = ["serve"]


def serve(
    name: Name,
    host: Annotated[
        str, typer.Option(help="The address; other than loopback, everything needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8150,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many processes answer.")] = 1,
    max_body: Annotated[
        int, typer.Option(min=1, max=4096, help="Megabytes of one request at most.")
    ] = 64,
    rate: Annotated[
        float, typer.Option(min=0, help="Requests a second of one client; 0 for no limit.")
    ] = 100.0,
    no_inbox: Annotated[
        bool, typer.Option("--no-inbox", help="Do not keep pictures that are called unknown.")
    ] = False,
    label_studio: Annotated[
        str, typer.Option(metavar="URL", help="The Label Studio that pictures may be fetched from.")
    ] = "",
    add_token: Annotated[
        str | None,
        typer.Option(metavar="WHO:ROLE", help="Print a token for a reader, teacher or owner."),
    ] = None,
    drop_token: Annotated[
        str | None, typer.Option(metavar="WHO", help="Take somebody's token away.")
    ] = None,
) -> None:
    """Serve it: a page to teach on, and an API."""
    from retain.faces.server import need_extra

    need_extra()
    import retain
    from retain.faces.server import run
    from retain.faces.server.settings import Settings
    from retain.faces.server.tokens import Tokens

    if label_studio and not label_studio.startswith(("http://", "https://")):
        raise BadOption(f"{label_studio} is no address; give one such as https://label.example")
    settings = Settings(
        path=Path(name).resolve(),
        host=host,
        port=port,
        workers=workers,
        body=max_body * 1024 * 1024,
        rate=rate,
        inbox=not no_inbox,
        label_studio=label_studio,
    )
    if add_token is not None or drop_token is not None:
        retain.open(settings.path).close()
        tokens = Tokens(settings.folder)
        if drop_token is not None:
            tokens.drop(drop_token)
            line(f"the token of {drop_token} opens nothing any more")
        if add_token is not None:
            who, _, role = add_token.partition(":")
            line(f"the token of {who}, shown this once: {tokens.add(who, role or 'reader')}")
        return
    run.serve(run.prepare(settings, say=line))
