"""Where tensors are, tested without a GPU: fake tensors that are on one, and fake devices.

What only a GPU can show, speed and the arithmetic of its kernels, is not tested here.
"""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from retain import incremental  # noqa: E402
from retain.bench import methods as seats  # noqa: E402
from retain.errors import BadOption  # noqa: E402
from retain.train import (  # noqa: E402
    Budget,
    Memory,
    Plan,
    cifar_resnet,
    growing,
    lessons,
    processes,
    rehearsal,
)
from retain.train import methods as known  # noqa: E402
from retain.train.data import joined  # noqa: E402
from retain.train.inference import outputs  # noqa: E402
from retain.train.loop import fit  # noqa: E402
from retain.train.methods import make  # noqa: E402
from retain.train.processes import accelerator  # noqa: E402
from retain.train.recipe import Recipe  # noqa: E402
from retain.values import Sample  # noqa: E402

from . import tiny  # noqa: E402
from .small import pictures, start  # noqa: E402


def parts(device, **tensors):
    """Something whose module has parameters of these shapes on a device."""
    made = {name: torch.ones(shape, device=device) for name, shape in tensors.items()}
    module = SimpleNamespace(named_parameters=lambda: made.items())
    return SimpleNamespace(module=module)


def test_synaptic_intelligence_subtracts_on_one_device():
    """After a lesson the network is on the GPU, and where it began was kept on the CPU."""
    with FakeTensorMode():
        after = parts("cuda", w=(3, 2))
        path = {"w": (torch.ones(3, 2), torch.ones(3, 2))}
        lesson = SimpleNamespace(carried={}, left={"path": path})
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


@pytest.fixture
def looks(monkeypatch):
    """Where networks are while they look at pictures; a GPU that is none: they only say so."""
    places, found = {}, []

    def moved(module, device, **_):
        places[id(module)] = module, str(device)
        return module

    def look(model, *given, **options):
        found.append(places.get(id(model.module), (None, "cpu"))[1])
        return outputs(model, *given, **options)

    monkeypatch.setattr(torch.nn.Module, "to", moved)
    device = torch.device("cuda")
    monkeypatch.setattr(processes, "accelerator", lambda *_: SimpleNamespace(device=device))
    parts = ("bic", "der", "exact", "icarl", "il2m", "lucir")
    for module in (lessons, rehearsal, *(getattr(known, name) for name in parts)):
        monkeypatch.setattr(module, "outputs", look)
    return found


@pytest.mark.parametrize("name", ["bic", "der++", "eeil", "il2m", "lucir"])
def test_networks_look_at_pictures_where_they_are_trained(looks, name):
    state = tiny.taught(make(name), ("abc",))
    # Exemplars without their logits: then those of the network before are taken.
    state = lessons.Taught(state.model, state.exemplars, {}, 1)
    lessons.teach(make(name), state, tiny.pictures("de"), tiny.RECIPE, memory=tiny.MEMORY)
    assert set(looks) == {"cuda"}


def test_the_judge_asks_networks_where_they_are_trained(looks, tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (32, 32)).save(content, "PNG")
    for name in ("lwf", "icarl", "il2m"):
        seat = seats.make(name, 0, 0, tmp_path, network="resnet20")
        seat._state = lessons.Taught(growing(cifar_resnet(10, 20)).grown(["a", "b"]))
        seat.scores(np.array([content.getvalue()], object))
    assert looks == ["cuda"] * 3


def test_exemplars_are_chosen_where_networks_are_trained(looks, tmp_path):
    """By another method than the last, from all that the network was trained with."""
    pool, fresh = tiny.pictures("ab", 4), tiny.pictures("c", 1)
    old = [Sample(str(row), label, False, 1, "") for row, label in enumerate(pool.labels)]
    new = Sample("new", "c", False, 2, "")

    def data(samples):
        taken = pool.take([int(each.image) for each in samples if each is not new])
        return joined([taken, fresh] if new in samples else [taken])

    memory, state = Memory(Budget(per_class=2)), lessons.Taught(tiny.net().grown(["a", "b"]))
    method = make("ft-exemplars")
    course = incremental.Next("ft-exemplars", method, memory, state, (new,), tuple(old), None)
    found = incremental.run(course, [new], tiny.RECIPE, Plan(), data, folder=tmp_path)
    assert (found.rehearsed, len(found.kept)) == (4, 5)
    assert len(looks) == 2 + 1  # for two classes before, and for the new one afterwards
    assert set(looks) == {"cuda"}
