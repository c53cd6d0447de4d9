"""One classifier, several extractors in turn: the laws, with ==."""

import shutil

import numpy as np
import pytest

import retain
from retain import adapting
from retain.errors import BadImage, BadOption, Damaged, GateRefused, Locked, ReadOnly
from retain.store.lock import exclusive
from tests.eras.small import (
    KINDS,
    adapt,
    answers,
    blind,
    files,
    images,
    laid,
    of_kind,
    shop,
    taught,
)
from tests.store.conftest import everything
from tests.verbs.adopted import NAMES, pictures
from tests.verbs.adopted import adopt as adopted_shop
from tests.verbs.conftest import fingerprint

A, B, C = files(1), files(2), files(3, 12)
ASKED = [*of_kind("ant", 4, seed=50), *of_kind("bee", 4, seed=51), *pictures(4, seed=52)]


@pytest.fixture
def mine(tmp_path):
    with shop(tmp_path / "mine", A) as made:
        yield made


@pytest.fixture
def twin(tmp_path):
    made = []

    def make(extractor):
        made.append(shop(tmp_path / f"twin{len(made)}", extractor))
        return made[-1]

    yield make
    for one in made:
        one.close()


# -- the state of an era -------------------------------------------------------------------------


@pytest.mark.parametrize("new", [B, C], ids=["same length", "longer"])
def test_it_is_a_classifier_made_with_the_new_extractor(mine, twin, new):
    other = twin(new)
    for each in (mine, other):
        taught(each, *KINDS)
        each.correct(pictures(1, seed=7)[0], "bee", force=True)
        each.correct(pictures(1, seed=8)[0], "ant", exception=True, force=True)
        each.rename("cat", "dog")
    update = adapt(mine, new, detail={"method": "by hand"})
    assert update.event == 7
    assert update.kind == "adapt"
    assert fingerprint(mine) == fingerprint(other)
    assert answers(mine, ASKED) == answers(other, ASKED)
    assert mine.status().dimension == other.status().dimension
    for each in (mine, other):
        each.learn(of_kind("ant", 5, seed=3), "ant", force=True)
        each.correct(pictures(1, seed=9)[0], "bee", force=True)
    assert fingerprint(mine) == fingerprint(other)
    assert mine.verify(deep=True).ok
    with retain.open(mine.path) as again:
        assert fingerprint(again) == fingerprint(other)
        assert answers(again, ASKED) == answers(other, ASKED)


def test_undone_it_has_never_been(mine, twin):
    taught(mine, "ant", "bee")
    before, said = fingerprint(mine), answers(mine, ASKED)
    adapt(mine, C)
    after = fingerprint(mine)
    mine.undo()
    assert (fingerprint(mine), answers(mine, ASKED)) == (before, said)
    mine.undo(4)
    assert fingerprint(mine) == after
    mine.undo(5)
    assert fingerprint(mine) == before
    assert mine.verify().ok


def test_what_was_learned_since_is_looked_at_with_the_extractor_before(mine, twin):
    taught(mine, "ant", "bee")
    adapt(mine, C)
    taught(mine, "cat")
    mine.correct(pictures(1, seed=7)[0], "bee", force=True)
    mine.undo(3)
    other = taught(twin(A), *KINDS)
    other.correct(pictures(1, seed=7)[0], "bee", force=True)
    assert fingerprint(mine) == fingerprint(other)
    assert mine.verify(deep=True).ok


def test_a_lesson_brought_back_is_looked_at_with_the_extractor_of_now(mine, twin):
    taught(mine, *KINDS)
    mine.undo(3)
    adapt(mine, C)
    mine.undo(4)
    assert fingerprint(mine) == fingerprint(taught(twin(C), *KINDS))
    assert mine.verify().ok


def test_eras_follow_one_another(mine, twin):
    taught(mine, *KINDS)
    for new in (B, C, A, C):
        adapt(mine, new)
        assert fingerprint(mine) == fingerprint(taught(twin(new), *KINDS))
    mine.undo(6)  # one in the middle: the last one stays in force
    assert fingerprint(mine) == fingerprint(taught(twin(C), *KINDS))
    mine.undo(7)
    assert fingerprint(mine) == fingerprint(taught(twin(C), *KINDS))
    mine.undo(5)
    assert fingerprint(mine) == fingerprint(taught(twin(B), *KINDS))
    assert mine.verify().ok


