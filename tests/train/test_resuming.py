"""Killed at any moment, a run goes on to the same weights, to the bit."""

import os
import random
import signal
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from retain.errors import BadOption, Damaged, ReadOnly  # noqa: E402
from retain.train import checkpoints  # noqa: E402
from retain.train.augment import Augment  # noqa: E402
from retain.train.growing import growing  # noqa: E402
from retain.train.lessons import Memory, Taught, teach  # noqa: E402
from retain.train.loop import fit  # noqa: E402
from retain.train.methods import EWC, LwF, make  # noqa: E402
from retain.train.paths import PathIntegral, RiemannianWalk  # noqa: E402
from retain.train.plan import Plan  # noqa: E402
from retain.train.recipe import Averaging, Recipe  # noqa: E402
from retain.train.rehearsal import Budget  # noqa: E402
from retain.train.replay import LogitMatch, RowCrossEntropy  # noqa: E402
from retain.train.schedules import OneCycle  # noqa: E402
from retain.train.terms import CrossEntropy, Distillation, WeightPenalty, settings  # noqa: E402

from .small import equal, net, pictures, start, weights  # noqa: E402

FULL = Recipe(
    epochs=3,
    batch=6,
    accumulate=2,
    optimiser="adamw",
    rate=0.01,
    weight_decay=0.1,
    schedule=OneCycle(),
    clip=1.0,
    sampling="balanced",
    augment=Augment(flip=True, pad=1, area=0.6, operations=1, mixup=0.2, cutmix=1.0),
    averaging=Averaging("ema", 0.9),
    patience=2,
)


class Stop(Exception):
    pass


class Whims(torch.nn.Module):
    """A layer that draws from every generator there is, as somebody's own may."""

    def forward(self, x):
        if self.training:
            x = x * (1 + 0.1 * random.random() + 0.1 * np.random.rand())  # noqa: NPY002
        return torch.nn.functional.dropout(x, 0.2, self.training)


def whimsical():
    module = net(dropout=0.3)
    module[6] = torch.nn.Sequential(module[6], Whims())
    return growing(module).grown("abc")


def run(model, recipe, folder, plan=None, stop_at=None, save_every=0.0):
    data, held = pictures("abc", 5), pictures("abc", 3, seed=1)
    steps = []

    def progress(done, total):
        steps.append(done)
        if stop_at is not None and len(steps) == stop_at:
            raise Stop

    return fit(
        model, data, recipe, plan=plan, validation=held if recipe.patience else None,
        folder=folder, save_every=save_every, progress=progress,
    )  # fmt: skip


def same_history(one, other):
    def plain(fitted):
        return [
            (e.number, e.loss, e.terms, e.accuracy, e.rate, e.validation) for e in fitted.history
        ]

    assert plain(one) == plain(other)


@pytest.mark.parametrize(
    ("recipe", "plan"),
    [
        (FULL, None),
        (Recipe(epochs=3, batch=6, rate=0.1), Plan.preset("gradual-unfreezing")),
        (Recipe(epochs=3, batch=6, rate=0.1, averaging=Averaging("swa", start=0.3)), None),
        (Recipe(epochs=3, batch=6, rate=0.1), Plan.preset("lora")),
        (Recipe(epochs=3, batch=6, rate=0.1), Plan.preset("from-scratch")),
    ],
)
def test_stopped_after_any_step(tmp_path, recipe, plan):
    whole = run(whimsical(), recipe, None, plan)
    for stop_at in (1, 2, 3, 4, 6, 8):
        folder = tmp_path / str(stop_at)
        with pytest.raises(Stop):
            run(whimsical(), recipe, folder, plan, stop_at)
        found = run(whimsical(), recipe, folder, plan)
        assert equal(found.model, whole.model), stop_at
        same_history(found, whole)
        assert found.best == whole.best


