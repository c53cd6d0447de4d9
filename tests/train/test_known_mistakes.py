"""Mistakes that published implementations made, each as a test that fails for it."""

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from retain.train.data import joined  # noqa: E402
from retain.train.lessons import Memory, Taught, teach  # noqa: E402
from retain.train.methods import REGISTRY, make  # noqa: E402
from retain.train.methods.bic import BiC, bias  # noqa: E402
from retain.train.methods.dmc import DoubleDistillation  # noqa: E402
from retain.train.methods.il2m import rectified  # noqa: E402
from retain.train.methods.lucir import Margin  # noqa: E402
from retain.train.methods.lwm import Attention, LwM, last_maps, watched  # noqa: E402
from retain.train.paths import PathIntegral, penalty  # noqa: E402
from retain.train.rehearsal import Budget  # noqa: E402
from retain.train.terms import CrossEntropy, Distillation  # noqa: E402

from .tiny import (  # noqa: E402
    MEMORY,
    RECIPE,
    lesson,
    moved,
    net,
    pictures,
    same,
    step,
    taught,
    weights,
)

# What begins with the weights of the beginning has one part for all classes.
QUICK = {"rwalk": {"every": 3}, "joint-exact": {"begin": "last"}}
TRAINS = sorted(set(REGISTRY) - {"first-session"})


def phases_of(method, given):
    """The phases that a method goes through, each answered with a network nearby."""
    found, generator = [], method.phases(given)
    phase = next(generator)
    while True:
        found.append(phase)
        try:
            phase = generator.send(moved(phase.start or given.model, seed=len(found)))
        except StopIteration:
            return found


def term(phase, kind):
    (found,) = (each for each in phase.terms if isinstance(each, kind))
    return found


# -- a single new class -------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINS)
def test_a_single_new_class_has_a_gradient(name):
    """Cross-entropy over it alone is zero whatever is said: then nothing of it is ever learned."""
    method = make(name, **QUICK.get(name, {}))
    first = taught(method, ("abc",))
    second = teach(method, first, pictures("d", seed=1), RECIPE, memory=MEMORY)
    place = f"{first.model.head}.1.weight"
    begin = weights(_begun(first, "d").model)[place]
    assert float((weights(second.model)[place] - begin).abs().max()) > 1e-4


def _begun(state, names):
    """The lesson as the runner makes it, up to the seed of the head's new part."""
    import retain.train.lessons as module

    seed = module._derived(RECIPE.seed, state.lessons, "head")
    model = state.model.grown(list(names), seed)
    fresh = pictures(names, seed=1)
    return module.Lesson(
        state.model.frozen(), model, fresh, state.exemplars, state.carried, state.lessons, RECIPE
    )


def test_classes_that_came_one_by_one_are_distilled_too():
    """A softmax for each of them alone would be silent, and distillation nothing at all."""
    old = net().grown(["a"]).grown(["b"], 1).grown(["c"], 2)
    model = moved(old.grown(["d"], 3))
    given = step(model, pictures("d", 6))
    found = Distillation(old.frozen(), groups=True).loss(given)
    assert float(found.detach()) > 1e-5
    whole = Distillation(old.frozen(), groups=False).loss(given)
    assert float(found.detach()) == pytest.approx(float(whole.detach()), rel=1e-6)


# -- LwM ------------------------------------------------------------------------------------------


@pytest.fixture
def attention():
    before = net(norm=False).grown(["a", "b", "c"], 1)
    layer = last_maps(before, RECIPE.views(pictures("a", 1).pictures))
    model = watched(moved(before.grown(["d", "e"], 2)), layer)
    return Attention(watched(before.frozen(), layer, cut=True), layer), model


