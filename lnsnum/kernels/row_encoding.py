"""float32 -> code of at most 8 bits to nearest, by the upper half of the float: one look-up, one addition.

    u  =  (table[upper half] + lower half) >> 16,      u = 2 K log2|x| rounded down, counted from `_ONE`, K up to 32

Numbers with one upper half lie so near to each other that at most one step of u falls between them. The table has in
its own upper half the u at which they begin, and in the lower one 2^16 less the lower half of the float at which the
step is: the carry of the addition is the step. A step is half a code step, so that E to nearest and what lies above
half of the smallest are u shifted. The floats at which u steps are exact (`lnsnum.kernels.thresholds`), and nothing is
left open. The edges come in a loop of vectors; one table serves all scales.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.rounding import Target
from lnsnum.kernels.scales import Scales, spread
from lnsnum.kernels.thresholds import ONE, threshold

MOST_STEPS = 32
"""Up to this K no two steps of u have one upper half: they are 2^(1/64) - 1 apart, and 2^-7 is less."""

_HALF = np.uint32(16)
_LOWER = np.uint32(0xFFFF)

_ONE = 10_000
"""u of 1, even; no normal float32 has u = 0 or 1."""

_FAR = 12_000
"""Twice this is above all u of numbers."""

_MAGNITUDE = np.int16(0x7FFF)
_NAN, _INFINITY = np.int16(0x7FFE), np.int16(0x7FFD)  # 16 bits hold one more


@lru_cache(maxsize=8)
def table(octave: int) -> NDArray[np.uint32]:
    """The table for K = octave, for either sign: that is the top bit of u. It is shared: do not write to it."""
    bits = octave.bit_length()  # of a grid of 2 K steps in an octave
    # as mantissas of the least float32 that is not below a step; the first is that of 1 itself
    steps = np.array([-(-(threshold(bits, "floor", j) - ONE) >> 29) for j in range(2 * octave)], np.int64)
    # where a row of 2^16 mantissas begins, steps are counted; one within it is left for the carry
    begins = np.arange(0, 1 << 23, 1 << 16)
    count = np.searchsorted(steps, begins, side="right") - 1
    after = np.append(steps, 2 << 23)[count + 1] - begins
    mantissas = (count << 16) + np.where(after < 1 << 16, (1 << 16) - after, 0)
    rows = np.empty((256, 128), np.int64)
    exponents = np.arange(1, 255) - 127
    rows[1:255] = ((2 * octave * exponents + _ONE)[:, None] << 16) + mantissas
    # zero is 0, and a subnormal number, which is not asked for more than that it is none, 1
    rows[0] = 1 << 16
    rows[0, 0] = 0xFFFF
    rows[255] = int(_NAN) << 16
    rows[255, 0] = (int(_INFINITY) << 16) + 0xFFFF
    both = np.concatenate([rows.reshape(-1), rows.reshape(-1) + (1 << 31)]).astype(np.uint32)
    both.flags.writeable = False
    return both


@kernel
def _look_up(patterns, table, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = (table[patterns[i] >> _HALF] + (patterns[i] & _LOWER)) >> _HALF


@kernel
def _settle(found, lowest, octave, greatest, overflow, saturate, sign_bit, out):  # type: ignore[no-untyped-def]
    """The codes of u in int16, the sign on top; `lowest` is E of the smallest less 1, counted as u / 2 is."""
    zero, one = np.int16(0), np.int16(1)
    for i in range(out.size):
        u = np.int16(found[i] & _MAGNITUDE)
        m = np.int16(np.int16(np.int16(u + one) >> one) - lowest[i])
        # an integer that lies above half of the smallest: that is K steps below it
        above = np.int16(u >> one) > np.int16(lowest[i] - octave)
        below = one if above else (saturate if u != zero else zero)
        m = below if m < one else m
        # in a wide format infinity would be a number
        m = overflow if (m > greatest) | (u == _INFINITY) else m
        code = np.int16(m | (sign_bit if found[i] < zero else zero)) if m != zero else zero
        out[i] = sign_bit if u == _NAN else code


_BLOCK = 2048


@kernel
def _encode_blocks(patterns, table, values, walk, begin, rules, out):  # type: ignore[no-untyped-def]
    octave, greatest, overflow, saturate, sign_bit = rules
    found, lowest = np.empty(_BLOCK, np.uint16), np.full(_BLOCK, values[0])
    for start in range(0, out.size, _BLOCK):
        end = min(start + _BLOCK, out.size)
        u, low = found[: end - start], lowest[: end - start]
        _look_up(patterns[start:end], table, u)
        if values.size > 1:
            spread(values, walk, begin + start, low)
        _settle(u.view(np.int16), low, octave, greatest, overflow, saturate, sign_bit, out[start:end])


@kernel
def _narrow(found, negative_zero, beyond, nan, out):  # type: ignore[no-untyped-def]
    """The lower bytes, but of the two that a carry would make something else of."""
    zero = np.int16(0)
    for i in range(out.size):
        code = nan if found[i] == beyond else found[i]
        out[i] = zero if found[i] == negative_zero else code


@kernel
def _encode_blocks_of_one(patterns, table, specials, out):  # type: ignore[no-untyped-def]
    negative_zero, beyond, nan = specials
    found = np.empty(_BLOCK, np.uint16)
    for start in range(0, out.size, _BLOCK):
        end = min(start + _BLOCK, out.size)
        _look_up(patterns[start:end], table, found[: end - start])
        _narrow(found[: end - start].view(np.int16), negative_zero, beyond, nan, out[start:end])


class _Rules(NamedTuple):
    """What `_settle` takes beside u, but for the scales."""

    octave: Any
    greatest: Any
    overflow: Any
    saturate: Any
    sign_bit: Any

    @classmethod
    def of(cls, to: Target) -> _Rules:
        overflow = to.sign_bit if to.overflow < 0 else to.overflow
        return cls(*map(np.int16, (to.steps_in_two, to.max_magnitude, overflow, to.saturate, to.sign_bit)))


def _lowest(to: Target, scale: Scales) -> NDArray[np.int16]:
    # what lies further up than all floats may as well lie a little above them; so far down none is asked for
    return scale.clipped(to.lowest - 1 + _ONE // 2, -_FAR, _FAR, np.int16)


@lru_cache(maxsize=16)
def _table_of_one(to: Target, offset: int) -> tuple[NDArray[np.uint32], tuple[Any, ...]]:
    """A table of codes, not of u, for one scale; and what `_narrow` takes."""
    of_all = table(int(to.steps_in_two))
    u, lower = (of_all >> _HALF).astype(np.uint16).view(np.int16), of_all & _LOWER
    lowest = np.full(u.size, _lowest(to, Scales.of(offset, ()))[0])
    first, then = np.empty(u.size, np.uint8), np.empty(u.size, np.uint8)
    _settle(u, lowest, *_Rules.of(to), first)
    _settle(u + np.int16(1), lowest, *_Rules.of(to), then)
    codes, steps = first.astype(np.uint32), (first != then) & (lower > 0)
    # a carry adds 1. Where that is not the next code, another number with the same lower byte begins the row: from a
    # negative number that becomes zero to the smallest, and from the greatest negative one to NaN
    for row in np.flatnonzero(steps & (then != first + 1)):
        codes[row] = 0x100 + to.sign_bit if first[row] == 0 else 0x200 + int(first[row])
    entries = (codes << _HALF) + np.where(steps, lower, np.uint32(0))
    entries.flags.writeable = False
    return entries, tuple(map(np.int16, (0x100 + to.sign_bit, 0x200 + 2 * to.sign_bit, to.sign_bit)))


_LARGE = 1 << 20
"""From this many elements on a table of one scale pays, which takes some tenths of a millisecond."""


def filler(to: Target, scale: Scales, size: int) -> Any:
    """fill(patterns, begin, out): the codes of float32 patterns as uint32, the first of which is element `begin` of
    `size`.

    `to` is the target at log_offset 0, of at most 8 bits and K at most `MOST_STEPS`, and no subnormal number counts at
    any of the scales.
    """
    if scale.single and size >= _LARGE:
        of_one, specials = _table_of_one(to, int(scale.values[0]))

        def fill_with_one(patterns: NDArray[np.uint32], begin: int, out: NDArray[Any]) -> None:
            _encode_blocks_of_one(patterns, of_one, specials, out)

        return fill_with_one
    values, rules, of_all = _lowest(to, scale), _Rules.of(to), table(int(to.steps_in_two))

    def fill(patterns: NDArray[np.uint32], begin: int, out: NDArray[Any]) -> None:
        _encode_blocks(patterns, of_all, values, scale.walk, begin, rules, out)

    return fill
