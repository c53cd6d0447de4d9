"""How a graph wants its picture: axes, size, channels, type; and a graph that takes it so.

Networks differ in more than preprocessing: classifiers of scikit-learn take flat vectors, some
exports have no batch axis, some a batch of fixed size. Each gets a few operators in front, so that
every one takes one picture [1, C, H, W] or [1, H, W, C].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, final

import numpy as np

from retain.errors import CannotAdopt
from retain.vision.graphs import names_in
from retain.vision.lookup import Lookup, attributes
from retain.vision.preprocess import InputType, Layout

__all__ = ["Inlet", "adapted", "find_inlet"]

Axes = Literal["batch", "picture", "flat"]

DTYPES: Final[Mapping[int, str]] = {
    1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 10: "float16",
    11: "float64",
}  # fmt: skip
"""Element types of ONNX that pixels can be brought to."""


@final
@dataclass(frozen=True, slots=True)
class Inlet:
    """The one input of a graph.

    Attributes:
        name: of the original input.
        dtype: of the original input, as NumPy calls it.
        shape: of the original input; None for what is not fixed.
        layout: order of the axes of the picture; None if the graph does not tell.
        height: in pixels; None if not fixed.
        width: in pixels; None if not fixed.
        channels: 1 or 3; None if the graph does not tell.
        batch: how many pictures it takes at once; None if any number.
        form: ``"batch"`` for four axes, ``"picture"`` for three or two, ``"flat"`` for vectors.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    layout: Layout | None
    height: int | None
    width: int | None
    channels: int | None
    batch: int | None
    form: Axes

    @property
    def fed(self) -> InputType:
        """The type in which pictures are prepared; others are cast inside the graph."""
        if self.dtype in ("float16", "uint8"):
            return self.dtype  # type: ignore[return-value]
        return "float32"

    @property
    def guess(self) -> tuple[int, int, int] | None:
        """Height, width and channels of the one square picture that fills a flat vector."""
        numbers = self.shape[1] if self.form == "flat" else None
        for channels in (1, 3):
            side = math.isqrt((numbers or 0) // channels)
            if numbers and side * side * channels == numbers:
                return side, side, channels
        return None

    def sized(self, height: int, width: int, channels: int, layout: Layout) -> Inlet:
        """Itself with everything settled.

        Raises:
            CannotAdopt: if that is not what the graph takes.
        """
        wanted = (height, width, channels, layout)
        mine = (self.height, self.width, self.channels, self.layout)
        names = ("pixels high", "pixels wide", "channels", "layout")
        for name, own, given in zip(names, mine, wanted, strict=True):
            if own is not None and own != given:
                raise CannotAdopt(
                    f"its input {self.name!r} takes {self._words()}, {name}: {own}, but the "
                    f"preprocessing gives {given}; leave it out or give {own}"
                )
        if self.form == "flat" and height * width * channels != self.shape[-1]:
            raise CannotAdopt(
                f"its input {self.name!r} takes {self.shape[-1]:,} numbers, but pictures of "
                f"{height}×{width} with {channels} channels have {height * width * channels:,}; "
                f"give the height, width and colour it was trained with"
            )
        return replace(self, height=height, width=width, channels=channels, layout=layout)

    def _words(self) -> str:
        return f"{self.dtype} {['any' if n is None else n for n in self.shape]}"


def find_inlet(lookup: Lookup, read: Set[str]) -> Inlet:
    """The input of a graph that is among some values.

    Raises:
        CannotAdopt: if it is not exactly one input that can take a picture.
    """
    found = [each for name, each in lookup.inputs.items() if name in read]
    if len(found) != 1:
        names = ", ".join(each.name for each in found)
        raise CannotAdopt(
            f"it computes its answer from {len(found)} inputs ({names or 'none'}); only networks "
            f"that take pictures alone can be adopted: export it with the others fixed"
        )
    name, kind = found[0].name, found[0].type.tensor_type
    if not found[0].type.HasField("tensor_type") or kind.elem_type not in DTYPES:
        raise CannotAdopt(
            f"its input {name!r} does not take numbers; export it to take float32 pixels"
        )
    dtype = DTYPES[kind.elem_type]
    if not kind.HasField("shape"):
        return _of_picture(lookup, Inlet(name, dtype, (), None, None, None, None, None, "batch"))
    shape = tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim)
    bare = Inlet(name, dtype, shape, None, None, None, None, None, "batch")
    if len(shape) == 4:
        return _of_picture(lookup, replace(bare, batch=shape[0]))
    if len(shape) == 3:
        return _of_three(bare)
    if len(shape) == 2 and shape[0] == shape[1] and shape[0] not in (None, 1):
        return replace(bare, layout="NCHW", channels=1, height=shape[0], width=shape[1], batch=1,
                       form="picture")  # fmt: skip
    if len(shape) == 2 and shape[1] is not None:
        return replace(bare, batch=shape[0], form="flat")
    raise CannotAdopt(
        f"its input {name!r} takes {bare._words()}, which is no picture; export it to take "
        f"[N, channels, height, width] or [N, height, width, channels]"
    )


