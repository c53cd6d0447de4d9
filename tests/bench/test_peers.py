"""Toolboxes in another Python: what they answer is judged as ours is, what fails says why.

No toolbox is needed: a worker is a script, and here it is one of a few lines.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retain.bench import load_pool, make_stream, read_result
from retain.bench.judging import judged
from retain.bench.peers import PEERS, Peer, Request, exchange, run_peer
from retain.bench.peers.exchange import reason_in
from retain.bench.report import write
from retain.errors import BadOption

HERE = """
import json, sys, numpy as np
from pathlib import Path
folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
labels = np.array(job["labels"])
spent = dict(wall_s=0.5, cpu_s=0.25, peak_memory_bytes=10, stored_bytes=20)
def end(told):
    (folder / "steps.json").write_text(json.dumps(told))
    (folder / "done.json").write_text('{"versions": {"torch": "9"}, "settings": {"epochs": 1}}')
"""

# The nearest mean of what was taught so far.
NEAREST = """
x = np.load(folder / "features.npy")
test = x[job["test"]]
told, means = [], np.full((len(job["classes"]), x.shape[1]), 1e3)
for number, rows in enumerate(job["steps"]):
    for label in np.unique(labels[rows]):
        means[label] = x[rows][labels[rows] == label].mean(0)
    scores = -((test[:, None] - means[None]) ** 2).sum(2)
    {write}
    told.append(spent)