def test_attention_has_a_gradient_to_the_student(attention):
    """Maps that are detached, or made of slopes that are, pull nobody."""
    found, model = attention
    given = step(model, pictures("de", 4))
    value = found.loss(given)
    assert float(value.detach()) > 0
    slopes = torch.autograd.grad(value, list(model.module.parameters()), allow_unused=True)
    by_name = dict(zip(dict(model.module.named_parameters()), slopes, strict=True))
    for name in ("0.weight", "2.weight"):
        assert float(by_name[name].abs().sum()) > 0, name
    # The weights of a map are slopes of the scores: through them the head learns as well.
    assert float(by_name[f"{model.head}.0.weight"].abs().sum()) > 0
    assert all(each.grad is None for each in found.old.module.parameters())


def test_the_gradient_of_attention_is_right(attention):
    """Against differences of values, in float64."""
    found, model = attention
    found.old.module.double()
    model.module.double()
    data = pictures("de", 2)

    class Doubled:
        def __call__(self, given):
            return RECIPE.views(given).double()

    def value():
        return found.loss(step(model, data, views=Doubled()))

    weight = model.module.get_submodule("0").weight
    slope = torch.autograd.grad(value(), weight)[0]
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)).double()
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * 1e-4 * direction)
        ends.append(float(value().detach()))
        with torch.no_grad():
            weight.sub_(sign * 1e-4 * direction)
    assert (slope * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=0.02)


def test_attention_maps_have_length_one(attention):
    """The slow twin: Grad-CAM by hand for each picture, divided by its Euclidean length."""
    found, model = attention
    data = pictures("de", 3)
    total = 0.0
    for row in range(len(data)):
        maps = []
        picked = None
        for who in (found.old, model):
            content = RECIPE.views(data.pictures[[row]])
            seen = {}
            part = who.module.get_submodule(found.layer)
            hook = part.register_forward_hook(lambda m, i, o, seen=seen: seen.update(maps=o))
            with torch.enable_grad():
                said = who(content).logits[0]
                picked = int(said.argmax()) if picked is None else picked
                (slopes,) = torch.autograd.grad(said[picked], seen["maps"])
            hook.remove()
            weight = slopes[0].mean((1, 2))
            cam = sum(w * m for w, m in zip(weight, seen["maps"][0].detach(), strict=True))
            cam = cam.clamp(min=0).flatten()
            maps.append(cam / cam.norm().clamp(min=1e-12))
        assert float(maps[0].norm()) == pytest.approx(1, rel=1e-5)
        total += float((maps[0] - maps[1]).abs().sum())
    value = float(found.loss(step(model, data)).detach())
    assert value == pytest.approx(total / len(data), rel=1e-4)


def test_lwm_trains_with_its_attention():
    first = taught(LwM(), ("abc",), norm=False)
    given = _begun(first, "de")
    (phase,) = phases_of(LwM(), given)
    assert [type(each).__name__ for each in phase.terms] == [
        "CrossEntropy", "Distillation", "Attention",
    ]  # fmt: skip


# -- EEIL -----------------------------------------------------------------------------------------


def test_eeil_distils_every_old_head_the_newest_of_them_included():
    state = taught(make("eeil"), ("ab", "cd"))
    given = _begun(state, "ef")
    train, balanced = phases_of(make("eeil"), given)
    assert term(train, Distillation).old.groups == (("a", "b"), ("c", "d"))
    assert term(balanced, Distillation).old.groups == (("a", "b"), ("c", "d"), ("e", "f"))
    assert term(train, Distillation).groups
    assert term(balanced, Distillation).groups
    # What is distilled in the balanced phase is what the first phase made, not the lesson before.
    assert not same(term(balanced, Distillation).old, given.model)
    # Each old head pulls: a change in one head alone is felt.
    model = given.model
    for place in (0, 1):
        other = model.copy()
        with torch.no_grad():
            other.layer[place].weight.mul_(3)
        value = Distillation(given.before, groups=True).loss(step(other, pictures("ef", 3)))
        assert float(value.detach()) > 1e-5, place


def test_the_balanced_set_of_eeil_is_balanced():
    state = taught(make("eeil"), ("ab", "cd"), memory=Memory(Budget(total=12)))
    given = replace(_begun(state, "ef"), memory=Memory(Budget(total=12)))
    _, balanced = phases_of(make("eeil"), given)
    assert dict(balanced.data.counts) == dict.fromkeys("abcdef", 2)
    assert (balanced.recipe or RECIPE).sampling == "balanced"


