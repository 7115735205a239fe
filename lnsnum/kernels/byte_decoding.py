"""Which of the loops of `lnsnum.kernels.byte_scales` decodes an array, and the tables that it takes, one for a format.

    one scale, or one for each 64 codes and more        windows of the bytes of all floats
    one for each 2^k codes, or for each                 fractions of an octave: at base 2, where all numbers are normal

The rest is left to plain loops: other processors, few codes, magnitudes below float32's range.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.byte_scales import VECTOR, WINDOW, Lines, decode_lines, decode_run, decode_runs
from lnsnum.kernels.byte_tables import has_byte_tables
from lnsnum.kernels.codes import FLOAT_TYPES, Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.float_tables import patterns_of
from lnsnum.kernels.groups import GREATEST_GROUP
from lnsnum.kernels.look_ups import PARALLEL
from lnsnum.kernels.scales import Scales, Walk
from lnsnum.kernels.threads import Team, in_chunks

FEW = 1 << 10
"""Fewer codes are looked up in memory before the tables are in registers."""

_MOST_LOGS = 1 << 17
"""So many E at most get windows."""

_LONG = 256
"""Runs of so many codes and more are worth a window each, in the place of bits that are put together."""

_BEYOND = 1 << 31
"""More than any scale."""


class Windows(NamedTuple):
    """The float32 numbers of all E, from the least that is not 0 to infinity, as four rows of bytes."""

    rows: NDArray[np.uint8]
    start: int
    """The E of the first entry."""
    bias: int

    def place(self, log_offset: int) -> int | None:
        """Where the window of a scale begins; None where a magnitude would be 0."""
        place = log_offset - self.bias - self.start
        # behind the last window all are infinity
        return min(place, self.rows.shape[1] - WINDOW) if place >= 0 else None

    def places(self, log_offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same of many, none of them None."""
        return (log_offsets - (self.bias + self.start)).clip(max=self.rows.shape[1] - WINDOW)


@lru_cache(maxsize=64)
def windows_of(fmt: LNSFormat) -> Windows | None:
    """Those of a format of at most 8 bits; None where processors cannot use them, or where they would be too many."""
    if fmt.bits > 8 or not has_byte_tables():
        return None
    to, steps = FLOAT_TYPES["float32"], fmt.codes_per_octave
    lowest, highest = (
        math.floor(-steps * (to.max_exponent + to.precision + 2)),
        math.ceil(steps * (to.max_exponent + 2)),
    )
    if highest - lowest >= _MOST_LOGS:
        return None
    patterns = patterns_of(fmt, np.arange(lowest, highest + 1), "float32", negative=False)
    some = patterns[patterns != 0]
    # an entry for zero in front of the first window, and infinity for all of the last one
    padded = np.concatenate([[0], some, np.full(WINDOW, patterns[-1])]).astype(np.uint32)
    return Windows(np.ascontiguousarray(padded.view(np.uint8).reshape(-1, 4).T), highest - some.size, fmt.bias)


Window = tuple[NDArray[np.uint8], int, int]
"""What `decode_run` takes: rows of bytes, a place, and the sign's bit."""


def window_of(fmt: LNSFormat, log_offset: int) -> Window | None:
    """That of one scale; None where there is none."""
    windows = windows_of(fmt)
    place = None if windows is None else windows.place(log_offset)
    return None if windows is None or place is None else (windows.rows, place, fmt.sign_bit)


@lru_cache(maxsize=64)
def _fractions(fmt: LNSFormat) -> NDArray[np.uint8]:
    """The lower 23 bits of 2^(r / 2^F) as three rows of bytes, going round to 64 of each."""
    octave = patterns_of(fmt, np.arange(1 << fmt.fraction_bits), "float32", negative=False)
    own = np.resize(octave & np.uint32(0x7FFFFF), 64)
    return np.ascontiguousarray(own.view(np.uint8).reshape(64, 4).T[:3])


def _normal(fmt: LNSFormat) -> tuple[int, int]:
    """The least and the greatest scale at which all numbers are normal, at base 2."""
    return (-126 << fmt.fraction_bits) + fmt.max_log, (128 << fmt.fraction_bits) - 1 - fmt.max_log


def _group_of(fmt: LNSFormat, low: int, high: int, walk: Walk) -> int | None:
    """k of groups of 2^k; None where they are others, or where a number may not be normal."""
    run, group, length, across = walk
    size, (least, greatest) = max(run, group), _normal(fmt)
    if fmt.base != 2.0 or not least <= low <= high <= greatest or size & (size - 1) or size > GREATEST_GROUP:
        return None
    # along the last axis, in lines that fill a register
    if group > 1 and ((run, across) != (1, 1) or length < VECTOR):
        return None
    return size.bit_length() - 1


@kernel
def _split(values, bias, fraction_bits, rests, octaves):  # type: ignore[no-untyped-def]
    """The rest and the octave of each value, going round."""
    for begin in range(0, rests.size - VECTOR, values.size):
        for i in range(values.size):
            place = np.int64(values[i]) - bias
            rests[begin + i] = place & ((1 << fraction_bits) - 1)
            octaves[begin + i] = (place >> fraction_bits) + 127


