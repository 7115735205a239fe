"""Between real numbers, floats, formats and codes: "Encode", "Decode" and "Convert" of docs/number_format.md.

    |x| = numerator^1 * denominator^-1  ->  E,  m           base^(E / 2^F)  ->  the nearest n 2^unit of a float

Every number here is a radical, and it is rounded once.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal, Unpack

import mpmath

from lnsnum.format import LNSFormat
from lnsnum.reference.codes import check, grid, log_of, place
from lnsnum.reference.radicals import FIRST_PRECISION, compare, exp2, floor, log2, mp, radical, times
from lnsnum.reference.rounding import How, Modes, round_radical

FLOATS = {"float64": (64, 53, -1022), "float32": (32, 24, -126), "float16": (16, 11, -14), "bfloat16": (16, 8, -126)}
"""Width in bits, precision, and exponent of the least normal number."""


def encode(x: float | Fraction, fmt: LNSFormat, *, log_offset: int = 0, **modes: Unpack[Modes]) -> int:
    """The code of a real number, an infinity or NaN; `random_bits` is R, the fraction R / 2^32.

    >>> encode(1.0, LNSFormat(8, 5)), encode(-Fraction(1, 3), LNSFormat(8, 5))
    (64, 141)
    """
    how = How(**modes)
    how.check(fmt, log_offset)
    if isinstance(x, float) and math.isnan(x):
        return fmt.nan_code
    if isinstance(x, float) and math.isinf(x):
        return place(fmt.max_log + log_offset + 1, x < 0, fmt, log_offset, how.overflow)
    if x == 0:
        return 0
    x, negative = Fraction(x), x < 0
    return round_radical(radical(abs(x)), negative, fmt, log_offset, how)


def convert(
    code: int, fmt: LNSFormat, to: LNSFormat, *, log_offset: int = 0, out_log_offset: int = 0, **modes: Unpack[Modes]
) -> int:
    """The code in `to` of the number that `code` names in `fmt`.

    >>> convert(64, LNSFormat(8, 5), LNSFormat(16, 7))
    16384
    """
    how = How(**modes)
    check(fmt, (code,), (log_offset,))
    how.check(to, out_log_offset)
    if code in (0, fmt.nan_code):
        return to.nan_code if code else 0
    x, negative = grid(fmt, log_of(code, fmt, log_offset)), code > fmt.sign_bit
    return round_radical(x, negative, to, out_log_offset, how)


def value(code: int, fmt: LNSFormat, *, log_offset: int = 0, precision: int = 256) -> Any:
    """The value of a code as an mpf of mpmath, correct to all but the last few of `precision` bits.

    >>> print(value(96, LNSFormat(8, 5)))
    2.0
    """
    check(fmt, (code,), (log_offset,))
    if code in (0, fmt.nan_code):
        return mpmath.mpf("nan" if code else 0)
    size = exp2(log2(grid(fmt, log_of(code, fmt, log_offset)), precision), precision)
    with mp.workprec(precision + 32):  # to negate rounds too
        return mpmath.make_mpf((-size if code > fmt.sign_bit else size)._mpf_)


def decode(
    code: int,
    fmt: LNSFormat,
    dtype: Literal["float64", "float32", "float16", "bfloat16"] = "float64",
    *,
    log_offset: int = 0,
) -> int:
    """The bit pattern of the float nearest to the value of a code, ties to even. Every zero is +0.

    >>> hex(decode(96, LNSFormat(8, 5), "float32"))
    '0x40000000'
    """
    check(fmt, (code,), (log_offset,))
    width, precision, least_exponent = FLOATS[dtype]
    infinity = (3 - 2 * least_exponent) << (precision - 1)
    if code in (0, fmt.nan_code):
        return infinity | 1 << (precision - 2) if code else 0
    sign = (code > fmt.sign_bit) << (width - 1)
    x = grid(fmt, log_of(code, fmt, log_offset))
    top = floor(x, lambda n: {2: Fraction(n)}, log2(x, FIRST_PRECISION) >> FIRST_PRECISION)
    if top > 1 - least_exponent:
        return sign | infinity
    unit = max(top, least_exponent) - (precision - 1)  # one unit in the last place is 2^unit
    scaled = times(x, {2: Fraction(-unit)})
    n = 0
    if top >= unit:
        n = floor(scaled, radical, int(exp2(log2(scaled, FIRST_PRECISION), FIRST_PRECISION)))
    side = compare(scaled, radical(n + Fraction(1, 2)))
    n += side > 0 or (side == 0 and n % 2)
    if n == 0:
        return 0
    return sign | (unit - least_exponent + precision - 1 << (precision - 1)) + n
