"""`advise` with PyTorch: what is tried, on what, for how much, and that nothing remains of it."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import retain  # noqa: E402
from retain import attempts, train  # noqa: E402
from retain.train import probing  # noqa: E402
from retain.train.growing import growing  # noqa: E402
from retain.train.plan import Plan  # noqa: E402
from retain.train.recipe import Recipe  # noqa: E402
from tests.train.small import equal, net, pictures, start  # noqa: E402

SIDE = 24
NAMES = ["columns", "rows"]
RECIPE = Recipe(epochs=3, batch=8, rate=0.05, device="cpu")


def photo(kind, seed):
    """Stripes, up or across, in noise."""
    rng = np.random.default_rng([seed, kind])
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    wave = np.sin(12 * (y if kind else x) + rng.uniform(0, 6))[..., None]
    return np.clip(128 + 30 * wave + rng.normal(0, 50, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def taught(path, each=8, seed=0):
    """A classifier of a network of one's own, which has learned both of its classes."""
    shop = retain.adopt(path, net(2, seed=seed).eval(), size=SIDE, labels=NAMES, preprocess="raw")
    rows = [photo(kind, number) for kind in (0, 1) for number in range(each)]
    shop.learn(rows, [name for name in NAMES for _ in range(each)], force=True)
    return shop


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """However busy the machine is, all that the budget pays for is tried."""
    monkeypatch.setattr(attempts, "_PATIENCE", 1e9)


@pytest.fixture
def shop(tmp_path):
    with taught(tmp_path / "shop") as made:
        yield made


def asked(shop, **options):
    module = options.pop("module", None) or net(2)
    return shop.advise(**{"module": module, "budget": 0.02, **options})


def on_disk(shop):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in shop.path.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def test_everything_is_tried_and_nothing_remains(shop):
    before = on_disk(shop)
    advice = asked(shop)
    for choice in ("last-block", "full"):
        option = advice.option(choice)
        assert option.trial.judged == 16
        assert "5 of 5 folds" in option.why
        assert option.low < option.gain < option.high
        assert option.seconds > 0
        assert option.command.startswith("retain adapt")
    assert advice.option("start-again").trial is None
    assert [each.parameters for each in advice.network][-1] == 2 * 8 + 2
    assert on_disk(shop) == before
    assert len(shop.log()) == 1


def test_the_same_question_has_the_same_answer(shop):
    def timeless(advice):
        options = tuple(replace(each, seconds=None) for each in advice.options)
        return replace(advice, seconds=0.0, options=options, sentences=advice.sentences[1:])

    module = net(2)
    torch.manual_seed(1)
    one = timeless(asked(shop, module=module))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert timeless(asked(shop, module=module)) == one
    assert torch.equal(torch.get_rng_state(), state), "somebody else's random numbers moved"


def test_a_budget_of_nothing_tries_nothing(shop):
    advice = asked(shop, budget=0)
    for choice in ("last-block", "full", "start-again"):
        assert advice.option(choice).trial is None
        assert "not tried" in advice.option(choice).why
        assert advice.option(choice).gain is not None


def test_a_budget_pays_for_what_it_says(shop):
    """The work is known before, and the larger budget never tries less."""
    cost = probing.multiply_adds(growing(net(2)), (3, SIDE, SIDE))
    for passes, folds in ((100, None), (600, 1), (1_000, 2), (20_000, 5)):
        advice = asked(shop, budget=passes * cost / attempts.NOMINAL / 60)
        trial = advice.option("full").trial
        if folds is None:
            assert trial is None
            assert any("budget" in each for each in advice.notes)
        else:
            assert f"in {folds} of 5 folds" in advice.option("full").why


def test_progress_only_goes_forward_and_ends_within_the_total(shop):
    seen = []
    asked(shop, progress=lambda done, total: seen.append((done, total)))
    done = [each for each, _ in seen]
    assert done == sorted(done)
    assert len({total for _, total in seen}) == 1
    assert done[-1] <= seen[-1][1]