def test_a_classifier_that_knows_nothing_can_be_given_another_extractor(mine, twin):
    adapt(mine, C)
    assert mine.digest == twin(C).digest
    assert fingerprint(taught(mine, "ant", "bee")) == fingerprint(taught(twin(C), "ant", "bee"))


# -- versions ------------------------------------------------------------------------------------


def test_old_versions_answer_with_their_own_extractor(mine):
    taught(mine, "ant", "bee")
    first = answers(mine, ASKED)
    adapt(mine, C)
    second = answers(mine, ASKED)
    taught(mine, "cat")
    adapt(mine, B)
    third = answers(mine, ASKED)
    mine.undo()
    assert answers(mine, ASKED, version=2) == first
    assert answers(mine, ASKED, version=3) == second
    assert answers(mine, ASKED, version=5) == third
    assert answers(mine, ASKED) == answers(mine, ASKED, version=4)
    with retain.open(mine.path) as again:
        assert answers(again, ASKED, version=2) == first
        assert answers(again, ASKED, version=5) == third


def test_versions_of_different_eras_are_compared_on_what_is_remembered_now(mine, twin):
    taught(mine, "ant", "bee", n=6)
    adapt(mine, C)
    mine.learn(pictures(12, seed=3), ["ant", "bee"] * 6, force=True)
    found = mine.diff(2, "latest")
    assert found.judged == 24
    old, new = taught(twin(A), "ant", "bee", n=6), taught(twin(C), "ant", "bee", n=6)
    new.learn(pictures(12, seed=3), ["ant", "bee"] * 6, force=True)
    asked = [*of_kind("ant", 6), *of_kind("bee", 6), *pictures(12, seed=3)]
    was, now = old.predict(asked), new.predict(asked)
    truth = {s.image: s.label for s in mine.samples()}
    lost = {b.image for a, b in zip(was, now, strict=True) if a.label == truth[a.image] != b.label}
    assert {change.image for change in found.worse} == lost
    assert mine.diff("latest", 2).better == tuple(
        type(c)(c.image, c.after, c.before, c.label, c.source) for c in found.worse
    )


def test_an_alias_may_stand_for_a_version_of_another_era(mine):
    taught(mine, "ant", "bee")
    first = answers(mine, ASKED)
    mine.promote(2)
    adapt(mine, C)
    second = answers(mine, ASKED)
    mine.promote(force=True)
    taught(mine, "cat")
    assert answers(mine, ASKED, version="production") == second
    mine.rollback(force=True)
    assert answers(mine, ASKED, version="production") == first
    adapt(mine, B)
    assert answers(mine, ASKED, version="production") == first


def test_versions_of_both_eras_are_exported(mine, tmp_path):
    taught(mine, "ant", "bee")
    adapt(mine, C)
    for version in (2, None):
        made = mine.export(tmp_path / f"{version}.onnx", version=version)
        assert made.compared >= 16
        assert made.worst_difference < 1e-4


def test_a_picture_is_explained_by_the_extractor_of_now(mine):
    taught(mine, "ant", "bee")
    adapt(mine, C)
    found = mine.explain(ASKED[0])
    assert found.scores == mine.predict(ASKED[:1], top=2)[0].top
    assert found.evidence is not None


# -- forgetting ----------------------------------------------------------------------------------


def test_forgetting_leaves_nothing_in_any_era(mine):
    taught(mine, *KINDS)
    gone = images(mine)[:4]
    stored = mine._session.store
    traces = [stored.feature(image)[0].astype("<i2").tobytes() for image in gone]
    adapt(mine, C)
    traces += [stored.feature(image)[0].astype("<i2").tobytes() for image in gone]
    blobs = sum(len(mine.image(image)) for image in gone)
    receipt = mine.forget(gone, force=True)
    assert receipt.level == "exact"
    assert receipt.pending == ()
    assert receipt.bytes_erased == blobs + 4 * 2 * (8 + 12)
    mine.close()
    for data in everything(mine.path).values():
        for image, trace in zip(gone * 2, traces, strict=True):
            assert trace not in data
            assert bytes.fromhex(image[7:]) not in data
            assert image[7:].encode() not in data
    with retain.open(mine.path) as again:
        assert again.verify(deep=True).ok
        again.undo(4)
        assert not set(gone) & set(images(again))
        assert again.verify(deep=True).ok


