"""Sums, products, dot products and matrix products: the accumulator and the order are arguments.

    sum_k a_k b_k        accumulator "float64", "float32": decode, add in floating point (BLAS), encode
                         accumulator lns16f10, ...: every addition correctly rounded to that format, in a fixed order

A bit-true sum takes its terms in the accumulator's format: the exact product, saturated or underflowed by nearest where
it leaves the range. They are added in nearest, "sequential" (((t_0 + t_1) + t_2) + ...) or "pairwise" (neighbours
first: (t_0 + t_1), (t_2 + t_3), ..., an odd one out moves up; and so on, level by level). The accumulator has no scale
of its own: its 1 is the product of the operands' ones, of the greatest log_offset where there are several, so that a
common scale changes no bit. The total is then rounded once to the result.

A float accumulator has the precision of its floats, not their range: where numbers or products leave that, each result
is added up relative to the greatest of its terms (`lnsnum.operations.float_sums`).

With u half a code step of the accumulator, and no overflow or underflow on the way, a sequential sum of n terms is
within ((1 + u)^(n - 1) - 1) sum |t_k| of the exact one, a pairwise one within ((1 + u)^ceil(log2 n) - 1) sum |t_k|
(Higham, Accuracy and Stability of Numerical Algorithms, chapter 4): `error_bound` gives the factor.
"""

from __future__ import annotations

import math
import operator
from fractions import Fraction
from typing import Any, Unpack, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import Codes, LogOffset, check_format, check_offsets, each_offset, of_elements
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.kernels.rounding import steps_in_two
from lnsnum.kernels.scales import Scales
from lnsnum.operations import float_sums
from lnsnum.operations.accumulate import Order, Terms, accumulate, terms_of
from lnsnum.operations.linear import KEEP, linear
from lnsnum.operations.operation import prepare
from lnsnum.operations.reducing import (
    Accumulated,
    AccumulatedAlong,
    AccumulatedProduct,
    Accumulator,
    Call,
    RoundedAlong,
    Total,
    accumulator_format,
    axes_of,
    check_order,
    checked,
    finish,
    read_call,
    shape_without,
    to_columns,
)

__all__ = [
    "Accumulated",
    "AccumulatedAlong",
    "AccumulatedProduct",
    "Accumulator",
    "Order",
    "RoundedAlong",
    "cumprod",
    "dot",
    "error_bound",
    "matmul",
    "mean",
    "prod",
    "sum",
]


def error_bound(n: int, accumulator: Accumulator, order: Order = "sequential") -> float:
    """The factor of sum |t_k| that bounds the error of a sum of n terms before its last rounding.

    In a float accumulator of unit roundoff u it is (1 + u)^(n + 2) - 1, whatever the order: decoding two factors and
    multiplying them are three roundings more than the n - 1 additions. It holds at any scale, for bases up to 2^63 (in
    float64 up to 2^511); that of an LNS accumulator where no term or partial sum leaves its range.

    >>> error_bound(2, "lns16f10") < 0.00034 < error_bound(3, "lns16f10")
    True
    """
    check_order(order)
    if (n := operator.index(n)) < 0:
        raise ValueError(f"n={n} is no number of terms: 0 or more")
    n = min(n, 1 << 60)
    if accumulator in ("float32", "float64"):
        log = (n + 2) * math.log1p(2.0 ** (-24 if accumulator == "float32" else -53))
    else:
        additions = max(n - 1, 0) if order == "sequential" else (max(n, 1) - 1).bit_length()
        log = additions * math.log(2.0) / steps_in_two(accumulator_format(accumulator))[0] / 2
    return math.expm1(log) if log < 700.0 else math.inf


def _sum(a: ArrayLike, fmt: LNSFormat, options: Any, is_mean: bool) -> tuple[Codes, int]:
    log_offset, keepdims = options.get("log_offset", 0), options.get("keepdims", False)
    codes = checked(a, fmt, log_offset, options.get("out_format"))
    log_offset = check_offsets(log_offset, codes.shape)
    call = read_call(options, AccumulatedAlong, fmt, scaled=bool(np.any(each_offset(log_offset))))
    axes = axes_of(options.get("axis"), codes.ndim)
    shape = shape_without(codes.shape, axes, keepdims)
    count = math.prod(codes.shape[axis] for axis in axes)
    if is_mean and count == 0:
        raise ValueError("the mean of no elements is not defined")
    if not isinstance(call.accumulator, LNSFormat):
        total = float_sums.total(float_sums.Numbers(codes, fmt, log_offset), call.accumulator, axes, keepdims)
        if is_mean:
            total = total._replace(values=np.asarray(total.values / total.values.dtype.type(count)))
        return float_sums.to_codes(total, fmt, call.wanted)
    offsets = log_offset if isinstance(log_offset, int) else to_columns(of_elements(log_offset, codes.shape), axes)
    terms, reference = terms_of(to_columns(codes, axes), fmt, offsets, call.accumulator)
    row = (1, count)
    no = np.zeros(row, np.bool_)
    ones = Terms(np.zeros(row, np.int64), no, no, no)
    bits = _accumulate(ones, terms, call).reshape(shape)
    return finish(Total(bits, call.accumulator, ((fmt, reference),)), fmt, call.wanted, count if is_mean else 1)


