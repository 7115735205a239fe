"""Where the code steps up: for each rounding, the least float64 that belongs to the next E.

With r = 2^F log_base(x), the E of a float x > 0 is a count of thresholds, exact ones, taken from `lnsnum.exact`:

    floor(r)  =  number of grid points     base^(E / 2^F)         <= x
    ceil(r)   =  number of grid points                            <  x
    nearest   =  number of midpoints       base^((E + 1/2) / 2^F) <= x     (ties to even: < x where the lower E is even)

counted from where the table begins. Positive float64 are ordered as their bit patterns, so the comparisons are of
integers, and a logarithm is never rounded. At base 2 one octave serves all (x = 2^e * mantissa), and a bucket for
each group of leading mantissa bits holds at most one threshold: one look, no search. Other bases keep the whole range
of a format and search it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np

from lnsnum.exact import float64_threshold
from lnsnum.format import LNSFormat
from lnsnum.kernel import kernel

Side = Literal["floor", "ceil", "nearest"]

_MANTISSA_BITS = 52
_ONE = 0x3FF0_0000_0000_0000
_NEVER = 0xFFFF_FFFF_FFFF_FFFF


class Thresholds(NamedTuple):
    """A table for `locate`.

    Octave tables (`octave_steps` = 2^F): bucket `mantissa >> shift` has E = `start` below its one `threshold`, and one
    more from there. Range tables (`octave_steps` = 0): `threshold` is sorted and E = `start[0]` below the first.
    """

    octave_steps: int
    shift: int
    start: np.ndarray[Any, np.dtype[np.int64]]
    threshold: np.ndarray[Any, np.dtype[np.uint64]]


def thresholds(fmt: LNSFormat, side: Side, log_offset: int) -> Thresholds:
    """The table by which floats are rounded to `fmt` at `log_offset`, to the given side on the log axis."""
    if fmt.base == 2.0:
        return _octave_thresholds(fmt.fraction_bits, side)
    return _range_thresholds(fmt, side, log_offset)


def _threshold(base: float, fraction_bits: int, side: Side, log: int) -> int:
    """The least float64, as a bit pattern, that is rounded to at least `log`."""
    if side == "nearest":
        lower_is_even = log & 1 == 1
        return float64_threshold(base, 2 * log - 1, fraction_bits + 1, strict=lower_is_even)
    if side == "ceil":
        return float64_threshold(base, log - 1, fraction_bits, strict=True)
    return float64_threshold(base, log, fraction_bits)


@lru_cache(maxsize=64)
def _octave_thresholds(fraction_bits: int, side: Side) -> Thresholds:
    steps = 1 << fraction_bits
    mantissas = [_threshold(2.0, fraction_bits, side, log) - _ONE for log in range(1, steps + 1)]
    mantissas = [m for m in mantissas if m < 1 << _MANTISSA_BITS]
    shift = _MANTISSA_BITS
    while len({m >> shift for m in mantissas}) < len(mantissas):
        shift -= 1
    buckets = np.array([m >> shift for m in mantissas], np.int64)
    size = 1 << (_MANTISSA_BITS - shift)
    held = np.bincount(buckets, minlength=size)
    table = np.full(size, _NEVER, np.uint64)
    table[buckets] = np.array(mantissas, np.uint64)
    return Thresholds(steps, shift, np.cumsum(held) - held, table)


@lru_cache(maxsize=64)
def _range_thresholds(fmt: LNSFormat, side: Side, log_offset: int) -> Thresholds:
    lowest, highest = log_offset - fmt.max_log, log_offset + fmt.max_log + 1
    table = [_threshold(fmt.base, fmt.fraction_bits, side, log) for log in range(lowest, highest + 1)]
    return Thresholds(0, 0, np.array([lowest - 1], np.int64), np.array(table, np.uint64))


@kernel
def locate(bits, octave_steps, shift, start, threshold):  # type: ignore[no-untyped-def]
    """E of the positive finite float64 whose bit pattern is `bits` (uint64): an int64."""
    if octave_steps == 0:
        lo, hi = 0, threshold.size
        while lo < hi:
            middle = (lo + hi) >> 1
            if threshold[middle] <= bits:
                lo = middle + 1
            else:
                hi = middle
        return start[0] + lo
    exponent = np.int64(bits >> np.uint64(52))
    mantissa = bits & np.uint64(0xFFFFFFFFFFFFF)
    if exponent == 0:
        exponent = np.int64(1)
        while mantissa >> np.uint64(52) == 0:
            mantissa = mantissa << np.uint64(1)
            exponent -= 1
        mantissa = mantissa & np.uint64(0xFFFFFFFFFFFFF)
    bucket = mantissa >> np.uint64(shift)
    return (exponent - 1023) * octave_steps + start[bucket] + np.int64(mantissa >= threshold[bucket])


class Edges(NamedTuple):
    """Where underflow begins, as bit patterns of float64."""

    smallest: int
    half: int


@lru_cache(maxsize=4096)
def edges(fmt: LNSFormat, log_offset: int) -> Edges:
    """The least float64 >= the smallest nonzero magnitude, and the least >= half of it.

    >>> from lnsnum.format import lns8f5
    >>> edges(lns8f5, 0).half < edges(lns8f5, 0).smallest
    True
    """
    log = log_offset - fmt.max_log
    return Edges(
        float64_threshold(fmt.base, log, fmt.fraction_bits),
        float64_threshold(fmt.base, log, fmt.fraction_bits, halved=True),
    )
