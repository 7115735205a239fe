"""lnsnum.exact against mpmath: a thousand bits say what an integer interval must find, and fractions what is equal."""

import math
import struct
from fractions import Fraction

import mpmath
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lnsnum import exact

PRECISION = 1000

MAX_FLOAT64 = 1.7976931348623157e308
INFINITY = exact.FLOAT64_INFINITY

BASES = [2.0, 3.0, 4.0, 2.25, 1.5, 10.0, 1.0000001, math.nextafter(1.0, 2.0), 1e300, MAX_FLOAT64, 2.0**512, 6.25, 81.0]

bases = st.one_of(
    st.sampled_from(BASES),
    st.floats(1.0, 4.0, exclude_min=True),
    st.floats(1.0, MAX_FLOAT64, exclude_min=True),
    st.integers(2, 40).map(lambda n: float(n * n)),
)
roots = st.integers(0, 32)
logs = st.one_of(st.integers(-40, 40), st.integers(-(2**33), 2**33))
positive_floats = st.floats(5e-324, MAX_FLOAT64)


def pattern(x: float) -> int:
    return struct.unpack("<Q", struct.pack("<d", x))[0]


def float64(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def mpf(x) -> mpmath.mpf:
    return mpmath.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else mpmath.mpf(x)


def log2_power(base: float, n: int, k: int) -> mpmath.mpf:
    return mpmath.log(base, 2) * mpmath.ldexp(n, -k)


def sign(a: mpmath.mpf, b: mpmath.mpf) -> int:
    """The sign of a - b, which are equal where they agree to nine tenths of the precision: no algebra needed here."""
    if abs(a - b) <= mpmath.ldexp(abs(a) + abs(b) + 1, -9 * PRECISION // 10):
        return 0
    return 1 if a > b else -1


def holds(interval: exact.Interval, log2: mpmath.mpf) -> bool:
    lo, hi = (mpmath.log(m, 2) + interval.exponent for m in (interval.lo, interval.hi))
    return sign(lo, log2) <= 0 <= sign(hi, log2)


@pytest.fixture(autouse=True)
def many_bits():
    with mpmath.workprec(PRECISION):
        yield


# -------------------------------------------------------------------------------------------------------- intervals


@given(positive_floats)
@example(5e-324)
@example(MAX_FLOAT64)
@example(1.0)
def test_split_float(x):
    odd, exponent = exact.split_float(x)
    assert odd % 2 == 1
    assert odd * Fraction(2) ** exponent == Fraction(x)


intervals = st.tuples(st.integers(1, 2**200), st.integers(0, 2**60), st.integers(-500, 500)).map(
    lambda t: exact.Interval(t[0], t[0] + (t[1] * t[0] >> 70), t[2])
)


def ends(interval: exact.Interval) -> tuple[Fraction, Fraction]:
    scale = Fraction(2) ** interval.exponent
    return interval.lo * scale, interval.hi * scale


@given(intervals, intervals, st.integers(64, 200))
def test_products_and_quotients_are_rounded_outwards(a, b, precision):
    (a_lo, a_hi), (b_lo, b_hi) = ends(a), ends(b)
    wide = 1 + Fraction(4, 1 << (precision - 2))
    for result, lo, hi in (
        (exact.multiply(a, b, precision), a_lo * b_lo, a_hi * b_hi),
        (exact.divide(a, b, precision), a_lo / b_hi, a_hi / b_lo),
    ):
        assert ends(result)[0] <= lo <= hi <= ends(result)[1]
        assert result.lo > 0
        assert result.hi.bit_length() <= precision + 1
        if a.lo == a.hi and b.lo == b.hi:
            assert ends(result)[1] <= wide * ends(result)[0]


@given(intervals, intervals)
def test_compare_intervals(a, b):
    (a_lo, a_hi), (b_lo, b_hi) = ends(a), ends(b)
    assert exact.compare_intervals(a, b) == (-1 if a_hi < b_lo else 1 if a_lo > b_hi else None)


def test_compare_intervals_of_enormous_exponents():
    a, b = exact.Interval(3, 5, 10**15), exact.Interval(7, 8, -(10**15))
    assert exact.compare_intervals(a, b) == 1
    assert exact.compare_intervals(b, a) == -1
    assert exact.compare_intervals(a, a) is None


@given(bases, logs, roots, st.sampled_from([96, 192, 384]))
@example(3.0, -(2**33), 0, 96)
@example(math.nextafter(1.0, 2.0), 1, 32, 96)
@example(2.0, 7, 0, 96)
def test_power_holds_the_power(base, n, k, precision):
    interval = exact.power(base, n, k, precision)
    assert holds(interval, log2_power(base, n, k))
    lost = 2 * max(abs(n >> k).bit_length(), 1) + 2 * k + 8
    assert (interval.hi - interval.lo) << (precision - lost) <= interval.hi


def test_powers_of_two_are_exact():
    for n in (-(2**33), -5, 0, 1, 2**33):
        for base, k, exponent in ((2.0, 0, n), (2.0, 3, n), (4.0, 0, 2 * n), (2.0**-3 * 64, 4, 3 * n)):
            lo, hi, found = exact.power(base, n << k, k)
            assert lo == hi == 1 << (exponent - found)


# --------------------------------------------------------------------------------------------------------- algebra


@pytest.mark.parametrize(
    ("base", "n", "k", "value"),
    [
        (2.25, 1, 1, Fraction(3, 2)),
        (2.25, -3, 1, Fraction(8, 27)),
        (2.25, 6, 2, Fraction(27, 8)),
        (4.0, 1, 1, Fraction(2)),
        (4.0, -7, 1, Fraction(1, 128)),
        (4.0, 1, 2, None),
        (3.0, 5, 0, Fraction(243)),
        (3.0, -5, 0, Fraction(1, 243)),
        (3.0, 5, 1, None),
        (2.0, 3, 1, None),
        (2.0, 6, 1, Fraction(8)),
        (81.0, 3, 2, Fraction(27)),
        (81.0, 1, 3, None),
        (1.5, 4, 2, Fraction(3, 2)),
        (1.5, 2, 2, None),
        (0.5 + 1.0625, 1, 1, Fraction(5, 4)),
        (7.0, 0, 9, Fraction(1)),
        (2.0, 2**33, 0, None),
    ],
)
def test_rational_powers(base, n, k, value):
    found = exact.rational_power(base, n, k)
    if base == 2.0 and n == 2**33:
        assert found == (1, 2**33)
        return
    assert (None if found is None else found.fraction * Fraction(2) ** found.exponent) == value


@given(st.fractions(1, 9, max_denominator=16), st.integers(0, 3), st.integers(-9, 9), st.integers(0, 3))
def test_a_rational_power_is_found(root, k, n, more):
    """base = root^(2^k), a float64: its power n / 2^k is rational, and n 2^more / 2^(k + more) is the same."""
    base = root ** (1 << k)
    assume(base > 1 and float(base) == base)
    found = exact.rational_power(float(base), n << more, k + more, 10**6)
    assert found is not None
    assert found.fraction * Fraction(2) ** found.exponent == root**n


@given(bases, logs, roots)
def test_a_rational_power_is_one(base, n, k):
    found = exact.rational_power(base, n, k)
    if found is not None:
        f, e = found
        assert sign(mpmath.log(mpf(f), 2) + e, log2_power(base, n, k)) == 0


@pytest.mark.parametrize(
    ("a", "b", "ratio"),
    [
        (4.0, 8.0, Fraction(2, 3)),
        (2.0, 4.0, Fraction(1, 2)),
        (2.25, 1.5, Fraction(2)),
        (1.5, 3.375, Fraction(1, 3)),
        (9.0, 27.0, Fraction(2, 3)),
        (3.0, 3.0, Fraction(1)),
        (3.0, 2.0, None),
        (2.0, 3.0, None),
        (3.0, 1.5, None),
        (6.0, 12.0, None),
        (2.25, 4.5, None),
        (3.0, 5.0, None),
        (1.0000001, 1.0000001, Fraction(1)),
        (1e300, 1e-0 + 1e300, Fraction(1)),
    ],
)
def test_log_ratio(a, b, ratio):
    assert exact.log_ratio(a, b) == ratio


@given(st.integers(3, 200), st.integers(-8, 8), st.integers(1, 6), st.integers(1, 6))
def test_log_ratio_of_powers_of_one_number(odd, exponent, i, j):
    root = Fraction(odd | 1) * Fraction(2) ** exponent
    assume(root > 1 and all(float(root**n) == root**n for n in (i, j)))
    assert exact.log_ratio(float(root**i), float(root**j)) == Fraction(i, j)


@given(bases, bases, st.fractions(-50, 50, max_denominator=64), st.fractions(-50, 50), st.integers(-2, 2))
@example(4.0, 2.0, Fraction(1, 2), Fraction(2), 1)
@example(4.0, 2.0, Fraction(1, 2), Fraction(1), 0)
@example(2.25, 1.5, Fraction(1), Fraction(2), 0)
@example(3.0, 3.0, Fraction(0), Fraction(0), 0)
@example(3.0, 3.0, Fraction(0), Fraction(0), 1)
@example(3.0, 1.5, Fraction(1), Fraction(1), -1)
@example(3.0, 3.0, Fraction(1, 4), Fraction(1, 4), 0)
@example(6.25, 10.0, Fraction(1), Fraction(2), 4)
def test_equal_powers(a, b, p, q, twos):
    left = mpmath.log(a, 2) * mpf(p) + twos
    assert exact.equal_powers(a, p, twos, b, q) == (sign(left, mpmath.log(b, 2) * mpf(q)) == 0)


# ----------------------------------------------------------------------------------------------------- comparisons


@given(positive_floats, bases, logs, roots)
@example(1.5, 2.25, 1, 1)
@example(2.0, 4.0, 1, 1)
@example(0.125, 4.0, -3, 1)
@example(243.0, 3.0, 5, 0)
@example(math.nextafter(243.0, 0.0), 3.0, 10, 1)
@example(math.nextafter(243.0, 999.0), 3.0, 10, 1)
@example(1.0000001, 1.0000001, 1, 0)
@example(1.0000001, 1.0000001, 2**30, 30)
@example(math.nextafter(1.0000001, 2.0), 1.0000001, 2**30, 30)
@example(1e300, 1e300, 2**20, 20)
@example(1e300, 1e300, -(2**33), 0)
@example(5e-324, 2.0, -1074, 0)
@example(1.0, 3.0, 0, 0)
@example(1.0, math.nextafter(1.0, 2.0), 1, 32)
def test_compare(x, base, n, k):
    odd, exponent = exact.split_float(x)
    expected = sign(mpmath.log(x, 2), log2_power(base, n, k))
    assert exact.compare(odd, exponent, base, n, k) == expected
    assert exact.compare(odd << 7, exponent - 7, base, n, k) == expected


@given(positive_floats, bases, roots)
@example(1.5, 2.25, 0)
@example(1.5, 2.25, 1)
@example(2.0, 4.0, 0)
@example(8.0, 4.0, 0)
@example(0.5, 4.0, 0)
@example(0.125, 4.0, 0)
@example(math.nextafter(2.0, 3.0), 4.0, 0)
@example(math.nextafter(8.0, 0.0), 4.0, 0)
@example(243.0, 3.0, 0)
@example(1.0, 1.0000001, 30)
@example(1.0000001, 1.0000001, 30)
@example(5e-324, 1e300, 0)
@example(1e300, 1e300, 5)
def test_rounded_logarithms(x, base, k):
    odd, exponent = exact.split_float(x)
    log = mpmath.log(x) / mpmath.log(base) * 2**k
    # The search starts from logarithms in double precision, within 2^-46 of an octave; finer codes make it a long one.
    assume(abs(log) < 2**40 and 2**k / mpmath.log(base, 2) < 2**46)
    whole = int(mpmath.nint(log))
    on_grid = sign(log, mpmath.mpf(whole)) == 0
    floor = whole if on_grid else int(mpmath.floor(log))
    half = 0 if on_grid else sign(log, mpmath.mpf(floor) + 0.5)
    assert exact.floor_log(odd, exponent, base, k) == floor
    assert exact.ceil_log(odd, exponent, base, k) == floor + (not on_grid)
    nearest = whole if on_grid else floor + (half > 0 or (half == 0 and floor % 2 == 1))
    assert exact.nearest_log(odd, exponent, base, k) == nearest


@pytest.mark.parametrize(
    ("x", "nearest"), [(2.0, 0), (8.0, 2), (32.0, 2), (0.5, 0), (0.125, -2), (0.03125, -2), (128.0, 4)]
)
def test_ties_of_base_four_go_to_the_even_log(x, nearest):
    assert exact.nearest_log(*exact.split_float(x), 4.0, 0) == nearest
    assert exact.nearest_log(*exact.split_float(x * (1 + 2**-52)), 4.0, 0) == exact.ceil_log(
        *exact.split_float(x), 4.0, 0
    )


@given(positive_floats, bases, roots, st.lists(st.tuples(st.integers(0, 2**32), st.integers(-3, 3)), max_size=3))
@example(1.5, 4.0, 1, [(2**31, 0), (2**31, 1)])
@example(1.5, 2.0, 0, [(2**31, 0), (2**31, 1)])
@example(2.0, 3.0, 0, [(2**31, 0), (2**31, 1)])
@example(1.0, 2.0, 3, [(2**32, 0), (0, 1)])
@example(1.25, 2.25, 1, [(2**31, 0), (2**31, 1)])
@example(math.nextafter(1.25, 2.0), 2.25, 1, [(2**31, 0), (2**31, 1)])
@example(1.0, 2.0, 0, [])
def test_compare_sum(x, base, k, terms):
    odd, exponent = exact.split_float(x)
    near = exact.floor_log(odd, exponent, base, k) if k < 8 else 0
    terms = [(c, near + n) for c, n in terms]
    total = sum((c * mpmath.power(2, log2_power(base, n, k)) for c, n in terms), mpmath.mpf(0))
    scaled = mpmath.ldexp(x, 32)
    close = abs(scaled - total) <= mpmath.ldexp(scaled + total, -9 * PRECISION // 10)
    expected = 0 if close else 1 if scaled > total else -1
    assert exact.compare_sum(odd, exponent + 32, base, k, terms) == expected


# ------------------------------------------------------------------------------------------------------ logarithms


@given(bases, st.integers(1, 300))
@example(math.nextafter(1.0, 2.0), 40)
@example(math.nextafter(1.0, 2.0), 52)
@example(MAX_FLOAT64, 300)
@example(2.0**512, 300)
def test_log2_bracket(base, precision):
    lo, hi = exact.log2_bracket(base, precision)
    log = mpmath.ldexp(mpmath.log(base, 2), precision)
    assert hi - lo == (math.frexp(base)[0] != 0.5)
    assert lo <= log <= hi or sign(mpmath.mpf(lo), log) == 0


@given(st.integers(-(2**33), 2**33), bases, bases, st.integers(-32, 64))
@example(1, 3.0, 2.0, 64)
@example(-1, 3.0, 2.0, -32)
@example(-(2**33), 1e300, math.nextafter(1.0, 2.0), 62)
@example(1, math.nextafter(1.0, 2.0), 1e300, -32)
def test_floor_rescaled_log(n, a, b, shift):
    assume(n != 0)
    exact_ratio = exact.log_ratio(a, b)
    assume(exact_ratio is None)
    log = mpmath.ldexp(n * mpmath.log(a) / mpmath.log(b), shift)
    assert exact.floor_rescaled_log(n, a, b, shift) == int(mpmath.floor(log))


@given(intervals, st.integers(0, 600))
def test_fixed_point(interval, fraction_bits):
    lo, hi = ends(interval)
    assert exact.fixed_point(interval, fraction_bits) == (
        math.floor(lo * 2**fraction_bits), math.ceil(hi * 2**fraction_bits)
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------- float64 results


@given(bases, st.one_of(st.integers(-40, 40), st.integers(-(2**20), 2**20)), st.integers(0, 12), st.booleans())
@example(2.0, -1074, 0, False)
@example(2.0, -1073, 0, True)
@example(2.0, -1074, 0, True)
@example(2.0, -1075, 0, False)
@example(2.0, -2149, 1, False)
@example(2.0, -4291, 2, False)
@example(2.0, 1023, 0, False)
@example(2.0, 1024, 0, False)
@example(2.0, 1024, 0, True)
@example(2.0, 1025, 0, True)
@example(2.0, 2047, 1, False)
@example(2.25, 1, 1, False)
@example(2.25, 1, 1, True)
@example(2.25, -1, 1, False)
@example(4.0, 1, 1, False)
@example(4.0, 3, 2, True)
@example(3.0, 33, 0, False)
@example(3.0, 34, 0, False)
@example(3.0, -1, 0, False)
@example(3.0, -680, 0, False)
@example(1.0000001, 1, 0, True)
@example(1.0000001, 2**12, 12, False)
@example(1e300, 1, 0, False)
@example(1e300, 2, 0, True)
@example(1e300, -1, 0, True)
@example(1e300, -2, 0, False)
@example(MAX_FLOAT64, 1, 0, False)
@example(MAX_FLOAT64, 1, 0, True)
@example(MAX_FLOAT64, -1, 0, True)
@example(7.0, 0, 3, False)
@example(7.0, 0, 3, True)
def test_float64_threshold(base, n, k, halved):
    log = log2_power(base, n, k) - halved
    least = exact.float64_threshold(base, n, k, halved=halved)
    strict = exact.float64_threshold(base, n, k, halved=halved, strict=True)
    assert 1 <= least <= strict <= least + 1

    def side(bits):
        """The sign of the float minus the threshold; the pattern of infinity is above every real number."""
        if bits == 0:
            return -1
        return 1 if bits == INFINITY else sign(mpmath.log(float64(bits), 2), log)

    assert least <= strict <= INFINITY
    assert side(least) >= 0
    assert side(least - 1) < 0
    assert side(strict) > 0
    assert side(strict - 1) <= 0


def test_float64_thresholds_that_are_floats():
    for x in (1.5, 2.0**-1074, 2.0**-1022, 2.0**1023, 1.0):
        base, n = (2.25, 1) if x == 1.5 else (2.0, 2 * int(math.log2(x)))
        assert exact.float64_threshold(base, n, 1) == pattern(x)
        assert exact.float64_threshold(base, n, 1, strict=True) == pattern(x) + 1
    for n in (1024, 1025, 10**9):
        assert exact.float64_threshold(2.0, n, 0) == INFINITY
        assert exact.float64_threshold(2.0, n, 0, strict=True) == INFINITY
        assert exact.float64_threshold(2.0, -n - 51, 0) == 1
    assert exact.float64_threshold(MAX_FLOAT64, 1, 0, strict=True) == INFINITY
    assert exact.float64_threshold(2.0, -1074, 0, halved=True, strict=True) == 1


@given(bases, logs, st.integers(0, 32))
@example(2.0, 5, 0)
@example(2.0, -5, 0)
@example(3.0, 40, 0)
@example(3.0, 41, 0)
@example(3.0, -1, 0)
@example(2.25, 1, 1)
@example(2.25, -1, 1)
@example(4.0, 2**32 + 1, 1)
@example(1.0000001, 1, 0)
@example(1.0000001, 2, 0)
@example(1.0000001, 3, 0)
@example(1e300, -1, 0)
@example(1e300, 2, 0)
@example(1e300, 2**33, 0)
@example(1e300, -(2**33), 1)
@example(math.nextafter(1.0, 2.0), 1, 32)
@example(math.nextafter(1.0, 2.0), -1, 32)
@example(2.0 - 2.0**-52, 1, 0)
@example(2.0 - 2.0**-52, 2, 0)
@example(2.0 - 2.0**-52, -1, 0)
def test_significand64(base, n, k):
    """The value lies where 63 leading bits and the sticky one say: at the number, or strictly above what was cut."""
    significand, exponent = exact.significand64(base, n, k)
    assert 1 << 63 <= significand < 1 << 64
    log = log2_power(base, n, k) - (exponent - 63)
    if significand & 1 == 0 or sign(log, mpmath.log(significand, 2)) == 0:
        assert sign(log, mpmath.log(significand, 2)) == 0
    else:
        assert sign(log, mpmath.log(significand - 1, 2)) > 0
        assert sign(log, mpmath.log(significand + 1, 2)) < 0


@given(bases, logs, st.integers(0, 32))
@example(2.0, 1024, 0)
@example(2.0, 1023, 0)
@example(2.0, -1074, 0)
@example(2.0, -1075, 0)
@example(2.0, -2149, 1)
@example(2.0, -(10**9), 0)
@example(2.0, 10**9, 0)
@example(2.0, 16383, 7)
@example(MAX_FLOAT64, 1, 0)
@example(MAX_FLOAT64, -1, 0)
@example(4.0, 1, 1)
@example(3.0, 34, 0)
@example(float(2**53 - 1), 2, 1)
def test_nearest_float64(base, n, k):
    found = exact.nearest_float64(base, n, k)
    assert type(found) is float
    log = log2_power(base, n, k)
    if log < -1080 or log > 1030:
        assert found == (0.0 if log < 0 else math.inf)
        return
    value = mpmath.power(2, log)
    below, above = (float64(pattern(found) - 1) if found else 0.0), math.nextafter(found, math.inf)
    if math.isinf(found):
        below, above = MAX_FLOAT64, math.inf
    low = (mpmath.mpf(below) + (mpmath.ldexp(1, 1024) if math.isinf(found) else found)) / 2
    assert found == 0 or sign(value, low) >= 0
    if not math.isinf(found):
        high = (mpmath.mpf(found) + (mpmath.ldexp(1, 1024) if math.isinf(above) else above)) / 2
        assert sign(value, high) <= 0
