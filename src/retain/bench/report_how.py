"""The parts of the report about the runs themselves: what failed, how each was run, how to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from retain.bench.comparing import label_of
from retain.bench.peers import PEERS
from retain.bench.report_data import Family, measures
from retain.markup import Html, el, section

__all__ = ["broken", "environments", "methods_run", "reading"]

_SAID = {
    "average_incremental_accuracy": "The mean, over the steps, of the accuracy on all test "
    "pictures of the classes seen so far. It is not the mean over tasks after the last task.",
    "balanced_incremental_accuracy": "The mean, over the steps, of the mean over classes of their "
    "accuracy: what the measure before is where every class has as many test pictures.",
    "last_accuracy": "The accuracy on all test pictures after the last step.",
    "forgetting": "For each task but the last: its best accuracy at any earlier step less its "
    "accuracy at the end; the mean of these.",
    "backward_transfer": "For each task but the last: its accuracy at the end less that when it "
    "was learned; the mean of these. Negative where later tasks cost earlier ones.",
    "forward_transfer": "Accuracy on a task before it is learned, against guessing.",
    "intransigence": "Accuracy on a task when it is learned by joint training, less that of the "
    "method: what keeping the old costs the new.",
    "recency_bias": "How much more or less often a step's new classes are answered than they "
    "occur: the mean over the steps of how far that is from even, either way.",
    "negative_flips_per_update": "Test pictures that were answered rightly before an update and "
    "wrongly after it, per update.",
    "negative_flip_rate": "The same as a share of the test pictures asked before and after.",
    "corrections_kept": "The share of all corrections that still hold at the end.",
    "nll": "The mean negative log-likelihood of the right class, in nats.",
    "ece": "Expected calibration error: how far stated probabilities are from shares of right "
    "answers.",
    "auroc_unseen": "How well known classes are told from those not yet seen: 50 % is guessing.",
    "wall_s_per_update": "Wall time of a step's learning, features at hand; judging not included.",
    "cpu_s_per_update": "Processor time of the same.",
    "peak_memory_bytes": "The most memory held while learning.",
    "stored_bytes": "Everything needed to go on learning.",
    "harmonic": "The harmonic mean of accuracy on old and on new classes: high only if both are.",
}


def broken(grouped: Sequence[Family]) -> Html | None:
    """Every run that did not finish, with its reason."""
    rows = [(family, each) for family in grouped for each in family.broken]
    if not rows:
        return None
    told: dict[tuple[str, str, str, str], list[str]] = {}
    for family, each in rows:
        key = (label_of(each), family.title, each["status"], str(each.get("reason")))
        told.setdefault(key, []).append(str(each["seed"]))
    body = [
        el(
            "tr",
            el("th", label, scope="row"),
            el("td", stream),
            el("td", ", ".join(seeds)),
            el("td", status, class_="bad" if status == "failed" else None),
            el("td", reason or "no reason was given", class_="reason"),
        )
        for (label, stream, status, reason), seeds in sorted(told.items())
    ]
    return section(
        "What did not run",
        "Failed: it was started and ended with an error, or would not install. Unsupported: the "
        "method cannot do what the stream asks.",
        _plain_table("Runs without a result", ["method", "stream", "seeds", "", "reason"], body),
    )


def reading(shown: Sequence[Family]) -> Html:
    """What each column means."""
    held = {each.key: each for family in shown for each in measures(family)}
    body = [
        el("tr", el("th", each.title, scope="row"), el("td", _SAID.get(key, ""), class_="reason"))
        for key, each in held.items()
    ]
    content = section(
        "How to read this",
        "Exact definitions and their sources are in docs/benchmarks.md. A dash is a number that "
        "the run does not have; it is never nought. Methods that work on features all have the "
        "same. Whether the backbone saw test pictures, or others of their classes, when it was "
        "trained was not examined here.",
        _plain_table("What the columns mean", ["column", "meaning"], body),
    )
    return el("div", content, id="reading")


def methods_run(shown: Sequence[Family]) -> Html:
    """For every method what it is, where it comes from, and the command."""
    parts = []
    for family in shown:
        body = []
        for each in family.entries:
            run = next(iter(each.runs.values()))
            body.append(
                el(
                    "tr",
                    el("th", each.label, scope="row"),
                    el("td", each.title, class_="reason"),
                    el("td", each.source or "–", class_="reason"),
                    el("td", ", ".join(map(str, each.runs))),
                    el("td", el("code", command(run)), class_="reason"),
                )
            )
        title = f"{family.title}: {family.kind}"
        heads = ["method", "what it is", "source", "seeds", "command of its first run"]
        parts.append(el("details", el("summary", title), _plain_table(title, heads, body)))
    return section("How each was run", "One line for each method, by stream.", parts)


def command(run: Mapping[str, Any]) -> str:
    """The command that repeats a run.

    >>> command({"stream": {"name": "a-s0"}, "method": {"name": "slda"}, "seed": 0})
    'retain bench run a-s0.json --method slda --seed 0'
    """
    method = run["method"]
    name, stream = str(method["name"]), f"{run['stream']['name']}.json"
    options = "".join(
        f" --option {name}={value}" for name, value in sorted((method.get("options") or {}).items())
    )
    tail = f"--seed {run['seed']}{options}"
    if name.partition(":")[0] in PEERS:
        return f"python -m retain.bench.peers {stream} {name} --python ENVIRONMENT {tail}"
    return f"retain bench run {stream} --method {name} {tail}"


def environments(results: Sequence[Mapping[str, Any]]) -> Html:
    """Where the runs were made: a line for each environment, whatever the date."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for each in results:
        held = {k: v for k, v in (each.get("environment") or {}).items() if k != "date"}
        found.setdefault(json.dumps(held, sort_keys=True), []).append(each)
    body = []
    for text, runs in found.items():
        held = json.loads(text)
        dates = sorted(str((r.get("environment") or {}).get("date") or "")[:10] for r in runs)
        names = sorted({str(each["method"]["name"]) for each in runs})
        body.append(
            el(
                "tr",
                el("th", f"{len(runs)} runs", scope="row"),
                el("td", ", ".join(f"{k} {held[k]}" for k in held if held[k]), class_="reason"),
                el("td", dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"),
                el("td", ", ".join(names), class_="reason"),
            )
        )
    heads = ["", "environment", "date", "methods"]
    return section("Where", None, _plain_table("Environments", heads, body))


def _plain_table(caption: str, heads: Sequence[str], body: Sequence[Html]) -> Html:
    return el(
        "div",
        el(
            "table",
            el("caption", caption),
            el("thead", el("tr", [el("th", each, scope="col") for each in heads])),
            el("tbody", body),
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )
