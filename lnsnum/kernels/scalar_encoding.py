"""Float -> code, one by one: any rounding, any base, any float; exact where the floats of it leave a code open.

    base 2, up to 10 fraction bits    E  =  a count of exact thresholds on the bits of the float: no logarithm
    else                              E  =  K log2 x rounded, K = 2^F log_base 2, with a bound of the error
    within that bound                 the boundary itself, a power of the base; then integers

Here goes what `lnsnum.kernels.vector_encoding` leaves open, and all that it does not take.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import FLOAT_TYPES, Codes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.decide import Sum, Term, Value, resolve
from lnsnum.kernels.elementary import LOG2_ERROR, log2_parts, significands
from lnsnum.kernels.rounding import DOUBT, DOWN, NEAREST, UP, Target, UInt32Array, at_offset, pack, settle
from lnsnum.kernels.thresholds import Side, locate, thresholds

Sides = tuple[Side, Side]
"""To which side of a magnitude a deterministic mode rounds, where x > 0 and where x < 0."""

NO_OFFSETS = np.zeros(1, np.int64)
"""Of elements that all have the target's scale."""

MOST_THRESHOLDS = 10
"""Formats of base 2 up to this many fraction bits encode by a table of thresholds."""


@kernel
def _widen(pattern, single):  # type: ignore[no-untyped-def]
    """Sign and magnitude of a float32 (`single`) or float64 bit pattern, the magnitude as that of a float64."""
    if not single:
        return pattern >> np.uint64(63), pattern & np.uint64(0x7FFFFFFFFFFFFFFF)
    # uint64 throughout: beside a signed number Numba and NumPy would promote it, each in its own way
    sign = pattern >> np.uint64(31)
    exponent = (pattern >> np.uint64(23)) & np.uint64(0xFF)
    mantissa = pattern & np.uint64(0x7FFFFF)
    if exponent == np.uint64(0xFF):
        exponent = np.uint64(0x7FF)
    elif exponent != 0:
        exponent += np.uint64(896)  # 1023 - 127
    elif mantissa != 0:
        # a subnormal float32 is a normal float64: shifted until the leading one is the hidden bit
        exponent = np.uint64(897)
        while mantissa >> np.uint64(23) == 0:
            mantissa = mantissa << np.uint64(1)
            exponent -= np.uint64(1)
        mantissa = mantissa & np.uint64(0x7FFFFF)
    return sign, (exponent << np.uint64(52)) | (mantissa << np.uint64(29))


_ORDINARY = -3
"""What `_special` answers for all others: no magnitude, nor what stands for one."""


@kernel
def _special(a, to):  # type: ignore[no-untyped-def]
    """The magnitude of zero, NaN (-1) and infinity, by the pattern of |x|."""
    infinity = np.uint64(0x7FF0000000000000)
    if a == 0:
        return np.int64(0)
    if a > infinity:
        return np.int64(-1)
    return np.int64(to.overflow) if a == infinity else np.int64(_ORDINARY)


@kernel
def _encode_by_thresholds(patterns, single, positive, negative, floors, offsets, to, out):  # type: ignore[no-untyped-def]
    """Deterministic rounding, with the tables of `locate` for either sign, and for what is below the smallest."""
    stride = 0 if offsets.size == 1 else 1
    for i in range(patterns.size):
        sign, a = _widen(np.uint64(patterns[i]), single)
        m = _special(a, to)
        if m == _ORDINARY:
            # up and down round magnitudes to opposite sides for the two signs
            table = negative if sign else positive
            lowest = to.lowest + offsets[i * stride]
            m = locate(a, table[0], table[1], table[2], table[3]) - lowest + 1
            if m > to.max_magnitude:
                m = to.overflow
            elif m <= 1:
                # what is rounded to the smallest may lie below it, where other rules hold
                above = locate(a, floors[0], floors[1], floors[2], floors[3]) - lowest
                if above < 0 and to.mode == NEAREST:
                    # half of the smallest lies an octave below it
                    m = np.int64(to.saturate or above >= -floors[0])
                elif above < 0:
                    m = np.int64(to.saturate or to.mode == (DOWN if sign else UP))
        out[i] = pack(m, np.int64(sign), to.sign_bit)


