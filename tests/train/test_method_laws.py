"""Every class-incremental method, and the laws that all of them keep."""

import contextlib
import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from retain.errors import BadOption  # noqa: E402
from retain.train.inference import evaluate  # noqa: E402
from retain.train.lessons import Memory, Taught, teach  # noqa: E402
from retain.train.methods import REGISTRY, exact, make, options_of  # noqa: E402
from retain.train.plan import Plan  # noqa: E402
from retain.train.rehearsal import Budget  # noqa: E402

from .tiny import MEMORY, RECIPE, net, pictures, same, taught, weights  # noqa: E402
from .tiny import lesson as lesson_of  # noqa: E402

METHODS = sorted(REGISTRY)
TWO = ("abc", "de")
REHEARSING = sorted(name for name in METHODS if "exemplars" in options_of(name))
QUICK = {"rwalk": {"every": 3}}


def quick(name, **options):
    return make(name, **{**QUICK.get(name, {}), **options})


@pytest.mark.parametrize("name", METHODS)
def test_lessons_give_a_network_of_all_classes(name):
    method = quick(name)
    state = taught(method, ("abc", "de", "f"))
    assert state.model.classes == tuple("abcdef")
    scores = method.scores(state, pictures("abcdef", 2).pictures, RECIPE.views)
    assert scores.shape == (12, 6)
    assert scores.dtype == torch.float32
    assert not scores.isnan().any()
    assert (scores.max(1).values > -torch.inf).all()
    held = not any(module._forward_hooks for module in state.model.module.modules())
    assert held, "a hook was left behind"


@pytest.mark.parametrize("name", METHODS)
def test_the_same_lessons_give_the_same_bits(name):
    one, two = taught(quick(name), TWO), taught(quick(name), TWO)
    assert same(one.model, two.model)
    assert one.carried.keys() == two.carried.keys()
    for key, each in one.carried.items():
        assert torch.equal(each.nan_to_num(-7), two.carried[key].nan_to_num(-7))


@pytest.mark.parametrize("name", METHODS)
def test_a_seed_changes_more_than_the_order_of_classes(name):
    seeded = dataclasses.replace(RECIPE, seed=1)
    assert not same(taught(quick(name), TWO).model, taught(quick(name), TWO, seeded).model)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("budget", [Budget(total=7), Budget(per_class=2), Budget(total=0)])
def test_budgets_are_never_exceeded(name, budget):
    if name == "gdumb" and budget.total == 0:
        pytest.skip("GDumb learns from its memory alone")
    method, state = quick(name), Taught(net(quick(name).head))
    for number, names in enumerate(("ab", "cd", "ae")):
        fresh = pictures(names, 6, seed=number)
        state = teach(method, state, fresh, RECIPE, memory=Memory(budget))
        kept = state.exemplars
        if method.keeps == "nothing":
            assert len(kept) == 0
        if method.keeps != "exemplars":
            continue
        if budget.total is not None:
            assert len(kept) == budget.total
        else:
            assert max(kept.counts.values()) <= 2
        content = kept.pictures[torch.arange(len(kept))].flatten(1)
        assert len(content.unique(dim=0)) == len(kept), "a picture is kept twice"


@pytest.mark.parametrize("name", REHEARSING)
def test_exemplars_where_they_are_asked_for(name):
    method = quick(name, exemplars=True)
    assert (quick(name).wants, method.wants) == ("nothing", "exemplars")
    first, second = taught(method, ("abc",)), taught(method, TWO)
    assert second.exemplars.counts.keys() == set("abcde")
    assert len(second.exemplars) == 12
    # All classes compete: the older part of the head moves, and nothing but the body is held.
    assert not torch.equal(weights(first.model)["8.0.weight"], weights(second.model)["8.0.weight"])
    assert same(taught(quick(name), TWO).model, taught(quick(name, exemplars=False), TWO).model)


def test_no_row_of_the_head_is_held_beside_exemplars():
    lesson = lesson_of("abc", pictures("de"))
    names = {name: torch.ones_like(each) for name, each in lesson.before.module.named_parameters()}
    held = make("ewc", exemplars=True).held(lesson, names)
    assert set(names) - set(held) == {"8.0.weight", "8.0.bias"}
    assert make("ewc").held(lesson, names) == names


def test_gdumb_with_nothing_to_keep_says_so():
    with pytest.raises(BadOption, match="no pictures"):
        taught(make("gdumb"), TWO, memory=Memory(Budget(total=0)))


@pytest.mark.parametrize("name", METHODS)
def test_classes_come_in_any_number_and_again(name):
    state = taught(quick(name), ("a", "bc", "d", "a", "de"))
    assert state.model.classes == tuple("abcde")
    scores = quick(name).scores(state, pictures("a", 2).pictures, RECIPE.views)
    assert not scores.isnan().any()


@pytest.mark.parametrize("name", METHODS)
def test_the_statistics_of_frozen_looks_do_not_move(name):
    """Importance, exemplars, features, biases: looking at a network leaves it as it is."""
    seen = []
    kind = REGISTRY[name]

    class Watched(kind):
        def after(self, lesson, model):
            before = weights(model)
            found = kind.after(self, lesson, model)
            after = weights(model)
            seen.append(all(torch.equal(before[n], after[n]) for n in before))
            assert not model.module.training
            return found

        def keep(self, lesson, model):
            before = weights(model)
            found = kind.keep(self, lesson, model)
            after = weights(model)
            seen.append(all(torch.equal(before[n], after[n]) for n in before))
            return found

    taught(Watched(**QUICK.get(name, {})), TWO)
    assert len(seen) == 4
    assert all(seen)


