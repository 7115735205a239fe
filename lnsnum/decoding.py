"""Code -> float, each rounded once.

    x = (-1)^s base^(E / 2^F)        (docs/number_format.md, "Decode")

A table with one correctly rounded entry for each code up to 16 bits. Above that a double rounded to the narrower types,
and at base 2 a pair of doubles to float64; elsewhere, or where the error bound leaves the float open, a product of
three table entries of two doubles each, with integers behind it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lnsnum import exact
from lnsnum.format import LNSFormat
from lnsnum.kernels.byte_decoding import decode_in_registers
from lnsnum.kernels.codes import (
    FLOAT_TYPES,
    WIDEST_TABLE,
    Codes,
    LogOffset,
    check_codes,
    check_format,
    check_offsets,
    of_elements,
)
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.elementary import CELL_RANGE, CELLS, PAIR_ERROR, power_of_half, power_of_half_as_pair, significands
from lnsnum.kernels.float8 import FLOAT8_TYPES, nearest_patterns
from lnsnum.kernels.float_tables import patterns_of, round_significands
from lnsnum.kernels.look_ups import PARALLEL, gather
from lnsnum.kernels.rounding import steps_in_two
from lnsnum.kernels.scales import Scales, in_order, spread
from lnsnum.kernels.strides import common_order, contiguous, put_back
from lnsnum.kernels.threads import Team, in_chunks

__all__ = ["decode"]


_BLOCK = 1 << 14


def decode_table(fmt: LNSFormat, log_offset: int, dtype: str) -> NDArray[Any]:
    """The bit pattern in `dtype` of every code: 2^bits unsigned integers. The array is shared: do not write to it."""
    return (_small_table if fmt.bits <= 8 else _large_table)(fmt, log_offset, dtype)


def _make_decode_table(fmt: LNSFormat, log_offset: int, dtype: str) -> NDArray[Any]:
    to = FLOAT_TYPES[dtype]
    logs = np.arange(log_offset - fmt.max_log, log_offset + fmt.max_log + 1)
    table = np.zeros(1 << fmt.bits, to.pattern)
    for negative, start in ((False, 1), (True, fmt.sign_bit + 1)):
        table[start : start + logs.size] = patterns_of(fmt, logs, dtype, negative=negative)
    table[fmt.nan_code] = to.nan
    return table


@lru_cache(maxsize=8)
def _table_of_logs(fmt: LNSFormat, first: int, last: int, dtype: str) -> NDArray[Any]:
    """The bit patterns of the numbers with E from `first` to `last`, of those numbers with a sign, of 0 and of NaN."""
    logs = np.arange(first, last + 1)
    signed = [patterns_of(fmt, logs, dtype, negative=negative) for negative in (False, True)]
    return np.concatenate([*signed, np.array([0, FLOAT_TYPES[dtype].nan], signed[0].dtype)])


_MOST_LOGS = 1 << 17
"""So many E at most get a table."""

_LOGS_BLOCK = 2048


@kernel
def _places(codes, shift, greatest, size, out):  # type: ignore[no-untyped-def]
    """Where in the table of logs the number of each code is, as integers of the width of `shift`."""
    integer = shift.dtype.type
    zero, nan = integer(size + size), integer(integer(size + size) + integer(1))
    for i in range(out.size):
        code = integer(codes[i])
        m = integer(code & greatest)
        at = integer(m + shift[i])
        at = integer(at + size) if code > greatest else at
        special = nan if code > greatest else zero
        out[i] = at if m != integer(0) else special


@kernel
def _look_up(place, table, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        # unsigned: Numba would ask of a signed index whether it counts from the end
        out[i] = table[np.uint32(place[i])]


@kernel
def _decode_blocks(codes, values, walk, begin, greatest, size, table, out):  # type: ignore[no-untyped-def]
    shift, place = np.full(_LOGS_BLOCK, values[0]), np.empty(_LOGS_BLOCK, values.dtype)
    for start in range(0, out.size, _LOGS_BLOCK):
        end = min(start + _LOGS_BLOCK, out.size)
        if values.size > 1:
            spread(values, walk, begin + start, shift[: end - start])
        _places(codes[start:end], shift, greatest, size, place[: end - start])
        _look_up(place[: end - start], table, out[start:end])


def decode_flat(
    codes: Codes, fmt: LNSFormat, scale: Scales, dtype: str, out: NDArray[Any], *, threads: int | Team | None = None
) -> None:
    """Write the bit patterns of one-dimensional codes of any scales into `out`, of the pattern's type."""
    if dtype == "float32" and decode_in_registers(codes, fmt, scale, out, threads=threads):
        return
    if fmt.bits > WIDEST_TABLE:
        out[:] = _decode_wide(codes, fmt, scale, dtype)
    elif scale.single:
        gather(codes, decode_table(fmt, int(scale.values[0]), dtype), out, threads=threads)
    else:
        _decode_by_logs(codes, fmt, scale, dtype, out, threads)


