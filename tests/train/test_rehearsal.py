"""Exemplars: which, and never more than the budget."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from retain.errors import BadOption  # noqa: E402
from retain.train import methods  # noqa: E402
from retain.train.augment import Views  # noqa: E402
from retain.train.data import nothing  # noqa: E402
from retain.train.inference import outputs  # noqa: E402
from retain.train.recipe import Recipe  # noqa: E402
from retain.train.rehearsal import Budget, _herded, choose, kept  # noqa: E402
from retain.train.replay import beside  # noqa: E402

from . import tiny  # noqa: E402
from .small import pictures, start  # noqa: E402

VIEWS = Views()


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40), max_size=8),
    st.integers(0, 60),
)
def test_quotas(available, total):
    found = Budget(total=total).quotas(available)
    assert sum(found.values()) == min(total, sum(available.values()))
    assert all(0 <= found[name] <= available[name] for name in available)
    # Nobody who could have more has two fewer than another.
    wanting = [many for name, many in found.items() if many < available[name]]
    assert not found or all(max(found.values()) - many <= 1 for many in wanting)
    each = Budget(per_class=total).quotas(available)
    assert each == {name: min(many, total) for name, many in available.items()}


def test_impossible_budgets():
    for wrong in ({}, {"total": 3, "per_class": 1}, {"total": -1}, {"per_class": -2}):
        with pytest.raises(BadOption, match="give one of the two"):
            Budget(**wrong)
    with pytest.raises(BadOption, match="the choice 'best'"):
        choose(start(), pictures("abc", 2), {"a": 1}, "best", views=VIEWS)


def herded(features, many):
    """iCaRL, algorithm 4, one picture at a time."""
    features = [row / np.linalg.norm(row) for row in features]
    mean = sum(features) / len(features)
    chosen = []
    for k in range(1, many + 1):
        best, least = None, np.inf
        for i, row in enumerate(features):
            apart = np.linalg.norm(mean - (row + sum(features[j] for j in chosen)) / k)
            if i not in chosen and apart < least - 1e-12:
                best, least = i, apart
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("how", ["random", "herding", "entropy", "distance"])
def test_choices_are_their_definitions(how):
    model, data = start(), pictures("abc", 9)
    found = choose(model, data, {"a": 4, "c": 50}, how, views=VIEWS, seed=3)
    assert found.counts == {"a": 4, "c": 9}
    own = data.of_class("a")
    said = outputs(model, data.pictures[own], VIEWS)
    logits = said.logits.double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = {
        "herding": lambda: herded(said.features.double().numpy(), 4),
        "entropy": lambda: np.argsort((shares * np.log(shares)).sum(1))[:4],
        "distance": lambda: np.argsort(logits[:, 0])[:4],
        "random": lambda: None,
    }[how]()
    if wanted is not None:
        assert torch.equal(found.pictures[:4], data.pictures[[own[i] for i in wanted]])
    again = choose(model, data, {"a": 4, "c": 50}, how, views=VIEWS, seed=3)
    assert torch.equal(found.pictures, again.pictures)
    other = choose(model, data, {"a": 4}, how, views=VIEWS, seed=4)
    assert torch.equal(found.pictures[:4], other.pictures) == (how != "random")


@pytest.mark.parametrize("budget", [Budget(total=10), Budget(per_class=3), Budget(total=0)])
@pytest.mark.parametrize("how", ["random", "herding"])
def test_lesson_after_lesson_within_the_budget(budget, how):
    model = start("abcdefg")
    held = nothing()
    firsts = {}
    for labels, many in (("ab", 8), ("c", 1), ("def", 5), ("a", 4), ("g", 2)):
        fresh = pictures(labels, many, seed=many)
        held = kept(model, held, fresh, budget, how, views=VIEWS)
        for name, count in held.counts.items():
            if budget.per_class is not None:
                assert count <= budget.per_class
            # A class without new pictures keeps the first of those it had.
            if name in firsts and name not in labels:
                mine = held.pictures[torch.tensor(held.of_class(name))]
                assert torch.equal(mine, firsts[name][:count])
            firsts[name] = held.pictures[torch.tensor(held.of_class(name))]
        if budget.total is not None:
            assert len(held) <= budget.total
    if budget != Budget(total=0):
        assert set(held.classes) == set("abcdefg")


def as_it_was(features, quota):
    """Algorithm 4 as it was computed when the figures in docs were measured."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(lengths > 0, lengths, 1)
    mean, total, result = unit.mean(0), np.zeros(features.shape[1]), []
    for count in range(1, quota + 1):
        apart = np.linalg.norm(mean - (total + unit) / count, axis=1)
        apart[result] = np.inf
        result.append(int(np.argmin(apart)))
        total += unit[result[-1]]
    return result


@pytest.mark.parametrize("seed", range(6))
def test_herding_chooses_the_same_pictures_with_less_memory(seed):
    """Also where pictures are alike, or nearly, or have no features at all."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(300, 20 + 100 * seed)).clip(0)
    features[50:90] = features[:40]
    features[90:100] = features[:10] * (1 + 1e-15)
    features[100:103] = 0
    assert _herded(features, 250).tolist() == as_it_was(features, 250)
    large = random.normal(size=(2000, 300))
    tracemalloc.start()
    _herded(large, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * large.nbytes


def test_what_is_not_kept_is_let_go():
    """The exemplars own their memory: they are no window on all pictures ever seen."""
    fresh = pictures("ab", 50)
    held = kept(start("ab"), nothing(), fresh, Budget(total=4), "herding", views=VIEWS)
    assert torch.is_tensor(held.pictures)
    assert held.pictures.untyped_storage().nbytes() == 4 * 3 * 8 * 8


KEEPING = sorted(name for name, kind in methods.REGISTRY.items() if kind.keeps == "exemplars")


@pytest.mark.parametrize("name", KEEPING)
def test_no_method_holds_on_to_the_pictures_of_earlier_lessons(name):
    """What it keeps lies in a tensor of its own, lesson after lesson."""
    state = tiny.taught(methods.make(name), ["abc", "de", "fg"], replace(tiny.RECIPE, epochs=1))
    assert len(state.exemplars) == 12
    assert torch.is_tensor(state.exemplars.pictures)
    assert state.exemplars.pictures.untyped_storage().nbytes() == 12 * 3 * 8 * 8


def test_old_pictures_beside_new_ones_are_not_copied():
    """However many new ones there are; nor are the logits that belong to them."""
    old, fresh = pictures("ab", 2), pictures("cd", 50)
    data, drawn, _ = beside(fresh, old, Recipe(), seed=0)
    assert len(data) == 200
    old.pictures.zero_()
    among = torch.from_numpy(drawn >= 0)
    assert not data.pictures[among.nonzero().flatten()].any()
    lesson = tiny.lesson("ab", tiny.pictures("cd", 20), tiny.pictures("ab", 2))
    match = next(methods.make("der++").phases(lesson)).terms[1]
    assert len(match.wanted) == 4 + 1
    assert [int((match.rows == row).sum()) for row in range(-1, 4)] == [40, 10, 10, 10, 10]
