"""Lists of pictures: every way to write one, and every way to get it wrong."""

import json
import os
import sys
from pathlib import Path

import pytest

from retain.errors import BadManifest, MissingExtra
from retain.vision import labelled
from retain.vision.manifest import Row, read_manifest

WANTED = [("a.png", "mug"), ("deep/b.png", 'big, "red"\ncup'), ("/c.png", "tasse à café 🙂")]


def rows(path: Path, **options: bool) -> list[tuple[str, str | None]]:
    given = read_manifest(str(path), **options)
    return [
        (os.path.relpath(r.path, path.parent) if "/c" not in r.path else r.path, r.label)
        for r in given
    ]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


CSV = 'path,label\na.png,mug\n"deep/b.png","big, ""red""\ncup"\n\n/c.png,tasse à café 🙂\n'

TSV = 'path\tlabel\na.png\tmug\ndeep/b.png\t"big, ""red""\ncup"\n/c.png\ttasse à café 🙂'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.CSV", CSV.replace("path,label", " Path , LABEL ")),
        ("a.csv", b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").replace('""\r\n', '""\n').encode()),
        ("a.csv", 'label;path\nmug;a.png\n"big, ""red""\ncup";deep/b.png\ntasse à café 🙂;/c.png'),
        ("a.tsv", TSV),
        ("a.jsonl", "\n".join(json.dumps({"path": p, "label": t, "x": [1]}) for p, t in WANTED)),
        ("a.ndjson", "\n\n".join(json.dumps({"label": t, "path": p}) for p, t in WANTED) + "\n"),
    ],
)
def test_lists_are_read(tmp_path, name, content):
    given = rows(written(tmp_path / name, content))
    assert [(p, t.replace("\r", "")) for p, t in given] == WANTED


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")

    paths, labels = zip(*WANTED, strict=True)
    table = pyarrow.table({"path": paths, "label": labels, "x": [1, 2, 3]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == WANTED
    numbers = pyarrow.table({"path": ["a.png"], "label": [7]})
    pyarrow.parquet.write_table(numbers, tmp_path / "b.parquet")
    assert rows(tmp_path / "b.parquet") == [("a.png", "7")]
    missing = pyarrow.table({"path": ["a.png", "b.png"], "label": ["x", None]})
    pyarrow.parquet.write_table(missing, tmp_path / "c.parquet")
    with pytest.raises(BadManifest, match="row 2: the label is missing"):
        rows(tmp_path / "c.parquet")
    with pytest.raises(BadManifest, match="not a readable Parquet"):
        rows(written(tmp_path / "d.parquet", b"PAR1 nonsense PAR1"))


def test_parquet_without_pyarrow_prints_the_install_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'retain\[parquet\]'"):
        rows(written(tmp_path / "a.parquet", b"PAR1"))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", "", "names no picture"),
        ("a.csv", "path,label\n", "names no picture"),
        ("a.csv", "file,class\na.png,x\n", "'file', 'class'; it needs 'path' and 'label'"),
        ("a.csv", "path\na.png\n", "line 2: the label is missing"),
        ("a.csv", "path,label\na.png,x\nb.png,\n", "line 3: the label is ''"),
        ("a.csv", "path,label\na.png,x\n\n\n,x\n", "line 5: the path is ''"),
        ("a.csv", "path,label\na.png,x,y\n", "line 2: 3 columns"),
        ("a.csv", "path,label\na.png\n", "line 2: 1 columns"),
        ("a.csv", 'path,label\na.png,"x\n', "line 2: "),
        ("a.csv", 'path,label\n"a"b.png,x\n', "line 2: "),
        ("a.csv", 'path,label\n"a\n.png",x\nb.png,\n', "line 4: the label"),
        ("a.csv", b"path,label\na.png,caf\xe9\n", "line 2: not UTF-8"),
        ("a.csv", "path,label\na.png,x\n".encode("utf-16"), "UTF-16"),
        ("a.csv", "path,label\nhttp://x.org/a.png,x\n", "line 2: .*download"),
        ("a.jsonl", "{", "line 1: not JSON"),
        ("a.jsonl", '{"path": "a", "label": "x"}\n[]\n', "line 2: not an object"),
        ("a.jsonl", '{"path": 3, "label": "x"}', "line 1: the path is 3"),
        ("a.jsonl", '{"path": "a", "label": null}', "line 1: the label is missing"),
        ("a.jsonl", '{"path": "a", "label": true}', "line 1: the label is True"),
        ("a.jsonl", '{"path": "a", "label": ["x"]}', "line 1: the label is"),
        ("a.jsonl", "[" * 100_000, "line 1: not JSON"),
    ],
)
def test_malformed_lists_name_the_line(tmp_path, name, content, why):
    path = written(tmp_path / name, content)
    with pytest.raises(BadManifest, match=why) as caught:
        read_manifest(str(path))
    assert name in str(caught.value)


def test_a_long_label_and_numbers(tmp_path):
    path = written(tmp_path / "a.csv", f"path,label\na.png,{'x' * 10_000}\nb.png,7\n")
    assert [len(label) for _, label in rows(path)] == [10_000, 1]
    assert rows(written(tmp_path / "a.jsonl", '{"path": "a", "label": 7}')) == [("a", "7")]


def test_labels_may_be_missing_where_none_are_needed(tmp_path):
    path = written(tmp_path / "a.csv", "path,label\na.png,\nb.png,x\n")
    assert [row.label for row in read_manifest(str(path), labels=False)] == [None, "x"]
    path = written(tmp_path / "b.csv", "path\na.png\n")
    assert read_manifest(str(path), labels=False) == [Row(str(tmp_path / "a.png"), None)]


def test_a_list_that_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(BadManifest, match="named pipe"):
        read_manifest(str(tmp_path / "pipe.csv"))
    with pytest.raises(BadManifest, match="no such file"):
        read_manifest(str(tmp_path / "gone.csv"))


def test_a_missing_picture_is_only_noticed_when_read(tmp_path):
    path = written(tmp_path / "a.csv", "path,label\ngone.png,x\n")
    given = labelled(path)
    assert len(given.sources) == 1
    assert given.sources[0].name == str(tmp_path / "gone.png")
