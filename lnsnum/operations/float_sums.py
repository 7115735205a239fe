"""Sums and matrix products in floats, each result relative to the greatest of its terms: no range but that of E.

    sum_k t_k  =  base^r  sum_k (t_k base^-r),      r a whole number

Where all numbers, and their products, lie in the range of the floats, r is the same for all results, and the sums are
NumPy's and BLAS's of what `decode` gives. Elsewhere each row, column or result takes an r of its own, so that its
greatest term is near 1; what then still underflows is too small beside that term to count. At a base that is a power of
two r changes no bit but where a float would overflow or underflow.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lnsnum import exact
from lnsnum.decoding import decode, floats_at
from lnsnum.encoding import encode_patterns, greatest_log, read
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, Modes, check_log_offset
from lnsnum.kernels.codes import FLOAT_TYPES, NO_RANDOM_BITS, Codes, LogOffset, each_offset, of_elements
from lnsnum.operations.operation import Wanted, fitting_offset

FloatType = Literal["float64", "float32"]
Axes = tuple[int, ...]

_NOTHING = -(1 << 62)
"""The logarithm of zero and NaN: below all others."""

_BLOCK = 1 << 18
"""So many terms at a time where results are made one by one."""


class Numbers(NamedTuple):
    """An operand: codes that have been looked at, in their shape."""

    codes: Codes
    fmt: LNSFormat
    log_offset: LogOffset


class Scaled(NamedTuple):
    """The numbers values * base^factors; one for all of them, or one for each."""

    values: NDArray[Any]
    factors: int | NDArray[np.int64]


def _ends_of_scale(x: Numbers) -> tuple[int, int]:
    """The least and the greatest log_offset."""
    if isinstance(x.log_offset, int):
        return x.log_offset, x.log_offset
    offsets = each_offset(x.log_offset)
    return int(offsets.min(initial=MAX_LOG_OFFSET)), int(offsets.max(initial=-MAX_LOG_OFFSET))


def common_factors(x: Numbers) -> int:
    """How many factors of the base the greatest log_offset is, where they are powers of two; else 0.

    They are left out of the floats, and a scale that all numbers share changes no bit. It follows the scale and not the
    numbers, so that calls share the tables of `decode`.
    """
    is_power_of_two = exact.split_float(x.fmt.base)[0] == 1
    return _ends_of_scale(x)[1] >> x.fmt.fraction_bits if is_power_of_two else 0


def _logs(x: Numbers) -> NDArray[np.int64]:
    """E of each, `_NOTHING` for zero and NaN."""
    m = x.codes.astype(np.int64) & x.fmt.max_magnitude
    return np.where(m == 0, _NOTHING, m - x.fmt.bias + of_elements(x.log_offset, m.shape))


def _ends_of_format(x: Numbers) -> tuple[int, int]:
    """The least and the greatest E that the numbers can have."""
    least, greatest = _ends_of_scale(x)
    return least - x.fmt.max_log, greatest + x.fmt.max_log


def _ends(x: Numbers, factors: int) -> tuple[int, int]:
    """The least and the greatest E there is, those of base^factors where there is none."""
    nothing = (factors << x.fmt.fraction_bits,) * 2
    if not isinstance(x.log_offset, int):
        logs = _logs(x)
        greatest = int(np.max(logs, initial=_NOTHING))
        if greatest == _NOTHING:
            return nothing
        return int(np.min(logs, where=logs != _NOTHING, initial=greatest)), greatest
    m = x.codes & x.fmt.dtype.type(x.fmt.max_magnitude)
    greatest = int(m.max(initial=0))
    if greatest == 0:
        return nothing
    least = int((m - m.dtype.type(1)).min()) + 1  # zero, and so NaN, becomes the greatest integer and is no least one
    return least - x.fmt.bias + x.log_offset, greatest - x.fmt.bias + x.log_offset


def _fit_in(ends: list[tuple[int, int]], factors: list[int], operands: list[Numbers], terms: int, kind: str) -> bool:
    """Whether numbers between these E, and a sum of so many products of them, are normal floats without the factors."""
    last = FLOAT_TYPES[kind].max_exponent - 2  # an octave on either side is for the roundings of this very sum
    lowest = highest = 0.0
    for (least, greatest), away, x in zip(ends, factors, operands, strict=True):
        one = away << x.fmt.fraction_bits
        if abs(_ends_of_scale(x)[0] - one) > MAX_LOG_OFFSET:
            return False  # `decode` takes no such offset
        # in octaves; the double of a quotient is off by far less than the octave of room
        low, high = ((end - one) / x.fmt.codes_per_octave for end in (least, greatest))
        if low < -last + 1 or high > last:
            return False
        lowest, highest = lowest + low, highest + high
    return lowest >= -last + 1 and highest + math.log2(max(terms, 1)) <= last


def _decoded(x: Numbers, factors: int, kind: FloatType) -> NDArray[Any]:
    return decode(x.codes, x.fmt, kind, log_offset=x.log_offset - (factors << x.fmt.fraction_bits))


def _unit(base: float, kind: str) -> int:
    """The factors of results are multiples of this: about an eighth of the range, so that few of them differ."""
    # coarse, so that results in reach of each other are encoded together
    octaves = FLOAT_TYPES[kind].max_exponent // 8
    return max(1, int(min(octaves / math.log2(base), 2.0**32)))


def _nearest_factors(logs: NDArray[np.int64], fraction_bits: int, unit: int) -> NDArray[np.int64]:
    """The multiple of the unit that is nearest to each E; 0 of nothing."""
    whole = unit << fraction_bits
    # rounded to the nearest: a number is then at most the root of a unit from 1, in either direction
    return np.where(logs == _NOTHING, 0, (logs + (whole >> 1)) // whole * unit)


def _floats(
    logs: NDArray[np.int64], factors: NDArray[np.int64], codes: Codes, fmt: LNSFormat, kind: FloatType
) -> NDArray[Any]:
    """The codes' numbers base^-factors, in their shape."""
    relative = np.where(logs == _NOTHING, 0, logs - (factors << fmt.fraction_bits))
    negative = codes >= fmt.sign_bit
    values = floats_at(relative.reshape(-1), negative.reshape(-1), fmt, kind).reshape(codes.shape)
    values[logs == _NOTHING] = 0.0
    values[codes == fmt.nan_code] = np.nan
    return values


