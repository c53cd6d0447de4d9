"""Runs: judged rightly, resumed after a kill with the same numbers, never computed twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retain.bench import (
    REGISTRY,
    Job,
    Unsupported,
    joint_stream,
    load_pool,
    make_stream,
    read_result,
    result_name,
    run,
    run_many,
    save_stream,
)
from retain.bench.metrics import flips
from retain.errors import AlreadyExists, BadOption, Damaged
from tests.bench.pool import Means, small, write
from tests.faces.helpers import ROOT, environment

COSTS = {"wall_s", "cpu_s", "peak_memory_bytes", "stored_bytes"}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(REGISTRY, "means", Means)


@pytest.fixture
def pool(tmp_path):
    return small(tmp_path, domains=5)


@pytest.fixture
def stream(pool):
    return make_stream("class-incremental", pool, 0, first=2, step=2)


def numbers(result):
    """All that must be the same in two runs: everything but costs."""
    return [{k: v for k, v in step.items() if k not in COSTS} for step in result["steps"]]


# -- judged rightly ----------------------------------------------------------------------------


def test_every_number_of_a_step_equals_a_slow_twin(pool, stream):
    """The loop of a benchmark as anybody would write it, beside ours."""
    result = run(stream, pool, "means")
    assert result["status"] == "done"
    method = Means(6, 0, Path())
    seen, before, first, tasks = [], {}, {}, []
    for number, (step, told) in enumerate(zip(stream.steps, result["steps"], strict=True)):
        rows = list(step.images)
        method.learn(pool.features[rows], pool.labels[rows])
        seen += step.new_classes
        tasks.append(step.new_classes)
        said = {}
        for row in np.flatnonzero(~pool.train):
            classes, chances = method.scores(pool.features[[row]])
            said[row] = classes[int(chances[0].argmax())], float(chances[0].max())
        asked = [row for row in said if pool.labels[row] in seen]
        right = [said[row][0] == pool.labels[row] for row in asked]
        assert told["accuracy"] == pytest.approx(np.mean(right))
        assert told["judged"] == len(asked)
        assert told["seen"] == len(seen)
        per = []
        for group in tasks:
            mine = [said[r][0] == pool.labels[r] for r in asked if pool.labels[r] in group]
            per.append(np.mean(mine))
        assert told["by_task"] == pytest.approx(per)
        unseen = [said[row][1] for row in said if row not in asked]
        if unseen:
            wins = [(said[row][1] > u) + 0.5 * (said[row][1] == u) for row in asked for u in unseen]
            assert told["auroc_unseen"] == pytest.approx(np.mean(wins))
        else:
            assert told["auroc_unseen"] is None
        if number:
            both = [row for row in asked if row in before]
            truth = np.array([pool.labels[row] for row in both])
            old = np.array([before[row] for row in both])
            new = np.array([said[row][0] for row in both])
            assert (told["got_worse"], told["got_better"]) == flips(truth, old, new)
            assert told["compared"] == len(both)
        before = {row: said[row][0] for row in asked}
        first[number] = per[-1]
    assert result["metrics"]["last_accuracy"] == result["steps"][-1]["accuracy"]
    assert result["metrics"]["backward_transfer"] == pytest.approx(
        np.mean([per[j] - first[j] for j in range(len(per) - 1)])
    )
    assert set(told["by_class"]) == set(seen)


def test_answers_do_not_depend_on_the_order_in_which_a_method_names_its_classes(pool, stream):
    class Sorted(Means):
        name = "sorted"

        def scores(self, features):
            classes, chances = super().scores(features)
            places = np.argsort(classes)
            return tuple(np.array(classes)[places].tolist()), chances[:, places]

    REGISTRY["sorted"] = Sorted
    try:
        assert numbers(run(stream, pool, "sorted")) == numbers(run(stream, pool, "means"))
    finally:
        del REGISTRY["sorted"]


def test_corrections_take_the_wrong_ones_only_one_at_a_time(pool, monkeypatch):
    taught = []

    class Watched(Means):
        def correct(self, features, labels):
            classes, chances = self.scores(features)
            assert len(labels) == 1
            assert classes[int(chances[0].argmax())] != labels[0]
            taught.append(features[0])
            super().correct(features, labels)

    monkeypatch.setitem(REGISTRY, "means", Watched)
    stream = make_stream("corrections", pool, 0, start=0.3, steps=3)
    result = run(stream, pool, "means")
    counts = [step["images"] for step in result["steps"][1:]]
    assert sum(counts) == len(taught) > 0
    assert [step["candidates"] for step in result["steps"][1:]] == [
        len(step.images) for step in stream.steps[1:]
    ]
    assert 0 <= result["metrics"]["corrections_kept"] <= 1
    tests = pool.features[~pool.train]
    assert not any((tests == x).all(axis=1).any() for x in taught)


def test_ours_keeps_every_correction(pool):
    result = run(make_stream("corrections", pool, 0, start=0.3, steps=3), pool, "retain")
    assert result["status"] == "done", result["reason"]
    assert result["steps"][-1]["corrected_at_once"] in (1.0, None)


def test_a_class_that_is_forgotten_is_no_longer_asked(pool):
    stream = make_stream("deletions", pool, 0, steps=2, classes=2)
    result = run(stream, pool, "means")
    assert [step["seen"] for step in result["steps"]] == [7, 7, 7, 5]
    assert set(result["steps"][-1]["by_class"]) == set(stream.order[2:])
    assert result["steps"][-1]["auroc_unseen"] is not None


def test_forgetting_is_exact(pool):
    """What is left after deletions answers as one that never saw the rest, to the last bit."""
    stream = make_stream("deletions", pool, 0, steps=2, classes=1)
    forgot, never = run(stream, pool, "retain"), run(joint_stream(stream, pool), pool, "retain")
    assert forgot["steps"][-1]["digest"] == never["steps"][-1]["digest"] != ""
    assert forgot["steps"][-1]["probabilities"] == never["steps"][-1]["probabilities"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_step_by_step_equals_all_at_once(pool, seed):
    stream = make_stream("class-incremental", pool, seed, first=1, step=1)
    steps, joint = run(stream, pool, "retain"), run(joint_stream(stream, pool), pool, "retain")
    assert steps["steps"][-1]["probabilities"] == joint["steps"][-1]["probabilities"]
    assert steps["steps"][-1]["digest"] == joint["steps"][-1]["digest"] != ""


def test_tasks_to_come_are_judged_where_their_classes_are_known(pool):
    result = run(make_stream("domain-shift", pool, 0, groups=3), pool, "means")
    assert [len(step["by_task"]) for step in result["steps"]] == [3, 3, 3]
    assert result["metrics"]["forward_transfer"] is not None


def test_few_shot_tells_old_from_new(pool):
    stream = make_stream("few-shot", pool, 0, new=3, shots=2)
    first, last = run(stream, pool, "means")["steps"]
    assert first["harmonic"] is None
    old, new = last["old"], last["new"]
    assert last["harmonic"] == pytest.approx(2 * old * new / (old + new))
    per = last["by_class"]
    assert new == pytest.approx(np.mean([per[c] for c in stream.steps[1].new_classes]))
    assert old == pytest.approx(np.mean([per[c] for c in stream.steps[0].new_classes]))


def test_runs_that_hold_the_same_pictures_say_so(pool):
    runs = [run(make_stream("class-incremental", pool, s, first=2, step=2), pool, "means")
            for s in (0, 1)]  # fmt: skip
    assert runs[0]["steps"][-1]["held"] == runs[1]["steps"][-1]["held"]
    assert runs[0]["steps"][0]["held"] != runs[1]["steps"][0]["held"]


def test_what_is_made_before_the_first_lesson_is_memory_too(pool, monkeypatch):
    size = 50_000_000

    class Projecting(Means):
        def __init__(self, dimension, seed, workdir):
            super().__init__(dimension, seed, workdir)
            self.projection = np.ones(size // 8)

    monkeypatch.setitem(REGISTRY, "projecting", Projecting)
    found = run(make_stream("class-incremental", pool, 0, first=2, step=2), pool, "projecting")
    assert found["status"] == "done", found["reason"]
    peak = found["metrics"]["peak_memory_bytes"]
    assert peak is None or peak > 0.9 * size


def test_the_bias_towards_the_last_task_does_not_cancel_over_steps(pool, stream):
    found = run(stream, pool, "means")
    told = [step["recency_bias"] for step in found["steps"]]
    assert told[0] is None
    assert min(told[1:]) < 0 < max(told[1:])
    assert found["metrics"]["recency_bias"] == pytest.approx(np.mean(np.abs(told[1:])))


# -- what methods do wrong ---------------------------------------------------------------------


def test_what_a_method_cannot_do_is_told(pool, stream, monkeypatch, tmp_path):
    class Never(Means):
        def forget(self, features, labels):
            raise Unsupported("it keeps no pictures")

    monkeypatch.setitem(REGISTRY, "means", Never)
    deletions = make_stream("deletions", pool, 0, steps=2)
    result = run(deletions, pool, "means", folder=tmp_path)
    assert (result["status"], result["reason"]) == ("unsupported", "it keeps no pictures")
    assert len(result["steps"]) == 1
    assert set(result["metrics"].values()) == {None}
    assert run(deletions, pool, "means", folder=tmp_path) == result


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c, p: (c, p * 2), "no probabilities"),
        (lambda c, p: (c, p - 1), "no probabilities"),
        (lambda c, p: (c, p * np.nan), "no probabilities"),
        (lambda c, p: (c[1:], p), "shape"),
        (lambda c, p: ((c[0],) * len(c), p), "twice"),
        (lambda c, p: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_method_that_breaks_is_a_result_and_tried_again(
    pool, stream, monkeypatch, tmp_path, spoil, said
):
    class Broken(Means):
        def scores(self, features):
            found = super().scores(features)
            return spoil(*found) if len(self.sums) > 2 else found

    monkeypatch.setitem(REGISTRY, "means", Broken)
    result = run(stream, pool, "means", folder=tmp_path)
    assert result["status"] == "failed"
    assert said in result["reason"]
    assert len(result["steps"]) == 1
    monkeypatch.setitem(REGISTRY, "means", Means)
    assert run(stream, pool, "means", folder=tmp_path)["status"] == "done"


def test_wrong_words_are_told(pool, stream):
    with pytest.raises(BadOption, match="no method 'none'; use retain"):
        run(stream, pool, "none")
    with pytest.raises(BadOption, match="no option 'size'; it has scale"):
        run(stream, pool, "means", options={"size": 3})


def test_a_stream_of_another_pool_is_refused(stream, tmp_path):
    other = load_pool(write(tmp_path / "other.npz", seed=9))
    with pytest.raises(BadOption, match="was made from another small"):
        run(stream, other, "means")


# -- kept, resumed -----------------------------------------------------------------------------


def test_a_result_is_not_computed_again(pool, stream, tmp_path, monkeypatch):
    result = run(stream, pool, "means", folder=tmp_path)
    (path,) = tmp_path.glob("small-*.json")
    assert path.name == result_name(stream, "means") + ".json"
    assert read_result(path) == result

    class Never(Means):
        def learn(self, features, labels):
            raise AssertionError

    monkeypatch.setitem(REGISTRY, "means", Never)
    assert run(stream, pool, "means", folder=tmp_path) == result
    assert run(stream, pool, "means", folder=tmp_path, again=True)["status"] == "failed"


def test_options_and_seeds_have_results_of_their_own(pool, stream, tmp_path):
    for seed in (None, 5):
        for options in ({}, {"scale": 2.0}):
            run(stream, pool, "means", seed, options=options, folder=tmp_path)
    assert {each.name for each in tmp_path.glob("*-s0.*.json")} == {
        f"{stream.name}.means{more}.json"
        for more in ("", ".scale=2.0", ".seed5", ".scale=2.0.seed5")
    }


def test_a_result_of_another_stream_is_not_taken_for_this(pool, stream, tmp_path):
    run(stream, pool, "means", folder=tmp_path)
    (path,) = tmp_path.glob("small-*.json")
    text = path.read_text()
    path.write_text(text.replace(stream.digest, "sha256:other"))
    with pytest.raises(AlreadyExists, match="another stream, method, seed or extractor"):
        run(stream, pool, "means", folder=tmp_path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(Damaged, match="delete it and run the same command again"):
        run(stream, pool, "means", folder=tmp_path)
    assert run(stream, pool, "means", folder=tmp_path, again=True)["status"] == "done"


KILLED = """
import sys
from pathlib import Path
from retain.bench import REGISTRY, load_pool, load_stream, run
from tests.bench.pool import Means, die_after
REGISTRY["means"] = Means
stream, pool, method, folder, steps = sys.argv[1:]
run(load_stream(stream), load_pool(pool), method, folder=Path(folder),
    progress=die_after(int(steps)))
