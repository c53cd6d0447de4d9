"""A PyTorch classifier as one ONNX file, with answers of its own to compare the file with."""

from __future__ import annotations

import copy
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption, CannotAdopt
from retain.train.backbones import Network
from retain.train.keeping import keep, keep_module
from retain.train.needs import need

__all__ = ["Exported", "export", "export_module", "scores_in", "to_onnx"]

WHAT: Final = "exporting a PyTorch network"
OPSET: Final = 17
NEW_OPSET: Final = 18
"""The lowest that PyTorch's second exporter writes without converting."""

TRACED: Final = 2
PICTURES: Final = 3
"""More than were traced: a file that has the batch built in cannot give these answers."""

LARGEST_SIDE: Final = 4096
DRIFT: Final = 1e-3
"""What a score may change in other company, in parts of the largest score."""

_UNKNOWN: Final[Mapping[str, Any]] = MappingProxyType({"source": "unknown"})


@final
@dataclass(frozen=True, eq=False, slots=True)
class Exported:
    """A whole classifier in ONNX, and what is known about it.

    Attributes:
        onnx: the file: one input float32 [batch, channels, height, width], and scores
            [batch, classes] as the first output; all weights inside.
        labels: of the classes in the order of the scores, if known.
        preprocess: see `Network.preprocess`.
        example: float32 [3, channels, height, width], normally distributed numbers; None where
            the file was made by somebody else and taken as it is.
        outputs: float32 [3, classes], what the PyTorch network answers to `example`; or None.
        notes: what a person should know, in sentences.
        kept: the network's own tensors and how to build it again (see `keeping`), as a safetensors
            file; None where that is not known.
    """

    onnx: bytes
    labels: tuple[str, ...] | None
    preprocess: Mapping[str, Any]
    example: NDArray[np.float32] | None
    outputs: NDArray[np.float32] | None
    notes: tuple[str, ...]
    kept: bytes | None = None


def to_onnx(module: Any, size: int | tuple[int, int], channels: int = 3) -> bytes:
    """The ONNX file of a classifier, `input` → `logits`, for any number of pictures at once.

    Args:
        module: a `torch.nn.Module`; left as it is.
        size: of the input in pixels, one number for both sides or (height, width).
        channels: of the input.

    Raises:
        BadOption: if the size or the number of channels is impossible.
        CannotAdopt: if the module does not give scores [batch, classes] for pictures of this
            size, gives them by chance, or cannot be exported.
        MissingExtra: if PyTorch is not installed.
    """
    return export_module(module, size, channels=channels).onnx


def export(network: Network) -> Exported:
    """A built network as one ONNX file.

    Raises:
        CannotAdopt: see `to_onnx`.
    """
    channels, height, width = network.input_size
    made = export_module(
        network.module,
        (height, width),
        channels=channels,
        labels=network.labels,
        preprocess=network.preprocess,
        notes=network.notes,
    )
    return replace(made, kept=keep(network))


