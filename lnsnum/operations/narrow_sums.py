"""a + c in one format, by its tables of sb and db, in loops that compilers make vectors of.

    distances z = |E_a - E_c|  ->  steps sb(z) or db(z), loads from the table  ->  sums hi + step, and their edges

Numbers are 2 E + sign in int32, E counted from the smallest of the result, block after block in the nearest cache. To
nearest the table has rounded steps, for the directed modes 2 floor + 1 where the step is no integer, and for the
stochastic ones 2^32 floor + the threshold of 32 bits below which random bits go up. Left open are ties, random
bits next to their threshold, and what may lie on either side of the half of the smallest number:
`lnsnum.operations.sums` takes these.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.gaussian import TIE, Exact, exact_steps, gaussian_position, has_tables, last_step, tables
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.rounding import (
    AWAY_FROM_ZERO,
    DOWN,
    NEAREST,
    STOCHASTIC_LOG,
    STOCHASTIC_VALUE,
    UP,
    Target,
    UInt32Array,
    steps_in_two,
)
from lnsnum.kernels.threads import in_parts
from lnsnum.operations.operation import Operand, of_part

FAR = 1 << 26
"""Logarithms of operands and steps stay below this in size: what is beyond FAR goes another way."""

_NOTHING = -4 * FAR
"""The logarithm of zero, and the step of x - x: below all sums."""

_OPEN = -16 * FAR
"""The step of a tie: below all others."""


_UNIT = 2.0**32
"""Random bits and their thresholds count in units of this part of a step."""

_MOST_DOUBT = 1 << 12
"""So many thresholds, of 2^32, may be left open on either side: more, and the format goes another way."""


class _Steps(NamedTuple):
    """sb and what is beyond its table, db and what is beyond it: the last of each serves all greater distances."""

    table: NDArray[Any]
    """Of int32; of the stochastic modes of int64: 2^32 floor, and the threshold below which random bits go up."""
    doubt: int
    """How far a threshold may be off."""
    widest: int
    """The greatest distance at which the table is right."""


def _joined(sb: NDArray[Any], beyond_sb: int, db: NDArray[Any], beyond_db: int, dtype: Any) -> NDArray[Any]:
    """One array, which is shared."""
    both = np.concatenate([sb, [beyond_sb], db, [beyond_db]]).astype(dtype)
    both.flags.writeable = False
    return both


@lru_cache(maxsize=64)
def _steps(fmt: LNSFormat, mode: int) -> _Steps | None:
    """The steps of a format; None where there is no table of them, a step is beyond FAR, or thresholds are unsure."""
    if not has_tables(fmt):
        return None
    if mode == NEAREST:
        table = tables(Exact(), fmt)
        sb, db = (np.where(part == TIE, _OPEN, part) for part in (table.sb, table.db))
        if any(np.abs(part[part != _OPEN]).max() > FAR for part in (sb, db)):
            return None
        # x - x: its step takes every sum below all others
        db[0] = _NOTHING
        # a complete table ends where steps are 0 for ever: the zero behind it serves all distances
        return _Steps(_joined(sb, 0, db, 0, np.int32), 0, 8 * FAR if table.complete else sb.size - 1)
    return _floors(fmt, mode)


def _floors(fmt: LNSFormat, mode: int) -> _Steps | None:
    steps, _ = steps_in_two(fmt)
    is_random = mode in (STOCHASTIC_LOG, STOCHASTIC_VALUE)
    # from the first on all steps are between 0 and 1, or -1 and 0; from the second on by less than 2^-33 of one
    end = math.ceil(steps * (max(math.log2(steps), 0.0) + 35.0)) if is_random else last_step(fmt)
    z = np.arange(1, min(end + 1, 2 * fmt.max_magnitude), dtype=np.int64)
    widest = 8 * FAR if z.size == end else z.size
    down = [exact_steps(z, fmt, subtracted, rounding="toward_zero") for subtracted in (False, True)]
    up = [exact_steps(z, fmt, subtracted, rounding="up") for subtracted in (False, True)]
    first = [exact_steps(np.zeros(1, np.int64), fmt, False, rounding=way) for way in ("toward_zero", "up")]
    sb, sb_up = (np.concatenate(parts) for parts in zip(first, (down[0], up[0]), strict=True))
    # x - x: its step takes every sum below all others
    db, db_up = (np.concatenate([[_NOTHING], part]) for part in (down[1], up[1]))
    if max(np.abs(part).max() for part in (sb, db[1:])) > FAR:
        return None
    if not is_random:
        both = 2 * sb + (sb_up > sb), 2 * db + (db_up > db)
        return _Steps(_joined(both[0], 1, both[1], -1, np.int32), 0, widest)
    found, doubt = [], 0.0
    log_step = math.log(2.0) / steps
    for floor, ceiling, subtracted in ((sb, sb_up, False), (db, db_up, True)):
        position, error = np.zeros(floor.size), np.zeros(floor.size)
        _positions(subtracted, *steps_in_two(fmt), position, error)
        share = np.clip(position - floor, 0.0, 1.0)
        if mode == STOCHASTIC_VALUE:
            share = np.expm1(share * log_step) / math.expm1(log_step)
        # the slope of the probability is below log_step + 1; the rest is for expm1, whoever's library it is
        doubt = max(doubt, float(error.max()) * (log_step + 1.0) + 1e-13)
        threshold = np.where(ceiling > floor, np.clip(np.rint(share * _UNIT), 1.0, _UNIT - 1.0), 0.0)
        found.append((floor << 32) + threshold.astype(np.int64))
    if doubt * _UNIT > _MOST_DOUBT:
        return None
    # beyond its table a step is as good as 0: it differs by less than the doubt
    return _Steps(_joined(found[0], 0, found[1], 0, np.int64), math.ceil(doubt * _UNIT) + 1, widest)


@kernel
def _positions(subtracted, steps, steps_error, out, error):  # type: ignore[no-untyped-def]
    """sb(z) or db(z) as a double, for z from 0 on, but not db(0)."""
    for z in range(1 if subtracted else 0, out.size):
        out[z], error[z] = gaussian_position(z, subtracted, steps, steps_error)


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
    for i in range(index.size):
        # unsigned: Numba would ask of a signed index whether it counts from the end
        step[i] = table[np.uint32(index[i])]


@kernel
def _direct(a, c, step, up_if_positive, up_if_negative):  # type: ignore[no-untyped-def]
    """Steps from 2 floor + 1 where they are no integers: rounded up for the signs that say so, else down."""
    one, nothing = np.int32(1), np.int32(_NOTHING)
    for i in range(step.size):
        v = step[i]
        up = up_if_negative if max(a[i], c[i]) & one != 0 else up_if_positive
        # the sum of a number and zero is exact, but was looked up as one of numbers far apart
        step[i] = np.int32((v >> one) + (v & up)) if min(a[i], c[i]) > nothing else np.int32(0)


@kernel
def _draw(steps, random, doubt, step):  # type: ignore[no-untyped-def]
    """Steps from floors: up where random bits are below the threshold; open where they are next to it."""
    for i in range(step.size):
        bits = np.int64(random[i])
        # modulo 2^32: a threshold that should be 2^32 is that of the next floor's 0
        near = (steps[i] - bits + doubt) & 0xFFFFFFFF
        up = np.int32(1) if bits < steps[i] & 0xFFFFFFFF else np.int32(0)
        step[i] = np.int32(_OPEN) if near <= doubt + doubt else np.int32(np.int32(steps[i] >> 32) + up)


class _Rule(NamedTuple):
    """What the loops take of a target, each an int64; kernels take them as one array, which costs them no time."""

    mode: int
    doubt: int
    lowest: int
    greatest: int
    overflow: int
    smallest: int
    """What a positive number below the smallest becomes: 0 or 1."""
    negative_smallest: int
    one_from: int
    """From here to 0 the smallest, whatever the sign."""
    zero_to: int
    """Between this and `one_from` sums are left open."""

    @classmethod
    def of(cls, to: Target, doubt: int) -> _Rule:
        ups = [int(to.saturate or to.mode in (way, AWAY_FROM_ZERO)) for way in (UP, DOWN)]
        one_from = zero_to = 1
        if not to.saturate and to.mode == STOCHASTIC_VALUE:
            # below the smallest its value has a say
            one_from, zero_to = 2, _NOTHING // 2
        elif not to.saturate and to.mode in (NEAREST, STOCHASTIC_LOG):
            # half of the smallest lies at 1 - K. m was rounded by half a step at most, or by a whole one: from
            # one_from on the exact sum is above it, up to zero_to below; what lies between is left open
            off = 0.5 if to.mode == NEAREST else 1.0
            one_from = math.ceil(1.0 + off - to.steps_in_two + to.steps_error)
            zero_to = math.floor(1.0 - off - to.steps_in_two - to.steps_error)
        greatest, overflow = to.max_magnitude, to.overflow
        return cls(to.mode, doubt, to.lowest, greatest, overflow, ups[0], ups[1], one_from, zero_to)


@kernel
def _settle(a, c, step, rule, out):  # type: ignore[no-untyped-def]
    """The codes of a + c; step becomes the magnitude before the edges. Returns how many are left open."""
    one, none, nan = np.int32(1), np.int32(0), np.int32(rule[3] + 1)
    greatest, overflow, one_from, zero_to = np.int32(rule[3]), np.int32(rule[4]), np.int32(rule[7]), np.int32(rule[8])
    smallest, negative_smallest = np.int32(rule[5]), np.int32(rule[6])
    nothing, tie, empty = np.int32(_NOTHING // 2), np.int32(_OPEN // 2), np.int32(2 * _NOTHING + 1)
    between = np.uint32(max(rule[7] - rule[8] - 1, 0))
    count = np.int32(0)
    for i in range(out.size):
        p, q = a[i], c[i]
        # with its sign, by which the sum goes: of equal logarithms, of unlike signs, it becomes zero, which has none
        hi = max(p, q)
        # _NOTHING and _OPEN together are still within int32
        m = np.int32((hi >> one) + step[i])
        # kept for who looks for the elements left open: there are none in almost all blocks
        step[i] = m
        is_open = (m < tie) | (np.uint32(m - zero_to - one) < between)
        count = np.int32(count + (one if is_open else none))
        sign = np.int32(-(hi & one))
        below = one if m >= one_from else (negative_smallest if sign != none else smallest)
        below = none if m < nothing else below
        code = overflow if m > greatest else (below if m < one else m)
        code = np.int32(code | np.int32(sign & nan)) if code > none else code
        out[i] = nan if (p == empty) | (q == empty) | (code < none) else code
    return count


_BLOCK = 1024


@kernel
def add_blocks(a, a_shift, c, c_shift, table, rule, random, out, hard):  # type: ignore[no-untyped-def]
    """Block after block; writes the indices left open, and returns how many."""
    number_a, number_c, step = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32)
    steps, words = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.uint32)
    mode, lowest, nan, zero_to, one_from, count = rule[0], rule[2], rule[3] + 1, rule[8], rule[7], 0
    if random.size == 1:
        words[:] = random[0]
    for begin in range(0, out.size, _BLOCK):
        end = min(begin + _BLOCK, out.size)
        p, q, s = number_a[: end - begin], number_c[: end - begin], step[: end - begin]
        _numbers(a[begin:end], nan, a_shift if a_shift.size == 1 else a_shift[begin:end], lowest, p)
        _numbers(c[begin:end], nan, c_shift if c_shift.size == 1 else c_shift[begin:end], lowest, q)
        _distances(p, q, table.size // 2, s)
        if table.itemsize == 8:
            _look_up(table, s, steps)
            _draw(steps, words if random.size == 1 else random[begin:end], rule[1], s)
        else:
            _look_up(table, s, s)
            if mode != NEAREST:
                away = mode == AWAY_FROM_ZERO
                _direct(p, q, s, np.int32(away or mode == UP), np.int32(away or mode == DOWN))
        if _settle(p, q, s, rule, out[begin:end]):
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


class Tabulated(NamedTuple):
    """All that `add_blocks` takes of a format and a target."""

    steps: _Steps
    rule: NDArray[np.int64]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """In their places."""
        return self.steps.table, self.rule

    def serves(self, a_ends: tuple[int, int], c_ends: tuple[int, int]) -> bool:
        """Whether the table and int32 hold what operands with shifts between these need."""
        lowest, magnitude = int(self.rule[2]), int(self.rule[3])
        furthest = max(abs(end - lowest) for end in (*a_ends, *c_ends)) + magnitude
        widest = max(a_ends[1] - c_ends[0], c_ends[1] - a_ends[0]) + magnitude - 1
        # all int32 sums of the loops stay in range up to FAR
        return furthest < FAR and widest <= self.steps.widest


@lru_cache(maxsize=1024)
def tabulated(fmt: LNSFormat, to: Target) -> Tabulated | None:
    """What a sum in this format needs; None where it has no tables."""
    steps = _steps(fmt, to.mode)
    return None if steps is None else Tabulated(steps, np.array(_Rule.of(to, steps.doubt), np.int64))


def add(
    a: Operand, c: Operand, fmt: LNSFormat, to: Target, random: UInt32Array, out: NDArray[Any]
) -> NDArray[np.int64] | None:
    """Write the codes of a + c, all of one format; the indices that are left open. None where this cannot serve."""
    by = tabulated(fmt, to)
    if by is None or not by.serves(_ends(a.shift), _ends(c.shift)):
        return None

    def part(begin: int, end: int, hard: NDArray[np.int64]) -> int:
        x, y, bits = a.part(begin, end), c.part(begin, end), of_part(random, begin, end)
        count: int = add_blocks(x.codes, x.shift, y.codes, y.shift, *by.arguments, bits, out[begin:end], hard)
        return count

    return in_parts(part, out.size, _LEAST)
