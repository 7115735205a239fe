"""Which codes of a format occur: one pass over each block.

    m  =  code mod 2^(bits - 1),      E  =  m - bias + log_offset

Formats of up to 16 bits have a counter for each code; wider ones have bins of codes that are next to each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import WIDEST_TABLE, Codes
from lnsnum.kernels.compiling import kernel

__all__ = [
    "Bins",
    "CodeCount",
    "CodeSummary",
    "LogCount",
]

Counts = NDArray[np.int64]

MOST_BINS = 256
"""Bins of a histogram of magnitudes."""


@dataclass(frozen=True)
class Bins:
    """A histogram over integers: bin i counts those from first + i width on, `width` of them."""

    first: int
    width: int
    counts: tuple[int, ...]


class CodeCount:
    """What the codes of a tensor are, counted block by block: integers, from which all else is derived."""

    def __init__(self, fmt: LNSFormat) -> None:
        self.fmt = fmt
        self._shift = max(0, fmt.bits - 1 - (MOST_BINS - 1).bit_length())
        self._each: Counts | None = None
        if fmt.bits <= WIDEST_TABLE:
            self._each = np.zeros((_ROWS, 1 << fmt.bits), np.int64)
        self._bins: Counts = np.zeros((fmt.max_magnitude - 1 >> self._shift) + 1, np.int64)
        self._wide: Counts = np.array([0, 0, 0, 0, 0, fmt.max_magnitude + 1, 0])

    def add(self, codes: Codes) -> None:
        """Count a block."""
        if self._each is not None:
            _count_each(codes, self._each)
        else:
            _count_wide(codes, self.fmt.max_magnitude, self._shift, self._bins, self._wide)

    def result(self) -> CodeSummary:
        """Of all that was added."""
        fmt = self.fmt
        if self._each is None:
            zeros, nans, negative, smallest, greatest, low, high = self._wide.tolist()
            extremes = (low, high) if high else None
            bins = self._bins.tolist()
            return CodeSummary(
                zeros, nans, negative, smallest, greatest, extremes, None, Bins(1, 1 << self._shift, tuple(bins))
            )
        each = self._each.sum(axis=0).reshape(2, -1)
        (zeros, nans), numbers = each[:, 0].tolist(), each.sum(axis=0)
        numbers[0] = 0
        present = np.flatnonzero(numbers)
        extremes = (int(present[0]), int(present[-1])) if present.size else None
        grouped = np.add.reduceat(numbers, np.arange(1, numbers.size, 1 << self._shift))
        return CodeSummary(
            zeros=zeros,
            nans=nans,
            negative=int(each[1, 1:].sum()),
            at_smallest=int(numbers[1]),
            at_greatest=int(numbers[fmt.max_magnitude]),
            magnitudes=extremes,
            distinct=int(np.count_nonzero(each)),
            histogram=Bins(1, 1 << self._shift, tuple(grouped.tolist())),
        )


@dataclass(frozen=True)
class CodeSummary:
    """What the codes of a tensor are.

    Args:
        zeros: how many are zero.
        nans: how many are NaN.
        negative: how many are negative numbers.
        at_smallest: how many have the smallest magnitude, m = 1.
        at_greatest: how many have the greatest, m = m_max.
        magnitudes: the least and the greatest m of a nonzero number; None where there is none.
        distinct: how many different codes occur; None for formats of more than 16 bits.
        histogram: how many nonzero numbers have an m of each bin, from m = 1 on.
    """

    zeros: int
    nans: int
    negative: int
    at_smallest: int
    at_greatest: int
    magnitudes: tuple[int, int] | None
    distinct: int | None
    histogram: Bins


_ROWS = 4


@kernel
def _count_each(codes, counts):  # type: ignore[no-untyped-def]
    """Four rows of counters, taken in turn: a counter is not written again while its last value is under way."""
    whole = codes.size - codes.size % 4
    for i in range(0, whole, 4):
        counts[0, codes[i]] += 1
        counts[1, codes[i + 1]] += 1
        counts[2, codes[i + 2]] += 1
        counts[3, codes[i + 3]] += 1
    for i in range(whole, codes.size):
        counts[0, codes[i]] += 1


@kernel
def _count_wide(codes, max_magnitude, shift, bins, totals):  # type: ignore[no-untyped-def]
    zeros, nans, negative, smallest, greatest = 0, 0, 0, 0, 0
    low, high = totals[5], totals[6]
    for i in range(codes.size):
        code = np.int64(codes[i])
        m = code & max_magnitude
        if m == 0:
            nans += code != 0
            zeros += code == 0
            continue
        negative += code > max_magnitude
        smallest += m == 1
        greatest += m == max_magnitude
        low, high = min(low, m), max(high, m)
        bins[(m - 1) >> shift] += 1
    totals[0] += zeros
    totals[1] += nans
    totals[2] += negative
    totals[3] += smallest
    totals[4] += greatest
    totals[5], totals[6] = low, high


class LogCount:
    """E of the nonzero numbers of a tensor with several scales: the extremes, and a histogram.

    Args:
        fmt: the format.
        least, greatest: of the offsets.
    """

    def __init__(self, fmt: LNSFormat, least: int, greatest: int) -> None:
        self.fmt = fmt
        self._first = least - fmt.bias + 1  # E of m = 1
        span = greatest - least + fmt.max_magnitude
        self._shift = max(0, (span - 1).bit_length() - (MOST_BINS - 1).bit_length())
        self._bins: Counts = np.zeros(((span - 1) >> self._shift) + 1, np.int64)
        self._extremes: Counts = np.array([np.iinfo(np.int64).max, np.iinfo(np.int64).min])

    def add(self, codes: Codes, offsets: NDArray[np.int32]) -> None:
        """Count a block, with the offset of each of its codes."""
        base = -self.fmt.bias - self._first
        _count_logs(codes, offsets, self.fmt.max_magnitude, base, self._shift, self._bins, self._extremes)

    def result(self) -> tuple[tuple[int, int] | None, Bins]:
        """The least and the greatest E (None where all are zero or NaN), and the histogram of E."""
        low, high = (int(extreme) + self._first for extreme in self._extremes)
        bins = Bins(self._first, 1 << self._shift, tuple(self._bins.tolist()))
        return ((low, high) if low <= high else None), bins


@kernel
def _count_logs(codes, offsets, max_magnitude, base, shift, bins, extremes):  # type: ignore[no-untyped-def]
    low, high = extremes[0], extremes[1]
    for i in range(codes.size):
        m = np.int64(codes[i]) & max_magnitude
        if m != 0:
            at = m + np.int64(offsets[i]) + base
            low, high = min(low, at), max(high, at)
            bins[at >> shift] += 1
    extremes[0], extremes[1] = low, high
