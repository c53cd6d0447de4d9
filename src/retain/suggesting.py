"""What to look at and what to teach next: similar pictures, groups, coverage, hints.

Nothing here changes anything or decides anything; it is what a person is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retain.algebra import REFERENCE, cover, gather, whitened
from retain.answers import answer
from retain.caches import Features, Mind
from retain.comparisons import Cluster, Hint, Neighbour, Suggestion
from retain.errors import BadImage, BadOption
from retain.intake import Taken, checked_label
from retain.session import Session
from retain.values import Sample, Skipped, Source
from retain.vision import OnnxExtractor, blur, unlabelled

__all__ = ["cluster", "hints", "nearest", "similar", "suggest"]

Floats = NDArray[np.float64]

_BLOCK = 8192

# Pictures that one group is made of, and taught ones that coverage looks at, at most.
_MOST = 2000

# Pictures whose features are closer than this look the same to the classifier: of 370,000 pairs of
# 1,200 photographs four, but nine in ten of those cropped by 2 %, and seven in ten turned by 3°.
_SAME = 0.95

# A picture that is answered surer than this adds nothing if it is taught as that.
_SURE = 0.99

# Of 800 sharp photographs none is above this, of those blurred by three pixels in 224 all but ten.
_BLURRED = 0.65

# What contradicts is counted among so many of the nearest.
_LOOKED_AT = 3


def similar(session: Session, source: Any, count: int) -> list[tuple[Neighbour, ...]]:
    """See `Reader.similar`."""
    if count < 1:
        raise BadOption(f"{count} similar pictures cannot be shown; ask for 1 or more")
    taken = _taken(session, source)[0]
    return nearest(session, taken, count)


def nearest(
    session: Session,
    taken: Sequence[Taken],
    count: int,
    members: tuple[Sequence[Sample], Features] | None = None,
) -> list[tuple[Neighbour, ...]]:
    """For each picture the `count` remembered and labelled ones it resembles, the nearest first.

    Args:
        session: the classifier.
        taken: the pictures.
        count: how many for each.
        members: those to look among and their features, by the extractor that looked at `taken`;
            by default all that are remembered now.
    """
    samples, features = members or session.members
    when = {event.event: event.at for event in session.store.events()} if taken else {}
    labelled = np.array([sample.label != REFERENCE for sample in samples], bool)
    found = []
    for one, cosines in zip(taken, _cosines(taken, features), strict=True):
        cosines = np.where(labelled, cosines, -2.0)
        first = _first(cosines, count + 1)
        order = sorted(first, key=lambda i: (-cosines[i], samples[i].image))
        chosen = [i for i in order if samples[i].image != one.image and cosines[i] >= -1.5]
        found.append(tuple(_neighbour(samples[i], float(cosines[i]), when) for i in chosen[:count]))
    return found


def cluster(session: Session, source: Any, count: int | None) -> list[Cluster]:
    """See `Reader.cluster`."""
    if count is not None and count < 1:
        raise BadOption(f"{count} groups cannot be made; ask for 1 or more, or leave it open")
    taken = _taken(session, source)[0][:_MOST]
    if not taken:
        return []
    state = session.state
    points = whitened(np.stack([one.feature for one in taken]), state.solver)
    owner = gather(points, count)
    found = []
    for group in np.unique(owner):
        rows = np.flatnonzero(owner == group)
        middle = points[rows].mean(axis=0)
        away = np.linalg.norm(points[rows] - middle, axis=1)
        order = rows[np.argsort(away, kind="stable")]
        label = _closest(state.mind, [taken[i] for i in order])
        images = tuple(taken[i].image for i in order)
        found.append(Cluster(images, len(rows), float(away.mean()), label))
    return sorted(found, key=lambda each: (-each.size, each.images))


def suggest(session: Session, source: Any, count: int) -> list[Suggestion]:
    """See `Reader.suggest`."""
    if count < 1:
        raise BadOption(f"{count} pictures cannot be suggested; ask for 1 or more")
    taken = _taken(session, source)[0][:_MOST]
    if not taken:
        return []
    state = session.state
    points = whitened(np.stack([one.feature for one in taken]), state.solver)
    # The latest, where there are too many to look at: what came last is most like what comes next.
    taught = whitened(state.features[-_MOST:], state.solver) if state.samples else None
    chosen, owner = cover(points, count, taught)
    found = []
    for rank, row in enumerate(chosen):
        one = taken[row]
        said = _said(state.mind, one)
        found.append(
            Suggestion(
                one.image,
                int((owner == rank).sum()),
                said[0] if said else None,
                said[1] if said else None,
            )
        )
    return found


def hints(session: Session, source: Any, labels: Sequence[str | None]) -> list[tuple[Hint, ...]]:
    """See `Reader.hints`."""
    sources = list(source)
    if len(labels) != len(sources):
        raise BadOption(f"{len(sources)} pictures were given with {len(labels)} labels")
    names = [None if label is None else checked_label(label) for label in labels]
    found: list[list[Hint]] = [[] for _ in sources]
    taken: list[tuple[int, Taken]] = []
    for i, each in enumerate(sources):
        good, bad = _taken(session, [each])
        found[i] += [Hint("unreadable", f"it cannot be read: {one.reason}") for one in bad]
        taken += [(i, one) for one in good]
        found[i] += [hint for one in good for hint in _looks(session, each)]
    near = nearest(session, [one for _, one in taken], _LOOKED_AT + 1)
    mind = session.mind
    for (i, one), around in zip(taken, near, strict=True):
        found[i] += _beside_taught(one, names[i], around, _said(mind, one))
    for i, (count, twins) in _bursts([one for _, one in taken]).items():
        sentence = f"{count} of the pictures given look nearly the same; one is enough"
        found[taken[i][0]].append(Hint("burst", sentence, twins))
    return [tuple(each) for each in found]


# -- inside --------------------------------------------------------------------------------------


def _taken(session: Session, source: Any) -> tuple[list[Taken], list[Skipped]]:
    collected = unlabelled(source, session.extractor)
    skipped = list(collected.skipped)
    return session.taken(session.eyes, collected.sources, skipped, None), skipped


def _cosines(taken: Sequence[Taken], features: Features) -> Floats:
    """[n, members]; sums of products of integers, so that equal pictures have cosine 1."""
    found = np.zeros((len(taken), len(features)))
    if not found.size:
        return found
    x = np.stack([one.feature for one in taken]).astype(np.float64)
    own = np.sqrt((x * x).sum(axis=1))[:, None]
    for start in range(0, len(features), _BLOCK):
        block = features[start : start + _BLOCK].astype(np.float64)
        lengths = own * np.sqrt((block * block).sum(axis=1))[None, :]
        found[:, start : start + _BLOCK] = (x @ block.T) / np.where(lengths > 0, lengths, 1.0)
    return found


def _first(cosines: Floats, count: int) -> list[int]:
    """The rows of the largest, and of all that are as large as the last of these."""
    if len(cosines) <= count:
        return list(range(len(cosines)))
    least = np.partition(cosines, len(cosines) - count)[len(cosines) - count]
    return [int(i) for i in np.flatnonzero(cosines >= least)]


def _neighbour(sample: Sample, cosine: float, when: dict[int, str]) -> Neighbour:
    at = when.get(sample.event, "")
    return Neighbour(sample.image, sample.label, min(cosine, 1.0), sample.event, at, sample.source)


def _said(mind: Mind, one: Taken) -> tuple[str, float] | None:
    if mind.head is None:
        return None
    found = answer(mind, one.name, one.image, one.feature, one.norm, top=1)
    return found.label, found.probability


def _closest(mind: Mind, group: Sequence[Taken]) -> str | None:
    """What most of a group are answered."""
    said = [found[0] for found in (_said(mind, one) for one in group) if found is not None]
    return max(sorted(set(said)), key=said.count) if said else None


def _looks(session: Session, source: Source) -> list[Hint]:
    extractor = session.extractor
    if not isinstance(extractor, OnnxExtractor):
        return []
    try:
        pixels = extractor.pixels(source.read())
    except BadImage:
        return []
    height, width = pixels.shape[:2]
    needs = extractor.rule.needs or min(extractor.rule.height, extractor.rule.width)
    found = []
    if min(height, width) < needs / 3:
        sentence = f"too small: {width}×{height} pixels, where {needs} are looked at"
        found.append(Hint("small", sentence))
    if blur(pixels) > _BLURRED:
        found.append(Hint("blurry", "too blurry: little in it is sharp"))
    return found


def _beside_taught(
    one: Taken, label: str | None, around: Sequence[Neighbour], said: tuple[str, float] | None
) -> list[Hint]:
    found: list[Hint] = []
    same = [each for each in around if each.similarity >= _SAME]
    if same and (label is None or same[0].label == label):
        found.append(_hint("duplicate", "nearly the same as one that is taught", same[:1]))
    if label is None or said is None:
        return found
    if said[0] == label and said[1] >= _SURE:
        found.append(Hint("sure", f"adds nothing: already {_percent(said[1])} sure"))
    against = [each for each in around[:_LOOKED_AT] if each.label != label]
    other = {each.label for each in against}
    # All of the nearest say one other thing, and so does the answer, surely: a likely slip.
    slip = len(against) == _LOOKED_AT and other == {said[0]} and said[1] >= _SURE
    if slip or (same and same[0].label != label):
        shown = against if slip else same
        names = " and ".join(repr(name) for name in sorted({each.label for each in shown}))
        count = f"these {len(shown)} pictures" if len(shown) > 1 else "this picture"
        verb = "look the same and are" if len(shown) > 1 else "looks the same and is"
        found.append(_hint("contradicts", f"contradicts {count}, which {verb} {names}", shown))
    return found


def _bursts(taken: Sequence[Taken]) -> dict[int, tuple[int, tuple[str, ...]]]:
    """For each that looks the same as two others that are given: how many these are, and which."""
    if len(taken) < _LOOKED_AT:
        return {}
    cosines = _cosines(taken, np.stack([one.feature for one in taken]))
    rows = {i: np.flatnonzero(cosines[i] >= _SAME) for i in range(len(taken))}
    return {
        i: (len(near), tuple(sorted({taken[int(j)].image for j in near})))
        for i, near in rows.items()
        if len(near) >= _LOOKED_AT
    }


Kind = Literal["duplicate", "contradicts"]


def _hint(kind: Kind, sentence: str, shown: Sequence[Neighbour]) -> Hint:
    return replace(Hint(kind, sentence), images=tuple(each.image for each in shown))


def _percent(share: float) -> str:
    # Downwards, since nothing is ever entirely sure.
    return f"{int(share * 100)} %"
