"""The commands of the judge: bench stream, run, compare, report, methods."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retain.faces.cli.bench_figures import LONG, SHORT, cell, headings
from retain.faces.cli.bench_figures import shown as figure
from retain.faces.cli.common import Json, named_texts, named_values
from retain.faces.cli.failures import Mistake
from retain.faces.cli.output import Column, emit_json, line, note, table
from retain.faces.cli.pages import refuse_page
from retain.faces.cli.progress import progress
from retain.faces.text import clean, counted

if TYPE_CHECKING:
    from retain.bench import Event, Job

__all__ = ["compare", "methods", "report", "run", "stream"]


class Kind(enum.StrEnum):
    """The kinds of streams, as `retain.bench.KINDS` has them."""

    class_incremental = "class-incremental"
    few_shot = "few-shot"
    new_instances = "new-instances"
    blurry = "blurry"
    long_tail = "long-tail"
    corrections = "corrections"
    deletions = "deletions"
    domain_shift = "domain-shift"
    joint = "joint"


Cache = Annotated[
    Path | None, typer.Option(help="The folder that keeps features; else the user's cache.")
]
Results = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RESULTS", help="Folders of results, or results; else ./results."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option; may be repeated."),
]


def stream(
    pool: Annotated[
        str,
        typer.Argument(
            metavar="POOL",
            help="A folder of class folders, or an .npz of pictures or vectors; "
            "+gaussian-noise:3 after it adds corrupted copies.",
        ),
    ],
    kind: Annotated[Kind, typer.Option(help="What happens in it.")] = Kind.class_incremental,
    seed: Annotated[
        list[int] | None, typer.Option(help="Of its order; may be repeated. By default 0.")
    ] = None,
    option: Settings = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("streams"),
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Make a stream: what is taught, in which order, and asked."""
    from retain.bench import load_pool, make_stream, save_stream

    # A stream says which pictures come when; of their features it needs none.
    data = load_pool(pool, cache=cache, extractor="none")
    written = []
    for each in seed or [0]:
        made = make_stream(kind.value, data, each, **named_values(option))
        out.mkdir(parents=True, exist_ok=True)
        written.append((made, save_stream(made, out)))
    if as_json:
        emit_json(
            [
                {
                    "path": str(path),
                    "name": made.name,
                    "kind": made.kind,
                    "seed": made.seed,
                    "digest": made.digest,
                    "steps": len(made.steps),
                    "images": sum(len(step.images) for step in made.steps),
                    "classes": len(made.order),
                    "test": len(made.test),
                }
                for made, path in written
            ]
        )
        return
    for made, path in written:
        line(
            f"wrote {clean(path)}: {counted(len(made.steps), 'step')}, "
            f"{counted(len(made.order), 'class', 'classes')}, "
            f"{counted(len(made.test), 'test picture')}"
        )
    paths = " ".join(clean(path) for _, path in written)
    line(f"to run it: retain bench run {paths} --pool {clean(pool)} --method retain")