def fits_in(x: Numbers, terms: int, kind: FloatType) -> bool:
    """Whether so many of any numbers of this format and scale can be added as floats, but for the common factors."""
    return _fit_in([_ends_of_format(x)], [common_factors(x)], [x], terms, kind)


def in_reach(numbers: list[Numbers], each: int, terms: int) -> tuple[list[NDArray[Any]], list[int]]:
    """Numbers as float64: their products, each number as often in one as said, and sums of so many are normal floats.

    Returns values and factors. Unlike `total` and `product` it has one r for all results.

    Raises:
        ValueError: where the numbers are too far apart for that.
    """
    factors = [common_factors(x) for x in numbers]

    def fit(ends: list[tuple[int, int]]) -> bool:
        return _fit_in(ends * each, factors * each, numbers * each, terms, "float64")

    if not fit([_ends_of_format(x) for x in numbers]):
        ends = [_ends(x, away) for x, away in zip(numbers, factors, strict=True)]
        if not fit(ends):
            # around the middle of what there is: at a base that is no power of two that costs a rounding, which the
            # bound of a decoded number has
            factors = [(low + high >> 1) >> x.fmt.fraction_bits for (low, high), x in zip(ends, numbers, strict=True)]
            if not fit(ends):
                raise ValueError(
                    "the numbers are so far apart that their products leave the range of float64: scale them, or take "
                    "sum and matmul, which have a scale for each result"
                )
    pairs = zip(numbers, factors, strict=True)
    return [_decoded(x, away, "float64") for x, away in pairs], factors


