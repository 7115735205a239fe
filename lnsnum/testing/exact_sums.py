"""Sums of rows of terms to twice the precision of a double, and the codes that a bound on the error leaves.

    s  =  sum_k t_k,      |what came out - s|  <=  B sum_k |t_k|,      B = (1 + u)^additions - 1

A term is base^(E / 2^F), which is irrational: mpmath gives it as a sum of two doubles, and rows are added up in such
pairs, relative to their greatest term. So s is known to about 100 bits, far better than any bound that is asked for. No
kernel of the library has a part in it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.testing.spans import Ints, Mask, context, log_step
from lnsnum.testing.sum_rounding import NOWHERE, Allowed, Order, Stated

Floats = NDArray[np.float64]

_LOST = 200.0
"""Octaves below the greatest term of a row, beyond which a term is less than what the sum is known to."""


class Terms(NamedTuple):
    """Rows of terms, filled up with zeros: E in steps of the format, signs, and which rows hold a NaN."""

    log: Ints
    negative: Mask
    zero: Mask
    nan: Mask
    length: Ints


class Exact(NamedTuple):
    """Of each row, in units of base^(top / 2^F): the sum as two doubles, and the sum of the sizes of its terms."""

    top: Ints
    high: Floats
    low: Floats
    size: Floats


@lru_cache(maxsize=1 << 18)
def _power(base: float, log: int, fraction_bits: int) -> tuple[float, float]:
    mp = context()
    x = mp.power(mp.mpf(base), mp.ldexp(log, -fraction_bits))
    high = float(x)
    return high, float(x - high)


def powers(fmt: LNSFormat, log: Ints) -> tuple[Floats, Floats]:
    """base^(log / 2^F) as two doubles, the first the nearest one; of logarithms within the range of doubles."""
    base_2 = fmt.base == 2.0
    whole = log >> fmt.fraction_bits if base_2 else np.zeros_like(log)
    part = log - (whole << fmt.fraction_bits) if base_2 else log
    kinds, which = np.unique(part, return_inverse=True)
    pairs = np.array([_power(fmt.base, int(k), fmt.fraction_bits) for k in kinds], np.float64).reshape(-1, 2)
    high, low = (pairs[which.reshape(log.shape), i] for i in (0, 1))
    shift = np.clip(whole, -4000, 4000).astype(np.int32)
    return np.ldexp(high, shift), np.ldexp(low, shift)


def _plus(high: Floats, low: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """(high + low) + (x + y), by Knuth's sum of two doubles."""
    total = high + x
    back = total - high
    low = low + y + ((high - (total - back)) + (x - back))
    out = total + low
    return out, low - (out - total)


def exact_sums(terms: Terms, fmt: LNSFormat) -> Exact:
    """The sum of each row."""
    rows, columns = terms.log.shape
    nothing = -(1 << 60)
    top = np.max(np.where(terms.zero, nothing, terms.log), axis=1, initial=nothing)
    top = np.where(top == nothing, 0, top)
    gap = np.where(terms.zero, 0, terms.log - top[:, None])
    near = ~terms.zero & (gap * log_step(fmt) > -_LOST * math.log(2.0))
    high, low = powers(fmt, np.where(near, gap, 0))
    sign = np.where(terms.negative, -1.0, 1.0) * near
    high, low = high * sign, low * sign
    total, rest = np.zeros(rows), np.zeros(rows)
    for k in range(columns):
        total, rest = _plus(total, rest, high[:, k], low[:, k])
    return Exact(top, total, rest, np.abs(high).sum(axis=1))


def additions(length: Ints, order: Order) -> Ints:
    """Through how many additions a term goes at most."""
    if order == "pairwise":
        return np.array([max(int(n) - 1, 0).bit_length() for n in length], np.int64)
    return np.maximum(length - 1, 0)


def error_factor(stated: Stated, length: Ints) -> Floats:
    """B: how far a total is from the exact sum, at most, in units of the sum of the sizes of its terms."""
    if isinstance(stated.accumulator, LNSFormat):
        log = additions(length, stated.order) * (log_step(stated.accumulator) * float(stated.max_ulp))
    else:
        # decoding two factors and multiplying them are three roundings more
        log = (length + 2) * math.log1p(2.0 ** -(np.finfo(stated.accumulator).nmant + 1))
    factor: Floats = np.expm1(np.minimum(log, 700.0))
    return factor


def bounded(stated: Stated, terms: Terms, room: tuple[float, float]) -> Allowed:
    """What the bound on the error leaves, whatever the order; known where no partial sum can leave the range."""
    fmt, exact = stated.fmt, exact_sums(terms, stated.fmt)
    h = log_step(fmt)
    factor = error_factor(stated, terms.length)
    with np.errstate(all="ignore"):
        greatest = exact.top + np.log(exact.size * (1.0 + factor)) / h
        # what underflows on the way is less than the smallest number, with each term and each addition
        lost = 2.0 * terms.length * np.exp(np.minimum(room[1] - exact.top * h, 700.0))
        error = exact.size * factor * (1.0 + 2.0**-40) + lost + np.abs(exact.high) * 2.0**-90
        error = np.where(terms.zero.all(axis=1), 0.0, error)
    known = terms.nan | (exact.size == 0) | (greatest < room[0] - 1.0)
    ends = []
    for side in (-1.0, 1.0):
        end = exact.high + (exact.low + side * error)
        ends.append(np.where(end * side >= 0, _rank(stated, exact.top, end, 1), _rank(stated, exact.top, end, -1)))
    low, high = ends
    nan = (stated.overflow == "nan") & (np.maximum(-low, high) > fmt.max_magnitude)
    if stated.overflow == "saturate":
        low, high = (np.clip(end, -fmt.max_magnitude, fmt.max_magnitude) for end in ends)
    low, high = np.where(terms.nan, NOWHERE, low), np.where(terms.nan, -NOWHERE, high)
    return Allowed(low, high, nan | terms.nan, known)


def _rank(stated: Stated, top: Ints, x: NDArray[np.float64], side: int) -> Ints:
    """The outermost (side 1) or innermost (-1) code that x base^(top / 2^F) may be rounded to."""
    fmt = stated.fmt
    with np.errstate(all="ignore"):
        r = top + np.log(np.abs(x)) / log_step(fmt)
    r = np.where(x == 0, -math.inf, r)
    slack = side * (1e-6 + np.where(np.isfinite(r), np.abs(r), 0.0) * 2.0**-48)
    r = np.clip(r + slack, -2.0 * fmt.bias, 2.0 * fmt.bias)
    away = {"up": x > 0, "down": x < 0}.get(stated.rounding, np.zeros(x.shape, np.bool_))
    if stated.rounding == "nearest":
        log = np.ceil(r - 0.5) if side < 0 else np.floor(r + 0.5)
    elif stated.by_chance:
        log = np.floor(r) if side < 0 else np.ceil(r)
    else:
        log = np.where(away, np.ceil(r), np.floor(r))
    m = log.astype(np.int64) + fmt.bias
    # below the smallest either may come out
    m = np.where(r < -fmt.max_log, 0 if side < 0 else 1, np.maximum(m, 0))
    m = np.where(x == 0, 0, np.minimum(m, fmt.max_magnitude + 1))
    return np.where(x < 0, -m, m)
