"""`explain`: why a picture is answered as it is, and what would change that."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retain.answers import answer
from retain.caches import Mind, State
from retain.comparisons import Explanation, Remedy
from retain.correcting import what_if
from retain.errors import BadImage, NothingLearned, Refused, UnknownImage
from retain.intake import Eyes, Taken, resolve
from retain.session import Session
from retain.solving import single_threaded
from retain.suggesting import nearest
from retain.values import content_hash
from retain.vision import (
    Extractor,
    OnnxExtractor,
    evidence_map,
    network_view,
    prepare,
    unlabelled,
)

__all__ = ["explain"]


def explain(session: Session, image: Any, *, neighbours: int, remedies: int) -> Explanation:
    """See `Classifier.explain`."""
    started = time.perf_counter()
    # All of one state and its extractor, whatever others write meanwhile.
    state = session.state
    mind, eyes = state.mind, session.eyes_of(state.mind.era)
    if mind.head is None:
        raise NothingLearned("nothing has been learned yet, so there is nothing to explain")
    taken = resolve(session.store, eyes, image)
    remembered = session.store.member(taken.image) is not None
    everything = len(mind.head.classes)
    vector = taken.feature, taken.norm
    prediction = answer(
        mind, taken.name, taken.image, *vector, top=everything, remembered=remembered
    )
    with single_threaded():
        logits = mind.logits(*vector)
    order = np.argsort(-logits, kind="stable")
    spoken = mind.exceptions.speaking(taken.feature)
    view, evidence, note = _evidence(session, eyes, image, taken, mind, order)
    return Explanation(
        prediction=prediction,
        scores=prediction.top,
        margin=float(logits[order[0]] - logits[order[1]]) if everything > 1 else None,
        runner_up=mind.head.classes[order[1]] if everything > 1 else None,
        because=mind.exceptions.images[spoken] if spoken is not None else None,
        neighbours=nearest(session, [taken], neighbours, (state.samples, state.features))[0],
        remedies=tuple(
            _remedy(session, state, taken, mind.head.classes[i]) for i in order[1 : 1 + remedies]
        ),
        view=view,
        evidence=evidence,
        note=note,
        seconds=time.perf_counter() - started,
    )


def _remedy(session: Session, state: State, taken: Taken, label: str) -> Remedy:
    """What correcting the picture to `label` would take; nothing is written."""
    try:
        found = what_if(session, state, taken, label)
    except Refused as error:
        return Remedy(label, "none", 0, f"it cannot be made {label!r}: {error}")
    ways = {
        "learn": "learning it is enough",
        "pin": "it takes an edit of the head",
        "exception": "it takes an exception for its own neighbourhood",
    }
    worse = len(found.worse)
    cost = (
        "nothing remembered would get worse"
        if not worse
        else f"{worse} remembered {'picture' if worse == 1 else 'pictures'} would get worse"
    )
    how = found.corrected[0]
    rung = "exception" if how.exception else "pin" if how.pinned else "learn"
    refused = "" if found.verdict is None or found.verdict.passed else "; the gate would refuse"
    sentence = f"to be answered {label!r}, {ways[rung]}; {cost}{refused}"
    return Remedy(label, rung, worse, sentence)


def _evidence(
    session: Session,
    eyes: Eyes,
    image: Any,
    taken: Taken,
    mind: Mind,
    order: NDArray[np.intp],
) -> tuple[NDArray[np.uint8] | None, NDArray[np.float32] | None, str]:
    """The view, the map of what speaks for the answer and against the runner-up, or why not."""
    extractor, head = eyes.extractor, mind.head
    if not isinstance(extractor, OnnxExtractor) or head is None:
        return None, None, "this classifier takes vectors, which have no places"
    data = _bytes(session, extractor, image, taken)
    if data is None:
        return None, None, "the picture itself is not kept, only its feature"
    pixels = extractor.pixels(data)
    view = network_view(pixels, extractor.rule)
    row = head.weights[order[0]].copy()
    raw = head.raw[order[0]].copy() if head.raw is not None else np.zeros_like(row)
    if len(order) > 1:
        row -= head.weights[order[1]]
        raw -= head.raw[order[1]] if head.raw is not None else 0.0
    rho = taken.norm or 1.0
    raised = taken.feature.astype(np.float64) * rho / (1 << 14)
    # g = sgn(f)·|f|ᵖ is what the head sees; Σ a·g = Σ (a·|f|ᵖ⁻¹)·f says it in terms of the map.
    f = np.abs(raised) ** (1.0 / extractor.power)
    slope = np.where(f > 0, np.where(f > 0, f, 1.0) ** (extractor.power - 1.0), 0.0)
    found = evidence_map(
        session.store.folder(mind.era), prepare(pixels, extractor.rule), (row / rho + raw) * slope
    )
    return view, found.map, found.reason


def _bytes(session: Session, extractor: Extractor, image: Any, taken: Taken) -> bytes | None:
    """The bytes of a picture, kept or as it was given; None where there are none of it.

    What a picture is called is nobody's leave to open a file of that name.
    """
    if taken.data is not None:
        return taken.data
    with suppress(UnknownImage):
        return session.store.blob(taken.image)
    if isinstance(image, str) and not Path(image).is_file():
        return None
    with suppress(BadImage):
        for source in unlabelled(image, extractor).sources:
            data = source.read()
            if content_hash(data) == taken.image:
                return data
    return None
