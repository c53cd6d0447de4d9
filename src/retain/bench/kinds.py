"""The kinds of streams, each made from a pool and a seed.

Every maker draws from one generator seeded by the seed alone, over classes in sorted order and
pictures in the order of the pool: the same pool, kind, options and seed give the same stream
everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retain.bench.pools import Pool
from retain.bench.streams import Step, Stream, Task, check_stream
from retain.errors import BadOption

__all__ = ["KINDS", "make_stream"]

Rows = NDArray[np.intp]


def make_stream(kind: str, pool: Pool, seed: int = 0, **options: Any) -> Stream:
    """A stream of one kind; each maker says what its options are.

    Args:
        kind: one of `KINDS`.
        pool: what it is made from.
        seed: of the order of classes and pictures, and of what is drawn.
        **options: as the maker of this kind takes them.

    Raises:
        BadOption: if there is no such kind or option, or the pool does not allow it.
    """
    if kind not in KINDS:
        raise BadOption(f"there is no kind of stream {kind!r}; use {', '.join(KINDS)}")
    if seed < 0:
        raise BadOption(f"a seed of {seed} is not possible; use 0 or more")
    maker = KINDS[kind]
    known = inspect.signature(maker).parameters
    for name, value in options.items():
        if name not in list(known)[2:]:
            raise BadOption(
                f"streams of kind {kind} have no option {name!r}; "
                f"use {', '.join(list(known)[2:]) or 'none'}"
            )
        usual = known[name].default
        if usual is not None and not _like(value, usual):
            raise BadOption(
                f"{name} must be {_called(type(usual))}, not {value!r} (by default {usual!r})"
            )
    stream = maker(pool, seed, **options)
    check_stream(stream, pool)
    return stream


def class_incremental(pool: Pool, seed: int, first: int = 10, step: int = 10) -> Stream:
    """Classes arrive in tasks: `first` of them, then `step` at a time.

    What is left at the end joins the last task if it is less than half a task: 101 classes by 10
    are ten tasks, the last of 11.
    """
    random = np.random.default_rng(seed)
    order = _order(pool, random)
    groups = _groups(order, first, step)
    steps = [
        Step("learn", _shuffled(_train(pool, group), random), group, f"task {number}")
        for number, group in enumerate(groups)
    ]
    size = f"{first}+{step}" if first != step else f"{step}"
    return _stream(
        "class-incremental",
        f"inc{size}x{len(steps)}",
        pool,
        seed,
        steps,
        {"first": first, "step": step},
    )


def few_shot(pool: Pool, seed: int, new: int = 20, shots: int = 1) -> Stream:
    """All classes but `new` with all their pictures; then those, with `shots` pictures each."""
    classes = pool.classes
    _at_least(1, new=new, shots=shots)
    if new >= len(classes):
        raise BadOption(f"{new} new classes of {len(classes)} leave no old one; use fewer")
    random = np.random.default_rng(seed)
    arriving = [str(each) for each in random.permutation(np.array(classes))[:new]]
    old, few = [], []
    for label in classes:
        rows = _train(pool, (label,))
        if label not in arriving:
            old += list(rows)
        elif len(rows) < shots:
            raise BadOption(f"{label} has {len(rows)} training pictures, fewer than {shots}")
        else:
            few += list(random.choice(rows, shots, replace=False))
    founding = tuple(label for label in classes if label not in arriving)
    steps = [
        Step("learn", _shuffled(old, random), founding, "old classes, all pictures"),
        Step("learn", _shuffled(few, random), tuple(arriving), f"new classes, {shots} each"),
    ]
    return _stream("few-shot", f"few{new}x{shots}", pool, seed, steps, {"new": new, "shots": shots})


def new_instances(pool: Pool, seed: int, steps: int = 10) -> Stream:
    """All classes from the start; each brings a part of its pictures at every step."""
    random = np.random.default_rng(seed)
    _at_least(1, steps=steps)
    parts: list[list[int]] = [[] for _ in range(steps)]
    for label in _order(pool, random):
        rows = random.permutation(_train(pool, (label,)))
        # Where a class has fewer pictures than there are steps, the first steps have them.
        for part, some in zip(parts, np.array_split(rows, steps), strict=True):
            part += list(some)
    made = _learning(pool, [_shuffled(part, random) for part in parts])
    return _stream("new-instances", f"ni{steps}", pool, seed, made, {"steps": steps})


def blurry(
    pool: Pool, seed: int, tasks: int = 10, disjoint: float = 0.5, mixed: float = 0.1
) -> Stream:
    """Tasks with blurred borders: i-Blurry-N-M of Koh et al. 2022 (arXiv:2110.10031).

    A share `disjoint` of the classes (N) appears in one task only; of every other class a share
    `mixed` of the pictures (M) is spread over the other tasks. With ``disjoint=0`` all are blurred.
    """
    _share(disjoint=disjoint, mixed=mixed)
    _at_least(2, tasks=tasks)
    random = np.random.default_rng(seed)
    order = _order(pool, random)
    if tasks > len(order):
        raise BadOption(f"{tasks} tasks of {len(order)} classes are not possible; use fewer")
    alone = set(order[: round(disjoint * len(order))])
    parts: list[list[int]] = [[] for _ in range(tasks)]
    homes = random.permutation(np.arange(len(order)) % tasks)
    for label, home in zip(order, homes, strict=True):
        rows = random.permutation(_train(pool, (label,)))
        astray = 0 if label in alone else round(mixed * len(rows))
        parts[home] += list(rows[astray:])
        for row in rows[:astray]:
            parts[int((home + random.integers(1, tasks)) % tasks)].append(int(row))
    made = _learning(pool, [_shuffled(part, random) for part in parts])
    return _stream(
        "blurry",
        f"blurry{round(100 * disjoint)}-{round(100 * mixed)}x{tasks}",
        pool,
        seed,
        made,
        {"tasks": tasks, "disjoint": disjoint, "mixed": mixed},
    )


def long_tail(
    pool: Pool, seed: int, imbalance: float = 10.0, first: int = 10, step: int = 10
) -> Stream:
    """Class-incremental, with counts that fall off exponentially (Liu et al. 2022, 2210.00266).

    The commonest class keeps all its pictures, the rarest one in `imbalance`; which is which is
    drawn apart from the order of arrival ("shuffled").
    """
    if imbalance < 1:
        raise BadOption(f"an imbalance of {imbalance} is not possible; use 1 (none) or more")
    random = np.random.default_rng(seed)
    order = _order(pool, random)
    ranks = random.permutation(len(order))
    kept = {}
    for label, rank in zip(order, ranks, strict=True):
        rows = random.permutation(_train(pool, (label,)))
        share = imbalance ** (-rank / max(len(order) - 1, 1))
        kept[label] = rows[: max(1, round(share * len(rows)))]
    steps = [
        Step("learn", _shuffled(np.concatenate([kept[label] for label in group]), random), group)
        for group in _groups(order, first, step)
    ]
    return _stream(
        "long-tail",
        f"tail{imbalance:g}x{len(steps)}",
        pool,
        seed,
        steps,
        {"imbalance": imbalance, "first": first, "step": step},
    )


def corrections(pool: Pool, seed: int, start: float = 0.5, steps: int = 10) -> Stream:
    """A share `start` of every class is learned; the rest are candidates for corrections.

    A candidate is asked when its turn comes, and corrected only if the answer is wrong, one picture
    at a time. The candidates are training pictures: what happens to others is judged on the test
    pictures, which are never corrected.
    """
    _share(start=start)
    _at_least(1, steps=steps)
    random = np.random.default_rng(seed)
    order = _order(pool, random)
    taught, rest = [], []
    for label in order:
        rows = random.permutation(_train(pool, (label,)))
        cut = min(len(rows), max(1, round(start * len(rows))))
        taught += list(rows[:cut])
        rest += list(rows[cut:])
    if len(rest) < steps:
        raise BadOption(f"{len(rest)} pictures are left to correct, fewer than {steps} steps")
    parts = np.array_split(random.permutation(np.array(rest, dtype=np.intp)), steps)
    made = [Step("learn", _shuffled(taught, random), order, "the start")]
    made += [Step("correct", _ints(part), (), "candidates") for part in parts]
    return _stream(
        "corrections", f"correct{steps}", pool, seed, made, {"start": start, "steps": steps}
    )


def deletions(
    pool: Pool, seed: int, steps: int = 10, share: float = 0.02, classes: int = 1
) -> Stream:
    """Everything is learned, then pictures are forgotten: `share` of them a step; then classes.

    The last step forgets the whole of `classes` classes.
    """
    _at_least(0, steps=steps, classes=classes)
    _share(share=share)
    random = np.random.default_rng(seed)
    order = _order(pool, random)
    gone, staying = order[:classes], order[classes:]
    if not staying or not steps + classes:
        raise BadOption(f"{steps} steps and {classes} of {len(order)} classes: nothing to do")
    everything = _train(pool, order)
    made = [Step("learn", _shuffled(everything, random), order, "everything")]
    # One picture of every class stays, so that a class goes only where the last step says so.
    safe = {int(random.choice(_train(pool, (label,)))) for label in order}
    loose = random.permutation([row for row in everything if int(row) not in safe])
    count = max(1, round(share * len(everything)))
    if count * steps > len(loose):
        raise BadOption(f"{steps} steps of {count} pictures are more than there are; use fewer")
    for number in range(steps):
        part = loose[number * count : (number + 1) * count]
        made.append(Step("forget", _ints(part), (), f"{count} pictures"))
    if gone:
        already = set(loose[: steps * count].tolist())
        rest = [row for row in _train(pool, gone).tolist() if row not in already]
        made.append(Step("forget", _ints(rest), (), "all of " + ", ".join(gone)))
    return _stream(
        "deletions",
        f"delete{steps}+{classes}",
        pool,
        seed,
        made,
        {"steps": steps, "share": share, "classes": classes},
    )


def domain_shift(pool: Pool, seed: int, groups: int = 5) -> Stream:
    """The domains arrive in `groups`, in a random order; a task is the test pictures of a group.

    The domains are those of the pool (who sent the picture, or how it was corrupted). A pool of
    corruptions begins with the clean pictures, and each corruption is a group of its own.
    """
    if pool.domains is None:
        raise BadOption(
            f"{pool.name} says nothing about domains; give an .npz with an array domains, or add "
            f"corruptions: {pool.name}.npz+gaussian-noise:3+contrast:3"
        )
    random = np.random.default_rng(seed)
    test = np.flatnonzero(~pool.train & np.isin(pool.labels, pool.classes))
    named = sorted({str(each) for each in pool.domains})
    if "clean" in named:
        shifted = [str(each) for each in random.permutation([n for n in named if n != "clean"])]
        chosen = [["clean"], *([each] for each in shifted)]
    else:
        _at_least(2, groups=groups)
        if groups > len(named):
            raise BadOption(f"{len(named)} domains do not make {groups} groups; use fewer")
        drawn = random.permutation(np.array(named))
        chosen = [[str(each) for each in part] for part in np.array_split(drawn, groups)]
    parts: list[tuple[int, ...]] = []
    tasks: list[Task] = []
    for part in chosen:
        inside = np.isin(pool.domains, part)
        rows = np.flatnonzero(inside & pool.train)
        if len(rows) == 0:
            continue
        asked = test[inside[test]]
        if len(asked):
            tasks.append(Task(len(parts), _ints(asked)))
        parts.append(_shuffled(rows, random))
    steps = _learning(pool, parts)
    return _stream(
        "domain-shift", f"shift{len(steps)}", pool, seed, steps, {"groups": groups}, tuple(tasks)
    )


def joint(pool: Pool, seed: int) -> Stream:
    """Everything at once."""
    order = _order(pool, np.random.default_rng(seed))
    steps = [Step("learn", _ints(_train(pool, order)), order, "everything at once")]
    return _stream("joint", "joint", pool, seed, steps, {})


KINDS: Final[dict[str, Callable[..., Stream]]] = {
    "class-incremental": class_incremental,
    "few-shot": few_shot,
    "new-instances": new_instances,
    "blurry": blurry,
    "long-tail": long_tail,
    "corrections": corrections,
    "deletions": deletions,
    "domain-shift": domain_shift,
    "joint": joint,
}
"""Every kind of stream by name."""


# -- parts of makers ---------------------------------------------------------------------------


def _order(pool: Pool, random: np.random.Generator) -> tuple[str, ...]:
    return tuple(str(each) for each in random.permutation(np.array(pool.classes)))


def _groups(order: tuple[str, ...], first: int, step: int) -> list[tuple[str, ...]]:
    _at_least(1, first=first, step=step)
    if first > len(order):
        raise BadOption(f"a first task of {first} classes is more than the {len(order)} there are")
    starts = [0, *range(first, len(order), step)]
    if len(starts) > 1 and 2 * (len(order) - starts[-1]) < step:
        starts.pop()
    return [order[a:b] for a, b in zip(starts, [*starts[1:], len(order)], strict=True)]


def _train(pool: Pool, classes: tuple[str, ...]) -> Rows:
    rows: Rows = np.flatnonzero(pool.train & np.isin(pool.labels, classes))
    return rows


def _learning(pool: Pool, parts: list[tuple[int, ...]]) -> list[Step]:
    """Steps that learn the parts; each says which classes come with it, in order of arrival."""
    known: dict[str, None] = {}
    steps = []
    for part in parts:
        if part:
            labels = dict.fromkeys(str(pool.labels[row]) for row in part)
            came = tuple(label for label in labels if label not in known)
            known |= labels
            steps.append(Step("learn", part, came))
    return steps


def _stream(
    kind: str,
    short: str,
    pool: Pool,
    seed: int,
    steps: list[Step],
    options: Mapping[str, Any],
    tasks: tuple[Task, ...] = (),
) -> Stream:
    order = tuple(label for step in steps for label in step.new_classes)
    test = np.flatnonzero(~pool.train & np.isin(pool.labels, order))
    name = f"{pool.name}-{short}-s{seed}".replace(":", "")
    return Stream(
        name, kind, pool.name, pool.digest, seed, options, order, tuple(steps), _ints(test), tasks
    )


def _shuffled(rows: Rows | list[int], random: np.random.Generator) -> tuple[int, ...]:
    return _ints(random.permutation(np.array(rows, dtype=np.intp)))


def _ints(rows: Any) -> tuple[int, ...]:
    return tuple(int(row) for row in rows)


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise BadOption(f"{name} of {value} is not possible; use {least} or more")


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise BadOption(f"{name} of {value} is not a share; use 0 to 1")


def _like(value: Any, usual: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) if isinstance(usual, float) else type(value) is int


def _called(kind: type) -> str:
    return "a whole number" if kind is int else "a number"
