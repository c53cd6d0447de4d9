"""`adapt`: from remembered pictures to another extractor and back, on real networks made small."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

import retain  # noqa: E402
from retain import train, training  # noqa: E402
from retain.train import Plan, Rule, transfer  # noqa: E402
from tests.train.kills import assert_resumes, killed  # noqa: E402
from tests.verbs.adopted import NAMES, adopt, pictures  # noqa: E402

SIDE = 64
RNG = np.random.default_rng(5)


def photo(kind, seed):
    """A picture of stripes or of blobs, of any colour: to be told apart by texture."""
    rng = np.random.default_rng([seed, kind])
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    wave = np.sin((8 + 4 * kind) * (x if kind else y) + rng.uniform(0, 6))
    colour = rng.integers(60, 190, 3)
    noise = rng.normal(0, 12, (SIDE, SIDE, 3))
    return np.clip(colour + 50 * wave[..., None] + noise, 0, 255).astype(np.uint8)


LESSON = [photo(kind, seed) for kind in (0, 1) for seed in range(10)]
LABELS = [label for label in ("rows", "columns") for _ in range(10)]
ASKED = [photo(kind, seed) for kind in (0, 1) for seed in range(50, 54)]
SHORT = transfer(epochs=1, batch=8, rate=0.002)
LATE = Plan(last=2, batchnorm="frozen")


def taught(path, **options):
    shop = retain.create(path, **options)
    shop.learn(LESSON, LABELS)
    return shop


@pytest.fixture
def shop(tmp_path):
    with taught(tmp_path / "shop") as made:
        yield made


def said(shop):
    return [(p.label, p.probability) for p in shop.predict(ASKED)]


def adapted(shop, **options):
    given = {"recipe": SHORT, "size": SIDE, "force": True, **options}
    return shop.adapt(given.pop("plan", LATE), **given)


def test_another_extractor_and_back(shop):
    before = said(shop)
    update = adapted(shop)
    assert update.kind == "adapt"
    assert update.event == 2
    era = shop._session.store.era
    assert era.number == 2
    assert [p.label for p in shop.predict(LESSON)] == LABELS
    after = said(shop)
    assert after != before
    back = shop.undo()
    assert said(shop) == before
    shop.undo(back.event)
    assert said(shop) == after
    assert shop.verify(deep=True).ok


def test_it_smooths_as_the_recipe_says(shop):
    """The network is another without; by 0.1 if nothing is said."""
    found = []
    for recipe in (SHORT, replace(SHORT, smoothing=0.1), replace(SHORT, smoothing=0.0)):
        adapted(shop, recipe=recipe)
        found.append((shop._session.store.extractor_dir / train.FILE).read_bytes())
        shop.undo()
    assert found[0] == found[1] != found[2]


def test_it_is_the_extractor_that_a_new_classifier_would_be_made_with(shop, tmp_path):
    adapted(shop)
    folder = shop._session.store.extractor_dir
    with taught(tmp_path / "anew", extractor=str(folder)) as anew:
        assert said(anew) == said(shop)


def test_the_same_training_gives_the_same_extractor_whatever_was_trained_before(shop, tmp_path):
    adapted(shop)
    first = shop._session.store.era.extractor
    adapted(shop, recipe=transfer(epochs=1, batch=8, rate=0.004))
    assert shop._session.store.era.extractor != first
    adapted(shop)
    assert shop._session.store.era.extractor == first


def test_a_dry_run_trains_and_changes_nothing(shop):
    before = said(shop)
    update = adapted(shop, dry_run=True)
    assert update.event is None
    assert update.verdict is not None
    assert said(shop) == before
    assert len(shop.log()) == 1


def test_only_pictures_that_were_held_out_judge(shop):
    update = adapted(shop, held_out=0.2)
    assert update.verdict.judged == 4
    made = training.course(shop._session, plan=LATE, recipe=SHORT, size=SIDE, held_out=0.2)
    assert (len(made.learned), len(made.held_out)) == (16, 4)
    assert not {s.image for s in made.learned} & {s.image for s in made.held_out}


def test_what_ruins_the_features_is_refused_and_forced_without_training_again(shop, monkeypatch):
    before = said(shop)
    wild = transfer(epochs=1, batch=8, rate=3.0, clip=None)
    ruin = {"plan": Plan.preset("from-scratch", batchnorm="frozen"), "recipe": wild}
    shop.gate(regressions=0.0, class_regressions=0.0, calibration=0.0)
    try:
        adapted(shop, held_out=0.3, force=False, **ruin)
    except (retain.GateRefused, retain.Refused) as error:
        refused = error
    else:
        pytest.skip("even that was no worse for six pictures")
    assert said(shop) == before
    assert len(shop.log()) == 2  # the lesson and the budgets
    if isinstance(refused, retain.GateRefused):
        steps = []
        take = train.loop._Run._take
        monkeypatch.setattr(train.loop._Run, "_take", lambda *a: steps.append(1) or take(*a))
        assert adapted(shop, held_out=0.3, **ruin).event is not None
        assert not steps


def test_what_it_learned_meanwhile_is_seen_by_the_new_extractor(shop, monkeypatch):
    fit = train.fit

    def meanwhile(*given, **options):
        with retain.open(shop.path) as other:
            other.learn([photo(0, 99), photo(1, 99)], ["rows", "columns"])
        return fit(*given, **options)

    monkeypatch.setattr(train, "fit", meanwhile)
    update = adapted(shop)
    assert update.event == 3
    assert len(shop.samples()) == 22
    assert shop.verify(deep=True).ok


def test_forgetting_what_it_was_trained_with_is_pending(shop):
    adapted(shop, held_out=0.0)
    receipt = shop.forget([shop.samples()[0].image])
    assert receipt.level == "pending"
    assert receipt.pending == (2,)
    assert not (shop.path / "versions" / "training").exists()


@pytest.mark.parametrize("method", [None, "finetuning"])
def test_what_is_forgotten_meanwhile_ends_the_training_and_is_removed(shop, monkeypatch, method):
    """The receipt said "exact", and the weights were saved again behind it."""
    save, saved = train.checkpoints.Checkpoint.save, []
    folder = shop.path / "versions" / "training"

    def first(checkpoint, *given):
        save(checkpoint, *given)
        saved.append(any(folder.rglob("*.safetensors")))
        if len(saved) == 1:
            with retain.open(shop.path) as other:
                assert other.forget([other.samples()[0].image], force=True).level == "exact"

    monkeypatch.setattr(train.checkpoints.Checkpoint, "save", first)
    monkeypatch.setattr(train.checkpoints.Checkpoint, "due", lambda self: True)
    with pytest.raises(retain.Refused, match="1 of the 20 pictures that"):
        adapted(shop, held_out=0.0, method=method)
    assert saved == [True]
    assert not folder.exists()
    assert [each.kind for each in shop.log()] == ["learn", "forget"]


@pytest.mark.parametrize("method", [None, "lwf"])
def test_patience_watches_pictures_that_neither_learn_nor_judge(shop, monkeypatch, method):
    fit, seen = train.loop.fit, []

    def watched(model, data, *given, **options):
        seen.append((len(data), len(options["validation"])))
        return fit(model, data, *given, **options)

    monkeypatch.setattr(train, "fit", watched)
    monkeypatch.setattr(train.lessons, "fit", watched)
    recipe = transfer(epochs=2, batch=8, rate=0.002, patience=1)
    update = adapted(shop, recipe=recipe, held_out=0.2, method=method)
    assert update.event is not None
    assert seen == [(14, 2)]
    assert update.verdict.judged == 4


def test_the_export_answers_alike(shop, tmp_path):
    adapted(shop)
    made = shop.export(tmp_path / "one.onnx")
    assert made.worst_difference < 1e-4
    onnxruntime.InferenceSession(made.path)


def test_the_plan_says_what_learns(shop):
    rows = shop.layers(Plan(body="frozen", rules=(Rule("blocks.6*", "fine-tuned"),)))
    states = {row.block: row.state for row in rows}
    assert states["blocks.6"] == "fine-tuned"
    assert states["blocks.5.0"] == "frozen"
    assert rows[-1].learning == 2 * (1280 + 1)
    assert sum(row.parameters for row in rows) > 3_000_000


def test_an_adopted_one_needs_pictures_of_every_class(tmp_path):
    with adopt(tmp_path, "theirs") as theirs:
        theirs.learn(pictures(3, seed=1), NAMES[0])
        with pytest.raises(retain.BadOption, match="nothing labelled is remembered of"):
            theirs.adapt()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"held_out": 1.0}, "give a share"),
        ({"plan": "everything"}, "no plan is called"),
        ({"plan": Plan(last=99)}, "blocks before its head"),
        ({"module": torch.nn.Linear(2, 2)}, "leave module= out"),
        # Found when a MobileNetV2 had been trained for minutes, to be what it was before.
        ({"plan": "feature-extraction"}, "what learning does already"),
        ({"plan": "head"}, "what learning does already"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(shop, options, match):
    given = {"recipe": SHORT, **options}
    with pytest.raises(retain.BadOption, match=match):
        shop.adapt(given.pop("plan", LATE), **given)
    assert len(shop.log()) == 1


def test_there_must_be_something_to_train_with(tmp_path):
    with retain.create(tmp_path / "features", memory="features") as shop:
        shop.learn(LESSON[:2] + LESSON[-2:], ["a", "a", "b", "b"])
        with pytest.raises(retain.BadOption, match="keeps features and no pictures"):
            shop.adapt()
    with retain.create(tmp_path / "one") as shop:
        shop.learn(LESSON[:3], "a")
        with pytest.raises(retain.BadOption, match="two to tell apart"):
            shop.adapt()
    with retain.create(tmp_path / "vectors", extractor="vectors:4") as shop:
        shop.learn(RNG.normal(size=(4, 4)).astype(np.float32), ["a", "a", "b", "b"])
        with pytest.raises(retain.BadOption, match="takes vectors"):
            shop.adapt()


SCRIPT = """
from tests.train.test_adapt import LATE, LONG, SIDE
with retain.open(sys.argv[1]) as shop:
    print("begun", flush=True)
    shop.adapt(LATE, recipe=LONG, size=SIDE, force=True)
