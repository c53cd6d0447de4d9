"""Methods that need no pictures of earlier lessons, and may be given exemplars all the same."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

from retain.train.data import Data
from retain.train.lessons import Keeps, Lesson, Method
from retain.train.plan import Plan

__all__ = ["Holding", "Rehearsing"]


class Rehearsing(Method, ABC):
    """A method that works without exemplars, and with them as fine-tuning with exemplars does.

    Without them only the classes that arrive compete, and older parts of the head rest. With them
    all classes do, and the head learns freely: a penalty that held its older rows would keep them
    from finding their place among the newer ones (Masana 2020, §6.2).

    Attributes:
        exemplars: whether it is given them.
    """

    exemplars: bool

    @property
    def wants(self) -> Keeps:
        """See `Method`."""
        return "exemplars" if self.exemplars else self.keeps

    def _rehearses(self, lesson: Lesson) -> bool:
        """Whether old classes have a picture to be held by, where there are some."""
        return self.exemplars and bool(len(lesson.exemplars) or not lesson.before.classes)

    def material(self, lesson: Lesson) -> tuple[Data, tuple[str, ...], Plan]:
        """What is learned from, the classes that compete, and which layers learn."""
        if self._rehearses(lesson):
            return lesson.rehearsed, lesson.model.classes, Plan()
        among = lesson.competing(lesson.fresh)
        return lesson.fresh, among, lesson.sealed(Plan())


class Holding(Rehearsing, ABC):
    """One that measures how much each weight matters, and holds those that do.

    How firmly, and whether there are exemplars, has no part in what is measured.
    """

    measures: ClassVar[bool] = True
    free: ClassVar[frozenset[str]] = frozenset({"strength", "exemplars"})

    def held(self, lesson: Lesson, importance: Mapping[str, Any]) -> Mapping[str, Any]:
        """Of importances by the names of weights, those that a penalty is to hold."""
        if not self._rehearses(lesson):
            return importance
        head = f"{lesson.model.head}."
        return {name: each for name, each in importance.items() if not name.startswith(head)}
