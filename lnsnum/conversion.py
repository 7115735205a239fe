"""One format to another: code -> code, by one rounding of the exact value.

    E'  =  round(2^F' log_base'(v)),      log_base'(v) = E / 2^F * log(base) / log(base')

A source magnitude has one exact value, so a conversion is a table over magnitudes. Every entry is decided by integers:
in one base the position of v among the new codes is a rational number, between bases an interval of them.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnsnum import exact
from lnsnum.codes import (
    BELOW,
    RANDOM,
    SIDES,
    Codes,
    check_codes,
    check_format,
    check_modes,
    check_random_bits,
    overflow_magnitude,
)
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow, check_log_offset


class _Conversion(NamedTuple):
    """For each source magnitude m > 0 the result is `high` where random < `threshold`, else `low`."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    threshold: NDArray[np.uint64]


@lru_cache(maxsize=64)
def _conversion(
    fmt: LNSFormat, to: LNSFormat, rounding: Rounding, negative: bool, underflow: Underflow, offset: int, to_offset: int
) -> _Conversion:
    """The table of a conversion, each entry decided exactly."""
    ratio = exact.log_ratio(fmt.base, to.base)
    placed = [
        _place(log, fmt, to, rounding, negative, underflow, to_offset, ratio)
        for log in range(offset - fmt.max_log, offset + fmt.max_log + 1)
    ]
    low, high, threshold = zip(*[(0, 0, 0), *placed], strict=True)
    return _Conversion(np.array(low), np.array(high), np.array(threshold, np.uint64))


def _place(
    log: int,
    fmt: LNSFormat,
    to: LNSFormat,
    rounding: Rounding,
    negative: bool,
    underflow: Underflow,
    to_offset: int,
    ratio: Fraction | None,
) -> tuple[int, int, int]:
    """(low, high, threshold) of one source value: the result is `high` where its random bits are below `threshold`."""
    k = fmt.fraction_bits
    shift = to.fraction_bits - k
    if log == 0 or ratio is not None:
        position = log * (ratio or 0) * Fraction(2) ** shift
        floor, is_exact = math.floor(position), position.denominator == 1
        nearest = round(position)
        threshold_log = math.ceil((position - floor) * RANDOM)
    else:
        floor, is_exact = exact.floor_rescaled_log(log, fmt.base, to.base, shift), False
        nearest = (exact.floor_rescaled_log(log, fmt.base, to.base, shift + 1) + 1) >> 1
        threshold_log = exact.floor_rescaled_log(log, fmt.base, to.base, shift + 32) + 1 - (floor << 32)
    to_magnitude = to.bias - to_offset
    lowest = to_offset - to.max_log
    if floor < lowest:
        if underflow == "saturate":
            return 1, 1, 0
        if rounding == "stochastic_value":
            return 0, 1, _threshold(fmt, log, to, lowest, below=True)
        if rounding == "stochastic_log":
            rounding = "nearest"
        twice_is_below = exact.compare_powers(fmt.base, log, k, 1, to.base, lowest, to.fraction_bits) < 0
        m = BELOW[rounding][2 * negative + (not twice_is_below)]
        return m, m, 0
    if is_exact or rounding in SIDES:
        side = "floor" if is_exact else SIDES[rounding][negative]
        m = {"floor": floor, "ceil": floor + 1, "nearest": nearest}[side] + to_magnitude
        return m, m, 0
    m = floor + to_magnitude
    return m, m + 1, threshold_log if rounding == "stochastic_log" else _threshold(fmt, log, to, floor)


_EQUAL_PRECISION = 1024


def _threshold(fmt: LNSFormat, log: int, to: LNSFormat, lower: int, *, below: bool = False) -> int:
    """ceil(2^32 p), p = (v - lo) / (hi - lo) for a value v between the points `lower` and `lower + 1` of `to`.

    `below` takes p = v / hi with hi the point `lower`: the value lies under the smallest magnitude. An integer that
    1024 bits cannot tell from 2^32 p is equal to it.
    """
    precision = exact.FIRST_PRECISION
    while True:
        value = exact.power(fmt.base, log, fmt.fraction_bits, precision)
        ratio = exact.divide(value, exact.power(to.base, lower, to.fraction_bits, precision), precision)
        if ratio.exponent + ratio.hi.bit_length() < -32:
            return 1
        one = 1 << precision
        if below:
            bottoms, ratios = (one, one), exact.fixed_point(ratio, precision)
        else:
            bottoms = exact.fixed_point(exact.power(to.base, 1, to.fraction_bits, precision), precision)
            bottoms = bottoms[0] - one, bottoms[1] - one
            ratios = exact.fixed_point(ratio, precision)
            ratios = ratios[0] - one, ratios[1] - one
        low = -(-(max(ratios[0], 0) << 32) // bottoms[1])
        high = -(-(ratios[1] << 32) // bottoms[0])
        if low == high or (precision >= _EQUAL_PRECISION and high == low + 1):
            return low
        precision *= 2


def convert(
    codes: ArrayLike,
    fmt: LNSFormat,
    to: LNSFormat,
    *,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    log_offset: int = 0,
    out_log_offset: int = 0,
    random_bits: ArrayLike | None = None,
) -> Codes:
    """The codes in format `to` of the values that `codes` have in `fmt`: one rounding, of the exact value.

    Args:
        codes: unsigned integers of any shape.
        fmt: their format; `to`: the format wanted. At most 16 bits wide, of any bases.
        rounding, overflow, underflow, random_bits: as for `encode`.
        log_offset: the scale of `codes`; `out_log_offset`: that of the result. Integers.

    Raises:
        As `encode` and `decode`.

    >>> from lnsnum import encode, lns8f3, lns16f10
    >>> convert(encode([1.5, 200.0], lns16f10), lns16f10, lns8f3)
    array([ 69, 125], dtype=uint8)
    """
    check_format(fmt)
    check_format(to)
    check_modes(rounding, overflow, underflow)
    array = check_codes(codes, fmt)
    random = check_random_bits(random_bits, rounding, array.shape)
    magnitude = array.astype(np.int64) & (fmt.sign_bit - 1)
    is_negative = array >= fmt.sign_bit
    offsets = check_log_offset(log_offset), check_log_offset(out_log_offset)
    signs = (False, True) if rounding in ("up", "down") else (False,)
    tables = [_conversion(fmt, to, rounding, sign, underflow, *offsets) for sign in signs]
    m, high, threshold = (
        np.where(is_negative, getattr(tables[-1], part)[magnitude], getattr(tables[0], part)[magnitude])
        for part in ("low", "high", "threshold")
    )
    if random is not None:
        m = np.where(random < threshold, high, m)
    m = np.where(m > to.max_magnitude, overflow_magnitude(to, overflow), m)
    is_nan = (is_negative & (magnitude == 0)) | (m < 0)
    signed = np.where(is_negative & (m > 0), m + to.sign_bit, m)
    return np.where(is_nan, to.nan_code, signed).astype(to.dtype)
