"""Run by test_processes.py, once for each process: trains, and writes what came out."""

import os
import sys

import pytest

from retain.train.loop import fit
from retain.train.recipe import Recipe

from .small import pictures, start, weights

torch = pytest.importorskip("torch")

if __name__ == "__main__":
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    norm, folder = sys.argv[1] == "norm", sys.argv[2]
    rank = os.environ.get("RANK", "0")
    # 13 pictures in batches of at most 4: parts of 2 and 1 for two processes, and of 4 for one.
    data = pictures("abc", 5).take(range(13))
    recipe = Recipe(epochs=3, batch=4, rate=0.1, clip=0.5, weight_decay=0.01, device="cpu")
    half = sys.argv[3] == "half"

    def stop(done, total):
        if half and done > total / 2:
            os._exit(3)

    fitted = fit(start(norm=norm), data, recipe, validation=data, folder=folder, save_every=0.0,
                 progress=stop)  # fmt: skip
    losses = torch.tensor([each.loss for each in fitted.history], dtype=torch.float64)
    save_file({**weights(fitted.model), "losses": losses}, f"{folder}/out{rank}.safetensors")
