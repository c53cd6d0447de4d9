"""The commands about training: adapt, purge, and advise, which says whether that pays."""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retain.faces.cli.common import DryRun, Force, Json, Name, answered, named_texts, opened
from retain.faces.cli.failures import Mistake
from retain.faces.cli.interrupting import finishing, held
from retain.faces.cli.output import Column, emit_json, line, note, table
from retain.faces.cli.progress import progress
from retain.faces.cli.telling import headline, told_changes, told_verdict
from retain.faces.text import clean, counted

if TYPE_CHECKING:
    from retain.train import Plan, Recipe, Rule
    from retain.train.plan import Table

__all__ = ["adapt", "advise", "purge"]


class Preset(enum.StrEnum):
    """Plans, as `retain.train.PRESETS` has them."""

    feature_extraction = "feature-extraction"
    head = "head"
    last_block = "last-block"
    gradual_unfreezing = "gradual-unfreezing"
    full = "full"
    lora = "lora"
    from_scratch = "from-scratch"


class BatchNorm(enum.StrEnum):
    """What becomes of batch normalisations."""

    frozen = "frozen"
    trained = "trained"


class Chosen(enum.StrEnum):
    """How exemplars are chosen."""

    herding = "herding"
    random = "random"
    entropy = "entropy"
    distance = "distance"


class Decay(enum.StrEnum):
    """How the rate moves."""

    one_cycle = "one-cycle"
    constant = "constant"
    cosine = "cosine"
    exponential = "exponential"
    step = "step"


def adapt(
    name: Name,
    preset: Annotated[Preset, typer.Option(help="Which layers learn.")] = Preset.full,
    last: Annotated[
        int | None, typer.Option(min=0, help="Only so many of the last blocks learn.")
    ] = None,
    copy_first: Annotated[
        int | None,
        typer.Option(
            min=0, help="So many of the first blocks are copied and kept; the rest begins anew."
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Layers or blocks that keep still; may be repeated."),
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Those that learn; may be repeated."),
    ] = None,
    reinit: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Those that begin anew; may be repeated."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Times through all pictures.")] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    schedule: Annotated[Decay | None, typer.Option(help="How the rate moves.")] = None,
    layer_decay: Annotated[
        float | None, typer.Option(help="What the rate is multiplied by, with each block down.")
    ] = None,
    head_rate: Annotated[
        float | None, typer.Option(help="What the rate of the head is multiplied by.")
    ] = None,
    batchnorm: Annotated[
        BatchNorm | None,
        typer.Option(help="Whether the statistics of batches count anew; frozen if not said."),
    ] = None,
    optimiser: Annotated[str | None, typer.Option(help="sgd, adam, adamw or rmsprop.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures to one step.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Another input size, in pixels.")] = None,
    held_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="The share of every class that judges.")
    ] = 0.1,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that is drawn; 0 if not said.")
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Anything else about the training: mixup=0.2, clip=none, averaging=ema, "
            "patience=3, …; may be repeated.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Go on from the network in force, by what is new, by this class-incremental "
            "method: lwf, icarl, ewc, joint, …"
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option of the method; may be repeated."),
    ] = None,
    new_only: Annotated[
        bool, typer.Option("--new-only", help="The same as --method finetuning.")
    ] = False,
    exemplars: Annotated[
        int | None,
        typer.Option(min=0, help="So many old pictures at most are learned again, of all classes."),
    ] = None,
    per_class: Annotated[int | None, typer.Option(min=0, help="So many of each class.")] = None,
    choice: Annotated[Chosen, typer.Option(help="Which of them.")] = Chosen.herding,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show the layers: what learns, at which rate.")
    ] = False,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let the feature extractor itself learn, and use it if that pays."""
    flags: dict[str, Any] = {"last": last, "copy_first": copy_first, "epochs": epochs, "rate": rate}
    flags |= {"schedule": schedule, "layer_decay": layer_decay, "head_rate": head_rate}
    flags |= {"batchnorm": batchnorm, "optimiser": optimiser, "batch": batch, "seed": seed}
    flags["rules"] = _rules(freeze, tune, reinit)
    chosen, how = _settled(preset, flags, named_texts(recipe, "--recipe"), method or new_only)
    by, memory = _method(method, option, new_only), _memory(exemplars, per_class, choice.value)
    if by is None and (option or memory is not None):
        raise Mistake("--option, --exemplars and --per-class are for a method; give --method too")
    with opened(name) as shop:
        if plan:
            _layers(shop.layers(chosen, recipe=how, size=size, method=by), how, as_json=as_json)
            return
        with progress("training", quiet=as_json) as tick:
            update = shop.adapt(
                chosen,
                recipe=how,
                size=size,
                held_out=held_out,
                method=by,
                memory=memory,
                force=force,
                dry_run=dry_run,
                progress=finishing(tick),
            )
    if not answered(update, as_json=as_json):
        headline(update, dry_run=dry_run)
        told_verdict(update.verdict, always=True)
        told_changes(update)
        if update.event is not None:
            line(f"to have the extractor before again: retain undo {clean(name)} {update.event}")


def advise(
    name: Name,
    budget: Annotated[
        float, typer.Option(min=0, metavar="MINUTES", help="For trials, about; 0 for none.")
    ] = 3.0,
    folder: Annotated[
        str | None,
        typer.Option(
            metavar="PICTURES", help="What will be asked: does it resemble what is taught?"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether to learn, correct, adapt or start again."""
    with opened(name) as shop, progress("trying", quiet=as_json) as tick:
        advice = shop.advise(budget=budget, folder=folder, progress=tick)
    if answered(advice, as_json=as_json):
        return
    first, *reasons = advice.sentences
    line(clean(first), style="bold")
    line()
    for sentence in reasons:
        line(clean(sentence))
    told = [each for each in advice.options if each.gain is not None]
    line()
    table(
        [
            Column("choice", style="bold"),
            Column("points", right=True),
            Column("90 %", right=True),
            Column("time", right=True),
            Column("risk", narrow="fold"),
        ],
        [
            (
                each.choice,
                f"{100 * (each.gain or 0):+.1f}",
                f"{100 * each.low:+.1f} to {100 * each.high:+.1f}"
                if each.low is not None and each.high is not None and each.low < each.high
                else "–",
                "–" if each.seconds is None else f"{each.seconds / 60:.1f} min",
                each.risk,
            )
            for each in told
        ],
    )
    for each in told:
        same = [other.choice for other in advice.options if other.why == each.why]
        if same[0] == each.choice:
            line(f"{', '.join(same)}: {clean(each.why)}")
    for remark in advice.notes:
        note(f"note: {clean(remark)}")


