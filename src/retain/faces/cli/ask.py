"""The commands that ask: predict, evaluate, log, show, verify."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from retain.faces.cli.common import Json, Name, Version, answered, opened, told_skipped
from retain.faces.cli.epochs import told_training, write_run
from retain.faces.cli.failures import Mistake
from retain.faces.cli.output import Column, bar, emit_csv, emit_json, line, note, table
from retain.faces.cli.pages import PageFile, RunFile, refuse_page
from retain.faces.cli.progress import progress
from retain.faces.text import clean, counted, percent
from retain.values import (
    Event,
    EventDetail,
    ImageDetail,
    Prediction,
    Predictions,
    Report,
    Status,
    to_json,
)

__all__ = ["evaluate", "log", "predict", "show", "verify"]

_LISTED = 20
_MISTAKES = 10


def predict(
    name: Name,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Pictures: files, folders, globs, or - for stdin."),
    ],
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many classes for each.")] = 3,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
    version: Version = None,
) -> None:
    """Say what pictures show, how surely, and if they are unknown."""
    if as_json and as_csv:
        raise Mistake("--json and --csv exclude each other; choose one")
    with opened(name) as classifier, progress("predicting", quiet=as_json) as tick:
        answers = classifier.predict(paths, top=top, version=version, progress=tick)
    if as_json:
        emit_json([to_json(each) for each in answers])
    elif as_csv:
        _as_csv(answers, top)
    elif answers:
        _as_table(answers)
    told_skipped(answers.skipped, all_of_them=True)
    if not answers and not answers.skipped:
        note("no pictures were found there")
    named = {os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths}
    if not answers or named & {each.path for each in answers.skipped}:
        raise typer.Exit(1)


def evaluate(
    name: Name,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of class folders, or a CSV, JSONL or Parquet list (path,label).",
        ),
    ],
    as_json: Json = False,
    html: PageFile = None,
    version: Version = None,
) -> None:
    """Judge the classifier on labelled pictures."""
    refuse_page(html)
    with opened(name) as classifier, progress("evaluating", quiet=as_json) as tick:
        report = classifier.evaluate(source, version=version, progress=tick)
    if html is not None:
        from retain.faces.evaluation import evaluation_page

        html.write_text(evaluation_page(report, name=Path(name).name), encoding="utf-8")
    if not answered(report, as_json=as_json):
        _told_report(report)
        if html is not None:
            line(f"page: {clean(html)}")
    told_skipped(report.skipped)
    if not report.n:
        raise typer.Exit(1)


def log(
    name: Name,
    number: Annotated[
        int | None, typer.Option("--number", "-n", min=1, help="Only the last so many events.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List everything that ever changed this classifier."""
    with opened(name) as classifier:
        events = classifier.log()
    events = events[-number:] if number else events
    if answered(events, as_json=as_json):
        return
    if not events:
        line("nothing has happened yet")
        return
    _told_events(events)


def show(
    name: Name,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="EVENT|IMAGE",
            help="An event's number, or a remembered picture by file or hash; without it, "
            "the classifier itself.",
        ),
    ] = None,
    html: RunFile = None,
    as_json: Json = False,
) -> None:
    """Show the classifier, one event, or one remembered picture."""
    refuse_page(html)
    with opened(name) as classifier:
        found = classifier.status() if what is None else classifier.show(what)
        if html is not None:
            if not isinstance(found, EventDetail) or found.training is None:
                raise Mistake(
                    f"--html shows a training; give the number of an adapt event, which "
                    f"retain log {clean(name)} lists"
                )
            write_run(html, classifier, found.training, f"retain show {found.event.event}")
    if answered(found, as_json=as_json):
        return
    if isinstance(found, Status):
        _told_status(found)
    elif isinstance(found, EventDetail):
        _told_event(found)
    else:
        _told_image(found)
    if html is not None:
        line(f"page: {clean(html)}")


