"""What the owner of a classifier decides: its budgets, what is protected, names, and versions."""

from __future__ import annotations

from collections.abc import Sequence

from retain import rules, unlearning
from retain.reader import Reader
from retain.values import Budgets, Update
from retain.versions import PRODUCTION, promote, rollback

__all__ = ["Owner"]


class Owner(Reader):
    """The verbs that teach nothing; its one heir is `Classifier`."""

    def gate(self, **values: float) -> Budgets:
        """What a change may cost before it is refused; with arguments, set it.

        Args:
            **values: fields of `Budgets`, such as ``regressions=0.01``.

        Raises:
            BadOption: if there is no such budget, or its value is impossible.
        """
        if not values:
            return rules.budgets(self._session)
        return rules.set_budgets(self._session, values)

    def protect(
        self,
        images: Sequence[str] | str = (),
        labels: Sequence[str] | str = (),
        *,
        off: bool = False,
    ) -> Update:
        """Say which remembered pictures and which classes must never get worse.

        No change that would make one of them wrong passes the gate, whatever the budgets.

        Args:
            images: files, hashes, first digits of hashes, or names of files they came from.
            labels: whole classes.
            off: lift the protection instead.

        Raises:
            UnknownImage, UnknownClass: if a name stands for nothing.
        """
        pictures, classes, _ = unlearning.lists(images, labels, ())
        return rules.protect(self._session, pictures, classes, off=off)

    def rename(self, old: str, new: str) -> Update:
        """Give a class another name.

        Raises:
            UnknownClass: if there is no class `old`.
            BadLabel: if there is a class `new` already.
        """
        return unlearning.rename(self._session, old, new)

    def merge(self, old: str, into: str, *, force: bool = False, dry_run: bool = False) -> Update:
        """Make two classes one.

        Args:
            old: the class that goes.
            into: the class that gets its pictures.
            force: merge even if something protected gets worse.
            dry_run: only say what would happen.

        Raises:
            GateRefused: if something protected would get worse.
            UnknownClass: if either does not exist.
        """
        return unlearning.merge(self._session, old, into, force=force, dry_run=dry_run)

    def promote(
        self,
        version: int | str | None = None,
        alias: str = PRODUCTION,
        *,
        force: bool = False,
        dry_run: bool = False,
    ) -> Update:
        """Let an alias stand for a version, if the gate agrees that it is no worse.

        Args:
            version: an event's number or an alias; by default the latest.
            alias: such as ``"production"`` or ``"candidate"``.
            force: promote even if the gate refuses.
            dry_run: only say what would happen.

        Raises:
            UnknownEvent: if there is no such version.
            GateRefused: if it would cost more than the budgets allow.
        """
        return promote(self._session, version, alias, force=force, dry_run=dry_run)

    def rollback(
        self, alias: str = PRODUCTION, *, force: bool = False, dry_run: bool = False
    ) -> Update:
        """Let an alias stand for the version that it stood for before.

        Args:
            alias: such as ``"production"``.
            force: go back even if something protected gets worse.
            dry_run: only say what would happen.

        Raises:
            GateRefused: if something protected would get worse.
            CannotUndo: if it has stood for one version only.
        """
        return rollback(self._session, alias, force=force, dry_run=dry_run)