def test_it_can_be_stopped_at_any_time(shop):
    before = on_disk(shop)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asked(shop, progress=stop)
    assert on_disk(shop) == before
    assert asked(shop, budget=0).images == 16


def test_a_network_of_ones_own_is_needed_to_try(shop):
    advice = shop.advise(budget=1)
    assert advice.option("full").gain is None
    assert "module=" in advice.option("full").why


def test_many_pictures_that_do_not_separate_are_tried_from_the_beginning(tmp_path):
    with taught(tmp_path / "many", each=60) as many:
        advice = asked(many, budget=1.0)
        if advice.accuracy < 0.7:
            assert advice.option("start-again").trial is not None
        else:
            pytest.skip("this network of random weights tells them apart")


def test_a_machine_that_is_too_slow_is_told(shop, monkeypatch):
    monkeypatch.setattr(attempts, "_PATIENCE", 0.0)
    advice = asked(shop)
    assert advice.option("full").trial is None
    assert any("slower than budgets are counted for" in each for each in advice.notes)


# -- the last block apart ------------------------------------------------------------------------


def test_what_is_behind_the_last_block_answers_as_the_whole(shop):
    model, data = start(), pictures("abc", each=5)
    rest = probing.remains(model, data, RECIPE, versions=2)
    assert len(rest.kept) == 3 * len(data)
    whole = probing.features(model, data.pictures, RECIPE.views)
    np.testing.assert_allclose(rest.frozen(), whole, rtol=2e-3, atol=2e-3 * np.abs(whole).max())
    # The versions are changed pictures, and no two alike.
    rest = probing.remains(model, data, replace(RECIPE, augment=train.Augment(area=0.3)), 2)
    plain, one, two = rest.kept.float().chunk(3)
    assert not torch.equal(plain, one)
    assert not torch.equal(one, two)


@pytest.mark.parametrize("norm", [False, True])
def test_training_it_apart_is_training_it_in_its_place(norm):
    model, data = start(norm=norm), pictures("abc", each=8)
    rows = [i for i in range(len(data)) if i % 4]
    apart = probing.remains(model, data, RECIPE, versions=0).trained(rows, RECIPE)
    plan = Plan.preset("last-block", batchnorm="frozen")
    whole = probing.trained(model, data, rows, plan, RECIPE)
    still = probing.features(model, data.pictures, RECIPE.views)
    moved = np.abs(whole - still).max()
    assert moved > 0
    assert np.abs(apart - whole).max() < 0.02 * moved + 2e-3 * np.abs(whole).max()


def test_the_model_that_is_given_stays_as_it_is():
    model, data = start(), pictures("abc", each=5)
    twin = model.copy()
    rest = probing.remains(model, data, RECIPE)
    rest.trained(range(10), RECIPE)
    assert equal(model, twin)


def test_a_way_around_the_last_block_is_found():
    nn = torch.nn

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
            self.head = nn.Linear(6, 2)

        def forward(self, x):
            x = self.first(x)
            return self.head((x + self.last(x)).mean((2, 3)))

    model = growing(Around()).grown(["a", "b"])
    assert probing.remains(model, pictures("ab", each=4), RECIPE) is None


def test_work_is_that_of_convolutions_and_linear_layers():
    model = start()
    # 3×3 of 3 to 6 maps on 8×8, of 6 to 8 on 4×4, 8 to 3 numbers.
    wanted = 9 * 3 * 6 * 64 + 9 * 6 * 8 * 16 + 8 * 3
    assert probing.multiply_adds(model, (3, 8, 8)) == wanted
    names = [each.name for each in probing.parts(model)]
    assert names[-1] == model.head


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:vit_tiny_patch16_224"])
@pytest.mark.slow
def test_networks_of_the_field_come_apart(name):
    pytest.importorskip("timm")
    network = train.build(name)
    model = growing(network).grown(["a", "b"])
    data = pictures("ab", each=3, side=network.input_size[1])
    rest = probing.remains(model, data, RECIPE, versions=0)
    whole = probing.features(model, data.pictures, RECIPE.views)
    np.testing.assert_allclose(rest.frozen(), whole, rtol=5e-3, atol=5e-3 * np.abs(whole).max())
