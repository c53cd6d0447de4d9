"""`purge`: extractors trained with what is forgotten go, and are as if they had never been."""

import pytest

import retain
from retain.errors import BadOption, CannotUndo, Locked
from retain.store import eras, erasing
from retain.store.lock import exclusive
from tests.eras.small import adapt, answers, files, images, of_kind, shop, taught
from tests.verbs.adopted import pictures
from tests.verbs.conftest import fingerprint

A, B, C = files(1), files(2), files(3, 12)
ASKED = [*of_kind("ant", 4, seed=50), *of_kind("bee", 4, seed=51), *pictures(4, seed=52)]


@pytest.fixture
def mine(tmp_path):
    with shop(tmp_path / "mine", A) as made:
        taught(made, "ant", "bee")
        yield made


def seen(mine):
    """The remembered pictures that an extractor was trained with."""
    return [each for each in images(mine) if mine._session.store.trained([each])]


def owing(mine):
    """Event 3 was trained with a picture that is forgotten; event 6 was not, and is in force."""
    adapt(mine, C, trained=images(mine)[:4])  # 3
    mine.learn(of_kind("cat", 4), "cat", force=True)  # 4
    assert mine.forget(seen(mine)[0], force=True).pending == (3,)
    adapt(mine, B, trained=images(mine)[:4])
    return mine.log()[-1].event


def folder(mine, number):
    """Where the files of the extractor of an event are."""
    (era,) = [each for each in mine._session.store.every_era() if each.number == number]
    return mine._session.store.folder(era)


def test_it_goes_with_all_that_it_computed(mine):
    last = owing(mine)
    gone, kept = folder(mine, 3), folder(mine, last)
    before, state = answers(mine, ASKED), fingerprint(mine)
    asked = mine.purge(dry_run=True)
    assert (asked.event, asked.level, asked.pending) == (None, "none", (3,))
    assert gone.is_dir()
    receipt = mine.purge()
    assert (receipt.level, receipt.pending, receipt.images) == ("rebuilt", (), 1)
    assert receipt.bytes_erased >= sum(len(each) for each in C.values())
    assert not gone.exists()
    assert kept.is_dir()
    assert answers(mine, ASKED) == before
    assert fingerprint(mine) == state
    found = mine.verify(deep=True)
    assert (found.ok, found.notes) == (True, ())
    assert mine.log()[2].summary.endswith(f"purged by event {receipt.event}")
    assert mine.log()[-1].summary == "purged the extractor of event 3"
    assert mine.purge().summary.startswith("no extractor was trained")
    assert mine.log()[-1].event == receipt.event


def test_what_others_read_just_now_is_not_said_to_be_erased(mine, monkeypatch):
    monkeypatch.setattr(erasing, "_PATIENCE", 0.0)
    owing(mine)
    with retain.open(mine.path) as other, other._session.store.reading():
        receipt = mine.purge()
    assert (receipt.level, receipt.traces) == ("pending", True)
    assert "the next command that changes this classifier erases them" in receipt.summary
    assert mine._session.store.finish_erasing()
    assert mine.verify().notes == ()


def test_its_versions_are_as_if_it_had_never_been(mine, tmp_path):
    owing(mine)
    mine.purge()
    with shop(tmp_path / "twin", A) as twin:
        members = {sample.image: sample.label for sample in mine.samples()}
        for kind, n in (("ant", 8), ("bee", 8), ("cat", 4)):
            taught(twin, kind, n=n)
        missing = [each.image for each in twin.samples() if each.image not in members]
        twin.forget(missing, force=True)
        assert answers(mine, ASKED, version=4) == answers(twin, ASKED)
    assert [p.label for p in mine.predict(ASKED, version=3)]


def test_it_cannot_be_brought_back(mine):
    last = owing(mine)
    mine.undo(last)
    with pytest.raises(BadOption, match="in force, of event 3"):
        mine.purge()
    mine.undo(mine.log()[-1].event)
    number = mine.purge().event
    with pytest.raises(CannotUndo, match=f"purged by event {number}"):
        mine.undo(3)
    with pytest.raises(CannotUndo, match="for good"):
        mine.undo(number)
    mine.undo(last)
    assert mine._session.store.era.number == 0
    assert mine.verify(deep=True).ok


def test_one_that_was_taken_back_goes_too(mine):
    adapt(mine, C, trained=images(mine)[:4])
    mine.learn(of_kind("cat", 4), "cat", force=True)  # its features are of this era alone
    mine.undo(4)
    mine.undo(3)
    mine.forget(seen(mine)[0])
    assert mine.purge().level == "rebuilt"
    assert mine.verify(deep=True).ok
    mine.undo(5)  # the lesson comes back, seen by the first extractor
    assert mine.verify(deep=True).ok
    assert {each.label for each in mine.samples()} == {"ant", "bee", "cat"}


def test_an_alias_is_not_answered_otherwise_unasked(mine):
    adapt(mine, C, trained=images(mine)[:4])
    mine.promote(3)
    mine.forget(seen(mine)[0])
    adapt(mine, B)
    with pytest.raises(BadOption, match="production is answered by an extractor that would go"):
        mine.purge()
    assert "(production)" in mine.purge(dry_run=True).summary
    assert mine.purge(force=True).level == "rebuilt"
    assert mine.predict(ASKED, version="production")


def test_while_another_extractor_is_prepared_nothing_is_purged(mine):
    owing(mine)
    with exclusive(mine.path, "adapt", 0.0, "candidate.lock"), pytest.raises(Locked):
        mine.purge()


@pytest.mark.parametrize("where", ["files", "half of the files", "database"])
def test_interrupted_the_next_who_writes_finishes_it(mine, monkeypatch, where):
    owing(mine)
    gone, before = folder(mine, 3), answers(mine, ASKED)
    secret, finish = (gone / "features.onnx").read_bytes(), erasing.finish

    def dies(*given):
        # Both are called, too, when the right to write is given.
        if where == "database" and gone.exists():
            return finish(*given)
        if where != "database" and gone.name in given[1]:
            return None
        if where == "half of the files":
            (gone / "preprocess.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(*((erasing, "finish") if where == "database" else (eras, "sweep")), dies)
        with pytest.raises(KeyboardInterrupt):
            mine.purge()
    with retain.open(mine.path) as again:
        assert answers(again, ASKED) == before
        again.gate(regressions=0.5)
        assert not gone.exists()
        assert answers(again, ASKED) == before
        found = again.verify(deep=True)
        assert (found.ok, found.notes) == (True, ())
    for file in mine.path.rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes()


def test_a_pack_of_it_opens(mine, tmp_path):
    owing(mine)
    mine.purge()
    mine.pack(tmp_path / "mine.retain")
    with retain.unpack(tmp_path / "mine.retain", tmp_path / "again") as again:
        assert answers(again, ASKED) == answers(mine, ASKED)
        assert again.verify(deep=True).ok
