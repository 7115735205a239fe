"""a + c to nearest in one format wider than tables serve, in one loop without a branch that compilers make vectors of.

    E  =  hi + K log2(1 + 2^-u)  or  hi + K log2(1 - 2^-u),      u = |E_a - E_c| / K octaves, K steps in one

All numbers are doubles. What lies within the bound of the error of a rounding boundary is left open, about one sum in a
million of lns32f23: `lnsnum.operations.sums` takes these, and all other modes, element by element.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.elementary import CELL_RANGE, CELLS, log2_of_normal, power_of_half
from lnsnum.kernels.rounding import NEAREST, Target
from lnsnum.kernels.threads import in_parts
from lnsnum.operations.operation import Operand

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


@kernel
def _add(a, c, log_a, log_c, to, out):  # type: ignore[no-untyped-def]
    """The codes of the sums, from codes and logarithms; one that is left open is NaN. Returns how many are."""
    nan, steps = np.uint32(to.sign_bit), to.steps_in_two
    lowest, greatest, overflow = np.float64(to.lowest), np.float64(to.max_magnitude), np.float64(to.overflow)
    smallest = 1.0 if to.saturate else 0.0
    # cells in a code step
    per = CELLS / steps
    # the error of K counts up to 37 times by its product, with so many octaves, and less than twice by u
    error = steps * POSITION_ERROR + 64.0 * to.steps_error
    count = 0
    for i in range(out.size):
        code_a, code_c, hi = np.uint32(a[i]), np.uint32(c[i]), max(log_a[i], log_c[i])
        z = abs(log_a[i] - log_c[i])
        opposed = (code_a ^ code_c) & nan != 0
        # u is the distance in octaves; all of this is without a branch, truths are numbers
        r = steps * log2_of_sum(z * per, opposed)
        whole = np.rint(r)
        rest = r - whole
        # integers in doubles, exact below 2^53; the part of a step is kept apart, with all its bits
        m = (hi - lowest + 1.0) + whole
        from_half = (m - 1.0) + rest + steps
        # the two sums that are zero, whatever the logarithm of them came out as
        zero = hi == _NOTHING or (opposed and z == 0.0)
        is_open = (abs(rest) > 0.5 - error or abs(from_half) < 2.0 * error) and not zero
        count += is_open
        below = 1.0 if from_half >= 0.0 else smallest
        # selections, from the range inwards; -1 is NaN
        m = overflow if m > greatest else (below if m < 1.0 else m)
        m = 0.0 if zero else m
        sign = (code_a if log_a[i] >= log_c[i] else code_c) & nan
        code = np.uint32(np.int32(m)) | (sign if m > 0.0 else np.uint32(0))
        out[i] = nan if code_a == nan or code_c == nan or m < 0.0 or is_open else code
    return count


_BLOCK = 1024


@kernel
def _add_blocks(a, a_shift, c, c_shift, to, out, hard):  # type: ignore[no-untyped-def]
    """Block after block, logarithms in the nearest cache; writes the indices left open, and returns how many."""
    logs_a, logs_c = np.empty(_BLOCK), np.empty(_BLOCK)
    nan, count = to.sign_bit, 0
    for begin in range(0, out.size, _BLOCK):
        end = min(begin + _BLOCK, out.size)
        x, y, log_a, log_c = a[begin:end], c[begin:end], logs_a[: end - begin], logs_c[: end - begin]
        _logarithms(x, to.max_magnitude, a_shift if a_shift.size == 1 else a_shift[begin:end], log_a)
        _logarithms(y, to.max_magnitude, c_shift if c_shift.size == 1 else c_shift[begin:end], log_c)
        if _add(x, y, log_a, log_c, to, out[begin:end]):
            for i in range(begin, end):
                if out[i] == nan and a[i] != nan and c[i] != nan:
                    hard[count] = i
                    count += 1
    return count


_LEAST = 1 << 16


def add(a: Operand, c: Operand, to: Target, out: NDArray[Any]) -> NDArray[np.int64] | None:
    """Write the codes of a + c, all of one format; the indices that are left open. None where this cannot serve."""
    if to.mode != NEAREST or to.steps_in_two > MOST_STEPS:
        return None

    def part(begin: int, end: int, hard: NDArray[np.int64]) -> int:
        x, y = a.part(begin, end), c.part(begin, end)
        count: int = _add_blocks(x.codes, x.shift, y.codes, y.shift, to, out[begin:end], hard)
        return count

    return in_parts(part, out.size, _LEAST)
