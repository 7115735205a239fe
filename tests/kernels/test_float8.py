"""Floats of eight bits in and out, against ml_dtypes' numbers and mpmath."""

import ml_dtypes
import mpmath
import numpy as np
import pytest

from lnsnum import LNSFormat, LNSTensor, decode, encode, fit_log_offset, lns8f3, lns16f10, reference
from lnsnum.kernels.float8 import FLOAT8_TYPES, values_of

KINDS = {name: getattr(ml_dtypes, name) for name in FLOAT8_TYPES if hasattr(ml_dtypes, name)}
"""Some are of later versions."""


@pytest.mark.parametrize("name", KINDS)
def test_what_comes_in_is_the_number_that_it_is(name):
    """All 256 patterns, as an array of ml_dtypes' and as bits, against its widening."""
    patterns = np.arange(256, dtype=np.uint8)
    floats = patterns.view(KINDS[name])
    wide = floats.astype(np.float32)
    np.testing.assert_array_equal(values_of(name), wide)
    for fmt in (lns8f3, lns16f10):
        expected = encode(wide, fmt, log_offset=3)
        np.testing.assert_array_equal(encode(floats, fmt, log_offset=3), expected)
        np.testing.assert_array_equal(encode(patterns, fmt, log_offset=3, dtype=name), expected)
    assert fit_log_offset(floats, lns8f3) == fit_log_offset(wide, lns8f3)
    np.testing.assert_array_equal(LNSTensor.from_float(floats, lns8f3).codes, encode(wide, lns8f3))
    with pytest.raises(TypeError, match=f"^{name} comes as an array of uint8 bit patterns, not of float32$"):
        encode(wide, lns8f3, dtype=name)


@pytest.mark.parametrize(
    "fmt",
    [lns8f3, LNSFormat(9, 2, base=1.5), pytest.param(LNSFormat(6, 0, base=4.0), marks=pytest.mark.thorough)],
    ids=str,
)
@pytest.mark.parametrize("name", KINDS)
def test_what_goes_out_is_the_nearest_float(name, fmt):
    """Of all codes at several scales: ties to the even pattern, as mpmath says.

    What lies beyond half a step above the greatest is infinity, or NaN where there is none.
    """
    kind = KINDS[name]
    values = np.arange(128, dtype=np.uint8).view(kind).astype(np.float64)
    finite = np.flatnonzero(np.isfinite(values)).tolist()
    greatest, before = values[finite[-1]], values[finite[-2]]
    has_infinity = np.isinf(values).any()
    for log_offset in (0, 2, -9):
        codes = np.arange(1 << fmt.bits, dtype=fmt.dtype)
        ours = decode(codes, fmt, name, log_offset=log_offset)
        assert ours.dtype == np.uint8
        for code in codes.tolist():
            number = reference.value(code, fmt, log_offset=log_offset, precision=300)
            pattern = int(ours[code])
            size = abs(number)
            # half of the step below the greatest is left above it; there the pattern of a tie is even or beyond
            over = 2 * (size - greatest) > greatest - before or (
                2 * (size - greatest) == greatest - before and finite[-1] % 2 == 1
            )
            if mpmath.isnan(number) or (over and not has_infinity):
                assert np.isnan(np.uint8(pattern).view(kind).astype(np.float32)), code
                continue
            nearest = min((abs(size - values[p]), p & 1, p) for p in finite)[2]
            nearest = finite[-1] + 1 if over else nearest
            assert pattern == (nearest | 128 if number < 0 and nearest else nearest), code
        typed = decode(codes, fmt, kind, log_offset=log_offset)
        assert typed.dtype == kind
        np.testing.assert_array_equal(typed.view(np.uint8), ours)


@pytest.mark.parametrize(("towards", "pattern"), [(2.0, 0x39), (1.0, 0x38)])
def test_a_double_that_is_a_tie_does_not_decide(towards, pattern):
    """17/16 lies half-way between two floats. The root of a double beside its square is none, but its double is."""
    fmt = LNSFormat(32, 1, base=float(np.nextafter(1.0625**2, towards)))
    code = np.array([fmt.bias + 1])
    assert decode(code, fmt)[0] == 1.0625
    assert decode(code, fmt, "float8_e4m3fn").tolist() == [pattern]
    exact = LNSFormat(32, 1, base=1.0625**2)
    assert decode(code, exact, "float8_e4m3fn").tolist() == [0x38]


def test_tensors_become_floats_of_ml_dtypes():
    x = LNSTensor.from_float([[1.0, -2.5], [0.0, 300.0]], lns16f10, channels=0)
    for kind in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.bfloat16):
        name = np.dtype(kind).name
        for floats in (np.asarray(x, kind), x.astype(kind), x.to_float(kind)):
            assert floats.dtype == kind
            np.testing.assert_array_equal(floats.view(f"u{floats.itemsize}"), x.to_float(name))
        np.testing.assert_array_equal(x.astype(name), x.to_float(name))
    turned = np.array([[1, 2], [3, 4]], np.uint8)[:, ::-1].T
    np.testing.assert_array_equal(decode(turned, lns8f3, "float8_e5m2"), decode(turned.copy(), lns8f3, "float8_e5m2"))
