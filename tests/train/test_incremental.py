"""`adapt` by a class-incremental method: lessons from the journal, on a real network made small."""

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

import retain  # noqa: E402
from retain import train, training  # noqa: E402
from retain.bench import methods as bench_methods  # noqa: E402
from retain.carried import alike  # noqa: E402
from retain.faces.cli.app import app  # noqa: E402
from retain.remembered import prepared  # noqa: E402
from retain.train import Budget, Memory, methods, transfer  # noqa: E402
from tests.train.kills import assert_resumes, killed  # noqa: E402
from tests.train.test_adapt import (  # noqa: E402
    ASKED,
    LABELS,
    LATE,
    LESSON,
    SIDE,
    photo,
    said,
    taught,
)

SHORT = transfer(epochs=1, batch=8, rate=0.002)
FEW = Memory(Budget(per_class=3))
NEW = [photo(kind, seed) for kind in (2, 3) for seed in range(6)]
NAMED = [name for name in ("checks", "dots") for _ in range(6)]


@pytest.fixture
def shop(tmp_path):
    with taught(tmp_path / "shop") as made:
        yield made


def lesson(shop, method, **options):
    given = {"recipe": SHORT, "size": SIDE, "force": True, "memory": FEW, **options}
    return shop.adapt(LATE, method=method, **given)


def course(shop, method, **options):
    given = {"plan": LATE, "recipe": SHORT, "memory": FEW, **options}
    return training.course(shop._session, method=method, **given)


def detail(shop):
    return shop._session.store.detail(shop._session.store.era.number)


def weights(shop):
    return (shop._session.store.extractor_dir / train.FILE).read_bytes()


def test_the_first_lesson_is_all_and_the_next_is_what_came_since(shop):
    first = lesson(shop, "lwf")
    assert first.summary.startswith("lesson 1 by lwf (the first lesson of lwf is everything")
    shop.learn(NEW, NAMED)
    made = course(shop, "lwf")
    assert {s.label for s in (*made.learned, *made.held_out)} == {"checks", "dots"}
    assert len(made.learned) + len(made.held_out) == 12
    assert made.lesson.taught.model.classes == ("columns", "rows")
    assert made.lesson.taught.lessons == 1
    second = lesson(shop, "lwf")
    assert second.summary.startswith("lesson 2 by lwf: 10 pictures are new, 2 of 4 classes too, 0 ")
    assert detail(shop)["method"] == "lwf"
    assert shop.log()[-1].summary == "put another extractor in place by lwf"
    assert shop.verify(deep=True).ok
    assert len(shop.samples()) == 32
    # It knows what both lessons trained it with, and what judged in the first still judges.
    seen, exemplars = shop._session.store.seen(second.event)
    assert len(seen) == 18 + 10
    assert exemplars == ()
    assert second.verdict.judged == 4


def test_a_method_that_keeps_nothing_sees_no_old_picture(shop, monkeypatch):
    lesson(shop, "finetuning")
    shop.learn(NEW, NAMED)
    read, blob = set(), type(shop._session.store).blob
    monkeypatch.setattr(
        type(shop._session.store), "blob", lambda me, image: read.add(image) or blob(me, image)
    )
    made = course(shop, "finetuning")
    training.incremental.run(
        made.lesson,
        made.learned,
        made.recipe,
        made.plan,
        lambda samples: prepared(shop._session, samples, made.rule),
        folder=shop.path / "versions" / "training" / "apart",
        progress=None,
    )
    assert read == {sample.image for sample in made.learned}


@pytest.mark.parametrize("name", ["bic", "der++"])
def test_exemplars_are_kept_within_the_budget_and_used(shop, name):
    lesson(shop, name)
    seen, exemplars = shop._session.store.seen(2)
    labels = {sample.image: sample.label for sample in shop.samples()}
    assert len(exemplars) == 6
    assert set(exemplars) <= seen
    assert sorted(labels[image] for image in exemplars) == ["columns"] * 3 + ["rows"] * 3
    shop.learn(NEW, NAMED)
    made = course(shop, name)
    assert [sample.image for sample in made.lesson.kept] == list(exemplars)
    lesson(shop, name)
    assert detail(shop)["exemplars"] == 6
    _, exemplars = shop._session.store.seen(4)
    assert len(exemplars) == 12
    assert shop.verify().ok


def test_methods_that_may_be_given_exemplars_are(shop):
    """The old mistake: what a method keeps by default was asked, not what it wants."""
    method = methods.make("lwf", exemplars=True)
    lesson(shop, method)
    _, exemplars = shop._session.store.seen(2)
    assert len(exemplars) == 6
    shop.learn(NEW, NAMED)
    assert [sample.image for sample in course(shop, method).lesson.kept] == list(exemplars)
    assert course(shop, "lwf").lesson.kept is None
    lesson(shop, method)
    assert detail(shop)["exemplars"] == 6
    assert detail(shop)["kept"] == 12


@pytest.mark.parametrize(("option", "told"), [(True, "exemplars"), (False, "carries")])
def test_what_is_kept_is_told_with_its_options(tmp_path, option, told):
    seat = bench_methods.make("lwf", 0, 0, tmp_path, exemplars=option, network="resnet20")
    assert told in seat.keeps


def test_with_another_method_or_budget_exemplars_are_chosen_from_what_it_has_seen(shop):
    lesson(shop, "lwf")
    shop.learn(NEW, NAMED)
    made = course(shop, "icarl")
    assert made.lesson.kept is None
    seen, _ = shop._session.store.seen(2)
    assert {sample.image for sample in made.lesson.old} == set(seen)
    lesson(shop, "icarl")
    assert detail(shop)["exemplars"] == 6
    shop.learn([photo(4, 1), photo(4, 2)], "waves")
    assert course(shop, "icarl", memory=Memory(Budget(total=3))).lesson.kept is None
    assert course(shop, "icarl").lesson.kept is not None


def test_joint_learns_everything_again(shop):
    lesson(shop, "joint")
    shop.learn(NEW, NAMED)
    lesson(shop, "joint")
    assert (detail(shop)["pictures"], detail(shop)["exemplars"]) == (10, 18)
    _, exemplars = shop._session.store.seen(4)
    assert len(exemplars) == 28


def test_what_a_method_carries_is_there_again(shop):
    lesson(shop, methods.make("ewc", strength=7.0))
    shop.learn(NEW, NAMED)
    made = course(shop, methods.make("ewc", strength=7.0))
    assert made.lesson.taught.carried
    assert all(torch.isfinite(each).all() for each in made.lesson.taught.carried.values())
    assert not any("measured" in note for note in made.notes)
    # It was measured alike, however firmly it is held, and with pictures or without.
    for same in (methods.make("ewc", strength=8.0), methods.make("ewc", exemplars=True)):
        assert course(shop, same).lesson.taught.carried.keys() == made.lesson.taught.carried.keys()
    # Another's would be misread; and that nothing is held is said.
    for other in ("mas", methods.make("ewc", labels="true")):
        made = course(shop, other)
        assert not made.lesson.taught.carried
        assert any("what was measured for EWC(strength=7.0, " in note for note in made.notes)
        assert any("2 classes that the network knows already" in note for note in made.notes)


@pytest.mark.parametrize("told", ["", "EWC", "EWC(strength=", "MAS()", "EWC(labels=open('x'))"])
def test_what_another_text_carried_is_not_taken_for_its_own(told):
    assert not alike(methods.make("ewc"), told)


