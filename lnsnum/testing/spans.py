"""Which codes may stand for the exact result of a sum, a difference, a product, a quotient.

    r  =  E_top + s,      s = log1p(+-exp(-z h)) / h  (sums, of operands z code steps apart),      s = 0  (products)

with h = ln(base) / 2^F. What may come out is a matter of whole numbers: floor(s), ceil(s - 1/2), and so on. They are
read off float64, whose error is bounded; where a whole number is nearer than that, mpmath decides at 400 bits. No
kernel of the library has a part in it.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_POINT = 128
_NEAR = 1 << (_POINT - 100)
FAR = 1 << 62
_TINY = 2.0**-20


def log_step(fmt: LNSFormat) -> float:
    """h: the natural logarithm of a code step."""
    # log1p where the base is near 1, whose logarithm would lose its digits
    return math.log1p(fmt.base - 1) / (1 << fmt.fraction_bits)


class Rules(NamedTuple):
    """What is asked of a result: `spare` is how far from the correctly rounded one it may be, in code steps."""

    fmt: LNSFormat
    spare: Fraction
    rounding: Rounding
    overflow: Overflow
    underflow: Underflow


class Spans(NamedTuple):
    """For each s: its value, and the whole numbers that decide, all relative to E_top.

    nearest_low to nearest_high is near enough under nearest (`tie` where both are equally near and the even one is
    right), floor_low to floor_high where magnitudes are rounded down, ceil_low to ceil_high where they are rounded up.
    Counted from the smallest magnitude, a result that is rounded to nearest may be zero where E_top < zero_below, and
    the smallest where E_top >= smallest_from.
    """

    s: NDArray[np.float64]
    floor: Ints
    nearest_low: Ints
    nearest_high: Ints
    tie: Ints
    floor_low: Ints
    floor_high: Ints
    ceil_low: Ints
    ceil_high: Ints
    zero_below: Ints
    smallest_from: Ints


@lru_cache(maxsize=1)
def context() -> Any:
    """mpmath at 400 bits."""
    import mpmath

    own = mpmath.MPContext()  # mpmath.mp keeps the precision that its user gave it
    own.prec = 400
    return own


def _whole(x: int) -> int:
    """x, or the whole number that it is so near to only if it is that number."""
    whole = (x + (1 << (_POINT - 1))) >> _POINT << _POINT
    return whole if abs(x - whole) <= _NEAR else x


@lru_cache(maxsize=1 << 17)
def exact_span(fmt: LNSFormat, spare: Fraction, gap: int, direction: int) -> tuple[float | int, ...]:
    """One row of `Spans`, in integers of 2^-128: a sum (direction 1), a difference (-1), a product (0)."""
    mp = context()
    h = mp.ldexp(mp.log(mp.mpf(fmt.base)), -fmt.fraction_bits)
    t = gap * h
    if direction == 0:
        s = mp.mpf(0)
    elif t > 400:  # less than 2^-400, but not zero: a directed mode sees it
        s = direction * mp.ldexp(1, -400)
    elif direction > 0:
        s = mp.log1p(mp.exp(-t)) / h
    else:
        s = (mp.log(-mp.expm1(-t)) if t < 1 else mp.log1p(-mp.exp(-t))) / h
    at = int(mp.floor(mp.ldexp(s, _POINT)))
    if at == 0 and s > 0:
        at = 1
    return (float(s), *_decided(at, int(mp.floor(mp.ldexp(mp.ln2 / h, _POINT))), spare))


def _decided(at: int, steps_to_two: int, spare: Fraction) -> tuple[int, ...]:
    """The whole numbers of a row, from s and 2^F log_base 2 in integers of 2^-128."""
    halves = (at + (1 << (_POINT - 2))) >> (_POINT - 1)
    if halves and abs(at - (halves << (_POINT - 1))) <= _NEAR:  # so near to a number and a half only if it is one
        at = halves << (_POINT - 1)

    def floor(x: int) -> int:
        return max(min(x >> _POINT, FAR), -FAR)

    def ceil(x: int) -> int:
        return -floor(-x)

    half, more = 1 << (_POINT - 1), (spare.numerator << _POINT) // spare.denominator
    above_half = _whole(steps_to_two)  # r counted from half the smallest
    above_half = _whole(at + above_half) if abs(at) > _NEAR else at + above_half
    low, high = ceil(at - half - more), floor(at + half + more)
    rounded = (floor(at - more), floor(at + more), ceil(at - more), ceil(at + more))
    zero = (ceil(more - above_half), ceil(-more - above_half))
    return (floor(at), low, high, int(more == 0 and low < high), *rounded, *zero)


def recoded_spans(fmt: LNSFormat, to: LNSFormat, spare: Fraction, logs: Ints) -> Spans:
    """The rows for s = 2^F' log_base' base^(E / 2^F): where the numbers of a format lie among those of another."""
    mp = context()
    with mp.workprec(500):
        of_one, of_two = (mp.log(mp.mpf(base)) for base in (fmt.base, to.base))
        ratio = int(mp.floor(mp.ldexp(of_one / of_two, _POINT + 250 + to.fraction_bits - fmt.fraction_bits)))
        steps_to_two = int(mp.floor(mp.ldexp(mp.ln2 / of_two, _POINT + to.fraction_bits)))
    unique, which = np.unique(logs, return_inverse=True)
    at = [(log * ratio) >> 250 for log in unique.tolist()]
    rows = np.array([_decided(s, steps_to_two, spare) for s in at], np.int64).reshape(-1, len(Spans._fields) - 1)
    values = np.array([min(max(float(Fraction(s, 1 << _POINT)), -1e300), 1e300) for s in at])
    return Spans._make([values[which], *rows[which].T])


def spans(fmt: LNSFormat, spare: Fraction, gap: Ints, direction: Ints) -> Spans:
    """The rows for operands `gap` apart; direction 1 is a sum of magnitudes, -1 a difference (gap > 0), 0 a product."""
    h = np.log(np.float64(fmt.base)) / (1 << fmt.fraction_bits)
    with np.errstate(all="ignore"):
        t = gap * h
        ratio = np.exp(-t)
        less = np.where(t < 1, np.log(-np.expm1(-t)), np.log1p(-ratio))
        s = np.where(direction > 0, np.log1p(ratio), np.where(direction < 0, less, 0.0)) / h
        # Rounding t multiplies exp(-t) by 1 +- t 2^-52, and what follows adds a few 2^-52 of s. Where t is small, the
        # logarithm of 1 - exp(-t) has besides an error of its own, which does not shrink with s.
        error = (t + 4) * 2.0**-50 * np.abs(s) + np.where((direction < 0) & (t < 1), 2.0**-49 / h, 0.0)
    steps_to_half, more = float(np.log(2.0) / h), float(spare)
    # The sign of a small s is known, however small it is, so it need not be told from zero; in its place stands a
    # number that is no nearer to where a decision changes. A spare of many digits would be in the way.
    plain = (spare * 1024).denominator == 1
    tiny = (np.abs(s) < _TINY) & (direction != 0) & plain
    value = np.where(tiny, direction * _TINY, s)
    error = np.where(tiny, 0.0, error) + 2.0**-51 * (1 + more)
    unsure = ~np.isfinite(s)
    slack = 2.0**-50 * steps_to_half + (0.0 if steps_to_half.is_integer() else 2 * _TINY)

    def near(x: NDArray[np.float64], slack: float = 0.0) -> NDArray[np.float64]:
        nonlocal unsure
        unsure |= ~(np.abs(x - np.rint(x)) > error + slack)
        return x

    with np.errstate(invalid="ignore"):
        columns = [
            np.floor(near(value)),
            np.ceil(near(value - 0.5 - more)),
            np.floor(near(value + 0.5 + more)),
            np.zeros_like(s),
            *(f(near(value + side)) for f in (np.floor, np.ceil) for side in (-more, more)),
        ]
        for side in (more, -more):
            columns.append(np.ceil(near(side - steps_to_half - value, slack)))
    rows = [s, *(np.where(unsure, 0, column).astype(np.int64) for column in columns)]
    where = np.flatnonzero(unsure)
    if where.size:
        kinds, which = np.unique(4 * gap[where] + direction[where] + 1, return_inverse=True)
        exact = [exact_span(fmt, spare, int(kind) >> 2, (int(kind) & 3) - 1) for kind in kinds]
        for row, column in zip(rows, zip(*exact, strict=True), strict=True):
            row[where] = np.array(column)[which]
    return Spans(*rows)


class Bounds(NamedTuple):
    """For each pair of numbers: which magnitudes may come out, and where r lies. `exact` leaves out zero and NaN."""

    exact: Mask
    saturates: Mask
    underflows: Mask
    zero: Mask
    low: Ints
    high: Ints
    negative: Mask
    log: NDArray[np.float64]


def bounds(rules: Rules, operation: str, a: Ints, b: Ints, nonzero: Mask) -> Bounds:
    """Where the exact results lie, and what may stand for them; `nonzero` are the pairs of two nonzero numbers."""
    fmt = rules.fmt
    e_a, e_b = ((codes & fmt.max_magnitude) - fmt.bias for codes in (a, b))
    minus_a, minus_b = a >= fmt.sign_bit, b >= fmt.sign_bit
    if operation in ("multiply", "divide"):
        top = e_a + e_b if operation == "multiply" else e_a - e_b
        gap, direction, negative = np.zeros_like(top), np.zeros_like(top), minus_a ^ minus_b
    else:
        minus_b = minus_b ^ (operation == "subtract")
        top, gap = np.maximum(e_a, e_b), np.abs(e_a - e_b)
        direction, negative = np.where(minus_a == minus_b, 1, -1), np.where(e_a >= e_b, minus_a, minus_b)
    exact = nonzero & ~((direction < 0) & (gap == 0))
    asked = spans(fmt, rules.spare, np.where(exact, gap, 1), np.where(exact, direction, 0))
    return settled(rules, exact, top, asked, negative)


def settled(rules: Rules, exact: Mask, top: Ints, asked: Spans, negative: Mask) -> Bounds:
    """What may stand for the numbers base^((top + s) / 2^F), by the tables of docs/number_format.md."""
    fmt, rounding = rules.fmt, rules.rounding
    if rounding == "nearest":
        low, high = asked.nearest_low, asked.nearest_high
    elif rounding in ("stochastic_log", "stochastic_value"):
        low, high = asked.floor_low, asked.ceil_high
    else:
        away = np.zeros_like(negative) if rounding == "toward_zero" else negative == (rounding == "down")
        low = np.where(away, asked.ceil_low, asked.floor_low)
        high = np.where(away, asked.ceil_high, asked.floor_high)
    low, high = np.clip(top + low, -FAR, FAR), np.clip(top + high, -FAR, FAR)
    if rounding == "nearest":
        tie, even = asked.tie.astype(bool), np.where(low % 2 == 0, low, high)
        low, high = np.where(tie, even, low), np.where(tie, even, high)
    greatest, smallest = fmt.max_log, -fmt.max_log
    above = top - smallest
    underflows = exact & (top + asked.floor < smallest)
    if rules.underflow == "saturate":
        may_be_zero, may_be_smallest = np.zeros_like(exact), np.ones_like(exact)
    elif rounding in ("nearest", "stochastic_log"):
        may_be_zero, may_be_smallest = above < asked.zero_below, above >= asked.smallest_from
    elif rounding == "stochastic_value":
        may_be_zero, may_be_smallest = np.ones_like(exact), np.ones_like(exact)
    else:
        may_be_smallest = away | (rules.spare > 0)
        may_be_zero = ~away | (rules.spare > 0)
    high = np.where(underflows & ~may_be_smallest, smallest - 1, np.maximum(high, smallest))
    return Bounds(
        exact,
        exact & (low > greatest),
        underflows,
        underflows & may_be_zero,
        np.clip(low, smallest, greatest),
        high if rules.overflow == "nan" else np.minimum(high, greatest),
        negative,
        top + asked.s,
    )
