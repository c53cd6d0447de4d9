"""What cannot be collected where an extra is not installed."""

from importlib.util import find_spec

# Its doctests need what it is made of; `make test` installs that.
collect_ignore_glob = [] if find_spec("fastapi") else ["src/retain/faces/server/*"]
