"""Run one Avalanche strategy on features; a script for the environment that Avalanche lives in.

It is started as ``python -P avalanche_worker.py FOLDER`` and imports nothing of retain. The folder
holds ``job.json`` and ``features.npy``; what it leaves there is described in `exchange`.

The backbone is frozen, so each strategy trains a linear layer on features of length one. Settings
are fixed beforehand, the same for every stream: nothing is chosen on test pictures or later steps.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

DEFAULTS: dict[str, Any] = {"epochs": 20, "batch": 32, "rate": 0.003, "memory": 500}


def main(folder: Path) -> None:
    """Learn every step of the job and leave the scores on the test pictures after each."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    np, torch = importlib.import_module("numpy"), importlib.import_module("torch")
    torch.set_num_threads(int(job["threads"]))
    torch.manual_seed(int(job["seed"]))
    np.random.seed(int(job["seed"]) % 2**32)
    features = np.load(folder / "features.npy").astype(np.float32)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    x = torch.from_numpy(features / np.where(lengths > 0, lengths, 1))
    y = torch.tensor(job["labels"], dtype=torch.int64)
    unknown = set(job["options"]) - set(DEFAULTS)
    if unknown:
        raise SystemExit(f"there is no option {sorted(unknown)[0]!r}; use {', '.join(DEFAULTS)}")
    settings = DEFAULTS | {k: type(DEFAULTS[k])(v) for k, v in job["options"].items()}
    learner = Learner(job["strategy"], x.shape[1], len(job["classes"]), settings)
    steps = [torch.tensor(rows) for rows in job["steps"]]
    benchmark = importlib.import_module("avalanche.benchmarks").tensors_benchmark(
        train_tensors=[(x[rows], y[rows]) for rows in steps],
        test_tensors=[(x[rows][:1], y[rows][:1]) for rows in steps],
        task_labels=[0] * len(steps),
    )
    if job["strategy"] == "icarl" and not job["once"]:
        raise SystemExit("Avalanche's iCaRL needs every class in one step only")
    # iCaRL asks the benchmark for these, and `tensors_benchmark` does not set them.
    benchmark.n_classes_per_exp = job["new"]
    benchmark.classes_order = list(range(len(job["classes"])))
    test = x[torch.tensor(job["test"])]
    base = resident()
    told = []
    for number, experience in enumerate(benchmark.train_stream):
        wall, cpu = time.perf_counter(), time.process_time()
        learner.learn(experience)
        learner.scores(test[:1])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        scores = learner.scores(test).double().numpy()
        if not np.isfinite(scores[:, job["seen"][number]]).all():
            raise SystemExit(f"after step {number} the scores are not finite")
        np.savez(folder / f"step-{number:03d}.npz", scores=scores)
        told.append(
            {
                "wall_s": wall,
                "cpu_s": cpu,
                "peak_memory_bytes": max(resident(peak=True) - base, 0),
                "stored_bytes": learner.stored_bytes(),
            }
        )
        (folder / "steps.json").write_text(json.dumps(told), encoding="utf-8")
    names = ("avalanche-lib", "torch", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    done = {"versions": versions | {"python": sys.version.split()[0]}, "settings": settings}
    (folder / "done.json").write_text(json.dumps(done), encoding="utf-8")


class Learner:
    """An Avalanche strategy over a linear layer, taught one experience at a time."""

    def __init__(self, name: str, dimension: int, classes: int, settings: dict[str, Any]) -> None:
        self.name, self.dimension, self.classes = name, dimension, classes
        self.settings = settings
        self.torch = importlib.import_module("torch")
        self.supervised = importlib.import_module("avalanche.training.supervised")
        if name not in STRATEGIES:
            raise SystemExit(f"there is no strategy {name!r}; use {', '.join(STRATEGIES)}")
        self.past: list[Any] = []
        self.strategy = None if name == "joint" else self.make()

    def learn(self, experience: Any) -> None:
        """Train on one experience; joint training starts again with all there were."""
        self.past.append(experience)
        if self.name == "joint":
            self.strategy = self.make()
            self.strategy.train(self.past)
        else:
            assert self.strategy is not None
            self.strategy.train(experience)

    def scores(self, x: Any) -> Any:
        """Scores [n, all classes]; a class that the layer does not have yet gets minus infinity."""
        strategy = self.strategy
        assert strategy is not None
        strategy.model.eval()
        with self.torch.no_grad():
            found = strategy.predict(x) if self.name == "slda" else strategy.model(x)
        missing = self.classes - found.shape[1]
        return self.torch.nn.functional.pad(found, (0, missing), value=float("-inf"))

    def stored_bytes(self) -> int:
        """Bytes of parameters, statistics and stored pictures' features."""
        strategy = self.strategy
        assert strategy is not None
        if self.name == "slda":
            held = [strategy.muK, strategy.cK, strategy.Sigma]
        else:
            held = [*strategy.model.parameters(), *strategy.model.buffers()]
        count = sum(each.numel() * each.element_size() for each in held)
        if self.name == "ewc":
            count *= 1 + 2 * len(self.past)  # importances and a copy of the weights, for each
        if self.name == "lwf":
            count *= 2
        seen = sum(len(each.dataset) for each in self.past)
        kept = {
            "joint": seen,
            "replay": min(seen, self.settings["memory"]),
            "gdumb": min(seen, self.settings["memory"]),
            "icarl": min(seen, self.settings["memory"]),
        }
        return int(count + kept.get(self.name, 0) * 4 * self.dimension)

    def make(self) -> Any:
        """The strategy over a fresh layer."""
        nn, s = self.torch.nn, self.settings
        quiet = importlib.import_module("avalanche.training.plugins").EvaluationPlugin(loggers=[])
        common = {
            "train_mb_size": s["batch"],
            "train_epochs": s["epochs"],
            "eval_mb_size": 512,
            "evaluator": quiet,
        }
        loss = nn.CrossEntropyLoss()
        if self.name == "slda":
            return self.supervised.StreamingLDA(
                slda_model=nn.Identity(),
                criterion=loss,
                input_size=self.dimension,
                num_classes=self.classes,
                # A forward pass inverts the covariance for each batch, though it learns nothing
                # from it: batches as large as a step.
                **common | {"train_epochs": 1, "train_mb_size": 100_000},
            )
        if self.name == "icarl":
            layer = nn.Linear(self.dimension, self.classes)
            return self.supervised.ICaRL(
                feature_extractor=nn.Identity(),
                classifier=layer,
                optimizer=self.torch.optim.Adam(layer.parameters(), lr=s["rate"]),
                memory_size=s["memory"],
                buffer_transform=None,
                fixed_memory=True,
                **common,
            )
        layer = importlib.import_module("avalanche.models").IncrementalClassifier(
            self.dimension, initial_out_features=1
        )
        common |= {
            "model": layer,
            "optimizer": self.torch.optim.Adam(layer.parameters(), lr=s["rate"]),
            "criterion": loss,
        }
        kind, more = STRATEGIES[self.name]
        more = {key: s["memory"] if value == "memory" else value for key, value in more.items()}
        return getattr(self.supervised, kind)(**common, **more)


STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "slda": ("StreamingLDA", {}),
    "naive": ("Naive", {}),
    "replay": ("Replay", {"mem_size": "memory"}),
    "gdumb": ("GDumb", {"mem_size": "memory"}),
    "ewc": ("EWC", {"ewc_lambda": 1000.0}),
    "lwf": ("LwF", {"alpha": 1.0, "temperature": 2.0}),
    "icarl": ("ICaRL", {}),
    "joint": ("JointTraining", {}),
}


def resident(*, peak: bool = False) -> int:
    """Bytes that this process holds, or the most it ever held."""
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