def verify(
    name: Name,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also compute every feature again from its picture.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Derive everything again and name what is broken."""
    with opened(name) as classifier, progress("verifying", quiet=as_json) as tick:
        found = classifier.verify(deep=deep, progress=tick)
    if not answered(found, as_json=as_json):
        for problem in found.problems:
            line(clean(problem), style="red")
        for each in found.notes:
            note(f"note: {clean(each)}")
        if found.ok:
            line(
                f"ok: {counted(found.images, 'picture')}, {counted(found.events, 'event')}, "
                f"digest {found.digest} ({found.seconds:.1f} s)",
                style="green",
            )
    if not found.ok:
        raise typer.Exit(1)


def _as_table(answers: Predictions) -> None:
    table(
        [
            Column("picture", narrow="end"),
            Column("label", style="bold"),
            Column("probability", True),
            Column("", style="yellow"),
            Column("or", style="dim", narrow="head"),
        ],
        [
            (
                each.path,
                each.label,
                percent(each.probability),
                "unknown?" if each.unknown else "",
                ", ".join(f"{score.label} {percent(score.probability)}" for score in each.top[1:]),
            )
            for each in answers
        ],
    )


def _as_csv(answers: Predictions, top: int) -> None:
    header = ["path", "label", "probability", "unknown"]
    for rank in range(2, top + 1):
        header += [f"label_{rank}", f"probability_{rank}"]

    def row(each: Prediction) -> Iterable[object]:
        yield from (each.path, each.label, f"{each.probability:.6f}", str(each.unknown).lower())
        for rank in range(1, top):
            score = each.top[rank] if rank < len(each.top) else None
            yield from (score.label, f"{score.probability:.6f}") if score else ("", "")

    emit_csv(header, (list(row(each)) for each in answers))


def _told_report(report: Report) -> None:
    table(
        [Column(f"on {counted(report.n, 'picture')}"), Column("", True, "bold")],
        [
            ("accuracy", percent(report.accuracy)),
            ("balanced accuracy", percent(report.balanced_accuracy)),
            ("negative log-likelihood", f"{report.negative_log_likelihood:.3f}"),
            ("calibration error", percent(report.calibration_error)),
        ],
    )
    table(
        [
            Column("class"),
            Column("pictures", True),
            Column("right", True),
            Column("accuracy", True, "bold"),
            Column("precision", True),
            Column(""),
        ],
        [
            (
                label,
                f"{each.n:,}",
                f"{each.correct:,}",
                percent(each.accuracy),
                percent(each.precision),
                bar(each.accuracy),
            )
            for label, each in report.per_class.items()
        ],
    )
    if report.mistakes:
        table(
            [
                Column("picture", narrow="end"),
                Column("is"),
                Column("answered"),
                Column("probability", True),
            ],
            [
                (each.path, truth, each.label, percent(each.probability))
                for each, truth in zip(
                    report.mistakes[:_MISTAKES], report.truths[:_MISTAKES], strict=True
                )
            ],
            title="most confident mistakes",
        )
    if report.remembered:
        note(
            f"note: {report.remembered:,} of these pictures are remembered, which flatters the "
            f"numbers; judge on pictures it was not taught"
        )
    if report.unknown_classes:
        listed = ", ".join(clean(each) for each in report.unknown_classes)
        note(f"note: never taught, so always wrong: {listed}")


def _told_events(events: Iterable[Event]) -> None:
    def summary(event: Event) -> str:
        return event.summary + (f"; undone by {event.undone}" if event.undone else "")

    table(
        [
            Column("event", True),
            Column("at"),
            Column("kind", style="bold"),
            Column("summary", narrow="fold"),
        ],
        [(each.event, _local(each.at), each.kind, summary(each)) for each in events],
    )


def _told_status(status: Status) -> None:
    options = ", ".join(f"{key} {value}" for key, value in status.options.items())
    rows: list[tuple[str, object]] = [
        ("classifier", status.path),
        ("extractor", f"{status.extractor} ({status.dimension:,} numbers a picture)"),
        ("remembers", f"{counted(status.images, 'picture')} (keeps their {status.memory})"),
        ("classes", f"{status.classes:,}"),
        ("corrected", f"{status.pinned:,}, of which {status.edited:,} needed an edit of the head"),
        ("events", f"{status.events:,}"),
        ("head", options),
    ]
    if status.leave_one_out_accuracy is not None:
        rows.append(("leave-one-out", f"{percent(status.leave_one_out_accuracy)} (balanced)"))
    elif status.classes and status.adopted is None:
        rows.append(
            (
                "tuned",
                "nothing, as no picture can be left out: probabilities mean little until each "
                "class has a second one",
            )
        )
    tuned = status.leave_one_out_accuracy is not None or status.adopted is not None
    if tuned and status.shrinkage is not None and status.temperature is not None:
        rows.append(("tuned", f"shrinkage {status.shrinkage:.3g}, scale {status.temperature:.3g}"))
    rows.append(("digest", status.digest))
    table([Column("", style="dim"), Column("", narrow="fold")], rows)


def _told_event(detail: EventDetail) -> None:
    _told_events([detail.event])
    if detail.training is not None:
        told_training(detail.training)
    elif not detail.samples:
        line("it speaks of no picture that is still remembered")
    if not detail.samples:
        return
    table(
        [
            Column("picture", narrow="end"),
            Column("label", style="bold"),
            Column("hash"),
            Column(""),
        ],
        [
            (
                each.source,
                each.label,
                each.image[7:19],
                "corrected" if each.pinned else "",
            )
            for each in detail.samples[:_LISTED]
        ],
    )
    if len(detail.samples) > _LISTED:
        line(f"… and {len(detail.samples) - _LISTED:,} more; --json lists them all")


def _told_image(detail: ImageDetail) -> None:
    sample = detail.sample
    pinned = " (corrected: it must stay so)" if sample.pinned else ""
    table(
        [Column("", style="dim"), Column("", narrow="fold")],
        [
            ("picture", sample.source),
            ("hash", sample.image),
            ("taught as", f"{sample.label}{pinned}"),
        ],
    )
    table(
        [Column("answered", style="bold"), Column("probability", True), Column("")],
        [
            (score.label, percent(score.probability), bar(score.probability))
            for score in detail.prediction.top
        ],
    )
    _told_events(detail.history)


def _local(at: str) -> str:
    """UTC in ISO 8601 as the wall clock of whoever reads."""
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return at
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone().strftime("%Y-%m-%d %H:%M:%S")
