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
from retain.vision.lastmap import Activation
from retain.vision.lookup import session
from retain.vision.modelfile import parse_model, read_model
from retain.vision.preprocess import Preprocess, prepare
from retain.vision.presets import PRESETS, chosen_rule
from retain.vision.proof import WORST_DIFFERENCE, recomposed, tried
from retain.vision.splitting import Plan, Split, plan

__all__ = ["WORST_DIFFERENCE", "Adopted", "adopt", "shipped_pictures"]

LARGEST_FEATURE: Final = 65_536
MOST_PICTURES: Final = 32

_RETURNED: Final = (
    "it was exported by retain: what it had learned is now its last layer, and can be neither "
    "undone nor forgotten (a packed classifier keeps that: retain pack, retain unpack)"
)


@final
@dataclass(frozen=True, eq=False, slots=True)
class Adopted:
    """Somebody's classifier in parts that can be taught.

    Attributes:
        files: what `OnnxExtractor.load` needs, as file name → content.
        weights: float64 [C, d]; the scores of a feature x are `weights @ x + bias`.
        bias: float64 [C].
        unit: float64 [C, d], of a file that retain wrote: what acts besides on features brought to
            length one; None for none.
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
    unit: NDArray[np.float64] | None
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

    def scores(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """The scores [n, C] of features [n, d], as the graph gives them."""
        return recomposed(self.split, features.astype(np.float64))


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
        split, worst = tried(found, trial, notes)
    except (BadOption, CannotAdopt) as error:
        raise type(error)(f"{title} cannot be adopted: {error}") from error
    if split.unit is not None:
        notes.append(_RETURNED)
    description: dict[str, Any] = {
        "format": FORMAT,
        "name": name or Path(path).stem,
        "sha256": hashlib.sha256(split.features).hexdigest(),
        "dimension": split.weights.shape[1],
        "preprocess": chosen.to_json(),
    }
    if split.power != 1.0:
        description["power"] = split.power
    files = {
        GRAPH: split.features,
        DESCRIPTION: (json.dumps(description, indent=2) + "\n").encode(),
    }
    return Adopted(
        MappingProxyType(files),
        split.weights,
        split.bias,
        split.unit,
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
