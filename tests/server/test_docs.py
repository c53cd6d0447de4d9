"""Every route is described, and every route that is described is there."""

import re

from tests.faces.helpers import ROOT

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
