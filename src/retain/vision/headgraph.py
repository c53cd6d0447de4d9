"""A head as ONNX nodes: what stands between a feature vector and the probabilities.

Everything from the feature on is computed in double precision and in the order of
`retain.algebra.quantize`, so that the rounding to 14 bits falls the same way in the file as in
here; cosines with the exceptions come out of integers and are the same to the last bit. The nodes
are those of the graph's own operator set: axes, for one, turned from an attribute into an input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, final, get_args

import numpy as np
from numpy.typing import NDArray

from retain.algebra import SCALE
from retain.errors import BadOption
from retain.vision.graphs import names_in

__all__ = ["Activation", "ExportExceptions", "ExportHead", "ExportStart", "attach"]

Floats = NDArray[np.float64]
Activation = Literal["softmax", "log_softmax", "sigmoid", "none"]

_TINY: Final = 1e-300  # below any float32 but zero, so that only zero is not brought to length one
_ROUNDER: Final = 1.5 * 2.0**52  # adding it pushes the fraction of a double out, half to even
_NONE: Final = -2.0  # below any cosine


@dataclass(frozen=True, eq=False, slots=True)
class ExportStart:
    """The head a classifier was adopted with, on features that are not brought to length one.

    Attributes:
        weights: float [C₀, d]; it scores the first C₀ classes, ρ·W₀φ + b₀ with ρ the length.
        bias: float [C₀].
    """

    weights: Floats
    bias: Floats


@dataclass(frozen=True, eq=False, slots=True)
class ExportExceptions:
    """Pictures that answer for their own neighbourhood.

    Attributes:
        features: int16 [K, d], unit vectors times 2¹⁴.
        thresholds: float [K], cosines that must be exceeded.
        targets: int [K], which class each picture is.
        margin: by how much, in logits, its class then beats every other; not negative.
    """

    features: NDArray[np.int16]
    thresholds: Floats
    targets: NDArray[np.intp]
    margin: float


@final
@dataclass(frozen=True, eq=False, slots=True)
class ExportHead:
    """A head in its most general form, as plain arrays.

    With φ the feature brought to length one and rounded to 14 bits, the logits are W φ + b, plus
    what the starting head says; then, if a stored picture E_k has cos(φ, E_k) above its threshold,
    the one nearest to φ (the first of equals) lifts the logit of its class to at least the largest
    other one plus the margin.

    Attributes:
        labels: the classes in the order of the output; C of them.
        weights: float [C, d], any calibration multiplied in.
        bias: float [C].
        power: features are first raised to it, sign kept: sgn(f)·|f|ᵖ; 0 < p ≤ 4.
        start: the head that the classifier was adopted with, if it still counts.
        exceptions: if there are any.

    Raises:
        BadOption: if shapes or values do not fit together.

    >>> ExportHead(("cat", "dog"), np.eye(2), np.zeros(2)).dimension
    2
    """

    labels: tuple[str, ...]
    weights: Floats
    bias: Floats
    power: float = 1.0
    start: ExportStart | None = None
    exceptions: ExportExceptions | None = None

    def __post_init__(self) -> None:
        count = len(self.labels)
        if count == 0 or len(set(self.labels)) != count:
            raise BadOption(f"the head to export has {count} labels; they must be some, all unlike")
        if self.weights.ndim != 2 or self.weights.shape[1] == 0:
            raise BadOption(f"weights are {list(self.weights.shape)}, expected [classes, features]")
        _fits("weights", self.weights, (count, self.dimension))
        _fits("bias", self.bias, (count,))
        if not 0.0 < self.power <= 4.0:
            raise BadOption(f"power is {self.power}; it must lie above 0 and at most at 4")
        if self.start is not None:
            old = len(self.start.bias)
            if not 1 <= old <= count:
                raise BadOption(f"the starting head has {old} classes, the whole one {count}")
            _fits("starting weights", self.start.weights, (old, self.dimension))
            _fits("starting bias", self.start.bias, (old,))
        if self.exceptions is not None:
            self._check_exceptions(self.exceptions)

    def _check_exceptions(self, exceptions: ExportExceptions) -> None:
        stored, targets = len(exceptions.features), exceptions.targets
        if exceptions.features.dtype != np.int16:
            raise BadOption(f"exceptions are {exceptions.features.dtype}, expected int16")
        _fits("exceptions", exceptions.features, (stored, self.dimension))
        _fits("thresholds", exceptions.thresholds, (stored,))
        _fits("targets", targets, (stored,))
        if targets.dtype.kind not in "iu" or ((targets < 0) | (targets >= len(self.labels))).any():
            raise BadOption(f"targets must be whole numbers from 0 to {len(self.labels) - 1}")
        if not 0.0 <= exceptions.margin < np.inf:
            raise BadOption(f"margin is {exceptions.margin}; it must be finite, not negative")

    @property
    def dimension(self) -> int:
        """How many numbers a feature has."""
        return int(self.weights.shape[1])

    @property
    def size(self) -> int:
        """About how many bytes it takes in a file."""
        size = 8 * (self.weights.size + self.bias.size)
        if self.start is not None:
            size += 8 * (self.start.weights.size + self.start.bias.size)
        if self.exceptions is not None:
            size += 2 * self.exceptions.features.size + 24 * len(self.exceptions.features)
        return size


def attach(
    graph: Any, features: str, output: str, head: ExportHead, activation: Activation, opset: int
) -> dict[str, list[str]]:
    """Add the nodes of a head to an ONNX graph.

    Args:
        graph: `onnx.GraphProto`, changed in place.
        features: the name of a value [N, d] in it.
        output: what to call the answer, float32 [N, C].
        head: the head.
        activation: what the answer is: ``"softmax"`` probabilities, ``"log_softmax"`` their
            logarithms, ``"sigmoid"`` of each logit by itself, ``"none"`` the logits.
        opset: the graph's operator set, at least 9.

    Returns:
        What its constants are called, by what they are: ``weights`` and ``bias`` in the order of
        the classes, each [d, C′] and [C′]; ``start`` and ``start_bias``; ``targets`` of exceptions.

    Raises:
        BadOption: if there is no such activation.
    """
    if activation not in get_args(Activation):
        raise BadOption(
            f"activation is {activation!r}; use one of {', '.join(get_args(Activation))}"
        )
    nodes = _Nodes(graph, opset)
    fixed, length = _quantized(nodes, features, head.power)
    logits = _scored(nodes, fixed, length, head)
    if head.exceptions is not None and len(head.exceptions.features):
        logits = _excepted(nodes, fixed, logits, head.exceptions, len(head.labels))
    if activation == "softmax":
        logits = nodes.add("Softmax", logits, axis=1)
    elif activation == "log_softmax":
        logits = nodes.add("LogSoftmax", logits, axis=1)
    elif activation == "sigmoid":
        logits = nodes.add("Sigmoid", logits)
    nodes.add("Cast", logits, output=output, to=nodes.FLOAT)
    return nodes.roles


def _quantized(nodes: _Nodes, features: str, power: float) -> tuple[str, str]:
    """φ times 2¹⁴ [N, d], whole numbers; and the length in float32 [N, 1], both as doubles."""
    x = nodes.add("Cast", features, to=nodes.DOUBLE)
    if power != 1.0:
        raised = nodes.add("Pow", nodes.add("Abs", x), nodes.constant(power))
        x = nodes.add("Mul", nodes.add("Sign", x), raised)
        # As the extractor hands it on.
        x = nodes.add("Cast", nodes.add("Cast", x, to=nodes.FLOAT), to=nodes.DOUBLE)
    tiny = nodes.constant(_TINY)
    largest = nodes.add("Max", nodes.reduce("ReduceMax", nodes.add("Abs", x)), tiny)
    x = nodes.add("Div", x, largest)
    length = nodes.add("Sqrt", nodes.reduce("ReduceSum", nodes.add("Mul", x, x)))
    unit = nodes.add("Div", x, nodes.add("Max", length, tiny))
    scaled = nodes.add("Mul", unit, nodes.constant(float(SCALE)))
    whole = nodes.add("Mul", length, largest)
    whole = nodes.add("Min", whole, nodes.constant(float(np.finfo(np.float32).max)))
    single = nodes.add("Cast", whole, to=nodes.FLOAT)
    return nodes.rounded(scaled), nodes.add("Cast", single, to=nodes.DOUBLE)


def _scored(nodes: _Nodes, fixed: str, length: str, head: ExportHead) -> str:
    phi = nodes.add("Mul", fixed, nodes.constant(1.0 / SCALE))
    if head.start is None:
        return nodes.linear(phi, head.weights, head.bias, role="weights")
    old = len(head.start.bias)
    begun = nodes.add("Mul", length, nodes.linear(phi, head.start.weights, role="start"))
    begun = nodes.add("Add", begun, nodes.constant(head.start.bias, "start_bias"))
    first = nodes.linear(phi, head.weights[:old], head.bias[:old], role="weights")
    first = nodes.add("Add", first, begun)
    if old == len(head.labels):
        return first
    rest = nodes.linear(phi, head.weights[old:], head.bias[old:], role="weights")
    return nodes.add("Concat", first, rest, axis=1)


def _excepted(
    nodes: _Nodes, fixed: str, logits: str, exceptions: ExportExceptions, classes: int
) -> str:
    # Dot products of whole numbers are exact, so equal pictures tie here as they do in NumPy.
    stored = exceptions.features.astype(np.float64)
    lengths = np.maximum(np.sqrt((stored * stored).sum(axis=1)), 1.0)
    columns = nodes.constant(np.ascontiguousarray(exceptions.features.T))
    dots = nodes.add("MatMul", fixed, nodes.add("Cast", columns, to=nodes.DOUBLE))
    own = nodes.add("Sqrt", nodes.reduce("ReduceSum", nodes.add("Mul", fixed, fixed)))
    own = nodes.add("Max", own, nodes.constant(1.0))
    cosines = nodes.add("Div", dots, nodes.add("Mul", own, nodes.constant(lengths)))
    near = nodes.add("Greater", cosines, nodes.constant(exceptions.thresholds))
    cosines = nodes.add("Where", near, cosines, nodes.constant(_NONE))
    best = nodes.reduce("ReduceMax", cosines)
    # ArgMax of doubles is younger than opset 9; that of zeros and ones gives the first one too.
    hits = nodes.add("Cast", nodes.add("Not", nodes.add("Less", cosines, best)), to=nodes.FLOAT)
    nearest = nodes.add("ArgMax", hits, axis=1, keepdims=1)
    targets = nodes.constant(exceptions.targets.astype(np.int64), "targets")
    target = nodes.add("Gather", targets, nearest)
    chosen = nodes.add("Equal", target, nodes.constant(np.arange(classes)[None]))
    any_near = nodes.add("Greater", best, nodes.constant(-1.5))
    rivals = nodes.add("Where", chosen, nodes.constant(-np.inf), logits)
    bar = nodes.add("Add", nodes.reduce("ReduceMax", rivals), nodes.constant(exceptions.margin))
    lifted = nodes.add("Max", logits, bar)
    return nodes.add("Where", nodes.add("And", any_near, chosen), lifted, logits)


def _fits(what: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise BadOption(f"{what} to export are {list(array.shape)}, expected {list(shape)}")
    if not np.isfinite(array).all():
        raise BadOption(f"{what} to export are not all finite numbers")


@final
class _Nodes:
    """Adds nodes and constants to a graph, under names of their own."""

    def __init__(self, graph: Any, opset: int) -> None:
        import onnx

        self._onnx = onnx
        self._graph = graph
        self._opset = opset
        self._count = 0
        self.roles: dict[str, list[str]] = {}
        self.FLOAT = onnx.TensorProto.FLOAT
        self.DOUBLE = onnx.TensorProto.DOUBLE
        # An exported file may have been adopted and be exported again.
        names = names_in(graph)
        rounds = 0
        while any(name.startswith(_prefix(rounds)) for name in names):
            rounds += 1
        self._prefix = _prefix(rounds)

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns its name."""
        self._count += 1
        name = f"{self._prefix}{self._count:02}_{kind}"
        node = self._onnx.helper.make_node(kind, inputs, [output or name], name, **attributes)
        self._graph.node.append(node)
        return output or name

    def constant(self, value: float | NDArray[Any], role: str = "") -> str:
        """Add a constant; returns its name."""
        self._count += 1
        name = f"{self._prefix}{self._count:02}_constant"
        array = np.asarray(value, np.float64) if np.isscalar(value) else np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float64)
        self._graph.initializer.append(self._onnx.numpy_helper.from_array(array, name))
        if role:
            self.roles.setdefault(role, []).append(name)
        return name

    def linear(self, x: str, weights: Floats, bias: Floats | None = None, *, role: str) -> str:
        """X Wᵀ (+ b)."""
        product = self.add("MatMul", x, self.constant(np.ascontiguousarray(weights.T), role))
        return product if bias is None else self.add("Add", product, self.constant(bias, "bias"))

    def reduce(self, kind: str, x: str) -> str:
        """Reduce a matrix along its rows; the axis is kept."""
        if self._opset >= (13 if kind == "ReduceSum" else 18):
            return self.add(kind, x, self.constant(np.array([1])), keepdims=1)
        return self.add(kind, x, axes=[1], keepdims=1)

    def rounded(self, x: str) -> str:
        """To whole numbers, half to even, magnitudes below 2⁵¹."""
        if self._opset >= 11:
            return self.add("Round", x)
        shift = self.constant(_ROUNDER)
        return self.add("Sub", self.add("Add", x, shift), shift)


def _prefix(rounds: int) -> str:
    return f"retain{rounds or ''}/"
