"""Finding a classifier's last linear map by walking back from its output.

What may follow the map: a softmax, log-softmax or sigmoid; scaling and shifting by constants,
which are folded into it; and operators that only rearrange or pass on. Anything else ends the
search in words. That what was found *is* what the output computes is checked later, in numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, final, get_args

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption, CannotAdopt
from retain.vision.lookup import Lookup, attributes, describe, tail

__all__ = ["Activation", "LinearMap", "activated", "last_linear_map"]

Activation = Literal["none", "softmax", "log_softmax", "sigmoid"]

_PASSED = frozenset(
    {"Identity", "Dropout", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"}
)
_ACTIVATIONS: dict[str, Activation] = {
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
}
_ML_ACTIVATIONS: dict[bytes, Activation] = {
    b"NONE": "none",
    b"SOFTMAX": "softmax",
    b"LOGISTIC": "sigmoid",
}
_ADVICE = (
    "export the network so that its output is the last Linear or Dense layer, "
    "or its softmax or sigmoid"
)


@final
@dataclass(frozen=True, eq=False, slots=True)
class LinearMap:
    """The last linear map of a graph, and what follows it.

    Attributes:
        output: the output it was found from.
        compared: the tensor whose values the recomposed classifier must give.
        scores: the tensor before the activation; None if the map's operator holds both.
        feature: the value that enters the map.
        weights: float64 [C, d].
        bias: float64 [C].
        activation: what turns its scores into the output.
        single: whether the original gives one number for two classes, the second's probability.
        halved: whether a sigmoid was turned into a softmax of half the scores.
        half: whether the map or what follows it is computed in 16 bits.
        labels: the classes' names, where the operator itself carries them.
        found: in words.
        unit: float64 [C, d], of a file that retain wrote: the scores of a feature x are those of
            `weights` and `bias`, plus `unit` times x brought to length one, all after x was raised
            to `power` and rounded as retain does; None for any other file.
        power: see `unit`.
    """

    output: str
    compared: str
    scores: str | None
    feature: str
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    activation: Activation
    single: bool
    halved: bool
    half: bool
    labels: tuple[str, ...]
    found: str
    unit: NDArray[np.float64] | None = None
    power: float = 1.0


def activated(scores: NDArray[np.float64], activation: Activation) -> NDArray[np.float64]:
    """The outputs for some scores.

    Args:
        scores: float64 [..., C].
        activation: what to apply along the last axis.

    >>> activated(np.zeros((1, 4)), "softmax").tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    if activation == "none":
        return scores
    if activation == "sigmoid":
        # By tanh, because exp(-x) overflows for the scores of a sure classifier.
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * scores))
    shifted = scores - scores.max(axis=-1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.asarray(logarithms if activation == "log_softmax" else np.exp(logarithms))


def last_linear_map(lookup: Lookup, output: str | None = None) -> LinearMap:
    """The last linear map before an output; before the only one that has any, if none is named.

    Raises:
        BadOption: if there is no output of that name.
        CannotAdopt: if there is no such map, or several outputs have different ones.
    """
    names = [each.name for each in lookup.model.graph.output]
    if output is not None and output not in names:
        raise BadOption(f"the model has no output {output!r}; it has {', '.join(names)}")
    found: list[LinearMap] = []
    reasons: list[str] = []
    for name in names if output is None else [output]:
        try:
            found.append(_walk(lookup, name))
        except _NotLinearError as error:
            reasons.append(f"the output {name!r} ends in {tail(lookup, name)}: {error}")
    if not found:
        raise CannotAdopt(f"no linear map was found; {'; '.join(reasons)}. What to do: {_ADVICE}")
    if len({each.feature for each in found}) > 1:
        named = "; ".join(f"{each.output!r} is {each.found}" for each in found)
        raise CannotAdopt(f"several outputs have linear maps of their own; name one: {named}")
    # Of one map's outputs, the one that says what the scores mean.
    best = ("softmax", "sigmoid", "log_softmax", "none").index
    return min(found, key=lambda each: best(each.activation))


class _NotLinearError(Exception):
    """Why a walk back from an output found no linear map."""


@dataclass(frozen=True, slots=True)
class _After:
    """What follows a value on the way to the output: y = activation(scale · x + shift)."""

    compared: str
    scores: str | None
    words: tuple[str, ...] = ()
    scale: Any = 1.0
    shift: Any = 0.0
    activation: Activation = "none"
    log: bool = False
    normalised: bool = False
    half: bool = False

    @property
    def plain(self) -> bool:
        """Whether nothing but rearranging was met."""
        return (self.activation, self.log, self.normalised) == ("none", False, False) and (
            np.ndim(self.scale) == 0 and self.scale == 1 and not np.any(self.shift)
        )


def _walk(lookup: Lookup, output: str) -> LinearMap:
    value, after = output, _After(output, output)
    while True:
        node = lookup.producers.get(value)
        if node is None:
            raise _NotLinearError("it leads back to the input without one")
        kind = node.op_type
        # A LinearClassifier gives the label first; of all others the first is what matters.
        if value != node.output[1 if kind == "LinearClassifier" and len(node.output) > 1 else 0]:
            raise _NotLinearError(f"it is not the scores of {describe(node)}")
        if kind in _PASSED:
            _check_passed(lookup, node)
            half = after.half or (kind == "Cast" and attributes(node).get("to") in (10, 16))
            value, after = node.input[0], replace(after, half=half)
        elif kind == "ZipMap" and after.plain:
            # Its output is no tensor; what enters it is.
            value, after = (
                node.input[0],
                replace(after, compared=node.input[0], scores=node.input[0]),
            )
        elif kind == "Normalizer" and after.plain:
            if attributes(node).get("norm") != b"L1":
                raise _NotLinearError("its Normalizer does not make probabilities")
            value, after = node.input[0], replace(after, normalised=True)
        elif kind == "Log" and after.plain:
            value, after = node.input[0], replace(after, log=True)
        elif kind in _ACTIVATIONS:
            value, after = node.input[0], _activate(after, _ACTIVATIONS[kind], node)
        elif kind in {"Add", "Sub", "Mul", "Div"}:
            value, after = _affine(lookup, node, after)
        elif kind == "BatchNormalization":
            value, after = _batch_norm(lookup, node, after)
        elif kind in _MAPS:
            return _finish(output, node, after, *_MAPS[kind](lookup, node))
        else:
            raise _NotLinearError(f"{describe(node)} is neither linear nor a softmax or sigmoid")


def _check_passed(lookup: Lookup, node: Any) -> None:
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        training = lookup.constant(node.input[2])
        if training is None or training.any():
            raise _NotLinearError(f"{describe(node)} is in training mode")
    if node.op_type == "Cast" and attributes(node).get("to") not in (1, 10, 11, 16, b"FLOAT"):
        raise _NotLinearError(f"{describe(node)} rounds to whole numbers")


def _activate(after: _After, activation: Activation, node: Any) -> _After:
    ready = replace(after, log=False, normalised=False)
    if not ready.plain or (after.log and activation != "softmax"):
        raise _NotLinearError(f"something more than one activation follows {describe(node)}")
    kind: Activation = "log_softmax" if after.log else activation
    return replace(after, activation=kind, log=False, scores=node.input[0])


def _affine(lookup: Lookup, node: Any, after: _After) -> tuple[str, _After]:
    """One operand constant: y = s·f(x) + t is s'·x + t'."""
    if after.log or after.normalised:
        raise _NotLinearError(f"{describe(node)} stands where a softmax should")
    right, left = lookup.constant(node.input[1]), None
    if right is None:
        left = lookup.constant(node.input[0])
    constant = left if right is None else right
    if constant is None:
        raise _NotLinearError(f"{describe(node)} joins two computed values")
    if left is not None and node.op_type == "Div":
        raise _NotLinearError(f"{describe(node)} divides by a computed value")
    c = constant.astype(np.float64).reshape(-1)
    try:
        scale, shift = after.scale, after.shift
        if node.op_type == "Add":
            shift = shift + scale * c
        elif node.op_type == "Sub":
            shift = shift + (-c if left is None else c) * scale
            scale = scale if left is None else -scale
        else:
            scale = scale * c if node.op_type == "Mul" else scale / c
    except ValueError:
        raise _NotLinearError(f"the constant of {describe(node)} is not one per class") from None
    half = after.half or constant.dtype.itemsize == 2
    words = (node.op_type, *after.words)
    value = node.input[0 if left is None else 1]
    return value, replace(after, scale=scale, shift=shift, half=half, words=words)


def _batch_norm(lookup: Lookup, node: Any, after: _After) -> tuple[str, _After]:
    constants = [lookup.constant(name) for name in node.input[1:5]]
    told = attributes(node)
    if len(constants) != 4 or any(c is None for c in constants) or told.get("training_mode"):
        raise _NotLinearError(f"{describe(node)} is in training mode")
    gain, offset, mean, variance = (np.asarray(c, np.float64).reshape(-1) for c in constants)
    slope = gain / np.sqrt(variance + told.get("epsilon", 1e-5))
    scale, shift = after.scale * slope, after.shift + after.scale * (offset - mean * slope)
    words = (node.op_type, *after.words)
    return node.input[0], replace(after, scale=scale, shift=shift, words=words)


# -- the maps: the value that enters, weights [C, d], bias ------------------------------------


def _weights(lookup: Lookup, node: Any, position: int) -> NDArray[Any]:
    weights = lookup.constant(node.input[position])
    if weights is None:
        raise _NotLinearError(f"{describe(node)} multiplies two computed values")
    if weights.dtype.kind not in "fV" and weights.dtype.name != "bfloat16":
        raise _NotLinearError(f"the weights of {describe(node)} are {weights.dtype}, not real")
    return weights


def _bias(lookup: Lookup, node: Any) -> NDArray[Any] | None:
    if len(node.input) < 3 or not node.input[2]:
        return None
    bias = lookup.constant(node.input[2])
    if bias is None:
        raise _NotLinearError(f"the bias of {describe(node)} is computed from the picture")
    return bias


def _gemm(lookup: Lookup, node: Any) -> Any:
    told = attributes(node)
    if told.get("transA"):
        raise _NotLinearError(f"{describe(node)} turns its input round (transA)")
    matrix = _weights(lookup, node, 1)
    weights = told.get("alpha", 1.0) * (matrix if told.get("transB") else matrix.T).astype(float)
    bias = _bias(lookup, node)
    shift = None if bias is None else told.get("beta", 1.0) * bias.astype(float)
    return node.input[0], weights, shift, matrix.dtype.itemsize == 2, (), "none"


def _matmul(lookup: Lookup, node: Any) -> Any:
    told = attributes(node)
    if any(told.get(each) for each in ("transA", "transBatchA", "transBatchB")):
        raise _NotLinearError(f"{describe(node)} turns its input round")
    matrix = _weights(lookup, node, 1)
    half = matrix.dtype.itemsize == 2
    while matrix.ndim > 2 and matrix.shape[0] == 1:
        matrix = matrix[0]
    if matrix.ndim != 2:
        raise _NotLinearError(f"the weights of {describe(node)} are {list(matrix.shape)}")
    weights = (matrix if told.get("transB") else matrix.T).astype(float)
    return node.input[0], told.get("alpha", 1.0) * weights, None, half, (), "none"


def _conv(lookup: Lookup, node: Any) -> Any:
    """A convolution as large as its input is a linear map of it; that it is, is checked later."""
    told = attributes(node)
    kernel = _weights(lookup, node, 1)
    alone = kernel[0, 0].size == 1
    padded = any(told.get("pads", ())) or told.get("auto_pad", b"NOTSET") not in (
        (b"NOTSET", b"VALID", b"SAME_UPPER", b"SAME_LOWER") if alone else (b"NOTSET", b"VALID")
    )
    if told.get("group", 1) != 1 or padded or any(d != 1 for d in told.get("dilations", ())):
        raise _NotLinearError(f"{describe(node)} is a convolution in groups, padded or dilated")
    half = kernel.dtype.itemsize == 2
    weights = kernel.reshape(len(kernel), -1).astype(float)
    return node.input[0], weights, _bias(lookup, node), half, (), "none"


def _linear_classifier(lookup: Lookup, node: Any) -> Any:
    told = attributes(node)
    activation = _ML_ACTIVATIONS.get(told.get("post_transform", b"NONE"))
    if activation is None:
        raise _NotLinearError(f"{describe(node)} ends in {told['post_transform'].decode()}")
    names = told.get("classlabels_strings") or told.get("classlabels_ints") or []
    labels = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names)
    bias = np.array(told.get("intercepts", [0.0]), np.float64)
    weights = np.array(told["coefficients"], np.float64).reshape(len(bias), -1)
    if len(bias) == 1 and len(labels) == 2:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    return node.input[0], weights, bias, False, labels, activation


