import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("RETAIN_DATA", ROOT.parent / "shared"))


def stir(module, seed=0):
    """Random weights nowhere zero: fresh heads and last normalisations often are, and hide bugs."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # Other buffers, such as the masks of windows, are part of the architecture.
        learned = [(n, t) for n, t in module.named_buffers() if "running_" in n]
        for name, tensor in [*module.named_parameters(), *learned]:
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.1 * noise.abs())
            elif tensor.ndim >= 2:
                # Keeps the size of what goes through, at whatever depth.
                tensor.copy_(noise * (1.4 / tensor[0].numel() ** 0.5))
            elif name.endswith("weight"):
                tensor.copy_(1 + 0.1 * noise)
            else:
                tensor.copy_(0.1 * noise)
    return module.eval()


def answers(onnx, pictures):
    """What ONNX Runtime makes of float32 [n, c, h, w], and the names of input and outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    (entrance,) = session.get_inputs()
    exits = session.get_outputs()
    found = session.run([exits[0].name], {entrance.name: pictures})[0]
    return found, entrance.name, [each.name for each in exits]


def same(found, wanted):
    """Equal up to float32's rounding through a deep network."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4 * max(np.abs(wanted).max(), 1e-6))


def check(exported, classes, channels=3):
    """The file answers as the network did, for three pictures at once and for each alone."""
    example, outputs = exported.example, exported.outputs
    assert example.dtype == outputs.dtype == np.float32
    assert example.shape[:2] == (3, channels)
    assert outputs.shape == (3, classes)
    assert outputs.std() > 0, "a network that answers nothing proves nothing"
    assert np.abs(outputs[0] - outputs[1]).max() > 0
    found, entrance, exits = answers(exported.onnx, example)
    assert (entrance, exits) == ("input", ["logits"])
    same(found, outputs)
    for one in range(3):
        same(answers(exported.onnx, example[one : one + 1])[0], outputs[one : one + 1])


@pytest.fixture
def resnet32():
    path = SHARED / "weights" / "akamaster_resnet32_cifar10.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is missing; set RETAIN_DATA to the folder that holds weights/")
    return path


@pytest.fixture(autouse=True)
def _one_thread():
    """Small networks are ten times slower where threads wait for each other on a busy machine."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    if torch:
        torch.set_num_threads(1)
    yield
    if torch:
        torch.set_num_threads(before)


@pytest.fixture
def steps(monkeypatch):
    """The steps that this process takes, by the name of their phase and their number in it."""
    from retain.train import loop

    found, take = [], loop._Run._take

    def told(run, *given):
        found.append((run.checkpoint._path.parent.name, run.step))
        return take(run, *given)

    monkeypatch.setattr(loop._Run, "_take", told)
    return found
