"""The facade: one method per verb, on one directory.

Every verb that changes something reads the same way (see `teaching` and `unlearning`): gather what
was given, work out the state as it would be, check the promise, write one event, let the new state
take the old one's place. Nothing is written before the new state is known to be good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, final

from retain import correcting, teaching, training, unlearning
from retain.owner import Owner
from retain.store import acting
from retain.values import Progress, Receipt, Update

__all__ = ["Classifier"]


@final
class Classifier(Owner):
    """A living image classifier: a directory that learns, answers, corrects, forgets and undoes.

    Made by `create` and `open`; a context manager. Several processes may read while one writes.
    Pictures are named by file, or, when remembered, by their hash, its first six or more digits,
    or the name of the file they came from.
    """

    # -- what changes the classifier ----------------------------------------------------------

    def acting(self, name: str) -> AbstractContextManager[None]:
        """Let the changes this thread makes inside be recorded as made by `name`.

        >>> import tempfile, retain
        >>> with retain.create(tempfile.mkdtemp() + "/shop", extractor="vectors:2") as shop:
        ...     with shop.acting("anna"):
        ...         _ = shop.learn([[1.0, 0.1]], "mug")
        ...     shop.log()[0].actor
        'anna'
        """
        return acting(name)

    def learn(
        self,
        source: Any,
        labels: Sequence[str] | str | None = None,
        *,
        strict: bool = False,
        force: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Update:
        """Learn labelled pictures, of old classes or new ones.

        The result is the same, bit for bit, in whatever order and batches they come. A known
        picture with the same label changes nothing; with another label it is relabelled.

        Args:
            source: a folder of class folders, a CSV/JSONL/Parquet manifest (`path,label`), or
                pictures (paths, uint8 arrays [h, w, 3], or float vectors [n, d]) with `labels`.
            labels: one per picture, or one for all.
            strict: refuse everything if one file cannot be used.
            force: learn even if the gate refuses.
            dry_run: only say what would happen.
            progress: called as ``progress(done, total)``.

        Raises:
            InputError: if nothing can be used, or with `strict` if something cannot.
            GateRefused: if it would cost more than the budgets allow, or labels are probably
                wrong; nothing has changed then.
        """
        return teaching.learn(
            self._session,
            source,
            labels,
            strict=strict,
            force=force,
            dry_run=dry_run,
            progress=progress,
        )

    def reference(
        self,
        source: Any,
        *,
        force: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Update:
        """Take in typical pictures without labels; for a classifier that was adopted.

        They stand for everything its makers taught it: new classes are told apart from them, and
        the gate watches that they go on being answered as they were.

        Args:
            source: pictures, as for `predict`; a few hundred are enough.
            force: take them in even if something protected gets worse.
            dry_run: only say what would happen.
            progress: called as ``progress(done, total)``.

        Raises:
            BadOption: if the classifier was not adopted.
            GateRefused: if something protected would get worse.
            InputError: if nothing can be used.
        """
        return teaching.reference(
            self._session, source, force=force, dry_run=dry_run, progress=progress
        )

    def correct(
        self,
        image: Any,
        label: str,
        *,
        replace: bool = False,
        exception: bool = False,
        force: bool = False,
        dry_run: bool = False,
    ) -> Update:
        """Say what a picture is; from now on it is answered so.

        The picture is learned, or relabelled if it is known. If that alone does not do it, the
        head is edited as little as possible (see `algebra.pins`); if the gate refuses that, the
        picture becomes an exception, which answers for its own neighbourhood only (see
        `algebra.exceptions`). Checked, through the path that `predict` takes, before anything is
        written.

        Args:
            image: a file, bytes or an array; or the name of a remembered picture.
            label: what it is; may be a new class.
            replace: take the place of an earlier correction of the same picture.
            exception: make it an exception at once.
            force: correct even if the gate refuses.
            dry_run: only say what would happen.

        Returns:
            What was corrected, and every remembered picture whose answer changed.

        Raises:
            PinConflict: if an earlier correction says otherwise.
            NotCorrected: if the promise cannot be kept; nothing has changed then.
            GateRefused: if it would cost more than the budgets allow, even as an exception.
        """
        return self.correct_many(
            [(image, label)], replace=replace, exception=exception, force=force, dry_run=dry_run
        )

    def correct_many(
        self,
        corrections: Iterable[tuple[Any, str]],
        *,
        replace: bool = False,
        exception: bool = False,
        force: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Update:
        """Correct several pictures as one event: all of them or none. See `correct`."""
        return correcting.correct(
            self._session,
            corrections,
            replace=replace,
            exception=exception,
            force=force,
            dry_run=dry_run,
            progress=progress,
        )

    def forget(
        self,
        images: Sequence[str] | str = (),
        labels: Sequence[str] | str = (),
        events: Sequence[int] | int = (),
        *,
        force: bool = False,
        dry_run: bool = False,
    ) -> Receipt:
        """Forget pictures for good: named, of whole classes, or of whole events.

        Afterwards the statistics and the head are bit for bit those of a classifier that never
        saw them, and neither bytes nor features are on disk, unless `traces`. Cannot be undone.

        Args:
            images: files, hashes, first digits of hashes, or names of files they came from.
            labels: classes.
            events: numbers of events.
            force: forget even if the gate refuses.
            dry_run: only say what would happen.

        Raises:
            GateRefused: if it would cost more than the budgets allow.
            UnknownImage, UnknownClass, UnknownEvent: if a name stands for nothing.
        """
        chosen = unlearning.lists(images, labels, events)
        return unlearning.forget(self._session, *chosen, force=force, dry_run=dry_run)

    def purge(self, *, force: bool = False, dry_run: bool = False) -> Receipt:
        """Erase the extractors that were trained with pictures forgotten since, for good.

        It is the last step of forgetting where an extractor has learned: after `forget`, and an
        `adapt` whose training has not seen the pictures, the receipt's level is ``"rebuilt"``. The
        versions that such an extractor answered are answered by the one before it, as if that
        `adapt` had never been. Cannot be undone.

        Args:
            force: purge even if an alias stands for such a version.
            dry_run: only say what would go.

        Raises:
            BadOption: if the extractor in force is one of them, or an alias stands for a version
                of one.
            Locked: if another process adapts.
        """
        return unlearning.purge(self._session, force=force, dry_run=dry_run)

    def finish_erasing(self) -> bool:
        """Erase what `forget` left to others who were reading; whether nothing is left."""
        return self._session.store.finish_erasing()

    def undo(
        self, event: int | None = None, *, force: bool = False, dry_run: bool = False
    ) -> Update:
        """Take back an event: the last one, or the one named; any but `forget`.

        The classifier is as if the event had not been; later events stay. What is needed to redo
        it is kept: undoing the undo brings it back.

        Args:
            event: its number; by default the last one.
            force: take it back even if something protected gets worse.
            dry_run: only say what would happen.

        Raises:
            GateRefused: if something protected would get worse.
            UnknownEvent: if there is no such event.
            CannotUndo: if it is a `forget`, is undone already, or nothing is left of it.
        """
        return unlearning.undo(self._session, event, force=force, dry_run=dry_run)

    def adapt(
        self,
        plan: Any = None,
        *,
        recipe: Any = None,
        size: int | None = None,
        held_out: float = 0.1,
        module: Any = None,
        method: Any = None,
        memory: Any = None,
        board: Any = None,
        force: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Update:
        """Let the extractor itself learn from the remembered pictures, and use it if that pays.

        It begins with the network that the classifier was made with; with a `method`, with that of
        the extractor in force, and learns what is new since that was trained. The classifier
        answers and learns as before while this runs; at the end all pictures are seen anew, and the
        gate judges by those that were held out. Killed and called again, it goes on where it was.
        Needs the extra ``train``.

        Args:
            plan: which layers learn: a name in `retain.train.PRESETS` or a `retain.train.Plan`;
                by default all of them.
            recipe: how, a `retain.train.Recipe`; by default `retain.train.transfer`.
            size: of the pictures in pixels, where it is to be another than now.
            held_out: the share of every class that judges and is not learned from.
            module: for a network of a class of your own, one of it.
            method: a class-incremental one, by its name in `retain.train.methods` or made by
                ``make(name, option=…)``; by default none, and all that is remembered is learned.
            memory: how many exemplars it may have and how they are chosen, a
                `retain.train.Memory`; by default 2,000 by herding.
            board: a folder for TensorBoard files, written while it trains: one in it for each
                training, and in that one for each phase of a method.
            force: use it even if the gate refuses.
            dry_run: train, and only say what would happen.
            progress: called as ``progress(done, total)``, first in pictures of the training.

        Raises:
            BadOption: if there is too little to learn from, or something does not fit.
            GateRefused: if it would cost more than the budgets allow; the same call with `force`
                trains nothing again.
            Locked: if another process adapts.
            MissingExtra: if PyTorch, or with `board` TensorBoard, is not installed.
        """
        made = training.course(
            self._session,
            plan=plan,
            recipe=recipe,
            size=size,
            held_out=held_out,
            module=module,
            method=method,
            memory=memory,
        )
        return training.adapt(
            self._session, made, board=board, force=force, dry_run=dry_run, progress=progress
        )
