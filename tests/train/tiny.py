"""A network of eight features, pictures that it can tell apart, and lessons of three classes."""

import pytest

from retain.train.data import Data
from retain.train.growing import growing
from retain.train.lessons import Lesson, Memory, Taught, teach
from retain.train.recipe import Recipe
from retain.train.rehearsal import Budget
from retain.train.terms import Step

torch = pytest.importorskip("torch")

RECIPE = Recipe(epochs=2, batch=8, rate=0.05, device="cpu")
MEMORY = Memory(Budget(total=12))


def net(kind="linear", seed=0, norm=True):
    torch.manual_seed(seed)
    nn = torch.nn
    layers = [nn.Conv2d(3, 6, 3, 1, 1), *([nn.BatchNorm2d(6)] if norm else []), nn.ReLU()]
    layers += [nn.Conv2d(6, 8, 3, 2, 1), *([nn.BatchNorm2d(8)] if norm else []), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    return growing(module, kind=kind)


def pictures(names, each=10, seed=0, side=8):
    """Noise; the channel and its brightness tell the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = [name for _ in range(each) for name in names]
    content = torch.randint(0, 110, (len(labels), 3, side, side), generator=generator)
    for row, name in enumerate(labels):
        place = ord(name) - ord("a")
        content[row, place % 3] += 50 + 40 * (place // 3)
    return Data(content.clamp(max=255).to(torch.uint8), tuple(labels))


def taught(method, lessons, recipe=RECIPE, memory=MEMORY, norm=True, **options):
    state = Taught(net(method.head, norm=norm))
    for number, names in enumerate(lessons):
        fresh = names if isinstance(names, Data) else pictures(names, seed=number)
        state = teach(method, state, fresh, recipe, memory=memory, **options)
    return state


def lesson(names_before, fresh, exemplars=None, carried=None, kind="linear", memory=MEMORY):
    """A second lesson, whose network has moved a little from that before."""
    before = net(kind).grown(list(names_before), seed=1)
    model = before.grown(fresh.classes, seed=2)
    kept = exemplars if exemplars is not None else pictures(names_before, 3, seed=9)
    return Lesson(before.frozen(), model, fresh, kept, carried or {}, 1, RECIPE, memory)


def step(model, data, numbers=None, views=RECIPE.views):
    content = views(data.pictures[torch.arange(len(data))])
    places = torch.arange(len(data)) if numbers is None else numbers
    return Step(model, model(content), content, model.positions(data.labels), None, places, 0)


def moved(model, seed=5, size=0.05):
    """A copy somewhere near."""
    twin = model.copy()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in twin.module.parameters():
            each += size * torch.randn(each.shape, generator=generator)
    return twin


def weights(model):
    return {name: each.clone() for name, each in model.module.state_dict().items()}


def same(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
