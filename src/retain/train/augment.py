"""What is done to pictures on their way into the network, a batch at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, final

from retain.errors import BadOption
from retain.train.needs import Later

__all__ = ["PLAIN", "Augment", "Views"]

torch: Final = Later("torch", "training a network")
transforms: Final = Later("torchvision.transforms.v2", "augmenting pictures")


@final
@dataclass(frozen=True, slots=True)
class Views:
    """How numbers become what the network was trained on.

    Attributes:
        mean: of each channel, in 0..1; one number for all channels, or one for each.
        std: likewise.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, pictures: Any) -> Any:
        """Float32 [n, c, h, w], from uint8 0..255 or from floats 0..1."""
        numbers = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures.float()
        mean = torch.tensor(self.mean, device=numbers.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=numbers.device).view(-1, 1, 1)
        return (numbers - mean) / std


@final
@dataclass(frozen=True, slots=True)
class Augment:
    """Random changes that keep the label, and mixtures that share it; all off unless asked for.

    Attributes:
        flip: mirror every other picture, left to right.
        pad: cut a picture of the same size out of one with so many pixels of padding on every side
            (He 2016, §4.2: 4 for 32 pixels).
        area: cut out a part with a share of the area between this and 1, and an aspect between 3/4
            and 4/3, and enlarge it to the whole (Szegedy 2015, §6: 0.08); 1 for off.
        operations: how many random operations RandAugment makes with a picture; 0 for off. Needs
            uint8.
        magnitude: how strong these are, 0 to 30 (RandAugment: 9).
        mixup: α of mixup (Zhang 2018, §3: 0.1 to 0.4); 0 for off.
        cutmix: α of CutMix (Yun 2019, §3.1: 1); 0 for off. With both, each batch has one of them.

    Raises:
        BadOption: if a value is impossible.
    """

    flip: bool = False
    pad: int = 0
    area: float = 1.0
    operations: int = 0
    magnitude: int = 9
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.area <= 1:
            raise BadOption(f"area is {self.area}; give the least share of a picture, up to 1")
        if not 0 <= self.magnitude <= 30:
            raise BadOption(f"magnitude is {self.magnitude}; give 0 to 30")
        for name in ("pad", "operations", "mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise BadOption(f"{name} is {getattr(self, name)}; give 0 or more")

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed with each other."""
        return bool(self.mixup or self.cutmix)

    def change(self, pictures: Any, views: Views) -> Any:
        """One random version of each picture, as the network takes it.

        Args:
            pictures: uint8 or float [n, c, h, w].
            views: makes the numbers of it; what is padded is zero after it, as in He 2016.
        """
        if self.operations:
            randomly = transforms.RandAugment(self.operations, self.magnitude)
            pictures = torch.stack([randomly(each) for each in pictures])
        result = views(pictures)
        if self.area < 1:
            result = _zoomed(result, self.area)
        if self.pad:
            result = _shifted(result, self.pad)
        if self.flip:
            mirrored = (torch.rand(len(result)) < 0.5).to(result.device)
            result = torch.where(mirrored[:, None, None, None], result.flip(3), result)
        return result

    def mix(self, pictures: Any, targets: Any, classes: int) -> tuple[Any, Any]:
        """Pictures mixed with each other, and the shares of the classes in each.

        Args:
            pictures: float [n, c, h, w].
            targets: int64 [n].
            classes: how many there are.

        Returns:
            The mixtures, and float [n, classes], or None where nothing is mixed.
        """
        ways = [alpha for alpha in (self.mixup, self.cutmix) if alpha]
        if not ways or len(pictures) < 2:
            return pictures, None
        cut = bool(self.cutmix) and (not self.mixup or bool(torch.rand(()) < 0.5))
        alpha = self.cutmix if cut else self.mixup
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        other = torch.randperm(len(pictures)).to(pictures.device)
        if cut:
            pictures, share = _pasted(pictures, other, share)
        else:
            pictures = share * pictures + (1 - share) * pictures[other]
        whole = torch.nn.functional.one_hot(targets, classes).to(pictures.dtype)
        return pictures, share * whole + (1 - share) * whole[other]


PLAIN: Final = Augment()
"""Nothing is changed."""


def _shifted(pictures: Any, pad: int) -> Any:
    number, _, height, width = pictures.shape
    padded = torch.nn.functional.pad(pictures, (pad,) * 4)
    top, left = torch.randint(0, 2 * pad + 1, (2, number)).to(pictures.device)
    rows = top[:, None] + torch.arange(height, device=pictures.device)
    columns = left[:, None] + torch.arange(width, device=pictures.device)
    which = torch.arange(number, device=pictures.device)
    cut = padded.permute(0, 2, 3, 1)[which[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2).contiguous()


def _zoomed(pictures: Any, least: float) -> Any:
    number = len(pictures)
    area = least + (1 - least) * torch.rand(number)
    ratio = torch.exp((2 * torch.rand(number) - 1) * math.log(4 / 3))
    high = (area / ratio).sqrt().clamp(max=1)
    wide = (area * ratio).sqrt().clamp(max=1)
    down, right = ((2 * torch.rand(number) - 1) * (1 - side) for side in (high, wide))
    zero = torch.zeros(number)
    where = torch.stack([wide, zero, right, zero, high, down], 1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(where, pictures.shape, align_corners=False)
    return torch.nn.functional.grid_sample(
        pictures, grid.to(pictures.device), padding_mode="reflection", align_corners=False
    )


def _pasted(pictures: Any, other: Any, share: float) -> tuple[Any, float]:
    """CutMix: a rectangle of the area 1 − share from another picture; the true share is told."""
    height, width = pictures.shape[2:]
    side = (1 - share) ** 0.5
    middle = torch.rand(2).tolist()
    top, bottom, left, right = (
        min(max(round((place + sign * side / 2) * size), 0), size)
        for place, size in zip(middle, (height, width), strict=True)
        for sign in (-1, 1)
    )
    result = pictures.clone()
    result[:, :, top:bottom, left:right] = pictures[other, :, top:bottom, left:right]
    return result, 1 - (bottom - top) * (right - left) / (height * width)
