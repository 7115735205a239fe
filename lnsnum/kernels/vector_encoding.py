"""Float -> code in vectors: the position on the logarithmic axis from a short polynomial, and a margin for its error.

    x = 2^e m,  m from sqrt(1/2) to sqrt(2),      E  =  K e  +  K (m - 1) P(m - 1),      K = 2^F log_base 2, an integer

Codes of at most 8 bits to nearest are looked up instead (`lnsnum.kernels.row_encoding`).

Each kernel is one loop without a branch, in 32-bit lanes (of float32 numbers, formats up to 16 bits) or 64-bit
ones, and rounds as `lnsnum.kernels.rounding.settle` does. An element whose position is within the margin of where its
rounding would change, about one in 2^21 / K of float32 numbers, is flagged, and `lnsnum.encoding` decides it. In
float32 the margin is no estimate: there are 2^23 mantissas, and the tests try all of them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.elementary import LOG2_ERROR, log2_significand
from lnsnum.kernels.rounding import DOWN, NEAREST, RANDOM_BLOCKS, STOCHASTIC_VALUE, UP, Target, fill_random_words
from lnsnum.kernels.scales import Scales, Walk, spread

SINGLE_ERROR = 2.0**-22
"""Bound of the error of a position in octaves, from float32 lanes."""

MOST_STEPS = 1 << 12
"""Up to this K float32 lanes flag few elements."""

CHUNK = 1024

_SQRT_HALF = np.int32(0x3F3504F3)
_ONE_OCTAVE = np.int32(0x7FFFFF)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_INFINITY = np.int32(0x7F800000)
_LEAST_NORMAL = np.int32(0x00800000)
_P0, _P1, _P2, _P3, _P4, _P5, _P6, _P7 = (
    np.float32(float.fromhex(c))
    for c in (
        "0x1.715476p+0", "-0x1.71552cp-1", "0x1.ec756ep-2", "-0x1.70dedep-2",
        "0x1.262f0ep-2", "-0x1.fe823ap-3", "0x1.dc78f6p-3", "-0x1.245f3ap-3",
    )
)  # fmt: skip
"""log2(1 + f) / f, minimax in absolute error by Remez' exchange on sqrt(1/2) - 1 to sqrt(2) - 1."""


class Lane(NamedTuple):
    """What the loops of 32-bit lanes take, made by `lane` from a `Target`: int32 numbers, or float32 where it says."""

    octave: Any
    """K."""
    steps: Any
    """K as a float32."""
    margin: Any
    """Of a position, in code steps: a float32."""
    lowest: Any
    """E of the smallest magnitude."""
    half: Any
    """E of half of it."""
    greatest: Any
    """The greatest magnitude."""
    top: Any
    """What becomes of more: the greatest, or the code of NaN, which a sign bit does not change."""
    saturate: Any
    """The least magnitude of what is not zero: 1 or 0."""
    sign_bit: Any
    least: Any
    """The pattern below which subnormal numbers are left open: 0 where all are far below half of the smallest."""


FAR = 1 << 28
"""Beyond this E no float32 is: a range that lies there is as good here, and int32 holds all sums."""


@lru_cache(maxsize=4096)
def lane(to: Target, deep: bool = False) -> Lane:
    """The constants of 32-bit lanes for a target whose K is an integer up to `MOST_STEPS`.

    `deep` says that a subnormal number may be above half of the smallest, or near to it.
    """
    octave = int(to.steps_in_two)
    lowest = min(max(to.lowest, -FAR), FAR)
    return Lane(
        octave=np.int32(octave),
        steps=np.float32(octave),
        margin=np.float32(octave * SINGLE_ERROR),
        lowest=np.int32(lowest),
        half=np.int32(lowest - octave),
        greatest=np.int32(to.max_magnitude),
        top=np.int32(to.sign_bit if to.overflow < 0 else to.overflow),
        saturate=np.int32(to.saturate),
        sign_bit=np.int32(to.sign_bit),
        least=_LEAST_NORMAL if deep else np.int32(0),
    )