def _accumulate(a: Terms, b: Terms, call: Call) -> Codes:
    return accumulate(a, b, cast(LNSFormat, call.accumulator), call.order, call.gaussian, call.wanted.overflow)


def sum(a: ArrayLike, fmt: LNSFormat, **options: Unpack[AccumulatedAlong]) -> tuple[Codes, int]:
    """The sum over axes: (codes, log_offset). Several axes are added as one, in C order.

    Error: before the last rounding within `error_bound(n, accumulator, order)` times the sum of |a|.

    Args:
        a, fmt: codes of any shape, and their format.
        options: axis, keepdims and log_offset, see `lnsnum.operations.reducing.Along`; accumulator, order and gaussian,
            see `Accumulated`; and those of every operation that rounds.

    Raises:
        TypeError: for codes that are no integers, or an accumulator of another base.
        ValueError: for an accumulator narrower than the terms, an axis out of range, and as for every operation.

    >>> from lnsnum import lns8f3, encode, decode
    >>> ones = encode(np.ones(150), lns8f3)
    >>> [float(decode(sum(ones, lns8f3, accumulator=kept)[0], lns8f3).round()) for kept in ("lns16f10", "lns8f3")]
    [152.0, 23.0]
    """
    return _sum(a, fmt, options, False)


def mean(a: ArrayLike, fmt: LNSFormat, **options: Unpack[AccumulatedAlong]) -> tuple[Codes, int]:
    """The sum over axes, as of `sum`, divided by the number of elements: the quotient is rounded once.

    Error: before that rounding within `error_bound(n, accumulator, order)` times the mean of |a|; a float accumulator
    divides in floating point, one roundoff more.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(mean(encode([1.0, 3.0, 8.0], lns8f3), lns8f3, accumulator="lns16f10")[0], lns8f3)
    array(4.)
    """
    return _sum(a, fmt, options, True)


def prod(a: ArrayLike, fmt: LNSFormat, **options: Unpack[RoundedAlong]) -> tuple[Codes, int]:
    """The product over axes: exact but for the edges of the result, (codes, log_offset). Logarithms add as integers.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(prod(encode([0.5, -4.0, 8.0], lns8f3), lns8f3)[0], lns8f3)
    array(-16.)
    """
    return _products(a, fmt, options, running=False)


def cumprod(a: ArrayLike, fmt: LNSFormat, **options: Unpack[RoundedAlong]) -> tuple[Codes, int]:
    """The products of the first 1, 2, ... elements along an axis, or of all in C order: (codes, log_offset).

    Each is the exact product, rounded once: an overflow on the way is none where the product comes back.

    Args:
        a, fmt: codes of any shape, and their format.
        options: axis, one axis or None for all as one; log_offset; and those of every operation that rounds.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(cumprod(encode([128.0, -128.0, 1 / 128], lns8f3), lns8f3)[0], lns8f3).round(2)
    array([ 128.  , -234.75, -128.  ])
    """
    return _products(a, fmt, options, running=True)


