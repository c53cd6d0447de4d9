"""A plan laid over a network: what learns, in which mode each part is, and at which rate."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Final, final

from retain.errors import BadOption
from retain.train import lora
from retain.train.growing import Growing
from retain.train.needs import Later
from retain.train.plan import Plan, Row, spared
from retain.train.reinit import reinitialise

__all__ = ["Laid"]

torch: Final = Later("torch", "training a network")


@final
class Laid:
    """A plan and the network that it was laid over, which is changed in place.

    Attributes:
        rows: the table of layers.
        model: the network.

    Raises:
        BadOption: if the plan does not fit the network, or nothing would learn.
    """

    def __init__(self, plan: Plan, model: Growing, *, seed: int, epochs: int) -> None:
        self.rows: tuple[Row, ...] = plan.describe(model, epochs)
        self.model = model
        self._plan, self._epochs = plan, epochs
        module = model.module
        anew = [row.layer for row in self.rows if row.state == "re-initialised"]
        reinitialise(module, anew, seed)
        if plan.shrink < 1:
            body = [row for row in self.rows if row.state == "fine-tuned" and row.kept < 1]
            _shrink(module, [row.layer for row in body], plan.shrink, seed)
        adapted = {row.layer: row for row in self.rows if row.state == "adapted"}
        if plan.lora:
            lora.insert(module, [*adapted], plan.lora, seed)
        self._rates = {
            name: row.rate
            for row in self.rows
            if row.state in ("fine-tuned", "re-initialised") and row.rate > 0
            for name in row.names
        }
        for name, _ in module.named_parameters() if adapted else ():
            layer = name.rpartition(".lora_")[0]
            if layer in adapted:
                self._rates[name] = adapted[layer].rate
        if not self._rates:
            raise BadOption("with this plan nothing would learn; free a block, or raise a rate")
        self._body = list(dict.fromkeys(row.block for row in self.rows if row.block != model.head))
        self._blocks = {name: row.block for row in self.rows for name in row.names}
        self._blocks |= {
            name: adapted[name.rpartition(".lora_")[0]].block
            for name in self._rates
            if ".lora_" in name
        }
        self._still = {row.layer for row in self.rows if row.state in ("frozen", "adapted")}

    def groups(self, decay: float) -> list[dict[str, Any]]:
        """All that may ever learn, for an optimiser: `params`, `factor`, `weight_decay`."""
        result: dict[tuple[float, float], list[Any]] = {}
        for name, parameter in self.model.module.named_parameters():
            if name in self._rates:
                key = (self._rates[name], 0.0 if spared(name, parameter) else decay)
                result.setdefault(key, []).append(parameter)
        return [
            {"params": each, "factor": factor, "weight_decay": strength}
            for (factor, strength), each in result.items()
        ]

    def learn(self, epoch: int) -> None:
        """Puts every part in its mode for an epoch: what is frozen neither learns nor counts.

        A frozen part is in evaluation mode: its batch normalisations use the statistics they have
        and do not move them, its dropout is off.
        """
        closed = set(self._body[: self._plan.closed(len(self._body), epoch, self._epochs)])
        module = self.model.module
        for name, parameter in module.named_parameters():
            learns = name in self._rates and self._blocks.get(name) not in closed
            parameter.requires_grad_(learns)
        module.train()
        still = self._still | {row.layer for row in self.rows if row.block in closed}
        for name, part in module.named_modules():
            own = [each.requires_grad for each in part.parameters()]
            if not any(own) and (own or name in still):
                part.eval()

    def moving(self) -> list[Any]:
        """The batch normalisations whose statistics move, in the present mode."""
        kind = torch.nn.modules.batchnorm._BatchNorm
        return [
            part
            for part in self.model.module.modules()
            if isinstance(part, kind) and part.training and part.running_mean is not None
        ]

    def finish(self) -> Growing:
        """The network with its adapters merged, in evaluation mode, ready for another plan."""
        if self._plan.lora:
            lora.merge(self.model.module)
        self.model.module.requires_grad_(True).eval()
        return self.model


def _shrink(module: Any, layers: Sequence[str], share: float, seed: int) -> None:
    """Layers, statistics of normalisations included, go part of the way to new random weights."""
    other = copy.deepcopy(module)
    reinitialise(other, layers, seed)
    fresh = other.state_dict()
    with torch.no_grad():
        for name, each in module.state_dict().items():
            if each.is_floating_point():
                each.lerp_(fresh[name], 1 - share)
