"""What backbones_incremental.py found: ours beside theirs, and the survey's findings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _backbone_peers import BESIDE, WITH

from retain.bench import Result


@dataclass(frozen=True)
class Row:
    """Of one method, by seed: accuracies in per cent, processor seconds to an epoch."""

    average: Mapping[int, float]
    last: Mapping[int, float]
    seconds: Mapping[int, float]
    failed: Mapping[int, str]

    def of(self, seeds: Collection[int]) -> Row:
        """The same of these seeds alone."""
        average, last, seconds, failed = (
            {seed: value for seed, value in each.items() if seed in seeds}
            for each in (self.average, self.last, self.seconds, self.failed)
        )
        return Row(average, last, seconds, failed)


def row(results: Sequence[Result], name: str, options: Mapping[str, Any], epochs: int) -> Row:
    """Of the results those of this method with these options."""
    average, last, seconds, failed = {}, {}, {}, {}
    for each in results:
        method = each["method"]
        if method["name"] != name or method["options"] != options:
            continue
        if each["status"] != "done":
            failed[each["seed"]] = each["reason"]
            continue
        steps = each["steps"]
        average[each["seed"]] = 100 * each["metrics"]["average_incremental_accuracy"]
        last[each["seed"]] = 100 * each["metrics"]["last_accuracy"]
        seconds[each["seed"]] = sum(step["cpu_s"] for step in steps) / len(steps) / epochs
    return Row(average, last, seconds, failed)


def told(values: Mapping[int, float]) -> str:
    """The mean, and the standard deviation over seeds where there are several."""
    if not values:
        return "–"
    numbers = list(values.values())
    spread = f" ± {np.std(numbers, ddof=1):.1f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.1f}{spread}"


def verdict(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """Whether ours is as accurate on the seeds that both have, within the spread of the seeds.

    Where one seed is there, no spread is known: then the difference is all that is told.
    """
    both = sorted(set(ours) & set(theirs))
    if not both:
        return ""
    apart = np.mean([ours[seed] - theirs[seed] for seed in both])
    text = f"{apart:+.1f}"
    if len(both) > 1:
        spreads = [np.std([each[seed] for seed in both], ddof=1) for each in (ours, theirs)]
        text += " yes" if apart >= -max(spreads) else " NO"
    return text


def beside(
    ours: Callable[[str], Row], theirs: Callable[[str], Row], names: Sequence[str]
) -> list[str]:
    """The table of all methods, in Markdown; beside each other on the orders that both have."""
    lines = [
        "| method | seeds | average | last | s/epoch | beside it | average | last | s/epoch "
        "| ours − theirs: average | last |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        mine, other = ours(name), theirs(name) if name in BESIDE else None
        if other is not None and (both := set(mine.average) & set(other.average)):
            mine, other = mine.of(both), other.of(both)
        cells = [name, str(len(mine.average)), told(mine.average), told(mine.last)]
        cells.append(told(mine.seconds))
        if other is not None:
            reason = next(iter(other.failed.values()), "")
            peer = BESIDE[name].name + (f" ({reason})" if reason and not other.average else "")
            cells += [peer, told(other.average), told(other.last), told(other.seconds)]
            cells += [verdict(mine.average, other.average), verdict(mine.last, other.last)]
        else:
            cells += [""] * 6
        if mine.average or (other is not None and other.average):
            lines.append("| " + " | ".join(cells) + " |")
    return lines


WEIGHTS, ANSWERS = ("ewc", "si", "mas", "rwalk", "online-ewc"), ("lwf", "lwm")
BIAS = ("bic", "lucir", "il2m", "wa", "eeil")
PLAIN = ("ft-exemplars", "lwf", "ewc", "icarl", "bic")


def findings(
    mean: Callable[[str], float | None],
    skipping: Callable[[str], float | None],
    plain: Callable[[str], float | None],
) -> list[str]:
    """What the survey found and what is found here, by average accuracies.

    Args:
        mean: of a method, None where it was not run.
        skipping: likewise, on the orders that `plain` has too.
        plain: likewise, with the network that has no skip connections.
    """
    with_pictures = [each + WITH for each in (*WEIGHTS, *ANSWERS)]
    lines = [
        _against(
            "1. without exemplars, keeping answers beats keeping weights", mean, ANSWERS, WEIGHTS
        ),
        _baseline(mean, (*BIAS, "icarl", "der++", "er", "gdumb", *with_pictures)),
        _against(
            "3. with exemplars, keeping weights beats keeping answers",
            mean,
            [each + WITH for each in WEIGHTS],
            [each + WITH for each in ANSWERS],
        ),
        _against(
            "4. correcting the bias beats not correcting it",
            mean,
            BIAS,
            ("ft-exemplars", "icarl"),
        ),
    ]
    pairs = {
        name: (with_, without)
        for name in PLAIN
        if (with_ := skipping(name)) is not None and (without := plain(name)) is not None
    }
    title = "5. skip connections change what methods reach, and not all alike"
    if len(pairs) < 2:
        return [*lines, f"{title}: not run"]
    apart = {name: with_ - without for name, (with_, without) in pairs.items()}
    order = [sorted(pairs, key=lambda name: -pairs[name][which]) for which in (0, 1)]
    text = ", ".join(
        f"{name} {with_:.1f} and {without:.1f}" for name, (with_, without) in pairs.items()
    )
    said = "yes" if max(apart.values()) - min(apart.values()) > 2 else "NO"
    same = "the same" if order[0] == order[1] else "another"
    return [*lines, f"{title}: {said} (with and without: {text}; {same} order of methods)"]


def _baseline(mean: Callable[[str], float | None], others: Sequence[str]) -> str:
    title = "2. fine-tuning with exemplars beats many methods that do more"
    own = mean("ft-exemplars")
    found = {name: value for name in others if (value := mean(name)) is not None}
    if own is None or not found:
        return f"{title}: not run"
    beaten = [name for name, value in found.items() if value < own]
    said = "yes" if 2 * len(beaten) >= len(found) else "NO"
    names = f": {', '.join(beaten)}" if beaten else ""
    return f"{title}: {said} ({own:.1f} is more than {len(beaten)} of {len(found)} reach{names})"


def _against(
    title: str,
    mean: Callable[[str], float | None],
    better: Sequence[str],
    worse: Sequence[str],
) -> str:
    one = {name: value for name in better if (value := mean(name)) is not None}
    other = {name: value for name in worse if (value := mean(name)) is not None}
    if not one or not other:
        return f"{title}: not run"
    means = [float(np.mean(list(each.values()))) for each in (one, other)]
    tops = [max(each, key=lambda name: each[name]) for each in (one, other)]
    said = "yes" if means[0] > means[1] else "NO"
    return (
        f"{title}: {said} (means {means[0]:.1f} and {means[1]:.1f}; best {tops[0]} "
        f"{one[tops[0]]:.1f} and {tops[1]} {other[tops[1]]:.1f})"
    )