"""


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("means", "class-incremental"),
        ("retain", "class-incremental"),
        ("retain", "corrections"),
        ("retain", "deletions"),
    ],
)
def test_a_run_that_was_killed_goes_on_with_the_same_numbers(tmp_path, pool, method, kind):
    """Killed after every step in turn: the whole is as if nothing had happened."""
    if kind == "class-incremental":
        stream = make_stream(kind, pool, 0, first=2, step=2)
    else:
        stream = make_stream(kind, pool, 0, steps=2)
    path = save_stream(stream, tmp_path / "streams")
    whole = run(stream, pool, method)
    folder = tmp_path / "results"
    words = [str(path), str(tmp_path / "small.npz"), method, str(folder)]
    for steps in range(1, len(stream.steps)):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, *words, str(steps)],
            env=environment(PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "src")])),
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not list(folder.glob("*s0.*[!l].json"))
    (partial,) = folder.glob("*.partial.json")
    held = json.loads(partial.read_text())
    assert len(held["steps"]) == len(stream.steps) - 1
    result = run(stream, pool, method, folder=folder)
    assert numbers(result) == numbers(whole)
    assert result["resumed"] == [len(stream.steps) - 1]
    assert [s["wall_s"] for s in result["steps"][:-1]] == [s["wall_s"] for s in held["steps"]]
    assert not list(folder.glob("*.partial.json"))
    quality = [key for key in whole["metrics"] if not key.endswith(("_bytes", "_per_update"))]
    assert {k: result["metrics"][k] for k in quality} == {k: whole["metrics"][k] for k in quality}


class Stop(BaseException):
    """Not an error of the method's: an interruption."""


