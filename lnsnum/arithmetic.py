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
from functools import lru_cache
from typing import Any, TypedDict, Unpack, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.decoding import gather
from lnsnum.format import LNSFormat, Overflow, Underflow
from lnsnum.gaussian import GaussianLog
from lnsnum.kernels.codes import NO_RANDOM_BITS, Codes, LogOffset, check_codes, check_format
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.threads import in_chunks
from lnsnum.operations import functions, sums
from lnsnum.operations.linear import KEEP, Rule, combine, combines, linear
from lnsnum.operations.operation import DEFAULTS, Operand, OutLogOffset, Result, Rounded, check_names, prepare


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


def _prepare(
    options: Any, accepted: Any, fmt: LNSFormat, **codes: ArrayLike
) -> tuple[list[Operand], Result, GaussianLog | None]:
    """Operands and result of a call; the names of the arrays are those of their offsets and formats."""
    check_names(options, accepted, "operation")
    options = dict(options)
    gaussian = options.pop("gaussian", None)
    operands = []
    for name, array in codes.items():
        own = options.pop(f"{name}_format", None)
        if own is not None:
            check_format(own, f"{name}_format")
        offset = options.pop(f"{name}_log_offset" if len(codes) > 1 else "log_offset", 0)
        operands.append((array, fmt if own is None else own, offset))
    checked, result = prepare(operands, **{**DEFAULTS, **options})
    return checked, result, gaussian


_QUOTIENT = Rule(zero_a=0, zero_b=-1, odd=True, refuses_negative=False)
_ONE, _NONE = Fraction(1), Fraction(0)


def _in_steps_of(result: Result, operand: Operand) -> Fraction:
    """Code steps of the result in one of the operand."""
    return Fraction(2) ** (result.fmt.fraction_bits - operand.fmt.fraction_bits)


def _product(a: Operand, b: Operand, gaussian: GaussianLog | None, result: Result) -> tuple[Codes, int]:
    if combines(a, b, result):
        return combine(a, b, 1, result)
    return linear(a, b, _in_steps_of(result, a), _in_steps_of(result, b), KEEP, result)


def _quotient(a: Operand, b: Operand, gaussian: GaussianLog | None, result: Result) -> tuple[Codes, int]:
    if combines(a, b, result):
        return combine(a, b, -1, result)
    return linear(a, b, _in_steps_of(result, a), -_in_steps_of(result, b), _QUOTIENT, result)


def _difference(a: Operand, b: Operand, gaussian: GaussianLog | None, result: Result) -> tuple[Codes, int]:
    return sums.add(a, sums.negate(b), gaussian, result)


def _float_power(a: Operand, b: Operand, gaussian: GaussianLog | None, result: Result) -> tuple[Codes, int]:
    return functions.power(a, b, result)


_COMPUTE = {
    "multiply": _product,
    "divide": _quotient,
    "add": sums.add,
    "subtract": _difference,
    "float_power": _float_power,
}

_LINEAR = "multiply", "divide"
_PAIRS_FROM = 1 << 15
"""From this many elements on, narrow formats go by a table of all pairs of codes."""
_PARALLEL = 1 << 18


def _binary(
    name: str, a: ArrayLike, b: ArrayLike, fmt: LNSFormat, options: Any, accepted: Any = Binary
) -> tuple[Codes, int]:
    (x, y), result, gaussian = _prepare(options, accepted, fmt, a=a, b=b)
    simple = not result.rounding.startswith("stochastic") and x.shift.size == y.shift.size == 1
    if not simple or result.log_offset == "fit" or (name in _LINEAR and combines(x, y, result)):
        return _COMPUTE[name](x, y, gaussian, result)
    narrow = x.fmt.bits <= 8 and y.fmt.bits <= 8 and result.fmt.bits <= 8
    if not (narrow and x.codes.size >= _PAIRS_FROM):
        return _COMPUTE[name](x, y, gaussian, result)
    shape, random = (1 << (x.fmt.bits + y.fmt.bits),), None
    key = tuple(result._replace(shape=shape, random=random))  # type: ignore[arg-type]
    table = _table_of_pairs(name, x.fmt, y.fmt, int(x.shift[0]), int(y.shift[0]), gaussian, key)
    out = np.empty(x.codes.shape, result.fmt.dtype)
    in_chunks(
        lambda begin, end: _gather_pairs(
            x.codes[begin:end], y.codes[begin:end], np.uint32(y.fmt.bits), table, out[begin:end]
        ),
        out.size,
        _PARALLEL,
    )
    return out.reshape(result.shape), result.log_offset