def _decode_by_logs(
    codes: Codes, fmt: LNSFormat, scale: Scales, dtype: str, out: NDArray[Any], threads: int | Team | None
) -> None:
    """Bit patterns of one-dimensional codes of several scales, by the floats of all E that they have."""
    to, steps = FLOAT_TYPES[dtype], fmt.codes_per_octave
    # scales that lie so far out that all floats are zero, or infinity, might as well lie there
    nothing = math.floor(-steps * (to.max_exponent + to.precision + 2)) - fmt.max_log
    infinity = math.ceil(steps * (to.max_exponent + 2)) + fmt.max_log
    low, high = (min(max(end, nothing), infinity) for end in scale.ends)
    first, last = low - fmt.max_log, high + fmt.max_log
    if last - first >= min(_MOST_LOGS, codes.size):
        out[:] = _decode_by_powers(codes, fmt, scale, dtype, threads)
        return
    table = _table_of_logs(fmt, first, last, dtype)
    width = 16 if max(table.size, 1 << fmt.bits) <= 1 << 15 else 32
    integer = np.dtype(f"i{width // 8}").type
    # E of a magnitude, counted from the first
    one = fmt.bias + first
    values = scale.clipped(-one, low - one, high - one, integer)
    constants = integer(fmt.max_magnitude), integer(last - first + 1), table

    def run(begin: int, end: int) -> None:
        _decode_blocks(codes[begin:end], values, scale.walk, begin, *constants, out[begin:end])

    in_chunks(run, codes.size, PARALLEL, threads=threads)


EXACT_STEPS_ERROR, STEPS_ERROR = 2.0**-50, 2.0**-43
"""Bounds of the relative error of the power in `_decode_plainly`, up to 2^(+-256): where K is a double, and elsewhere.
There E / K is within four halves of a unit in the last place, and its product with ln 2 that much of 177."""


@kernel
def _decode_plainly(codes, shift, max_magnitude, cells, error, mantissa_bits, max_exponent, nan, out):  # type: ignore[no-untyped-def]
    """Bit patterns of a type narrower than float64, in one loop that compilers make vectors of.

    x = 2^(E / K), K = CELLS / cells steps in an octave, as a double, and its bits rounded to `mantissa_bits`. Left open
    are a double too near to a boundary and the subnormal numbers: they become -0, which no code is. How many are.
    """
    greatest, nan_code = np.uint32(max_magnitude), np.uint32(max_magnitude + 1)
    drop = 52 - mantissa_bits
    half, low_bits = np.int64(1) << (drop - 1), (np.int64(1) << drop) - 1
    # the error of the double in units of its last place
    bound = np.int64(error * 2.0**53) + 1
    # from the exponent field of float64 to the narrower one
    excess = (np.int64(1023) - max_exponent) << mantissa_bits
    infinity = (np.int64(2) * max_exponent + 1) << mantissa_bits
    # of normal numbers; and below half of the least subnormal one there is only zero
    least, half_least = np.int64(1) << mantissa_bits, -np.int64(mantissa_bits + 1) << mantissa_bits
    sign_bit = (max_exponent + 1 << mantissa_bits) << 1
    count = 0
    for i in range(codes.size):
        code = np.uint32(codes[i])
        m = np.int32(code & greatest)
        # `power_of_half` counts downwards, in cells
        y = -(np.float64(m) + shift[i]) * cells
        h, q = power_of_half(max(min(y, CELL_RANGE), -CELL_RANGE))
        bits = np.float64(h - h * q).view(np.int64)
        # rounded to nearest by an addition: a tie would be rounded up, but ties are left open
        pattern = min(((bits + half) >> drop) - excess, infinity)
        # the dropped bits are within the error of one half, or the result is subnormal and not surely zero
        is_open = (abs((bits & low_bits) - half) <= bound or pattern < least) and pattern >= half_least and m != 0
        count += is_open
        pattern = pattern | (sign_bit if code > greatest else np.int64(0)) if pattern > 0 else np.int64(0)
        pattern = sign_bit if is_open else pattern
        out[i] = pattern if m != 0 else (np.int64(nan) if code == nan_code else np.int64(0))
    return count


