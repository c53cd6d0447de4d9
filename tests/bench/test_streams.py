"""Streams: what is promised of every kind, files that are read back, and files that are wrong."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retain.bench import (
    KINDS,
    Step,
    Task,
    check_stream,
    joint_stream,
    load_stream,
    make_stream,
    save_stream,
)
from retain.bench.streams import tasks_of
from retain.errors import BadOption, Damaged, NewerFormat
from tests.bench.pool import CLASSES, small, write
from tests.faces.helpers import environment

OPTIONS = {
    "class-incremental": {"first": 2, "step": 2},
    "few-shot": {"new": 3, "shots": 2},
    "new-instances": {"steps": 4},
    "blurry": {"tasks": 3, "mixed": 0.25},
    "long-tail": {"first": 2, "step": 2, "imbalance": 6.0},
    "corrections": {"steps": 3},
    "deletions": {"steps": 2, "classes": 2},
    "domain-shift": {"groups": 3},
    "joint": {},
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return small(tmp_path_factory.mktemp("pool"), domains=5)


@pytest.fixture(params=list(KINDS))
def kind(request):
    return request.param


def taught(stream):
    return [row for step in stream.steps for row in step.images]


def test_every_kind_is_tried_here():
    assert set(OPTIONS) == set(KINDS)


def test_no_test_picture_is_ever_taught_and_no_training_picture_asked(pool, kind):
    for seed in range(5):
        stream = make_stream(kind, pool, seed, **OPTIONS[kind])
        assert pool.train[taught(stream)].all()
        assert not pool.train[list(stream.test)].any()


def test_every_picture_comes_once(pool, kind):
    """Of kinds that take the whole pool every training picture is taught, and none twice."""
    stream = make_stream(kind, pool, 3, **OPTIONS[kind])
    learned = [row for step in stream.steps if step.verb != "forget" for row in step.images]
    assert len(set(learned)) == len(learned)
    if kind not in {"few-shot", "long-tail"}:
        assert set(learned) == set(np.flatnonzero(pool.train).tolist())
    assert sorted(stream.test) == np.flatnonzero(~pool.train).tolist()


def test_seeds_change_the_order_and_nothing_else_does(pool, kind):
    made = [make_stream(kind, pool, seed, **OPTIONS[kind]) for seed in (0, 1, 0)]
    assert made[0] == made[2]
    assert made[0].digest == made[2].digest
    if kind != "joint":
        assert [s.images for s in made[0].steps] != [s.images for s in made[1].steps]
    assert made[0].digest != made[1].digest
    assert sorted(made[0].order) == sorted(made[1].order) == sorted(CLASSES)


def test_the_order_says_when_classes_come(pool, kind):
    stream = make_stream(kind, pool, 5, **OPTIONS[kind])
    known: list[str] = []
    for step in stream.steps:
        if step.verb == "learn":
            came = {str(pool.labels[row]) for row in step.images} - set(known)
            assert came == set(step.new_classes)
            known += step.new_classes
    assert tuple(known) == stream.order


def test_a_stream_is_read_as_it_was_written(pool, kind, tmp_path):
    stream = make_stream(kind, pool, 1, **OPTIONS[kind])
    path = save_stream(stream, tmp_path)
    assert path.name == f"{stream.name}.json"
    assert load_stream(path) == stream
    raw = json.loads(path.read_text())
    assert raw["digest"] == stream.digest
    assert raw["order"] == list(stream.order)
    assert len(path.read_text().splitlines()) == len(stream.steps) + 14


def test_the_digest_is_the_same_in_every_process(pool, kind, tmp_path):
    """No hash of a text, no order of a set is in it."""
    code = (
        "import sys, json\n"
        "from retain.bench import load_pool, make_stream\n"
        "pool = load_pool(sys.argv[1])\n"
        "print(make_stream(sys.argv[2], pool, 4, **json.loads(sys.argv[3])).digest)\n"
    )
    path = write(tmp_path / "small.npz", domains=5)
    found = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), kind, json.dumps(OPTIONS[kind])],
            capture_output=True, text=True, check=True, env=environment(PYTHONHASHSEED=seed),
        )  # fmt: skip
        found.add(done.stdout.strip())
    assert found == {make_stream(kind, pool, 4, **OPTIONS[kind]).digest}


def test_digests_pinned(tmp_path):
    """A stream that changes makes every result on it worthless: a decision, not an accident."""
    pool = small(tmp_path)
    pinned = {
        "class-incremental": "7034716ec9146677",
        "few-shot": "8158f49614154252",
        "corrections": "3cc3131a405bff7f",
    }
    for kind, digest in pinned.items():
        stream = make_stream(kind, pool, 0, **OPTIONS[kind])
        text = json.dumps([stream.order, [step.images for step in stream.steps]])
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest, kind


# -- kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "first", "step", "sizes"),
    [
        (101, 10, 10, [10] * 9 + [11]),
        (101, 50, 10, [50, 10, 10, 10, 10, 11]),
        (17, 1, 1, [1] * 17),
        (10, 4, 4, [4, 4, 2]),
        (9, 4, 4, [4, 5]),
        (7, 7, 3, [7]),
    ],
)
def test_tasks_of_classes(tmp_path, classes, first, step, sizes):
    names = tuple(f"c{i:03}" for i in range(classes))
    pool = small(tmp_path, classes=names, each=2, tested=1)
    stream = make_stream("class-incremental", pool, 0, first=first, step=step)
    assert [len(each.new_classes) for each in stream.steps] == sizes
    assert [len(task.images) for task in tasks_of(stream, pool)] == sizes


def test_few_shot_draws_as_the_benchmark_script_does(tmp_path):
    """The same classes and pictures as benchmarks/few_shot.py, so that figures agree."""
    pool = small(tmp_path)
    stream = make_stream("few-shot", pool, 2, new=3, shots=2)
    labels = pool.labels[pool.train]
    rows = np.flatnonzero(pool.train)
    random = np.random.default_rng(2)
    classes = np.array(sorted(set(labels)))
    new = random.permutation(classes)[:3]
    chosen = [
        random.choice(np.flatnonzero(labels == c), 2, replace=False)
        if c in new
        else np.flatnonzero(labels == c)
        for c in classes
    ]
    assert set(taught(stream)) == set(rows[np.concatenate(chosen)].tolist())
    assert set(stream.steps[1].new_classes) == set(new)
    assert len(stream.steps[1].images) == 6


def test_few_shot_does_not_arrive_sorted_by_class(tmp_path):
    """What learns picture by picture would have seen one class last, of all of them."""
    pool = small(tmp_path)
    for step in make_stream("few-shot", pool, 0, new=3, shots=4).steps:
        labels = pool.labels[list(step.images)].tolist()
        assert labels != sorted(labels)
        assert sum(a != b for a, b in itertools.pairwise(labels)) > len(labels) / 2


def test_a_long_tail_falls_off_exponentially(pool):
    stream = make_stream("long-tail", pool, 0, imbalance=6.0, first=7)
    counts = sorted(
        (int((pool.labels[list(stream.steps[0].images)] == c).sum()) for c in CLASSES), reverse=True
    )
    assert counts == [round(12 * 6 ** (-i / 6)) for i in range(7)]


def test_blurry_keeps_some_classes_whole(pool):
    stream = make_stream("blurry", pool, 0, tasks=3, disjoint=0.5, mixed=0.25)
    where = {c: set() for c in CLASSES}
    for number, step in enumerate(stream.steps):
        for row in step.images:
            where[str(pool.labels[row])].add(number)
    assert sum(len(each) == 1 for each in where.values()) >= 4
    assert any(len(each) > 1 for each in where.values())
    apart = make_stream("blurry", pool, 0, tasks=3, disjoint=1.0)
    for step in apart.steps:
        assert {str(pool.labels[row]) for row in step.images} == set(step.new_classes)


def test_deletions_take_whole_classes_last(pool):
    stream = make_stream("deletions", pool, 0, steps=2, share=0.1, classes=2)
    held = set(stream.steps[0].images)
    for step in stream.steps[1:-1]:
        held -= set(step.images)
        assert {str(pool.labels[row]) for row in held} == set(CLASSES)
    held -= set(stream.steps[-1].images)
    assert {str(pool.labels[row]) for row in held} == set(CLASSES) - set(stream.order[:2])
    assert set(joint_stream(stream, pool).steps[0].images) == held


def test_domains_come_in_groups_and_are_tasks(pool):
    stream = make_stream("domain-shift", pool, 0, groups=3)
    for task in stream.tasks:
        taught_here = {str(pool.domains[row]) for row in stream.steps[task.step].images}
        assert {str(pool.domains[row]) for row in task.images} <= taught_here
    assert sorted(row for task in stream.tasks for row in task.images) == list(stream.test)


def test_joint_holds_what_is_left(pool):
    stream = make_stream("class-incremental", pool, 2, first=3, step=2)
    joint = joint_stream(stream, pool)
    check_stream(joint, pool)
    assert joint.steps[0].images == tuple(sorted(taught(stream)))
    assert joint.test == stream.test
    with pytest.raises(BadOption, match="corrections"):
        joint_stream(make_stream("corrections", pool, 0, steps=2), pool)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_options_of_any_value_give_a_stream_or_a_sentence(pool, data):
    kind = data.draw(st.sampled_from(list(OPTIONS)))
    numbers = st.one_of(st.integers(-3, 30), st.floats(-2, 40), st.just(True), st.just("x"))
    options = {name: data.draw(numbers) for name in OPTIONS[kind]}
    # Any other error would be one of ours.
    with suppress(BadOption):
        check_stream(make_stream(kind, pool, 0, **options), pool)


def test_mistakes_are_told(pool, tmp_path):
    with pytest.raises(BadOption, match="no kind of stream 'sorted'; use class-incremental"):
        make_stream("sorted", pool)
    with pytest.raises(BadOption, match="no option 'fist'; use first, step"):
        make_stream("class-incremental", pool, fist=3)
    with pytest.raises(BadOption, match=r"must be a whole number, not 1\.5"):
        make_stream("class-incremental", pool, first=1.5)
    with pytest.raises(BadOption, match="20 classes is more than the 7"):
        make_stream("class-incremental", pool, first=20)
    with pytest.raises(BadOption, match="fewer than 13"):
        make_stream("few-shot", pool, new=2, shots=13)
    with pytest.raises(BadOption, match="says nothing about domains"):
        make_stream("domain-shift", small(tmp_path))
    with pytest.raises(BadOption, match="seed of -1"):
        make_stream("joint", pool, -1)


# -- files that are wrong ----------------------------------------------------------------------


def test_a_file_that_was_changed_is_refused(pool, tmp_path):
    path = save_stream(make_stream("class-incremental", pool, 0, first=3, step=2), tmp_path)
    text = path.read_text()
    raw = json.loads(text)
    first = raw["steps"][0]["images"][0]
    path.write_text(text.replace(f'"images": [{first}, ', '"images": [', 1))
    with pytest.raises(Damaged, match="changed after it was made"):
        load_stream(path)
    for broken in ("", "{", "[]", "null", '{"format": 3}', "\x00\xff"):
        path.write_text(broken)
        with pytest.raises(BadOption, match="is not a stream"):
            load_stream(path)
    path.write_text(text.replace("stream/1", "stream/2"))
    with pytest.raises(NewerFormat, match="stream/2"):
        load_stream(path)
    with pytest.raises(BadOption, match="there is no stream"):
        load_stream(tmp_path / "none.json")
    with pytest.raises(BadOption, match="is not a stream"):
        load_stream(tmp_path)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_part_missing_or_of_another_type_is_told(pool, tmp_path_factory, data):
    path = save_stream(make_stream("domain-shift", pool, 0, groups=2), tmp_path_factory.mktemp("s"))
    raw = json.loads(path.read_text())
    part = data.draw(st.sampled_from([raw, raw["test"], raw["steps"][0], raw["test"]["tasks"][0]]))
    key = data.draw(st.sampled_from(sorted(part)))
    wrong = data.draw(st.sampled_from([None, "x", 3, [], {}, [1.5], ["x"], -1]))
    if part[key] == wrong:
        return
    part[key] = wrong
    path.write_text(json.dumps(raw))
    with pytest.raises((BadOption, Damaged)):
        load_stream(path)


def test_another_pool_is_refused(pool, tmp_path):
    other = small(tmp_path, seed=8)
    with pytest.raises(BadOption, match="was made from another small"):
        check_stream(make_stream("joint", pool), other)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s, p: replace(s, steps=(Step("learn", (asked_row(p),), ()),)), "a test picture"),
        (lambda s, p: replace(s, test=(train_row(p),)), "asks row .*, a training picture"),
        (lambda s, p: replace(s, test=(999,)), "row 999 of 112 does not exist"),
        (lambda s, p: replace(s, test=()), "no test pictures"),
        (lambda s, p: replace(s, steps=()), "no steps"),
        (lambda s, p: replace(s, steps=(*s.steps, s.steps[0])), "a second time"),
        (lambda s, p: replace(s, steps=(Step("forget", s.steps[0].images),)), "never learned"),
        (lambda s, p: replace(s, steps=(replace(s.steps[0], new_classes=("x",)),)), "brings"),
        (lambda s, p: replace(s, steps=(replace(s.steps[0], images=()),)), "has no pictures"),
        (lambda s, p: replace(s, tasks=(Task(0, (train_row(p),)),)), "a task asks"),
    ],
)
def test_a_stream_that_contradicts_itself_is_refused(pool, change, said):
    stream = make_stream("class-incremental", pool, 0, first=3, step=2)
    with pytest.raises(Damaged, match=said):
        check_stream(change(stream, pool), pool)


def asked_row(pool):
    return int(np.flatnonzero(~pool.train)[0])


def train_row(pool):
    return int(np.flatnonzero(pool.train)[0])


def test_writing_leaves_nothing_half_done(pool, tmp_path):
    save_stream(make_stream("joint", pool), tmp_path)
    assert [name for name in os.listdir(tmp_path) if "tmp" in name] == []
