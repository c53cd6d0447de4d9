import pytest

import retain


def test_a_new_classifier_knows_nothing(tmp_path):
    with retain.create(tmp_path / "shop", extractor="vectors:4") as shop:
        assert shop.labels == ()
        assert shop.log() == []
        assert shop.verify().ok
        with pytest.raises(retain.NothingLearned, match="teach it first"):
            shop.predict([[1.0, 2.0, 3.0, 4.0]])


def test_what_is_taken_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(retain.AlreadyExists):
        retain.create(tmp_path, extractor="vectors:4")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    retain.create(tmp_path / "shop", extractor="vectors:4").close()
    with pytest.raises(retain.AlreadyExists):
        retain.create(tmp_path / "shop", extractor="vectors:4")


def test_opening_what_is_not_a_classifier(tmp_path):
    with pytest.raises(retain.NotAClassifier, match="retain init"):
        retain.open(tmp_path / "nowhere")
    with pytest.raises(retain.NotAClassifier):
        retain.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(retain.NotAClassifier):
        retain.open(tmp_path / "file")


@pytest.mark.parametrize(
    "options",
    [
        {"extractor": "resnet9000"},
        {"extractor": "vectors:0"},
        {"extractor": "vectors:x"},
        {"memory": "elephant"},
        {"head": "svm"},
        {"priors": "odd"},
        {"favour": 2.5},
    ],
)
def test_impossible_options_are_refused_and_nothing_is_made(tmp_path, options):
    with pytest.raises(retain.BadOption):
        retain.create(tmp_path / "shop", **{"extractor": "vectors:4", **options})
    assert not (tmp_path / "shop").exists()


def test_options_survive_reopening(tmp_path):
    made = retain.create(
        tmp_path / "shop", extractor="vectors:4", head="ridge", priors="empirical", favour=0.5
    )
    made.close()
    with retain.open(tmp_path / "shop") as shop:
        assert shop.status().options == {"family": "ridge", "priors": "empirical", "favour": 0.5}