@kernel
def _decode_to_doubles(codes, shift, max_magnitude, cells, nan, out):  # type: ignore[no-untyped-def]
    """Bit patterns of float64 where a cell is a power of two of code steps: as `_decode_plainly`, from pairs."""
    greatest, nan_code = np.uint32(max_magnitude), np.uint32(max_magnitude + 1)
    sign_bit, count = np.int64(1) << 63, 0
    for i in range(codes.size):
        code = np.uint32(codes[i])
        m = np.int32(code & greatest)
        y = -(np.float64(m) + shift[i]) * cells
        top, rest, octaves = power_of_half_as_pair(max(min(y, CELL_RANGE), -CELL_RANGE))
        # the exponent field; it is right only where the number is normal
        pattern = np.float64(top).view(np.int64) - (octaves << 52)
        # half of the last place of what lies between 1/2 and 1 is 2^-54
        is_open = abs(rest) > 2.0**-54 - PAIR_ERROR or abs(y) > CELL_RANGE or pattern < 1 << 52
        is_open = is_open and m != 0
        count += is_open
        pattern = pattern | (sign_bit if code > greatest else np.int64(0))
        pattern = pattern if m != 0 else (np.int64(nan) if code == nan_code else np.int64(0))
        out[i] = sign_bit if is_open else pattern
    return count


@lru_cache(maxsize=256)
def _wide_loop(fmt: LNSFormat, dtype: str) -> tuple[Any, tuple[Any, ...]] | None:
    """The loop that decodes a format too wide for a table, and its constants; None where none is accurate enough."""
    steps, steps_error = steps_in_two(fmt)
    # 22 bits after the point of a position in cells: K is 2^30 at most
    in_pairs = dtype == "float64" and steps_error == 0.0 and math.frexp(steps)[0] == 0.5 and steps <= 2.0**30
    # the bounds of the error are those of such K; other float64 need more accuracy than arithmetic of doubles has
    if not 1.0 <= steps <= 2.0**40 or (dtype == "float64" and not in_pairs):
        return None
    to = FLOAT_TYPES[dtype]
    error = STEPS_ERROR if steps_error else EXACT_STEPS_ERROR
    rule: tuple[Any, ...] = fmt.max_magnitude, CELLS / steps
    rule += (np.int64(to.nan),) if in_pairs else (error, to.mantissa_bits, to.max_exponent, to.nan)
    return _decode_to_doubles if in_pairs else _decode_plainly, rule


def _decode_wide(codes: Codes, fmt: LNSFormat, scale: Scales, dtype: str) -> NDArray[Any]:
    """Bit patterns of one-dimensional codes of a format too wide for a table."""
    found = _wide_loop(fmt, dtype)
    if found is None:
        return _decode_by_powers(codes, fmt, scale, dtype)
    loop, rule = found
    to = FLOAT_TYPES[dtype]
    out = np.empty(codes.shape, to.pattern)
    # integers below 2^33 as doubles
    shifts = (scale.values - fmt.bias).astype(np.float64)

    def run(begin: int, end: int) -> None:
        shift = np.full(min(_BLOCK, end - begin), shifts[0])
        for start in range(begin, end, _BLOCK):
            part = slice(start, min(start + _BLOCK, end))
            block, patterns = codes[part], out[part]
            if not scale.single:
                spread(shifts, scale.walk, start, shift[: block.size])
            if loop(block, shift, *rule, patterns):
                # -0 marks them: decode gives +0 for zero, and no other code gives it
                left = np.flatnonzero(patterns == 1 << (to.bits - 1))
                own = scale if scale.single else Scales(scale.at(start + left))
                patterns[left] = _decode_by_powers(block[left], fmt, own, dtype, threads=1)

    in_chunks(run, codes.size, 4 * _BLOCK)
    return out


def _decode_by_powers(
    codes: Codes, fmt: LNSFormat, scale: Scales, dtype: str, threads: int | Team | None = None
) -> NDArray[Any]:
    """Bit patterns of one-dimensional codes: of a format too wide for a table, or of scales too far apart."""
    to = FLOAT_TYPES[dtype]
    out = np.empty(codes.shape, to.pattern)

    def run(begin: int, end: int) -> None:
        for start in range(begin, end, _BLOCK):
            part = slice(start, min(start + _BLOCK, end))
            logs = (codes[part].astype(np.int64) & fmt.max_magnitude) + (scale.each(start, part.stop) - fmt.bias)
            negative = codes[part] >= fmt.sign_bit
            significand, exponent = significands(fmt.base, fmt.fraction_bits, logs)
            round_significands(
                significand, exponent, negative, to.mantissa_bits, to.max_exponent, to.bits - 1, out[part]
            )

    in_chunks(run, codes.size, _BLOCK, threads=threads)
    out[codes == 0] = 0
    out[codes == fmt.nan_code] = to.nan
    return out


