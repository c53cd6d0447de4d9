"""Values that no option can have: refused when they are given, and before anything is trained."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from retain.bench.methods import checked as judged  # noqa: E402
from retain.errors import BadLabel, BadOption  # noqa: E402
from retain.train.augment import Augment, Views  # noqa: E402
from retain.train.data import Data, split  # noqa: E402
from retain.train.growing import growing  # noqa: E402
from retain.train.importance import fisher, gathered  # noqa: E402
from retain.train.lessons import Memory, Taught, teach  # noqa: E402
from retain.train.methods import REGISTRY, make, options_of  # noqa: E402
from retain.train.plan import Plan  # noqa: E402
from retain.train.recipe import Recipe  # noqa: E402
from retain.train.rehearsal import Budget  # noqa: E402

from .small import net, pictures, start  # noqa: E402

RECIPE = Recipe(epochs=1, batch=8, rate=0.05, device="cpu")
MEMORY = Memory(Budget(per_class=4), "random")

# -- when a method is made ------------------------------------------------------------------------

ABOVE, ON, SHARE = "give a number above 0", "give a number from 0 on", "give a number from 0 to 1"
COUNT = "give a whole number from 1 on"

BAD = [
    *[(name, "pictures", bad, f"{COUNT} or none")
      for name in ("ewc", "online-ewc", "mas") for bad in (0, -1)],
    *[(name, "decay", bad, SHARE)
      for name in ("ewc", "online-ewc", "mas", "rwalk") for bad in (-0.1, 1.5)],
    *[(name, "strength", -1, ON)
      for name in ("ewc", "online-ewc", "mas", "si", "rwalk", "lwf", "eeil", "lucir")],
    *[(name, "temperature", bad, ABOVE)
      for name in ("lwf", "lwm", "eeil", "bic", "wa") for bad in (0, -1)],
    *[(name, "damping", bad, ABOVE) for name in ("si", "rwalk") for bad in (0, -1e-3)],
    ("rwalk", "every", 0, COUNT),
    ("rwalk", "every", -3, COUNT),
    ("lucir", "nearest", 0, COUNT),
    ("lucir", "margin", -0.5, ON),
    ("lwf", "warm_up", -1, "give a whole number from 0 on"),
    ("lwm", "beta", -1, ON),
    ("lwm", "gamma", -1, ON),
    ("eeil", "balanced_rate", 0, ABOVE),
    ("eeil", "balanced_epochs", 0, ABOVE),
    ("eeil", "balanced_epochs", -1, ABOVE),
    ("bic", "pull", -1, ON),
    ("bic", "aside", 0, "give a number between 0 and 1"),
    ("bic", "aside", 1.0, "give a number between 0 and 1"),
    ("der++", "alpha", -0.2, ON),
    ("der++", "beta", -0.5, ON),
    ("gdumb", "cutmix", -1, ON),
    ("joint", "shrink", 1.5, SHARE),
]  # fmt: skip

WORDS = [
    ("ewc", "labels", "best", "true, predicted or sampled"),
    ("online-ewc", "labels", "best", "true, predicted or sampled"),
    ("finetuning", "over", "x", "present or all"),
    ("dmc", "begin", "x", "fresh or old"),
    ("gdumb", "begin", "x", "fresh or given"),
    ("joint-exact", "begin", "x", "given or last"),
    ("joint-exact", "batchnorm", "x", "trained or frozen"),
]


WAYS = {
    "Python": lambda name, **options: REGISTRY[name](**options),
    "make": make,
    "text": lambda name, **options: make(name, **{key: str(each) for key, each in options.items()}),
}


@pytest.mark.parametrize("made", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("name", "option", "bad", "said"), BAD)
def test_a_number_that_cannot_be(name, option, bad, said, made):
    with pytest.raises(BadOption) as caught:
        made(name, **{option: bad})
    assert str(caught.value) == f"{option} is {bad}; {said}"


@pytest.mark.parametrize("made", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("name", "option", "bad", "said"), WORDS)
def test_a_word_that_cannot_be(name, option, bad, said, made):
    with pytest.raises(BadOption) as caught:
        made(name, **{option: bad})
    assert str(caught.value) == f"{option} is {bad!r}; give {said}"


def test_other_things_that_cannot_be():
    with pytest.raises(BadOption, match="no plan is called 'x'"):
        make("first-session", plan="x")
    with pytest.raises(BadOption, match="a label smoothing of 1 cannot be"):
        make("joint-exact", smoothing=1)
    with pytest.raises(BadOption, match="auxiliary is 3; give a Data or none"):
        REGISTRY["dmc"](auxiliary=3)


OPTIONS = [(name, option) for name in sorted(REGISTRY) for option in options_of(name)]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_from_python_each_option_has_its_type(name, option):
    """Text was taken for true, and a number that is none went on to the loss."""
    usual = options_of(name)[option]
    with pytest.raises(BadOption, match=f"{option} is|no plan is called"):
        REGISTRY[name](**{option: ["x"] if option == "layer" else "no such"})
    if isinstance(usual, float):
        for bad in (math.nan, math.inf, -math.inf):
            with pytest.raises(BadOption, match=f"{option} is"):
                REGISTRY[name](**{option: bad})
    if isinstance(usual, int) and not isinstance(usual, bool):
        with pytest.raises(BadOption, match=f"{option} is 2.5"):
            REGISTRY[name](**{option: 2.5})


ZERO = [
    *[(name, "strength") for name in ("ewc", "online-ewc", "mas", "si", "rwalk", "lwf", "eeil")],
    ("lucir", "strength"), ("lucir", "margin"), ("lwm", "beta"), ("lwm", "gamma"), ("bic", "pull"),
    ("der++", "alpha"), ("der++", "beta"), ("gdumb", "cutmix"), ("lwf", "warm_up"),
    *[(name, "decay") for name in ("ewc", "online-ewc", "mas", "rwalk")], ("joint", "shrink"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "option"), ZERO)
def test_what_can_be_switched_off(name, option):
    method, state = make(name, **{option: 0}), None
    for labels in ("ab", "cd"):
        state = state or Taught(growing(net(), kind=method.head))
        state = teach(method, state, pictures(labels, 4), RECIPE, memory=MEMORY)
    found = [*state.model.module.state_dict().values(), *state.carried.values()]
    assert all(bool(each.isfinite().all()) for each in found if name != "der++")


def test_words_with_spaces_are_what_they_say():
    """As text ' all ' was neither of the two that are asked for later."""
    assert make("finetuning", over=" all ") == make("finetuning", over="all")
    assert make("ewc", labels=" true ") == make("ewc", labels="true")


# -- what may be kept -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Memory(Budget(total=10), "hering"),
         "choice is 'hering'; give random, herding, entropy or distance"),
        (lambda: Memory(10), "budget is 10; give a Budget"),
        (lambda: Budget(total=2.5), "total is 2.5; give a whole number or none"),
        (lambda: Budget(total=True), "total is True; give a whole number or none"),
        (lambda: Budget(per_class="3"), "per_class is '3'; give a whole number or none"),
        (lambda: judged("icarl", {"choice": "hering"}),
         "choice is 'hering'; give random, herding, entropy or distance"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_told_at_once(made, said):
    with pytest.raises(BadOption) as caught:
        made()
    assert str(caught.value) == said


def test_a_budget_may_be_a_number_of_another_library():
    numpy = pytest.importorskip("numpy")
    assert Budget(total=numpy.int64(3)).quotas({"a": 9}) == {"a": 3}


@pytest.mark.parametrize("most", [0, -1, 2.5])
def test_importance_is_measured_on_some_picture(most):
    model, data = start("ab"), pictures("ab", 3)
    for measured in (
        lambda: fisher(model, data, Views(), most=most),
        lambda: gathered(model, data, Views(), lambda a, b: a.sum(), torch.abs, most=most),
    ):
        with pytest.raises(BadOption, match=f"most is {most}; give a whole number from 1 on or no"):
            measured()


# -- when a lesson begins -------------------------------------------------------------------------


@pytest.fixture
def still(monkeypatch):
    """No step is taken."""

    def step(*given, **more):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(torch.optim.SGD, "step", step)


@pytest.mark.usefixtures("still")
def test_a_step_would_be_seen():
    with pytest.raises(AssertionError, match="a step was taken"):
        begin(make("finetuning"))


def begin(method, fresh="ab", *, kind=None, recipe=RECIPE, memory=MEMORY, **options):
    state = Taught(growing(net(), kind=kind or method.head))
    data = fresh if isinstance(fresh, Data) else pictures(fresh, 6)
    return teach(method, state, data, recipe, memory=memory, **options)


MIXED = [Augment(mixup=0.2), Augment(cutmix=1.0)]


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("augment", MIXED)
@pytest.mark.parametrize("name", ["lucir", "der++"])
def test_mixtures_are_refused_in_the_first_lesson(name, augment):
    with pytest.raises(BadOption, match="turn mixup and cutmix off"):
        begin(make(name), recipe=replace(RECIPE, augment=augment))


@pytest.mark.parametrize("name", ["lucir", "der++"])
def test_mixtures_go_with_a_memory_of_nothing(name):
    recipe, memory = replace(RECIPE, augment=MIXED[0]), Memory(Budget(total=0))
    state = begin(make(name), recipe=recipe, memory=memory)
    assert teach(make(name), state, pictures("cd", 6), recipe, memory=memory).lessons == 2


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("name", ["ewc", "online-ewc", "mas", "si", "rwalk"])
@pytest.mark.parametrize("exemplars", [False, True])
def test_adapters_are_refused_in_the_first_lesson(name, exemplars):
    pytest.importorskip("peft")
    with pytest.raises(BadOption, match="a plan without lora, or a method that holds answers"):
        begin(make(name, exemplars=exemplars), plan=Plan.preset("lora"))


@pytest.mark.usefixtures("still")
def test_bic_refuses_cosines_in_the_first_lesson():
    with pytest.raises(BadOption, match="a cosine head has no bias to correct"):
        begin(make("bic"), kind="cosine")


def test_bic_on_cosines_that_has_nothing_to_correct():
    memory = Memory(Budget(per_class=1))
    state = begin(make("bic"), kind="cosine", memory=memory)
    assert teach(make("bic"), state, pictures("cd", 6), RECIPE, memory=memory).lessons == 2


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("labels", [("a", 1, None), (1, 2, 3), ("a", None, "b"), ("a", ["b"], "c")])
def test_labels_that_are_no_text(labels):
    data = Data(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), labels)
    bad = next(each for each in labels if not isinstance(each, str))
    with pytest.raises(BadLabel) as caught:
        begin(make("finetuning"), data)
    assert str(caught.value) == f"{bad!r} cannot be a class; labels are text that is not empty"
    if labels != (1, 2, 3):
        with pytest.raises(BadLabel, match="labels are text"):
            split(data, 0.5)


@pytest.mark.usefixtures("still")
def test_patience_says_what_it_lacks():
    patient = replace(RECIPE, patience=1)
    with pytest.raises(BadOption, match="patience needs validation= pictures that tell"):
        begin(make("finetuning"), recipe=patient)
    with pytest.raises(BadOption) as caught:
        begin(make("finetuning"), recipe=patient, validation=pictures("cd", 2))
    assert str(caught.value) == (
        "patience needs validation= pictures of classes that the network knows, such as 'a', and "
        "none of the 4 given shows one; give some of each"
    )


def test_checking_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; from retain.train.methods import make\n"
        "from retain.errors import BadOption\n"
        "try: make('ewc', pictures='0')\n"
        "except BadOption as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "pictures is 0; give a whole number from 1 on or none\n"
