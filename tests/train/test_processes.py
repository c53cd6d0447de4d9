"""Two CPU processes take the steps that one takes."""

import os
import socket
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from safetensors.torch import load_file  # noqa: E402

from .conftest import ROOT  # noqa: E402

if not torch.distributed.is_available():
    pytest.skip("this PyTorch has no torch.distributed", allow_module_level=True)


def launch(count, folder, norm="plain", until="end"):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    running = []
    for rank in range(count):
        own = {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        }
        if count > 1:
            own |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                    "ACCELERATE_USE_CPU": "true"}  # fmt: skip
        command = [sys.executable, "-m", "tests.train.two_processes", norm, str(folder), until]
        running.append(subprocess.Popen(command, env={**os.environ, **own}, cwd=ROOT))
    try:
        codes = [each.wait(timeout=180) for each in running[: 1 if until == "half" else None]]
    finally:
        for each in running:
            each.kill()
            each.wait()
    if until == "end":
        assert codes == [0] * count
        return [load_file(folder / f"out{rank}.safetensors") for rank in range(count)]
    assert codes == [3]
    return None


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    for name in ("one", "two", "killed"):
        (tmp_path / name).mkdir()
    (alone,) = launch(1, tmp_path / "one")
    first, second = launch(2, tmp_path / "two")
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-5)
    launch(2, tmp_path / "killed", until="half")
    again, _ = launch(2, tmp_path / "killed")
    for name, tensor in first.items():
        assert torch.equal(again[name], tensor), name


@pytest.mark.slow
def test_batch_normalisations_agree(tmp_path):
    first, second = launch(2, tmp_path, "norm")
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name
