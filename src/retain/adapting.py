"""Another extractor in the place of the one in force: from the next event on, a new era.

Nothing is carried over from the era before. What the new extractor sees in every remembered picture
is computed from the picture's bytes, the sums are made anew, and the state is bit for bit that of a
classifier made with this extractor that was taught what survives. Meanwhile others go on learning
and asking; only the end, when what they learned is looked at too and the gate decides, is done
while nobody else may write. What was computed before an interruption is not computed again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace as replaced
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from retain.caches import State
from retain.chances import net_bounds
from retain.errors import BadOption, Locked
from retain.intake import Eyes, chunks, recomputed
from retain.pairing import differences
from retain.projection import born
from retain.refusal import concluded, refuse
from retain.session import Session
from retain.store import Era
from retain.store.eras import Files
from retain.store.start import Layer, file_name, packed
from retain.store.writing import Featured
from retain.values import Budgets, Check, Progress, Training, Update, Verdict
from retain.vision import OnnxExtractor, load_extractor
from retain.weighing import HeldOut, compared, evidence

__all__ = ["HeldOut", "refuse_kind", "replace"]

_CONFIDENCE = 0.95

# Pictures whose features are kept in one transaction, and as many as may be left for the end.
_CHUNK = 128

# How long to wait at the end for somebody who learns, in seconds.
_PATIENCE = 600.0


def replace(
    session: Session,
    files: Files,
    *,
    detail: Mapping[str, Any] | None = None,
    trained: Collection[str] = (),
    exemplars: Sequence[str] = (),
    start: Layer | None = None,
    held_out: HeldOut | None = None,
    training: Training | None = None,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Update:
    """Put another extractor in the place of the one in force, if the gate agrees.

    Args:
        session: the classifier; it must keep pictures.
        files: of the extractor, as `load_extractor` takes them.
        detail: what a person wants to read of it in the journal; plain JSON.
        trained: content hashes of the pictures that it was trained with.
        exemplars: those of them that its method keeps for the next lesson, in its order.
        start: for a classifier that was adopted, the last layer that goes with this extractor:
            labels as they are called now, weights [C, d], bias [C], unit weights or None.
        held_out: pictures to judge by, besides the remembered ones.
        training: how it was trained, for whoever reads the update.
        force: put it in place even if the gate refuses.
        dry_run: only say what would happen.
        progress: called as ``progress(done, total)``, in remembered pictures.

    Raises:
        BadOption: if the classifier keeps no pictures, or the extractor or layer cannot be used.
        BadImage: if the extractor cannot look at a remembered picture.
        GateRefused: if it would cost more than the budgets allow; the same call with `force` then
            computes nothing again.
        Locked: if another extractor is being prepared, or somebody writes for very long.
    """
    started, store = time.perf_counter(), session.store
    refuse_kind(session)
    with store.adapting(), TemporaryDirectory() as folder:
        extractor = _loaded(files, Path(folder))
        layer, data, sha256 = _layer(session, start, extractor.dimension)
        with store.writing("adapt"):
            _refuse_same(store.era, extractor.fingerprint, sha256)
            key = store.candidate(extractor.fingerprint)
            number = store.head_event() + 1
        eyes = Eyes(Era(number, extractor.fingerprint, extractor.dimension, sha256, key), extractor)
        waiting = _prepared(session, eyes, progress)
        with store.writing("adapt", wait=_PATIENCE):
            store.keep_features(waiting, eyes.era)
            session.fill(eyes.era, store.lacking(eyes.era), eyes=eyes)
            state = session.state
            era = replaced(eyes.era, number=state.mind.event + 1)
            _refuse_same(state.mind.era, era.extractor, era.start)
            plan = replaced(store.preview(), era=era)
            candidate = born(store, era.number, plan, layer)
            update = Update(
                event=None,
                kind="adapt",
                summary=f"{_seen(len(plan.members))} through the extractor {extractor.name}",
                **differences(state, candidate),
                verdict=_verdict(session, state, candidate, trained, held_out),
                training=training,
            )
            event = None
            if not dry_run:
                if not force:
                    refuse(update)
                if data is not None and sha256 is not None:
                    files = {**files, file_name(sha256, era.number): data}
                event = store.adapt(
                    era,
                    files,
                    detail=detail or {},
                    trained=sorted(set(trained)),
                    exemplars=exemplars,
                )
                session.adopt(candidate, statistics=True)
    return concluded(update, event, started)


def refuse_kind(session: Session) -> None:
    """Raise if a classifier cannot be given another extractor.

    Raises:
        BadOption: if it keeps no pictures, or has no extractor of its own.
    """
    if session.store.manifest.memory != "images":
        raise BadOption(
            "this classifier keeps features and no pictures (memory 'features'), and what another "
            "extractor sees cannot be computed from them. Adapt first, before the pictures go: "
            "teach what there is to a classifier that keeps pictures (retain init FIRST), retain "
            "adapt FIRST, and make the one that keeps features with what came of it (retain init "
            "NAME --memory features --extractor FIRST/extractors/sha256-…)"
        )
    if not isinstance(session.extractor, OnnxExtractor):
        raise BadOption(
            "this classifier takes vectors, so there is no extractor of its own to adapt; adapt "
            "whatever made the vectors, and teach them to a new classifier"
        )


def _refuse_same(now: Era, fingerprint: str, sha256: str | None) -> None:
    if (now.extractor, now.start) == (fingerprint, sha256):
        raise BadOption(
            f"the extractor {fingerprint[:19]}… is the one in force already, so there is nothing "
            f"to adapt to"
        )


def _loaded(files: Files, folder: Path) -> OnnxExtractor:
    for name, content in files.items():
        data = content.read_bytes() if isinstance(content, Path) else content
        (folder / Path(name).name).write_bytes(data)
    extractor = load_extractor(folder)
    if not isinstance(extractor, OnnxExtractor):
        raise BadOption(f"{extractor.name} looks at no pictures; give an ONNX graph that does")
    return extractor


def _layer(
    session: Session, given: Layer | None, dimension: int
) -> tuple[Layer | None, bytes | None, str | None]:
    """The adopted layer of the new era, its classes named and ordered as they were adopted."""
    now = session.start
    if now is None:
        if given is not None:
            raise BadOption("this classifier was made here and has no adopted layer to replace")
        return None, None, None
    if given is None:
        raise BadOption(
            f"this classifier was adopted with {len(now.classes)} classes in a last layer that "
            f"belongs to its present extractor; give the layer that goes with the new one, or "
            f"these classes could not be answered"
        )
    labels, weights, bias, unit = given
    if sorted(labels) != sorted(now.classes):
        raise BadOption(
            f"the layer has {len(labels)} classes that are not the {len(now.classes)} adopted "
            f"ones; give one row for each of them, by the names they have now"
        )
    if weights.shape != (len(labels), dimension) or bias.shape != (len(labels),):
        raise BadOption(
            f"the layer has weights {list(weights.shape)} and bias {list(bias.shape)}; for this "
            f"extractor they must be {[len(labels), dimension]} and {[len(labels)]}"
        )
    first = session.store.start()
    assert first is not None
    rows = [labels.index(label) for label in now.classes]
    layer = (
        first[0],
        np.asarray(weights, np.float64)[rows],
        np.asarray(bias, np.float64)[rows],
        None if unit is None else np.asarray(unit, np.float64)[rows],
    )
    data, sha256 = packed(*layer)
    return layer, data, sha256


def _prepared(session: Session, eyes: Eyes, progress: Progress | None) -> list[Featured]:
    """Look at all members while others go on; returns what could not be kept yet.

    Nobody who learns is waited for: as long as they write, what was computed waits in memory.
    """
    store, waiting = session.store, list[Featured]()
    missing = store.lacking(eyes.era)
    total = len(store.members())
    done = total - len(missing)
    try:
        while missing:
            for chunk in chunks(recomputed(store, eyes, missing), _CHUNK):
                waiting += chunk
                done += len(chunk)
                if progress is not None:
                    progress(min(done, total), total)
                try:
                    with store.writing("adapt", wait=0.0):
                        store.keep_features(waiting, eyes.era)
                        waiting = []
                except Locked:
                    continue
            present = {image for image, _, _ in waiting}
            missing = [image for image in store.lacking(eyes.era) if image not in present]
            if len(missing) <= _CHUNK:
                break
            total = max(total, len(store.members()))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped: the classifier is as it was; {done} of {total} pictures are prepared, so "
            f"the same command goes on from there"
        ) from None
    return waiting


def _verdict(
    session: Session,
    state: State,
    candidate: State,
    trained: Collection[str],
    held_out: HeldOut | None,
) -> Verdict:
    """What the gate says on the remembered pictures, and what follows from the others."""
    # Pictures that the new extractor was trained with speak for it anyhow.
    seen = set(trained)
    judges = any(sample.image not in seen for sample in candidate.samples)
    verdict = session.verdict(candidate, before=state, changed=seen if judges else ())
    checks = list(verdict.checks)
    if held_out is not None and len(held_out.labels) and state.mind.head is not None:
        budgets = Budgets(**session.store.rules().budgets)
        checks.append(_held_out(state, candidate, held_out, budgets))
    if seen and state.mind.head is not None:
        checks.append(evidence(session, state, candidate, seen, held_out))
    gone = session.store.unknown(trained)
    if gone:
        checks.append(
            Check(
                "lineage",
                False,
                f"{gone} of the {len(set(trained)):,} pictures that the extractor was trained with "
                f"{'is' if gone == 1 else 'are'} not remembered (any more): train it again without",
                float(gone),
                limit=0.0,
            )
        )
    return replaced(verdict, checks=tuple(checks), passed=all(each.passed for each in checks))


def _held_out(state: State, candidate: State, aside: HeldOut, budgets: Budgets) -> Check:
    was = state.mind.answers(*aside.before)
    lost, gained = compared(state, candidate, aside)
    truth, n = list(aside.labels), len(aside.labels)
    before = sum(a == t for a, t in zip(was, truth, strict=True))
    low, high = net_bounds(lost, gained, n, _CONFIDENCE)
    sentence = (
        f"of {n:,} pictures held out, {before:,} are answered right now and "
        f"{before - lost + gained:,} would be (net {(lost - gained) / n:+.1%} worse, with 95 % "
        f"confidence {low:+.1%} to {high:+.1%}; the budget is {budgets.regressions:.1%})"
    )
    passed = low <= budgets.regressions
    return Check("held out", passed, sentence, (lost - gained) / n, low, high, budgets.regressions)


def _seen(count: int) -> str:
    return f"{count:,} {'picture is' if count == 1 else 'pictures are'} seen"
