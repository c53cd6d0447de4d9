"""Run one Avalanche strategy that trains a network; a script for the environment Avalanche is in.

It is started as ``python -P avalanche_network_worker.py FOLDER`` and imports nothing of retain;
what it reads and leaves is described in `exchange`. The network is Avalanche's own ResNet-32 for 32
pixels (`make_icarl_net`) with a head that grows. Pictures are mirrored at random. SGD begins anew
with each step of the stream, its rate falls to a tenth at half and at three quarters of the epochs,
and the memory holds `exemplars` pictures of each class, however many classes there are: Avalanche's
own ways of giving all of it to the few first classes would not be the same memory.
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

DEFAULTS: dict[str, Any] = {
    "epochs": 20,
    "batch": 64,
    "rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 2e-4,
    "exemplars": 20,
}
MILESTONES = (0.5, 0.75)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What Avalanche has no default for: as in the papers or in FACIL.
STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "naive": ("Naive", {}),
    "replay": ("Naive", {}),
    "der": ("DER", {"alpha": 0.2, "beta": 0.5}),
    "gdumb": ("Naive", {}),
    "ewc": ("EWC", {"ewc_lambda": 5000.0, "mode": "separate"}),
    "online-ewc": ("EWC", {"ewc_lambda": 50.0, "mode": "online", "decay_factor": 0.95}),
    "lwf": ("LwF", {"alpha": 1.0, "temperature": 2.0}),
    "mas": ("MAS", {}),
    "rwalk": ("Naive", {}),
    "joint": ("JointTraining", {}),
}


def main(folder: Path) -> None:
    """Learn every step of the job and leave the scores on the test pictures after each."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    np, torch = importlib.import_module("numpy"), importlib.import_module("torch")
    torch.set_num_threads(int(job["threads"]))
    torch.manual_seed(int(job["seed"]))
    np.random.seed(int(job["seed"]) % 2**32)
    unknown = set(job["options"]) - set(DEFAULTS)
    if unknown:
        raise SystemExit(f"there is no option {sorted(unknown)[0]!r}; use {', '.join(DEFAULTS)}")
    settings = DEFAULTS | {k: type(DEFAULTS[k])(v) for k, v in job["options"].items()}
    if job["strategy"] not in STRATEGIES:
        raise SystemExit(f"there is no {job['strategy']!r}; use {', '.join(STRATEGIES)}")
    steps = [(numbers(job, rows), labels(job, rows)) for rows in job["steps"]]
    mirrored = importlib.import_module("torchvision.transforms").RandomHorizontalFlip()
    benchmark = importlib.import_module("avalanche.benchmarks").tensors_benchmark(
        train_tensors=steps,
        test_tensors=[(x[:1], y[:1]) for x, y in steps],
        task_labels=[0] * len(steps),
        train_transform=mirrored,
    )
    test = numbers(job, job["test"])
    learner = Learner(job["strategy"], len(job["classes"]), settings)
    base = resident()
    told = []
    for number, experience in enumerate(benchmark.train_stream):
        wall, cpu = time.perf_counter(), time.process_time()
        learner.learn(experience)
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
                "stored_bytes": learner.stored_bytes(len(job["seen"][number])),
            }
        )
        (folder / "steps.json").write_text(json.dumps(told), encoding="utf-8")
    names = ("avalanche-lib", "torch", "torchvision", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    settings |= STRATEGIES[job["strategy"]][1]
    done = {"versions": versions | {"python": sys.version.split()[0]}, "settings": settings}
    (folder / "done.json").write_text(json.dumps(done), encoding="utf-8")


def numbers(job: dict[str, Any], rows: list[int]) -> Any:
    """Pictures as float32 [n, 3, side, side]."""
    np, torch = importlib.import_module("numpy"), importlib.import_module("torch")
    opened = importlib.import_module("PIL.Image").open
    arrays = [np.asarray(opened(job["pictures"][str(row)]).convert("RGB")) for row in rows]
    x = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


def labels(job: dict[str, Any], rows: list[int]) -> Any:
    """Positions of classes."""
    torch = importlib.import_module("torch")
    return torch.tensor([job["labels"][row] for row in rows], dtype=torch.int64)


class Learner:
    """An Avalanche strategy over a ResNet-32, taught one experience at a time."""

    def __init__(self, name: str, classes: int, settings: dict[str, Any]) -> None:
        self.name, self.classes, self.settings = name, classes, settings
        self.torch = importlib.import_module("torch")
        self.past: list[Any] = []
        self.strategy = self.make()

    def learn(self, experience: Any) -> None:
        """Train on one experience; joint training goes on with all there were."""
        self.past.append(experience)
        more = {"reset_optimizer_state": True, "drop_last": False}
        self.strategy.train(self.past if self.name == "joint" else experience, **more)

    def scores(self, x: Any) -> Any:
        """Scores [n, all classes]; a class that the head does not have yet gets minus infinity."""
        model = self.strategy.model.eval()
        with self.torch.no_grad():
            found = self.torch.cat([model(part) for part in x.split(256)])
        missing = self.classes - found.shape[1]
        return self.torch.nn.functional.pad(found, (0, missing), value=float("-inf"))

    def stored_bytes(self, seen: int) -> int:
        """Bytes of the network, what the strategy carries, and the pictures kept."""
        model = self.strategy.model
        count = sum(
            each.numel() * each.element_size() for each in [*model.parameters(), *model.buffers()]
        )
        lessons = len(self.past)
        copies = {"ewc": 1 + 2 * lessons, "online-ewc": 3, "lwf": 2, "mas": 3, "rwalk": 4}.get(
            self.name, 1
        )
        kept = self.name in ("replay", "der", "gdumb")
        pictures = self.settings["exemplars"] * seen if kept else 0
        if self.name == "joint":
            pictures = sum(len(each.dataset) for each in self.past)
        return int(count * copies + pictures * 3 * 32 * 32)

    def make(self) -> Any:
        """The strategy over a fresh network."""
        nn, s = self.torch.nn, self.settings
        supervised = importlib.import_module("avalanche.training.supervised")
        models = importlib.import_module("avalanche.models")
        plugins = importlib.import_module("avalanche.training.plugins")
        network = models.make_icarl_net(num_classes=self.classes)
        network.apply(models.initialize_icarl_net)
        if self.name != "der":  # its remembered logits need all classes from the start
            network.classifier = models.IncrementalClassifier(64, initial_out_features=1)
        optimizer = self.torch.optim.SGD(
            network.parameters(),
            lr=s["rate"],
            momentum=s["momentum"],
            weight_decay=s["weight_decay"],
        )
        falls = self.torch.optim.lr_scheduler.MultiStepLR(
            optimizer, [int(each * s["epochs"]) for each in MILESTONES]
        )
        more = [plugins.LRSchedulerPlugin(falls)]
        if self.name == "replay":
            memory = self.buffer("ClassBalancedBuffer")
            more.append(plugins.ReplayPlugin(memory.max_size, storage_policy=memory))
        if self.name == "gdumb":
            more.append(plugins.GDumbPlugin(s["exemplars"] * self.classes))
            more[-1].storage_policy = self.buffer("ClassBalancedBuffer")
        if self.name == "rwalk":
            more.append(plugins.RWalkPlugin())
        kind, own = STRATEGIES[self.name]
        strategy = getattr(supervised, kind)(
            model=network,
            optimizer=optimizer,
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=s["batch"],
            train_epochs=s["epochs"],
            eval_mb_size=256,
            evaluator=plugins.EvaluationPlugin(loggers=[]),
            plugins=more,
            **own,
        )
        if self.name == "der":
            strategy.storage_policy = self.buffer("ClassBalancedBufferWithLogits")
        return strategy

    def buffer(self, kind: str) -> Any:
        """So many pictures of each class, at random."""
        place = "supervised.der" if kind.endswith("Logits") else "storage_policy"
        made = getattr(importlib.import_module(f"avalanche.training.{place}"), kind)
        size = self.settings["exemplars"] * self.classes
        return made(max_size=size, adaptive_size=False, total_num_classes=self.classes)


def resident(*, peak: bool = False) -> int:
    """Bytes that this process holds, or the most it ever held."""
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