def _settled(
    preset: Preset, flags: Mapping[str, Any], more: Mapping[str, str], method: object
) -> tuple[Plan, Recipe]:
    """The plan and the recipe that flags and --recipe ask for."""
    from retain.train.named import settled

    said = {name: value for name, value in flags.items() if value is not None}
    for name in more:
        if name in said:
            flag = (
                "--freeze, --tune or --reinit" if name == "rules" else "--" + name.replace("_", "-")
            )
            raise Mistake(f"{flag} and --recipe {name} say the same thing; give one of them")
    if method and "smoothing" in more:
        raise Mistake(
            "--recipe smoothing is for the training without a method: methods have losses of their "
            "own; leave it out"
        )
    plain = {
        name: str(value) if isinstance(value, enum.Enum) else value for name, value in said.items()
    }
    return settled({**plain, **more}, preset.value)


def _rules(
    freeze: list[str] | None, tune: list[str] | None, reinit: list[str] | None
) -> tuple[Rule, ...] | None:
    from retain.train import Rule

    rules = [Rule(pattern, "frozen") for pattern in freeze or []]
    rules += [Rule(pattern, "fine-tuned") for pattern in tune or []]
    rules += [Rule(pattern, "re-initialised") for pattern in reinit or []]
    return tuple(rules) or None


def _method(name: str | None, option: list[str] | None, new_only: bool) -> Any:
    """The method that is meant; None for none."""
    from retain.train import methods

    if new_only and name not in (None, "finetuning"):
        raise Mistake(f"--new-only is the method finetuning, and --method {name} another; choose")
    if name is None and not new_only:
        return None
    return methods.make(name or "finetuning", **named_texts(option))


def _memory(total: int | None, per_class: int | None, choice: Any) -> Any:
    from retain.train import Budget, Memory

    if total is None and per_class is None:
        return None if choice == "herding" else Memory(choice=choice)
    return Memory(Budget(total, per_class), choice)


def purge(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even if an alias stands for a version of theirs.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Erase extractors that were trained with what is forgotten since."""
    with opened(name) as shop:
        found = shop.purge(force=force, dry_run=True)
        if found.pending and not dry_run:
            if not yes:
                if as_json or not sys.stdin.isatty():
                    more = " --force" if force else ""
                    raise Mistake(
                        f"{clean(found.summary)}, for good, and there is nobody to ask; to do it: "
                        f"retain purge {clean(name)}{more} --yes"
                    )
                line(clean(found.summary))
                if not typer.confirm("Purge for good?", default=False, err=True):
                    note("nothing was purged")
                    raise typer.Exit(1)
            held()
            found = shop.purge(force=force)
    if not answered(found, as_json=as_json):
        line(f"{clean(found.summary)} ({found.seconds:.1f} s)", style="bold")
        if found.event is not None:
            line(f"level {found.level}: {found.bytes_erased:,} bytes of extractors erased")
            line(f"event {found.event}, digest {found.digest}")


def _layers(rows: Table, recipe: Recipe, *, as_json: bool) -> None:
    """The table of layers."""
    for remark in rows.notes:
        note(f"note: {clean(remark)}")
    if as_json:
        emit_json([asdict(row) for row in rows])
        return
    gradual = any(row.since > 1 for row in rows if row.learning)
    table(
        [
            Column("block"),
            Column("layer"),
            Column("kind"),
            Column("parameters", right=True),
            Column("learn", right=True),
            Column("state"),
            Column("rate", right=True),
            *([Column("from epoch", right=True)] if gradual else []),
        ],
        (
            (
                clean(row.block),
                clean(row.layer),
                row.kind,
                f"{row.parameters:,}",
                f"{row.learning:,}",
                row.state or "",
                f"{recipe.rate * row.rate:.2g}" if row.rate else "–",
                *([str(row.since) if row.learning else "–"] if gradual else []),
            )
            for row in rows
        ),
    )
    every, learning = (sum(getattr(row, key) for row in rows) for key in ("parameters", "learning"))
    line(f"{learning:,} of {every:,} parameters learn, in {counted(recipe.epochs, 'epoch')}")
    if share := {row.kept for row in rows if row.state == "fine-tuned" and row.kept < 1}:
        line(f"what is fine-tuned before the head begins with {min(share):.0%} of its weights")
