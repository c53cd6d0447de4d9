"""What each weight did for the loss while it moved: the path integrals of SI and of RWalk.

Both look at every step, so they are terms that the loop tells when a step is taken. The gradient
that counts is the task's own: what a penalty of theirs pulls is taken off again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from retain.errors import BadOption
from retain.train.augment import Views
from retain.train.checkpoints import prefixed, unprefixed
from retain.train.data import Data
from retain.train.growing import Growing
from retain.train.importance import fisher
from retain.train.needs import Later
from retain.train.plan import Plan
from retain.train.recipe import Recipe
from retain.train.terms import Step, Term, WeightPenalty

__all__ = ["PathIntegral", "RiemannianWalk", "penalty", "refuse_adapters"]

torch: Final = Later("torch", "training a network")

_BEGUN: Final = "begun "


def penalty(
    before: Growing,
    importance: Mapping[str, Any],
    strength: float,
    recipe: Recipe,
    rates: Mapping[str, float],
) -> WeightPenalty:
    """½ · strength · Σ Ω (θ − θ*)² about the weights of a network.

    Where a step of gradient descent would overshoot, which with strength · Ω · rate > 1 it does, Ω
    is cut there: such a weight is held as fast as a step can, and the loss does not run away.

    Args:
        before: the network whose weights are θ*.
        importance: Ω by the names of parameters.
        strength: λ; twice the number of papers that have no ½.
        recipe: whose rate it is; of its optimisers Adam and its kin divide by the size of the
            gradient, so that nothing need be cut.
        rates: what a plan multiplies it by, for each parameter; 1 where nothing is said.
    """
    weights = dict(before.module.named_parameters())
    reference = {name: weights[name].detach().clone() for name in importance}
    if recipe.optimiser == "sgd" and strength > 0:
        importance = {
            name: each.clamp(max=1 / (strength * recipe.rate * max(rates.get(name, 1.0), 1e-12)))
            for name, each in importance.items()
        }
    return WeightPenalty(reference, importance, strength)


def refuse_adapters(plan: Plan | None) -> None:
    """Raise if by a user's plan adapters would learn in the place of weights that are to be held.

    Raises:
        BadOption: which says what to do instead.
    """
    if plan is not None and plan.lora:
        raise BadOption(
            "this method holds the weights themselves where they mattered, and with adapters they "
            "do not learn; take a plan without lora, or a method that holds answers, such as lwf"
        )


@final
@dataclass(eq=False, slots=True)
class PathIntegral(Term):
    """Adds up, weight by weight, what its moves took off the task's loss (SI, equation 3).

    Its own share of the loss is the penalty, if there is one. It goes on to the last step, also
    where patience or averaging takes other weights than the last.

    Attributes:
        penalty: about earlier weights; its gradient does not count.
        whole: whether the weights of the beginning are wanted at the end.
        totals: Σ −g·Δθ so far, by the names of parameters.
        begun: where `whole`, their values before the first step; those that the plan drew anew, or
            shrank, as it left them.

    Raises:
        BadOption: in `loss`, if adapters learn in the place of weights.
    """

    penalty: WeightPenalty | None = None
    whole: bool = False
    totals: dict[str, Any] = field(default_factory=dict)
    begun: dict[str, Any] = field(default_factory=dict)
    _gradients: dict[str, Any] = field(default_factory=dict)
    _places: dict[str, Any] = field(default_factory=dict)

    def loss(self, step: Step) -> Any:
        """The penalty, or 0."""
        if not self.totals:
            _refuse_adapters(step.model)
        if self.penalty is None:
            return torch.zeros((), device=step.pictures.device)
        return self.penalty.loss(step)

    def before_step(self, model: Growing, scale: float) -> None:
        """Notes the gradient of the task, and where the weights are."""
        self._gradients, self._places = {}, {}
        for name, weight in model.module.named_parameters():
            if weight.grad is None:
                continue
            gradient = weight.grad.detach() / scale
            if self.penalty is not None and name in self.penalty.reference:
                gradient = gradient - self._pull(name, weight.detach())
            self._gradients[name], self._places[name] = gradient, weight.detach().clone()
            if self.whole and name not in self.begun:
                self.begun[name] = self._places[name]

    def _pull(self, name: str, weight: Any) -> Any:
        assert self.penalty is not None
        reference, importance = self.penalty.on(weight.device)
        pull = self.penalty.strength * (weight - reference[name])
        return pull if importance is None else pull * importance[name]

    def after_step(self, model: Growing) -> None:
        """Adds what the step did."""
        for name, weight in model.module.named_parameters():
            if name not in self._gradients:
                continue
            moved = weight.detach() - self._places[name]
            # A step that half precision skips has gradients that are no numbers, and no moves.
            gain = torch.where(moved == 0, moved, -self._gradients[name] * moved)
            self.totals[name] = self.totals[name] + gain if name in self.totals else gain
        self._gradients, self._places = {}, {}

    def state(self) -> dict[str, Any]:
        """The totals, and the beginning where it is wanted."""
        return {**self.totals, **prefixed(_BEGUN, self.begun)}

    def restore(self, tensors: Mapping[str, Any], device: Any) -> None:
        """Goes on from them."""
        here = {name: each.to(device) for name, each in tensors.items()}
        self.begun = unprefixed(here, _BEGUN)
        self.totals = {name: each for name, each in here.items() if not name.startswith(_BEGUN)}


@final
@dataclass(eq=False, slots=True)
class RiemannianWalk(Term):
    """Scores of weights, and a running Fisher information, as the network learns (RWalk, §4.1).

    Each stretch of steps begins with the Fisher information of its first batch, picture by picture,
    taken into the running one; it ends with what every weight did for the task's loss on the
    stretch, divided by how far it went in the network's own metric.

    Attributes:
        path: adds up along a stretch.
        every: steps of a stretch.
        decay: the share of the newest in the running Fisher information.
        damping: ε, of the distance.
        scores: so far, by the names of parameters.
        information: the running Fisher information, likewise.
        steps: so far.
    """

    path: PathIntegral
    every: int = 50
    decay: float = 0.9
    damping: float = 1e-3
    scores: dict[str, Any] = field(default_factory=dict)
    information: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    _origin: dict[str, Any] = field(default_factory=dict)
    _measured: int = -1

    def loss(self, step: Step) -> Any:
        """The penalty, or 0."""
        if not self.steps:
            _refuse_adapters(step.model)
        if self.steps % self.every == 0 and self._measured != self.steps:
            self._measure(step)
            self._measured = self.steps
        return self.path.loss(step)

    def _measure(self, step: Step) -> None:
        names = step.model.classes
        labels = tuple(names[each] for each in step.targets.tolist())
        data = Data(step.pictures.detach().float(), labels)
        with torch.autocast(step.pictures.device.type, enabled=False):
            found = fisher(step.model, data, Views(), labels="true")
        _agree(found)
        for name, new in found.items():
            old = self.information.get(name, new).to(new.device)
            self.information[name] = self.decay * new + (1 - self.decay) * old
        weights = step.model.module.named_parameters()
        self._origin = {name: each.detach().clone() for name, each in weights}

    def before_step(self, model: Growing, scale: float) -> None:
        """See `PathIntegral`."""
        self.path.before_step(model, scale)

    def after_step(self, model: Growing) -> None:
        """Adds what the step did; at the end of a stretch, its scores."""
        self.path.after_step(model)
        self.steps += 1
        if self.steps % self.every == 0:
            self.close(model)

    def close(self, model: Growing) -> None:
        """Ends the stretch, if one has begun."""
        weights = dict(model.module.named_parameters())
        for name, total in self.path.totals.items():
            moved = weights[name].detach().to(total.device) - self._origin[name]
            distance = 0.5 * self.information[name] * moved.square() + self.damping
            # Only what helped counts.
            score = (total / distance).clamp(min=0)
            self.scores[name] = self.scores[name] + score if name in self.scores else score
        self.path.totals = {}

    def state(self) -> dict[str, Any]:
        """All that it adds up."""
        return {
            "steps": torch.tensor([self.steps, self._measured]),
            **prefixed("path ", self.path.state()),
            **prefixed("score ", self.scores),
            **prefixed("information ", self.information),
            **prefixed("origin ", self._origin),
        }

    def restore(self, tensors: Mapping[str, Any], device: Any) -> None:
        """Goes on from it."""
        here = {name: each.to(device) for name, each in tensors.items()}
        self.steps, self._measured = here.pop("steps").tolist()
        self.path.restore(unprefixed(here, "path "), device)
        self.scores = unprefixed(here, "score ")
        self.information = unprefixed(here, "information ")
        self._origin = unprefixed(here, "origin ")


def _refuse_adapters(model: Growing) -> None:
    if any(".lora_" in name for name, _ in model.module.named_parameters()):
        raise BadOption(
            "this method adds up what every weight did while it moved, and with adapters the "
            "weights themselves do not move; take a plan without lora, or a method that holds "
            "answers, such as lwf"
        )


def _agree(tensors: Mapping[str, Any]) -> None:
    """Gives all processes the mean of what each found on its part of the batch."""
    spread = torch.distributed
    if spread.is_available() and spread.is_initialized():
        for each in tensors.values():
            spread.all_reduce(each)
            each /= spread.get_world_size()