class Moves(NamedTuple):
    """What the scales of elements do to a target at log_offset 0, as arrays of a `Scales`."""

    offsets: Any
    """int32 for 32-bit lanes, or int64."""
    per_smallest: NDArray[np.float32]
    """1 / the smallest magnitude, one for each offset; 0 where no quotient by that counts, NaN where float32 might not
    hold it."""
    walk: Walk


def moves(to: Target, scale: Scales) -> Moves:
    """Of 32-bit lanes."""
    offsets = scale.clipped(0, -FAR, FAR, np.int32)
    per_smallest = np.zeros(1, np.float32)
    if to.mode == STOCHASTIC_VALUE:
        exponent = (offsets + to.lowest) / to.steps_in_two
        # a normal number, and quotients of subnormal ones, which processors may flush to zero, below the 2^-20 that
        # `_at_random` leaves open
        sure = (exponent > -105) & (exponent < 126)
        per_smallest = np.exp2(-np.where(sure, exponent, 0.0)).astype(np.float32)
        per_smallest[~sure] = np.nan
        per_smallest[exponent > 150] = 0.0  # as all quotients of floats below 2^128 there
    return Moves(offsets, per_smallest, scale.walk)


@lru_cache(maxsize=64)
def terms(steps: float) -> NDArray[np.float32]:
    """The coefficients of (b^f - 1) / (b - 1), b = 2^(1/steps), from that of f on: six, which are enough from 8 steps
    an octave on, or twelve, which are for one. The array is shared.
    """
    log_step = math.log(2.0) / steps
    count = 6 if steps >= 8 else 12
    return np.array([log_step**k / math.factorial(k) / math.expm1(log_step) for k in range(1, count + 1)], np.float32)


@kernel
def positions(patterns, by, floors, rests):  # type: ignore[no-untyped-def]
    """E = floor + rest of each |x|, an int32 and a float32.

    In a loop of its own, which leaves the processor room for several of its long chains of operations at once. Here and
    below truths meet in & and |, selections are of numbers already computed, and each sum of int32 is brought back to
    int32: what is left has no branch, and vectors of sixteen.
    """
    for i in range(patterns.size):
        # counted from sqrt(1/2), so that the octaves' seams lie there: near 1, from both sides, f is small and
        # the position keeps its relative accuracy
        k = np.int32(np.int32(patterns[i] & _MAGNITUDE) - _SQRT_HALF)
        m = np.int32(np.int32(k & _ONE_OCTAVE) + _SQRT_HALF)
        # exact: m is between 1/2 and 2
        f = np.float32(np.int32(m).view(np.float32) - np.float32(1.0))
        f2 = np.float32(f * f)  # Estrin's order: half of Horner's chain
        p01, p23 = np.float32(_P0 + np.float32(_P1 * f)), np.float32(_P2 + np.float32(_P3 * f))
        p45, p67 = np.float32(_P4 + np.float32(_P5 * f)), np.float32(_P6 + np.float32(_P7 * f))
        low, high = np.float32(p01 + np.float32(p23 * f2)), np.float32(p45 + np.float32(p67 * f2))
        p = np.float32(low + np.float32(high * np.float32(f2 * f2)))
        r = np.float32(np.float32(p * f) * by.steps)
        # the part of an octave and the octaves are added as integers: a float32 sum would lose the low bits
        down = np.float32(np.floor(r))
        whole = np.int32(np.int32(k >> np.int32(23)) * by.octave)
        floors[i] = np.int32(whole + np.int32(down))
        rests[i] = np.float32(r - down)


@kernel
def _move(floors, offsets):  # type: ignore[no-untyped-def]
    """E as at log_offset 0."""
    for i in range(floors.size):
        floors[i] -= offsets[i]


@kernel
def _code(a, pattern, m, by):  # type: ignore[no-untyped-def]
    """The code of a magnitude m >= 0, of which more than the greatest is an overflow; a = 0 is zero."""
    m = by.top if m > by.greatest else m
    m = m if a != np.int32(0) else np.int32(0)
    sign = np.int32(np.int32(pattern >> np.int32(31)) & by.sign_bit)
    return np.int32(m | sign) if m != np.int32(0) else np.int32(0)


