import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retain.algebra import SCALE, quantize, to_float

vectors = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(1, 9)),
    elements=st.floats(-1e30, 1e30, allow_nan=False),
)


@given(vectors)
def test_rounding_is_within_half_a_unit_of_the_unit_vector(x):
    fixed, norms = quantize(x)
    lengths = np.linalg.norm(x.astype(np.longdouble), axis=1)
    for row, quantized, length, norm in zip(x, fixed, lengths, norms, strict=True):
        if length == 0:
            assert not quantized.any()
            assert norm == 0
        else:
            assert np.abs(row / length * SCALE - quantized).max() <= 0.5 + 1e-6
            assert norm == pytest.approx(float(length), rel=1e-5, abs=1e-35)


@given(vectors, st.floats(1e-3, 1e3))
@example(np.array([[5e-324]]), 1.0)
def test_length_does_not_matter(x, factor):
    x = np.where(np.abs(x) < 1e-290, 0, x)  # what has its digits, and keeps them below
    once, again = quantize(x)[0].astype(int), quantize(x * factor)[0].astype(int)
    assert np.abs(once - again).max() <= 1


def test_extremes_fit_in_int16():
    fixed, _ = quantize([[1e300, 0.0], [-1e-300, 0.0], [0.0, 5e-324]])
    assert fixed.tolist() == [[SCALE, 0], [-SCALE, 0], [0, SCALE]]
    assert to_float(fixed).tolist() == [[1, 0], [-1, 0], [0, 1]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize([[1.0, bad]])
