"""Plans, precisions, networks and shares of old classes that lessons seldom have."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from retain.errors import BadOption  # noqa: E402
from retain.train.data import Data, joined  # noqa: E402
from retain.train.growing import growing  # noqa: E402
from retain.train.lessons import Memory, Taught, teach  # noqa: E402
from retain.train.loop import fit  # noqa: E402
from retain.train.methods import make  # noqa: E402
from retain.train.methods.lwm import last_maps  # noqa: E402
from retain.train.paths import PathIntegral  # noqa: E402
from retain.train.plan import Plan, narrowed  # noqa: E402
from retain.train.recipe import Recipe  # noqa: E402
from retain.train.rehearsal import Budget  # noqa: E402
from retain.train.schedules import Exponential  # noqa: E402
from retain.train.terms import CrossEntropy  # noqa: E402

from .small import equal, net, pictures, start, weights  # noqa: E402
from .test_odd_lessons import lesson, taught  # noqa: E402

RECIPE = Recipe(epochs=2, batch=8, rate=0.05)


# -- attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["gradual-unfreezing", "head", "feature-extraction"])
@pytest.mark.parametrize("exemplars", [False, True])
def test_attention_where_the_maps_do_not_learn(preset, exemplars):
    """The old mistake: TypeError in the first step of the second lesson."""
    method = make("lwm", exemplars=exemplars)
    state = taught(method, "ab", "cd", plan=Plan.preset(preset))
    assert state.model.classes == ("a", "b", "c", "d")
    assert all(bool(each.isfinite().all()) for each in weights(state.model).values())


def test_the_head_is_taught_by_attention_though_the_maps_rest():
    """Maps are weighted with how the answers depend on them, which the head decides."""
    state = taught(make("lwm", exemplars=True), "ab")
    plan = Plan.preset("head")
    one, two = (
        teach(make("lwm", exemplars=True, gamma=gamma), state, pictures("cd", 6), RECIPE, plan=plan)
        for gamma in (0.0, 1.0)
    )
    assert not equal(one.model, two.model)


class Tokens(torch.nn.Module):
    """A picture in parts, which are mixed with each other and added up: a small transformer."""

    def __init__(self):
        super().__init__()
        self.parts = torch.nn.Conv2d(3, 8, 2, 2)
        self.mix = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = torch.nn.Linear(8, 2)

    def forward(self, x):
        tokens = self.parts(x).flatten(2).transpose(1, 2)
        return self.head(self.mix(tokens).mean(1))


def test_tokens_are_no_maps():
    """The old mistake: attention of a transformer's keys, or a crash far inside."""
    model = growing(Tokens(), head="head")
    said = r"such as lwf, or name one of those before: layer=parts"
    with pytest.raises(BadOption, match=said):
        teach(make("lwm"), Taught(model), pictures("ab", 4), RECIPE)
    assert last_maps(model, torch.zeros(2, 3, 8, 8), "parts") == "parts"


def test_maps_of_oblong_pictures_are_found():
    assert last_maps(start("ab"), torch.zeros(2, 3, 12, 7)) == "5"


@pytest.mark.parametrize("layer", ["nope", "7", "9"])
def test_a_layer_without_maps_is_refused_before_anything_is_trained(layer):
    with pytest.raises(
        BadOption, match=rf"layer is '{layer}', which gives no maps.*give one that does, such as 5"
    ):
        taught(make("lwm", layer=layer), "ab")


# -- precision ------------------------------------------------------------------------------------


def test_information_is_measured_in_full_precision():
    """The old mistake: RuntimeError of the normalisation, half of it in other numbers."""
    state = taught(make("rwalk", every=3), "ab", "cd", recipe=replace(RECIPE, precision="bf16"))
    assert all(each.dtype == torch.float32 for each in state.carried.values())
    assert all(bool(each.isfinite().all()) for each in state.carried.values())


# -- plans ----------------------------------------------------------------------------------------


def test_what_a_method_says_of_the_plan_and_a_user_does_not_is_done():
    """The old mistake: any plan at all made first-session train the whole network."""
    plan = Plan(head_rate=10, batchnorm="frozen")
    assert narrowed(plan, Plan(last=1)) == replace(plan, last=1)
    assert narrowed(Plan(last=2), Plan(last=1, gradual=True)) == Plan(last=2, gradual=True)
    assert narrowed(Plan(last=2), Plan(batchnorm="frozen")).batchnorm == "frozen"
    assert narrowed(Plan(copy_first=1), Plan(last=1)) == Plan(copy_first=1)
    state = Taught(start("ab"))
    state = replace(state, model=growing(state.model.plain(), head=state.model.head))
    done = teach(
        make("first-session", plan="last-block"), state, pictures("ab", 6), RECIPE, plan=plan
    )
    before, after = weights(state.model), weights(done.model)
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["3.weight"], after["3.weight"])


def test_statistics_that_a_method_keeps_are_kept_under_a_plan():
    method = make("joint-exact", batchnorm="frozen")
    begun = growing(net())
    done = teach(method, Taught(begun), pictures("ab", 6), RECIPE, plan=Plan(last=1))
    before, after = weights(begun), weights(done.model)
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)


