"""Lessons that are no benchmark's: one class first, one picture, few beside many, begun anew."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from retain.errors import BadOption  # noqa: E402
from retain.train import lessons as lessons_module  # noqa: E402
from retain.train.augment import Augment, Views  # noqa: E402
from retain.train.data import Data, joined, nothing  # noqa: E402
from retain.train.growing import growing  # noqa: E402
from retain.train.lessons import Lesson, Memory, Taught, narrowed, teach  # noqa: E402
from retain.train.methods import make  # noqa: E402
from retain.train.plan import Plan, Rule  # noqa: E402
from retain.train.recipe import Averaging, Recipe  # noqa: E402
from retain.train.rehearsal import Budget  # noqa: E402
from retain.train.replay import beside  # noqa: E402
from retain.train.sampling import Replay, order  # noqa: E402

from .small import net, pictures, start, weights  # noqa: E402

RECIPE = Recipe(epochs=2, batch=8, rate=0.05)
MEMORY = Memory(Budget(per_class=4), "random")


def taught(method, *groups, memory=MEMORY, recipe=RECIPE, **options):
    state = Taught(growing(net(), kind=method.head))
    for group in groups:
        data = group if isinstance(group, Data) else pictures(group, 6)
        state = teach(method, state, data, recipe, memory=memory, **options)
    return state


def lesson(state, fresh, *, recipe=RECIPE, memory=MEMORY, plan=None):
    grown = state.model.grown(fresh.classes, 0)
    before, number = state.model.frozen(), state.lessons
    return Lesson(
        before, grown, fresh, state.exemplars, state.carried, number, recipe, memory, plan
    )


# -- a first lesson of one class ------------------------------------------------------------------

NAMES = ["finetuning", "freezing", "lucir", "mas", "ewc", "icarl", "dmc", "bic", "eeil", "wa",
         "lwf", "lwm", "il2m", "der++", "rwalk", "si"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_came_alone_is_no_old_network(name):
    """The old mistake: what had not had a step was frozen, distilled, and measured as if it had."""
    method = make(name)
    first = taught(method, "a")
    phases = method.phases(lesson(first, pictures("bc", 6)))
    phase = next(phases)
    assert phase.plan.body == "fine-tuned"
    assert [type(term).__name__ for term in phase.terms if "Distil" in type(term).__name__] == []
    assert len(phase.terms) <= 2
    with pytest.raises(StopIteration):
        phases.send(first.model.grown("bc", 0))
    if name in ("mas", "ewc"):
        assert first.carried == {}
    rules = {rule.pattern for rule in phase.plan.rules}
    rests = (
        {"9.0"} if name in ("finetuning", "freezing", "mas", "ewc", "lwm", "rwalk", "si") else set()
    )
    assert rules == rests, "where no picture of it is there, its row rests"


def test_the_sigmoids_of_a_class_that_came_alone_are_no_targets():
    method = make("icarl")
    (term,) = next(method.phases(lesson(taught(method, "a"), pictures("bc", 6)))).terms
    assert term.old is None
    (term,) = next(method.phases(lesson(taught(method, "ab"), pictures("cd", 6)))).terms
    assert term.old is not None


def test_logits_of_a_class_that_came_alone_are_not_kept():
    method = make("der++")
    first = taught(method, "a")
    assert len(first.exemplars) == 4
    assert first.carried["logits"].isnan().all()
    second = taught(method, "ab")
    assert not second.carried["logits"].isnan().any()


@pytest.mark.parametrize("name", ["finetuning", "freezing", "lwm", "ewc", "mas", "si"])
def test_older_rows_rest_when_one_class_comes_alone(name):
    """The old mistake: all classes compete then, so no row was held, and the old ones only sank."""
    method = make(name)
    first, second = taught(method, "ab"), taught(method, "ab", "c")
    assert torch.equal(weights(first.model)["9.0.weight"], weights(second.model)["9.0.weight"])
    grown = first.model.grown("c", 0)
    assert not torch.equal(weights(grown)["9.1.weight"], weights(second.model)["9.1.weight"])


def test_what_a_network_brings_along_is_never_answered_by_the_first_session():
    method = make("first-session")
    state = teach(method, Taught(start("xy")), pictures("ab", 6), RECIPE, memory=MEMORY)
    found = method.scores(state, pictures("ab", 2).pictures, Views())
    assert state.model.classes == ("x", "y", "a", "b")
    assert torch.isinf(found[:, :2]).all()
    assert torch.isfinite(found[:, 2:]).all()


# -- few beside many ------------------------------------------------------------------------------


@pytest.mark.parametrize(("new", "old", "epochs"), [(3, 20, 12), (5, 7, 2), (2, 30, 4), (4, 4, 3)])
def test_all_that_is_kept_is_replayed_where_there_are_epochs_enough(new, old, epochs):
    """The old mistakes: as many as there were new ones, drawn once, served the whole lesson; and
    then epochs were put together, which schedules and patience count."""
    fresh, kept = pictures("a", new), pictures("b", old)
    recipe = replace(RECIPE, epochs=epochs, sampling="balanced")
    data, drawn, changed = beside(fresh, kept, recipe, seed=3)
    sampling = Replay(new) if old > new else "all"
    assert changed == replace(recipe, batch=16, sampling=sampling)
    counts = torch.zeros(old, dtype=torch.int64)
    for epoch in range(epochs):
        numbers = order(data.labels, changed.sampling, 5, epoch)
        labels = [data.labels[each] for each in numbers]
        assert labels.count("a") == labels.count("b") == new
        assert len({each for each in numbers if drawn[each] < 0}) == new
        counts += torch.bincount(
            torch.from_numpy(drawn[numbers][drawn[numbers] >= 0]), minlength=old
        )
    most = epochs if old < new else 1
    assert int(counts.max() - counts.min()) <= most
    assert bool((counts > 0).all()) == (epochs * new >= old)
    assert beside(fresh, nothing(), recipe, seed=3)[2] == recipe


@pytest.mark.parametrize("name", ["er", "der++"])
def test_few_new_pictures_and_a_large_memory(name):
    method = make(name)
    state = taught(method, "abcdef", memory=Memory(Budget(per_class=5), "random"))
    phase = next(method.phases(lesson(state, pictures("g", 4), recipe=replace(RECIPE, epochs=8))))
    assert set(phase.data.classes) == set("abcdefg")
    assert (phase.recipe.epochs, phase.recipe.batch) == (8, 16)
    after = teach(method, state, pictures("g", 4), RECIPE, memory=Memory(Budget(per_class=5)))
    assert [len(each) for each in after.histories.values()] == [RECIPE.epochs]


# -- BiC ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 3, 14])
def test_one_more_picture_of_a_class_that_bic_keeps(kept):
    """The old mistake: IndexError, after the whole training."""
    memory = Memory(Budget(per_class=20), "random")
    method = make("bic")
    first = taught(method, pictures("ab", kept), memory=memory)
    assert first.exemplars.counts == {"a": kept, "b": kept}
    second = teach(method, first, pictures("a", 1, seed=9), RECIPE, memory=memory)
    assert second.exemplars.counts == {"a": kept + 1, "b": kept}


@pytest.mark.parametrize(("old", "new"), [(1, 6), (6, 1)])
def test_bic_corrects_nothing_where_one_side_is_not_judged(old, new):
    """The old mistake: α = 0.9 with not one new picture held out."""
    memory = Memory(Budget(per_class=6), "random")
    method = make("bic")
    first = taught(method, pictures("ab", old), memory=memory)
    phases = method.phases(lesson(first, pictures("cd", new), memory=memory))
    trained = next(phases).start or first.model.grown("cd", 0)
    with pytest.raises(StopIteration) as ended:
        phases.send(trained)
    assert ended.value.value is None


def test_what_bic_learned_from_never_judges():
    """The old mistake: of exemplars that were chosen anew, or of which some were gone, it did."""
    method = make("bic")
    memory = Memory(Budget(per_class=6), "random")
    state = taught(method, pictures("ab", 12), memory=memory)
    fresh = pictures("cd", 12)
    learned, held = method._parted(lesson(state, fresh, memory=memory))
    assert (learned.counts["a"], held.counts["a"]) == (5, 1)
    gone = state.exemplars.take(range(1, len(state.exemplars)))
    lost = gone.counts
    learned, held = method._parted(lesson(replace(state, exemplars=gone), fresh, memory=memory))
    assert {name: held.counts[name] for name in "ab"} == {
        name: int(lost[name] == 6) for name in "ab"
    }
    learned, held = method._parted(lesson(replace(state, carried={}), fresh, memory=memory))
    assert set(held.classes) == {"c", "d"}
    assert learned.counts["a"] == 6
    last = teach(method, replace(state, carried={}), fresh, RECIPE, memory=memory)
    assert last.exemplars.counts == dict.fromkeys("abcd", 6)
    assert last.carried["held"].tolist() == [0, 0, 1, 1]
    _, held = method._parted(lesson(last, pictures("ef", 12), memory=memory))
    assert held.counts == dict.fromkeys("cdef", 1)


# -- exemplars that are not there, and rates ------------------------------------------------------


def test_without_any_exemplar_the_old_classes_are_held_all_the_same():
    """The old mistake: all classes competed on new pictures alone, and no old row was held."""
    empty = Memory(Budget(total=0))
    for name in ("ewc", "mas", "si", "rwalk", "lwm"):
        method, plain = make(name, exemplars=True), make(name)
        first, second = taught(method, "ab", memory=empty), taught(plain, "ab", memory=empty)
        one = next(method.phases(lesson(first, pictures("cd", 6), memory=empty)))
        other = next(plain.phases(lesson(second, pictures("cd", 6), memory=empty)))
        assert one.plan == other.plan
        assert one.terms[0].among == other.terms[0].among == ("c", "d")
        assert one.data.labels == other.data.labels


def test_importance_is_cut_where_a_plan_makes_the_step_longer():
    """The old mistake: with ten times the rate for the head the loss became infinite."""
    method = make("ewc", strength=1e6)
    first = taught(method, "ab")
    fast = Plan(head_rate=10.0, rules=(Rule("0", rate=0.5), Rule("1", "frozen")))
    usual = next(method.phases(lesson(first, pictures("ac", 6)))).terms[-1].importance
    found = next(method.phases(lesson(first, pictures("ac", 6), plan=fast))).terms[-1].importance
    most = 1 / (1e6 * RECIPE.rate)
    for name, each in first.carried.items():
        factor = 10.0 if name.startswith("9.") else 0.5 if name.startswith("0.") else 1.0
        assert torch.equal(usual[name], each.clamp(max=most)), name
        if name.startswith("1."):
            assert torch.equal(found[name], each), "what does not learn is not cut"
        else:
            assert torch.equal(found[name], each.clamp(max=1 / (1e6 * RECIPE.rate * factor))), name
    state = teach(method, first, pictures("ac", 6), replace(RECIPE, momentum=0.9), plan=fast)
    assert all(bool(torch.isfinite(each.float()).all()) for each in weights(state.model).values())


def test_the_margin_of_lucir_counts_what_is_drawn():
    method = make("lucir")
    first = taught(method, "ab")
    fresh = pictures("cd", 12)
    for sampling, share in (("all", 8 / 32), ("balanced", 1 / 2)):
        recipe = replace(RECIPE, sampling=sampling)
        margin = next(method.phases(lesson(first, fresh, recipe=recipe))).terms[-1]
        assert margin.share == share
    mixed = replace(RECIPE, augment=Augment(mixup=1.0))
    with pytest.raises(BadOption, match="turn mixup and cutmix off"):
        teach(method, first, fresh, mixed, memory=MEMORY)


def test_the_path_goes_on_to_the_last_step_whatever_weights_are_taken():
    """What the docstring says: averaging changes the network and not the path."""
    method = make("si")
    plain = taught(method, "ab")
    mean = taught(method, "ab", recipe=replace(RECIPE, averaging=Averaging()))
    assert plain.carried.keys() == mean.carried.keys()
    assert any(not torch.equal(plain.carried[n], mean.carried[n]) for n in plain.carried)


# -- what begins anew does so once ----------------------------------------------------------------


def plans(monkeypatch, method, plan, *groups):
    """Of each phase of the last lesson: its plan."""
    seen = []
    fit = lessons_module.fit

    def watched(model, data, recipe, *, plan, **options):
        seen.append(plan)
        return fit(model, data, recipe, plan=plan, **options)

    state = taught(method, *groups[:-1])
    monkeypatch.setattr(lessons_module, "fit", watched)
    teach(method, state, pictures(groups[-1], 6), RECIPE, memory=MEMORY, plan=plan)
    return seen


@pytest.mark.parametrize(
    ("plan", "after"),
    [
        (Plan.preset("from-scratch"), Plan()),
        (Plan(head="re-initialised"), Plan()),
        (Plan(shrink=0.5), Plan()),
        (Plan(rules=(Rule("3", "re-initialised"),)), Plan(rules=(Rule("3", "fine-tuned"),))),
        (Plan(copy_first=1), Plan(last=1)),
        (Plan(copy_first=1, copied="fine-tuned", rate=0.5), Plan(rate=0.5)),
    ],
)
def test_what_begins_anew_does_so_once_a_lesson(monkeypatch, plan, after):
    """The old mistake: EEIL's balanced phase threw away what the first had learned."""
    assert plans(monkeypatch, make("eeil"), plan, "ab", "cd") == [plan, after]


