"""What `diff` and `explain` give back, as frozen values; `retain.values` shows them too."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retain.values import Change, Prediction, Score

__all__ = [
    "Cluster",
    "Diff",
    "Explanation",
    "Export",
    "Hint",
    "Neighbour",
    "Pack",
    "Remedy",
    "Suggestion",
]


@dataclass(frozen=True, slots=True)
class Diff:
    """Two versions side by side, on the `judged` pictures that are remembered now.

    `worse`, `better` and `changed` as for `Update`; a picture's `label` is the one it has now, and
    names of classes are those of now.
    """

    a: int
    b: int
    worse: tuple[Change, ...]
    better: tuple[Change, ...]
    changed: tuple[Change, ...]
    judged: int
    new_classes: tuple[str, ...] = ()
    gone_classes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A taught picture that one asked about resembles.

    `similarity` is the cosine of their features, −1 to 1; `at` is when event `event` gave it its
    label.
    """

    image: str
    label: str
    similarity: float
    event: int
    at: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Pictures that look alike, the one nearest their middle first.

    `spread` is their mean distance from it, 0 to 1 or little more; `nearest` the class that most of
    them are answered, None while nothing is known.
    """

    images: tuple[str, ...]
    size: int
    spread: float
    nearest: str | None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A picture that is worth a label: it stands for `stands_for` of those asked about.

    `label` is what it is answered now, `probability` how surely; None while nothing is known.
    """

    image: str
    stands_for: int
    label: str | None
    probability: float | None


@dataclass(frozen=True, slots=True)
class Hint:
    """Advice about a picture before it is taught.

    `kind` is ``"small"``, ``"blurry"``, ``"burst"``, ``"duplicate"``, ``"sure"``,
    ``"contradicts"`` or ``"unreadable"``; `images` are the remembered (for a burst, the given)
    pictures it speaks of. What contradicts does so under every name but `unless`.
    """

    kind: str
    sentence: str
    images: tuple[str, ...] = ()
    unless: str | None = None


@dataclass(frozen=True, slots=True)
class Remedy:
    """What it would take for a picture to be answered `label`.

    `how` is ``"learn"``, ``"pin"`` or ``"exception"``; `worse` counts remembered pictures that
    would then be answered wrong and are right now.
    """

    label: str
    how: str
    worse: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Export:
    """A file that was exported, and how it compares with the classifier.

    Attributes:
        path: the file.
        version: the event whose state it is.
        classes: how many it knows.
        bytes: its size.
        compared: pictures it was held against `predict` on, by ONNX Runtime or PyTorch.
        worst_difference: the largest difference of any probability on them; all labels are equal.
        output: the name of its output.
        activation: what that is: ``"softmax"``, ``"log_softmax"``, ``"sigmoid"`` or ``"none"``
            (logits).
        format: ``"onnx"`` or ``"torch"``.
    """

    path: str
    version: int
    classes: int
    bytes: int
    compared: int
    worst_difference: float
    output: str
    activation: str
    format: str = "onnx"


@dataclass(frozen=True, slots=True)
class Pack:
    """A whole classifier as one file: the file, its bytes, the files in it, its SHA-256."""

    path: str
    bytes: int
    files: int
    digest: str


@dataclass(frozen=True, eq=False, slots=True)
class Explanation:
    """Why a picture is answered as it is.

    Attributes:
        prediction: the answer.
        scores: every class, the best first.
        margin: logits between the answer and the runner-up; None with a single class.
        runner_up: the second best class.
        because: the exception that answered (a picture's name), if one did.
        neighbours: the taught pictures it resembles most, the nearest first.
        remedies: what would change the answer.
        view: uint8 [h, w, 3], what the network saw; None for vectors.
        evidence: float32 [h', w'], high where the answer's advantage over the runner-up lies in
            that view; None where the network does not tell.
        note: why there is no evidence, in words.
    """

    prediction: Prediction
    scores: tuple[Score, ...]
    margin: float | None
    runner_up: str | None
    because: str | None
    neighbours: tuple[Neighbour, ...]
    remedies: tuple[Remedy, ...]
    view: NDArray[np.uint8] | None = field(default=None, repr=False)
    evidence: NDArray[np.float32] | None = field(default=None, repr=False)
    note: str = ""
    seconds: float = 0.0