@kernel
def _from_half(floor, by):  # type: ignore[no-untyped-def]
    """The magnitude of what is below the smallest, rounded by its distance from half of it: 0 or 1."""
    return min(max(np.int32(np.int32(floor - by.half) + np.int32(1)), by.saturate), np.int32(1))


@kernel
def _open(a, doubtful, by):  # type: ignore[no-untyped-def]
    """1 for what these loops leave open: what is doubtful, not finite, or a subnormal number that counts."""
    return np.uint8((a >= _INFINITY) | ((doubtful | (a < by.least)) & (a != np.int32(0))))


@kernel
def _nearest(patterns, floors, rests, by, out, flags):  # type: ignore[no-untyped-def]
    """To nearest, where a position never is half-way; an underflow by its distance from half of the smallest."""
    half, one = np.float32(0.5), np.int32(1)
    for i in range(patterns.size):
        a, floor, rest = np.int32(patterns[i] & _MAGNITUDE), floors[i], rests[i]
        # no tie: half-way between two codes is irrational, and what lies near it is flagged
        m = np.int32(np.int32(np.int32(floor + np.int32(rest > half)) - by.lowest) + one)
        away = np.float32(abs(np.float32(rest - half)))
        # below the smallest the boundary is half of it, which lies on the grid: there, near a grid point is near it
        doubtful = (away < by.margin) | ((m < one) & (away >= np.float32(half - by.margin)))
        out[i] = _code(a, patterns[i], max(m, _from_half(floor, by)), by)
        flags[i] = _open(a, doubtful, by)


@kernel
def _directed(patterns, floors, rests, by, up_if_positive, up_if_negative, out, flags):  # type: ignore[no-untyped-def]
    """Away from zero for the signs that say so, else toward it."""
    half, one = np.float32(0.5), np.int32(1)
    for i in range(patterns.size):
        a, floor, rest = np.int32(patterns[i] & _MAGNITUDE), floors[i], rests[i]
        # of the floats only powers of two are on the grid: K is an integer, and its other points are irrational
        inexact = np.int32(a & _ONE_OCTAVE) != np.int32(0)  # no power of two
        up = up_if_negative if patterns[i] < np.int32(0) else up_if_positive
        m = np.int32(np.int32(np.int32(floor + np.int32(up * np.int32(inexact))) - by.lowest) + one)
        # rest near 0 or near 1: the grid point next to it may be on the other side
        doubtful = (abs(np.float32(rest - half)) >= np.float32(half - by.margin)) & inexact
        out[i] = _code(a, patterns[i], max(m, np.int32(by.saturate | up)), by)
        flags[i] = _open(a, doubtful, by)


@kernel
def _three_pairs(a, b, c, d, e, f, x, x2):  # type: ignore[no-untyped-def]
    """a + b x + c x^2 + d x^3 + e x^4 + f x^5."""
    low, middle = np.float32(a + np.float32(b * x)), np.float32(c + np.float32(d * x))
    high = np.float32(e + np.float32(f * x))
    return np.float32(low + np.float32(x2 * np.float32(middle + np.float32(x2 * high))))


