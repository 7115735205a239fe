"""Rounding to the grid of a format, and the random bits for it.

`settle` turns a position on the logarithmic axis, in code steps and with a bound of its error, into the magnitude that
the rounding mode wants, or says that the error leaves it open. All operations that round end in it.

Random bits are a pure function of (seed, stream, step, element index). Philox 4x32-10 (Salmon, Moraes, Dror, Shaw:
Parallel random numbers, as easy as 1, 2, 3, SC11) maps a 128-bit counter and a 64-bit key to 128 bits. Here

    key = seed,   counter = (index // 4, step, stream),   element `index` takes word index % 4 of the block,

so the bits of an element do not depend on how many threads, devices or shards share the work, nor on what was drawn
before: whoever knows the four numbers can draw them again.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple, get_args

import numpy as np

from lnsnum import exact
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow
from lnsnum.kernels.compiling import kernel

UInt32Array = np.ndarray[Any, np.dtype[np.uint32]]

_ROUNDS = 10
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
RANDOM_BLOCKS = 256


@kernel
def philox(block, step, stream, seed, w0, w1, w2, w3):  # type: ignore[no-untyped-def]
    """Philox 4x32-10: block + j has the counter (its low word, its high word, step, stream) and becomes w0[j] to w3[j].

    Words are held in 64 bits, so that a product of two is one instruction and the loop over blocks becomes vectors.
    """
    for j in range(w0.size):
        index = np.uint64(block + j)
        c0, c1, c2, c3 = index & _LOW, index >> _HALF, np.uint64(step), np.uint64(stream)
        k0, k1 = np.uint64(seed) & _LOW, np.uint64(seed) >> _HALF
        # the factors are below 2^32, so their product is exact in 64 bits: its high word is >> 32, its low one & _LOW
        for _ in range(_ROUNDS):
            even, odd = c0 * _M0, c2 * _M1
            c0, c1, c2, c3 = (odd >> _HALF) ^ c1 ^ k0, odd & _LOW, (even >> _HALF) ^ c3 ^ k1, even & _LOW
            # the key of the next round: Weyl sequences, modulo 2^32
            k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
        w0[j], w1[j], w2[j], w3[j] = c0, c1, c2, c3


@kernel
def _interleave(w0, w1, w2, w3, out):  # type: ignore[no-untyped-def]
    for j in range(out.size >> 2):
        out[4 * j], out[4 * j + 1], out[4 * j + 2], out[4 * j + 3] = w0[j], w1[j], w2[j], w3[j]


@kernel
def fill_random_bits(out: UInt32Array, start: int, seed: int, stream: int, step: int) -> None:
    """Write the random words of the elements `start`, `start + 1`, ... into `out`."""
    fill_random_words(out, start, seed, stream, step, np.empty((4, RANDOM_BLOCKS), np.uint32))


@kernel
def fill_random_words(out, start, seed, stream, step, words):  # type: ignore[no-untyped-def]
    """`fill_random_bits` with memory for its blocks, uint32 of (4, RANDOM_BLOCKS): for who calls it often."""
    block, skipped, done = start >> 2, start & 3, 0
    while done < out.size:
        # a shard may begin within a block: that is made whole, and its first words are skipped
        blocks = min(RANDOM_BLOCKS, (out.size - done + skipped + 3) >> 2)
        philox(block, step, stream, seed, words[0, :blocks], words[1, :blocks], words[2, :blocks], words[3, :blocks])
        # whole blocks go out in a loop without an index to compute
        if skipped == 0 and out.size - done >= 4 * blocks:
            _interleave(words[0], words[1], words[2], words[3], out[done : done + 4 * blocks])
            done += 4 * blocks
        else:
            count = min(4 * blocks - skipped, out.size - done)
            for i in range(count):
                out[done + i] = words[(skipped + i) & 3, (skipped + i) >> 2]
            done += count
        block += blocks
        skipped = 0


def _check_range(what: str, given: int, bits: int) -> int:
    given = operator.index(given)
    if not 0 <= given < 1 << bits:
        raise ValueError(f"{what}={given} is out of range: 0 to 2^{bits} - 1")
    return given


def check_key(seed: int, stream: int, step: int) -> tuple[int, int, int]:
    """The three numbers by which random bits are drawn; errors as of `random_bits`."""
    return _check_range("seed", seed, 63), _check_range("stream", stream, 32), _check_range("step", step, 32)


def random_bits(
    shape: int | tuple[int, ...], *, seed: int, stream: int = 0, step: int = 0, start: int = 0
) -> UInt32Array:
    """32 random bits for each element of an array of `shape`.

    Args:
        shape: the array's shape.
        seed: 0 to 2^63 - 1. The same seed, stream, step and start give the same bits, everywhere.
        stream: which array of a program, 0 to 2^32 - 1.
        step: how often that array has been drawn before, 0 to 2^32 - 1.
        start: index of the first element within the whole array (a shard's place), row-major.

    Raises:
        TypeError: where an argument is no integer.
        ValueError: where one is out of range.

    >>> bits = random_bits(4, seed=0)
    >>> [f"{b:08x}" for b in bits]  # Random123's known answer for a zero counter and key
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    >>> bool((random_bits(2, seed=0, start=2) == bits[2:]).all())
    True
    """
    seed, stream, step = check_key(seed, stream, step)
    start = _check_range("start", start, 62)
    shape = tuple(shape) if isinstance(shape, Iterable) else (operator.index(shape),)
    if any(length < 0 for length in shape):
        raise ValueError(f"shape={shape} has a negative length")
    out = np.empty(math.prod(shape), np.uint32)
    fill_random_bits(out, start, seed, stream, step)
    return out.reshape(shape)


class Target(NamedTuple):
    """Where a result goes, as numbers that kernels take: `target` makes it."""

    lowest: int
    """E of the smallest magnitude, m = 1."""
    max_magnitude: int
    overflow: int
    """What an overflow becomes: the greatest m, or -1 for NaN."""
    saturate: bool
    """Whether an underflow becomes the smallest, whatever the mode."""
    mode: int
    """Index into `MODES`."""
    sign_bit: int
    steps_in_two: float
    """K = 2^F log_base 2, code steps in a factor of 2."""
    steps_error: float
    """Bound of the error of K; 0 where it is exact, as at base 2."""
    log_step: float
    """ln of one code step."""


MODES: tuple[Rounding, ...] = get_args(Rounding)
NEAREST, TOWARD_ZERO, UP, DOWN, STOCHASTIC_LOG, STOCHASTIC_VALUE, AWAY_FROM_ZERO = range(7)

DOUBT = -2
"""What `settle` answers where the error of the position leaves the result open: `lnsnum.kernels.decide` is to say."""

UNBOUNDED = 1 << 42
"""A range of magnitudes, to either side of 1, that no result leaves: for finding where results lie."""


@lru_cache(maxsize=4096)
def target(
    fmt: LNSFormat,
    log_offset: int,
    *,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
) -> Target:
    """The target for codes of `fmt` at `log_offset`."""
    steps, error = steps_in_two(fmt)
    return Target(
        lowest=log_offset - fmt.max_log,
        max_magnitude=fmt.max_magnitude,
        overflow=fmt.max_magnitude if overflow == "saturate" else -1,
        saturate=underflow == "saturate",
        mode=MODES.index(rounding),
        sign_bit=fmt.sign_bit,
        steps_in_two=steps,
        steps_error=error,
        log_step=math.log(2.0) / steps,
    )


def unbounded(to: Target) -> Target:
    """The same rounding with room for every magnitude; the stochastic modes round away from zero, as no draw passes."""
    mode = AWAY_FROM_ZERO if to.mode in (STOCHASTIC_LOG, STOCHASTIC_VALUE) else to.mode
    return to._replace(
        # the sign bit only has to lie above all magnitudes
        lowest=-UNBOUNDED,
        max_magnitude=2 * UNBOUNDED,
        overflow=2 * UNBOUNDED,
        sign_bit=4 * UNBOUNDED,
        mode=mode,
    )


@kernel
def at_offset(to, offset):  # type: ignore[no-untyped-def]
    """The target for an element whose scale is `offset` above that of `to`."""
    return Target(
        to.lowest + offset,
        to.max_magnitude,
        to.overflow,
        to.saturate,
        to.mode,
        to.sign_bit,
        to.steps_in_two,
        to.steps_error,
        to.log_step,
    )


@lru_cache(maxsize=1024)
def steps_in_two(fmt: LNSFormat) -> tuple[float, float]:
    """K = 2^F log_base 2, and a bound of its error: 0 where it is a double.

    >>> from lnsnum.format import lns8f5
    >>> steps_in_two(lns8f5)
    (32.0, 0.0)
    """
    ratio = exact.log_ratio(2.0, fmt.base)
    if ratio is not None:
        steps = ratio * (1 << fmt.fraction_bits)
        return float(steps), 0.0 if Fraction(float(steps)) == steps else float(steps) * 2.0**-52
    precision = 192
    _, high = exact.log2_bracket(fmt.base, precision)
    # the bracket is 2^-192 wide, which no double shows: what is left is the rounding, half of the bound
    steps_float = float(Fraction(1 << (fmt.fraction_bits + precision), high))
    return steps_float, steps_float * 2.0**-52


@lru_cache(maxsize=1024)
def whole_steps_in_two(fmt: LNSFormat) -> int:
    """floor(K), exactly; at most 2^40, beyond all differences of magnitudes.

    >>> near_nine = LNSFormat(8, 3, base=1.851749424574581)
    >>> whole_steps_in_two(near_nine), steps_in_two(near_nine)[0]
    (8, 9.0)
    """
    return min(exact.floor_log(1, 1, fmt.base, fmt.fraction_bits), 1 << 40)


@kernel
def settle(whole, r, error, random, negative, to):  # type: ignore[no-untyped-def]
    """The magnitude of base^((whole + r) / 2^F): 0, 1 to the greatest, what overflow becomes, or DOUBT.

    docs/number_format.md, "Encode". `whole` is an int64, r a double within `error` of the exact position; 0 says that r
    is exact. `random` (uint32) are the bits of the stochastic modes; `negative` is the sign of the number, for the
    directed ones.
    """
    mode = to.mode
    # as integers first: two great numbers that are near would lose their last bits as doubles
    below = np.float64(to.lowest - whole)  # where r is the smallest magnitude
    upwards = mode == AWAY_FROM_ZERO or (mode == UP and not negative) or (mode == DOWN and negative)
    # a step beyond the greatest, which is at below + max_magnitude - 1: no mode comes back from there
    if r - error > below + to.max_magnitude:
        return to.overflow
    # a step below the smallest no mode reaches it by rounding E: the rules of underflow alone
    if r + error < below - 1.0:
        return _underflow(r - below, error, random, upwards, to)
    # floor(r) would be no int64; written so that NaN goes the same way
    if not abs(r) < 1e18:
        return DOUBT
    down = math.floor(r)
    frac = r - down
    log = whole + np.int64(down)
    if mode == NEAREST:
        # an error of 0 is below nothing: an exact r is never in doubt, and at 0.5 it is a tie
        if abs(frac - 0.5) < error:
            return DOUBT
        log += np.int64(frac > 0.5 or (frac == 0.5 and log & 1 == 1))
        # what rounds to the smallest may lie below it, where not the axis decides but half of its value
        if log <= to.lowest:
            return _underflow(r - below, error, random, upwards, to)
        m = log - to.lowest + 1
        return m if m <= to.max_magnitude else to.overflow
    if r + error < below:
        return _underflow(r - below, error, random, upwards, to)
    # exact: 32 bits fit a double
    share = random / 4294967296.0
    # the other modes turn on floor(r), and the error could carry r across the grid point next to it
    if r - error < below or frac < error or 1.0 - frac < error:
        # to that point every draw leads, from either side, but those at the ends: the position is within twice the
        # error of it, and a probability that much from 0 or 1 times its slope, of which more below
        end = 2.0 * error * (to.log_step + 1.0) + 1e-13
        if (mode != STOCHASTIC_LOG and mode != STOCHASTIC_VALUE) or not end < share < 1.0 - end:
            return DOUBT
        m = whole + np.int64(math.floor(r + 0.5)) - to.lowest + 1
        return m if m <= to.max_magnitude else to.overflow
    if frac > 0.0:
        if mode == STOCHASTIC_LOG:
            if abs(share - frac) < error:
                return DOUBT
            upwards = share < frac
        elif mode == STOCHASTIC_VALUE:
            # the slope of p is log_step / (1 - exp(-log_step)) at most, which is below log_step + 1; 1e-13 is for the
            # roundings of expm1 and of the quotient, whoever's mathematical library it is
            p = math.expm1(frac * to.log_step) / math.expm1(to.log_step)
            if abs(share - p) < error * (to.log_step + 1.0) + 1e-13:
                return DOUBT
            upwards = share < p
        log += np.int64(upwards)
    m = log - to.lowest + 1
    return m if m <= to.max_magnitude else to.overflow


@kernel
def _underflow(above, error, random, upwards, to):  # type: ignore[no-untyped-def]
    """0 or 1: what a number below the smallest becomes, or in nearest one that rounds to it.

    `above` is the position from that of the smallest.
    """
    if to.saturate:
        return 1
    if to.mode in (NEAREST, STOCHASTIC_LOG):
        # half of the smallest lies K steps below it
        from_half = above + to.steps_in_two
        if abs(from_half) < error + to.steps_error:
            return DOUBT
        return np.int64(from_half >= 0.0)
    if to.mode == STOCHASTIC_VALUE:
        # x / smallest; its slope is log_step p, and p is below 1
        p = math.exp(above * to.log_step)
        share = random / 4294967296.0
        # a share of 0 is below every p, also where exp gave 0
        if abs(share - p) < error * to.log_step + 1e-13:
            return 1 if random == 0 else DOUBT
        return np.int64(share < p)
    return np.int64(upwards)


@kernel
def pack(m, sign, sign_bit):  # type: ignore[no-untyped-def]
    """The code of a magnitude and a sign; m = -1 stands for NaN, and zero has no sign."""
    if m < 0:
        return sign_bit
    return m + sign * sign_bit if m > 0 else m
