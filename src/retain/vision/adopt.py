"""Taking over a classifier that somebody else has trained.

From an ONNX file come a feature graph, starting weights and names, and the promise that together
they answer as the original does: it is tried on pictures before anything is handed out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadImage, BadOption, CannotAdopt
from retain.vision.class_names import distinct, metadata_labels, read_labels
from retain.vision.extractor import DATA, DESCRIPTION, FORMAT, GRAPH
from retain.vision.images import decode, encode_array
from retain.vision.inlet import Inlet
from retain.vision.lastmap import Activation, activated
from retain.vision.lookup import session
from retain.vision.modelfile import parse_model, read_model
from retain.vision.preprocess import Preprocess, prepare
from retain.vision.presets import PRESETS, chosen_rule
from retain.vision.splitting import Plan, Split, carve, plan

__all__ = ["WORST_DIFFERENCE", "Adopted", "adopt", "shipped_pictures"]

WORST_DIFFERENCE: Final = 1e-4
"""What an output or score may be away from the original's; see `Adopted.worst_difference`."""

HALF_STEP: Final = 2.0**-11
"""Relative rounding of float16, in which a network may compute its own scores."""

LARGEST_FEATURE: Final = 65_536
MOST_PICTURES: Final = 32


@final
@dataclass(frozen=True, eq=False, slots=True)
class Adopted:
    """Somebody's classifier in parts that can be taught.

    Attributes:
        files: what `OnnxExtractor.load` needs, as file name → content.
        weights: float64 [C, d]; the scores of a feature x are `weights @ x + bias`.
        bias: float64 [C].
        labels: the classes in the order of the scores, no two alike.
        activation: what makes the original's output of the scores.
        rule: how pictures are prepared.
        worst_difference: between the original's outputs and the recomposed ones, in parts of the
            largest output or of 1; and between the scores before the activation, in parts of the
            largest score. The greater of the two.
        split: what the original looked like.
        notes: what a person should know, in sentences.
    """

    files: Mapping[str, bytes]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    labels: tuple[str, ...]
    activation: Activation
    rule: Preprocess
    worst_difference: float
    split: Split
    notes: tuple[str, ...]

    @property
    def dimension(self) -> int:
        """How many numbers a feature has."""
        return int(self.weights.shape[1])


def adopt(
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | Mapping[Any, Any] | str | os.PathLike[str] | None = None,
    rule: Preprocess | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    pictures: Iterable[bytes] = (),
    output: str | None = None,
    name: str | None = None,
) -> Adopted:
    """Take over a trained classifier.

    Args:
        path: an ONNX file of any framework.
        labels: names of the classes, as `read_labels` takes them; by default the model's own.
        rule: how pictures are prepared: a preset's name, a whole rule, or metadata as `read_rule`
            takes them; by default the model's own.
        overrides: fields of `Preprocess`, or `crop`, that replace those of the rule.
        pictures: image files to try it on, at most 32 of them; by default some that are shipped.
        output: which output, if it has several.
        name: of the extractor; by default the file's.

    Raises:
        BadImage: if one of the pictures cannot be read.
        BadOption: if labels or preprocessing are missing or do not fit the model.
        CannotAdopt: if it is not a classifier that can be taken over, or would answer otherwise
            than the original; the message says what was found.
    """
    title = os.fspath(path)
    parsed = parse_model(data := read_model(path))
    told = {each.key: each.value for each in parsed.metadata_props}
    notes: list[str] = []
    try:
        session(data, quick=True)  # what it loads is a graph without circles or false types
        found = plan(parsed, output)
        if found.map.weights.shape[1] > LARGEST_FEATURE:
            raise CannotAdopt(
                f"its last linear map takes {found.map.weights.shape[1]:,} features, more than "
                f"{LARGEST_FEATURE:,}"
            )
        names = _labels(labels, found, told, notes)
        chosen = _rule(rule, overrides, found.inlet, told, Path(path), notes)
        sized = found.inlet.sized(chosen.height, chosen.width, chosen.channels, chosen.layout)
        found = replace(found, inlet=sized)
        trial = _trial_pictures(pictures, chosen)
        split, worst = _tried(found, trial, notes)
    except (BadOption, CannotAdopt) as error:
        raise type(error)(f"{title} cannot be adopted: {error}") from error
    description = {
        "format": FORMAT,
        "name": name or Path(path).stem,
        "sha256": hashlib.sha256(split.features).hexdigest(),
        "dimension": split.weights.shape[1],
        "preprocess": chosen.to_json(),
    }
    files = {
        GRAPH: split.features,
        DESCRIPTION: (json.dumps(description, indent=2) + "\n").encode(),
    }
    return Adopted(
        MappingProxyType(files),
        split.weights,
        split.bias,
        names,
        split.activation,
        chosen,
        worst,
        split,
        tuple(dict.fromkeys(notes)),
    )


