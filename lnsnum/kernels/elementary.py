"""log2, exp2 and powers of a base in floating point, with error bounds that hold on every machine.

    log2 m        =  log2(c) + log2(1 + f),      f = m / c - 1,  c the centre of the 1/128 that m lies in
    1 - 2^-(i + g)  =  (1 - 2^-i) + 2^-i (1 - 2^-g),     i a multiple of 1/256, 0 <= g < 1/256
    base^n        =  base^(n2 2^24) base^(n1 2^12) base^n0,      12 binary digits of n in each factor

Tables come from `lnsnum.exact` and short polynomials do the rest (Tang, ACM TOMS 16, 1990): nothing but IEEE additions
and multiplications of doubles, so no mathematical library has a say in the result. Whoever rounds by these functions
compares the distance to the rounding boundary with their bound, and asks `lnsnum.kernels.decide` where it is less
(Ziv).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.kernels.compiling import kernel

LOG2_ERROR = 2.0**-50
"""Bound of the absolute error of `log2_significand`."""

EXP2_ERROR = 2.0**-51
"""Bound of the relative error of both results of `exp2_and_complement`."""

CELLS = 256
"""Cells in an octave, in which `power_of_half` counts."""

CELL_RANGE = 1000.0 * CELLS
"""The greatest |y| that `power_of_half` takes."""

CELL_ERROR = 2.0**-50
"""Bound of the relative error of q of `power_of_half`."""

PAIR_ERROR = 2.0**-66
"""Bound of the absolute error of `power_of_half_as_pair`: the roundings of its terms below 2^-17, about eight of 2^-70
each, and the first term of the series left out, 2^-72."""

_LOG_CELLS = 128
_EXP_CELLS = CELLS
_PRECISION = 120
_LN2 = math.log(2.0)
_L1, _L2, _L3, _L4, _L5, _L6 = ((-1) ** (k + 1) / (k * _LN2) for k in range(1, 7))


def _ln(numerator: int, denominator: int) -> int:
    """2^_PRECISION ln(numerator / denominator), to within 2^6: twice the series of artanh."""
    z = ((numerator - denominator) << _PRECISION) // (numerator + denominator)
    square, total, k = (z * z) >> _PRECISION, 0, 1
    # shifts round down, so that negative powers of z end at -1
    while z >> 1 not in (0, -1):
        total, z, k = total + z // k, (z * square) >> _PRECISION, k + 2
    return 2 * total


def _log2_of_reciprocal(inverse: float) -> float:
    """-log2(inverse), to the nearest double but for one part in 2^60."""
    return -_ln(*inverse.as_integer_ratio()) / _ln(2, 1)


_INVERSE = np.array([1.0 / (1.0 + (i + 0.5) / _LOG_CELLS) for i in range(_LOG_CELLS)])
# of the doubles in _INVERSE as they are, not of 1 / c: their rounding costs no accuracy
_LOG = np.array([_log2_of_reciprocal(float(inverse)) for inverse in _INVERSE])


_HEAD = 22
"""Bits of the heads of powers: a head times a number of 31 bits is exact."""


def _powers_of_half() -> list[tuple[float, float, float, float]]:
    """2^(-i/256) and 1 minus it, each to the nearest double but for one part in 2^60; its head, and what that lacks."""
    one = 1 << _PRECISION
    step, _ = exact.fixed_point(exact.power(2.0, -1, 8, _PRECISION), _PRECISION)
    x, powers = one, []
    for _ in range(_EXP_CELLS):
        head = x >> (_PRECISION - _HEAD) << (_PRECISION - _HEAD)
        powers.append((x / one, (one - x) / one, head / one, (x - head) / one))
        x = (x * step) >> _PRECISION
    return powers


_HALVES, _COMPLEMENTS, _HEADS, _TAILS = (np.array(table) for table in zip(*_powers_of_half(), strict=True))


@kernel
def log2_significand(m):  # type: ignore[no-untyped-def]
    """log2(m) for 1 <= m < 2, to within LOG2_ERROR."""
    # the seven bits after the leading one say which 1/128 it is
    i = (np.float64(m).view(np.uint64) >> np.uint64(45)) & np.uint64(_LOG_CELLS - 1)
    # the product is rounded, by 2^-53, the difference is exact: |f| is below 2^-8, and f^7 / (7 ln 2) below 2^-58
    f = m * _INVERSE[i] - 1.0
    return _LOG[i] + f * (_L1 + f * (_L2 + f * (_L3 + f * (_L4 + f * (_L5 + f * _L6)))))


@kernel
def split_bits(bits):  # type: ignore[no-untyped-def]
    """`(biased exponent, mantissa)` of the pattern of a positive double, a subnormal one normalized: the exponent goes
    on below 1."""
    exponent = np.int64(bits >> np.uint64(52))
    mantissa = bits & np.uint64(0xFFFFFFFFFFFFF)
    if exponent == 0:
        exponent = np.int64(1)
        while mantissa >> np.uint64(52) == 0:
            mantissa = mantissa << np.uint64(1)
            exponent -= 1
        mantissa = mantissa & np.uint64(0xFFFFFFFFFFFFF)
    return exponent, mantissa


@kernel
def log2_parts(x):  # type: ignore[no-untyped-def]
    """`(e, log2(m))` of a positive double x = 2^e m, 1 <= m < 2, the latter exactly 0 for m = 1.

    Subnormals are read from the bits, even where the processor flushes them.
    """
    exponent, mantissa = split_bits(np.float64(x).view(np.uint64))
    if mantissa == 0:
        return exponent - 1023, 0.0
    m = np.uint64(mantissa | np.uint64(0x3FF0000000000000)).view(np.float64)
    return exponent - 1023, log2_significand(m)


@kernel
def exp2_and_complement(u):  # type: ignore[no-untyped-def]
    """2^-u and 1 - 2^-u, each to within EXP2_ERROR of itself, for u = 0 and u >= 2^-1000; 0 and 1 beyond u = 1000."""
    if u > 1000.0:
        return 0.0, 1.0
    whole = math.floor(u)
    # u - whole is exact, and so is what is left of it after i cells
    i = np.int64((u - whole) * _EXP_CELLS)
    x = ((u - whole) - i / _EXP_CELLS) * _LN2
    # q = 1 - exp(-x), x below ln 2 / 256: the next term of the series is below 2^-62 of it
    q = x * (1.0 - x * (1 / 2 - x * (1 / 6 - x * (1 / 24 - x * (1 / 120 - x / 720)))))
    part = _HALVES[i] - _HALVES[i] * q
    # 2^-whole by its bits; whole is at most 1000, so it is a normal number
    scale = np.uint64(np.int64(1023 - whole) << 52).view(np.float64)
    # 2^-u is at most 1/2 here, and 1 - 2^-u at least that: the difference loses nothing
    if whole > 0:
        return part * scale, 1.0 - part * scale
    # near u = 0 it would lose all: instead two positive parts, each accurate, are added
    return part, _COMPLEMENTS[i] + _HALVES[i] * q


_CELL = _LN2 / CELLS

_TO_BITS = 1.5 * 2.0**52
"""Added to a small integer it leaves that, modulo 2^51, in the low bits: not every processor converts vectors."""


@kernel
def power_of_half(y):  # type: ignore[no-untyped-def]
    """`(h, q)` with 2^(-y / CELLS) = h (1 - q), |y| <= CELL_RANGE: h a power of 2^(-1 / CELLS), to the nearest double,
    and 0 <= q < 1/256 to within CELL_ERROR of itself.

    Without a branch, and with its table a constant: a loop over it becomes one of vectors, with gathers.
    """
    n = np.floor(y)
    x = (y - n) * _CELL
    # the first term left out, x^6 / 720, is below 2^-51 of q
    q = x * (1.0 - x * (1 / 2 - x * (1 / 6 - x * (1 / 24 - x * (1 / 120)))))
    i = np.float64(n + _TO_BITS).view(np.int64)
    # i >> 8 counts octaves; of what the bits of _TO_BITS put above them the shift by 52 leaves nothing
    scale = np.int64((1023 - (i >> 8)) << 52).view(np.float64)
    return _HALVES[np.uint64(i & 255)] * scale, q


def _parts_of_cell() -> tuple[float, float]:
    """ln 2 / CELLS, its first nine bits and the rest."""
    exact_cell = _ln(2, 1) // CELLS
    drop = exact_cell.bit_length() - 9
    head = exact_cell >> drop << drop
    return head / (1 << _PRECISION), (exact_cell - head) / (1 << _PRECISION)


_CELL_HEAD, _CELL_TAIL = _parts_of_cell()


@kernel
def power_of_half_as_pair(y):  # type: ignore[no-untyped-def]
    """`(top, rest, octaves)` with 2^(-y / CELLS) = (top + rest) 2^-octaves, |y| <= CELL_RANGE and 2^22 y an integer.

    top, from 1/2 to 1, is the double nearest to the sum of both, which is within PAIR_ERROR; whole octaves are exact.
    As `power_of_half` it becomes vectors.
    """
    n = np.floor(y)
    part = y - n
    # the series of 1 - exp(-x): the products of its first term are exact, since 22 bits meet 9, and 22 bits meet 31
    first, x = part * _CELL_HEAD, part * _CELL
    others = part * _CELL_TAIL - x * x * (1 / 2 - x * (1 / 6 - x * (1 / 24 - x * (1 / 120 - x * (1 / 720)))))
    i = np.float64(n + _TO_BITS).view(np.int64)
    head, tail = _HEADS[np.uint64(i & 255)], _TAILS[np.uint64(i & 255)]
    product = head * first
    great = head - product
    # what the difference lost, exactly (Dekker): head is the greater; and all that is small
    small = ((head - great) - product) + (tail - (head * others + tail * (first + others)))
    top = great + small
    # what _TO_BITS put above the octaves is gone after the shift to the left
    return top, (great - top) + small, np.int64(i << 13) >> 21


@kernel
def log2_of_normal(x):  # type: ignore[no-untyped-def]
    """log2 x of a normal double x > 0, to within LOG2_ERROR and a rounding: `log2_parts` without a branch."""
    bits = np.float64(x).view(np.int64)
    m = np.int64(bits & np.int64(0xFFFFFFFFFFFFF) | np.int64(0x3FF0000000000000)).view(np.float64)
    # below the bits of 2^52 an integer is the double 2^52 + integer: so it becomes one without a conversion
    exponent = np.int64((bits >> 52) | np.int64(0x4330000000000000)).view(np.float64) - (2.0**52 + 1023.0)
    return exponent + log2_significand(m)


class Powers(NamedTuple):
    """base^(d 2^(12 j)) for every digit d in the three places j: significand = high + low in [1, 2), and exponent."""

    high: NDArray[np.float64]
    low: NDArray[np.float64]
    exponent: NDArray[np.int64]


_DIGIT = 4096


def split_power(base: float, n: int, k: int) -> tuple[float, float, int]:
    """base^(n / 2^k) = (high + low) 2^exponent, 1 <= high <= 2, to within one part in 2^105."""
    lo, _, exponent = exact.power(base, n, k, 160)
    length = lo.bit_length() - 1
    high = math.ldexp(float(lo >> (length - 80)) if length > 80 else float(lo), -80 if length > 80 else -length)
    scaled = int(math.ldexp(high, 60))
    rest = lo - (scaled << (length - 60)) if length >= 60 else (lo << (60 - length)) - scaled
    return high, math.ldexp(float(rest), -max(length, 60)), exponent + length


@lru_cache(maxsize=16)
def powers(base: float, fraction_bits: int) -> Powers:
    """The tables from which `power_significand` takes base^(n / 2^fraction_bits), |n| < 2^35."""
    high, low = np.empty((3, _DIGIT)), np.empty((3, _DIGIT))
    exponent = np.empty((3, _DIGIT), np.int64)
    for place in range(3):
        for digit in range(_DIGIT):
            n = (digit - (_DIGIT // 2 if place == 2 else 0)) << (12 * place)
            high[place, digit], low[place, digit], exponent[place, digit] = split_power(base, n, fraction_bits)
    return Powers(high, low, exponent)


@kernel
def _multiply_doubles(a, a_low, b, b_low):  # type: ignore[no-untyped-def]
    """(a + a_low)(b + b_low) as an unevaluated sum, to within one part in 2^102 (Dekker, Numer. Math. 18, 1971)."""
    product = a * b
    # 2^27 + 1 splits a double into halves of 26 bits, whose products are exact (Veltkamp)
    a_split, b_split = 134217729.0 * a, 134217729.0 * b
    a_high, b_high = a_split - (a_split - a), b_split - (b_split - b)
    a_rest, b_rest = a - a_high, b - b_high
    error = a_rest * b_rest - (((product - a_high * b_high) - a_rest * b_high) - a_high * b_rest)
    # a_low b_low is left out: one part in 2^106
    error += a * b_low + a_low * b
    high = product + error
    return high, error - (high - product)


@kernel
def power_significand(n, high, low, exponent):  # type: ignore[no-untyped-def]
    """`(s, e, sure)`: base^(n / 2^F) = s 2^(e - 63), s a uint64 from 2^63 on whose last bit is sticky.

    The last bit is 1 wherever something was cut off, as in `exact.significand64`. Not `sure` where the bits after the
    sixty-fourth are too near to all equal to tell.
    """
    # only the top digit is signed: the shifts round down, the others count up from there
    d0, d1, d2 = n & 4095, (n >> 12) & 4095, (n >> 24) + 2048
    top, rest = _multiply_doubles(high[0, d0], low[0, d0], high[1, d1], low[1, d1])
    top, rest = _multiply_doubles(top, rest, high[2, d2], low[2, d2])
    e = exponent[0, d0] + exponent[1, d1] + exponent[2, d2]
    # three factors below 2 each: at most three halvings; powers of two are exact
    while top > 2.0 or (top == 2.0 and rest >= 0.0):
        top, rest, e = 0.5 * top, 0.5 * rest, e + 1
    if top == 1.0 and rest < 0.0:
        top, rest, e = 2.0 * top, 2.0 * rest, e - 1
    # in units of the sixty-fourth bit. The product is within one part in 2^100, 2^-37 of such a unit
    tail = rest * 9223372036854775808.0
    down = math.floor(tail)
    sure = 1e-9 < tail - down < 1.0 - 1e-9
    # the head gives one of its units, 2^11 of the tail's, to the tail, which is then not negative
    s = (np.uint64(top * 4503599627370496.0 - 1.0) << np.uint64(11)) + np.uint64(2048.0 + down)  # down >= -1024
    return s | np.uint64(1), e, sure


def significands(base: float, fraction_bits: int, logs: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """`exact.significand64` of base^(n / 2^F) for each n of a one-dimensional array: arrays of uint64 and int64."""
    table = powers(base, fraction_bits)
    s, e = np.empty(logs.shape, np.uint64), np.empty(logs.shape, np.int64)
    unsure = np.empty(logs.shape, np.bool_)
    _fill_significands(logs, table.high, table.low, table.exponent, s, e, unsure)
    hard, back = np.unique(logs[unsure], return_inverse=True)
    decided = [exact.significand64(base, int(n), fraction_bits) for n in hard]
    s[unsure] = np.array([d[0] for d in decided], np.uint64)[back]
    e[unsure] = np.array([d[1] for d in decided], np.int64)[back]
    return s, e


@kernel
def _fill_significands(logs, high, low, exponent, s, e, unsure):  # type: ignore[no-untyped-def]
    for i in range(logs.size):
        s[i], e[i], sure = power_significand(logs[i], high, low, exponent)
        unsure[i] = not sure
