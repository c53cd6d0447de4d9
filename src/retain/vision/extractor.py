"""From the bytes of a picture to its feature vector, one picture at a time.

One picture per call and one thread per call: a feature must not depend on the batch it came in or
on how many cores were free, to the last bit. Speed comes from several calls at once (`stream`).
"""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Protocol, final

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadImage, BadOption, Damaged, RetainError
from retain.vision.images import decode
from retain.vision.preprocess import Preprocess, prepare
from retain.vision.recall import Recall

__all__ = [
    "Decoder",
    "Extractor",
    "OnnxExtractor",
    "VectorExtractor",
    "load_builtin",
    "load_extractor",
]

GRAPH: Final = "features.onnx"
DESCRIPTION: Final = "preprocess.json"
FORMAT: Final = 1
DATA: Final = Path(__file__).resolve().parents[1] / "data"
LARGEST_VECTOR: Final = 65_536


class Decoder(Protocol):
    """What `images.decode` does; perhaps in a process that has less to lose."""

    def __call__(self, data: bytes, *, shorter: int | None = None) -> NDArray[np.uint8]:
        """The canonical pixels of an image file, uint8 [h, w, 3] (BadImage if it has none)."""


class Extractor(ABC):
    """Turns the bytes of a picture into a feature vector; safe to call from several threads."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What people call it."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """How many numbers a feature has."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Equal exactly for extractors that compute the same features; fit for a file name."""

    @abstractmethod
    def feature(self, data: bytes) -> NDArray[np.float32]:
        """The feature of one picture, float32 [dimension], finite, not normalised.

        Raises:
            BadImage: if the bytes cannot be read as a picture.
        """

    @abstractmethod
    def files(self) -> Mapping[str, bytes | Path]:
        """Everything `load_extractor` needs, as file name → content or file to copy."""


