"""The codes on either side of e^x, 2^x, ln x, log2 x and x^y: what a faithful result is one of.

    floor(r)  <=  r  <=  ceil(r),      r = 2^F log_base |result|

The logarithms and exponentials are transcendental but for the cases that the functions name (Lindemann 1882; Gelfond
and Schneider 1934), so growing precision always tells on which side of a code they lie. The specification of
"Faithful" is in docs/number_format.md, under "Operations".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from lnsnum.format import LNSFormat, Overflow, Underflow
from lnsnum.reference.codes import check, place, read_operands
from lnsnum.reference.radicals import mp
from lnsnum.reference.sums import Terms, base_power, root_of


class Bracket(NamedTuple):
    """The codes on either side of an exact result, the same where it lies on the grid.

    `log` is r = 2^F log_base |result|, of the result's format, to within 2^-30 (in size at most 2^100 and, but for an
    exact 0, at least 2^-100); None where the result is zero or NaN. Where |result| is below the smallest, `lower` is
    zero and `upper` the smallest, or both the smallest where underflow saturates.
    """

    lower: int
    upper: int
    log: Fraction | None


FAR = Fraction(1 << 100)


def _between(r: Callable[[int], tuple[Any, Any]]) -> Fraction:
    """A fraction close to r and between the same integers, for an r that is none.

    `r` takes a precision and returns an approximation with a bound of its error.
    """
    precision = 256
    while True:
        with mp.workprec(precision + 64):
            near, error = r(precision)
            sign = 1 if near > 0 else -1
            if abs(near) > error and abs(mp.mag(near)) > 100:
                return sign * FAR if abs(near) > 1 else sign / FAR
            if abs(near) > error and abs(near - mp.nint(near)) > error + mp.ldexp(1, -precision):
                return Fraction(int(mp.floor(mp.ldexp(near, precision))), 1 << precision)
        precision *= 2


def _two_logs(base: Fraction) -> int | None:
    """j where base = 2^j, else None."""
    j = base.numerator.bit_length() - 1
    return j if base == 1 << j else None


def _natural_log(base: Fraction) -> Any:
    """ln base, at the precision that is set: a float64 is an mpf exactly, and mpmath minds those close to 1."""
    return mp.log(mp.mpf(base.numerator) / base.denominator)


def _log_of_exponential(x: Terms, out: LNSFormat, of_two: bool) -> Fraction:
    """r of e^x or 2^x for a single term x.

    e^x is transcendental (Lindemann), and so is 2^x with an irrational x (Gelfond and Schneider): no code has that
    value. A rational power of 2 is one of the base only where the base is 2^j.
    """
    base, F = Fraction(out.base), out.fraction_bits
    ((q, sign),) = x.items()
    j = _two_logs(base)
    if of_two and j is not None and (q * j).denominator == 1:
        return sign * Fraction(2) ** max(-128, min(128, int(q * j) + F)) / j  # beyond 2^128 either way no code is near

    def r(precision: int) -> tuple[Any, Any]:
        size = mp.ldexp(base_power(base, q, precision), F) / _natural_log(base)
        size = size * mp.ln2 if of_two else size
        return int(sign) * size, mp.ldexp(size, 8 - precision)

    return _between(r)


def _log_of_logarithm(x: Terms, out: LNSFormat, of_two: bool) -> Fraction:
    """r of ln x or log2 x for a single positive term x, not 1.

    Both are rational multiples of ln base or log2 base, which are transcendental but for log2 2^j = j: then the
    logarithm is rational, and a power of the base only where it is a power of 2.
    """
    base, F = Fraction(out.base), out.fraction_bits
    q = abs(next(iter(x)))
    j = _two_logs(base)
    if of_two and j is not None:
        size = q * j
        twos = size.numerator.bit_length() - size.denominator.bit_length()
        if size == Fraction(2) ** twos:
            return Fraction(twos << F, j)

    def r(precision: int) -> tuple[Any, Any]:
        log = _natural_log(base)
        y = mp.mpf(q.numerator) / q.denominator * (log / mp.ln2 if of_two else log)
        scale = mp.ldexp(1 / log, F)
        return scale * mp.log(y), scale * mp.ldexp(1 + abs(mp.log(y)), 8 - precision)

    return _between(r)


def _log_of_power(x: Terms, y: Terms, out: LNSFormat) -> Fraction:
    """r of |x|^y for single terms: 2^F q_x y, an integer only where y is rational."""
    base = Fraction(out.base)
    ((q, _),), ((p, sign),) = x.items(), y.items()
    scaled = sign * q * (1 << out.fraction_bits)
    if scaled == 0:
        return scaled
    root, k = root_of(base)
    if (p * k).denominator == 1 and abs(p * k) <= 256:
        return scaled * root ** int(p * k)
    # a root^n further away is an integer only if it is beyond every code: scaled has at most 64 factors of 2 to give

    def r(precision: int) -> tuple[Any, Any]:
        size = base_power(base, p, precision) * scaled.numerator / scaled.denominator
        return size, mp.ldexp(abs(size), 8 - precision)

    return _between(r)


def _sign_of_power(x: Terms, y: Terms, base: Fraction) -> int | None:
    """The sign of x^y, for single terms; None where that is no real number."""
    ((_, sign),), ((p, _),) = x.items(), y.items()
    if sign > 0:
        return 1
    root, k = root_of(base)
    n = p * k
    if n == 0:
        return -1
    if n.denominator > 1 or n < 0 or root.denominator > 1:
        return None  # y is no integer
    return -1 if root.numerator % 2 else 1


def bracket(
    operation: Literal["exp", "exp2", "log", "log2", "float_power"],
    fmt: LNSFormat,
    *codes: int,
    b_format: LNSFormat | None = None,
    out_format: LNSFormat | None = None,
    log_offset: int = 0,
    b_log_offset: int = 0,
    out_log_offset: int = 0,
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
) -> Bracket:
    """The codes on either side of e^a, 2^a, ln a, log2 a or a^b: a faithful result is one of the two.

    >>> bracket("exp2", LNSFormat(8, 5), 64)
    Bracket(lower=96, upper=96, log=Fraction(32, 1))
    >>> lower, upper, log = bracket("exp", LNSFormat(8, 5), 64)
    >>> lower, upper, round(float(log), 6)
    (110, 111, 46.166241)
    """
    allowed = {"exp": 1, "exp2": 1, "log": 1, "log2": 1, "float_power": 2}
    if operation not in allowed or len(codes) != allowed[operation]:
        raise ValueError(f"operation={operation!r} of {len(codes)} codes is not known: {allowed}")
    given = ((codes[0], fmt, log_offset), *((b, b_format, b_log_offset) for b in codes[1:]))
    out, numbers = read_operands(*given, out_format=out_format)
    check(out, (), (out_log_offset,), overflow=overflow, underflow=underflow)
    nothing = Bracket(out.nan_code, out.nan_code, None), Bracket(0, 0, None)
    x, y = numbers[0], numbers[-1]
    if x is None or y is None:
        return nothing[0]
    base, sign, log = Fraction(out.base), 1, Fraction(0)
    of_two = operation.endswith("2")
    if operation == "float_power":
        if y and not x:
            return nothing[next(iter(y.values())) > 0]
        if y:
            real = _sign_of_power(x, y, base)
            if real is None:
                return nothing[0]
            sign, log = real, _log_of_power(x, y, out)
    elif operation in ("log", "log2"):
        if not x or x in ({q: Fraction(-1)} for q in x):
            return nothing[0]
        q = next(iter(x))
        if q == 0:
            return nothing[1]
        sign, log = 1 if q > 0 else -1, _log_of_logarithm(x, out, of_two)
    elif x:
        log = _log_of_exponential(x, out, of_two)
    minus = out.sign_bit if sign < 0 else 0
    if log < 1 - out.bias + out_log_offset:
        return Bracket(0 if underflow == "round" else 1 | minus, 1 | minus, log)
    lower, upper = (place(n, sign < 0, out, out_log_offset, overflow) for n in (math.floor(log), math.ceil(log)))
    return Bracket(lower, upper, log)
