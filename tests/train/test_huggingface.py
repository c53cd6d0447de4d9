"""Folders in the hub's layout, as timm and transformers save them."""

import json
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

import retain  # noqa: E402
from retain import train  # noqa: E402
from retain.errors import CannotAdopt, MissingExtra  # noqa: E402
from retain.vision import decode, prepare, shipped_pictures  # noqa: E402

from .conftest import check, same, stir  # noqa: E402

LABELS = ["mug", "plate", "bowl", "spoon"]


def compare(exported, module):
    """With the module that was saved, in Python."""
    with torch.no_grad():
        wanted = module(torch.from_numpy(exported.example))
    same(exported.outputs, getattr(wanted, "logits", wanted).numpy())
    check(exported, exported.outputs.shape[1], exported.example.shape[1])


@pytest.fixture(params=["model.safetensors", "pytorch_model.bin"])
def timm_folder(tmp_path, request):
    from timm.models import save_for_hf

    module = stir(timm.create_model("mobilenetv3_small_050", num_classes=4))
    config = {"label_names": LABELS, "label_descriptions": {"mug": "a mug"}}
    save_for_hf(module, tmp_path, config, safe_serialization=request.param.endswith("safetensors"))
    assert (tmp_path / request.param).is_file()
    return tmp_path, module


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_timm(timm_folder):
    folder, module = timm_folder
    built = train.build_folder(folder)
    assert (built.name, built.classes) == ("timm:mobilenetv3_small_050", 4)
    assert built.labels == ("a mug", "plate", "bowl", "spoon")
    assert built.preprocess["source"] == "timm"
    assert built.preprocess["input_size"] == [3, 224, 224]
    compare(train.read_folder(folder), module)


def test_timms_arguments_and_sizes(tmp_path):
    from timm.models import save_for_hf

    arguments = {"img_size": 64, "depth": 2}
    module = stir(timm.create_model("vit_tiny_patch16_224", num_classes=3, **arguments))
    save_for_hf(module, tmp_path, {}, model_args=arguments)
    exported = train.read_folder(tmp_path)
    assert exported.example.shape == (3, 3, 64, 64)
    assert exported.labels is None
    compare(exported, module)


def test_timm_folders_that_lie(timm_folder):
    folder, _ = timm_folder
    for changes, match in (
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "checkpoint_path of timm is not"),
        ({"model_args": {"nonsense": 1}}, "timm cannot build"),
        ({"num_classes": 0, "model_args": {}}, "feature extractor"),
        ({"num_classes": 3}, "of another shape"),
        ({"num_classes": 4, "label_names": ["a"]}, "1 labels for a network of 4"),
        ({"architecture": "mobilenetv9"}, "this version of timm does not have"),
        ({"architecture": "hf-hub:a/b"}, "this version of timm does not have"),
    ):
        edit(folder, **changes)
        with pytest.raises(CannotAdopt, match=match):
            train.read_folder(folder)
    edit(folder, architecture="mobilenetv3_small_050")
    for each in folder.glob("*model.*"):
        each.unlink()
    with pytest.raises(CannotAdopt, match=r"holds no weights that can be read.*config\.json"):
        train.read_folder(folder)


# -- transformers -----------------------------------------------------------------------------

SMALL = {
    "ViT": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "image_size": 32, "patch_size": 8},
    "DeiT": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 32, "image_size": 32, "patch_size": 8},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
    "ConvNext": {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
    "MobileNetV2": {"image_size": 32, "depth_multiplier": 0.35},
    "Swin": {"image_size": 32, "patch_size": 4, "embed_dim": 12, "depths": [1, 1],
             "num_heads": [2, 2], "window_size": 4},
}  # fmt: skip
PROCESSORS = {
    "ViT": {"size": {"height": 32, "width": 32}},
    "DeiT": {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}},
    "ResNet": {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
    "ConvNext": {"size": {"shortest_edge": 32}},
    "MobileNetV2": {"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": True},
    "Swin": {"size": 32, "crop_size": 99, "do_center_crop": False},
}