def run(
    streams: Annotated[
        list[Path], typer.Argument(metavar="STREAM", help="What retain bench stream wrote.")
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="As retain bench methods lists; may be repeated; all for all that learn features. "
            "By default retain."
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="Of the method; may be repeated. By default that of the stream."),
    ] = None,
    option: Settings = None,
    pool: Annotated[
        str | None,
        typer.Option(help="The data set; else found by name beside it or in $RETAIN_DATA/data."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder that keeps results.")] = Path("results"),
    processes: Annotated[int, typer.Option(min=1, help="How many runs at a time.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Of each run's linear algebra.")] = 1,
    again: Annotated[bool, typer.Option("--again", help="Run it even if it is there.")] = False,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Run methods on streams; what is done is not done again."""
    jobs, total = _jobs(
        streams, pool, method, seed, named_texts(option), out, again, threads, cache
    )
    ends = _heard(jobs, total, processes, quiet=as_json)
    if as_json:
        emit_json(
            [
                {
                    "stream": str(end.job.stream),
                    "method": end.job.method,
                    "seed": end.job.seed,
                    "status": end.state,
                    "reason": end.message,
                    "metrics": dict(end.result),
                }
                for end in ends
            ]
        )
    else:
        table(
            [Column("stream"), Column("method"), Column("status"), *headings(SHORT)],
            (
                (
                    end.job.stream.stem,
                    end.job.method,
                    end.state,
                    *(figure(name, end.result.get(name)) for name in SHORT),
                )
                for end in ends
            ),
        )
        line(f"to put them side by side: retain bench compare {clean(out)}")
    if any(end.state in ("failed", "error") for end in ends):
        raise typer.Exit(1)


def compare(
    results: Results = None,
    by: Annotated[
        str, typer.Option(help="The metric that orders the methods.")
    ] = "average_incremental_accuracy",
    as_json: Json = False,
) -> None:
    """Put results side by side: means over seeds, and the best."""
    from retain.bench import compare as compared
    from retain.bench import load_results, proofs
    from retain.values import to_json

    found = load_results(*(results or [Path("results")]))
    if not found:
        raise Mistake(f"there are no results in {_listed(results)}; run: retain bench run STREAM")
    tables, equal = compared(found, by), proofs(found)
    if as_json:
        emit_json({"tables": to_json(tables), "proofs": to_json(equal)})
        return
    for each in tables:
        shown = tuple(dict.fromkeys([each.by, *LONG]))
        shown = tuple(name for name in shown if any(name in row.values for row in each.rows))
        table(
            [Column("method"), Column("seeds", right=True), *headings(shown)],
            (
                (row.method, len(row.seeds) or "–", *(cell(row, name) for name in shown))
                for row in each.rows
            ),
            title=each.family,
        )
        for row in each.rows:
            for number, reason in row.failed.items():
                note(f"{clean(row.method)}, seed {number}: {clean(reason)}", style="yellow")
    for one in equal:
        state = {True: "the same", False: "ANOTHER", None: "no"}[one.equal_state]
        answers = "the same" if one.equal_answers else "OTHER"
        line(
            f"{clean(one.stream)}: {clean(one.method)} step by step and all at once: {state} state "
            f"({one.equal_steps} of {one.steps} steps), {answers} probabilities"
        )
    line("* the best, or not significantly worse (paired t-test over seeds, p ≥ 0.05)")
    line("† uses all stored data again at each step: a ceiling")


def report(
    results: Results = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("benchmark.html"),
    browser: Annotated[
        bool, typer.Option("--open", help="Show it in the browser afterwards.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write results as one page that needs nothing else."""
    from retain.bench import load_results
    from retain.bench.comparing import completed

    refuse_page(out, makes_folder=True)
    found = load_results(*(results or [Path("results")]))
    if not found:
        raise Mistake(f"there are no results in {_listed(results)}; run: retain bench run STREAM")
    from retain.bench.report import write

    page = write(completed(found), out)
    if as_json:
        emit_json({"path": str(page), "results": len(found)})
    else:
        line(f"wrote {clean(page)}: {counted(len(found), 'result')}")
    if browser:
        typer.launch(page.absolute().as_uri())


def methods(as_json: Json = False) -> None:
    """List the methods that can be run, with their sources."""
    from retain.bench import REGISTRY
    from retain.bench.methods import options_of

    rows = [(name, kind, options_of(name)) for name, kind in REGISTRY.items()]
    if as_json:
        emit_json(
            [
                {
                    "name": name,
                    "title": kind.title,
                    "source": kind.source,
                    "needs": kind.needs,
                    "hindsight": kind.hindsight,
                    "options": {key: _plain(value) for key, value in options.items()},
                }
                for name, kind, options in rows
            ]
        )
        return
    table(
        [Column("method"), Column("what it is"), Column("source"), Column("options")],
        (
            (
                name,
                kind.title + (" †" if kind.hindsight else ""),
                kind.source,
                ", ".join(f"{key}={value}" for key, value in options.items()),
            )
            for name, kind, options in rows
        ),
    )
    line("† uses all stored data again at each step: a ceiling")


# -- runs --------------------------------------------------------------------------------------


def _jobs(
    streams: Sequence[Path],
    pool: str | None,
    method: Sequence[str] | None,
    seed: Sequence[int] | None,
    options: Mapping[str, Any],
    out: Path,
    again: bool,
    threads: int,
    cache: Path | None,
) -> tuple[list[Job], int]:
    """The runs that were asked for, and the number of their steps."""
    from retain.bench import REGISTRY, Job, find_pool, load_stream

    every = [name for name, kind in REGISTRY.items() if kind.needs == "features"]
    wanted = every if list(method or []) == ["all"] else list(method or ["retain"])
    for name in wanted:
        if name not in REGISTRY:
            raise Mistake(f"there is no method {name!r}; use {', '.join(REGISTRY)}, or all")
    jobs, total = [], 0
    for path in streams:
        made = load_stream(path)
        data = pool or find_pool(made.pool, [path.parent])
        for name in wanted:
            seeds: list[int | None] = list(seed) if seed else [None]
            for each in seeds:
                jobs.append(Job(path, data, name, out, each, options, again, threads, cache))
                total += len(made.steps)
    return jobs, total


def _heard(jobs: Sequence[Job], total: int, processes: int, *, quiet: bool) -> tuple[Event, ...]:
    """Do the jobs under a bar; where there is no terminal, a line for each run that ended."""
    from retain.bench import REGISTRY, load_pool, run_many

    featured = [job for job in jobs if REGISTRY[job.method].needs == "features"]
    for data, cache in {(job.pool, job.cache) for job in featured}:
        # Once, and before the runs, which would all compute them.
        with progress("extracting features, once", quiet=quiet) as tick:
            load_pool(data, cache=cache, progress=tick)
    steps = [0] * len(jobs)
    places = {id(job): number for number, job in enumerate(jobs)}
    with progress(f"running {counted(len(jobs), 'run')}", quiet=quiet) as tick:

        def heard(event: Event) -> None:
            steps[places[id(event.job)]] = event.done
            if tick is not None:
                tick(sum(steps), total)
            elif event.state != "step" and not quiet:
                note(_said(event))
            if event.state not in ("step", "done") and (tick is not None or quiet):
                note(_said(event), style="yellow")

        try:
            return run_many(jobs, processes=processes, heard=heard)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "stopped; run the same command again: finished runs are kept, the others go on "
                "after their last step"
            ) from None


def _said(event: Event) -> str:
    reason = f": {clean(event.message)}" if event.message else ""
    return f"{clean(event.job.stream.stem)}, {event.job.method}: {event.state}{reason}"


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _listed(paths: Sequence[Path] | None) -> str:
    return ", ".join(clean(path) for path in paths or [Path("results")])
