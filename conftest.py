"""What cannot be collected where an extra is not installed; the header of the run says so."""

from importlib.util import find_spec

_MISSING = [name for name in ("fastapi", "uvicorn", "multipart", "httpx") if not find_spec(name)]

# Its doctests need what it is made of; `make test` installs that.
collect_ignore_glob = ["src/retain/faces/server/*", "tests/server/test_*"] if _MISSING else []


def pytest_report_header() -> str | None:
    """Say what is left out."""
    if not _MISSING:
        return None
    return f"serving is NOT tested: no {', '.join(_MISSING)}; pip install -e '.[dev]' brings them"
