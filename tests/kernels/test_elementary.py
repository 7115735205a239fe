"""log2, exp2 and powers of a base against mpmath: the advertised bounds, at every boundary of their tables.

`power_significand` and `significands` must give what `exact.significand64` gives, which is held against mpmath too.
"""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnsnum import exact
from lnsnum.kernels.elementary import (
    EXP2_ERROR,
    LOG2_ERROR,
    exp2_and_complement,
    log2_parts,
    log2_significand,
    power_significand,
    powers,
    significands,
    split_power,
)

pytestmark = pytest.mark.plain_python

_mp = mpmath.MPContext()
_mp.prec = 200

LEAST = 5e-324
GREATEST = math.nextafter(math.inf, 0.0)
BELOW_TWO = math.nextafter(2.0, 0.0)

BASES = [2.0, 1.5, 3.0, 4.0, 10.0, math.e, 1.0 + 2.0**-20, 1e300, math.nextafter(1.0, 2.0), 1.7]
EXTREMES = [0, 1, -1, 2047, 2048, 2049, -2048, (1 << 22) - 1, 1 << 22, -(1 << 22) - 1, (1 << 32) - 1, 1 - (1 << 32)]


def neighbours(x, least=0.0, greatest=math.inf):
    return [y for y in (math.nextafter(x, -math.inf), x, math.nextafter(x, math.inf)) if least <= y <= greatest]


def log2_error(m, found):
    """|found - log2 m|."""
    return abs(_mp.mpf(found) - _mp.log(_mp.mpf(m)) / _mp.ln2)


# ------------------------------------------------------------------------------------------------------- log2


def test_log2_significand_at_every_cell_boundary():
    boundaries = [x for i in range(129) for x in neighbours(1.0 + i / 128, 1.0, BELOW_TWO)]
    centres = [x for i in range(128) for x in neighbours(1.0 + (i + 0.5) / 128, 1.0, BELOW_TWO)]
    worst = max(log2_error(m, log2_significand(m)) for m in boundaries + centres)
    assert 0 < worst < LOG2_ERROR


def test_log2_significand_over_a_sweep_of_every_cell():
    worst = max(log2_error(m, log2_significand(m)) for m in np.linspace(1.0, 2.0, 4000, endpoint=False).tolist())
    assert worst < LOG2_ERROR


@given(st.floats(1.0, 2.0, exclude_max=True))
@example(1.0)
@example(math.nextafter(1.0, 2.0))
@example(BELOW_TWO)
def test_log2_significand_stays_in_its_bound(m):
    assert log2_error(m, log2_significand(m)) < LOG2_ERROR


@given(st.floats(LEAST, GREATEST))
@example(LEAST)
@example(2.0**-1022)
@example(math.nextafter(2.0**-1022, 0.0))
@example(3 * LEAST)
@example(GREATEST)
@example(math.nextafter(1.0, 0.0))
@example(math.nextafter(1.0, 2.0))
@example(2.0**1023)
def test_log2_parts(x):
    e, log = log2_parts(x)
    m, twos = math.frexp(x)
    assert e == twos - 1
    assert 0.0 <= log <= 1.0 + LOG2_ERROR
    assert log2_error(2 * m, log) < LOG2_ERROR
    assert (log == 0.0) == (m == 0.5)


def test_log2_parts_of_powers_of_two_are_exact():
    for e in range(-1074, 1024):
        assert log2_parts(math.ldexp(1.0, e)) == (e, 0.0)


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor does not flush subnormals")
def test_log2_parts_reads_subnormals_where_the_processor_flushes_them():
    values = np.array([LEAST, 3 * LEAST, 2.0**-1030 * 1.75])
    expected = [log2_parts(x) for x in values]
    torch.set_flush_denormal(True)
    try:
        found = [log2_parts(values[i]) for i in range(3)]
    finally:
        torch.set_flush_denormal(False)
    assert found == expected
    assert [e for e, _ in found] == [-1074, -1073, -1030]


# ------------------------------------------------------------------------------------------------------- exp2


def exp2_errors(u):
    """The relative errors of both results."""
    power, complement = exp2_and_complement(u)
    with _mp.workprec(1300):  # 1 - 2^-1000 has a thousand ones
        true = _mp.power(2, -_mp.mpf(u))
        rest = 1 - true
        return abs(power / true - 1), abs(complement / rest - 1) if rest else abs(_mp.mpf(complement))


