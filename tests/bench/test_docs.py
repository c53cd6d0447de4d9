"""The tables of docs/benchmarks.md are those of the results that are kept."""

import subprocess
import sys
from pathlib import Path

from retain.bench import load_results

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_are_those_of_the_results() -> None:
    script = ROOT / "scripts" / "generate_benchmark_tables.py"
    told = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr


def test_every_result_says_where_it_came_from_and_nothing_of_the_machine() -> None:
    kept = load_results(ROOT / "benchmarks" / "results")
    assert kept
    for result in kept:
        where = result["environment"]
        assert where["date"]
        assert where.get("commit") or where.get("avalanche-lib")
        assert result["status"] == "done" or result["reason"]
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert '"/' not in path.read_text(encoding="utf-8"), f"{path.name} names a path"
