"""Run one approach of FACIL on a stream; a script for the environment that FACIL runs in.

It is started as ``python -P facil_worker.py FOLDER`` and imports nothing of retain. FACIL's own
`main` is called; of FACIL only the split of the data into tasks is replaced, so that they are those
of the stream, and the training of a task is timed, without the choice of exemplars and the looks at
validation pictures.

``schedule=steps`` replaces one thing more: the rate falls to a tenth at half and at three quarters
of the epochs, and the last weights count, where FACIL lowers the rate when the validation loss
stands still and takes the best weights. No picture is needed for validation then, and all are
learned from. ``validation=copy`` has FACIL validate on copies of training pictures.
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

# Settings of FACIL's command line that a stream does not decide; the rest are its defaults.
DEFAULTS: dict[str, Any] = {
    "network": "resnet32",
    "epochs": 200,
    "batch": 64,
    "size": 32,
    "exemplars": 0,
    "selection": "random",
    "rate": 0.1,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "schedule": "own",
    "validation": "own",
    "auxiliary": "",  # of DMC: a data set in $RETAIN_DATA/data, and how many of its pictures
    "auxiliary_pictures": 500,
    "more": "",  # further words for its command line: "--lamb 10"
}
CHOICES = {"schedule": ("own", "steps"), "validation": ("own", "copy")}
MILESTONES = (0.5, 0.75)
Part = dict[str, list[Any]]
VALIDATION = 10  # FACIL's own share: a tenth of the training pictures of each class


def main(folder: Path) -> None:
    """Run FACIL's `main` and leave its matrix of task-agnostic accuracies."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    unknown = set(job["options"]) - set(DEFAULTS)
    if unknown:
        raise SystemExit(f"there is no option {sorted(unknown)[0]!r}; use {', '.join(DEFAULTS)}")
    settings = DEFAULTS | {k: type(DEFAULTS[k])(v) for k, v in job["options"].items()}
    for name, known in CHOICES.items():
        if settings[name] not in known:
            raise SystemExit(f"{name} is {settings[name]!r}; give {' or '.join(known)}")
    source = Path(job["clone"]) / "src"
    sys.path.insert(0, str(source))
    importlib.import_module("torch").set_num_threads(int(job["threads"]))
    config = importlib.import_module("datasets.dataset_config").dataset_config
    size = settings["size"]
    config["retain"] = {
        "path": str(folder),
        "resize": (size, size),
        "pad": None,
        "crop": None,
        "flip": True,
        "normalize": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "class_order": list(range(len(job["classes"]))),
        "extend_channel": None,
    }
    base: Any = importlib.import_module("datasets.base_dataset")
    copied = settings["validation"] == "copy" or settings["schedule"] == "steps"
    base.get_data = lambda *_, **__: split(job, copied=copied)
    if settings["auxiliary"]:
        lay_beside(base, config, folder, settings)
    reshape_ranking()
    # IL2M asks for a name that NumPy 1.24 took away.
    vars(importlib.import_module("numpy"))["float"] = float
    if not importlib.import_module("torch").cuda.is_available():
        on_the_processor()
    watch = Watch()
    general = importlib.import_module("approach.incremental_learning").Inc_Learning_Appr
    if settings["schedule"] == "steps":
        general.train_loop = in_steps
    exemplars = importlib.import_module("datasets.exemplars_dataset").ExemplarsDataset
    exemplars.collect_exemplars = watch.aside(exemplars.collect_exemplars)
    approach = importlib.import_module("approach." + job["strategy"]).Appr
    approach.eval = watch.aside(approach.eval)
    spent = timed(approach, watch)
    words = [
        *("--datasets", "retain", "--approach", job["strategy"], "--network", settings["network"]),
        *("--num-tasks", str(len(job["steps"])), "--nepochs", str(settings["epochs"])),
        *("--batch-size", str(settings["batch"]), "--num-workers", "0", "--seed", str(job["seed"])),
        *("--results-path", str(folder / "facil"), "--exp-name", "retain"),
        *("--lr", str(settings["rate"]), "--momentum", str(settings["momentum"])),
        *("--weight-decay", str(settings["weight_decay"]), *settings["more"].split()),
    ]
    if settings["auxiliary"]:
        words += ["--aux-dataset", "auxiliary", "--aux-batch-size", str(settings["batch"])]
    if settings["exemplars"]:
        words += ["--num-exemplars-per-class", str(settings["exemplars"])]
        words += ["--exemplar-selection", settings["selection"]]
    matrix = importlib.import_module("main_incremental").main(words)[1]
    told = [
        {**spent[i], "by_task": [float(value) for value in matrix[i][: i + 1]]}
        for i in range(len(job["steps"]))
    ]
    (folder / "steps.json").write_text(json.dumps(told), encoding="utf-8")
    names = ("torch", "torchvision", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    done = {"versions": versions | {"python": sys.version.split()[0]}, "settings": settings}
    (folder / "done.json").write_text(json.dumps(done), encoding="utf-8")


def split(
    job: dict[str, Any], *, copied: bool
) -> tuple[dict[Any, Any], list[tuple[int, int]], list[int]]:
    """The tasks of the stream in the form that FACIL's `get_data` returns.

    Validation pictures are kept out of the training unless they are `copied`.
    """
    data: dict[Any, Any] = {}
    first = 0
    for number, rows in enumerate(job["steps"]):
        classes = range(first, first + job["new"][number])
        task: dict[str, dict[str, list[Any]]] = {
            name: {"x": [], "y": []} for name in ("trn", "val", "tst")
        }
        for label in classes:
            mine = [row for row in rows if job["labels"][row] == label]
            for place, row in enumerate(mine):
                held = place % VALIDATION == VALIDATION - 1
                if held:
                    add(task["val"], job, row, label - first)
                if copied or not held:
                    add(task["trn"], job, row, label - first)
        for row in job["test"]:
            if job["labels"][row] in classes:
                add(task["tst"], job, row, job["labels"][row] - first)
        data[number] = {"name": f"task-{number}", "ncla": len(classes), **task}
        first += len(classes)
    tasks = [(number, count) for number, count in enumerate(job["new"])]
    data["ncla"] = first
    return data, tasks, list(range(first))


def add(part: Part, job: dict[str, Any], row: int, label: int) -> None:
    """One picture into a part of a task."""
    part["x"].append(job["pictures"][str(row)])
    part["y"].append(label)


def lay_beside(base: Any, config: Any, folder: Path, settings: dict[str, Any]) -> None:
    """Pictures without labels as a data set of FACIL's, evenly spread over the training pictures.

    They are read by the process that trains: FACIL starts four more for them.
    """
    np = importlib.import_module("numpy")
    source = Path(os.environ.get("RETAIN_DATA", "../shared")) / "data"
    with np.load(source / f"{settings['auxiliary']}.npz", allow_pickle=False) as file:
        train = list(file["split_names"]).index("train")
        rows = np.flatnonzero(file["split"] == train)
        most = settings["auxiliary_pictures"]
        rows = rows[np.arange(most) * len(rows) // most]
        data, offsets = file["data"], file["offsets"]
    where = folder / "auxiliary"
    where.mkdir()
    part: Part = {"x": [], "y": [0] * most}
    for row in rows:
        path = where / f"{row}.png"
        path.write_bytes(data[offsets[row] : offsets[row + 1]].tobytes())
        part["x"].append(str(path))
    config["auxiliary"] = config["retain"] | {"path": str(where), "class_order": [0]}
    task = {"name": "auxiliary", "ncla": 1, "trn": part, "val": part, "tst": part}
    of_stream = base.get_data
    base.get_data = lambda path, *words, **more: (
        ({0: task, "ncla": 1}, [(0, 1)], [0])
        if path == str(where)
        else of_stream(path, *words, **more)
    )
    dmc: Any = importlib.import_module("approach.dmc")
    loaders = dmc.get_loaders
    dmc.get_loaders = lambda *words, **more: loaders(*words, **(more | {"num_workers": 0}))


def in_steps(self: Any, t: int, trn_loader: Any, val_loader: Any) -> None:
    """In the place of FACIL's epochs: the rate falls twice, and nothing is validated."""
    self.optimizer = self._get_optimizer()
    rates = [group["lr"] for group in self.optimizer.param_groups]
    for epoch in range(self.nepochs):
        past = sum(epoch >= each * self.nepochs for each in MILESTONES)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.1**past
        self.train_epoch(t, trn_loader)


def reshape_ranking() -> None:
    """LUCIR ranks columns against a row of ones, which PyTorch refuses by now: a column of them."""
    loss: Any = importlib.import_module("torch.nn").MarginRankingLoss
    forward = loss.forward
    loss.forward = lambda self, one, other, target: forward(
        self, one, other, target.reshape(one.shape)
    )


def on_the_processor() -> None:
    """BiC and DMC ask for a GPU whatever they are told; here all is where the rest is."""
    torch: Any = importlib.import_module("torch")
    torch.Tensor.cuda = lambda self, *_, **__: self
    for name in ("ones", "zeros"):
        made = getattr(torch, name)
        setattr(
            torch,
            name,
            lambda *words, made=made, **more: made(
                *words, **{k: v for k, v in more.items() if (k, v) != ("device", "cuda")}
            ),
        )


class Watch:
    """Seconds that are not the training's."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def aside(self, function: Any) -> Any:
        """The same function; what it takes is added up."""

        def done_aside(*words: Any, **more: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return function(*words, **more)
            finally:
                self.wall += time.perf_counter() - wall
                self.cpu += time.process_time() - cpu

        return done_aside


def timed(approach: Any, watch: Watch) -> list[dict[str, Any]]:
    """Time every call of an approach's `train`; the list grows by one entry a task."""
    spent: list[dict[str, Any]] = []
    before = peak()
    train = approach.train

    def train_timed(self: Any, t: int, *words: Any) -> Any:
        watch.wall = watch.cpu = 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        done = train(self, t, *words)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        kept = getattr(getattr(self, "exemplars_dataset", None), "images", [])
        files = sum(os.path.getsize(path) for path in kept if isinstance(path, str))
        values = [*self.model.parameters(), *self.model.buffers()]
        spent.append(
            {
                "wall_s": wall - watch.wall,
                "cpu_s": cpu - watch.cpu,
                "peak_memory_bytes": peak() - before,
                "stored_bytes": files + sum(v.numel() * v.element_size() for v in values),
            }
        )
        return done

    approach.train = train_timed
    return spent


def peak() -> int:
    """The most bytes that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
