"""Pictures of another size than a network was trained at."""

from __future__ import annotations

import copy
import math
from typing import Any, Final

from retain.errors import BadOption
from retain.train.needs import Later

__all__ = ["has_size", "least_side", "resized", "set_size"]

torch: Final = Later("torch", "changing a network's input size")

_LEAST: Final = {"VGG": 32, "Inception3": 75, "InceptionV3": 75, "InceptionV4": 75}
"""The smallest side by the name of the class: VGG halves it five times; Inception-v3's unpadded
convolutions and poolings leave nothing of less than 75 pixels."""


def least_side(module: Any) -> int:
    """The smallest side of a picture that a network can take, where it is known; else 1."""
    return _LEAST.get(type(module).__name__, 1)


def resized(
    module: Any, size: tuple[int, int], trained: tuple[int, int], channels: int = 3
) -> tuple[Any, tuple[str, ...]]:
    """A network for another input size, and what a person should know about it.

    Convolutional networks stay as they are: pooling takes any size. The position embeddings of a
    vision transformer are interpolated bicubically on their grid (Dosovitskiy 2021, §3.2).

    Args:
        module: a `torch.nn.Module`; left as it is, a copy is changed.
        size: height and width that are wanted.
        trained: height and width of the weights.
        channels: of the input.

    Raises:
        BadOption: if the network cannot take pictures of this size.
    """
    height, width = size
    if min(height, width) < 1:
        raise BadOption(f"a picture of {height}×{width} pixels cannot be; give 1 or more")
    least = least_side(module)
    if min(height, width) < least:
        raise BadOption(
            f"{type(module).__name__} cannot take {height}×{width} pixels: it needs at least "
            f"{least}×{least}; enlarge the pictures"
        )
    module = copy.deepcopy(module)
    if size == trained:
        return module, ()
    notes = [f"the weights were trained at {trained[0]}×{trained[1]} pixels, not {height}×{width}"]
    if has_size(module):
        set_size(module, size)
        notes.append("position embeddings were interpolated; fine-tune before you rely on them")
    smallest = _tried(module, size, channels)
    if smallest is not None and min(smallest) < 2:
        notes.append(
            f"at {height}×{width} pixels the last maps are {smallest[0]}×{smallest[1]}: each sees "
            f"the whole picture and mostly padding, and little is left to pool; rather enlarge the "
            f"pictures"
        )
    if least > 1 and type(module).__name__ == "VGG" and _fixed_grid(module):
        notes.append(
            "VGG's linear layers were trained on 7×7 maps at 224 pixels; at other sizes the maps "
            "are pooled or repeated to fit, and these layers have to be fine-tuned"
        )
    return module, tuple(notes)


def has_size(module: Any) -> bool:
    """Whether a network is made for one size of pictures, as vision transformers are."""
    return hasattr(module, "set_input_size") or (
        hasattr(module, "image_size") and hasattr(getattr(module, "encoder", None), "pos_embedding")
    )


def set_size(module: Any, size: tuple[int, int]) -> None:
    """Makes a network that `has_size` one for another size, in place.

    Args:
        module: a `torch.nn.Module`.
        size: height and width.

    Raises:
        BadOption: if it cannot be of this size.
    """
    try:
        if hasattr(module, "set_input_size"):
            module.set_input_size(img_size=size)  # timm's own: embeddings, windows, grids
        else:
            _torchvision(module, size)
    except (AssertionError, ValueError, TypeError, NotImplementedError) as error:
        raise BadOption(
            f"{type(module).__name__} cannot be set to {size[0]}×{size[1]} pixels ({error}); give "
            f"a multiple of its patches"
        ) from error


def _torchvision(module: Any, size: tuple[int, int]) -> None:
    patch = module.patch_size
    if size[0] != size[1] or size[0] % patch:
        raise ValueError(f"its pictures are square, with sides that {patch} divides")
    place = module.encoder.pos_embedding.detach()
    grid = math.isqrt(place.shape[1] - 1)
    maps = place[:, 1:].transpose(1, 2).reshape(1, -1, grid, grid)
    side = size[0] // patch
    # With antialias the cubic is the one that keeps a slope a slope; without, PyTorch's is not.
    maps = torch.nn.functional.interpolate(maps, (side, side), mode="bicubic", antialias=True)
    stretched = torch.cat([place[:, :1], maps.flatten(2).transpose(1, 2)], 1)
    module.encoder.pos_embedding = torch.nn.Parameter(stretched)
    module.image_size, module.seq_length = size[0], side * side + 1


def _fixed_grid(module: Any) -> bool:
    return hasattr(module, "avgpool") or hasattr(module, "pre_logits")


def _inside_head(name: str) -> bool:
    """Whether a layer works on pooled features, as timm's convolutional heads do."""
    return name.partition(".")[0] in ("pre_logits", "classifier", "head", "conv_head", "fc")


def _tried(module: Any, size: tuple[int, int], channels: int) -> tuple[int, int] | None:
    """The last maps that a convolution or a pooling makes of such a picture, if any does."""
    sides: list[tuple[int, int]] = []

    def look(part: Any, given: Any, made: Any) -> None:
        if torch.is_tensor(made) and made.ndim == 4:
            sides.append((int(made.shape[2]), int(made.shape[3])))

    hooks = [
        part.register_forward_hook(look)
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Conv2d | torch.nn.MaxPool2d) and not _inside_head(name)
    ]
    modes = [(part, part.training) for part in module.modules()]
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, channels, *size))
    except Exception as error:  # modules are anybody's code
        raise BadOption(
            f"{type(module).__name__} fails on pictures of {size[0]}×{size[1]} pixels ({error}); "
            f"give a larger size, or the one that it was trained at"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for part, mode in modes:
            part.training = mode
    return sides[-1] if sides else None