def test_exp2_and_its_complement_at_every_cell_boundary():
    corners = [x for whole in (0, 1, 2, 51, 52, 53, 998) for i in range(257) for x in neighbours(whole + i / 256)]
    errors = np.array([[float(error) for error in exp2_errors(u)] for u in corners if u == 0.0 or u >= 1e-300])
    assert np.all(errors.max(axis=0) < EXP2_ERROR)
    assert np.all(errors.max(axis=0) > 0.0)


@given(st.one_of(st.floats(1e-300, 1000.0), st.floats(1e-300, 2.0), st.floats(-300, 3).map(lambda e: 10.0**e)))
@example(0.0)
@example(1e-300)
@example(2.0**-60)
@example(math.nextafter(0.5, 0.0))
@example(math.nextafter(1.0, 0.0))
@example(math.nextafter(1.0, 2.0))
@example(1000.0)
def test_exp2_and_its_complement_stay_in_their_bound(u):
    for error in exp2_errors(u):
        assert error < EXP2_ERROR


def test_exp2_at_whole_numbers_is_exact():
    for u in range(1001):
        power, complement = exp2_and_complement(float(u))
        assert power == math.ldexp(1.0, -u)
        assert complement == 1.0 - math.ldexp(1.0, -u)


@pytest.mark.parametrize("u", [math.nextafter(1000.0, 1001.0), 1e6, 2.0**60, 1e300, math.inf])
def test_exp2_beyond_its_range(u):
    assert exp2_and_complement(u) == (0.0, 1.0)


# ----------------------------------------------------------------------------------------------------- powers


def significand64_by_mpmath(base, n, k):
    """`exact.significand64` where the power is irrational, with enough digits that the tail tells."""
    with _mp.workprec(400):
        x = _mp.power(_mp.mpf(base), _mp.mpf(n) / (1 << k))
        mantissa, exponent = int(x.man), int(x.exp)
        cut = mantissa.bit_length() - 64
        return (mantissa >> cut if cut > 0 else mantissa << -cut) | 1, exponent + mantissa.bit_length() - 1


def check_powers(base, fraction_bits, logs):
    """`significands` is significand64; `power_significand` is it wherever it is sure. Returns how often it was."""
    expected = [exact.significand64(base, n, fraction_bits) for n in logs]
    s, e = significands(base, fraction_bits, np.array(logs, np.int64))
    assert s.dtype == np.uint64
    assert list(zip(s.tolist(), e.tolist(), strict=True)) == expected, (base, fraction_bits)
    table = powers(base, fraction_bits)
    sure = 0
    for n, right in zip(logs, expected, strict=True):
        significand, exponent, is_sure = power_significand(n, *table)
        if is_sure:
            sure += 1
            assert (int(significand), int(exponent)) == right, (base, fraction_bits, n)
    return sure


@pytest.mark.parametrize("base", BASES, ids=float.hex)
@pytest.mark.parametrize("fraction_bits", [0, 5, 23, 30])
def test_significands_over_the_whole_range(base, fraction_bits):
    random = np.random.default_rng([int(base * 97 % 9973), fraction_bits])
    wide = random.integers(1 - (1 << 32), 1 << 32, 30).tolist()
    near = random.integers(-3000, 3000, 20).tolist()
    irrational = [n for n in wide if n % (1 << fraction_bits) and fraction_bits > 1]
    sure = check_powers(base, fraction_bits, [*EXTREMES, *wide, *near])
    if irrational:
        assert sure >= len(irrational)
        for n in irrational[:6]:
            assert exact.significand64(base, n, fraction_bits) == significand64_by_mpmath(base, n, fraction_bits)


@given(data=st.data(), base=st.sampled_from(BASES), fraction_bits=st.sampled_from([1, 10, 20, 29]))
@settings(max_examples=60)
def test_significands_of_any_logarithm(data, base, fraction_bits):
    n = st.one_of(st.integers(1 - (1 << 32), (1 << 32) - 1), st.integers(-5000, 5000))
    check_powers(base, fraction_bits, data.draw(st.lists(n, max_size=20)))