"""

LONG = transfer(epochs=6, batch=4, rate=0.002)


def test_killed_at_any_moment_it_goes_on_and_comes_to_the_same_extractor(tmp_path, steps):
    with taught(tmp_path / "calm") as calm:
        calm.adapt(LATE, recipe=LONG, size=SIDE, force=True)
        wanted, answers = calm._session.store.era.extractor, said(calm)
    whole, steps[:] = list(steps), []
    with taught(tmp_path / "killed") as shop:
        before = said(shop)
    # Before it trains, twice after some steps of its own, and about when the network is trained.
    least = [0, *RNG.integers(2, 8, 2)]
    moments = [lambda found, many=many: len(found) >= many for many in least]
    moments.append(lambda found: whole[-1] in found)
    waits, children = RNG.uniform([0.0, 0.0, 0.0, 0.3], [1.0, 0.1, 0.1, 2.0]), []
    for enough, wait in zip(moments, waits, strict=True):
        children.append(killed(SCRIPT, tmp_path / "killed", enough, wait))
        with retain.open(tmp_path / "killed") as shop:
            assert shop.verify().ok
            assert said(shop) in (before, answers)
    with retain.open(tmp_path / "killed") as shop:
        if shop._session.store.era.number == 0:
            shop.adapt(LATE, recipe=LONG, size=SIDE, force=True)
        assert shop._session.store.era.extractor == wanted
        assert said(shop) == answers
    assert_resumes(whole, children, steps)
