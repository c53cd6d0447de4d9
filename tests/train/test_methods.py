"""Methods over the one loop: what each promises, and the known mistakes that none may make."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from retain.errors import BadOption  # noqa: E402
from retain.train import importance  # noqa: E402
from retain.train import lessons as lessons_module  # noqa: E402
from retain.train.augment import Views  # noqa: E402
from retain.train.data import joined  # noqa: E402
from retain.train.growing import growing  # noqa: E402
from retain.train.importance import fisher, gathered  # noqa: E402
from retain.train.inference import evaluate  # noqa: E402
from retain.train.lessons import (  # noqa: E402
    Lesson,
    Memory,
    Method,
    Phase,
    Taught,
    narrowed,
    teach,
)
from retain.train.methods import (  # noqa: E402
    EWC,
    FineTuning,
    FineTuningExemplars,
    Freezing,
    Joint,
    LwF,
    make,
)
from retain.train.plan import PRESETS, Plan, Rule  # noqa: E402
from retain.train.recipe import Recipe  # noqa: E402
from retain.train.rehearsal import Budget  # noqa: E402
from retain.train.terms import CrossEntropy, WeightPenalty  # noqa: E402

from .small import equal, net, pictures, start, weights  # noqa: E402

METHODS = [
    FineTuning(), FineTuning("all"), FineTuningExemplars(), Freezing(), Joint(), LwF(),
    LwF(warm_up=1), EWC(strength=100.0), EWC(strength=100.0, decay=0.5, labels="true"),
]  # fmt: skip
RECIPE = Recipe(epochs=2, batch=8, rate=0.05)
MEMORY = Memory(Budget(total=7))


def lessons(method, plan, recipe=RECIPE, memory=MEMORY):
    taught = Taught(growing(net()))
    for labels, many in plan:
        taught = teach(method, taught, pictures(labels, many), recipe, memory=memory)
        yield taught


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_any_number_of_classes_in_any_number(method):
    """Several, one alone with one picture, known ones again, and new with known together."""
    seen = set()
    for number, taught in enumerate(
        lessons(method, [("cb", 6), ("a", 1), ("b", 4), ("dc", 3), ("e", 2)])
    ):
        seen |= set(["cb", "a", "b", "dc", "e"][number])
        assert set(taught.model.classes) == seen
        assert taught.lessons == number + 1
        assert all(bool(torch.isfinite(t.float()).all()) for t in weights(taught.model).values())
        assert len(taught.exemplars) <= (10**9 if isinstance(method, Joint) else 7)
        assert bool(taught.exemplars) == (method.keeps != "nothing")
    assert taught.model.classes == ("b", "c", "a", "d", "e")


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_one_class_alone_first(method):
    """There is nothing to tell apart: nothing is trained, nothing fails, and it goes on."""
    first, second = lessons(method, [("a", 5), ("b", 5)])
    assert first.model.classes == ("a",)
    assert "'a' is the only class so far" in first.notes[0]
    before = weights(growing(net()))
    after = weights(first.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert set(second.histories) >= {"train"}


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_one_new_class_alone_has_a_gradient(method):
    """The old mistake: cross-entropy over the new class alone is zero whatever is said."""
    first, second = lessons(method, [("ab", 6), ("c", 6)])
    part = "9.1.weight"
    fresh = weights(first.model.grown(["c"], 0))[part].shape
    assert weights(second.model)[part].shape == fresh
    assert second.histories["train"][0].terms["CrossEntropy"] > 1e-3
    assert not equal(first.model.grown(["c"]), second.model)
    start_part = None

    class Spy(Method):
        def phases(self, lesson):
            nonlocal start_part
            start_part = weights(lesson.model)[part]
            return (yield from method.phases(lesson))

    teach(Spy(), first, pictures("c", 6), RECIPE)
    assert not torch.equal(start_part, weights(second.model)[part]), "the new part learned"


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_seed_is_really_read_and_nothing_given_is_changed(method):
    taught = Taught(growing(net()))
    data = pictures("ab", 5)
    before = weights(taught.model)
    made = [teach(method, taught, data, replace(RECIPE, seed=s)).model for s in (0, 0, 1)]
    assert all(torch.equal(before[n], t) for n, t in weights(taught.model).items())
    assert equal(made[0], made[1])
    assert not equal(made[0], made[2])


def test_hyper_parameters_are_really_read():
    first = next(lessons(EWC(), [("ab", 6)]))
    kept_ = next(lessons(FineTuningExemplars(), [("ab", 6)]))
    fresh = pictures("cd", 6)
    for one, other, taught in (
        (EWC(strength=1.0), EWC(strength=50.0), first),
        (LwF(strength=1.0), LwF(strength=5.0), first),
        (LwF(temperature=1.0), LwF(temperature=4.0), first),
        (LwF(warm_up=0), LwF(warm_up=2), first),
        (FineTuning("present"), FineTuning("all"), kept_),
    ):
        assert not equal(
            teach(one, taught, fresh, RECIPE).model, teach(other, taught, fresh, RECIPE).model
        ), one
    halved = teach(EWC(decay=0.5), first, fresh, RECIPE).carried
    whole = teach(EWC(decay=1.0), first, fresh, RECIPE).carried
    apart = {name: whole[name] - halved[name] for name in first.carried}
    for name, tensor in apart.items():
        torch.testing.assert_close(tensor, 0.5 * first.carried[name], rtol=1e-3, atol=1e-6)


def test_freezing_keeps_features_and_old_scores():
    first, second = lessons(Freezing(), [("ab", 6), ("cd", 6)])
    for name, tensor in weights(first.model).items():
        if not name.startswith("9."):
            assert torch.equal(weights(second.model)[name], tensor), name
    assert torch.equal(weights(first.model)["9.0.weight"], weights(second.model)["9.0.weight"])
    views = Views()(pictures("ab", 4).pictures)
    with torch.no_grad():
        torch.testing.assert_close(
            first.model(views).logits, second.model(views).logits[:, :2], rtol=0, atol=0
        )


def test_old_heads_do_not_fade_where_they_do_not_compete():
    """A zero gradient is no reason for weight decay to shrink what nobody trains."""
    recipe = replace(RECIPE, weight_decay=0.5)
    first, second = lessons(FineTuning(), [("ab", 6), ("cd", 6)], recipe)
    assert torch.equal(weights(first.model)["9.0.weight"], weights(second.model)["9.0.weight"])


def test_they_forget_as_they_should():
    """Fine-tuning forgets everything, exemplars hold much of it, joint training all."""
    recipe = Recipe(epochs=25, batch=8, rate=0.05)
    old, both = pictures("ab", 10, seed=5), pictures("abcd", 10, seed=5)
    found = {}
    for method in (FineTuning("all"), FineTuningExemplars(), Joint()):
        *_, last = lessons(method, [("ab", 10), ("cd", 10)], recipe)
        found[type(method).__name__] = (
            evaluate(last.model, old, Views()).accuracy,
            evaluate(last.model, both, Views()).accuracy,
        )
    assert found["FineTuning"][0] < 0.2
    assert found["FineTuningExemplars"][0] > 0.7
    assert found["Joint"][1] > 0.9


def test_joint_training_shrinks_what_was_learned_and_no_first_weights():
    """In the first lesson nothing was learned, whatever the network knew before."""
    method, taught = Joint(0.25), Taught(start("ab"))
    for number, labels in enumerate(("ab", "cd", "e")):
        fresh = pictures(labels, 6)
        lesson = Lesson(taught.model.frozen(), taught.model.grown(fresh.classes), fresh,
                        taught.exemplars, {}, taught.lessons, RECIPE, MEMORY)  # fmt: skip
        phase = next(method.phases(lesson))
        assert phase.plan == Plan(shrink=0.25 if number else 1.0)
        assert phase.start is None
        taught = teach(method, taught, fresh, RECIPE)


def test_a_user_may_shrink_what_the_method_leaves_open():
    plan = Plan(last=1, rate=0.5, shrink=0.7)
    assert narrowed(plan, Plan()) == plan
    assert narrowed(plan, Plan(shrink=0.2)) == replace(plan, shrink=0.2)
    assert narrowed(Plan(), Plan(shrink=0.2)).shrink == 0.2
    anew = Plan.preset("from-scratch")
    assert narrowed(plan, anew) == anew


@pytest.mark.parametrize("preset", PRESETS)
def test_a_plan_that_says_nothing_leaves_a_phase_its_own(preset):
    """first-session has an option for it, and `adapt` always gives a plan."""
    own = Plan.preset(preset, rules=(Rule("x", "frozen"),), shrink=0.5)
    assert narrowed(Plan(), own) == own
    if own.body != "re-initialised":
        assert narrowed(Plan(batchnorm="frozen"), own) == replace(own, batchnorm="frozen")


def test_what_is_copied_goes_with_any_phase():
    plan = Plan(copy_first=1)
    assert narrowed(plan, Plan(head="re-initialised")) == plan
    assert narrowed(plan, Plan(shrink=0.5)) == replace(plan, shrink=0.5)
    assert narrowed(plan, Plan.preset("head")) == Plan.preset("head")


@pytest.mark.parametrize(("begin", "preset"), [("fresh", "from-scratch"), ("old", "full")])
def test_dmc_says_beforehand_what_it_trains(begin, preset):
    method, fresh = make("dmc", begin=begin), pictures("cd", 4)
    for before, wanted in (("", "full"), ("ab", preset)):
        model = start("ab") if before else growing(net())
        lesson = Lesson(model.frozen(), model.grown(fresh.classes), fresh, fresh.take([]), {},
                        1, RECIPE, MEMORY)  # fmt: skip
        assert next(method.phases(lesson)).plan == Plan.preset(wanted)
        assert method.reach(lessons=1, known=bool(before)) == Plan.preset(wanted)


def test_distillation_holds_what_was_said_before():
    """The stronger, the less moves; at a rate that its gradient, so many times as large, bears.

    Without batch normalisation: with it, what is held in training mode is not quite what the
    network says in evaluation mode.
    """
    first = teach(FineTuning(), Taught(growing(net(norm=False))), pictures("ab", 10),
                  Recipe(epochs=10, batch=8, rate=0.1))  # fmt: skip
    fresh = pictures("cd", 10)
    views = Views()(fresh.pictures)
    moved = []
    for method in (FineTuning(), *(LwF(strength=each, temperature=1.0) for each in (1, 10))):
        model = teach(method, first, fresh, Recipe(epochs=10, batch=8, rate=0.02)).model
        with torch.no_grad():
            before = first.model(views).logits.softmax(1)
            now = model(views).logits[:, :2].softmax(1)
        moved.append(float((now - before).abs().mean()))
    assert moved[0] > 1.1 * moved[1] > 1.5 * moved[2]


def test_consolidated_weights_stay():
    first = next(lessons(EWC(), [("ab", 10)]))
    moved = {}
    for strength in (1e-9, 1e3):
        model = teach(EWC(strength=strength), first, pictures("cd", 10), RECIPE).model
        apart = weights(model)["0.weight"] - weights(first.model)["0.weight"]
        moved[strength] = float((first.carried["0.weight"] * apart**2).sum())
    assert moved[1e3] < 0.8 * moved[1e-9]


# -- importance -------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["true", "predicted"])
def test_fisher_is_per_picture(labels):
    """The slow twin: one picture at a time, in evaluation mode, squares added up."""
    model, data = start(dropout=0.5), pictures("abc", 5)
    found = fisher(model, data, Views(), labels=labels, batch=4)
    twin = model.copy()
    twin.module.eval()
    wanted = {name: torch.zeros_like(each) for name, each in twin.module.named_parameters()}
    for place, label in enumerate(data.labels):
        twin.module.zero_grad()
        logits = twin(Views()(data.pictures[place : place + 1])).logits
        target = "abc".index(label) if labels == "true" else int(logits.argmax())
        (-logits.log_softmax(1)[0, target]).backward()
        for name, parameter in twin.module.named_parameters():
            wanted[name] += parameter.grad**2 / len(data)
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-7)
    assert found.keys() == wanted.keys()
    # It is not the square of the batch's mean gradient, which is less.
    twin.module.zero_grad()
    views = Views()(data.pictures)
    torch.nn.functional.cross_entropy(twin(views).logits, twin.positions(data.labels)).backward()
    batched = float(twin.module[0].weight.grad.square().sum())
    assert labels != "true" or batched < 0.9 * float(found["0.weight"].sum())


@pytest.mark.parametrize("labels", ["true", "sampled"])
def test_gradients_of_single_pictures_take_no_more_memory_than_they_may(monkeypatch, labels):
    """A vision transformer's, of 32 pictures at once, took eleven gibibytes."""
    model, data = start("ab", dropout=0.0), pictures("ab", 20)
    whole = fisher(model, data, Views(), labels=labels)
    size = sum(each.nbytes for each in model.module.parameters())
    monkeypatch.setattr(importance, "LARGEST", 3 * size + 1)
    seen = []

    def weighed(gradient):
        seen.append(len(gradient))
        return square(gradient)

    square = torch.square
    monkeypatch.setattr(torch, "square", weighed)
    for name, found in fisher(model, data, Views(), labels=labels).items():
        torch.testing.assert_close(found, whole[name], rtol=1e-4, atol=1e-9)
    assert max(seen) == 3


