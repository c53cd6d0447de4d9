"""Whole lessons of methods, through the only runner, beside slow float64 twins of their papers.

A twin is given what a lesson showed, batch by batch, and the rows that new classes began with; all
else, every step of every lesson, it works out on its own.
"""

from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from retain.train import loop  # noqa: E402
from retain.train.data import Data  # noqa: E402
from retain.train.growing import growing  # noqa: E402
from retain.train.lessons import Memory, Taught, teach  # noqa: E402
from retain.train.methods import make  # noqa: E402
from retain.train.paths import PathIntegral, RiemannianWalk  # noqa: E402
from retain.train.recipe import Recipe  # noqa: E402
from retain.train.rehearsal import Budget  # noqa: E402
from retain.train.terms import WeightPenalty  # noqa: E402

from ..reference import consolidation, replaying  # noqa: E402
from ..reference.perceptron import features, logits  # noqa: E402
from . import tiny  # noqa: E402

LESSONS = ("ab", "bcde", "fg")  # one class comes again, and the parts of the head differ in size
CLASSES = "abcdefg"
KNOWN = (0, 2, 5)
# Weight decay moves weights against the task's gradient too, so that a path may lose.
RECIPE = Recipe(epochs=4, batch=4, rate=0.1, momentum=0.6, weight_decay=0.1, device="cpu")
HOW = {"rate": 0.1, "momentum": 0.6, "shrink": 0.1}
MEMORY = Memory(Budget(total=8))


def net():
    torch.manual_seed(3)
    nn = torch.nn
    layers = {"flat": nn.Flatten(), "body": nn.Linear(12, 5), "bend": nn.Tanh()}
    return growing(nn.Sequential(OrderedDict(layers, head=nn.Linear(5, 2))))


def numbers(data, rows=None):
    """Pictures as the network sees them, float64 [n, 12], and targets."""
    rows = range(len(data)) if rows is None else rows
    seen = RECIPE.views(data.pictures[torch.tensor(list(rows), dtype=torch.int64)])
    labels = [CLASSES.index(data.labels[row]) for row in rows]
    return seen.double().numpy().reshape(len(rows), 12), np.array(labels, int)


def arrays(tensors):
    return {name: each.detach().double().numpy().copy() for name, each in tensors.items()}


def near(found, wanted, share=1e-4):
    """The same names, and numbers that differ by float32's rounding alone."""
    assert set(found) == set(wanted)
    for name, each in wanted.items():
        np.testing.assert_allclose(
            found[name], each, rtol=0, atol=share * max(np.abs(each).max(), 1e-6), err_msg=name
        )


@dataclass
class Reel:
    """What a run began with, its terms, and the pictures and targets of each step."""

    start: dict
    terms: list
    steps: list = field(default_factory=list)


@pytest.fixture
def reels(monkeypatch):
    """A reel of each run."""
    found, take = [], loop._Run._take

    def told(run, epoch, batch, parts):
        if not run.step:
            found.append(Reel(arrays(run.model.module.state_dict()), run.terms))
        found[-1].steps.append(numbers(run.data, batch))
        return take(run, epoch, batch, parts)

    monkeypatch.setattr(loop._Run, "_take", told)
    return found


@dataclass
class Scene:
    """A lesson: what was known before and after, what arrived, and what its run showed."""

    number: int
    before: Taught
    after: Taught
    fresh: Data
    reel: Reel

    @property
    def among(self):
        """The columns of the classes that arrive."""
        return np.unique(numbers(self.fresh)[1])

    def resting(self):
        """The parts of the head without a class that arrives."""
        kept = [set(group) & set(self.fresh.labels) for group in self.after.model.groups]
        return [f"head.{place}.{kind}" for place, each in enumerate(kept) if not each
                for kind in ("weight", "bias")]  # fmt: skip

    def begun(self, weights):
        """A twin's weights, with the new rows as they began."""
        return {**self.reel.start, **weights}


