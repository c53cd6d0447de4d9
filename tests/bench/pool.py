"""A small pool of vectors, and methods to be judged that need no more than a few lines."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from retain.bench import Method, Pool, load_pool

CLASSES = ("anchor", "bell", "crane", "drum", "easel", "flute", "gate")


def write(path: Path, *, classes=CLASSES, each=12, tested=4, domains=0, seed=7, spread=0.9) -> Path:
    """An .npz of vectors: clouds about random centres, so that not every answer is right."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(len(classes), 6))
    labels = np.repeat(np.array(classes), each + tested)
    vectors = np.repeat(centres, each + tested, axis=0)
    vectors = vectors + random.normal(scale=spread, size=vectors.shape)
    train = np.tile(np.arange(each + tested) < each, len(classes))
    shuffled = random.permutation(len(labels))
    more = {}
    if domains:
        more["domains"] = np.array([f"d{i % domains}" for i in range(len(labels))])
    np.savez(
        path,
        features=vectors[shuffled].astype(np.float32),
        labels=labels[shuffled],
        train=train[shuffled],
        **more,
    )
    return path


def small(tmp_path: Path, **options) -> Pool:
    return load_pool(write(tmp_path / "small.npz", **options))


class Means(Method):
    """Nearest class mean, sums kept; writes down what it was taught."""

    name, title, source = "means", "means", "a test"

    def __init__(self, dimension, seed, workdir, *, scale: float = 1.0):
        super().__init__(dimension, seed, workdir)
        self.scale, self.sums, self.counts = scale, {}, {}

    def learn(self, features, labels):
        for x, y in zip(features.astype(float), labels.tolist(), strict=True):
            self.sums[y] = self.sums.get(y, 0) + x
            self.counts[y] = self.counts.get(y, 0) + 1

    def forget(self, features, labels):
        for x, y in zip(features.astype(float), labels.tolist(), strict=True):
            self.sums[y] = self.sums[y] - x
            self.counts[y] -= 1
            if not self.counts[y]:
                del self.sums[y], self.counts[y]

    def scores(self, features):
        # Deliberately not in sorted order: newest first.
        classes = tuple(self.sums)[::-1]
        means = np.array([self.sums[c] / self.counts[c] for c in classes])
        gaps = ((features[:, None, :].astype(float) - means[None]) ** 2).sum(2)
        e = np.exp(-self.scale * (gaps - gaps.min(axis=1, keepdims=True)))
        return classes, e / e.sum(axis=1, keepdims=True)

    def stored_bytes(self):
        return 8 * (self.dimension + 1) * len(self.sums)


def die_after(steps: int):
    """A progress callback that kills its own process, as a power cut would."""

    def progress(done: int, total: int) -> None:
        if done == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    return progress
