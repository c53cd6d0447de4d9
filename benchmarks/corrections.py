"""Corrections: does it hold, and what else gets worse?

clothing17: learn the training pictures; a random half of the test pictures (seed 0) is walked
through, and those answered wrongly are corrected; the other half judges. Beside it, what changes
among the remembered pictures.
First each correction from the same starting state, then all of them one after the other.

Beside: one more row (learn the picture and nothing else), the same edit in the plain metric
(P = I), and gradient steps on the last layer with the picture until it is right (rate 0.01).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from _data import load, table
from threadpoolctl import threadpool_limits

import retain
from retain.algebra import HeadOptions, Statistics, base_head, quantize, to_float
from retain.algebra.calibrate import softmax
from retain.algebra.pins import lifted


def changes(before, after, truth, held_out):
    """How many got worse and better of the held-out pictures, and worse of the remembered."""
    worse, better = (before == truth) & (after != truth), (before != truth) & (after == truth)
    return worse[:held_out].sum(), better[:held_out].sum(), worse[held_out:].sum()


def gradient(weights, bias, x, target, rate=0.01, limit=100_000):
    """Gradient steps on the cross-entropy of one picture until it is answered right."""
    w, b = weights.copy(), bias.copy()
    for _ in range(limit):
        logits = w @ x + b
        if logits.argmax() == target:
            return w, b
        step = softmax(logits)
        step[target] -= 1
        w -= rate * np.outer(step, x)
        b -= rate * step
    return w, b


def main() -> None:
    """All corrections, all methods."""
    pictures = load("clothing17_224")
    train, labels, test, truth = pictures.split
    random = np.random.default_rng(0)
    half = random.permutation(len(test)) < len(test) // 2
    rows = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        threadpool_limits(1),
        retain.create(
            Path(scratch) / "shop", extractor=f"vectors:{train.shape[1]}", memory="features"
        ) as shop,
    ):
        shop.learn(train, list(labels))
        judges = np.concatenate([test[half], train])
        right = np.concatenate([truth[half], labels])
        held_out = int(half.sum())

        def asked(pictures=judges):
            return np.array([answer.label for answer in shop.predict(pictures, top=1)])

        start, digest = asked(), shop.digest
        candidates = np.flatnonzero(~half)
        wrong = candidates[asked(test[candidates]) != truth[candidates]]
        mind, state = shop._session.mind, shop._session.state
        tallies = {
            name: []
            for name in ("retain correct", "learn only", "plain-metric edit", "gradient steps")
        }
        asked_fixed, _ = quantize(judges)
        flat = to_float(asked_fixed)
        head, classes = mind.head, np.array(mind.head.classes)
        for i in wrong:
            update = shop.correct(test[i], str(truth[i]))
            tallies["retain correct"].append(
                (update.fixed, *changes(start, asked(), right, held_out))
            )
            shop.undo()
            assert shop.digest == digest
            fixed, _ = quantize(test[i : i + 1])
            x, target = to_float(fixed[0]), int(np.searchsorted(classes, truth[i]))
            more = state.statistics + Statistics.of(fixed, [str(truth[i])])
            learned, _ = base_head(more, mind.tuning, HeadOptions())
            delta = lifted(head.logits(fixed[0]), target, mind.tuning.margin)
            delta -= head.logits(fixed[0])
            plain = np.outer(delta, x) / (x @ x)
            for name, (w, b) in {
                "learn only": (learned.weights, learned.bias),
                "plain-metric edit": (head.weights + plain, head.bias),
                "gradient steps": gradient(head.weights, head.bias, x, target),
            }.items():
                said = classes[(flat @ w.T + b).argmax(axis=1)]
                hit = (w @ x + b).argmax() == target
                tallies[name].append((hit, *changes(start, said, right, held_out)))
        for name, values in tallies.items():
            hits, worse, better, remembered = np.mean(values, axis=0)
            rows.append(
                (
                    name,
                    f"{100 * hits:.1f} %",
                    f"{worse:.2f}",
                    f"{1000 * worse / held_out:.2f}",
                    f"{1000 * better / held_out:.2f}",
                    f"{1000 * remembered / len(train):.2f}",
                )
            )
        for i in wrong:
            shop.correct(test[i], str(truth[i]))
        held = asked(test[wrong]) == truth[wrong]
        worse, better, remembered = changes(start, asked(), right, held_out)
        sound = shop.verify().ok
    table(
        f"clothing17: {len(wrong)} corrections, each from the same start, judged on {held_out} "
        f"other test pictures and {len(train)} remembered ones",
        ["method", "fixed", "worse", "worse/1,000", "better/1,000", "remembered worse/1,000"],
        rows,
    )
    print(
        f"all {len(wrong)} one after the other: {held.sum()} still right; of {held_out} judges "
        f"{worse} got worse and {better} better, of the remembered {remembered} worse; "
        f"verify ok: {sound}"
    )
    first = float(rows[0][3])
    print(
        f"bars: fixed 100 %: {'yes' if rows[0][1] == '100.0 %' else 'NO'}; all still right: "
        f"{'yes' if held.all() else 'NO'}; worse per 1,000 at most 0.5: "
        f"{'yes' if first <= 0.5 else 'NO'}"
    )


if __name__ == "__main__":
    main()
