"""`advise`: whether to go on learning, to correct, or to train, and what to expect of each.

First what the frozen network knows is asked, which is free: who is right when left out, and how
that grows with the number of pictures. Then training is tried in folds on the remembered pictures,
within a budget (`attempts`). What is tried is held against what is usual with so many pictures
(`expecting`), and the cheapest choice within a point of the best is advised. Nothing is written.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from retain import training
from retain.advice import Advice, Choice, Option, Trial
from retain.algebra import REFERENCE, HeadOptions, typicality
from retain.algebra.novelty import UNKNOWN_BELOW, energy
from retain.attempts import Attempts, attempt
from retain.caches import State
from retain.chances import bounds
from retain.counsel import Looked, sentences
from retain.errors import BadOption, CannotAdopt, MissingExtra, NothingLearned
from retain.expecting import TRAINED, Known, believed, best, pays_by_pins
from retain.session import Session
from retain.trials import Step, accuracy_with, crossed, curve, folds
from retain.values import Progress, Sample
from retain.vision import OnnxExtractor, unlabelled

__all__ = ["BUDGET", "advise"]

BUDGET: Final = 3.0
"""Minutes that trials may take on a machine as they are counted for."""

_CONFIDENCE: Final = 0.9
_DEVIATIONS: Final = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)

# At most so many of the remembered pictures say how accuracy grows.
_CURVE: Final = 3_000

# Writing and reading the network again, and making the sums anew.
_AROUND: Final = 10.0


def advise(
    session: Session,
    *,
    budget: float = BUDGET,
    folder: Any = None,
    module: Any = None,
    progress: Progress | None = None,
) -> Advice:
    """See `Reader.advise`."""
    started = time.perf_counter()
    if not 0 <= budget < float("inf"):
        raise BadOption(f"a budget of {budget} minutes cannot be; give 0 or more")
    state = session.state
    looked = _looked(session, state)
    novel = None if folder is None else _novel(session, state, folder)
    made, refused = _course(session, module)
    tried = Attempts()
    if made is not None:
        looked = replace(looked, known=replace(looked.known, parameters=_parameters(made)))
        tried = attempt(
            session, made, looked.known, minutes=budget, module=module, progress=progress
        )
    options = _options(session, looked, made, refused, tried)
    choice: Choice = best(options, blind=looked.known.blind).choice
    if choice == "learn" and pays_by_pins(looked.judged, looked.mistakes, looked.confused):
        choice = "pin"
    said = sentences(choice, options, looked, tried, novel, refused)
    sizes = looked.counts.values()
    return Advice(
        choice=choice,
        sentences=said,
        options=options,
        event=state.mind.event,
        images=looked.known.images,
        classes=looked.known.classes,
        smallest=min(sizes),
        largest=max(sizes),
        accuracy=looked.known.accuracy,
        low=looked.interval[0],
        high=looked.interval[1],
        mistakes=looked.mistakes,
        confused=looked.confused,
        curve=tuple((each.pictures, each.accuracy) for each in looked.steps),
        doubled=looked.doubled,
        novel=novel,
        network=tried.network,
        notes=(*(made.notes if made is not None else ()), *tried.notes),
        seconds=time.perf_counter() - started,
    )


# -- looking -----------------------------------------------------------------------------------


def _looked(session: Session, state: State) -> Looked:
    rows = [i for i, sample in enumerate(state.samples) if sample.label != REFERENCE]
    rows.sort(key=lambda i: state.samples[i].image)
    samples = tuple(state.samples[i] for i in rows)
    labels = [sample.label for sample in samples]
    counts = Counter(labels)
    if not counts:
        raise NothingLearned(
            "no labelled picture is remembered, so there is nothing to advise on; teach some "
            f"first: retain learn {session.store.path} FOLDER"
        )
    if len(counts) < 2:
        raise BadOption(
            f"only {labels[0]!r} is remembered, and advice needs two classes to tell apart; learn "
            f"another"
        )
    if max(counts.values()) < 2:
        raise BadOption(
            "every class has a single picture, so none can be left out to see what is known of "
            "it; learn a second one of some"
        )
    features = state.features[rows]
    options = HeadOptions.from_dict(session.store.manifest.options)
    answers = _left_out(session, state, samples, options)
    wrong = Counter(
        (sample.label, answers[sample.image])
        for sample in samples
        if answers.get(sample.image, sample.label) != sample.label
    )
    mistakes, judged = wrong.total(), len(answers)
    confused = max(wrong.items(), key=lambda each: (each[1], each[0])) if wrong else None
    some = slice(None, None, max(1, -(-len(rows) // _CURVE)))
    steps = curve(samples[some], features[some], labels[some], options)
    accuracy = 1 - mistakes / judged
    steps = (*steps, Step(len(samples), accuracy))
    return Looked(
        samples,
        counts,
        Known(len(samples), len(counts), accuracy),
        bounds(judged - mistakes, judged, _CONFIDENCE),
        judged,
        mistakes,
        None if confused is None else (*confused[0], confused[1]),
        steps,
        accuracy_with(steps, 2 * len(samples)),
    )


def _left_out(
    session: Session, state: State, samples: Sequence[Sample], options: HeadOptions
) -> dict[str, str]:
    """What each picture is answered by a head that never saw it: image → label.

    In closed form where the head is one of statistics; beside an adopted layer in ten folds, by a
    head of statistics alone, for such a layer may have been trained with the very pictures.
    """
    found = dict(session.judged(state).answers)
    if found:
        return found
    rows = [state.rows[sample.image] for sample in samples]
    labels, parts = [sample.label for sample in samples], folds(samples, 10)
    for fold in range(10):
        judged, answers = crossed(fold, parts, state.features[rows], labels, options)
        for row, answer in zip(judged, answers, strict=True):
            found[samples[row].image] = answer
    return found


def _novel(session: Session, state: State, folder: Any) -> float | None:
    """The share of pictures in a folder that resembles nothing taught."""
    mind = state.mind
    if mind.head is None or mind.tuning is None or not mind.tuning.energies:
        return None
    collected = unlabelled(folder, session.extractor)
    taken = session.taken(session.eyes_of(mind.era), collected.sources, [], None)
    if not taken:
        raise BadOption(f"no picture could be read in {folder}; give a folder of pictures")
    logits = np.stack([mind.logits(each.feature, each.norm) for each in taken])
    typical = typicality(energy(logits), mind.tuning.energies)
    return float((typical < UNKNOWN_BELOW).mean())


def _course(session: Session, module: Any) -> tuple[training.Course | None, Exception | None]:
    """What training would be, or why there is none."""
    try:
        return training.course(session, plan="full", held_out=0.0, module=module), None
    except (BadOption, CannotAdopt, MissingExtra) as error:
        return None, error


def _parameters(made: training.Course) -> int:
    return sum(each.numel() for each in made.model.module.parameters())


# -- weighing ----------------------------------------------------------------------------------


def _options(
    session: Session,
    looked: Looked,
    made: training.Course | None,
    refused: Exception | None,
    tried: Attempts,
) -> tuple[Option, ...]:
    name = str(session.store.path)
    found = [
        Option(
            "learn", 0.0, 0.0, 0.0, None,
            "none: only sums change, the gate watches, and it can be undone",
            "this is what the others are held against", f"retain learn {name} FOLDER",
        ),
        Option(
            "pin", 0.0, 0.0, 0.0, None,
            "little: a correction moves few other answers, and the gate watches",
            "each corrected picture is right from then on; of others that says nothing",
            f"retain correct {name} PICTURE LABEL",
        ),
    ]  # fmt: skip
    picture = tried.picture if tried.picture is not None else _forwards(session, looked)
    for choice in TRAINED:
        if refused is not None and not isinstance(refused, MissingExtra):
            found.append(
                Option(choice, None, None, None, None, _risk(choice, looked), str(refused))
            )
            continue
        seen = tried.gains.get(choice)
        gain = believed(choice, looked.known, seen)
        reach = _DEVIATIONS * gain.error
        why = tried.how.get(choice, "not tried: this is what is usual with so many pictures")
        found.append(
            Option(
                choice,
                gain.mean,
                # No fewer than none can be right, and no more than all.
                max(gain.mean - reach, -looked.known.accuracy),
                min(gain.mean + reach, 1 - looked.known.accuracy),
                _seconds(choice, looked, made, picture),
                _risk(choice, looked),
                str(refused) if refused is not None else why,
                "" if made is None else _command(choice, name),
                None if seen is None else Trial(seen.mean, seen.error, seen.judged),
            )
        )
    return tuple(found)


def _command(choice: Choice, name: str) -> str:
    return f"retain adapt {name}" + {
        "last-block": " --preset last-block",
        "full": "",
        "start-again": " --preset from-scratch --batchnorm trained --rate 0.05",
    }.get(choice, "")


def _risk(choice: Choice, looked: Looked) -> str:
    few = looked.known.each < 20
    kept = "the gate judges by pictures held out, and it can be undone"
    if choice == "last-block":
        return f"small: most of the network stays; {kept}"
    if choice == "full":
        learned = "with so few pictures it may learn them by heart" if few else "all features move"
        return f"{'high' if few else 'some'}: {learned}; {kept}"
    return f"high: all that the network brought along is lost; {kept}"


def _forwards(session: Session, looked: Looked) -> float | None:
    """Seconds that one picture takes through the extractor; None where there is no picture."""
    extractor = session.extractor
    if not isinstance(extractor, OnnxExtractor) or session.store.manifest.memory != "images":
        return None
    data = session.store.blob(looked.samples[0].image)
    extractor.feature(data)
    started = time.perf_counter()
    extractor.feature(data)
    return time.perf_counter() - started


def _seconds(
    choice: Choice, looked: Looked, made: training.Course | None, picture: float | None
) -> float | None:
    """What training takes: forwards once, backwards twice that, and all pictures seen anew."""
    if picture is None:
        return None
    epochs = made.recipe.epochs if made is not None else 8
    passes = epochs * (1 if choice == "last-block" else 3) + 1
    return float(f"{_AROUND + passes * looked.known.images * picture:.2g}")
