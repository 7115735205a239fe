"""Powers of a base, exactly: base^(n / 2^k) bracketed by integers.

Every table and every hard case of the library comes from here. With base = odd * 2^e (a float is a dyadic rational),

    base^(n / 2^k)  =  base^q * base^(r / 2^k),      n = q 2^k + r,  0 <= r < 2^k,

the integer power by repeated squaring and the fractional one as a product of repeated square roots (`math.isqrt`), both
as intervals of Python integers, rounded outwards. A comparison that an interval cannot decide is repeated at twice the
precision; it ends, because the one case that never separates, equality, is decided by algebra (`rational_power`).
This is Ziv's strategy (ACM TOMS 17, 1991) with integers instead of floats.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "Dyadic",
    "Interval",
    "ceil_log",
    "compare",
    "compare_intervals",
    "compare_sum",
    "divide",
    "equal_powers",
    "fixed_point",
    "float64_threshold",
    "floor_log",
    "floor_rescaled_log",
    "log2_bracket",
    "log_ratio",
    "multiply",
    "nearest_float64",
    "nearest_log",
    "power",
    "primitive_root",
    "rational_power",
    "significand64",
    "split_float",
    "step_minus_one",
]

FIRST_PRECISION = 96

FLOAT64_INFINITY = 0x7FF0_0000_0000_0000
"""Bit pattern of the float64 +inf: what a threshold above every float64 becomes."""


class Interval(NamedTuple):
    """All real numbers from `lo * 2^exponent` to `hi * 2^exponent`; both integers are positive."""

    lo: int
    hi: int
    exponent: int


class Dyadic(NamedTuple):
    """The rational number `fraction * 2^exponent`, the exponent kept apart because it can be enormous."""

    fraction: Fraction
    exponent: int


def _normalize(lo: int, hi: int, exponent: int, precision: int) -> Interval:
    drop = hi.bit_length() - precision
    if drop <= 0:
        return Interval(lo, hi, exponent)
    return Interval(lo >> drop, -(-hi >> drop), exponent + drop)


def multiply(a: Interval, b: Interval, precision: int) -> Interval:
    """The product of two positive intervals, rounded outwards to `precision` bits."""
    return _normalize(a.lo * b.lo, a.hi * b.hi, a.exponent + b.exponent, precision)


def divide(a: Interval, b: Interval, precision: int) -> Interval:
    """The quotient of two positive intervals, rounded outwards to about `precision` bits."""
    scale = precision + b.hi.bit_length()
    lo = (a.lo << scale) // b.hi
    hi = -(-(a.hi << scale) // b.lo)
    return _normalize(lo, hi, a.exponent - b.exponent - scale, precision)


def split_float(x: float) -> tuple[int, int]:
    """`(odd, exponent)` with `x == odd * 2^exponent`, for a positive finite float64."""
    numerator, denominator = x.as_integer_ratio()
    twos = (numerator & -numerator).bit_length() - 1
    return numerator >> twos, twos - (denominator.bit_length() - 1)


@lru_cache(maxsize=4096)
def _root(base: float, k: int, precision: int) -> Interval:
    """base^(1 / 2^k)."""
    if k == 0:
        odd, exponent = split_float(base)
        return Interval(odd, odd, exponent)
    lo, hi, exponent = _root(base, k - 1, precision)
    widen = 2 * precision + 2 - lo.bit_length()
    widen += (exponent - widen) & 1
    return Interval(math.isqrt(lo << widen), math.isqrt(hi << widen) + 1, (exponent - widen) // 2)


@lru_cache(maxsize=65536)
def _fractional_power(base: float, r: int, k: int, precision: int) -> Interval:
    """base^(r / 2^k) for 0 <= r < 2^k: one root for each set bit of r."""
    if r == 0:
        return Interval(1, 1, 0)
    low = r & -r
    root = _root(base, k - (low.bit_length() - 1), precision)
    return multiply(root, _fractional_power(base, r ^ low, k, precision), precision)


@lru_cache(maxsize=65536)
def _integer_power(base: float, q: int, precision: int) -> Interval:
    """base^q for any integer q, by repeated squaring."""
    one = Interval(1, 1, 0)
    if q < 0:
        return divide(one, _integer_power(base, -q, precision), precision)
    odd, exponent = split_float(base)
    if odd == 1:
        return Interval(1, 1, exponent * q)
    if q == 0:
        return one
    half = _integer_power(base, q >> 1, precision)
    square = multiply(half, half, precision)
    return multiply(square, Interval(odd, odd, exponent), precision) if q & 1 else square


def power(base: float, n: int, k: int, precision: int = FIRST_PRECISION) -> Interval:
    """An interval that holds base^(n / 2^k), with about `precision` correct bits.

    Big integer powers lose a bit of precision for every doubling of `n`; the loss is counted by the interval itself.
    """
    q, r = n >> k, n & ((1 << k) - 1)
    return multiply(_integer_power(base, q, precision), _fractional_power(base, r, k, precision), precision)


def rational_power(base: float, n: int, k: int, max_bits: int = 256) -> Dyadic | None:
    """base^(n / 2^k) as an exact rational number, or None where it is irrational.

    It is rational exactly if base = odd * 2^e is a perfect 2^k'-th power, n / 2^k = n' / 2^k' in lowest terms. None is
    also the answer where numerator or denominator would pass `max_bits`: no number that the library compares has as
    many.
    """
    if n == 0:
        return Dyadic(Fraction(1), 0)
    reduce = min(k, (n & -n).bit_length() - 1)
    n, k = n >> reduce, k - reduce
    odd, exponent = split_float(base)
    for _ in range(k):
        root = math.isqrt(odd)
        if root * root != odd or exponent & 1:
            return None
        odd, exponent = root, exponent // 2
    if odd == 1:
        return Dyadic(Fraction(1), exponent * n)
    if (odd.bit_length() - 1) * abs(n) > max_bits:
        return None
    return Dyadic(Fraction(odd) ** n, exponent * n)


def _compare_scaled(m1: int, e1: int, m2: int, e2: int) -> int:
    """The sign of m1 2^e1 - m2 2^e2 for positive integers, without a huge shift where the sizes already tell."""
    top1, top2 = m1.bit_length() + e1, m2.bit_length() + e2
    if top1 != top2:
        return 1 if top1 > top2 else -1
    if e1 > e2:
        m1 <<= e1 - e2
    else:
        m2 <<= e2 - e1
    return (m1 > m2) - (m1 < m2)


def compare_intervals(a: Interval, b: Interval) -> int | None:
    """-1 or 1 where every number of `a` is below or above every number of `b`, None where they overlap."""
    if _compare_scaled(a.hi, a.exponent, b.lo, b.exponent) < 0:
        return -1
    if _compare_scaled(a.lo, a.exponent, b.hi, b.exponent) > 0:
        return 1
    return None


def compare(significand: int, exponent: int, base: float, n: int, k: int) -> int:
    """The sign of significand * 2^exponent - base^(n / 2^k), exactly; the significand is positive."""
    point = Interval(significand, significand, exponent)
    precision = FIRST_PRECISION
    while True:
        sign = compare_intervals(point, power(base, n, k, precision))
        if sign is not None:
            return sign
        if precision == FIRST_PRECISION:
            rational = rational_power(base, n, k)
            if rational is not None:
                f = rational.fraction
                return _compare_scaled(significand * f.denominator, exponent, f.numerator, rational.exponent)
        precision *= 2


def _log2_estimate(significand: int, exponent: int) -> float:
    drop = max(significand.bit_length() - 64, 0)
    return math.log2(significand >> drop) + drop + exponent


def floor_log(significand: int, exponent: int, base: float, k: int) -> int:
    """The greatest n with base^(n / 2^k) <= significand * 2^exponent: floor(2^k log_base x), exactly."""
    odd, base_exponent = split_float(base)
    log2_base = math.log1p(base - 1) / math.log(2) if base < 1.5 else _log2_estimate(odd, base_exponent)
    low = math.floor(math.ldexp(_log2_estimate(significand, exponent) / log2_base, k))
    width = 1
    while compare(significand, exponent, base, low, k) < 0:
        low, width = low - width, 2 * width
    high = low + width
    while compare(significand, exponent, base, high, k) >= 0:
        low, width = high, 2 * width
        high = low + width
    while high - low > 1:
        middle = (low + high) // 2
        if compare(significand, exponent, base, middle, k) >= 0:
            low = middle
        else:
            high = middle
    return low


def ceil_log(significand: int, exponent: int, base: float, k: int) -> int:
    """The least n with base^(n / 2^k) >= significand * 2^exponent."""
    n = floor_log(significand, exponent, base, k)
    return n if compare(significand, exponent, base, n, k) == 0 else n + 1


def nearest_log(significand: int, exponent: int, base: float, k: int) -> int:
    """2^k log_base x rounded to the nearest integer, ties to even."""
    n = floor_log(significand, exponent, base, k)
    side = compare(significand, exponent, base, 2 * n + 1, k + 1)
    return n + 1 if side > 0 or (side == 0 and n & 1) else n


def _ceil_float64(significand: int, exponent: int) -> tuple[int, bool]:
    """The bit pattern of the least positive float64 >= significand * 2^exponent, and whether the two are equal."""
    top = significand.bit_length() + exponent
    if top > 1024:
        return FLOAT64_INFINITY, False
    unit = max(top - 53, -1074)
    if exponent >= unit:
        scaled, equal = significand << (exponent - unit), True
    elif unit - exponent > significand.bit_length() + 1:
        scaled, equal = 1, False
    else:
        scaled = -(-significand >> (unit - exponent))
        equal = scaled << (unit - exponent) == significand
    return ((unit + 1074) << 52) + scaled, equal


def float64_threshold(base: float, n: int, k: int, *, halved: bool = False, strict: bool = False) -> int:
    """The bit pattern of the least positive float64 x with x >= base^(n / 2^k), or x > it where `strict`.

    Positive float64 are ordered as their bit patterns are, so the answer turns a comparison with a real number into one
    of integers. Above the greatest float64 it is the pattern of infinity. `halved` takes half of the power instead.
    """
    precision = FIRST_PRECISION
    while True:
        lo, hi, exponent = power(base, n, k, precision)
        exponent -= halved
        bits, equal = _ceil_float64(lo, exponent)
        if lo == hi:
            return bits + (equal and strict)
        if (bits, False) == _ceil_float64(hi, exponent) and not equal:
            return bits
        rational = rational_power(base, n, k) if precision == FIRST_PRECISION else None
        if rational is not None and rational.fraction.denominator == 1:
            bits, equal = _ceil_float64(rational.fraction.numerator, rational.exponent - halved)
            return bits + (equal and strict)
        precision *= 2


def significand64(base: float, n: int, k: int) -> tuple[int, int]:
    """`(s, e)` with base^(n / 2^k) = s * 2^(e - 63), 2^63 <= s < 2^64, the last bit of s sticky.

    The last bit is 1 wherever something was cut off, so that s rounds to any precision up to 62 bits, at any position
    (subnormals too), as the exact value does.
    """
    precision = FIRST_PRECISION
    while True:
        lo, hi, exponent = power(base, n, k, precision)
        if lo == hi:
            return _sticky64(lo, exponent)
        cut = lo.bit_length() - 64
        if lo.bit_length() == hi.bit_length() and lo >> cut == (hi - 1) >> cut:
            if lo & ((1 << cut) - 1):
                return (lo >> cut) | 1, exponent + cut + 63
            rational = rational_power(base, n, k)
            if rational is None:
                return (lo >> cut) | 1, exponent + cut + 63
            if rational.fraction.denominator == 1:
                return _sticky64(rational.fraction.numerator, rational.exponent)
        elif precision == FIRST_PRECISION:
            rational = rational_power(base, n, k)
            if rational is not None and rational.fraction.denominator == 1:
                return _sticky64(rational.fraction.numerator, rational.exponent)
        precision *= 2


def nearest_float64(base: float, n: int, k: int) -> float:
    """base^(n / 2^k) to the nearest float64, ties to even; inf beyond the greatest, 0 below half the least."""
    significand, exponent = significand64(base, n, k)
    if exponent > 1023 or exponent < -1076:
        return math.inf if exponent > 0 else 0.0
    shift = 63 - exponent
    try:
        return significand / (1 << shift) if shift >= 0 else float(significand << -shift)
    except OverflowError:  # rounded up to 2^1024
        return math.inf


def nearest_float64s(base: float, first: int, count: int, k: int) -> list[float]:
    """`nearest_float64` of base^(n / 2^k) for n from `first` on: a whole grid of them.

    >>> nearest_float64s(2.0, -1, 3, 0)
    [0.5, 1.0, 2.0]
    """
    grid = range(first, first + count)
    if base != 2.0 or count <= 1 << k:
        return [nearest_float64(base, n, k) for n in grid]
    # at base 2 an octave is the one before it with another exponent; a subnormal number has fewer bits, and is rounded
    # by itself
    octave = [nearest_float64(2.0, j, k) for j in range(1 << k)]
    return [
        math.ldexp(octave[n & ((1 << k) - 1)], n >> k) if -1022 <= n >> k <= 1022 else nearest_float64(2.0, n, k)
        for n in grid
    ]


def _sticky64(significand: int, exponent: int) -> tuple[int, int]:
    drop = significand.bit_length() - 64
    if drop <= 0:
        return significand << -drop, exponent + drop + 63
    sticky = (significand & ((1 << drop) - 1)) != 0
    return (significand >> drop) | sticky, exponent + drop + 63


@lru_cache(maxsize=256)
def log2_bracket(base: float, precision: int) -> tuple[int, int]:
    """Integers lo and hi with lo <= 2^precision log2(base) <= hi, hi - lo = 1 (0 for a power of two).

    Bit by bit: squaring doubles the logarithm, and a result of 2 or more gives a bit 1.
    """
    odd, exponent = split_float(base)
    whole = odd.bit_length() - 1
    if odd == 1:
        return exponent << precision, exponent << precision
    working = 2 * precision + 16
    while True:
        x = Interval(odd, odd, -whole)
        bits = 0
        for _ in range(precision):
            x = multiply(x, x, working)
            lo_bit = x.lo.bit_length() + x.exponent > 1
            if lo_bit != (x.hi.bit_length() + x.exponent > 1):
                break
            bits = 2 * bits + lo_bit
            x = x._replace(exponent=x.exponent - lo_bit)
        else:
            lo = ((whole + exponent) << precision) + bits
            return lo, lo + 1
        working *= 2


def primitive_root(odd: int) -> tuple[int, int]:
    """`(d, i)` with odd = d^i and i as great as possible, for odd > 1."""
    for i in range(odd.bit_length(), 1, -1):
        root = round(odd ** (1 / i))
        for d in (root - 1, root, root + 1):
            if d > 1 and d**i == odd:
                return d, i
    return odd, 1


def _log_ratio_of_odds(a: int, b: int) -> Fraction | None:
    """log(a) / log(b) for odd a, b > 1, where it is rational."""
    (a_root, i), (b_root, j) = primitive_root(a), primitive_root(b)
    return Fraction(i, j) if a_root == b_root else None


def log_ratio(a: float, b: float) -> Fraction | None:
    """log(a) / log(b) where it is a rational number, as for bases 4 and 8; else None."""
    (a_odd, a_exponent), (b_odd, b_exponent) = split_float(a), split_float(b)
    if a_odd == 1 and b_odd == 1:
        return Fraction(a_exponent, b_exponent)
    if a_odd == 1 or b_odd == 1:
        return None
    ratio = _log_ratio_of_odds(a_odd, b_odd)
    return ratio if ratio is not None and a_exponent == ratio * b_exponent else None


def equal_powers(a: float, p: Fraction, twos: int, b: float, q: Fraction) -> bool:
    """Whether 2^twos a^p = b^q: the powers of two and the odd parts must each agree."""
    (a_odd, a_exponent), (b_odd, b_exponent) = split_float(a), split_float(b)
    if twos + a_exponent * p != b_exponent * q:
        return False
    a_trivial, b_trivial = a_odd == 1 or p == 0, b_odd == 1 or q == 0
    if a_trivial or b_trivial:
        return a_trivial and b_trivial
    ratio = _log_ratio_of_odds(a_odd, b_odd)
    return ratio is not None and p * ratio == q


def floor_rescaled_log(n: int, a: float, b: float, shift: int) -> int:
    """floor(2^shift n log_b(a)) for n != 0 where log_b(a) is irrational; a negative shift divides."""
    precision = FIRST_PRECISION + max(abs(n).bit_length() + shift, 0)
    while True:
        (a_lo, a_hi), (b_lo, b_hi) = log2_bracket(a, precision), log2_bracket(b, precision)
        bounds = (n * a_lo, b_hi), (n * a_hi, b_lo)
        lo, hi = (
            (top << shift) // bottom if shift >= 0 else top // (bottom << -shift)
            for top, bottom in (bounds if n > 0 else bounds[::-1])
        )
        if lo == hi:
            return lo
        precision *= 2


def fixed_point(x: Interval, fraction_bits: int) -> tuple[int, int]:
    """Integers lo <= 2^fraction_bits x <= hi, as close as the interval allows."""
    shift = x.exponent + fraction_bits
    return (x.lo << shift, x.hi << shift) if shift >= 0 else (x.lo >> -shift, -(-x.hi >> -shift))


@lru_cache(maxsize=256)
def step_minus_one(base: float, k: int) -> float:
    """base^(1 / 2^k) - 1 to within one part in 2^52, however near to 1 the step is."""
    precision = 256
    lo, _ = fixed_point(power(base, 1, k, precision), precision)
    return (lo - (1 << precision)) / (1 << precision)


def compare_sum(significand: int, exponent: int, base: float, k: int, terms: list[tuple[int, int]]) -> int:
    """The sign of significand * 2^exponent - sum(c * base^(n / 2^k) for c, n in terms), with integers c >= 0."""
    terms = [(c, n) for c, n in terms if c]
    if not terms:
        return 1
    point = Interval(significand, significand, exponent)
    precision = FIRST_PRECISION
    while True:
        powers = [power(base, n, k, precision) for _, n in terms]
        low = min(p.exponent for p in powers)
        lo = sum(c * p.lo << (p.exponent - low) for (c, _), p in zip(terms, powers, strict=True))
        hi = sum(c * p.hi << (p.exponent - low) for (c, _), p in zip(terms, powers, strict=True))
        sign = compare_intervals(point, Interval(lo, hi, low))
        if sign is not None:
            return sign
        if precision == FIRST_PRECISION:
            rationals = [rational_power(base, n, k) for _, n in terms]
            if all(r is not None for r in rationals):
                exact_sum = sum(
                    (
                        c * r.fraction * Fraction(2) ** (r.exponent - exponent)
                        for (c, _), r in zip(terms, rationals, strict=True)
                        if r
                    ),
                    Fraction(0),
                )
                return (significand > exact_sum) - (significand < exact_sum)
        precision *= 2
