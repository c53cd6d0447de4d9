"""Opening somebody's ONNX graph: reading, sizing, bringing up to date, renaming inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from retain.errors import BadOption, Damaged, Refused
from retain.vision.extractor import GRAPH

__all__ = [
    "LARGEST_GRAPH",
    "OLDEST_OPSET",
    "convolutions",
    "graph_path",
    "load_graph",
    "modernise",
    "names_in",
    "pictures_input",
    "rename",
    "unused",
]

LARGEST_GRAPH: Final = 2**31 - 2**20
"""In bytes; one ONNX file is one protobuf message, which ends at two gigabytes."""

OLDEST_OPSET: Final = 9
"""The first operator set with Where and Sign; older graphs are converted to it."""


_MAIN: Final = ("", "ai.onnx")


def graph_path(extractor: str | Path) -> Path:
    """The graph of an extractor's directory; a path to a file is taken for the graph itself."""
    extractor = Path(extractor)
    return extractor / GRAPH if extractor.is_dir() else extractor


def load_graph(source: Path, more: int = 0) -> Any:
    """A feature graph with its weights, as `onnx.ModelProto`.

    Raises:
        Damaged: if it cannot be read.
        Refused: if it and `more` bytes are too much for one file.
    """
    import onnx

    try:
        size = source.stat().st_size
        # What is too large even without its weights cannot be parsed either.
        if size <= LARGEST_GRAPH:
            model = onnx.load(os.fspath(source), load_external_data=False)
            size += sum(_outside(source, each) for each in model.graph.initializer)
        if size + more > LARGEST_GRAPH:
            raise Refused(
                f"the file would have {(size + more) / 1e9:.1f} GB, and an ONNX file ends at "
                f"{LARGEST_GRAPH / 1e9:.1f}; use a smaller extractor"
            )
        model = onnx.load(os.fspath(source))
        # An empty file is a message too.
        if not model.graph.input or not model.graph.output:
            raise ValueError("it has no input or no output")
        # Protobuf hands over as bytes what is not UTF-8.
        if not all(isinstance(name, str) for name in names_in(model.graph)):
            raise ValueError("it has names that are not text")
    except (Refused, MemoryError):
        raise
    except Exception as error:  # protobuf's own errors have no name in common
        raise Damaged(
            f"{source} is not a feature graph that can be read ({error}); restore it from a copy"
        ) from error
    return model


def _outside(source: Path, tensor: Any) -> int:
    """How many bytes of a tensor lie in another file."""
    where = {each.key: each.value for each in tensor.external_data}
    if "location" not in where:
        return 0
    if "length" in where:
        return int(where["length"])
    path: str = where["location"]
    return (source.parent / path).stat().st_size


def convolutions(extractor: str | Path) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Weight [out, in, kh, kw] and bias [out] of each convolution of a feature graph, in order.

    Raises:
        Damaged: if the graph cannot be read, or one of them is not a constant.
    """
    from onnx import numpy_helper

    source = graph_path(extractor)
    graph = load_graph(source).graph
    held = {each.name: each for each in graph.initializer}
    try:
        pairs = [[held[name] for name in n.input[1:3]] for n in graph.node if n.op_type == "Conv"]
        return [(numpy_helper.to_array(w), numpy_helper.to_array(b)) for w, b in pairs]
    except (KeyError, ValueError) as error:
        raise Damaged(f"{source} has convolutions without weights of their own") from error


def modernise(model: Any, source: Path) -> int:
    """The operator set of a model, brought to `OLDEST_OPSET` in place if it is older.

    Raises:
        BadOption: if it cannot be brought there.
    """
    from onnx import version_converter

    imports = model.opset_import
    opset: int = max((int(each.version) for each in imports if each.domain in _MAIN), default=1)
    if opset < OLDEST_OPSET:
        try:
            converted = version_converter.convert_version(model, OLDEST_OPSET)
        except Exception as error:  # the converter is C++ and raises anything
            raise BadOption(
                f"{source} is in ONNX operator set {opset} and cannot be converted to "
                f"{OLDEST_OPSET} ({error}); export the original anew with a later one"
            ) from error
        model.CopyFrom(converted)
        opset = OLDEST_OPSET
    # Before version 4 every constant had to be listed as an input.
    model.ir_version = max(model.ir_version, 4)
    return opset


def pictures_input(graph: Any, source: Path) -> str:
    """The name of the one input of a graph.

    Raises:
        BadOption: if it has several.
    """
    constants = {each.name for each in graph.initializer}
    inputs = [each.name for each in graph.input if each.name not in constants]
    if len(inputs) != 1:
        raise BadOption(
            f"{source} wants the inputs {', '.join(inputs)}; it must take pictures alone"
        )
    return str(inputs[0])


def names_in(graph: Any) -> set[str]:
    """What values and nodes of a graph, and of the graphs inside it, are called."""
    names = {each.name for each in (*graph.initializer, *graph.input, *graph.output)}
    for node in graph.node:
        names |= {node.name, *node.input, *node.output}
        for attribute in node.attribute:
            for inside in (attribute.g, *attribute.graphs):
                if inside.node:
                    names |= names_in(inside)
    return names


def unused(graph: Any, name: str) -> str:
    """`name`, with as much behind it as makes it one that nothing in the graph has."""
    taken = names_in(graph)
    while name in taken:
        name += "_"
    return name


def rename(graph: Any, old: str, new: str) -> None:
    """Call a value of a graph, and of the graphs inside it, by another name."""
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
        for attribute in node.attribute:
            for inside in (attribute.g, *attribute.graphs):
                if inside.node:
                    rename(inside, old, new)
    for each in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        if each.name == old:
            each.name = new
