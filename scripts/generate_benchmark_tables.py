"""Write the results in docs/benchmarks.md from benchmarks/results; with --check, only compare."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from retain.bench import compare, load_results, proofs
from retain.bench.comparing import Row, Table, family_of, label_of
from retain.bench.results import Result

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = (
    "<!-- results: begin; scripts/generate_benchmark_tables.py -->",
    "<!-- results: end -->",
)

# Metric, heading, factor, digits.
COLUMNS = [
    ("average_incremental_accuracy", "average", 100, 2),
    ("balanced_incremental_accuracy", "balanced average", 100, 2),
    ("last_accuracy", "last", 100, 2),
    ("forgetting", "forgetting", 100, 2),
    ("recency_bias", "recency", 100, 2),
    ("negative_flips_per_update", "worse/update", 1, 1),
    ("ece", "ECE", 100, 1),
    ("auroc_unseen", "AUROC", 100, 1),
    ("wall_s_per_update", "s/update", 1, 3),
    ("cpu_s_per_update", "CPU s/update", 1, 3),
    ("stored_bytes", "stored MB", 1e-6, 1),
]
FEW = [("harmonic", "harmonic mean", 100, 2), *COLUMNS[-3:]]
APART = ("old", "new")  # of the last step; shown beside the harmonic mean
SCRIPT = "python benchmarks/incremental.py"
TITLES = {
    "caltech101_30_10-inc10x10": ("Caltech-101, ten tasks of ten classes", f"{SCRIPT} inc10x10"),
    "caltech101_30_10-inc50+10x6": (
        "Caltech-101, 50 classes and then five tasks",
        f"{SCRIPT} inc50",
    ),
    "clothing17_224-inc1x17": (
        "Clothes, 17 unbalanced classes, one at a time",
        f"{SCRIPT} inc1x17",
    ),
    "caltech101_30_10-few20x1": ("20 new classes, one picture each", f"{SCRIPT} few20x1"),
    "caltech101_30_10-few20x2": ("20 new classes, two pictures each", f"{SCRIPT} few20x2"),
    "caltech101_30_10-few20x5": ("20 new classes, five pictures each", f"{SCRIPT} few20x5"),
}


def page(results: Path = RESULTS) -> str:
    """The part between the marks."""
    found = load_results(results)
    tables = {table.family: table for table in compare(found)}
    parts = []
    for family, (title, command) in TITLES.items():
        if family in tables:
            own = [each for each in found if family_of(each) == family]
            parts += [f"### {title}", "", f"`{command}`", "", *rows(tables[family], own), ""]
    equal = proofs(found)
    if equal:
        whole = [one for one in equal if one.equal_state and one.equal_answers]
        steps, same = (sum(getattr(one, key) for one in equal) for key in ("steps", "equal_steps"))
        parts += [
            f"Step by step against all at once (`retain-joint`): the last probabilities are equal "
            f"to the bit in {len(whole)} of {len(equal)} runs, the states at {same} of {steps} "
            f"steps.",
            "",
        ]
    return "\n".join(parts)


def rows(table: Table, results: Sequence[Result]) -> Iterator[str]:
    """A table in Markdown."""
    few = table.kind == "few-shot"
    columns = FEW if few else COLUMNS
    columns = [each for each in columns if any(each[0] in row.values for row in table.rows)]
    headings = [*(APART if few else ()), *(heading for _, heading, _, _ in columns)]
    yield "| method | seeds | " + " | ".join(headings) + " |"
    yield "|---|" + "---:|" * (len(headings) + 1)
    for row in table.rows:
        name = f"{row.method}{' †' if row.hindsight else ''}"
        apart = means(row.method, results) if few else []
        yield f"| {name} | {len(row.seeds)} | " + " | ".join([*apart, *cells(row, columns)]) + " |"
    for row in table.rows:
        for seed, reason in row.failed.items():
            yield f"\n{row.method}, seed {seed}: {reason}"


def means(method: str, results: Sequence[Result]) -> list[str]:
    """Balanced accuracy of old and of new classes after the last step, over seeds."""
    last = [
        each["steps"][-1]
        for each in results
        if label_of(each) == method and each["status"] == "done"
    ]
    return [f"{100 * sum(step[key] for step in last) / len(last):.2f}" for key in APART]


def cells(row: Row, columns: Sequence[tuple[str, str, float, int]]) -> Iterator[str]:
    """The numbers of a row; in bold what is best or as good."""
    for key, _, factor, digits in columns:
        found = row.values.get(key)
        if found is None:
            yield "–"
            continue
        text = f"{factor * found.mean:.{digits}f}"
        if found.sd is not None and ("accuracy" in key or key == "harmonic"):
            text += f" ± {factor * found.sd:.{digits}f}"
        yield f"**{text}**" if found.as_good else text


def main() -> None:
    """Write it, or compare."""
    text = TARGET.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{before}{BEGIN}\n\n{page()}\n{END}{after}"
    if "--check" in sys.argv:
        sys.exit(0 if made == text else f"{TARGET} is not current; run: make docs")
    TARGET.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
