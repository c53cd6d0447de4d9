"""The part of the report that shows whether learning step by step equals learning all at once.

Nothing is asserted: the digests and the figures stand side by side as the runs left them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retain.bench.report_data import Entry, Family, many
from retain.markup import Html, el, section

__all__ = ["Compared", "compared", "proof"]

_FIGURES = (
    "answers", "probabilities", "accuracy", "balanced", "nll", "ece", "auroc_unseen", "by_class"
)  # fmt: skip
# Streams at whose end every training picture was learned, whatever the seed.
_WHOLE = ("class-incremental", "new-instances", "blurry")
Step = Mapping[str, Any]


@dataclass(frozen=True)
class Compared:
    """One run of ours beside the joint one of the same stream and seed, if there is one.

    `same_digests` and `same_answers` count the steps of which both runs tell it and agree;
    `told_digests` and `told_answers` those of which both tell it at all.
    """

    stream: str
    pool: str
    label: str
    seed: int
    order: tuple[str, ...]
    images: int
    held: str | None
    digest: str
    last: Step
    joint: str | None
    joint_digest: str
    told_digests: int
    same_digests: int
    told_answers: int
    same_answers: int


def compared(shown: Sequence[Family]) -> list[Compared]:
    """Every run of ours that tells its state's digest, beside its joint run where there is one."""
    found = []
    for family in shown:
        told = [each for each in family.entries if each.ours]
        for entry in (each for each in told if not each.hindsight):
            joint = next((each for each in told if _joint_of(each, entry)), None)
            for seed, run in entry.runs.items():
                if run.get("steps") and run["steps"][-1].get("digest"):
                    found.append(_compare(family, entry, seed, run, joint))
    return found


def proof(shown: Sequence[Family]) -> Html:
    """The section: what holds, then every run with its digests."""
    rows = compared(shown)
    if not rows:
        body = section(
            "Step by step, or all at once",
            "None of these results tells the digest of its state, so nothing can be compared.",
        )
        return el("div", body, id="proof")
    body = section(
        "Step by step, or all at once",
        "The state of ours after the last step is hashed. If learning in pieces loses anything, or "
        "depends on the order, the digests differ. The answers are compared as well: the labels "
        "and every bit of the probabilities of all test pictures, by their hashes, and the figures "
        "made of them.",
        el("ul", [_claim(*each) for each in _claims(rows)], class_="claims"),
        el("h3", "Run by run"),
        _table(rows),
    )
    return el("div", body, id="proof")


def _joint_of(candidate: Entry, entry: Entry) -> bool:
    """Whether it is the same method with the same options, taught all at once."""
    joint = entry.name + "-joint"
    return candidate.hindsight and candidate.label == joint + entry.label[len(entry.name) :]


def _compare(
    family: Family, entry: Entry, seed: int, run: Mapping[str, Any], joint: Entry | None
) -> Compared:
    steps = run["steps"]
    other = joint.runs.get(seed, {}).get("steps", []) if joint else []
    pairs = list(zip(steps, other, strict=False))
    digests = [(a["digest"], b["digest"]) for a, b in pairs if a.get("digest") and b.get("digest")]
    answers = [_same_answers(a, b) for a, b in pairs]
    told = [each for each in answers if each is not None]
    return Compared(
        family.title,
        family.pool,
        entry.label,
        seed,
        tuple(run.get("order", ())),
        sum(int(each.get("images") or 0) for each in steps),
        _held(family, steps),
        str(steps[-1]["digest"]),
        steps[-1],
        joint.label if joint and other else None,
        str(other[-1].get("digest") or "") if other else "",
        len(digests),
        sum(a == b for a, b in digests),
        len(told),
        sum(told),
    )


def _held(family: Family, steps: Sequence[Step]) -> str | None:
    """Which pictures were held at the end; None where neither the run nor its kind says it."""
    told = steps[-1].get("held")
    return str(told) if told else "all" if family.kind in _WHOLE else None


def _same_answers(a: Step, b: Step) -> bool | None:
    shared = [key for key in _FIGURES if a.get(key) is not None and b.get(key) is not None]
    return all(a[key] == b[key] for key in shared) if shared else None