def test_sampled_fisher_is_the_expectation():
    """Over many pictures that are the same, drawn labels come to the mean over the classes."""
    model = start("ab", norm=False)
    one = pictures("a", 1)
    many = joined([one.take([0] * 3000)])
    found = fisher(model, many, Views(), batch=500)
    twin = model.copy()
    twin.module.eval()
    shares = twin(Views()(one.pictures)).logits.softmax(1)[0].tolist()
    wanted = torch.zeros_like(twin.module[0].weight)
    for target, share in enumerate(shares):
        twin.module.zero_grad()
        (-twin(Views()(one.pictures)).logits.log_softmax(1)[0, target]).backward()
        wanted += share * twin.module[0].weight.grad ** 2
    assert float((found["0.weight"] - wanted).norm() / wanted.norm()) < 0.1


def test_looking_moves_nothing():
    model, data = start(dropout=0.5), pictures("abc", 5)
    model.module.train()
    model.module[1].eval()
    before, modes = weights(model), [part.training for part in model.module.modules()]
    fisher(model, data, Views())
    gathered(model, data, Views(), lambda logits, _: logits.square().sum(), torch.abs, most=3)
    assert all(torch.equal(before[n], t) for n, t in weights(model).items())
    assert [part.training for part in model.module.modules()] == modes
    assert all(each.grad is None for each in model.module.parameters())
    with pytest.raises(BadOption, match="labels is 'best'"):
        fisher(model, data, Views(), labels="best")
    with pytest.raises(BadOption, match="no pictures to measure"):
        fisher(model, data.take([]), Views())