def test_forgetting_what_an_extractor_was_trained_with_is_pending(mine):
    taught(mine, "ant", "bee")
    trained, others = images(mine)[:3], images(mine)[3:]
    adapt(mine, C, trained=[*trained, others[-1]])
    assert mine.forget(others[0], force=True).level == "exact"
    assert mine.verify().notes == ()
    asked = mine.forget(trained[0], force=True, dry_run=True)
    assert (asked.level, asked.pending) == ("none", (3,))
    receipt = mine.forget(trained, force=True)
    assert (receipt.level, receipt.pending) == ("pending", (3,))
    assert "that of event 3 with 3 of them" in receipt.summary
    assert "retain adapt" in receipt.summary
    found = mine.verify()
    assert found.ok
    assert "event 3 was trained with 3 pictures that are forgotten since" in found.notes[0]
    assert "trained with 3 pictures that are forgotten since" in mine.show(3).event.summary
    assert "extractor of event 3 was trained" in mine.show(5).event.summary
    # Taken back it is still kept, and answers for old versions.
    mine.undo(3)
    assert mine.forget(others[-1], force=True).level == "pending"
    assert "with 4 pictures" in mine.verify().notes[0]


def test_an_extractor_trained_with_what_is_forgotten_meanwhile_is_refused(mine):
    taught(mine, "ant", "bee")
    trained = images(mine)
    mine.forget(trained[0], force=True)
    with pytest.raises(GateRefused, match="1 of the 16 pictures that the extractor was trained"):
        adapt(mine, C, trained=trained, force=False)
    adapt(mine, C, trained=trained)
    assert "with 1 picture that is forgotten since" in mine.verify().notes[0]


# -- the gate ------------------------------------------------------------------------------------


def test_a_worse_extractor_is_refused_and_nothing_changes(mine):
    taught(mine, *KINDS, n=12)
    before, said, files_before = fingerprint(mine), answers(mine, ASKED), set(everything(mine.path))
    with pytest.raises(GateRefused) as caught:
        adapt(mine, blind(), force=False)
    assert not caught.value.verdict.passed
    assert caught.value.update.kind == "adapt"
    assert (fingerprint(mine), answers(mine, ASKED)) == (before, said)
    assert set(everything(mine.path)) - files_before <= {mine.path / "candidate.lock"}
    assert len(mine.log()) == 3
    found = mine.verify()
    assert found.ok
    assert "no event put in place" in found.notes[0]
    assert adapt(mine, blind()).verdict.forced


def test_pictures_held_out_are_judged_too(mine):
    taught(mine, "ant", "bee", n=12)
    eyes, session = mine._session.eyes, mine._session
    taken = session.taken(eyes, retain.vision.unlabelled(ASKED[:8]).sources, [], None)
    was = np.stack([t.feature for t in taken]), np.array([t.norm for t in taken], np.float32)
    aside = adapting.HeldOut(was, was, ["ant"] * 4 + ["bee"] * 4)
    update = adapt(mine, B, held_out=aside, dry_run=True)
    assert "of 8 pictures held out, 8 are answered right now" in " ".join(update.verdict.sentences)
    assert len(mine.log()) == 2


def test_a_dry_run_only_tells(mine):
    taught(mine, "ant", "bee")
    before = fingerprint(mine)
    update = adapt(mine, C, dry_run=True, force=False)
    assert update.event is None
    assert update.verdict is not None
    assert fingerprint(mine) == before
    assert [p.name for p in (mine.path / "extractors").iterdir()] == [mine._session.store.extractor]


# -- candidates ----------------------------------------------------------------------------------


def looked(monkeypatch):
    """Counts the pictures that extractors look at."""
    from retain.vision import OnnxExtractor

    seen, feature = [], OnnxExtractor.feature

    def counted(self, data):
        seen.append(self.name)
        return feature(self, data)

    monkeypatch.setattr(OnnxExtractor, "feature", counted)
    return seen


def test_what_was_computed_is_not_computed_again(mine, monkeypatch):
    monkeypatch.setattr(adapting, "_CHUNK", 4)
    taught(mine, *KINDS)

    def interrupting(done, _total):
        if done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="12 of 24 pictures are prepared"):
        adapt(mine, C, progress=interrupting)
    assert "goes on from there" in mine.verify().notes[0]
    seen = looked(monkeypatch)
    adapt(mine, C)
    assert 0 < len(seen) <= 16
    seen.clear()
    mine.undo()
    mine.undo(5)
    adapt(mine, B)
    adapt(mine, C)
    assert len(seen) == 24