@kernel
def _at_random(patterns, floors, rests, by, by_value, per_smallest, terms, random, out, flags):  # type: ignore[no-untyped-def]
    """Up with the probability of the rest, or with (b^rest - 1) / (b - 1), b the factor of a step."""
    half, one, unit = np.float32(0.5), np.int32(1), np.float32(2.0**-32)
    for i in range(patterns.size):
        a, floor, rest = np.int32(patterns[i] & _MAGNITUDE), floors[i], rests[i]
        inexact = np.int32(a & _ONE_OCTAVE) != np.int32(0)  # no power of two
        # rounded to 24 bits: the margin below has room for that
        share = np.float32(np.float32(random[i]) * unit)
        p = rest
        if by_value:
            f2 = np.float32(rest * rest)
            p = _three_pairs(terms[0], terms[1], terms[2], terms[3], terms[4], terms[5], rest, f2)
            if terms.size > 6:
                # steps of more than an eighth of an octave: the series goes on
                more = _three_pairs(terms[6], terms[7], terms[8], terms[9], terms[10], terms[11], rest, f2)
                p = np.float32(p + np.float32(np.float32(np.float32(f2 * f2) * f2) * more))
            p = np.float32(p * rest)
        m = np.int32(np.int32(np.int32(floor + np.int32(share < p)) - by.lowest) + one)
        # the slope of p is at most 2 ln 2, for one step an octave, which is below 1.5; 2^-21 is for the roundings of
        # the share and of the polynomial
        margin = np.float32(np.float32(by.margin * np.float32(1.5)) + np.float32(2.0**-21))
        near_grid = abs(np.float32(rest - half)) >= np.float32(half - by.margin)
        # to a grid point all draws lead, from either side, but those at the ends
        away = abs(np.float32(share - p))
        doubtful = ((away < margin) | (near_grid & (away > np.float32(np.float32(1.0) - margin)))) & inexact
        if by_value:
            below = floor < by.lowest
            # below the smallest p is |x| / smallest, rounded twice: the margin of `rare` has room for that
            p = np.float32(np.int32(a).view(np.float32) * per_smallest[i])
            # of NaN it is true that it is not far away
            rare = not abs(np.float32(share - p)) >= np.float32(2.0**-20)
            doubtful = doubtful | (below & rare & (by.saturate == np.int32(0)))
            m = np.int32(by.saturate | np.int32(share < p)) if below else m
        else:
            # half of the smallest lies on the grid, and there no draw has a say
            doubtful = doubtful | (near_grid & inexact & (floor < by.lowest))
            m = max(m, _from_half(floor, by))
        out[i] = _code(a, patterns[i], m, by)
        flags[i] = _open(a, doubtful, by)


@kernel
def _positions_double(patterns, to, floors, rests):  # type: ignore[no-untyped-def]
    """`positions` in doubles, floors as int64, from patterns of float32 or float64; 0 is the rest of a power of 2."""
    octave = np.int64(to.steps_in_two)
    for i in range(patterns.size):
        if patterns.itemsize == 4:  # the bits of a float64, where it is normal and finite
            bits = np.int64(((np.int64(patterns[i]) & 0x7FFFFFFF) << 29) + (896 << 52))
        else:
            bits = np.int64(patterns[i]) & 0x7FFFFFFFFFFFFFFF
        # subnormal numbers and infinities of float32 come out wrong here: they are flagged
        mantissa = bits & 0xFFFFFFFFFFFFF
        log = log2_significand(np.int64(mantissa | 0x3FF0000000000000).view(np.float64))
        # 0 exactly for a power of two, whatever the table gives for m = 1
        r = to.steps_in_two * log if mantissa != 0 else 0.0
        down = np.floor(r)
        floors[i] = ((bits >> 52) - 1023) * octave + np.int64(down)
        rests[i] = r - down


@kernel
def _nearest_double(patterns, floors, rests, to, least, out, flags):  # type: ignore[no-untyped-def]
    """`_nearest` in 64-bit lanes, from patterns of float32 or float64."""
    # K times the bound of log2, doubled for the rounding of K's product
    octave, margin = np.int64(to.steps_in_two), to.steps_in_two * 2.0 * LOG2_ERROR
    single = patterns.itemsize == 4
    infinity = 0x7F800000 if single else 0x7FF0000000000000
    top = np.int64(to.sign_bit if to.overflow < 0 else to.overflow)
    for i in range(patterns.size):
        a = np.int64(patterns[i]) & (0x7FFFFFFF if single else 0x7FFFFFFFFFFFFFFF)
        # all ones or none: patterns are signed, so int64 keeps the sign of 32 bits too
        sign = np.int64(patterns[i]) >> 63
        floor, rest = floors[i], rests[i]
        m = floor + np.int64(rest > 0.5) - to.lowest + 1
        away = abs(rest - 0.5)
        doubtful = (away < margin) | ((m < 1) & (away >= 0.5 - margin))
        m = max(m, min(max(floor - to.lowest + octave + 1, np.int64(to.saturate)), np.int64(1)))
        m = top if m > to.max_magnitude else m
        m = m if a != 0 else np.int64(0)
        out[i] = m | (sign & to.sign_bit) if m != 0 else np.int64(0)
        flags[i] = (a >= infinity) | ((doubtful | (a < least)) & (a != 0))


