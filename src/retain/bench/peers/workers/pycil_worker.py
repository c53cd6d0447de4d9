"""Run one model of PyCIL or LAMDA-PILOT on a stream; a script for the environment they run in.

It is started as ``python -P pycil_worker.py FOLDER`` and imports nothing of retain. The toolbox's
own `trainer.train` is called with its own settings for the model (``exps/<model>.json``). Replaced
are the data, the sizes of the tasks, the choice of the device (PyCIL cannot take the processor),
and the grouping of accuracies, which assumes tasks of ten classes; there the answers are noted.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
import types
from pathlib import Path
from typing import Any

DEFAULTS: dict[str, Any] = {
    "backbone": "",
    "epochs": 0,
    "batch": 0,
    "size": 0,
    "memory": 0,
    "exemplars": 0,  # of a class
    "rate": 0.0,
    "weight_decay": -1.0,
    "pretrained": "yes",
}
MILESTONES = (0.5, 0.75)  # of the epochs, where those are given
# The authors of these answer by the nearest mean of exemplars.
NEAREST_MEAN = ("icarl", "rmm-icarl")


def main(folder: Path) -> None:
    """Run the trainer and leave the labels it answered after each step."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    unknown = set(job["options"]) - set(DEFAULTS)
    if unknown:
        raise SystemExit(f"there is no option {sorted(unknown)[0]!r}; use {', '.join(DEFAULTS)}")
    options = DEFAULTS | {k: type(DEFAULTS[k])(v) for k, v in job["options"].items()}
    clone = Path(job["clone"])
    settings_path = clone / "exps" / f"{job['strategy']}.json"
    if not settings_path.exists():
        known = ", ".join(sorted(each.stem for each in settings_path.parent.glob("*.json")))
        raise SystemExit(f"there is no model {job['strategy']!r}; use {known}")
    args = json.loads(settings_path.read_text(encoding="utf-8"))
    sys.path.insert(0, str(clone))
    torch = importlib.import_module("torch")
    torch.set_num_threads(int(job["threads"]))
    backbone = "backbone_type" if (clone / "backbone").exists() else "convnet_type"
    size = options["size"] or (224 if backbone == "backbone_type" else 32)
    args |= {
        "dataset": "cifar100" if size <= 32 else "imagenet100",  # chooses the network's first layer
        "seed": [job["seed"]],
        "shuffle": False,
        "init_cls": job["new"][0],
        "increment": job["new"][1] if len(job["new"]) > 1 else job["new"][0],
        "prefix": "retain",
        "device": ["0"],
    }
    if options["backbone"]:
        args[backbone] = options["backbone"]
    if options["memory"]:
        args["memory_size"] = options["memory"]
    if options["exemplars"]:
        args |= {"memory_per_class": options["exemplars"], "fixed_memory": True}
    if options["pretrained"] == "no":
        untrained()
    manager = importlib.import_module("utils.data_manager")
    hook_data(manager, job, size)
    trainer: Any = importlib.import_module("trainer")
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    trainer._set_device = lambda given: given.update(device=[device])
    notes = Notes(folder, job)
    get_model = trainer.factory.get_model

    def get_watched(name: str, given: dict[str, Any]) -> Any:
        model = get_model(name, given)
        hasten(sys.modules[type(model).__module__], given, options)
        notes.watch(model)
        return model

    trainer.factory.get_model = get_watched
    base: Any = importlib.import_module("models.base")
    base.accuracy = notes.accuracy
    hasten(None, args, options)
    trainer.train(args)
    names = [name for name in ("torch", "torchvision", "timm", "numpy") if version(name)]
    versions = {name: version(name) for name in names} | {"python": sys.version.split()[0]}
    done = {"versions": versions, "settings": {k: str(v) for k, v in args.items()} | {"size": size}}
    (folder / "done.json").write_text(json.dumps(done), encoding="utf-8")


