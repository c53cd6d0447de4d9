"""Reading somebody's ONNX file without trusting it.

Whatever the file is, the answer is a whole model held in memory or `CannotAdopt`. Nothing outside
the model's own folder is opened, and nothing is unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from retain.errors import CannotAdopt
from retain.vision.files import reason, shown, why_not_a_file

__all__ = ["LARGEST_MODEL", "parse_model", "read_model"]

LARGEST_MODEL: Final = 2**31 - 2**20
"""In bytes, weights included: a Protocol Buffers message ends at 2 GiB."""

DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator domains that a plain ONNX Runtime knows."""

_EXPORT: Final = "export the network to ONNX first (torch.onnx.export, tf2onnx, skl2onnx)"
_OTHERS: Final = (
    (0, b"\x80", f"it is a Python pickle, which is never opened; {_EXPORT}"),
    (0, b"PK\x03\x04", f"it is a zip archive, as PyTorch and Keras save them; {_EXPORT}"),
    (0, b"\x89HDF", f"it is an HDF5 file, as Keras saves them; {_EXPORT}"),
    (4, b"TFL3", "it is a TensorFlow Lite file; convert it with tf2onnx --tflite"),
    (4, b"ORTM", "it is in ONNX Runtime's own format (.ort); use the .onnx file it came from"),
    (0, b"\x1f\x8b", "it is a gzip archive; unpack it first"),
    (0, b"version https://git-lfs", "it is a Git LFS pointer; fetch the file itself: git lfs pull"),
)


def read_model(path: str | os.PathLike[str]) -> bytes:
    """A model file as one self-contained message: external weights inside, functions inlined.

    Args:
        path: an `.onnx` file of any framework; its external data must lie in the same folder.

    Raises:
        CannotAdopt: if it is not a whole ONNX model that a plain ONNX Runtime can run.
    """
    import onnx

    name = shown(path)
    try:
        data = _read(os.fspath(path), name)
        model = onnx.ModelProto.FromString(data)
        del data
        _embed(model, Path(path))
        content: bytes = _checked(model).SerializeToString()
    except CannotAdopt as error:
        raise CannotAdopt(f"{name} cannot be adopted: {error}") from error
    except MemoryError as error:
        raise CannotAdopt(f"{name} cannot be adopted: there is not enough memory") from error
    except Exception as error:  # protobuf's own errors have no name in common
        raise CannotAdopt(
            f"{name} cannot be adopted: it is not a whole ONNX file "
            f"({str(error)[:200] or type(error).__name__}); get a new copy of it"
        ) from error
    return content


def parse_model(data: bytes) -> Any:
    """The `ModelProto` in the bytes that `read_model` returns; other bytes are checked as there.

    Raises:
        CannotAdopt: if they are not a whole, self-contained ONNX model.
    """
    import onnx

    _sniff(data)
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's own errors have no name in common
        raise CannotAdopt(f"it is not a whole ONNX file ({error}); get a new copy") from error
    if any(tensor.data_location == tensor.EXTERNAL for tensor in _tensors(model)):
        raise CannotAdopt("its weights are in another file; give the path of the .onnx file")
    return _checked(model)


def _read(path: str, name: str) -> bytes:
    problem = why_not_a_file(path)
    if problem is not None:
        hint = "; give the .onnx file itself" if os.path.isdir(path) else ""
        raise CannotAdopt(f"{problem.replace('picture', 'model')}{hint}")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            size = os.fstat(handle).st_size
            if size > LARGEST_MODEL:
                raise CannotAdopt(
                    f"it has {size:,} bytes, more than the {LARGEST_MODEL:,} that one ONNX file "
                    f"can hold; adopt a smaller network"
                )
            head = file.read(4096)
            _sniff(head)
            return head + file.read()
    except OSError as error:
        raise CannotAdopt(f"it cannot be read: {reason(error)}") from error


