"""Arithmetic on codes: every operation of docs/number_format.md as a function of arrays.

    |a b| = base^((E_a + E_b) / 2^F)      |a + b| = base^((hi + sb(z)) / 2^F)      |a|^n = base^(n E_a / 2^F)

Functions take and return plain arrays of codes; the offsets travel beside them. What rounds is correctly rounded, in
every mode, or faithful where its docstring says so. All broadcast, all raise

    TypeError   for codes that are no integers, formats of different bases, or different formats without `out_format`;
    ValueError  for codes outside their format, shapes that do not broadcast, unknown modes, missing random bits,
                offsets beyond 2^30.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from lnsnum.format import LNSFormat
from lnsnum.gaussian import GaussianLog
from lnsnum.kernels.codes import Codes, LogOffset
from lnsnum.operations import elementary, functions, sums, tabulated
from lnsnum.operations.choosing import (
    Bounds,
    Extreme,
    absolute,
    argsort,
    clip,
    compare,
    copysign,
    isnan,
    iszero,
    maximum,
    minimum,
    negative,
    nextafter,
    order_key,
    sign,
    sort,
    ulp_distance,
)
from lnsnum.operations.linear import Rule
from lnsnum.operations.operation import Operand, OutLogOffset, Result, Rounded, prepare_named
from lnsnum.operations.transcendental import Name

__all__ = [
    "Binary",
    "Bounds",
    "Extreme",
    "OutLogOffset",
    "Rounded",
    "Sum",
    "Ternary",
    "Unary",
    "absolute",
    "add",
    "argsort",
    "clip",
    "compare",
    "copysign",
    "cosh",
    "divide",
    "exp",
    "exp2",
    "expm1",
    "float_power",
    "fma",
    "hypot",
    "isnan",
    "iszero",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "nextafter",
    "order_key",
    "power",
    "reciprocal",
    "sign",
    "sinh",
    "sort",
    "sqrt",
    "square",
    "subtract",
    "tanh",
    "ulp_distance",
]


class Unary(Rounded, total=False):
    """Those of an operation on one array; log_offset: its scale, an integer or an int32 array that broadcasts to it."""

    log_offset: LogOffset


class Binary(Rounded, total=False):
    """Those of an operation on two arrays; b_format: the format of b, where it is not fmt."""

    b_format: LNSFormat | None
    a_log_offset: LogOffset
    b_log_offset: LogOffset


class Sum(Binary, total=False):
    """Those of `add` and `subtract`; gaussian: an approximate Gaussian logarithm instead of the exact one."""

    gaussian: GaussianLog | None


class Ternary(Binary, total=False):
    """Those of `fma`; c_format, c_log_offset: as of b."""

    c_format: LNSFormat | None
    c_log_offset: LogOffset


def _binary(
    name: str, a: ArrayLike, b: ArrayLike, fmt: LNSFormat, options: Any, accepted: Any = Binary
) -> tuple[Codes, int]:
    (x, y), result, gaussian = prepare_named(options, accepted, fmt, in_memory_order=True, a=a, b=b)
    codes, log_offset = tabulated.binary(name, x, y, gaussian, result)
    return result.put_back(codes), log_offset


def _unary(
    compute: Callable[[Operand, Result], tuple[Codes, int]], a: ArrayLike, fmt: LNSFormat, options: Any
) -> tuple[Codes, int]:
    (x,), result, _ = prepare_named(options, Unary, fmt, in_memory_order=True, a=a)
    codes, log_offset = compute(x, result)
    return result.put_back(codes), log_offset


def _scaled(a: ArrayLike, fmt: LNSFormat, factor: Fraction, rule: Rule, options: Any) -> tuple[Codes, int]:
    return _unary(lambda x, result: tabulated.scaled(factor, rule, x, result), a, fmt, options)


def _faithful(
    function: Callable[..., Any], of: functions.Of, a: ArrayLike, fmt: LNSFormat, options: Any
) -> tuple[Codes, int]:
    def compute(x: Operand, result: Result) -> tuple[Codes, int]:
        return tabulated.unary(lambda x, result: function(x, of, result), x, result)

    return _unary(compute, a, fmt, options)


def _elementary(name: Name, a: ArrayLike, fmt: LNSFormat, options: Any) -> tuple[Codes, int]:
    def compute(x: Operand, result: Result) -> tuple[Codes, int]:
        return tabulated.unary(lambda x, result: elementary.elementary(name, x, result), x, result)

    return _unary(compute, a, fmt, options)


def multiply(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[Binary]) -> tuple[Codes, int]:
    """a * b, exact but for the edges: (codes, log_offset). Correctly rounded where out_format has fewer fraction bits.

    >>> from lnsnum import lns8f3, encode, decode
    >>> codes, offset = multiply(encode([2.0, 0.0], lns8f3), encode([-8.0, -1.0], lns8f3), lns8f3)
    >>> decode(codes, lns8f3).tolist(), offset
    ([-16.0, 0.0], 0)
    """
    return _binary("multiply", a, b, fmt, options)


def divide(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[Binary]) -> tuple[Codes, int]:
    """a / b, exact but for the edges: (codes, log_offset). x / 0 is NaN.

    >>> from lnsnum import lns8f3, encode, decode
    >>> codes, offset = divide(encode([2.0, 1.0], lns8f3), encode([-8.0, 0.0], lns8f3), lns8f3)
    >>> decode(codes, lns8f3)
    array([-0.25,   nan])
    """
    return _binary("divide", a, b, fmt, options)


def add(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[Sum]) -> tuple[Codes, int]:
    """a + b, correctly rounded on the log axis: (codes, log_offset). x - x is zero.

    >>> from lnsnum import lns16f10, encode, decode
    >>> codes, _ = add(encode([3.0, 1.0], lns16f10), encode([-3.0, 1.0], lns16f10), lns16f10)
    >>> decode(codes, lns16f10).tolist()
    [0.0, 2.0]
    """
    return _binary("add", a, b, fmt, options, Sum)


def subtract(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[Sum]) -> tuple[Codes, int]:
    """a - b, correctly rounded on the log axis: (codes, log_offset).

    >>> from lnsnum import lns8f3, encode, decode
    >>> codes, _ = subtract(encode([3.0, 2.0], lns8f3), encode([3.0, 1.0], lns8f3), lns8f3)
    >>> decode(codes, lns8f3).tolist()
    [0.0, 1.0]
    """
    return _binary("subtract", a, b, fmt, options, Sum)


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike, fmt: LNSFormat, **options: Unpack[Ternary]) -> tuple[Codes, int]:
    """a * b + c, rounded once, correctly: (codes, log_offset).

    >>> from lnsnum import lns16f10, encode, decode
    >>> two = encode([2.0], lns16f10)
    >>> decode(fma(two, two, two, lns16f10)[0], lns16f10).round(2)
    array([6.])
    """
    (x, y, z), result, _ = prepare_named(options, Ternary, fmt, in_memory_order=True, a=a, b=b, c=c)
    codes, log_offset = sums.fused(x, y, z, result)
    return result.put_back(codes), log_offset


def reciprocal(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """1 / a, exact but for the edges: (codes, log_offset). 1 / 0 is NaN.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(reciprocal(encode([4.0, 0.0], lns8f3), lns8f3)[0], lns8f3)
    array([0.25,  nan])
    """
    return _scaled(a, fmt, Fraction(-1), Rule(zero_a=-1, zero_b=0, odd=True, refuses_negative=False), options)


def square(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """a * a, exact but for the edges: (codes, log_offset).

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(square(encode([-4.0, 0.5], lns8f3), lns8f3)[0], lns8f3)
    array([16.  ,  0.25])
    """
    return _unary(tabulated.square, a, fmt, options)


def sqrt(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """The square root, correctly rounded: (codes, log_offset). NaN where a < 0.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(sqrt(encode([16.0, -4.0], lns8f3), lns8f3)[0], lns8f3)
    array([ 4., nan])
    """
    return power(a, Fraction(1, 2), fmt, **options)


MAX_NUMERATOR, MAX_DENOMINATOR = 1 << 20, 1 << 10
"""Of the exponents of `power`."""


def power(a: ArrayLike, exponent: int | Fraction, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """a^exponent for one integer or fraction, exact or correctly rounded: (codes, log_offset).

    0^0 = 1; 0 to a negative power, and a negative number to one that is no integer, are NaN.

    Args:
        a, fmt: codes and their format.
        exponent: p/q with |p| <= 2^20 and 1 <= q <= 1024.
        options: as for every operation.

    Raises:
        TypeError: where the exponent is a float or another type: `float_power` takes exponents that are codes.
        ValueError: where it is out of range.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(power(encode([-2.0, 0.0], lns8f3), 3, lns8f3)[0], lns8f3).tolist()
    [-8.0, 0.0]
    """
    if isinstance(exponent, bool) or not isinstance(exponent, (int, np.integer, Fraction)):
        raise TypeError(
            f"exponent={exponent!r} is a {type(exponent).__name__}: an integer or a Fraction, or codes to float_power"
        )
    n = Fraction(exponent) if isinstance(exponent, Fraction) else Fraction(operator.index(exponent))
    if abs(n.numerator) > MAX_NUMERATOR or n.denominator > MAX_DENOMINATOR:
        raise ValueError(f"exponent={n} is out of range: p/q with |p| at most 2^20 and q at most 1024")
    integer = n.denominator == 1
    zero_a = 1 if n == 0 else 0 if n > 0 else -1
    rule = Rule(zero_a, 0, odd=integer and n.numerator % 2 == 1, refuses_negative=not integer)
    return _scaled(a, fmt, n, rule, options)


def float_power(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[Binary]) -> tuple[Codes, int]:
    """a^b with codes as exponents, faithful: (codes, log_offset). In nearest within 0.5 + 2^-16 code steps.

    A negative a gives NaN but where b is an integer.

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(float_power(encode([4.0], lns16f10), encode([-0.5], lns16f10), lns16f10)[0], lns16f10)
    array([0.5])
    """
    return _binary("float_power", a, b, fmt, options)


def exp(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """e^a, faithful: (codes, log_offset). In nearest within 0.5 + 2^-16 code steps.

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(exp(encode([1.0, 0.0], lns16f10), lns16f10)[0], lns16f10).round(3)
    array([2.718, 1.   ])
    """
    return _faithful(functions.exponential, "e", a, fmt, options)


def exp2(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """2^a, faithful: (codes, log_offset). In nearest within 0.5 + 2^-16 code steps.

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(exp2(encode([-1.0, 4.0], lns16f10), lns16f10)[0], lns16f10)
    array([ 0.5, 16. ])
    """
    return _faithful(functions.exponential, "2", a, fmt, options)


def log(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """The natural logarithm, faithful: (codes, log_offset). NaN where a <= 0. In nearest within 0.5 + 2^-16 code steps.

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(log(encode([1.0, 10.0, 0.0], lns16f10), lns16f10)[0], lns16f10).round(3)
    array([0.   , 2.302,   nan])
    """
    return _faithful(functions.logarithm, "e", a, fmt, options)


def log2(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """The logarithm to base 2, faithful: (codes, log_offset). NaN where a <= 0. In nearest within 0.5 + 2^-16 steps.

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(log2(encode([0.25, 2.0], lns16f10), lns16f10)[0], lns16f10)
    array([-2.,  1.])
    """
    return _faithful(functions.logarithm, "2", a, fmt, options)


def log10(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """The logarithm to base 10, faithful: (codes, log_offset). NaN where a <= 0. In nearest within 0.5 + 2^-16 steps.

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(log10(encode([1.0, 2.0], lns16f10), lns16f10)[0], lns16f10).round(3)
    array([0.   , 0.301])
    """
    return _faithful(functions.logarithm, "10", a, fmt, options)


def expm1(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """e^a - 1, correctly rounded: (codes, log_offset).

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(expm1(encode([1.0, -2.0, 0.0], lns16f10), lns16f10)[0], lns16f10).round(3)
    array([ 1.719, -0.865,  0.   ])
    """
    return _elementary("expm1", a, fmt, options)


def log1p(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """ln(1 + a), correctly rounded: (codes, log_offset). NaN where a <= -1.

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(log1p(encode([1.0, -0.5, -1.0], lns16f10), lns16f10)[0], lns16f10).round(3)
    array([ 0.693, -0.693,    nan])
    """
    return _elementary("log1p", a, fmt, options)


def tanh(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """The hyperbolic tangent, correctly rounded: (codes, log_offset).

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(tanh(encode([0.5, -16.0], lns16f10), lns16f10)[0], lns16f10).round(3)
    array([ 0.462, -1.   ])
    """
    return _elementary("tanh", a, fmt, options)


def sinh(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """The hyperbolic sine, correctly rounded: (codes, log_offset).

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(sinh(encode([1.0, -2.0], lns16f10), lns16f10)[0], lns16f10).round(2)
    array([ 1.17, -3.63])
    """
    return _elementary("sinh", a, fmt, options)


def cosh(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """The hyperbolic cosine, correctly rounded: (codes, log_offset). cosh 0 is 1.

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(cosh(encode([0.0, -2.0], lns16f10), lns16f10)[0], lns16f10).round(2)
    array([1.  , 3.76])
    """
    return _elementary("cosh", a, fmt, options)


def hypot(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[Binary]) -> tuple[Codes, int]:
    """The square root of a^2 + b^2, correctly rounded, once: (codes, log_offset).

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(hypot(encode([4.0, 0.0], lns16f10), encode([-4.0, -2.0], lns16f10), lns16f10)[0], lns16f10).round(3)
    array([5.657, 2.   ])
    """
    return _binary("hypot", a, b, fmt, options)


def logaddexp(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[Binary]) -> tuple[Codes, int]:
    """ln(e^a + e^b), correctly rounded, once: (codes, log_offset).

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(logaddexp(encode([0.0, 8.0], lns16f10), encode([0.0, -8.0], lns16f10), lns16f10)[0], lns16f10).round(3)
    array([0.693, 8.   ])
    """
    return _binary("logaddexp", a, b, fmt, options)
