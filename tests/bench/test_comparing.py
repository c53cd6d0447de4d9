"""Results read back, put side by side, and told apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retain.bench import (
    REGISTRY,
    compare,
    load_results,
    make_stream,
    proofs,
    read_result,
    run,
    save_stream,
)
from retain.bench.comparing import completed, paired
from retain.bench.results import write_result
from retain.errors import BadOption, Damaged, NewerFormat
from tests.bench.pool import Means, small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of three methods on three seeds, streams beside them, and a run under way."""
    home = tmp_path_factory.mktemp("home")
    pool = small(home)
    REGISTRY["means"] = Means
    try:
        for seed in range(3):
            stream = make_stream("class-incremental", pool, seed, first=2, step=2)
            save_stream(stream, home / "results")
            for method in ("means", "retain", "retain-joint", "joint"):
                run(stream, pool, method, folder=home / "results")
            few = make_stream("few-shot", pool, seed, new=3, shots=2)
            run(few, pool, "retain", folder=home / "results")
            run(few, pool, "means", options={"scale": 3.0}, folder=home / "results")
    finally:
        del REGISTRY["means"]
    (home / "results" / "x.partial.json").write_text("{")
    return home / "results"


@pytest.fixture
def results(folder):
    return load_results(folder)


def test_all_results_are_read_and_nothing_else(results, folder):
    assert len(results) == 18
    assert {result["status"] for result in results} == {"done"}
    some = sorted(folder.glob("*.retain.json"))
    assert len(load_results(*some, some[0])) == len(some)
    with pytest.raises(BadOption, match="there is no folder or result"):
        load_results(folder / "none")


def test_means_over_seeds(results):
    tables = compare(results)
    assert [table.family for table in tables] == ["small-few3x2", "small-inc2x4"]
    assert [table.by for table in tables] == ["harmonic", "average_incremental_accuracy"]
    for table in tables:
        for row in table.rows:
            assert row.seeds == (0, 1, 2)
            for metric, summary in row.values.items():
                mine = [
                    result["metrics"][metric]
                    for result in completed(results)
                    if (
                        result["stream"]["name"].startswith(table.family)
                        and row.method.startswith(result["method"]["name"] + " ")
                    )
                    or (
                        result["stream"]["name"].startswith(table.family)
                        and row.method == result["method"]["name"]
                    )
                ]
                mine = [value for value in mine if value is not None]
                assert summary.mean == pytest.approx(np.mean(mine))
                assert summary.sd == pytest.approx(np.std(mine, ddof=1), abs=1e-12)
    few = tables[0]
    assert {row.method for row in few.rows} == {"retain", "means (scale=3.0)"}
    order = [row.values[few.by].mean for row in few.rows]
    assert order == sorted(order, reverse=True)


def test_the_luckiest_of_few_orders_is_not_the_best(results):
    """One seed of a method, the best of all, beside methods with three."""
    lucky = {
        **results[0],
        "method": {**results[0]["method"], "name": "lucky", "hindsight": False},
        "metrics": {**results[0]["metrics"], "average_incremental_accuracy": 1.0},
    }
    for table in compare([*results, lucky]):
        rows = {row.method: row.values["average_incremental_accuracy"] for row in table.rows}
        assert sum(each.best for each in rows.values()) == 1
        assert "lucky" not in rows or not rows["lucky"].best
    (alone,) = compare([lucky])
    assert alone.rows[0].values["average_incremental_accuracy"].best


def test_scores_that_are_no_probabilities_have_no_calibration(results):
    told = []
    for result in results:
        method = {**result["method"], "calibrated": result["method"]["name"] != "means"}
        told.append({**result, "method": method})
    assert all(each["metrics"]["ece"] is not None for each in results)
    for each in completed(told):
        for metric in ("ece", "nll"):
            assert (each["metrics"][metric] is None) == (each["method"]["name"] == "means")


def test_networks_stand_beside_heads_and_have_a_ceiling_of_their_own(results):
    """Who trains a network reads the pool without an extractor: no other data set."""

    def network(result, name):
        features = {**result["features"], "extractor": "none"}
        steps = [{**step, "by_task": [0.5 * (x or 0) for x in step["by_task"]]}
                 for step in result["steps"]]  # fmt: skip
        method = {**result["method"], "name": name, "hindsight": name == "network-joint"}
        return {**result, "features": features, "method": method, "steps": steps}

    mine = [each for each in results if "inc" in each["stream"]["name"]]
    heads = [each for each in mine if each["method"]["name"] in ("retain", "joint")]
    networks = [network(each, "lwf") for each in mine if each["method"]["name"] == "means"]
    joint = [network(each, "network-joint") for each in mine if each["method"]["name"] == "joint"]
    (table,) = compare([*heads, *networks, *joint])
    assert {row.method for row in table.rows} == {"retain", "joint", "lwf", "network-joint"}
    found = {
        (each["method"]["name"], each["seed"]): each["metrics"]["intransigence"]
        for each in completed([*heads, *networks, *joint])
    }
    for one, ceiling in zip(networks, joint, strict=True):
        assert one["seed"] == ceiling["seed"]
        gaps = [
            b["by_task"][j] - a["by_task"][j]
            for j, (a, b) in enumerate(zip(one["steps"], ceiling["steps"], strict=True))
        ]
        assert found["lwf", one["seed"]] == pytest.approx(np.mean(gaps))


