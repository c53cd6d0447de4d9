"""Somebody's own network, given in Python, as one ONNX file."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from retain import train  # noqa: E402
from retain.errors import BadOption, CannotAdopt  # noqa: E402

from .conftest import answers, check, same, stir  # noqa: E402


class Small(nn.Module):
    def __init__(self, channels=3, classes=5, wrap=lambda x: x):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, classes)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.head(self.drop(self.body(x).mean((2, 3)))))


class Block(nn.Module):
    """He et al. 2016 (arXiv:1512.03385), section 4.2, with their shortcut A: no weights."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.stride, self.more = stride, (outside - inside) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        same = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(y + functional.pad(same, (0, 0, 0, 0, self.more, self.more)))


class CifarResNet32(nn.Module):
    """For CIFAR-10; neither timm nor torchvision has it."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(5)))
        self.layer2 = nn.Sequential(
            *(Block(16 if i == 0 else 32, 32, 1 + (i == 0)) for i in range(5))
        )
        self.layer3 = nn.Sequential(
            *(Block(32 if i == 0 else 64, 64, 1 + (i == 0)) for i in range(5))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(functional.avg_pool2d(x, x.size()[3]).flatten(1))


def test_a_network_that_no_library_has(resnet32):
    module = train.loaded(CifarResNet32(), resnet32)
    exported = train.export_module(module, 32, labels=[f"c{i}" for i in range(10)])
    check(exported, 10)
    # The same network, exported by somebody else, gives the same answers.
    theirs, _, _ = answers(str(resnet32.with_suffix(".onnx")), exported.example)
    same(exported.outputs, theirs)


def test_the_module_is_left_as_it_was():
    module = stir(Small())
    module.train()
    module.body.eval()
    module.half()
    hooks = []
    module.register_forward_hook(lambda *_: hooks.append(1))
    before = {n: t.clone() for n, t in module.state_dict().items()}
    modes = [each.training for each in module.modules()]
    exported = train.export_module(module, 16)
    check(exported, 5)
    assert [each.training for each in module.modules()] == modes
    after = module.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert module.head.weight.dtype == torch.float16
    assert module.head.weight.requires_grad


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: {"logits": x, "features": x * 2},
        lambda x: (x, x * 2),
        lambda x: [x],
        lambda x: x[:, :, None, None],
    ],
)
def test_scores_are_found_in_what_a_network_answers(wrap):
    check(train.export_module(stir(Small(wrap=wrap)), 16), 5)


def test_sizes_and_channels():
    check(train.export_module(stir(Small(1)), (12, 20), channels=1), 5, channels=1)
    with pytest.raises(CannotAdopt, match="fails on pictures of 3×16×16 numbers"):
        train.to_onnx(Small(1), 16)
    for size, channels in ((0, 3), ((16, -1), 3), (10_000, 3), (16, 0)):
        with pytest.raises(BadOption, match="cannot be; give the size"):
            train.to_onnx(Small(), size, channels)


@pytest.mark.parametrize(
    ("wrap", "match"),
    [
        (lambda x: x.mean(0), r"with \(5,\), not with scores"),
        (lambda x: x[:, :, None, None].expand(-1, -1, 2, 2), "not with scores"),
        (lambda x: {"boxes": x}, "with a dict, not with scores"),
        (lambda x: None, "with a NoneType, not with scores"),
        (lambda x: x * float("nan"), "not finite"),
        (lambda x: functional.dropout(x, 0.5, training=True), "uses chance"),
        (lambda x: x - x.mean(0), "uses chance .* or the batch"),
        (lambda x: 1 / 0, "division by zero"),
    ],
)
def test_what_is_no_classifier_is_refused(wrap, match):
    with pytest.raises(CannotAdopt, match=match):
        train.to_onnx(stir(Small(wrap=wrap)), 16)


def test_labels_are_as_many_as_scores():
    with pytest.raises(BadOption, match="4 labels were given for 5 scores"):
        train.export_module(Small(), 16, labels=list("abcd"))
    with pytest.raises(BadOption, match=r"OrderedDict, not a torch\.nn\.Module"):
        train.to_onnx(Small().state_dict(), 16)


def test_wrappers_are_taken_off():
    module = stir(Small())
    plain = train.export_module(module, 16)
    for wrapped in (nn.DataParallel(module), torch.compile(module)):
        exported = train.export_module(wrapped, 16)
        check(exported, 5)
        assert np.array_equal(exported.outputs, plain.outputs)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_is_not_a_network():
    traced = torch.jit.trace(stir(Small()), torch.zeros(1, 3, 16, 16))
    with pytest.raises(BadOption, match="a TorchScript program was given"):
        train.to_onnx(traced, 16)


def test_attention_is_written_without_pytorchs_own_kernel():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, 4)
            self.layers = nn.TransformerEncoder(layer, 2)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            return self.head(self.layers(self.patch(x).flatten(2).transpose(1, 2)).mean(1))

    before = torch.backends.mha.get_fastpath_enabled()
    exported = train.export_module(stir(Attentive()), 16)
    check(exported, 5)
    assert not exported.notes
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_the_second_exporter_takes_over(monkeypatch):
    from retain.train import exporting

    def fail(*_):
        raise RuntimeError("no such operator")

    pytest.importorskip("onnxscript")
    monkeypatch.setattr(exporting, "_by_tracing", fail)
    exported = train.export_module(stir(Small()), 16)
    check(exported, 5)
    assert "torch.export, after tracing: no such operator" in exported.notes[0]


def test_what_cannot_be_exported_says_why_and_prints_nothing(capfd):
    module = Small(wrap=torch.special.bessel_j0)
    with pytest.raises(CannotAdopt, match=r"cannot export the network to ONNX .*bessel_j0"):
        train.to_onnx(module, 16)
    assert capfd.readouterr().out == ""


def test_a_batch_that_a_trace_builds_in_is_seen():
    """The file of the first exporter would take two pictures and no other number."""
    pytest.importorskip("onnxscript")
    module = stir(Small(wrap=lambda x: x.reshape(int(x.shape[0]), 5)))
    with pytest.raises(CannotAdopt, match=r"tracing: .*; torch\.export: .*pictures"):
        train.to_onnx(module, 16)
    check(train.export_module(stir(Small(wrap=lambda x: x.reshape(x.shape[0], 5))), 16), 5)


def test_a_choice_that_a_trace_freezes_is_seen():
    """What is decided by the numbers themselves no exporter can follow; it must not pass."""
    module = stir(Small(wrap=lambda x: x if x.shape[0] < 3 else x * 2))
    with pytest.raises(CannotAdopt, match="in the company of others"):
        train.to_onnx(module, 16)
