"""How codes of one format moved, in steps on the logarithmic axis of their numbers.

    E  =  m - bias + log_offset,      steps  =  E' - E

A nonzero number that keeps its sign moves by so many steps. One that changes its sign is a flip and no move, wherever
its magnitude goes; what becomes zero or NaN, or leaves them, is counted by itself: no number of steps leads there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import WIDEST_TABLE, Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.toolbox.counting import Counts

__all__ = ["STEP_BINS", "MoveCount", "Moves"]

STEP_BINS = 33
"""Bins of steps: |steps| of 1, 2, 3 to 4, 5 to 8, ..., 2^31 + 1 to 2^32: no two codes of a format are further apart."""


@dataclass(frozen=True)
class Moves:
    """How the numbers of a tensor moved: both sides are of one format.

    Args:
        elements: how many were compared.
        codes: how many codes are other integers.
        changed: how many numbers are others.
        moved: how many nonzero numbers kept their sign and not their magnitude: by E' - E steps.
        total_steps: the sum of |E' - E| over them.
        drift: the sum of E' - E over them.
        greatest_steps: the greatest |E' - E|.
        flipped: nonzero numbers whose sign changed, whatever their magnitudes.
        to_zero: what became zero. from_zero: what left it. to_nan: what became NaN. from_nan: what left it.
        shrunk: how many moved by -1, by -2, by -3 to -4, by -5 to -8, and so on.
        grown: how many moved by 1, by 2, by 3 to 4, by 5 to 8, and so on.
    """

    elements: int
    codes: int
    changed: int
    moved: int
    total_steps: int
    drift: int
    greatest_steps: int
    flipped: int
    to_zero: int
    from_zero: int
    to_nan: int
    from_nan: int
    shrunk: tuple[int, ...]
    grown: tuple[int, ...]

    @property
    def mean_steps(self) -> float:
        """The mean of |E' - E| over the numbers that moved; 0 where none did."""
        return self.total_steps / self.moved if self.moved else 0.0


class MoveCount:
    """How codes moved, counted block by block.

    Args:
        fmt: the format of both sides.
        shift: B's log_offset minus A's; None where each element has its own.
    """

    def __init__(self, fmt: LNSFormat, shift: int | None) -> None:
        self.fmt = fmt
        self._shift = shift
        self._elements = 0
        self._specials: Counts = np.zeros(6, np.int64)
        self._steps: Counts | None = None
        if shift is not None and fmt.bits <= WIDEST_TABLE:
            self._steps = np.zeros((2, 2 * fmt.max_magnitude + 1), np.int64)
        self._codes, self._total, self._drift, self._greatest = 0, 0, 0, 0
        self._bins: Counts = np.zeros((2, STEP_BINS + 1), np.int64)

    def add(self, a: Codes, b: Codes, shifts: NDArray[np.int64] | None = None) -> None:
        """Count a block of both, with the shift of each element where there is no other."""
        self._elements += a.size
        if self._shift == 0 and np.array_equal(a, b):
            return
        if self._steps is not None:
            _count_steps(a, b, self.fmt.max_magnitude, self._specials, self._steps)
            return
        if shifts is None:
            shifts = np.array([self._shift])
        sums: Counts = np.zeros(4, np.int64)
        _count_moves(a, b, shifts, self.fmt.max_magnitude, self._specials, sums, self._bins)
        codes, total, drift, greatest = sums.tolist()
        self._codes += codes
        self._total += total
        self._drift += drift
        self._greatest = max(self._greatest, greatest)

    def result(self) -> Moves:
        """Of all that was added."""
        if self._steps is not None:
            self._add_steps(self._steps.sum(axis=0))
            self._steps[:] = 0
        shrunk, grown = self._bins[:, 1:].tolist()
        flipped, special, to_zero, from_zero, to_nan, from_nan = self._specials.tolist()
        moved = sum(shrunk) + sum(grown)
        return Moves(
            elements=self._elements,
            codes=self._codes + flipped + special,
            changed=moved + flipped + special,
            moved=moved,
            total_steps=self._total,
            drift=self._drift,
            greatest_steps=self._greatest,
            flipped=flipped,
            to_zero=to_zero,
            from_zero=from_zero,
            to_nan=to_nan,
            from_nan=from_nan,
            shrunk=tuple(shrunk),
            grown=tuple(grown),
        )

    def _add_steps(self, steps: Counts) -> None:
        """Add what was counted by steps of m, in Python's integers: shifts are large."""
        assert self._shift is not None
        for at in np.flatnonzero(steps).tolist():
            difference, count = at - self.fmt.max_magnitude, int(steps[at])
            self._codes += count if difference else 0
            by = difference + self._shift
            self._total += abs(by) * count
            self._drift += by * count
            self._greatest = max(self._greatest, abs(by))
            if by:
                self._bins[int(by > 0), (abs(by) - 1).bit_length() + 1] += count


@kernel
def _count_special(before, after, max_magnitude, specials):  # type: ignore[no-untyped-def]
    """Two codes that differ, one of them zero or NaN, or of two signs.

    Which two these are both loops below see for themselves: a call for every pair would be many times slower.
    """
    m, n = before & max_magnitude, after & max_magnitude
    if m != 0 and n != 0:
        specials[0] += 1
        return
    specials[1] += 1
    specials[2] += after == 0
    specials[3] += before == 0
    specials[4] += n == 0 and after != 0
    specials[5] += m == 0 and before != 0


@kernel
def _count_steps(a, b, max_magnitude, specials, steps):  # type: ignore[no-untyped-def]
    """A counter for each difference of m, in two rows taken in turn: the last value of one may be under way."""
    for i in range(a.size):
        before, after = np.int64(a[i]), np.int64(b[i])
        m, n = before & max_magnitude, after & max_magnitude
        if m == 0 or n == 0 or (before ^ after) > max_magnitude:
            if before != after:
                _count_special(before, after, max_magnitude, specials)
        else:
            steps[i & 1, np.uint64(n - m + max_magnitude)] += 1


@kernel
def _count_moves(a, b, shifts, max_magnitude, specials, sums, bins):  # type: ignore[no-untyped-def]
    """The bin of |steps| is the exponent of the double that is next below it, and bin 0 is no step."""
    codes, total, drift, greatest = 0, 0, 0, 0
    each = np.int64(shifts.size > 1)
    for i in range(a.size):
        before, after = np.int64(a[i]), np.int64(b[i])
        m, n = before & max_magnitude, after & max_magnitude
        if m == 0 or n == 0 or (before ^ after) > max_magnitude:
            if before != after:
                _count_special(before, after, max_magnitude, specials)
            continue
        codes += before != after
        steps = n - m + shifts[i * each]
        size = abs(steps)
        total += size
        drift += steps
        greatest = size if size > greatest else greatest
        exponent = ((np.float64(size).view(np.int64) - 1) >> 52) - 1021
        bins[np.int64(steps > 0), exponent if exponent > 0 else 0] += 1
    sums[0], sums[1], sums[2], sums[3] = codes, total, drift, greatest
