"""The house rules that a machine can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import retain
from retain import errors

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src" / "retain").rglob("*.py"))


def test_the_public_names():
    """Pinned here: a name that comes or goes is a decision."""
    assert sorted(retain.__all__) == retain.__all__
    assert set(retain.__all__) >= {"Classifier", "create", "open", "to_json"}
    assert set(errors.__all__) <= set(retain.__all__)
    for name in retain.__all__:
        assert getattr(retain, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = retain.nothing


def test_every_error_is_in_the_tree_and_has_an_exit_code():
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.RetainError)
        assert kind.exit_code in {1, 2}
        assert name in errors.__doc__


def test_importing_is_light():
    """Nothing heavy before a classifier is wanted, and never a deep-learning framework."""
    code = (
        "import sys, retain; light = set(sys.modules)\n"
        "import tempfile\n"
        "shop = retain.create(tempfile.mkdtemp() + '/s')\n"
        "print([m for m in ('numpy', 'sqlalchemy', 'onnxruntime', 'sklearn') if m in light],"
        " [m for m in ('torch', 'tensorflow', 'jax', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] []"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_over_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def test_the_algebra_is_small():
    """Lines of code: what explains a formula is not counted against it."""
    lines = sum(_code_lines(path) for path in SOURCES if path.parent.name == "algebra")
    assert lines < 1500


def _code_lines(path):
    """Lines that are neither blank, nor comments, nor docstrings."""
    text = path.read_text()
    told = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in told
        for number, line in enumerate(text.splitlines(), 1)
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_pickled_or_evaluated(path):
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not ({"eval", "exec"} & names)
    assert not ({"pickle", "marshal", "shelve", "joblib"} & imported)
