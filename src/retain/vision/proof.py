"""The proof that a classifier in parts answers as the whole did, in numbers on pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retain.algebra import quantize, to_float
from retain.errors import CannotAdopt
from retain.vision.lastmap import activated
from retain.vision.lookup import session
from retain.vision.splitting import Plan, Split, carve

__all__ = ["WORST_DIFFERENCE", "recomposed", "tried"]

WORST_DIFFERENCE: Final = 1e-4
"""What an output or score may be away from the original's; see `Adopted.worst_difference`."""

HALF_STEP: Final = 2.0**-11
"""Relative rounding of float16, in which a network may compute its own scores."""


def recomposed(split: Split, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores [n, C] that the parts give for features [n, d].

    Of a file that retain wrote, by the arithmetic that it was written with.
    """
    if split.unit is None:
        return features @ split.weights.T + split.bias
    if not np.isfinite(features).all():
        return np.full((len(features), len(split.bias)), np.nan)
    rows = []
    for feature in features:
        raised = np.copysign(np.abs(feature) ** split.power, feature).astype(np.float32)
        whole, length = quantize(raised)
        phi = to_float(whole)
        rows.append(float(length) * (split.weights @ phi) + split.unit @ phi + split.bias)
    return np.stack(rows)


@dataclass(frozen=True, eq=False, slots=True)
class _Answers:
    """What the original says: outputs and scores, float64 [n, outputs]; scores where it has any."""

    outputs: NDArray[np.float64]
    scores: NDArray[np.float64] | None


def tried(found: Plan, pictures: list[NDArray[Any]], notes: list[str]) -> tuple[Split, float]:
    """The parts, and how far they are from the original on some pictures."""
    wanted = _original(found, pictures)
    batch = found.inlet.batch or 1
    try:
        split = carve(found)
        return split, _compared(split, found, pictures, wanted, notes)
    except CannotAdopt:
        if batch == 1:
            raise
    split = carve(found, repeat=True)
    worst = _compared(split, found, pictures, wanted, notes)
    notes.append(
        f"it was made for {batch} pictures at a time, so each is computed {batch} times; "
        f"export it with a free batch axis to make it {batch} times as fast"
    )
    return split, worst


def _original(found: Plan, pictures: list[NDArray[Any]]) -> _Answers:
    """What the original answers."""
    lookup, inlet = found.lookup, found.inlet
    names = list(dict.fromkeys(filter(None, (found.map.compared, found.map.scores))))
    # Only what leads to the output: some exporters declare inputs that nothing reads.
    whole = lookup.part(lookup.needed(names), [lookup.inputs[inlet.name]], names)
    run = session(whole.SerializeToString())
    batch = inlet.batch or 1
    answers: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for start in range(0, len(pictures), batch):
        # Other pictures beside it, so that a network that mixes its batch is found out.
        chunk = [pictures[(start + i) % len(pictures)] for i in range(batch)]
        stacked = np.concatenate(chunk).astype(inlet.dtype)
        if inlet.form == "flat":
            stacked = stacked.reshape(batch, -1)
        elif inlet.form == "picture":
            stacked = stacked.reshape([side or 1 for side in inlet.shape])
        for name, answer in zip(names, _run(run, names, inlet.name, stacked, "it"), strict=True):
            if answer.size % batch:
                raise CannotAdopt(f"it answers {batch} pictures with {answer.size} numbers")
            answers[name].append(np.asarray(answer, np.float64).reshape(batch, -1))
    stacks = {name: np.concatenate(each)[: len(pictures)] for name, each in answers.items()}
    scores = found.map.scores
    return _Answers(stacks[found.map.compared], None if scores is None else stacks[scores])


def _run(
    run: Any, outputs: list[str], name: str, pixels: NDArray[Any], what: str
) -> list[NDArray[Any]]:
    try:
        return [np.asarray(answer) for answer in run.run(outputs, {name: pixels})]
    except Exception as error:
        raise CannotAdopt(
            f"{what} cannot be run on a picture {list(pixels.shape)}: {str(error)[:300]}"
        ) from error


def _features(split: Split, pictures: list[NDArray[Any]]) -> NDArray[np.float64]:
    """What enters the last linear map, [n, d]."""
    run = session(split.features)
    entry, leaving = run.get_inputs()[0].name, run.get_outputs()[0].name
    features = []
    for pixels in [*pictures, pictures[0]]:
        answer = _run(run, [leaving], entry, pixels, "its first part")[0]
        if answer.shape != (1, split.weights.shape[1]) or answer.dtype != np.float32:
            raise CannotAdopt(
                f"what enters its last linear map ({split.found}) is {answer.dtype} "
                f"{list(answer.shape)} for one picture, not one vector: the map is applied in many "
                f"places and their results are joined; export it with the pooling before the map"
            )
        features.append(answer[0].astype(np.float64))
    if not np.array_equal(features[0], features.pop(), equal_nan=True):
        raise CannotAdopt(
            "its features differ from run to run: it draws random numbers; export it in "
            "evaluation mode (model.eval())"
        )
    return np.stack(features)


def _compared(
    split: Split,
    found: Plan,
    pictures: list[NDArray[Any]],
    wanted: _Answers,
    notes: list[str],
) -> float:
    """The worst difference between original and recomposed outputs, and scores.

    Raises:
        CannotAdopt: if it is more than rounding.
    """
    scores = recomposed(split, _features(split, pictures))
    given = activated(scores, split.activation)
    if found.map.halved:
        scores = 2 * scores
    if split.single:
        scores, given = scores[:, 1:], given[:, 1:]
    pairs = [(given, wanted.outputs, 1.0)]
    if wanted.scores is not None:
        # A thousand probabilities of 0.001 are within 1e-4 of anything; their scores are not.
        pairs.append((scores, wanted.scores, 1e-30))
    worst, allowed = 0.0, WORST_DIFFERENCE
    for mine, theirs, least in pairs:
        if mine.shape != theirs.shape:
            raise CannotAdopt(
                f"its last linear map ({split.found}) gives {mine.shape[1]:,} numbers, but the "
                f"output {split.output_name!r} has {theirs.shape[1]:,} for a picture: it ends in "
                f"{split.tail}"
            )
        if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
            raise CannotAdopt("it answers with numbers that are not finite; the file is damaged")
        size = max(least, float(abs(theirs).max()))
        worst = max(worst, float(abs(mine - theirs).max()) / size)
    if found.map.half:
        allowed += 4 * HALF_STEP * max(1.0, float(abs(scores).max()))
        notes.append("it computes its scores in 16 bits; here they are computed in 64")
    if worst > allowed:
        raise CannotAdopt(
            f"its parts answer otherwise than the whole: the worst difference on "
            f"{len(pictures)} pictures is {worst:.2g}, allowed is {allowed:.2g}. Found was "
            f"{split.found}; the graph ends in {split.tail}. Export the network so that its "
            f"output is the last Linear or Dense layer"
        )
    return worst
