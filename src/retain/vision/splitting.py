"""Cutting a classifier's graph in two: features, and the linear map that ends it.

Feature is what enters the last linear map. Everything before it becomes a graph of its own that
takes one picture and gives float32 [1, d]; the map becomes two arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption, CannotAdopt
from retain.vision.inlet import Inlet, adapted, find_inlet
from retain.vision.lastmap import Activation, LinearMap, last_linear_map
from retain.vision.lookup import Lookup, reads, session, tail
from retain.vision.modelfile import parse_model
from retain.vision.preprocess import Layout
from retain.vision.returned import returned_map

__all__ = ["Plan", "Split", "carve", "plan", "split"]

_OURS: Final = ("features", "flat", "zero", "one", "float")


@final
@dataclass(frozen=True, eq=False, slots=True)
class Split:
    """A classifier in two parts.

    Attributes:
        features: the bytes of an ONNX graph: one picture to float32 [1, d].
        weights: float64 [C, d]; the scores of a feature x are `weights @ x + bias`.
        bias: float64 [C].
        activation: what makes the original's output of the scores.
        input_name: of the original.
        input_dtype: of the original, as NumPy calls it.
        input_shape: of the original; None for what is not fixed.
        output_name: of the original.
        output_dtype: of the original, as NumPy calls it; empty if it is not a tensor.
        output_shape: of the original; None for what is not fixed.
        layout: how the feature graph takes pictures; None if the original does not tell.
        height: in pixels, None if not fixed.
        width: in pixels, None if not fixed.
        channels: 1 or 3; None if the original does not tell.
        single: whether the original gives one number, the probability of the second class.
        labels: the classes' names, where an operator carries them.
        found: the linear map in words.
        tail: the end of the original graph in words.
        unit: see `LinearMap.unit`.
        power: see `LinearMap.unit`.
    """

    features: bytes
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    activation: Activation
    input_name: str
    input_dtype: str
    input_shape: tuple[int | None, ...]
    output_name: str
    output_dtype: str
    output_shape: tuple[int | None, ...]
    layout: Layout | None
    height: int | None
    width: int | None
    channels: int | None
    single: bool
    labels: tuple[str, ...]
    found: str
    tail: str
    unit: NDArray[np.float64] | None = None
    power: float = 1.0


@final
@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """Where a classifier will be cut.

    Attributes:
        lookup: the whole graph.
        map: the last linear map.
        inlet: the input.
        nodes: what computes the feature, in order.
    """

    lookup: Lookup
    map: LinearMap
    inlet: Inlet
    nodes: tuple[Any, ...]


def split(
    model: bytes,
    *,
    output: str | None = None,
    height: int | None = None,
    width: int | None = None,
    channels: int | None = None,
    layout: Layout | None = None,
) -> Split:
    """Cut a classifier at its last linear map.

    Args:
        model: a whole ONNX file (`modelfile.read_model`).
        output: which output, if it has several.
        height: of the pictures, where the graph takes any size or flat vectors; also the others.
        width: see `height`.
        channels: see `height`.
        layout: see `height`.

    Raises:
        BadOption: if there is no such output.
        CannotAdopt: if there is no last linear map, or the graph takes something else than
            pictures; the message has the end of the graph in words.
    """
    parsed = parse_model(model)
    session(model, quick=True)  # whatever it can load is a graph without circles or false types
    found = plan(parsed, output)
    inlet = found.inlet
    tall, wide, deep = inlet.guess or (None, None, None)
    settled = replace(
        inlet,
        height=inlet.height or height or tall,
        width=inlet.width or width or wide,
        channels=inlet.channels or channels or deep,
        layout=inlet.layout or layout or ("NHWC" if inlet.form == "flat" else None),
    )
    return carve(replace(found, inlet=settled))


def plan(model: Any, output: str | None = None) -> Plan:
    """Find the last linear map and the input of a parsed model.

    Raises:
        BadOption: as `split`.
        CannotAdopt: as `split`.
    """
    lookup = Lookup.of(model)
    try:
        found = returned_map(lookup, output) or last_linear_map(lookup, output)
        nodes = tuple(lookup.needed([found.feature]))
        inlet = find_inlet(lookup, {found.feature, *(n for node in nodes for n in reads(node))})
    except BadOption:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CannotAdopt(f"its graph is malformed ({error}); export it again") from error
    return Plan(lookup, found, inlet, nodes)


def carve(plan: Plan, *, repeat: bool = False) -> Split:
    """Make the two parts.

    Args:
        plan: where to cut.
        repeat: whether a graph for a fixed number of pictures is fed as many copies of one,
            rather than having its batch axis freed.
    """
    from onnx import TensorProto, helper, numpy_helper

    lookup, inlet, found = plan.lookup, plan.inlet, plan.map
    copies = (inlet.batch or 1) if repeat else 1
    entry, front, constants = adapted(lookup, inlet, copies)
    # What was adopted, exported and adopted again has our own names in it already.
    taken = {*lookup.producers, *lookup.constants, *lookup.inputs, entry.name}
    rounds = 0
    while any(f"retain{rounds or ''}_{each}" in taken for each in _OURS):
        rounds += 1
    features, flat, zero, one, single = (f"retain{rounds or ''}_{each}" for each in _OURS)
    last = "features" if "features" not in taken else features
    back = [helper.make_node("Flatten", [found.feature], [flat], axis=1)]
    if copies > 1:
        constants.append(numpy_helper.from_array(np.array([0], np.int64), zero))
        back.append(helper.make_node("Gather", [flat, zero], [one]))
    if lookup.opset >= 6:  # before, types were named by text, and there was only one
        back.append(helper.make_node("Cast", [back[-1].output[0]], [single], to=TensorProto.FLOAT))
    back[-1].output[0] = last
    batch = entry.type.tensor_type.shape.dim[0]
    shape = [batch.dim_param or batch.dim_value, found.weights.shape[1]]
    leaving = helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)
    part = lookup.part([*front, *plan.nodes, *back], [entry], [leaving])
    part.graph.initializer.extend(constants)
    given = next(each for each in lookup.model.graph.output if each.name == found.output)
    kind = given.type.tensor_type
    return Split(
        features=part.SerializeToString(deterministic=True),
        weights=found.weights,
        bias=found.bias,
        activation=found.activation,
        input_name=inlet.name,
        input_dtype=inlet.dtype,
        input_shape=inlet.shape,
        output_name=found.output,
        output_dtype=_dtype(kind.elem_type),
        output_shape=tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim),
        layout=inlet.layout,
        height=inlet.height,
        width=inlet.width,
        channels=inlet.channels,
        single=found.single,
        labels=found.labels,
        found=found.found,
        tail=tail(lookup, found.output),
        unit=found.unit,
        power=found.power,
    )


def _dtype(code: int) -> str:
    from onnx import helper

    return str(helper.tensor_dtype_to_np_dtype(code)) if code else ""
