"""The training loop: what it promises about steps, averages, stopping and seeds."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from retain.errors import BadLabel, BadOption, MissingExtra, Refused  # noqa: E402
from retain.train import loop  # noqa: E402
from retain.train.augment import Augment, Views  # noqa: E402
from retain.train.data import Data, joined, split  # noqa: E402
from retain.train.inference import Judged, evaluate, outputs  # noqa: E402
from retain.train.lessons import Lesson, Memory, Taught, teach  # noqa: E402
from retain.train.loop import fit  # noqa: E402
from retain.train.methods import make  # noqa: E402
from retain.train.plan import Plan, Rule  # noqa: E402
from retain.train.recipe import Averaging, Recipe, transfer  # noqa: E402
from retain.train.rehearsal import Budget  # noqa: E402
from retain.train.sampling import batches, order  # noqa: E402
from retain.train.schedules import Cosine, Exponential, Steps, WarmUp  # noqa: E402
from retain.train.terms import CrossEntropy, Term, WeightPenalty  # noqa: E402

from .small import equal, net, pictures, start, weights  # noqa: E402


def alike(found, expected):
    """Judged in training, where the channels lie last, and afterwards: sums in another order."""
    assert found.accuracy == expected.accuracy
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def close(one, other, tolerance=1e-5):
    one, other = weights(one), weights(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance)


def by_hand(model, data, recipe, schedule=lambda epoch: 1.0, factors=None):
    """SGD with momentum and decoupled nothing, written out; no batch normalisation.

    `factors` has what the rate of each module is multiplied by, by the first part of its name.
    """
    model = model.copy()
    model.module.train()
    named = dict(model.module.named_parameters())
    speed = {name: torch.zeros_like(each) for name, each in named.items()}
    steps = len(batches(np.arange(len(data)), recipe.batch))
    for epoch in range(recipe.epochs):
        numbers = order(data.labels, "all", recipe.seed, epoch)
        for place, batch in enumerate(batches(numbers, recipe.batch)):
            pictures_, targets = (
                data.pictures[torch.from_numpy(batch)],
                model.positions(data.labels),
            )
            logits = model(recipe.views(pictures_)).logits
            loss = -logits.log_softmax(1)[
                range(len(batch)), targets[torch.from_numpy(batch)]
            ].mean()
            model.module.zero_grad()
            loss.backward()
            rate = recipe.rate * schedule(epoch + place / steps)
            norm = math.sqrt(sum(float((p.grad**2).sum()) for p in named.values()))
            scale = min(1.0, recipe.clip / norm) if recipe.clip else 1.0
            with torch.no_grad():
                for name, p in named.items():
                    decay = recipe.weight_decay if p.ndim > 1 else 0.0
                    slope = p.grad * scale + decay * p
                    speed[name] = recipe.momentum * speed[name] + slope
                    move = slope + recipe.momentum * speed[name] if recipe.nesterov else speed[name]
                    p -= rate * (factors[name.split(".")[0]] if factors else 1.0) * move
    return model


@pytest.mark.parametrize("clip", [None, 0.3])
def test_training_is_what_is_written_in_the_recipe(clip):
    model, data = start(norm=False), pictures("abc", 7)
    recipe = Recipe(epochs=3, batch=8, rate=0.2, weight_decay=0.01, clip=clip,
                    schedule=Exponential(0.5), views=Views((0.5,), (0.25,)))  # fmt: skip
    close(fit(model, data, recipe).model, by_hand(model, data, recipe, lambda e: 0.5**e), 1e-4)


@pytest.mark.parametrize("nesterov", [False, True])
def test_each_layer_learns_at_the_rate_of_the_plan(nesterov):
    model, data = start(norm=False), pictures("abc", 7)
    recipe = Recipe(epochs=3, batch=8, rate=0.1, weight_decay=0.01, clip=0.3, nesterov=nesterov,
                    schedule=Exponential(0.5), views=Views((0.5,), (0.25,)))  # fmt: skip
    plan = Plan(rate=2, layer_decay=0.5, head_rate=3, rules=(Rule("2", rate=1.5),))
    factors = {"0": 2 * 0.5**2, "2": 2 * 0.5 * 1.5, "7": 3}
    found = fit(model, data, recipe, plan=plan).model
    wanted = by_hand(model, data, recipe, lambda e: 0.5**e, factors)
    close(found, wanted, 1e-4)
    for other in (None, {**factors, "0": 1}, {**factors, "2": 1}, {**factors, "7": 1}):
        with pytest.raises(AssertionError):
            close(found, by_hand(model, data, recipe, lambda e: 0.5**e, other), 1e-4)
    other = replace(recipe, nesterov=not nesterov)
    with pytest.raises(AssertionError):
        close(fit(model, data, other, plan=plan).model, wanted, 1e-4)


def test_smoothing_is_of_the_loss_that_is_nobody_elses():
    model, data = start(norm=False), pictures("abc", 7)
    recipe = Recipe(epochs=2, batch=8, rate=0.2)
    smooth = replace(recipe, smoothing=0.3)
    found = fit(model, data, smooth).model
    assert equal(found, fit(model, data, recipe, terms=[CrossEntropy(smoothing=0.3)]).model)
    plain = fit(model, data, recipe).model
    assert not equal(found, plain)
    assert equal(plain, fit(model, data, smooth, terms=[CrossEntropy()]).model)
    taught = [
        teach(make("finetuning"), Taught(model), data, each).model for each in (recipe, smooth)
    ]
    assert equal(*taught), "methods have losses of their own"
    assert (Recipe().smoothing, transfer().smoothing) == (0, 0.1)
    for wrong in (-0.1, 1, float("nan")):
        with pytest.raises(BadOption, match="a label smoothing of"):
            Recipe(smoothing=wrong)


def test_accumulation_is_the_same_step():
    model, data = start(norm=False), pictures("abc", 7)
    whole = fit(model, data, Recipe(epochs=2, batch=10, rate=0.2))
    parts = fit(model, data, Recipe(epochs=2, batch=10, rate=0.2, accumulate=3))
    close(whole.model, parts.model)
    assert not equal(model, whole.model)
    assert parts.history[-1].loss == pytest.approx(whole.history[-1].loss, rel=1e-5)


def test_it_learns_and_tells_how():
    data = pictures("abc", 20)
    train, held = split(data, 0.25)
    seen = []
    recipe = Recipe(epochs=12, batch=15, rate=0.2, schedule=Cosine())
    fitted = fit(start(), train, recipe, validation=held, progress=lambda *at: seen.append(at))
    last = fitted.history[-1]
    assert last.validation.accuracy > 0.9
    alike(last.validation, evaluate(fitted.model, held, Views()))
    assert [each.number for each in fitted.history] == [*range(1, 13)]
    assert last.loss < fitted.history[0].loss
    assert last.terms == {"CrossEntropy": pytest.approx(last.loss)}
    assert last.rate == pytest.approx(0, abs=1e-9)
    assert seen[-1] == (12 * 45, 12 * 45)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) == 12 * 3


def test_the_seed_decides_everything_and_nothing_else_is_touched():
    data = pictures("abc", 5)
    recipe = Recipe(epochs=2, batch=6, rate=0.1,
                    augment=Augment(flip=True, pad=1, area=0.5, mixup=0.2, cutmix=1.0))  # fmt: skip
    model = start(dropout=0.5)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fit(model, data, recipe)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002
    assert equal(first.model, fit(start(dropout=0.5), data, recipe).model)
    # One batch of all pictures: the order cannot matter, and yet the seed does, through dropout.
    one = Recipe(epochs=1, batch=len(data), rate=0.1)
    plain = start(norm=False)
    close(fit(plain, data, one).model, fit(plain, data, replace(one, seed=1)).model)
    dropped = start(norm=False, dropout=0.5)
    assert not equal(fit(dropped, data, one).model, fit(dropped, data, replace(one, seed=1)).model)


def test_early_stopping_takes_the_best():
    data = pictures("abc", 6)
    held = pictures("abc", 6, seed=1)
    # The rate explodes after a good beginning.
    recipe = Recipe(epochs=30, batch=18, rate=0.1, patience=3,
                    schedule=Steps(milestones=(5,), factor=300.0))  # fmt: skip
    fitted = fit(start(), data, recipe, validation=held)
    losses = [each.validation.loss for each in fitted.history]
    assert fitted.best == int(np.argmin(losses)) + 1
    assert len(fitted.history) == min(30, fitted.best + 3) < 30
    assert evaluate(fitted.model, held, Views()).loss == pytest.approx(min(losses))
    with pytest.raises(BadOption, match="patience needs validation="):
        fit(start(), data, recipe)


@pytest.mark.parametrize(("watch", "best"), [("loss", 2), ("accuracy", 3)])
def test_what_is_watched_decides_which_epoch_is_the_best(watch, best, monkeypatch):
    losses, accuracies = [1.0, 0.5, 0.9, 0.8, 0.7], [0.5, 0.6, 0.9, 0.8, 0.9]
    judged = iter([Judged(loss, right) for loss, right in zip(losses, accuracies, strict=True)])
    monkeypatch.setattr(loop, "evaluate", lambda *_: next(judged))
    model, data = start(), pictures("abc", 4)
    recipe = Recipe(epochs=5, batch=12, rate=0.1, patience=2, watch=watch)
    fitted = fit(model, data, recipe, validation=data)
    assert (fitted.best, len(fitted.history)) == (best, best + 2)
    assert equal(fitted.model, fit(model, data, Recipe(epochs=best, batch=12, rate=0.1)).model)


def test_moving_average_is_its_formula():
    data, model = pictures("abc", 4), start()
    recipe = Recipe(epochs=3, batch=12, rate=0.3, averaging=Averaging("ema", decay=0.6))
    fitted = fit(model, data, recipe, validation=data)
    average = None
    for epoch in (1, 2, 3):
        plain = weights(fit(model, data, Recipe(epochs=epoch, batch=12, rate=0.3)).model)
        if average is None:
            average, count = plain, 1
            continue
        decay = min(0.6, (1 + count) / (10 + count))
        for name in average:
            if average[name].is_floating_point():
                average[name] = decay * average[name] + (1 - decay) * plain[name]
        count += 1
    found = weights(fitted.model)
    for name in average:
        if average[name].is_floating_point():
            torch.testing.assert_close(found[name], average[name], rtol=1e-4, atol=1e-6)
    alike(fitted.history[-1].validation, evaluate(fitted.model, data, Views()))


def test_mean_of_epochs_counts_statistics_anew():
    data, model = pictures("abc", 4), start()
    recipe = Recipe(epochs=4, batch=12, rate=0.3, averaging=Averaging("swa", start=0.5))
    found = weights(fit(model, data, recipe).model)
    # A constant rate, so that shorter runs are beginnings of the longer one.
    ends = [weights(fit(model, data, Recipe(epochs=n, batch=12, rate=0.3)).model) for n in (3, 4)]
    for name in found:
        if "running" not in name and "num_" not in name:
            torch.testing.assert_close(found[name], (ends[0][name] + ends[1][name]) / 2)
    # The first layer's statistics, by hand, over the one batch that there is.
    views = Views()(data.pictures)
    made = torch.nn.functional.conv2d(views, found["0.weight"], found["0.bias"], padding=1)
    torch.testing.assert_close(found["1.running_mean"], made.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["1.running_var"], made.var((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_mixed_precision_runs_and_learns():
    data = pictures("abc", 10)
    fitted = fit(
        start(), data, Recipe(epochs=8, batch=15, rate=0.2, precision="bf16", device="cpu")
    )
    assert evaluate(fitted.model, data, Views()).accuracy > 0.8
    assert all(each.dtype == torch.float32 for each in fitted.model.module.parameters())
    # And plain precision afterwards, in the same process.
    again = fit(start(), data, Recipe(epochs=1, batch=15))
    assert again.history[0].loss > 0


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw", "rmsprop"])
def test_optimisers(optimiser):
    data = pictures("abc", 6)
    fitted = fit(start(), data, Recipe(epochs=6, batch=9, rate=0.02, optimiser=optimiser))
    assert fitted.history[-1].loss < fitted.history[0].loss


def test_balanced_sampling_helps_the_rare():
    data = joined([pictures("a", 40), pictures("b", 3)])
    rng = order(data.labels, "balanced", 0, 0)
    assert [data.labels[i] for i in rng].count("b") in (21, 22)
    assert sorted(order(data.labels, "all", 0, 0).tolist()) == [*range(43)]
    assert not np.array_equal(order(data.labels, "all", 0, 0), order(data.labels, "all", 0, 1))
    assert not np.array_equal(order(data.labels, "all", 0, 0), order(data.labels, "all", 1, 0))
    # No picture comes a third time before each of its class came twice.
    counts = np.bincount(rng, minlength=43)
    assert set(counts[:40]) <= {0, 1}
    assert max(counts[40:]) - min(counts[40:]) <= 1
    with pytest.raises(BadOption, match="sampling 'some'"):
        order(["a"], "some", 0, 0)


def shown(folder):
    """What TensorBoard would show of a run: name → (step, value)s."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), {"scalars": 0}).Reload()
    return {
        name: [(each.step, each.value) for each in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


@pytest.mark.parametrize(("sampling", "rare"), [("all", {6}), ("balanced", {14, 15, 16})])
def test_what_is_drawn_is_what_the_recipe_says(sampling, rare):
    data = joined([pictures("a", 12), pictures("b", 3)])
    drawn = []

    class Told:
        def __len__(self):
            return len(data)

        def __getitem__(self, numbers):
            drawn.extend(data.labels[each] for each in numbers.tolist())
            return data.pictures[numbers]

    fit(start("ab"), Data(Told(), data.labels), Recipe(epochs=2, batch=5, sampling=sampling))
    assert len(drawn) == 2 * 15
    assert drawn.count("b") in rare


def test_tensorboard_files(tmp_path):
    fitted = fit(
        start(),
        pictures("abc", 4),
        Recipe(epochs=2),
        validation=pictures("abc", 2, seed=1),
        board=tmp_path,
    )
    found = shown(tmp_path)
    wanted = {
        "loss": [each.loss for each in fitted.history],
        "accuracy": [each.accuracy for each in fitted.history],
        "rate": [each.rate for each in fitted.history],
        "terms/CrossEntropy": [each.terms["CrossEntropy"] for each in fitted.history],
        "validation/loss": [each.validation.loss for each in fitted.history],
        "validation/accuracy": [each.validation.accuracy for each in fitted.history],
    }
    assert found == {
        name: [(step, pytest.approx(value, rel=1e-6)) for step, value in enumerate(values, 1)]
        for name, values in wanted.items()
    }


def test_tensorboard_shows_each_epoch_once_however_often_it_was_killed(tmp_path):
    """What a sitting without files had done was missing, and what it did over came twice."""
    pytest.importorskip("tensorboard")

    class Killed(Exception):
        pass

    def killed(share, **options):
        def kill(done, total):
            if done >= share * total:
                raise Killed

        with pytest.raises(Killed):
            fit(start(), data, recipe, folder=tmp_path / "state", progress=kill, **options)

    data, recipe, board = pictures("abc", 4), Recipe(epochs=5, batch=4), tmp_path / "board"
    killed(0.5, save_every=0.0)
    killed(0.9, save_every=1e9, board=board)  # two epochs are done and shown, but not kept
    assert [step for step, _ in shown(board)["loss"]] == [1, 2, 3, 4]
    fitted = fit(start(), data, recipe, folder=tmp_path / "state", board=board)
    assert len(fitted.history) == 5
    wanted = [(each.number, pytest.approx(each.loss, rel=1e-6)) for each in fitted.history]
    assert shown(board)["loss"] == wanted


def test_without_tensorboard_it_says_so_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    steps = []
    with pytest.raises(MissingExtra, match="pip install tensorboard"):
        fit(
            start(),
            pictures("abc", 4),
            Recipe(epochs=1),
            board=tmp_path,
            progress=lambda *given: steps.append(given),
        )
    assert not steps


def test_more_terms_add_up_and_are_told_apart():
    model, data = start(norm=False), pictures("abc", 4)
    held = {"0.weight": model.module[0].weight.detach().clone()}
    terms = [CrossEntropy(), WeightPenalty(held, strength=1e4), CrossEntropy(strength=0.5)]
    fitted = fit(model, data, Recipe(epochs=3, rate=1e-4), terms=terms)
    last = fitted.history[-1]
    assert [*last.terms] == ["CrossEntropy", "WeightPenalty", "CrossEntropy 2"]
    assert last.loss == pytest.approx(sum(last.terms.values()))
    assert last.terms["CrossEntropy 2"] == pytest.approx(last.terms["CrossEntropy"] / 2)
    free = fit(model, data, Recipe(epochs=3, rate=1e-4))
    moved = [
        float((weights(each.model)["0.weight"] - held["0.weight"]).norm())
        for each in (fitted, free)
    ]
    assert moved[0] < moved[1]


def test_what_cannot_be_trained():
    data = pictures("abc", 4)

    class Nothing(Term):
        def loss(self, step):
            return torch.zeros(())

    class Broken(Term):
        def loss(self, step):
            return step.output.logits.sum() * float("nan")

    for call, error, match in (
        (lambda: fit(start("ab"), data, Recipe()), BadLabel, "has no class 'c'"),
        (lambda: fit(start(), data.take([]), Recipe()), BadOption, "no pictures to learn from"),
        (lambda: fit(start(), data, Recipe(), terms=[Nothing()]), BadOption, "has no gradient"),
        (lambda: fit(start(), data, Recipe(), terms=[Broken()]), Refused, "became nan in epoch 1"),
        (lambda: fit(start("a"), data.take(data.of_class("a")), Recipe()), BadOption, "alone"),
        (lambda: Data(data.pictures, ("a",)), BadOption, "1 labels were given for 12 pictures"),
        (lambda: split(data, 1.0), BadOption, "a share of 1.0"),
    ):
        with pytest.raises(error, match=match):
            call()
    for wrong in (
        {"epochs": 0}, {"batch": 2.5}, {"rate": 0}, {"rate": float("nan")}, {"momentum": 1},
        {"optimiser": "lion"}, {"clip": 0}, {"patience": 0}, {"nesterov": True, "momentum": 0},
        {"precision": "half"}, {"weight_decay": -1}, {"accumulate": True}, {"device": "tpu"},
    ):  # fmt: skip
        with pytest.raises(BadOption):
            Recipe(**wrong)
    with pytest.raises(BadOption):
        Averaging("ema", decay=1.0)
    with pytest.raises(BadOption):
        WarmUp(Cosine(), 0)


def test_pictures_may_come_from_anywhere():
    """A reader of files gives what a tensor would, in any mixture with others."""

    class Reader:
        def __init__(self, tensor):
            self.tensor, self.asked = tensor, 0

        def __len__(self):
            return len(self.tensor)

        def __getitem__(self, numbers):
            self.asked += len(numbers)
            return self.tensor[numbers]

    data = pictures("abc", 5)
    reader = Reader(data.pictures)
    lazy = Data(reader, data.labels)
    recipe = Recipe(epochs=2, batch=4, rate=0.1)
    assert equal(fit(start(), lazy, recipe).model, fit(start(), data, recipe).model)
    assert reader.asked == 2 * 15
    mixed = joined([lazy.take([0, 1, 2, 3]), data.take([*range(4, 15)])])
    assert mixed.labels == data.labels
    numbers = torch.tensor([14, 0, 3, 3, 4, 9])
    assert torch.equal(mixed.pictures[numbers], data.pictures[numbers])
    assert equal(fit(start(), mixed, recipe).model, fit(start(), data, recipe).model)


def test_outputs_leave_modes_as_they_were():
    model = start(dropout=0.5)
    model.module.train()
    model.module[1].eval()
    modes = [part.training for part in model.module.modules()]
    before = weights(model)
    said = outputs(model, pictures("abc", 5).pictures, Views(), batch=4)
    assert said.logits.shape == (15, 3)
    assert said.features.shape == (15, 8)
    assert [part.training for part in model.module.modules()] == modes
    after = weights(model)
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_heads_grow_and_export():
    model = start("ab")
    grown = model.grown(["d", "c", "a", "d"])
    assert grown.classes == ("a", "b", "c", "d")
    assert grown.groups == (("a", "b"), ("c", "d"))
    assert model.grown(["a"]) is model
    views = Views()(pictures("ab", 3).pictures)
    model.module.eval()
    grown.module.eval()
    with torch.no_grad():
        logits = grown(views).logits
        torch.testing.assert_close(logits[:, :2], model(views).logits, rtol=0, atol=0)
        torch.testing.assert_close(grown.plain()(views), logits)
    assert [*grown.plain().state_dict()] == [*net().state_dict()]
    with pytest.raises(BadLabel, match="cannot be a class"):
        grown.grown([""])
    with pytest.raises(BadLabel, match="no class 'z'"):
        grown.positions(["z"])


def test_plans_and_averages_go_together():
    data = pictures("abc", 4)
    for plan in (Plan.preset("head"), Plan.preset("gradual-unfreezing"), Plan.preset("lora")):
        for averaging in (Averaging("ema"), Averaging("swa")):
            fit(start(), data, Recipe(epochs=2, averaging=averaging), plan=plan)


class Counted(str):
    """A label that counts how often it is compared or looked up."""

    asked = 0

    def __eq__(self, other):
        Counted.asked += 1
        return str.__eq__(self, other)

    def __hash__(self):
        Counted.asked += 1
        return str.__hash__(self)


@pytest.mark.parametrize("ask", ["of_class", "balanced", "bic"])
def test_work_does_not_grow_with_classes_times_pictures(ask):
    labels = tuple(Counted(f"{number % 100:03d}") for number in range(2000))
    data = Data(torch.zeros(2000, 3, 1, 1, dtype=torch.uint8), labels)
    Counted.asked = 0
    if ask == "of_class":
        found = [data.of_class(f"{number:03d}") for number in range(100)]
        assert found == [list(range(number, 2000, 100)) for number in range(100)]
        found[0].clear()
        assert len(data.of_class("000")) == 20
    elif ask == "balanced":
        assert np.bincount(order(labels, "balanced", 0, 0) % 100).tolist() == [20] * 100
    else:
        part = make("bic")._parted(
            Lesson(None, None, data, data, {}, 1, Recipe(), Memory(Budget(total=2000)))
        )
        assert list(map(len, part)) == [3800, 200]
    assert Counted.asked < 30 * 2000


def test_no_picture_is_alone_in_a_batch():
    """Batch normalisation cannot take it where maps have one place."""
    for size in range(2, 9):
        for total in range(2, 60):
            cut = batches(np.arange(total), size)
            assert np.concatenate(cut).tolist() == list(range(total))
            assert min(map(len, cut)) > 1
            assert max(map(len, cut)) <= max(size, 3)
    # As measured: 5 classes of 100 pictures, 32 at once.
    assert [len(each) for each in batches(np.arange(500), 32)] == [32] * 4 + [31] * 12
    assert [len(each) for each in batches(np.arange(1), 2)] == [1]