def _products(a: ArrayLike, fmt: LNSFormat, options: Any, *, running: bool) -> tuple[Codes, int]:
    """Of all elements along axes, or of those up to each."""
    log_offset = options.get("log_offset", 0)
    codes = checked(a, fmt, log_offset, options.get("out_format"))
    log_offset = check_offsets(log_offset, codes.shape)
    wanted = read_call(options, RoundedAlong, fmt, scaled=bool(np.any(each_offset(log_offset)))).wanted
    axes = axes_of(options.get("axis"), codes.ndim)
    columns = to_columns(codes, axes)
    offsets = to_columns(of_elements(log_offset, codes.shape), axes)
    m = columns.astype(np.int64) & fmt.max_magnitude

    def reduce(ufunc: Any, array: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(ufunc.accumulate(array, axis=0) if running else ufunc.reduce(array, axis=0))

    log = reduce(np.add, np.where(m == 0, 0, m - fmt.bias + offsets))
    negative = reduce(np.add, ((columns >= fmt.sign_bit) & (m > 0)).astype(np.int64)) % 2 == 1
    nan, zero = reduce(np.logical_or, columns == fmt.nan_code), reduce(np.logical_or, columns == 0)
    out_format = wanted.out_format or fmt
    one = np.where(nan, fmt.nan_code, np.where(zero, 0, np.where(negative, fmt.sign_bit, 0) | fmt.bias))
    if running:
        # of one axis, which comes first in the columns, or of all as one
        rest = tuple(n for axis, n in enumerate(codes.shape) if axis not in axes)
        turned = [np.moveaxis(x.reshape(len(columns), *rest), 0, axes[0] if len(axes) == 1 else 0) for x in (one, log)]
        shape = turned[0].shape
        one, log = (np.ascontiguousarray(x).reshape(-1) for x in turned)
    else:
        shape = shape_without(codes.shape, axes, options.get("keepdims", False))
    (x,), result = prepare([(one.astype(fmt.dtype).reshape(shape), fmt, 0)], wanted._replace(out_format=out_format))
    factor = Fraction(2) ** (out_format.fraction_bits - fmt.fraction_bits)
    return linear(x._replace(scale=Scales(log - fmt.bias)), None, factor, Fraction(0), KEEP, result)


def matmul(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[AccumulatedProduct]) -> tuple[Codes, int]:
    """The matrix product, with the shapes of `numpy.matmul`: (codes, log_offset).

    Error: before the last rounding within `error_bound(n, accumulator, order)` times sum |a_k b_k|, n the length of the
    common axis. A float accumulator leaves the order to BLAS; a bit-true one gives the same bits everywhere.

    Args:
        a, b: codes of shapes (..., M, K) and (..., K, N), or one-dimensional.
        fmt: their format; `b_format` that of b, if it is another.
        options: see `AccumulatedProduct`, `Accumulated`, `Rounded`.

    Raises:
        As `sum`, and ValueError for shapes that do not match.

    >>> from lnsnum import lns8f3, encode, decode
    >>> a = encode([[1.0, 2.0], [3.0, 4.0]], lns8f3)
    >>> decode(matmul(a, a, lns8f3, accumulator="lns16f10")[0], lns8f3).round(1)
    array([[ 7.3, 10.4],
           [16. , 22.6]])
    """
    b_format = options.get("b_format") or fmt
    a_offset, b_offset = options.get("a_log_offset", 0), options.get("b_log_offset", 0)
    out_format = options.get("out_format")
    check_format(fmt)
    check_format(b_format, "b_format")
    if b_format != fmt and out_format is None:
        raise TypeError(f"operands of different formats ({fmt.name}, {b_format.name}) need out_format")
    x = checked(a, fmt, a_offset, out_format)
    y = checked(b, b_format, b_offset, fmt)
    a_offset, b_offset = check_offsets(a_offset, x.shape), check_offsets(b_offset, y.shape)
    scaled = bool(np.any(each_offset(a_offset)) or np.any(each_offset(b_offset)))
    call = read_call(options, AccumulatedProduct, fmt, b_format, scaled=scaled)
    try:
        shape = _matmul_shape(x.shape, y.shape)
    except ValueError:
        raise ValueError(f"shapes {x.shape} and {y.shape} do not match for a matrix product") from None
    if not isinstance(call.accumulator, LNSFormat):
        numbers = float_sums.Numbers(x, fmt, a_offset), float_sums.Numbers(y, b_format, b_offset)
        return float_sums.to_codes(float_sums.product(*numbers, call.accumulator), fmt, call.wanted)
    x_terms, x_reference = terms_of(x, fmt, _written_out(a_offset, x.shape), call.accumulator)
    y_terms, y_reference = terms_of(y, b_format, _written_out(b_offset, y.shape), call.accumulator)
    x_terms = x_terms.at(None) if x.ndim == 1 else x_terms
    y_terms = y_terms.at((slice(None), None)) if y.ndim == 1 else y_terms
    bits = _accumulate(x_terms, y_terms, call).reshape(shape)
    ones = (fmt, x_reference), (b_format, y_reference)
    return finish(Total(bits, call.accumulator, ones), fmt, call.wanted)


def _written_out(log_offset: LogOffset, shape: tuple[int, ...]) -> int | NDArray[np.int32]:
    """A scale of groups as one for each element, as the terms of bit-true sums are written out too."""
    return of_elements(log_offset, shape) if isinstance(log_offset, GroupOffsets) else log_offset


def _matmul_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of `numpy.matmul`; ValueError where there is none."""
    if not a or not b or a[-1] != b[-2 if len(b) > 1 else 0]:
        raise ValueError
    stack = np.broadcast_shapes(a[:-2], b[:-2])
    return (*stack, *(a[-2:-1]), *(b[-1:] if len(b) > 1 else ()))


def dot(a: ArrayLike, b: ArrayLike, fmt: LNSFormat, **options: Unpack[AccumulatedProduct]) -> tuple[Codes, int]:
    """The dot product of two vectors: (codes, log_offset), as of `matmul`, whose bound holds.

    >>> from lnsnum import lns8f3, encode, decode
    >>> a = encode([1.0, 2.0, -2.0], lns8f3)
    >>> decode(dot(a, a, lns8f3, accumulator="lns16f10")[0], lns8f3)
    array(8.72406186)
    """
    for codes in (a, b):
        if np.ndim(codes) != 1:
            raise ValueError(f"dot takes two vectors, not an array of {np.ndim(codes)} axes: matmul takes matrices")
    return matmul(a, b, fmt, **options)
