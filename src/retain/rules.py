"""`gate` and `protect`: what the owner decrees, each an event like any other."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from retain.errors import BadOption, InputError, UnknownClass
from retain.intake import checked_label, named, quoted
from retain.session import Session
from retain.store import Assertion
from retain.values import Budgets, Update

__all__ = ["budgets", "protect", "set_budgets"]

# Every other budget is a share, or a chance, of at most 1.
_IN_NATS = frozenset({"calibration"})


def budgets(session: Session) -> Budgets:
    """What a change may cost, as the owner set it."""
    return Budgets(**session.store.rules().budgets)


def set_budgets(session: Session, values: Mapping[str, float]) -> Budgets:
    """See `Classifier.gate`."""
    known = {field.name for field in fields(Budgets)}
    for name, value in values.items():
        if name not in known:
            raise BadOption(f"there is no budget {name!r}; use {', '.join(sorted(known))}")
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise BadOption(f"the budget {name} is {value!r}; give a number of at least 0")
        if value > 1 and name not in _IN_NATS:
            raise BadOption(
                f"the budget {name} is {value:g}, which would be {value:.0%}; it is a share and at "
                f"most 1: {value / 100:g} is {value:g} %"
            )
    with session.writing("gate"):
        now = asdict(budgets(session))
        changed = {name: float(value) for name, value in values.items() if now[name] != value}
        if changed:
            session.decree("gate", detail=changed)
        return budgets(session)


def protect(session: Session, images: Sequence[str], labels: Sequence[str], *, off: bool) -> Update:
    """See `Classifier.protect`."""
    started = time.perf_counter()
    if not images and not labels:
        raise InputError("say what to protect: pictures, or --label for whole classes")
    with session.writing("protect"):
        head = session.mind.head
        present = set(head.classes) if head else set()
        classes = sorted({checked_label(label) for label in labels})
        for label in classes:
            if label not in present and not off:
                raise UnknownClass(
                    f"there is no class {label!r} to protect; the classes are: {quoted(present)}"
                )
        chosen = {s.image: s for s in (named(session.store, image) for image in images)}
        chosen = {image: s for image, s in chosen.items() if s.protected == off}
        held = session.store.rules().protected
        classes = [label for label in classes if (label in held) == off]
        event = None
        if chosen or classes:
            detail: dict[str, Any] = {"classes": classes} if classes else {}
            if off:
                detail["off"] = True
            assertions = [
                Assertion(s.image, s.label, s.pinned, s.exception, not off) for s in chosen.values()
            ]
            event = session.decree("protect", assertions, detail=detail)
        verb = "no longer protected" if off else "protected"
        parts = [f"{len(chosen)} {'picture' if len(chosen) == 1 else 'pictures'}"] * bool(chosen)
        parts += [f"class {label!r}" for label in classes]
        idle = "nothing changes: " + ("not protected" if off else "already protected")
        summary = f"{verb}: {', '.join(parts)}" if parts else idle
    return Update(event, "protect", summary, seconds=time.perf_counter() - started)
