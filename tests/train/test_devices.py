"""Where tensors are, tested without a GPU: fake tensors that are on one, and fake devices.

What only a GPU can show, speed and the arithmetic of its kernels, is not tested here.
"""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from retain.errors import BadOption  # noqa: E402
from retain.train.loop import fit  # noqa: E402
from retain.train.methods import make  # noqa: E402
from retain.train.processes import accelerator  # noqa: E402
from retain.train.recipe import Recipe  # noqa: E402

from .small import pictures, start  # noqa: E402


def parts(device, **tensors):
    """Something whose module has parameters of these shapes on a device."""
    made = {name: torch.ones(shape, device=device) for name, shape in tensors.items()}
    module = SimpleNamespace(named_parameters=lambda: made.items())
    return SimpleNamespace(module=module)


def test_synaptic_intelligence_subtracts_on_one_device():
    """After a lesson the network is on the GPU, and the one before it on the CPU."""
    with FakeTensorMode():
        before, after = parts("cpu", w=(3, 2)), parts("cuda", w=(3, 2))
        lesson = SimpleNamespace(model=before, carried={}, left={"path": {"w": torch.ones(3, 2)}})
        found = make("si").after(lesson, after)
        assert found["w"].device.type == "cpu"
        lesson.carried = found
        assert make("si").after(lesson, after)["w"].shape == (3, 2)


def test_without_cuda_it_is_the_cpu(monkeypatch):
    """Apple's GPU has no float64, in which losses are added up."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    assert accelerator("no", "auto").device.type == "cpu"
    assert accelerator("no", "cpu").device.type == "cpu"


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_half_precision_without_a_gpu_is_refused_in_words(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadOption, match="fp16 needs a GPU"):
        fit(start(), pictures("abc"), Recipe(epochs=1, precision="fp16", device=device))
