"""Which layers are frozen, fine-tuned or begun anew, and how fast each learns."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final, Literal, final, get_args

from retain.errors import BadOption
from retain.train.blocks import Block, Layer, blocks_of
from retain.train.growing import Growing
from retain.train.lora import adaptable, adapter_size

__all__ = ["PRESETS", "Given", "Plan", "Row", "Rule", "State", "Table", "narrowed"]

Given = Literal["frozen", "fine-tuned", "re-initialised"]
"""What can be said of a layer."""

State = Literal["frozen", "fine-tuned", "re-initialised", "adapted"]
"""Of a layer; ``"adapted"`` is frozen, with a LoRA adapter beside it that learns."""

_GIVEN: Final = get_args(Given)

_SPARED: Final = re.compile(r"(pos_embed|pos_embedding|cls_token|class_token|dist_token)$")
"""Parameters of two and more dimensions that weight decay spares, as timm's networks ask for."""


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """An exception to a plan, for layers by name; later rules win.

    Attributes:
        pattern: a layer, a block or anything above (``"layer4"``), or a shell pattern such as
            ``"*.bn?"``.
        state: of these layers; None to leave it.
        rate: what their learning rate is multiplied by; None to leave it.
    """

    pattern: str
    state: Given | None = None
    rate: float | None = None

    def matches(self, block: Block, layer: Layer) -> bool:
        """Whether it speaks of a layer."""
        names = (block.name, layer.name, *layer.parameters)
        return any(
            each == self.pattern
            or each.startswith(self.pattern + ".")
            or fnmatchcase(each, self.pattern)
            for each in names
        )


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table that a plan is.

    Attributes:
        block: the name of the block it is in.
        layer: its name.
        kind: the name of its class.
        parameters: how many numbers it has.
        learning: how many of them learn, or the numbers of its adapter.
        state: see `State`.
        rate: what the learning rate is multiplied by; 0 where nothing learns.
        names: of its parameters.
        kept: the share of its weights that it begins with; the rest is drawn at random.
        since: the epoch, from 1 on, with which it begins to learn, if it does.
    """

    block: str
    layer: str
    kind: str
    parameters: int
    learning: int
    state: State
    rate: float
    names: tuple[str, ...]
    kept: float = 1.0
    since: int = 1


@final
class Table(tuple[Row, ...]):
    """The rows of a plan, from the input to the head, and what a person should know of it.

    Attributes:
        notes: that, in sentences.
    """

    notes: tuple[str, ...]

    def __new__(cls, rows: Iterable[Row], notes: Iterable[str] = ()) -> Table:
        """A table; nothing is checked."""
        made = super().__new__(cls, rows)
        made.notes = tuple(notes)
        return made


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What happens to each layer.

    Attributes:
        body: the state of every block but the head.
        head: the state of the head.
        last: only so many of the last blocks of the body have the state `body`, the others are
            frozen; None for all.
        copy_first: so many of the first blocks keep their weights, with the state `copied`; the
            rest of the network is re-initialised (Yosinski 2014, §2); None for no such cut. It
            leaves no room for `last`, nor for a `body` or a `head` of another state.
        copied: ``"frozen"`` is their AnB, ``"fine-tuned"`` their AnB+.
        rules: exceptions by name.
        rate: what the body's learning rates are multiplied by.
        layer_decay: what the rate is multiplied by with each block down from the head (BEiT: 0.65
            to 0.9); 1 for the same rate everywhere.
        head_rate: what the head's rate is multiplied by.
        gradual: the head learns first, and the others join from the top, some with each epoch
            (ULMFiT, §3.3, where it is one a layer; here as many as it takes to have all of them
            learn in the second half; all at once where there is one epoch).
        lora: the rank of adapters that learn in the place of the body's weights; None for none.
        shrink: the share that is kept of the weights of the body that are fine-tuned; the rest is
            taken from new random ones. Weights that fit older pictures too well learn new ones
            worse than random weights do (Ash and Adams 2020, 1910.08475, §4, where the random part
            is noise of one small size; here what `reinitialise` gives). 1 keeps them.
        batchnorm: ``"frozen"`` keeps every batch normalisation as it is, wherever it stands, but
            for those that are re-initialised with the layers around them, or that a rule names.

    Raises:
        BadOption: if a value is impossible, or two contradict each other.
    """

    body: Given = "fine-tuned"
    head: Given = "fine-tuned"
    last: int | None = None
    copy_first: int | None = None
    copied: Given = "frozen"
    rules: tuple[Rule, ...] = ()
    rate: float = 1.0
    layer_decay: float = 1.0
    head_rate: float = 1.0
    gradual: bool = False
    lora: int | None = None
    shrink: float = 1.0
    batchnorm: Literal["trained", "frozen"] = "trained"

    def __post_init__(self) -> None:
        states = [self.body, self.head, self.copied, *(each.state for each in self.rules)]
        for state in states:
            if state is not None and state not in _GIVEN:
                raise BadOption(
                    f"the state {state!r} is not known; give one of {', '.join(_GIVEN)}"
                )
        for name in ("last", "copy_first", "lora"):
            value, least = getattr(self, name), 1 if name == "lora" else 0
            if value is not None and value < least:
                raise BadOption(f"{name} is {value}; give {least} or more")
        for rate in (self.rate, self.head_rate, *(each.rate for each in self.rules)):
            if rate is not None and not 0 <= rate < math.inf:
                raise BadOption(f"a rate of {rate} cannot be; give 0 or more")
        if not 0 < self.layer_decay <= 1:
            raise BadOption(f"layer_decay is {self.layer_decay}; give a number above 0, up to 1")
        if not 0 <= self.shrink <= 1:
            raise BadOption(f"shrink is {self.shrink}; give a number from 0 to 1")
        if self.batchnorm not in ("trained", "frozen"):
            raise BadOption(f"batchnorm is {self.batchnorm!r}; give trained or frozen")
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        """What would not be looked at is refused."""
        if self.copy_first is None:
            if self.copied != "frozen":
                raise BadOption(
                    f"copied is {self.copied!r}, but nothing is copied; give copy_first too, the "
                    f"number of blocks that are"
                )
            return
        others = [("last", None), ("body", "fine-tuned"), ("head", "fine-tuned")]
        if self.copied == "frozen" and not self.rules:
            others += [("lora", None)]
        for name, usual in others:
            if getattr(self, name) != usual:
                raise BadOption(
                    f"copy_first is {self.copy_first}, and says of every layer what becomes of it: "
                    f"{name}={getattr(self, name)} would count for nothing beside it; leave one of "
                    f"them out, or the preset that says so"
                )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Plan:
        """A plan by the name that the field has for it.

        Args:
            name: one of `PRESETS`.
            changes: of single attributes.

        Raises:
            BadOption: if there is no such plan or attribute.

        >>> Plan.preset("last-block").last
        1
        """
        if name not in PRESETS:
            raise BadOption(f"no plan is called {name!r}; there are {', '.join(PRESETS)}")
        try:
            return replace(PRESETS[name], **changes)
        except TypeError as error:
            raise BadOption(f"a plan cannot be changed so: {error}") from error

    def describe(self, model: Growing, epochs: int = 1) -> tuple[Row, ...]:
        """The table of layers, from the input to the head; nothing is changed.

        Args:
            model: the network.
            epochs: how long it will learn, which says when a block of a gradual plan joins.

        Raises:
            BadOption: if a rule speaks of no layer, or there are fewer blocks than counted on.
        """
        blocks = blocks_of(model.module, model.head)
        depth = len(blocks) - 1
        for name in ("last", "copy_first"):
            value = getattr(self, name)
            if value is not None and value > depth:
                raise BadOption(
                    f"{name} is {value}, but the network has {depth} blocks before its head: "
                    f"{', '.join(each.name for each in blocks[:-1])}"
                )
        for rule in self.rules:
            if not any(rule.matches(block, layer) for block in blocks for layer in block.layers):
                raise BadOption(
                    f"no layer is called {rule.pattern!r}; there are the blocks "
                    f"{', '.join(each.name for each in blocks)}"
                )
        adapters = adaptable(model.module, blocks) if self.lora else frozenset()
        rows = [
            self._row(model.module, blocks, place, layer, adapters)
            for place, block in enumerate(blocks)
            for layer in block.layers
        ]
        body = dict.fromkeys(row.block for row in rows if row.block != model.head)
        since = {
            name: next(e for e in range(epochs) if self.closed(len(body), e, epochs) <= place) + 1
            for place, name in enumerate(body)
        }
        return tuple(replace(row, since=since.get(row.block, 1)) for row in rows)

    def begun(self, model: Growing, *, head_alone: bool = False) -> Plan:
        """The plan of a training that goes on from what one by this plan came to.

        What was re-initialised learns on, and nothing is shrunk.

        Args:
            model: the network.
            head_alone: the training was one of the head; of the body nothing has begun.
        """
        if head_alone:
            again = self.head == "re-initialised"
            return replace(self, head="fine-tuned") if again else self
        rules = tuple(
            replace(rule, state="fine-tuned") if rule.state == "re-initialised" else rule
            for rule in self.rules
        )
        plan = replace(self, rules=rules, shrink=1.0, copy_first=None, copied="frozen")
        if self.copy_first is not None:
            depth = len(blocks_of(model.module, model.head)) - 1
            last = depth - self.copy_first if self.copied == "frozen" else None
            return replace(plan, body="fine-tuned", head="fine-tuned", last=last)
        body, head = (
            "fine-tuned" if state == "re-initialised" else state for state in (self.body, self.head)
        )
        return replace(plan, body=body, head=head)

    def refuse_idle(self, model: Growing) -> None:
        """Raise if nothing before the head learns, where the head is not what is wanted.

        Raises:
            BadOption: which says what to do instead.
        """
        rows = self.describe(model)
        if all(row.state == "frozen" for row in rows if row.block != rows[-1].block):
            raise BadOption(
                "this plan trains the last layer alone, and a classifier that was made here has "
                "none to train: it is solved exactly with every change, so feature extraction is "
                "what learning does already. To train more: --preset last-block, or none for all"
            )

    def _row(
        self,
        module: Any,
        blocks: tuple[Block, ...],
        place: int,
        layer: Layer,
        adapters: frozenset[str],
    ) -> Row:
        block = blocks[place]
        state = self._state(place, len(blocks) - 1)
        rate = self.head_rate if block.head else self.rate
        rate *= self.layer_decay ** (len(blocks) - 1 - place)
        buffers = dict(module.get_submodule(layer.module).named_buffers(recurse=False))
        # Statistics and scales of weights that are gone say nothing of those that begin anew.
        kept = self.batchnorm == "frozen" and state != "re-initialised"
        if kept and "running_mean" in buffers:
            state = "frozen"
        for rule in self.rules:
            if rule.matches(block, layer):
                state = state if rule.state is None else rule.state
                rate = rate if rule.rate is None else rate * rule.rate
        learning = layer.size
        if self.lora and not block.head and state == "fine-tuned":
            state = "adapted" if layer.name in adapters else "frozen"
            learning = adapter_size(module, layer.name, self.lora) if state == "adapted" else 0
        if state == "frozen":
            learning, rate = 0, 0.0
        share = 0.0 if state == "re-initialised" else 1.0
        if state == "fine-tuned" and not block.head:
            share = self.shrink
        names = layer.parameters
        return Row(
            block.name, layer.name, layer.kind, layer.size, learning, state, rate, names, share
        )

    def _state(self, place: int, depth: int) -> State:
        if self.copy_first is not None:
            return self.copied if place < self.copy_first else "re-initialised"
        if place == depth:
            return self.head
        if self.last is not None and place < depth - self.last:
            return "frozen"
        return self.body

    def closed(self, blocks: int, epoch: int, epochs: int) -> int:
        """How many of the first blocks of the body do not learn yet.

        Args:
            blocks: of the body.
            epoch: that begins, from 0 on.
            epochs: in all.

        >>> [Plan.preset("gradual-unfreezing").closed(8, epoch, 8) for epoch in range(6)]
        [8, 6, 4, 2, 0, 0]
        """
        if not self.gradual or epochs < 2:
            return 0
        return max(0, blocks - epoch * math.ceil(blocks / (epochs // 2)))


def narrowed(plan: Plan, own: Plan) -> Plan:
    """The plan of a phase of a method, with a user's in the place of what it leaves open.

    One that trains the head alone, or begins anew, does so; what the method seals stays sealed, and
    normalisations that either keeps are kept. Of what the user's says nothing, the method's counts.
    """
    if own.body == "re-initialised":
        return own
    batchnorm: Any = "frozen" if "frozen" in (plan.batchnorm, own.batchnorm) else "trained"
    if plan == Plan(batchnorm=plan.batchnorm):
        return replace(own, batchnorm=batchnorm)
    head = plan.head if own.head == "fine-tuned" or plan.copy_first is not None else own.head
    if own.body == "frozen":
        return replace(own, head=head, head_rate=plan.head_rate, batchnorm=batchnorm)
    usual = Plan()
    merged = {
        each.name: getattr(own, each.name)
        for each in fields(own)
        if plan.copy_first is None and getattr(plan, each.name) == getattr(usual, each.name)
    }
    merged |= {"head": head, "rules": (*plan.rules, *own.rules), "batchnorm": batchnorm}
    return replace(plan, **(merged | {"shrink": min(plan.shrink, own.shrink)}))


PRESETS: Final[Mapping[str, Plan]] = MappingProxyType(
    {
        "feature-extraction": Plan(body="frozen", head="re-initialised"),
        "head": Plan(body="frozen"),
        "last-block": Plan(last=1),
        "gradual-unfreezing": Plan(gradual=True),
        "full": Plan(),
        "lora": Plan(lora=8),
        "from-scratch": Plan(body="re-initialised", head="re-initialised"),
    }
)
"""Plans by the field's names; `lora` has the rank 8 of Hu 2021, table 6, where it is enough."""

assert set(_GIVEN) < set(get_args(State))


def spared(name: str, parameter: Any) -> bool:
    """Whether weight decay spares a parameter: norms, biases, scales, tokens, positions."""
    return parameter.ndim < 2 or name.endswith(".bias") or _SPARED.search(name) is not None
