"""A classifier whose last layer grows: one part for the classes that arrived together.

The user's network stays what it is, under its own names; only its last layer is replaced by one
that holds a part per arrival, answers with all scores side by side, and remembers the features that
it was given. Classes are names; a position is looked up when it is needed and never kept.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, final, get_args

from retain.errors import BadLabel, BadOption, CannotAdopt
from retain.train.needs import Later
from retain.train.zoos import last_layer

__all__ = ["Growing", "Kind", "Output", "growing"]

torch: Final = Later("torch", "training a network")

Kind = Literal["linear", "cosine"]
"""What a part of the head computes: Wφ + b, or the cosine of φ with each row of W (LUCIR, §3.1)."""


@final
@dataclass(frozen=True, eq=False, slots=True)
class Output:
    """What a network says to a batch.

    Attributes:
        logits: float [batch, classes], in the order of `Growing.classes`.
        features: float [batch, width], what the last layer was given.
    """

    logits: Any
    features: Any


@final
class Growing:
    """A network, its classes by name, and in which groups they arrived.

    Attributes:
        module: the `torch.nn.Module`, its last layer replaced.
        head: the name of that layer.
        groups: the classes that arrived together, oldest first; one part of the head each.
        kind: of the parts.
    """

    def __init__(
        self, module: Any, head: str, groups: Sequence[Sequence[str]], kind: Kind = "linear"
    ) -> None:
        self.module = module
        self.head = head
        self.groups = tuple(tuple(group) for group in groups)
        self.kind: Kind = kind

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, in the order of the scores."""
        return tuple(name for group in self.groups for name in group)

    @property
    def width(self) -> int:
        """How many features the last layer is given."""
        return int(self.layer.width)

    @property
    def layer(self) -> Any:
        """The last layer: a module that holds one part per group."""
        return self.module.get_submodule(self.head)

    @property
    def device(self) -> Any:
        """Where the weights are."""
        return next(self.module.parameters()).device

    def __call__(self, pictures: Any) -> Output:
        """Scores and features of float [batch, channels, height, width], in the module's mode.

        Raises:
            BadOption: if one picture is given to a batch normalisation in training mode that sees a
                single number of each channel.
        """
        layer = self.layer
        layer.seen = None
        try:
            self.module(pictures)
        except ValueError as error:
            if len(pictures) > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise BadOption(
                "one picture alone went through the network, and of one number a batch "
                "normalisation takes no mean; give more pictures, or keep normalisations as they "
                "are (a plan with batchnorm frozen)"
            ) from error
        # What comes out may be wrapped, or come with auxiliary scores; the head knows both.
        (features, logits), layer.seen = layer.seen, None
        return Output(logits, features)

    def positions(self, labels: Sequence[str]) -> Any:
        """The position of each label among the scores, int64 [n].

        Raises:
            BadLabel: if one is no class of this network.
        """
        places = {name: place for place, name in enumerate(self.classes)}
        try:
            return torch.tensor([places[each] for each in labels], dtype=torch.int64)
        except KeyError as error:
            raise BadLabel(
                f"the network has no class {error.args[0]!r}; grow it by the new classes first"
            ) from error

    def copy(self) -> Growing:
        """A network of the same weights that shares none of them."""
        return Growing(copy.deepcopy(self.module), self.head, self.groups, self.kind)

    def frozen(self) -> Growing:
        """A copy to compare with: it does not learn, and is in evaluation mode for good."""
        twin = self.copy()
        twin.module.eval().requires_grad_(False)
        return twin

    def grown(self, labels: Sequence[str], seed: int = 0) -> Growing:
        """A copy with one more part for the labels that are new; itself where none is.

        Args:
            labels: in any order, repeated or not; the part has them sorted.
            seed: of the new weights.

        Raises:
            BadLabel: if a label is empty or not text.
        """
        bad = [each for each in labels if not isinstance(each, str) or not each]
        if bad:
            raise BadLabel(f"{bad[0]!r} cannot be a class; labels are text that is not empty")
        new = tuple(sorted(set(labels) - set(self.classes)))
        if not new:
            return self
        twin = self.copy()
        twin.groups = (*self.groups, new)
        twin.layer.grow(len(new), seed)
        return twin

    def plain(self) -> Any:
        """The network as it was given, its last layer one `torch.nn.Linear` for all classes.

        Raises:
            BadOption: if the head computes cosines, which no linear layer does.
        """
        if self.kind != "linear":
            raise BadOption("a cosine head is not one linear layer; export head and network apart")
        module = copy.deepcopy(self.module)
        parts = list(module.get_submodule(self.head))
        whole = torch.nn.Linear(self.width, len(self.classes), device=self.device)
        with torch.no_grad():
            if parts:
                whole.weight.copy_(torch.cat([part.weight for part in parts]))
                whole.bias.copy_(torch.cat([part.bias for part in parts]))
        _place(module, self.head, whole)
        return module.eval()