@final
class OnnxExtractor(Extractor):
    """An ONNX graph with one image input and one feature output, and the rule to prepare pixels.

    Made by `load` from a directory with `features.onnx` (weights inside) and `preprocess.json`:
    ``{"format": 1, "name": …, "dimension": d, "sha256": …, "preprocess": {…}}``, and optionally
    ``"power": p``: every number f of the graph's output becomes sign(f)·|f|ᵖ. Below 1 it draws in
    the few strong activations that a pooled rectified map is made of, whose spread grows with their
    mean (Tukey 1957; "power normalisation" of Perronnin 2010).
    """

    def __init__(
        self,
        name: str,
        dimension: int,
        rule: Preprocess,
        power: float,
        graph: Path,
        sha256: str,
        session: Any,
    ) -> None:
        self._name = name
        self._dimension = dimension
        self._rule = rule
        self._power = power
        self._graph = graph
        self._sha256 = sha256
        self._session = session
        self._input: str = session.get_inputs()[0].name
        self._output: str = session.get_outputs()[0].name
        self._decode: Decoder = decode
        self._recall = Recall(0)

    @classmethod
    def load(cls, directory: str | Path) -> OnnxExtractor:
        """The extractor in a directory.

        Raises:
            BadOption: if the description is not what it should be.
            Damaged: if a file is missing or does not hold what it should.
        """
        directory = Path(directory)
        description = _describe(directory)
        name = description.get("name", directory.name)
        try:
            dimension = int(description["dimension"])
            rule = Preprocess.from_json(description["preprocess"])
            power = float(description.get("power", 1.0))
            if not 0.0 < power <= 4.0:
                raise ValueError(f"power is {power}, not between 0 and 4")
        except (KeyError, TypeError, ValueError) as error:
            raise BadOption(f"{directory / DESCRIPTION} cannot be used: {error}") from error
        try:
            graph = (directory / GRAPH).read_bytes()
        except OSError as error:
            raise Damaged(
                f"{directory / GRAPH} cannot be read ({error.strerror}); restore it from a copy"
            ) from error
        sha256 = hashlib.sha256(graph).hexdigest()
        if description.get("sha256", sha256) != sha256:
            raise Damaged(
                f"{directory / GRAPH} has changed: its SHA-256 is {sha256}, recorded is "
                f"{description['sha256']}; restore it from a copy"
            )
        session = _session(graph, directory / GRAPH)
        return cls(name, dimension, rule, power, directory / GRAPH, sha256, session)._tried()

    def _tried(self) -> OnnxExtractor:
        """Itself, after one run on a black picture: a graph that cannot work is found here."""
        black = np.zeros((self._rule.height, self._rule.width, 3), np.uint8)
        try:
            self._run(prepare(black, self._rule))
        except BadImage as error:
            raise Damaged(f"{self._graph}, asked about a black picture: {error}") from error
        except RetainError:
            raise
        except Exception as error:
            raise Damaged(
                f"{self._graph} cannot be run on pictures {list(self._rule.shape)}: {error}"
            ) from error
        return self

    @property
    def name(self) -> str:
        """As `preprocess.json` has it."""
        return self._name

    @property
    def dimension(self) -> int:
        """How many numbers a feature has."""
        return self._dimension

    @property
    def rule(self) -> Preprocess:
        """How pixels are prepared."""
        return self._rule

    @property
    def power(self) -> float:
        """The exponent that the graph's output is raised to, number by number."""
        return self._power

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the graph's own, the preprocessing rule and the power."""
        rule = json.dumps(self._rule.to_json(), sort_keys=True, separators=(",", ":"))
        text = f"onnx\n{self._sha256}\n{self._dimension}\n{rule}\n"
        if self._power != 1.0:
            text += f"power {self._power!r}\n"
        return "sha256-" + hashlib.sha256(text.encode()).hexdigest()

    def feature(self, data: bytes) -> NDArray[np.float32]:
        """The feature of one image file, float32 [dimension], not normalised.

        Raises:
            BadImage: if the bytes cannot be read as a picture, or the graph answers this one with
                numbers that are not finite.
            Damaged: if the graph answers with something else than `dimension` numbers.
        """
        return self._recall.of(data, lambda: self._run(prepare(self.pixels(data), self._rule)))

    def pixels(self, data: bytes) -> NDArray[np.uint8]:
        """The pixels that are prepared, uint8 [h, w, 3] (BadImage if they cannot be read)."""
        return self._decode(data, shorter=self._rule.needs)

    def looking(self, decoder: Decoder, recall: int) -> OnnxExtractor:
        """The same, with pictures decoded elsewhere, and the last `recall` features kept."""
        parts = self._rule, self._power, self._graph, self._sha256, self._session
        other = OnnxExtractor(self._name, self._dimension, *parts)
        other._decode, other._recall = decoder, Recall(recall)
        return other

    def _run(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        answer = np.asarray(self._session.run([self._output], {self._input: pixels})[0])
        if answer.shape != (1, self._dimension) or answer.dtype != np.float32:
            raise Damaged(
                f"{self._graph} answers {answer.dtype} {list(answer.shape)}, expected float32 "
                f"{[1, self._dimension]} as preprocess.json says; one of the two is wrong"
            )
        feature: NDArray[np.float32] = answer[0]
        if self._power != 1.0:
            raised = np.abs(feature.astype(np.float64)) ** self._power
            with np.errstate(over="ignore"):
                feature = np.copysign(raised, feature).astype(np.float32)
        if not np.isfinite(feature).all():
            raise BadImage("the extractor answers it with numbers that are not finite")
        return feature

    def files(self) -> Mapping[str, bytes | Path]:
        """The graph and its description."""
        description: dict[str, Any] = {
            "format": FORMAT,
            "name": self._name,
            "sha256": self._sha256,
            "dimension": self._dimension,
            "preprocess": self._rule.to_json(),
        }
        if self._power != 1.0:
            description["power"] = self._power
        return {GRAPH: self._graph, DESCRIPTION: _json_bytes(description)}


_PARSER = threading.Lock()


@final
class VectorExtractor(Extractor):
    """For people who bring their own features: the "picture" is a float32 vector in `.npy` form.

    >>> from retain.vision import encode_vector
    >>> VectorExtractor(2).feature(encode_vector(np.array([3.0, 4.0])))
    array([3., 4.], dtype=float32)
    """

    def __init__(self, dimension: int) -> None:
        if not 1 <= dimension <= LARGEST_VECTOR:
            raise BadOption(
                f"vectors of {dimension} numbers are not possible; use 1 to {LARGEST_VECTOR:,}"
            )
        self._dimension = dimension

    @property
    def name(self) -> str:
        """``vectors:<dimension>``."""
        return f"vectors:{self._dimension}"

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """``vectors-<dimension>``."""
        return f"vectors-{self._dimension}"

    def feature(self, data: bytes) -> NDArray[np.float32]:
        """The vector itself.

        Raises:
            BadImage: if the bytes are not an `.npy` file of `dimension` finite numbers.
        """
        try:
            if len(data) > 1024 + 16 * self._dimension:
                raise ValueError(f"{len(data):,} bytes are too many")
            # NumPy reads the header with Python's parser, which before 3.12 must not be used by
            # several threads at a time.
            with _PARSER:
                vector = np.lib.format.read_array(BytesIO(data), allow_pickle=False)
            with np.errstate(over="ignore"):
                numbers = vector.astype(np.float32, casting="same_kind")
        except Exception as error:
            raise BadImage(
                f"it is not a vector in .npy form ({error}); this classifier takes "
                f"{self._dimension} numbers for each picture"
            ) from error
        if numbers.shape != (self._dimension,) or not np.isfinite(numbers).all():
            raise BadImage(
                f"it is an array {list(numbers.shape)}; this classifier takes "
                f"{self._dimension} finite numbers for each picture"
            )
        return numbers

    def files(self) -> Mapping[str, bytes | Path]:
        """A description, so that the directory tells what it is."""
        description = {"format": FORMAT, "name": self.name, "dimension": self._dimension}
        return {DESCRIPTION: _json_bytes(description)}


def load_builtin(name: str) -> Extractor:
    """An extractor by name, or from a directory.

    Args:
        name: ``"efficientnet_lite0"``, which is shipped; ``"vectors:<d>"`` for feature vectors of
            d numbers; or a directory with `features.onnx` and `preprocess.json`.

    Raises:
        BadOption: if there is no such extractor.
        Damaged: if its files do not hold what they should.

    >>> load_builtin("vectors:8").dimension
    8
    """
    kind, _, number = name.partition(":")
    if kind == "vectors" and number.isascii() and number.isdigit() and len(number) < 9:
        return VectorExtractor(int(number))
    shipped = sorted(path.parent.name for path in DATA.glob(f"*/{GRAPH}"))
    if name in shipped:
        return OnnxExtractor.load(DATA / name)
    if name and Path(name).is_dir():
        return load_extractor(name)
    raise BadOption(
        f"there is no extractor {name!r}; use {', '.join(shipped)}, vectors:<number of features>, "
        f"or a directory with {GRAPH} and {DESCRIPTION}"
    )


def load_extractor(directory: str | Path, fingerprint: str | None = None) -> Extractor:
    """The extractor that `Extractor.files` wrote into a directory.

    Args:
        directory: where the files are.
        fingerprint: what it must be, if known.

    Raises:
        BadOption: if the description is not what it should be.
        Damaged: if a file is missing or changed, or the fingerprint is another.
    """
    directory = Path(directory)
    description = _describe(directory)
    name = str(description.get("name", ""))
    vectors = name.startswith("vectors:")
    extractor = load_builtin(name) if vectors else OnnxExtractor.load(directory)
    if fingerprint is not None and extractor.fingerprint != fingerprint:
        raise Damaged(
            f"the extractor in {directory} is not the one its features were computed with "
            f"({extractor.fingerprint} instead of {fingerprint}); restore it from a copy"
        )
    return extractor


def _describe(directory: Path) -> dict[str, Any]:
    path = directory / DESCRIPTION
    try:
        description = json.loads(path.read_bytes())
    except OSError as error:
        raise Damaged(
            f"{path} cannot be read ({error.strerror}); restore it from a copy"
        ) from error
    except ValueError as error:
        raise Damaged(f"{path} is not JSON ({error}); restore it from a copy") from error
    if not isinstance(description, dict) or description.get("format", FORMAT) != FORMAT:
        raise BadOption(f"{path} is not a description of format {FORMAT}; update retain")
    return description


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _session(graph: bytes, path: Path) -> Any:
    """An ONNX Runtime session that answers the same whatever else the machine does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Damaged(f"{path} is not a graph that ONNX Runtime can load: {error}") from error
    if len(session.get_inputs()) != 1:
        names = ", ".join(each.name for each in session.get_inputs())
        raise BadOption(f"{path} wants several inputs ({names}); it must take pictures alone")
    return session