ALTERNATIVES = {
    ("ewc", "strength"): 1.0,
    ("ewc", "decay"): 0.1,
    ("ewc", "labels"): "true",
    ("ewc", "pictures"): 5,
    ("online-ewc", "strength"): 1.0,
    ("online-ewc", "decay"): 0.1,
    ("online-ewc", "labels"): "predicted",
    ("online-ewc", "pictures"): 5,
    ("si", "strength"): 50.0,
    ("si", "damping"): 0.001,
    ("mas", "strength"): 0.7,
    ("mas", "decay"): 0.1,
    ("mas", "pictures"): 5,
    ("rwalk", "strength"): 100.0,
    ("rwalk", "every"): 2,
    ("rwalk", "decay"): 0.2,
    ("rwalk", "damping"): 1.0,
    ("lwf", "temperature"): 5.0,
    ("lwf", "strength"): 3.0,
    ("lwf", "warm_up"): 1,
    ("lwf", "groups"): False,
    ("lwm", "beta"): 3.0,
    ("lwm", "gamma"): 3.0,
    ("lwm", "temperature"): 5.0,
    ("lwm", "layer"): "2",
    ("dmc", "auxiliary"): "pictures",
    ("dmc", "begin"): "old",
    ("eeil", "temperature"): 5.0,
    ("eeil", "strength"): 3.0,
    ("eeil", "balanced_epochs"): 1.5,
    ("eeil", "balanced_rate"): 0.5,
    ("bic", "temperature"): 5.0,
    ("bic", "aside"): 0.4,
    ("bic", "pull"): 5.0,
    ("lucir", "strength"): 50.0,
    ("lucir", "margin"): 0.9,
    ("lucir", "nearest"): 1,
    ("wa", "temperature"): 5.0,
    ("wa", "positive"): True,
    ("der++", "alpha"): 3.0,
    ("der++", "beta"): 3.0,
    ("gdumb", "begin"): "given",
    ("gdumb", "cutmix"): 1.0,
    ("finetuning", "over"): "all",
    ("joint", "shrink"): 0.5,
    ("first-session", "plan"): "head",
    ("joint-exact", "begin"): "last",
    ("joint-exact", "batchnorm"): "frozen",
    ("joint-exact", "smoothing"): 0.5,
    **{(name, "exemplars"): True for name in REHEARSING},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_option_is_really_read(name):
    lessons = ("abc", "de", "fg")
    usual = taught(quick(name), lessons)
    for option in options_of(name):
        value = ALTERNATIVES[name, option]
        if value == "pictures":
            value = pictures("ghi", 5, seed=40)
        other = taught(quick(name, **{option: value}), lessons)
        assert not same(usual.model, other.model), f"{option}={value} changes nothing"


def test_options_are_checked_by_name():
    with pytest.raises(BadOption, match="has no option 'lamb'; it has strength"):
        make("mas", lamb=3)
    with pytest.raises(BadOption, match="no method 'icarrl'"):
        make("icarrl")


@pytest.mark.parametrize(
    "name", ["si", "rwalk", "lwm", "eeil", "bic", "der++", "dmc", "joint-exact"]
)
def test_a_lesson_that_was_killed_goes_on(name, tmp_path):
    class Killed(Exception):
        pass

    for stop in (10, 35, 50):
        done = [0]

        def progress(now, total, done=done, stop=stop):
            done[0] += 1
            if done[0] == stop:
                raise Killed

        method, memory = quick(name), MEMORY
        first = taught(method, ("abc",))
        whole = teach(method, first, pictures("de", seed=1), RECIPE, memory=memory)
        place = tmp_path / str(stop)
        options = {"memory": memory, "folder": place, "save_every": 0.0}
        with contextlib.suppress(Killed):
            teach(method, first, pictures("de", seed=1), RECIPE, progress=progress, **options)
        again = teach(method, first, pictures("de", seed=1), RECIPE, **options)
        assert same(whole.model, again.model)
        for key, each in whole.carried.items():
            assert torch.equal(each.nan_to_num(-7), again.carried[key].nan_to_num(-7)), key


@pytest.mark.parametrize("name", METHODS)
def test_what_is_easy_is_learned(name):
    recipe = dataclasses.replace(RECIPE, epochs=40)
    # Of eight features none is spare: held as firmly as sixty-four bear, they learn nothing new.
    method = quick(name, **({"strength": 0.1} if name == "lucir" else {}))
    options = {"memory": Memory(Budget(total=30))}
    state = taught(method, ("abc",), recipe, **options)
    data = pictures("abc", 10, seed=77)
    scores = method.scores(state, data.pictures, recipe.views)
    right = (scores.argmax(1) == state.model.positions(data.labels)).float().mean()
    assert right > 0.8
    if method.keeps != "nothing":
        state = teach(method, state, pictures("de", seed=1), recipe, **options)
        data = pictures("abcde", 10, seed=78)
        scores = method.scores(state, data.pictures, recipe.views)
        right = (scores.argmax(1) == state.model.positions(data.labels)).float().mean()
        assert right > 0.6
    assert evaluate(state.model, data, recipe.views).loss > 0


@pytest.mark.parametrize("name", ["si", "rwalk"])
def test_what_follows_the_path_of_weights_refuses_adapters_before_anything_is_trained(name):
    """They failed when all of the training was done: no weight of the next lesson has its name."""
    pytest.importorskip("peft")
    with pytest.raises(BadOption, match="a plan without lora"):
        taught(quick(name), ("abc",), plan=Plan.preset("lora"))


def test_what_rests_of_the_head_is_told():
    """Without exemplars LwM holds the older rows, which its paper does not say; LwF does not."""
    for name, rests in (("lwm", True), ("lwf", False)):
        before = taught(quick(name), ("abc",))
        after = taught(quick(name), ("abc", "de"))
        part = f"{before.model.head}.0.weight"
        assert torch.equal(weights(before.model)[part], weights(after.model)[part]) == rests
        assert ("stay as they are" in type(quick(name)).__doc__) == rests


@pytest.mark.parametrize("name", ["first-session", "joint-exact"])
def test_an_exact_head_is_solved_once(monkeypatch, name):
    solved, tune = [], exact.tune
    monkeypatch.setattr(exact, "tune", lambda *a: solved.append(1) or tune(*a))
    state = taught(make(name), ("abc", "de"))
    asked = pictures("abcde", 2).pictures
    first, again = (make(name).scores(state, asked, RECIPE.views) for _ in "ab")
    assert torch.equal(first, again)
    assert len(solved) == 1
    assert not dataclasses.replace(state, carried={}).found, "another state has another head"
