"""Everything about a run of training but the network, the pictures and the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Final, Literal, final, get_args

from retain.errors import BadOption
from retain.train.augment import PLAIN, Augment, Views
from retain.train.needs import Later
from retain.train.sampling import Replay, Sampling
from retain.train.schedules import Constant, OneCycle, Schedule

__all__ = ["Averaging", "Optimiser", "Precision", "Recipe", "optimiser", "transfer"]

torch: Final = Later("torch", "training a network")

Optimiser = Literal["sgd", "adam", "adamw", "rmsprop"]
Precision = Literal["no", "fp16", "bf16"]


@final
@dataclass(frozen=True, slots=True)
class Averaging:
    """Weights averaged along the way, which are the result in the place of the last ones.

    Attributes:
        kind: ``"ema"``, an exponential moving average after each step, statistics of batch
            normalisations too; or ``"swa"``, the mean of the weights at the ends of epochs, the
            statistics counted anew at the end (Izmailov 2018, §3.2).
        decay: of the moving average; in the first steps (1 + n)/(10 + n) where that is less.
        start: the part of the epochs after which the mean of ``"swa"`` begins (there 0.75).

    Raises:
        BadOption: if a value is impossible.
    """

    kind: Literal["ema", "swa"] = "ema"
    decay: float = 0.999
    start: float = 0.75

    def __post_init__(self) -> None:
        if self.kind not in ("ema", "swa"):
            raise BadOption(f"averaging {self.kind!r} is not known; give ema or swa")
        if not 0 < self.decay < 1 or not 0 <= self.start < 1:
            raise BadOption(
                f"averaging with decay {self.decay} from {self.start} on cannot be; both are "
                f"between 0 and 1"
            )


@final
@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: how many times the pictures are gone through.
        batch: pictures to one step, of all processes together.
        accumulate: in how many parts a batch goes through the network, where memory is short; the
            step is the same but for batch normalisation.
        optimiser: SGD has momentum; Adam, AdamW and RMSprop have PyTorch's other values.
        rate: the learning rate that a plan's factors and the schedule multiply.
        momentum: of SGD, and of RMSprop.
        nesterov: its momentum looks ahead.
        weight_decay: of what it does not spare (see `Plan`).
        schedule: of the rate.
        clip: the largest norm of the gradient; None for any.
        smoothing: the share of every target that is spread evenly over the classes (Szegedy 2016,
            §7: 0.1). It counts where the loss is nobody else's: in `fit` without `terms`, and in
            ``adapt`` without a method. The terms that `fit` is given, and the class-incremental
            methods, have losses of their own, which it leaves alone.
        sampling: ``"all"``, or ``"balanced"`` over the classes; methods that replay have their own.
        augment: random changes of the pictures.
        views: makes numbers of the pictures.
        averaging: of the weights; None for the last ones.
        patience: stop after so many epochs in which the validation did not get better, and take the
            weights of the best; None to go on to the end and take the last.
        watch: what of the validation is to get better.
        precision: of the arithmetic; ``"fp16"`` needs a GPU.
        device: ``"auto"`` for a GPU where there is one, or ``"cpu"``.
        seed: of everything that is drawn.

    Raises:
        BadOption: if a value is impossible.
    """

    epochs: int = 10
    batch: int = 64
    accumulate: int = 1
    optimiser: Optimiser = "sgd"
    rate: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Schedule = field(default_factory=Constant)
    clip: float | None = None
    smoothing: float = 0.0
    sampling: Sampling | Replay = "all"
    augment: Augment = PLAIN
    views: Views = field(default_factory=Views)
    averaging: Averaging | None = None
    patience: int | None = None
    watch: Literal["loss", "accuracy"] = "loss"
    precision: Precision = "no"
    device: Literal["auto", "cpu"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BadOption(f"{name} is {value!r}; give a whole number from 1 on")
        for name, allowed in (
            ("optimiser", get_args(Optimiser)),
            ("sampling", get_args(Sampling)),
            ("watch", ("loss", "accuracy")),
            ("precision", get_args(Precision)),
            ("device", ("auto", "cpu")),
        ):
            value = getattr(self, name)
            if value not in allowed and not (name == "sampling" and isinstance(value, Replay)):
                raise BadOption(f"{name} is {value!r}; give one of {', '.join(allowed)}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, Integral) or self.seed < 0:
            raise BadOption(f"seed is {self.seed!r}; give a whole number from 0 on")
        if not 0 < self.rate < math.inf:
            raise BadOption(f"rate is {self.rate}; give a learning rate above 0")
        if not 0 <= self.momentum < 1 or not 0 <= self.weight_decay < math.inf:
            raise BadOption(
                f"momentum {self.momentum} with weight_decay {self.weight_decay} cannot be; give "
                f"0 to 1, and 0 or more"
            )
        if self.clip is not None and not self.clip > 0:
            raise BadOption(f"clip is {self.clip}; give the largest norm, above 0, or None")
        if not 0 <= self.smoothing < 1:
            raise BadOption(f"a label smoothing of {self.smoothing} cannot be; give 0 up to 1")
        if self.patience is not None and self.patience < 1:
            raise BadOption(f"patience is {self.patience}; give 1 epoch or more, or None")
        if self.nesterov and not (self.optimiser == "sgd" and self.momentum > 0):
            raise BadOption("nesterov is a way of SGD's momentum; give optimiser sgd and momentum")


def transfer(**changes: Any) -> Recipe:
    """The recipe of ``retain adapt`` for a network that was trained on other pictures before.

    Args:
        **changes: of single attributes.

    Raises:
        BadOption: if a value is impossible.

    >>> transfer(epochs=3).epochs
    3
    """
    given: dict[str, Any] = {
        "epochs": 8,
        "batch": 32,
        "rate": 0.01,
        "weight_decay": 1e-4,
        "schedule": OneCycle(),
        "clip": 1.0,
        "smoothing": 0.1,
        "augment": Augment(flip=True, area=0.35),
    }
    return Recipe(**{**given, **changes})


def optimiser(recipe: Recipe, groups: list[dict[str, Any]]) -> Any:
    """The optimiser of a recipe for groups of parameters, a `torch.optim.Optimizer`.

    Args:
        recipe: see `Recipe`.
        groups: with `params` and `weight_decay`; further keys are kept.
    """
    kinds = torch.optim
    if recipe.optimiser == "sgd":
        return kinds.SGD(groups, lr=recipe.rate, momentum=recipe.momentum, nesterov=recipe.nesterov)
    if recipe.optimiser == "rmsprop":
        return kinds.RMSprop(groups, lr=recipe.rate, momentum=recipe.momentum)
    kind = kinds.Adam if recipe.optimiser == "adam" else kinds.AdamW
    return kind(groups, lr=recipe.rate)
