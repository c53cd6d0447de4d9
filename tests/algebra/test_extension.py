import json

import numpy as np
import pytest
from scipy.special import ndtr

from retain.algebra import Statistics, quantize, to_float, typicality
from retain.algebra.extension import REFERENCE, ExtensionTuning, Start, extend
from retain.algebra.extension_tuning import (
    BUDGET,
    _offset,
    left_out,
    started,
    tune_extension,
)
from retain.algebra.novelty import UNKNOWN_BELOW, energy
from tests.reference import extension as twin

OLD = ("zebra", "ant", "mole", "bee")


def world(seed=0, d=16, reference=40, taught=(), new=(5, 5, 5), spread=0.7):
    """Old classes with a classifier, a reference, new classes, and unseen pictures of both."""
    rng = np.random.default_rng(seed)
    centres = 1.2 * rng.normal(size=(len(OLD) + len(new), d)) + 1.0

    def pictures(rows):
        x = centres[rows] + spread * rng.normal(size=(len(rows), d))
        return quantize(3 * x)

    counts = {OLD[i]: n for i, n in taught}
    which = list(rng.integers(0, len(OLD), reference))
    labels = [REFERENCE] * reference
    for label, n in counts.items():
        which += [OLD.index(label)] * n
        labels += [label] * n
    for i, n in enumerate(new):
        which += [len(OLD) + i] * n
        labels += [f"new{i}"] * n
    fixed, norms = pictures(np.array(which, dtype=int))
    weights = centres[: len(OLD)] - centres[: len(OLD)].mean(axis=0)
    start = Start(OLD, 0.4 * weights, 0.1 * rng.normal(size=len(OLD)))
    unseen = np.repeat(np.arange(len(centres)), 60)
    return start, fixed, norms, labels, (*pictures(unseen), unseen)


CASES = {
    "reference and new": {},
    "one picture each": {"new": (1, 1, 1)},
    "mixed counts": {"new": (1, 2, 9)},
    "old pictures too": {"taught": ((0, 3), (2, 1))},
    "old pictures only": {"reference": 0, "taught": ((0, 4), (1, 3), (2, 5), (3, 2)), "new": ()},
    "no reference": {"reference": 0},
    "one reference": {"reference": 1},
    "more numbers than pictures": {"d": 70, "new": (2, 3, 2)},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shrinkage", [0.1, 3.0])
def test_leaving_out_in_closed_form_is_leaving_each_out(case, shrinkage):
    start, fixed, _, labels, _ = world(**CASES[case])
    if case == "one reference":
        pytest.skip("without its only typical picture the centre is undefined")
    state = Statistics.of(fixed, labels)
    ours = left_out(start, state, fixed, labels, shrinkage)
    theirs = twin.left_out(to_float(fixed), labels, OLD, shrinkage)
    if REFERENCE in state.classes:
        # The reference's own score serves nothing, and is 0/0 where it is the centre.
        ours, theirs = ours[:, 1:], theirs[:, 1:]
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-7 * np.nanmax(np.abs(theirs)))


