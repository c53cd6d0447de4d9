"""Folders in the layout of the Hugging Face hub: `config.json` beside weights or an ONNX file.

A folder is data. No code from it is run, no weights are read as pickles, nothing is fetched.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from retain.errors import BadOption, CannotAdopt, RetainError
from retain.train.backbones import Network
from retain.train.exporting import Exported, export
from retain.train.matching import classes_of, fit, load
from retain.train.needs import need
from retain.train.weights import read_state
from retain.train.zoos import ZOOS, last_layer

__all__ = ["build_folder", "read_folder"]

WHAT: Final = "a Hugging Face folder"
GRAPHS: Final = ("onnx/model.onnx", "model.onnx")
SAFE: Final = ("model.safetensors", "model.safetensors.index.json")
PICKLED: Final = ("pytorch_model.bin",)
LARGEST_JSON: Final = 64 * 1024 * 1024

_ELSEWHERE: Final = ("file", "url", "state_dict", "hf_hub_id", "hf_hub_filename", "custom_load")
"""What a `pretrained_cfg` may say of where weights are; the folder is where they are."""


def read_folder(folder: str | os.PathLike[str]) -> Exported:
    """The classifier in a folder as one ONNX file; one that is there is taken as it is.

    PyTorch is not needed where the folder holds `onnx/model.onnx`.

    Args:
        folder: with `config.json`, mostly `preprocessor_config.json`, and weights.

    Raises:
        BadOption: if there is no such folder.
        CannotAdopt: if it holds no image classifier that can be read.
        MissingExtra: if PyTorch or transformers is needed and not installed.
    """
    root = _root(folder)
    for name in GRAPHS:
        if (root / name).is_file():
            config = _json(root, "config.json") or {}
            graph = _whole(root / name)
            return Exported(graph, _labels(config), _told(root, config), None, None, ())
    return export(build_folder(root))


def build_folder(folder: str | os.PathLike[str]) -> Network:
    """The classifier in a folder as a PyTorch network.

    Args:
        folder: with `config.json` and `model.safetensors` or `pytorch_model.bin`, as timm or
            transformers save them.

    Raises:
        BadOption: if there is no such folder.
        CannotAdopt: if it holds no image classifier that can be read.
        MissingExtra: if PyTorch, or transformers where it is needed, is not installed.
    """
    root = _root(folder)
    config = _json(root, "config.json")
    if config is None:
        raise CannotAdopt(f"{root} has no config.json, which says what network it holds")
    if (root / "adapter_config.json").exists():
        raise CannotAdopt(
            f"{root} holds an adapter, not a whole network; merge it into its base where it was "
            f"trained (merge_and_unload), save that, and give its folder"
        )
    need("torch", WHAT)
    if isinstance(config.get("architecture"), str):
        return _timm(root, config)
    return _transformers(root, config)


def _root(folder: str | os.PathLike[str]) -> Path:
    root = Path(folder)
    if not root.is_dir():
        raise BadOption(
            f"there is no folder {root}; download the model's files into one and name that"
        )
    return root


def _json(root: Path, name: str) -> dict[str, Any] | None:
    path = root / name
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise CannotAdopt(f"{path} is too large to be a configuration")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, RetainError):
            raise
        raise CannotAdopt(f"{path} cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise CannotAdopt(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content


def _whole(path: Path) -> bytes:
    """An ONNX file with its weights inside, wherever they were."""
    import onnx

    try:
        data = path.read_bytes()
        light = onnx.load_model_from_string(data)
        if not any(each.external_data for each in light.graph.initializer):
            return data
        inside: bytes = onnx.load_model(path, load_external_data=True).SerializeToString()
    except Exception as error:  # protobuf's errors differ between versions
        raise CannotAdopt(
            f"{path} is not an ONNX file that can be read whole ({str(error)[:200]}); fetch it and "
            f"the files of weights beside it again"
        ) from error
    return inside


def _labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The labels in either library's configuration, in the order of the scores; None if unknown.

    >>> _labels({"id2label": {"1": "dog", "0": "cat"}})
    ('cat', 'dog')
    >>> _labels({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}) is None
    True
    """
    inner = _mapping(config.get("pretrained_cfg"))
    names = config.get("label_names", inner.get("label_names"))
    if isinstance(names, list) and names and all(isinstance(each, str) for each in names):
        words = _mapping(config.get("label_descriptions", inner.get("label_descriptions")))
        return tuple(str(words.get(each, each)) for each in names)
    table = config.get("id2label")
    if not isinstance(table, Mapping) or not table:
        return None
    try:
        by_number = {int(number): str(label) for number, label in table.items()}
    except (TypeError, ValueError):
        return None
    if sorted(by_number) != [*range(len(table))]:
        return None
    labels = tuple(by_number[i] for i in range(len(by_number)))
    # What transformers writes where nobody named the classes.
    unnamed = all(label == f"LABEL_{i}" for i, label in enumerate(labels))
    return None if unnamed else labels


