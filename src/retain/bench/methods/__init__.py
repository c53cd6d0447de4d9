"""Class-incremental methods on frozen features: ours, the field's, and what everybody has.

Those of `trained` train the network itself, and need pictures. Each is a small file; `REGISTRY`
knows them by name, `make` makes one.

>>> import tempfile, numpy as np
>>> method = make("nearest-mean", 2, seed=0, workdir=tempfile.mkdtemp())
>>> method.learn(np.eye(2, dtype=np.float32), np.array(["mug", "cup"]))
>>> classes, chances = method.scores(np.array([[0.9, 0.2]], np.float32))
>>> classes[chances[0].argmax()]
'mug'
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retain.bench.methods.base import Method, Unsupported
from retain.bench.methods.fecam import FeCAM
from retain.bench.methods.finetuning import FineTuning
from retain.bench.methods.logistic import Joint, Logistic
from retain.bench.methods.nearest_mean import NearestMean
from retain.bench.methods.ours import OWN
from retain.bench.methods.randoms import ACIL, RanPAC
from retain.bench.methods.ridge import Ridge
from retain.bench.methods.rivers import RiverSoftmax
from retain.bench.methods.sklearns import Neighbours, PartialFit, RefittedLDA
from retain.bench.methods.slda import StreamingLDA
from retain.bench.methods.trained import TRAINED
from retain.errors import BadOption
from retain.typed import read

__all__ = ["REGISTRY", "Method", "Unsupported", "checked", "make", "options_of"]

_ALL: tuple[type[Method], ...] = (
    *OWN,
    NearestMean,
    StreamingLDA,
    FeCAM,
    Ridge,
    RanPAC,
    ACIL,
    PartialFit,
    RiverSoftmax,
    Logistic,
    RefittedLDA,
    Neighbours,
    FineTuning,
    Joint,
    *TRAINED,
)

REGISTRY: dict[str, type[Method]] = {each.name: each for each in _ALL}
"""The methods by name."""


def make(name: str, dimension: int, seed: int, workdir: str | Path, **options: Any) -> Method:
    """A method that has learned nothing yet.

    Args:
        name: a key of `REGISTRY`.
        dimension: d, of the features.
        seed: of everything random in it.
        workdir: a folder in which it may write; made if it is not there.
        **options: the method's own.

    Raises:
        BadOption: if there is no such method, or it has no such option, or not with such a value.
        MissingExtra: if it needs a package that is not installed.
    """
    options = checked(name, options)
    return REGISTRY[name](dimension, seed, Path(workdir), **options)


def checked(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method as it takes them, read where they are text.

    Raises:
        BadOption: if there is no such method, or it has no such option, or not with such a value.

    >>> checked("lwf", {"exemplars": "yes", "clip": "none", "rate": "0.1"})
    {'exemplars': True, 'clip': 'none', 'rate': 0.1}
    """
    if name not in REGISTRY:
        raise BadOption(f"there is no method {name!r}; use {', '.join(REGISTRY)}")
    known, types = options_of(name), REGISTRY[name].types()
    for option in options:
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise BadOption(f"the method {name!r} has no option {option!r}; {has}")
    return {option: read(option, types[option], value) for option, value in options.items()}


def options_of(name: str) -> dict[str, Any]:
    """The options of a method and their defaults.

    >>> options_of("slda")["shrinkage"]
    0.0001
    """
    return REGISTRY[name].options()