end(told)
"""
SCORES = 'np.savez(folder / f"step-{number:03d}.npz", scores=scores)'
LABELS = """found = scores.argmax(1)
    found[~np.isin(labels[job["test"]], job["seen"][number])] = -1
    np.savez(folder / f"step-{number:03d}.npz", labels=found)"""

PEER = Peer("toy", "Toy", "made up", "worker.py", "features")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 20)
    features = rng.normal(size=(6, 8))[labels] + 0.8 * rng.normal(size=(120, 8))
    path = tmp_path_factory.mktemp("pool") / "toy.npz"
    names = np.array([f"class {i}" for i in labels])
    np.savez(
        path, features=features.astype(np.float32), labels=names, train=np.arange(120) % 20 < 14
    )
    return load_pool(path)


@pytest.fixture(scope="module")
def stream(pool):
    return make_stream("class-incremental", pool, 3, first=2, step=2)


@pytest.fixture
def worker(tmp_path, monkeypatch):
    def written(text: str) -> Request:
        (tmp_path / "worker.py").write_text(HERE + textwrap.dedent(text))
        monkeypatch.setattr(exchange, "WORKERS", tmp_path)
        return Request("near", 3, Path(sys.executable), limit_s=60)

    return written


def near(pool, stream, number):
    """The slow twin of the worker, picture by picture: labels answered to the test pictures."""
    rows = [row for step in stream.steps[: number + 1] for row in step.images]
    answers = []
    for row in sorted(stream.test):
        apart = {
            label: np.linalg.norm(
                pool.features[row]
                - np.mean([pool.features[r] for r in rows if pool.labels[r] == label], axis=0)
            )
            for label in {pool.labels[r] for r in rows}
        }
        answers.append(min(apart, key=apart.get))
    return np.array(answers)


@pytest.mark.parametrize("write", [SCORES, LABELS], ids=["scores", "labels"])
def test_what_was_answered_is_judged_like_any_method(pool, stream, worker, write, tmp_path):
    request = worker(NEAREST.replace("{write}", write))
    result = run_peer(PEER, stream, pool, request, folder=tmp_path / "out")
    assert (result["status"], result["reason"]) == ("done", "")
    truth = pool.labels[sorted(stream.test)]
    for number, step in enumerate(result["steps"]):
        known = np.isin(truth, stream.order[: 2 * number + 2])
        right = near(pool, stream, number)[known] == truth[known]
        assert step["accuracy"] == pytest.approx(right.mean())
        assert (step["judged"], step["wall_s"], step["stored_bytes"]) == (known.sum(), 0.5, 20)
        assert (step["ece"] is None) == (write == LABELS)
    assert result["metrics"]["wall_s_per_update"] == 0.5
    assert result["environment"]["torch"] == "9"
    (path,) = (tmp_path / "out").iterdir()
    assert read_result(path)["metrics"] == json.loads(json.dumps(result["metrics"]))


def test_accuracies_by_task_alone(pool, stream, worker):
    text = 'end([spent | {"by_task": [0.5 + 0.1 * i for i in range(n + 1)]} for n in range(3)])'
    result = run_peer(PEER, stream, pool, worker(text))
    assert result["status"] == "done"
    assert result["steps"][2]["by_task"] == [0.5, 0.6, 0.7]
    # All tasks have the same number of test pictures here.
    assert result["steps"][2]["accuracy"] == pytest.approx(0.6)
    assert result["metrics"]["forgetting"] == pytest.approx(0.0)
    assert result["metrics"]["ece"] is None
    assert result["metrics"]["negative_flips_per_update"] is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import not_here", "ModuleNotFoundError: No module named 'not_here'"),
        ("raise SystemExit('there is no strategy near')", "there is no strategy near"),
        ("raise ValueError('first\\nsecond')", "ValueError: first"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("import os; os._exit(7)", "exit status 7"),
        ("", "ended without an error and without a result"),
        ("end([spent])", "1 steps of 3"),
        ("end([spent] * 3)", "step-000.npz"),
        ("end([spent | {'by_task': [1.0]}] * 3)", "has 2 tasks so far, and 1 figures"),
        ("(folder / 'done.json').write_text('no json')", "cannot be read"),
        ("end([spent] * 3)\nnp.savez(folder / 'step-000.npz', labels=[1])", "were asked"),
        ("end([spent] * 3)\nnp.savez(folder / 'step-000.npz', scores=np.zeros(3))", "IndexError"),
        ("end([spent] * 3)\n(folder / 'step-000.npz').write_bytes(b'PK\\3\\4')", "cannot be read"),
        ("end(3)", "TypeError"),
    ],
)  # fmt: skip
def test_what_fails_says_why(pool, stream, worker, text, reason, tmp_path):
    result = run_peer(PEER, stream, pool, worker(text), folder=tmp_path / "out")
    assert result["status"] == "failed"
    assert reason in result["reason"]
    assert result["metrics"]["average_incremental_accuracy"] is None
    page = write([result], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "What did not run" in page


def test_scores_that_are_no_numbers_fail(pool, stream, worker):
    text = NEAREST.replace("{write}", SCORES.replace("scores=scores", "scores=scores * np.nan"))
    result = run_peer(PEER, stream, pool, worker(text))
    assert result["status"] == "failed"


def test_what_does_not_end_is_stopped(pool, stream, worker):
    request = replace(worker("import time; time.sleep(60)"), limit_s=0.5)
    result = run_peer(PEER, stream, pool, request)
    assert result["status"] == "failed"
    assert "stopped after 0.5 s" in result["reason"]


def test_no_interpreter(pool, stream, worker):
    result = run_peer(PEER, stream, pool, replace(worker(""), python=Path("/no/such/python")))
    assert "/no/such/python cannot be started" in result["reason"]


@pytest.mark.parametrize("name", ["facil", "pycil", "pilot"])
def test_toolboxes_that_need_pictures_and_a_clone(pool, stream, name, tmp_path):
    result = run_peer(PEERS[name], stream, pool, Request("finetuning", 3))
    assert (result["status"], result["method"]["name"]) == ("unsupported", f"{name}:finetuning")
    assert "trains on pictures" in result["reason"]
    painted = replace(pool, images=lambda row: b"no picture")
    result = run_peer(PEERS[name], stream, painted, Request("finetuning", 3))
    assert "runs from a clone" in result["reason"]
    result = run_peer(PEERS[name], stream, painted, Request("finetuning", 3, clone=tmp_path))
    assert "is no clone" in result["reason"]


@pytest.mark.parametrize("name", ["avalanche", "avalanche-network", "facil", "pycil", "pilot"])
def test_an_environment_without_the_toolbox_is_said(pool, stream, name, tmp_path):
    """The real workers under this Python, which has none of what they import."""
    pytest.importorskip("numpy")
    for mark in PEERS[name].marks:
        (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / mark).touch()
    (tmp_path / "exps").mkdir()
    (tmp_path / "exps" / "finetune.json").write_text("{}")
    try:
        import torch  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("this Python has torch")
    painted = replace(pool, images=lambda row: b"no picture")
    result = run_peer(PEERS[name], stream, painted, Request("finetune", 3, clone=tmp_path))
    assert (result["status"], "torch" in result["reason"]) == ("failed", True), result["reason"]


@pytest.mark.parametrize("kind", ["deletions", "new-instances"])
def test_what_a_toolbox_cannot_do(pool, worker, kind):
    stream = make_stream(kind, pool, 0)
    result = run_peer(PEER, stream, pool, worker(""))
    assert result["status"] == "unsupported"
    assert "forget" in result["reason"] or "one step only" in result["reason"]


def test_another_pool_is_refused(pool, stream):
    with pytest.raises(BadOption, match="another"):
        run_peer(PEER, stream, replace(pool, digest="sha256:00"), Request("near"))


def test_the_worker_is_not_taken_for_the_toolbox():
    """A script beside which a file is named like the package would import itself."""
    for peer in PEERS.values():
        names = {each.stem for each in exchange.WORKERS.glob("*.py")}
        assert not names & {"avalanche", "approach", "trainer", "utils", "models", "datasets"}
        assert (exchange.WORKERS / peer.worker).is_file()
        text = (exchange.WORKERS / peer.worker).read_text(encoding="utf-8")
        assert "import retain" not in text
        assert "from retain" not in text


# -- what the workers change in a toolbox --------------------------------------------------------


def script(name):
    spec = importlib.util.spec_from_file_location(name, exchange.WORKERS / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


JOB = {
    "labels": [0] * 20 + [1] * 20 + [0, 1, 2],
    "steps": [list(range(40)), [42]],
    "new": [2, 1],
    "test": [40, 41, 42],
    "pictures": {str(row): f"{row}.png" for row in range(43)},
}


def test_facil_validates_on_a_tenth_of_its_own_or_on_copies():
    facil = script("facil_worker")
    apart, tasks, order = facil.split(JOB, copied=False)
    assert (tasks, order, apart["ncla"]) == ([(0, 2), (1, 1)], [0, 1, 2], 3)
    assert apart[0]["val"]["x"] == ["9.png", "19.png", "29.png", "39.png"]
    assert not set(apart[0]["val"]["x"]) & set(apart[0]["trn"]["x"])
    assert len(apart[0]["trn"]["x"]) == 36
    copied, _, _ = facil.split(JOB, copied=True)
    assert copied[0]["val"] == apart[0]["val"]
    assert copied[0]["trn"]["x"] == [f"{row}.png" for row in range(40)]
    assert copied[0]["trn"]["y"] == [0] * 20 + [1] * 20
    assert copied[1]["tst"] == {"x": ["42.png"], "y": [0]}


def test_facil_in_steps_takes_our_rates_of_every_group():
    facil = script("facil_worker")
    groups = [{"lr": 0.1}, {"lr": 0.02}]
    rates = []
    approach = SimpleNamespace(
        nepochs=8,
        _get_optimizer=lambda: SimpleNamespace(param_groups=groups),
        train_epoch=lambda t, loader: rates.append([each["lr"] for each in groups]),
    )
    facil.in_steps(approach, 1, "pictures", "validation")
    expected = [0.1] * 4 + [0.01] * 2 + [0.001] * 2
    np.testing.assert_allclose([each[0] for each in rates], expected)
    np.testing.assert_allclose([each[1] for each in rates], np.array(expected) / 5)


def test_what_is_not_training_is_not_timed():
    facil = script("facil_worker")
    watch = facil.Watch()
    slow = watch.aside(lambda number: sum(range(number)))
    assert slow(300_000) == sum(range(300_000))
    assert watch.cpu > 0
    assert watch.wall > 0
    model = SimpleNamespace(parameters=list, buffers=list)

    class Approach:
        def __init__(self):
            self.model = model

        def train(self, t):
            slow(3_000_000)
            return t

    spent = facil.timed(Approach, watch)
    assert Approach().train(5) == 5
    assert len(spent) == 1
    assert spent[0]["cpu_s"] < watch.cpu / 2


def test_pycil_has_our_epochs_milestones_rates_and_decay():
    pycil = script("pycil_worker")
    module = SimpleNamespace(
        init_epoch=200, epochs=170, init_milestones=[60, 120, 170], milestones=[60, 100, 140],
        batch_size=128, init_lr=0.1, lrate=0.1, init_weight_decay=5e-4, weight_decay=2e-4,
        num_workers=8,
    )  # fmt: skip
    given = {"epochs": 20, "batch": 32, "rate": 0.05, "weight_decay": 0.0}
    pycil.hasten(module, {}, pycil.DEFAULTS | given)
    assert vars(module) == {
        "init_epoch": 20, "epochs": 20, "init_milestones": [10, 15], "milestones": [10, 15],
        "batch_size": 32, "init_lr": 0.05, "lrate": 0.05, "init_weight_decay": 0.0,
        "weight_decay": 0.0, "num_workers": 0,
    }  # fmt: skip
    args = {"init_epoch": 7, "batch_size": 3}
    untouched = SimpleNamespace(milestones=[1], weight_decay=0.5)
    pycil.hasten(untouched, args, dict(pycil.DEFAULTS))
    assert (args, vars(untouched)) == (
        {"init_epoch": 7, "batch_size": 3},
        {"milestones": [1], "weight_decay": 0.5},
    )


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", "it ended with the exit status 1 and said nothing"),
        ("a\nFooError: x\nwarnings.warn(\n", "FooError: x"),
        ("torch.cuda.OutOfMemoryError: full\n100%|###|", "torch.cuda.OutOfMemoryError: full"),
        ("\x00\ufffd\n" * 3, "\x00\ufffd"),
        ("KeyError: " + "x" * 1000, "KeyError: " + "x" * 390),
    ],
)
def test_reasons(log, reason):
    assert reason_in(log, 1) == reason


def test_judging_is_shared():
    """One judge: a peer's numbers come from the function that judges our own methods."""
    from retain.bench.peers import answered

    assert answered.judged is judged
