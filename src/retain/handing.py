"""`export`: the classifier as one ONNX file, held against `predict` before it is handed out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retain.algebra import quantize
from retain.algebra.calibrate import softmax
from retain.caches import Mind
from retain.comparisons import Export
from retain.errors import BadOption, NotExported, NothingLearned, UnknownImage
from retain.session import Session
from retain.versions import mind_of, number_of, state_of
from retain.vision import (
    ExportExceptions,
    ExportHead,
    ExportStart,
    OnnxExtractor,
    export_onnx,
    parity,
    shipped_pictures,
)

__all__ = ["export"]

_COMPARED = 100


def export(session: Session, target: Path, *, version: int | str | None, overwrite: bool) -> Export:
    """See `Classifier.export`."""
    mind, extractor = mind_of(session, version), session.extractor
    if mind.head is None or mind.tuning is None:
        raise NothingLearned("nothing has been learned yet, so there is nothing to export")
    if not isinstance(extractor, OnnxExtractor):
        raise BadOption(
            "this classifier takes vectors, so there is no graph from pictures to export; its head "
            "is in versions/head.safetensors"
        )
    adopted = session.store.manifest.start or {}
    activation = adopted.get("activation", "softmax")
    made = export_onnx(
        session.store.extractor_dir,
        _head(mind, extractor),
        extractor.rule,
        target,
        output_name=adopted.get("output", "probabilities"),
        activation=activation,
        digest=state_of(session, version).statistics.digest,
        overwrite=overwrite,
    )
    pairs = [(data, _expected(mind, extractor, data, activation)) for data in _pictures(session)]
    found = parity(made, pairs)
    if not found.holds:
        made.unlink(missing_ok=True)
        raise NotExported(
            f"the file would answer otherwise than the classifier: {found.labels_equal} of "
            f"{found.n} labels equal, probabilities off by up to "
            f"{found.worst_probability_difference:.1e}; it was removed. Please report this with "
            f"the versions of onnx and onnxruntime"
        )
    return Export(
        path=str(made),
        version=number_of(session, version),
        classes=len(mind.head.classes),
        bytes=made.stat().st_size,
        compared=found.n,
        worst_difference=found.worst_probability_difference,
        output=adopted.get("output", "probabilities"),
        activation=activation,
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


def _expected(
    mind: Mind, extractor: OnnxExtractor, data: bytes, activation: str
) -> NDArray[np.float64]:
    feature, norm = quantize(extractor.feature(data))
    logits = mind.logits(feature, float(norm))
    if activation == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float64)
    return softmax(logits)


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
