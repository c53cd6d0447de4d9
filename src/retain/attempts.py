"""Training tried on a classifier's own pictures, as far as a budget of time goes.

What is tried follows from the number of pictures, the network and the budget alone, counted in
multiplications of a nominal machine, and not from the clock: so the same question has the same
answer wherever it is asked. The clock only ends what takes several times as long as was asked for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from numpy.typing import NDArray

from retain import training
from retain.advice import Choice, Part
from retain.algebra import HeadOptions, quantize, tuning_sample
from retain.caches import Features
from retain.errors import BadOption, Refused
from retain.expecting import Known, folds_of
from retain.remembered import prepared
from retain.session import Session
from retain.training import Course
from retain.trials import Gain, crossed, folds, gained, right
from retain.values import Progress, Sample

if TYPE_CHECKING:
    from retain.train.plan import Plan
    from retain.train.probing import Remains
    from retain.train.recipe import Recipe

__all__ = ["Attempts", "attempt", "begun_anew"]

NOMINAL: Final = 25e9
"""Multiplications a second of the machine that budgets are counted for: two cores, about."""

# How many times the budget, or a minute, may pass before what is left is left out.
_PATIENCE: Final = 4.0

_MOST: Final = 2_000
_VERSIONS: Final = 3
_FOR_LAST_BLOCK: Final = 0.4

# Forwards, and twice that backwards.
_STEP: Final = 3

# Below this side nothing is made smaller.
_LEAST_SIDE: Final = 64

# What begins anew is tried from so many pictures of a class on, where no more than this part of
# what is beyond chance is right.
_ANEW_FROM: Final = 50
_ANEW_BELOW: Final = 0.6


@final
@dataclass(frozen=True, slots=True)
class Attempts:
    """What trials told.

    Attributes:
        gains: of the choices that were tried.
        how: in words.
        network: the blocks of the network.
        picture: seconds that a picture takes forwards, as measured; None where nothing was.
        notes: what a person should know.
    """

    gains: Mapping[Choice, Gain] = field(default_factory=dict)
    how: Mapping[Choice, str] = field(default_factory=dict)
    network: tuple[Part, ...] = ()
    picture: float | None = None
    notes: tuple[str, ...] = ()


def begun_anew() -> tuple[Plan, Recipe]:
    """How a network begins again: everything random, statistics of batches counted anew."""
    from retain import train

    return train.Plan.preset("from-scratch", batchnorm="trained"), train.transfer(rate=0.05)


def attempt(
    session: Session,
    made: Course,
    known: Known,
    *,
    minutes: float,
    module: Any,
    progress: Progress | None,
) -> Attempts:
    """Try what trains, the cheapest first, as far as the budget goes; nothing is written.

    Args:
        session: the classifier.
        made: a course of all of the network, with nothing held out.
        known: what is known of its pictures.
        minutes: the budget, on the nominal machine.
        module: for a network of a class of the user's own, one of it.
        progress: called as ``progress(done, total)``, in pictures' worth of work.
    """
    from retain.train import probing

    shape = (made.rule.channels, made.rule.height, made.rule.width)
    cost = probing.multiply_adds(made.model, shape)
    network = tuple(Part(each.name, each.parameters) for each in probing.parts(made.model))
    run = _Run(session, made, known, module, cost, minutes, progress)
    if run.afford > 0:
        run.last_block()
        run.whole()
    return Attempts(run.gains, run.how, network, run.picture, tuple(run.notes))


@final
class _Run:
    """The trials of one call, one after the other."""

    def __init__(
        self,
        session: Session,
        made: Course,
        known: Known,
        module: Any,
        cost: int,
        minutes: float,
        progress: Progress | None,
    ) -> None:
        self.session, self.made, self.known, self.module = session, made, known, module
        self.options = HeadOptions.from_dict(session.store.manifest.options)
        self.afford = int(60 * minutes * NOMINAL / cost)  # pictures forwards
        self.total, self.done, self.progress = self.afford, 0, progress
        self.until = time.monotonic() + 60 * _PATIENCE * max(minutes, 1.0)
        self.gains: dict[Choice, Gain] = {}
        self.how: dict[Choice, str] = {}
        self.notes: list[str] = []
        self.picture: float | None = None
        each = (1 + _VERSIONS) / _FOR_LAST_BLOCK
        self.samples = _some(made.learned, min(_MOST, int(self.afford / each)))
        self.labels = [sample.label for sample in self.samples]
        largest = max(Counter(self.labels).values(), default=1)
        self.folds = min(folds_of(len(self.samples)), max(largest, 2))
        self.parts = folds(self.samples, self.folds)
        if len(self.samples) < len(made.learned):
            self.notes.append(
                f"tried on {len(self.samples):,} of the {len(made.learned):,} pictures, which is "
                f"what the budget allows"
            )

    # -- what is tried ---------------------------------------------------------------------------

    def last_block(self) -> None:
        """The last block, in all folds."""
        from retain.train import probing

        if len(self.samples) < 2 * self.known.classes:
            self.notes.append("the budget is too small to try anything")
            return
        data, began = self._data(self.made), time.monotonic()
        work = (1 + _VERSIONS) * len(self.samples)
        rest = probing.remains(
            self.made.model, data, self.made.recipe, _VERSIONS, self._ticking(work)
        )
        self._spent(work)
        if rest is None:
            self.notes.append(
                "the last block of this network cannot be trained apart from what is before it, "
                "so that was not tried"
            )
            return
        passes = len(rest.kept)
        self.picture = (time.monotonic() - began) / passes
        frozen = self._fixed(rest.frozen())
        self._compare("last-block", self.folds, frozen, lambda rows: self._behind(rest, rows))

    def whole(self) -> None:
        """All of the network, and all of it anew, in so many folds and pixels as can be paid."""
        from retain import train

        found = self._affordable()
        if found is None:
            self.notes.append("to try all of the network the budget is too small")
            return
        side, number = found
        try:
            made = self.made if side == self._side else self._smaller(side)
        except BadOption as error:
            self.notes.append(f"all of the network was not tried on smaller pictures: {error}")
            return
        data = self._data(made)
        from retain.train import probing

        frozen = self._fixed(probing.features(made.model, data.pictures, made.recipe.views))
        share = (side / self._side) ** 2
        plan = train.Plan.preset("full", batchnorm="frozen")
        self._compare(
            "full",
            number,
            frozen,
            lambda rows: self._training(made, data, rows, plan, made.recipe, share),
            side=side,
        )
        anew = self._per_fold(share)
        skill = (self.known.accuracy * self.known.classes - 1) / (self.known.classes - 1)
        if self.known.each < _ANEW_FROM or skill > _ANEW_BELOW or anew > self.afford:
            return
        plan, recipe = begun_anew()
        recipe = replace(recipe, views=made.recipe.views)
        self._compare(
            "start-again",
            min(number, int(self.afford / anew)),
            frozen,
            lambda rows: self._training(made, data, rows, plan, recipe, share),
            side=side,
        )

    def _compare(
        self,
        choice: Choice,
        number: int,
        frozen: Features,
        trained: Callable[[Sequence[int]], Features],
        side: int | None = None,
    ) -> None:
        """The gain of training in the first so many folds; nothing where training fails."""
        before: list[NDArray[np.bool_]] = []
        after: list[NDArray[np.bool_]] = []
        for fold in range(number):
            if time.monotonic() > self.until:
                self.notes.append(
                    f"{choice}: only {fold} of {number} folds were tried, for this machine is "
                    f"slower than budgets are counted for"
                )
                break
            rows = [int(row) for row in np.flatnonzero(self.parts != fold)]
            try:
                features = trained(rows)
            except Refused as error:
                self.notes.append(f"{choice}: {error}")
                return
            for found, given in ((before, frozen), (after, features)):
                judged, answers = crossed(fold, self.parts, given, self.labels, self.options)
                found.append(right(answers, judged, self.labels))
        if not before or not sum(map(len, before)):
            return
        was, now = np.concatenate(before), np.concatenate(after)
        gain = gained(was, now)
        smaller = side is not None and side < self._side
        if smaller:
            # Smaller pictures are harder; that part of the mistakes which goes is about the same.
            gain = gain.scaled((1 - self.known.accuracy) / max(1 - float(was.mean()), 0.01))
        self.gains[choice] = gain
        at = f" at {side} pixels" if smaller else ""
        self.how[choice] = (
            f"tried in {len(before)} of {self.folds} folds{at}: of {len(was):,} pictures that were "
            f"left out, {int(was.sum()):,} were right before and {int(now.sum()):,} after"
        )

    # -- how -------------------------------------------------------------------------------------

    def _behind(self, rest: Remains, rows: Sequence[int]) -> Features:
        recipe = self._lengthened(self.made.recipe, rows)
        return self._fixed(rest.trained(rows, recipe))

    def _training(
        self,
        made: Course,
        data: Any,
        rows: Sequence[int],
        plan: Plan,
        recipe: Recipe,
        share: float,
    ) -> Features:
        from retain.train import probing

        work = self._per_fold(share)
        recipe = self._lengthened(recipe, rows)
        found = probing.trained(made.model, data, rows, plan, recipe, self._ticking(work))
        self._spent(work)
        return self._fixed(found)

    def _lengthened(self, recipe: Recipe, rows: Sequence[int]) -> Recipe:
        """As many steps with the pictures of a fold as there will be with all of them."""
        return replace(recipe, epochs=round(recipe.epochs * len(self.samples) / len(rows)))

    def _data(self, made: Course) -> Any:
        return prepared(self.session, self.samples, made.rule)

    def _smaller(self, side: int) -> Course:
        return training.course(
            self.session, plan="full", size=side, held_out=0.0, module=self.module
        )

    def _fixed(self, found: NDArray[np.float32]) -> Features:
        """Features as the classifier would keep them."""
        if self.made.power != 1.0:
            found = np.copysign(np.abs(found) ** self.made.power, found)
        return quantize(found)[0]

    # -- the budget ------------------------------------------------------------------------------

    @property
    def _side(self) -> int:
        return max(self.made.rule.height, self.made.rule.width)

    def _per_fold(self, share: float) -> int:
        """The work of one fold of training everything, in pictures forwards."""
        return max(1, int(share * len(self.samples) * (_STEP * self.made.recipe.epochs + 1)))

    def _affordable(self) -> tuple[int, int] | None:
        """The side and the number of folds that can be paid; None where not even one can."""
        whole, square = self._side, self.made.rule.height == self.made.rule.width
        half = whole // 2 if square and whole // 2 >= _LEAST_SIDE else whole
        for side, number in (
            (whole, self.folds),
            (whole, 2),
            (half, self.folds),
            (whole, 1),
            (half, 2),
            (half, 1),
        ):
            if number * self._per_fold((side / whole) ** 2) <= self.afford:
                return side, number
        return None

    def _spent(self, work: int) -> None:
        self.afford -= work
        self.done += work

    def _ticking(self, work: int) -> Progress | None:
        """Progress of a piece of work as progress of the whole."""
        shown, done, total = self.progress, self.done, self.total
        if shown is None:
            return None
        return lambda part, of: shown(min(done + int(work * part / max(of, 1)), total), total)


def _some(samples: Sequence[Sample], most: int) -> tuple[Sample, ...]:
    """At most so many, of all classes in turn, whatever came first."""
    if len(samples) <= most:
        return tuple(samples)
    chosen = set(tuning_sample({each.image: each.label for each in samples}, most))
    return tuple(each for each in samples if each.image in chosen)