def growing(
    module: Any,
    classes: Sequence[str] = (),
    *,
    head: str | None = None,
    kind: Kind = "linear",
) -> Growing:
    """A classifier with a head that grows, from any network whose last layer is linear.

    Args:
        module: a `torch.nn.Module` or a `Network`; it is copied.
        classes: the labels of its scores, to keep its last layer as the first part; none to start
            without a head.
        head: the name of the last layer, if it is not the last linear layer among the parts.
        kind: of the parts; the weights of a linear layer are kept for cosines too, without biases.

    Raises:
        BadLabel: if a label is given twice.
        BadOption: if there is no such layer, or the classes are not as many as its scores.
        CannotAdopt: if the last layer is not linear.
    """
    if kind not in get_args(Kind):
        raise BadOption(f"a head of the kind {kind!r} is not known; give linear or cosine")
    if hasattr(module, "module") and hasattr(module, "input_size"):
        head = head or module.head
        module = module.module
    module = copy.deepcopy(module)
    head = head or last_layer(module, None)
    _drop_auxiliary(module)
    try:
        old = module.get_submodule(head)
    except AttributeError as error:
        raise BadOption(
            f"{type(module).__name__} has no layer {head!r}; give head= the name of the last one"
        ) from error
    if not isinstance(old, torch.nn.Linear):
        raise CannotAdopt(
            f"the last layer {head!r} is a {type(old).__name__}; only a linear one can grow. "
            f"Name another with head="
        )
    names = tuple(classes)
    if len(set(names)) < len(names):
        raise BadLabel(f"of the {len(names)} labels only {len(set(names))} differ")
    if names and len(names) != old.out_features:
        raise BadOption(
            f"{len(names)} labels were given for {old.out_features} scores; give one for each"
        )
    layer = _head()(old.in_features, kind).to(old.weight.device)
    if names:
        layer.grow(len(names), 0)
        with torch.no_grad():
            layer[0].weight.copy_(old.weight)
            if layer[0].bias is not None:
                layer[0].bias.copy_(torch.zeros(()) if old.bias is None else old.bias)
    _place(module, head, layer)
    return Growing(module.float(), head, (names,) if names else (), kind)


@cache
def _head() -> Any:
    """The class of the growing layer; made at its first use, as PyTorch is."""

    class Head(torch.nn.ModuleList):  # type: ignore[misc, name-defined]
        def __init__(self, width: int, kind: Kind) -> None:
            super().__init__()
            self.width, self.kind = width, kind
            self.seen: Any = None
            if kind == "cosine":
                # η of LUCIR, equation 4, learned from 1 on as in its published code.
                self.scale = torch.nn.Parameter(torch.ones(()))

        def grow(self, more: int, seed: int) -> None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                part = torch.nn.Linear(self.width, more, bias=self.kind == "linear")
            reference = next(self.parameters(), None)
            self.append(part if reference is None else part.to(reference.device))

        def forward(self, features: Any) -> Any:
            if features.ndim != 2:
                raise CannotAdopt(
                    f"the last layer is given numbers of shape {tuple(features.shape)}, not one "
                    f"row for each picture; such a network cannot grow"
                )
            normal = torch.nn.functional.normalize
            if not len(self):
                logits = features.new_zeros(len(features), 0)
            elif self.kind == "linear":
                logits = torch.cat([part(features) for part in self], 1)
            else:
                unit = normal(features)
                cosines = [unit @ normal(part.weight).T for part in self]
                logits = self.scale * torch.cat(cosines, 1)
            self.seen = (features, logits)
            return logits

    return Head


def _place(module: Any, name: str, part: Any) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, part)


def _drop_auxiliary(module: Any) -> None:
    """Takes off the side heads of Inception, which tell the classes of somebody else apart."""
    extras: Mapping[str, Any] = dict.fromkeys(("AuxLogits", "aux1", "aux2"))
    if hasattr(module, "aux_logits"):
        module.aux_logits = False
        for name in extras:
            if hasattr(module, name):
                setattr(module, name, None)
