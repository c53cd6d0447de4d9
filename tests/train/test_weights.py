"""Weights are read without running them, found under any usual wrapping, and fit or are refused."""

import io
import os
import zipfile

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from retain import train  # noqa: E402
from retain.errors import BadOption, CannotAdopt  # noqa: E402

from .conftest import stir  # noqa: E402


def net():
    return stir(
        torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3),
            torch.nn.BatchNorm2d(4),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(4, 5),
        )
    )


def empty():
    made = net()
    with torch.no_grad():
        for tensor in made.parameters():
            tensor.zero_()
    return made


def equal(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


class Bomb:
    """What an attacker pickles: unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.ckpt", "w.safetensors", "w"])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_dressed_as_weights_is_never_run(tmp_path, name, old, nested):
    path, made = tmp_path / name, tmp_path / "made"
    content = Bomb(made)
    if nested:
        content = {"state_dict": net().state_dict(), "optimizer": Bomb(made)}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(CannotAdopt, match=r"asks for (posix|nt)\.mkdir.*nothing in it was run"):
        train.read_state(path)
    assert not made.exists()
    # The bomb is a real one.
    with path.open("rb") as file:
        torch.load(file, weights_only=False)
    assert made.exists()


def test_a_whole_pickled_module_is_refused_without_advice_to_trust_it(tmp_path):
    torch.save(net(), tmp_path / "whole.pth")
    with pytest.raises(CannotAdopt, match=r"state_dict\(\)") as caught:
        train.read_state(tmp_path / "whole.pth")
    assert "weights_only=False" not in str(caught.value)


def test_an_old_pytorch_reads_no_pickles(tmp_path, monkeypatch):
    torch.save(net().state_dict(), tmp_path / "w.pth")
    save_file(net().state_dict(), tmp_path / "w.safetensors")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(CannotAdopt, match=r"PyTorch 2\.5\.1\+cpu cannot read .* safely"):
        train.read_state(tmp_path / "w.pth")
    assert train.read_state(tmp_path / "w.safetensors").tensors


def test_other_files_are_named_for_what_they_are(tmp_path):
    for name, content, match in (
        ("m.onnx", b"\x08\x07\x12\x07pytorch", "adopt it as it is"),
        ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(50), "read as tensors alone|other frameworks"),
        ("m.pb", b"\x0a\x0bsaved_model", "export the classifier to ONNX"),
        ("w.pth", b"version https://git-lfs.github.com/spec/v1\noid", "placeholder of Git LFS"),
        ("w.pth", b"", "neither"),
        ("w.pth", b"cos\nsystem\n(S'true'\ntR.", "neither"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CannotAdopt, match=match):
            train.read_state(tmp_path / name)
    with pytest.raises(BadOption, match="cannot be read"):
        train.read_state(tmp_path / "absent.pth")
    with pytest.raises(BadOption, match="cannot be read"):
        train.read_state(tmp_path)
    with pytest.raises(BadOption, match="cannot be read"):
        train.read_state("a\0b")


def _saved(kind):
    file = io.BytesIO()
    if kind == "zip":
        torch.save(net().state_dict(), file)
    elif kind == "old":
        torch.save(net().state_dict(), file, _use_new_zipfile_serialization=False)
    else:
        from safetensors.torch import save

        return save(net().state_dict())
    return file.getvalue()


SAVED = {kind: _saved(kind) for kind in ("zip", "old", "safetensors")}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_in_words(tmp_path_factory, data):
    content = bytearray(SAVED[data.draw(st.sampled_from(sorted(SAVED)))])
    cut = data.draw(st.integers(0, len(content)))
    if data.draw(st.booleans()):
        del content[cut:]
    for _ in range(data.draw(st.integers(0, 8))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("w") / "w.pth"
    path.write_bytes(content)
    try:
        module = train.loaded(empty(), path)
    except CannotAdopt:
        return
    # What is still accepted has all its names and shapes; only numbers may have changed.
    assert module.state_dict().keys() == net().state_dict().keys()


def test_a_zip_file_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(CannotAdopt, match="cannot be read as tensors alone"):
        train.read_state(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3, "best": torch.tensor(0.5)},
        lambda s: {"model": s, "optimizer": {"state": {0: torch.ones(2)}}},
        lambda s: {"model_state_dict": s},
        lambda s: {"ema": s},
        lambda s: {"model_ema": {"module": s, "decay": 0.9}},
        lambda s: {"model": {"state_dict": s}},
    ],
)
@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "_orig_mod.", "backbone.", "module._orig_mod.", "model.net."],
)
def test_usual_wrappings_are_taken_off(tmp_path, wrap, prefix):
    state = {prefix + name: tensor for name, tensor in net().state_dict().items()}
    torch.save(wrap(state), tmp_path / "w.pth")
    assert equal(train.loaded(empty(), tmp_path / "w.pth"), net())


def test_prefixes_that_are_the_networks_own_stay(tmp_path):
    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = net()

    torch.save({f"module.{n}": t for n, t in Wrapped().state_dict().items()}, tmp_path / "w.pth")
    target = Wrapped()
    target.model = empty()
    assert equal(train.loaded(target, tmp_path / "w.pth"), Wrapped())


def test_averages_are_mentioned_and_taken_when_asked_for(tmp_path):
    averaged = stir(net(), seed=7)
    content = {"model": net().state_dict(), "model_ema": averaged.state_dict()}
    torch.save(content, tmp_path / "w.pth")
    state = train.read_state(tmp_path / "w.pth")
    assert "key='model_ema'" in state.notes[0]
    assert equal(train.loaded(empty(), tmp_path / "w.pth"), net())
    assert equal(train.loaded(empty(), tmp_path / "w.pth", key="model_ema"), averaged)
    with pytest.raises(BadOption, match="no part 'x'; it has 'model', 'model_ema'"):
        train.read_state(tmp_path / "w.pth", key="x")


@pytest.mark.parametrize("content", [{}, [], {"epoch": 3}, {"a": {"b": 1}}, torch.ones(3), None, 5])
def test_files_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CannotAdopt, match="holds no weights by name"):
        train.read_state(tmp_path / "w.pth")


def test_all_tensors_or_none():
    whole = net().state_dict()
    for change, match in (
        (lambda s: s.pop("4.bias"), r"missing: 4\.bias"),
        (lambda s: s.update({"9.weight": torch.ones(2)}), r"left over: 9\.weight"),
        (lambda s: s.update({"0.bias": torch.ones(7)}), r"0\.bias is 7 instead of 4"),
        (lambda s: s.update({"0.bias": torch.ones(4, dtype=torch.int8)}), "int8 instead of"),
    ):
        state = dict(whole)
        change(state)
        target = empty()
        with pytest.raises(CannotAdopt, match=match):
            train.loaded(target, state)
        assert equal(target, empty())


def test_counters_do_not_matter_and_half_precision_is_widened():
    state = {n: t.half() if t.is_floating_point() else t for n, t in net().state_dict().items()}
    state = {n: t for n, t in state.items() if "num_batches" not in n}
    module = train.loaded(
        empty(), {**state, "total_ops": torch.ones(1), "n_averaged": torch.ones(1)}
    )
    assert module[0].weight.dtype == torch.float32
    assert torch.equal(module[0].weight, net()[0].weight.half().float())


def test_by_order(tmp_path):
    renamed = {f"layer_{n}": t for n, t in net().state_dict().items()}
    torch.save(renamed, tmp_path / "w.pth")
    with pytest.raises(CannotAdopt, match="missing"):
        train.loaded(empty(), tmp_path / "w.pth")
    assert equal(train.loaded(empty(), tmp_path / "w.pth", match="order"), net())
    with pytest.raises(BadOption, match="match is 'shape'"):
        train.loaded(empty(), tmp_path / "w.pth", match="shape")


def test_order_is_refused_where_it_proves_nothing(tmp_path):
    # Sorted by name, a bias comes before its weight, and in a normalisation both have one shape.
    save_file({f"x{n}": t for n, t in net().state_dict().items()}, tmp_path / "w.safetensors")
    with pytest.raises(CannotAdopt, match="has lost the order"):
        train.loaded(empty(), tmp_path / "w.safetensors", match="order")
    for order, match in (
        (lambda items: items[:-1], "7 tensors and the network 8"),
        (lambda items: [items[0], items[1], items[3], items[2], *items[4:]], "another kind"),
        (lambda items: [*items[:-2], ("l.weight", torch.ones(5, 9)), items[-1]], "5×9 instead"),
    ):
        items = [(f"x{n}", t) for n, t in net().state_dict().items()]
        with pytest.raises(CannotAdopt, match=match):
            train.loaded(empty(), dict(order(items)), match="order")
