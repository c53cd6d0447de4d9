"""What to look at and what to teach next: similar pictures, groups, coverage, hints.

Nothing here changes anything or decides anything; it is what a person is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retain.algebra import REFERENCE, SCALE
from retain.answers import answer
from retain.caches import Features, Mind
from retain.comparisons import Cluster, Hint, Neighbour, Suggestion
from retain.errors import BadImage, BadOption
from retain.grouping import cover, gather, whitened
from retain.intake import Taken, checked_label
from retain.session import Session
from retain.values import Sample, Skipped, Source
from retain.vision import OnnxExtractor, blur, unlabelled

__all__ = ["cluster", "contradiction", "hints", "nearest", "similar", "suggest"]

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
    labelled = np.array([sample.label != REFERENCE for sample in samples], bool)
    close: list[list[tuple[float, Sample]]] = []
    for one, roughly in zip(taken, _roughly(taken, features), strict=True):
        roughly[~labelled] = -np.inf
        first = _first(roughly, count + 1, features.shape[1])
        exactly = _cosines([one], features[first])[0].tolist()
        pairs = zip(exactly, (samples[i] for i in first), strict=True)
        order = sorted(pairs, key=lambda pair: (-pair[0], pair[1].image))
        close.append([pair for pair in order if pair[1].image != one.image][:count])
    when = session.store.times({sample.event for pairs in close for _, sample in pairs})
    return [tuple(_neighbour(sample, at, when) for at, sample in pairs) for pairs in close]


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
    taught = whitened(state.features[_latest(state.samples)], state.solver) if state.rows else None
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


def contradiction(label: str, probability: float, around: Sequence[Neighbour]) -> Hint | None:
    """What it would contradict to teach a picture as anything but `Hint.unless`.

    Args:
        label: what it is answered.
        probability: of that.
        around: the remembered pictures that it resembles most, the nearest first; three or more,
            if there are as many.
    """
    shown = list(around[:_LOOKED_AT])
    # All of the nearest say one thing, and so does the answer, surely: other names are slips.
    alike = {each.label for each in shown} == {label} and probability >= _SURE
    if not (alike and len(shown) == _LOOKED_AT):
        same = [each for each in around if each.similarity >= _SAME]
        shown = [each for each in same if each.label == same[0].label]
    if not shown:
        return None
    name, many = shown[0].label, len(shown) > 1
    pictures = f"these {len(shown)} pictures" if many else "this picture"
    verb = "look the same and are" if many else "looks the same and is"
    sentence = f"contradicts {pictures}, which {verb} {name!r}"
    return Hint("contradicts", sentence, tuple(each.image for each in shown), name)


# -- inside --------------------------------------------------------------------------------------


def _taken(session: Session, source: Any) -> tuple[list[Taken], list[Skipped]]:
    collected = unlabelled(source, session.extractor)
    skipped = list(collected.skipped)
    return session.taken(session.eyes, collected.sources, skipped, None), skipped


def _latest(samples: Sequence[Sample]) -> list[int]:
    """Rows of those that coverage looks at, where there are too many.

    What was taught last is most like what comes next; members are in no order of time.
    """
    when = ((s.label != REFERENCE, s.event, s.image, i) for i, s in enumerate(samples))
    return [i for *_, i in sorted(when)[-_MOST:]]


def _roughly(taken: Sequence[Taken], features: Features) -> NDArray[np.float32]:
    """[n, members]; the cosines but for what `_rounded` says."""
    found = np.zeros((len(taken), len(features)), np.float32)
    if not found.size:
        return found
    x = np.stack([one.feature for one in taken]).astype(np.float32) / np.float32(SCALE) ** 2
    for start in range(0, len(features), _BLOCK):
        block = features[start : start + _BLOCK].astype(np.float32)
        np.matmul(x, block.T, out=found[:, start : start + _BLOCK])
    return found


def _rounded(dimension: int) -> float:
    """By how much a product of two features, as they are kept, misses their cosine at most.

    Rounding moves each number by at most half a unit, and so the length by √d halves of one.
    """
    return 1.1 * math.sqrt(dimension) / SCALE + 1e-4


def _cosines(taken: Sequence[Taken], features: Features) -> Floats:
    """[n, members]; sums of products of integers, so that equal pictures have cosine 1."""
    found = np.zeros((len(taken), len(features)))
    if found.size:
        x = np.stack([one.feature for one in taken]).astype(np.float64)
        y = features.astype(np.float64)
        lengths = np.sqrt((x * x).sum(axis=1))[:, None] * np.sqrt((y * y).sum(axis=1))[None, :]
        found[:] = (x @ y.T) / np.where(lengths > 0, lengths, 1.0)
    return found


def _first(roughly: NDArray[np.float32], count: int, dimension: int) -> list[int]:
    """The labelled rows that may be among the `count` with the largest cosines, ties included."""
    least = -np.inf
    if len(roughly) > count:
        least = np.partition(roughly, len(roughly) - count)[len(roughly) - count]
    near = roughly >= least - 2 * _rounded(dimension)
    return [int(i) for i in np.flatnonzero(near & (roughly > -np.inf))]


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
    against = contradiction(*said, around)
    if against is not None and against.unless != label:
        found.append(against)
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
