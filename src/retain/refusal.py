"""Saying no: what the gate found, and what its owner can do instead."""

from __future__ import annotations

import time
from dataclasses import replace

from retain.errors import GateRefused
from retain.values import Check, Update, Verdict

__all__ = ["UNWEIGHED", "concluded", "forced", "refuse"]

_NAMED = 5

# What else can be done, by what was refused and by verb, besides forcing it and other budgets.
_BY_CHECK = {
    "protected": "lift the protection with retain protect --off",
    "evidence": "let more pictures judge with --held-out 0.3 (held_out=0.3), or learn more first",
    "labels": "leave out or relabel the pictures in doubt",
    "new class": "give the new class more pictures",
    "correction": "let the picture answer for its own neighbourhood only with --exception",
}
_BY_VERB = {
    "learn": "see which pictures with --dry-run (dry_run=True)",
    "correct": "see which pictures with --dry-run (dry_run=True)",
    "forget": "see what would happen with --dry-run (dry_run=True)",
    "adapt": "see which pictures with --dry-run (dry_run=True)",
    "promote": "look at the pictures with retain diff",
}
# These weigh nothing but what is protected: other budgets would not let them pass.
UNWEIGHED = frozenset({"undo", "merge", "rollback", "reference"})


def refuse(update: Update) -> None:
    """Raise if the gate's verdict on an update is no.

    Raises:
        GateRefused: with the verdict, the update, and the choices its owner has.
    """
    verdict = update.verdict
    if verdict is None or verdict.passed:
        return
    failed = [check for check in verdict.checks if not check.passed]
    choices = _choices(update.kind, failed)
    suspects = ", ".join(
        f"{each.source or each.image} (labelled {each.label!r}, looks like {each.looks_like!r})"
        for each in verdict.suspects[:_NAMED]
    )
    looked = f". The most suspicious pictures: {suspects}" if suspects else ""
    reasons = "; ".join(check.sentence for check in failed)
    raise GateRefused(
        f"the gate refuses, and nothing has changed: {reasons}{looked}. What you can do: "
        f"{'; '.join(choices)}",
        verdict,
        update,
        choices,
    )


def _choices(verb: str, failed: list[Check]) -> tuple[str, ...]:
    found = [_BY_VERB[verb]] if verb in _BY_VERB else []
    found += [
        _BY_CHECK[name] for name in dict.fromkeys(c.name for c in failed) if name in _BY_CHECK
    ]
    found.append(f"{verb} all the same with --force (force=True)")
    if verb not in UNWEIGHED:
        found.append("set other budgets with retain gate")
    return tuple(found)


def concluded(update: Update, event: int | None, started: float) -> Update:
    """The update as it is reported: with its event, if one was written, and the seconds it took."""
    verdict = update.verdict
    if event is not None:
        verdict = forced(verdict)
    seconds = time.perf_counter() - started
    return replace(update, event=event, verdict=verdict, seconds=seconds)


def forced(verdict: Verdict | None) -> Verdict | None:
    """The verdict on a change that was made: marked where it was made in spite of it."""
    if verdict is None or verdict.passed:
        return verdict
    return replace(verdict, forced=True)