def _of_picture(lookup: Lookup, inlet: Inlet) -> Inlet:
    """Four axes, of which one is the channels."""
    shape = inlet.shape or (None,) * 4
    layout, channels = _first_use(lookup, inlet.name)
    if layout is None:
        fits = [at for at in (1, 3) if shape[at] in (1, 3)]
        if len(fits) == 1:
            layout = "NCHW" if fits[0] == 1 else "NHWC"
    if layout is None and None not in (shape[1], shape[3]):
        layout = "NCHW"  # said to have too many channels below, or symmetric
    if layout is None:
        return inlet
    axes = (1, 2, 3) if layout == "NCHW" else (3, 1, 2)
    found, height, width = (shape[axis] for axis in axes)
    found = found or channels
    if found not in (None, 1, 3):
        raise CannotAdopt(
            f"its input {inlet.name!r} takes {inlet._words()}: {found} channels, but pictures "
            f"have 3, or 1 in grey"
        )
    return replace(inlet, layout=layout, channels=found, height=height, width=width)


def _of_three(inlet: Inlet) -> Inlet:
    """Three axes: no batch, or no channels."""
    first, second, third = inlet.shape
    if first == 3 and third != 3:
        return replace(inlet, layout="NCHW", channels=3, height=second, width=third, batch=1,
                       form="picture")  # fmt: skip
    if third in (1, 3):
        return replace(inlet, layout="NHWC", channels=third, height=first, width=second, batch=1,
                       form="picture")  # fmt: skip
    return replace(inlet, layout="NCHW", channels=1, height=second, width=third, batch=first,
                   form="picture")  # fmt: skip


def _first_use(lookup: Lookup, name: str) -> tuple[Layout | None, int | None]:
    """The layout and channels that the first convolution or transposition after an input tells."""
    value = name
    for _ in range(12):
        users = lookup.readers(value)
        if not users:
            break
        node = users[0]
        if node.op_type == "Conv":
            kernel = lookup.constants.get(node.input[1])
            told = attributes(node)
            sizes = list(getattr(kernel, "dims", ()))
            return "NCHW", sizes[1] * told.get("group", 1) if len(sizes) == 4 else None
        if node.op_type == "Transpose":
            turned = attributes(node).get("perm") == [0, 3, 1, 2]
            return ("NHWC" if turned else None), None
        if node.op_type not in {"Cast", "Identity", "Add", "Sub", "Mul", "Div", "Pad", "Clip"}:
            break
        value = node.output[0]
    return None, None


# -- what is put in front ----------------------------------------------------------------------


def adapted(lookup: Lookup, inlet: Inlet, repeat: int) -> tuple[Any, list[Any], list[Any]]:
    """What brings one picture to the original input.

    Args:
        lookup: the original graph.
        inlet: its input, settled (`Inlet.sized`) unless the graph itself tells everything.
        repeat: how many copies of the picture the original is fed.

    Returns:
        The `ValueInfoProto` of the new input, nodes from it to the original input, and the
        initializers these read.
    """
    from onnx import TensorProto, helper, numpy_helper

    codes = {name: code for code, name in DTYPES.items()}
    fed = codes[inlet.fed]
    assert inlet.layout is not None or inlet.height is None
    sides = [inlet.height or "height", inlet.width or "width"]
    channels: int | str = inlet.channels or "channels"
    axes = [channels, *sides] if inlet.layout != "NHWC" else [*sides, channels]
    taken = names_in(lookup.model.graph)
    names = (name for i in range(10**6) if (name := f"retain_{i}") not in taken)
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    constants: list[TensorProto] = []
    if fed != codes[inlet.dtype]:
        steps.append(("Cast", [], {"to": codes[inlet.dtype]}))
    if inlet.form == "flat":
        steps.append(("Flatten", [], {"axis": 1}))
    elif inlet.form == "picture":
        if None in inlet.shape[-2:] or lookup.opset < 5:
            raise CannotAdopt(
                f"its input {inlet.name!r} takes {inlet._words()}; export it to take "
                f"[N, channels, height, width] with fixed height and width"
            )
        batched = inlet.channels == 1 and len(inlet.shape) == 3 and inlet.shape[2] != 1
        shape = [-1 if batched else inlet.shape[0], *inlet.shape[1:]]
        constants.append(numpy_helper.from_array(np.array(shape, np.int64), next(names)))
        steps.append(("Reshape", [constants[-1].name], {}))
    if repeat > 1:
        steps.append(("Concat", ["same"] * (repeat - 1), {"axis": 0}))
    batch: int | str = "batch" if repeat == 1 and inlet.batch != 1 else 1
    value = next(names) if steps else inlet.name
    entry = helper.make_tensor_value_info(value, fed, [batch, *axes])
    nodes = []
    for number, (kind, more, told) in enumerate(steps):
        last = number == len(steps) - 1
        result = inlet.name if last else next(names)
        more = [value if name == "same" else name for name in more]
        nodes.append(helper.make_node(kind, [value, *more], [result], **told))
        value = result
    return entry, nodes, constants
