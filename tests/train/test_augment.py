"""Random changes of pictures: what they may do, and what they must not."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from retain.errors import BadOption  # noqa: E402
from retain.train.augment import Augment, Views  # noqa: E402
from retain.train.schedules import (  # noqa: E402
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Steps,
    WarmUp,
)


def noise(number=200, side=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


def test_views():
    x = noise(2)
    made = Views((0.5, 0.25, 0.0), (0.5, 1.0, 2.0))(x)
    for channel, (mean, std) in enumerate(((0.5, 0.5), (0.25, 1), (0, 2))):
        np.testing.assert_allclose(
            made[:, channel], (x[:, channel].numpy() / 255 - mean) / std, atol=1e-6
        )
    torch.testing.assert_close(Views()(x.float() / 255), Views()(x))


def test_nothing_is_changed_unless_asked_for():
    assert torch.equal(Augment().change(noise(3), Views()), Views()(noise(3)))
    assert Augment().mix(noise(3).float(), torch.tensor([0, 1, 2]), 3)[1] is None


def test_flips_and_shifts_are_windows_on_the_padded_picture():
    torch.manual_seed(0)
    x = noise()
    made = Augment(flip=True, pad=2).change(x, Views())
    padded = torch.nn.functional.pad(Views()(x), (2,) * 4)
    seen = set()
    for row in range(len(x)):
        fits = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            if torch.equal(
                made[row].flip(2) if flip else made[row],
                padded[row, :, top : top + 6, left : left + 6],
            )
        ]
        assert len(fits) == 1
        seen |= set(fits)
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(5))
    assert {flip for _, _, flip in seen} == {False, True}


def test_zooming_keeps_a_constant_and_moves_a_ramp():
    torch.manual_seed(0)
    flat = torch.full((8, 3, 6, 6), 128, dtype=torch.uint8)
    found = Augment(area=0.3).change(flat, Views())
    torch.testing.assert_close(found, Views()(flat))
    ramp = torch.arange(16.0).repeat(1, 1, 16, 1).expand(50, 1, 16, 16) / 16
    slopes = torch.diff(Augment(area=0.3).change(ramp, Views())[:, 0, 8, 4:12], dim=1).mean(1) * 16
    assert float(slopes.max()) <= 1.001
    assert float(slopes.min()) >= (0.3 * 0.75) ** 0.5 - 0.05
    assert float(slopes.std()) > 0.05


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 1, "cutmix": 1}])
def test_mixtures_tell_their_shares(options):
    """Class i is a picture of i everywhere: the mean of a mixture is the mean of its label."""
    torch.manual_seed(0)
    targets = torch.tensor([0, 1, 2, 3, 4, 5])
    x = targets.float().view(-1, 1, 1, 1).expand(6, 3, 8, 8)
    for _ in range(20):
        mixed, soft = Augment(**options).mix(x, targets, 6)
        torch.testing.assert_close(soft.sum(1), torch.ones(6))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), soft @ torch.arange(6.0))
    assert Augment(**options).mix(x[:1], targets[:1], 6)[1] is None


def test_random_operations_differ_from_picture_to_picture():
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    x = noise(1, 16).expand(12, 3, 16, 16)
    made = Augment(operations=2).change(x, Views())
    assert made.shape == x.shape
    assert len({each.numpy().tobytes() for each in made}) > 6


def test_impossible_changes():
    for wrong in ({"area": 0}, {"area": 2}, {"magnitude": 31}, {"pad": -1}, {"mixup": -0.1}):
        with pytest.raises(BadOption):
            Augment(**wrong)


@pytest.mark.parametrize(
    "schedule",
    [Constant(), Cosine(0.1), Exponential(0.8), OneCycle(), Steps((3, 0.8)), WarmUp(Cosine(), 2)],
)
def test_schedules_stay_between_zero_and_one(schedule):
    values = [schedule.at(step / 7, 10) for step in range(71)]
    assert all(0 <= each <= 1 for each in values)
    assert max(values) == pytest.approx(1, abs=0.03)


def test_schedules_of_pytorch():
    """PyTorch's own, stepped once an epoch, as the slow twin."""
    weight = torch.nn.Parameter(torch.zeros(1))
    kinds = torch.optim.lr_scheduler
    for mine, make in (
        (Cosine(), lambda o: kinds.CosineAnnealingLR(o, 10)),
        (Exponential(0.8), lambda o: kinds.ExponentialLR(o, 0.8)),
        (Steps((4, 7)), lambda o: kinds.MultiStepLR(o, [4, 7])),
    ):
        optimiser = torch.optim.SGD([weight], lr=1.0)
        theirs = make(optimiser)
        for epoch in range(10):
            assert mine.at(epoch, 10) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
            optimiser.step()
            theirs.step()
    optimiser = torch.optim.SGD([weight], lr=1.0)
    cycle = kinds.OneCycleLR(optimiser, 1.0, total_steps=11, cycle_momentum=False)
    for step in range(11):
        wanted = cycle.get_last_lr()[0]
        assert OneCycle(rise=2.3 / 10).at(step, 10) == pytest.approx(wanted, abs=1e-6)
        optimiser.step()
        if step < 10:
            cycle.step()
