"""The judge: class-incremental benchmarks that anybody can run; sees only the public door."""

from retain.bench.comparing import Proof, Summary, Table, compare, proofs
from retain.bench.kinds import KINDS, make_stream
from retain.bench.methods import REGISTRY, Method, Unsupported, make
from retain.bench.parallel import Event, Job, run_many
from retain.bench.pools import Pool, find_pool, load_pool
from retain.bench.results import METRICS, Result, load_results, read_result, result_name
from retain.bench.running import run
from retain.bench.streams import (
    Step,
    Stream,
    Task,
    check_stream,
    joint_stream,
    load_stream,
    save_stream,
)

__all__ = [
    "KINDS",
    "METRICS",
    "REGISTRY",
    "Event",
    "Job",
    "Method",
    "Pool",
    "Proof",
    "Result",
    "Step",
    "Stream",
    "Summary",
    "Table",
    "Task",
    "Unsupported",
    "check_stream",
    "compare",
    "find_pool",
    "joint_stream",
    "load_pool",
    "load_results",
    "load_stream",
    "make",
    "make_stream",
    "proofs",
    "read_result",
    "result_name",
    "run",
    "run_many",
    "save_stream",
]