def test_a_plan_that_has_begun_moves_the_same_layers():
    plan, model = Plan(copy_first=1), start()
    assert [row.state != "frozen" for row in plan.describe(model)] == [
        row.state != "frozen" for row in plan.begun(model).describe(model)
    ]


def test_a_warm_up_of_the_head_does_not_use_up_what_the_body_is_to_do(monkeypatch):
    """The old mistake: shrunk was nothing at all, and the head began anew after its warm-up."""
    method = make("lwf", warm_up=1)
    asked = Plan(shrink=0.5, head="re-initialised")
    warm, train = plans(monkeypatch, method, asked, "ab", "cd")
    assert (warm.body, warm.head, warm.shrink) == ("frozen", "re-initialised", 1.0)
    assert (train.body, train.head, train.shrink) == ("fine-tuned", "fine-tuned", 0.5)


def test_each_phase_with_a_start_of_its_own_begins_as_the_plan_says(monkeypatch):
    """The old mistake: DMC's specialist was shrunk, and its student was not."""
    asked = Plan(shrink=0.5)
    assert plans(monkeypatch, make("dmc", begin="old"), asked, "ab", "cd") == [asked, asked]


def test_the_head_may_begin_anew_where_it_alone_is_trained():
    own = Plan.preset("head")
    assert narrowed(Plan(head="re-initialised"), own).head == "re-initialised"
    assert joined([nothing()]).labels == ()
