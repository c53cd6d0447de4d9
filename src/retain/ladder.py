"""The ladder: of the ways to keep a promise, the first that the gate agrees with.

Learning a picture as a datum is the lowest rung, an edit of the head that satisfies it as a pin the
next, an exception the third: a stored picture that answers for its own neighbourhood only. A rung
is climbed only when the one below cannot be had or is refused, and the reason is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from retain.caches import State
from retain.errors import NotCorrected, PinConflict, Refused
from retain.values import Verdict

__all__ = ["Climbed", "climb"]


@dataclass(frozen=True, eq=False, slots=True)
class Climbed:
    """How far up it went: the rung, the state it leads to, and the verdict."""

    rung: str
    state: State
    verdict: Verdict


def climb(
    rungs: Sequence[tuple[str, Callable[[], State]]],
    judge: Callable[[str, State], Verdict],
    *,
    force: bool = False,
) -> Climbed:
    """Try rungs, the lowest first.

    Args:
        rungs: name and way to the state, each.
        judge: the gate, asked of a rung and its state.
        force: stop at the lowest rung that can be had, whatever the gate says.

    Returns:
        The first rung whose verdict lets it pass; where none does, the lowest that can be had.

    Raises:
        PinConflict, NotCorrected: if no rung can be had at all.
    """
    refused: Climbed | None = None
    conflict: Refused | None = None
    for name, make in rungs:
        try:
            state = make()
        except (PinConflict, NotCorrected) as error:
            conflict = conflict or error
            continue
        reason = str(conflict) if conflict else refused.verdict.sentences[0] if refused else ""
        verdict = replace(judge(name, state), rung=name, reason=reason)
        found = Climbed(name, state, verdict)
        if verdict.passed or force:
            return found
        refused = refused or found
    if refused is None:
        raise conflict or PinConflict("there is no way to satisfy the correction")
    return refused