# -- DMC ------------------------------------------------------------------------------------------


def test_dmc_centres_over_classes_not_over_the_batch():
    old, new = net().grown(["a", "b"], 1), net(seed=1).grown(["c", "d", "e"], 2)
    student = moved(net(seed=2).grown(["a", "b"], 3).grown(["c", "d", "e"], 4))
    data = pictures("cde", 3)
    both = DoubleDistillation(old.frozen(), new.frozen(), ("c", "d", "e"), ("c", "d", "e"))
    value = float(both.loss(step(student, data)).detach())
    total = 0.0
    content = RECIPE.views(data.pictures)
    with torch.no_grad():
        teachers = [each.frozen()(content).logits.double().numpy() for each in (old, new)]
        said = student(content).logits.double().numpy()
    for row in range(len(data)):
        aims = np.concatenate([each[row] - each[row].mean() for each in teachers])
        total += float(np.square(said[row] - aims).mean())
    assert value == pytest.approx(total / len(data), rel=1e-4)


# -- BiC ------------------------------------------------------------------------------------------


def test_the_bias_of_bic_is_fitted_to_logits():
    """Scores of the newest are 1.7 times too large and 2 too high: that is what is taken off.

    From probabilities, which a softmax would flatten once more, nothing like it is found.
    """
    random = np.random.default_rng(0)
    clean = random.normal(0, 2, (4000, 6))
    shares = np.exp(clean) / np.exp(clean).sum(1, keepdims=True)
    targets = np.array([random.choice(6, p=each) for each in shares])
    told = clean.copy()
    told[:, 4:] = 1.7 * clean[:, 4:] + 2
    alpha, beta = bias(told, targets, [4, 5], 1e-6)
    assert alpha == pytest.approx(1 / 1.7, rel=0.1)
    assert beta == pytest.approx(-2 / 1.7, rel=0.2)
    flat = np.exp(told) / np.exp(told).sum(1, keepdims=True)
    assert abs(bias(flat, targets, [4, 5], 1e-6)[0] - 1 / 1.7) > 0.3


def test_the_bias_of_bic_is_a_minimum():
    random = np.random.default_rng(1)
    logits, targets = random.normal(0, 3, (50, 5)), random.integers(0, 5, 50)

    def value(alpha, beta):
        scores = torch.tensor(logits)
        scores[:, 3:] = alpha * scores[:, 3:] + beta
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(targets))
        return float(loss) + 0.05 * ((alpha - 1) ** 2 + beta**2)

    alpha, beta = bias(logits, targets, [3, 4], 0.1)
    least = value(alpha, beta)
    for angle in np.linspace(0, 2 * math.pi, 16):
        assert value(alpha + 1e-3 * math.cos(angle), beta + 1e-3 * math.sin(angle)) > least


def test_bic_sets_its_validation_aside_before_training():
    memory = Memory(Budget(total=20))
    method = BiC(aside=0.3)
    first = taught(method, ("ab",), memory=memory)
    given = replace(_begun(first, "cd"), memory=memory)
    (phase,) = phases_of(method, given)
    learned, held = method._parted(given)
    assert len(held)
    assert set(held.classes) == set("abcd")
    assert _rows(phase.data) == _rows(learned)
    assert not _rows(learned) & _rows(held), "a picture that validates was learned from"
    assert _rows(learned) | _rows(held) == _rows(joined([given.fresh, given.exemplars]))
    # As many of an old class as of a new one: the validation is balanced.
    assert max(held.counts.values()) - min(held.counts.values()) <= 1
    # What validated once is never learned from later on.
    second = teach(method, first, given.fresh, RECIPE, memory=memory)
    third = replace(_begun(second, "ef"), memory=memory)
    later, _ = method._parted(third)
    assert not _rows(later) & _rows(held)