@lru_cache(maxsize=64)
def _table_of_pairs(
    name: str, a: LNSFormat, b: LNSFormat, a_shift: int, b_shift: int, gaussian: GaussianLog | None, key: Any
) -> Codes:
    """The results of all pairs of codes, by the kernels that take any format; a's code is the high part of an index."""
    codes_a, codes_b = np.arange(1 << a.bits, dtype=a.dtype), np.arange(1 << b.bits, dtype=b.dtype)
    x = Operand(np.repeat(codes_a, codes_b.size), a, np.array([a_shift], np.int64))
    y = Operand(np.tile(codes_b, codes_a.size), b, np.array([b_shift], np.int64))
    return _COMPUTE[name](x, y, gaussian, Result(*key)._replace(random=NO_RANDOM_BITS))[0]


@kernel
def _gather_pairs(a, b, bits, table, out):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        out[i] = table[(np.uint32(a[i]) << bits) | np.uint32(b[i])]


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
    (x, y, z), result, _ = _prepare(options, Ternary, fmt, a=a, b=b, c=c)
    return sums.fused(x, y, z, result)


def _unary(
    a: ArrayLike, fmt: LNSFormat, options: Any, compute: Callable[[Operand, Result], tuple[Codes, int]]
) -> tuple[Codes, int]:
    """One operation on each element; by way of all codes where that is less work."""
    (x,), result, _ = _prepare(options, Unary, fmt, a=a)
    by_element = result.rounding.startswith("stochastic") or result.log_offset == "fit" or x.shift.size > 1
    if by_element or x.codes.size >> 2 < 1 << fmt.bits:
        return compute(x, result)
    codes = np.arange(1 << fmt.bits, dtype=fmt.dtype)
    table, offset = compute(x._replace(codes=codes), result._replace(shape=codes.shape))
    out = np.empty(x.codes.shape, result.fmt.dtype)
    gather(x.codes, table, out)
    return out.reshape(result.shape), offset


def _scaled(a: ArrayLike, fmt: LNSFormat, factor: Fraction, rule: Rule, options: Any) -> tuple[Codes, int]:
    def compute(x: Operand, result: Result) -> tuple[Codes, int]:
        return linear(x, None, factor * _in_steps_of(result, x), _NONE, rule, result)

    return _unary(a, fmt, options, compute)


