"""a + c to nearest in one format, by its tables of sb and db, in loops that compilers make vectors of.

    distances z = |E_a - E_c|  ->  steps sb(z) or db(z), loads from the table  ->  sums hi + step, and their edges

Numbers are 2 E + sign in int32, E counted from the smallest of the result, block after block in the nearest cache. Left
open are ties, and what may lie on either side of the half of the smallest number: `lnsnum.operations.sums` takes these.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.gaussian import TIE, Exact, has_tables, tables
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.rounding import NEAREST, Target
from lnsnum.kernels.threads import in_parts
from lnsnum.operations.operation import Operand

FAR = 1 << 26
"""Logarithms of operands and steps stay below this in size: what is beyond FAR goes another way."""

_NOTHING = -4 * FAR
"""The logarithm of zero, and the step of x - x: below all sums."""

_OPEN = -16 * FAR
"""The step of a tie: below all others."""


class _Steps(NamedTuple):
    """sb, a zero, db, a zero: the zeros are for what is beyond the tables."""

    table: NDArray[np.int32]
    widest: int
    """The greatest distance at which the table is right."""


@lru_cache(maxsize=32)
def _steps(fmt: LNSFormat) -> _Steps | None:
    """The steps of a format; None where there is no table of them, or a step is beyond FAR."""
    if not has_tables(fmt):
        return None
    table = tables(Exact(), fmt)
    sb, db = (np.where(part == TIE, _OPEN, part) for part in (table.sb, table.db))
    if any(np.abs(part[part != _OPEN]).max() > FAR for part in (sb, db)):
        return None
    # x - x: its step takes every sum below all others
    db[0] = _NOTHING
    steps = np.concatenate([sb, [0], db, [0]]).astype(np.int32)
    steps.flags.writeable = False  # it is shared
    # a complete table ends where steps are 0 for ever: the zero behind it serves all distances
    return _Steps(steps, 8 * FAR if table.complete else table.sb.size - 1)


@kernel
def _numbers(codes, nan, shift, lowest, out):  # type: ignore[no-untyped-def]
    """out = 2 log + sign, log counted from 1 at the smallest; 2 _NOTHING is zero, and 1 more NaN."""
    greatest, nothing, one = np.int32(nan - 1), np.int32(2 * _NOTHING), np.int32(1)
    if shift.size == 1:
        # the magnitude of E in the result's range, before its edges: one int32 addition for each element
        by = np.int32(shift[0] - lowest + 1)
        for i in range(out.size):
            m = np.int32(codes[i]) & greatest
            log = np.int32(m + by)
            out[i] = (np.int32(log + log) if m != 0 else nothing) | (one if codes[i] > greatest else np.int32(0))
    else:
        for i in range(out.size):
            m = np.int32(codes[i]) & greatest
            log = np.int32(m + np.int32(shift[i] - lowest + 1))
            out[i] = (np.int32(log + log) if m != 0 else nothing) | (one if codes[i] > greatest else np.int32(0))


@kernel
def _distances(a, c, half, index):  # type: ignore[no-untyped-def]
    """Where in the table of twice `half` entries the step of a + c is."""
    one, last, skip = np.int32(1), np.int32(half - 1), np.int32(half)
    for i in range(index.size):
        # without the sign bit; each difference goes back to int32, or Numba would widen the loop to int64
        z = abs(np.int32((a[i] >> one) - (c[i] >> one)))
        # -(differ) & skip is skip for unlike signs, where the table of db begins, and 0 for like ones
        index[i] = np.int32(min(z, last) + (np.int32(-((a[i] ^ c[i]) & one)) & skip))


@kernel
def _look_up(table, index, step):  # type: ignore[no-untyped-def]
    for i in range(step.size):
        # unsigned: Numba would ask of a signed index whether it counts from the end
        step[i] = table[np.uint32(index[i])]


@kernel
def _settle(a, c, step, greatest, overflow, smallest, one_from, zero_to, out):  # type: ignore[no-untyped-def]
    """The codes of a + c; step becomes the magnitude before the edges. Returns how many are left open.

    From `one_from` to 0 the smallest, up to `zero_to` what is below its half.
    """
    one, none, nan = np.int32(1), np.int32(0), np.int32(greatest + 1)
    nothing, tie, empty = np.int32(_NOTHING // 2), np.int32(_OPEN // 2), np.int32(2 * _NOTHING + 1)
    count = 0
    for i in range(out.size):
        p, q = a[i], c[i]
        # the greater logarithm and its step; _NOTHING and _OPEN together are still within int32
        m = np.int32(max(p >> one, q >> one) + step[i])
        # kept for who looks for the elements left open: there are none in almost all blocks
        step[i] = m
        count += 1 if m < tie or zero_to < m < one_from else 0
        below = none if m < nothing else (one if m >= one_from else smallest)
        code = overflow if m > greatest else (below if m < one else m)
        # the sign of the greater operand; x - x becomes zero, which has none
        sign = (p if (p >> one) >= (q >> one) else q) & one
        code = code | (sign * nan) if code > none else code
        out[i] = nan if p == empty or q == empty or code < none else code
    return count


_BLOCK = 1024


@kernel
def _add_blocks(a, a_shift, c, c_shift, table, one_from, zero_to, to, out, hard):  # type: ignore[no-untyped-def]
    """Block after block; writes the indices left open, and returns how many."""
    number_a, number_c, step = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32)
    greatest, overflow, smallest = np.int32(to.max_magnitude), np.int32(to.overflow), np.int32(to.saturate)
    first, last, count = np.int32(one_from), np.int32(zero_to), 0
    for begin in range(0, out.size, _BLOCK):
        end = min(begin + _BLOCK, out.size)
        p, q, s = number_a[: end - begin], number_c[: end - begin], step[: end - begin]
        _numbers(a[begin:end], to.sign_bit, a_shift if a_shift.size == 1 else a_shift[begin:end], to.lowest, p)
        _numbers(c[begin:end], to.sign_bit, c_shift if c_shift.size == 1 else c_shift[begin:end], to.lowest, q)
        _distances(p, q, table.size // 2, s)
        _look_up(table, s, s)
        if _settle(p, q, s, greatest, overflow, smallest, first, last, out[begin:end]):
            for i in range(s.size):
                if s[i] < _OPEN // 2 or zero_to < s[i] < one_from:
                    hard[count] = begin + i
                    count += 1
    return count


_LEAST = 1 << 17


def _ends(shift: NDArray[np.int64]) -> tuple[int, int]:
    """The least and the greatest, (0, 0) of none."""
    if shift.size == 1:
        return int(shift[0]), int(shift[0])
    return (int(shift.min()), int(shift.max())) if shift.size else (0, 0)


def add(a: Operand, c: Operand, fmt: LNSFormat, to: Target, out: NDArray[Any]) -> NDArray[np.int64] | None:
    """Write the codes of a + c, all of one format; the indices that are left open. None where this cannot serve."""
    steps = _steps(fmt) if to.mode == NEAREST else None
    (a_least, a_most), (c_least, c_most) = _ends(a.shift), _ends(c.shift)
    # all int32 sums of the loops stay in range up to FAR
    furthest = max(abs(end - to.lowest) for end in (a_least, a_most, c_least, c_most)) + fmt.max_magnitude
    widest = max(a_most - c_least, c_most - a_least) + fmt.max_magnitude - 1
    if steps is None or furthest >= FAR or widest > steps.widest:
        return None
    one_from, zero_to = 1, 1
    if not to.saturate:
        # half of the smallest lies at 1 - K. m was rounded by half a step at most: from one_from on the exact sum is
        # above it, up to zero_to below; what lies between is left open
        one_from = math.ceil(1.5 - to.steps_in_two + to.steps_error)
        zero_to = math.floor(0.5 - to.steps_in_two - to.steps_error)

    def part(begin: int, end: int, hard: NDArray[np.int64]) -> int:
        x, y = a.part(begin, end), c.part(begin, end)
        count: int = _add_blocks(
            x.codes, x.shift, y.codes, y.shift, steps.table, one_from, zero_to, to, out[begin:end], hard
        )
        return count

    return in_parts(part, out.size, _LEAST)