def _told(root: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the folder says about preprocessing, in its own words."""
    told = _json(root, "preprocessor_config.json")
    if told is not None:
        return {"source": "huggingface", **told}
    inner = config.get("pretrained_cfg")
    if isinstance(inner, dict):
        return {"source": "timm", **{k: v for k, v in inner.items() if k not in _ELSEWHERE}}
    return {"source": "unknown"}


def _weights(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def _absent(root: Path) -> CannotAdopt:
    found = ", ".join(sorted(each.name for each in root.iterdir())[:12])
    return CannotAdopt(
        f"{root} holds no weights that can be read: model.safetensors or pytorch_model.bin is "
        f"wanted, or onnx/model.onnx; it holds {found or 'nothing'}"
    )


def _timm(root: Path, config: Mapping[str, Any]) -> Network:
    zoo, name = ZOOS[0], config["architecture"]
    if not zoo.has(name):
        raise CannotAdopt(
            f"{root} holds {name!r}, which this version of timm does not have; install a newer one"
        )
    path = _weights(root, (*SAFE[:1], *PICKLED))
    if path is None:
        raise _absent(root)
    inner = config.get("pretrained_cfg")
    cfg = {k: v for k, v in _mapping(inner).items() if k not in _ELSEWHERE}
    options = {**_mapping(config.get("model_args")), "pretrained_cfg": cfg}
    classes = config.get("num_classes", cfg.get("num_classes"))
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise CannotAdopt(
            f"{root / 'config.json'} says num_classes is {classes!r}: it is a feature extractor, "
            f"not a classifier"
        )
    try:
        module = zoo.create(name, classes, options)
    except Exception as error:  # the folder's arguments can be anything
        raise CannotAdopt(f"timm cannot build {name} as {root} describes it: {error}") from error
    head = zoo.head(module)
    state = read_state(path)
    tensors = fit(state, module.state_dict())
    load(module, tensors, name=state.name, network=f"timm:{name}", head=head)
    told, _ = zoo.told(name, module, options, None)
    channels, height, width = (int(each) for each in told["input_size"])
    return Network(
        module=module.eval(),
        name=f"timm:{name}",
        input_size=(channels, height, width),
        classes=classes,
        head=head,
        labels=_fitting(_labels(config), classes),
        preprocess=told,
        notes=state.notes,
        options=options,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _fitting(labels: tuple[str, ...] | None, classes: int) -> tuple[str, ...] | None:
    if labels is not None and len(labels) != classes:
        raise CannotAdopt(
            f"config.json names {len(labels)} labels for a network of {classes} classes; put in "
            f"one for each score, in their order"
        )
    return labels


def _transformers(root: Path, config: Mapping[str, Any]) -> Network:
    kind = str(config.get("model_type"))
    library = need("transformers", f"{WHAT} of the model type {kind!r}")
    safe, pickled = _weights(root, SAFE), _weights(root, PICKLED)
    if safe is not None:
        module = _pretrained(library, root, root)
    elif pickled is not None:
        # The library is never shown the pickle: the tensors alone are read, and handed on.
        from safetensors.torch import save_file

        state = read_state(pickled)
        with tempfile.TemporaryDirectory() as folder:
            whole = {name: value.contiguous().clone() for name, value in state.tensors.items()}
            save_file(whole, os.path.join(folder, SAFE[0]), metadata={"format": "pt"})
            Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
            module = _pretrained(library, Path(folder), root)
    else:
        raise _absent(root)
    told = _told(root, config)
    classes = int(module.config.num_labels)
    head = last_layer(module, classes)
    notes = []
    if told["source"] == "unknown":
        notes.append(f"{root} has no preprocessor_config.json; say how its pictures are prepared")
    if config.get("problem_type") == "multi_label_classification":
        notes.append("the network was trained to give several labels at once, not one of them")
    if head and classes_of(module.state_dict(), head) != classes:
        head = ""
    return Network(
        module.eval(),
        f"transformers:{kind}",
        _size(root, config, told),
        classes,
        head,
        _fitting(_labels(config), classes),
        told,
        tuple(notes),
        json.loads(module.config.to_json_string(use_diff=False)),
    )


def _pretrained(library: Any, folder: Path, root: Path) -> Any:
    try:
        module, found = library.AutoModelForImageClassification.from_pretrained(
            os.fspath(folder.resolve()),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            attn_implementation="eager",
        )
    except Exception as error:  # the library's errors are of many kinds
        reason = " ".join(str(error).replace(os.fspath(folder.resolve()), str(root)).split())
        raise CannotAdopt(
            f"transformers cannot build an image classifier from {root}: {reason[:300]}"
        ) from error
    missing = sorted(map(str, found.get("missing_keys") or ()))
    if missing:
        raise CannotAdopt(
            f"{root} has no weights for {', '.join(missing[:4])}"
            + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
            + ", which would stay random; it is not the folder of a trained classifier"
        )
    return module.float()


def _size(root: Path, config: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width of the input: what the pictures are cropped to, or resized to."""
    channels = config.get("num_channels", 3)
    cropped = told.get("crop_size") if told.get("do_center_crop", True) else None
    for value in (cropped, told.get("size"), config.get("image_size")):
        sides = _sides(value)
        if sides is not None:
            return int(channels), *sides
    raise CannotAdopt(
        f"{root} does not say how large its pictures are; add preprocessor_config.json with size"
    )


def _sides(value: object) -> tuple[int, int] | None:
    if isinstance(value, Mapping):
        edge = value.get("shortest_edge")
        height, width = value.get("height", edge), value.get("width", edge)
    elif isinstance(value, list | tuple) and len(value) == 2:
        height, width = value
    else:
        height = width = value
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    return None
