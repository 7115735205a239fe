"""a + c to nearest in one format of at most 8 bits, by its tables of sb and db, at any scales: `narrow_sums` in int16.

    distances z = |E_a - E_c|  ->  steps sb(z) or db(z), from the table  ->  sums hi + step, and their edges

E is counted from the smallest of the result, block after block in the nearest cache, with the scales of a block spread
there. 16 bits are enough for codes of 8, and twice as many fit a vector. Left open are ties, and what may lie on either
side of the half of the smallest number: `lnsnum.operations.sums` takes these.
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
from lnsnum.kernels.scales import Scales, spread
from lnsnum.kernels.threads import in_parts
from lnsnum.kernels.word_tables import in_registers, look_up_words
from lnsnum.operations.operation import Operand

FAR = 12_000
"""Logarithms of operands and steps stay below this in size: what is beyond FAR goes another way."""

_NOTHING = np.int16(-16_000)
"""The logarithm of zero and NaN: below all others, and further from them than the tables reach."""

_OPEN, _ZERO = np.int16(-16_500), np.int16(-16_501)
"""The steps of a tie and of x - x: below all others, and 16 bits hold what they are added to."""


class _Steps(NamedTuple):
    """sb, a zero, db, a zero: the zeros are for all that is beyond the tables."""

    table: NDArray[np.int16]
    widest: int
    """The greatest distance at which the table is right."""
    words: NDArray[np.int16]
    """The same for registers; empty where they cannot hold it."""


@lru_cache(maxsize=32)
def _steps(fmt: LNSFormat) -> _Steps | None:
    """The steps of a format; None where there is no table of them, or a step is beyond FAR."""
    if fmt.bits > 8 or not has_tables(fmt):
        return None
    table = tables(Exact(), fmt)
    parts = table.sb, table.db[1:]
    if table.sb.size >= FAR or any(np.abs(part[part != TIE]).max(initial=0) > FAR for part in parts):
        return None
    sb, db = (np.where(part == TIE, _OPEN, part) for part in (table.sb, table.db))
    db[0] = _ZERO
    steps = np.concatenate([sb, [0], db, [0]]).astype(np.int16)
    steps.flags.writeable = False  # it is shared
    # a complete table ends where steps are 0 for ever: the zero behind it serves all distances
    return _Steps(steps, 4 * FAR if table.complete else table.sb.size - 1, in_registers(steps))


@kernel
def _distances(a, c, a_shift, c_shift, greatest, half, log_a, log_c, place):  # type: ignore[no-untyped-def]
    """The logarithms, and where in the table of twice `half` entries the step of a + c is."""
    zero, last = np.int16(0), np.int16(half - 1)
    for i in range(place.size):
        code_a, code_c = np.int16(a[i]), np.int16(c[i])
        m_a, m_c = np.int16(code_a & greatest), np.int16(code_c & greatest)
        p = np.int16(m_a + a_shift[i]) if m_a != zero else _NOTHING
        q = np.int16(m_c + c_shift[i]) if m_c != zero else _NOTHING
        z = min(np.int16(max(p, q) - min(p, q)), last)
        place[i] = np.int16(z + half) if np.int16(code_a ^ code_c) > greatest else z
        log_a[i], log_c[i] = p, q


@kernel
def _look_up(table, place, step):  # type: ignore[no-untyped-def]
    for i in range(step.size):
        step[i] = table[place[i]]


@kernel
def _settle(a, c, log_a, log_c, step, rule, flags, out):  # type: ignore[no-untyped-def]
    """The codes of a + c; returns whether some are left open, those whose flags are 1."""
    greatest, overflow, smallest, one_from, zero_to = rule
    zero, one, nan = np.int16(0), np.int16(1), np.int16(greatest + np.int16(1))
    some = zero
    for i in range(out.size):
        code_a, code_c, p, q = np.int16(a[i]), np.int16(c[i]), log_a[i], log_c[i]
        hi = max(p, q)
        m = np.int16(hi + step[i])
        none = (hi == _NOTHING) | (step[i] == _ZERO)
        is_open = ((step[i] == _OPEN) | ((m > zero_to) & (m < one_from))) & (not none)
        flags[i] = is_open
        some = np.int16(some | np.int16(is_open))  # not a count, which would be wider
        # selections, from the range inwards; -1 is NaN
        below = one if m >= one_from else smallest
        m = overflow if m > greatest else (below if m < one else m)
        # the sign of the greater operand; x - x becomes zero, which has none
        sign = np.int16((code_a if p >= q else code_c) & nan)
        code = np.int16(m | sign) if m >= zero else nan
        code = zero if none | (m == zero) else code
        out[i] = nan if (code_a == nan) | (code_c == nan) else code
    return some != zero


_BLOCK = 2048


@kernel
def _add_blocks(a, a_values, a_walk, c, c_values, c_walk, begin, table, words, rule, out, hard):  # type: ignore[no-untyped-def]
    """Block after block; writes the indices left open, and returns how many."""
    half, greatest, count = np.int16(table.size // 2), rule[0], 0
    shift_a, shift_c = np.full(_BLOCK, a_values[0]), np.full(_BLOCK, c_values[0])
    log_a, log_c = np.empty(_BLOCK, np.int16), np.empty(_BLOCK, np.int16)
    place, step = np.empty(_BLOCK, np.int16), np.empty(_BLOCK, np.int16)
    flags = np.zeros(_BLOCK, np.uint8)
    eights = flags.view(np.uint64)
    for start in range(0, out.size, _BLOCK):
        end = min(start + _BLOCK, out.size)
        n = end - start
        # one scale for all is written once, and not spread again
        if a_values.size > 1:
            spread(a_values, a_walk, begin + start, shift_a[:n])
        if c_values.size > 1:
            spread(c_values, c_walk, begin + start, shift_c[:n])
        x, y, p, q, s = a[start:end], c[start:end], log_a[:n], log_c[:n], step[:n]
        _distances(x, y, shift_a, shift_c, greatest, half, p, q, place[:n])
        if words.size > 0:
            look_up_words(words, place, step, n)
        else:
            # unsigned: Numba would ask of a signed index whether it counts from the end
            _look_up(table, place[:n].view(np.uint16), s)
        if _settle(x, y, p, q, s, rule, flags, out[start:end]):
            # almost all are 0: one comparison for eight of them
            for j in range((n + 7) >> 3):
                if eights[j] != 0:
                    for i in range(8 * j, min(8 * j + 8, n)):
                        if flags[i]:
                            hard[count] = start + i
                            count += 1
    return count


class _Plan(NamedTuple):
    """What `_add_blocks` takes of a format, a target and the scales, each with its walk."""

    scales: tuple[Any, ...]
    steps: _Steps
    rule: tuple[Any, ...]


def _plan(fmt: LNSFormat, to: Target, scales: tuple[Scales, Scales]) -> _Plan | None:
    steps = _steps(fmt) if to.mode == NEAREST else None
    if steps is None:
        return None
    shifts = [scale.plus(1 - to.lowest) for scale in scales]
    (least, most), (c_least, c_most) = (shift.ends for shift in shifts)
    widest = max(most - c_least, c_most - least) + fmt.max_magnitude - 1
    if max(-least, -c_least, max(most, c_most) + fmt.max_magnitude) > FAR or widest > steps.widest:
        return None
    one_from, zero_to = 1, 1
    if not to.saturate:
        # half of the smallest lies at 1 - K. m was rounded by half a step at most: from one_from on the exact sum is
        # above it, up to zero_to below; what lies between is left open
        one_from = max(math.ceil(1.5 - to.steps_in_two + to.steps_error), -2 * FAR)
        zero_to = max(math.floor(0.5 - to.steps_in_two - to.steps_error), -2 * FAR)
    rule = tuple(map(np.int16, (to.max_magnitude, to.overflow, to.saturate, one_from, zero_to)))
    a, c = ((shift.values.astype(np.int16), shift.walk) for shift in shifts)
    return _Plan((a, c), steps, rule)


def add(a: Operand, c: Operand, to: Target, out: NDArray[Any]) -> NDArray[np.int64] | None:
    """Write the codes of a + c, all of one format; the indices that are left open. None where this cannot serve."""
    if out.size == 0:
        return np.empty(0, np.int64)
    plan = _plan(a.fmt, to, (a.scale, c.scale))
    if plan is None:
        return None
    x, y = plan.scales
    tables = plan.steps.table, plan.steps.words

    def part(begin: int, end: int, hard: NDArray[np.int64]) -> int:
        count: int = _add_blocks(
            a.codes[begin:end], *x, c.codes[begin:end], *y, begin, *tables, plan.rule, out[begin:end], hard
        )
        return count

    return in_parts(part, out.size, _LEAST)


_LEAST = 1 << 17
