"""Another extractor must be better by pictures it was not trained with, beyond chance."""

import itertools

import numpy as np
import pytest

import retain
from retain.gate import luck
from tests.eras.small import adapt, blind, files, images, shop, taught

A, B = files(1), files(2)


def test_the_chance_is_that_of_a_coin():
    """The slow twin: all ways in which coins may fall."""
    for changed in range(9):
        falls = [sum(each) for each in itertools.product((0, 1), repeat=changed)]
        for gained in range(changed + 1):
            many = np.mean([heads >= gained for heads in falls])
            assert luck(changed - gained, gained) == many


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
