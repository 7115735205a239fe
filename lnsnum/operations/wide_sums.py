"""a + c in one format wider than tables serve, in one loop without a branch that compilers make vectors of.

    E  =  hi + K log2(1 + 2^-u)  or  hi + K log2(1 - 2^-u),      u = |E_a - E_c| / K octaves, K steps in one

All numbers are doubles. What lies within the bound of the error of a rounding boundary, or of its random bits, is left
open, about one sum in a million of lns32f23: `lnsnum.operations.sums` takes these, element by element.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.elementary import CELL_RANGE, CELLS, log2_of_normal, power_of_half
from lnsnum.kernels.rounding import (
    AWAY_FROM_ZERO,
    DOWN,
    NEAREST,
    STOCHASTIC_LOG,
    STOCHASTIC_VALUE,
    UP,
    Target,
    UInt32Array,
)
from lnsnum.kernels.threads import in_parts
from lnsnum.operations.operation import Operand, of_part

POSITION_ERROR = 2.0**-44
"""Bound of the error of `log2_of_sum`, in octaves, with the roundings of u and of K's product. The worst is the
difference next to the first cell: h is within 2^-54, and 1 - h above 2^-8.6, which makes 2^-44.9; the roundings of
results up to 37 octaves are less than half of that."""

MOST_STEPS = 2.0**36
"""The greatest K at which POSITION_ERROR decides nearly all sums."""

_NOTHING = -(2.0**60)
"""The logarithm of zero: below all others by more than any sum can tell."""


@kernel
def log2_of_sum(y, opposed):  # type: ignore[no-untyped-def]
    """log2(1 + 2^-u), or where `opposed` log2(1 - 2^-u), u = y / CELLS; any finite number at u = 0 for the latter."""
    # 2^-u = h (1 - q), so 1 - 2^-u = (1 - h) + h q: for u near 0 a sum of two positive parts, and nothing cancels
    h, q = power_of_half(min(y, CELL_RANGE))
    return log2_of_normal((1.0 - h) + h * q if opposed else 1.0 + (h - h * q))


@kernel
def _logarithms(codes, max_magnitude, shift, out):  # type: ignore[no-untyped-def]
    """out = E as doubles, _NOTHING for zero and NaN; `shift` for each element or one for all."""
    greatest = np.uint32(max_magnitude)
    if shift.size == 1:
        # E is below 2^33: a double holds it exactly
        by = np.float64(shift[0])
        for i in range(out.size):
            m = np.uint32(codes[i]) & greatest
            out[i] = np.float64(np.int32(m)) + by if m != 0 else _NOTHING
    else:
        for i in range(out.size):
            m = np.uint32(codes[i]) & greatest
            out[i] = np.float64(np.int32(m)) + np.float64(shift[i]) if m != 0 else _NOTHING


class _Rule(NamedTuple):
    """What the loop takes of a target, each a double; kernels take them as one array, which costs them no time."""

    lowest: float
    greatest: float
    overflow: float
    steps: float
    """K."""
    error: float
    """Of a position, in code steps."""
    exact_octave: float
    """K where it is exact: the distance at which a difference is a power of two less; else no distance."""
    up_if_positive: float
    """1 where positive numbers are rounded away from zero, and so do not become it; else 0."""
    up_if_negative: float

    @classmethod
    def of(cls, to: Target) -> _Rule:
        # the error of K counts up to 37 times by its product, with so many octaves, and less than twice by u
        error = to.steps_in_two * POSITION_ERROR + 64.0 * to.steps_error
        exact_octave = -1.0 if to.steps_error else to.steps_in_two
        ups = [float(to.mode in (way, AWAY_FROM_ZERO)) for way in (UP, DOWN)]
        greatest, overflow = float(to.max_magnitude), float(to.overflow)
        return cls(float(to.lowest), greatest, overflow, to.steps_in_two, error, exact_octave, ups[0], ups[1])


_TERMS = 12
"""Of the series of the probability in the value: the next is below 2^-38 for one step an octave."""

_PROBABILITY_ERROR = 2.0**-36


def _terms(log_step: float) -> list[float]:
    """The coefficients of (b^f - 1) / (b - 1), b the factor of a step, from that of f on."""
    return [log_step**k / math.factorial(k) / math.expm1(log_step) for k in range(1, _TERMS + 1)]


_NEAREST, _DIRECTED, _BY_LOG, _BY_VALUE = range(4)


_BLOCK = 1024

_LITTLE = 2.0**-60
"""Less than the error of any position."""


def _adder(way: int) -> Callable[..., int]:
    """The loops of one way to round: a constant of them, so that no other way costs them anything.

    They call no other kernel that is made so: Numba keeps machine code on disk by the constants, which must be plain.
    """

    @kernel
    def add_blocks(a, a_shift, c, c_shift, nan, rule, saturate, terms, random, out, hard):  # type: ignore[no-untyped-def]
        """Block after block, logarithms in the nearest cache; writes the indices left open, and returns how many.

        The codes of the sums are from codes and logarithms; one that is left open is NaN.
        """
        lowest, greatest, overflow, steps, error = rule[0], rule[1], rule[2], rule[3], rule[4]
        exact_octave, up_if_positive, up_if_negative = rule[5], rule[6], rule[7]
        t0, t1, t2, t3, t4, t5 = terms[0], terms[1], terms[2], terms[3], terms[4], terms[5]
        t6, t7, t8, t9, t10, t11 = terms[6], terms[7], terms[8], terms[9], terms[10], terms[11]
        # cells in a code step; and how near random bits may be to their probability, whose slope is below 2
        per, doubt = CELLS / steps, 2.0 * error + _PROBABILITY_ERROR
        logs_a, logs_c, words = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK, np.uint32)
        count = 0
        if random.size == 1:
            words[:] = random[0]
        for begin in range(0, out.size, _BLOCK):
            end = min(begin + _BLOCK, out.size)
            x, y, log_a, log_c = a[begin:end], c[begin:end], logs_a[: end - begin], logs_c[: end - begin]
            _logarithms(x, nan - 1, a_shift if a_shift.size == 1 else a_shift[begin:end], log_a)
            _logarithms(y, nan - 1, c_shift if c_shift.size == 1 else c_shift[begin:end], log_c)
            to, bits, left = out[begin:end], words if random.size == 1 else random[begin:end], 0
            for i in range(x.size):
                code_a, code_c, hi = np.uint32(x[i]), np.uint32(y[i]), max(log_a[i], log_c[i])
                z = abs(log_a[i] - log_c[i])
                opposed = (code_a ^ code_c) & nan != 0
                sign = (code_a if log_a[i] >= log_c[i] else code_c) & nan
                # u is the distance in octaves; all of this is without a branch, truths are numbers
                r = steps * log2_of_sum(z * per, opposed)
                away = up_if_negative if sign != 0 else up_if_positive
                if way == _NEAREST:
                    whole = np.rint(r)
                    rest = r - whole
                    up, is_open = 0.0, abs(rest) > 0.5 - error
                else:
                    # K and -K must come out so: a number doubled, and one less its half
                    doubled, halved = z == 0.0 and not opposed, z == exact_octave and opposed
                    alone = min(log_a[i], log_c[i]) == _NOTHING
                    is_exact = alone or (exact_octave > 0.0 and (doubled or halved))
                    r = steps if doubled else (-steps if halved else r)
                    # any other sum is beyond the greater operand, by however little
                    r = 0.0 if alone else (min(r, -_LITTLE) if opposed else max(r, _LITTLE))
                    whole = np.floor(r)
                    rest = r - whole
                    if way == _DIRECTED:
                        up = away if rest != 0.0 or not is_exact else 0.0
                        # within half a step of the operand the side is known
                        is_open = abs(rest - 0.5) > 0.5 - error and abs(r) >= 0.5 and not is_exact
                    else:
                        share, p = np.float64(bits[i]) * 2.0**-32, rest
                        if way == _BY_VALUE:
                            p = t8 + rest * (t9 + rest * (t10 + rest * t11))
                            p = t4 + rest * (t5 + rest * (t6 + rest * (t7 + rest * p)))
                            p = rest * (t0 + rest * (t1 + rest * (t2 + rest * (t3 + rest * p))))
                        up = 1.0 if share < p else 0.0
                        # 0 and 1 are the same place: there the floor is that of the next step
                        is_open = abs(abs(share - p) - 0.5) > 0.5 - doubt
                # integers in doubles, exact below 2^53; the part of a step is kept apart, with all its bits
                floor = (hi - lowest + 1.0) + whole
                m = floor + up
                # the two sums that are zero, whatever the logarithm of them came out as
                zero = hi == _NOTHING or (opposed and z == 0.0)
                if way == _DIRECTED:
                    below = max(away, saturate)
                elif way == _BY_VALUE:
                    # below the smallest its value has a say
                    below = saturate
                    is_open = is_open or (floor < 1.0 and saturate == 0.0)
                else:
                    from_half = (floor - 1.0) + rest + steps
                    is_open = is_open or abs(from_half) < 2.0 * error
                    below = 1.0 if from_half >= 0.0 else saturate
                is_open = is_open and not zero
                left += is_open
                # selections, from the range inwards; -1 is NaN
                m = overflow if m > greatest else (below if floor < 1.0 else m)
                m = 0.0 if zero else m
                code = np.uint32(np.int32(m)) | (sign if m > 0.0 else np.uint32(0))
                to[i] = nan if code_a == nan or code_c == nan or m < 0.0 or is_open else code
            if left:
                for i in range(begin, end):
                    if out[i] == nan and a[i] != nan and c[i] != nan:
                        hard[count] = i
                        count += 1
        return count

    return add_blocks


_BLOCKS = [_adder(way) for way in range(4)]

_LEAST = 1 << 16


class Prepared(NamedTuple):
    """A kernel and all that it takes of a target: kernel(a, a_shift, c, c_shift, *arguments, random, out, hard)."""

    kernel: Callable[..., int]
    arguments: tuple[Any, ...]


@lru_cache(maxsize=1024)
def prepared(to: Target) -> Prepared | None:
    """What a sum needs; None where K is too great, or a step too wide for the series of the probability."""
    way = {NEAREST: _NEAREST, STOCHASTIC_LOG: _BY_LOG, STOCHASTIC_VALUE: _BY_VALUE}.get(to.mode, _DIRECTED)
    if to.steps_in_two > MOST_STEPS or (way == _BY_VALUE and to.steps_in_two < 1.0):
        return None
    rule, terms = np.array(_Rule.of(to)), np.array(_terms(to.log_step) if way == _BY_VALUE else [0.0] * _TERMS)
    return Prepared(_BLOCKS[way], (np.uint32(to.sign_bit), rule, float(to.saturate), terms))


def add(a: Operand, c: Operand, to: Target, random: UInt32Array, out: NDArray[Any]) -> NDArray[np.int64] | None:
    """Write the codes of a + c, all of one format; the indices that are left open. None where this cannot serve."""
    by = prepared(to)
    if by is None:
        return None

    def part(begin: int, end: int, hard: NDArray[np.int64]) -> int:
        x, y, bits = a.part(begin, end), c.part(begin, end), of_part(random, begin, end)
        return by.kernel(x.codes, x.shift, y.codes, y.shift, *by.arguments, bits, out[begin:end], hard)

    return in_parts(part, out.size, _LEAST)
