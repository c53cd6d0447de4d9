"""Loss terms that add up: each is a number for a batch, and a method is a list of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, final

from retain.errors import BadOption
from retain.train.checkpoints import digest
from retain.train.growing import Growing, Output
from retain.train.needs import Later

__all__ = [
    "CrossEntropy",
    "Distillation",
    "FeatureDistillation",
    "Step",
    "Term",
    "WeightPenalty",
    "settings",
    "titles",
]

torch: Final = Later("torch", "training a network")


@final
@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """What a term gets to see of one batch.

    Attributes:
        model: the network that learns, in training mode.
        output: what it says to the batch, with gradients.
        pictures: float [batch, channels, height, width], as the network was given them.
        targets: int64 [batch], the position of each label among the model's classes.
        soft: float [batch, classes], the shares of the classes where pictures were mixed, or None.
        numbers: int64 [batch], the place of each picture in the data of the run, on the CPU.
        epoch: that is running, from 0 on.
    """

    model: Growing
    output: Output
    pictures: Any
    targets: Any
    soft: Any
    numbers: Any
    epoch: int
    _said: dict[int, Output] = field(default_factory=dict)

    def of(self, other: Growing) -> Output:
        """What another network says to the same pictures, without gradients, computed once.

        Args:
            other: in the mode that it has to be in, as `Growing.frozen` gives it.
        """
        if id(other) not in self._said:
            if other.device != self.pictures.device:
                other.module.to(self.pictures.device)
            with torch.no_grad():
                self._said[id(other)] = other(self.pictures)
        return self._said[id(other)]


class Term(ABC):
    """One part of the loss.

    A mean over the pictures of a batch divides by all of them, even where the term speaks of some
    only: so batches can be cut into parts, for accumulation or several processes, and the sum of
    the parts' gradients is that of the whole.
    """

    @property
    def name(self) -> str:
        """What the term is called in the history."""
        return type(self).__name__

    @abstractmethod
    def loss(self, step: Step) -> Any:
        """The term for a batch, a float32 tensor without dimensions, to be minimised."""

    def before_step(self, model: Growing, scale: float) -> None:  # noqa: B027 - most need nothing
        """Called when the gradients of all terms are there, summed up and not yet clipped.

        Args:
            model: with its gradients.
            scale: what these are multiplied by (in half precision), 1 otherwise.
        """

    def after_step(self, model: Growing) -> None:  # noqa: B027
        """Called when the weights have moved."""

    def state(self) -> dict[str, Any]:
        """The tensors that it goes on from after a kill, by name; of most terms, none."""
        return {}

    def restore(self, tensors: Mapping[str, Any], device: Any) -> None:  # noqa: B027
        """Goes on from what `state` gave."""


@final
@dataclass(frozen=True, slots=True)
class CrossEntropy(Term):
    """−log of the probability of the label, a mean over the batch.

    Attributes:
        among: only these classes compete, and pictures of others count as zero; None for all that
            the model has.
        smoothing: the share of every target that is spread evenly over the classes (Szegedy 2016,
            §7, where it is 0.1).
        strength: what it is multiplied by.

    Raises:
        BadOption: if `smoothing` is impossible; in `loss`, if fewer than two classes compete, since
            over a single class it is zero whatever the network says, and has no gradient.
    """

    among: tuple[str, ...] | None = None
    smoothing: float = 0.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise BadOption(f"a label smoothing of {self.smoothing} cannot be; give 0 to 1")

    def loss(self, step: Step) -> Any:
        """See `Term`."""
        logits, targets, soft = step.output.logits.float(), step.targets, step.soft
        count = logits.shape[1]
        rows = torch.ones(len(logits), dtype=logits.dtype, device=logits.device)
        if self.among is not None:
            places = step.model.positions(self.among).to(logits.device)
            inverse = torch.full((count,), -1, device=logits.device)
            inverse[places] = torch.arange(len(places), device=logits.device)
            logits, count = logits[:, places], len(places)
            targets = inverse[targets]
            rows, targets = (targets >= 0).to(logits.dtype), targets.clamp(min=0)
            if soft is not None:
                soft = soft[:, places]
                # A mixture with a class that does not compete counts for the rest of it.
                rows = soft.sum(1)
                soft = soft / rows.clamp(min=1e-12)[:, None]
        if count < 2:
            alone = ", ".join(self.among or step.model.classes) or "no class"
            raise BadOption(
                f"cross-entropy over {alone} alone has no gradient: nothing competes; let all "
                f"known classes compete, or wait for a second one"
            )
        aim = torch.nn.functional.one_hot(targets, count).to(logits.dtype) if soft is None else soft
        aim = (1 - self.smoothing) * aim + self.smoothing / count
        losses = -(aim * logits.log_softmax(1)).sum(1)
        return self.strength * (rows * losses).sum() / len(rows)


@final
@dataclass(frozen=True, eq=False, slots=True)
class Distillation(Term):
    """Keep the probabilities that an older network gives to the classes it knows.

    KL(p_old ‖ p) at a temperature, a mean over the batch: the gradient is that of the
    cross-entropy which LwF (equation 2) and iCaRL's successors write, and agreement is zero.

    Attributes:
        old: the older network, frozen.
        temperature: T of the softmax (LwF, §3: 2). The gradient shrinks with 1/T²; Hinton 2015, §2,
            multiplies by T², LwF does not: so it is left to `strength`.
        strength: what it is multiplied by.
        groups: each group of classes that arrived together has a softmax of its own, as in EEIL and
            in LwF with several old tasks; or all old classes have one. A softmax over one class
            says nothing: a class that arrived alone is asked with the group before it.
    """

    old: Growing
    temperature: float = 2.0
    strength: float = 1.0
    groups: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise BadOption(f"a temperature of {self.temperature} cannot be; give more than 0")

    def loss(self, step: Step) -> Any:
        """See `Term`."""
        before, now = step.of(self.old).logits.float(), step.output.logits.float()
        total = now.new_zeros(())
        for group in _compared(self.old.groups) if self.groups else (self.old.classes,):
            if len(group) < 2:
                continue
            wanted = before[:, self.old.positions(group).to(now.device)] / self.temperature
            found = now[:, step.model.positions(group).to(now.device)] / self.temperature
            total = total + torch.nn.functional.kl_div(
                found.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="batchmean"
            )
        return self.strength * total


def _compared(groups: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The groups, one of a single class joined with the one before it.

    >>> _compared([("a",), ("b",), ("c", "d"), ("e",)])
    [('a', 'b'), ('c', 'd', 'e')]
    """
    result: list[tuple[str, ...]] = []
    for group in groups:
        if result and 1 in (len(group), len(result[-1])):
            result[-1] = (*result[-1], *group)
        else:
            result.append(group)
    return result


