"""Corrections: does it hold, and what else gets worse?

clothing17: learn the training pictures; every test picture that is answered wrongly is corrected,
each from the same starting state. The judges are the other test pictures: for each of 200 random
halves of the test pictures (seeds 0 to 199), the mistakes in one half are the corrections and the
other half judges; the mean and the spread over the halves are shown, since a few pictures that lie
on a boundary decide the figure of a single half. Then, for seed 0, all corrections of that half one
after the other.

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
from retain.algebra import (
    Head,
    HeadOptions,
    Statistics,
    base_head,
    predict_indices,
    quantize,
    to_float,
)
from retain.algebra.calibrate import softmax
from retain.algebra.pins import lifted

HALVES = 200


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
    everything, right = np.concatenate([test, train]), np.concatenate([truth, labels])
    fixed, _ = quantize(everything)
    with (
        tempfile.TemporaryDirectory() as scratch,
        threadpool_limits(2),
        retain.create(
            Path(scratch) / "shop", extractor=f"vectors:{train.shape[1]}", memory="features"
        ) as shop,
    ):
        shop.learn(train, list(labels))
        mind, state, digest = shop._session.mind, shop._session.state, shop.digest
        head, classes = mind.head, np.array(mind.head.classes)

        def asked(weights, bias):
            return classes[predict_indices(Head(mind.head.classes, weights, bias), fixed)]

        start = asked(head.weights, head.bias)
        wrong = np.flatnonzero(start[: len(test)] != truth)
        names = ("retain correct", "learn only", "plain-metric edit", "gradient steps")
        hits = {name: [] for name in names}
        worse = {name: np.zeros((len(wrong), len(right)), bool) for name in names}
        better = {name: np.zeros((len(wrong), len(right)), bool) for name in names}
        for n, i in enumerate(wrong):
            heads = {}
            assert shop.correct(test[i], str(truth[i])).fixed
            edited = shop._session.mind.head
            heads["retain correct"] = edited.weights, edited.bias
            shop.undo()
            assert shop.digest == digest
            x, target = to_float(fixed[i]), int(np.searchsorted(classes, truth[i]))
            more = state.statistics + Statistics.of(fixed[i : i + 1], [str(truth[i])])
            learned, _ = base_head(more, mind.tuning, HeadOptions(), state.lesson)
            heads["learn only"] = learned.weights, learned.bias
            logits = head.logits(fixed[i])
            delta = lifted(logits, target, mind.tuning.margin) - logits
            heads["plain-metric edit"] = head.weights + np.outer(delta, x) / (x @ x), head.bias
            heads["gradient steps"] = gradient(head.weights, head.bias, x, target)
            for name, (weights, bias) in heads.items():
                said = asked(weights, bias)
                hits[name].append(said[i] == truth[i])
                worse[name][n] = (start == right) & (said != right)
                better[name][n] = (start != right) & (said == right)
        halves = [
            np.random.default_rng(k).permutation(len(test)) < len(test) // 2 for k in range(HALVES)
        ]
        rows, means = [], {}
        for name in names:
            lost, gained = [], []
            for half in halves:
                made = ~half[wrong]
                lost.append(1000 * worse[name][made][:, : len(test)][:, half].mean())
                gained.append(1000 * better[name][made][:, : len(test)][:, half].mean())
            means[name] = np.mean(lost)
            rows.append(
                (
                    name,
                    f"{100 * np.mean(hits[name]):.1f} %",
                    f"{np.mean(lost):.2f} ± {np.std(lost):.2f}",
                    f"{lost[0]:.2f}",
                    f"{np.mean(gained):.2f}",
                    f"{1000 * worse[name][:, len(test) :].mean():.2f}",
                )
            )
        table(
            f"clothing17: {len(wrong)} corrections, each from the same start; per 1,000 judges and "
            "correction",
            ["method", "fixed", "worse", "worse, seed 0", "better", "remembered worse"],
            rows,
        )
        first = [i for i in wrong if not halves[0][i]]
        for i in first:
            shop.correct(test[i], str(truth[i]))
        edited = shop._session.mind.head
        said = asked(edited.weights, edited.bias)
        held = (said[first] == truth[first]).sum()
        judges = np.flatnonzero(halves[0])
        lost = ((start == right) & (said != right))[judges].sum()
        gained = ((start != right) & (said == right))[judges].sum()
        sound = shop.verify().ok
    print(
        f"seed 0, all {len(first)} one after the other: {held} still right; of {len(judges)} "
        f"judges {lost} got worse and {gained} better; verify ok: {sound}"
    )
    print(
        f"bars: fixed 100 %: {'yes' if all(hits['retain correct']) else 'NO'}; all still right: "
        f"{'yes' if held == len(first) else 'NO'}; worse per 1,000 at most 0.5: "
        f"{'yes' if means['retain correct'] <= 0.5 else 'NO'}"
    )


if __name__ == "__main__":
    main()
