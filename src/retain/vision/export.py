"""A classifier as one ONNX file: feature graph, head and calibrated probabilities.

The file needs no line of ours to run; labels and preprocessing ride along as metadata. It is
written whole or not at all, and whoever writes one holds it against the classifier with `parity`
before handing it out.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retain.algebra.calibrate import softmax
from retain.errors import AlreadyExists, BadOption, Damaged, DiskFull, ReadOnly, StoreError
from retain.vision.graphs import graph_path, load_graph, modernise, pictures_input, rename, unused
from retain.vision.headgraph import Activation, ExportHead, attach
from retain.vision.images import decode
from retain.vision.preprocess import Preprocess, prepare

__all__ = [
    "Exported",
    "Parity",
    "compared",
    "export_onnx",
    "parity",
    "read_exported",
    "write_export",
]

WORST_DIFFERENCE: Final = 1e-4
"""What a probability of an exported file may be away from the classifier's own."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an exported file says about itself.

    Attributes:
        labels: the classes in the order of its output.
        preprocess: how its input is prepared.
        activation: what its output is; see `headgraph.attach`.
        features: the name of the value inside that is the feature vector, float [N, d]; cut
            there, the graph is the extractor again.
        digest: of the classifier it was made from; may be empty.
        version: of the retain that wrote it.
    """

    labels: tuple[str, ...]
    preprocess: Preprocess
    activation: Activation
    features: str
    digest: str
    version: str


@dataclass(frozen=True, slots=True)
class Parity:
    """How an exported file compares with its classifier.

    Attributes:
        n: how many pictures were compared.
        worst_probability_difference: the largest difference of any probability, 0 to 1; infinite
            where the file answers with something else than finite numbers.
        labels_equal: for how many pictures the label is the same.
        disagreements: number of the picture, the classifier's label, the file's label.
    """

    n: int
    worst_probability_difference: float
    labels_equal: int
    disagreements: tuple[tuple[int, str, str], ...]

    @property
    def holds(self) -> bool:
        """Whether every label is the same and no probability is off by more than 10⁻⁴.

        >>> Parity(2, 3e-8, 2, ()).holds
        True
        """
        close = self.worst_probability_difference <= WORST_DIFFERENCE
        return self.n > 0 and close and self.labels_equal == self.n


def export_onnx(
    extractor: str | Path,
    head: ExportHead,
    rule: Preprocess,
    target: str | Path,
    *,
    output_name: str = "probabilities",
    activation: Activation = "softmax",
    digest: str = "",
    overwrite: bool = False,
) -> Path:
    """Write a feature graph and a head as one ONNX file.

    The input keeps the name, type and layout it has in the feature graph, so with the output's
    name and activation of the original the file drops into the place of a classifier that was
    adopted. The batch is as large as the feature graph allows.

    Args:
        extractor: the directory of an extractor, or its graph.
        head: the head, [N, d] → [N, C].
        rule: how pictures are prepared; kept in the metadata.
        target: the file to write; its folder must exist.
        output_name: of the answer, float32 [N, C].
        activation: what the answer is: ``"softmax"``, ``"log_softmax"``, ``"sigmoid"`` or
            ``"none"`` (logits).
        digest: of the state the head comes from; kept in the metadata.
        overwrite: whether a file that is there may be replaced.

    Returns:
        The file.

    Raises:
        BadOption: if the parts do not fit together, or the target is impossible.
        Refused: if the file would be larger than ONNX allows.
        AlreadyExists: if the file is there and `overwrite` is not set.
        Damaged: if the feature graph cannot be read.
        DiskFull: if there is no room; nothing is left behind.
        ReadOnly: if the folder cannot be written.
    """
    source, target = graph_path(Path(extractor)), Path(target)
    with _translated(target):
        _check_target(target, source, overwrite)
    model = load_graph(source, head.size)
    opset = modernise(model, source)
    features = _opened(model.graph, source, head, output_name)
    parts = attach(model.graph, features, output_name, head, activation, opset)
    own = {"activation": activation, "features": features, "digest": digest}
    own["head"] = json.dumps({"power": head.power, **parts})
    _describe(model, head.labels, rule, own)
    data = _checked(model, source)
    return write_export(target, data, overwrite=overwrite)


def write_export(target: str | Path, data: bytes, *, overwrite: bool = False) -> Path:
    """Write an exported file, whole or not at all.

    Raises:
        AlreadyExists: if the file is there and `overwrite` is not set.
        BadOption: if the target is impossible.
        DiskFull: if there is no room; nothing is left behind.
        ReadOnly: if the folder cannot be written.
    """
    target = Path(target)
    with _translated(target):
        _check_target(target, None, overwrite)
        _write_whole(target, data)
    return target


def read_exported(file: str | Path) -> Exported:
    """What an exported file says about itself, so that it can be used or adopted again.

    Raises:
        BadOption: if it is not an ONNX file that retain has written.
    """
    import onnx

    try:
        model = onnx.load(os.fspath(file), load_external_data=False)
    except OSError as error:
        raise BadOption(f"{file} cannot be read: {error.strerror}") from error
    except Exception as error:  # protobuf's own errors have no name in common
        raise BadOption(f"{file} is not an ONNX file: {error}") from error
    found = {each.key: each.value for each in model.metadata_props}
    try:
        labels = json.loads(found["retain.labels"])
        if not isinstance(labels, list) or not all(isinstance(each, str) for each in labels):
            raise ValueError("its labels are not a list of texts")
        activation = found["retain.activation"]
        if activation not in get_args(Activation):
            raise ValueError(f"its activation is {activation!r}")
        rule = Preprocess.from_json(json.loads(found["retain.preprocess"]))
    except KeyError as error:
        raise BadOption(
            f"{file} was not exported by retain (it has no {error.args[0]} among its metadata); "
            f"adopt it as any other classifier, naming its labels and preprocessing"
        ) from error
    except (TypeError, ValueError) as error:
        raise BadOption(f"the metadata of {file} cannot be used: {error}") from error
    features, digest, version = (
        found.get(f"retain.{key}", "") for key in ("features", "digest", "version")
    )
    return Exported(tuple(labels), rule, activation, features, digest, version)


def parity(file: str | Path, pictures: Iterable[tuple[bytes | NDArray[Any], ArrayLike]]) -> Parity:
    """Hold an exported file, run by plain ONNX Runtime, against what its classifier says.

    Args:
        file: what `export_onnx` wrote.
        pictures: image files, or tensors prepared for the input [1, …], each with the
            probabilities [C] of the classifier (for ``"sigmoid"``: each class by itself).

    Raises:
        BadOption: if it is not such a file, or a list of probabilities has another length.
        BadImage: if the bytes cannot be read as a picture.
        Damaged: if ONNX Runtime cannot run it.
    """
    import onnxruntime

    about = read_exported(file)
    try:
        session = onnxruntime.InferenceSession(os.fspath(file), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Damaged(f"{file} cannot be loaded by ONNX Runtime: {error}") from error
    entrance = session.get_inputs()[0].name

    def run(pixels: NDArray[Any]) -> NDArray[np.float64]:
        try:
            (answer,) = session.run(None, {entrance: pixels})
        except Exception as error:
            raise Damaged(f"{file} cannot be run: {error}") from error
        return _probabilities(np.asarray(answer[0], np.float64), about.activation)

    return compared(run, about.labels, about.preprocess, pictures)


def compared(
    run: Callable[[NDArray[Any]], NDArray[np.float64]],
    labels: Sequence[str],
    rule: Preprocess,
    pictures: Iterable[tuple[bytes | NDArray[Any], ArrayLike]],
) -> Parity:
    """Hold anything that answers pictures against what a classifier says.

    Args:
        run: a prepared picture [1, …] to probabilities [C].
        labels: the classes in their order.
        rule: how pictures are prepared.
        pictures: as for `parity`.

    Raises:
        BadOption: if a list of probabilities has another length.
        BadImage: if the bytes cannot be read as a picture.
    """
    count, worst, disagreements = 0, 0.0, []
    for number, (picture, expected) in enumerate(pictures):
        if isinstance(picture, bytes):
            picture = prepare(decode(picture, shorter=rule.needs), rule)
        given = run(picture)
        wanted = np.asarray(expected, np.float64)
        if wanted.shape != (len(labels),):
            raise BadOption(
                f"picture {number} comes with probabilities {list(wanted.shape)}, expected "
                f"{[len(labels)]}, one for each class"
            )
        if given.shape != wanted.shape:
            raise BadOption(f"it answers {list(given.shape)}, expected {list(wanted.shape)}")
        difference = float(np.abs(given - wanted).max())
        worst = max(worst, difference if np.isfinite(difference) else np.inf)
        ours, theirs = int(wanted.argmax()), int(given.argmax())
        if ours != theirs:
            disagreements.append((number, labels[ours], labels[theirs]))
        count += 1
    return Parity(count, worst, count - len(disagreements), tuple(disagreements))


def _probabilities(answer: NDArray[np.float64], activation: Activation) -> NDArray[np.float64]:
    if activation == "none":
        return softmax(answer)
    return np.asarray(np.exp(answer)) if activation == "log_softmax" else answer


# -- the graph ---------------------------------------------------------------------------------


def _opened(graph: Any, source: Path, head: ExportHead, output: str) -> str:
    """Make `output` the output in place of the features; returns what those are called now."""
    import onnx

    if output in {"", pictures_input(graph, source)}:
        raise BadOption(f"the output cannot be called {output!r}, as the input is; choose another")
    rename(graph, output, unused(graph, output))
    features = onnx.ValueInfoProto()
    features.CopyFrom(graph.output[0])
    tensor = features.type.tensor_type
    sizes = list(tensor.shape.dim) if tensor.HasField("shape") else []
    if sizes and (len(sizes) != 2 or sizes[1].dim_value not in (0, head.dimension)):
        shape = [each.dim_param or each.dim_value for each in sizes]
        raise BadOption(f"{source} answers {shape}, and the head takes [N, {head.dimension}]")
    answer = onnx.helper.make_tensor_value_info(
        output, onnx.TensorProto.FLOAT, ["batch", len(head.labels)]
    )
    if sizes:
        answer.type.tensor_type.shape.dim[0].CopyFrom(sizes[0])
    del graph.output[:]
    graph.output.append(answer)
    graph.value_info.append(features)
    return str(features.name)


def _describe(model: Any, labels: Sequence[str], rule: Preprocess, own: Mapping[str, str]) -> None:
    """Fill in the metadata: our own, and those that other tools read."""
    import onnx

    # By name, as rooms do not import the front door; it is open anyway.
    version = import_module("retain").__version__
    told = {each.key: each.value for each in model.metadata_props}
    told = {key: value for key, value in told.items() if not key.startswith("Image.")}
    told |= {
        "retain.labels": json.dumps(list(labels)),
        "retain.preprocess": json.dumps(rule.to_json()),
        **{f"retain.{key}": value for key, value in own.items()},
        "retain.version": version,
        # As Ultralytics writes and reads them: literals of Python.
        "names": repr(dict(enumerate(labels))),
        "imgsz": repr([rule.height, rule.width]),
        "task": "classify",
        **_standard(rule),
    }
    onnx.helper.set_model_props(model, told)
    model.producer_name, model.producer_version = "retain", version


def _standard(rule: Preprocess) -> Mapping[str, str]:
    """The image metadata of the ONNX specification (MetadataProps.md), where they fit."""
    told = {"Image.BitmapPixelFormat": {"RGB": "Rgb8", "BGR": "Bgr8", "L": "Gray8"}[rule.colour]}
    mean, std = np.array(rule.mean), np.array(rule.std)
    black, white = -mean / std, (255 * rule.scale - mean) / std
    for name, low, high in (
        ("NominalRange_0_255", 0, 255),
        ("Normalized_0_1", 0, 1),
        ("Normalized_1_1", -1, 1),
    ):
        if np.allclose(black, low) and np.allclose(white, high):
            told["Image.NominalPixelRange"] = name
    return told


def _checked(model: Any, source: Path) -> bytes:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())
    except Exception as error:  # the checker is C++ and raises anything
        raise BadOption(f"{source} and the head do not make a valid ONNX file: {error}") from error


# -- the file ----------------------------------------------------------------------------------


def _check_target(target: Path, source: Path | None, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise BadOption(f"{target.parent} is not a folder; make it first")
    if target.is_dir():
        raise BadOption(f"{target} is a folder; name a file, such as {target / 'model.onnx'}")
    if source is not None and target.exists() and source.exists() and target.samefile(source):
        raise BadOption(f"{target} is the extractor itself; choose another name")
    if target.exists() and not overwrite:
        raise AlreadyExists(f"{target} exists; choose another name, or overwrite it")


def _write_whole(target: Path, data: bytes) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _translated(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise DiskFull(
                f"no room for {target}; nothing is left of it. Make room, or choose another disk"
            ) from error
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise ReadOnly(
                f"{target} cannot be written ({error.strerror}); choose another folder"
            ) from error
        raise StoreError(f"{target} cannot be written: {error}") from error