def _claims(rows: Sequence[Compared]) -> list[tuple[bool | None, str, str]]:
    return [_orders(rows), _steps(rows), _answers(rows)]


def _orders(rows: Sequence[Compared]) -> tuple[bool | None, str, str]:
    ends: dict[tuple[str, str, int, str], list[Compared]] = {}
    for row in rows:
        if row.held is not None:
            ends.setdefault((row.pool, row.label, row.images, row.held), []).append(row)
    groups = {key: each for key, each in ends.items() if len(each) > 1}
    title = "Every order ends in the same state."
    if not groups:
        return (
            None,
            title,
            "No two runs ended with the same pictures: nothing to compare.",
        )
    parts = []
    holds = True
    for (pool, label, images, _), members in groups.items():
        digests = {each.digest for each in members}
        holds &= len(digests) == 1
        orders = len({each.order for each in members})
        parts.append(
            f"{label} on {pool}, {images:,} pictures: {many(len(members), 'run')} in "
            f"{many(orders, 'order')}, {many(len(digests), 'digest')}"
        )
    return holds, title, "; ".join(parts) + "."


def _steps(rows: Sequence[Compared]) -> tuple[bool | None, str, str]:
    told, same = sum(r.told_digests for r in rows), sum(r.same_digests for r in rows)
    title = "The state is the one of learning everything at once."
    if not told:
        return None, title, "There is no joint run of ours that tells a digest among these results."
    return (
        told == same,
        title,
        f"After {same:,} of {many(told, 'step')} the digest is the one of a classifier that was "
        f"taught the same pictures in one go.",
    )


def _answers(rows: Sequence[Compared]) -> tuple[bool | None, str, str]:
    told, same = sum(r.told_answers for r in rows), sum(r.same_answers for r in rows)
    title = "So are its answers."
    if not told:
        return None, title, "There is no joint run of ours among these results."
    return (
        told == same,
        title,
        f"After {same:,} of {many(told, 'step')} every figure that both runs give is the same.",
    )


def _claim(holds: bool | None, title: str, words: str) -> Html:
    tone, said = ("good", "holds") if holds else ("bad", "FAILS")
    if holds is None:
        tone, said = "", "untested"
    return el(
        "li",
        el("span", said, class_=tone or None),
        el("div", el("strong", title), el("p", words)),
    )


def _table(rows: Sequence[Compared]) -> Html:
    body = []
    for row in rows:
        same = row.digest == row.joint_digest
        verdict = "no joint run" if row.joint is None else "the same" if same else "DIFFERENT"
        first = ", ".join(row.order[:3]) + (" …" if len(row.order) > 3 else "")
        body.append(
            el(
                "tr",
                el("th", row.stream, scope="row"),
                el("td", str(row.seed), class_="right"),
                el("td", row.label),
                el("td", first, title=", ".join(row.order)),
                el("td", _short(row.digest), class_="digest", title=row.digest),
                el(
                    "td",
                    _short(row.joint_digest) if row.joint_digest else "–",
                    class_="digest",
                    title=row.joint_digest or None,
                ),
                el(
                    "td",
                    verdict,
                    class_=None if row.joint is None else "good" if same else "bad",
                ),
                el("td", f"{row.same_digests} of {row.told_digests}", class_="right"),
                el("td", f"{row.same_answers} of {row.told_answers}", class_="right"),
                el("td", _figure(row.last.get("accuracy")), class_="right"),
                el("td", _figure(row.last.get("nll")), class_="right"),
            )
        )
    heads = [
        ("stream", False), ("seed", True), ("method", False), ("order begins", False),
        ("last digest", False),
        ("joint digest", False), ("", False), ("steps with equal digest", True),
        ("with equal answers", True), ("last accuracy", True), ("last NLL", True),
    ]  # fmt: skip
    caption = "Digests of the state after the last step"
    return el(
        "div",
        el(
            "table",
            el("caption", caption),
            el(
                "thead",
                el(
                    "tr",
                    [el("th", t, scope="col", class_="right" if r else None) for t, r in heads],
                ),
            ),
            el("tbody", body),
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _figure(value: object) -> str:
    return f"{value:.6f}" if isinstance(value, int | float) else "–"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