def test_a_candidate_given_up_is_dropped_by_the_next(mine, tmp_path):
    taught(mine, "ant", "bee")
    adapt(mine, C, dry_run=True)
    adapt(mine, B, dry_run=True)
    rows = "SELECT fingerprint FROM extractors JOIN later_features ON extractor = id"
    with mine._session.store._transaction() as connection:
        found = {row[0] for row in connection.exec_driver_sql(rows)}
    assert len(found) == 1
    with mine._session.writing("adapt"):
        mine._session.store.drop_candidates()
    assert mine.verify().notes == ()


def test_what_a_candidate_that_never_came_into_force_saw_is_forgotten_too(mine):
    """The old mistake: it may have been trained with the picture, and the receipt said "exact"."""
    taught(mine, "ant", "bee")
    adapt(mine, C, dry_run=True)
    assert mine.forget(images(mine)[0], force=True).level == "exact"
    with mine._session.store._transaction() as connection:
        for table in ("later_features", "extractors WHERE id > 0"):
            rows = connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
            assert rows == 0, table
    assert mine.verify().notes == ()


def test_what_others_learn_meanwhile_is_looked_at_in_the_end(mine, twin, monkeypatch):
    monkeypatch.setattr(adapting, "_CHUNK", 4)
    taught(mine, "ant", "bee")
    with retain.open(mine.path) as other:

        def meanwhile(done, _total):
            if done == 8:
                taught(other, "cat")
                other.forget(images(other)[0], force=True)

        adapt(mine, C, progress=meanwhile)
        one = twin(C)
        taught(one, *KINDS)
        one.forget([i for i in images(one) if i not in images(mine)], force=True)
        assert fingerprint(mine) == fingerprint(one) == fingerprint(other)
    assert mine.verify(deep=True).ok


def test_who_learns_for_long_is_not_waited_for(mine, monkeypatch):
    monkeypatch.setattr(adapting, "_CHUNK", 4)
    taught(mine, "ant", "bee")
    stack = []

    def meanwhile(done, total):
        if done == 4:
            stack.append(exclusive(mine.path, "learn", 0.0))
            stack[0].__enter__()
        if done == total:
            stack[0].__exit__(None, None, None)

    adapt(mine, C, progress=meanwhile)
    assert mine.verify().ok


def test_two_candidates_at_a_time_are_refused(mine):
    taught(mine, "ant", "bee")
    with retain.open(mine.path) as other, other._session.store.adapting(), pytest.raises(Locked):
        adapt(mine, B)


# -- what cannot be ------------------------------------------------------------------------------


def test_without_pictures_there_is_nothing_to_look_at(tmp_path):
    with shop(tmp_path / "lean", A, memory="features") as lean:
        taught(lean, "ant", "bee")
        with pytest.raises(BadOption, match="keeps features and no pictures"):
            adapt(lean, B)


def test_vectors_have_no_extractor_to_adapt(tmp_path):
    numbers = retain.create(tmp_path / "numbers", extractor="vectors:4")
    with numbers, pytest.raises(BadOption, match="takes vectors"):
        adapt(numbers, B)


def test_the_same_extractor_is_nothing_new(mine):
    with pytest.raises(BadOption, match="in force already"):
        adapt(mine, A)


def test_files_must_be_an_extractor(mine):
    taught(mine, "ant", "bee")
    with pytest.raises(Damaged):
        adapt(mine, {**B, "features.onnx": b"no graph"})
    with pytest.raises(BadOption, match="adopted layer"):
        adapt(mine, B, start=(("ant",), np.zeros((1, 8)), np.zeros(1), None))
    with pytest.raises(BadOption, match="plain name"):
        adapt(mine, {**B, ".hidden": b""})
    assert len(mine.log()) == 2
    assert mine.verify().ok


def test_a_picture_whose_bytes_are_gone_is_named(mine):
    taught(mine, "ant", "bee")
    image = images(mine)[0]
    mine._session.store._blobs.path(image).unlink()
    with pytest.raises(BadImage, match=image):
        adapt(mine, B)


