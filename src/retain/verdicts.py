"""What the gate is given and what it says, as frozen values; `retain.values` shows them too."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Budgets", "Check", "Suspect", "Verdict", "Version"]


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a change may cost before the gate refuses it; every number is the owner's to set.

    Attributes:
        regressions: share of the remembered pictures that are answered right and would be
            answered wrong, in all, 0 to 1.
        class_regressions: the same within one class.
        new_class_accuracy: what a new class with five pictures or more must reach, by
            leave-one-out.
        calibration: how much the negative log-likelihood of the remembered pictures may grow, in
            nats.
        agreement: share of the reference pictures of an adopted classifier that would be answered
            otherwise than now.
        correction: share of the remembered and reference pictures that the edit of the head for
            one correction may make worse (one is always allowed); beyond, the picture becomes an
            exception.
        wrong_labels: how improbable the disagreement of a lesson's labels with what was known must
            be for them to be called wrong.

    >>> Budgets(regressions=0.01).class_regressions
    0.1
    """

    regressions: float = 0.02
    class_regressions: float = 0.1
    new_class_accuracy: float = 0.3
    calibration: float = 0.25
    agreement: float = 0.02
    correction: float = 0.005
    wrong_labels: float = 0.01


@dataclass(frozen=True, slots=True)
class Version:
    """The state right after an event: that event, when (UTC, ISO 8601), what, and its aliases."""

    event: int
    kind: str
    at: str
    summary: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the gate looked at: what it found, in a sentence, and whether it lets pass."""

    name: str
    passed: bool
    sentence: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A picture whose label what was known contradicts: `looks_like` has that probability."""

    image: str
    label: str
    looks_like: str
    probability: float
    source: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of a change.

    Attributes:
        passed: whether every check lets it pass.
        checks: what was looked at.
        suspects: pictures of a lesson that are probably labelled wrong, the surest first.
        judged: how many remembered pictures were compared.
        left_out: how many of them by a head that never saw them.
        rung: ``"learn"``, ``"pin"`` or ``"exception"``: how far up the ladder `correct` went.
        reason: why not a lower rung, if one was refused.
        forced: whether the change was made in spite of it.
    """

    passed: bool
    checks: tuple[Check, ...]
    suspects: tuple[Suspect, ...] = ()
    judged: int = 0
    left_out: int = 0
    rung: str = ""
    reason: str = ""
    forced: bool = False

    @property
    def sentences(self) -> tuple[str, ...]:
        """What it found, what refuses first."""
        ordered = sorted(self.checks, key=lambda check: check.passed)
        return tuple(check.sentence for check in ordered)