def test_it_is_what_the_lessons_give_without_a_store(shop):
    """The twin: `teach`, twice, on the same pictures."""
    lesson(shop, "lwf", held_out=0.0)
    shop.learn(NEW, NAMED)
    made = course(shop, "lwf", held_out=0.0)
    lesson(shop, "lwf", held_out=0.0)
    first = training.course(
        shop._session, plan=LATE, recipe=SHORT, size=SIDE, held_out=0.0, memory=FEW
    )
    old = [each for each in first.learned if each.label in ("rows", "columns")]
    recipe, rule = made.recipe, first.rule

    def data(samples):
        return prepared(shop._session, samples, rule)

    network, head = train.rebuilt_network(
        training.kept(
            shop._session.store.folder(first.era), shop._session.eyes_of(first.era).extractor
        ),
        None,
    )
    network, _ = train.resized(network, (SIDE, SIDE), (224, 224))
    state = train.Taught(train.growing(network, (), head=head))
    for samples in (old, made.learned):
        state = train.teach(methods.make("lwf"), state, data(samples), recipe, plan=LATE)
    again, _ = train.rebuilt_network(weights(shop), None)
    for name, tensor in state.model.plain().state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_undone_the_next_lesson_goes_on_from_the_one_before(shop):
    lesson(shop, "icarl")
    shop.learn(NEW, NAMED)
    second = lesson(shop, "icarl")
    answers, made = said(shop), weights(shop)
    shop.undo(second.event)
    assert course(shop, "icarl").lesson.taught.lessons == 1
    lesson(shop, "icarl")
    assert weights(shop) == made
    assert said(shop) == answers


def test_names_and_labels_may_change_between_lessons(shop):
    lesson(shop, "lwf")
    shop.rename("rows", "lines")
    moved = next(sample for sample in shop.samples() if sample.label == "columns")
    shop.learn([shop.image(moved.image)], "lines", force=True)
    shop.learn(NEW, NAMED)
    made = course(shop, "lwf", held_out=0.0)
    assert made.lesson.taught.model.classes == ("columns", "lines")
    assert len(made.learned) == 13
    assert moved.image in {sample.image for sample in made.learned}
    shop.merge("columns", "lines", force=True)
    classes = course(shop, "lwf").lesson.taught.model.classes
    assert ("lines" in classes, len(set(classes))) == (True, 2)  # a row each, one of them unused
    lesson(shop, "lwf")
    assert shop.verify(deep=True).ok


def test_a_forgotten_exemplar_leaves_no_trace_and_no_lesson_goes_on_from_it(shop):
    lesson(shop, "icarl")
    _, exemplars = shop._session.store.seen(2)
    shop.learn(NEW, NAMED)
    assert shop.forget(exemplars[0]).level == "pending"
    for file in shop.path.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert exemplars[0][7:].encode() not in data
            assert bytes.fromhex(exemplars[0][7:]) not in data
    assert shop._session.store.seen(2)[1] == exemplars[1:]
    with pytest.raises(retain.BadOption, match="adapt without a method first"):
        lesson(shop, "icarl")
    plain = shop.adapt(LATE, recipe=SHORT, size=SIDE, force=True)
    assert shop.purge().level == "rebuilt"
    assert shop.verify(deep=True).ok
    # From there lessons go on, and the head is known.
    shop.learn([photo(4, seed) for seed in range(3)], "waves")
    made = course(shop, "lwf")
    assert set(made.lesson.taught.model.classes) == {"rows", "columns", "checks", "dots"}
    assert made.era.number == plain.event


def test_logits_of_single_pictures_are_not_kept(shop):
    lesson(shop, "der++")
    shop.learn(NEW, NAMED)
    assert "logits" not in course(shop, "der++").lesson.taught.carried
    folder = shop._session.store.extractor_dir
    (file,) = folder.glob("lessons-*.safetensors")
    tensors, _ = train.keeping.unpacked(file.read_bytes(), file.name)
    assert not [name for name in tensors if name.startswith("carried.")]


def test_a_head_of_cosines(shop):
    lesson(shop, "lucir")
    shop.learn(NEW, NAMED)
    assert course(shop, "lucir").lesson.taught.model.kind == "cosine"
    lesson(shop, "lucir")
    assert shop.verify(deep=True).ok
    shop.learn([photo(4, seed) for seed in range(3)], "waves")
    assert course(shop, "lwf").lesson.taught.model.kind == "linear"


