"""Recipes and plans from names and values, and the table of them in the documentation."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from retain.errors import BadOption
from retain.train import schedules
from retain.train.augment import Augment
from retain.train.named import SCHEDULES, names, settled
from retain.train.plan import Plan, Rule
from retain.train.recipe import Averaging, Recipe, transfer

ROOT = Path(__file__).resolve().parents[2]
PLAN, RECIPE = Plan(batchnorm="frozen"), transfer()


def augmented(**changes):
    return {"augment": replace(RECIPE.augment, **changes)}


# Each name with a value as it is typed, and what that changes of the recipe or of the plan.
EACH = {
    "epochs": ("3", {"epochs": 3}),
    "batch": ("16", {"batch": 16}),
    "accumulate": ("2", {"accumulate": 2}),
    "optimiser": ("adamw", {"optimiser": "adamw"}),
    "rate": ("0.5", {"rate": 0.5}),
    "momentum": ("0.5", {"momentum": 0.5}),
    "nesterov": ("yes", {"nesterov": True}),
    "weight_decay": ("0.5", {"weight_decay": 0.5}),
    "clip": ("none", {"clip": None}),
    "smoothing": ("0", {"smoothing": 0}),
    "sampling": ("balanced", {"sampling": "balanced"}),
    "patience": ("2", {"patience": 2}),
    "precision": ("bf16", {"precision": "bf16"}),
    "device": ("cpu", {"device": "cpu"}),
    "seed": ("5", {"seed": 5}),
    "schedule": ("cosine", {"schedule": schedules.Cosine()}),
    "schedule_rise": ("0.5", {"schedule": schedules.OneCycle(rise=0.5)}),
    "schedule_first": ("0.5", {"schedule": schedules.OneCycle(first=0.5)}),
    "schedule_last": ("0.5", {"schedule": schedules.OneCycle(last=0.5)}),
    "warm_up": ("2", {"schedule": schedules.WarmUp(schedules.OneCycle(), 2)}),
    "flip": ("no", augmented(flip=False)),
    "pad": ("4", augmented(pad=4)),
    "area": ("1", augmented(area=1)),
    "operations": ("2", augmented(operations=2)),
    "mixup": ("0.2", augmented(mixup=0.2)),
    "cutmix": ("1", augmented(cutmix=1)),
    "averaging": ("swa", {"averaging": Averaging("swa")}),
    "body": ("frozen", {"body": "frozen"}),
    "head": ("re-initialised", {"head": "re-initialised"}),
    "last": ("2", {"last": 2}),
    "copy_first": ("2", {"copy_first": 2}),
    "rules": ("a.*:frozen", {"rules": (Rule("a.*", "frozen"),)}),
    "body_rate": ("0.5", {"rate": 0.5}),
    "layer_decay": ("0.5", {"layer_decay": 0.5}),
    "head_rate": ("5", {"head_rate": 5}),
    "gradual": ("true", {"gradual": True}),
    "lora": ("4", {"lora": 4}),
    "shrink": ("0.5", {"shrink": 0.5}),
    "batchnorm": ("trained", {"batchnorm": "trained"}),
}
# Those that count beside another only.
BESIDE = {
    "watch": ({"watch": "accuracy", "patience": "2"}, {"watch": "accuracy", "patience": 2}),
    "magnitude": ({"magnitude": "3", "operations": "2"}, augmented(magnitude=3, operations=2)),
    "schedule_factor": (
        {"schedule_factor": "0.5", "schedule": "exponential"},
        {"schedule": schedules.Exponential(0.5)},
    ),
    "schedule_milestones": (
        {"schedule_milestones": "0.2,6", "schedule": "step"},
        {"schedule": schedules.Steps((0.2, 6))},
    ),
    "averaging_decay": (
        {"averaging_decay": "0.9", "averaging": "ema"},
        {"averaging": Averaging("ema", decay=0.9)},
    ),
    "averaging_start": (
        {"averaging_start": "0.5", "averaging": "swa"},
        {"averaging": Averaging("swa", start=0.5)},
    ),
    "copied": (
        {"copied": "fine-tuned", "copy_first": "2"},
        {"copied": "fine-tuned", "copy_first": 2},
    ),
}
PLANNED = {each.name for each in fields(Plan)} - {"rate"} | {"body_rate"}


def changed(name, changes):
    if name in PLANNED:
        return replace(PLAN, **changes), RECIPE
    return PLAN, replace(RECIPE, **changes)


def test_nothing_said_is_what_adapt_does():
    assert settled({}) == (PLAN, RECIPE)


@pytest.mark.parametrize("name", EACH)
def test_each_name_changes_what_it_says_and_nothing_else(name):
    value, changes = EACH[name]
    assert settled({name: value}) == changed(name, changes) != (PLAN, RECIPE)


@pytest.mark.parametrize("name", BESIDE)
def test_and_so_do_those_that_count_beside_another(name):
    given, changes = BESIDE[name]
    assert settled(given) == changed(name, changes)


def test_there_is_a_name_for_every_attribute():
    assert {*EACH} | {*BESIDE} == {*names()}
    parts = {f"schedule_{each.name}" for kind in SCHEDULES.values() for each in fields(kind)}
    parts |= {f"averaging_{each.name}" for each in fields(Averaging) if each.name != "kind"}
    parts |= {each.name for each in fields(Augment)} | {"warm_up"}
    own = {each.name for each in fields(Recipe)} - {"views", "augment"}
    assert {*names()} == parts | own | PLANNED
    assert len(names()) == len(parts) + len(own) + len(PLANNED), "two have one name"
    every = {*schedules.__all__} - {"Schedule", "WarmUp"}
    assert {kind.__name__ for kind in SCHEDULES.values()} == every


def test_a_preset_is_what_is_changed():
    assert settled({"rate": "0.1"}, "lora")[0] == Plan.preset("lora", batchnorm="frozen")
    assert settled({"lora": "2"}, "lora")[0].lora == 2
    assert settled({"schedule": "step", "warm_up": "2"})[1].schedule == schedules.WarmUp(
        schedules.Steps(), 2
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mixupp": "1"}, r"no recipe has 'mixupp'; there are epochs, batch, .*, mixup, cutmix"),
        ({"views": "1"}, "no recipe has 'views'"),
        ({"mixup": "much"}, "mixup is 'much'; give a number"),
        ({"mixup": "-1"}, "mixup is -1; give 0 or more"),
        ({"epochs": "2.5"}, "epochs is '2.5'; give a whole number"),
        ({"epochs": "0"}, "epochs is 0"),
        ({"smoothing": "1"}, "a label smoothing of 1 cannot be"),
        ({"flip": "perhaps"}, "flip is 'perhaps'; give true or false"),
        ({"averaging": "mean"}, "averaging is 'mean'; give ema, swa or none"),
        ({"schedule": "up"}, "schedule is 'up'; give one-cycle, constant, cosine, exponential"),
        ({"schedule": "constant", "schedule_last": "0"}, "schedule constant, which has none"),
        ({"schedule_factor": "0.5"}, "schedule one-cycle, which has schedule_rise, schedule_first"),
        ({"schedule_rise": "1"}, "only rises has no end"),
        ({"schedule_rise": "2"}, "give a share, 0 to 1"),
        ({"schedule": "step", "schedule_factor": "0"}, "above 0"),
        ({"warm_up": "0"}, "a warm-up of 0 epochs"),
        ({"averaging_decay": "0.9"}, "averaging_decay is for averaging=ema"),
        ({"averaging": "ema", "averaging_start": "0"}, "averaging_start is for averaging=swa"),
        ({"averaging": "none", "averaging_start": "0"}, "averaging_start is for averaging=swa"),
        ({"watch": "accuracy"}, "watch would count for nothing; give patience"),
        ({"magnitude": "9"}, "magnitude would count for nothing; give operations"),
        ({"optimiser": "adam", "momentum": "0.5"}, "momentum would count for nothing; give an opt"),
        ({"body": "adapted"}, "body is 'adapted'; give frozen, fine-tuned or re-initialised"),
        ({"rules": "conv1"}, "'conv1' is no rule; write PATTERN:STATE or PATTERN:RATE"),
        ({"rules": "conv1:cold"}, "the rate of conv1 is 'cold'; give a number"),
        ({"copied": "fine-tuned"}, "but nothing is copied; give copy_first too"),
    ],
)
def test_what_cannot_be(given, said):
    with pytest.raises(BadOption, match=said):
        settled(given)


def test_the_table_in_the_documentation_has_every_name_and_its_value():
    text = (ROOT / "docs" / "verbs" / "adapt.md").read_text()
    rows = {}
    for line in text.split("## The recipe\n")[1].split("\n## ")[0].splitlines():
        cells = [each.strip() for each in line.replace("\\|", "/").strip("|").split("|")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells[1].strip("`")
    assert {*rows} == {*names()}
    plan, recipe = PLAN, RECIPE
    for name, told in rows.items():
        usual = _usual(name, plan, recipe)
        assert told == usual, name


def _usual(name, plan, recipe):
    """The value that a name has if nothing is said, as it would be typed."""
    made = {
        "schedule": "one-cycle",
        "schedule_factor": f"{schedules.Steps().factor}, {schedules.Exponential().factor}",
        "schedule_milestones": ",".join(map(str, schedules.Steps().milestones)),
        "schedule_last": f"{recipe.schedule.last:.0e}, {schedules.Cosine().last:.0f}",
        "averaging_decay": str(Averaging().decay),
        "averaging_start": str(Averaging().start),
        "warm_up": "none",
        "body_rate": str(plan.rate),
        "rules": "none",
    }
    if name in made:
        return made[name]
    if name.startswith("schedule_"):
        return str(getattr(recipe.schedule, name.removeprefix("schedule_")))
    parts = (recipe, recipe.augment, plan)
    value = next(getattr(part, name) for part in parts if hasattr(part, name))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
