"""This library, through its public door: a directory on disk, with journal, gate and all.

Nothing is switched off for the benchmark: an update is durable before it counts, and its time
includes the comparison of every remembered picture before and after. `force` is given to `learn`,
since a stream says what to learn, and a gate that refused it would be judged on other data.
"""

from __future__ import annotations

import shutil
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import retain
from retain.bench.methods.base import Labels, Memory, Method, Scores
from retain.errors import BadOption

__all__ = ["OWN", "RetainJoint"]


class _Living(Method):
    """What the classifiers of this library share; `head` says which, None the default's."""

    source: ClassVar[str] = "this library"
    head: ClassVar[str | None] = None
    keeps: ClassVar[str] = "statistics and all features (14 bits)"

    def __init__(
        self,
        dimension: int,
        seed: int,
        workdir: Path,
        *,
        priors: str = "mixed",
        favour: float = 0.0,
    ) -> None:
        super().__init__(dimension, seed, workdir)
        self._options: dict[str, Any] = {"priors": priors, "favour": favour}
        if self.head is not None:
            self._options["head"] = self.head
        workdir.mkdir(parents=True, exist_ok=True)
        self._scratch = tempfile.TemporaryDirectory(dir=workdir)
        self._path = Path(self._scratch.name) / "classifier"
        self._classifier = self._made()

    @abstractmethod
    def _told(self, features: NDArray[np.float32], labels: Labels, *, corrected: bool) -> None:
        """Take a lesson or a correction."""

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Learn pictures; nothing is refused."""
        self._told(features, labels, corrected=False)

    def correct(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Correct pictures, all as one event, with the promise that they are answered so."""
        self._told(features, labels, corrected=True)

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """The classes known and their calibrated probabilities."""
        classes = self._classifier.labels
        answers = self._classifier.predict(features, top=max(len(classes), 1))
        if answers.skipped:
            raise BadOption(
                f"{len(answers.skipped)} vectors were not answered, such as "
                f"{answers.skipped[0].path}: {answers.skipped[0].reason}"
            )
        position = {label: i for i, label in enumerate(classes)}
        found = np.zeros((len(answers), len(classes)))
        for row, answer in enumerate(answers):
            for score in answer.top:
                found[row, position[score.label]] = score.probability
        return classes, found

    def stored_bytes(self) -> int:
        """The size of the directory, with features, journal and caches."""
        return sum(file.stat().st_size for file in self._path.rglob("*") if file.is_file())

    def digest(self) -> str:
        """The digest of the statistics."""
        return self._classifier.digest

    def close(self) -> None:
        """Remove the directory."""
        self._classifier.close()
        self._scratch.cleanup()

    def _made(self) -> retain.Classifier:
        return retain.create(
            self._path,
            extractor=f"vectors:{self.dimension}",
            memory="features",
            **self._options,
        )

    def _taught(self, features: NDArray[np.float32], labels: Labels, *, corrected: bool) -> None:
        if corrected:
            pairs = list(zip(features, labels.tolist(), strict=True))
            try:
                self._classifier.correct_many(pairs)
            except retain.GateRefused:
                self._classifier.correct_many(pairs, force=True)
        else:
            self._classifier.learn(features, labels.tolist(), force=True, strict=True)

    def _dropped(self, features: NDArray[np.float32]) -> None:
        names = [answer.image for answer in self._classifier.predict(features, top=1)]
        self._classifier.forget(names, force=True)


class _Kept(_Living):
    """A classifier that lives through the whole stream."""

    def _told(self, features: NDArray[np.float32], labels: Labels, *, corrected: bool) -> None:
        self._taught(features, labels, corrected=corrected)

    def forget(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Forget pictures, exactly."""
        self._dropped(features)


class Retain(_Kept):
    """The library as it comes."""

    name, title = "retain", "retain"


class RetainCosine(_Kept):
    """The whitened centred cosine."""

    name, title, head = "retain:cosine", "retain, cosine head", "cosine"


class RetainDiscriminant(_Kept):
    """Fisher's linear discriminant with a shrunk common covariance."""

    name, title, head = "retain:discriminant", "retain, discriminant head", "discriminant"


class RetainRidge(_Kept):
    """Regularised least squares on one-hot targets."""

    name, title, head = "retain:ridge", "retain, ridge head", "ridge"


class RetainNearestMean(_Kept):
    """The nearest class mean."""

    name, title, head = "retain:nearest-mean", "retain, nearest-mean head", "nearest-mean"


class RetainJoint(_Living):
    """The library, but everything is learned at once by a new classifier at each step.

    It is there to be equal: after every step its digest and its scores must be bit for bit those
    of the classifier that learned step by step, in whatever order.
    """

    name, title = "retain-joint", "retain, all at once"
    hindsight = True
    keeps = "all features"

    def __init__(
        self,
        dimension: int,
        seed: int,
        workdir: Path,
        *,
        priors: str = "mixed",
        favour: float = 0.0,
    ) -> None:
        super().__init__(dimension, seed, workdir, priors=priors, favour=favour)
        self._lessons = Memory(dimension)
        self._corrections = Memory(dimension)

    def forget(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Begin anew without these pictures."""
        for memory in (self._lessons, self._corrections):
            memory.remove(memory.among(features))
        self._anew()

    def _told(self, features: NDArray[np.float32], labels: Labels, *, corrected: bool) -> None:
        (self._corrections if corrected else self._lessons).add(features, labels)
        self._anew()

    def _anew(self) -> None:
        self._classifier.close()
        shutil.rmtree(self._path)
        self._classifier = self._made()
        for memory, corrected in ((self._lessons, False), (self._corrections, True)):
            if len(memory):
                self._taught(memory.features, memory.labels, corrected=corrected)


OWN: tuple[type[Method], ...] = (
    Retain,
    RetainCosine,
    RetainDiscriminant,
    RetainRidge,
    RetainNearestMean,
    RetainJoint,
)