def _sniff(head: bytes) -> None:
    """Say what a file is that is plainly not ONNX."""
    if not head:
        raise CannotAdopt("the file is empty (0 bytes); get a new copy of it")
    for start, magic, what in _OTHERS:
        if head.startswith(magic, start):
            raise CannotAdopt(what)
    # An ONNX message has small binary field keys from its first byte on; text has none.
    if all(byte in b"\t\n\f\r" or 32 <= byte != 127 for byte in head[:512]):
        raise CannotAdopt(f"it is text, not ONNX (it begins with {head[:24]!r}); {_EXPORT}")


def _checked(model: Any) -> Any:
    """The model with its functions inlined, if it has a graph of known operators."""
    import onnx
    from onnx import inliner

    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise CannotAdopt("it holds no ONNX graph; it is cut short, or another kind of file")
    if model.functions:
        model = inliner.inline_local_functions(model)
    model.ClearField("training_info")
    strange = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for node in _messages(model.graph, onnx.NodeProto)
            if node.domain not in DOMAINS
        }
    )
    if strange:
        raise CannotAdopt(
            f"it uses operators that a plain ONNX Runtime does not know: {', '.join(strange[:8])}; "
            f"export it without custom operators"
        )
    return model


def _embed(model: Any, path: Path) -> None:
    """Bring external weights inside; every place is checked before the first is opened."""
    outside = [t for t in _tensors(model) if t.data_location == t.EXTERNAL]
    if not outside:
        return
    folder = path.resolve().parent if not path.is_symlink() else path.parent.resolve()
    places = [_place(tensor, folder) for tensor in outside]
    total = sum(length for _, _, length in places)
    if total + model.ByteSize() > LARGEST_MODEL:
        raise CannotAdopt(
            f"its weights have {total:,} bytes, more than the {LARGEST_MODEL:,} that one ONNX "
            f"file can hold; adopt a smaller network"
        )
    for tensor, (file, offset, length) in zip(outside, places, strict=True):
        try:
            with open(file, "rb", opener=_no_links) as stream:
                stream.seek(offset)
                tensor.raw_data = stream.read(length)
        except OSError as error:
            raise CannotAdopt(f"its data file {shown(file)}: {reason(error)}") from error
        tensor.ClearField("external_data")
        tensor.data_location = tensor.DEFAULT


def _no_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _place(tensor: Any, folder: Path) -> tuple[Path, int, int]:
    """Where a tensor's bytes are: a file inside the folder, offset and length."""
    told = {each.key: each.value for each in tensor.external_data}
    location = told.get("location", "")
    where = f"its weights {tensor.name!r} lie in {location!r}"
    if not location or "\0" in location:
        raise CannotAdopt(f"its weights {tensor.name!r} name no file that they are in")
    # Resolved with every link followed, so that neither ".." nor a link leads out.
    file = Path(os.path.realpath(folder / location))
    if os.path.isabs(location) or ".." in Path(location).parts or folder not in file.parents:
        raise CannotAdopt(
            f"{where}, outside the model's folder, which is never read; "
            f"put the file beside the model, not as a link, and export or convert it again"
        )
    problem = why_not_a_file(os.fspath(file))
    if problem is not None:
        raise CannotAdopt(f"{where}: {problem}; put that file beside the model")
    size = file.stat().st_size
    try:
        offset = int(told.get("offset", 0))
        length = int(told.get("length", size - offset))
    except ValueError:
        raise CannotAdopt(f"{where}, at an offset that is no number; export it again") from None
    if offset < 0 or length < 0 or offset + length > size:
        raise CannotAdopt(
            f"{where}, bytes {offset:,} to {offset + length:,}, but the file has {size:,}; "
            f"get a new copy of both files"
        )
    return file, offset, length


def _tensors(model: Any) -> Iterator[Any]:
    import onnx

    return _messages(model, onnx.TensorProto)


def _messages(message: Any, kind: type) -> Iterator[Any]:
    """Every message of a kind anywhere inside another: no field can hide one."""
    import onnx

    if isinstance(message, kind):
        yield message
    if isinstance(message, onnx.TensorProto):
        return  # holds no message of interest, and listing its fields would copy its numbers
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for each in [value] if hasattr(value, "ListFields") else value:
            yield from _messages(each, kind)
