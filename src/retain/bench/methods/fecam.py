"""A covariance for each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retain.bench.methods.base import Floats, Labels, Method, Roster, Scores, probabilities, unit
from retain.errors import BadOption

__all__ = ["FeCAM"]


@dataclass(frozen=True, eq=False, slots=True)
class _Class:
    """One class: `count`, `mean` [d] of its features, and rows R [r, d] with RᵀR the scatter.

    The scatter and the second `mean` (`inner`) are those of the transformed features.
    """

    count: int
    mean: Floats
    inner: Floats
    rows: Floats

    def joined(self, other: _Class) -> _Class:
        """Both as one."""
        count = self.count + other.count
        mean = (self.count * self.mean + other.count * other.mean) / count
        inner = (self.count * self.inner + other.count * other.inner) / count
        shift = np.sqrt(self.count * other.count / count) * (self.inner - other.inner)
        rows = np.vstack([self.rows, other.rows, shift[None]])
        if len(rows) > rows.shape[1]:
            rows = np.asarray(np.linalg.qr(rows, mode="r"), np.float64)
        return _Class(count, mean, inner, rows)


@dataclass(frozen=True, eq=False, slots=True)
class _Metric:
    """δ ↦ δᵀN⁻¹δ, where N is pI + UDUᵀ scaled to a unit diagonal."""

    scales: Floats  # [d], the square roots of the diagonal before it was scaled
    columns: Floats  # U [d, r + 1]
    level: float  # p
    inverse: Floats  # (pD⁻¹ + UᵀU)⁻¹ [r + 1, r + 1]

    def __call__(self, deviations: Floats) -> Floats:
        """Of each row [n, d]: [n]."""
        scaled = deviations * self.scales
        inside = scaled @ self.columns
        found: Floats = (scaled**2).sum(axis=1) - ((inside @ self.inverse) * inside).sum(axis=1)
        return found / self.level


class FeCAM(Method):
    """FeCAM (Goswami 2023): Mahalanobis distances with a shrunk, normalised covariance per class.

    ``style="cnn"``: the code for CNNs (`models/`, `exps/FeCAM_cifar100.json`): Tukey's power β =
    0.5 of features that are not negative (section 4.3, eq. 9), covariance of these, shrunk twice
    with α₁ = α₂ = 1 (eq. 8: the mean of its diagonal onto the diagonal, that of its other entries
    that are not zero onto those), scaled to a correlation (eq. 10); picture and class mean are
    transformed, brought to length one and subtracted (eq. 6). ``style="vit"``: the code for
    frozen, pretrained transformers (`FeCAM_vit_cifar100.py`): unit features, no power, shrunk once
    with α₁ = 1, α₂ = 0.

    Deviations: the metric is used from the first lesson on, as in the code for transformers (for
    CNNs the first task has the trained layer); a covariance is kept as its rows, or its triangular
    factor once that is smaller, and inverted by Woodbury's identity, which is the same matrix as
    the pseudo-inverse of d × d and hundreds of times cheaper; pictures of an old class join it, by
    the sum of scatters, where the code knows a class once; a class of one picture, which has no
    covariance, has the identity, its limit under shrinkage. Answers are argmin; the probabilities
    here are the softmax of −½ distance: see `Method.calibrated`.
    """

    name, title = "fecam", "FeCAM"
    source = "Goswami 2023, arXiv:2309.14062; github.com/dipamgoswami/FeCAM"
    keeps = "a mean and a covariance a class"
    calibrated = False

    def __init__(self, dimension: int, seed: int, workdir: Path, *, style: str = "cnn") -> None:
        super().__init__(dimension, seed, workdir)
        if style not in ("cnn", "vit"):
            raise BadOption(f"the style of FeCAM is {style!r}; it is 'cnn' or 'vit'")
        self._cnn = style == "cnn"
        self._roster = Roster()
        self._classes: list[_Class] = []
        self._metrics: list[_Metric | None] = []

    def learn(self, features: NDArray[np.float32], labels: Labels) -> None:
        """Add to the classes, and invert what changed."""
        if self._cnn and (features < 0).any():
            raise BadOption(
                "these features are negative in places, so that Tukey's power is not defined; "
                "use FeCAM with style='vit'"
            )
        x = np.asarray(features, np.float64) if self._cnn else unit(features)
        inner = np.sqrt(x) if self._cnn else x
        where = self._roster.enter(labels)
        for c in np.unique(where):
            mine = where == c
            mean = inner[mine].mean(axis=0)
            rows = inner[mine] - mean
            found = _Class(int(mine.sum()), x[mine].mean(axis=0), mean, rows)
            if c < len(self._classes):
                self._classes[c] = self._classes[c].joined(found)
                self._metrics[c] = self._metric(self._classes[c])
            else:
                self._classes.append(found)
                self._metrics.append(self._metric(found))

    def scores(self, features: NDArray[np.float32]) -> Scores:
        """Softmax of −½ the squared distances."""
        classes = self._roster.asked(self.title)
        return classes, probabilities(-0.5 * self._distances(features))

    def stored_bytes(self) -> int:
        """Means and factors of covariances, in float64; what is inverted can be had from them."""
        return sum(e.mean.nbytes + e.inner.nbytes + e.rows.nbytes for e in self._classes)

    def _distances(self, features: NDArray[np.float32]) -> Floats:
        x = self._placed(features)
        found = np.empty((len(x), len(self._classes)))
        for c, (each, metric) in enumerate(zip(self._classes, self._metrics, strict=True)):
            centre = self._placed(each.mean[None]) if self._cnn else each.mean[None]
            deviations = x - centre
            found[:, c] = (deviations**2).sum(axis=1) if metric is None else metric(deviations)
        return found

    def _placed(self, features: NDArray[np.floating]) -> Floats:
        x = np.asarray(features, np.float64)
        return unit(np.sqrt(np.maximum(x, 0.0)) if self._cnn else x)

    def _metric(self, of: _Class) -> _Metric | None:
        rows = of.rows / np.sqrt(max(of.count - 1, 1))
        dimension = self.dimension
        variances = (rows**2).sum(axis=0)
        mean = float(variances.mean())
        if mean == 0.0 or of.count < 2:
            return None
        varying = int(np.count_nonzero(variances))
        rest = float((rows.sum(axis=1) ** 2).sum() - variances.sum())
        if self._cnn:
            first = rest / max(varying * (varying - 1), 1)
            second = rest / max(dimension * (dimension - 1), 1) + first
            shared, level = first + second, 3 * mean - (first + second)
        else:
            shared, level = 0.0, mean
        level = max(level, 1e-6 * mean)
        signs = np.ones(len(rows) + 1)
        columns = np.column_stack([rows.T, np.full(dimension, np.sqrt(abs(shared)))])
        signs[-1] = np.sign(shared) if shared else 1.0
        inner = columns.T @ columns
        inner[np.diag_indices_from(inner)] += level * signs
        scales = np.sqrt(variances + level + shared)
        return _Metric(scales, columns, level, np.linalg.inv(inner))
