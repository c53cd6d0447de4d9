"""Values of options, checked by the types of what they are for."""

from dataclasses import fields, is_dataclass
from typing import Literal

import pytest

from retain.bench.methods import REGISTRY as JUDGED
from retain.bench.methods import checked
from retain.bench.methods import options_of as judged_options_of
from retain.errors import BadOption
from retain.train.methods import REGISTRY, make, options_of
from retain.typed import read

BOTH = Literal["left", "right"]


@pytest.mark.parametrize(
    ("hint", "given", "wanted"),
    [
        (bool, "true", True),
        (bool, "YES", True),
        (bool, "False", False),
        (bool, " no ", False),
        (bool, True, True),
        (int, "3", 3),
        (int, 3, 3),
        (float, "3", 3),
        (float, "1e-3", 0.001),
        (float, 2, 2),
        (float | None, "None", None),
        (int | None, None, None),
        (int | None, "7", 7),
        (BOTH, "left", "left"),
        (BOTH | None, "none", None),
        (Literal["none"] | None, "none", "none"),
        (float | Literal["own"], "own", "own"),
        (str, "layer4", "layer4"),
        (str, 4, "4"),
        (str | None, "none", None),
        (str | Literal["none"] | None, "none", "none"),
        (tuple[float, ...], "0.5, 2", (0.5, 2)),
        (tuple[float, ...], (0.5, 2), (0.5, 2)),
        (dict, {}, {}),
        (dict | None, "none", None),
    ],
)
def test_what_is_read(hint, given, wanted):
    found = read("it", hint, given)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("hint", "given", "said"),
    [
        (bool, "maybe", "it is 'maybe'; give true or false"),
        (bool, 1, "it is 1; give true or false"),
        (int, "2.5", "it is '2.5'; give a whole number"),
        (int, True, "it is True; give a whole number"),
        (float, "hot", "it is 'hot'; give a number"),
        (float, "nan", "give a number"),
        (float, "inf", "give a number"),
        (float, False, "it is False; give a number"),
        (float | None, "", "it is ''; give a number or none"),
        (BOTH, "up", "it is 'up'; give left or right"),
        (int | BOTH | None, "up", "give a whole number, left, right or none"),
        (str, True, "it is True; give text"),
        (str, None, "it is None; give text"),
        (tuple[float, ...], "0.5,hot", "give numbers with commas between them"),
        (dict, "x", "it cannot be given as text; give it from Python"),
        (dict | None, "x", "it cannot be given as text; give it from Python"),
        (dict, 3, "it is 3; give a dict"),
    ],
)
def test_what_is_refused(hint, given, said):
    with pytest.raises(BadOption) as caught:
        read("it", hint, given)
    assert said in str(caught.value)


@pytest.mark.parametrize("word", ["no", "No", "false", "False", "FALSE"])
def test_a_no_is_no_yes(word):
    """It stayed text, and text is true."""
    assert make("lwf", exemplars=word, groups=word) == make("lwf", exemplars=False, groups=False)


@pytest.mark.parametrize(
    ("name", "option", "value", "said"),
    [
        ("lwf", "temperature", "hot", "temperature is 'hot'; give a number"),
        ("lwf", "exemplars", "some", "exemplars is 'some'; give true or false"),
        ("dmc", "auxiliary", "x", "auxiliary cannot be given as text; give it from Python"),
        ("gdumb", "begin", "anew", "begin is 'anew'; give fresh or given"),
        ("ewc", "labels", "mine", "labels is 'mine'; give true, predicted or sampled"),
        ("ewc", "pictures", "0.5", "pictures is '0.5'; give a whole number or none"),
    ],
)
def test_values_of_methods_are_checked(name, option, value, said):
    with pytest.raises(BadOption) as caught:
        make(name, **{option: value})
    assert str(caught.value) == said


@pytest.mark.parametrize("name", REGISTRY)
def test_every_default_of_a_method_is_one_of_its_values(name):
    assert is_dataclass(REGISTRY[name])
    usual = options_of(name)
    assert make(name, **usual) == make(name)
    texts = {option: str(value) for option, value in usual.items()}
    assert make(name, **texts) == make(name)
    assert {*usual} == {each.name for each in fields(REGISTRY[name])}


@pytest.mark.parametrize("name", JUDGED)
def test_every_default_of_a_judged_method_is_one_of_its_values(name):
    usual = judged_options_of(name)
    assert checked(name, usual) == usual
    texts = {option: str(value) for option, value in usual.items()}
    assert checked(name, texts) == usual
