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
from typing import Any, Literal, NamedTuple, Unpack, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum.encoding import encode_patterns, greatest_log, read
from lnsnum.format import LNSFormat, Overflow, check_choice, check_log_offset
from lnsnum.gaussian import GaussianLog, check_gaussian
from lnsnum.kernels.codes import NO_RANDOM_BITS, Codes, LogOffset, check_format
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.decide import Quotient, Term, Value
from lnsnum.kernels.rounding import DOUBT, Target, UInt32Array, pack, settle, steps_in_two
from lnsnum.operations import float_sums, sums
from lnsnum.operations.accumulate import Order, Terms, accumulate, terms_of
from lnsnum.operations.linear import KEEP, linear
from lnsnum.operations.operation import DEFAULTS, Rounded, check_names, fitting_offset, prepare, run

Accumulator = Literal["float64", "float32"] | LNSFormat | str
"""What a sum is kept in: a float type, or an LNS format or its name."""


class Accumulated(Rounded, total=False):
    """Those of a sum.

    accumulator: "float64" (the default), "float32", or a format of the operands' base with no fewer bits and fraction
        bits.
    order: "sequential" (the default) or "pairwise"; of bit-true sums only.
    gaussian: an approximate Gaussian logarithm for the additions; of bit-true sums only.
    """

    accumulator: Accumulator
    order: Order
    gaussian: GaussianLog | None


class AccumulatedProduct(Accumulated, total=False):
    """Those of a sum of products."""

    b_format: LNSFormat | None
    a_log_offset: LogOffset
    b_log_offset: LogOffset


def error_bound(n: int, accumulator: Accumulator, order: Order = "sequential") -> float:
    """The factor of sum |t_k| that bounds the error of a sum of n terms before its last rounding.

    In a float accumulator of unit roundoff u it is (1 + u)^(n + 2) - 1, whatever the order: decoding two factors and
    multiplying them are three roundings more than the n - 1 additions. It holds at any scale, for bases up to 2^63 (in
    float64 up to 2^511); that of an LNS accumulator where no term or partial sum leaves its range.

    >>> error_bound(2, "lns16f10") < 0.00034 < error_bound(3, "lns16f10")
    True
    """
    _check_order(order)
    if (n := operator.index(n)) < 0:
        raise ValueError(f"n={n} is no number of terms: 0 or more")
    n = min(n, 1 << 60)
    if accumulator in ("float32", "float64"):
        log = (n + 2) * math.log1p(2.0 ** (-24 if accumulator == "float32" else -53))
    else:
        additions = max(n - 1, 0) if order == "sequential" else (max(n, 1) - 1).bit_length()
        log = additions * math.log(2.0) / steps_in_two(_accumulator_format(accumulator))[0] / 2
    return math.expm1(log) if log < 700.0 else math.inf


def _check_order(order: object) -> None:
    check_choice("order", order, Order)


def _accumulator_format(accumulator: object) -> LNSFormat:
    if isinstance(accumulator, LNSFormat):
        return accumulator
    try:
        return LNSFormat.parse(cast(str, accumulator))
    except (TypeError, ValueError):
        raise ValueError(
            f"accumulator={accumulator!r} is not known: 'float64', 'float32', or a format such as 'lns16f10'"
        ) from None


class _Call(NamedTuple):
    """What the keywords of a reduction say."""

    accumulator: Literal["float64", "float32"] | LNSFormat
    order: Order
    gaussian: GaussianLog
    result: Any
    """Keyword arguments of `prepare`."""


def _read(options: Any, accepted: Any, *formats: LNSFormat, scaled: bool) -> _Call:
    """Check the keywords of a reduction of operands of these formats; `scaled`: one has a log_offset other than 0."""
    check_names(options, accepted, "reduction")
    order = options.get("order", "sequential")
    _check_order(order)
    accumulator = options.get("accumulator", "float64")
    gaussian = options.get("gaussian")
    if accumulator in ("float64", "float32"):
        if gaussian is not None or order != "sequential":
            raise ValueError(f"order and gaussian are for LNS accumulators: {accumulator} adds as NumPy and BLAS do")
    else:
        accumulator = _accumulator_format(accumulator)
        for fmt in formats:
            if fmt.base != accumulator.base:
                raise TypeError(f"the accumulator {accumulator.name} and {fmt.name} have different bases")
            if fmt.bits > accumulator.bits or fmt.fraction_bits > accumulator.fraction_bits:
                raise ValueError(
                    f"the accumulator {accumulator.name} is narrower than its terms, of {fmt.name}: take one with at "
                    f"least {fmt.bits} bits and {fmt.fraction_bits} fraction bits"
                )
        if gaussian is not None:
            check_gaussian(gaussian)
    kept = {name: options.get(name, default) for name, default in DEFAULTS.items()}
    if kept["out_log_offset"] is None:
        kept["out_log_offset"] = "fit" if scaled else 0
    return _Call(accumulator, order, sums.EXACT if gaussian is None else gaussian, kept)


