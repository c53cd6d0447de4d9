"""The commands that change a classifier: init, learn, correct, forget, undo, classes."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from retain.faces.cli.common import (
    DryRun,
    Force,
    Json,
    Name,
    answered,
    opened,
    told_skipped,
)
from retain.faces.cli.failures import Mistake
from retain.faces.cli.interrupting import finishing, held
from retain.faces.cli.lists import listed, without_agreeing, written_by_predict
from retain.faces.cli.output import Column, line, note, table
from retain.faces.cli.progress import progress
from retain.faces.cli.telling import headline, told_changes, told_classes, told_verdict
from retain.faces.text import clean, counted

if TYPE_CHECKING:
    from retain.values import Sample, Update

__all__ = ["Memory", "classes", "correct", "forget", "init", "learn", "undo"]

# How alike the name of a new class is to a known one before it may be a slip, 0 to 1.
_NEAR = 0.75


class Memory(StrEnum):
    """How much of each picture is kept."""

    images = "images"
    features = "features"


class Head(StrEnum):
    """What turns features into answers."""

    cosine = "cosine"
    discriminant = "discriminant"
    ridge = "ridge"
    nearest_mean = "nearest-mean"


class Priors(StrEnum):
    """How common the classes are taken to be."""

    mixed = "mixed"
    balanced = "balanced"
    empirical = "empirical"


class Action(StrEnum):
    """What to do with a class."""

    rename = "rename"
    merge = "merge"


def init(
    name: Name,
    extractor: Annotated[
        str,
        typer.Option(
            help="What turns pictures into numbers: the one shipped, vectors:<d> for your own "
            "feature vectors, or a directory with features.onnx and preprocess.json."
        ),
    ] = "efficientnet_lite0",
    memory: Annotated[
        Memory, typer.Option(help="Keep the pictures themselves, or only their features.")
    ] = Memory.images,
    head: Annotated[Head, typer.Option(help="What turns features into answers.")] = Head.cosine,
    priors: Annotated[
        Priors,
        typer.Option(
            help="Take all classes as equally common (balanced), as common as they were taught "
            "(empirical), or half and half (mixed)."
        ),
    ] = Priors.mixed,
    favour: Annotated[
        float,
        typer.Option(min=-2, max=2, help="Favour classes of many pictures (to -2) or few (to 2)."),
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Make a new classifier, which knows nothing yet (also: create)."""
    import retain

    with retain.create(
        name,
        extractor=extractor,
        memory=memory.value,
        head=head.value,
        priors=priors.value,
        favour=favour,
    ) as made:
        if not answered(made.status(), as_json=as_json):
            line(f"made {clean(name)}; teach it: {_typed('learn', name, 'FOLDER')}")


def learn(
    name: Name,
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="A folder of class folders or a CSV, JSONL or Parquet list (path,label); "
            "with --label also pictures.",
        ),
    ],
    label: Annotated[str | None, typer.Option(help="What all these pictures show.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Learn nothing if one file cannot be used.")
    ] = False,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Learn labelled pictures, of old classes or new ones."""
    if len(source) > 1 and label is None:
        raise Mistake(
            f"{len(source)} sources were given without --label; give one folder or list, or say "
            f"what they all show with --label"
        )
    with opened(name) as classifier, progress("learning", quiet=as_json) as tick:
        if label is not None:
            _refuse_class_folders(source, label, classifier.labels)
        given = source[0] if len(source) == 1 else source
        update = classifier.learn(
            given, label, strict=strict, force=force, dry_run=dry_run, progress=finishing(tick)
        )
    if not answered(update, as_json=as_json):
        headline(update, dry_run=dry_run)
        told_verdict(update.verdict, always=dry_run)
        told_classes(update)
        told_changes(update)
        told_skipped(update.skipped)


def correct(
    name: Name,
    image: Annotated[
        str | None,
        typer.Argument(metavar="IMAGE", help="A file, or a remembered picture by its hash."),
    ] = None,
    label: Annotated[str | None, typer.Argument(metavar="LABEL", help="What it shows.")] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Correct all pictures of a CSV, JSONL or Parquet list."),
    ] = None,
    different: Annotated[
        bool | None,
        typer.Option(
            "--different/--all",
            help="Of a list only the rows that say something else than what is answered now, or "
            "all; without either, the former for a table that predict wrote.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overrule an earlier correction of the same picture.")
    ] = False,
    exception: Annotated[
        bool, typer.Option("--exception", help="Let it answer for its own neighbourhood only.")
    ] = False,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Say what a picture is; from now on it is answered so."""
    if source is not None and image is None:
        pairs = listed(source)
    elif source is None and image is not None and label is not None:
        pairs = [(image, label)]
    else:
        raise Mistake("give a picture and its label, or a list of them with --from")
    if source is None or different is None:
        different = source is not None and written_by_predict(source)
    with opened(name) as classifier, progress("correcting", quiet=as_json) as tick:
        if source is not None and different and classifier.labels:
            pairs = without_agreeing(classifier, pairs, source)
        update = classifier.correct_many(
            pairs,
            replace=replace,
            exception=exception,
            force=force,
            dry_run=dry_run,
            progress=finishing(tick),
        )
        known = set(classifier.labels) - set(update.new_classes)
    if not answered(update, as_json=as_json):
        headline(update, dry_run=dry_run)
        agreed = sum(each.before == each.label for each in update.corrected)
        if source is not None and agreed:
            line(f"answered so before: {agreed:,} of them")
        if update.verdict is not None and update.verdict.reason:
            line(f"not by an edit of the head: {clean(update.verdict.reason)}")
        told_verdict(update.verdict, always=dry_run)
        told_classes(update)
        told_changes(update)
    _told_near(name, update, known)