def test_the_second_stage_of_bic_leaves_normalisation_alone():
    """Neither its statistics nor its mode; only the newest rows of the head are scaled."""
    memory = Memory(Budget(total=20))
    first = taught(BiC(), ("ab",), memory=memory)
    given = replace(_begun(first, "cd"), memory=memory)
    generator = BiC(pull=0.01).phases(given)
    next(generator)
    trained = moved(given.model, size=0.3)
    trained.module.eval()
    with torch.no_grad():
        trained.layer[1].bias.add_(3)
    before = weights(trained)
    with pytest.raises(StopIteration) as end:
        generator.send(trained)
    after = weights(end.value.value)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{trained.head}.1.weight", f"{trained.head}.1.bias"}
    assert all(torch.equal(before[name], each) for name, each in weights(trained).items())
    # α and β are those of what the network says in evaluation mode; what was too high comes down.
    name = f"{trained.head}.1.weight"
    ratio = after[name] / before[name]
    _, held = BiC()._parted(given)
    said = trained(RECIPE.views(held.pictures[torch.arange(len(held))])).logits.detach().double()
    alpha, beta = bias(said.numpy(), trained.positions(held.labels).numpy(), [2, 3], 0.01)
    torch.testing.assert_close(ratio, torch.full_like(ratio, alpha), rtol=1e-4, atol=1e-5)
    name_of_bias = f"{trained.head}.1.bias"
    torch.testing.assert_close(after[name_of_bias], alpha * before[name_of_bias] + beta)
    assert bool((after[name_of_bias] < before[name_of_bias]).all())


def _rows(data):
    return {data.pictures[torch.tensor([row])].numpy().tobytes() for row in range(len(data))}


# -- IL2M -----------------------------------------------------------------------------------------


def test_il2m_lifts_old_classes_whatever_the_signs():
    """Multiplying a negative logit by a ratio above one would push down what it ought to lift."""
    method = make("il2m")
    state = taught(method, ("ab", "cd"))
    twin = state.model.copy()
    with torch.no_grad():
        for part in twin.layer:
            part.bias.sub_(50)  # of a softmax it changes nothing
    shifted = Taught(twin, state.exemplars, state.carried, state.lessons)
    data = pictures("abcd", 4, seed=7)
    one = method.scores(state, data.pictures, RECIPE.views)
    other = method.scores(shifted, data.pictures, RECIPE.views)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    memory = torch.tensor(
        [[0.9, 0.9, 0.8, 0.8], [0.2, 0.3, 0.8, 0.8], [0.9, 0.9, 0.8, 0.8], [0, 0, 1, 1]],
        dtype=torch.float64,
    )
    shares = torch.tensor([[0.2, 0.1, 0.4, 0.3], [0.5, 0.1, 0.3, 0.1]], dtype=torch.float64)
    found = rectified(shares, memory)
    assert bool((found[0, :2] > shares[0, :2]).all()), "old classes are lifted where a new one won"
    assert found[0, 0] / shares[0, 0] == pytest.approx(0.9 / 0.2 * 0.8 / 0.9)
    assert torch.equal(found[0, 2:], shares[0, 2:])
    assert torch.equal(found[1], shares[1]), "where an old class won, nothing changes"


# -- importance -----------------------------------------------------------------------------------


