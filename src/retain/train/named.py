"""Recipes and plans from names and values, as a command line has them.

Each attribute of `Recipe` and `Plan` has a name of one word, with those of the parts of a recipe
among them: those of `Augment` as they are, those of a schedule or of `Averaging` behind its name.
What cannot be said so is `Views`, which follow from the pictures that the network was made for.

>>> plan, recipe = settled({"last": "2", "mixup": "0.2", "clip": "none", "averaging": "ema"})
>>> plan.last, recipe.augment.mixup, recipe.clip, recipe.averaging.kind
(2, 0.2, None, 'ema')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from retain.errors import BadOption
from retain.train import schedules
from retain.train.augment import Augment
from retain.train.plan import Given, Plan, Rule
from retain.train.recipe import Averaging, Recipe, transfer
from retain.train.sampling import Sampling
from retain.typed import hints_of, read

__all__ = ["SCHEDULES", "names", "settled"]

SCHEDULES: Final[Mapping[str, type[schedules.Schedule]]] = MappingProxyType(
    {
        "one-cycle": schedules.OneCycle,
        "constant": schedules.Constant,
        "cosine": schedules.Cosine,
        "exponential": schedules.Exponential,
        "step": schedules.Steps,
    }
)
"""The schedules by name; `warm_up` goes before any."""

_AVERAGING: Final = {"averaging_decay": "ema", "averaging_start": "swa"}
"""The kind that each counts for."""

_PLANS: Final = {"rate": "body_rate"}
"""What of a plan is called otherwise here, for a recipe has another of the name."""


@cache
def names() -> Mapping[str, Any]:
    """All names that `settled` takes, and the types of their values."""
    recipe, plan, augment = (dict(hints_of(kind)) for kind in (Recipe, Plan, Augment))
    averaging = hints_of(Averaging)
    for part in ("views", "augment", "schedule", "averaging"):
        del recipe[part]
    parts = {
        f"schedule_{name}": hint for kind in SCHEDULES.values() for name, hint in _own(kind).items()
    }
    return MappingProxyType(
        {
            **recipe,
            "sampling": Sampling,
            "schedule": Literal[tuple(SCHEDULES)],
            **parts,
            "warm_up": float | None,
            **augment,
            "averaging": averaging["kind"] | None,
            **{name: averaging[name.removeprefix("averaging_")] for name in _AVERAGING},
            **{_PLANS.get(name, name): hint for name, hint in plan.items()},
        }
    )


def settled(given: Mapping[str, Any], preset: str = "full") -> tuple[Plan, Recipe]:
    """The plan and the recipe of ``retain adapt`` that some names and values ask for.

    Args:
        given: values by name, as `names` has them; text is read. Of rules, text has a pattern and,
            behind a colon, a state or what the rate is multiplied by, with commas between them.
        preset: the plan that they change, with batch normalisations kept as they are; the recipe
            is that of `transfer`.

    Raises:
        BadOption: if there is no such name, a value does not fit, or it would count for nothing.

    >>> settled({"rules": "conv1:frozen,layer4:0.1"})[0].rules[1]
    Rule(pattern='layer4', state=None, rate=0.1)
    """
    known = names()
    for name in given:
        if name not in known:
            raise BadOption(f"no recipe has {name!r}; there are {', '.join(known)}")
    values = {
        name: _rules(value) if name == "rules" else read(name, known[name], value)
        for name, value in given.items()
    }
    own = transfer()
    changes = _of(values, Recipe)
    changes["schedule"] = _schedule(values, own.schedule)
    changes["averaging"] = _averaging(values)
    changes["augment"] = replace(own.augment, **_of(values, Augment))
    made = replace(own, **changes)
    _refuse_idle(values, made)
    planned: dict[str, Any] = {"batchnorm": "frozen"}
    for name in _own(Plan):
        if (called := _PLANS.get(name, name)) in values:
            planned[name] = values[called]
    return Plan.preset(preset, **planned), made


def _own(kind: type) -> dict[str, Any]:
    """The fields of a dataclass and their types."""
    hints = hints_of(kind)
    return {each.name: hints[each.name] for each in fields(kind)}


def _of(given: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """What was given of the fields of a dataclass."""
    return {name: given[name] for name in _own(kind) if name in given}


def _schedule(given: Mapping[str, Any], usual: schedules.Schedule) -> schedules.Schedule:
    made = SCHEDULES[given["schedule"]]() if "schedule" in given else usual
    own = {
        name.removeprefix("schedule_"): value
        for name, value in given.items()
        if name.startswith("schedule_")
    }
    called = next(name for name, kind in SCHEDULES.items() if type(made) is kind)
    for name in own:
        if name not in _own(type(made)):
            has = [f"schedule_{each}" for each in _own(type(made))]
            raise BadOption(
                f"schedule_{name} is nothing of the schedule {called}, which has "
                f"{', '.join(has) or 'none'}; give another schedule, or leave it out"
            )
    made = replace(made, **own)  # type: ignore[type-var]
    warm = given.get("warm_up")
    return made if warm is None else schedules.WarmUp(made, warm)


def _averaging(given: Mapping[str, Any]) -> Averaging | None:
    kind = given.get("averaging")
    for name, needed in _AVERAGING.items():
        if name in given and kind != needed:
            raise BadOption(f"{name} is for averaging={needed}; give that too, or leave it out")
    own = {name.removeprefix("averaging_"): given[name] for name in _AVERAGING if name in given}
    return None if kind is None else Averaging(kind, **own)


def _refuse_idle(given: Mapping[str, Any], made: Recipe) -> None:
    """What would count for nothing is no option."""
    for name, counts, needed in (
        ("watch", made.patience is not None, "patience, which it is watched for"),
        ("magnitude", made.augment.operations > 0, "operations, how many it is the strength of"),
        (
            "momentum",
            made.optimiser in ("sgd", "rmsprop"),
            "an optimiser that has it, sgd or rmsprop",
        ),
    ):
        if name in given and not counts:
            raise BadOption(f"{name} would count for nothing; give {needed}, or leave it out")


def _rules(value: Any) -> tuple[Rule, ...]:
    if not isinstance(value, str):
        return tuple(read("rules", Rule, each) for each in value)
    return tuple(_rule(each) for each in value.split(","))


def _rule(text: str) -> Rule:
    pattern, colon, what = text.strip().rpartition(":")
    if not colon or not pattern:
        raise BadOption(
            f"{text!r} is no rule; write PATTERN:STATE or PATTERN:RATE, with commas between rules"
        )
    if what in get_args(Given):
        return Rule(pattern, what)  # type: ignore[arg-type]
    return Rule(pattern, rate=read(f"the rate of {pattern}", float, what))