def make(kind, folder):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        **SMALL[kind],
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    module = stir(getattr(transformers, f"{kind}ForImageClassification")(config))
    module.save_pretrained(folder)
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **PROCESSORS[kind]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return module, processor


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_transformers(kind, tmp_path):
    module, processor = make(kind, tmp_path)
    exported = train.read_folder(tmp_path)
    assert exported.labels == tuple(LABELS)
    assert exported.preprocess == {"source": "huggingface", **processor}
    assert exported.example.shape == (3, 3, 32, 32)
    compare(exported, module)


def test_a_pickle_beside_a_configuration_is_read_as_tensors(tmp_path):
    module, _ = make("ViT", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    compare(train.read_folder(tmp_path), module)

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    torch.save({**module.state_dict(), "x": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CannotAdopt, match="nothing in it was run"):
        train.read_folder(tmp_path)
    assert not (tmp_path / "made").exists()


def test_code_in_a_folder_is_not_run(tmp_path):
    make("ViT", tmp_path)
    (tmp_path / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'made')!r})\n")
    automatic = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}
    edit(tmp_path, auto_map=automatic)
    train.read_folder(tmp_path)
    edit(tmp_path, model_type="evil")
    with pytest.raises(CannotAdopt, match="transformers cannot build an image classifier"):
        train.read_folder(tmp_path)
    assert not (tmp_path / "made").exists()


def test_parts_that_would_stay_random_are_refused(tmp_path):
    module, _ = make("ViT", tmp_path)
    state = {n: t for n, t in module.state_dict().items() if not n.startswith("classifier.")}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CannotAdopt, match=r"no weights for classifier\.bias, classifier\.weight"):
        train.read_folder(tmp_path)


def test_transformers_folders_that_lie(tmp_path):
    make("ViT", tmp_path)
    edit(tmp_path, id2label={"0": "a", "1": "b"}, num_labels=2)
    with pytest.raises(CannotAdopt, match="transformers cannot build"):
        train.read_folder(tmp_path)
    make("ViT", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    built = train.build_folder(tmp_path)
    assert built.preprocess == {"source": "unknown"}
    assert any("preprocessor_config.json" in note for note in built.notes)
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(CannotAdopt):
        train.read_folder(tmp_path)


def test_without_transformers_the_line_is_told(tmp_path, monkeypatch):
    import sys

    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"model type 'vit'.*pip install transformers$"):
        train.read_folder(tmp_path)


# -- and back to PyTorch -----------------------------------------------------------------------


def given_back(folder, tmp_path, module):
    """Adopted, exported as PyTorch, loaded again: the original's own answers."""
    with retain.adopt(tmp_path / "mine", folder, labels=LABELS, preprocess="imagenet") as shop:
        shop.export(tmp_path / "out.safetensors", format="torch")
        rule = shop._session.extractor.rule
    network = train.load_exported(tmp_path / "out.safetensors")
    x = torch.from_numpy(np.concatenate([prepare(decode(f), rule) for f in shipped_pictures(4)]))
    with torch.no_grad():
        wanted = module(x)
        wanted = getattr(wanted, "logits", wanted).softmax(1)
        # Features are rounded once to 14 bits.
        np.testing.assert_allclose(network(x), wanted, atol=5e-3)
    return network


@pytest.mark.slow
def test_a_timm_folder_is_given_back(timm_folder, tmp_path_factory):
    folder, module = timm_folder
    with torch.no_grad():
        module.classifier.weight *= 0.1
    from timm.models import save_for_hf

    save_for_hf(module, folder, {"label_names": LABELS}, safe_serialization=True)
    network = given_back(folder, tmp_path_factory.mktemp("back"), module)
    assert type(network.network).__name__ == "MobileNetV3"


@pytest.mark.slow
def test_a_transformers_folder_is_given_back(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=4,
    )
    module = stir(transformers.ViTForImageClassification(config))
    folder = tmp_path / "vit"
    module.save_pretrained(folder)
    network = given_back(folder, tmp_path, module)
    assert type(network.network).__name__ == "ViTForImageClassification"