def reciprocal(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """1 / a, exact but for the edges: (codes, log_offset). 1 / 0 is NaN.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(reciprocal(encode([4.0, 0.0], lns8f3), lns8f3)[0], lns8f3)
    array([0.25,  nan])
    """
    return _scaled(a, fmt, -_ONE, Rule(zero_a=-1, zero_b=0, odd=True, refuses_negative=False), options)


def square(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """a * a, exact but for the edges: (codes, log_offset).

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(square(encode([-4.0, 0.5], lns8f3), lns8f3)[0], lns8f3)
    array([16.  ,  0.25])
    """
    return _unary(a, fmt, options, lambda x, result: _product(x, x, None, result))


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
    return _unary(a, fmt, options, lambda x, result: functions.exponential(x, True, result))


def exp2(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """2^a, faithful: (codes, log_offset). In nearest within 0.5 + 2^-16 code steps.

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(exp2(encode([-1.0, 4.0], lns16f10), lns16f10)[0], lns16f10)
    array([ 0.5, 16. ])
    """
    return _unary(a, fmt, options, lambda x, result: functions.exponential(x, False, result))


def log(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """The natural logarithm, faithful: (codes, log_offset). NaN where a <= 0. In nearest within 0.5 + 2^-16 code steps.

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(log(encode([1.0, 10.0, 0.0], lns16f10), lns16f10)[0], lns16f10).round(3)
    array([0.   , 2.302,   nan])
    """
    return _unary(a, fmt, options, lambda x, result: functions.logarithm(x, True, result))


def log2(a: ArrayLike, fmt: LNSFormat, **options: Unpack[Unary]) -> tuple[Codes, int]:
    """The logarithm to base 2, faithful: (codes, log_offset). NaN where a <= 0. In nearest within 0.5 + 2^-16 steps.

    >>> from lnsnum import lns16f10, encode, decode
    >>> decode(log2(encode([0.25, 2.0], lns16f10), lns16f10)[0], lns16f10)
    array([-2.,  1.])
    """
    return _unary(a, fmt, options, lambda x, result: functions.logarithm(x, False, result))


def negative(a: ArrayLike, fmt: LNSFormat) -> Codes:
    """-a, exact; zero and NaN stay."""
    a = check_codes(a, fmt)
    return np.where(a & fmt.max_magnitude, a ^ fmt.sign_bit, a).astype(fmt.dtype)


def absolute(a: ArrayLike, fmt: LNSFormat) -> Codes:
    """|a|, exact; NaN stays."""
    a = check_codes(a, fmt)
    return np.where(a == fmt.nan_code, a, a & fmt.max_magnitude).astype(fmt.dtype)


def copysign(a: ArrayLike, b: ArrayLike, fmt: LNSFormat) -> Codes:
    """|a| with the sign of b, exact; zero has none, and NaN in either is NaN."""
    a, b = _together(a, b, fmt)
    magnitude = a & fmt.max_magnitude
    signed = np.where(magnitude, magnitude | (b & fmt.sign_bit), magnitude)
    return np.where((a == fmt.nan_code) | (b == fmt.nan_code), fmt.nan_code, signed).astype(fmt.dtype)


def sign(a: ArrayLike, fmt: LNSFormat) -> Codes:
    """-1, 0 or 1 as codes at log_offset 0, exact; NaN stays.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(sign(encode([-3.0, 0.0, 0.1], lns8f3), lns8f3), lns8f3)
    array([-1.,  0.,  1.])
    """
    a = check_codes(a, fmt)
    return np.where(a & fmt.max_magnitude, (a & fmt.sign_bit) | fmt.bias, a).astype(fmt.dtype)


def _together(a: ArrayLike, b: ArrayLike, fmt: LNSFormat) -> tuple[Codes, Codes]:
    """Both arrays, looked at and broadcast."""
    (x, y), result, _ = _prepare({}, Binary, fmt, a=a, b=b)
    return x.codes.reshape(result.shape), y.codes.reshape(result.shape)


def isnan(a: ArrayLike, fmt: LNSFormat) -> NDArray[np.bool_]:
    """Which elements are NaN."""
    nan: NDArray[np.bool_] = check_codes(a, fmt) == fmt.nan_code
    return nan


def iszero(a: ArrayLike, fmt: LNSFormat) -> NDArray[np.bool_]:
    """Which elements are zero."""
    zero: NDArray[np.bool_] = check_codes(a, fmt) == 0
    return zero


def order_key(a: ArrayLike, fmt: LNSFormat, log_offset: LogOffset = 0) -> NDArray[np.int64]:
    """Integers in the order of the values, comparable across offsets of one format (NaN has the key of zero).

    >>> from lnsnum import lns8f3, encode
    >>> (np.diff(order_key(encode([-2.0, -0.5, 0.0, 0.5, 2.0], lns8f3), lns8f3)) > 0).all()
    np.True_
    """
    a = check_codes(a, fmt)
    m = (a & fmt.max_magnitude).astype(np.int64)
    above_all_offsets = np.int64(1) << np.int64(33)
    size: Any = np.where(m > 0, m + np.asarray(log_offset, np.int64) + above_all_offsets, 0)
    key: NDArray[np.int64] = np.where(a >= fmt.sign_bit, -size, size)
    return key


def compare(
    a: ArrayLike, b: ArrayLike, fmt: LNSFormat, *, a_log_offset: LogOffset = 0, b_log_offset: LogOffset = 0
) -> NDArray[np.int8]:
    """-1, 0 or 1 where a is less than, equal to or greater than b, by value; 2 where one of them is NaN.

    >>> from lnsnum import lns8f3
    >>> compare([64, 64, 192, 128], [70, 64, 64, 64], lns8f3)
    array([-1,  0, -1,  2], dtype=int8)
    """
    offsets = {"a_log_offset": a_log_offset, "b_log_offset": b_log_offset}
    (x, y), result, _ = _prepare(offsets, Binary, fmt, a=a, b=b)
    keys = [order_key(operand.codes, fmt, cast(LogOffset, operand.shift)) for operand in (x, y)]
    nan = (x.codes == fmt.nan_code) | (y.codes == fmt.nan_code)
    return np.where(nan, 2, np.sign(keys[0] - keys[1])).astype(np.int8).reshape(result.shape)


def _choose(
    prefer: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]], fmt: LNSFormat, a: Operand, b: Operand
) -> Operand:
    """Of each pair the one that is preferred by its order key, NaN before all."""
    keys = [order_key(x.codes, fmt, cast(LogOffset, x.shift)) for x in (a, b)]
    first = (prefer(*keys) & (b.codes != fmt.nan_code)) | (a.codes == fmt.nan_code)
    shift = a.shift if np.array_equal(a.shift, b.shift) else np.where(first, a.shift, b.shift)
    return Operand(np.where(first, a.codes, b.codes), fmt, shift)


def _extreme(prefer: Any, a: ArrayLike, b: ArrayLike, fmt: LNSFormat, options: Any) -> tuple[Codes, int]:
    (x, y), result, _ = _prepare(options, Extreme, fmt, a=a, b=b)
    return linear(_choose(prefer, fmt, x, y), None, _ONE, _NONE, KEEP, result)


class Extreme(TypedDict, total=False):
    """Keyword arguments of `minimum` and `maximum`: scales of the operands and of the result, and the edges."""

    a_log_offset: LogOffset
    b_log_offset: LogOffset
    out_log_offset: OutLogOffset
    overflow: Overflow
    underflow: Underflow


def minimum(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[Extreme]) -> tuple[Codes, int]:
    """The lesser of a and b, exact but for the edges of another scale: (codes, log_offset). NaN in either is NaN.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(minimum(encode([1.0, -2.0], lns8f3), encode([0.0, 4.0], lns8f3), lns8f3)[0], lns8f3)
    array([ 0., -2.])
    """
    return _extreme(np.less_equal, a, b, fmt, options)


def maximum(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[Extreme]) -> tuple[Codes, int]:
    """The greater of a and b; as `minimum`."""
    return _extreme(np.greater_equal, a, b, fmt, options)


def clip(
    a: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    fmt: LNSFormat,
    *,
    log_offset: LogOffset = 0,
    lower_log_offset: LogOffset = 0,
    upper_log_offset: LogOffset = 0,
    out_log_offset: OutLogOffset = None,
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
) -> tuple[Codes, int]:
    """minimum(maximum(a, lower), upper), exact but for the edges of another scale: (codes, log_offset).

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(clip(encode([0.1, 3.0, 50.0], lns8f3), *encode([1.0, 4.0], lns8f3), lns8f3)[0], lns8f3).round(2)
    array([1.  , 3.08, 4.  ])
    """
    (x, low, high), result = prepare(
        [(a, fmt, log_offset), (lower, fmt, lower_log_offset), (upper, fmt, upper_log_offset)],
        out_format=None, out_log_offset=out_log_offset, rounding="nearest", overflow=overflow, underflow=underflow,
        random_bits=None,
    )  # fmt: skip
    chosen = _choose(np.less_equal, fmt, _choose(np.greater_equal, fmt, x, low), high)
    return linear(chosen, None, _ONE, _NONE, KEEP, result)


def _index(codes: Codes, fmt: LNSFormat) -> NDArray[np.int64]:
    """The place of a code in the order of the values, zero at 0."""
    m = (codes & fmt.max_magnitude).astype(np.int64)
    return np.where(codes >= fmt.sign_bit, -m, m)


def nextafter(
    a: ArrayLike, b: ArrayLike, fmt: LNSFormat, *, a_log_offset: LogOffset = 0, b_log_offset: LogOffset = 0
) -> Codes:
    """The neighbour of a on the side of b, at a's scale; a where they are equal, or where a is the last.

    >>> from lnsnum import lns8f3, encode
    >>> nextafter(encode([1.0, 0.0], lns8f3), encode([2.0, -1.0], lns8f3), lns8f3)
    array([ 65, 129], dtype=uint8)
    """
    (x, y), result, _ = _prepare({"a_log_offset": a_log_offset, "b_log_offset": b_log_offset}, Binary, fmt, a=a, b=b)
    keys = [order_key(operand.codes, fmt, cast(LogOffset, operand.shift)) for operand in (x, y)]
    moved = np.clip(_index(x.codes, fmt) + np.sign(keys[1] - keys[0]), -fmt.max_magnitude, fmt.max_magnitude)
    codes = np.where(moved < 0, fmt.sign_bit - moved, moved)
    nan = (x.codes == fmt.nan_code) | (y.codes == fmt.nan_code)
    return np.where(nan, fmt.nan_code, codes).astype(fmt.dtype).reshape(result.shape)


def ulp_distance(a: ArrayLike, b: ArrayLike, fmt: LNSFormat) -> NDArray[np.int64]:
    """How many codes of one scale b lies from a, in the order of the values, zero among them; -1 where one is NaN.

    >>> from lnsnum import lns8f3
    >>> ulp_distance([64, 1, 128], [70, 129, 0], lns8f3)
    array([ 6,  2, -1])
    """
    x, y = _together(a, b, fmt)
    nan = (x == fmt.nan_code) | (y == fmt.nan_code)
    return np.where(nan, -1, np.abs(_index(x, fmt) - _index(y, fmt)))


def argsort(a: ArrayLike, fmt: LNSFormat, axis: int = -1) -> NDArray[np.int64]:
    """Indices that sort the codes of one scale by value along an axis: stable, NaN last."""
    codes = check_codes(a, fmt)
    key = np.where(codes == fmt.nan_code, fmt.max_magnitude + 1, _index(codes, fmt))
    return np.argsort(key, axis=axis, kind="stable")


def sort(a: ArrayLike, fmt: LNSFormat, axis: int = -1) -> Codes:
    """The codes of one scale in the order of the values along an axis, NaN last.

    >>> from lnsnum import lns8f3
    >>> sort([64, 200, 0, 128], lns8f3)
    array([200,   0,  64, 128], dtype=uint8)
    """
    codes = check_codes(a, fmt)
    return np.take_along_axis(codes, argsort(codes, fmt, axis), axis)