@kernel
def _collect(flags, n, begin, hard, count):  # type: ignore[no-untyped-def]
    """Append begin + i to `hard` for each flag that is set, eight flags at a look; returns how many there are now."""
    # almost all flags are 0: one comparison for eight of them
    eights = flags.view(np.uint64)
    for j in range((n + 7) >> 3):
        if eights[j] != 0:
            for i in range(8 * j, min(8 * j + 8, n)):
                if flags[i]:
                    hard[count] = begin + i
                    count += 1
    return count


@kernel
def encode_single(patterns, mode, by, moves, terms, random, draws, key, start, out, hard):  # type: ignore[no-untyped-def]
    """Codes of float32 patterns, as int32, of the elements from `start` on; returns how many are left open, their
    indices in `hard`.

    The stochastic modes take `random`, or where it `draws` the words of the elements by the key (seed, stream, step).
    """
    flags = np.zeros(CHUNK, np.uint8)
    own, words = np.empty(CHUNK, np.uint32), np.empty((4, RANDOM_BLOCKS), np.uint32)
    floors, rests = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.float32)
    offsets, per_smallest = np.full(CHUNK, moves.offsets[0]), np.full(CHUNK, moves.per_smallest[0])
    count = 0
    for begin in range(0, patterns.size, CHUNK):
        end = min(begin + CHUNK, patterns.size)
        part, to = patterns[begin:end], out[begin:end]
        positions(part, by, floors, rests)
        if moves.offsets.size > 1:
            spread(moves.offsets, moves.walk, start + begin, offsets[: end - begin])
        _move(floors, offsets)
        if mode == NEAREST:
            _nearest(part, floors, rests, by, to, flags)
        elif mode <= DOWN:
            _directed(part, floors, rests, by, np.int32(mode == UP), np.int32(mode == DOWN), to, flags)
        else:
            if moves.per_smallest.size > 1:
                spread(moves.per_smallest, moves.walk, start + begin, per_smallest[: end - begin])
            by_value = mode == STOCHASTIC_VALUE
            if draws:
                fill_random_words(own[: end - begin], start + begin, key[0], key[1], key[2], words)
                _at_random(part, floors, rests, by, by_value, per_smallest, terms, own, to, flags)
            else:
                _at_random(part, floors, rests, by, by_value, per_smallest, terms, random[begin:end], to, flags)
        count = _collect(flags, end - begin, begin, hard, count)
    return count


@kernel
def encode_double(patterns, to, least, moves, start, out, hard):  # type: ignore[no-untyped-def]
    """Codes of float32 or float64 patterns, as signed integers, to nearest; returns how many it leaves open, their
    indices in `hard`. Subnormal numbers are left open below the pattern `least`."""
    flags, floors, rests = np.zeros(CHUNK, np.uint8), np.empty(CHUNK, np.int64), np.empty(CHUNK)
    offsets = np.full(CHUNK, moves.offsets[0])
    count = 0
    for begin in range(0, patterns.size, CHUNK):
        end = min(begin + CHUNK, patterns.size)
        part = patterns[begin:end]
        _positions_double(part, to, floors, rests)
        if moves.offsets.size > 1:
            spread(moves.offsets, moves.walk, start + begin, offsets[: end - begin])
        _move(floors, offsets)
        _nearest_double(part, floors, rests, to, least, out[begin:end], flags)
        count = _collect(flags, end - begin, begin, hard, count)
    return count