def test_stopped_again_and_again(tmp_path):
    whole = run(whimsical(), FULL, None)
    for _ in range(100):
        try:
            found = run(whimsical(), FULL, tmp_path, stop_at=2)
            break
        except Stop:
            pass
    assert equal(found.model, whole.model)
    same_history(found, whole)


def test_a_finished_run_is_read_and_not_run_again(tmp_path):
    first = run(whimsical(), FULL, tmp_path)
    steps = []
    again = fit(whimsical(), pictures("abc", 5), FULL, validation=pictures("abc", 3, seed=1),
                folder=tmp_path, progress=lambda *_: steps.append(1))  # fmt: skip
    assert equal(first.model, again.model)
    assert not steps


def test_failing_while_saving(tmp_path, monkeypatch):
    """The file is whole or the one before, whatever fails on the way."""
    whole = run(whimsical(), FULL, None)
    moved = checkpoints.Path.replace
    for fails in range(1, 8):
        count = []

        def failing(self, target, fails=fails, count=count):
            count.append(1)
            if len(count) == fails:
                raise OSError(5, "the disk is gone")
            return moved(self, target)

        folder = tmp_path / str(fails)
        monkeypatch.setattr(checkpoints.Path, "replace", failing)
        with pytest.raises(ReadOnly, match="the disk is gone"):
            run(whimsical(), FULL, folder)
        monkeypatch.undo()
        assert [each.name for each in folder.iterdir()] in ([], [checkpoints.FILE])
        assert equal(run(whimsical(), FULL, folder).model, whole.model)


def test_another_run_is_not_taken_up(tmp_path):
    recipe = Recipe(epochs=1, batch=6)
    run(start(), recipe, tmp_path)
    data = pictures("abc", 5)
    for call in (
        lambda: fit(start(), data, Recipe(epochs=1, batch=7), folder=tmp_path),
        lambda: fit(start(), data, Recipe(epochs=1, batch=6, seed=1), folder=tmp_path),
        lambda: fit(start(seed=5), data, recipe, folder=tmp_path),
        lambda: fit(start(), pictures("abc", 5, seed=3), recipe, folder=tmp_path),
        lambda: fit(start(), data, recipe, folder=tmp_path, plan=Plan.preset("head")),
        lambda: fit(start(), data.take(range(14)), recipe, folder=tmp_path),
        lambda: fit(start(), data, recipe, folder=tmp_path, validation=data),
        lambda: fit(start(), data, recipe, folder=tmp_path, terms=[CrossEntropy(smoothing=0.1)]),
    ):
        with pytest.raises(BadOption, match="belongs to another run"):
            call()
    fit(start(), data, recipe, folder=tmp_path)


def test_another_loss_is_another_run(tmp_path):
    """What a term holds counts too: another importance, another network to distil from."""
    data, recipe = pictures("abc", 5), Recipe(epochs=1, batch=6)
    held = {"0.bias": torch.zeros(6)}
    for name, one, other in (
        ("penalty", WeightPenalty(held), WeightPenalty({"0.bias": torch.ones(6)})),
        ("old", Distillation(start().frozen()), Distillation(start(seed=7).frozen())),
    ):
        fit(start(), data, recipe, terms=[CrossEntropy(), one], folder=tmp_path / name)
        with pytest.raises(BadOption, match="belongs to another run"):
            fit(start(), data, recipe, terms=[CrossEntropy(), other], folder=tmp_path / name)


def test_all_that_a_term_holds_tells_it_from_another():
    """Tensors, and terms within terms: a run that was killed went on with another loss."""
    ones, rows = torch.ones(4), torch.zeros(4, dtype=torch.int64)
    weights = {"0.bias": torch.zeros(6)}

    def walk(strength):
        return RiemannianWalk(PathIntegral(WeightPenalty(weights, strength=strength)))

    for one, same, other in (
        (RowCrossEntropy(ones), RowCrossEntropy(ones.clone()), RowCrossEntropy(0 * ones)),
        (
            LogitMatch(ones[:, None], rows, ones),
            LogitMatch(ones[:, None], rows, ones),
            LogitMatch(2 * ones[:, None], rows, ones),
        ),
        (walk(1.0), walk(1.0), walk(2.0)),
    ):
        assert settings(one) == settings(same)
        assert settings(one) != settings(other)


