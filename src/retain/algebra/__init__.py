"""The sum: features, statistics, heads. Pure NumPy and SciPy; no files, clock or randomness.

Read in this order: `fixed` (why sums are exact), `statistics` (the state), `heads` (the state as
a classifier), `tune` (its few numbers, by leave-one-out), `leaveout` (what a head says of a picture
that it never saw), `pins` (corrections as constraints), `exceptions` (pictures that answer for
their neighbourhood), `extension` and `extension_tuning` (new classes beside somebody's own last
layer), `calibrate` and `novelty` (what scores mean), `compare` (what changed).
"""

from retain.algebra.compare import Difference, compare, predict_indices
from retain.algebra.exceptions import Exceptions, overridden
from retain.algebra.extension import REFERENCE, ExtensionTuning, Start, extend
from retain.algebra.extension_tuning import STARTED, started, tune_extension
from retain.algebra.fixed import SCALE, quantize, to_float
from retain.algebra.heads import (
    UNTUNED,
    Head,
    HeadOptions,
    Tuning,
    base_head,
)
from retain.algebra.leaveout import left_out_logits
from retain.algebra.novelty import typicality
from retain.algebra.pins import Pin, nearest_head
from retain.algebra.statistics import Statistics
from retain.algebra.tune import tune, tuning_sample
from retain.algebra.whitening import Factor, Moments, Solver

__all__ = [
    "REFERENCE",
    "SCALE",
    "STARTED",
    "UNTUNED",
    "Difference",
    "Exceptions",
    "ExtensionTuning",
    "Factor",
    "Head",
    "HeadOptions",
    "Moments",
    "Pin",
    "Solver",
    "Start",
    "Statistics",
    "Tuning",
    "base_head",
    "compare",
    "extend",
    "left_out_logits",
    "nearest_head",
    "overridden",
    "predict_indices",
    "quantize",
    "started",
    "to_float",
    "tune",
    "tune_extension",
    "tuning_sample",
    "typicality",
]
