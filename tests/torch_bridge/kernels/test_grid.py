"""The numbers of a format that Madam's kernels take, against the page's in 160 bits."""

import madam_reference as reference
import mpmath
import numpy as np
import pytest

from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f3, lns8f4, lns8f5, lns16f10
from lnsnum.torch_bridge.kernels import grid

F32 = np.float32

FORMATS = [lns4f1, lns6f2, lns8f3, lns8f4, lns8f5, LNSFormat(7, 0), LNSFormat.madam(8, 0.05), LNSFormat(8, 0, base=1.7)]
WIDE = [lns16f10, LNSFormat(16, 14), LNSFormat(16, 0, base=1.001), LNSFormat(12, 0, base=1.5)]


def some(fmt):
    return np.unique(np.concatenate([[0, 1, 2], np.linspace(0, fmt.max_magnitude, 300).astype(int)]))


@pytest.mark.parametrize("fmt", [*FORMATS, *WIDE], ids=str)
def test_magnitudes_are_the_rungs_rounded_once(fmt):
    found = grid.magnitudes(fmt)
    assert found.size == fmt.max_magnitude + 1
    assert (np.diff(found[np.isfinite(found)]) > 0).all()
    for m in some(fmt).tolist():
        assert found[m] == float(reference.rung(fmt, m))


@pytest.mark.parametrize("fmt", [*FORMATS, *WIDE], ids=str)
def test_inverses_are_one_over_them(fmt):
    """To a rounding of float32; at least its smallest normal number."""
    found = grid.inverses(fmt)
    assert found.dtype == F32
    assert found[0] == 1.0
    for m in some(fmt)[1:].tolist():
        exact = 1 / reference.rung(fmt, m)
        if exact >= 2.0**-126:
            assert abs(mpmath.mpf(float(found[m])) / exact - 1) <= 2.0**-24 * (1 + 2.0**-20)
        else:
            assert found[m] == 2.0**-126
    negative = found[fmt.sign_bit :]
    assert np.isnan(negative[0])
    np.testing.assert_array_equal(negative[1:], found[1 : fmt.sign_bit])


@pytest.mark.parametrize("fmt", [*FORMATS, *WIDE], ids=str)
def test_the_code_steps_of_an_octave(fmt):
    """K to the nearest float32, an integer at base 2; a ceiling grows by the next whole number."""
    exact = (1 << fmt.fraction_bits) / mpmath.log(mpmath.mpf(fmt.base), 2)
    assert abs(float(grid.octave(fmt)) / exact - 1) <= 2.0**-24
    if fmt.base == 2.0:
        assert grid.octave(fmt) == 1 << fmt.fraction_bits
    assert grid.doubling(fmt) == reference.growth(fmt)


@pytest.mark.parametrize("fmt", [*FORMATS, *WIDE, LNSFormat(3, 0, base=1e6)], ids=str)
def test_the_terms_of_p_are_those_of_the_exponential(fmt):
    """l^k / k! / (b - 1), all above 2^-30."""
    step = mpmath.log(mpmath.mpf(fmt.base)) / (1 << fmt.fraction_bits)
    exact = [step**k / mpmath.factorial(k) / mpmath.expm1(step) for k in range(1, 200)]
    found = grid.up_coefficients(fmt)
    assert all(abs(float(c) / e - 1) < 2.0**-23 for c, e in zip(found.tolist(), exact, strict=False))
    assert sum(exact[found.size :]) < 2.0**-28


@pytest.mark.parametrize("fmt", [*FORMATS, *WIDE, LNSFormat(8, 1), LNSFormat(8, 6)], ids=str)
def test_the_bent_number_is_the_inverse_of_the_probability(fmt):
    """W = 1 - log_b(1 + u (b - 1)), to its stated error and that of coefficients in float32, below 2^-16 for steps of
    up to an octave."""
    step = mpmath.log(mpmath.mpf(fmt.base)) / (1 << fmt.fraction_bits)
    few, more = grid.bend_coefficients(fmt)
    terms = [mpmath.mpf(float(c)) for c in (*few, *(more or ()))]
    assert len(terms) in (grid.FEW, grid.FEW + grid.MORE)
    if fmt.codes_per_octave < 1:
        return  # the rule refuses it
    assert grid.bend_error(fmt) < 2.0**-16
    for u in np.linspace(0.0, 1.0, 41).tolist():
        exact = 1 - mpmath.log1p(u * mpmath.expm1(step)) / step
        assert abs(mpmath.polyval(terms[::-1], u - 0.5) - exact) <= grid.bend_error(fmt) + 2.0**-24