@final
@dataclass(frozen=True, eq=False, slots=True)
class FeatureDistillation(Term):
    """Keep the features that an older network had for the same pictures.

    Attributes:
        old: the older network, frozen.
        strength: what it is multiplied by.
        measure: ``"cosine"`` for 1 − cos(φ, φ_old) (LUCIR, equation 6), or ``"squared"`` for
            ‖φ − φ_old‖² / width; a mean over the batch.
    """

    old: Growing
    strength: float = 1.0
    measure: Literal["cosine", "squared"] = "cosine"

    def __post_init__(self) -> None:
        if self.measure not in ("cosine", "squared"):
            raise BadOption(f"the measure {self.measure!r} is not known; give cosine or squared")

    def loss(self, step: Step) -> Any:
        """See `Term`."""
        before, now = step.of(self.old).features.float(), step.output.features.float()
        if self.measure == "cosine":
            apart = 1 - torch.nn.functional.cosine_similarity(now, before)
        else:
            apart = (now - before).square().mean(1)
        return self.strength * apart.mean()


@final
@dataclass(frozen=True, eq=False, slots=True)
class WeightPenalty(Term):
    """½ · strength · Σ Ω (θ − θ*)²: stay near weights that mattered (EWC, equation 3).

    Attributes:
        reference: θ* by the names of parameters; those that are not named are free.
        importance: Ω by the same names; None for 1 everywhere (L2-SP).
        strength: λ.

    Raises:
        BadOption: if the names of the two differ; in `loss`, if the network has no parameter of a
            name.
    """

    reference: Mapping[str, Any]
    importance: Mapping[str, Any] | None = None
    strength: float = 1.0
    _there: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.importance is not None and self.importance.keys() != self.reference.keys():
            raise BadOption("importance and reference of a weight penalty name other parameters")

    def on(self, device: Any) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
        """θ* and Ω on a device: moved there once, and not at every step."""
        if device not in self._there:
            reference = {name: each.to(device) for name, each in self.reference.items()}
            importance = self.importance and {n: t.to(device) for n, t in self.importance.items()}
            self._there[device] = reference, importance
        found: tuple[Mapping[str, Any], Mapping[str, Any] | None] = self._there[device]
        return found

    def loss(self, step: Step) -> Any:
        """See `Term`."""
        parameters = dict(step.model.module.named_parameters())
        total = torch.zeros((), device=step.pictures.device)
        reference, importance = self.on(total.device)
        for name, before in reference.items():
            if name not in parameters:
                raise BadOption(
                    f"the weight penalty speaks of {name!r}, which the network does not have; a "
                    f"plan with adapters cannot be combined with it"
                )
            if parameters[name].requires_grad:
                apart = (parameters[name] - before).square()
                if importance is not None:
                    apart = apart * importance[name]
                total = total + apart.sum()
        return 0.5 * self.strength * total


def titles(terms: Sequence[Term]) -> list[str]:
    """A name for each term; repeated ones are numbered.

    >>> titles([CrossEntropy(), CrossEntropy()])
    ['CrossEntropy', 'CrossEntropy 2']
    """
    result: list[str] = []
    for term in terms:
        many = sum(each.split(" ")[0] == term.name for each in result)
        result.append(f"{term.name} {many + 1}" if many else term.name)
    return result


def settings(term: Term) -> list[str]:
    """What decides a term: its plain values, digests of its tensors and networks, its own terms.

    >>> settings(CrossEntropy(smoothing=0.1))
    ['among=None', 'smoothing=0.1', 'strength=1.0']
    """
    names = getattr(type(term), "__dataclass_fields__", {})
    return [f"{name}={_summary(getattr(term, name))}" for name in names if name[0] != "_"]


def _summary(value: object) -> str:
    if isinstance(value, str | int | float | bool | tuple | None):
        return repr(value)
    if isinstance(value, Growing):
        return digest(value.module.state_dict())
    if isinstance(value, Mapping):
        return digest(value)
    if torch.is_tensor(value):
        return digest({"": value})
    if isinstance(value, Term):
        return f"{type(value).__name__}({', '.join(settings(value))})"
    return type(value).__name__