def test_a_directory_that_cannot_be_written_is_not_adapted(mine, monkeypatch):
    taught(mine, "ant", "bee")
    adapt(mine, C)
    said, found = answers(mine, ASKED), mine.diff(2)
    monkeypatch.setattr("retain.store.store.os.access", lambda *_: False)
    before = everything(mine.path)
    with retain.open(mine.path) as reader:
        assert answers(reader, ASKED) == said
        assert reader.diff(2).worse == found.worse
        assert reader.verify().ok
        with pytest.raises(ReadOnly):
            adapt(reader, B)
    assert everything(mine.path) == before


# -- files ---------------------------------------------------------------------------------------


def test_an_orphan_is_noted_and_swept(mine):
    taught(mine, "ant", "bee")
    orphan = laid(mine.path / "extractors" / ("sha256-" + "0" * 64), B)
    half = laid(mine.path / "extractors" / f".sha256-{'1' * 64}.7.tmp", B)
    own = laid(mine.path / "extractors" / "notes", {"read.me": b"mine"})
    found = mine.verify()
    assert found.ok
    assert "no event names" in found.notes[0]
    mine.learn(of_kind("cat", 2), "cat", force=True)
    assert not orphan.exists()
    assert not half.exists()
    assert own.exists()


def test_verify_finds_a_damaged_extractor_of_any_era(mine):
    taught(mine, "ant", "bee")
    adapt(mine, C)
    graph = mine._session.store.extractor_dir / "features.onnx"
    mine.undo()
    graph.write_bytes(b"no graph")
    found = mine.verify()
    assert not found.ok
    assert "features.onnx" in found.problems[0]
    with retain.open(mine.path) as again:
        with pytest.raises(Damaged):
            again.undo(4)
        assert len(again.log()) == 4


def test_verify_finds_a_missing_or_damaged_feature_of_a_later_era(mine):
    taught(mine, "ant", "bee")
    adapt(mine, C)
    image = images(mine)[0]
    with mine._session.writing("test"), mine._session.store._transaction(writes=True) as connection:
        connection.exec_driver_sql("UPDATE later_features SET vector = zeroblob(24) WHERE image=1")
    assert "by a later extractor" in mine.verify().problems[0]
    with mine._session.writing("test"), mine._session.store._transaction(writes=True) as connection:
        connection.exec_driver_sql("DELETE FROM later_features")
    assert f"the feature of {image} by the extractor in force is missing" in mine.verify().problems


def test_a_pack_holds_all_eras_and_nothing_unfinished(mine, tmp_path):
    taught(mine, "ant", "bee")
    first = answers(mine, ASKED)
    adapt(mine, C)
    second = answers(mine, ASKED)
    mine.undo()
    adapt(mine, B, dry_run=True)
    laid(mine.path / "extractors" / ("sha256-" + "0" * 64), B)
    mine.pack(tmp_path / "mine.retain")
    with retain.unpack(tmp_path / "mine.retain", tmp_path / "again") as again:
        assert len(list((again.path / "extractors").iterdir())) == 2
        assert answers(again, ASKED) == first
        assert answers(again, ASKED, version=3) == second
        found = again.verify(deep=True)
        assert found.ok
        assert found.notes == ()
        again.undo(4)
        assert answers(again, ASKED) == second


def test_an_extractor_is_kept_once(mine):
    taught(mine, "ant", "bee")
    adapt(mine, C)
    place = mine._session.store.extractor_dir
    mine.undo()
    adapt(mine, {**C, "weights.bin": b"more"})
    assert mine._session.store.extractor_dir == place
    assert {p.name for p in place.iterdir()} == {*C, "weights.bin"}
    assert (place / "features.onnx").read_bytes() == C["features.onnx"]


# -- adopted classifiers -------------------------------------------------------------------------


def layer(labels, dimension, seed=0):
    rng = np.random.default_rng(seed)
    return labels, rng.normal(size=(len(labels), dimension)), rng.normal(size=len(labels)), None


def test_an_adopted_classifier_needs_the_layer_of_its_new_extractor(tmp_path):
    with adopted_shop(tmp_path) as mine:
        with pytest.raises(BadOption, match="4 classes in a last layer"):
            adapt(mine, C)
        with pytest.raises(BadOption, match="not the 4 adopted"):
            adapt(mine, C, start=layer(("wasp", "ant", "cat", "dog"), 12))
        with pytest.raises(BadOption, match="they must be"):
            adapt(mine, C, start=layer(tuple(NAMES), 9))