@pytest.mark.parametrize("case", CASES)
def test_the_head_is_the_one_of_the_formula(case):
    start, fixed, _, labels, (asked, lengths, _) = world(**CASES[case])
    tuning = ExtensionTuning(2.0, 1.3, -0.4, 7.0, 0.6, 0.2)
    head = extend(start, Statistics.of(fixed, labels), tuning)
    x, rho = to_float(asked), lengths.astype(np.float64)
    theirs = twin.logits(x, rho, start.weights, start.bias, OLD, to_float(fixed), labels, tuning)
    np.testing.assert_allclose(head.logits(asked, lengths), theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_do_not_depend_on_order_and_survive_json(case):
    start, fixed, norms, labels, _ = world(**CASES[case])
    state = Statistics.of(fixed, labels)
    tuning = tune_extension(start, state, fixed, norms, labels)
    assert tuning == tune_extension(start, state, fixed, norms, labels)
    assert ExtensionTuning.from_dict(json.loads(json.dumps(tuning.to_dict()))) == tuning
    order = np.random.default_rng(1).permutation(len(labels))
    shuffled = [labels[i] for i in order]
    again = tune_extension(
        start, Statistics.of(fixed[order], shuffled), fixed[order], norms[order], shuffled
    )
    assert again.shrinkage == tuning.shrinkage
    assert again.prior == tuning.prior
    np.testing.assert_allclose(again.scale, tuning.scale, rtol=1e-6)
    np.testing.assert_allclose(again.offset, tuning.offset, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_energies_of_the_familiar_are_left_out_of_the_whole_head(case):
    start, fixed, norms, labels, _ = world(**CASES[case])
    state = Statistics.of(fixed, labels)
    tuning = started(start, state, fixed, norms, labels)
    found = ExtensionTuning.from_dict(tuning.extension)
    cosines = left_out(start, state, fixed, labels, found.shrinkage)
    old, energies = start.logits(fixed, norms), []
    known = {REFERENCE, *OLD}
    for i, label in enumerate(labels):
        if label not in known and labels.count(label) == 1:
            continue
        logits = dict(zip(OLD, old[i], strict=True))
        for name, score in zip(state.classes, cosines[i], strict=True):
            many = labels.count(name) - (name == label)
            if name not in known:
                logits[name] = found.scale * score + found.offset
            elif name != REFERENCE and found.prior is not None and many:
                share = many / (many + found.prior)
                learnt = found.old_scale * score + found.old_offset
                logits[name] = (1 - share) * logits[name] + share * learnt
        energies.append(np.log(np.exp(list(logits.values())).sum()))
    if not known & set(labels):
        energies = []
    np.testing.assert_allclose(tuning.energies, np.sort(energies), rtol=1e-9)


def test_what_is_taught_is_not_unknown():
    flagged = []
    for seed in range(4):
        start, fixed, norms, labels, (asked, lengths, truth) = world(seed, 40, 150, new=(20, 30))
        state = Statistics.of(fixed, labels)
        tuning = started(start, state, fixed, norms, labels)
        head = extend(start, state, ExtensionTuning.from_dict(tuning.extension))
        found = typicality(energy(head.logits(asked, lengths)), tuning.energies) < UNKNOWN_BELOW
        flagged.append([found[truth < 4].mean(), found[truth >= 4].mean()])
    old, new = np.mean(flagged, axis=0)
    assert old < 0.1
    assert new < 0.15, (old, new)


def test_old_logits_stay_to_the_bit_and_classes_keep_their_order():
    start, fixed, norms, labels, (asked, lengths, _) = world()
    state = Statistics.of(fixed, labels)
    head = extend(start, state, tune_extension(start, state, fixed, norms, labels))
    assert head.classes == (*OLD, "new0", "new1", "new2")
    bare = extend(start, Statistics.empty(16), ExtensionTuning())
    assert bare.classes == OLD
    np.testing.assert_array_equal(head.logits(asked, lengths)[:, :4], bare.logits(asked, lengths))
    np.testing.assert_allclose(
        bare.logits(asked, lengths), start.logits(asked, lengths), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("new", [(1, 1, 1), (2, 2, 2), (5, 5, 5), (20, 20, 20), (1, 5, 20)])
def test_new_classes_are_told_and_old_answers_stay(new):
    kept, won = [], []
    for seed in range(4):
        start, fixed, norms, labels, (asked, lengths, truth) = world(seed, 40, 150, new=new)
        state = Statistics.of(fixed, labels)
        head = extend(start, state, tune_extension(start, state, fixed, norms, labels))
        answers = head.logits(asked, lengths).argmax(axis=1)
        before = start.logits(asked, lengths).argmax(axis=1)
        kept.append((answers == before)[truth < 4].mean())
        won.append((answers == truth)[truth >= 4].mean())
    assert np.mean(kept) >= 0.97
    assert np.mean(won) >= 0.6


def test_old_pictures_help_a_shifted_classifier_and_never_spoil_a_good_one():
    rng = np.random.default_rng(3)
    for shift, least in ((0.0, -0.01), (1.5, 0.05)):
        taught = tuple((i, 30) for i in range(4))
        start, fixed, norms, labels, (asked, lengths, truth) = world(5, 16, 0, taught, ())
        start = Start(OLD, start.weights + shift * rng.normal(size=(4, 16)), start.bias)
        state = Statistics.of(fixed, labels)
        tuning = tune_extension(start, state, fixed, norms, labels)
        head = extend(start, state, tuning)
        after = (head.logits(asked, lengths).argmax(axis=1) == truth).mean()
        before = (start.logits(asked, lengths).argmax(axis=1) == truth).mean()
        assert after - before >= least


def test_the_offset_spends_the_budget_and_no_more():
    excess = np.random.default_rng(0).normal(-6, 2, 300)
    offset = _offset(excess, 1.5, BUDGET)
    assert ndtr((excess + offset) / 1.5).mean() == pytest.approx(BUDGET, rel=1e-6)


def test_odd_states_give_finite_numbers():
    start, fixed, _, _, (asked, lengths, _) = world()
    zeros = np.zeros((3, 16), dtype=np.int16)
    for x, names in (
        (fixed[-1:], ["new0"]),
        (fixed[-2:], ["new0", "new1"]),
        (fixed[-2:], ["new0", "new0"]),
        (fixed[:1], [REFERENCE]),
        (fixed[:2], [REFERENCE, "new0"]),
        (fixed[[0, 0, 0]], [REFERENCE, "new0", "new1"]),
        (zeros, [REFERENCE, "new0", "new0"]),
        (zeros, ["ant", "ant", "bee"]),
    ):
        rho = np.ones(len(x))
        state = Statistics.of(x, names)
        tuning = tune_extension(start, state, x, rho, names)
        assert all(np.isfinite(v) for v in tuning.to_dict().values() if v is not None)
        assert np.isfinite(extend(start, state, tuning).logits(asked, lengths)).all()
    assert tune_extension(start, Statistics.empty(16), zeros[:0], [], []) == ExtensionTuning()


def test_what_does_not_fit_is_refused():
    eye = np.eye(2)
    for classes, weights, bias in (
        (("a",), eye, np.zeros(2)),
        (("a", "a"), eye, np.zeros(2)),
        (("a", ""), eye, np.zeros(2)),
        (("a", "b"), eye, np.zeros(3)),
        (("a", "b"), np.full((2, 2), np.nan), np.zeros(2)),
    ):
        with pytest.raises(ValueError, match=r"start|classes"):
            Start(classes, weights, bias)
    start = Start(("a", "b"), eye, np.zeros(2))
    with pytest.raises(ValueError, match="3 numbers"):
        extend(start, Statistics.empty(3), ExtensionTuning())
    x = np.ones((2, 2), dtype=np.int16)
    with pytest.raises(ValueError, match="1 norms"):
        tune_extension(start, Statistics.of(x, ["", "c"]), x, np.ones(1), ["", "c"])
