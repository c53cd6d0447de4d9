"""The gate: before and after on everything remembered, held against what the owner allows.

It compares two states and says what it finds in sentences with numbers and confidence bounds. What
got worse is held against what got better, and counts against a change only where even the lower
bound of the 95 % interval is above the budget: a small memory is no proof of harm. What is
protected, and every pin, has no budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retain.algebra import REFERENCE, Start
from retain.caches import State
from retain.chances import bounds, net_bounds
from retain.doubts import Lesson, doubted
from retain.jury import FEWEST, Judged
from retain.pairing import Pairs
from retain.values import Budgets, Check, Sample, Suspect, Verdict

__all__ = ["Lesson", "judge", "paired", "watch"]

_CONFIDENCE = 0.95
_FEWEST_LOSSES = 30
_NAMED = 5


@dataclass(frozen=True, slots=True)
class _Flip:
    sample: Sample
    before: str
    after: str


def judge(
    pairs: Pairs,
    said: tuple[Judged, Judged],
    budgets: Budgets,
    *,
    protected: Collection[str] = (),
    changed: Collection[str] = (),
    lesson: Lesson | None = None,
    renamed: Mapping[str, str] | None = None,
    edits: int = 0,
    start: Start | None = None,
) -> Verdict:
    """Whether a change may be made.

    Args:
        pairs: the state as it is, and as it would be.
        said: what the pictures that can be left out are answered by either (`jury.judged`).
        budgets: what a change may cost.
        protected: classes that must never get worse.
        changed: pictures whose own label the change sets; they are not among the judges.
        lesson: labelled pictures that come in, whose labels are to be doubted.
        renamed: old → new names of classes, where only the name differs.
        edits: how many corrections the head is edited for.
        start: the layer that was adopted, if one was.
    """
    old, new = said
    names = renamed or {}
    before, after = pairs.before, pairs.after
    judges, moved = _judges(pairs, old, new, changed, names)
    flips = [flip for flip in moved if flip.before == flip.sample.label != flip.after]
    gains = Counter(f.after for f in moved if f.before != f.sample.label == f.after)
    checks = [_pins(after)]
    checks += _protected(pairs, flips, protected, names)
    checks += [
        _regressions(judges, flips, gains, budgets),
        *_by_class(judges, flips, gains, budgets),
    ]
    checks += _new_classes(before, after, new, budgets)
    checks += _calibration(changed, old, new, budgets)
    checks += _agreement(pairs, names, budgets, start)
    if edits:
        checks += _disturbance(pairs, changed, edits, budgets)
    suspects: tuple[Suspect, ...] = ()
    if lesson is not None and before.mind.head is not None:
        found, suspects = doubted(before, old, lesson, budgets, start)
        checks += found
    return Verdict(
        passed=all(check.passed for check in checks),
        checks=tuple(checks),
        suspects=suspects,
        judged=len(judges),
        left_out=len(old.losses.keys() & new.losses.keys() - set(changed)),
    )


def paired(
    pairs: Pairs, said: tuple[Judged, Judged], changed: Collection[str] = ()
) -> tuple[int, int, int]:
    """How many judges are answered right no more, how many now are, and how many judge.

    Args:
        pairs: the state as it is, and as it would be.
        said: what the pictures that can be left out are answered by either (`jury.judged`).
        changed: pictures that are not among the judges.
    """
    judges, moved = _judges(pairs, *said, changed, {})
    lost = sum(flip.before == flip.sample.label != flip.after for flip in moved)
    gained = sum(flip.before != flip.sample.label == flip.after for flip in moved)
    return lost, gained, len(judges)


def _judges(
    pairs: Pairs,
    old: Judged,
    new: Judged,
    changed: Collection[str],
    names: Mapping[str, str],
) -> tuple[list[Sample], list[_Flip]]:
    """The pictures that judge, and those of them that are answered otherwise."""
    before, after = pairs.before, pairs.after
    if not before.answers or not after.answers:
        return [], []
    judges, flips = [], []
    for i, j in pairs.rows:
        was, sample = before.samples[i], after.samples[j]
        image, label = sample.image, sample.label
        if label == REFERENCE or image in changed:
            continue
        if was is not sample and names.get(was.label, was.label) != label:
            continue
        judges.append(sample)
        said, now = before.answers[i], after.answers[j]
        # A picture that is left out of one state alone would seem to get worse, or better, by that.
        if image in old.answers and image in new.answers:
            said, now = old.answers[image], new.answers[image]
        if said != now:
            flips.append(_Flip(sample, names.get(said, said), now))
    return judges, flips


def watch(
    pairs: Pairs,
    *,
    protected: Collection[str] = (),
    renamed: Mapping[str, str] | None = None,
) -> Verdict:
    """Whether a change leaves alone what must never get worse; nothing else is weighed.

    For what only takes back or joins what its owner named: there no budget says no, but what is
    protected has none.

    Args:
        pairs: the state as it is, and as it would be.
        protected: classes that must never get worse, by the names they have after.
        renamed: old → new names of classes.
    """
    checks = _protected(pairs, (), protected, renamed or {})
    watched = sum(sample.protected for sample in pairs.after.samples)
    return Verdict(all(check.passed for check in checks), tuple(checks), judged=watched)


def _pins(after: State) -> Check:
    pins = [(s, a) for s, a in zip(after.samples, after.answers, strict=False) if s.pinned]
    broken = [sample for sample, answer in pins if answer != sample.label]
    if not broken:
        aside = len(after.yielding)
        note = f", {aside} of them as exceptions, since no head was found that satisfies all"
        return Check(
            "corrections", True, f"all {len(pins)} corrections hold{note if aside else ''}"
        )
    return Check(
        "corrections",
        False,
        f"{len(broken)} of {len(pins)} corrections would not hold any more, first "
        f"{broken[0].source} ({broken[0].label!r})",
        value=float(len(broken)),
        limit=0.0,
    )


def _protected(
    pairs: Pairs,
    flips: Sequence[_Flip],
    classes: Collection[str],
    names: Mapping[str, str],
) -> list[Check]:
    """What is protected is held to what `predict` answers, and to left-out answers besides."""
    watched = [s for s in pairs.after.samples if s.protected]
    if not watched and not classes:
        return []
    lost: dict[str, tuple[Sample, str]] = {}
    for sample, said, now in pairs.changes():
        was = names.get(said, said)
        # A reference picture has no label: what it was answered is what it must go on being.
        right = was if sample.label == REFERENCE else sample.label
        if (sample.protected or right in classes) and was == right != now:
            lost[sample.image] = sample, right
    for flip in flips:
        if flip.sample.label in classes:
            lost.setdefault(flip.sample.image, (flip.sample, flip.sample.label))
    if not lost:
        what = f"{len(watched)} protected pictures and {len(classes)} protected classes"
        return [Check("protected", True, f"nothing protected gets worse ({what})", 0.0, limit=0.0)]
    first = list(lost.values())[:_NAMED]
    listed = ", ".join(f"{sample.source} ({right!r})" for sample, right in first)
    return [
        Check(
            "protected",
            False,
            f"{_pictures(len(lost))} that must never get worse would: {listed}",
            value=float(len(lost)),
            limit=0.0,
        )
    ]


def _regressions(
    judges: Sequence[Sample], flips: Sequence[_Flip], gains: Counter[str], budgets: Budgets
) -> Check:
    lost, gained, n = len(flips), gains.total(), len(judges)
    low, high = net_bounds(lost, gained, n, _CONFIDENCE)
    sentence = (
        f"{lost:,} of {n:,} remembered pictures would be answered wrong that are right now, and "
        f"{gained:,} right that are wrong now ({_net(lost - gained, n, low, high)}; the budget is "
        f"{budgets.regressions:.1%})"
    )
    net = (lost - gained) / max(n, 1)
    return Check(
        "regressions", low <= budgets.regressions, sentence, net, low, high, budgets.regressions
    )


def _by_class(
    judges: Sequence[Sample], flips: Sequence[_Flip], gains: Counter[str], budgets: Budgets
) -> list[Check]:
    if not flips:
        return []
    sizes, lost = Counter(s.label for s in judges), Counter(f.sample.label for f in flips)
    confidence = 1.0 - (1.0 - _CONFIDENCE) / max(len(sizes), 1)
    found = []
    for label, count in lost.most_common():
        low, high = net_bounds(count, gains[label], sizes[label], confidence)
        if low > budgets.class_regressions:
            to = Counter(f.after for f in flips if f.sample.label == label).most_common(1)[0][0]
            net = count - gains[label]
            found.append(
                Check(
                    "class regressions",
                    False,
                    f"class {label!r} would lose {count} of {sizes[label]} pictures, most of them "
                    f"to {to!r}, and gain {gains[label]} ({_net(net, sizes[label], low, high)}; "
                    f"the budget for a class is {budgets.class_regressions:.1%})",
                    net / sizes[label],
                    low,
                    high,
                    budgets.class_regressions,
                )
            )
    return found


def _new_classes(before: State, after: State, new: Judged, budgets: Budgets) -> list[Check]:
    had = set(before.mind.head.classes) if before.mind.head else set()
    if not had or after.mind.head is None:
        return []
    found = []
    for label in sorted(set(after.mind.head.classes) - had):
        given = [s for s in after.samples if s.label == label and not s.pinned]
        own = [sample for sample in given if sample.image in new.losses]
        if len(given) < FEWEST:
            continue
        if len(own) < FEWEST:
            sentence = (
                f"the new class {label!r} could not be judged: of its {len(given)} pictures "
                f"{len(own)} can be left out"
            )
            found.append(Check("new class", True, sentence))
            continue
        right = sum(new.answers[sample.image] == label for sample in own)
        low, high = bounds(right, len(own), _CONFIDENCE)
        sentence = (
            f"the new class {label!r} is recognised in {right} of {len(own)} pictures when each is "
            f"left out ({_share(right, len(own), low, high)}; at least "
            f"{budgets.new_class_accuracy:.0%} is wanted)"
        )
        passed = high >= budgets.new_class_accuracy
        limit = budgets.new_class_accuracy
        found.append(Check("new class", passed, sentence, right / len(own), low, high, limit))
    return found


def _calibration(
    changed: Collection[str], old: Judged, new: Judged, budgets: Budgets
) -> list[Check]:
    shared = sorted(old.losses.keys() & new.losses.keys() - set(changed))
    grown = np.array([new.losses[image] - old.losses[image] for image in shared])
    if len(grown) < _FEWEST_LOSSES:
        return []
    mean = float(grown.mean())
    error = 1.96 * float(grown.std(ddof=1)) / float(np.sqrt(len(grown)))
    sentence = (
        f"the negative log-likelihood of the remembered pictures changes by {mean:+.3f} nats (95 % "
        f"between {mean - error:+.3f} and {mean + error:+.3f}; the budget is "
        f"{budgets.calibration:+.2f})"
    )
    passed = mean - error <= budgets.calibration
    return [
        Check(
            "calibration", passed, sentence, mean, mean - error, mean + error, budgets.calibration
        )
    ]


def _disturbance(
    pairs: Pairs, changed: Collection[str], edits: int, budgets: Budgets
) -> list[Check]:
    """What an edit of the head costs, counted as it is: the next rung costs nothing."""
    lost = sum(
        sample.label in (REFERENCE, was) and sample.image not in changed
        for sample, was, _ in pairs.changes()
    )
    known = pairs.before.rows
    asked = len(known) - sum(image in known for image in changed)
    allowed = edits * max(1, int(budgets.correction * asked))
    share = lost / max(asked, 1)
    sentence = (
        f"the edit of the head would change {lost:,} of {asked:,} remembered answers for the "
        f"worse ({share:.1%}; {allowed:,} are allowed)"
    )
    return [Check("correction", lost <= allowed, sentence, share, limit=budgets.correction)]


def _agreement(
    pairs: Pairs,
    names: Mapping[str, str],
    budgets: Budgets,
    start: Start | None,
) -> list[Check]:
    """The reference has no labels: what it was answered is what it should go on being answered.

    But between adopted classes that have labelled pictures now, those decided, by leave-one-out,
    that answers should move.
    """
    after = pairs.after
    if REFERENCE not in after.statistics.classes:
        return []
    asked = sum(after.samples[j].label == REFERENCE for _, j in pairs.rows)
    if not asked:
        return []
    taught = _taught(after, start)
    flips = [
        (names.get(was, was), now)
        for sample, was, now in pairs.changes()
        if sample.label == REFERENCE
    ]
    moved = sum(was != now and not {was, now} <= taught for was, now in flips)
    low, high = bounds(moved, asked, _CONFIDENCE)
    sentence = (
        f"{moved:,} of {asked:,} reference pictures would be answered otherwise "
        f"({_share(moved, asked, low, high)}; the budget is {budgets.agreement:.1%})"
    )
    share = moved / asked
    passed = low <= budgets.agreement
    return [Check("agreement", passed, sentence, share, low, high, budgets.agreement)]


def _taught(state: State, start: Start | None) -> set[str]:
    """Adopted classes with labelled pictures enough to be left out, where those move their rows."""
    tuning = state.mind.tuning
    if start is None or tuning is None or (tuning.extension or {}).get("prior") is None:
        return set()
    counts = zip(state.statistics.classes, state.statistics.counts, strict=True)
    return {label for label, count in counts if count > 1} & set(start.classes)


def _share(hits: int, n: int, low: float, high: float) -> str:
    return f"{hits / max(n, 1):.1%}, with 95 % confidence {low:.1%} to {high:.1%}"


def _net(net: int, n: int, low: float, high: float) -> str:
    return f"net {net / max(n, 1):+.1%}, with 95 % confidence {low:+.1%} to {high:+.1%}"


def _pictures(count: int) -> str:
    return f"{count} picture" if count == 1 else f"{count} pictures"