def total(x: Numbers, kind: FloatType, axes: Axes, keepdims: bool) -> Scaled:
    """The sums over axes."""
    fmt, factors = x.fmt, common_factors(x)
    count = math.prod(x.codes.shape[axis] for axis in axes)

    def add(values: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(all="ignore"):
            return np.asarray(np.sum(values, axis=axes, keepdims=keepdims, dtype=kind))

    if fits_in(x, count, kind) or _fit_in([_ends(x, factors)], [factors], [x], count, kind):
        return Scaled(add(_decoded(x, factors, kind)), factors)
    logs = _logs(x)
    # what still underflows is far below the last bit of the greatest, and the bound has room for it
    greatest = np.max(logs, axis=axes, keepdims=True, initial=_NOTHING)
    own = _nearest_factors(greatest, fmt.fraction_bits, _unit(fmt.base, kind))
    sums = add(_floats(logs, own, x.codes, fmt, kind))
    return Scaled(sums, own.reshape(sums.shape))


def product(x: Numbers, y: Numbers, kind: FloatType) -> Scaled:
    """The matrix product, of shapes that match."""
    operands, terms = [x, y], x.codes.shape[-1]
    factors = [common_factors(operand) for operand in operands]

    def plainly() -> Scaled:
        with np.errstate(all="ignore"):
            values = np.matmul(_decoded(x, factors[0], kind), _decoded(y, factors[1], kind))
        return Scaled(np.asarray(values), factors[0] + factors[1])

    if _fit_in([_ends_of_format(operand) for operand in operands], factors, operands, terms, kind):
        return plainly()
    ends = [_ends(operand, away) for operand, away in zip(operands, factors, strict=True)]
    if _fit_in(ends, factors, operands, terms, kind):
        return plainly()
    return _by_rows_and_columns(x, y, kind)


def _by_rows_and_columns(x: Numbers, y: Numbers, kind: FloatType) -> Scaled:
    """BLAS on rows of x and columns of y that are near 1 each; results so small that terms were lost, one by one."""
    unit = _unit(x.fmt.base, kind)
    logs, own, floats = [_logs(x), _logs(y)], [], []
    for operand, log, axis in zip((x, y), logs, (-1, -2 if y.codes.ndim > 1 else -1), strict=True):
        greatest = np.max(log, axis=axis, keepdims=True, initial=_NOTHING)
        own.append(_nearest_factors(greatest, operand.fmt.fraction_bits, unit))
        # rows of x and columns of y share their factors, so that BLAS can add their products
        floats.append(_floats(log, own[-1], operand.codes, operand.fmt, kind))
    with np.errstate(all="ignore"):
        values = np.asarray(np.matmul(*floats))
    # as stacks of matrices from here on, whatever the shapes were
    rows, columns = (1 if x.codes.ndim == 1 else x.codes.shape[-2]), (1 if y.codes.ndim == 1 else y.codes.shape[-1])
    stack = np.broadcast_shapes(x.codes.shape[:-2], y.codes.shape[:-2])
    matrix = (*stack, rows, columns)

    def left(array: NDArray[Any]) -> NDArray[Any]:
        return np.broadcast_to(array if x.codes.ndim > 1 else array[None], (*stack, rows, array.shape[-1]))

    def right(array: NDArray[Any]) -> NDArray[Any]:
        turned = np.swapaxes(array, -1, -2) if y.codes.ndim > 1 else array[None]
        return np.broadcast_to(turned, (*stack, columns, array.shape[-2 if y.codes.ndim > 1 else -1]))

    factors = np.array(left(own[0]) + np.swapaxes(right(own[1]), -1, -2), np.int64)
    out = values.reshape(matrix)
    # zero, small, NaN of inf - inf, infinite where the base is enormous; a NaN of the codes comes out again
    lost = ~(np.abs(out) >= _least_sure(x.fmt.base, x.codes.shape[-1], kind)) | np.isinf(out)
    at = np.nonzero(lost)
    pairs = _Pairs(x.fmt, y.fmt, left(x.codes), right(y.codes), left(logs[0]), right(logs[1]))
    # as many results at a time as keep all their terms within a block
    length = max(_BLOCK // max(x.codes.shape[-1], 1), 1)
    for begin in range(0, at[0].size, length):
        some = tuple(index[begin : begin + length] for index in at)
        out[some], factors[some] = _one_by_one(pairs, some, unit, kind)
    return Scaled(out.reshape(values.shape), factors.reshape(values.shape))


def _least_sure(base: float, terms: int, kind: str) -> float:
    """What an underflow on the way does not change: so much greater than `terms` of them, and 2^10 for good measure.

    A float next to the greatest of its row is as great as the square root of a unit of factors.
    """
    to = FLOAT_TYPES[kind]
    largest = math.log2(base) * _unit(base, kind) / 2.0 + 1.0
    # a term underflows by at most the least normal number, times the other factor
    exponent = largest + 2 - to.max_exponent + to.precision + math.log2(max(terms, 1)) + 10.0
    return math.ldexp(1.0, min(math.ceil(exponent), 1023))


class _Pairs(NamedTuple):
    """Stacks of rows of x and of columns of y, these as rows too: (..., M, K) and (..., N, K)."""

    a: LNSFormat
    b: LNSFormat
    a_codes: Codes
    b_codes: Codes
    a_logs: NDArray[np.int64]
    b_logs: NDArray[np.int64]


def _one_by_one(
    pairs: _Pairs, at: tuple[NDArray[np.intp], ...], unit: int, kind: FloatType
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The results at these indices, each of its exact products relative to the greatest: values and factors."""
    finest = max(pairs.a.fraction_bits, pairs.b.fraction_bits)
    grid = LNSFormat(32, finest, base=pairs.a.base)
    rows, columns = (*at[:-2], at[-2]), (*at[:-2], at[-1])
    a, b = pairs.a_logs[rows], pairs.b_logs[columns]
    nothing = (a == _NOTHING) | (b == _NOTHING)
    # a nonzero E is within 2^32, so that on the finest grid it is within 2^62: `_NOTHING` itself must not be shifted
    # two formats have a common grid, the finer of theirs
    up_a, up_b = finest - pairs.a.fraction_bits, finest - pairs.b.fraction_bits
    logs = np.where(nothing, _NOTHING, (np.where(nothing, 0, a) << up_a) + (np.where(nothing, 0, b) << up_b))
    a_codes, b_codes = pairs.a_codes[rows], pairs.b_codes[columns]
    # `_floats` reads signs and NaN of codes only: any magnitude will do
    codes = np.where((a_codes >= pairs.a.sign_bit) != (b_codes >= pairs.b.sign_bit), grid.sign_bit | 1, 1)
    codes = np.where((a_codes == pairs.a.nan_code) | (b_codes == pairs.b.nan_code), grid.nan_code, codes)
    own = _nearest_factors(np.max(logs, axis=-1, initial=_NOTHING), finest, unit)
    values = _floats(logs, own[:, None], codes.astype(grid.dtype), grid, kind)
    return np.sum(values, axis=-1, dtype=kind), own


_BEYOND_FLOATS = 1 << 61
"""In code steps. Kernels take offsets up to this, and it lies beyond all floats, which are within 2^(+-1100)."""


def to_codes(sums: Scaled, default: LNSFormat, wanted: Wanted) -> tuple[Codes, int]:
    """The numbers rounded once to the result: all that share their factors at once."""
    fmt, offset = wanted.out_format or default, wanted.out_log_offset
    modes: Modes = {"rounding": wanted.rounding, "overflow": wanted.overflow, "underflow": wanted.underflow}
    patterns, random, _ = read(sums.values, None, wanted.random_bits, None, **modes)
    bits = random[0] if random else NO_RANDOM_BITS
    groups: list[tuple[int, Any]] = []
    if isinstance(sums.factors, int):
        groups = [(sums.factors << fmt.fraction_bits, ...)]
    else:
        groups = [(int(one) << fmt.fraction_bits, sums.factors == one) for one in np.unique(sums.factors)]
    if offset == "fit":
        found = [(away, greatest_log(patterns[where], fmt, wanted.rounding)) for away, where in groups]
        logs = [away + log for away, log in found if log is not None]
        offset = fitting_offset(max(logs), fmt) if logs else 0
    offset = check_log_offset(cast(int, offset), "out_log_offset")
    codes = np.empty(patterns.shape, fmt.dtype)
    for away, where in groups:
        some = np.ascontiguousarray(patterns[where])
        part = np.empty(some.shape, fmt.dtype)
        relative = max(min(offset - away, _BEYOND_FLOATS), -_BEYOND_FLOATS)
        encode_patterns(some, part, fmt, relative, bits[where] if random else bits, **modes)
        codes[where] = part
    return codes, offset
