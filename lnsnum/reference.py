"""The specification once more, one number at a time: slow, exact, and sharing nothing with the kernels.

Every number that the specification compares is a product of integers to rational powers,

    base^(n / 2^F) = numerator^(n / 2^F) * denominator^(-n / 2^F),      x = numerator^1 * denominator^-1,

and so is every quotient of two of them. Such a product is kept as the dict {integer: exponent}, a *radical*, and every
decision is the sign of its logarithm: by mpmath at growing precision until it is clear, and where it stays unclear by
algebra. The product is 1 exactly if, once its integers are made pairwise coprime, every exponent is 0.

docs/number_format.md is the text that this module says again; read them side by side. mpmath is an optional dependency,
so the package does not import this module by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from typing import Any, Literal

import mpmath

from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow, check_choice, check_log_offset

Radical = dict[int, Fraction]

FIRST_PRECISION = 128

FLOATS = {"float64": (64, 53, -1022), "float32": (32, 24, -126), "float16": (16, 11, -14), "bfloat16": (16, 8, -126)}
"""Width in bits, precision, and exponent of the least normal number."""

_mp: Any = mpmath.MPContext()  # our own: mpmath.mp keeps the precision that its user gave it


def _radical(x: Fraction | int) -> Radical:
    """A positive rational number; its twos are one factor, whose logarithm is exact."""
    result: Radical = {}
    for integer, exponent in ((x.numerator, 1), (x.denominator, -1)):
        twos = (integer & -integer).bit_length() - 1
        result = _times(result, {2: Fraction(twos), integer >> twos: Fraction(1)}, exponent)
    return result


def _times(a: Radical, b: Radical, power: Fraction | int = 1) -> Radical:
    """a * b^power."""
    product = dict(a)
    for integer, exponent in b.items():
        product[integer] = product.get(integer, Fraction(0)) + exponent * power
    return {integer: exponent for integer, exponent in product.items() if exponent and integer > 1}


@lru_cache(maxsize=1 << 16)
def _log2_integer(integer: int, precision: int) -> int:
    """2^precision log2(integer), to within 1."""
    if integer == 2:
        return 1 << precision
    with _mp.workprec(precision + integer.bit_length().bit_length() + 16):
        return int(_mp.floor(_mp.ldexp(_mp.log(integer) / _mp.ln2, precision)))


def _log2(x: Radical, precision: int) -> int:
    """2^precision log2(x), to within 2."""
    guard = math.ceil(sum(map(abs, x.values()))).bit_length()
    return math.floor(sum(e * _log2_integer(i, precision + guard) for i, e in x.items()) / (1 << guard))


def _is_one(x: Radical) -> bool:
    """Whether x = 1, exactly: a^p b^q = (a/g)^p (b/g)^q g^(p+q) until no two integers share a divisor g."""
    while True:
        pair = next(((a, b) for a, b in combinations(x, 2) if math.gcd(a, b) > 1), None)
        if pair is None:
            return not x
        (a, b), g = pair, math.gcd(*pair)
        p, q = x[a], x[b]
        x = {integer: exponent for integer, exponent in x.items() if integer not in pair}
        for integer, exponent in ((a // g, p), (b // g, q), (g, p + q)):
            x = _times(x, {integer: exponent})


def _compare(a: Radical, b: Radical) -> int:
    """The sign of a - b, exactly."""
    quotient = _times(a, b, -1)
    precision = FIRST_PRECISION
    while True:
        log = _log2(quotient, precision)
        if abs(log) > 2:
            return 1 if log > 0 else -1
        if precision == FIRST_PRECISION and _is_one(quotient):
            return 0
        precision *= 2


def _exp2(log: int, precision: int) -> Any:
    """2^(log / 2^precision) as an mpf with a relative error below 2^(2 - precision), that of `_log2` included."""
    with _mp.workprec(precision + 32):
        fraction = _mp.mpf(log & ((1 << precision) - 1))
        return _mp.ldexp(_mp.power(2, _mp.ldexp(fraction, -precision)), log >> precision)


def _floor(x: Radical, at: Callable[[int], Radical], estimate: int) -> int:
    """The greatest n with at(n) <= x, for an `at` that grows, from an estimate."""
    n = estimate
    while _compare(x, at(n)) < 0:
        n -= 1
    while _compare(x, at(n + 1)) >= 0:
        n += 1
    return n


def _grid(fmt: LNSFormat, log: Fraction | int) -> Radical:
    """base^(log / 2^F)."""
    return _times({}, _radical(Fraction(fmt.base)), Fraction(log) / (1 << fmt.fraction_bits))


def _rational(root: Radical) -> Fraction | None:
    """base^(1 / 2^F) as a fraction, or None where it is irrational: the integers are coprime, each is judged alone."""
    result = Fraction(1)
    for integer, exponent in root.items():
        while exponent.denominator > 1:
            square, integer, exponent = integer, math.isqrt(integer), exponent * 2
            if integer * integer != square:
                return None
        result *= Fraction(integer) ** exponent.numerator
    return result


def _below(share: Fraction, step: Radical, y: Radical) -> bool:
    """Whether 1 + share * (step - 1) < y, for 0 < share < 1.

    With a rational step the left side is a radical too. With an irrational one the two are never equal: radicals whose
    ratios are irrational are linearly independent over the rationals (Besicovitch 1940), and of 1, the step and y at
    least one has an irrational ratio to both others.
    """
    rational = _rational(step)
    if rational is not None:
        return _compare(_radical(1 + share * (rational - 1)), y) < 0
    precision = FIRST_PRECISION
    while True:
        with _mp.workprec(precision + 64):
            hi, value = _exp2(_log2(step, precision), precision), _exp2(_log2(y, precision), precision)
            left = 1 + _mp.mpf(share.numerator) / share.denominator * (hi - 1)
            if abs(value - left) > _mp.ldexp(value + hi, 3 - precision):
                return bool(left < value)
        precision *= 2


def _check(
    fmt: LNSFormat, codes: tuple[int, ...], offsets: tuple[int, ...], random_bits: int = 0, **choices: str
) -> None:
    for what, given in choices.items():
        check_choice(what, given, {"rounding": Rounding, "overflow": Overflow, "underflow": Underflow}[what])
    for offset in offsets:
        check_log_offset(offset)
    for code in codes:
        if not 0 <= code < 1 << fmt.bits:
            raise ValueError(f"code={code} is none of {fmt}: 0 to {(1 << fmt.bits) - 1}")
    if not 0 <= random_bits < 1 << 32:
        raise ValueError(f"random_bits={random_bits} is out of range: 0 to 2^32 - 1")


def _log(code: int, fmt: LNSFormat, log_offset: int) -> int:
    """E = m - bias + log_offset."""
    return (code & fmt.max_magnitude) - fmt.bias + log_offset


def _place(log: int, negative: bool, fmt: LNSFormat, log_offset: int, overflow: str) -> int:
    """The code of E, which is not below the smallest."""
    m = log + fmt.bias - log_offset
    if m > fmt.max_magnitude:
        if overflow == "nan":
            return fmt.nan_code
        m = fmt.max_magnitude
    return m | (fmt.sign_bit if negative else 0)


def _round_up(x: Radical, lo: int, negative: bool, fmt: LNSFormat, rounding: str, random_bits: int) -> bool:
    """Whether E is lo + 1, not lo = floor(r): the table "Encode" of the specification."""
    share = Fraction(random_bits, 1 << 32)
    if rounding == "toward_zero" or _compare(x, _grid(fmt, lo)) == 0:
        return False
    if rounding == "nearest":
        side = _compare(x, _grid(fmt, lo + Fraction(1, 2)))
        return side > 0 or (side == 0 and lo % 2 == 1)
    if rounding == "up":
        return not negative
    if rounding == "down":
        return negative
    if share == 0:
        return True
    if rounding == "stochastic_log":
        return _compare(_grid(fmt, lo + share), x) < 0
    return _below(share, _grid(fmt, 1), _times(x, _grid(fmt, lo), -1))


def _up_from_zero(x: Radical, smallest: Radical, negative: bool, rounding: str, random_bits: int) -> bool:
    """Whether x, which is below the smallest, becomes the smallest, not zero: the table "Underflow"."""
    if rounding in ("nearest", "stochastic_log"):
        return _compare(_times(x, {2: Fraction(1)}), smallest) >= 0
    if rounding == "stochastic_value":
        share = Fraction(random_bits, 1 << 32)
        return share == 0 or _compare(_times(smallest, _radical(share)), x) < 0
    return rounding == ("down" if negative else "up")


def _round(
    x: Radical, negative: bool, fmt: LNSFormat, rounding: str, overflow: str, underflow: str, log_offset: int,
    random_bits: int,
) -> int:  # fmt: skip
    smallest = _grid(fmt, 1 - fmt.bias + log_offset)
    if _compare(x, smallest) < 0:
        if underflow == "saturate" or _up_from_zero(x, smallest, negative, rounding, random_bits):
            return 1 | (fmt.sign_bit if negative else 0)
        return 0
    estimate = Fraction(_log2(x, 256), _log2(_grid(fmt, 1), 256))
    lo = _floor(x, lambda n: _grid(fmt, n), math.floor(estimate))
    log = lo + _round_up(x, lo, negative, fmt, rounding, random_bits)
    return _place(log, negative, fmt, log_offset, overflow)


def encode(
    x: float | Fraction,
    fmt: LNSFormat,
    *,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    log_offset: int = 0,
    random_bits: int = 0,
) -> int:
    """The code of a real number, an infinity or NaN; `random_bits` is R, the fraction R / 2^32.

    >>> encode(1.0, LNSFormat(8, 5)), encode(-Fraction(1, 3), LNSFormat(8, 5))
    (64, 141)
    """
    _check(fmt, (), (log_offset,), random_bits, rounding=rounding, overflow=overflow, underflow=underflow)
    if isinstance(x, float) and math.isnan(x):
        return fmt.nan_code
    if isinstance(x, float) and math.isinf(x):
        return _place(fmt.max_log + log_offset + 1, x < 0, fmt, log_offset, overflow)
    if x == 0:
        return 0
    return _round(_radical(abs(Fraction(x))), x < 0, fmt, rounding, overflow, underflow, log_offset, random_bits)


def convert(
    code: int,
    fmt: LNSFormat,
    to: LNSFormat,
    *,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    log_offset: int = 0,
    out_log_offset: int = 0,
    random_bits: int = 0,
) -> int:
    """The code in `to` of the number that `code` names in `fmt`.

    >>> convert(64, LNSFormat(8, 5), LNSFormat(16, 7))
    16384
    """
    _check(fmt, (code,), (log_offset, out_log_offset), random_bits)
    _check(to, (), (), rounding=rounding, overflow=overflow, underflow=underflow)
    if code in (0, fmt.nan_code):
        return to.nan_code if code else 0
    x, negative = _grid(fmt, _log(code, fmt, log_offset)), code > fmt.sign_bit
    return _round(x, negative, to, rounding, overflow, underflow, out_log_offset, random_bits)


def value(code: int, fmt: LNSFormat, *, log_offset: int = 0, precision: int = 256) -> Any:
    """The value of a code as an mpf of mpmath, correct to all but the last few of `precision` bits.

    >>> print(value(96, LNSFormat(8, 5)))
    2.0
    """
    _check(fmt, (code,), (log_offset,))
    if code in (0, fmt.nan_code):
        return mpmath.mpf("nan" if code else 0)
    size = _exp2(_log2(_grid(fmt, _log(code, fmt, log_offset)), precision), precision)
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
    _check(fmt, (code,), (log_offset,))
    width, precision, least_exponent = FLOATS[dtype]
    infinity = (3 - 2 * least_exponent) << (precision - 1)
    if code in (0, fmt.nan_code):
        return infinity | 1 << (precision - 2) if code else 0
    sign = (code > fmt.sign_bit) << (width - 1)
    x = _grid(fmt, _log(code, fmt, log_offset))
    top = _floor(x, lambda n: {2: Fraction(n)}, _log2(x, FIRST_PRECISION) >> FIRST_PRECISION)
    if top > 1 - least_exponent:
        return sign | infinity
    unit = max(top, least_exponent) - (precision - 1)  # one unit in the last place is 2^unit
    scaled = _times(x, {2: Fraction(-unit)})
    n = 0
    if top >= unit:
        n = _floor(scaled, _radical, int(_exp2(_log2(scaled, FIRST_PRECISION), FIRST_PRECISION)))
    side = _compare(scaled, _radical(n + Fraction(1, 2)))
    n += side > 0 or (side == 0 and n % 2)
    if n == 0:
        return 0
    return sign | (unit - least_exponent + precision - 1 << (precision - 1)) + n


def _arithmetic(
    sign: int, a: int, b: int, fmt: LNSFormat, offsets: tuple[int, int, int], overflow: Overflow, underflow: Underflow
) -> int:
    _check(fmt, (a, b), offsets, overflow=overflow, underflow=underflow)
    if fmt.nan_code in (a, b) or (sign < 0 and b == 0):
        return fmt.nan_code
    if 0 in (a, b):
        return 0
    negative = (a ^ b) & fmt.sign_bit != 0
    log = _log(a, fmt, offsets[0]) + sign * _log(b, fmt, offsets[1])
    if log >= 1 - fmt.bias + offsets[2]:
        return _place(log, negative, fmt, offsets[2], overflow)
    return _round(_grid(fmt, log), negative, fmt, "nearest", overflow, underflow, offsets[2], 0)


def multiply(
    a: int,
    b: int,
    fmt: LNSFormat,
    *,
    a_log_offset: int = 0,
    b_log_offset: int = 0,
    out_log_offset: int = 0,
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
) -> int:
    """The code of a * b.

    >>> multiply(96, 80, LNSFormat(8, 5))
    112
    """
    return _arithmetic(1, a, b, fmt, (a_log_offset, b_log_offset, out_log_offset), overflow, underflow)


def divide(
    a: int,
    b: int,
    fmt: LNSFormat,
    *,
    a_log_offset: int = 0,
    b_log_offset: int = 0,
    out_log_offset: int = 0,
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
) -> int:
    """The code of a / b.

    >>> divide(96, 80, LNSFormat(8, 5))
    80
    """
    return _arithmetic(-1, a, b, fmt, (a_log_offset, b_log_offset, out_log_offset), overflow, underflow)


def compare(a: int, b: int, fmt: LNSFormat, *, a_log_offset: int = 0, b_log_offset: int = 0) -> int | None:
    """-1, 0 or 1 where a is less than, equal to or greater than b; None where one of them is NaN.

    >>> compare(96, 80, LNSFormat(8, 5)), compare(96, 80, LNSFormat(8, 5), b_log_offset=16)
    (1, 0)
    """
    _check(fmt, (a, b), (a_log_offset, b_log_offset))
    if fmt.nan_code in (a, b):
        return None
    keys = []
    for code, offset in ((a, a_log_offset), (b, b_log_offset)):
        sign = 0 if code == 0 else -1 if code >= fmt.sign_bit else 1
        keys.append((sign, sign * _log(code, fmt, offset)))
    return (keys[0] > keys[1]) - (keys[0] < keys[1])
