"""The residual networks for pictures of 32 pixels, from the paper: He 2016 (1512.03385), §4.2.

A 3×3 convolution, then three stages of n blocks with 16, 32 and 64 maps on sides of 32, 16 and 8,
the mean over the last maps, and a linear layer: 6n + 2 layers with weights. Every shortcut is free
of parameters (option A of §3.3): where the maps get smaller and more, it takes every other pixel
and adds maps of zeros, half of them before and half behind. Tensors have the names under which
such networks are usually published. Many toolboxes have projections there instead (option B): a
1×1 convolution and a normalisation. Without shortcuts it is the "plain" network of the same paper.

The scale of the last batch normalisation of each block begins at zero (Goyal 2017, 1706.02677,
§5.1): every block begins as its shortcut alone, and few steps are enough to train all of them. In
320 steps on 500 pictures of five classes that makes 10 to 31 points (docs/log.md).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, Literal

from retain.errors import BadOption
from retain.train.backbones import Network
from retain.train.needs import Later

__all__ = ["cifar_resnet"]

torch: Final = Later("torch", "building a network")


def cifar_resnet(
    classes: int,
    depth: int = 32,
    seed: int = 0,
    *,
    shortcuts: bool | Literal["projections"] = True,
    signed: bool = False,
    zero_init: bool = True,
) -> Network:
    """An untrained residual network for 32 × 32 pixels; 0.46 million parameters at depth 32.

    Args:
        classes: how many it tells apart.
        depth: 6n + 2: 20, 32, 44, 56 or 110 in the paper.
        seed: of the weights, which begin as in He 2015.
        shortcuts: True for option A, without parameters; ``"projections"`` for option B; False
            for the plain network, which has the weights of option A and no skip connections.
        zero_init: the last scale of a block with a shortcut begins at zero, not at one.
        signed: the last block has no ReLU at its end, so that features have both signs and cosines
            of them go from −1 to 1 (LUCIR, §4.1).

    Raises:
        BadOption: if the depth is not 6n + 2, or there are no classes.
        MissingExtra: if PyTorch is not installed.
    """
    if depth < 8 or depth % 6 != 2:
        raise BadOption(f"a residual network of {depth} layers is not 6n + 2; give 20, 32, 44, …")
    if shortcuts not in (True, False, "projections"):
        raise BadOption(f"shortcuts is {shortcuts!r}; give True, False, or 'projections'")
    if classes < 1:
        raise BadOption(f"classes is {classes}; give a number from 1 on")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _network()(depth // 6, classes, shortcuts, signed, zero_init).eval()
    kind = "b" if shortcuts == "projections" else ""
    name = f"retain:{'resnet' if shortcuts else 'plain'}{depth}{kind}"
    return Network(
        module,
        name,
        (3, 32, 32),
        classes,
        "linear",
        None,
        {"source": "unknown"},
        (f"{name} is untrained: its weights are random",),
    )


@cache
def _network() -> Any:
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(
            self,
            before: int,
            maps: int,
            stride: int,
            shortcut: bool | str,
            signed: bool,
            zero_init: bool,
        ) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(before, maps, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(maps)
            self.conv2 = nn.Conv2d(maps, maps, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(maps)
            self.stride, self.more = stride, maps - before
            self.shortcut, self.signed, self.zero_init = bool(shortcut), signed, zero_init
            self.projection = None
            if shortcut == "projections" and self.more:
                self.projection = nn.Sequential(
                    nn.Conv2d(before, maps, 1, stride, bias=False), nn.BatchNorm2d(maps)
                )
            if shortcut and zero_init:
                nn.init.zeros_(self.bn2.weight)

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            if self.projection is not None:
                x = self.projection(x)
            elif self.shortcut and self.more:
                half = self.more // 2
                x = x[:, :, :: self.stride, :: self.stride]
                x = nn.functional.pad(x, (0, 0, 0, 0, half, self.more - half))
            y = y + x if self.shortcut else y
            return y if self.signed else y.relu()

    class Residual(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(
            self,
            blocks: int,
            classes: int,
            shortcuts: bool | str,
            signed: bool,
            zero_init: bool,
        ) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            before = 16
            for stage, maps in enumerate((16, 32, 64), 1):
                layers = []
                for place in range(blocks):
                    stride = 2 if stage > 1 and place == 0 else 1
                    last = stage == 3 and place == blocks - 1
                    ends = signed and last
                    layers.append(Block(before, maps, stride, shortcuts, ends, zero_init))
                    before = maps
                setattr(self, f"layer{stage}", nn.Sequential(*layers))
            self.linear = nn.Linear(64, classes)
            for part in self.modules():
                if isinstance(part, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(part.weight)

        def forward(self, x: Any) -> Any:
            x = self.bn1(self.conv1(x)).relu()
            x = self.layer3(self.layer2(self.layer1(x)))
            return self.linear(x.mean((2, 3)))

    return Residual