def floats_at(logs: NDArray[np.int64], negative: NDArray[np.bool_], fmt: LNSFormat, dtype: str) -> NDArray[Any]:
    """(-1)^negative base^(E / 2^F), each rounded once, for one-dimensional E of any size: floats of NumPy's `dtype`."""
    to, steps = FLOAT_TYPES[dtype], fmt.codes_per_octave
    patterns = np.zeros(logs.shape, to.pattern)
    # `significands` takes |E| below 2^35; what is further down is zero in most formats, and else is left to integers
    near, nothing = np.abs(logs) < 1 << 35, logs < -steps * (to.max_exponent + to.precision + 2)
    some = near & ~nothing
    pieces = [(some, *significands(fmt.base, fmt.fraction_bits, logs[some]))]
    far = ~near & ~nothing
    if far.any():
        found = [exact.significand64(fmt.base, int(log), fmt.fraction_bits) for log in logs[far]]
        pieces.append((far, np.array([s for s, _ in found], np.uint64), np.array([e for _, e in found], np.int64)))
    for where, significand, exponent in pieces:
        part = np.empty(significand.shape, to.pattern)
        round_significands(significand, exponent, negative[where], to.mantissa_bits, to.max_exponent, to.bits - 1, part)
        patterns[where] = part
    return patterns.view(dtype)


_small_table = lru_cache(maxsize=4096)(_make_decode_table)
_large_table = lru_cache(maxsize=64)(_make_decode_table)


def decode(
    codes: ArrayLike, fmt: LNSFormat, dtype: DTypeLike = "float64", *, log_offset: LogOffset = 0
) -> NDArray[Any]:
    """The floats that codes stand for, each rounded once (to nearest, ties to even).

    Args:
        codes: unsigned integers of any shape.
        fmt: their format.
        dtype: "float64", "float32", "float16"; "bfloat16", as uint16 bit patterns; or a type of eight bits by its name
            in ml_dtypes, such as "float8_e4m3fn", as uint8 bit patterns. Where dtype is a type of ml_dtypes itself, and
            no name, they are floats of it.
        log_offset: the scale in code steps: an integer, an int32 array that broadcasts to codes, or `GroupOffsets`.

    Raises:
        TypeError: where codes are no integers.
        ValueError: where a code lies outside the format, or the dtype is not one of these.

    >>> from lnsnum import lns8f3
    >>> decode([64, 200, 0, 128], lns8f3)
    array([ 1., -2.,  0., nan])
    """
    check_format(fmt)
    name = np.dtype(dtype).name if not isinstance(dtype, str) else dtype
    if name not in FLOAT_TYPES and name not in FLOAT8_TYPES:
        raise ValueError(f"dtype={name!r} is not known: one of {', '.join((*FLOAT_TYPES, *FLOAT8_TYPES))}")
    array = check_codes(codes, fmt)
    offset = check_offsets(log_offset, array.shape)
    if name in FLOAT8_TYPES:
        patterns = _to_float8(array, fmt, offset, name)
        return patterns if isinstance(dtype, str) else patterns.view(dtype)

    order = common_order([array])
    if order is not None:
        array, offset = array.transpose(order), in_order(offset, array.ndim, order)
    scale = Scales.of(offset, array.shape)
    flat = contiguous(array).reshape(-1)
    out = np.empty(flat.shape, FLOAT_TYPES[name].pattern)
    decode_flat(flat, fmt, scale, name, out)
    out = put_back(out.reshape(array.shape), order)
    if name == "bfloat16":
        return out if isinstance(dtype, str) else out.view(dtype)
    return out.view(name)


def _to_float8(codes: Codes, fmt: LNSFormat, log_offset: LogOffset, name: str) -> NDArray[Any]:
    """By way of doubles: only where one is halfway between two floats may its own rounding have led there."""
    doubles = decode(codes, fmt, log_offset=log_offset).reshape(-1)
    flat, offsets = codes.reshape(-1), of_elements(log_offset, codes.shape)

    def compare(i: int, x: float) -> int:
        log = int(flat[i] & fmt.max_magnitude) - fmt.bias + int(offsets[np.unravel_index(i, codes.shape)])
        return -exact.compare(*exact.split_float(x), fmt.base, log, fmt.fraction_bits)

    return nearest_patterns(doubles, name, compare).reshape(codes.shape)
