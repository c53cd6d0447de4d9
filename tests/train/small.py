"""Small networks and small pictures that a network can tell apart, for tests of training."""

import pytest

from retain.train.data import Data
from retain.train.growing import growing

torch = pytest.importorskip("torch")


def net(classes=3, norm=True, dropout=0.0, seed=0):
    """Two convolutions, 8 features; with batch normalisation, or without anything of the batch."""
    torch.manual_seed(seed)
    nn = torch.nn

    def block(before, after, stride):
        layers = [nn.Conv2d(before, after, 3, stride, 1)]
        return [*layers, *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU()]

    return nn.Sequential(
        *block(3, 6, 1),
        *block(6, 8, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8, classes),
    )


def start(labels="abc", **options):
    """A network with fresh weights for some classes that arrived together."""
    return growing(net(**options)).grown(list(labels), seed=1)


COLOURS = {name: ((i % 3), i // 3) for i, name in enumerate("abcdefghi")}


def pictures(labels, each=12, seed=0, side=8):
    """Noise whose colour and brightness tell the class; uint8 [n, 3, side, side]."""
    generator = torch.Generator().manual_seed(seed)
    names = [name for _ in range(each) for name in labels]
    content = torch.randint(0, 120, (len(names), 3, side, side), generator=generator)
    for row, name in enumerate(names):
        channel, level = COLOURS[name]
        content[row, channel] += 60 + 35 * level
        content[row, (channel + 1) % 3] += 30 * level
    return Data(content.to(torch.uint8), tuple(names))


def weights(model):
    module = getattr(model, "module", model)
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