@kernel
def _encode_doubles(patterns, table, floors, to, out):  # type: ignore[no-untyped-def]
    """The same where both signs have one table, at one target: for a single number most of the time is arguments."""
    _encode_by_thresholds(patterns, False, table, table, floors, NO_OFFSETS, to, out)


@kernel
def _encode_by_logarithm(patterns, single, random, offsets, to, out, hard):  # type: ignore[no-untyped-def]
    """Any rounding; returns how many elements are left to integers, their indices in `hard`."""
    stride, offset_stride = 0 if random.size == 1 else 1, 0 if offsets.size == 1 else 1
    unresolved = 0
    for i in range(patterns.size):
        sign, a = _widen(np.uint64(patterns[i]), single)
        m = _special(a, to)
        if m == _ORDINARY:
            r, error = _position(np.uint64(a).view(np.float64), to.steps_in_two, to.steps_error)
            own = at_offset(to, offsets[i * offset_stride])
            m = settle(np.int64(0), r, error, random[i * stride], sign != 0, own)
            if m == DOUBT:
                hard[unresolved] = i
                unresolved += 1
        out[i] = pack(m, np.int64(sign), to.sign_bit)
    return unresolved


@kernel
def _position(x, steps_in_two, steps_error):  # type: ignore[no-untyped-def]
    """2^F log_base x of a positive double, and a bound of its error."""
    exponent, log = log2_parts(x)
    # exponent + log rounds once, by 2^-53 of the position: that and K's error are in the relative part
    r = steps_in_two * (exponent + log)
    # r is exact: a power of two where K is exact, which makes it one too, or 1 itself
    if log == 0.0 and (exponent == 0 or steps_error == 0.0):
        return r, 0.0
    return r, steps_in_two * LOG2_ERROR + abs(r) * 2.0**-50


@lru_cache(maxsize=64)
def _tables(fraction_bits: int, sides: Sides) -> tuple[Any, ...]:
    """The thresholds of positive and of negative numbers, and those below the smallest."""
    return tuple(thresholds(fraction_bits, side) for side in (*sides, "floor"))


def encode_each(
    patterns: NDArray[Any],
    random: UInt32Array,
    fmt: LNSFormat,
    to: Target,
    sides: Sides | None,
    out: Codes,
    offsets: NDArray[np.int64] = NO_OFFSETS,
) -> None:
    """The codes of patterns, decided by integers where floating point leaves them open; the stochastic modes have no
    sides. `offsets` move the target, each that of its element, or one that of all."""
    single = patterns.itemsize == 4
    if sides is not None and fmt.base == 2.0 and fmt.fraction_bits <= MOST_THRESHOLDS:
        positive, negative, floors = _tables(fmt.fraction_bits, sides)
        if positive is negative and offsets is NO_OFFSETS and not single:
            _encode_doubles(patterns, positive, floors, to, out)
        else:
            _encode_by_thresholds(patterns, single, positive, negative, floors, offsets, to, out)
        return
    hard = np.empty(patterns.shape, np.int64)
    unresolved = _encode_by_logarithm(patterns, single, random, offsets, to, out, hard)

    def case(i: int) -> tuple[Value, bool, int, float]:
        sign, magnitude = _widen(np.uint64(patterns[i]), single)
        significand, exponent = FLOAT_TYPES["float64"].split(int(magnitude))
        position, _ = _position(np.uint64(magnitude).view(np.float64), to.steps_in_two, to.steps_error)
        return Sum((Term(significand, exponent, Fraction(0)),)), sign != 0, int(random[i % random.size]), position

    # floats near ties of a fine grid come by the thousand: powers of the base settle most, sooner than integers
    left = hard[:unresolved]
    if sides is not None and unresolved > _FEW:
        lowest = to.lowest + (offsets if offsets.size == 1 else offsets[left])
        left = left[_encode_by_powers(patterns[left], left, sides, fmt, to, lowest, out)]
    resolve(left, case, fmt, to, out, offsets)