def test_ceilings_are_never_the_best(results):
    (table,) = [each for each in compare(results) if "inc" in each.family]
    for row in table.rows:
        for summary in row.values.values():
            assert not (row.hindsight and (summary.best or summary.as_good))
    for metric in table.rows[0].values:
        assert sum(row.values[metric].best for row in table.rows if metric in row.values) == 1


def test_intransigence_is_against_joint_training(results):
    found = {
        (each["method"]["name"], each["stream"]["name"]): each["metrics"]["intransigence"]
        for each in completed(results)
    }
    for result in results:
        name, stream = result["method"]["name"], result["stream"]["name"]
        if "few" in stream or name == "joint":
            assert found[name, stream] is None
            continue
        (joint,) = [
            each
            for each in results
            if each["method"]["name"] == "joint" and each["stream"]["name"] == stream
        ]
        gaps = [
            b["by_task"][j] - a["by_task"][j]
            for j, (a, b) in enumerate(zip(result["steps"], joint["steps"], strict=True))
        ]
        assert found[name, stream] == pytest.approx(np.mean(gaps))


def test_the_proof_holds_and_is_not_asserted(results):
    found = proofs(results)
    assert len(found) == 3
    assert all(each.equal_state and each.equal_answers for each in found)
    assert all(each.steps == each.equal_steps == 4 for each in found)
    forged = json.loads(json.dumps(results))
    for result in forged:
        if result["method"]["name"] == "retain-joint":
            result["steps"][-1]["digest"] = "sha256:other"
            result["steps"][-1]["probabilities"] = "sha256:other"
    for each in proofs(forged):
        assert each.equal_state is False
        assert not each.equal_answers
        assert each.equal_steps == 3


def test_what_failed_stands_beside_the_rest(results):
    changed = json.loads(json.dumps(results))
    changed[0] |= {"status": "failed", "reason": "no memory"}
    rows = [row for table in compare(changed) for row in table.rows]
    (row,) = [row for row in rows if row.failed]
    assert row.failed == {0: "no memory"}
    assert len(row.seeds) == 2


def test_other_data_are_not_compared(results):
    changed = json.loads(json.dumps(results))
    changed[0]["stream"]["pool_digest"] = "sha256:other"
    with pytest.raises(BadOption, match="2 different data sets"):
        compare(changed)
    changed = json.loads(json.dumps(results))
    changed[0]["features"]["extractor"] = "other"
    with pytest.raises(BadOption, match="extractors"):
        compare(changed)
    with pytest.raises(BadOption, match="no metric 'speed'"):
        compare(results, by="speed")


def test_results_of_others_need_no_more_than_the_format(results):
    """A peer knows no features, no digests, no tasks."""
    peer = json.loads(json.dumps(results[0]))
    peer["method"] = {"name": "avalanche:slda", "hindsight": False}
    for key in ("features", "tasks", "resumed"):
        del peer[key]
    for step in peer["steps"]:
        for key in ("digest", "probabilities", "answers", "compared"):
            del step[key]
    assert any(row.method == "avalanche:slda" for t in compare([*results, peer]) for row in t.rows)
    assert len(proofs([*results, peer])) == 3


# -- the test ----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
@settings(deadline=None)
def test_paired_equals_scipy(pairs):
    from scipy.stats import ttest_rel

    mine, best = zip(*pairs, strict=True)
    gaps = np.subtract(mine, best)
    if gaps.std() < 1e-6:
        return
    found = paired(dict(enumerate(mine)), dict(enumerate(best)))
    assert found == pytest.approx(ttest_rel(mine, best).pvalue, rel=1e-6, abs=1e-12)


def test_paired_at_the_edges():
    assert paired({0: 0.5}, {0: 0.6}) is None
    assert paired({0: 0.5, 1: 0.5}, {2: 0.6, 3: 0.6}) is None
    assert paired({0: 0.5, 1: 0.7}, {0: 0.5, 1: 0.7}) == 1.0
    assert paired({0: 0.5, 1: 0.7}, {0: 0.6, 1: 0.8}) == 0.0


# -- files -------------------------------------------------------------------------------------


def test_damaged_results_say_what_to_do(folder, tmp_path):
    good = sorted(folder.glob("*.retain.json"))[0].read_text()
    path = tmp_path / "r.json"
    for text in ("", "{", "[]", "1", '{"format": "x"}', "\x00", good[:300], "[" * 100_000):
        path.write_text(text)
        with pytest.raises(Damaged, match="delete it and run the same command again"):
            load_results(tmp_path)
    path.write_text(good.replace("result/1", "result/9"))
    with pytest.raises(NewerFormat, match="result/9"):
        read_result(path)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_parts_missing_or_of_another_type_are_told(folder, tmp_path_factory, data):
    raw = json.loads(sorted(folder.glob("*.retain.json"))[0].read_text())
    key = data.draw(st.sampled_from(sorted({"status", "stream", "order", "method", "seed",
                                            "environment", "steps", "metrics"})))  # fmt: skip
    raw[key] = data.draw(st.sampled_from([None, 3.5, "x", [1], {}, True]))
    if (key, raw[key]) in (("order", [1]), ("environment", {}), ("metrics", {})):
        return
    path = tmp_path_factory.mktemp("r") / "r.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(Damaged):
        read_result(path)


def test_infinities_are_missing(tmp_path):
    path = write_result({"a": float("nan"), "steps": [{"b": float("inf"), "c": (1, 2.0)}]},
                        tmp_path / "x.json")  # fmt: skip
    assert json.loads(path.read_text()) == {"a": None, "steps": [{"b": None, "c": [1, 2.0]}]}