def test_an_adopted_one_needs_no_picture_of_its_old_classes(tmp_path):
    """Where nobody kept any, a method that distils can still let the network learn."""
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(1)
    network = timm.create_model("mobilenetv3_small_050", num_classes=3)
    save_file(network.state_dict(), tmp_path / "theirs.safetensors")
    with retain.adopt(
        tmp_path / "theirs",
        "timm:mobilenetv3_small_050",
        weights=tmp_path / "theirs.safetensors",
        size=SIDE,
        labels=["old", "older", "oldest"],
        preprocess="imagenet",
        reference=ASKED,
    ) as theirs:
        theirs.learn(LESSON, LABELS, force=True)
        frozen = train.Plan(batchnorm="frozen")
        with pytest.raises(retain.BadOption, match="by a method that distils"):
            theirs.adapt(frozen, recipe=SHORT)
        with pytest.raises(retain.BadOption, match="a head of cosines"):
            theirs.adapt(frozen, recipe=SHORT, method="lucir")
        theirs.adapt(frozen, recipe=SHORT, method="lwf", force=True)
        head = theirs._session.mind.head
        assert set(head.classes) == {"old", "older", "oldest", "rows", "columns"}
        assert theirs._session.store.start()[0] == ("old", "older", "oldest")
        assert theirs.verify(deep=True).ok
        theirs.undo()
        assert theirs.verify(deep=True).ok


