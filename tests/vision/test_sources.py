"""`labelled` and `unlabelled`: whatever users hand over, pictures or reasons."""

import io
import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retain.errors import BadImage, BadLabel, BadOption
from retain.vision import VectorExtractor, decode, encode_array, labelled, unlabelled

from .conftest import encoded, scene

PICTURE = encoded(scene(12, 8), "PNG")


def write(path: Path, data: bytes = PICTURE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def reasons(collected) -> dict[str, str]:
    return {os.path.basename(each.path): each.reason for each in collected.skipped}


# -- folders -----------------------------------------------------------------------------------


def test_a_folder_of_class_folders(tmp_path):
    write(tmp_path / "mug/b.PNG")
    write(tmp_path / "mug/deep/er/a.jpeg")
    write(tmp_path / "cup/1.png")
    write(tmp_path / "cup/.hidden.png")
    write(tmp_path / ".git/x.png")
    write(tmp_path / "cup/notes.txt")
    write(tmp_path / "cup/noext")
    write(tmp_path / "beside.png")
    (tmp_path / "empty").mkdir()
    given = labelled(tmp_path)
    assert [(each.label, os.path.relpath(each.name, tmp_path)) for each in given.sources] == [
        ("cup", "cup/1.png"),
        ("mug", "mug/b.PNG"),
        ("mug", "mug/deep/er/a.jpeg"),
    ]
    assert all(each.read() == PICTURE for each in given.sources)
    why = reasons(given)
    assert set(why) == {"notes.txt", "noext", "beside.png", "empty"}
    assert ".txt" in why["notes.txt"]
    assert "no suffix" in why["noext"]
    assert "no label" in why["beside.png"]
    assert "without pictures" in why["empty"]


def test_a_folder_given_as_text_names_its_files_as_given(tmp_path, monkeypatch):
    write(tmp_path / "shop/mug/a.png")
    monkeypatch.chdir(tmp_path)
    assert labelled("shop").sources[0].name == "shop/mug/a.png"


def test_a_folder_with_pictures_directly_inside_explains_the_layout(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "b.png")
    with pytest.raises(
        BadOption, match=r"2 pictures but no class folders.*FOLDER/label.*path,label"
    ):
        labelled(tmp_path)


def test_an_empty_folder_and_none(tmp_path):
    with pytest.raises(BadOption, match="no class folders"):
        labelled(tmp_path)
    with pytest.raises(BadOption, match="no such file"):
        labelled(tmp_path / "nowhere")
    assert "without pictures" in unlabelled(tmp_path).skipped[0].reason


def test_a_folder_with_one_label_for_all(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "deep/b.png")
    given = labelled(tmp_path, "mug")
    assert [each.label for each in given.sources] == ["mug", "mug"]


def test_folders_named_like_pictures(tmp_path):
    write(tmp_path / "mug/folder.jpg/a.png")
    (tmp_path / "mug/empty.jpg").mkdir()
    given = labelled(tmp_path)
    assert [os.path.basename(each.name) for each in given.sources] == ["a.png"]


def test_links_pipes_sockets_and_devices_never_hold_it_up(tmp_path):
    place = tmp_path / "mug"
    write(place / "a.png")
    os.symlink(tmp_path, place / "loop")
    os.symlink(place, place / "self")
    os.symlink("ring.png", place / "ring.png")
    os.symlink(tmp_path / "nothing", place / "gone.png")
    os.symlink("/dev/zero", place / "zero.png")
    os.symlink(place / "a.png", place / "good.png")
    os.mkfifo(place / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(place)  # the path of a socket must be short
        try:
            listening.bind("s.png")
        finally:
            os.chdir(here)
        given = labelled(tmp_path)
    assert [os.path.basename(each.name) for each in given.sources] == ["a.png", "good.png"]
    why = reasons(given)
    assert "named pipe" in why["pipe.png"]
    assert "socket" in why["s.png"]
    assert "device" in why["zero.png"]
    assert "nothing" in why["gone.png"]
    assert "itself" in why["ring.png"]
    assert "already" in why["self"]
    assert "already" in why["loop"]


def test_a_class_folder_that_leads_back_to_the_whole(tmp_path):
    write(tmp_path / "mug/a.png")
    os.symlink(tmp_path, tmp_path / "all")
    given = labelled(tmp_path)
    assert [each.label for each in given.sources] == ["mug"]
    assert "already" in reasons(given)["all"]


def test_a_pipe_that_takes_a_files_place_does_not_hold_it_up(tmp_path):
    path = write(tmp_path / "a.png")
    source = unlabelled(path).sources[0]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadImage, match="named pipe"):
        source.read()


def test_names_that_are_not_utf8(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9/caf\xe9.png"
    os.makedirs(os.path.dirname(raw))
    with open(raw, "wb") as file:
        file.write(PICTURE)
    given = labelled(tmp_path)
    assert given.sources[0].name.endswith("caf\\xe9/caf\\xe9.png")
    assert given.sources[0].label == "caf\\xe9"
    given.sources[0].name.encode()  # can be printed and kept
    assert given.sources[0].read() == PICTURE
    assert unlabelled(os.fsdecode(raw)).sources[0].read() == PICTURE


def test_odd_names(tmp_path):
    for name in ("with space.png", "new\nline.png", "quote'\".png", "emoji 🙂.png", "[1].png"):
        write(tmp_path / "x" / name)
        assert unlabelled(str(tmp_path / "x" / name)).sources[0].read() == PICTURE
    assert len(labelled(tmp_path).sources) == 5


def test_paths_that_cannot_be(tmp_path):
    long = str(tmp_path / ("a" * 5000 + ".png"))
    assert "too long" in unlabelled(long).skipped[0].reason
    assert "null" in unlabelled("a\0b.png").skipped[0].reason
    with pytest.raises(BadOption, match="empty text"):
        unlabelled("")
    with pytest.raises(BadOption, match="download it"):
        unlabelled("https://example.org/a.png")
    with pytest.raises(BadOption, match="download it"):
        labelled("s3://shop/photos")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permissions(tmp_path):
    closed = write(tmp_path / "mug/a.png")
    write(tmp_path / "mug/deep/b.png")
    closed.chmod(0)
    (tmp_path / "mug/deep").chmod(0)
    try:
        given = labelled(tmp_path)
        with pytest.raises(BadImage, match="Permission denied"):
            given.sources[0].read()
        assert "Permission denied" in reasons(given)["deep"]
    finally:
        (tmp_path / "mug/deep").chmod(0o700)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    write(tmp_path / "mug/a.png")
    write(tmp_path / "mug/deep/b.png")
    listdir = os.listdir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    given = labelled(tmp_path)
    assert len(given.sources) == 1
    assert "Permission denied" in reasons(given)["deep"]


# -- single files and patterns -----------------------------------------------------------------


def test_single_files(tmp_path):
    path = write(tmp_path / "a.bin")
    assert unlabelled(path).sources[0].read() == PICTURE
    assert labelled(path, "mug").sources[0].label == "mug"
    with pytest.raises(BadOption, match="--label"):
        labelled(path)
    with pytest.raises(BadOption, match="no such file"):
        labelled(tmp_path / "b.png", "mug")
    assert "no such file" in unlabelled(tmp_path / "b.png").skipped[0].reason


def test_a_file_that_vanishes_or_grows_too_large(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png")
    source = unlabelled(path).sources[0]
    monkeypatch.setattr("retain.vision.files.LARGEST_FILE", 10)
    with pytest.raises(BadImage, match="limit of 10"):
        source.read()
    path.unlink()
    with pytest.raises(BadImage, match="no such file"):
        source.read()


def test_patterns(tmp_path):
    for name in ("a1.png", "a2.png", "b.png", "deep/a3.png"):
        write(tmp_path / name)
    names = [os.path.basename(each.name) for each in unlabelled(f"{tmp_path}/a*.png").sources]
    assert names == ["a1.png", "a2.png"]
    assert len(unlabelled(f"{tmp_path}/**/*.png").sources) == 4
    assert len(unlabelled(f"{tmp_path}/de*").sources) == 1
    assert [each.label for each in labelled(f"{tmp_path}/a*.png", "x").sources] == ["x", "x"]
    assert "no file has such a name" in unlabelled(f"{tmp_path}/c*.png").skipped[0].reason
    with pytest.raises(BadOption, match="no file has such a name"):
        labelled(f"{tmp_path}/c*.png", "x")


def test_standard_input(monkeypatch):
    def given(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    given(PICTURE)
    source = unlabelled("-").sources[0]
    assert (source.name, source.read(), source.read()) == ("-", PICTURE, PICTURE)
    given(PICTURE)
    assert labelled("-", "mug").sources[0].label == "mug"
    with pytest.raises(BadOption, match="--label"):
        labelled("-")
    monkeypatch.setattr("retain.vision.sources.LARGEST_FILE", 10)
    given(PICTURE)
    with pytest.raises(BadOption, match="standard input"):
        unlabelled("-")


def test_a_list_for_prediction_needs_no_labels(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path\na.png\n")
    given = unlabelled(tmp_path / "list.csv")
    assert given.sources[0].read() == PICTURE
    assert given.sources[0].label is None


def test_a_list_brings_its_own_labels(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,label\na.png,mug\n")
    assert labelled(tmp_path / "list.csv").sources[0].label == "mug"
    with pytest.raises(BadOption, match="its own labels"):
        labelled(tmp_path / "list.csv", "cup")


# -- what is in memory -------------------------------------------------------------------------


def test_arrays():
    pixels = np.stack([scene(12, 8, seed) for seed in range(3)])
    given = labelled(pixels, ["a", "b", "a"])
    assert [each.label for each in given.sources] == ["a", "b", "a"]
    np.testing.assert_array_equal(decode(given.sources[1].read()), pixels[1])
    again = labelled(pixels, np.array(["a", "b", "a"]))
    assert [type(each.label) for each in again.sources] == [str] * 3
    grey = unlabelled(pixels[..., 0])
    assert len(grey.sources) == 3
    assert decode(grey.sources[0].read()).shape == (8, 12, 3)
    assert len(unlabelled(pixels[0]).sources) == 1
    assert len(unlabelled(pixels[0, ..., 0]).sources) == 1
    assert len(unlabelled(list(pixels)).sources) == 3
    assert len({each.name for each in unlabelled(list(pixels)).sources}) == 3


@pytest.mark.parametrize(
    "array", [np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 3), int), np.zeros(8, np.uint8), 3.0]
)
def test_arrays_that_are_not_pictures(array):
    with pytest.raises(BadOption, match=r"uint8|cannot be given"):
        unlabelled(array)


def test_an_array_of_an_impossible_shape_fails_when_read():
    with pytest.raises(BadImage, match="uint8"):
        unlabelled(np.zeros((2, 8, 8, 4), np.uint8)).sources[0].read()


def test_lists_of_anything(tmp_path):
    path = write(tmp_path / "a.png")
    picture = Image.fromarray(scene(12, 8))
    items = [path, str(path), PICTURE, bytearray(PICTURE), scene(12, 8), picture]
    given = labelled(items, list("abcdef"))
    assert [each.label for each in given.sources] == list("abcdef")
    for each in given.sources:
        np.testing.assert_array_equal(decode(each.read()), scene(12, 8))
    assert given.sources[4].read() == given.sources[5].read() == encode_array(scene(12, 8))
    assert [each.label for each in labelled(tuple(items), "x").sources] == ["x"] * 6
    assert len(unlabelled(np.array([str(path), str(path)])).sources) == 2
    assert len(unlabelled(each for each in items).sources) == 6


def test_a_missing_file_in_a_list_does_not_shift_the_labels(tmp_path):
    path = write(tmp_path / "a.png")
    given = labelled([tmp_path / "gone.png", path], ["x", "y"])
    assert [each.label for each in given.sources] == ["x", "y"]
    with pytest.raises(BadImage, match="no such file"):
        given.sources[0].read()
    assert given.sources[1].read() == PICTURE


def test_labels_that_do_not_fit(tmp_path):
    path = write(tmp_path / "a.png")
    with pytest.raises(BadOption, match="2 pictures were given with 1 labels"):
        labelled([path, path], ["x"])
    with pytest.raises(BadLabel, match="int"):
        labelled([path], [3])
    with pytest.raises(BadOption, match="need labels"):
        labelled([path])
    with pytest.raises(BadOption, match="item 0 of the list holds 2 pictures"):
        labelled([[path, path]], ["x"])


def test_vectors():
    eyes = VectorExtractor(2)
    for vectors in ([[1.0, 2.0], [3, 4]], np.array([[1, 2], [3, 4]]), np.eye(2, dtype=np.float16)):
        given = labelled(vectors, ["a", "b"], eyes)
        assert len(given.sources) == 2
        wanted = np.asarray(vectors, np.float32)[1]
        np.testing.assert_array_equal(eyes.feature(given.sources[1].read()), wanted)
    assert len(unlabelled([1.0, 2.0], eyes).sources) == 1
    for wrong in ([[1.0, 2.0, 3.0]], [1.0], [[1.0, 2.0], [3.0]], np.zeros((1, 1, 2))):
        with pytest.raises(BadOption, match="2"):
            unlabelled(wrong, eyes)
    with pytest.raises(BadImage, match="finite"):
        unlabelled([[1.0, np.nan]], eyes).sources[0].read()
    with pytest.raises(BadOption, match="uint8"):
        unlabelled(np.zeros((3, 2)))


def test_vectors_in_files(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1.0, 2.0], np.float32))
    eyes = VectorExtractor(2)
    given = labelled([str(tmp_path / "a.npy")], ["a"], eyes)
    assert eyes.feature(given.sources[0].read()).tolist() == [1.0, 2.0]