_FEW = 100
"""So many elements integers decide sooner than the tables of `lnsnum.kernels.elementary` are made."""


@kernel
def _sides(patterns, single, steps_in_two, half, significand, exponent, positions, sides):  # type: ignore[no-untyped-def]
    """Fill in the positions where `sides` is empty; else the side of each float from significand 2^(exponent - 63)."""
    for i in range(patterns.size):
        _, a = _widen(np.uint64(patterns[i]), single)
        if sides.size == 0:
            r, _ = _position(np.uint64(a).view(np.float64), steps_in_two, 1.0)
            # of the boundary next to r: the tie above floor(r), or the grid point nearest to it
            positions[i] = np.int64(math.floor(r) if half else math.floor(r + 0.5))
            continue
        e = np.int64(a >> np.uint64(52)) - 1023
        # the significand with its hidden bit as 64 bits, to be compared with the boundary's 64, the last one sticky
        s = ((a & np.uint64(0xFFFFFFFFFFFFF)) | np.uint64(0x10000000000000)) << np.uint64(11)
        above = e > exponent[i] or (e == exponent[i] and s > significand[i])
        sides[i] = 0 if e == exponent[i] and s == significand[i] else (1 if above else -1)


def _encode_by_powers(
    patterns: NDArray[Any],
    at: NDArray[np.int64],
    sides_of: Sides,
    fmt: LNSFormat,
    to: Target,
    lowest: NDArray[np.int64],
    out: Codes,
) -> NDArray[np.bool_]:
    """Decide floats next to a boundary by comparing them with it, a power of the base; returns which are still open.

    That is the exact comparison of `lnsnum.kernels.thresholds` with a threshold made for each float. Open are those at
    the ends of the range, subnormal floats, and floats so near to a position of 2^50 steps that the boundary itself is
    in doubt.
    """
    single, half = patterns.itemsize == 4, to.mode == NEAREST
    n, sides = np.empty(patterns.shape, np.int64), np.empty(patterns.shape, np.int8)
    nothing = np.empty(0, np.uint64), np.empty(0, np.int64)
    _sides(patterns, single, to.steps_in_two, half, *nothing, n, sides[:0])
    # two codes from either end: there overflow and underflow have rules of their own
    inside: NDArray[np.bool_] = (n > lowest) & (n < lowest + to.max_magnitude - 2) & (to.steps_in_two < 2.0**40)
    normal = (patterns & _MAGNITUDE[single]) >= _LEAST_NORMAL[single]
    open_: NDArray[np.bool_] = ~(inside & normal)
    n, chosen, where = n[~open_], patterns[~open_], at[~open_]
    lowest = lowest if lowest.size == 1 else lowest[~open_]
    boundary = significands(fmt.base, fmt.fraction_bits + half, 2 * n + 1 if half else n)
    sides = np.empty(n.shape, np.int8)
    _sides(chosen, single, to.steps_in_two, half, *boundary, n, sides)
    negative = (chosen & ~_MAGNITUDE[single]) != 0
    if half:
        # a tie that is met goes to the even E; n is below it
        n += (sides > 0) | ((sides == 0) & (n & 1 == 1))
    else:
        upper, lower = (np.array([side == name for side in sides_of]) for name in ("ceil", "floor"))
        sign = negative.astype(np.int64)
        n += ((sides > 0) & upper[sign]).astype(np.int64) - ((sides < 0) & lower[sign])
    out[where] = n - lowest + 1 + np.where(negative, to.sign_bit, 0)
    return open_


_MAGNITUDE: dict[bool, Any] = {True: np.uint32(0x7FFFFFFF), False: np.uint64(0x7FFFFFFFFFFFFFFF)}
_LEAST_NORMAL: dict[bool, Any] = {True: np.uint32(0x00800000), False: np.uint64(0x0010000000000000)}
