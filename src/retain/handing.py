"""`export`: the classifier as one file, held against `predict` before it is handed out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retain.algebra import quantize
from retain.caches import Mind
from retain.comparisons import Export
from retain.errors import AlreadyExists, BadOption, NotExported, NothingLearned, UnknownImage
from retain.session import Session
from retain.versions import mind_of, number_of, state_of
from retain.vision import (
    ExportExceptions,
    ExportHead,
    ExportStart,
    OnnxExtractor,
    Parity,
    compared,
    convolutions,
    export_onnx,
    load_builtin,
    parity,
    shipped_pictures,
    write_export,
)

__all__ = ["export"]

_COMPARED: Final = 100
_SHIPPED: Final = {"efficientnet_lite0": "tf_efficientnet_lite0"}
"""Extractors of ours, and what timm calls the same network."""

Pairs = list[tuple[bytes, NDArray[np.float64]]]


def export(
    session: Session,
    target: Path,
    form: tuple[str, Any],
    *,
    version: int | str | None,
    overwrite: bool,
) -> Export:
    """See `Classifier.export`; `form` is the format, and the module where one was given."""
    mind, extractor = mind_of(session, version), session.extractor
    if form[0] not in ("onnx", "torch"):
        raise BadOption(f"format {form[0]!r} is not one of onnx, torch")
    if mind.head is None or mind.tuning is None:
        raise NothingLearned("nothing has been learned yet, so there is nothing to export")
    if not isinstance(extractor, OnnxExtractor):
        raise BadOption(
            "this classifier takes vectors, so there is no graph from pictures to export; its head "
            "is in versions/head.safetensors"
        )
    adopted = session.store.manifest.start or {}
    activation = adopted.get("activation", "softmax")
    digest = state_of(session, version).statistics.digest
    head = _head(mind, extractor)
    pairs = [(data, _expected(mind, extractor, data)) for data in _pictures(session)]
    if form[0] == "torch":
        output = "probabilities"
        made, found = _torch(session, head, target, form[1], digest, pairs, overwrite)
    else:
        output = adopted.get("output", "probabilities")
        made = export_onnx(
            session.store.extractor_dir,
            head,
            extractor.rule,
            target,
            output_name=output,
            activation=activation,
            digest=digest,
            overwrite=overwrite,
        )
        found = parity(made, pairs)
        if not found.holds:
            made.unlink(missing_ok=True)
            raise _otherwise(found, "please report this with the versions of onnx and onnxruntime")
    return Export(
        path=str(made),
        version=number_of(session, version),
        classes=len(mind.head.classes),
        bytes=made.stat().st_size,
        compared=found.n,
        worst_difference=found.worst_probability_difference,
        output=output,
        activation=activation,
        format=form[0],
    )


def _head(mind: Mind, extractor: OnnxExtractor) -> ExportHead:
    head, tuning, exceptions = mind.head, mind.tuning, mind.exceptions
    assert head is not None
    assert tuning is not None
    start = None
    if head.raw is not None and head.raw.any():
        rows = 1 + max(np.flatnonzero(np.abs(head.raw).sum(axis=1)), default=0)
        start = ExportStart(head.raw[:rows], np.zeros(rows))
    apart = None
    if len(exceptions):
        position = {label: i for i, label in enumerate(head.classes)}
        targets = np.array([position[label] for label in exceptions.labels], np.intp)
        apart = ExportExceptions(exceptions.features, exceptions.thresholds, targets, tuning.margin)
    return ExportHead(head.classes, head.weights, head.bias, extractor.power, start, apart)


def _otherwise(found: Parity, advice: str) -> NotExported:
    return NotExported(
        f"the file would answer otherwise than the classifier: {found.labels_equal} of {found.n} "
        f"labels equal, probabilities off by up to {found.worst_probability_difference:.1e}; "
        f"nothing is left of it; {advice}"
    )


# -- PyTorch ----------------------------------------------------------------------------------


def _torch(
    session: Session,
    head: ExportHead,
    target: Path,
    module: Any,
    digest: str,
    pairs: Pairs,
    overwrite: bool,
) -> tuple[Path, Parity]:
    """The file for `retain.train.load_exported`, and how what that gives compares."""
    from importlib import import_module

    from retain import train

    adopted, extractor = session.store.manifest.start, session.extractor
    assert isinstance(extractor, OnnxExtractor)
    if target.exists() and not overwrite:
        raise AlreadyExists(f"{target} exists; choose another name, or overwrite it")
    told = {
        "retain.labels": json.dumps(list(head.labels)),
        "retain.preprocess": json.dumps(extractor.rule.to_json()),
        "retain.activation": adopted["activation"] if adopted else "none",
        "retain.digest": digest,
        "retain.version": import_module("retain").__version__,
    }
    parts, numbers = _parts(head)
    data = train.torch_file(_kept(session, extractor), parts, numbers, told)
    run = train.runner(train.rebuilt(data, str(target), module))
    found = compared(run, head.labels, extractor.rule, pairs)
    if not found.holds:
        raise _otherwise(
            found,
            "either something follows the last layer that this format cannot tell, or the features "
            "are so long that a last digit, in which PyTorch and ONNX Runtime differ, weighs too "
            "much; export it as ONNX",
        )
    return write_export(target, data, overwrite=overwrite), found


def _kept(session: Session, extractor: OnnxExtractor) -> bytes:
    """The network's own tensors.

    Raises:
        BadOption: if it is not known as a module of PyTorch.
    """
    from retain import train

    folder = session.store.extractor_dir
    if (folder / train.FILE).is_file():
        return (folder / train.FILE).read_bytes()
    for name, theirs in _SHIPPED.items():
        if extractor.fingerprint == load_builtin(name).fingerprint:
            return train.folded(theirs, convolutions(folder))
    raise BadOption(
        f"the network of this classifier ({extractor.name}) is known as an ONNX graph only, not as "
        f"a module of PyTorch; export it as ONNX, or adopt it again from PyTorch: a timm or "
        f"torchvision name with its weights, or the module itself"
    )


def _parts(head: ExportHead) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, float]]:
    """The head as tensors and numbers."""
    parts: dict[str, NDArray[Any]] = {"weight": head.weights, "bias": head.bias}
    margin = 0.0
    if head.start is not None:
        parts["start"] = head.start.weights
    if head.exceptions is not None:
        parts["stored"] = head.exceptions.features
        parts["thresholds"] = head.exceptions.thresholds
        parts["targets"] = head.exceptions.targets.astype(np.int64)
        margin = head.exceptions.margin
    return parts, {"power": head.power, "margin": margin}


# -- what it is held against --------------------------------------------------------------------


def _expected(mind: Mind, extractor: OnnxExtractor, data: bytes) -> NDArray[np.float64]:
    feature, norm = quantize(extractor.feature(data))
    logits = mind.logits(feature, float(norm))
    return np.asarray(np.exp(mind.log_probabilities(logits)), np.float64)


def _pictures(session: Session) -> Iterator[bytes]:
    """Remembered pictures, where they are kept, and shipped ones to make up the number."""
    given = 0
    for sample in session.store.members()[:_COMPARED]:
        try:
            data = session.store.blob(sample.image)
        except UnknownImage:
            break
        given += 1
        yield data
    yield from shipped_pictures(max(_COMPARED - given, 8))