@kernel
def _lines_of(values, run, length, group, bias, fraction_bits):  # type: ignore[no-untyped-def]
    """Lines of groups; those of runs, for which length is 1, are as long as we like, and not to be short."""
    times = 1 if length > 1 else max(1, FEW // (values.size * run))
    number = values.size * times
    rests, octaves = np.empty(number + VECTOR, np.uint8), np.empty(number + VECTOR, np.uint8)
    _split(values, bias, fraction_bits, rests, octaves)
    if length > 1:
        return Lines(rests, octaves, length, (length + (1 << group) - 1) >> group, group)
    return Lines(rests, octaves, number * run, number, group)


def decode_in_registers(
    codes: Codes, fmt: LNSFormat, scale: Scales, out: NDArray[Any], *, threads: int | Team | None = None
) -> bool:
    """Write the float32 patterns of one-dimensional contiguous codes into `out`; or return False, and do nothing."""
    if codes.size < FEW:
        return False
    windows = windows_of(fmt)
    if windows is None:
        return False
    (low, high), rows, sign, bits = scale.ends, windows.rows, fmt.sign_bit, fmt.fraction_bits
    run, of_groups, length, _ = scale.walk
    place, in_runs, alignment = windows.place(low), of_groups == 1, 4096
    group = None if scale.single or (in_runs and run >= _LONG) else _group_of(fmt, low, high, scale.walk)

    if group is not None:
        lines, fractions = _lines_of(scale.values, run, length, group, fmt.bias, bits), _fractions(fmt)
        # a line's last group may be no whole one
        alignment = alignment if in_runs else length

        def decode(begin: int, end: int) -> None:
            decode_lines(codes[begin:end], lines, fractions, sign, bits, begin, out[begin:end])

    elif place is None or not (scale.single or (in_runs and run >= VECTOR)):
        return False
    elif scale.single:

        def decode(begin: int, end: int) -> None:
            decode_run(codes[begin:end], rows, place, sign, out[begin:end])

    else:
        places = windows.places(scale.values)

        def decode(begin: int, end: int) -> None:
            decode_runs(codes[begin:end], rows, places, run, begin, sign, out[begin:end])

    in_chunks(decode, codes.size, PARALLEL, alignment=alignment, threads=threads)
    return True


class Way(NamedTuple):
    """What `decode_by_way` takes of a format and of the bounds of its scales."""

    rows: NDArray[np.uint8]
    start: int
    fractions: NDArray[np.uint8]
    sign_bit: int
    fraction_bits: int
    bias: int
    group: int
    """-1 where each run has a window."""
    least: int
    greatest: int
    """Of the scales that it serves."""


@lru_cache(maxsize=4096)
def way_of(fmt: LNSFormat, low: int, high: int, run: int) -> Way | None:
    """That of codes whose scales, one for each `run`, are from `low` to `high`; None where there is none."""
    windows = windows_of(fmt)
    if windows is None:
        return None
    group = None if run >= _LONG else _group_of(fmt, low, high, Walk(run))
    if group is None and (run < VECTOR or windows.place(low) is None):
        return None
    # of another base there are no fractions, and windows do not ask for them
    fractions = _fractions(fmt) if fmt.base == 2.0 else np.empty((3, 64), np.uint8)
    # behind the last window all numbers are infinite
    served = (fmt.bias + windows.start, _BEYOND) if group is None else _normal(fmt)
    return Way(
        windows.rows,
        windows.start,
        fractions,
        fmt.sign_bit,
        fmt.fraction_bits,
        fmt.bias,
        -1 if group is None else group,
        *served,
    )


@kernel
def _are_served(values, least, greatest):  # type: ignore[no-untyped-def]
    low = high = values[0]
    for i in range(values.size):
        low, high = min(low, values[i]), max(high, values[i])
    return least <= low and high <= greatest


@kernel
def decode_by_way(codes, values, run, way, out):  # type: ignore[no-untyped-def]
    """What `decode_in_registers` does of runs, all at once: for few codes, beside which its looks would be most. False,
    and nothing is done, where a scale is beyond the bounds that the way was found by, and beyond what it serves.
    """
    rows, start, fractions, sign_bit, fraction_bits, bias, group, least, greatest = way
    if not _are_served(values, least, greatest):
        return False
    if group >= 0:
        lines = _lines_of(values, run, 1, group, bias, fraction_bits)
        decode_lines(codes, lines, fractions, sign_bit, fraction_bits, 0, out)
    else:
        places = np.empty(values.size, np.int64)
        for i in range(values.size):
            # within the rows, whatever another process writes meanwhile
            places[i] = max(0, min(np.int64(values[i]) - (bias + start), rows.shape[1] - WINDOW))
        decode_runs(codes, rows, places, run, 0, sign_bit, out)
    return True