def interrupted(stream, pool, folder, method="means"):
    def progress(done, total):
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        run(stream, pool, method, folder=folder, progress=progress)
    (partial,) = folder.glob("*.partial.json")
    return partial


def test_a_method_that_answers_otherwise_after_a_replay_is_not_believed(
    pool, stream, tmp_path, monkeypatch
):
    partial = interrupted(stream, pool, tmp_path / "r")

    class Fickle(Means):
        def scores(self, features):
            classes, chances = super().scores(features)
            return classes, chances[::-1]

    monkeypatch.setitem(REGISTRY, "means", Fickle)
    result = run(stream, pool, "means", folder=tmp_path / "r")
    assert result["status"] == "failed"
    assert "not deterministic" in result["reason"]
    assert not partial.exists()


@pytest.mark.parametrize("change", ["truncate", "seed", "numpy", "commit", "stream"])
def test_what_was_begun_otherwise_is_begun_anew(pool, stream, tmp_path, change):
    partial = interrupted(stream, pool, tmp_path / "r")
    raw = json.loads(partial.read_text())
    if change == "seed":
        raw["seed"] = 3
    elif change == "stream":
        raw["stream"]["digest"] = "sha256:other"
    elif change != "truncate":
        raw["environment"][change] = "other"
    text = json.dumps(raw)
    partial.write_text(text[:200] if change == "truncate" else text)
    result = run(stream, pool, "means", folder=tmp_path / "r")
    assert result["resumed"] == []
    assert numbers(result) == numbers(run(stream, pool, "means"))


