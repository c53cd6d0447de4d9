"""Taking events back: whose may be, and all that came after one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import retain
from retain.errors import CannotUndo, RetainError
from retain.faces.server.problems import Problem, problem_of
from retain.faces.server.tokens import Who
from retain.values import Event

__all__ = ["restored", "undoable"]

_TEACHERS: Final = frozenset({"learn", "correct", "reference", "protect"})
"""What a teacher may do, and therefore take back; the rest is the owner's."""

# What a plain undo passes over, and what none can take back.
_LASTING: Final = frozenset({"undo", "purge"})
_FINAL: Final = frozenset({"forget", "purge"})


def undoable(classifier: retain.Classifier, event: int | None, who: Who) -> int | None:
    """The event that `undo` shall take back for somebody; the last one if `event` is None.

    Raises:
        Problem: if it is one that only the owner may take back (403).
    """
    if who.may("owner"):
        return event
    log = {each.event: each for each in classifier.log()}
    if event is None:
        left = (e for e in reversed(log.values()) if not e.undone and e.kind not in _LASTING)
        event = next((each.event for each in left), None)
    # What cannot be undone at all is said by who undoes it.
    if event in log and not _may(log, log[event], who) and log[event].kind not in _FINAL:
        raise Problem(
            403,
            "Forbidden",
            f"event {event} is the owner's ({_origin(log, log[event]).kind}), and so is taking it "
            f"back; to take back an earlier one, name it",
        )
    return event


def restored(
    classifier: retain.Classifier, event: int, who: Who, *, force: bool = False
) -> dict[str, Any]:
    """Take back every event after one: all that can be, or none where one fails.

    What only the owner may take back stays where somebody else asks.

    Raises:
        RetainError: whatever kept an event from being taken back; then nothing has changed.
        Problem: if besides, what had been taken back could not be brought back; it says what.
    """
    log = {each.event: each for each in classifier.log()}
    if event > max(log, default=0):
        classifier.show(event)
    later = [each for each in reversed(log.values()) if each.event > event and not each.undone]
    undone: list[int] = []
    kept: list[int] = []
    steps: list[int] = []
    for each in later:
        if each.kind == "undo" and (each.target or 0) > event:
            continue
        if each.kind == "forget" or not _may(log, each, who):
            kept.append(each.event)
            continue
        try:
            step = classifier.undo(each.event, force=force).event
            undone.append(each.event)
            steps += [] if step is None else [step]
        except CannotUndo:
            # Nothing is left of it, for every picture was forgotten since.
            kept.append(each.event)
        except Exception as error:
            # Half a restoration is no state that anybody asked for.
            _bring_back(classifier, steps, error)
            raise
    owners = any(
        log[number].kind not in _FINAL and not _may(log, log[number], who) for number in kept
    )
    whose = " by you" if owners else ""
    but = f", but for {len(kept)} that cannot be taken back{whose}" if kept else ""
    return {
        "event": classifier.event,
        "undone": undone,
        "kept": kept,
        "summary": f"as after event {event}{but}",
    }


def _bring_back(classifier: retain.Classifier, steps: Sequence[int], error: Exception) -> None:
    """Undo what a restoration did before it failed."""
    for done, step in enumerate(reversed(steps)):
        try:
            classifier.undo(step, force=True)
        except RetainError as again:
            left = ", ".join(map(str, reversed(steps[: len(steps) - done])))
            raise Problem(
                problem_of(error, {}).status,
                type(error).__name__,
                f"the restoration stopped half way ({type(error).__name__}), and what it had done "
                f"could not be taken back either ({type(again).__name__}); to be where it began, "
                f"undo these events in this order: {left}",
            ) from error


def _may(log: Mapping[int, Event], event: Event, who: Who) -> bool:
    return who.may("owner") or _origin(log, event).kind in _TEACHERS


def _origin(log: Mapping[int, Event], event: Event) -> Event:
    """What an event does or takes back: of an undo, and an undo of that, what the first undid."""
    while event.kind == "undo":
        event = log[event.target or 0]
    return event