def test_si_counts_the_gradient_of_the_task_alone():
    """The path of a penalised run, step by step, beside a twin that takes the task's gradient."""
    before = net(norm=False).grown(["a", "b"], 1)
    names = [name for name, _ in before.module.named_parameters()]
    omega = {n: torch.full_like(p, 2.0) for n, p in before.module.named_parameters()}
    model = moved(before, size=0.2)
    held = penalty(before, omega, 1.5, RECIPE, {})
    path, task = PathIntegral(held), CrossEntropy()
    optimiser = torch.optim.SGD(model.module.parameters(), 0.05)
    wanted = {name: torch.zeros_like(omega[name]) for name in names}
    wrong = dict(wanted)
    for number in range(4):
        given = step(model, pictures("ab", 4, seed=number))
        own = torch.autograd.grad(
            task.loss(given), list(model.module.parameters()), retain_graph=True
        )
        optimiser.zero_grad()
        (task.loss(given) + path.loss(given)).backward()
        whole = [each.grad.clone() for each in model.module.parameters()]
        places = [each.detach().clone() for each in model.module.parameters()]
        path.before_step(model, 1.0)
        optimiser.step()
        path.after_step(model)
        for name, g, all_of_it, was, now in zip(
            names, own, whole, places, model.module.parameters(), strict=True
        ):
            wanted[name] = wanted[name] - g * (now.detach() - was)
            wrong[name] = wrong[name] - all_of_it * (now.detach() - was)
    for name in names:
        torch.testing.assert_close(path.totals[name], wanted[name], rtol=1e-3, atol=1e-6)
    assert float((wrong["0.weight"] - wanted["0.weight"]).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["ewc", "online-ewc", "mas"])
def test_importance_does_not_depend_on_how_pictures_are_batched(name):
    """The square of a batch's mean gradient is less than the mean of squares, and no Fisher."""
    method = make(name, **({"labels": "true"} if "ewc" in name else {}))
    given, model = _begun(taught(method, ("ab",)), "cd"), net().grown(["a", "b"]).grown(["c", "d"])
    given = replace(given, carried={}, left={})
    found = method.after(given, model)
    alone = [
        method.after(replace(given, fresh=given.fresh.take([row])), model)
        for row in range(len(given.fresh))
    ]
    for key, value in found.items():
        mean = torch.stack([each[key] for each in alone]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", ["ewc", "mas", "si", "rwalk"])
def test_a_penalty_never_runs_away(name):
    """However firmly weights are held, steps do not overshoot, and the loss stays finite."""
    method = make(name, strength=1e6, **QUICK.get(name, {}))
    state = taught(method, ("abc", "de", "fg"))
    for each in weights(state.model).values():
        assert bool(each.float().isfinite().all())


# -- LUCIR ----------------------------------------------------------------------------------------


def test_new_rows_begin_where_their_pictures_are():
    """Begun at random they were pushed away, and ResNet-32 never said a new class any more."""
    given = lesson("abc", pictures("fde", 7, seed=4), kind="cosine")
    before = weights(given.model)
    (phase,) = phases_of(make("lucir"), given)
    head = given.model.head
    with torch.no_grad():
        content = RECIPE.views(given.fresh.pictures[torch.arange(len(given.fresh))])
        features = given.before(content).features.numpy().astype(float)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    own = weights(phase.start)
    length = np.mean(np.linalg.norm(before[f"{head}.0.weight"].numpy().astype(float), axis=1))
    for place, name in enumerate("def"):
        mean = unit[[label == name for label in given.fresh.labels]].mean(0)
        wanted = length * mean / np.linalg.norm(mean)
        assert own[f"{head}.1.weight"][place].numpy() == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert all(torch.equal(own[name], before[name]) for name in own if name != f"{head}.1.weight")
    assert all(torch.equal(each, before[name]) for name, each in weights(given.model).items())


def test_the_margin_is_a_mean_over_the_nearest_rivals():
    given = lesson("abc", pictures("def", 4, seed=4), kind="cosine")
    (phase,) = phases_of(make("lucir"), given)
    margin = term(phase, Margin)
    seen = step(moved(given.model), phase.data)
    with torch.no_grad():
        found = float(margin.loss(seen))
        features = seen.output.features.double().numpy()
        rows = torch.cat([part.weight for part in seen.model.layer]).double().numpy()
    cosines = (features / np.linalg.norm(features, axis=1, keepdims=True)) @ (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
    ).T
    lost = []
    for row, target in zip(cosines, seen.targets.tolist(), strict=True):
        if target < 3:
            rivals = sorted(row[3:], reverse=True)[: margin.nearest]
            lost.append(np.mean([max(margin.margin - row[target] + each, 0) for each in rivals]))
    assert found == pytest.approx(np.mean(lost), rel=1e-5)