def export_module(
    module: Any,
    size: int | tuple[int, int],
    *,
    channels: int = 3,
    labels: Sequence[str] | None = None,
    preprocess: Mapping[str, Any] = _UNKNOWN,
    notes: Sequence[str] = (),
) -> Exported:
    """Somebody's own network as one ONNX file, with what is known about it.

    Args:
        module: a `torch.nn.Module`; left as it is, in its mode and on its device.
        size: of the input in pixels, one number for both sides or (height, width).
        channels: of the input.
        labels: of the classes in the order of the scores.
        preprocess: how pictures are prepared; see `Network.preprocess`.
        notes: what a person should know.

    Raises:
        BadOption: if the size is impossible, or the labels are not as many as the scores.
        CannotAdopt: see `to_onnx`.
        MissingExtra: if PyTorch is not installed.
    """
    torch = need("torch", WHAT)
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    if not all(1 <= side <= LARGEST_SIDE for side in (height, width)) or channels < 1:
        raise BadOption(
            f"an input of {channels} channels and {height}×{width} pixels cannot be; give the "
            f"size that the network was trained at"
        )
    if not isinstance(module, torch.nn.Module):
        raise BadOption(
            f"what was given is of the type {type(module).__name__}, not a torch.nn.Module; give "
            f"the network itself, or the name of one and its weights"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise BadOption(
            "a TorchScript program was given; give the network in Python that it was made from, "
            "or export it by hand with torch.onnx.export and adopt the file"
        )
    shape = (PICTURES, channels, height, width)
    example: NDArray[np.float32] = np.random.default_rng(0).standard_normal(shape, np.float32)
    module = _bare(module)
    twin = _twin(torch, module)
    outputs = _answers(torch, twin, torch.from_numpy(example))
    if labels is not None and len(labels) != outputs.shape[1]:
        raise BadOption(
            f"{len(labels)} labels were given for {outputs.shape[1]} scores; give one for each "
            f"score, in their order"
        )
    graph, more = _graph(torch, twin, torch.from_numpy(example), outputs)
    named = None if labels is None else tuple(labels)
    kept = keep_module(module, outputs.shape[1])
    return Exported(graph, named, dict(preprocess), example, outputs, (*notes, *more), kept)


def _bare(module: Any) -> Any:
    """A network without what was put around it."""
    wrappers = {"OptimizedModule": "_orig_mod"}
    wrappers |= dict.fromkeys(("DataParallel", "DistributedDataParallel"), "module")
    while type(module).__name__ in wrappers:
        module = getattr(module, wrappers[type(module).__name__])
    return module


def _twin(torch: Any, module: Any) -> Any:
    """A copy on the CPU in float32 and evaluation mode that answers with scores alone."""
    try:
        inner = copy.deepcopy(module)
    except Exception as error:  # modules are anybody's code
        raise CannotAdopt(
            f"the network {type(module).__name__} cannot be copied ({error}); give one that has "
            f"not been run yet, with its weights loaded"
        ) from error

    class Scores(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, pixels: Any) -> Any:
            return scores_in(torch, self.inner(pixels))

    return Scores().to("cpu", torch.float32).eval()


def scores_in(torch: Any, answer: Any) -> Any:
    """The scores in whatever a network answers; `torch` is PyTorch."""
    if isinstance(answer, Mapping):
        answer = answer.get("logits", answer)
    elif hasattr(answer, "logits"):
        answer = answer.logits
    elif isinstance(answer, tuple | list) and answer:
        answer = answer[0]
    if torch.is_tensor(answer) and answer.ndim == 4 and tuple(answer.shape[2:]) == (1, 1):
        return answer.flatten(1)
    return answer


def _answers(torch: Any, twin: Any, pictures: Any) -> NDArray[np.float32]:
    size = "×".join(map(str, pictures.shape[1:]))
    try:
        with torch.no_grad():
            found, alone = twin(pictures), twin(pictures[:1])
    except Exception as error:  # modules are anybody's code
        raise CannotAdopt(
            f"the network fails on pictures of {size} numbers ({_line(error)}); give the size and "
            f"the channels that it was trained with"
        ) from error
    if not torch.is_tensor(found) or found.ndim != 2 or found.shape[0] != pictures.shape[0]:
        what = tuple(found.shape) if torch.is_tensor(found) else f"a {type(found).__name__}"
        raise CannotAdopt(
            f"the network answers {pictures.shape[0]} pictures with {what}, not with scores "
            f"[{pictures.shape[0]}, classes]; give the classifier with its last layer, and "
            f"nothing behind it"
        )
    if not bool(torch.isfinite(found).all()):
        raise CannotAdopt(
            "the network answers random numbers with scores that are not finite; its weights "
            "may be damaged"
        )
    worst = float((found[:1] - alone).abs().max())
    result: NDArray[np.float32] = found.numpy()
    if worst > DRIFT * _scale(result):
        raise CannotAdopt(
            f"the network's scores for one picture changed by {worst:.3g} in the company of "
            f"others: even in evaluation mode it uses chance (dropout) or the batch "
            f"(normalisation); switch that off in its code"
        )
    return result


def _scale(scores: NDArray[np.float32]) -> float:
    return max(1.0, float(np.abs(scores).max()))


def _line(error: Exception) -> str:
    """The first line of an error, or of its first cause: what is above is often a form letter."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = next((each for each in str(error).split("\n") if each.strip()), "")
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()[:200] or type(error).__name__


def _graph(
    torch: Any, twin: Any, pictures: Any, wanted: NDArray[np.float32]
) -> tuple[bytes, tuple[str, ...]]:
    """The ONNX file, by the first of two exporters that manages, and what to say about it."""
    ways: tuple[tuple[str, Callable[[], bytes]], ...] = (
        ("tracing", lambda: _by_tracing(torch, twin, pictures, wanted)),
        ("torch.export", lambda: _by_program(torch, twin, pictures)),
    )
    failures: list[str] = []
    for title, way in ways:
        try:
            with warnings.catch_warnings(), _plain_attention(torch):
                # They speak of the exporter's future and of shapes, which are fixed here.
                warnings.simplefilter("ignore")
                graph = way()
        except Exception as error:  # noqa: BLE001 - the two exporters fail in many ways
            failures.append(f"{title}: {_line(error)}")
            continue
        note = f"PyTorch wrote the ONNX file by {title}, after {failures[0]}" if failures else ""
        return graph, (note,) if note else ()
    raise CannotAdopt(
        f"PyTorch cannot export the network to ONNX ({'; '.join(failures)}); export it by hand "
        f"with torch.onnx.export and adopt the file"
    )


@contextmanager
def _plain_attention(torch: Any) -> Iterator[None]:
    """Keeps attention from a kernel of PyTorch's own that ONNX has no word for."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _by_tracing(torch: Any, twin: Any, pictures: Any, wanted: NDArray[np.float32]) -> bytes:
    with torch.no_grad():
        # A trace keeps what was decided in Python, such as the number of pictures, as it was.
        found = torch.jit.trace(twin, pictures[:TRACED], check_trace=False)(pictures).numpy()
    if found.shape != wanted.shape or np.abs(found - wanted).max() > DRIFT * _scale(wanted):
        raise ValueError("the network decides something by its input that a trace cannot follow")
    # Where it fails, PyTorch prints the whole graph to standard output, whatever `verbose` says;
    # what reads our output must not meet it there.
    direct = getattr(torch._C, "_jit_set_onnx_log_output_stream", None)
    if direct is not None:
        direct("stderr")
    file = io.BytesIO()
    torch.onnx.export(
        twin,
        (pictures[:TRACED],),
        file,
        opset_version=OPSET,
        dynamo=False,
        verbose=False,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
    )
    return file.getvalue()


def _by_program(torch: Any, twin: Any, pictures: Any) -> bytes:
    program = torch.onnx.export(
        twin,
        (pictures[:TRACED],),
        opset_version=NEW_OPSET,
        dynamo=True,
        verbose=False,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    batch = program.model_proto.graph.input[0].type.tensor_type.shape.dim[0]
    if batch.dim_value:
        raise ValueError(f"only {batch.dim_value} pictures at once would be possible")
    graph: bytes = program.model_proto.SerializeToString()
    return graph
