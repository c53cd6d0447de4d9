"""`retain adapt` as it is typed: every option arrives as what it says."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import retain
from retain.faces.cli.app import app
from retain.train import (
    Augment,
    Averaging,
    Budget,
    Memory,
    Plan,
    Rule,
    methods,
    schedules,
    transfer,
)

PLAN, RECIPE = Plan(batchnorm="frozen"), transfer()
FROZEN, TUNED, ANEW = (
    Rule("conv1", "frozen"), Rule("layer4*", "fine-tuned"), Rule("layer4.1", "re-initialised")
)  # fmt: skip


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    path = tmp_path_factory.mktemp("command") / "shop"
    retain.create(path).close()
    return path


@pytest.fixture
def arrived(empty, monkeypatch):
    """What `Classifier.adapt` is called with by a command."""

    def given(*words):
        calls = []

        def adapt(_, plan, **options):
            options["progress"] = callable(options["progress"])
            calls.append({"plan": plan, **options})
            raise retain.BadOption("as far as this test goes")

        monkeypatch.setattr(retain.Classifier, "adapt", adapt)
        told = CliRunner().invoke(app, ["adapt", str(empty), *words])
        assert "as far as this test goes" in told.stderr, told.stderr
        (call,) = calls
        return call

    return given


@pytest.fixture
def refused(empty, monkeypatch):
    """What a command that cannot be meant is answered, before anything is done."""

    def said(*words):
        monkeypatch.setattr(retain.Classifier, "adapt", lambda *_, **__: pytest.fail("it was done"))
        told = CliRunner().invoke(app, ["adapt", str(empty), *words])
        assert told.exit_code == 2, told.output
        assert "unforeseen" not in told.stderr
        return " ".join(told.stderr.split())

    return said


def test_without_options_it_is_the_usual_plan_and_recipe(arrived):
    assert arrived() == {
        "plan": PLAN, "recipe": RECIPE, "size": None, "held_out": 0.1, "method": None,
        "memory": None, "force": False, "dry_run": False, "board": None, "progress": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        *(([f"--preset={name}"], {"preset": name}) for name in retain.train.PRESETS),
        (["--last=2"], {"last": 2}),
        (["--copy-first=3"], {"copy_first": 3}),
        (["--freeze=conv1"], {"rules": (FROZEN,)}),
        (["--tune=layer4*"], {"rules": (TUNED,)}),
        (["--reinit=layer4.1"], {"rules": (ANEW,)}),
        (["--reinit=layer4.1", "--tune=layer4*", "--freeze=conv1"],
         {"rules": (FROZEN, TUNED, ANEW)}),
        (["--freeze=conv1", "--freeze=bn1"], {"rules": (FROZEN, Rule("bn1", "frozen"))}),
        (["--layer-decay=0.7"], {"layer_decay": 0.7}),
        (["--head-rate=10"], {"head_rate": 10}),
        (["--batchnorm=trained"], {"batchnorm": "trained"}),
        (["--batchnorm=frozen"], {}),
        (["--recipe=lora=4"], {"lora": 4}),
        (["--recipe=shrink=0.5"], {"shrink": 0.5}),
        (["--recipe=body-rate=0.1"], {"rate": 0.1}),
        (["--recipe=copied=fine-tuned", "--copy-first=2"],
         {"copied": "fine-tuned", "copy_first": 2}),
        (["--recipe=rules=conv1:frozen,bn1:0.5"], {"rules": (FROZEN, Rule("bn1", rate=0.5))}),
    ],
)  # fmt: skip
def test_what_is_said_of_the_plan_arrives(arrived, words, changes):
    preset = changes.get("preset", "full")
    wanted = {name: value for name, value in changes.items() if name != "preset"}
    call = arrived(*words)
    assert call["plan"] == Plan.preset(preset, **{"batchnorm": "frozen", **wanted})
    assert call["recipe"] == RECIPE


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--epochs=3"], {"epochs": 3}),
        (["--rate=0.5"], {"rate": 0.5}),
        (["--schedule=one-cycle"], {}),
        (["--schedule=constant"], {"schedule": schedules.Constant()}),
        (["--schedule=cosine"], {"schedule": schedules.Cosine()}),
        (["--schedule=exponential"], {"schedule": schedules.Exponential()}),
        (["--schedule=step"], {"schedule": schedules.Steps()}),
        (["--schedule=step", "--recipe=schedule_factor=0.5"],
         {"schedule": schedules.Steps(factor=0.5)}),
        (["--recipe=warm-up=2"], {"schedule": schedules.WarmUp(schedules.OneCycle(), 2)}),
        (["--optimiser=adam"], {"optimiser": "adam"}),
        (["--batch=4"], {"batch": 4}),
        (["--seed=7"], {"seed": 7}),
        (["--recipe=mixup=0.2", "--recipe=clip=none", "--recipe=averaging=ema"],
         {"augment": replace(RECIPE.augment, mixup=0.2), "clip": None,
          "averaging": Averaging("ema")}),
        (["--recipe=operations=2"], {"augment": replace(RECIPE.augment, operations=2)}),
        (["--recipe=flip=no", "--recipe=area=1"], {"augment": Augment()}),
        (["--recipe=sampling=balanced"], {"sampling": "balanced"}),
        (["--recipe=patience=3", "--recipe=watch=accuracy"], {"patience": 3, "watch": "accuracy"}),
        (["--recipe=precision=bf16"], {"precision": "bf16"}),
        (["--recipe=accumulate=2"], {"accumulate": 2}),
        (["--recipe=weight-decay=0"], {"weight_decay": 0}),
        (["--recipe=smoothing=0"], {"smoothing": 0}),
    ],
)  # fmt: skip
def test_what_is_said_of_the_recipe_arrives(arrived, words, changes):
    call = arrived(*words)
    assert call["recipe"] == replace(RECIPE, **changes)
    assert call["plan"] == PLAN


@pytest.mark.parametrize(
    ("words", "name", "wanted"),
    [
        (["--size=96"], "size", 96),
        (["--held-out=0.3"], "held_out", 0.3),
        (["--force"], "force", True),
        (["--dry-run"], "dry_run", True),
        (["--method=lwf"], "method", methods.make("lwf")),
        (["--new-only"], "method", methods.make("finetuning")),
        (["--new-only", "--method=finetuning"], "method", methods.make("finetuning")),
        (["--method=lwf", "--option=exemplars=no"], "method", methods.make("lwf")),
        (["--method=lwf", "--option=warm-up=2", "--option=temperature=3"], "method",
         methods.make("lwf", warm_up=2, temperature=3)),
        (["--method=ewc", "--option=labels=true"], "method", methods.make("ewc", labels="true")),
        (["--method=icarl", "--exemplars=500"], "memory", Memory(Budget(total=500))),
        (["--method=icarl", "--per-class=5"], "memory", Memory(Budget(per_class=5))),
        (["--method=icarl", "--choice=random"], "memory", Memory(choice="random")),
        (["--method=icarl", "--exemplars=9", "--choice=entropy"], "memory",
         Memory(Budget(total=9), "entropy")),
    ],
)  # fmt: skip
def test_what_is_said_of_the_rest_arrives(arrived, words, name, wanted):
    assert arrived(*words)[name] == wanted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe=mixupp=1"], "no recipe has 'mixupp'; there are epochs, batch, accumulate"),
        (["--recipe=mixup"], "'mixup' is no option; write it as --recipe name=value"),
        (["--recipe=mixup=x"], "mixup is 'x'; give a number"),
        (["--recipe=mixup=1", "--recipe=mixup=2"], "--recipe mixup was given twice"),
        (["--recipe=epochs=3", "--epochs=3"], "--epochs and --recipe epochs say the same thing"),
        (["--recipe=head-rate=3", "--head-rate=3"], "--head-rate and --recipe head_rate say the"),
        (["--recipe=schedule=step", "--schedule=step"], "--schedule and --recipe schedule say"),
        (["--recipe=rules=a:frozen", "--tune=a"], "--freeze, --tune or --reinit and --recipe"),
        (["--recipe=seed=0", "--seed=0"], "--seed and --recipe seed say the same thing"),
        (["--recipe=batchnorm=frozen", "--batchnorm=frozen"], "say the same thing"),
        (["--copy-first=2", "--last=1"], "last=1 would count for nothing"),
        (["--copy-first=2", "--preset=head"], "body=frozen would count for nothing"),
        (["--copy-first=2", "--preset=last-block"], "last=1 would count for nothing"),
        (["--copy-first=2", "--preset=lora"], "lora=8 would count for nothing"),
        (["--method=lwf", "--option=temperature=hot"], "temperature is 'hot'; give a number"),
        (["--method=lwf", "--option=exemplars=some"], "exemplars is 'some'; give true or false"),
        (["--method=dmc", "--option=auxiliary=x"], "auxiliary cannot be given as text"),
        (["--method=lwf", "--option=heat=3"], "no option 'heat'; it has temperature"),
        (["--method=lwf", "--recipe=smoothing=0.1"], "smoothing is for the training without a"),
        (["--new-only", "--recipe=smoothing=0.1"], "smoothing is for the training without a"),
        (["--option=heat=3"], "are for a method; give --method too"),
        (["--exemplars=3"], "are for a method; give --method too"),
        (["--new-only", "--method=lwf"], "--method lwf another; choose"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_before_anything_is_done(refused, words, said):
    assert said in refused(*words)


def test_the_table_is_asked_for_with_all_that_adapt_would_get(empty, monkeypatch):
    calls = []

    def layers(_, plan, **options):
        calls.append({"plan": plan, **options})
        raise retain.BadOption("enough")

    monkeypatch.setattr(retain.Classifier, "layers", layers)
    words = ["--plan", "--last=2", "--size=96", "--epochs=3", "--method=lwf"]
    CliRunner().invoke(app, ["adapt", str(empty), *words])
    (call,) = calls
    assert call == {
        "plan": replace(PLAN, last=2), "recipe": replace(RECIPE, epochs=3), "size": 96,
        "method": methods.make("lwf"),
    }  # fmt: skip


# -- on a network --------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path):
    pytest.importorskip("timm")
    from tests.train.test_adapt import taught

    taught(tmp_path / "shop").close()
    return tmp_path / "shop"


def invoked(shop, *words):
    told = CliRunner().invoke(app, ["adapt", str(shop), *words])
    assert told.exit_code == 0, told.output
    return told


def test_a_short_run(shop):
    words = ["--last=1", "--epochs=1", "--batch=8", "--size=64", "--recipe=mixup=0.2"]
    words += ["--recipe=averaging=ema", "--recipe=sampling=balanced", "--recipe=operations=1"]
    told = json.loads(invoked(shop, *words, "--force", "--json").stdout)
    assert (told["kind"], told["event"]) == ("adapt", 2)
    with retain.open(shop) as made:
        detail = made._session.store.detail(2)
        assert detail["plan"] == repr(replace(PLAN, last=1))
        assert detail["epochs"] == 1
        assert made.verify(deep=True).ok


def test_the_table_says_from_which_epoch_a_block_learns(shop):
    """It was the one of `full`."""
    plain = invoked(shop, "--plan", "--json").stdout
    words = ["--plan", "--preset=gradual-unfreezing", "--epochs=6"]
    rows = json.loads(invoked(shop, *words, "--json").stdout)
    assert {row["since"] for row in json.loads(plain)} == {1}
    assert {row["since"] for row in rows} == {1, 2, 3, 4}
    assert [row["since"] for row in rows] == sorted((row["since"] for row in rows), reverse=True)
    assert rows[-1]["since"] == 1
    assert "from epoch" not in invoked(shop, "--plan").stdout
    assert "from epoch" in invoked(shop, *words).stdout


def test_the_table_says_what_the_method_has_no_use_for(shop):
    told = invoked(shop, "--plan", "--method=gdumb", "--last=2", "--freeze=conv_stem")
    wanted = "gdumb begins with fresh weights here: of the plan, last and rules are not used"
    assert wanted in " ".join(told.stderr.split())
    assert "not used" not in invoked(shop, "--plan", "--method=gdumb").stderr
    assert "not used" not in invoked(shop, "--plan", "--method=lwf", "--last=2").stderr