def _accumulate(a: Terms, b: Terms, call: _Call) -> Codes:
    return accumulate(
        a, b, cast(LNSFormat, call.accumulator), call.order, call.gaussian, cast(Overflow, call.result["overflow"])
    )


def _finish(total: Codes, a: Any, b: Any, default: LNSFormat, call: _Call, divisor: int = 1) -> tuple[Codes, int]:
    """Codes of the accumulator, whose 1 is the product of the references of (fmt, reference) a and b, to the result."""
    fmt = cast(LNSFormat, call.accumulator)
    options = dict(call.result)
    result_format = options.pop("out_format") or default
    (x,), result = prepare([(total, fmt, 0)], out_format=result_format, **options)
    one = [reference << (fmt.fraction_bits - f.fraction_bits) for f, reference in (a, b)]
    x = x._replace(shift=x.shift + one[0] + one[1])
    factor = Fraction(2) ** (result_format.fraction_bits - fmt.fraction_bits)
    if divisor == 1:
        return linear(x, None, factor, Fraction(0), KEEP, result)

    def fill(to: Target, random: UInt32Array, out: NDArray[Any]) -> NDArray[np.int64]:
        hard = np.empty(out.size, np.int64)
        count = _divide_by(
            x.codes, fmt.max_magnitude, x.shift[0], float(factor), math.log2(divisor), to, random, out, hard
        )
        return hard[:count]

    def case(i: int) -> tuple[Value, bool, int, float]:
        value = Quotient((Term(1, 0, Fraction(x.log(i), 1 << fmt.fraction_bits)),), divisor)
        position = float(x.log(i) * factor) - math.log2(divisor) * steps_in_two(result_format)[0]
        return value, x.negative(i), int(result.random[i % result.random.size]), position

    return run(fill, case, result)


@kernel
def _divide_by(codes, max_magnitude, shift, factor, octaves, to, random, out, hard):  # type: ignore[no-untyped-def]
    """E = factor E_a - K octaves, where 2^octaves is an integer, known to within one part in 2^50."""
    away = to.steps_in_two * octaves
    unresolved = 0
    for i in range(codes.size):
        code = np.int64(codes[i])
        m, negative = code & max_magnitude, code > max_magnitude
        if m == 0:
            out[i] = to.sign_bit if negative else 0
            continue
        r = factor * np.float64(m + shift) - away
        error = (away + abs(r)) * 2.0**-49
        m = settle(np.int64(0), r, error, random[i if random.size > 1 else 0], negative, to)
        if m == DOUBT:
            hard[unresolved] = i
            unresolved += 1
        out[i] = pack(m, np.int64(negative), to.sign_bit)
    return unresolved


def _by_floats(sums: float_sums.Scaled, default: LNSFormat, call: _Call) -> tuple[Codes, int]:
    """Encode the result of a float accumulator: all that share their factors at once."""
    options = dict(call.result)
    fmt = options.pop("out_format") or default
    offset, random_bits = options.pop("out_log_offset"), options.pop("random_bits")
    patterns, random, _ = read(sums.values, None, random_bits, None, **options)
    bits = random[0] if random else NO_RANDOM_BITS
    if isinstance(sums.factors, int):
        groups = [(sums.factors, ...)]
    else:
        groups = [(int(factors), sums.factors == factors) for factors in np.unique(sums.factors)]
    aways = [factors << fmt.fraction_bits for factors, _ in groups]
    if offset == "fit":
        logs = [
            log + away
            for away, (_, where) in zip(aways, groups, strict=True)
            if (log := greatest_log(patterns[where], fmt, options["rounding"])) is not None
        ]
        offset = fitting_offset(max(logs), fmt) if logs else 0
    offset = check_log_offset(offset, "out_log_offset")
    codes = np.empty(patterns.shape, fmt.dtype)
    for away, (_, where) in zip(aways, groups, strict=True):
        some = np.ascontiguousarray(patterns[where])
        part = np.empty(some.shape, fmt.dtype)
        # the floats lie within 2^(+-1100), and the limit beyond all of them, where an offset that is none is as good
        relative = max(min(offset - away, _BEYOND_FLOATS), -_BEYOND_FLOATS)
        encode_patterns(some, part, fmt, relative, bits[where] if random else bits, **options)
        codes[where] = part
    return codes, offset


