"""Every route is described, and every route that is described is there."""

import re
from pathlib import Path

from retain import errors
from retain.faces import server as server_room
from retain.faces.server import app, problems
from tests.faces.helpers import ROOT
from tests.server.test_security import OWNERS_READ

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def test_every_route_is_in_the_guide(server):
    for route in server.get("/openapi.json")["paths"]:
        known = route.replace("{name:path}", "NAME").replace("{name}", "NAME")
        known = known.replace("/versions/{version}", "")
        parts = [known, known.replace("{image}", "{hash}"), known.rstrip("/") or "/"]
        assert any(part in PAGE for part in parts), route


def test_every_verb_is_a_route(server):
    routes = server.get("/openapi.json")["paths"]
    promised = (
        "learn predict correct forget undo evaluate log show classes verify reference gate protect "
        "versions diff promote rollback explain export pack rename merge"
    )
    for verb in promised.split():
        assert any(re.match(rf"/{verb}\b", route) for route in routes), verb


def test_every_option_is_in_the_guide():
    for option in ("--workers", "--host", "--add-token", "--no-inbox", "--max-body", "--rate"):
        assert option in PAGE, option


def test_every_kind_of_error_is_in_the_guide():
    """With its status: those that the server raises itself, and those of `retain.errors`."""
    folder = Path(server_room.__file__).parent
    source = "".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))
    own = set(re.findall(r'Problem\(\s*(\d{3}),\s*"(\w+)"', source))
    own |= {(str(code), kind) for code, kind in app._KINDS.items()}
    own = {(code, kind) for code, kind in own if kind not in errors.__all__}
    assert len(own) > 12
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE))
    for code, kind in sorted(own):
        assert code in rows[kind], (kind, code)
    assert rows.keys() == {kind for _, kind in own}
    told = PAGE[PAGE.index("`InputError` and its heirs") :].partition("\n\n")[0]
    for kind, code in problems._STATUS:
        assert re.search(rf"`{kind.__name__}`[^;]*\b{code}\b", told), kind


def test_what_owners_alone_may_get_is_said():
    """Of what is `GET`, all but these is a reader's."""
    line = next(line for line in PAGE.splitlines() if line.startswith("| reader |"))
    for route in OWNERS_READ:
        assert f"`{route}`" in line
