"""Loss terms against slow twins in float64, and the mistakes they must not make."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from retain.errors import BadOption  # noqa: E402
from retain.train.augment import Views  # noqa: E402
from retain.train.growing import growing  # noqa: E402
from retain.train.paths import PathIntegral  # noqa: E402
from retain.train.terms import (  # noqa: E402
    CrossEntropy,
    Distillation,
    FeatureDistillation,
    Step,
    WeightPenalty,
)

from .small import net, pictures, start  # noqa: E402


def step(model, data, soft=None):
    views = Views()(data.pictures)
    targets = model.positions(data.labels)
    numbers = torch.arange(len(data))
    return Step(model, model(views), views, targets, soft, numbers, 0)


def softmax(row):
    exps = [math.exp(v - max(row)) for v in row]
    return [each / sum(exps) for each in exps]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("among", [None, ("b", "c")])
def test_cross_entropy_is_its_formula(smoothing, among):
    model, data = start(norm=False), pictures("abc", 3)
    now = step(model, data)
    names = list(among or "abc")
    total = 0.0
    for row, label in zip(now.output.logits.tolist(), data.labels, strict=True):
        if label in names:
            shares = softmax([row["abc".index(each)] for each in names])
            for name, share in zip(names, shares, strict=True):
                aim = (1 - smoothing) * (name == label) + smoothing / len(names)
                total -= aim * math.log(share) / len(data)
    found = CrossEntropy(among, smoothing, strength=2.0).loss(now).detach()
    assert float(found) == pytest.approx(2 * total, rel=1e-5)


def test_cross_entropy_of_mixed_labels():
    model, data = start(norm=False), pictures("abc", 1)
    soft = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    now = step(model, data, soft)
    logs = now.output.logits.log_softmax(1)
    wanted = -(soft * logs).sum(1).mean()
    torch.testing.assert_close(CrossEntropy().loss(now), wanted)
    among = now.output.logits[:, [0, 1]].log_softmax(1)
    half = -(soft[:, [0, 1]] * among).sum(1).mean()
    torch.testing.assert_close(CrossEntropy(("a", "b")).loss(now), half)


def test_cross_entropy_over_one_class_alone_is_refused():
    with pytest.raises(BadOption, match="over a alone has no gradient"):
        CrossEntropy().loss(step(start("a"), pictures("a", 4)))
    with pytest.raises(BadOption, match="over c alone has no gradient"):
        CrossEntropy(("c",)).loss(step(start("ab").grown(["c"]), pictures("c", 4)))


@pytest.mark.parametrize("term", [CrossEntropy(), CrossEntropy(("a", "b"), 0.1)])
def test_parts_of_a_batch_add_up(term):
    model, data = start(norm=False), pictures("abc", 4)
    whole = term.loss(step(model, data))
    cuts = [range(5), range(5, 12)]
    parts = sum(term.loss(step(model, data.take(cut))) * len(cut) / 12 for cut in cuts)
    torch.testing.assert_close(parts, whole)


def test_distillation_is_its_formula():
    old = start("ab", seed=3).grown(["c", "d"]).frozen()
    with torch.no_grad():
        for parameter in old.layer.parameters():
            parameter.mul_(4)
    model = start("ab", seed=4).grown(["c", "d"], 5).grown(["e"])
    data = pictures("abcde", 2)
    model.module.eval()
    now = step(model, data)
    before = old(now.pictures).logits.tolist()
    for groups, parts in ((False, ["abcd"]), (True, ["ab", "cd"])):
        total = 0.0
        for mine, theirs in zip(now.output.logits.tolist(), before, strict=True):
            for part in parts:
                places = ["abcd".index(each) for each in part]
                p = softmax([theirs[i] / 2 for i in places])
                q = softmax([mine[i] / 2 for i in places])
                total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / len(data)
        found = Distillation(old, 2.0, 3.0, groups).loss(now)
        assert float(found) == pytest.approx(3 * total, rel=1e-4)
        assert total > 1e-6


def test_distillation_matches_classes_by_name():
    """The same classes at other positions: nothing to learn, and nothing is confused."""
    inner = net(4, norm=False)
    old = growing(inner, "abcd").frozen()
    swapped = growing(inner, "dcba")
    order = [3, 2, 1, 0]
    with torch.no_grad():
        part = swapped.layer[0]
        part.weight.copy_(part.weight[order])
        part.bias.copy_(part.bias[order])
    data = pictures("ab", 3)
    assert float(Distillation(old).loss(step(swapped, data)).detach()) == pytest.approx(0, abs=1e-7)


def test_old_networks_get_no_gradient_and_speak_once():
    old = start("ab", seed=3).frozen()
    model = start("abc")
    now = step(model, pictures("abc", 2))
    calls = []
    hook = old.module.register_forward_hook(lambda *_: calls.append(1))
    loss = Distillation(old).loss(now) + FeatureDistillation(old).loss(now)
    loss.backward()
    hook.remove()
    assert len(calls) == 1
    assert all(each.grad is None for each in old.module.parameters())
    assert any(each.grad is not None for each in model.module.parameters())
    assert not old.module.training


def test_feature_distillation_is_its_formula():
    old, model = start("ab", seed=3).frozen(), start("ab", seed=9, norm=False)
    now = step(model, pictures("ab", 3))
    mine = now.output.features.detach().double().numpy()
    theirs = old(now.pictures).features.double().numpy()
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(mine, theirs, strict=True)
    ]
    found = float(FeatureDistillation(old, 2.0).loss(now))
    assert found == pytest.approx(2 * (1 - np.mean(cosines)), rel=1e-4)
    found = float(FeatureDistillation(old, 2.0, "squared").loss(now))
    assert found == pytest.approx(2 * np.mean((mine - theirs) ** 2), rel=1e-4)
    with pytest.raises(BadOption, match="the measure 'l1'"):
        FeatureDistillation(old, measure="l1")


def test_weight_penalty_is_its_formula():
    model = start("ab", norm=False)
    names = ["0.weight", "2.bias"]
    reference = {n: torch.full_like(dict(model.module.named_parameters())[n], 0.5) for n in names}
    importance = {n: torch.full_like(each, 3.0) for n, each in reference.items()}
    now = step(model, pictures("ab", 1))
    total = sum(
        float(((dict(model.module.named_parameters())[n].double() - 0.5) ** 2).sum()) for n in names
    )
    found = WeightPenalty(reference, importance, 4.0).loss(now)
    assert float(found) == pytest.approx(0.5 * 4 * 3 * total, rel=1e-5)
    assert float(WeightPenalty(reference).loss(now)) == pytest.approx(0.5 * total, rel=1e-5)
    found.backward()
    wanted = 4 * 3 * (model.module[0].weight.detach() - 0.5)
    torch.testing.assert_close(model.module[0].weight.grad, wanted)
    with pytest.raises(BadOption, match="speaks of 'gone'"):
        WeightPenalty({"gone": torch.ones(1)}).loss(now)
    with pytest.raises(BadOption, match="name other parameters"):
        WeightPenalty(reference, {})


class Moved:
    """A tensor that counts how often it is moved."""

    def __init__(self, tensor):
        self.tensor, self.times = tensor, 0

    def to(self, device):
        self.times += 1
        return self.tensor.to(device)


def test_what_a_penalty_holds_is_moved_once():
    """Two whole networks went to the GPU at every step."""
    model = start("ab", norm=False)
    parameters = dict(model.module.named_parameters())
    reference = {name: Moved(torch.zeros_like(each)) for name, each in parameters.items()}
    importance = {name: Moved(torch.ones_like(each)) for name, each in parameters.items()}
    path = PathIntegral(WeightPenalty(reference, importance, 2.0))
    for _ in range(3):
        path.loss(step(model, pictures("ab", 1))).backward()
        path.before_step(model, 1.0)
        path.after_step(model)
    assert {each.times for each in (*reference.values(), *importance.values())} == {1}
    # On another device they are wanted again.
    path.penalty.on(torch.device("meta"))
    assert {each.times for each in reference.values()} == {2}


def test_impossible_terms():
    for make in (lambda: CrossEntropy(smoothing=1.0), lambda: Distillation(None, temperature=0)):
        with pytest.raises(BadOption):
            make()
