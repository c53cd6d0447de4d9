"""Where in a picture the evidence for a class lies.

Networks that average their last feature map into the feature vector tell it themselves (class
activation map: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016,
eq. 2): with f_k the mean over the map A_k, a score Σ w_k f_k is the mean over the map of
Σ w_k A_k(x, y). For all other networks, and as a check on these, grey squares are laid over the
picture and the score is taken again (Zeiler & Fergus 2014, section 4.2).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retain.errors import BadOption, Damaged, Refused, RetainError
from retain.vision.graphs import graph_path, load_graph, pictures_input
from retain.vision.preprocess import Preprocess, prepare

__all__ = ["Evidence", "evidence_map", "network_view", "occlusion_map", "overlay"]

Map = NDArray[np.float32]

_PASSING: Final = frozenset(
    {"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Cast"}
)
"""What may lie between the average and the features without changing a number."""

_POOLING: Final = frozenset({"GlobalAveragePool", "AveragePool", "ReduceMean"})
_TOLERANCE: Final = 1e-4


@dataclass(frozen=True, eq=False, slots=True)
class Evidence:
    """A map of the evidence, or why there is none.

    Attributes:
        map: float32 [h, w], high where the evidence lies, top left first, covering what the
            network saw (`network_view`); None where the network does not tell.
        reason: in words, why there is none; empty when there is.
    """

    map: Map | None
    reason: str = ""


def evidence_map(extractor: str | Path, pixels: NDArray[np.float32], row: ArrayLike) -> Evidence:
    """The class activation map of one picture.

    Args:
        extractor: the directory of an extractor, or its graph.
        pixels: one prepared picture, as `prepare` makes it.
        row: float [d], the weights of a class; or of one class less those of another, to see what
            speaks for the one against the other.

    Returns:
        Σ_k w_k A_k [h, w], whose mean is w·f for the unnormalised feature f; or no map, with the
        reason, where the features are not the plain average of a map.

    Raises:
        BadOption: if the weights are not as many as the features, or pictures of another shape.
    """
    path = graph_path(extractor)
    try:
        told = path.stat()
    except OSError as error:
        raise BadOption(f"{path} cannot be read: {error.strerror}") from error
    network = _network(os.fspath(path), told.st_mtime_ns, told.st_size)
    if isinstance(network, str):
        return Evidence(None, network)
    return network.evidence(pixels, np.asarray(row, np.float64))


def occlusion_map(
    score: Callable[[NDArray[np.uint8]], float],
    view: NDArray[np.uint8],
    *,
    grid: int = 7,
    grey: int = 128,
) -> Map:
    """How much the score falls when a part of the picture is covered: for any network.

    Args:
        score: what is asked of a picture uint8 [H, W, 3]; called grid² + 1 times.
        view: uint8 [H, W, 3], what the network sees (`network_view`).
        grid: squares along each side.
        grey: what they are painted with, 0 to 255.

    Returns:
        float32 [grid, grid], score of the whole less score of the covered picture.

    Raises:
        BadOption: if the grid is finer than the picture, or the picture is none.

    >>> corner = np.zeros((4, 4, 3), np.uint8)
    >>> corner[0, 0] = 255
    >>> occlusion_map(lambda view: float(view.max()), corner, grid=2)
    array([[127.,   0.],
           [  0.,   0.]], dtype=float32)
    """
    _check_view(view)
    if not 1 <= grid <= min(view.shape[:2]):
        raise BadOption(f"a grid of {grid} does not go into {view.shape[0]}×{view.shape[1]} pixels")
    if not 0 <= grey <= 255:
        raise BadOption(f"grey is {grey}; it must lie between 0 and 255")
    tops, lefts = (np.linspace(0, side, grid + 1).round().astype(int) for side in view.shape[:2])
    whole = score(view)
    result = np.empty((grid, grid), np.float32)
    for i in range(grid):
        for j in range(grid):
            covered = view.copy()
            covered[tops[i] : tops[i + 1], lefts[j] : lefts[j + 1]] = grey
            result[i, j] = whole - score(covered)
    return result


def network_view(pixels: NDArray[np.uint8], rule: Preprocess) -> NDArray[np.uint8]:
    """What the network sees of a picture, in its true colours: resized and cropped.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        rule: how pictures are prepared.

    Returns:
        uint8 [rule.height, rule.width, 3], RGB; prepared by the same rule with
        ``resize="squash", shorter=0`` it is what the network gets.

    >>> network_view(np.zeros((5, 9, 3), np.uint8), Preprocess(2, 2, shorter=2)).shape
    (2, 2, 3)
    """
    plain = replace(rule, colour="RGB", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3, layout="NHWC")
    view: NDArray[np.uint8] = prepare(pixels, plain)[0].astype(np.uint8)
    return view


def overlay(view: NDArray[np.uint8], evidence: Map, *, strength: float = 0.6) -> NDArray[np.uint8]:
    """A picture with its evidence painted over it: warm where it speaks for, blue where against.

    Args:
        view: uint8 [H, W, 3], what the network saw (`network_view`).
        evidence: float [h, w], covering the same; the largest magnitude gets the full colour.
        strength: how much of the picture the full colour hides, 0 to 1.

    Returns:
        uint8 [H, W, 3].

    Raises:
        BadOption: if these are not of that form.

    >>> view = np.full((4, 4, 3), 100, np.uint8)
    >>> bool((overlay(view, np.zeros((2, 2), np.float32)) == view).all())
    True
    """
    from PIL import Image

    _check_view(view)
    evidence = np.asarray(evidence, np.float32)
    if evidence.ndim != 2 or not evidence.size or not np.isfinite(evidence).all():
        raise BadOption(f"a map {list(evidence.shape)} cannot be shown; give finite numbers [h, w]")
    if not 0.0 <= strength <= 1.0:
        raise BadOption(f"strength is {strength}; it must lie between 0 and 1")
    # Scaled first, so that what is resampled are numbers of ordinary size.
    largest = float(np.abs(evidence).max())
    small = evidence / largest if largest > 0 else np.zeros_like(evidence)
    size = (view.shape[1], view.shape[0])
    large = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))
    large = np.clip(large, -1.0, 1.0)[:, :, None]
    heat = np.abs(large)
    # From red to yellow, so that the peak stands out by lightness too.
    warm = np.concatenate([np.full_like(heat, 255), 40 + 190 * heat, np.full_like(heat, 20)], 2)
    cold = np.concatenate([20 + 40 * heat, 90 + 90 * heat, np.full_like(heat, 255)], 2)
    colour = np.where(large >= 0, warm, cold)
    mixed = view + strength * heat * (colour - view)
    painted: NDArray[np.uint8] = np.rint(mixed).clip(0, 255).astype(np.uint8)
    return painted


def _check_view(view: NDArray[np.uint8]) -> None:
    if view.dtype != np.uint8 or view.ndim != 3 or view.shape[2] != 3 or not view.size:
        raise BadOption(
            f"an array of {view.dtype} {list(view.shape)} is not a picture; "
            "give uint8 [height, width, 3] in RGB"
        )


# -- the map in the graph ----------------------------------------------------------------------


@final
class _Network:
    """A feature graph that answers with its last map beside the features."""

    def __init__(self, session: Any, axes: tuple[int, int]) -> None:
        self._session = session
        self._axes = axes
        self._input = session.get_inputs()[0]

    def evidence(self, pixels: NDArray[np.float32], row: NDArray[np.float64]) -> Evidence:
        """The map, if the features are its average for this very picture."""
        try:
            feature, maps = self._session.run(None, {self._input.name: pixels})
        except Exception as error:
            raise BadOption(
                f"the network cannot be run on pixels {list(np.shape(pixels))}: {error}"
            ) from error
        if row.shape != feature.shape[1:]:
            raise BadOption(f"weights are {list(row.shape)}, expected {list(feature.shape[1:])}")
        if maps.ndim != 4:
            return Evidence(None, f"the features are an average of {list(maps.shape)}, not a map")
        maps = maps.astype(np.float64)
        average = maps.mean(axis=self._axes)
        size = max(float(np.abs(average).max()), 1e-30)
        # Reshapes and windows may hide anything: what counts is that the law holds.
        if average.shape != feature.shape or np.abs(average - feature).max() > _TOLERANCE * size:
            return Evidence(None, "the features are not the plain average of the last feature map")
        channel = ({1, 2, 3} - set(self._axes)).pop()
        return Evidence(np.tensordot(maps, row, (channel, 0))[0].astype(np.float32))


@lru_cache(maxsize=2)
def _network(path: str, changed: int, size: int) -> _Network | str:
    """The network with its map, or why there is none; anew when the file has changed."""
    import onnx
    import onnxruntime

    source, name = Path(path), "its feature map"
    try:
        model = load_graph(source)
        pictures_input(model.graph, source)
        found = _find(model.graph)
        if isinstance(found, str):
            return found
        name, axes = found
        features = model.graph.output[0]
        unknown = onnx.helper.make_empty_tensor_value_info(name)
        kept = [each for each in model.graph.value_info if each.name == name] or [unknown]
        del model.graph.output[:]
        model.graph.output.extend([features, kept[0]])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Refused:
        return f"{source} is too large to be opened up"
    except RetainError:
        raise
    except Exception as error:  # ONNX Runtime and protobuf raise their own
        raise Damaged(f"{source} cannot be run with {name} as an output: {error}") from error
    return _Network(session, axes)


def _find(graph: Any) -> tuple[str, tuple[int, int]] | str:
    """The value that is averaged into the features, and its spatial axes; or why there is none."""
    makers = {name: node for node in graph.node for name in node.output}
    name = graph.output[0].name
    node = makers.get(name)
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    if node is None:
        return "the features are the input itself"
    if node.op_type not in _POOLING:
        return (
            f"the features come out of {node.op_type}, not straight out of an average over a "
            f"feature map; cover parts of the picture instead (occlusion map)"
        )
    axes = _mean_axes(graph, makers, node) if node.op_type == "ReduceMean" else (2, 3)
    if axes not in {(2, 3), (1, 2)}:
        return (
            f"the features are an average over the axes {list(axes)}, which is not one over the "
            f"rows and columns of a map; cover parts of the picture instead (occlusion map)"
        )
    return str(node.input[0]), axes


def _mean_axes(graph: Any, makers: dict[str, Any], node: Any) -> tuple[int, ...]:
    """The axes of a ReduceMean, sorted, as of four; empty when they are not written down."""
    import onnx

    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    axes = attributes.get("axes")
    if axes is None and len(node.input) > 1:
        for each in graph.initializer:
            if each.name == node.input[1]:
                axes = onnx.numpy_helper.to_array(each).ravel().tolist()
        maker = makers.get(node.input[1])
        if maker is not None and maker.op_type == "Constant":
            value = {each.name: each for each in maker.attribute}
            if "value" in value:
                axes = onnx.numpy_helper.to_array(value["value"].t).ravel().tolist()
            elif "value_ints" in value:
                axes = list(value["value_ints"].ints)
    return tuple(sorted(int(axis) % 4 for axis in axes or ()))
