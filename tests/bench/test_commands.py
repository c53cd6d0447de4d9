"""The command line of the judge, from pictures to a table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from retain.bench import KINDS, REGISTRY, load_results, load_stream
from retain.faces.cli.app import app
from retain.faces.cli.bench import Kind
from tests.bench.pool import write
from tests.faces.helpers import COLOURS, COMMAND, draw, environment

SMALL = ("-o", "first=2", "-o", "step=2")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    write(tmp_path / "small.npz", domains=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RETAIN_DATA", str(tmp_path / "shared"))
    return tmp_path


def bench(*words: str, code: int = 0):
    result = CliRunner().invoke(app, ["bench", *words])
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result


def parsed(*words: str, code: int = 0):
    return json.loads(bench(*words, "--json", code=code).stdout)


def test_the_kinds_offered_are_the_kinds_there_are():
    assert [kind.value for kind in Kind] == list(KINDS)


def test_from_pictures_to_a_table(here):
    for label in COLOURS:
        for number in range(8):
            part = "train" if number < 6 else "test"
            draw(here / "photos" / part / label / f"{number}.jpg", label, number)
    told = bench("stream", "photos", "--kind", "class-incremental", "-o", "first=1", "-o", "step=1",
                 "--seed", "0", "--seed", "1").stdout  # fmt: skip
    assert "wrote streams/photos-inc1x3-s0.json: 3 steps, 3 classes, 6 test pictures" in told
    command = told.splitlines()[-1].removeprefix("to run it: retain bench ")
    result = bench(*command.split(), "--method", "nearest-mean", "--processes", "2")
    assert result.stdout.count(" done ") == 4
    assert result.stderr.count(": done") == 4
    table = bench("compare").stdout
    assert "photos-inc1x3" in table
    assert "* the best" in table
    # The stream's pool is found by its name where no --pool says so.
    assert bench("run", "streams/photos-inc1x3-s0.json").exit_code == 0


def test_json_is_all_that_is_printed(here):
    made = parsed("stream", "small.npz", *SMALL)
    assert [each["steps"] for each in made] == [4]
    assert load_stream(made[0]["path"]).digest == made[0]["digest"]
    ran = parsed("run", made[0]["path"], "--method", "retain", "--method", "retain-joint")
    assert [each["status"] for each in ran] == ["done", "done"]
    assert ran[0]["metrics"]["average_incremental_accuracy"] > 0.5
    compared = parsed("compare", "results")
    assert compared["tables"][0]["family"] == "small-inc2x4"
    assert compared["proofs"][0]["equal_state"] is True
    listed = parsed("methods")
    assert [each["name"] for each in listed] == list(REGISTRY)
    assert all(each["source"] for each in listed)


def test_the_proof_is_told(here):
    bench("stream", "small.npz", *SMALL)
    path = "streams/small-inc2x4-s0.json"
    bench("run", path, "--method", "retain", "--method", "retain-joint")
    told = bench("compare").stdout
    assert "the same state (4 of 4 steps), the same probabilities" in told


def test_a_method_that_cannot_is_told_and_not_a_failure(here):
    bench("stream", "small.npz", "--kind", "deletions", "-o", "steps=2")
    unable = next(name for name in REGISTRY if name == "slda")
    result = bench("run", "streams/small-delete2+1-s0.json", "--method", unable)
    assert "unsupported" in result.stdout
    assert "no way to forget" in result.stderr
    told = bench("compare")
    assert "no way to forget" in told.stderr


def test_options_reach_streams_and_methods(here):
    path = parsed("stream", "small.npz", "--kind", "few-shot", "-o", "new=3", "-o", "shots=2")[0]
    assert load_stream(path["path"]).options == {"new": 3, "shots": 2}
    bench("run", path["path"], "--method", "slda", "-o", "shrinkage=0.01", "-o", "normalise=true")
    (result,) = load_results("results")
    assert result["method"]["options"] == {"shrinkage": 0.01, "normalise": True}
    assert "slda (normalise=True, shrinkage=0.01)" in bench("compare").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stream", "none.npz"], "there is no none.npz; give an .npz"),
        (["stream", "small.npz", "-o", "first"], "write it as --option name=value"),
        (["stream", "small.npz", "-o", "second=1"], "no option 'second'; use first, step"),
        (["stream", "small.npz", "-o", "first=50"], "more than the 7 there are"),
        (["stream", "small.npz", "--kind", "sorted"], "class-incremental"),
        (["stream", "small.npz+fog:3"], "holds vectors, which cannot be corrupted"),
        (["run", "none.json"], "make one with: retain bench stream"),
        (["run", "small.npz"], "is not a stream"),
        (["run", "s.json", "--method", "none"], "there is no method 'none'; use retain"),
        (["compare"], "run: retain bench run STREAM"),
        (["compare", "empty"], "there are no results in empty; run: retain bench run STREAM"),
        (["report", "empty"], "there are no results in empty; run: retain bench run STREAM"),
        (["compare", "small.npz"], "is no result"),
    ],
)
def test_mistakes_say_what_to_do_next(here, words, said):
    (here / "empty").mkdir()
    result = CliRunner().invoke(app, ["bench", *words])
    assert result.exit_code in {1, 2}
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_the_wrong_pool_and_a_changed_stream_are_refused(here):
    bench("stream", "small.npz", *SMALL)
    path = here / "streams" / "small-inc2x4-s0.json"
    write(here / "other.npz", seed=9)
    result = bench("run", str(path), "--pool", "other.npz", code=1)
    assert "was made from another small" in result.stderr
    text = path.read_text()
    path.write_text(text.replace('"seed": 0', '"seed": 1'))
    assert "changed after it was made" in bench("run", str(path), code=1).stderr
    path.write_text(text)
    bench("run", str(path), "--method", "nearest-mean")
    kept = here / "results" / "small-inc2x4-s0.nearest-mean.json"
    kept.write_text(kept.read_text()[:100])
    result = bench("run", str(path), "--method", "nearest-mean", code=1)
    assert "delete it and run the same command again" in result.stderr
    assert "delete it and run" in bench("compare", code=1).stderr
    bench("run", str(path), "--method", "nearest-mean", "--again")


def test_stopped_by_hand_and_taken_up_again(here):
    """Ctrl-C while runs are under way: what was done is kept, and the rest goes on."""
    bench("stream", "small.npz", "-o", "first=1", "-o", "step=1")
    words = ["bench", "run", "streams/small-inc1x7-s0.json", "--method", "retain"]
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=here, env=environment(), stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    partial = here / "results" / "small-inc1x7-s0.retain.partial.json"
    limit = time.monotonic() + 60
    while not partial.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was done before it could be stopped")
    assert process.returncode == 130, told
    assert "run the same command again" in told
    assert "Traceback" not in told
    done = subprocess.run(
        [*COMMAND, *words], cwd=here, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (result,) = load_results("results")
    assert len(result["steps"]) == 7