# -- many at once ------------------------------------------------------------------------------


def test_many_runs_are_as_one(pool, tmp_path):
    jobs = []
    for seed in (0, 1):
        stream = make_stream("class-incremental", pool, seed, first=2, step=2)
        path = save_stream(stream, tmp_path / "streams")
        jobs += [
            Job(path, str(tmp_path / "small.npz"), method, tmp_path / "results")
            for method in ("retain", "nearest-mean")
        ]
    heard = []
    ends = run_many(jobs, processes=2, heard=heard.append)
    assert [end.state for end in ends] == ["done"] * 4
    assert [end.job for end in ends] == jobs
    assert {event.state for event in heard} == {"step", "done"}
    here = run(make_stream("class-incremental", pool, 1, first=2, step=2), pool, "retain")
    there = read_result(tmp_path / "results" / f"{jobs[2].stream.stem}.retain.json")
    assert numbers(there) == numbers(here)
    assert there["environment"]["threads"] == 1
    assert there["steps"][0]["peak_memory_bytes"] is None or (
        0 < there["steps"][0]["peak_memory_bytes"] < 2**31
    )
    heard.clear()
    assert run_many(jobs, processes=2, heard=heard.append) == ends
    assert {event.state for event in heard} == {"done"}


def test_a_run_that_is_killed_takes_no_other_with_it(pool, tmp_path):
    path = save_stream(make_stream("class-incremental", pool, 0, first=1, step=1), tmp_path / "s")
    jobs = [
        Job(path, str(tmp_path / "small.npz"), method, tmp_path / "results")
        for method in ("retain", "nearest-mean")
    ]
    killed = []

    def heard(event):
        if event.job.method == "retain" and not killed:
            (child,) = multiprocessing.active_children()
            os.kill(child.pid, signal.SIGKILL)
            killed.append(event)

    ends = run_many(jobs, processes=1, heard=heard)
    assert [end.state for end in ends] == ["error", "done"]
    assert "signal 9" in ends[0].message
    (again,) = run_many(jobs[:1])
    assert again.state == "done"


def test_jobs_that_cannot_begin_say_why(pool, tmp_path):
    path = save_stream(make_stream("joint", pool), tmp_path / "s")
    data = str(tmp_path / "small.npz")
    jobs = [
        Job(tmp_path / "none.json", data, "retain", tmp_path / "r"),
        Job(path, str(tmp_path / "none.npz"), "retain", tmp_path / "r"),
        Job(path, data, "none", tmp_path / "r"),
        Job(path, data, "slda", tmp_path / "r", options={"x": 1}),
    ]
    ends = run_many(jobs)
    assert [end.state for end in ends] == ["error"] * 4
    for end, said in zip(ends, ["no stream", "there is no", "no method", "no option"], strict=True):
        assert said in end.message
    with pytest.raises(BadOption, match="0 processes"):
        run_many(jobs, processes=0)