def exact_significand(value):
    """The same of a fraction with a power of two below the line, with the sticky bit."""
    numerator, twos = value.numerator, value.denominator.bit_length() - 1
    assert value.denominator == 1 << twos
    length = numerator.bit_length()
    cut = length - 64
    if cut <= 0:
        return numerator << -cut, length - 1 - twos
    return numerator >> cut | bool(numerator & ((1 << cut) - 1)), length - 1 - twos


@pytest.mark.parametrize("fraction_bits", [0, 7, 30])
@pytest.mark.parametrize("base", [2.0, 4.0, 16.0, 2.0**300])
def test_powers_of_two_are_exact(base, fraction_bits):
    twos = int(math.log2(base))
    step = max((1 << fraction_bits) // (twos & -twos), 1)  # base^(step / 2^F) is a power of two
    logs = [step * i for i in (*range(-8, 9), ((1 << 32) - 1) // step, -(((1 << 32) - 1) // step))]
    s, e = significands(base, fraction_bits, np.array(logs, np.int64))
    assert set(s.tolist()) == {1 << 63}
    assert e.tolist() == [Fraction(twos * n, 1 << fraction_bits) for n in logs]


@pytest.mark.parametrize("fraction_bits", [0, 1, 12])
@pytest.mark.parametrize("base", [1.5, 3.0, 9.0, 2.25, 10.0, 1.0 + 2.0**-20, math.nextafter(1.0, 2.0), 12.25])
def test_whole_powers_that_are_rational(base, fraction_bits):
    """Up to 64 bits they have no sticky bit, beyond they have one: 65 bits are the hardest."""
    powers_of_base = range(90 if base < 16 else 10)
    expected = [exact_significand(Fraction(base) ** n) for n in powers_of_base]
    logs = [n << fraction_bits for n in powers_of_base]
    s, e = significands(base, fraction_bits, np.array(logs, np.int64))
    assert list(zip(s.tolist(), e.tolist(), strict=True)) == expected
    check_powers(base, fraction_bits, [*logs, *(-n for n in logs)])


def test_roots_that_are_rational():
    for base, root, k in ((2.25, 1.5, 1), (81.0, 3.0, 2), (5.0625, 1.5, 2)):
        s, e = significands(base, k + 3, np.arange(40, dtype=np.int64) << 3)
        found = list(zip(s.tolist(), e.tolist(), strict=True))
        assert found == [exact_significand(Fraction(root) ** n) for n in range(40)]


def test_power_significand_is_not_sure_where_it_cannot_be():
    """On the grid of 64 bits, and within 2^-32 of it, no double-double tells what the sticky bit is."""
    for base, n, fraction_bits in (
        (2.0, 0, 0),
        (2.0, 5 << 23, 23),
        (1.5, 40, 0),
        (1.5, 3 << 30, 30),
        (4.0, 1 << 9, 10),
    ):
        assert not power_significand(n, *powers(base, fraction_bits))[2]


def test_significands_of_nothing_and_of_equal_ones():
    s, e = significands(2.0, 3, np.empty(0, np.int64))
    assert (s.shape, e.shape) == ((0,), (0,))
    s, e = significands(2.0, 3, np.array([8, 3, 8, 8, 16, 0], np.int64))
    assert s.tolist() == [1 << 63, s[1], 1 << 63, 1 << 63, 1 << 63, 1 << 63]
    assert e.tolist() == [1, 0, 1, 1, 2, 0]


@given(
    base=st.one_of(st.sampled_from(BASES), st.floats(1.0, 1e308, exclude_min=True)),
    n=st.integers(1 - (1 << 32), (1 << 32) - 1),
    k=st.sampled_from([0, 11, 30]),
)
@settings(max_examples=150)
@example(base=2.0, n=-1, k=30)
@example(base=math.nextafter(1.0, 2.0), n=1, k=30)
def test_split_power(base, n, k):
    high, low, exponent = split_power(base, n, k)
    assert 1.0 <= high <= 2.0
    assert abs(low) <= math.ulp(high)
    with _mp.workprec(300):
        true = _mp.ldexp(_mp.power(_mp.mpf(base), _mp.mpf(n) / (1 << k)), -exponent)
        assert abs((_mp.mpf(high) + _mp.mpf(low)) / true - 1) < _mp.mpf(2) ** -105
