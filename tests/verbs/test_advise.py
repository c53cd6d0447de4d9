"""`advise`: what the frozen network says of remembered pictures, and what follows from it."""

import hashlib
import importlib.util
import json
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

import retain
import retain.algebra
from retain.advice import Option, Trial
from retain.expecting import Known, believed, best, expected, pays_by_pins
from retain.trials import Gain, Step, accuracy_with, crossed, curve, folds, gained, right
from retain.values import Sample
from tests.faces.helpers import draw, process
from tests.verbs.adopted import NAMES, adopt, pictures
from tests.verbs.conftest import cluster, taught

WITHOUT_TORCH = importlib.util.find_spec("torch") is None


def on_disk(shop):
    return {
        str(path.relative_to(shop.path)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(shop.path.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def timeless(advice):
    return replace(advice, seconds=0.0)


def test_it_says_how_much_is_right_when_left_out(shop, fresh):
    given = {label: cluster(label, 7, spread=1.6) for label in "abc"}
    for label, rows in given.items():
        shop.learn(rows, label)
    advice = shop.advise()
    wrong = 0
    for label, rows in given.items():
        for left in range(len(rows)):
            other = fresh()
            for name, theirs in given.items():
                keep = [i for i in range(len(theirs)) if (name, i) != (label, left)]
                other.learn(theirs[keep], name, force=True)
            wrong += other.predict([rows[left]])[0].label != label
    # The numbers of the head are held in closed form, and chosen anew by the slow twin.
    assert abs(advice.mistakes - wrong) <= 2
    assert advice.accuracy == pytest.approx(1 - advice.mistakes / 21)
    assert advice.low < advice.accuracy < advice.high
    assert (advice.images, advice.classes, advice.smallest, advice.largest) == (21, 3, 7, 7)
    assert f"{100 * advice.accuracy:.1f} %" in " ".join(advice.sentences)


def test_vectors_cannot_be_trained_with_and_it_says_so(shop):
    taught(shop, "a", "b", n=6)
    advice = shop.advise()
    assert [each.choice for each in advice.options] == [
        *("learn", "pin", "last-block", "full", "start-again")
    ]
    for choice in ("last-block", "full", "start-again"):
        option = advice.option(choice)
        assert option.gain is option.low is option.high is option.seconds is None
        assert "takes vectors" in option.why
        assert not option.command
    assert advice.choice in ("learn", "pin")
    assert any("cannot be trained" in sentence for sentence in advice.sentences)


def test_few_mistakes_apart_are_corrected_one_by_one(shop):
    for label in "abc":
        shop.learn(cluster(label, 20, spread=0.3), label)
    assert shop.advise().choice == "learn"
    stray = {"a": "b", "b": "c"}
    for label, other in stray.items():
        shop.learn(cluster(other, 1, seed=77, spread=0.2), label, force=True)
    advice = shop.advise()
    assert advice.mistakes == 2
    assert advice.choice == "pin"
    assert "correct the mistakes one by one" in advice.sentences[0]


@pytest.mark.parametrize(
    ("mistakes", "confused", "pays"),
    [
        (0, None, False),
        (1, ("a", "b", 1), True),
        (5, ("a", "b", 2), True),
        (5, ("a", "b", 4), False),
        (6, ("a", "b", 1), False),
    ],
)
def test_mistakes_pay_by_pins_if_they_are_few_and_isolated(mistakes, confused, pays):
    assert pays_by_pins(100, mistakes, confused) is pays


def test_nothing_is_written(shop):
    taught(shop, "a", "b", n=6)
    shop.predict(cluster("a", 1))
    before, events = on_disk(shop), shop.log()
    shop.advise(folder=cluster("a", 3, seed=3))
    assert on_disk(shop) == before
    assert shop.log() == events


def test_the_same_pictures_get_the_same_advice_in_whatever_order(fresh):
    one, other = fresh(), fresh()
    taught(one, "a", "b", "c", n=9)
    taught(other, "c", "a", "b", n=9)
    first, again, third = one.advise(), one.advise(), other.advise()
    assert timeless(first) == timeless(again)
    assert first.curve == third.curve
    assert first.sentences == third.sentences
    assert (first.choice, first.accuracy) == (third.choice, third.accuracy)


def test_pictures_like_nothing_taught_are_counted(shop):
    taught(shop, "a", "b", "c", n=12)
    known = shop.advise(folder=cluster("a", 30, seed=5))
    strange = shop.advise(folder=-4 * cluster("z", 30, seed=5, spread=3.0))
    assert known.novel < strange.novel
    assert any("resemble nothing taught" in each for each in strange.sentences)
    assert shop.advise().novel is None


def test_classes_out_of_balance_are_named(shop):
    shop.learn(cluster("a", 20), "a")
    shop.learn(cluster("b", 3), "b")
    assert any("'b' has 3" in each for each in shop.advise().sentences)


def test_what_cannot_be_advised_on(shop):
    with pytest.raises(retain.NothingLearned, match="nothing to advise on"):
        shop.advise()
    shop.learn(cluster("a", 4), "a")
    with pytest.raises(retain.BadOption, match="needs two classes"):
        shop.advise()
    shop.learn(cluster("b", 4), "b")
    for budget in (-1.0, float("nan"), float("inf")):
        with pytest.raises(retain.BadOption, match="budget"):
            shop.advise(budget=budget)


def test_single_pictures_cannot_be_left_out(shop):
    shop.learn(cluster("a", 1), "a")
    shop.learn(cluster("b", 1), "b")
    with pytest.raises(retain.BadOption, match="a single picture"):
        shop.advise()


def test_an_adopted_one_is_judged_by_its_own_pictures(tmp_path):
    with adopt(tmp_path) as theirs:
        theirs.learn(pictures(6, seed=1, tint=1), NAMES[0], force=True)
        theirs.learn(pictures(6, seed=2, tint=2), "moth", force=True)
        theirs.learn(pictures(1, seed=3, tint=3), "fly", force=True)
        advice = theirs.advise()
        assert advice.images == 13
        assert advice.classes == 3
        assert advice.option("full").gain is None
        assert advice.option("full").why


def test_without_pictures_there_is_nothing_to_train_with(tmp_path):
    with retain.create(tmp_path / "shop", memory="features") as shop:
        for label in ("mug", "plate"):
            for number in range(3):
                shop.learn([draw(tmp_path / label / f"{number}.png", label, number)], label)
        assert "keeps features and no pictures" in shop.advise().option("full").why


@pytest.mark.skipif(not WITHOUT_TORCH, reason="PyTorch is installed; see tests/train")
def test_without_pytorch_it_says_what_the_extra_would_add(tmp_path):
    with retain.create(tmp_path / "shop") as shop:
        for label in ("mug", "plate", "spoon"):
            files = [draw(tmp_path / label / f"{i}.png", label, i) for i in range(4)]
            shop.learn(files, label)
        advice = shop.advise()
        full = advice.option("full")
        assert advice.choice in ("learn", "pin")
        assert full.gain is not None
        assert full.seconds > 0
        assert not full.command
        assert full.trial is None
        assert "pip install 'retain[train]'" in full.why
        assert any("pip install 'retain[train]'" in each for each in advice.sentences)
        for option in advice.options:
            assert -advice.accuracy <= option.low <= option.high <= 1 - advice.accuracy
        told = process("advise", str(shop.path)).stdout.decode()
        # Once in the sentences, and once for all that would be trained.
        assert told.count("pip install 'retain[train]'") == 2
        assert "\nlast-block, full, start-again: " in told


def test_the_command_says_it_in_sentences_and_as_json(tmp_path, shop):
    taught(shop, "a", "b", n=6)
    told = process("advise", str(shop.path))
    assert told.returncode == 0, told.stderr
    assert told.stdout.decode().startswith("Go on learning")
    assert "\npin  " in told.stdout.decode()
    assert told.stdout.decode().count("takes vectors") == 1
    found = json.loads(process("advise", str(shop.path), "--json", "--budget", "0").stdout)
    assert found["choice"] == shop.advise().choice
    assert len(found["options"]) == 5
    assert process("advise", str(shop.path), "--budget", "-1").returncode == 2


# -- the parts -----------------------------------------------------------------------------------


def members(counts):
    return [
        Sample(hashlib.sha256(f"{label}{i}".encode()).hexdigest(), label, False, 1, "")
        for label, n in counts.items()
        for i in range(n)
    ]


def test_folds_part_every_class_evenly():
    samples = members({"a": 9, "b": 4, "c": 1})
    parts = folds(samples, 3)
    for label, most in (("a", 3), ("b", 2)):
        mine = [part for part, sample in zip(parts, samples, strict=True) if sample.label == label]
        assert sorted(set(mine)) == [0, 1, 2]
        assert max(map(mine.count, mine)) == most
    assert parts[-1] == -1
    backwards = folds(samples[::-1], 3)[::-1]
    assert np.array_equal(parts, backwards)


def test_a_gain_is_that_of_the_same_pictures():
    rng = np.random.default_rng(3)
    before, after = rng.random(200) < 0.6, rng.random(200) < 0.7
    found = gained(before, after)
    won = int((after & ~before).sum())
    lost = int((before & ~after).sum())
    assert found.mean == pytest.approx((won - lost) / 200)
    # McNemar's variance of the difference, with one more of either.
    variance = (won + lost + 2 - (won - lost) ** 2 / 200) / 200**2
    assert found.error == pytest.approx(variance**0.5)
    same = gained(before, before)
    assert same.mean == 0
    assert same.error > 0


def test_what_was_tried_outweighs_what_is_usual_as_it_gets_surer():
    known = Known(400, 8, 0.7)
    usual = expected("full", known)
    vague = believed("full", known, Gain(0.2, 0.3, 10))
    sure = believed("full", known, Gain(0.2, 0.001, 10_000))
    untried = believed("full", known, None)
    assert untried.mean == pytest.approx(usual.mean)
    assert usual.mean < vague.mean < sure.mean
    assert sure.error < vague.error < untried.error
    # Two trainings differ by more than sampling, and a trial has a fold less to learn from.
    assert sure.error > 0.01
    assert sure.mean == pytest.approx(0.2, abs=0.03)


def test_what_to_believe_is_what_bayes_says():
    """Against an integral over all gains there might be, four in five near the usual one."""
    known, tried = Known(400, 8, 0.7), Gain(0.06, 0.03, 100)
    usual = expected("full", known)
    missing = usual.mean - expected("full", Known(267, 8, 0.7)).mean
    gains = np.linspace(-1, 1, 200_001)
    near, far = (NormalDist(usual.mean, k * usual.error) for k in (1, 4))
    seen = NormalDist(tried.mean + missing, float(np.hypot(tried.error, 0.015)))
    before = np.array([0.8 * near.pdf(each) + 0.2 * far.pdf(each) for each in gains])
    after = before * np.array([seen.pdf(each) for each in gains])
    after /= after.sum()
    mean = float(gains @ after)
    error = float(np.sqrt((gains - mean) ** 2 @ after))
    found = believed("full", known, tried)
    assert found.mean == pytest.approx(mean, abs=1e-6)
    assert found.error == pytest.approx(error, abs=1e-6)


def option(choice, gain, command="do", trial=Trial(0.0, 0.1, 9)):
    return Option(choice, gain, gain, gain, None, "", "", command, trial)


@pytest.mark.parametrize(
    ("gains", "wanted"),
    [
        ((0.0, 0.005, 0.009, -0.5), "learn"),
        ((0.0, 0.02, 0.025, -0.5), "last-block"),
        ((0.0, 0.02, 0.05, -0.5), "full"),
        ((0.0, 0.02, 0.05, 0.2), "start-again"),
        ((0.0, None, None, None), "learn"),
    ],
)
def test_the_cheapest_within_a_point_of_the_best_is_advised(gains, wanted):
    names = ("learn", "last-block", "full", "start-again")
    options = [option(*each) for each in zip(names, gains, strict=True)]
    assert best([options[0], option("pin", 0.0), *options[1:]]).choice == wanted


def test_what_cannot_be_done_is_not_advised():
    assert best([option("learn", 0.0), option("full", 0.3, command="")]).choice == "learn"
    assert best([option("learn", 0.0), option("start-again", 0.3, trial=None)]).choice == "learn"


def test_who_sees_nothing_has_nothing_to_lose():
    anew = [option("learn", 0.0), option("full", 0.0), option("start-again", 0.09, trial=None)]
    assert best(anew).choice == "learn"
    assert best(anew, blind=True).choice == "start-again"
    assert best([anew[0], option("start-again", 0.005)], blind=True).choice == "learn"
    seeing, blind = Known(500, 10, 0.6), Known(500, 10, 0.2)
    assert (seeing.blind, blind.blind) == (False, True)
    # What is not seen is not mended by small steps.
    assert expected("full", seeing).mean > 0.01
    assert expected("full", blind).mean == expected("last-block", blind).mean == 0
    few = expected("full", Known(50, 10, 0.2)).mean
    assert few < 0, "what mends nothing may still learn few pictures by heart"
    assert expected("start-again", blind).mean > 0 > expected("start-again", seeing).mean


def test_a_small_network_begins_anew_sooner():
    small, large = Known(500, 10, 0.2, 500_000), Known(500, 10, 0.2, 50_000_000)
    assert expected("start-again", small).mean > expected("start-again", large).mean + 0.05


def test_gains_vary_with_what_there_is_to_gain():
    spread = [expected("full", Known(400, 8, each)).error for each in (0.5, 0.75)]
    assert spread[0] == pytest.approx(2 * spread[1])


def test_a_learning_curve_grows_and_is_carried_on():
    rng = np.random.default_rng(0)
    samples = members(dict.fromkeys("abcd", 40))
    labels = [sample.label for sample in samples]
    centres = {label: rng.normal(size=16) for label in "abcd"}
    rows = np.stack([centres[label] + 1.5 * rng.normal(size=16) for label in labels])
    features = retain.algebra.quantize(rows)[0]
    steps = curve(samples, features, labels, retain.algebra.HeadOptions())
    assert [each.pictures for each in steps] == [20, 40, 80]
    assert steps[0].accuracy < steps[-1].accuracy
    assert accuracy_with(steps, 160) >= steps[-1].accuracy
    assert accuracy_with(steps[:2], 160) is None
    falling = [Step(10, 0.9), Step(20, 0.8), Step(40, 0.7)]
    assert accuracy_with(falling, 80) == pytest.approx(0.7)


def test_a_learning_curve_is_judged_by_classes_as_they_come(monkeypatch):
    """A class of a fifth of all pictures is about a fifth of its judges."""
    samples = members({"often": 400, **{f"rare{i:02}": 40 for i in range(40)}})
    labels = [sample.label for sample in samples]
    judged = []

    def noted(features, labels, learned, rows, options):
        judged.append([labels[row] for row in rows])
        return [labels[row] for row in rows]

    monkeypatch.setattr("retain.trials._answers", noted)
    curve(samples, np.zeros((len(samples), 4), np.int16), labels, retain.algebra.HeadOptions())
    assert len(judged) == 6
    for each in judged:
        assert len(each) == 500
        assert 0.14 < each.count("often") / 500 < 0.26


def test_mistakes_beside_an_adopted_layer_are_named_by_what_was_answered():
    rng = np.random.default_rng(0)
    samples = members({"mug": 30, "cup": 30})
    labels = [sample.label for sample in samples]
    # Half of the mugs look like cups.
    looks = ["cup" if i % 4 == 0 else label for i, label in enumerate(labels)]
    rows = np.stack([rng.normal(size=8) * 0.1 + (look == "cup") for look in looks])
    parts = folds(samples, 5)
    options = retain.algebra.HeadOptions()
    rows, answers = crossed(0, parts, retain.algebra.quantize(rows)[0], labels, options)
    assert len(answers) == len(rows)
    assert set(answers) <= {"mug", "cup"}
    assert right(answers, rows, labels).tolist() == [
        answer == labels[row] for row, answer in zip(rows, answers, strict=True)
    ]
