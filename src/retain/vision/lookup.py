"""An ONNX graph as a table: who computes a value, what it needs, and which values are constant."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from retain.errors import CannotAdopt

__all__ = ["Lookup", "attributes", "describe", "reads", "session", "tail"]

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial"}
    | {"Bernoulli", "If", "Loop", "Scan"}
)


@final
@dataclass(frozen=True, eq=False, slots=True)
class Lookup:
    """A model and where everything in its graph is.

    Attributes:
        model: the `ModelProto`.
        producers: the node that computes each value.
        constants: the initializer of each name; sparse ones are written out.
    """

    model: Any
    producers: Mapping[str, Any]
    constants: Mapping[str, Any]

    @classmethod
    def of(cls, model: Any) -> Lookup:
        """The table of a model.

        Raises:
            CannotAdopt: if a sparse initializer is not what it should be.
        """
        graph = model.graph
        constants = {each.name: each for each in graph.initializer}
        constants |= {each.values.name: _dense(each) for each in graph.sparse_initializer}
        producers = {name: node for node in graph.node for name in node.output if name}
        return cls(model, producers, constants)

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        versions = [o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")]
        return max(versions, default=1)

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What must be fed; files of old lists the weights here too."""
        given = self.model.graph.input
        return {each.name: each for each in given if each.name not in self.constants}

    def needed(self, values: Iterable[str]) -> list[Any]:
        """The nodes that some values depend on, in the order of the file."""
        seen: set[str] = set()
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            if value in seen:
                continue
            seen.add(value)
            if value in self.producers:
                waiting.extend(reads(self.producers[value]))
        return [node for node in self.model.graph.node if seen.intersection(node.output)]

    def readers(self, value: str) -> list[Any]:
        """The nodes that read a value."""
        return [node for node in self.model.graph.node if value in node.input]

    def constant(self, value: str) -> NDArray[Any] | None:
        """What a value always is, computed if need be; None if it depends on the picture."""
        from onnx import numpy_helper

        if value in self.constants:
            return np.asarray(numpy_helper.to_array(self.constants[value]))
        if value not in self.producers:
            return None
        nodes = self.needed([value])
        given = self.inputs
        for node in nodes:
            if node.op_type in _RANDOM or any(name in given for name in reads(node)):
                return None
        try:
            run = session(self.part(nodes, [], [value]).SerializeToString(), quick=True)
            return np.asarray(run.run([value], {})[0])
        except Exception:  # noqa: BLE001 - not computable means not constant enough
            return None

    def part(self, nodes: Iterable[Any], inputs: Iterable[Any], outputs: Iterable[Any]) -> Any:
        """A model of some of the nodes, with the initializers they read.

        Args:
            nodes: in an order in which they can run.
            inputs: their `ValueInfoProto`.
            outputs: the same, or bare names.
        """
        import onnx

        nodes = list(nodes)
        read = {name for node in nodes for name in reads(node)}
        part = onnx.ModelProto(ir_version=self.model.ir_version)
        part.opset_import.extend(self.model.opset_import)
        part.graph.name = "features"
        part.graph.node.extend(nodes)
        part.graph.input.extend(inputs)
        part.graph.output.extend(
            onnx.ValueInfoProto(name=each) if isinstance(each, str) else each for each in outputs
        )
        for name, tensor in self.constants.items():
            if name in read:
                part.graph.initializer.append(tensor)
        return part


def _dense(tensor: Any) -> Any:
    """A sparse initializer as an ordinary one: no shape inference knows the other kind."""
    from onnx import numpy_helper

    name, dims = tensor.values.name, tuple(tensor.dims)
    try:
        values, at = numpy_helper.to_array(tensor.values), numpy_helper.to_array(tensor.indices)
        if min(dims, default=1) < 0 or math.prod(dims) * values.itemsize >= 2**31:
            raise ValueError(f"its shape is {list(dims)}")
        if len(at) != values.size:
            raise ValueError(f"it has {values.size} values at {len(at)} places")
        whole = np.zeros(dims, values.dtype)
        whole[np.unravel_index(at, dims) if at.ndim == 1 else tuple(at.T)] = values
    except (IndexError, TypeError, ValueError) as error:
        raise CannotAdopt(f"its sparse constant {name!r} cannot be read: {error}") from error
    return numpy_helper.from_array(whole, name)


def reads(node: Any) -> Iterator[str]:
    """The values a node reads, those used inside its branches too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            yield from (each.name for each in graph.output)
            for inner in graph.node:
                yield from reads(inner)


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes as Python values."""
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def describe(node: Any) -> str:
    """A node in words: its operator and, where it has one, its name."""
    return f"{node.op_type} ({node.name!r})" if node.name else str(node.op_type)


def tail(lookup: Lookup, output: str, count: int = 8) -> str:
    """The last operators before an output, in words."""
    words = [repr(output)]
    value: str | None = output
    while value is not None and value in lookup.producers and len(words) <= count:
        node = lookup.producers[value]
        words.append(describe(node))
        value = next((each for each in node.input if each and each not in lookup.constants), None)
    if value in lookup.producers:
        words.append("…")
    return " → ".join(reversed(words))


def session(graph: bytes, *, quick: bool = False) -> Any:
    """An ONNX Runtime session on one thread; `quick` leaves the graph as it is.

    Raises:
        CannotAdopt: if ONNX Runtime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if quick else levels.ORT_ENABLE_ALL
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CannotAdopt(
            f"ONNX Runtime {onnxruntime.__version__} cannot load it: {str(error)[:300]}"
        ) from error