def test_what_cannot_be_is_said_before_anything_is_trained(shop):
    with pytest.raises(retain.BadOption, match="no method"):
        lesson(shop, "magic")
    lesson(shop, "lwf")
    with pytest.raises(retain.BadOption, match="no lesson for lwf"):
        lesson(shop, "lwf")
    shop.learn(NEW, NAMED)
    with pytest.raises(retain.BadOption, match="in the first lesson only"):
        lesson(shop, "first-session")
    (file,) = shop._session.store.extractor_dir.glob("lessons-*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(retain.errors.Damaged, match="restore it from a copy"):
        lesson(shop, "lwf")


def test_the_recipe_of_adapt_is_no_method_of_it_and_says_so(shop, monkeypatch):
    monkeypatch.setattr(train.loop._Run, "go", lambda *_: pytest.fail("it was trained"))
    for number in range(2):
        with pytest.raises(retain.BadOption, match="that is what adapt without a method does"):
            lesson(shop, "joint-exact")
        if not number:
            monkeypatch.undo()
            lesson(shop, methods.make("joint-exact", begin="last"))
            shop.learn(NEW, NAMED)
    lesson(shop, methods.make("joint-exact", begin="last"))
    assert (detail(shop)["pictures"], detail(shop)["exemplars"]) == (10, 18)
    (file,) = shop._session.store.extractor_dir.glob("lessons-*.safetensors")
    tensors, _ = train.keeping.unpacked(file.read_bytes(), file.name)
    assert not [name for name in tensors if name.startswith("carried.")]


def test_what_cannot_change_the_extractor_is_said_before_anything_is_trained(shop, monkeypatch):
    """All of the training was done, to come to the extractor that was in force."""
    monkeypatch.setattr(train.loop._Run, "go", lambda *_: pytest.fail("it was trained"))
    for plan in ("head", "feature-extraction"):
        with pytest.raises(retain.BadOption, match="this plan trains the last layer alone"):
            shop.adapt(plan, method="lwf", recipe=SHORT)
    with pytest.raises(retain.BadOption, match="all that first-session would train"):
        shop.adapt(method=methods.make("first-session", plan="head"), recipe=SHORT)
    monkeypatch.undo()
    lesson(shop, "freezing")
    shop.learn(NEW, NAMED)
    monkeypatch.setattr(train.loop._Run, "go", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(retain.BadOption, match="all that freezing would train"):
        lesson(shop, "freezing")


def test_the_table_of_layers_is_that_of_the_method(shop):
    """It showed the plan alone: with freezing, layers that do not learn in its second lesson."""
    body = [row for row in shop.layers(method="freezing") if "batch" not in row.kind.lower()]
    assert {row.state for row in body} == {"fine-tuned"}
    half = methods.make("joint", shrink=0.5)
    assert {row.kept for row in shop.layers(method=half)} == {1.0}
    lesson(shop, half)
    shop.learn(NEW, NAMED)
    assert found(shop, method="freezing") == ({("frozen", 1.0)}, {("fine-tuned", 1.0)})
    body, head = found(shop, plan=LATE, method=half)
    assert (body, head) == ({("frozen", 1.0), ("fine-tuned", 0.5)}, {("fine-tuned", 1.0)})
    assert found(shop, plan=LATE, method="gdumb") == ({("re-initialised", 0.0)},) * 2
    told = CliRunner().invoke(
        app, ["adapt", str(shop.path), "--plan", "--method=joint", "--option=shrink=0.5"]
    )
    assert told.exit_code == 0, told.output
    assert "what is fine-tuned before the head begins with 50% of its weights" in told.output


def test_a_plan_that_the_method_has_no_use_for_is_told(shop):
    """It was dropped in silence."""
    first = lesson(shop, "gdumb")
    assert "gdumb begins with fresh weights here: of the plan, last is not used" in first.summary
    shop.learn(NEW, NAMED)
    for method, plan, told in (
        ("dmc", LATE, "dmc begins with fresh weights here: of the plan, last is not used"),
        ("dmc", train.Plan.preset("lora", head_rate=2), "head_rate and lora are not used"),
        ("freezing", LATE, "freezing trains the last layer alone here: of the plan, last is not"),
        (methods.make("gdumb", begin="given"), train.Plan(head="frozen"), "head is not used"),
    ):
        (note,) = (each for each in course(shop, method, plan=plan).notes if "of the plan" in each)
        assert told in note
    for method, plan in (
        ("lwf", LATE),
        ("gdumb", train.Plan(batchnorm="frozen")),
        ("gdumb", train.Plan.preset("from-scratch")),
        (methods.make("dmc", begin="old"), LATE),
        ("freezing", train.Plan(head_rate=2)),
    ):
        assert not any("of the plan" in each for each in course(shop, method, plan=plan).notes)
    rows = shop.layers(LATE, method="dmc")
    assert {row.state for row in rows} == {"re-initialised"}
    assert any("last is not used" in each for each in rows.notes)


def test_first_session_trains_what_its_option_says(shop):
    """It trained everything, whatever was said."""
    method = methods.make("first-session", plan="last-block")
    rows = shop.layers(method=method)
    assert [row.state for row in rows] == [row.state for row in shop.layers("last-block")]
    assert rows[0].state == "frozen"


def found(shop, **options):
    """What becomes of the layers before the head, and of those in it."""
    rows = shop.layers(**options)
    parts = [
        [row for row in rows if (row.block == rows[-1].block) == head] for head in (False, True)
    ]
    return tuple({(row.state, row.kept) for row in part} for part in parts)


SCRIPT = """
from tests.train.test_incremental import FEW, LATE, PHASES, SIDE
with retain.open(sys.argv[1]) as shop:
    print("begun", flush=True)
    shop.adapt(LATE, method="eeil", memory=FEW, recipe=PHASES, size=SIDE, force=True)
"""

PHASES = transfer(epochs=4, batch=4, rate=0.002)


def test_killed_in_any_phase_it_goes_on_and_comes_to_the_same_network(tmp_path, steps):
    for name in ("calm", "killed"):
        with taught(tmp_path / name) as made:
            lesson(made, "eeil", recipe=PHASES)
            made.learn(NEW, NAMED)
            before = said(made)
            if name == "calm":
                steps.clear()
                lesson(made, "eeil", recipe=PHASES)
                wanted, answers, which = weights(made), said(made), made._session.store.seen(4)
                whole = list(steps)
    steps.clear()
    assert len({phase for phase, _ in whole}) == 2
    # In the first phase, as soon as the second has begun, and in it.
    second = next(place for place, step in enumerate(whole) if step[0] != whole[0][0])
    moments = [
        lambda found: len(found) >= 3,
        lambda found: whole[second] in found,
        lambda found: len(found) >= 2,
    ]
    waits, children = np.random.default_rng(3).uniform(0.0, 0.05, 3), []
    for enough, wait in zip(moments, waits, strict=True):
        children.append(killed(SCRIPT, tmp_path / "killed", enough, wait))
        with retain.open(tmp_path / "killed") as shop:
            assert shop.verify().ok
            assert said(shop) in (before, answers)
    with retain.open(tmp_path / "killed") as shop:
        if shop._session.store.era.number == 2:
            lesson(shop, "eeil", recipe=PHASES)
        assert weights(shop) == wanted
        assert said(shop) == answers
        assert shop._session.store.seen(4) == which
    assert_resumes(whole, children, steps)
