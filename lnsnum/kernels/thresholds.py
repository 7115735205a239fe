"""Where the code steps up: for each rounding, the least float64 that belongs to the next E.

With r = 2^F log_base(x), the E of a float x > 0 is a count of thresholds, exact ones, taken from `lnsnum.exact`:

    floor(r)  =  number of grid points     base^(E / 2^F)         <= x
    ceil(r)   =  number of grid points                            <  x
    nearest   =  number of midpoints       base^((E + 1/2) / 2^F) <= x     (ties to even: < x where the lower E is even)

counted from 1. Positive float64 are ordered as their bit patterns, so the comparisons are of integers, and a logarithm
is never rounded. At base 2 one octave serves all (x = 2^e * mantissa), and a bucket for each group of leading mantissa
bits holds at most one threshold: one look, no search. This is how floats become codes where the table is small.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np

from lnsnum.exact import float64_threshold
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.elementary import split_bits

Side = Literal["floor", "ceil", "nearest"]

_MANTISSA_BITS = 52
ONE = 0x3FF0_0000_0000_0000
_NEVER = 0xFFFF_FFFF_FFFF_FFFF


class Thresholds(NamedTuple):
    """A table for `locate`: bucket `mantissa >> shift` has E = `start` below its one `threshold`, then one more."""

    octave_steps: int
    shift: int
    start: np.ndarray[Any, np.dtype[np.int64]]
    threshold: np.ndarray[Any, np.dtype[np.uint64]]


def threshold(fraction_bits: int, side: Side, log: int) -> int:
    """The least float64, as a bit pattern, that is rounded to at least `log`."""
    if side == "nearest":
        # a tie goes to log - 1 where that is even: then what belongs to log is strictly above the midpoint
        lower_is_even = log & 1 == 1
        return float64_threshold(2.0, 2 * log - 1, fraction_bits + 1, strict=lower_is_even)
    # ceil(r) >= log exactly where r > log - 1
    if side == "ceil":
        return float64_threshold(2.0, log - 1, fraction_bits, strict=True)
    return float64_threshold(2.0, log, fraction_bits)


@lru_cache(maxsize=64)
def thresholds(fraction_bits: int, side: Side) -> Thresholds:
    """The table by which floats are rounded to 2^-fraction_bits octaves, to the given side on the log axis."""
    steps = 1 << fraction_bits
    mantissas = [threshold(fraction_bits, side, log) - ONE for log in range(1, steps + 1)]
    # what reaches the next octave is the first of that: E of 2 x is octave_steps more
    mantissas = [m for m in mantissas if m < 1 << _MANTISSA_BITS]
    # the widest buckets that hold at most one threshold each: `locate` compares once
    shift = _MANTISSA_BITS
    while len({m >> shift for m in mantissas}) < len(mantissas):
        shift -= 1
    buckets = np.array([m >> shift for m in mantissas], np.int64)
    size = 1 << (_MANTISSA_BITS - shift)
    # E at the begin of a bucket is how many thresholds lie before it
    held = np.bincount(buckets, minlength=size)
    table = np.full(size, _NEVER, np.uint64)
    table[buckets] = np.array(mantissas, np.uint64)
    return Thresholds(steps, shift, np.cumsum(held) - held, table)


@kernel
def locate(bits, octave_steps, shift, start, threshold):  # type: ignore[no-untyped-def]
    """E of the positive finite float64 whose bit pattern is `bits` (uint64): an int64."""
    exponent, mantissa = split_bits(bits)
    bucket = mantissa >> np.uint64(shift)
    return (exponent - 1023) * octave_steps + start[bucket] + np.int64(mantissa >= threshold[bucket])