def scenes(method, reels, recipe=RECIPE):
    state = Taught(net())
    for number, names in enumerate(LESSONS):
        fresh = tiny.pictures(names, 4, seed=number, side=2)
        before, state = state, teach(method, state, fresh, recipe, memory=MEMORY)
        yield Scene(number, before, state, fresh, reels[-1])
    assert len(reels) == len(LESSONS)
    assert state.model.classes == tuple(CLASSES)


def weights_of(state):
    return arrays(state.model.module.state_dict())


def material(scene, exemplars):
    """Which classes compete, which parts rest, and what of the weights no penalty holds."""
    if not exemplars:
        return scene.among, {"resting": scene.resting()}
    return np.arange(len(scene.after.model.classes)), {"free": ("head.",)}


# -- methods that hold weights --------------------------------------------------------------------


@pytest.mark.parametrize("exemplars", [False, True])
@pytest.mark.parametrize(("strength", "decay"), [(1.0, 0.5), (10.0, 1.0)])
def test_mas_is_its_twin(reels, strength, decay, exemplars):
    """Omega is the mean of |∂‖F‖²/∂θ|, picture by picture; the second strength is cut."""
    method = make("mas", strength=strength, decay=decay, exemplars=exemplars)
    weights, omega = {}, {}
    for scene in scenes(method, reels):
        among, more = material(scene, exemplars)
        weights, omega = consolidation.mas(
            scene.begun(weights), omega, scene.reel.steps, numbers(scene.fresh)[0], among,
            strength=strength, decay=decay, **HOW, **more,
        )  # fmt: skip
        near(weights_of(scene.after), weights)
        near(arrays(scene.after.carried), omega)


@pytest.mark.parametrize("exemplars", [False, True])
@pytest.mark.parametrize(("strength", "damping"), [(0.4, 0.01), (40.0, 0.1)])
def test_si_is_its_twin(reels, strength, damping, exemplars):
    """Omega adds up, lesson by lesson, the path integral of the task's gradient over Δ² + ξ."""
    method = make("si", strength=strength, damping=damping, exemplars=exemplars)
    weights, omega = {}, {}
    for scene in scenes(method, reels):
        among, more = material(scene, exemplars)
        weights, omega = consolidation.si(
            scene.begun(weights), omega, scene.reel.steps, among,
            strength=strength, damping=damping, **HOW, **more,
        )  # fmt: skip
        near(weights_of(scene.after), weights)
        near(arrays(scene.after.carried), omega)


@pytest.mark.parametrize("exemplars", [False, True])
@pytest.mark.parametrize(("strength", "every", "decay"), [(1.0, 3, 0.7), (8.0, 5, 0.9)])
def test_rwalk_is_its_twin(reels, strength, every, decay, exemplars):
    """The running Fisher information, the scores, and the penalty of both."""
    own = {"strength": strength, "every": every, "decay": decay, "damping": 1e-3}
    method = make("rwalk", **own, exemplars=exemplars)
    weights, fisher, scores = {}, {}, {}
    for scene in scenes(method, reels):
        among, more = material(scene, exemplars)
        weights, fisher, scores = consolidation.rwalk(
            scene.begun(weights), fisher, scores, scene.reel.steps, among, **own, **HOW, **more
        )
        near(weights_of(scene.after), weights)
        wanted = {f"fisher.{name}": each for name, each in fisher.items()}
        wanted |= {f"score.{name}": each for name, each in scores.items()}
        near(arrays(scene.after.carried), wanted, 1e-3)


@pytest.mark.parametrize("exemplars", [False, True])
@pytest.mark.parametrize("name", ["si", "rwalk"])
def test_the_penalty_is_in_the_path_that_takes_it_off(reels, name, exemplars):
    """Beside it, its gradient would count as the task's."""
    for scene in scenes(make(name, exemplars=exemplars), reels):
        terms = scene.reel.terms
        assert not [each for each in terms if isinstance(each, WeightPenalty)]
        (path,) = (each for each in terms if isinstance(each, PathIntegral | RiemannianWalk))
        held = (path if name == "si" else path.path).penalty
        if not scene.number:
            assert held is None
            continue
        assert isinstance(held, WeightPenalty)
        begun = scene.before.model.module.state_dict()
        rows = {each for each in begun if exemplars and each.startswith("head.")}
        assert set(held.reference) == set(held.importance) == set(begun) - rows
        near(arrays(held.reference), {each: arrays(begun)[each] for each in held.reference}, 0)