def forget(
    name: Name,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE", help="Remembered pictures, by file or by hash."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Every picture of this class; may be repeated.")
    ] = None,
    event: Annotated[
        list[int] | None, typer.Option(help="Every picture of this event; may be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Forget pictures, classes or events for good."""
    wanted = (images or [], label or [], event or [])
    with opened(name) as classifier:
        if not yes and not dry_run:
            samples = classifier.forget_preview(*wanted)
            if as_json or not sys.stdin.isatty():
                again = _typed(
                    "forget",
                    name,
                    *wanted[0],
                    *(part for each in wanted[1] for part in ("--label", each)),
                    *(part for each in wanted[2] for part in ("--event", str(each))),
                    *(["--json"] if as_json else []),
                    "--yes",
                )
                raise Mistake(
                    f"this would forget {counted(len(samples), 'picture')} for good, and there is "
                    f"nobody to ask; to do it: {again}"
                )
            _told_preview(name, samples)
            if not typer.confirm("Forget for good?", default=False, err=True):
                note("nothing was forgotten")
                raise typer.Exit(1)
        held()
        receipt = classifier.forget(*wanted, force=force, dry_run=dry_run)
    if not answered(receipt, as_json=as_json):
        line(f"{clean(receipt.summary)} ({receipt.seconds:.1f} s)", style="bold")
        told_verdict(receipt.verdict, always=dry_run)
        if receipt.event is None:
            return
        same = " with this extractor" if receipt.pending else ""
        line(
            f"level {receipt.level}: statistics and head are bit for bit those of a classifier"
            f"{same} that never saw {'it' if receipt.images == 1 else 'them'}; "
            f"{receipt.bytes_erased:,} bytes erased"
        )
        if receipt.gone_classes:
            line(f"classes gone: {', '.join(clean(each) for each in receipt.gone_classes)}")
        line(f"event {receipt.event}, digest {receipt.digest}")


def undo(
    name: Name,
    event: Annotated[
        int | None,
        typer.Argument(metavar="EVENT", help="Its number in the log; without it, the last event."),
    ] = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take back an event; undo the undo to have it again."""
    with opened(name) as classifier:
        held()
        update = classifier.undo(event, force=force, dry_run=dry_run)
    if not answered(update, as_json=as_json):
        headline(update, dry_run=dry_run)
        told_verdict(update.verdict, always=dry_run)
        told_classes(update)
        told_changes(update)
        if update.event is None:
            return
        line(f"to have it again: {_typed('undo', name, str(update.event))}")


def classes(
    name: Name,
    action: Annotated[
        Action | None,
        typer.Argument(metavar="rename|merge", help="Without it, the classes are listed."),
    ] = None,
    old: Annotated[
        str | None, typer.Argument(metavar="OLD", help="The class to rename or to merge.")
    ] = None,
    new: Annotated[
        str | None,
        typer.Argument(metavar="NEW", help="Its new name, or the class that takes it in."),
    ] = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """List the classes, rename one, or merge two."""
    with opened(name) as classifier:
        if action is None:
            found = classifier.classes()
            if not answered(found, as_json=as_json):
                table(
                    [Column("class"), Column("pictures", True), Column("corrected", True)],
                    [(each.label, f"{each.images:,}", each.pinned or "") for each in found],
                )
            return
        if old is None or new is None:
            raise Mistake(f"say which class and its new name: retain classes NAME {action} OLD NEW")
        held()
        if action is Action.merge:
            update = classifier.merge(old, new, force=force, dry_run=dry_run)
        elif force or dry_run:
            raise Mistake("a new name changes no answer; --force and --dry-run are for merge")
        else:
            update = classifier.rename(old, new)
    if not answered(update, as_json=as_json):
        headline(update, dry_run=dry_run)
        told_verdict(update.verdict, always=dry_run)
        told_changes(update)


def _refuse_class_folders(sources: Sequence[str], label: str, classes: Sequence[str]) -> None:
    """One label for folders that are called like other classes is hardly ever meant."""
    from retain.intake import checked_label, quoted
    from retain.vision.sources import folders_of

    others = set(classes) - {checked_label(label)}
    for source in sources:
        if found := folders_of(source, others):
            raise Mistake(
                f"{clean(source)} holds folders called like known classes ({quoted(found)}), and "
                f"--label would make all their pictures {label!r}; leave --label out to learn each "
                f"folder as its class, or, if it is meant, name the pictures: "
                f"{shlex.quote(os.path.join(source, '*', '*'))}"
            )


def _told_near(name: str, update: Update, known: Collection[str]) -> None:
    """Of each new class, the known one whose name it may be a slip of."""
    folded = {each.casefold(): each for each in sorted(known)}
    for label in update.new_classes:
        for near in difflib.get_close_matches(label.casefold(), folded, n=1, cutoff=_NEAR):
            again = f" To take it back: {_typed('undo', name)}" if update.event else ""
            note(
                f"note: {clean(label)!r} is a new class; did you mean {clean(folded[near])!r}?"
                f"{again}"
            )


def _told_preview(name: str, samples: Sequence[Sample]) -> None:
    note(f"to be forgotten for good by {clean(name)}: {counted(len(samples), 'picture')}")
    by_label: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        by_label[sample.label].append(sample.source or sample.image[:19])
    for label, sources in sorted(by_label.items()):
        few = ", ".join(clean(os.path.basename(source)) for source in sources[:3])
        more = f" and {len(sources) - 3:,} more" if len(sources) > 3 else ""
        note(f"  {clean(label)}: {counted(len(sources), 'picture')} ({few}{more})")


def _typed(*words: str) -> str:
    return shlex.join(["retain", *words])
