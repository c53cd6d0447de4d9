"""The sum: features, statistics, heads. Pure NumPy and SciPy; no files, clock or randomness.

Read in this order: `fixed` (why sums are exact), `statistics` (the state), `heads` (the state as
a classifier), `tune` (its few numbers, by leave-one-out), `pins` (corrections as constraints),
`calibrate` and `novelty` (what scores mean), `compare` (what changed).
"""

from retain.algebra.compare import Difference, compare, predict_indices
from retain.algebra.fixed import SCALE, quantize, to_float
from retain.algebra.heads import UNTUNED, Head, HeadOptions, Tuning, base_head
from retain.algebra.novelty import typicality
from retain.algebra.pins import Pin, pin_head
from retain.algebra.statistics import Statistics
from retain.algebra.tune import tune, tuning_sample

__all__ = [
    "SCALE",
    "UNTUNED",
    "Difference",
    "Head",
    "HeadOptions",
    "Pin",
    "Statistics",
    "Tuning",
    "base_head",
    "compare",
    "pin_head",
    "predict_indices",
    "quantize",
    "to_float",
    "tune",
    "tuning_sample",
    "typicality",
]
