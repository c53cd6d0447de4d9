"""A classifier that retain exported and that comes back: its head is read, not searched for.

Behind the features of such a file stands more than a linear map: they are brought to length one and
rounded. The metadata name the constants of the head; whether those are what the output computes is
checked in numbers, as for every other file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption, CannotAdopt
from retain.vision.lastmap import Activation, LinearMap
from retain.vision.lookup import Lookup

__all__ = ["returned_map"]

_NAMED = 5


def returned_map(lookup: Lookup, output: str | None = None) -> LinearMap | None:
    """The head of a file that `export_onnx` wrote; None of any other, or one that was rewritten.

    Raises:
        BadOption: if there is no output of that name.
        CannotAdopt: if there are exceptions in it, which no last layer can hold.
    """
    told = {each.key: each.value for each in lookup.model.metadata_props}
    names = [each.name for each in lookup.model.graph.output]
    features, activation = told.get("retain.features", ""), told.get("retain.activation", "")
    if "retain.head" not in told or len(names) != 1 or activation not in get_args(Activation):
        return None
    if output not in (None, names[0]):
        raise BadOption(f"the model has no output {output!r}; it has {names[0]}")
    try:
        parts = json.loads(told["retain.head"])
        power = float(parts["power"])
        targets = [i for each in _arrays(lookup, parts, "targets") for i in each.tolist()]
        unit = np.concatenate([each.T for each in _arrays(lookup, parts, "weights")])
        bias = np.concatenate(_arrays(lookup, parts, "bias"))
        raw = np.zeros_like(unit)
        for matrix, shift in zip(
            _arrays(lookup, parts, "start"), _arrays(lookup, parts, "start_bias"), strict=True
        ):
            raw[: len(shift)], bias[: len(shift)] = matrix.T, bias[: len(shift)] + shift
        cast = lookup.producers[names[0]]
        scores = cast.input[0]
        if activation != "none":
            scores = lookup.producers[scores].input[0]
        whole = features in lookup.producers and bias.shape == (len(unit),) and 0 < power <= 4
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    if not whole or not all(np.isfinite(each).all() for each in (unit, raw, bias)):
        return None
    if targets:
        raise CannotAdopt(_spoken(targets, told))
    return LinearMap(
        output=names[0],
        compared=names[0],
        scores=scores,
        feature=features,
        weights=np.ascontiguousarray(raw),
        bias=bias,
        activation=activation,
        single=False,
        halved=False,
        half=False,
        labels=(),
        found=f"the head that retain {told.get('retain.version', '')} exported, "
        f"{unit.shape[1]:,} features → {len(unit):,} outputs",
        unit=np.ascontiguousarray(unit),
        power=power,
    )


def _arrays(lookup: Lookup, parts: Mapping[str, Any], role: str) -> list[NDArray[Any]]:
    found = [lookup.constant(name) for name in parts.get(role, ())]
    if any(each is None for each in found):
        raise ValueError(f"a constant of {role} is gone")
    return [np.asarray(each) for each in found]


def _spoken(targets: list[int], told: Mapping[str, str]) -> str:
    """Why a file with exceptions is not adopted; `targets` are the classes they answer."""
    try:
        labels = json.loads(told["retain.labels"])
        counted = Counter(str(labels[i]) for i in targets).most_common()
    except (KeyError, IndexError, TypeError, ValueError):
        counted = []
    words = [f"{label!r}" + (f" ({n})" if n > 1 else "") for label, n in counted[:_NAMED]]
    words += [f"{len(counted) - _NAMED} other classes"] * (len(counted) > _NAMED)
    named = f", answered {', '.join(words)}" if words else ""
    many = len(targets) > 1
    return (
        f"it holds {len(targets)} exception{'s' * many}{named}: corrected "
        f"picture{'s' * many} that answer{'s' * (not many)} for the neighbourhood of "
        f"{'their' if many else 'its'} own, which a last layer cannot. To have all of that "
        f"classifier again, give it on packed (retain pack, retain unpack); or undo those "
        f"corrections and export again"
    )