_BEYOND_FLOATS = 1 << 61
"""Kernels take offsets up to this."""


def _check(codes: ArrayLike, fmt: LNSFormat, log_offset: LogOffset, base: LNSFormat | None = None) -> Codes:
    """The codes in their shape, everything about them looked at."""
    if base is not None:
        check_format(base, "out_format")
    pairs: list[tuple[ArrayLike, LNSFormat, LogOffset]] = [(codes, fmt, log_offset)]
    if base is not None:
        pairs.append((np.zeros((), base.dtype), base, 0))
    (x, *_), result = prepare(pairs, **{**DEFAULTS, "out_format": fmt})
    return x.codes.reshape(result.shape)


def _axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(np.lib.array_utils.normalize_axis_index(one, ndim) for one in axes)


def _to_columns(array: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """The reduced axes as the rows of a matrix, in C order, the others as its columns."""
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis={axes} names an axis twice")
    kept = [axis for axis in range(array.ndim) if axis not in axes]
    count = math.prod(array.shape[axis] for axis in axes)
    columns = math.prod(array.shape[axis] for axis in kept)
    return np.transpose(array, (*axes, *kept)).reshape(count, columns)


def _shape_without(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    if keepdims:
        return tuple(1 if axis in axes else length for axis, length in enumerate(shape))
    return tuple(length for axis, length in enumerate(shape) if axis not in axes)


def _sum(
    a: ArrayLike,
    fmt: LNSFormat,
    axis: int | tuple[int, ...] | None,
    keepdims: bool,
    log_offset: LogOffset,
    options: Any,
    is_mean: bool,
) -> tuple[Codes, int]:
    codes = _check(a, fmt, log_offset, options.get("out_format"))
    call = _read(options, Accumulated, fmt, scaled=bool(np.any(log_offset)))
    axes = _axes(axis, codes.ndim)
    shape = _shape_without(codes.shape, axes, keepdims)
    count = math.prod(codes.shape[axis] for axis in axes)
    if is_mean and count == 0:
        raise ValueError("the mean of no elements is not defined")
    if not isinstance(call.accumulator, LNSFormat):
        sums = float_sums.total(float_sums.Numbers(codes, fmt, log_offset), call.accumulator, axes, keepdims)
        if is_mean:
            sums = sums._replace(values=np.asarray(sums.values / sums.values.dtype.type(count)))
        return _by_floats(sums, fmt, call)
    offsets = log_offset if isinstance(log_offset, int) else _to_columns(np.broadcast_to(log_offset, codes.shape), axes)
    terms, reference = terms_of(_to_columns(codes, axes), fmt, offsets, call.accumulator)
    row = (1, count)
    no = np.zeros(row, np.bool_)
    ones = Terms(np.zeros(row, np.int64), no, no, no)
    total = _accumulate(ones, terms, call).reshape(shape)
    return _finish(total, (fmt, reference), (fmt, 0), fmt, call, count if is_mean else 1)


def sum(
    a: ArrayLike,
    fmt: LNSFormat,
    *,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
    log_offset: LogOffset = 0,
    **options: Unpack[Accumulated],
) -> tuple[Codes, int]:
    """The sum over axes: (codes, log_offset). Several axes are added as one, in C order.

    Error: before the last rounding within `error_bound(n, accumulator, order)` times the sum of |a|.

    Args:
        a, fmt, log_offset: codes of any shape, their format and scale.
        axis: one axis, several, or None for all.
        keepdims: whether the reduced axes stay, of length 1.
        options: see `Accumulated` and `Rounded`.

    Raises:
        TypeError: for codes that are no integers, or an accumulator of another base.
        ValueError: for an accumulator narrower than the terms, an axis out of range, and as for every operation.

    >>> from lnsnum import lns8f3, encode, decode
    >>> ones = encode(np.ones(150), lns8f3)
    >>> [float(decode(sum(ones, lns8f3, accumulator=kept)[0], lns8f3).round()) for kept in ("lns16f10", "lns8f3")]
    [152.0, 23.0]
    """
    return _sum(a, fmt, axis, keepdims, log_offset, options, False)


def mean(
    a: ArrayLike,
    fmt: LNSFormat,
    *,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
    log_offset: LogOffset = 0,
    **options: Unpack[Accumulated],
) -> tuple[Codes, int]:
    """The sum over axes, as of `sum`, divided by the number of elements: the quotient is rounded once.

    Error: before that rounding within `error_bound(n, accumulator, order)` times the mean of |a|; a float accumulator
    divides in floating point, one roundoff more.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(mean(encode([1.0, 3.0, 8.0], lns8f3), lns8f3, accumulator="lns16f10")[0], lns8f3)
    array(4.)
    """
    return _sum(a, fmt, axis, keepdims, log_offset, options, True)


def prod(
    a: ArrayLike,
    fmt: LNSFormat,
    *,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
    log_offset: LogOffset = 0,
    **options: Unpack[Rounded],
) -> tuple[Codes, int]:
    """The product over axes: exact but for the edges of the result, (codes, log_offset). Logarithms add as integers.

    >>> from lnsnum import lns8f3, encode, decode
    >>> decode(prod(encode([0.5, -4.0, 8.0], lns8f3), lns8f3)[0], lns8f3)
    array(-16.)
    """
    codes = _check(a, fmt, log_offset, options.get("out_format"))
    call = _read(options, Rounded, fmt, scaled=bool(np.any(log_offset)))
    axes = _axes(axis, codes.ndim)
    columns = _to_columns(codes, axes)
    offsets = _to_columns(np.broadcast_to(np.asarray(log_offset, np.int64), codes.shape), axes)
    m = columns.astype(np.int64) & fmt.max_magnitude
    log = np.sum(np.where(m == 0, 0, m - fmt.bias + offsets), axis=0)
    negative = np.count_nonzero((columns >= fmt.sign_bit) & (m > 0), axis=0) % 2 == 1
    nan, zero = np.any(columns == fmt.nan_code, axis=0), np.any(columns == 0, axis=0)
    out_options = dict(call.result)
    out_format = out_options.pop("out_format") or fmt
    one = np.where(nan, fmt.nan_code, np.where(zero, 0, np.where(negative, fmt.sign_bit, 0) | fmt.bias))
    shape = _shape_without(codes.shape, axes, keepdims)
    (x,), result = prepare([(one.astype(fmt.dtype).reshape(shape), fmt, 0)], out_format=out_format, **out_options)
    factor = Fraction(2) ** (out_format.fraction_bits - fmt.fraction_bits)
    return linear(x._replace(shift=log - fmt.bias), None, factor, Fraction(0), KEEP, result)


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
    check_format(b_format, "b_format")
    if b_format != fmt and out_format is None:
        raise TypeError(f"operands of different formats ({fmt.name}, {b_format.name}) need out_format")
    x = _check(a, fmt, a_offset, out_format)
    y = _check(b, b_format, b_offset, fmt)
    scaled = bool(np.any(a_offset) or np.any(b_offset))
    call = _read(options, AccumulatedProduct, fmt, b_format, scaled=scaled)
    try:
        shape = _matmul_shape(x.shape, y.shape)
    except ValueError:
        raise ValueError(f"shapes {x.shape} and {y.shape} do not match for a matrix product") from None
    if not isinstance(call.accumulator, LNSFormat):
        numbers = float_sums.Numbers(x, fmt, a_offset), float_sums.Numbers(y, b_format, b_offset)
        return _by_floats(float_sums.product(*numbers, call.accumulator), fmt, call)
    x_terms, x_reference = terms_of(x, fmt, a_offset, call.accumulator)
    y_terms, y_reference = terms_of(y, b_format, b_offset, call.accumulator)
    x_terms = x_terms.at(None) if x.ndim == 1 else x_terms
    y_terms = y_terms.at((slice(None), None)) if y.ndim == 1 else y_terms
    total = _accumulate(x_terms, y_terms, call).reshape(shape)
    return _finish(total, (fmt, x_reference), (b_format, y_reference), fmt, call)


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
