"""Another extractor must be better by pictures it was not trained with, beyond chance."""

import numpy as np
import pytest
from scipy import stats

import retain
from retain import weighing
from retain.weighing import brier, luck
from tests.eras.small import adapt, blind, files, images, shop, taught

A, B = files(1), files(2)


@pytest.mark.parametrize("n", [2, 3, 10, 200])
def test_the_chance_is_that_of_students_test(n):
    rng = np.random.default_rng(n)
    for shift in (-0.5, 0.0, 0.5):
        gains = rng.normal(shift, 1, n)
        twin = stats.ttest_1samp(gains, 0, alternative="greater").pvalue
        assert luck(gains) == pytest.approx(max(float(twin), 0.5**n), abs=1e-12)
    # As a coin that falls n times on the same side.
    assert luck([0.2] * n) == 0.5**n
    assert luck([-0.2] * n) == luck([0.0] * n) == luck([]) == 1


def test_the_score_is_that_of_what_is_answered(tmp_path):
    with shop(tmp_path / "mine", A) as mine:
        taught(mine, "ant", "bee", n=6)
        state = mine._session.state
        said = mine.predict([mine.image(each.image) for each in state.samples], top=9)
        for row, (sample, found) in enumerate(zip(state.samples, said, strict=True)):
            chances = {each.label: each.probability for each in found.top}
            slow = sum((p - (label == sample.label)) ** 2 for label, p in chances.items())
            vector = state.features[row], float(state.norms[row])
            assert brier(state.mind, *vector, sample.label) == pytest.approx(slow, abs=1e-12)


def judged(mine, count, made, **options):
    """Adapt, with so many pictures of each kind left to judge."""
    rest = {}
    for sample in mine.samples():
        rest.setdefault(sample.label, []).append(sample.image)
    trained = [image for each in rest.values() for image in each[count:]]
    return adapt(mine, made, trained=trained, force=False, **options)


def said(update):
    (found,) = [check for check in update.verdict.checks if check.name == "evidence"]
    return found


def test_one_that_sees_where_the_other_was_blind_passes(tmp_path):
    with shop(tmp_path / "mine", blind()) as mine:
        taught(mine, "ant", "bee", n=20)
        found = said(judged(mine, 10, A))
        assert found.passed
        assert found.value <= found.limit == 0.1
        assert "of 20 pictures that the extractor was not trained with" in found.sentence


def test_few_judges_cannot_tell(tmp_path):
    with shop(tmp_path / "mine", blind()) as mine:
        taught(mine, "ant", "bee", n=20)
        with pytest.raises(retain.GateRefused, match=r"--held-out 0\.3") as caught:
            judged(mine, 1, A)
        found = said(caught.value.update)
        assert not found.passed
        assert "undecided" in found.sentence or "nothing shows" in found.sentence
        assert mine._session.store.era.number == 0
        assert said(judged(mine, 1, A, dry_run=True)).sentence == found.sentence


def test_one_that_is_no_better_is_not_put_in_place(tmp_path):
    with shop(tmp_path / "mine", A) as mine:
        taught(mine, "ant", "bee", n=20)
        with pytest.raises(retain.GateRefused, match="nothing shows that it is better"):
            judged(mine, 10, B)


def test_where_all_was_trained_with_none_can_judge(tmp_path):
    with shop(tmp_path / "mine", blind()) as mine:
        taught(mine, "ant", "bee", n=10)
        with pytest.raises(retain.GateRefused, match="none can judge"):
            adapt(mine, A, trained=images(mine), force=False)
        # Made elsewhere, by none of these, it is weighed by the budgets as ever.
        assert adapt(mine, A, force=False).event is not None


def test_more_that_are_lost_than_gained_is_no_gain_whatever_the_score(tmp_path, monkeypatch):
    with shop(tmp_path / "mine", blind()) as mine:
        taught(mine, "ant", "bee", n=20)
        assert said(judged(mine, 10, A, dry_run=True)).passed
        monkeypatch.setattr(weighing, "paired", lambda *_: (3, 2, 20))
        found = said(judged(mine, 10, A, dry_run=True))
        assert not found.passed
        assert "nothing shows that it is better" in found.sentence