# -- methods that keep pictures -------------------------------------------------------------------


def test_wa_is_its_twin(reels):
    """Trained by equation 4, and then the newest rows as long, in the mean, as the older ones."""
    weights = {}
    for scene in scenes(make("wa", temperature=3.0), reels):
        known, old = KNOWN[scene.number], weights
        past = known / len(scene.after.model.classes)  # n/(n + m)
        weights = replaying.wa(
            scene.begun(old), old, scene.reel.steps, past=past, temperature=3.0, known=known, **HOW
        )
        if known:
            trained, weights = weights, replaying.aligned(weights)
            place = f"head.{scene.number}.weight"
            assert abs(weights[place][0, 0] / trained[place][0, 0] - 1) > 0.01, "nothing to align"
        near(weights_of(scene.after), weights)


def test_wa_aligns_only_where_a_class_is_new(reels):
    state = Taught(net())
    weights = {}
    for number, names in enumerate(("ab", "c", "ab")):
        fresh = tiny.pictures(names, 4, seed=number, side=2)
        state = teach(make("wa"), state, fresh, RECIPE, memory=MEMORY)
        known, old = (0, 2, 3)[number], weights
        past = 1 - len(names) / len(state.model.classes)
        weights = replaying.wa(
            {**reels[-1].start, **old}, old, reels[-1].steps,
            past=past, temperature=2.0, known=known, **HOW,
        )  # fmt: skip
        weights = replaying.aligned(weights) if names == "c" else weights
        near(weights_of(state), weights)


def test_icarl_is_its_twin(reels):
    """Each class a question of its own, old answers for old classes; the nearest mean decides."""
    weights = {}
    asked = tiny.pictures(CLASSES, 2, seed=50, side=2)
    method = make("icarl")
    for scene in scenes(method, reels):
        old = weights
        weights = replaying.icarl(
            scene.begun(old), old, scene.reel.steps, known=KNOWN[scene.number], **HOW
        )
        near(weights_of(scene.after), weights)
        wanted = replaying.nearest_mean(weights, *numbers(scene.after.exemplars), numbers(asked)[0])
        found = method.scores(scene.after, asked.pictures, RECIPE.views).numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
        # Features differ in length, or nothing would tell unit ones from others.
        kept = [features(weights, each) for each in numbers(scene.after.exemplars)[0]]
        lengths = np.linalg.norm(kept, axis=1)
        assert max(lengths) > 1.02 * min(lengths)


def test_derpp_is_its_twin(reels):
    """Equation 6, with logits that speak of no class that came after their picture."""
    recipe, own = replace(RECIPE, batch=100, epochs=8), {"alpha": 0.7, "beta": 0.4}
    weights, memory = {}, {}
    for scene in scenes(make("der++", **own), reels, recipe):
        fresh, kept = numbers(scene.fresh), numbers(scene.before.exemplars)
        z = [memory[x.tobytes()] for x in kept[0]]
        weights = replaying.derpp(scene.begun(weights), fresh, kept, z, steps=8, **own, **HOW)
        # As many old pictures as new ones in a step, so that each is there as often as the others.
        assert {len(x) for x, _ in scene.reel.steps} == {len(fresh[0]) * (2 if z else 1)}
        assert not z or len(fresh[0]) % len(z) == 0
        near(weights_of(scene.after), weights)
        now = numbers(scene.after.exemplars)[0]
        memory = {x.tobytes(): memory.get(x.tobytes(), logits(weights, x)) for x in now}
        wanted = np.full((len(now), len(scene.after.model.classes)), np.nan)
        for row, x in enumerate(now):
            wanted[row, : len(memory[x.tobytes()])] = memory[x.tobytes()]
        np.testing.assert_allclose(scene.after.carried["logits"], wanted, rtol=0, atol=1e-5)
        assert np.isnan(wanted).any() == bool(scene.number)
