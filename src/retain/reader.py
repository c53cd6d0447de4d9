"""What only reads: the half of the facade that changes nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace as replaced
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from retain import advising, audit, explaining, handing, suggesting, training, unlearning, views
from retain import versions as history
from retain.advice import Advice
from retain.answers import answer, report
from retain.caches import Mind
from retain.comparisons import Cluster, Diff, Explanation, Export, Hint, Neighbour, Pack, Suggestion
from retain.errors import NothingLearned
from retain.incremental import layers
from retain.intake import Taken, checked_label, named
from retain.session import Session
from retain.solving import single_threaded
from retain.store import pack
from retain.values import (
    ClassInfo,
    Event,
    EventDetail,
    ImageDetail,
    Predictions,
    Progress,
    Report,
    Sample,
    Skipped,
    Source,
    Status,
    Verification,
    Version,
)
from retain.vision import Decoder, labelled, unlabelled
from retain.vision.sources import Collected

__all__ = ["Reader"]


class Reader:
    """What can be asked of a classifier without changing it; its one heir is `Classifier`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory."""
        self._session.close()

    @property
    def path(self) -> Path:
        """The directory."""
        return self._session.store.path

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes known, sorted."""
        head = self._session.mind.head
        return head.classes if head else ()

    @property
    def digest(self) -> str:
        """The digest of the statistics: equal for equal sets of members, on every machine."""
        return self._session.state.statistics.digest

    @property
    def event(self) -> int:
        """The number of the journal's last entry; 0 before the first."""
        return self._session.store.head_event()

    def look_with(self, decoder: Decoder, *, recall: int = 0) -> None:
        """Decode pictures by `decoder` from now on, such as one in a process with less to lose.

        Args:
            decoder: takes the bytes and ``shorter=`` as `retain.vision.decode` does.
            recall: how many of the last features to keep for pictures that come again.
        """
        self._session.look_with(decoder, recall)

    def warm(self) -> None:
        """Work out what the first change would have to, so that it takes no longer than others."""
        self._session.warm()

    def predict(
        self,
        source: Any,
        *,
        top: int = 5,
        version: int | str | None = None,
        progress: Progress | None = None,
    ) -> Predictions:
        """Answer pictures; writes nothing.

        Args:
            source: a file, a folder, a glob, a list of these, arrays, bytes, or ``"-"``.
            top: how many classes to give for each.
            version: whose answers: an event's number, an alias, or by default the latest.
            progress: called as ``progress(done, total)``.

        Raises:
            NothingLearned: if no class is known.
            UnknownEvent: if there is no such version.
        """
        mind = None if version is None else history.mind_of(self._session, version)
        known = self._session.knows_something if mind is None else mind.head is not None
        if not known:
            raise self._nothing_learned()
        collected = unlabelled(source, self._session.extractor)
        answering, members, taken, skipped = self._looked(collected, mind, progress)
        if answering.head is None:
            raise self._nothing_learned()
        answers = []
        with single_threaded():  # once for all
            for e in taken:
                vector, known = (e.feature, e.norm), e.image in members
                found = answer(answering, e.name, e.image, *vector, top=top, remembered=known)
                answers.append(found)
        return Predictions(tuple(answers), tuple(skipped), answering.event)

    def evaluate(
        self,
        source: Any,
        labels: Sequence[str] | str | None = None,
        *,
        version: int | str | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Judge the classifier, or a version of it, on labelled pictures given as for `learn`."""
        started = time.perf_counter()
        collected = labelled(source, labels, self._session.extractor)
        mind = None if version is None else history.mind_of(self._session, version)
        mind, members, taken, skipped = self._looked(collected, mind, progress)
        pictures = [
            (e.name, e.image, checked_label(e.label), (e.feature, e.norm), e.image in members)
            for e in taken
        ]
        judged = report(mind, pictures, skipped)
        return replaced(judged, seconds=time.perf_counter() - started)

    def explain(self, image: Any, *, neighbours: int = 5, remedies: int = 2) -> Explanation:
        """Why a picture is answered as it is, and what would change that; writes nothing.

        Args:
            image: a file, bytes or an array; or the name of a remembered picture.
            neighbours: how many of the taught pictures it resembles to name.
            remedies: for how many of the next best classes to say what it would take.

        Raises:
            NothingLearned: if no class is known.
            BadImage, UnknownImage: if there is no such picture.
        """
        return explaining.explain(self._session, image, neighbours=neighbours, remedies=remedies)

    def similar(self, source: Any, *, count: int = 5) -> list[tuple[Neighbour, ...]]:
        """For each picture that can be read, the taught ones it resembles, the nearest first.

        Args:
            source: pictures, as for `predict`.
            count: how many for each.

        Raises:
            BadOption: if `count` is less than one.
        """
        return suggesting.similar(self._session, source, count)

    def cluster(self, source: Any, *, count: int | None = None) -> list[Cluster]:
        """Put pictures that look alike together, the largest group first; 2,000 at most.

        Args:
            source: pictures, as for `predict`; typically those called unknown.
            count: how many groups; by default as many as hold together.

        Raises:
            BadOption: if `count` is less than one.
        """
        return suggesting.cluster(self._session, source, count)

    def suggest(self, source: Any, *, count: int = 12) -> list[Suggestion]:
        """Which of these pictures to label next: those that stand for the most others.

        Args:
            source: pictures without labels, as for `predict`; 2,000 are looked at.
            count: how many to name, the most useful first.

        Raises:
            BadOption: if `count` is less than one.
        """
        return suggesting.suggest(self._session, source, count)

    def hints(
        self, source: Sequence[Source], labels: Sequence[str | None]
    ) -> list[tuple[Hint, ...]]:
        """Advice on pictures before they are taught, in their order; changes nothing.

        Args:
            source: the pictures.
            labels: what each would be taught as, if that is known.

        Raises:
            BadOption: if there is not one label (or None) for each.
        """
        return suggesting.hints(self._session, source, labels)

    def versions(self) -> list[Version]:
        """The states it has been in, oldest first: one after each event that changed answers."""
        return history.listed(self._session)

    def diff(self, a: int | str, b: int | str | None = None) -> Diff:
        """Two versions side by side, on every picture remembered now.

        Args:
            a: an event's number, an alias or ``"latest"``; 0 for before the first event.
            b: the same; by default the latest.

        Raises:
            UnknownEvent: if there is no such version.
        """
        return history.diff(self._session, a, b)

    def export(
        self,
        target: str | Path,
        *,
        version: int | str | None = None,
        format: Literal["onnx", "torch"] = "onnx",
        module: Any = None,
        overwrite: bool = False,
    ) -> Export:
        """Write the classifier as one file: pictures in, probabilities out.

        Corrections and exceptions are in it, labels and preprocessing in its metadata. Where the
        classifier was adopted, input and output of ONNX are called as in the original and mean the
        same. Before the call returns, the file is held against `predict` on real pictures.

        Args:
            target: the file to write.
            version: an event's number or an alias; by default the latest.
            format: ``"onnx"``; or ``"torch"``, with the extra ``train`` and where the network is
                known as a PyTorch module: a state dict in safetensors, for
                `retain.train.load_exported`.
            module: for ``"torch"``, where a module of your own was adopted: one of its class.
            overwrite: whether a file that is there may be replaced.

        Raises:
            NotExported: if it would answer otherwise; no file is left then.
            AlreadyExists: if the file is there.
            BadOption: if the classifier takes vectors, the file cannot be called so, or the network
                is not known as a module.
            MissingExtra: if PyTorch is needed and not installed.
        """
        return handing.export(
            self._session, Path(target), (format, module), version=version, overwrite=overwrite
        )

    def pack(self, target: str | Path, *, overwrite: bool = False) -> Pack:
        """Write the whole living classifier as one file, which `retain.unpack` brings back.

        Args:
            target: the file, by custom ``NAME.retain``.
            overwrite: whether a file that is there may be replaced.

        Raises:
            AlreadyExists: if the file is there.
            BadOption: if it lies inside the classifier, or its folder does not exist.
        """
        made = pack(self.path, Path(target), overwrite=overwrite)
        return Pack(str(made.path), made.bytes, made.files, made.digest)

    def log(self) -> list[Event]:
        """The journal, oldest first."""
        return self._session.store.events()

    def show(self, what: int | str) -> EventDetail | ImageDetail:
        """One journal entry (a number), or one remembered picture (a name).

        Raises:
            UnknownEvent, UnknownImage: if there is no such thing.
        """
        return views.show(self._session, what)

    def classes(self) -> list[ClassInfo]:
        """The classes, sorted by name."""
        return views.classes(self._session)

    def samples(self) -> list[Sample]:
        """Every remembered picture, sorted by hash."""
        return list(self._session.store.members())

    def image(self, image: str) -> bytes:
        """The bytes of a remembered picture, as they were given.

        Raises:
            UnknownImage: if it is not remembered, or only its features are.
            Damaged: if the bytes on disk are not what they were.
        """
        return self._session.store.blob(named(self._session.store, image).image)

    def layers(self, plan: Any = None, **options: Any) -> Any:
        """The layers of the network from the input to the head, and what `adapt` would do to each.

        It takes, and raises, what `adapt` does but `force`, `dry_run` and `progress`; gives a tuple
        with a `retain.train.plan.Row` for each, and `notes`.
        """
        made = training.course(self._session, plan=plan, **options)
        return layers(made.lesson, made.plan, made.model, made.recipe.epochs, made.notes)

    def advise(
        self,
        *,
        budget: float = advising.BUDGET,
        folder: Any = None,
        module: Any = None,
        progress: Progress | None = None,
    ) -> Advice:
        """What to do next: learn, correct, adapt the last block or all, or start again.

        Looks at the remembered pictures and at the network, and, with the extra ``train``, tries
        training in folds; writes nothing. The same pictures and budget get the same advice.

        Args:
            budget: minutes that trials may take, about; 0 to try nothing.
            folder: pictures of what will be asked, as for `predict`: how many of them resemble
                nothing taught.
            module: for a network of a class of your own, one of it.
            progress: called as ``progress(done, total)``, in pictures' worth of work.

        Raises:
            NothingLearned: if no labelled picture is remembered.
            BadOption: if there are fewer than two classes, no class has two pictures, or the
                budget is impossible.
        """
        return advising.advise(
            self._session, budget=budget, folder=folder, module=module, progress=progress
        )

    def forget_preview(
        self,
        images: Sequence[str] | str = (),
        labels: Sequence[str] | str = (),
        events: Sequence[int] | int = (),
    ) -> list[Sample]:
        """The pictures that `forget` would forget, sorted by hash; changes nothing."""
        with self._session.store.reading():
            return unlearning.selected(self._session, *unlearning.lists(images, labels, events))

    def status(self) -> Status:
        """The classifier in a few numbers."""
        return views.status(self._session)

    def verify(self, *, deep: bool = False, progress: Progress | None = None) -> Verification:
        """Re-derive everything from the journal, and say what is broken.

        Args:
            deep: also compute every feature again from its picture.
            progress: called as ``progress(done, total)``.
        """
        return audit.verify(self._session, deep=deep, progress=progress)

    def _nothing_learned(self) -> NothingLearned:
        return NothingLearned(
            f"{self.path} has learned nothing yet; teach it first: retain learn {self.path} FOLDER"
        )

    def _looked(
        self, collected: Collected, mind: Mind | None, progress: Progress | None
    ) -> tuple[Mind, set[str], list[Taken], list[Skipped]]:
        """Pictures seen and what answers: `mind`, or the latest state; and who is a member in it.

        They are seen by the extractor of what answers, whatever others adapt meanwhile.
        """
        session = self._session
        while True:
            eyes = session.eyes if mind is None else session.eyes_of(mind.era)
            skipped = list(collected.skipped)
            taken = session.taken(eyes, collected.sources, skipped, progress)
            if mind is not None:
                return mind, session.remembered(taken), taken, skipped
            now, members = session.answering(taken)
            if now.era == eyes.era:
                return now, members, taken, skipped