# -- what is not measured -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ewc", "online-ewc", "mas", "si", "rwalk"])
def test_weights_that_nothing_was_measured_of_are_not_held_in_silence(name):
    method = make(name)
    brought = teach(method, Taught(start("ab")), pictures("cd", 6), RECIPE)
    (note,) = brought.notes
    assert "the 2 classes that the network knows already" in note
    assert teach(method, brought, pictures("ef", 6), RECIPE).notes == ()
    assert taught(method, "ab").notes == ()


def test_a_network_that_was_drawn_anew_has_come_from_there():
    """The old mistake: SI took the jump to fresh weights for a part of the way."""
    plan = Plan.preset("from-scratch")
    method = make("si", damping=1e-3)
    seen = {}

    class Watched(PathIntegral):
        def after_step(self, model):
            super().after_step(model)
            for name, weight in model.module.named_parameters():
                seen.setdefault(name, []).append(weight.detach().clone())

    state = taught(method, "ab", plan=plan)
    first = lesson(Taught(growing(net())), pictures("ab", 6), plan=plan)
    phase = next(method.phases(first))
    path = Watched(None, whole=True)
    fitted = fit(first.model, phase.data, RECIPE, plan=plan, terms=[CrossEntropy(), path])
    for name, weight in fitted.model.module.named_parameters():
        far = (weight.detach() - path.begun[name]).abs().max()
        jump = (weight.detach() - dict(first.model.module.named_parameters())[name]).abs().max()
        if name in ("0.weight", "3.weight"):
            assert far < jump / 3
        assert torch.equal(weight.detach(), seen[name][-1])
    assert set(state.carried) == set(path.totals)


def test_scores_of_a_class_that_came_alone_were_not_sure_of_it():
    """The old mistake: IL2M had it at 1, as one class among one, and multiplied it ever after."""
    method = make("il2m")
    alone = taught(method, "a")
    assert alone.carried == {}
    then, now, sure, number = taught(method, "a", "bc").carried["scores"]
    assert (number == 1).all()
    assert float(then.max()) < 1
    assert float(sure.max()) < 1
    assert torch.equal(then, now)


# -- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fresh", "share"), [("d", 0.75), ("abcd", 0.75), ("ad", 0.75), ("a", 2 / 3), ("abc", 0.0)]
)
@pytest.mark.parametrize("name", ["wa", "bic"])
def test_a_picture_of_each_old_class_does_not_end_the_distillation(name, fresh, share):
    """The old mistake: with all old classes in the lesson, n/(n + m) was taken for 0."""
    state = taught(make(name), "abc")
    terms = next(make(name).phases(lesson(state, pictures(fresh, 6)))).terms
    assert [each.strength for each in terms] == pytest.approx([1 - share, share])


def test_logits_of_other_pictures_are_made_anew():
    """The old mistake: with one exemplar gone, nothing was held to any logit."""
    method = make("der++")
    state = taught(method, "ab")
    fewer = replace(state, exemplars=state.exemplars.take(range(1, len(state.exemplars))))
    match = next(method.phases(lesson(fewer, pictures("cd", 6)))).terms[1]
    assert bool(match.wanted[:-1, :2].isfinite().all())


# -- steps of one picture, few beside many --------------------------------------------------------


def flat(classes=2):
    nn = torch.nn
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.Linear(6, classes))


def test_a_normalisation_over_one_number_is_said_so():
    """The old mistake: torch's ValueError, which speaks of channels."""
    model = growing(flat()).grown("ab", 1)
    with pytest.raises(BadOption, match="one picture alone went through the network"):
        fit(model, pictures("a", 1), RECIPE)
    fitted = fit(model, pictures("a", 1), RECIPE, plan=Plan(batchnorm="frozen"))
    assert len(fitted.history) == 2


def test_parts_of_a_batch_have_two_pictures():
    """The old mistake: as many parts as were asked for, of one picture each."""
    model = growing(flat()).grown("ab", 1)
    fitted = fit(model, pictures("ab", 7), replace(RECIPE, accumulate=8))
    assert len(fitted.history) == 2


def test_schedule_and_patience_count_the_epochs_of_a_replay():
    """The old mistake: 70 epochs became 7, of which an exponential rate saw as many."""
    memory = Memory(Budget(per_class=8), "random")
    recipe = replace(RECIPE, epochs=12, schedule=Exponential(0.5))
    state = taught(make("er"), "abc", memory=memory)
    done = teach(make("er"), state, pictures("d", 2), recipe, memory=memory)
    (history,) = done.histories.values()
    assert [each.number for each in history] == list(range(1, 13))
    assert history[-1].rate == pytest.approx(0.05 * 0.5**12)


def test_lessons_without_number_can_be_put_together():
    """The old mistake: each lesson went one deeper, and after a thousand none was read."""
    whole = pictures("ab", 1)
    for _ in range(1200):
        whole = joined([whole, pictures("ab", 1).drawn([0, 1])])
    assert isinstance(whole, Data)
    assert whole.pictures[torch.tensor([0, 2401])].shape == (2, 3, 8, 8)