def _labels(given: Any, found: Plan, told: Mapping[str, str], notes: list[str]) -> tuple[str, ...]:
    """One name for each class, no two alike."""
    classes = len(found.map.weights)
    own = metadata_labels(told)
    if given is not None:
        names, origin = read_labels(given), "the labels"
        if isinstance(given, str | os.PathLike):
            origin = f"the file {os.fspath(given)}"
    elif own is not None:
        origin, names = f"the metadata {own[0]!r}", own[1]
        notes.append(f"the names of the classes are those in its metadata ({own[0]})")
    elif found.map.labels and not all(each.isdigit() for each in found.map.labels):
        origin, names = "the model", list(found.map.labels)
        notes.append("the names of the classes are those in its LinearClassifier")
    else:
        raise BadOption(
            f"it does not tell the names of its {classes:,} classes; give labels= a list, or a "
            f"text file with one name a line, in the order of the outputs"
        )
    if len(names) == classes + 1 and names[0].strip().lower() in ("background", "dummy"):
        notes.append(f"{names[0]!r}, the first of {len(names):,} names, stands for no class here")
        names = names[1:]
    if len(names) != classes:
        hint = ""
        if abs(len(names) - classes) == 1 and classes > 2:
            hint = " (some lists begin with 'background', others leave it out)"
        raise BadOption(
            f"{origin} has {len(names):,} names, but the model {classes:,} classes "
            f"({found.map.found}); give one for each{hint}"
        )
    result, changed = distinct(names)
    notes.extend(changed)
    return result


def _rule(
    rule: Any,
    overrides: Mapping[str, Any],
    inlet: Inlet,
    told: Mapping[str, str],
    path: Path,
    notes: list[str],
) -> Preprocess:
    if rule is None and "retain.preprocess" in told:
        try:
            rule = json.loads(told["retain.preprocess"])
        except ValueError as error:
            raise BadOption(f"its metadata 'retain.preprocess' is not JSON: {error}") from error
        notes.append("pictures are prepared as its metadata say (retain.preprocess)")
    if rule is None and inlet.fed == "uint8":
        rule = "raw"
        notes.append("its input takes bytes, so pixels go in as they are")
    if rule is None:
        beside = [
            n for n in ("preprocessor_config.json", "config.json") if (path.parent / n).exists()
        ]
        hint = f", or rule={str(path.parent / beside[0])!r}, which lies beside it" if beside else ""
        raise BadOption(
            f"it does not tell how its pictures are prepared; give rule= one of "
            f"{', '.join(PRESETS)}{hint}"
        )
    height, width, channels, layout = inlet.height, inlet.width, inlet.channels, inlet.layout
    if inlet.form == "flat" and inlet.guess and not isinstance(rule, Preprocess):
        tall, wide, deep = inlet.guess
        if not {"height", "width", "colour"} & set(overrides):
            height, width, channels = tall, wide, deep
            notes.append(
                f"its {inlet.shape[-1]:,} inputs are taken for a picture of {tall}×{wide} with "
                f"{deep} channel{'s' * (deep > 1)}"
            )
        if deep == 3 and "layout" not in overrides:
            layout = "NHWC"
            notes.append("the colours of each pixel are taken to stand side by side (NHWC)")
    return chosen_rule(
        rule,
        height=height,
        width=width,
        channels=channels,
        layout=layout,
        dtype=inlet.fed,
        overrides=overrides,
    )


# -- the proof --------------------------------------------------------------------------------


def _trial_pictures(pictures: Iterable[bytes], rule: Preprocess) -> list[NDArray[Any]]:
    """Prepared pictures, each of the shape `rule.shape`."""
    files = list(pictures)
    if not files:
        files = shipped_pictures()
    elif len(files) > MOST_PICTURES:
        files = [files[i * len(files) // MOST_PICTURES] for i in range(MOST_PICTURES)]
    prepared = []
    for number, data in enumerate(files):
        try:
            prepared.append(prepare(decode(data, shorter=rule.needs), rule))
        except BadImage as error:
            raise BadImage(f"picture {number + 1} of {len(files)}: {error}") from error
    return prepared


def shipped_pictures(count: int = 6) -> list[bytes]:
    """Photographs of clothes, and two of noise."""
    rng = np.random.default_rng(0)
    noise = [encode_array(rng.integers(0, 256, (96, 128, 3), np.uint8)) for _ in range(2)]
    with np.load(DATA / "mini_clothing10" / "mini_clothing10_128_cc0.npz") as file:
        data, offsets = file["data"], file["offsets"]
    chosen = np.linspace(0, len(offsets) - 2, count).astype(int)
    return [data[offsets[i] : offsets[i + 1]].tobytes() for i in chosen] + noise


@dataclass(frozen=True, eq=False, slots=True)
class _Answers:
    """What the original says: outputs and scores, float64 [n, outputs]; scores where it has any."""

    outputs: NDArray[np.float64]
    scores: NDArray[np.float64] | None


def _tried(found: Plan, pictures: list[NDArray[Any]], notes: list[str]) -> tuple[Split, float]:
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
    scores = _features(split, pictures) @ split.weights.T + split.bias
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