# -- the runner -------------------------------------------------------------------------------


def test_phases_are_sent_what_came_out_and_may_return_another():
    got = []

    class Two(Method):
        def phases(self, lesson: Lesson):
            first = yield Phase("one", lesson.fresh, [CrossEntropy()])
            held = dict(first.module.named_parameters())
            reference = {"0.weight": held["0.weight"].detach().clone()}
            second = yield Phase("two", lesson.fresh, [CrossEntropy(), WeightPenalty(reference)])
            got.extend([lesson, first, second])
            return first

    taught = teach(Two(), Taught(growing(net())), pictures("ab", 4), RECIPE)
    _, first, second = got
    assert equal(taught.model, first)
    assert not equal(first, second)
    assert [*taught.histories] == ["one", "two"]

    class Twice(Method):
        def phases(self, lesson: Lesson):
            yield Phase("one", lesson.fresh, [CrossEntropy()])
            yield Phase("one", lesson.fresh, [CrossEntropy()])

    with pytest.raises(BadOption, match="two phases of Twice are called 'one'"):
        teach(Twice(), taught, pictures("ab", 4), RECIPE)
    with pytest.raises(BadOption, match="the lesson has no pictures"):
        teach(Two(), taught, pictures("ab", 4).take([]), RECIPE)


@pytest.mark.parametrize("name", ["lwf", "eeil", "gdumb", "dmc"])
def test_a_lesson_with_patience_takes_pictures_to_watch(name):
    """They may be of any class; a phase whose network lacks some is watched by the others."""
    recipe = Recipe(epochs=4, batch=8, rate=0.05, patience=1)
    state = Taught(growing(net()))
    with pytest.raises(BadOption, match="patience needs validation="):
        teach(make(name), state, pictures("ab", 6), recipe, memory=MEMORY)
    for labels in ("ab", "cd"):
        watched = pictures("abcd", 2, seed=3)
        state = teach(
            make(name), state, pictures(labels, 6), recipe, memory=MEMORY, validation=watched
        )
        assert all(epoch.validation for epochs in state.histories.values() for epoch in epochs)