def test_a_lesson_is_not_taken_up_with_another_strength(tmp_path):
    recipe = Recipe(epochs=1, batch=6)
    for name, one, other in (
        ("der++", {"alpha": 0.2}, {"alpha": 0.4}),
        ("si", {"strength": 1.0}, {"strength": 2.0}),
        ("rwalk", {"strength": 1.0}, {"strength": 2.0}),
    ):
        memory, folder = Memory(Budget(total=6)), tmp_path / name
        first = Taught(growing(net()))
        first = teach(make(name, **one), first, pictures("ab", 6), recipe, memory=memory)
        arrived = pictures("cd", 6)
        teach(make(name, **one), first, arrived, recipe, memory=memory, folder=folder)
        with pytest.raises(BadOption, match="belongs to another run"):
            teach(make(name, **other), first, arrived, recipe, memory=memory, folder=folder)


def test_damaged_states_are_refused(tmp_path):
    run(start(), Recipe(epochs=1, batch=6), tmp_path)
    path = tmp_path / checkpoints.FILE
    content = path.read_bytes()
    for damaged in (
        b"",
        content[:-1],
        content[:100],
        b"x" * 50,
        content.replace(b'"retain"', b'"Retain"'),
    ):
        path.write_bytes(damaged)
        with pytest.raises(Damaged, match="remove it to begin again"):
            run(start(), Recipe(epochs=1, batch=6), tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")
def test_killed_at_ten_random_moments(tmp_path):
    """Real kills of real processes: no handler runs, no file is closed."""
    recipe = replace(FULL, epochs=8, patience=8)
    started = time.monotonic()
    whole = run(whimsical(), recipe, None)
    took = time.monotonic() - started
    kills = 0
    draw = random.Random(0)
    while kills < 10:
        child = os.fork()
        if child == 0:
            try:
                run(whimsical(), recipe, tmp_path / "a")
            finally:
                os._exit(0)
        time.sleep(draw.uniform(0.02, 0.3 * took))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += 1
        if os.WIFEXITED(status):
            # It was through before the kill: check it, and begin another.
            assert equal(run(whimsical(), recipe, tmp_path / "a").model, whole.model)
            (tmp_path / "a" / checkpoints.FILE).unlink()
    found = run(whimsical(), recipe, tmp_path / "a")
    assert equal(found.model, whole.model)
    same_history(found, whole)


@pytest.mark.parametrize("method", [EWC(strength=10.0), LwF(warm_up=1)])
def test_lessons_stopped_in_any_phase(tmp_path, method):
    recipe = Recipe(epochs=2, batch=6, rate=0.1)
    memory = Memory(Budget(per_class=2))
    first = teach(method, Taught(growing(net())), pictures("ab", 4), recipe, memory=memory)

    def lesson(folder, stop_at=None):
        steps = []

        def progress(*_):
            steps.append(1)
            if len(steps) == stop_at:
                raise Stop

        return teach(method, first, pictures("cd", 4), recipe, memory=memory, folder=folder,
                     save_every=0.0, progress=progress)  # fmt: skip

    whole = lesson(None)
    for stop_at in (1, 2, 3, 4):
        with pytest.raises(Stop):
            lesson(tmp_path / str(stop_at), stop_at)
        found = lesson(tmp_path / str(stop_at))
        assert equal(found.model, whole.model)
        assert found.carried.keys() == whole.carried.keys()
        for name, tensor in whole.carried.items():
            assert torch.equal(tensor, found.carried[name])
    assert weights(whole.model)