class Notes:
    """What was answered and what it cost, step by step."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        self.np = importlib.import_module("numpy")
        self.folder, self.job = folder, job
        self.calls: list[tuple[Any, Any]] = []
        self.told: list[dict[str, Any]] = []
        labels = self.np.array(job["labels"])[job["test"]]
        # The toolbox asks the test pictures class by class, in the order of the pool.
        self.asked = self.np.argsort(labels, kind="stable")
        self.labels = labels

    def accuracy(self, answers: Any, truth: Any, old: int, *_: Any) -> dict[str, Any]:
        """In the place of the toolbox's own: note the answers, group by the tasks of the stream."""
        np = self.np
        answers, truth = np.asarray(answers), np.asarray(truth)
        self.calls.append((answers, truth))

        def share(mine: Any) -> float:
            right = answers[mine] == truth[mine]
            return round(100 * float(right.mean()), 2) if len(right) else 0.0

        found = {"total": share(slice(None))}
        first = 0
        for count in self.job["new"]:
            mine = (truth >= first) & (truth < first + count)
            if mine.any():
                found[f"{first:02d}-{first + count - 1:02d}"] = share(mine)
            first += count
        return found | {"old": share(truth < old), "new": share(truth >= old)}

    def watch(self, model: Any) -> None:
        """Time a model's training and keep what it answers when it is evaluated."""
        before = peak()
        train, evaluate = model.incremental_train, model.eval_task

        def train_timed(data: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            done = train(data)
            self.told.append(
                {
                    "wall_s": time.perf_counter() - wall,
                    "cpu_s": time.process_time() - cpu,
                    "peak_memory_bytes": peak() - before,
                    "stored_bytes": self.stored(model),
                }
            )
            return done

        def evaluate_noted(*words: Any, **more: Any) -> Any:
            self.calls.clear()
            done = evaluate(*words, **more)
            second = self.job["strategy"] in NEAREST_MEAN and len(self.calls) > 1
            self.keep(*self.calls[1 if second else 0])
            return done

        model.incremental_train, model.eval_task = train_timed, evaluate_noted

    def keep(self, answers: Any, truth: Any) -> None:
        """Leave one step's answers."""
        order = self.asked[: len(truth)]
        if not (self.labels[order] == truth).all():
            raise SystemExit("the test pictures were asked in another order than expected")
        found = self.np.full(len(self.labels), -1)
        found[order] = answers
        number = len(self.told) - 1
        self.np.savez(self.folder / f"step-{number:03d}.npz", labels=found)
        (self.folder / "steps.json").write_text(json.dumps(self.told), encoding="utf-8")

    def stored(self, model: Any) -> int:
        """Bytes of the network and of the pictures kept."""
        network = model._network
        values = [*network.parameters(), *network.buffers()]
        files = sum(os.path.getsize(str(path)) for path in getattr(model, "_data_memory", []))
        return files + int(sum(value.numel() * value.element_size() for value in values))


def hook_data(manager: Any, job: dict[str, Any], size: int) -> None:
    """Give the toolbox's data manager the pictures and the tasks of the stream."""
    np = importlib.import_module("numpy")
    transforms = importlib.import_module("torchvision.transforms")
    train = [row for rows in job["steps"] for row in rows]

    resize = transforms.Resize((size, size))
    tensor = transforms.ToTensor()
    data = types.SimpleNamespace(
        use_path=True,
        train_trsf=[resize, transforms.RandomHorizontalFlip(), tensor],
        test_trsf=[resize, tensor],
        common_trsf=[transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))],
        class_order=list(range(len(job["classes"]))),
        train_data=np.array([job["pictures"][str(row)] for row in train]),
        train_targets=np.array([job["labels"][row] for row in train]),
        test_data=np.array([job["pictures"][str(row)] for row in job["test"]]),
        test_targets=np.array([job["labels"][row] for row in job["test"]]),
        download_data=lambda: None,
    )
    manager._get_idata = lambda *_: data
    start = manager.DataManager.__init__

    def start_with_tasks(self: Any, *words: Any, **more: Any) -> None:
        start(self, *words, **more)
        self._increments = list(job["new"])

    manager.DataManager.__init__ = start_with_tasks


def hasten(module: Any, args: dict[str, Any], options: dict[str, Any]) -> None:
    """Set epochs, batch, rate and decay where asked: PyCIL has globals, PILOT settings.

    With the epochs given, the rate falls at half and three quarters of them, as PyCIL's own
    milestones lie between 60 and 170.
    """
    epochs = options["epochs"]
    falls = [int(each * epochs) for each in MILESTONES]
    wanted = {
        ("init_epoch", "epochs", "tuned_epoch", "later_epochs", "epoch"): epochs,
        ("init_milestones", "milestones"): falls if epochs else None,
        ("batch_size",): options["batch"],
        ("init_lr", "lrate"): options["rate"],
    }
    if options["weight_decay"] >= 0:
        wanted["init_weight_decay", "weight_decay"] = options["weight_decay"]
    for names, value in wanted.items():
        if value or "weight_decay" in names:
            for name in names:
                if name in args:
                    args[name] = value
                if module is not None and hasattr(module, name):
                    setattr(module, name, value)
    if module is not None and hasattr(module, "num_workers"):
        module.num_workers = 0


def untrained() -> None:
    """Take networks without their weights: says whether a model runs, not how good it is."""
    timm: Any = importlib.import_module("timm")
    create = timm.create_model
    timm.create_model = lambda name, *words, **more: create(
        name, *words, **(more | {"pretrained": False})
    )


def version(name: str) -> str | None:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak() -> int:
    """The most bytes that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
