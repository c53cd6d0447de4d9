"""PyTorch is an extra: it is imported here, when something of this room is used, and not before."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, final

from retain.errors import MissingExtra

__all__ = ["Later", "need"]

_EXTRA: Final = frozenset({"torch", "torchvision", "timm", "huggingface_hub", "peft", "accelerate"})


def need(name: str, what: str) -> Any:
    """A module of the extra `train`, imported now.

    Args:
        name: of the module.
        what: the user wants to do, for the message.

    Raises:
        MissingExtra: if it cannot be imported; the message holds the line that installs it.

    >>> need("math", "counting").gcd(4, 6)
    2
    """
    try:
        return import_module(name)
    except ImportError as error:
        # A package that is there but broken says so: installing it again may not be the cure.
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        reason = "" if missing else f" ({name} is installed, but cannot be imported: {error})"
        package = name.partition(".")[0]
        if package in _EXTRA:
            raise MissingExtra(f"{MissingExtra.of(what, 'train')}{reason}") from error
        raise MissingExtra(
            f"{what} needs a package that is not part of retain; install it with: "
            f"pip install {package}{reason}"
        ) from error


@final
class Later:
    """A module of the extra `train` that is imported when something of it is first used.

    >>> Later("math", "counting").gcd(4, 6)
    2
    """

    def __init__(self, name: str, what: str) -> None:
        self._name, self._what = name, what

    def __getattr__(self, attribute: str) -> Any:
        return getattr(need(self._name, self._what), attribute)
