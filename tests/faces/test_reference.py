"""Names agree everywhere, help is complete and fast, the reference in the docs is current."""

from __future__ import annotations

import inspect
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import retain
from retain.faces.cli.app import COMMANDS, TOOLS
from tests.faces.helpers import COMMAND, ROOT, environment, process


def python(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment()
    )


SHOWN = [command for command in COMMANDS if not command.hidden]
# A tool has commands of its own: it does something beside a classifier, not to one.
VERBS = [
    command.name
    for command in SHOWN
    if command.name not in ("init", "adopt", "unpack", "serve", "demo") and " " not in command.name
]


def test_a_verb_is_a_method_a_command_and_a_page() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "verbs").glob("*.md")}
    for verb in VERBS:
        assert inspect.isfunction(getattr(retain.Classifier, verb)), verb
    assert {"rename", "merge"} <= set(dir(retain.Classifier))
    assert inspect.isfunction(retain.adopt)
    assert pages - {"init", "create", "adopt", "unpack", "README", "index"} == set(VERBS)
    assert pages & {"init", "create"}
    assert "adopt" in pages


def test_the_contract_of_the_issue_is_complete() -> None:
    promised = "learn predict correct forget undo evaluate log show classes verify"
    assert set(VERBS) >= set(promised.split())
    owned = "reference gate protect versions diff promote rollback explain export pack"
    owned += " adapt advise purge"
    assert set(VERBS) == {*promised.split(), *owned.split()}


def test_help_lists_every_command(run) -> None:
    for home in ("", *TOOLS):
        text = run(*home.split(), "--help").stdout
        for command in SHOWN:
            tool, _, last = command.name.rpartition(" ")
            if tool == home:
                assert re.search(rf"^  {last} +\S", text, re.MULTILINE), command.name
        assert "..." not in text.split("Commands:")[1], "a summary is too long for 80 columns"
    assert all(re.search(rf"^  {tool} +\S", run("--help").stdout, re.MULTILINE) for tool in TOOLS)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_has_a_page_that_shows_each_of_its_commands(tool) -> None:
    page = (ROOT / "docs" / {"bench": "benchmarks.md"}[tool]).read_text(encoding="utf-8")
    for command in SHOWN:
        if command.name.startswith(tool + " "):
            assert re.search(rf"retain {command.name}\b", page), command.name


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_explains_itself_with_an_example(run, command) -> None:
    result = run(*command.name.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: {command.example}" in result.stdout
    assert command.example.startswith(f"retain {command.name} ")
    assert (inspect.getdoc(command.function) or "").endswith(".")
    assert "\n" not in (inspect.getdoc(command.function) or "")


def test_every_option_is_in_the_reference(run) -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for command in SHOWN:
        described = page.split(f"### retain {command.name}\n")[1].split("\n### ")[0]
        for option in re.findall(r"--[a-z][a-z-]+", run(*command.name.split(), "--help").stdout):
            assert option == "--help" or f"`{option}`" in described, (command.name, option)


def test_the_reference_is_current() -> None:
    script = ROOT / "scripts" / "generate_cli_reference.py"
    told = python(script, "--check")
    assert told.returncode == 0, told.stderr


def test_help_costs_little() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = process("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert told.returncode == 0
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 0.6, f"retain --help took {spent:.2f} s of CPU time"


def test_help_imports_nothing_heavy() -> None:
    heavy = ["numpy", "scipy", "sklearn", "sqlalchemy", "onnxruntime", "PIL", "matplotlib"]
    code = (
        "import sys, contextlib\n"
        "with contextlib.suppress(SystemExit):\n"
        "    from retain.faces.cli.app import run\n"
        "    sys.argv = ['retain', '--help']\n"
        "    run()\n"
        f"found = [name for name in {heavy!r} if name in sys.modules]\n"
        "sys.exit(', '.join(found) or None)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment()
    )
    assert told.returncode == 0, told.stderr


def test_the_entry_point_runs() -> None:
    assert process("--version").stdout.decode().startswith("retain ")
    assert COMMAND[-1].startswith("from retain.faces.cli import main")


def test_every_command_has_json_but_those_that_are_said_not_to() -> None:
    taken = {each.name: inspect.signature(each.function).parameters for each in COMMANDS}
    without = {name for name, parameters in taken.items() if "as_json" not in parameters}
    assert without == {"serve", "demo"}
    for page in ("README.md", "docs/cli.md"):
        text = (ROOT / page).read_text().replace("\n", " ")
        assert re.search("all but `serve` and `demo`|Every command but `serve` and `demo`", text)