def test_lessons_tell_old_from_new():
    seen = []

    class Look(Method):
        def phases(self, lesson: Lesson):
            seen.append((lesson.before.classes, lesson.new, lesson.number, len(lesson.exemplars)))
            assert not lesson.before.module.training
            assert not any(each.requires_grad for each in lesson.before.module.parameters())
            yield Phase("train", lesson.rehearsed, [CrossEntropy()])

    Look.keeps = "exemplars"
    for _ in lessons(Look(), [("ba", 4), ("ca", 4)]):
        pass
    assert seen == [((), ("a", "b"), 0, 0), (("a", "b"), ("c",), 1, 7)]


def test_what_a_user_shrinks_is_shrunk_once_a_lesson(monkeypatch):
    """The old mistake: EEIL's balanced phase began half at random, after all that was learned."""
    shrunk = []

    def watched(model, data, recipe, *, plan, **options):
        shrunk.append(plan.shrink)
        return fit(model, data, recipe, plan=plan, **options)

    fit = lessons_module.fit
    monkeypatch.setattr(lessons_module, "fit", watched)
    taught = Taught(growing(net()))
    for labels in ("ab", "cd"):
        taught = teach(make("eeil"), taught, pictures(labels, 6), RECIPE, memory=MEMORY,
                       plan=Plan(shrink=0.5))  # fmt: skip
    # The first lesson has no balanced phase.
    assert shrunk == [0.5, 0.5, 1.0]