def test_an_adopted_classifier_answers_with_the_layer_of_its_era(tmp_path):
    with adopted_shop(tmp_path) as mine:
        first = answers(mine, ASKED)
        mine.rename("wasp", "hornet")
        mine.learn(of_kind("ant", 4), "elk", force=True)
        second = answers(mine, ASKED)
        names = ("bee", "hornet", "cat", "ant")
        given = layer(names, 12)
        adapt(mine, C, start=given)
        third = answers(mine, ASKED)
        assert third != second
        mine.rename("hornet", "wasp")
        assert answers(mine, ASKED, version=0) == first
        assert answers(mine, ASKED, version=2) == second
        assert answers(mine, ASKED, version=3) == third
        # The same extractor with another layer is another era.
        adapt(mine, C, start=layer(("bee", "wasp", "cat", "ant"), 12, seed=1))
        assert answers(mine, ASKED) != third
        assert answers(mine, ASKED, version=3) == third
        assert mine.verify(deep=True).ok
        mine.pack(tmp_path / "mine.retain")
        mine.undo(5)
        mine.undo(3)
        mine.undo(4)
        assert answers(mine, ASKED) == second
    with retain.unpack(tmp_path / "mine.retain", tmp_path / "again") as again:
        assert answers(again, ASKED, version=3) == third
        lost = next(again.path.glob("extractors/*/start-*.safetensors"))
        lost.write_bytes(b"")
        assert not again.verify().ok


def test_the_rows_of_a_layer_are_those_of_its_names(tmp_path):
    """A row each that only looks at one number: the answer is the largest number's class."""
    with adopted_shop(tmp_path) as mine:
        mine.rename("wasp", "hornet")
        names = ("hornet", "bee", "ant", "cat")
        adapt(mine, C, start=(names, np.eye(4, 12), np.zeros(4), None))
        for row in ASKED:
            source = retain.vision.unlabelled([row]).sources[0]
            feature = mine._session.extractor.feature(source.read())
            assert mine.predict([row])[0].label == names[int(np.argmax(feature[:4]))]


# -- processes that notice -----------------------------------------------------------------------


def test_a_session_held_elsewhere_notices(mine, twin):
    taught(mine, "ant", "bee")
    with retain.open(mine.path) as other:
        assert answers(other, ASKED) == answers(mine, ASKED)
        adapt(mine, C)
        assert answers(other, ASKED) == answers(mine, ASKED)
        taught(other, "cat")
        assert fingerprint(other) == fingerprint(taught(twin(C), *KINDS))
        mine.undo(3)
        other.correct(pictures(1, seed=4)[0], "bee", force=True)
        one = taught(twin(A), *KINDS)
        one.correct(pictures(1, seed=4)[0], "bee", force=True)
        assert fingerprint(other) == fingerprint(one) == fingerprint(mine)


def test_a_question_overtaken_by_another_extractor_is_answered_from_one_era(mine, monkeypatch):
    taught(mine, "ant", "bee")
    first = answers(mine, ASKED)
    with retain.open(mine.path) as other:
        session, before = mine._session, mine._session.taken

        def overtaken(*given):
            found = before(*given)
            if len(other.log()) == 2:
                adapt(other, C)
            return found

        monkeypatch.setattr(session, "taken", overtaken)
        assert answers(mine, ASKED) == answers(other, ASKED) != first


def test_an_explanation_overtaken_by_another_extractor_is_of_one_era(mine, monkeypatch):
    taught(mine, "ant", "bee")
    asked = pictures(1, seed=77)[0]
    expected = mine.explain(asked)
    with retain.open(mine.path) as other:
        from retain import explaining

        resolve = explaining.resolve

        def overtaken(*given):
            if len(other.log()) == 2:
                adapt(other, C)
            return resolve(*given)

        monkeypatch.setattr(explaining, "resolve", overtaken)
        found = mine.explain(asked)
    assert (found.scores, found.neighbours, found.remedies) == (
        expected.scores,
        expected.neighbours,
        expected.remedies,
    )


def test_caches_of_another_era_are_not_believed(mine, tmp_path):
    taught(mine, "ant", "bee")
    kept = tmp_path / "kept"
    shutil.copytree(mine.path / "versions", kept)
    adapt(mine, B)
    after, said = fingerprint(mine), answers(mine, ASKED)
    shutil.rmtree(mine.path / "versions")
    shutil.copytree(kept, mine.path / "versions")
    with retain.open(mine.path) as again:
        assert answers(again, ASKED) == said
        assert fingerprint(again) == after
        assert again.verify().ok