_MAPS = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "FusedMatMul": _matmul,
    "Conv": _conv,
    "LinearClassifier": _linear_classifier,
}


def _finish(
    output: str,
    node: Any,
    after: _After,
    feature: str,
    weights: NDArray[np.float64],
    bias: NDArray[Any] | None,
    half: bool,
    labels: tuple[str, ...],
    own: Activation,
) -> LinearMap:
    """Fold in what follows, and settle what the scores mean."""
    if own != "none":
        ready = replace(after, normalised=False)
        if not ready.plain:
            raise _NotLinearError(f"something more follows {describe(node)}")
        after = replace(after, activation=own, scores=None)
    if after.log:
        raise _NotLinearError("a logarithm follows that is not of a softmax")
    classes = len(weights)
    try:
        shift = np.zeros(classes) if bias is None else np.array(bias, np.float64).reshape(-1)
        shift = np.broadcast_to(shift, classes)
        scale = np.broadcast_to(after.scale, classes)
        shift = scale * shift + np.broadcast_to(after.shift, classes)
    except ValueError:
        raise _NotLinearError(
            f"{describe(node)} has {classes} outputs, not one constant each"
        ) from None
    weights = weights * scale[:, None]
    activation, single, halved = after.activation, False, False
    if activation == "sigmoid" and classes == 1:
        # One probability p for two classes is softmax([-z/2, z/2]) = [1 - p, p].
        weights, shift = np.concatenate([-weights, weights]), np.concatenate([-shift, shift])
        single = True
    mirrored = len(weights) == 2 and np.array_equal(weights[0], -weights[1])
    if activation == "sigmoid" and mirrored and shift[0] == -shift[1]:
        weights, shift, activation, halved = weights / 2, shift / 2, "softmax", True
    if after.normalised and activation != "softmax":
        raise _NotLinearError("its scores are divided by their sum, as one-versus-rest has it")
    if len(weights) < 2:
        raise _NotLinearError(f"{describe(node)} gives one number, which is no choice of classes")
    if not (np.isfinite(weights).all() and np.isfinite(shift).all()):
        raise _NotLinearError(f"the weights of {describe(node)} are not all finite")
    assert activation in get_args(Activation)
    last = () if after.activation == "none" else (after.activation,)
    then = " then ".join([*after.words, *last])
    shape = f"{weights.shape[1]:,} features → {classes:,} output{'s' * (classes != 1)}"
    found = f"{describe(node)}, {shape}" + (f", then {then}" if then else "")
    return LinearMap(
        output,
        after.compared,
        after.scores,
        feature,
        np.ascontiguousarray(weights),
        np.ascontiguousarray(shift),
        activation,
        single,
        halved,
        half or after.half,
        labels,
        found,
    )
